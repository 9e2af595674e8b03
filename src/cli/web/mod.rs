//! `stateway web` and `stateway lab web`: a router that runs, looked at in a browser.
//!
//! The page is that of the playground; this serves it on loopback, with a stream of what the router says. Nothing of the router is
//! changed by looking, and only with `--write` by anything else.

mod feed;
mod guard;
mod memory;
mod page;
mod serve;
mod shown;

use super::conntrack::RouterArgs;
use super::{Failure, Result, render};
use anyhow::Context as _;
use guard::{Guard, Token};
use memory::Memory;
use page::Page;
use serve::Site;
use shown::Shown;
use stateway_lab::netns::state::Record;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A router that runs alone, in a browser: its packets as they are judged, each with its whole way, connections and rules.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The router's control socket
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where to listen; port 0 takes a free one. Nothing here is encrypted: what is not loopback is for networks that you trust
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    listen: SocketAddr,
    /// Let the page replace the rules that are in force
    #[arg(long)]
    write: bool,
    /// A page that `scripts/playground` has built, in place of the one that is built in
    #[arg(long, value_name = "FOLDER")]
    page: Option<PathBuf>,
}

/// `stateway web`.
pub(super) fn run(args: &Args) -> Result {
    let shown = Shown::router(&args.control, args.options.write);
    args.options.show(RouterArgs::at(&args.control), shown)
}

/// `stateway lab web`.
pub(super) fn lab(lab: &Path, record: &Record, options: &Options) -> Result {
    options.show(RouterArgs::of(lab), Shown::lab(record, options.write))
}

impl Options {
    fn show(&self, router: RouterArgs, shown: Shown) -> Result {
        let page = match &self.page {
            Some(folder) => Page::read(folder).map_err(Failure::Input)?,
            None => Page::built_in().map_err(Failure::Machine)?,
        };
        // Whether it is there at all is said at once.
        router.connect()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("no event loop").map_err(Failure::Machine)?;
        runtime.block_on(self.serve(router, shown, page)).map_err(Failure::Machine)
    }

    async fn serve(&self, router: RouterArgs, shown: Shown, page: Page) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.listen).await;
        let listener = listener.with_context(|| format!("cannot listen at `{}`", self.listen))?;
        let address = listener.local_addr()?;
        let token = Token::new().context("no chance to make a token of")?;
        let link = format!("http://{address}/{}/", token.text());
        let (router, memory) = (Arc::new(router), Arc::new(Memory::new()));
        feed::begin(Arc::clone(&router), Arc::clone(&memory))?;
        let site = Site { guard: Guard { address, token }, page, shown, memory, router };
        if !address.ip().is_loopback() {
            render::tell(
                "warning: what goes over the network is not encrypted: whoever is on its way reads the link and all else",
            );
        }
        let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .into_iter()
            .map(signal)
            .collect::<std::io::Result<Vec<_>>>()
            .context("cannot catch signals")?;
        render::line(&link);
        render::tell("open this link in a browser; Ctrl-C ends it");
        let serving = axum::serve(listener, serve::routes(Arc::new(site)));
        let ended = futures_util::future::select_all(ends.iter_mut().map(|end| Box::pin(end.recv())));
        // Pages listen for ever: nobody waits for them.
        tokio::select! {
            served = serving => served.context("cannot serve any more"),
            _ = ended => Ok(()),
        }
    }
}

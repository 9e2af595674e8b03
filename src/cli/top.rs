//! `stateway top`: connections, states, rates, rules and drops of a running router, live.
//!
//! One thread asks the router ([`fetch`]), one reads keys, and this one shows what comes ([`live`]). What is shown and which
//! keys do what is [`app`]'s, how it looks [`draw`]'s; neither of them knows a terminal or a router.

use super::conntrack::RouterArgs;
use super::render::{self, Format};
use super::{Failure, Result};
use anyhow::anyhow;
use stateway_runtime::control::{Client, Command, Reply};
use stateway_runtime::terminal;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

mod app;
mod draw;
mod fetch;
mod filter;
mod live;
mod numbers;
mod snapshot;
mod text;

use fetch::{Query, look};
use snapshot::Rates;

const EXAMPLES: &str = "Examples:
  stateway top --lab article               live; `?` shows the keys, `q` ends it
  stateway top --once --format json        two looks, a second apart, for programs
  stateway top --metrics                   what Prometheus collects

Exit codes:
  0  it was ended
  2  there is no such router, or the input is wrong
  3  this machine cannot do it";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    router: RouterArgs,
    /// Print one look and end; so does standard output that is no terminal, or a dumb one
    #[arg(long)]
    once: bool,
    /// Print what Prometheus collects, as for the textfile collector of `node_exporter`, and end
    #[arg(long, conflicts_with_all = ["once", "format"])]
    metrics: bool,
    /// Seconds from one look to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// With --once: how to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: Args) -> Result {
    let mut client = args.router.connect()?;
    let interval = Duration::from_secs_f64(args.interval);
    if args.metrics {
        return metrics(&mut client).map_err(Failure::Input);
    }
    let result = if args.once || args.format == Format::Json || !can_redraw() {
        once(&mut client, interval, args.format)
    } else {
        live::run(client, args.router, interval)
    };
    result.map_err(Failure::Input)
}

fn seconds(text: &str) -> anyhow::Result<f64> {
    let seconds: f64 = text.parse()?;
    if (0.1..=3600.0).contains(&seconds) { Ok(seconds) } else { Err(anyhow!("from 0.1 to 3600")) }
}

fn metrics(client: &mut Client) -> anyhow::Result<()> {
    for reply in client.call(&Command::Metrics)? {
        if let Reply::Text { text } = reply {
            render::line(text.trim_end());
        }
    }
    Ok(())
}

fn can_redraw() -> bool {
    io::stdout().is_terminal() && terminal::can_move()
}

/// Two looks make one rate.
fn once(client: &mut Client, interval: Duration, format: Format) -> anyhow::Result<()> {
    let query = Query { entries: 10, ..Query::default() };
    let before = look(client, &query)?;
    let _ = crossbeam_channel::after(interval).recv();
    let now = look(client, &query)?;
    let rates = Rates::between(&before, &now);
    match format {
        Format::Json => render::json(&serde_json::json!({ "now": now, "rates": rates })),
        Format::Text => {
            for (title, lines) in text::sections(&now, &rates) {
                render::line(&title);
                for line in &lines {
                    render::line(&format!("  {line}"));
                }
            }
        }
    }
    Ok(())
}

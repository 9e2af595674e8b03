//! Answers the clients of the control socket. One thread listens, and two serve each client: one reads lines,
//! one answers, so that a client that asked for a stream can end it.

use super::entries;
use super::events::{Hub, Wants};
use super::protocol::{Command, Interface, MAX_LINE, Named, Reply, Status, VerdictFilter};
use super::{metrics, rules};
use crate::config::Mode;
use crate::conntrack::{Entry, EntryId, listing};
use crate::device::{Link, Port};
use crate::iface::IfaceId;
use crate::runtime::Shared;
use crate::runtime::orders::Order;
use crate::runtime::watch::Subscription;
use crate::time::Instant;
use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Clients served at once; one more is told so and left.
pub const MAX_CLIENTS: usize = 32;
/// A client that does not read for so long is left.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the answers are made from.
#[derive(Clone, Debug)]
pub struct Context {
    pub shared: Arc<Shared>,
    pub orders: Sender<Order>,
    pub mode: Mode,
    /// The file that the router was started with.
    pub file: Option<PathBuf>,
    /// How frames are moved.
    pub burst: &'static str,
    hub: Arc<Hub>,
}

impl Context {
    pub fn new(
        shared: Arc<Shared>,
        orders: Sender<Order>,
        mode: Mode,
        file: Option<PathBuf>,
        burst: &'static str,
    ) -> Self {
        Self { shared, orders, mode, file, burst, hub: Arc::default() }
    }
}

/// A control socket that is being listened on. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `path`, which only the owner of this process can open.
    ///
    /// # Errors
    /// Somebody listens there already, or the path cannot be a socket.
    pub fn listen(path: &Path, context: Context) -> anyhow::Result<Self> {
        if path.as_os_str().len() > super::place::MAX_SOCKET_PATH {
            bail!("`{}` is too long for the path of a socket", path.display());
        }
        super::place::make_room(path)?;
        let listener = bind_privately(path)
            .with_context(|| format!("cannot make the control socket `{}`", path.display()))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let accept = move || accept(&listener, &context, &stop);
        let thread = std::thread::Builder::new().name("control".into()).spawn(accept)?;
        Ok(Self { path: path.to_owned(), stopping, thread: Some(thread) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // The listener wakes for a client, even for this one.
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = fs::remove_file(&self.path);
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Binds under a name that nobody knows, and gives the socket its own once only the owner may open it.
fn bind_privately(path: &Path) -> io::Result<UnixListener> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push("~");
    let hidden = PathBuf::from(hidden);
    // Left by a router that was killed just then.
    if super::place::is_socket(&hidden) {
        let _ = fs::remove_file(&hidden);
    }
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&hidden, path))
        .inspect_err(|_| drop(fs::remove_file(&hidden)))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, context: &Context, stopping: &AtomicBool) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if stream.set_write_timeout(Some(WRITE_TIMEOUT)).is_err() {
            continue;
        }
        let Some(seat) = Seat::take(&clients) else {
            let _ = reply(&stream, &error(format!("{MAX_CLIENTS} clients are being served, try later")));
            continue;
        };
        let context = context.clone();
        let serve = move || {
            // An error here is the client's going.
            let _ = serve(&stream, &context);
            drop(seat);
        };
        if let Err(error) = std::thread::Builder::new().name("client".into()).spawn(serve) {
            tracing::warn!(%error, "no thread for a control client");
        }
    }
}

/// One of the [`MAX_CLIENTS`].
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        if taken.fetch_add(1, Ordering::AcqRel) >= MAX_CLIENTS {
            taken.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Answers one client until it goes.
///
/// # Errors
/// It went before it had all answers.
pub fn serve(stream: &UnixStream, context: &Context) -> io::Result<()> {
    let (sender, lines) = bounded(1);
    let reader = BufReader::new(stream.try_clone()?);
    let read =
        std::thread::Builder::new().name("client-lines".into()).spawn(move || read_lines(reader, &sender))?;
    while let Ok(line) = lines.recv() {
        if line.trim().is_empty() {
            continue;
        }
        let last = match serde_json::from_str(&line) {
            Ok(command) => answer(stream, context, &lines, command)?,
            Err(problem) => error(format!("not a command: {problem}")),
        };
        reply(stream, &last)?;
    }
    let _ = read.join();
    Ok(())
}

fn read_lines(mut reader: BufReader<UnixStream>, lines: &Sender<String>) {
    loop {
        let mut line = String::new();
        match (&mut reader).take(MAX_LINE as u64).read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if lines.send(line).is_err() => return,
            Ok(_) => {}
        }
    }
}

fn reply(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

const fn error(message: String) -> Reply {
    Reply::Error { message }
}

/// Carries a command out. Sends every reply but the last, which it returns.
fn answer(
    stream: &UnixStream,
    context: &Context,
    lines: &Receiver<String>,
    command: Command,
) -> io::Result<Reply> {
    let router = &context.shared.router;
    match command {
        Command::Status => reply(stream, &Reply::Status(status(context)))?,
        Command::Interfaces => reply(stream, &Reply::Interfaces { interfaces: interfaces(context) })?,
        Command::Drops => reply(stream, &Reply::Drops { drops: drops(context) })?,
        Command::Metrics => reply(stream, &Reply::Text { text: metrics::render(&context.shared) })?,
        Command::ConntrackList { filter } => {
            let filter = match entries::read_filter(&filter) {
                Ok(filter) => filter,
                Err(problem) => return Ok(error(problem)),
            };
            let now = context.shared.clock.now();
            let mut entries = Vec::new();
            router.conntrack().for_each(&filter, now, |id, entry| entries.push((Some(id), entry.clone())));
            send_entries(stream, &entries, now)?;
        }
        Command::ConntrackSummary { entries: newest } => {
            let summary = entries::summary(router.conntrack(), newest, context.shared.clock.now());
            reply(stream, &Reply::Summary(summary))?;
        }
        Command::ConntrackDelete { filter } => {
            let filter = match entries::read_filter(&filter) {
                Ok(filter) => filter,
                Err(problem) => return Ok(error(problem)),
            };
            let now = context.shared.clock.now();
            let deleted: Vec<_> =
                router.conntrack().delete(&filter, now).into_iter().map(|entry| (None, entry)).collect();
            send_entries(stream, &deleted, now)?;
        }
        Command::ConntrackFlush => router.conntrack().flush(context.shared.clock.now()),
        Command::ConntrackCount => reply(stream, &Reply::Count { count: router.conntrack().count() as u64 })?,
        Command::ConntrackStats => reply(stream, &stats(context))?,
        Command::ConntrackEvents { filter, expectations, kinds } => match entries::read_filter(&filter) {
            Ok(filter) => conntrack_events(stream, context, lines, Wants { filter, expectations, kinds })?,
            Err(problem) => return Ok(error(problem)),
        },
        Command::ExpectList => {
            let now = context.shared.clock.now();
            let list = router.conntrack().expectations(now);
            let expectations = list.iter().map(|e| entries::view_expectation(e, now)).collect();
            reply(stream, &Reply::Expectations { expectations })?;
        }
        Command::ExpectFlush => router.conntrack().flush_expectations(context.shared.clock.now()),
        Command::SysctlGet { name } => match sysctls(context, name.as_deref()) {
            Ok(sysctls) => reply(stream, &Reply::Sysctls { sysctls })?,
            Err(problem) => return Ok(error(problem)),
        },
        Command::SysctlSet { name, value } => {
            if let Err(problem) = router.conntrack().set_sysctl(&name, &value) {
                return Ok(error(problem.to_string()));
            }
        }
        Command::Rules => reply(stream, &Reply::Rules { rules: rules::count(&router.rules()) })?,
        Command::RulesReplace { rules, rules6 } => {
            if let Err(errors) = router.replace_rules(rules.as_deref(), rules6.as_deref()) {
                let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
                return Ok(error(format!("the old rules stay in force\n{}", list.join("\n"))));
            }
        }
        Command::Reload => {
            const ENDING: &str = "the router is ending";
            let (sender, result) = bounded(1);
            // An order that nobody takes comes back with its sender, and nobody would ever answer.
            if context.orders.send(Order::Reload(Some(sender))).is_err() {
                return Ok(error(ENDING.into()));
            }
            match result.recv() {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => return Ok(error(problem)),
                Err(_) => return Ok(error(ENDING.into())),
            }
        }
        Command::Watch { filter } => watch(stream, context, lines, filter)?,
        Command::Shutdown => {
            // If nobody takes the order any more, it is being carried out already.
            let _ = context.orders.send(Order::Stop);
        }
    }
    Ok(Reply::Done)
}

fn watch(
    stream: &UnixStream,
    context: &Context,
    lines: &Receiver<String>,
    filter: VerdictFilter,
) -> io::Result<()> {
    let subscription = context.shared.watchers.subscribe(filter);
    reply(stream, &Reply::Watching)?;
    pour(stream, lines, &subscription, |verdict| Reply::Verdict(Box::new(verdict)))
}

fn conntrack_events(
    stream: &UnixStream,
    context: &Context,
    lines: &Receiver<String>,
    wants: Wants,
) -> io::Result<()> {
    let subscription = context.hub.subscribe(&context.shared.router, wants);
    reply(stream, &Reply::Watching)?;
    let clock = context.shared.clock;
    pour(stream, lines, &subscription, |event| Reply::Event(Box::new(entries::view_event(&event, &clock))))
}

/// Passes events on until the client sends a line or goes, and then what had happened before that.
fn pour<T>(
    stream: &UnixStream,
    lines: &Receiver<String>,
    subscription: &Subscription<T>,
    wrap: impl Fn(T) -> Reply,
) -> io::Result<()> {
    let pass = |event| {
        if let events @ 1.. = subscription.take_lost() {
            reply(stream, &Reply::Lost { events })?;
        }
        reply(stream, &wrap(event))
    };
    loop {
        select! {
            recv(subscription.events()) -> event => match event {
                Ok(event) => pass(event)?,
                Err(_) => return Ok(()),
            },
            recv(lines) -> _ => break,
        }
    }
    subscription.events().try_iter().try_for_each(pass)?;
    match subscription.take_lost() {
        0 => Ok(()),
        events => reply(stream, &Reply::Lost { events }),
    }
}

/// A long list goes in pieces.
fn send_entries(stream: &UnixStream, entries: &[(Option<EntryId>, Entry)], now: Instant) -> io::Result<()> {
    for piece in entries.chunks(256) {
        let entries = piece.iter().map(|(id, entry)| entries::view(entry, *id, Some(now))).collect();
        reply(stream, &Reply::Entries { entries })?;
    }
    Ok(())
}

fn stats(context: &Context) -> Reply {
    let stats = context.shared.router.conntrack().stats();
    Reply::Stats { line: listing::stats(&stats), stats: metrics::named(&stats) }
}

fn sysctls(context: &Context, name: Option<&str>) -> Result<Vec<Named>, String> {
    let sysctls = context.shared.router.conntrack().sysctls();
    let Some(name) = name else {
        return Ok(sysctls.list().map(|(name, count)| Named { name: name.to_owned(), count }).collect());
    };
    let count = sysctls.get(name).ok_or_else(|| format!("no sysctl named `{name}`"))?;
    Ok(vec![Named { name: name.to_owned(), count }])
}

fn status(context: &Context) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: context.shared.clock.uptime().as_secs_f64(),
        file: context.file.as_ref().map(|f| f.display().to_string()),
        mode: match context.mode {
            Mode::Bridge => "bridge".to_owned(),
            Mode::Route => "route".to_owned(),
        },
        burst: context.burst.to_owned(),
        gone: gone(&context.shared),
    }
}

fn gone(shared: &Shared) -> Vec<String> {
    let ports = shared.ports.iter().enumerate();
    let is_gone = |n: usize, port: &dyn Port| shared.port_states.link(port, IfaceId(n as u16)) == Link::Gone;
    ports.filter(|(n, port)| is_gone(*n, &***port)).map(|(_, port)| port.name().to_owned()).collect()
}

fn drops(context: &Context) -> Vec<Named> {
    context
        .shared
        .router
        .drop_counters()
        .map(|(name, count)| Named { name: name.to_owned(), count })
        .collect()
}

fn interfaces(context: &Context) -> Vec<Interface> {
    let shared = &context.shared;
    let ports = shared.ports.iter().zip(&shared.counters);
    let with_iface = shared.router.ifaces().iter().zip(ports);
    with_iface
        .enumerate()
        .map(|(n, (iface, (port, counters)))| {
            let count = counters.read();
            Interface {
                name: iface.name.clone(),
                mac: iface.mac.to_string(),
                mtu: iface.mtu_bytes,
                addresses: iface.addresses.iter().map(ToString::to_string).collect(),
                device: port.kind().word().to_owned(),
                link: shared.port_states.link(&**port, IfaceId(n as u16)).word().to_owned(),
                rx_frames: count.rx_frames,
                rx_bytes: count.rx_bytes,
                tx_frames: count.tx_frames,
                tx_bytes: count.tx_bytes,
                tx_lost: count.tx_lost,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;

//! `stateway watch`: the packets of a running router as they are judged, a line each.
//!
//! The router never waits for us: what we do not read in time is lost, and it says how many packets that were. We in turn wait
//! for whoever reads our lines, so that nothing piles up here.

mod line;
mod select;

use super::conntrack::RouterArgs;
use super::render::{self, Format};
use super::{Failure, Result};
use anyhow::{Context as _, anyhow};
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use line::Lines;
use rustix::event::{PollFd, PollFlags, poll};
use select::SelectArgs;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use stateway_runtime::control::client::StreamEnd;
use stateway_runtime::control::{Client, Command, Reply};
use std::io::{self, BufWriter, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Packets a second that we want to be told of: more than anybody reads, and some per cent of what a processor can do.
const RATE: u32 = 1000;
/// The same with all rules that looked: that is some kilobytes a packet.
const RATE_OF_WAYS: u32 = 200;
/// Replies that wait for us to print them.
const QUEUE: usize = 256;
/// Whoever interrupts us gets what was judged before that, as long as something comes within so long.
const LAST: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "Examples:
  stateway watch --lab article                    every packet of that lab
  stateway watch --fate dropped,rejected          what is not let through
  stateway watch --state INVALID --explain        and every rule that looked at it
  stateway watch 192.0.2.104 192.0.2.77 --port 22  one conversation
  stateway watch --rule FORWARD/2 --count 1       wait until a rule decides

A line says: the time, the packet's fate, its connection state, the packet, and in the words of `nft monitor trace` where it
came in and left, and which rule decided. Ctrl-C ends it.

Exit codes:
  0  it was ended, or the router was
  1  the router ended before `--count` packets came
  2  the input is wrong
  3  this machine cannot do it";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    router: RouterArgs,
    #[command(flatten)]
    select: SelectArgs,
    /// Show every rule that looked at the packet, and what it said
    #[arg(long)]
    explain: bool,
    /// Be told of at most so many packets a second, those that are not wanted aside; what is beyond is lost, and counted. So the
    /// router is not slowed down. 0: as many as can be read [default: 1000, with --explain 200]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// End after so many packets
    #[arg(long, short = 'c', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// For people, or one JSON object a packet
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    fn per_second(&self) -> Option<u32> {
        match self.rate {
            Some(0) => None,
            Some(rate) => Some(rate),
            None if self.explain => Some(RATE_OF_WAYS),
            None => Some(RATE),
        }
    }
}

pub(super) fn run(args: Args) -> Result {
    let mut client = args.router.connect()?;
    let filter = args.select.filter(&mut client).map_err(Failure::Input)?;
    let begin = |client: &mut Client| {
        client.send(&Command::Watch { filter, explain: args.explain, per_second: args.per_second() })?;
        match client.next_reply()? {
            Some(Reply::Watching) => Ok(()),
            other => Err(anyhow!("the router does not let us watch: {other:?}")),
        }
    };
    begin(&mut client).map_err(Failure::Input)?;
    let show = Show::begin(client, Lines::new(args.format, args.explain)).map_err(Failure::Machine)?;
    render::tell("watching; Ctrl-C ends it");
    show.run(args.count)
}

/// What comes from the router: a reply, `None` at its end, or why there is none.
type Heard = anyhow::Result<Option<Reply>>;

/// A stream of packets that is being shown.
struct Show {
    heard: Receiver<Heard>,
    interrupted: Receiver<()>,
    /// How many lines were written: whoever waits for our end sees that we are at it.
    written: Arc<AtomicU64>,
    end: StreamEnd,
    out: BufWriter<io::Stdout>,
    lines: Lines,
    packets: u64,
    lost: u64,
}

impl Show {
    fn begin(mut client: Client, lines: Lines) -> anyhow::Result<Self> {
        let end = client.stream_end()?;
        let (sender, heard) = bounded(QUEUE);
        let read = move || {
            loop {
                let reply = client.next_reply();
                let is_last = !matches!(reply, Ok(Some(_)));
                if sender.send(reply).is_err() || is_last {
                    return;
                }
            }
        };
        spawn("replies", read)?;
        let written = Arc::new(AtomicU64::new(0));
        let interrupted = listen_to_signals(Arc::clone(&written))?;
        spawn("reader", end_with_the_reader)?;
        let out = BufWriter::new(io::stdout());
        Ok(Self { heard, interrupted, written, end, out, lines, packets: 0, lost: 0 })
    }

    fn run(mut self, count: Option<u64>) -> Result {
        let (mut deadline, mut is_ending) = (never(), false);
        let is_router_gone = loop {
            if count == Some(self.packets) {
                break false;
            }
            select! {
                recv(self.heard) -> heard => match heard.unwrap_or(Ok(None)) {
                    Ok(Some(reply)) => {
                        self.take(reply);
                        if is_ending {
                            deadline = after(LAST);
                        }
                    }
                    Ok(None) => break false,
                    Err(_) => break true,
                },
                recv(self.interrupted) -> _ => {
                    // What was judged before that still comes, unless the router is gone as well.
                    let _ = self.end.end();
                    self.interrupted = never();
                    (deadline, is_ending) = (after(LAST), true);
                },
                recv(deadline) -> _ => break false,
            }
        };
        render::finish(self.out.flush());
        let lost = match self.lost {
            0 => String::new(),
            lost => format!(", {lost} lost (`--rate` says how many are told in a second)"),
        };
        let packets =
            if self.packets == 1 { "1 packet".to_owned() } else { format!("{} packets", self.packets) };
        render::tell(&format!("{packets}{lost}"));
        if !is_router_gone {
            return Ok(());
        }
        render::tell("the router has ended");
        if count.is_some() { Err(Failure::Differs) } else { Ok(()) }
    }

    fn take(&mut self, reply: Reply) {
        let text = match reply {
            Reply::Verdict(verdict) => {
                self.packets += 1;
                self.lines.packet(*verdict)
            }
            Reply::Lost { events } => {
                self.lost += events;
                self.lines.lost(events)
            }
            _ => return,
        };
        let written = self.out.write_all(text.as_bytes());
        self.written.fetch_add(1, Ordering::Relaxed);
        // Who looks on sees it at once, and who reads a flood gets it in large pieces.
        render::finish(written.and_then(|()| if self.heard.is_empty() { self.out.flush() } else { Ok(()) }));
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(run).context("no thread to watch with").map(drop)
}

/// Where it is told that somebody wants us to end.
fn listen_to_signals(written: Arc<AtomicU64>) -> anyhow::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    let (sender, interrupted): (Sender<()>, _) = bounded(1);
    let wait = move || {
        if signals.forever().next().is_some() {
            let _ = sender.send(());
            // Whoever reads our lines may have stopped; a second signal does not wait for that.
            let (mut seen, mut patience) = (0, after(LAST));
            while patience.is_empty() && signals.pending().next().is_none() {
                let _ = after(Duration::from_millis(20)).recv();
                let now = written.load(Ordering::Relaxed);
                if now != seen {
                    (seen, patience) = (now, after(LAST * 2));
                }
            }
            leave();
        }
    };
    spawn("signals", wait)?;
    Ok(interrupted)
}

/// Ends as soon as nobody reads our lines any more, and not when the next packet comes.
fn end_with_the_reader() {
    let stdout = io::stdout();
    // Nothing is asked for: what is told is that the other end has gone.
    if poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None).is_ok() {
        leave();
    }
}

#[expect(clippy::exit, reason = "another thread may wait for a reader that never comes back")]
fn leave() {
    std::process::exit(0);
}

//! What the ports of a lab carry, written to pcapng as it goes, with each packet's verdict as a comment.
//!
//! ```text
//!   tcpdump, one for each port  ──frames──┐
//!                                         ├─ held ──→ files, or standard output
//!   the router's control socket ─verdicts─┘
//! ```
//!
//! Frames are read where the hosts see them. All queues are bounded: where the disk is slower than the lab, it is the
//! kernel that drops frames, and how many is said in the end.

#![forbid(unsafe_code)]

mod held;
mod output;
mod tap;

use super::RouterProcess;
use crate::netns::command::{self, Interrupt, Patience};
use crate::netns::state::Record;
use anyhow::bail;
use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use held::{Captured, Held};
use output::Output;
use stateway_runtime::control::Listening;
use stateway_runtime::control::protocol::Reply;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Frames that were read and not looked at yet.
const QUEUE: usize = 1024;
/// How often what was captured is written out, and the user looked for.
const TICK: Duration = Duration::from_millis(50);
/// In the end, frames that are under way are waited for until none came for so long.
const QUIET: Duration = Duration::from_millis(200);
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Nobody waits longer for the router's last words.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Where a capture goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `PORT.pcapng` for each port.
    Folder(PathBuf),
    /// One file of all ports.
    File(PathBuf),
    /// All ports, for a program that reads them as they come.
    Stdout,
}

/// What is to be captured.
#[derive(Debug)]
pub struct Plan<'a> {
    pub ports: &'a [&'a str],
    pub target: Target,
    /// Until Ctrl-C if there is none.
    pub duration: Option<Duration>,
}

/// What was captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The files, and how many frames each holds; of standard output `-`.
    pub files: Vec<(String, u64)>,
    /// Frames that the kernel dropped because they came too fast.
    pub dropped: u64,
    /// Packets of which the router could not tell what became of them.
    pub untold: u64,
}

/// Captures until the user presses Ctrl-C, the time is over, or nobody reads any more. `ready` is called once every
/// port is listened to.
///
/// # Errors
/// `tcpdump` does not run, the files cannot be written, or the router went away. What was captured is written first.
pub fn capture(
    record: &Record,
    router: &RouterProcess,
    plan: &Plan<'_>,
    interrupt: &Interrupt,
    ready: impl FnOnce(),
) -> anyhow::Result<Summary> {
    let mut output = Output::create(plan)?;
    let (sender, frames) = crossbeam_channel::bounded(QUEUE);
    let taps =
        (0..plan.ports.len()).map(|at| tap::listen(record, (plan.ports, at), sender.clone(), interrupt));
    let mut taps: Vec<tap::Tap> = taps.collect::<anyhow::Result<_>>()?;
    drop(sender);
    let mut verdicts = router.listen(QUEUE)?;
    ready();

    let mut run = Run { held: Held::new(plan.ports), untold: 0 };
    let deadline = plan.duration.map(|duration| command::now() + duration);
    let is_over = |now| interrupt.is_set() || deadline.is_some_and(|deadline| now >= deadline);
    let ended = run.until(is_over, &frames, &verdicts, &mut output);
    run.under_way(&frames);
    let dropped = taps.iter_mut().map(tap::Tap::end).sum();
    run.last_frames(&frames);
    let told = run.last_verdicts(&mut verdicts);
    while let Some(frame) = run.held.take_any() {
        output.write(&frame)?;
    }
    let files = output.finish()?;
    ended.and(told)?;
    Ok(Summary { files, dropped, untold: run.untold })
}

struct Run {
    held: Held,
    untold: u64,
}

impl Run {
    /// Writes what is captured until that is over, or nobody reads it any more.
    fn until(
        &mut self,
        is_over: impl Fn(Instant) -> bool,
        frames: &Receiver<Captured>,
        verdicts: &Listening,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        let mut written_out = command::now();
        loop {
            select! {
                recv(frames) -> frame => match frame {
                    Ok(frame) => self.held.frame(frame, command::now()),
                    Err(_) => bail!("`tcpdump` has ended: was the lab taken down?"),
                },
                recv(verdicts.replies()) -> reply => match reply {
                    Ok(reply) => self.reply(reply?),
                    Err(_) => bail!("the router went away"),
                },
                default(TICK) => {}
            }
            let now = command::now();
            while let Some(frame) = self.held.take(now) {
                match output.write(&frame) {
                    Err(error) if is_broken_pipe(&error) => return Ok(()),
                    result => result?,
                }
            }
            if now.duration_since(written_out) >= TICK {
                written_out = now;
                match output.flush() {
                    Err(error) if is_broken_pipe(&error) => return Ok(()),
                    result => result?,
                }
                if is_over(now) || output.is_unread() {
                    return Ok(());
                }
            }
        }
    }

    fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Verdict(verdict) => self.held.verdict(*verdict),
            Reply::Lost { events } => self.untold += events,
            // Nothing else comes while packets are watched.
            _ => {}
        }
    }

    /// Frames that hosts sent before the end are still in pipes.
    fn under_way(&mut self, frames: &Receiver<Captured>) {
        let mut patience = Patience::new(UNDER_WAY);
        while !patience.is_over() {
            match frames.recv_timeout(QUIET) {
                Ok(frame) => self.held.frame(frame, command::now()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Nobody captures any more: the rest of what was.
    fn last_frames(&mut self, frames: &Receiver<Captured>) {
        while let Ok(frame) = frames.recv_timeout(UNDER_WAY) {
            self.held.frame(frame, command::now());
        }
    }

    fn last_verdicts(&mut self, verdicts: &mut Listening) -> anyhow::Result<()> {
        verdicts.end()?;
        loop {
            match verdicts.replies().recv_timeout(LAST_WORDS) {
                Ok(reply) => self.reply(reply?),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no answer from the router in {} s", LAST_WORDS.as_secs())
                }
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

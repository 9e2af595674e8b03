//! How the process of a router ends for certain.
//!
//! ```text
//!   a panic, in whatever thread ── said, where and why ──→ exit code 101, at once
//!   SIGTERM, SIGINT, `shutdown` ── an orderly end ──────→ exit code 0
//!                                └ if it hangs ─────────→ left as it is after `PATIENCE`
//! ```
//!
//! After a panic nothing is known any more of what threads share, so none is restarted: the process ends, and whoever
//! watches over it starts it again. Nor does an end wait for anybody who does not read what the router writes.

use crate::confine::{self, Role};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// The exit code of a router that ended itself: a thread panicked, or its end hung.
pub const FAILED: i32 = 101;
/// An orderly end is given so long; who ends a router waits for a second at most.
const PATIENCE: Duration = Duration::from_millis(900);
/// Last words are given so long.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Reads what a backtrace needs to name functions, if one is asked for: a confined router opens no file any more.
pub fn read_symbols() {
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        // They are looked up when it is written down, and kept.
        drop(backtrace.to_string());
    }
}

/// From here on, a panic in whatever thread ends the process, and says where it was.
pub fn at_any_panic() {
    std::panic::set_hook(Box::new(|panic| {
        crate::stderr::say(&last_words(panic));
        crate::stderr::flush(LAST_WORDS);
        signal_hook::low_level::exit(FAILED);
    }));
}

fn last_words(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
    let why = panic.payload_as_str().unwrap_or("for no reason that can be printed");
    let backtrace = Backtrace::capture();
    let trace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => "\n  hint: with RUST_BACKTRACE=1 in its environment it says how it came there".to_owned(),
    };
    let thread = thread.name().unwrap_or("without a name");
    format!("error: the router ends, exit code {FAILED}: the thread `{thread}` panicked{place}: {why}{trace}")
}

/// The thread that ends the process when its orderly end takes too long. It waits for nothing but the clock.
#[derive(Clone, Debug)]
pub struct LastResort {
    begun: Sender<()>,
    code: Arc<AtomicI32>,
}

impl LastResort {
    /// # Errors
    /// No thread is to be had.
    pub fn start() -> io::Result<Self> {
        let (begun, has_begun) = unbounded();
        // Before it forwards, a router has nothing to lose.
        let code = Arc::new(AtomicI32::new(0));
        let of_process = Arc::clone(&code);
        let wait = move || wait(&has_begun, &of_process);
        confine::spawn("last-resort", Role::Writer, wait)?;
        Ok(Self { begun, code })
    }

    /// The end has begun: it has `PATIENCE` from here.
    pub fn begin(&self) {
        // Its thread lives as long as the process.
        let _ = self.begun.send(());
    }

    /// From here on, an end that hangs is a failure.
    pub fn is_at_work(&self) {
        self.code.store(FAILED, Ordering::Relaxed);
    }

    /// All that matters is done; if the rest hangs, nothing is amiss.
    pub fn is_done(&self, code: i32) {
        self.code.store(code, Ordering::Relaxed);
    }
}

fn wait(has_begun: &Receiver<()>, code: &AtomicI32) {
    if has_begun.recv().is_err() {
        return;
    }
    let deadline = crossbeam_channel::after(PATIENCE);
    let _ = deadline.recv();
    signal_hook::low_level::exit(code.load(Ordering::Relaxed));
}

/// Waits until whoever holds the other end has ended, but no longer than `patience`; says whether it has.
pub(super) fn has_ended(alive: &Receiver<()>, patience: Duration) -> bool {
    matches!(alive.recv_timeout(patience), Err(RecvTimeoutError::Disconnected))
}

//! System calls that fail now and may not fail a little later: they are made again, at a bounded rate, and counted.

#![forbid(unsafe_code)]

use rustix::io::Errno;
use std::io;
use std::time::Duration;

/// The first pause, and the longest: while memory is short, frames wait in the queues of their ports.
const FIRST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(10);

/// Whether the machine may answer otherwise a little later.
pub(super) fn is_transient(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::AGAIN | Errno::BUSY | Errno::INTR | Errno::NOMEM | Errno::NOBUFS))
}

/// Whether a TAP says that its interface was deleted.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BADFD.raw_os_error())
}

/// How long to leave the machine alone.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    retries: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, retries: 0 }
    }
}

impl Backoff {
    /// A call is to be made again.
    pub(super) fn count(&mut self) {
        self.retries += 1;
    }

    pub(super) fn went_well(&mut self) {
        self.next = FIRST;
    }

    /// Waits a little, and the longer the more often in a row.
    pub(super) fn pause(&mut self) {
        std::thread::park_timeout(self.next);
        self.next = (2 * self.next).min(LONGEST);
    }

    /// A port that was said to be readable could not be read.
    pub(super) fn look_at(&mut self, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
            self.count();
            // Or poll(2) and the read would take turns for ever.
            self.pause();
        }
    }

    /// What came of a sleep in poll(2): whether a frame waits.
    pub(super) fn slept(&mut self, result: io::Result<bool>) -> io::Result<bool> {
        match result {
            Err(error) if is_transient(&error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.count();
                    self.pause();
                }
                Ok(false)
            }
            result => result,
        }
    }

    /// Calls that were made again since the last time.
    pub(super) fn take_retries(&mut self) -> u64 {
        core::mem::take(&mut self.retries)
    }
}

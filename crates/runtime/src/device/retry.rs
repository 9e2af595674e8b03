//! System calls that fail now and may not fail a little later: they are made again, at a bounded rate, and counted.

#![forbid(unsafe_code)]

use super::Port;
use rustix::io::Errno;
use stateway_core::packet::Offload;
use std::io;
use std::time::Duration;

/// The first pause, and the longest: while memory is short, frames wait in the queues of their ports.
const FIRST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(10);
/// How often a frame is sent if that fails for the moment.
const SENDS: usize = 3;

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

    /// Sends a frame as [`Port::send`] does, and again if that fails for the moment; says whether it went.
    pub(super) fn send(&mut self, port: &dyn Port, slot: &mut [u8], len: usize, offload: Offload) -> bool {
        for _ in 0..SENDS {
            match port.send(slot, len, offload) {
                Ok(()) => return true,
                // A full queue stays full for a while: the frame is lost, as on any wire.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || !is_transient(&error) => {
                    return false;
                }
                Err(_) => self.count(),
            }
        }
        false
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::faulty::{Fault, FaultyPort};
    use crate::device::{HEADROOM, memory};
    use std::sync::Mutex;

    #[test]
    fn a_frame_is_sent_again_while_memory_is_short_and_not_when_the_queue_is_full() {
        for (errnos, goes, retries) in [
            (vec![], true, 0),
            (vec![Errno::NOBUFS, Errno::NOMEM], true, 2),
            (vec![Errno::NOBUFS, Errno::NOBUFS, Errno::NOBUFS], false, 3),
            (vec![Errno::AGAIN], false, 0),
            (vec![Errno::IO], false, 0),
        ] {
            let (port, far) = memory::port("a").unwrap();
            let errors = errnos.iter().rev().copied().collect();
            let port = FaultyPort { port, fault: Fault::Refuses(Mutex::new(errors)) };
            let mut backoff = Backoff::default();
            let mut slot = [7; HEADROOM + 1];
            assert_eq!(backoff.send(&port, &mut slot, 1, Offload::NONE), goes, "{errnos:?}");
            assert_eq!(backoff.take_retries(), retries, "{errnos:?}");
            let arrived = far.recv(Duration::from_millis(1)).unwrap();
            assert_eq!(arrived, goes.then(|| vec![7]), "{errnos:?}: once");
        }
    }
}

//! What servers of sockets have in common: a thread that waits for clients until it is told to end, and so many seats.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// When nothing can be taken, for whatever reason, it is tried again after so long.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Where one thread waits for clients, and another tells it to end.
#[derive(Clone, Debug)]
pub(super) struct Door {
    stop: Arc<OwnedFd>,
}

impl Door {
    /// # Errors
    /// No descriptor is to be had.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { stop: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?) })
    }

    /// Has whoever waits end.
    pub(super) fn close(&self) {
        // A full counter means that it was told already.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
    }

    /// Says `false` once the door is closed.
    pub(super) fn wait_for_client(&self, listener: &impl AsFd) -> bool {
        let mut fds = [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => fds[0].revents().is_empty(),
            Err(Errno::INTR) => true,
            Err(_) => {
                self.pause();
                true
            }
        }
    }

    /// Waits for a moment, or until the door is closed.
    pub(super) fn pause(&self) {
        let _ = poll(&mut [PollFd::new(&self.stop, PollFlags::IN)], Some(&PAUSE));
    }
}

/// One of so many.
pub(super) struct Seat(Arc<AtomicUsize>);

impl Seat {
    pub(super) fn take(taken: &Arc<AtomicUsize>, seats: usize) -> Option<Self> {
        if taken.fetch_add(1, Ordering::AcqRel) >= seats {
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

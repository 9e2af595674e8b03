//! How a worker is woken, and how it shows that it is alive.

#![forbid(unsafe_code)]

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// One worker's.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Readable while the worker is to be awake.
    wake: OwnedFd,
    /// Counted by the worker alone.
    turns: AtomicU64,
    /// `turns` when somebody last looked.
    seen: AtomicU64,
}

impl Pulse {
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { wake, turns: AtomicU64::new(0), seen: AtomicU64::new(0) })
    }

    /// Another turn; a plain addition, since nobody else counts.
    pub(super) fn turn(&self) {
        self.turns.store(self.turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(super) fn wake(&self) {
        // A full counter means that it is awake already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The worker is awake, and may sleep again.
    pub(super) fn is_awake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Whether the worker took a turn since the last call; asks it for one until the next.
    pub(super) fn has_turned(&self) -> bool {
        let turns = self.turns.load(Ordering::Relaxed);
        let seen = self.seen.swap(turns, Ordering::Relaxed);
        self.wake();
        turns != seen
    }
}

impl AsFd for Pulse {
    /// Readable once [`Pulse::wake`] was called.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

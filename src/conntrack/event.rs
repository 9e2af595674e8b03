//! What becomes of connections, for those who watch: bounded, so that a slow listener loses events and not packets.

#![forbid(unsafe_code)]

use super::{Entry, Expectation};
use crate::time::Instant;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

/// Events that wait for a listener before they are lost.
const WAITING: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    New,
    Update,
    Destroy,
}

impl EventKind {
    pub const fn word(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Update => "UPDATE",
            Self::Destroy => "DESTROY",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// To a connection, as it was right after.
    Entry { kind: EventKind, at: Instant, entry: Box<Entry> },
    /// To an expectation: made, used or dropped.
    Expectation { kind: EventKind, at: Instant, expectation: Box<Expectation> },
}

/// Where events go, if anybody listens.
#[derive(Debug, Default)]
pub(super) struct Events {
    is_heard: AtomicBool,
    listener: Mutex<Option<Sender<Event>>>,
    lost: AtomicU64,
}

impl Events {
    /// Begins to keep events; a listener that came before hears no more.
    pub(super) fn listen(&self) -> Receiver<Event> {
        let (sender, receiver) = bounded(WAITING);
        *self.listener.lock() = Some(sender);
        self.is_heard.store(true, Ordering::Relaxed);
        receiver
    }

    /// Whether it is worth making events.
    #[inline]
    pub(super) fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed)
    }

    pub(super) fn entry(&self, kind: EventKind, at: Instant, entry: &Entry) {
        if self.is_heard() {
            self.send(Event::Entry { kind, at, entry: Box::new(entry.clone()) });
        }
    }

    pub(super) fn expectation(&self, kind: EventKind, at: Instant, expectation: &Expectation) {
        if self.is_heard() {
            self.send(Event::Expectation { kind, at, expectation: Box::new(expectation.clone()) });
        }
    }

    fn send(&self, event: Event) {
        let mut listener = self.listener.lock();
        match listener.as_ref().map(|sender| sender.try_send(event)) {
            Some(Err(TrySendError::Full(_))) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            Some(Err(TrySendError::Disconnected(_))) => {
                *listener = None;
                self.is_heard.store(false, Ordering::Relaxed);
            }
            Some(Ok(())) | None => {}
        }
    }

    /// Events that no listener took in time.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

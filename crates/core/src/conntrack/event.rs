//! What becomes of connections, for those who watch: bounded, so that a slow listener loses events and not packets.

#![forbid(unsafe_code)]

use super::{Entry, Expectation, ProtoState, Status};
use crate::base::Listener;
use crate::base::time::Instant;
use crate::conntrack::table::entry::Proto;
use bitflags::bitflags;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::Mutex;

/// Events that wait for a listener before they are lost.
const WAITING: usize = 16_384;

/// The kind of an event, as `conntrack -E` tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It began.
    New,
    /// It changed.
    Update,
    /// It ended.
    Destroy,
}

impl EventKind {
    /// `NEW`, `UPDATE` or `DESTROY`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Update => "UPDATE",
            Self::Destroy => "DESTROY",
        }
    }
}

bitflags! {
    /// What happened to a connection, in the kernel's bits (`-j CT --ctevents`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Happened: u16 {
        /// It began.
        const NEW = 1 << 0;
        /// It began, and another connection had announced it.
        const RELATED = 1 << 1;
        /// It ended.
        const DESTROY = 1 << 2;
        /// The first reply came.
        const REPLY = 1 << 3;
        /// It is not evicted any more when the table is full.
        const ASSURED = 1 << 4;
        /// The protocol's state is another.
        const PROTOINFO = 1 << 5;
        /// It has a helper.
        const HELPER = 1 << 6;
        /// Its mark is another.
        const MARK = 1 << 7;
        /// Sequence numbers are adjusted from here on.
        const NATSEQINFO = 1 << 8;
        /// The kernel's bit for security labels, which there are none of here.
        const SECMARK = 1 << 9;
    }
}

impl Happened {
    /// What the first packet of a connection brings about at once.
    pub(super) fn at_first(entry: &Entry) -> Self {
        let mut happened = if entry.status.contains(Status::EXPECTED) { Self::RELATED } else { Self::NEW };
        happened.set(Self::HELPER, entry.helper.is_some());
        happened.set(Self::MARK, entry.mark != 0);
        happened.set(Self::PROTOINFO, !matches!(entry.proto, Proto::Plain));
        happened
    }

    /// What differs between the status and protocol state before a packet and those behind it.
    pub(super) fn between(before: (Status, ProtoState), after: (Status, ProtoState)) -> Self {
        let gained = after.0.difference(before.0);
        let mut happened = Self::empty();
        happened.set(Self::REPLY, gained.contains(Status::SEEN_REPLY));
        happened.set(Self::ASSURED, gained.contains(Status::ASSURED));
        happened.set(Self::PROTOINFO, before.1 != after.1);
        happened
    }
}

/// Which events of a connection are told, where a rule says so; otherwise all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Of what happens to the connection itself.
    pub entry: Happened,
    /// That it announced a connection. Nothing is told of how that ends then.
    pub announced: bool,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// To a connection, as it was right after.
    Entry {
        /// What kind of change it was.
        kind: EventKind,
        /// When.
        at: Instant,
        /// The connection.
        entry: Box<Entry>,
    },
    /// To an expectation: made, used or dropped.
    Expectation {
        /// What kind of change it was.
        kind: EventKind,
        /// When.
        at: Instant,
        /// What is or was expected.
        expectation: Box<Expectation>,
    },
}

/// Where events go, if anybody listens.
#[derive(Debug, Default)]
pub(super) struct Events {
    is_heard: AtomicBool,
    /// `nf_conntrack_events` is 0: nobody hears anything.
    is_off: AtomicBool,
    listener: Mutex<Option<Sender<Event>>>,
    lost: AtomicU64,
}

impl Events {
    /// Begins to keep events; a listener that came before hears no more.
    pub(super) fn listen(&self) -> Listener<Event> {
        let (sender, receiver) = bounded(WAITING);
        *self.listener.lock() = Some(sender);
        self.is_heard.store(true, Ordering::Relaxed);
        Listener::new(receiver)
    }

    /// Whether it is worth making events.
    #[inline]
    pub(super) fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed) && !self.is_off.load(Ordering::Relaxed)
    }

    pub(super) fn switch(&self, is_on: bool) {
        self.is_off.store(!is_on, Ordering::Relaxed);
    }

    /// `happened` is all that one packet did: whoever wants any of it gets the whole event.
    pub(super) fn entry(&self, kind: EventKind, happened: Happened, at: Instant, entry: &Entry) {
        if self.is_heard() && entry.told().is_none_or(|told| told.entry.intersects(happened)) {
            self.send(Event::Entry { kind, at, entry: Box::new(entry.clone()) });
        }
    }

    pub(super) fn expectation(&self, kind: EventKind, at: Instant, expectation: &Expectation) {
        let is_told = expectation.is_told.is_none_or(|told| told && kind == EventKind::New);
        if self.is_heard() && is_told {
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

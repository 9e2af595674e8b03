//! What a person puts into the table or changes in it by hand, as `conntrack -I` and `-U` do.

#![forbid(unsafe_code)]

use super::event::Happened;
use super::sctp::{Sctp, SctpState};
use super::tcp::{Tcp, TcpState};
use super::{Conntrack, Entry, EventKind, Filter, Helper, Proto, Status};
use crate::base::time::{Duration, Instant};
use crate::packet::Tuple;

/// The status bits that a person may set. None of them can be taken away again, as in Linux.
pub const SETTABLE: Status = Status::SEEN_REPLY.union(Status::ASSURED).union(Status::FIXED_TIMEOUT);

/// A connection that no packet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub original: Tuple,
    pub reply: Tuple,
    pub timeout: Duration,
    pub state: DraftState,
    /// Of [`SETTABLE`].
    pub status: Status,
    pub mark: u32,
    pub helper: Option<Helper>,
}

/// Where the protocol of a [`Draft`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DraftState {
    Tcp(TcpState),
    /// With the tags that packets of each direction carry.
    Sctp(SctpState, [u32; 2]),
    /// The protocol has no states.
    Plain,
}

/// Why a draft is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCreated {
    Exists,
    /// `nf_conntrack_max` is reached.
    TableFull,
}

/// What is to be different about connections that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub timeout: Option<Duration>,
    /// Bits that are cleared first, and what is put into the mark by exclusive or: value, mask.
    pub mark: Option<(u32, u32)>,
    /// Of [`SETTABLE`].
    pub status: Status,
}

impl Conntrack {
    /// Puts a connection in that no packet opened.
    ///
    /// # Errors
    /// Why it is not in the table.
    pub fn create(&self, draft: &Draft, now: Instant) -> Result<(), NotCreated> {
        let sysctls = self.sysctls();
        let max = sysctls.max as usize;
        if max != 0 && self.count() >= max {
            return Err(NotCreated::TableFull);
        }
        for tuple in [&draft.original, &draft.reply] {
            self.end_if_over(tuple, now);
            if self.entry_of(tuple, now).is_some() {
                return Err(NotCreated::Exists);
            }
        }
        let proto = match draft.state {
            DraftState::Tcp(state) => Proto::Tcp(Tcp::by_hand(state)),
            DraftState::Sctp(state, tags) => Proto::Sctp(Sctp::by_hand(state, tags)),
            DraftState::Plain => Proto::Plain,
        };
        let mut entry = Entry::new(draft.original, proto, now, &sysctls);
        entry.set_reply(draft.reply);
        entry.expires_at = now + draft.timeout;
        entry.status = draft.status & SETTABLE | Status::CONFIRMED | entry.translation_by_hand();
        entry.mark = draft.mark;
        entry.helper = draft.helper;
        let told = self.events.is_heard().then(|| entry.clone());
        self.put_back(entry).ok_or(NotCreated::Exists)?;
        self.counters.insert.add(1);
        if let Some(entry) = told {
            self.events.entry(EventKind::New, Happened::at_first(&entry), now, &entry);
        }
        Ok(())
    }

    /// Changes what `filter` means; returns how it is then.
    pub fn update(&self, filter: &Filter, change: &Change, now: Instant) -> Vec<Entry> {
        let mut ids = Vec::new();
        self.for_each(filter, now, |id, _| ids.push(id));
        let apply = |entry: &mut Entry| {
            let Change { timeout, mark, status } = *change;
            if let Some(timeout) = timeout {
                entry.expires_at = now + timeout;
            }
            if let Some((value, mask)) = mark {
                entry.mark = entry.mark & !mask ^ value;
            }
            entry.status |= status & SETTABLE;
            entry.clone()
        };
        let changed: Vec<Entry> = ids.into_iter().filter_map(|id| self.table.with(id, apply)).collect();
        for entry in &changed {
            let mut happened = Happened::empty();
            happened.set(Happened::MARK, change.mark.is_some());
            happened.set(Happened::ASSURED, change.status.contains(Status::ASSURED));
            happened.set(Happened::REPLY, change.status.contains(Status::SEEN_REPLY));
            self.events.entry(EventKind::Update, happened, now, entry);
        }
        changed
    }

    /// Shows what `filter` means, and counts its packets and bytes from nothing again.
    pub fn zero_counters(&self, filter: &Filter, now: Instant, mut show: impl FnMut(Entry)) {
        self.for_each(filter, now, |id, _| {
            let read = self.table.with(id, |entry| {
                let before = entry.clone();
                if let Some(rare) = entry.extra.as_mut().and_then(|extra| extra.rare.as_mut()) {
                    rare.counters = [super::Counter::default(); 2];
                }
                before
            });
            read.into_iter().for_each(&mut show);
        });
    }

    /// The number by which people know a connection (`-o id`): the same in each of its events. As in Linux it is a hash
    /// of 32 bits, so that two of very many connections may have the same.
    pub fn number(&self, entry: &Entry) -> u32 {
        self.table.number(&entry.original, entry.began_at)
    }
}

//! What has been seen, and so what to expect.
//!
//! [`Conntrack::track`] says which of the five states a packet has; [`Conntrack::confirm`] enters a new connection
//! into the table, at the end of the packet's way. What happens in between cannot see the difference between
//! a dropped packet and one that never came.

#![forbid(unsafe_code)]

mod announce;
#[doc(hidden)]
pub mod change;
mod confirm;
pub mod event;
pub mod expect;
mod flow;
pub mod helper;
mod icmp;
pub mod listing;
mod protocol;
mod query;
#[doc(hidden)]
pub mod saved;
#[doc(hidden)]
pub mod sctp;
pub mod sysctl;
mod table;
#[doc(hidden)]
pub mod tcp;
mod track;
mod tracked;
mod translate;
mod udp;

#[cfg(test)]
mod tests;

pub use crate::base::InvalidReason;
pub use event::{Event, EventKind, Happened, Told};
pub use expect::Expectation;
pub use flow::flow_of;
pub use helper::Helper;
pub use query::{Filter, FlowFilter, IcmpFilter, NatFilter, Stats, Translated};
pub use sysctl::{SysctlError, Sysctls};
pub use table::ahead::Ahead;
pub use table::entry::{self, Counter, Entry, Proto, Status};
pub use track::Unfit;
pub use tracked::{CtState, Direction, EntryId, Template, Tracked, Tracking, Translation};

use crate::base::time::Instant;
use crate::nat::{Picker, Seeded};
use crate::packet::Tuple;
use arc_swap::ArcSwap;
use core::sync::atomic::{AtomicBool, AtomicU64};
use event::Events;
use expect::Expectations;
use query::Counters;
use std::sync::Arc;
use table::Table;
use table::entry::ProtoState;
use table::hash::Seed;
use table::sources::Sources;

/// Connection tracking: the table, what is expected, and the settings.
#[derive(Debug)]
pub struct Conntrack {
    table: Table,
    expectations: Expectations,
    events: Events,
    sysctls: ArcSwap<Sysctls>,
    /// Changes after the settings did, or what is remembered with them.
    settings_version: AtomicU64,
    /// Given to connections on their usual port, as by a rule for each.
    helpers: Vec<Helper>,
    counters: Counters,
    sources: Sources,
    /// Where searches for ports begin.
    picker: Arc<dyn Picker>,
    /// A translated connection has a helper that rewrites payloads: from then on segments may grow.
    rewrites_payloads: AtomicBool,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self::new(0, Sysctls::default(), Vec::new())
    }
}

impl Conntrack {
    /// Connection tracking with an empty table. `seed` is for the hash: see
    /// [`crate::config::RouterConfig::seed`].
    pub fn new(seed: u64, sysctls: Sysctls, helpers: Vec<Helper>) -> Self {
        let events = Events::default();
        events.switch(sysctls.events != 0);
        Self {
            table: Table::new(seed),
            expectations: Expectations::new(Seed::new(seed)),
            events,
            sysctls: ArcSwap::from_pointee(sysctls),
            settings_version: AtomicU64::new(0),
            helpers,
            counters: Counters::default(),
            sources: Sources::default(),
            picker: Arc::new(Seeded::new(seed)),
            rewrites_payloads: AtomicBool::new(false),
        }
    }

    /// Does what is due: a bounded step. [`Conntrack::poll_timeout`] says when to come back.
    pub fn handle_timeout(&self, now: Instant) {
        self.bury(self.table.reap(now), now);
        for expectation in self.expectations.reap(now) {
            self.events.expectation(EventKind::Destroy, now, &expectation);
        }
    }

    /// When [`Conntrack::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.table.next_due(), self.expectations.next_due()) {
            (Some(table), Some(expectations)) => Some(table.min(expectations)),
            (table, expectations) => table.or(expectations),
        }
    }

    /// Reads or changes the connection behind a packet, under its lock; `None` where there is none (any more).
    ///
    /// What `ct` copied of it is brought up to date.
    pub fn with_entry<T>(&self, ct: &mut Tracked, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let direction = ct.direction;
        let change = |entry: &mut Entry| {
            let result = change(entry);
            (result, entry.mark, entry.helper, entry.verdict[direction as usize])
        };
        let (result, mark, helper, verdict) = match (&mut ct.new, ct.id) {
            (Some(entry), _) => change(entry),
            (None, Some(id)) => self.table.with(id, change)?,
            (None, None) => return None,
        };
        (ct.mark, ct.helper, ct.verdict) = (mark, helper, verdict);
        Some(result)
    }

    /// Changes the mark of the connection behind a packet; whoever listens hears of it, if it is in the table.
    pub fn change_mark(&self, ct: &mut Tracked, now: Instant, change: impl FnOnce(u32) -> u32) {
        let is_heard = self.events.is_heard() && ct.new.is_none();
        let changed = self.with_entry(ct, |entry| {
            let before = entry.mark;
            entry.mark = change(before);
            (is_heard && entry.mark != before).then(|| Box::new(entry.clone()))
        });
        if let Some(entry) = changed.flatten() {
            self.events.entry(EventKind::Update, Happened::MARK, now, &entry);
        }
    }

    /// Whether a confirmed connection of this tuple lives and is not closed (`-m connlimit`).
    pub fn is_open(&self, tuple: &Tuple, now: Instant) -> bool {
        let Some(mut held) = self.table.hold(tuple) else { return false };
        held.entry().is_some_and(|entry| {
            entry.is_alive(now) && !matches!(entry.state_word(), Some("TIME_WAIT" | "CLOSE"))
        })
    }

    /// The helper of the connection that announced this packet's; `None` where there was none, or is none any more.
    pub fn master_helper(&self, ct: &Tracked) -> Option<Helper> {
        let master = self.read_entry(ct, Entry::master)??;
        self.table.with(master, |entry| entry.helper)?
    }

    /// A rule answered the packet with a reset: a confirmed connection is closed by it, as by a segment. One that is
    /// closed already keeps the time that it has.
    pub fn was_reset(&self, ct: &mut Tracked, now: Instant) {
        let life = self.sysctls.load().tcp_timeout_close;
        self.with_entry(ct, |entry| {
            if let Proto::Tcp(tcp) = &mut entry.proto
                && entry.status.contains(Status::CONFIRMED)
                && tcp.state() != tcp::TcpState::Close
            {
                tcp.close();
                entry.expires_at = now + life;
            }
        });
    }

    /// What an error about a packet carries, or a reset by a rule: RELATED, and the other way; without a connection only
    /// that it was not to be tracked.
    ///
    /// A connection that is not in the table yet is shown to rules, but the answer does not bring it there.
    pub fn answer_to(&self, ct: &Tracked) -> Tracked {
        let direction = ct.direction.opposite();
        let mut answer = Tracked { direction, new: ct.new.clone(), ..Tracked::none() };
        let read = self.read_entry(ct, |entry| (entry.tuple(direction), entry.translation(direction)));
        (answer.tuple, answer.translation) = read.map_or((None, None), |(tuple, to)| (Some(tuple), to));
        (answer.status, answer.mark, answer.id) = (ct.status, ct.mark, ct.id);
        if ct.has_entry() {
            answer.state = CtState::Related;
        } else if ct.state == CtState::Untracked {
            answer.state = CtState::Untracked;
        }
        answer
    }

    /// Reads the connection behind a packet, under its lock; `None` where there is none (any more).
    pub fn read_entry<T>(&self, ct: &Tracked, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        match (&ct.new, ct.id) {
            (Some(entry), _) => Some(read(entry)),
            (None, Some(id)) => self.table.with(id, |entry| read(entry)),
            (None, None) => None,
        }
    }
}

//! What others ask of the table: list, find, delete, count, set.

#![forbid(unsafe_code)]

use super::event::Event;
use super::{
    Conntrack, Direction, Entry, EntryId, EventKind, Expectation, Helper, InvalidReason, Proto, Status,
    SysctlError, Sysctls, flow, icmp,
};
use crate::base::Listener;
use crate::base::time::{Duration, Instant};
use crate::nat::{Choice, How, Side};
use crate::packet::{Addr, Family, Packet, Prefix, Tuple};
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// One of the tracker's counters.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) invalid: Count,
    pub(super) error: Count,
    /// Both of these by reason.
    pub(super) reasons: [Count; InvalidReason::COUNT],
    pub(super) insert: Count,
    pub(super) insert_failed: Count,
    pub(super) drop: Count,
    pub(super) early_drop: Count,
    pub(super) clash_resolve: Count,
    /// By [`Side`], and by [`How`] in the order of its words.
    pub(super) translations: [[Count; How::ALL.len()]; Side::ALL.len()],
}

impl Counters {
    /// One end of a connection was translated, or not.
    pub(super) fn translated(&self, side: Side, choice: &Choice) {
        self.translations[side as usize][choice.how as usize].add(1);
    }
}

/// What `conntrack -S` prints, under the kernel's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections in the table.
    pub entries: u64,
    /// Lookups that found a flow where none should have been; stays 0 without address translation.
    pub found: u64,
    /// Packets that were INVALID.
    pub invalid: u64,
    /// Connections that were entered.
    pub insert: u64,
    /// Connections that could not be entered: their tuples were taken.
    pub insert_failed: u64,
    /// New packets that found the table full, or their tuples taken.
    pub drop: u64,
    /// Entries that made room for new ones.
    pub early_drop: u64,
    /// ICMP errors about no known flow, and ICMP that could not be read: INVALID, and counted here alone.
    pub error: u64,
    /// Lookups that had to begin again; there are none here.
    pub search_restart: u64,
    /// New connections that lost a race for their tuple and were joined to the one that won.
    pub clash_resolve: u64,
    /// The kernel's count of chains that are too long; there are none here.
    pub chaintoolong: u64,
    /// Events that no listener took in time.
    pub events_lost: u64,
}

/// Which entries are meant: all that agree with every part that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this kind of address.
    pub family: Option<Family>,
    /// Of this protocol, by its number.
    pub proto: Option<u8>,
    /// In this zone.
    pub zone: Option<u16>,
    /// What the first packet was like.
    pub original: FlowFilter,
    /// What answers are like.
    pub reply: FlowFilter,
    /// The protocol's state, in conntrack's words.
    pub state: Option<String>,
    /// Value and mask of the connection mark.
    pub mark: Option<(u32, u32)>,
    /// Bits that must be set, and bits that must not.
    pub status: Status,
    /// Bits that must not be set.
    pub status_unset: Status,
    /// With this helper.
    pub helper: Option<Helper>,
    /// For pings: what the first packet was like.
    pub icmp: IcmpFilter,
    /// Whether it is translated.
    pub nat: NatFilter,
}

/// What a ping's first packet must be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IcmpFilter {
    /// The ICMP type.
    pub kind: Option<u8>,
    /// The ICMP code.
    pub code: Option<u8>,
    /// The identifier of an echo.
    pub id: Option<u16>,
}

/// Which ends of a connection must be translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatFilter {
    /// Its source is.
    pub source: Option<Translated>,
    /// Its destination is.
    pub destination: Option<Translated>,
    /// One of them at least.
    pub any: Option<Translated>,
}

/// Translated to one of these addresses, or to any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated(pub Option<Prefix>);

/// What one direction of an entry must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// The source is in this network.
    pub src: Option<Prefix>,
    /// The destination is in this network.
    pub dst: Option<Prefix>,
    /// From this port.
    pub sport: Option<u16>,
    /// To this port.
    pub dport: Option<u16>,
}

impl Filter {
    /// Whether an entry agrees with every part that is given.
    pub fn matches(&self, entry: &Entry) -> bool {
        // Named in full: a new part does not compile until it is looked at here.
        let Self {
            family,
            proto,
            zone,
            original,
            reply,
            state,
            mark,
            status,
            status_unset,
            helper,
            icmp,
            nat,
        } = self;
        let tuple = &entry.original;
        family.is_none_or(|family| family == tuple.family)
            && proto.is_none_or(|proto| proto == tuple.proto)
            && zone.is_none_or(|zone| zone == tuple.zone && zone == entry.reply().zone)
            && original.matches(entry, Direction::Original)
            && reply.matches(entry, Direction::Reply)
            && state.as_deref().is_none_or(|state| entry.state_word() == Some(state))
            && mark.is_none_or(|(value, mask)| entry.mark & mask == value)
            && entry.status.contains(*status)
            && !entry.status.intersects(*status_unset)
            && helper.is_none_or(|helper| entry.helper == Some(helper))
            && icmp.matches(tuple)
            && nat.matches(entry)
    }
}

impl IcmpFilter {
    fn matches(self, tuple: &Tuple) -> bool {
        let Self { kind, code, id } = self;
        self == Self::default()
            || tuple.is_icmp()
                && kind.is_none_or(|kind| kind == tuple.icmp_type())
                && code.is_none_or(|code| code == tuple.icmp_code())
                && id.is_none_or(|id| id == tuple.left)
    }
}

impl NatFilter {
    fn matches(&self, entry: &Entry) -> bool {
        let Self { source, destination, any } = *self;
        let (mirror, reply) = (entry.original.reply(), entry.reply());
        let is_source = |to: Translated| to.matches(mirror.dst, mirror.right, reply.dst, reply.right, &reply);
        let is_destination =
            |to: Translated| to.matches(mirror.src, mirror.left, reply.src, reply.left, &reply);
        source.is_none_or(is_source)
            && destination.is_none_or(is_destination)
            && any.is_none_or(|to| is_source(to) || is_destination(to))
    }
}

impl Translated {
    fn matches(self, addr: Addr, port: u16, to: Addr, to_port: u16, reply: &Tuple) -> bool {
        let is_within = |net: Prefix| net.family == reply.family && net.contains(to);
        (addr != to || port != to_port) && self.0.is_none_or(is_within)
    }
}

impl FlowFilter {
    fn matches(&self, entry: &Entry, direction: Direction) -> bool {
        let Self { src, dst, sport, dport } = self;
        let tuple = entry.tuple(direction);
        let within = |net: &Option<Prefix>, addr| {
            net.is_none_or(|net| net.family == tuple.family && net.contains(addr))
        };
        within(src, tuple.src)
            && within(dst, tuple.dst)
            && sport.is_none_or(|port| !tuple.is_icmp() && port == tuple.left)
            && dport.is_none_or(|port| !tuple.is_icmp() && port == tuple.right)
    }
}

impl Conntrack {
    /// How often each way led to what an end of a connection is translated to.
    pub fn translations(&self) -> impl Iterator<Item = (Side, How, u64)> {
        let sides = Side::ALL.iter().zip(&self.counters.translations);
        sides.flat_map(|(side, counts)| {
            How::ALL.iter().zip(counts).map(|(how, count)| (*side, *how, count.get()))
        })
    }

    /// How many packets were INVALID for each reason: those of [`Stats::invalid`] and of [`Stats::error`].
    pub fn invalid_packets(&self) -> impl Iterator<Item = (InvalidReason, u64)> {
        InvalidReason::ALL.iter().copied().zip(self.counters.reasons.iter().map(Count::get))
    }

    /// Shows every living entry that `filter` means.
    pub fn for_each(&self, filter: &Filter, now: Instant, mut show: impl FnMut(EntryId, &Entry)) {
        self.table.for_each(|id, entry| {
            if entry.is_alive(now) && filter.matches(&entry) {
                show(id, &entry);
            }
        });
    }

    /// Every living entry that `filter` means.
    pub fn list(&self, filter: &Filter, now: Instant) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.for_each(filter, now, |_, entry| entries.push(entry.clone()));
        entries
    }

    /// The entry that a packet belongs to, whatever its state is: for an error, that of the packet it quotes.
    pub fn find(&self, pkt: &Packet, zone: u16, now: Instant) -> Option<Entry> {
        let is_error = icmp::is_icmp(pkt.family(), pkt.proto())
            .then(|| icmp::kind(pkt, zone, &Sysctls { checksum: false, ..Sysctls::default() }));
        let tuple = match is_error {
            Some(Ok(icmp::Kind::Error(flow))) => flow,
            _ => flow::tuple(pkt, zone).ok()?,
        };
        self.entry_of(&tuple, now)
    }

    /// Where the TCP connection of a packet stands: the sequence number that its sender goes on with, and what it has to
    /// acknowledge.
    pub fn next_segment(&self, pkt: &Packet, now: Instant) -> Option<(u32, u32)> {
        let tuple = flow::tuple(pkt, 0).ok()?;
        let entry = self.entry_of(&tuple, now)?;
        let dir = if entry.original == tuple { Direction::Original } else { Direction::Reply };
        match &entry.proto {
            Proto::Tcp(tcp) => Some(tcp.next_segment(dir)),
            _ => None,
        }
    }

    /// The living entry that has this tuple, in either direction.
    pub fn entry_of(&self, tuple: &Tuple, now: Instant) -> Option<Entry> {
        self.read_entry_of(tuple, now, Clone::clone)
    }

    /// Reads the living entry of this tuple, under its lock.
    pub fn read_entry_of<T>(&self, tuple: &Tuple, now: Instant, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        let mut held = self.table.hold(tuple)?;
        held.entry().filter(|entry| entry.is_alive(now)).map(|entry| read(entry))
    }

    /// Gives the living entry of this tuple as much more to live, as `conntrack -U --timeout` does; `false` if there
    /// is none.
    pub fn set_timeout(&self, tuple: &Tuple, left: Duration, now: Instant) -> bool {
        let Some(mut held) = self.table.hold(tuple) else { return false };
        let Some(entry) = held.entry().filter(|entry| entry.is_alive(now)) else { return false };
        entry.expires_at = now + left;
        let sooner = held.shard.rescheduled(held.slot);
        drop(held);
        self.table.expect_due(sooner);
        true
    }

    /// Deletes what `filter` means; returns what was there.
    pub fn delete(&self, filter: &Filter, now: Instant) -> Vec<Entry> {
        let mut ids = Vec::new();
        self.for_each(filter, now, |id, _| ids.push(id));
        let mut deleted = Vec::new();
        for id in ids {
            if let Some(entry) = self.table.remove_id(id) {
                deleted.push(entry.clone());
                self.bury([(id, entry)], now);
            }
        }
        deleted
    }

    /// Empties the table, expectations included.
    pub fn flush(&self, now: Instant) {
        self.delete(&Filter::default(), now);
        // What has ended but was not reaped yet goes the same way.
        self.table.for_each(|id, _| {
            let dead = self.table.remove_id(id).map(|entry| (id, entry));
            self.bury(dead, now);
        });
    }

    /// Connections in the table, as `nf_conntrack_count` counts them: those that have ended but were not looked at
    /// since are among them.
    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// Expectations that wait. They end with the connection that announced them, also where nobody has looked at it since.
    pub fn expectations(&self, now: Instant) -> Vec<Expectation> {
        let waiting = self.expectations.list(now).into_iter();
        let lives = |master| self.table.with(master, |master| master.is_alive(now)).unwrap_or(false);
        waiting.filter(|(master, _)| lives(*master)).map(|(_, expectation)| expectation).collect()
    }

    /// Drops every expectation.
    pub fn flush_expectations(&self, now: Instant) {
        for expectation in self.expectations.clear() {
            self.events.expectation(EventKind::Destroy, now, &expectation);
        }
    }

    /// What was counted since the beginning.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        Stats {
            entries: self.count() as u64,
            invalid: counters.invalid.get(),
            error: counters.error.get(),
            insert: counters.insert.get(),
            insert_failed: counters.insert_failed.get(),
            drop: counters.drop.get(),
            early_drop: counters.early_drop.get(),
            clash_resolve: counters.clash_resolve.get(),
            events_lost: self.events.lost(),
            ..Stats::default()
        }
    }

    /// What happens from now on, to one listener; one that came before hears no more.
    pub fn listen(&self) -> Listener<Event> {
        self.events.listen()
    }

    /// The settings in force.
    pub fn sysctls(&self) -> Arc<Sysctls> {
        self.sysctls.load_full()
    }

    /// Another number after each change of the settings, and of whatever else a worker remembers with them.
    #[inline]
    pub(crate) fn settings_version(&self) -> u64 {
        self.settings_version.load(Ordering::Acquire)
    }

    /// To be called after the change: whoever sees the new number sees the change, too.
    pub(crate) fn settings_changed(&self) {
        self.settings_version.fetch_add(1, Ordering::Release);
    }

    /// Changes a setting: it applies from the next packet on, and timers that run stay as they are.
    ///
    /// # Errors
    /// There is no such setting, or the value does not fit it.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        let mut result = Ok(());
        self.sysctls.rcu(|sysctls| {
            let mut changed = Sysctls::clone(sysctls);
            result = changed.set(name, value);
            changed
        });
        self.settings_changed();
        self.events.switch(self.sysctls.load().events != 0);
        result
    }
}

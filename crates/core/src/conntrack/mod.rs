//! What has been seen, and so what to expect.
//!
//! [`Conntrack::track`] says which of the five states a packet has; [`Conntrack::confirm`] enters a new connection
//! into the table, at the end of the packet's way. What happens in between cannot see the difference between
//! a dropped packet and one that never came.

#![forbid(unsafe_code)]

mod ahead;
mod alias;
mod announce;
#[doc(hidden)]
pub mod change;
mod confirm;
pub mod entry;
pub mod event;
pub mod expect;
mod flow;
mod hash;
pub mod helper;
mod icmp;
mod index;
pub mod listing;
mod query;
#[doc(hidden)]
pub mod saved;
#[doc(hidden)]
pub mod sctp;
mod sources;
pub mod sysctl;
mod table;
#[doc(hidden)]
pub mod tcp;
mod tracked;
mod translate;
mod udp;
mod wheel;

#[cfg(test)]
mod tests;

pub use crate::base::InvalidReason;
pub use ahead::Ahead;
pub use entry::{Counter, Entry, Proto, Status};
pub use event::{Event, EventKind, Happened, Told};
pub use expect::Expectation;
pub use flow::flow_of;
pub use helper::Helper;
pub use query::{Filter, FlowFilter, IcmpFilter, NatFilter, Stats, Translated};
pub use sysctl::{SysctlError, Sysctls};
pub use tracked::{CtState, Direction, EntryId, Template, Tracked, Translation};

use crate::base::fate::{DropReason, Fate, Stage};
use crate::base::time::{Duration, Instant};
use crate::nat::{Picker, Seeded};
use crate::packet::tuple::{
    PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use crate::packet::{Family, Packet, Segment, Seq, Tuple};
use arc_swap::ArcSwap;
use core::hint::cold_path;
use core::ops::ControlFlow::{Break, Continue};
use core::sync::atomic::{AtomicBool, AtomicU64};
use entry::ProtoState;
use event::Events;
use expect::Expectations;
use hash::Seed;
use parking_lot::MutexGuard;
use query::Counters;
use sources::Sources;
use std::sync::Arc;
use table::{Shard, Table};
use tcp::TcpOutcome as Outcome;

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

/// Why a packet belongs to no connection, known or new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It goes on as INVALID; [`Tracked::invalid`] says why.
    Invalid,
    /// It would open one, but `nf_conntrack_max` is reached and nothing could be evicted: it is to be dropped.
    TableFull,
}

/// What the tracker of a protocol needs of a packet that has passed its checks, besides that it has.
enum Layer4<'a> {
    Tcp(Segment),
    Sctp(sctp::Chunks<'a>),
    Other,
}

/// A packet, and what it is looked at with.
#[derive(Clone, Copy)]
struct Look<'a> {
    pkt: &'a Packet<'a>,
    template: &'a Template,
    now: Instant,
    sysctls: &'a Sysctls,
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

    /// Says which state a packet has, and takes it into account.
    ///
    /// State, timer and status of a confirmed connection change here and now, whatever rules say later.
    pub fn track(&self, pkt: &Packet, template: Template, now: Instant) -> Stage<Tracked> {
        let mut tracked = Tracked::none();
        match self.track_with(pkt, &template, now, &self.sysctls.load(), &mut tracked) {
            Ok(()) | Err(Unfit::Invalid) => Continue(tracked),
            Err(Unfit::TableFull) => Break(Fate::Dropped(DropReason::TableFull)),
        }
    }

    /// As [`Conntrack::track`], by settings that somebody has at hand, and into `tracked`, which said nothing before.
    ///
    /// # Errors
    /// The packet belongs to no connection: it is INVALID, or it is to be dropped.
    pub fn track_with(
        &self,
        pkt: &Packet,
        template: &Template,
        now: Instant,
        sysctls: &Sysctls,
        tracked: &mut Tracked,
    ) -> Result<(), Unfit> {
        if template.notrack {
            tracked.state = CtState::Untracked;
            return Ok(());
        }
        let look = Look { pkt, template, now, sysctls };
        // One way for all of them, which the compiler writes out for what most packets are.
        match (pkt.family(), pkt.proto()) {
            (Family::Ipv4, PROTO_UDP) if !pkt.is_fragment() => {
                self.follow(Family::Ipv4, PROTO_UDP, look, tracked)
            }
            (Family::Ipv4, PROTO_TCP) if !pkt.is_fragment() => {
                self.follow(Family::Ipv4, PROTO_TCP, look, tracked)
            }
            (family, proto) => self.follow(family, proto, look, tracked),
        }
    }

    /// The lookup and what stands around it, in the kernel's order. `family` and `proto` are the packet's.
    #[inline(always)]
    fn follow(&self, family: Family, proto: u8, look: Look, tracked: &mut Tracked) -> Result<(), Unfit> {
        let Look { pkt, template, sysctls, .. } = look;
        // I. ICMP: what is an error belongs to another flow.
        if icmp::is_icmp(family, proto)
            && let Some(known) = self.look_at_icmp(look, tracked)
        {
            return known;
        }
        // II. Is it sound?
        let layer4 = match check(pkt, family, proto, sysctls) {
            Ok(layer4) => layer4,
            Err(reason) => return self.follow_unsound(reason, look, tracked),
        };
        // III. Which flow?
        match flow::tuple_of(pkt, family, proto, template.zone) {
            Ok(tuple) => tracked.tuple = Some(tuple),
            Err(reason) => return self.invalid(reason, tracked),
        }
        // IV. A known one, or a new one. A reopened connection is deleted and looked for again.
        if let Some(result) = self.known(proto, &layer4, look, tracked) {
            return result;
        }
        cold_path();
        self.open(Ok(layer4), look, tracked)
    }

    /// What an ICMP message is told by alone: `None` for one that has a flow of its own.
    #[inline(never)]
    fn look_at_icmp(&self, look: Look, tracked: &mut Tracked) -> Option<Result<(), Unfit>> {
        let Look { pkt, template, now, sysctls } = look;
        // A later fragment does not show what it is.
        if pkt.is_later_fragment() {
            return None;
        }
        match icmp::kind(pkt, template.zone, sysctls) {
            Ok(icmp::Kind::Query) => None,
            Ok(icmp::Kind::Untracked) => {
                tracked.state = CtState::Untracked;
                Some(Ok(()))
            }
            Ok(icmp::Kind::Error(flow)) => Some(self.related(pkt, flow, now, tracked)),
            Err(reason) => Some(self.erroneous(reason, tracked)),
        }
    }

    /// A packet that is INVALID whatever is known, unless something is wrong with its flow before that.
    #[cold]
    fn follow_unsound(&self, reason: InvalidReason, look: Look, tracked: &mut Tracked) -> Result<(), Unfit> {
        let tuple = match flow::tuple(look.pkt, look.template.zone) {
            Ok(tuple) => tuple,
            Err(reason) => return self.invalid(reason, tracked),
        };
        tracked.tuple = Some(tuple);
        self.end_if_over(&tuple, look.now);
        if self.table.hold(&tuple).is_some() {
            return self.invalid(reason, tracked);
        }
        self.open(Err(reason), look, tracked)
    }

    /// An ICMP message that is INVALID before any flow of its own is looked for: Linux counts those apart.
    #[cold]
    fn erroneous(&self, reason: InvalidReason, tracked: &mut Tracked) -> Result<(), Unfit> {
        self.counters.error.add(1);
        tracked.invalid = Some(reason);
        Err(Unfit::Invalid)
    }

    #[cold]
    fn invalid(&self, reason: InvalidReason, tracked: &mut Tracked) -> Result<(), Unfit> {
        (tracked.invalid, tracked.tuple) = (Some(reason), None);
        self.counters.invalid.add(1);
        Err(Unfit::Invalid)
    }

    /// A packet of a connection in the table; `None` if there is none, or no more.
    #[inline(always)]
    fn known(
        &self,
        proto: u8,
        layer4: &Layer4,
        look: Look,
        tracked: &mut Tracked,
    ) -> Option<Result<(), Unfit>> {
        let Look { pkt, now, sysctls, .. } = look;
        let Some(tuple) = &tracked.tuple else { return None };
        let Some(mut held) = self.table.hold(tuple) else {
            // Most packets are not the first of theirs.
            cold_path();
            return None;
        };
        let (number, slot, direction) = (held.number, held.slot, held.direction);
        let table::Tenant { generation, entry, due } = held.shard.tenant(slot)?;
        let id = EntryId::new(number, slot, generation);
        if !entry.is_alive(now) {
            self.end(id, held.shard, now);
            return None;
        }
        let state = entry.ctstate(direction);
        let before = self.events.is_heard().then(|| (entry.status, entry.state()));
        let delete = match entry.take(proto, layer4, direction, now, sysctls) {
            Outcome::Tolerated(what) => {
                tracked.tolerated = Some(what);
                entry.status.set(
                    Status::SEEN_REPLY,
                    direction == Direction::Reply || entry.status.contains(Status::SEEN_REPLY),
                );
                false
            }
            Outcome::Accept { timeout, assured, delete } => {
                if let Some(timeout) = timeout {
                    entry.renew(now + timeout);
                }
                if timeout.is_some() || delete {
                    entry.count(direction, pkt);
                }
                let mut gained = Status::empty();
                gained.set(Status::ASSURED, assured);
                gained.set(Status::SEEN_REPLY, direction == Direction::Reply);
                entry.status.insert(gained);
                delete
            }
            Outcome::Invalid { reason, cap_lifetime } => {
                let cap = cap_lifetime.filter(|_| entry.timeout(now) >= tcp::LIFE_LEFT_ALONE);
                if let Some(cap) = cap {
                    entry.expires_at = entry.expires_at.min(now + cap);
                }
                self.table.expect_due(held.shard.rescheduled(slot));
                return Some(self.invalid(reason, tracked));
            }
            Outcome::Reopen => {
                tracked.reopens = true;
                self.end(id, held.shard, now);
                return None;
            }
        };
        tracked.stand_for(state, direction, entry);
        tracked.id = Some(id);
        if delete {
            // Rules still see what the packet has ended.
            tracked.new = Some(Box::new(entry.clone()));
        }
        if delete || before.is_some() {
            self.tell_and_end(id, held.shard, before, delete, now);
        } else if entry.ends_before(due) {
            self.table.expect_due(held.shard.rescheduled(slot));
        }
        Some(Ok(()))
    }

    /// Listeners hear of an update first, and then of the end, if the packet brought both.
    #[cold]
    fn tell_and_end(
        &self,
        id: EntryId,
        mut shard: MutexGuard<'_, Shard>,
        before: Option<(Status, ProtoState)>,
        delete: bool,
        now: Instant,
    ) {
        let update = before.and_then(|before| update(before, shard.entry(id.slot())?));
        self.table.expect_due(shard.rescheduled(id.slot()));
        let dead = if delete { self.table.remove(id, &mut shard) } else { None };
        drop(shard);
        if let Some((happened, entry)) = update {
            self.events.entry(EventKind::Update, happened, now, &entry);
        }
        self.bury(dead, now);
    }

    /// Takes a connection out of the table whose time is over.
    #[cold]
    fn end(&self, id: EntryId, mut shard: MutexGuard<'_, Shard>, now: Instant) {
        let dead = self.table.remove(id, &mut shard);
        drop(shard);
        self.bury(dead, now);
    }

    /// The first packet of a connection: it travels with the packet until it is confirmed.
    #[inline(never)]
    fn open(
        &self,
        checked: Result<Layer4, InvalidReason>,
        look: Look,
        tracked: &mut Tracked,
    ) -> Result<(), Unfit> {
        let Look { pkt, template, now, sysctls } = look;
        let tuple = tracked.tuple.expect("a packet has its tuple before it opens a connection");
        if !flow::is_answerable(&tuple) {
            return self.invalid(InvalidReason::IcmpType, tracked);
        }
        // Room is made, and an expectation used up, before the protocol has its say.
        self.make_room(&tuple, now, sysctls)?;
        let mut expected = self.expectations.take(&tuple, now);
        if let Some((_, expectation)) = &expected {
            self.events.expectation(EventKind::Destroy, now, expectation);
        }
        // What a connection has announced ends with it, whether or not it was reaped.
        expected = expected
            .filter(|(master, _)| self.table.with(*master, |master| master.is_alive(now)).unwrap_or(false));
        let opened = checked.and_then(|layer4| Ok((open(&layer4, &tuple, sysctls)?, layer4)));
        let (proto, layer4) = match opened {
            Ok(opened) => opened,
            Err(reason) => return self.invalid(reason, tracked),
        };
        let mut entry = Box::new(Entry::new(tuple, proto, now, sysctls));
        match expected {
            Some((master, expectation)) => {
                entry.status.insert(Status::EXPECTED);
                entry.extra_mut().master = Some(master);
                entry.mark = self.table.with(master, |master| master.mark).unwrap_or(0);
                if let Some(follows) = expectation.follows {
                    self.follow_master(&mut entry, master, follows, now);
                }
            }
            None => self.assign_helper(&mut entry, *template),
        }
        if template.told.is_some() {
            entry.extra_mut().told = template.told;
        }
        let state = entry.ctstate(Direction::Original);
        match entry.take(tuple.proto, &layer4, Direction::Original, now, sysctls) {
            Outcome::Accept { timeout, assured, .. } => {
                entry.expires_at = now + timeout.unwrap_or_default();
                entry.status.set(Status::ASSURED, assured);
                entry.count(Direction::Original, pkt);
            }
            Outcome::Tolerated(what) => {
                tracked.tolerated = Some(what);
                entry.expires_at = now;
            }
            Outcome::Invalid { reason, .. } => return self.invalid(reason, tracked),
            Outcome::Reopen => return self.invalid(InvalidReason::TcpState, tracked),
        }
        tracked.stand_for(state, Direction::Original, &entry);
        tracked.new = Some(entry);
        Ok(())
    }

    /// An ICMP error about a packet to whose answer `flow` would belong.
    fn related(&self, pkt: &Packet, flow: Tuple, now: Instant, tracked: &mut Tracked) -> Result<(), Unfit> {
        let Some(mut held) = self.table.hold(&flow) else {
            return self.erroneous(InvalidReason::IcmpOrphan, tracked);
        };
        let (direction, id) = (held.direction, held.id(held.shard.generation(held.slot)));
        let Some(entry) = held.entry().filter(|entry| entry.is_alive(now)) else {
            return self.erroneous(InvalidReason::IcmpOrphan, tracked);
        };
        // It must go to the sender of the quoted packet; who it comes from is any router's business.
        if pkt.dst() != flow.dst {
            return self.erroneous(InvalidReason::IcmpAddressee, tracked);
        }
        tracked.tuple = Some(flow);
        tracked.stand_for(CtState::Related, direction, entry);
        tracked.id = Some(id);
        Ok(())
    }

    /// Before a connection is made: the table must not be full, or something in it must be worth less.
    fn make_room(&self, tuple: &Tuple, now: Instant, sysctls: &Sysctls) -> Result<(), Unfit> {
        if sysctls.max == 0 || self.table.len() < sysctls.max as usize {
            return Ok(());
        }
        let evicted = self.table.early_drop(self.table.place(tuple));
        if evicted.is_none() {
            self.counters.drop.add(1);
            return Err(Unfit::TableFull);
        }
        self.counters.early_drop.add(1);
        self.bury(evicted, now);
        Ok(())
    }

    fn assign_helper(&self, entry: &mut Entry, template: Template) {
        let proto = entry.original.proto;
        let by_rule = template.helper.filter(|helper| helper.proto() == proto);
        let is_usual =
            |helper: &&Helper| helper.proto() == proto && helper.usual_port() == entry.original.right;
        entry.helper = by_rule.or_else(|| self.helpers.iter().find(is_usual).copied());
        entry.status.set(Status::HELPER, entry.helper.is_some());
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

/// Few packets are INVALID: the compiler keeps what leads here out of the way of the others.
#[cold]
#[inline(never)]
fn unsound<T>(reason: InvalidReason) -> Result<T, InvalidReason> {
    Err(reason)
}

/// What a protocol's tracker says of a packet, whatever is known of its flow.
#[inline(always)]
fn check<'a>(
    pkt: &'a Packet,
    family: Family,
    proto: u8,
    sysctls: &Sysctls,
) -> Result<Layer4<'a>, InvalidReason> {
    match (family, proto) {
        (_, PROTO_TCP) => return tcp::check(pkt, sysctls).map(Layer4::Tcp),
        (_, PROTO_UDP) => udp::check(pkt, sysctls)?,
        (_, PROTO_UDPLITE) => udp::check_lite(pkt, sysctls)?,
        (_, PROTO_SCTP) => return sctp::Chunks::check(pkt, sysctls).map(Layer4::Sctp),
        (Family::Ipv4, PROTO_ICMPV6) | (Family::Ipv6, PROTO_ICMP) => {
            return unsound(InvalidReason::IcmpFamily);
        }
        _ => {}
    }
    Ok(Layer4::Other)
}

/// What to remember from the first packet of a flow.
fn open(layer4: &Layer4, tuple: &Tuple, sysctls: &Sysctls) -> Result<Proto, InvalidReason> {
    Ok(match layer4 {
        Layer4::Tcp(seg) => Proto::Tcp(tcp::Tcp::open(seg, sysctls)?),
        Layer4::Sctp(chunks) => Proto::Sctp(sctp::Sctp::open(chunks)?),
        Layer4::Other if tuple.is_icmp() && !icmp::is_request(tuple) => {
            return Err(InvalidReason::IcmpUnsolicited);
        }
        Layer4::Other => Proto::Plain,
    })
}

/// What becomes of a connection of which nothing but its time is kept.
const fn keep(timeout: Duration) -> Outcome {
    Outcome::Accept { timeout: Some(timeout), assured: false, delete: false }
}

/// By how much what the other side acknowledges is shifted, where it is.
#[cold]
fn shift_at(extra: Option<&entry::Extra>, direction: Direction, seq: Seq) -> u32 {
    let shifts = extra.and_then(|extra| extra.rare.as_ref()?.shifts.as_ref());
    shifts.map_or(0, |shifts| shifts[direction as usize].at(seq))
}

/// What listeners are told if the packet has changed the connection.
fn update(before: (Status, ProtoState), entry: &Entry) -> Option<(Happened, Box<Entry>)> {
    let after = (entry.status, entry.state());
    (before != after).then(|| (Happened::between(before, after), Box::new(entry.clone())))
}

impl Entry {
    /// The state of a packet in `direction`, before it is taken into account.
    #[inline]
    fn ctstate(&self, direction: Direction) -> CtState {
        if direction == Direction::Reply || self.status.contains(Status::SEEN_REPLY) {
            CtState::Established
        } else if self.status.contains(Status::EXPECTED) {
            CtState::Related
        } else {
            CtState::New
        }
    }

    /// Lets the protocol's tracker say what becomes of a packet and of the connection. `proto` is that of both.
    #[inline(always)]
    fn take(
        &mut self,
        proto: u8,
        layer4: &Layer4,
        direction: Direction,
        now: Instant,
        sysctls: &Sysctls,
    ) -> Outcome {
        let seen_reply = self.status.contains(Status::SEEN_REPLY);
        match proto {
            PROTO_TCP => {
                let (Proto::Tcp(tcp), Layer4::Tcp(seg)) = (&mut self.proto, layer4) else {
                    return keep(sysctls.generic_timeout);
                };
                let seen = tcp::Seen { seen_reply, assured: self.status.contains(Status::ASSURED) };
                if self.status.contains(Status::SEQ_ADJUST) {
                    let shift = shift_at(self.extra.as_deref(), direction.opposite(), seg.ack - 1);
                    return tcp.track(&seg.put_back(shift), direction, seen, sysctls);
                }
                tcp.track(seg, direction, seen, sysctls)
            }
            PROTO_UDP => udp::track(seen_reply && udp::is_old(self.began_at, now), sysctls),
            PROTO_UDPLITE => udp::track(seen_reply, sysctls),
            PROTO_SCTP => self.take_chunks(layer4, direction, sysctls),
            PROTO_ICMP => keep(sysctls.icmp_timeout),
            PROTO_ICMPV6 => keep(sysctls.icmpv6_timeout),
            PROTO_GRE if seen_reply => {
                Outcome::Accept { timeout: Some(sysctls.gre_timeout_stream), assured: true, delete: false }
            }
            PROTO_GRE => keep(sysctls.gre_timeout),
            _ => keep(sysctls.generic_timeout),
        }
    }

    fn take_chunks(&mut self, layer4: &Layer4, direction: Direction, sysctls: &Sysctls) -> Outcome {
        let (Proto::Sctp(sctp), Layer4::Sctp(chunks)) = (&mut self.proto, layer4) else {
            return keep(sysctls.generic_timeout);
        };
        let outcome = sctp.track(chunks, direction, !self.status.contains(Status::CONFIRMED), sysctls);
        self.status.set(Status::ASSURED, sctp.was_established());
        outcome
    }

    #[inline]
    fn renew(&mut self, expires_at: Instant) {
        if !self.status.contains(Status::FIXED_TIMEOUT) {
            self.expires_at = expires_at;
        }
    }

    #[inline]
    fn count(&mut self, direction: Direction, pkt: &Packet) {
        if self.is_counted() {
            self.count_bytes(direction, pkt.l3_len() as u64);
        }
    }

    #[inline(never)]
    fn count_bytes(&mut self, direction: Direction, bytes: u64) {
        let counter = &mut self.extra_mut().rare_mut().counters[direction as usize];
        counter.packets += 1;
        counter.bytes += bytes;
    }
}

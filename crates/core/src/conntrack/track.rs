//! A packet and the table: the lookup and what stands around it, in the kernel's order.

#![forbid(unsafe_code)]

use super::protocol::{Layer4, check, open};
use super::table::entry::ProtoState;
use super::table::{self, Shard};
use super::tcp::TcpOutcome as Outcome;
use super::{
    Conntrack, CtState, Direction, Entry, EntryId, EventKind, Happened, Helper, InvalidReason, Status,
    Sysctls, Template, Tracked, Tracking, flow, icmp, tcp,
};
use crate::base::fate::{DropReason, Fate, Stage};
use crate::base::time::Instant;
use crate::packet::tuple::{PROTO_TCP, PROTO_UDP};
use crate::packet::{Family, Packet, Tuple};
use core::hint::cold_path;
use core::ops::ControlFlow::{Break, Continue};
use parking_lot::MutexGuard;

/// Why a packet belongs to no connection, known or new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It goes on as INVALID; [`Tracked::invalid`] says why.
    Invalid,
    /// It would open one, but `nf_conntrack_max` is reached and nothing could be evicted: it is to be dropped.
    TableFull,
}

/// A packet, and what it is looked at with.
#[derive(Clone, Copy)]
struct Look<'a> {
    pkt: &'a Packet<'a>,
    template: &'a Template,
    now: Instant,
    sysctls: &'a Sysctls,
}

impl Conntrack {
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

    /// As [`Conntrack::track`], with the settings as an argument; fills in `tracked`, which is [`Tracked::none`] before.
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
        if template.tracking != Tracking::Usual {
            return self.track_unusually(pkt, template, (now, sysctls), tracked);
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

    /// A packet that is not tracked, or whose connection has a zone for each direction.
    #[cold]
    #[inline(never)]
    fn track_unusually(
        &self,
        pkt: &Packet,
        template: &Template,
        (now, sysctls): (Instant, &Sysctls),
        tracked: &mut Tracked,
    ) -> Result<(), Unfit> {
        let (opens_in, answers_in) = match template.tracking {
            Tracking::OriginalInZone => (template.zone, 0),
            Tracking::RepliesInZone => (0, template.zone),
            Tracking::Usual | Tracking::Off => {
                tracked.state = CtState::Untracked;
                return Ok(());
            }
        };
        // As in Linux: what opened a connection in the one zone, or what answers one in the other.
        let is_icmp = icmp::is_icmp(pkt.family(), pkt.proto()) && !pkt.is_later_fragment();
        let tuple_in = |zone| {
            if is_icmp && let icmp::Kind::Error(flow) = icmp::kind(pkt, zone, sysctls).ok()? {
                return Some(flow);
            }
            flow::tuple(pkt, zone).ok()
        };
        let goes = |zone, direction| {
            tuple_in(zone)
                .and_then(|tuple| Some(self.table.hold(&tuple)?.direction == direction))
                .unwrap_or(false)
        };
        let opens = goes(opens_in, Direction::Original);
        let answers = !opens && goes(answers_in, Direction::Reply);
        let zone = if answers { answers_in } else { opens_in };
        let in_zone = Template { zone, tracking: Tracking::Usual, ..*template };
        let known = if opens || answers {
            self.track_with(pkt, &in_zone, now, sysctls, tracked)
        } else {
            self.open_in_zone(Look { pkt, template: &in_zone, now, sysctls }, tracked)
        };
        if let Some(entry) = tracked.new.as_mut().filter(|entry| !entry.status.contains(Status::CONFIRMED)) {
            entry.set_reply(Tuple { zone: answers_in, ..entry.reply() });
        }
        known
    }

    /// A packet of no connection, whatever goes the other way in its zone.
    fn open_in_zone(&self, look: Look, tracked: &mut Tracked) -> Result<(), Unfit> {
        let Look { pkt, template, sysctls, .. } = look;
        if icmp::is_icmp(pkt.family(), pkt.proto()) && !pkt.is_later_fragment() {
            match icmp::kind(pkt, template.zone, sysctls) {
                Ok(icmp::Kind::Query) => {}
                Ok(icmp::Kind::Untracked) => {
                    tracked.state = CtState::Untracked;
                    return Ok(());
                }
                Ok(icmp::Kind::Error(_)) => return self.erroneous(InvalidReason::IcmpOrphan, tracked),
                Err(reason) => return self.erroneous(reason, tracked),
            }
        }
        let layer4 = check(pkt, pkt.family(), pkt.proto(), sysctls);
        match flow::tuple(pkt, template.zone) {
            Ok(tuple) => tracked.tuple = Some(tuple),
            Err(reason) => return self.invalid(reason, tracked),
        }
        self.open(layer4, look, tracked)
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

    /// Handles ICMP errors and messages that are not tracked; `None` for a query, which has a flow of its own.
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

    /// A packet that did not pass the checks of its protocol. Linux looks for its flow first, and an error there counts first.
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
        self.counters.reasons[reason.index()].add(1);
        tracked.invalid = Some(reason);
        Err(Unfit::Invalid)
    }

    #[cold]
    fn invalid(&self, reason: InvalidReason, tracked: &mut Tracked) -> Result<(), Unfit> {
        (tracked.invalid, tracked.tuple) = (Some(reason), None);
        self.counters.invalid.add(1);
        self.counters.reasons[reason.index()].add(1);
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
    pub(super) fn end(&self, id: EntryId, mut shard: MutexGuard<'_, Shard>, now: Instant) {
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
}

/// What listeners are told if the packet has changed the connection.
fn update(before: (Status, ProtoState), entry: &Entry) -> Option<(Happened, Box<Entry>)> {
    let after = (entry.status, entry.state());
    (before != after).then(|| (Happened::between(before, after), Box::new(entry.clone())))
}

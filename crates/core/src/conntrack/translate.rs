//! The binding: what becomes of a connection's addresses, decided once when it is new and kept as its reply tuple.

#![forbid(unsafe_code)]

use super::expect::Follows;
use super::tcp::TcpState;
use super::{Conntrack, CtState, Direction, Entry, EntryId, Proto, Status, Tracked, Translation};
use crate::base::iface::IfaceId;
use crate::base::time::Instant;
use crate::nat::{self, Choice, Known, Picker, Range, Side};
use crate::packet::tuple::PROTO_TCP;
use crate::packet::{Addr, Family, Tuple};
use std::sync::Arc;

/// What a new connection knows of others, and of chance.
struct Others<'a> {
    conntrack: &'a Conntrack,
    entry: &'a Entry,
    now: Instant,
}

impl Known for Others<'_> {
    fn is_taken(&self, tuple: &Tuple) -> bool {
        let Some(mut held) = self.conntrack.table.hold(&tuple.reply()) else { return false };
        held.entry().is_some_and(|entry| entry.is_alive(self.now))
    }

    fn takes_over(&self, tuple: &Tuple) -> bool {
        let Proto::Tcp(new) = &self.entry.proto else { return false };
        let Some(mut held) = self.conntrack.table.hold(&tuple.reply()) else { return false };
        let (direction, id) = (held.direction, held.id(held.shard.generation(held.slot)));
        let Some(holder) = held.entry() else { return true };
        let Proto::Tcp(old) = &holder.proto else { return false };
        let is_over = matches!(old.state(), TcpState::TimeWait | TcpState::Close | TcpState::SynSent2);
        let gives_way = tuple.proto == PROTO_TCP
            && new.state() == TcpState::SynSent
            && direction == Direction::Reply
            && holder.status.contains(Status::SRC_NAT)
            && is_over
            // Half of all numbers ahead is not ahead, to Linux.
            && (1..1 << 31).contains(&new.opener_end().since(old.opener_end()));
        if gives_way {
            self.conntrack.end(id, held.shard, self.now);
        }
        gives_way
    }

    fn mapping(&self, current: &Tuple, fits: &dyn Fn(&Tuple) -> bool) -> Option<Tuple> {
        let Self { conntrack, entry, now } = self;
        // Of ICMP the other end's translation may have changed the identifier, and so whose packet it seems to be.
        conntrack.sources.find(&conntrack.table, current, entry.original.zone, |other| {
            let as_translated = other.as_translated();
            let mapped = Tuple { src: as_translated.src, left: as_translated.left, ..*current };
            (other.is_alive(*now) && fits(&mapped)).then_some(mapped)
        })
    }

    fn start(&self, side: Side, first: u16, count: u32) -> u16 {
        self.conntrack.picker.pick(side, first, count)
    }
}

impl Conntrack {
    /// Has searches for ports begin where `picker` says.
    pub fn set_picker(&mut self, picker: Arc<dyn Picker>) {
        self.picker = picker;
    }

    /// Decides what becomes of one end of a packet's new connection: something of `range`, or without one what it has.
    ///
    /// Returns the first packet's tuple, as far as it was translated before, and what was chosen.
    ///
    /// `egress`: the source is that interface's address, and the connection leaves there only. `None`: there is no new
    /// connection, or it is decided.
    pub fn bind(
        &self,
        ct: &mut Tracked,
        side: Side,
        range: Option<Range>,
        egress: Option<IfaceId>,
        now: Instant,
    ) -> Option<(Tuple, Choice)> {
        let mut entry = ct.new.take()?;
        let choice = ct.is_undecided_entry(&entry, side).then(|| {
            let before = entry.as_translated();
            let range = range.unwrap_or_else(|| Range::unchanged(&before, side));
            let choice = self.bind_entry(&mut entry, side, &range, now);
            if let Some(egress) = egress {
                entry.extra_mut().masqueraded = Some(egress);
            }
            (before, choice)
        });
        (ct.status, ct.translation) = (entry.status, entry.translation(ct.direction));
        ct.new = Some(entry);
        choice
    }

    fn bind_entry(&self, entry: &mut Entry, side: Side, range: &Range, now: Instant) -> Choice {
        let current = entry.as_translated();
        // One of a single direction is no other zone there than the usual one, which is zero.
        let zone = entry.original.zone | current.zone;
        let choice = nat::choose(&Others { conntrack: self, entry, now }, &current, zone, side, range);
        if choice.tuple != current {
            entry.set_reply(choice.tuple.reply());
            entry.status.insert(Status::translates(side));
        }
        entry.status.insert(Status::decided(side));
        self.counters.translated(side, &choice);
        choice
    }

    /// Binds a connection that was announced, as its master is bound.
    pub(super) fn follow_master(&self, entry: &mut Entry, master: EntryId, follows: Follows, now: Instant) {
        let Some(announcer) = self.table.with(master, |master| master.tuple(follows.announcer)) else {
            return;
        };
        let to = |addr: Addr| Range::to(addr, announcer.family);
        self.bind_entry(entry, Side::Source, &to(announcer.dst), now);
        let ports = Some((follows.port, follows.port));
        self.bind_entry(entry, Side::Destination, &Range { ports, ..to(announcer.src) }, now);
    }

    /// Ends every connection that is masqueraded with an address of an interface that went down, and says how many
    /// those were. Answers to them find no connection any more; the next packet of their sender opens another one.
    pub fn end_masqueraded(&self, iface: IfaceId, now: Instant) -> usize {
        self.end_masqueraded_if(now, |egress, _, _| egress == iface)
    }

    /// The same of those of which `ends` says so, told the interface where they leave and the address that they leave with.
    pub(crate) fn end_masqueraded_if(
        &self,
        now: Instant,
        ends: impl Fn(IfaceId, Addr, Family) -> bool,
    ) -> usize {
        let mut ids = Vec::new();
        self.table.for_each(|id, entry| {
            let Some(egress) = entry.extra.as_ref().and_then(|extra| extra.masqueraded) else { return };
            if ends(egress, entry.reply().dst, entry.original.family) {
                ids.push(id);
            }
        });
        let dead: Vec<_> =
            ids.into_iter().filter_map(|id| self.table.remove_id(id).map(|entry| (id, entry))).collect();
        let ended = dead.len();
        self.bury(dead, now);
        ended
    }

    /// Ends the confirmed connection behind a packet.
    pub(crate) fn end_connection_of(&self, ct: &Tracked, now: Instant) {
        if let Some(id) = ct.id {
            let dead = self.table.remove_id(id).map(|entry| (id, entry));
            self.bury(dead, now);
        }
    }

    /// Remembers which source a translated connection has that has entered the table.
    pub(super) fn note_source(&self, original: &Tuple, status: Status, id: EntryId) {
        if status.contains(Status::SRC_NAT) {
            self.sources.add(&self.table, original, id);
        }
    }
}

impl Entry {
    /// What is decided of a connection whose two tuples somebody has written by hand.
    pub(super) fn translation_by_hand(&self) -> Status {
        let (from, to) = (self.original, self.as_translated());
        let mut status = Status::empty();
        status.set(Status::SRC_NAT, (from.src, from.left) != (to.src, to.left));
        status.set(Status::DST_NAT, from.dst != to.dst || (!from.is_icmp() && from.right != to.right));
        if !status.is_empty() {
            status |= Status::SRC_NAT_DONE | Status::DST_NAT_DONE;
        }
        status
    }
}

impl Tracked {
    /// Whether what becomes of that end of the connection is still to be decided.
    #[inline]
    pub fn is_undecided(&self, side: Side) -> bool {
        self.new.as_ref().is_some_and(|entry| self.is_undecided_entry(entry, side))
    }

    /// Whether the connection was in the table before there was a table `nat` that would have decided what becomes of that
    /// end, and nobody has answered yet.
    pub(crate) fn is_older_than_the_table(&self, side: Side) -> bool {
        matches!(self.state, CtState::New | CtState::Related)
            && self.id.is_some()
            && !self.status.intersects(Status::decided(side))
    }

    /// Whether an end of the connection's packets is rewritten anywhere.
    pub const fn is_translated(&self) -> bool {
        self.status.intersects(Status::SRC_NAT.union(Status::DST_NAT))
    }

    fn is_undecided_entry(&self, entry: &Entry, side: Side) -> bool {
        // One that this very packet has ended is in the table no more, and was decided when it came there.
        self.id.is_none() && !entry.status.intersects(Status::decided(side) | Status::CONFIRMED)
    }

    /// Who gets the packet once it is rewritten, if that is somebody else than who it is addressed to.
    pub(crate) fn receiver(&self) -> Option<Addr> {
        let to = self.translation.as_ref().map(|Translation { to, .. }| to.dst)?;
        self.is_rewritten(Side::Destination).then_some(to)
    }
}

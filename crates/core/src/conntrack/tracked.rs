//! What connection tracking says of a packet.

#![forbid(unsafe_code)]

use super::event::Told;
use super::{Entry, Helper, InvalidReason, Status};
use crate::base::Tolerance;
use crate::base::iface::IfaceId;
use crate::nat::Side;
use crate::packet::Tuple;
use core::num::NonZero;
use serde::{Deserialize, Serialize};

/// The five states, as a rule sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtState {
    /// The first packet of a connection that may begin.
    New,
    /// It belongs to a connection that has seen both directions, or answers one.
    Established,
    /// It belongs to what another connection announced, or is an error about one.
    Related,
    /// It belongs to no connection, and can begin none.
    Invalid,
    /// A rule exempts it from tracking.
    Untracked,
}

impl CtState {
    /// In capitals, as rules name it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Established => "ESTABLISHED",
            Self::Related => "RELATED",
            Self::Invalid => "INVALID",
            Self::Untracked => "UNTRACKED",
        }
    }
}

/// As the packet that created the connection went, or the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From whoever began the connection.
    Original,
    /// To whoever began it.
    Reply,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }

    /// `original` or `reply`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Reply => "reply",
        }
    }
}

/// What the raw table asks of connection tracking (`-j CT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// A rule has spoken, whatever it asked: those behind it are not heard.
    pub is_set: bool,
    /// Whether and how it is tracked.
    pub tracking: Tracking,
    /// The same tuple in another zone is another connection.
    pub zone: u16,
    /// Given to a connection when it is made, and never later.
    pub helper: Option<Helper>,
    /// Which events of the connection are told, from its beginning on.
    pub told: Option<Told>,
}

/// What is unusual about how a packet is tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracking {
    /// Nothing: both directions of a connection are in one zone.
    #[default]
    Usual,
    /// It is not tracked at all.
    Off,
    /// [`Template::zone`] is that of what opens a connection; its answers are in the usual one.
    OriginalInZone,
    /// [`Template::zone`] is that of answers; what opens their connection is in the usual one.
    RepliesInZone,
}

/// Which confirmed connection: a handle that outlives it harmlessly.
///
/// One number, so that it is handed on in a register: the shard, the slot in it, and the count of the slot's tenants, from
/// the highest bit down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(NonZero<u64>);

impl EntryId {
    /// Bits for slots of a shard; what is above is for shards.
    pub(super) const SLOT_BITS: u32 = 26;

    /// `slot` fits [`EntryId::SLOT_BITS`].
    #[inline]
    pub(super) fn new(shard: usize, slot: u32, generation: NonZero<u32>) -> Self {
        Self(NonZero::from(generation) | ((shard as u64) << Self::SLOT_BITS | u64::from(slot)) << 32)
    }

    pub(super) const fn shard(self) -> usize {
        (self.0.get() >> (32 + Self::SLOT_BITS)) as usize
    }

    pub(super) const fn slot(self) -> u32 {
        (self.0.get() >> 32) as u32 & ((1 << Self::SLOT_BITS) - 1)
    }

    /// Counts the slot's tenants.
    pub(super) const fn generation(self) -> u32 {
        self.0.get() as u32
    }
}

/// What a packet of a translated connection becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The tuple that it has once both of its ends are rewritten.
    pub to: Tuple,
    /// The only way out, if the connection's source is an address of that interface.
    pub egress: Option<IfaceId>,
}

/// What connection tracking said of one packet: a copy of what rules ask for most.
///
/// The rest is behind [`super::Conntrack::with_entry`].
#[derive(Clone, Debug)]
pub struct Tracked {
    /// As rules see it.
    pub state: CtState,
    /// Which way it goes; without meaning where no connection is known.
    pub direction: Direction,
    /// The connection's, at the moment when the packet had been accepted.
    pub status: Status,
    /// The helper that the connection has.
    pub helper: Option<Helper>,
    /// Why the state is INVALID.
    pub invalid: Option<InvalidReason>,
    /// It passes as its connection's, but is not believed.
    pub tolerated: Option<Tolerance>,
    /// The mark of the connection.
    pub mark: u32,
    /// The packet's tuple, or for an ICMP error that of the flow it belongs to; `None` without a connection.
    pub tuple: Option<Tuple>,
    /// [`Entry::verdict`] of this direction.
    pub verdict: u64,
    /// Where the connection is translated: what this packet becomes.
    pub translation: Option<Translation>,
    /// It ended a connection to begin another, and was looked at twice.
    pub reopens: bool,
    pub(super) id: Option<EntryId>,
    /// A connection that is not in the table yet; or not any more, since this very packet has ended it.
    pub(super) new: Option<Box<Entry>>,
}

impl Tracked {
    /// Before tracking: no state at all, which a rule sees as INVALID.
    pub const fn none() -> Self {
        Self {
            state: CtState::Invalid,
            direction: Direction::Original,
            status: Status::empty(),
            helper: None,
            invalid: None,
            tolerated: None,
            mark: 0,
            tuple: None,
            verdict: 0,
            translation: None,
            reopens: false,
            id: None,
            new: None,
        }
    }

    /// Says what there is to say of a packet of `entry`, as that stands after the packet, beside its tuple.
    #[inline(always)]
    pub(super) fn stand_for(&mut self, state: CtState, direction: Direction, entry: &Entry) {
        (self.state, self.direction) = (state, direction);
        (self.status, self.helper, self.mark) = (entry.status, entry.helper, entry.mark);
        self.verdict = entry.verdict[direction as usize];
        if entry.extra.is_some() {
            self.translation = entry.translation(direction);
        }
    }

    /// Whether the packet's own end at that side is to be rewritten.
    pub fn is_rewritten(&self, side: Side) -> bool {
        // What is the source of the first packet is the destination of answers.
        let of_first = match (self.direction, side) {
            (Direction::Original, side) => side,
            (Direction::Reply, Side::Source) => Side::Destination,
            (Direction::Reply, Side::Destination) => Side::Source,
        };
        self.status.contains(Status::translates(of_first))
    }

    /// Whether a connection stands behind the packet, confirmed or not.
    pub const fn has_entry(&self) -> bool {
        self.id.is_some() || self.new.is_some()
    }

    /// Whether its connection is confirmed, and was not ended by this very packet.
    #[inline]
    pub const fn is_in_table(&self) -> bool {
        self.id.is_some() && self.new.is_none()
    }

    /// Which confirmed connection.
    pub const fn id(&self) -> Option<EntryId> {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_names_any_slot_of_any_shard_and_any_tenant_of_it() {
        let last_slot = (1 << EntryId::SLOT_BITS) - 1;
        for (shard, slot, generation) in [(0, 0, 1), (63, last_slot, u32::MAX), (1, 0, 7), (0, 1, 7)] {
            let id = EntryId::new(shard, slot, NonZero::new(generation).unwrap());
            assert_eq!((id.shard(), id.slot(), id.generation()), (shard, slot, generation));
        }
    }
}

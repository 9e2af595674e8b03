//! What has been seen, and so what to expect.
//!
//! [`Conntrack::track`] says which of the five states a packet has; [`Conntrack::confirm`] enters a new connection
//! into the table, at the end of the packet's way. What happens in between cannot see the difference between
//! a dropped packet and one that never came.

#![forbid(unsafe_code)]

pub mod entry;
pub mod helper;
pub mod invalid;
pub mod sysctl;
pub mod tcp;

pub use entry::{Counter, Entry, Status};
pub use helper::Helper;
pub use invalid::InvalidReason;
pub use sysctl::{SysctlError, Sysctls};

use crate::fate::Stage;
use crate::packet::{Packet, Tuple};
use crate::time::Instant;
use core::ops::ControlFlow::Continue;

/// The five states, as a rule sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtState {
    New,
    Established,
    Related,
    Invalid,
    Untracked,
}

impl CtState {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Original,
    Reply,
}

impl Direction {
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
    pub notrack: bool,
    /// The same tuple in another zone is another connection.
    pub zone: u16,
    /// Given to a connection when it is made, and never later.
    pub helper: Option<Helper>,
}

/// Which confirmed connection: a handle that outlives it harmlessly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    shard: u16,
    slot: u32,
    /// Counts the slot's tenants.
    generation: u32,
}

/// What connection tracking said of one packet: a copy of what rules ask for most.
///
/// The rest is behind [`Conntrack::with_entry`].
#[derive(Clone, Debug)]
pub struct Tracked {
    pub state: CtState,
    pub direction: Direction,
    /// The connection's, at the moment when the packet had been accepted.
    pub status: Status,
    pub helper: Option<Helper>,
    /// Why the state is INVALID.
    pub invalid: Option<InvalidReason>,
    pub mark: u32,
    /// The packet's tuple, or for an ICMP error that of the flow it belongs to; `None` without a connection.
    pub tuple: Option<Tuple>,
    /// [`Entry::verdict`] of this direction.
    pub verdict: u64,
    id: Option<EntryId>,
    /// A connection that is not in the table yet.
    new: Option<Box<Entry>>,
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
            mark: 0,
            tuple: None,
            verdict: 0,
            id: None,
            new: None,
        }
    }

    /// Whether a connection stands behind the packet, confirmed or not.
    pub const fn has_entry(&self) -> bool {
        self.id.is_some() || self.new.is_some()
    }

    /// Which confirmed connection.
    pub const fn id(&self) -> Option<EntryId> {
        self.id
    }

    /// The connection's tuple as its first packet went.
    pub fn original(&self) -> Option<Tuple> {
        self.tuple.map(|tuple| match self.direction {
            Direction::Original => tuple,
            Direction::Reply => tuple.reply(),
        })
    }
}

#[derive(Debug, Default)]
pub struct Conntrack {}

impl Conntrack {
    pub fn track(&self, _pkt: &Packet, _template: Template, _now: Instant) -> Stage<Tracked> {
        Continue(Tracked::none())
    }

    pub fn confirm(&self, _ct: &mut Tracked, _now: Instant) -> Stage<()> {
        Continue(())
    }

    /// Reads or changes the connection behind a packet, under its lock; `None` where there is none (any more).
    ///
    /// What `ct` copied of it is brought up to date.
    pub fn with_entry<T>(&self, ct: &mut Tracked, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = ct.new.as_mut()?;
        let result = change(entry);
        ct.mark = entry.mark;
        Some(result)
    }

    /// Reads the connection behind a packet, under its lock; `None` where there is none (any more).
    pub fn read_entry<T>(&self, ct: &Tracked, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        ct.new.as_deref().map(read)
    }
}

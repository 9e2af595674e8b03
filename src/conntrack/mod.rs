//! What has been seen, and so what to expect.
//!
//! [`Conntrack::track`] says which of the five states a packet has; [`Conntrack::confirm`] enters a new connection
//! into the table, at the end of the packet's way. What happens in between cannot see the difference between
//! a dropped packet and one that never came.

#![forbid(unsafe_code)]

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
    pub zone: u16,
}

/// What connection tracking said of one packet.
#[derive(Clone, Debug)]
pub struct Tracked {
    pub state: CtState,
    pub direction: Direction,
    /// The packet's tuple, or for an ICMP error that of the flow it belongs to.
    pub tuple: Option<Tuple>,
}

impl Tracked {
    /// Before tracking: no state at all, which a rule sees as INVALID.
    pub const fn none() -> Self {
        Self { state: CtState::Invalid, direction: Direction::Original, tuple: None }
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
}

//! Which address and port a connection gets, in the order in which Linux tries them.
//!
//! The tuple that is chosen must belong to no other connection, in either direction. If nothing is free the last try is
//! kept, and the packet is dropped when its connection would enter the table.

#![forbid(unsafe_code)]

use super::range::port_of;
use super::{Range, Side, hash};
use crate::base::Family;
use crate::packet::tuple::{PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
use crate::packet::{Addr, Tuple};

/// Tries of the first round; each further round has half as many, from another place.
const FIRST_ROUND: u32 = 128;
const LAST_ROUND: u32 = 8;
/// Tries at the end of a round in which a closed connection has to give way.
const TAKES_OVER: u32 = 32;

/// What is known of other connections, and of chance.
pub trait Known {
    /// Whether a connection has the answer to `tuple` as one of its own.
    fn is_taken(&self, tuple: &Tuple) -> bool;

    /// Whether the one that has it is over, and gave way.
    fn takes_over(&self, tuple: &Tuple) -> bool;

    /// What the latest translated connection of the same source got, among those that got what `fits`.
    fn mapping(&self, current: &Tuple, fits: &dyn Fn(&Tuple) -> bool) -> Option<Tuple>;

    /// Where chance begins to look in `count` ports from `first` on, for that end.
    fn start(&self, side: Side, first: u16, count: u32) -> u16;
}

/// Which way led to a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing had to change.
    Unchanged,
    /// The port stays.
    PortKept,
    /// What another connection of the same source has got.
    Reused,
    /// The first free one, in order.
    NextFree,
    /// The first free one from a place that chance chose.
    Drawn,
    /// It was that of a connection that is over.
    TakenOver,
    /// Nothing was free.
    Exhausted,
}

impl How {
    pub const ALL: &'static [Self] = &[
        Self::Unchanged,
        Self::PortKept,
        Self::Reused,
        Self::NextFree,
        Self::Drawn,
        Self::TakenOver,
        Self::Exhausted,
    ];

    /// A stable word for metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::PortKept => "port-kept",
            Self::Reused => "reused",
            Self::NextFree => "next-free",
            Self::Drawn => "drawn",
            Self::TakenOver => "taken-over",
            Self::Exhausted => "exhausted",
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unchanged => "nothing had to change",
            Self::PortKept => "the port is kept",
            Self::Reused => "as another connection of the same source got it",
            Self::NextFree => "the next free one",
            Self::Drawn => "a free one from a place that chance chose",
            Self::TakenOver => "taken over from a connection that is over",
            Self::Exhausted => "nothing is free",
        }
    }
}

/// What a connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The first packet's tuple from now on.
    pub tuple: Tuple,
    pub how: How,
}

/// Chooses for a connection whose first packet has, as far as it was translated, the tuple `current`.
pub fn choose(known: &dyn Known, current: &Tuple, zone: u16, side: Side, range: &Range) -> Choice {
    if side == Side::Source && !range.is_random() {
        if range.accepts(current, side) {
            if !known.is_taken(current) {
                return Choice { tuple: *current, how: How::Unchanged };
            }
        } else if let Some(tuple) = known.mapping(current, &|mapped| range.accepts(mapped, side))
            && !known.is_taken(&tuple)
        {
            return Choice { tuple, how: How::Reused };
        }
    }
    let mut tuple = *current;
    if let Some((first, last)) = range.addrs {
        let ends = (Addr::from(first), Addr::from(last));
        let addr =
            if first == last { ends.0 } else { hash::address(ends, &tuple, side, zone, range.persistent) };
        match side {
            Side::Source => tuple.src = addr,
            Side::Destination => tuple.dst = addr,
        }
    }
    if !range.is_random() && keeps_port(known, &tuple, side, range) {
        let how = if tuple == *current { How::Unchanged } else { How::PortKept };
        return Choice { tuple, how };
    }
    search(known, tuple, side, range)
}

fn keeps_port(known: &dyn Known, tuple: &Tuple, side: Side, range: &Range) -> bool {
    match range.ports {
        Some(_) if side == Side::Destination && range.base.is_some() => false,
        Some((first, last)) => range.accepts_port(tuple, side) && (first == last || !known.is_taken(tuple)),
        None => !known.is_taken(tuple),
    }
}

/// Ports, or identifiers, that a search may use.
#[derive(Clone, Copy)]
struct Window {
    first: u16,
    count: u32,
}

impl Window {
    const fn new(first: u16, last: u16) -> Self {
        let (first, last) = if last < first { (last, first) } else { (first, last) };
        Self { first, count: last as u32 - first as u32 + 1 }
    }

    /// `None`: there is no port to search for, or it cannot be changed here.
    fn of(tuple: &Tuple, side: Side, range: &Range) -> Option<Self> {
        if tuple.is_icmp() {
            let (first, last) = range.ports.unwrap_or((0, u16::MAX));
            return Some(Self::new(first, last));
        }
        if !matches!(tuple.proto, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP) {
            return None;
        }
        match range.ports {
            Some((first, last)) => Some(Self::new(first, last)),
            None if side == Side::Destination => None,
            // A low port tells some servers who asks, and stays a low one.
            None => Some(match tuple.left {
                ..512 => Self::new(1, 511),
                512..1024 => Self::new(600, 1023),
                1024.. => Self::new(1024, u16::MAX),
            }),
        }
    }

    const fn port(self, offset: u16) -> u16 {
        self.first.wrapping_add((offset as u32 % self.count) as u16)
    }

    fn start(self, known: &dyn Known, side: Side) -> u16 {
        known.start(side, self.first, self.count).wrapping_sub(self.first)
    }
}

/// Looks for a port that is free.
fn search(known: &dyn Known, mut tuple: Tuple, side: Side, range: &Range) -> Choice {
    let Some(window) = Window::of(&tuple, side, range) else {
        let how = if known.is_taken(&tuple) { How::Exhausted } else { How::PortKept };
        return Choice { tuple, how };
    };
    let is_drawn = range.is_random() || side == Side::Source;
    let shift = range.base.filter(|_| side == Side::Destination);
    let (mut offset, mut how) = match shift {
        Some(base) => (port_of(&tuple, side).wrapping_sub(base), How::NextFree),
        None if is_drawn => (window.start(known, side), How::Drawn),
        None => (0, How::NextFree),
    };
    let mut tries = window.count.min(FIRST_ROUND);
    loop {
        for left in (1..=tries).rev() {
            set_port(&mut tuple, side, window.port(offset));
            if !known.is_taken(&tuple) {
                return Choice { tuple, how };
            }
            if left <= TAKES_OVER && known.takes_over(&tuple) {
                return Choice { tuple, how: How::TakenOver };
            }
            offset = offset.wrapping_add(1);
        }
        if tries >= window.count || tries <= LAST_ROUND {
            return Choice { tuple, how: How::Exhausted };
        }
        tries /= 2;
        (offset, how) = (window.start(known, side), How::Drawn);
    }
}

const fn set_port(tuple: &mut Tuple, side: Side, port: u16) {
    match side {
        Side::Destination if !tuple.is_icmp() => tuple.right = port,
        Side::Source | Side::Destination => tuple.left = port,
    }
}

/// Linux's words for the range of one address family, as a rule or nobody asks for it.
impl Range {
    /// The address that the connection has, and any port: what is done where no rule decides.
    pub fn unchanged(current: &Tuple, side: Side) -> Self {
        let addr = match side {
            Side::Source => current.src,
            Side::Destination => current.dst,
        };
        Self::to(addr, current.family)
    }

    /// One address.
    pub fn to(addr: Addr, family: Family) -> Self {
        let addr = addr.to_ip(family);
        Self { addrs: Some((addr, addr)), ..Self::default() }
    }
}

#[cfg(test)]
mod tests;

//! What a rule of the nat table asks for: which address, which port, and how they are chosen.

#![forbid(unsafe_code)]

use crate::packet::tuple::{PROTO_DCCP, PROTO_GRE, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
use crate::packet::{Addr, Family, Tuple};
use core::net::IpAddr;

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

impl Side {
    pub const ALL: &'static [Self] = &[Self::Source, Self::Destination];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// Where a translated address and port may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First and last address; `None`: the address stays, or the target knows it (MASQUERADE, REDIRECT).
    pub addrs: Option<(IpAddr, IpAddr)>,
    /// First and last port, or identifier of ICMP; `None`: any, and the packet's own comes first.
    pub ports: Option<(u16, u16)>,
    /// DNAT `first-last/base`: what port `base` asks for is found at the first one, and so on.
    pub base: Option<u16>,
    /// `--random`: the search for a port begins anywhere.
    pub random: bool,
    /// `--random-fully`, which is the same today, and is written as it was read.
    pub random_fully: bool,
    /// The address depends on the source alone.
    pub persistent: bool,
}

impl Range {
    /// Whether ports are drawn, and no mapping is used again.
    pub const fn is_random(&self) -> bool {
        self.random || self.random_fully
    }

    /// Whether a tuple is already what the range asks for.
    pub(super) fn accepts(&self, tuple: &Tuple, side: Side) -> bool {
        let addr = match side {
            Side::Source => tuple.src,
            Side::Destination => tuple.dst,
        };
        let is_inside = |(first, last): (IpAddr, IpAddr)| (first.into()..=last.into()).contains(&addr);
        self.addrs.is_none_or(is_inside) && self.accepts_port(tuple, side)
    }

    /// Whether its port is; protocols without ports do not mind.
    pub(super) fn accepts_port(&self, tuple: &Tuple, side: Side) -> bool {
        let has_port = tuple.is_icmp()
            || matches!(
                tuple.proto,
                PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP | PROTO_DCCP | PROTO_GRE
            );
        let is_inside = |(first, last): (u16, u16)| (first..=last).contains(&port_of(tuple, side));
        !has_port || self.ports.is_none_or(is_inside)
    }
}

/// The port at that end; ICMP has one identifier for both.
pub(super) const fn port_of(tuple: &Tuple, side: Side) -> u16 {
    match side {
        Side::Destination if !tuple.is_icmp() => tuple.right,
        Side::Source | Side::Destination => tuple.left,
    }
}

/// The address with the network part of another.
fn moved(addr: Addr, network: IpAddr, prefix_len: u8) -> Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
    Addr::from_bits(Addr::from(network).bits() | addr.bits() & !mask)
}

/// What a rule of the nat table decides of a connection, once and for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Another destination.
    Dnat(Range),
    /// Another source.
    Snat(Range),
    /// Another source: the address of the interface where the packet leaves. [`Range::addrs`] is `None`.
    Masquerade(Range),
    /// Another destination: the router itself. [`Range::addrs`] is `None`.
    Redirect(Range),
    /// Another network around the same host part, of the source or of the destination, as the hook has it.
    Netmap {
        /// Its host bits are zero.
        network: IpAddr,
        prefix_len: u8,
    },
}

impl Target {
    /// The range to choose from, of a connection whose packet is for `dst` or from `src` at that end; `own` is the
    /// router's address where the target asks for that.
    ///
    /// `None`: there is no such address.
    pub fn range(&self, current: Addr, own: impl FnOnce() -> Option<IpAddr>) -> Option<Range> {
        match *self {
            Self::Dnat(range) | Self::Snat(range) => Some(range),
            Self::Masquerade(range) | Self::Redirect(range) => {
                let own = own()?;
                Some(Range { addrs: Some((own, own)), ..range })
            }
            Self::Netmap { network, prefix_len } => {
                let family = Family::from(network);
                Some(Range::to(moved(current, network, prefix_len), family))
            }
        }
    }

    /// Whether it may give a connection another address, and not another port alone.
    pub const fn changes_address(&self) -> bool {
        match self {
            Self::Dnat(range) | Self::Snat(range) => range.addrs.is_some(),
            Self::Masquerade(_) | Self::Redirect(_) | Self::Netmap { .. } => true,
        }
    }

    /// As `-j` names it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dnat(_) => "DNAT",
            Self::Snat(_) => "SNAT",
            Self::Masquerade(_) => "MASQUERADE",
            Self::Redirect(_) => "REDIRECT",
            Self::Netmap { .. } => "NETMAP",
        }
    }
}

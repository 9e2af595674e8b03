//! Tuple: what tells one flow from another; its reply.

#![forbid(unsafe_code)]

use super::{Addr, Family};
use core::fmt;

/// ICMP.
pub const PROTO_ICMP: u8 = 1;
/// TCP.
pub const PROTO_TCP: u8 = 6;
/// UDP.
pub const PROTO_UDP: u8 = 17;
/// DCCP.
pub const PROTO_DCCP: u8 = 33;
/// GRE.
pub const PROTO_GRE: u8 = 47;
/// ESP: encrypted payload.
pub const PROTO_ESP: u8 = 50;
/// AH: an authenticated packet.
pub const PROTO_AH: u8 = 51;
/// ICMPv6.
pub const PROTO_ICMPV6: u8 = 58;
/// SCTP.
pub const PROTO_SCTP: u8 = 132;
/// UDP-Lite.
pub const PROTO_UDPLITE: u8 = 136;

/// Bytes of the shortest header of a protocol with ports; `None` for others.
pub const fn ports_header_len(proto: u8) -> Option<usize> {
    match proto {
        PROTO_TCP => Some(20),
        PROTO_UDP | PROTO_UDPLITE => Some(8),
        PROTO_SCTP | PROTO_DCCP => Some(12),
        _ => None,
    }
}

/// A flow in one direction: addresses, protocol, and what the protocol adds.
///
/// `left` and `right` are the source and destination port of TCP, UDP, UDP-Lite and SCTP; the two keys of GRE;
/// for ICMP queries `left` is the identifier, `right` type and code. Protocols without either leave them zero.
#[derive(Clone, Copy, Eq, PartialOrd, Ord)]
pub struct Tuple {
    /// The source address.
    pub src: Addr,
    /// The destination address.
    pub dst: Addr,
    /// The source port, the identifier of an echo, or the key of a tunnel.
    pub left: u16,
    /// The destination port, or ICMP type and code.
    pub right: u16,
    /// The zone of conntrack that keeps flows apart; 0 unless a rule says otherwise.
    pub zone: u16,
    /// The protocol, by its number.
    pub proto: u8,
    /// IPv4 or IPv6.
    pub family: Family,
}

/// Written out so that it is never a call, and begins with what most often differs.
impl PartialEq for Tuple {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.left == other.left
            && self.right == other.right
            && self.src == other.src
            && self.dst == other.dst
            && self.zone == other.zone
            && self.proto == other.proto
            && self.family == other.family
    }
}

impl Tuple {
    /// The tuple that an answer to this one has.
    ///
    /// The reply of a reply is the tuple again. ICMP types that no answer is known for keep their type.
    #[must_use]
    #[inline]
    pub fn reply(&self) -> Self {
        let (left, right) =
            if self.is_icmp() { (self.left, self.answer_type()) } else { (self.right, self.left) };
        Self { src: self.dst, dst: self.src, left, right, ..*self }
    }

    /// The ICMP type, if it is ICMP.
    pub const fn icmp_type(&self) -> u8 {
        (self.right >> 8) as u8
    }

    /// The ICMP code, if it is ICMP.
    pub const fn icmp_code(&self) -> u8 {
        self.right as u8
    }

    /// Type and code of the answer to an ICMP query.
    #[inline(never)]
    fn answer_type(&self) -> u16 {
        let kind = self.icmp_type();
        let answer = match self.family {
            Family::Ipv4 => icmp_answer(kind),
            Family::Ipv6 => icmpv6_answer(kind),
        };
        u16::from_be_bytes([answer.unwrap_or(kind), self.icmp_code()])
    }

    /// Whether it is of ICMP or ICMPv6.
    #[inline]
    pub const fn is_icmp(&self) -> bool {
        matches!((self.family, self.proto), (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6))
    }
}

/// The other half of an ICMP query: echo, timestamp, information, address mask.
pub fn icmp_answer(kind: u8) -> Option<u8> {
    Some(match kind {
        8 => 0,
        0 => 8,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// The other half of an ICMPv6 query: echo, node information (RFC 4620).
pub fn icmpv6_answer(kind: u8) -> Option<u8> {
    Some(match kind {
        128 => 129,
        129 => 128,
        139 => 140,
        140 => 139,
        _ => return None,
    })
}

impl Tuple {
    /// What stands behind its addresses: ports, or what a protocol has instead.
    pub(crate) const fn ends(&self) -> Ends<'_> {
        Ends(self)
    }
}

/// The part of a conntrack line that states a tuple: `src=… dst=… sport=… dport=…`.
impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = self.ends();
        write!(f, "src={} dst={}{ends}", self.src.to_ip(self.family), self.dst.to_ip(self.family))
    }
}

/// What stands behind the addresses of a tuple.
pub(crate) struct Ends<'a>(&'a Tuple);

impl fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple { proto, left, right, .. } = *self.0;
        match proto {
            _ if self.0.is_icmp() => {
                write!(f, " type={} code={} id={left}", self.0.icmp_type(), self.0.icmp_code())
            }
            PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP | PROTO_DCCP => {
                write!(f, " sport={left} dport={right}")
            }
            PROTO_GRE => write!(f, " srckey={left:#x} dstkey={right:#x}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proto={} {self}", self.proto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_and_a_ping_the_other_way_are_different_flows() {
        let a = Addr::from_v4([192, 0, 2, 1]);
        let b = Addr::from_v4([192, 0, 2, 2]);
        let there = Tuple {
            src: a,
            dst: b,
            left: 7,
            right: 0x0800,
            zone: 0,
            proto: PROTO_ICMP,
            family: Family::Ipv4,
        };
        let back = Tuple { src: b, dst: a, ..there };
        assert_eq!(there.reply().icmp_type(), 0);
        assert_eq!(there.reply().reply(), there);
        assert_ne!(there.reply(), back);
    }
}

//! Rewrites a packet in place. Checksums follow without a look at the rest: one that was wrong stays wrong.

#![forbid(unsafe_code)]

use super::{Side, quote};
use crate::packet::tuple::{
    PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use crate::packet::{Family, Packet, Tuple};

/// A header of a protocol with ports, as far as it must be there to be rewritten.
pub(super) const NEEDED: usize = 8;
const ICMP_ID: usize = 4;
const ICMP_HEADER_LEN: usize = 8;

/// Gives the packet the end that it has in `to`. `false`: its header is too short for that.
#[must_use]
pub fn rewrite(pkt: &mut Packet, side: Side, to: &Tuple) -> bool {
    let (family, proto) = (pkt.family(), pkt.proto());
    if !can_rewrite(pkt.l4(), family, proto, side) {
        return false;
    }
    match side {
        Side::Source => pkt.set_src(to.src),
        Side::Destination => pkt.set_dst(to.dst),
    }
    match (proto, side) {
        (PROTO_TCP | PROTO_UDP | PROTO_UDPLITE, Side::Source) => pkt.set_src_port(to.left),
        (PROTO_TCP | PROTO_UDP | PROTO_UDPLITE, Side::Destination) => pkt.set_dst_port(to.right),
        (PROTO_SCTP, _) => {
            let (at, port) = if side == Side::Source { (0, to.left) } else { (2, to.right) };
            pkt.l4_mut()[at..at + 2].copy_from_slice(&port.to_be_bytes());
            if !pkt.offload().needs_checksum() {
                fill_crc(pkt.l4_mut());
            }
        }
        (PROTO_ICMP | PROTO_ICMPV6, _) if has_id(family, pkt.l4()[0]) => {
            pkt.edit_l4(ICMP_ID, &to.left.to_be_bytes());
        }
        _ => {}
    }
    true
}

/// Whether the upper layer's header is long enough, and of a kind that can be rewritten at that end.
pub(super) fn can_rewrite(l4: &[u8], family: Family, proto: u8, side: Side) -> bool {
    const GRE_VERSION: u8 = 0x07;
    match (family, proto) {
        (_, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP)
        | (Family::Ipv4, PROTO_ICMP)
        | (Family::Ipv6, PROTO_ICMPV6) => l4.len() >= NEEDED,
        (_, PROTO_GRE) => l4.len() >= NEEDED && (side == Side::Source || l4[1] & GRE_VERSION <= 1),
        _ => true,
    }
}

/// Whether an ICMP message of that type has an identifier.
pub(super) const fn has_id(family: Family, kind: u8) -> bool {
    match family {
        Family::Ipv4 => matches!(kind, 0 | 8 | 13..=18),
        Family::Ipv6 => matches!(kind, 128 | 129),
    }
}

/// Writes SCTP's checksum anew, over whatever is there of the packet (RFC 9260 §6.8).
pub(super) fn fill_crc(l4: &mut [u8]) {
    if let Some(field) = l4.get_mut(8..12) {
        field.fill(0);
        let crc = crc32c::crc32c(l4).to_le_bytes();
        l4[8..12].copy_from_slice(&crc);
    }
}

/// Gives an ICMP error the end that a packet of its connection would have in `to`, and what it quotes the opposite one,
/// as that packet had it at the other side of the translation.
///
/// `false`: the quote is too short for that.
#[must_use]
pub fn rewrite_error(pkt: &mut Packet, side: Side, to: &Tuple) -> bool {
    let family = pkt.family();
    let Some(quoted) = pkt.l4_mut().get_mut(ICMP_HEADER_LEN..) else { return false };
    // What is quoted went the other way: its source is where the error goes.
    let done = match side {
        Side::Destination => quote::rewrite(quoted, family, Side::Source, (to.dst, port_back(to, to.right))),
        Side::Source => quote::rewrite(quoted, family, Side::Destination, (to.src, to.left)),
    };
    if !done {
        return false;
    }
    pkt.fill_l4_checksum();
    match side {
        Side::Source => pkt.set_src(to.src),
        Side::Destination => pkt.set_dst(to.dst),
    }
    true
}

const fn port_back(to: &Tuple, port: u16) -> u16 {
    if to.is_icmp() { to.left } else { port }
}

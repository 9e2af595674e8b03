//! Which connection a frame may belong to, read without the tracker that is under test.

#![forbid(unsafe_code)]

use stateway_core::packet::tuple::{
    PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use stateway_core::packet::{Addr, Family, Frame, Packet, Tuple};

const IPV4_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
const ICMPV6_FIRST_QUERY: u8 = 128;

/// The tuple that the frame has in its own direction; for an ICMP error that of the packet that it quotes, reversed.
///
/// `None` where it cannot be read; fragments have none before they are joined.
pub fn of_frame(frame: &[u8]) -> Option<Tuple> {
    let mut copy = frame.to_vec();
    let mut untagged = Frame::new(&mut copy);
    untagged.strip_priority_tags();
    of(&untagged.parse().ok()?)
}

/// As [`of_frame`], for a packet without its link header.
pub(super) fn of_packet(packet: &[u8]) -> Option<Tuple> {
    let ethertype: [u8; 2] = if packet.first()? >> 4 == 6 { [0x86, 0xdd] } else { [0x08, 0] };
    of_frame(&[&[0; 12], &ethertype[..], packet].concat())
}

fn of(pkt: &Packet) -> Option<Tuple> {
    if pkt.fragment().is_some() {
        return None;
    }
    let (family, l4) = (pkt.family(), pkt.l4());
    if is_error(family, pkt.proto(), l4) {
        return of_quote(family, l4.get(8..)?).map(|quoted| quoted.reply());
    }
    Some(assemble(family, pkt.src(), pkt.dst(), pkt.proto(), l4))
}

fn is_error(family: Family, proto: u8, l4: &[u8]) -> bool {
    let Some(&kind) = l4.first() else { return false };
    match (family, proto) {
        (Family::Ipv4, PROTO_ICMP) => IPV4_ERRORS.contains(&kind),
        (Family::Ipv6, PROTO_ICMPV6) => kind < ICMPV6_FIRST_QUERY,
        _ => false,
    }
}

/// The tuple of a packet that an error quotes, whose end may be missing.
fn of_quote(family: Family, quote: &[u8]) -> Option<Tuple> {
    match family {
        Family::Ipv4 => {
            let header_len = usize::from(quote.first()? & 0x0f) * 4;
            let addr = |at: usize| {
                quote.get(at..at + 4).and_then(|b| b.first_chunk()).map(|b: &[u8; 4]| Addr::from_v4(*b))
            };
            Some(assemble(family, addr(12)?, addr(16)?, *quote.get(9)?, quote.get(header_len..)?))
        }
        Family::Ipv6 => {
            let addr = |at: usize| {
                quote.get(at..at + 16).and_then(|b| b.first_chunk()).map(|b: &[u8; 16]| Addr::from_v6(*b))
            };
            Some(assemble(family, addr(8)?, addr(24)?, *quote.get(6)?, quote.get(40..)?))
        }
    }
}

fn assemble(family: Family, src: Addr, dst: Addr, proto: u8, l4: &[u8]) -> Tuple {
    let word =
        |at: usize| l4.get(at..at + 2).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b));
    let (left, right) = match proto {
        PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP => (word(0), word(2)),
        PROTO_ICMP | PROTO_ICMPV6 => (word(4), word(0)),
        // The call of PPTP; plain GRE has no key that counts.
        PROTO_GRE if l4.get(1).is_some_and(|b| b & 7 == 1) && word(2) == 0x880b => (0, word(6)),
        _ => (0, 0),
    };
    Tuple { src, dst, left, right, zone: 0, proto, family }
}

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
    let pkt = untagged.parse().ok()?;
    if pkt.fragment().is_some() { None } else { of(&pkt) }
}

/// As [`of_frame`], for a packet without its link header that the kernel has joined already.
///
/// IPv6 allows a second fragment header, which it leaves in place and reads past where the upper layer begins behind it.
pub(super) fn of_joined(packet: &[u8]) -> Option<Tuple> {
    let ethertype: [u8; 2] = if packet.first()? >> 4 == 6 { [0x86, 0xdd] } else { [0x08, 0] };
    let mut frame = [&[0; 12], &ethertype[..], packet].concat();
    let joined = Frame::new(&mut frame);
    let pkt = joined.parse().ok()?;
    if pkt.fragment().is_some_and(|piece| piece.offset > 0) { None } else { of(&pkt) }
}

fn of(pkt: &Packet) -> Option<Tuple> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const FRAGMENT: u8 = 44;

    /// An IPv6 packet with a datagram from port 1 to port 2 behind these fragment headers: offset, more.
    fn datagram(headers: &[(u16, u16)]) -> Vec<u8> {
        let ends = [Addr::from_v6([1; 16]), Addr::from_v6([2; 16])];
        let mut upper = vec![0, 1, 0, 2, 0, 8, 0, 0];
        let mut kind = PROTO_UDP;
        for (offset, more) in headers {
            let [high, low] = (offset | more).to_be_bytes();
            upper.splice(..0, [kind, 0, high, low, 0, 0, 0, 7]);
            kind = FRAGMENT;
        }
        let fixed = [0x60, 0, 0, 0, 0, upper.len() as u8, kind, 64];
        let [src, dst] = ends.map(|end| end.bytes(Family::Ipv6).to_vec());
        [&fixed[..], &src, &dst, &upper].concat()
    }

    fn ports(packet: &[u8]) -> Option<(u16, u16)> {
        of_joined(packet).map(|tuple| (tuple.left, tuple.right))
    }

    #[test]
    fn a_joined_packet_that_is_a_piece_once_more_has_the_key_of_what_it_begins_with() {
        assert_eq!(ports(&datagram(&[])), Some((1, 2)));
        assert_eq!(ports(&datagram(&[(0, 0)])), Some((1, 2)), "a piece that is the whole");
        assert_eq!(ports(&datagram(&[(0, 1)])), Some((1, 2)), "a first piece");
        assert_eq!(ports(&datagram(&[(8, 0)])), None, "no ports are in a later one");
        let frame = [&[0; 12], &[0x86, 0xdd][..], &datagram(&[(0, 0)])].concat();
        assert_eq!(of_frame(&frame), None, "not joined yet");
    }
}

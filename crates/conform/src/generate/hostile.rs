//! Pieces as attackers send them: overlapping, empty, tiny, far behind the end, of odd length, nested, with other headers in front
//! of each, and of several protocols under one identification.

#![forbid(unsafe_code)]

use super::{Ends, Ip, chance, extend, fragment, frame, pick, udp};
use crate::trace::{Step, Trace, Waiting};
use fastrand::Rng;
use stateway_core::packet::Family;
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP};

const FRAGMENT_HEADER: u8 = 44;
const MORE: u16 = 0x2000;
const KIND: &str = "hostile fragment";

/// A piece: which datagram it claims to be of, where it belongs there, and what it holds.
struct Piece {
    id: u32,
    proto: u8,
    /// In units of eight bytes.
    offset: u16,
    more: bool,
    bytes: Vec<u8>,
}

pub(super) fn trace(rng: &mut Rng, ends: &Ends, forgets_soon: bool) -> Trace {
    let mut ends = ends.clone();
    let is_to_router = chance(rng, 20);
    if is_to_router {
        ends.hosts[1] = fragment::router_address(rng, ends.family);
    }
    let mut steps = Vec::new();
    for _ in 0..rng.usize(1..3) {
        let sender = usize::from(chance(rng, 20) && !is_to_router);
        let mut pieces = pieces(rng, &ends);
        if chance(rng, 40) {
            rng.shuffle(&mut pieces);
        }
        for piece in pieces {
            let packet = emit(rng, &ends, sender, &piece);
            steps.push(frame(rng, &ends, sender, &packet, KIND));
        }
        if forgets_soon && chance(rng, 25) {
            steps.push(Step::Elapse(3));
        }
        if chance(rng, 30) && !is_to_router {
            let packet = udp::datagram(rng, &ends, 1 - sender, PROTO_UDP, 0);
            steps.push(frame(rng, &ends, 1 - sender, &packet, "datagram"));
        }
    }
    // Three seconds each at most: all of it passes in earnest.
    Trace { steps, waiting: Waiting::Really }
}

/// A datagram in right pieces, with hostile ones among them; or nothing but those.
fn pieces(rng: &mut Rng, ends: &Ends) -> Vec<Piece> {
    let id = rng.u32(..);
    let icmp = if ends.family == Family::Ipv4 { PROTO_ICMP } else { PROTO_ICMPV6 };
    let proto = *pick(rng, &[PROTO_UDP, PROTO_UDP, PROTO_TCP, PROTO_SCTP, icmp, 253]);
    let whole = whole(rng, ends, proto);
    let size = *pick(rng, &[8_usize, 8, 16, 24, 64]);
    let count = whole.len().div_ceil(size);
    let right = whole.chunks(size).enumerate().map(|(n, bytes)| Piece {
        id,
        proto,
        offset: (n * size / 8) as u16,
        more: n + 1 < count,
        bytes: bytes.to_vec(),
    });
    let mut pieces: Vec<Piece> = if chance(rng, 70) { right.collect() } else { Vec::new() };
    for _ in 0..rng.usize(0..4) {
        let at = rng.usize(..=pieces.len());
        let hostile = hostile(rng, &whole, id, proto);
        pieces.insert(at, hostile);
    }
    pieces
}

/// Nothing but ports, lengths and filler: its checksum is seldom right, and seldom asked for.
fn whole(rng: &mut Rng, ends: &Ends, proto: u8) -> Vec<u8> {
    let len = *pick(rng, &[8_usize, 16, 24, 33, 40, 64, 100]);
    let [from, to] = ends.numbers.map(u16::to_be_bytes);
    let mut l4 = match proto {
        PROTO_UDP => [&from[..], &to, &(len.max(8) as u16).to_be_bytes(), &[0, 0]].concat(),
        PROTO_ICMP => vec![8, 0, 0, 0, from[0], from[1], 0, 1],
        PROTO_ICMPV6 => vec![128, 0, 0, 0, from[0], from[1], 0, 1],
        _ => [&from[..], &to, &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]].concat(),
    };
    l4.resize(len, 0x74);
    let at = match proto {
        PROTO_TCP => 16,
        PROTO_UDP => 6,
        _ => 2,
    };
    if proto != PROTO_SCTP && proto != 253 && chance(rng, 80) {
        ends.ip(0, proto).fill_checksum(&mut l4, at);
    }
    l4
}

fn hostile(rng: &mut Rng, whole: &[u8], id: u32, proto: u8) -> Piece {
    // The last eight bytes that a datagram can have, and what is beyond.
    const FARTHEST: u16 = 0x1fff;
    let near = rng.u16(..=whole.len() as u16 / 8 + 1);
    let anywhere = rng.u16(..=FARTHEST);
    let offset = *pick(rng, &[0, near, near, near, FARTHEST, FARTHEST - 1, anywhere]);
    let len = *pick(rng, &[0_usize, 1, 7, 8, 8, 9, 15, 16, 24, 40, 1000]);
    let start = (usize::from(offset) * 8).min(whole.len());
    let mut bytes = whole[start..(start + len).min(whole.len())].to_vec();
    bytes.resize(len, 0x2e);
    if chance(rng, 30) {
        // What it overlaps says something else.
        for byte in &mut bytes {
            *byte ^= 0x55;
        }
    }
    let id = if chance(rng, 90) { id } else { rng.u32(..4) };
    let proto = if chance(rng, 85) { proto } else { *pick(rng, &[PROTO_UDP, PROTO_TCP, 253, 59, 0, 60]) };
    Piece { id, proto, offset, more: chance(rng, 50), bytes }
}

fn emit(rng: &mut Rng, ends: &Ends, sender: usize, piece: &Piece) -> Vec<u8> {
    let mut ip: Ip = ends.ip(sender, piece.proto);
    match ip.family {
        Family::Ipv4 => {
            ip.ident = piece.id as u16;
            ip.fragment = piece.offset | if piece.more { MORE } else { 0 };
            if chance(rng, 3) {
                // Both at once contradict each other.
                ip.fragment |= 0x4000;
            }
            if chance(rng, 8) {
                ip.extra = pick(rng, &super::OPTIONS).to_vec();
            }
            ip.build(&piece.bytes)
        }
        Family::Ipv6 => {
            let field = piece.offset << 3 | u16::from(piece.more) | if chance(rng, 5) { 6 } else { 0 };
            let reserved = u8::from(chance(rng, 5));
            let header =
                [&[piece.proto, reserved][..], &field.to_be_bytes(), &piece.id.to_be_bytes()].concat();
            // What stands behind the fragment header, in front of this piece alone.
            let inner = if chance(rng, 15) { in_front(rng, piece.proto) } else { (piece.proto, Vec::new()) };
            // And what stands in front of it.
            let outer =
                if chance(rng, 15) { in_front(rng, FRAGMENT_HEADER) } else { (FRAGMENT_HEADER, Vec::new()) };
            let mut header = header;
            header[0] = inner.0;
            (ip.first, ip.extra) = (outer.0, [outer.1, header, inner.1].concat());
            ip.build(&piece.bytes)
        }
    }
}

/// Extension headers in front of `next`: what the first of them is, and all of them.
fn in_front(rng: &mut Rng, next: u8) -> (u8, Vec<u8>) {
    let mut ip = Ip::new(
        Family::Ipv6,
        stateway_core::packet::Addr::UNSPECIFIED,
        stateway_core::packet::Addr::UNSPECIFIED,
        next,
    );
    extend(rng, &mut ip);
    if ip.extra.is_empty() { (next, Vec::new()) } else { (ip.first, ip.extra) }
}

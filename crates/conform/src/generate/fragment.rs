//! Packets in pieces: in order and out of it, twice, overlapping, with holes.

#![forbid(unsafe_code)]

use super::{Ends, Ip, chance, frame, pick, season, udp};
use crate::kernel::ADDRESSES;
use crate::trace::{Step, Trace, Waiting};
use fastrand::Rng;
use stateway_core::packet::tuple::{PROTO_GRE, PROTO_SCTP, PROTO_TCP, PROTO_UDP};
use stateway_core::packet::{Addr, Family};
use std::net::IpAddr;

const MORE: u16 = 0x2000;
const FRAGMENT_HEADER: u8 = 44;

/// `forgets_soon`: pieces are given up after two seconds, so that it is worth waiting for it.
pub(super) fn trace(rng: &mut Rng, ends: &Ends, forgets_soon: bool) -> Trace {
    let mut ends = ends.clone();
    let to_router = chance(rng, 15);
    if to_router {
        ends.hosts[1] = router_address(rng, ends.family);
    }
    let mut steps = Vec::new();
    let mut waits = if forgets_soon { vec![3, 1, 3] } else { Vec::new() };
    for _ in 0..rng.usize(1..4) {
        let sender = usize::from(chance(rng, 30) && !to_router);
        let (ip, l4) = whole(rng, &ends, sender);
        let mut pieces = cut(rng, &l4);
        disturb(rng, &mut pieces, forgets_soon);
        let id = rng.u32(..);
        for piece in pieces {
            let packet = emit(&ip, id, &piece);
            steps.push(frame(rng, &ends, sender, &packet, "fragment"));
            if chance(rng, 5) {
                steps.extend(waits.pop().map(Step::Elapse));
            }
            if chance(rng, 8) {
                // A piece of another datagram in between.
                let other = emit(&ip, rng.u32(..), &piece);
                steps.push(frame(rng, &ends, sender, &other, "fragment"));
            }
        }
        if chance(rng, 30) && !to_router {
            let packet = udp::datagram(rng, &ends, 1 - sender, PROTO_UDP, 0);
            steps.push(frame(rng, &ends, 1 - sender, &packet, "datagram"));
        }
        if chance(rng, 30) {
            steps.extend(waits.pop().map(Step::Elapse));
        }
    }
    Trace { steps, waiting: Waiting::Really }
}

pub(super) fn router_address(rng: &mut Rng, family: Family) -> Addr {
    let address = ADDRESSES[rng.usize(..2)][usize::from(family == Family::Ipv6)];
    let ip = address.split_once('/').and_then(|(ip, _)| ip.parse::<IpAddr>().ok());
    ip.map_or(Addr::UNSPECIFIED, Into::into)
}

/// A packet that is worth cutting: its header and what stands behind it.
fn whole(rng: &mut Rng, ends: &Ends, sender: usize) -> (Ip, Vec<u8>) {
    if chance(rng, 15) {
        return whole_with_long_header(rng, ends, sender);
    }
    let proto = PROTO_UDP;
    let mut ip = ends.ip(sender, proto);
    season(rng, &mut ip);
    (ip.fragment, ip.extra) = (0, if ip.family == Family::Ipv4 { ip.extra } else { Vec::new() });
    let len = *pick(rng, &[9_usize, 40, 100, 1000, 1400, 1480, 2000, 3000, 4000]);
    let (from, to) = (ends.numbers[sender], ends.numbers[1 - sender]);
    let mut l4 = [from.to_be_bytes(), to.to_be_bytes(), (len as u16 + 8).to_be_bytes(), [0; 2]].concat();
    l4.extend((0..len).map(|_| rng.u8(..)));
    ip.fill_checksum(&mut l4, 6);
    if chance(rng, 5) {
        l4[7] ^= 1;
    }
    (ip, l4)
}

/// A packet whose upper-layer header may be longer than its first piece.
fn whole_with_long_header(rng: &mut Rng, ends: &Ends, sender: usize) -> (Ip, Vec<u8>) {
    let proto = *pick(rng, &[PROTO_TCP, PROTO_SCTP, PROTO_GRE]);
    let mut ip = ends.ip(sender, proto);
    season(rng, &mut ip);
    (ip.fragment, ip.extra) = (ip.fragment & 0x4000, Vec::new());
    let (from, to) = (ends.numbers[sender], ends.numbers[1 - sender]);
    let mut l4 = [from.to_be_bytes(), to.to_be_bytes()].concat();
    l4.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]);
    l4.resize(20 + rng.usize(1..60), 0x74);
    if proto == PROTO_TCP {
        ip.fill_checksum(&mut l4, 16);
    }
    (ip, l4)
}

#[derive(Clone, Debug)]
struct Piece {
    offset: usize,
    bytes: Vec<u8>,
    more: bool,
}

fn cut(rng: &mut Rng, l4: &[u8]) -> Vec<Piece> {
    let size = *pick(rng, &[8_usize, 16, 24, 512, 1000, 1400, 1448, 1480]);
    let size = (size / 8 * 8).max(l4.len().div_ceil(12).next_multiple_of(8)).min(1448);
    let count = l4.len().div_ceil(size);
    l4.chunks(size)
        .enumerate()
        .map(|(n, bytes)| Piece { offset: n * size, bytes: bytes.to_vec(), more: n + 1 < count })
        .collect()
}

fn disturb(rng: &mut Rng, pieces: &mut Vec<Piece>, leaves_more: bool) {
    if chance(rng, 40) {
        rng.shuffle(pieces);
    }
    let at = rng.usize(..pieces.len());
    let what = if leaves_more && chance(rng, 40) { 0 } else { rng.u8(..12) };
    match what {
        0 if pieces.len() > 1 => drop(pieces.remove(at)),
        1 => pieces.insert(at, pieces[at].clone()),
        2 => {
            let mut overlap = pieces[at].clone();
            overlap.offset += 8;
            pieces.push(overlap);
        }
        3 => pieces[at].more = !pieces[at].more,
        4 => {
            let len = pieces[at].bytes.len();
            pieces[at].bytes.truncate(len.saturating_sub(rng.usize(1..9)).max(1));
        }
        5 => pieces[at].bytes.extend([0; 8]),
        7 => {
            // One of nothing, which says where the end is, or that there is more.
            let offset = pieces[at].offset + if chance(rng, 50) { pieces[at].bytes.len() & !7 } else { 0 };
            pieces.insert(at, Piece { offset, bytes: Vec::new(), more: chance(rng, 40) });
        }
        6 => {
            let again = pieces.clone();
            pieces.extend(again);
        }
        _ => {}
    }
}

fn emit(ip: &Ip, id: u32, piece: &Piece) -> Vec<u8> {
    let offset = (piece.offset / 8) as u16;
    let mut ip = ip.clone();
    match ip.family {
        Family::Ipv4 => {
            ip.ident = id as u16;
            ip.fragment |= offset | if piece.more { MORE } else { 0 };
        }
        Family::Ipv6 => {
            ip.first = FRAGMENT_HEADER;
            let field = offset << 3 | u16::from(piece.more);
            ip.extra = [&[ip.proto, 0][..], &field.to_be_bytes(), &id.to_be_bytes()].concat();
        }
    }
    ip.build(&piece.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_whole() {
        let mut rng = Rng::with_seed(1);
        let l4: Vec<u8> = (0..3000).map(|n| n as u8).collect();
        let pieces = cut(&mut rng, &l4);
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.clone()).collect();
        assert_eq!(joined, l4);
        assert!(pieces.iter().rev().skip(1).all(|piece| piece.more && piece.bytes.len() % 8 == 0));
    }
}

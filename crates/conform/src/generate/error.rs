//! ICMP errors about packets that went by.

#![forbid(unsafe_code)]

use super::{Ends, Ip, chance, frame, pick, season};
use crate::trace::Step;
use fastrand::Rng;
use stateway_core::packet::{Addr, ETHERNET_LEN, Family};

const V4_TYPES: [u8; 8] = [3, 3, 3, 11, 12, 4, 5, 11];
const V6_TYPES: [u8; 8] = [1, 2, 3, 4, 1, 100, 127, 0];

/// The neighbour's address on the link, on either side.
pub(super) const LINK_LOCAL: Addr = Addr::from_v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);

/// An error that the receiver of `quoted`, or a router near it, sends about it; or nearly one.
pub(super) fn about(rng: &mut Rng, ends: &Ends, quoted: &[u8]) -> Step {
    let packet = &quoted[ETHERNET_LEN.min(quoted.len())..];
    // Whose packet it is shows in its source address.
    let from_opener = source(packet, ends.family).is_none_or(|src| src == ends.hosts[0]);
    let mut sender = usize::from(from_opener);
    if chance(rng, 5) {
        sender = 1 - sender;
    }
    let mut ip = ends.ip(sender, Ip::icmp_proto(ends.family));
    season(rng, &mut ip);
    if chance(rng, 40) {
        // Any router on the way may say so.
        ip.src = nearby(ip.src, rng.u8(1..250));
    }
    if chance(rng, 5) {
        ip.dst = nearby(ip.dst, rng.u8(1..250));
    }
    let mut quote = packet.to_vec();
    distort(rng, ends.family, &mut quote);
    let kinds = if ends.family == Family::Ipv4 { &V4_TYPES } else { &V6_TYPES };
    let kind = if chance(rng, 5) { rng.u8(..) } else { *pick(rng, kinds) };
    let code = if chance(rng, 20) { rng.u8(..) } else { rng.u8(..16) };
    let mut l4 = vec![kind, code, 0, 0, 0, 0, rng.u8(..), rng.u8(..)];
    if ends.family == Family::Ipv6 && chance(rng, 6) {
        l4 = redirect(rng, &mut ip);
    }
    l4.extend_from_slice(&quote);
    ip.fill_checksum(&mut l4, 2);
    if chance(rng, 4) {
        l4[2] ^= 1 << rng.u8(..8);
    }
    if chance(rng, 3) {
        l4.truncate(rng.usize(..9));
    }
    frame(rng, ends, sender, &ip.build(&l4), "icmp error")
}

/// The head of a redirect, up to the packet that it quotes (RFC 4861 §4.5), from the link itself.
fn redirect(rng: &mut Rng, ip: &mut Ip) -> Vec<u8> {
    const REDIRECT: u8 = 137;
    const REDIRECTED_HEADER: u8 = 4;
    ip.src = LINK_LOCAL;
    ip.ttl = if chance(rng, 90) { 255 } else { 64 };
    let option = if chance(rng, 90) { REDIRECTED_HEADER } else { rng.u8(..) };
    let mut l4 = vec![REDIRECT, 0, 0, 0, 0, 0, 0, 0];
    l4.extend_from_slice(&LINK_LOCAL.v6());
    l4.extend_from_slice(&ip.dst.v6());
    l4.extend([option, rng.u8(..8), 0, 0, 0, 0, 0, 0]);
    l4
}

/// Cuts the quote as routers do, or breaks it.
fn distort(rng: &mut Rng, family: Family, quote: &mut Vec<u8>) {
    let header_len = match family {
        Family::Ipv4 => usize::from(quote.first().copied().unwrap_or(0x45) & 0x0f) * 4,
        Family::Ipv6 => 40,
    };
    let keep = match rng.u8(..10) {
        0..=4 => header_len + 8,
        5 | 6 => quote.len(),
        // About where a header that holds a checksum ends.
        7 if chance(rng, 50) => header_len + *pick(rng, &[11, 12, 18, 19, 20]),
        7 => header_len + rng.usize(..12),
        8 => header_len + 4,
        _ => rng.usize(..=quote.len()),
    };
    quote.truncate(keep.min(1200));
    if chance(rng, 10) && !quote.is_empty() {
        let at = rng.usize(..quote.len().min(header_len + 8));
        quote[at] ^= 1 << rng.u8(..8);
    }
}

fn source(packet: &[u8], family: Family) -> Option<Addr> {
    match family {
        Family::Ipv4 => packet.get(12..16)?.first_chunk().map(|b| Addr::from_v4(*b)),
        Family::Ipv6 => packet.get(8..24)?.first_chunk().map(|b| Addr::from_v6(*b)),
    }
}

/// Another host of the same network.
pub(super) fn nearby(addr: Addr, low: u8) -> Addr {
    let is_v4 = addr.v6()[4..].iter().all(|b| *b == 0);
    if is_v4 {
        let [a, b, _, _] = addr.v4();
        Addr::from_v4([a, b, 200, low])
    } else {
        let mut bytes = addr.v6();
        bytes[13] = 9;
        bytes[15] = low;
        Addr::from_v6(bytes)
    }
}

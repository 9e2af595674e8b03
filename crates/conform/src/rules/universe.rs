//! The few values that rules speak of and packets carry, so that they meet, at the edges above all.

#![forbid(unsafe_code)]

use fastrand::Rng;
use stateway_core::packet::{Addr, Family, Mac};

pub(super) const PORTS: [u16; 19] =
    [0, 1, 20, 21, 22, 23, 53, 79, 80, 81, 443, 1023, 1024, 1025, 5000, 32_767, 32_768, 65_534, 65_535];
pub(super) const TTLS: [u8; 10] = [0, 1, 2, 3, 63, 64, 65, 128, 254, 255];
/// Whole IP packets.
pub(super) const LENGTHS: [usize; 12] = [28, 40, 41, 48, 60, 61, 100, 576, 1000, 1280, 1399, 1500];
pub(super) const MARKS: [u32; 8] = [0, 1, 2, 0x10, 0xff, 0x100, 0xffff, 0xffff_ffff];
/// What payloads hold and `-m string` looks for.
pub(super) const WORDS: [&str; 6] = ["needle", "GET ", "NEEDLE", "USER", "abab", "zz"];
/// Link addresses that frames come from.
pub(super) const SENDERS: [Mac; 3] =
    [Mac([2, 0, 0, 0, 9, 1]), Mac([2, 0, 0, 0, 9, 2]), Mac([2, 0, 0, 0, 9, 0xff])];
/// Protocols with ports, ICMP aside; then others that are just numbers.
pub(super) const WITH_PORTS: [u8; 4] = [6, 17, 132, 136];
pub(super) const OTHERS: [u8; 5] = [47, 50, 51, 33, 253];

/// Host parts: both sides of the bounds of the networks that rules name.
const HOSTS: [u16; 12] = [0x100, 0x101, 0x102, 0x103, 0x17e, 0x17f, 0x180, 0x1ff, 0x200, 0x201, 0x2ff, 0x301];

pub(super) fn pick<'a, T>(rng: &mut Rng, list: &'a [T]) -> &'a T {
    &list[rng.usize(..list.len())]
}

/// True in `percent` of a hundred cases.
pub(super) fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(..100) < percent
}

/// One of the values, or its neighbour.
pub(super) fn near(rng: &mut Rng, list: &[u16]) -> u16 {
    let value = *pick(rng, list);
    match rng.u8(..10) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        _ => value,
    }
}

/// A host on one side of the router.
pub(super) fn host(rng: &mut Rng, family: Family, side: usize) -> Addr {
    let [high, low] = pick(rng, &HOSTS).to_be_bytes();
    match family {
        Family::Ipv4 => Addr::from_v4([198, 18 + side as u8, high, low]),
        Family::Ipv6 => {
            let net = if side == 0 { 1 } else { 5 };
            Addr::from_v6([0x20, 1, 0xd, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, high, low])
        }
    }
}

/// The router's own address on one side.
pub(super) const fn router(family: Family, side: usize) -> Addr {
    match (family, side) {
        (Family::Ipv4, 0) => Addr::from_v4([192, 0, 2, 1]),
        (Family::Ipv4, _) => Addr::from_v4([198, 51, 100, 1]),
        (Family::Ipv6, _) => {
            let net = if side == 0 { 1 } else { 2 };
            Addr::from_v6([0x20, 1, 0xd, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        }
    }
}

//! Which address of a range a connection gets: always the same one for the same ends, on every boot and every machine.

#![forbid(unsafe_code)]

use super::Side;
use crate::base::{Addr, Family};
use crate::packet::Tuple;

/// Picks between `first` and `last`. The destination of `tuple` has a say unless the choice is `persistent`.
pub(super) fn address(
    (first, last): (Addr, Addr),
    tuple: &Tuple,
    side: Side,
    zone: u16,
    persistent: bool,
) -> Addr {
    let words = if tuple.family == Family::Ipv4 { 1 } else { 4 };
    let mut dst = memory_words(tuple.dst);
    let seed = if persistent { 0 } else { dst[words - 1] ^ u32::from(zone) };
    let mut hash = hash_words(&memory_words(tuple.src), seed);
    let (first, last) = (network_words(first), network_words(last));
    let mut chosen = [0; 4];
    let mut is_below = false;
    for at in 0..words {
        let (lowest, count) = if is_below {
            (0, u32::MAX)
        } else {
            (first[at], last[at].wrapping_sub(first[at]).wrapping_add(1))
        };
        chosen[at] = lowest.wrapping_add(((u64::from(hash) * u64::from(count)) >> 32) as u32);
        is_below |= chosen[at] != last[at];
        if side == Side::Destination {
            // Linux writes the new destination over the old one, word by word, and hashes what stands there then.
            dst[at] = chosen[at].swap_bytes();
        }
        if !persistent {
            hash ^= dst[at];
        }
    }
    let mut bytes = [0; 16];
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(chosen) {
        *bytes = word.to_be_bytes();
    }
    Addr::from_v6(bytes)
}

fn network_words(addr: Addr) -> [u32; 4] {
    let bytes = addr.v6();
    core::array::from_fn(|at| u32::from_be_bytes(core::array::from_fn(|n| bytes[at * 4 + n])))
}

/// As an x86 machine reads them.
fn memory_words(addr: Addr) -> [u32; 4] {
    network_words(addr).map(u32::swap_bytes)
}

/// `hashword` of lookup3 (Bob Jenkins, 2006, public domain).
fn hash_words(words: &[u32; 4], seed: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(16).wrapping_add(seed);
    let [mut a, mut b, mut c] = [words[0], words[1], words[2]].map(|word| start.wrapping_add(word));
    for (from_c, from_a, from_b) in [(4, 6, 8), (16, 19, 4)] {
        a = a.wrapping_sub(c) ^ c.rotate_left(from_c);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(from_a);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(from_b);
        b = b.wrapping_add(a);
    }
    a = a.wrapping_add(words[3]);
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

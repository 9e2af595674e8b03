//! UDP, UDP-Lite, GRE and protocols without a tracker: requests, answers, and time in between.

#![forbid(unsafe_code)]

use super::{Ends, chance, error, frame, pick, season};
use crate::trace::{Step, Trace, Waiting};
use fastrand::Rng;
use stateway_core::packet::checksum::Sum;
use stateway_core::packet::tuple::{
    PROTO_DCCP, PROTO_ESP, PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_UDP, PROTO_UDPLITE,
};

/// `IPPROTO_*` that only the generic tracker knows, or no tracker in one of the families.
const OTHERS: [u8; 11] = [PROTO_DCCP, PROTO_ESP, 4, 41, 89, 103, 108, 253, 255, PROTO_ICMP, PROTO_ICMPV6];

pub(super) fn trace(rng: &mut Rng, ends: &Ends) -> Trace {
    let proto = match rng.u8(..10) {
        0..=5 => PROTO_UDP,
        6 | 7 => PROTO_UDPLITE,
        8 => PROTO_GRE,
        // What claims to be options for every hop, too. Fragments are a story of their own.
        _ if chance(rng, 5) => 0,
        _ if chance(rng, 30) => rng.u8(45..),
        _ => *pick(rng, &OTHERS),
    };
    let call = rng.u16(..4);
    let mut steps: Vec<Step> = Vec::new();
    let mut waits = 0;
    for _ in 0..rng.usize(2..12) {
        let frames: Vec<Vec<u8>> = steps.iter().filter_map(|s| s.frame().map(|f| f.bytes.clone())).collect();
        match rng.u8(..100) {
            // Time costs real time here, so there is little of it.
            0..=9 if waits < 2 => {
                waits += 1;
                steps
                    .push(Step::Elapse(*pick(rng, &[3, 29, 30, 31, 119, 120, 121, 179, 180, 181, 599, 600])));
            }
            10..=19 if !frames.is_empty() => {
                let quoted = pick(rng, &frames).clone();
                steps.push(error::about(rng, ends, &quoted));
            }
            _ => {
                let sender = usize::from(chance(rng, 45));
                let packet = datagram(rng, ends, sender, proto, call);
                steps.push(frame(rng, ends, sender, &packet, "datagram"));
            }
        }
    }
    Trace { steps, waiting: Waiting::Streams }
}

/// One packet of `proto`, now and then with a length or a checksum that cannot be.
pub(super) fn datagram(rng: &mut Rng, ends: &Ends, sender: usize, proto: u8, call: u16) -> Vec<u8> {
    let mut ip = ends.ip(sender, proto);
    season(rng, &mut ip);
    let len = *pick(rng, &[0, 1, 8, 20, 100, 1000]);
    let payload: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
    let mut l4 = match proto {
        PROTO_UDP | PROTO_UDPLITE => {
            let (from, to) = (ends.numbers[sender], ends.numbers[1 - sender]);
            let mut l4 = [from.to_be_bytes(), to.to_be_bytes(), [0; 2], [0; 2]].concat();
            l4.extend_from_slice(&payload);
            l4
        }
        PROTO_GRE => gre(rng, call, &payload),
        _ => payload,
    };
    if proto == PROTO_UDP {
        let len = odd_length(rng, l4.len());
        l4[4..6].copy_from_slice(&len.to_be_bytes());
        ip.fill_checksum(&mut l4, 6);
        if chance(rng, 10) {
            l4[6..8].fill(0);
        }
    }
    if proto == PROTO_UDPLITE {
        fill_udplite(rng, &ip, &mut l4);
    }
    if chance(rng, 3) && l4.len() > 7 {
        l4[7] ^= 1 << rng.u8(..8);
    }
    if chance(rng, 3) {
        l4.truncate(rng.usize(..9));
    }
    ip.build(&l4)
}

fn odd_length(rng: &mut Rng, len: usize) -> u16 {
    let len = len as u16;
    if chance(rng, 92) {
        return len;
    }
    *pick(rng, &[0, 7, 8, len.wrapping_sub(1), len + 1, 65535])
}

/// The checksum covers as much as the length field says (RFC 3828 §3.1).
fn fill_udplite(rng: &mut Rng, ip: &super::Ip, l4: &mut [u8]) {
    let len = l4.len() as u16;
    let coverage =
        if chance(rng, 50) { 0 } else { *pick(rng, &[8, len, len.saturating_sub(1), 9, 7, 1, len + 1]) };
    l4[4..6].copy_from_slice(&coverage.to_be_bytes());
    l4[6..8].fill(0);
    let covered = if coverage == 0 { l4.len() } else { usize::from(coverage).min(l4.len()) };
    // The kernel's tracker sums as if it were UDP, and with one byte of the length; hosts do not.
    let proto = if chance(rng, 70) { PROTO_UDP } else { PROTO_UDPLITE };
    let len = if chance(rng, 50) { l4.len() } else { l4.len() & 0xff };
    let sum = Sum::pseudo_header(ip.src, ip.dst, ip.family, proto, len);
    let checksum = match sum.bytes(&l4[..covered]).checksum() {
        0 => 0xffff,
        other => other,
    };
    if !chance(rng, 5) {
        l4[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Plain GRE, or the enhanced kind of PPTP that has call numbers.
fn gre(rng: &mut Rng, call: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = match rng.u8(..10) {
        0..=3 => vec![0, 0, 0x08, 0x00],
        4 | 5 => vec![0x20, 0, 0x08, 0x00, 0, 0, 0, 7],
        6..=8 => [&[0x30, 0x81, 0x88, 0x0b, 0, 4][..], &call.to_be_bytes(), &[0, 0, 0, 1]].concat(),
        _ => vec![0x20, 1, 0x08, 0x00, 0, 0, 0, 7],
    };
    header.extend_from_slice(payload);
    header
}

//! ICMP and ICMPv6: queries and answers, right and unasked for; announcements; errors about them.

#![forbid(unsafe_code)]

use super::{Ends, Ip, chance, error, frame, pick, season};
use crate::trace::{Step, Trace, Waiting};
use fastrand::Rng;
use stateway_core::packet::Family;

/// Queries with their answers.
const V4_QUERIES: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
const V6_QUERIES: [(u8, u8); 2] = [(128, 129), (139, 140)];

pub(super) fn trace(rng: &mut Rng, ends: &Ends) -> Trace {
    let queries = if ends.family == Family::Ipv4 { &V4_QUERIES[..] } else { &V6_QUERIES };
    let (query, answer) = *pick(rng, queries);
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..rng.usize(2..14) {
        let frames: Vec<Vec<u8>> = steps.iter().filter_map(|s| s.frame().map(|f| f.bytes.clone())).collect();
        let step = match rng.u8(..100) {
            0..=4 => Step::Elapse(*pick(rng, &[1, 10, 29, 30, 31, 60])),
            5..=24 if !frames.is_empty() => {
                let quoted = pick(rng, &frames).clone();
                error::about(rng, ends, &quoted)
            }
            25..=59 => message(rng, ends, 0, query, "icmp query"),
            60..=89 => message(rng, ends, 1, answer, "icmp answer"),
            90..=93 => {
                let kind = if chance(rng, 50) { query } else { answer };
                let sender = rng.usize(..2);
                message(rng, ends, sender, kind, "icmp the other way")
            }
            _ => {
                let (sender, kind) = (rng.usize(..2), rng.u8(..));
                message(rng, ends, sender, kind, "icmp any type")
            }
        };
        steps.push(step);
    }
    Trace { steps, waiting: Waiting::Timers }
}

fn message(rng: &mut Rng, ends: &Ends, sender: usize, kind: u8, what: &'static str) -> Step {
    let mut ip = ends.ip(sender, Ip::icmp_proto(ends.family));
    season(rng, &mut ip);
    let is_redirect = ends.family == Family::Ipv6 && kind == 137;
    if is_redirect || ends.family == Family::Ipv6 && chance(rng, 3) {
        // A redirect is one only from the link itself.
        if chance(rng, 70) {
            ip.ttl = 255;
        }
        if chance(rng, 50) {
            ip.src = error::LINK_LOCAL;
        }
    }
    let code = if chance(rng, 90) { 0 } else { rng.u8(..4) };
    let id = if chance(rng, 93) { ends.numbers[0] } else { rng.u16(..) };
    let mut l4 = [&[kind, code, 0, 0][..], &id.to_be_bytes(), &rng.u16(..).to_be_bytes()].concat();
    l4.resize(8 + *pick(rng, &[0, 1, 12, 56, 1000]), 0x61);
    ip.fill_checksum(&mut l4, 2);
    if chance(rng, 3) {
        l4[3] ^= 1 << rng.u8(..8);
    }
    if chance(rng, 3) {
        l4.truncate(rng.usize(..9));
    }
    frame(rng, ends, sender, &ip.build(&l4), what)
}

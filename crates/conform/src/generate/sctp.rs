//! SCTP: associations by the book, and chunks out of turn.

#![forbid(unsafe_code)]

use super::{Ends, chance, error, frame, pick, season};
use crate::trace::{Step, Trace, Waiting};
use fastrand::Rng;
use stateway_core::packet::tuple::PROTO_SCTP;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

const KINDS: [u8; 13] = [
    DATA,
    INIT,
    INIT_ACK,
    SACK,
    HEARTBEAT,
    HEARTBEAT_ACK,
    ABORT,
    SHUTDOWN,
    SHUTDOWN_ACK,
    ERROR,
    COOKIE_ECHO,
    COOKIE_ACK,
    SHUTDOWN_COMPLETE,
];

const OPENINGS: [&[(usize, u8)]; 9] = [
    &[],
    &[(0, INIT)],
    &[(0, INIT), (1, INIT_ACK)],
    &[(0, INIT), (1, INIT_ACK), (0, COOKIE_ECHO)],
    &[(0, INIT), (1, INIT_ACK), (0, COOKIE_ECHO), (1, COOKIE_ACK)],
    &[(0, INIT), (1, INIT_ACK), (0, COOKIE_ECHO), (1, COOKIE_ACK), (0, DATA), (1, SACK), (0, SHUTDOWN)],
    &[(0, INIT), (1, INIT_ACK), (0, COOKIE_ECHO), (1, COOKIE_ACK), (1, SHUTDOWN), (0, SHUTDOWN_ACK)],
    &[(0, HEARTBEAT)],
    &[(0, HEARTBEAT), (1, HEARTBEAT_ACK)],
];

pub(super) fn trace(rng: &mut Rng, ends: &Ends) -> Trace {
    // The tag that each side wants to see in what it gets.
    let tags = [rng.u32(1..), rng.u32(1..)];
    let mut steps: Vec<Step> = Vec::new();
    for &(sender, kind) in *pick(rng, &OPENINGS) {
        steps.push(packet(rng, ends, sender, tags, &[kind], "sctp"));
    }
    for _ in 0..rng.usize(1..14) {
        let frames: Vec<Vec<u8>> = steps.iter().filter_map(|s| s.frame().map(|f| f.bytes.clone())).collect();
        let sender = rng.usize(..2);
        let step = match rng.u8(..100) {
            0..=4 => Step::Elapse(*pick(rng, &[1, 2, 3, 4, 10, 30, 209, 210, 211])),
            5..=9 if !frames.is_empty() => {
                let quoted = pick(rng, &frames).clone();
                error::about(rng, ends, &quoted)
            }
            10..=29 => {
                let chunks: Vec<u8> = (0..rng.usize(..4)).map(|_| *pick(rng, &KINDS)).collect();
                packet(rng, ends, sender, tags, &chunks, "sctp bundle")
            }
            30..=34 => {
                let kind = rng.u8(..);
                packet(rng, ends, sender, tags, &[kind], "sctp any chunk")
            }
            _ => {
                let kind = *pick(rng, &KINDS);
                packet(rng, ends, sender, tags, &[kind], "sctp out of turn")
            }
        };
        steps.push(step);
    }
    Trace { steps, waiting: Waiting::Timers }
}

pub(super) fn packet(
    rng: &mut Rng,
    ends: &Ends,
    sender: usize,
    tags: [u32; 2],
    chunks: &[u8],
    what: &'static str,
) -> Step {
    let mut ip = ends.ip(sender, PROTO_SCTP);
    season(rng, &mut ip);
    let usual = if chunks.first() == Some(&INIT) { 0 } else { tags[1 - sender] };
    let tag = match rng.u8(..100) {
        0..=87 => usual,
        88..=90 => 0,
        91..=94 => tags[sender],
        95..=97 => tags[1 - sender],
        _ => rng.u32(..),
    };
    let (from, to) = (ends.numbers[sender], ends.numbers[1 - sender]);
    let mut l4 = [&from.to_be_bytes()[..], &to.to_be_bytes(), &tag.to_be_bytes(), &[0; 4]].concat();
    for kind in chunks {
        push_chunk(rng, &mut l4, *kind, tags[sender]);
    }
    if chance(rng, 3) {
        l4.truncate(rng.usize(..=l4.len()));
    }
    if l4.len() >= 12 {
        l4[8..12].fill(0);
        let checksum = crc32c(&l4);
        l4[8..12].copy_from_slice(&checksum.to_le_bytes());
        if chance(rng, 3) {
            l4[9] ^= 1 << rng.u8(..8);
        }
    }
    frame(rng, ends, sender, &ip.build(&l4), what)
}

fn push_chunk(rng: &mut Rng, l4: &mut Vec<u8>, kind: u8, own_tag: u32) {
    let mut body = match kind {
        INIT | INIT_ACK => {
            [&own_tag.to_be_bytes()[..], &[0, 0, 0xff, 0xff, 0, 10, 0, 10, 0, 0, 0, 1]].concat()
        }
        DATA => [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], b"data"].concat(),
        SACK => vec![0; 12],
        HEARTBEAT | HEARTBEAT_ACK => vec![0, 1, 0, 8, 1, 2, 3, 4],
        SHUTDOWN => vec![0, 0, 0, 1],
        COOKIE_ECHO => vec![7; 16],
        _ => Vec::new(),
    };
    if chance(rng, 3) {
        body.truncate(rng.usize(..=body.len()));
    }
    let mut len = body.len() as u16 + 4;
    if chance(rng, 2) {
        len = *pick(rng, &[0, 3, 4, len + 1, 65535]);
    }
    // The T bit of ABORT and SHUTDOWN COMPLETE: the tag is the sender's own (RFC 9260 §8.5.1).
    let flags = if chance(rng, 10) { rng.u8(..2) } else { 0 };
    l4.extend([kind, flags]);
    l4.extend(len.to_be_bytes());
    l4.extend(&body);
    l4.resize(l4.len().next_multiple_of(4), 0);
}

/// The checksum of SCTP (RFC 9260 appendix A), bit by bit: this is no fast path.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
        }
    }
    !crc
}

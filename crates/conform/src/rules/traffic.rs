//! Packets aimed at the rules: conversations among a few hosts and ports, and what is wrong with packets now and then.

#![forbid(unsafe_code)]

use super::universe::{
    LENGTHS, OTHERS, PORTS, SENDERS, TTLS, WITH_PORTS, WORDS, chance, host, near, pick, router,
};
use crate::generate::packet::{Ip, Tcp};
use crate::generate::sctp::crc32c;
use crate::trace::Frame;
use fastrand::Rng;
use stateway_core::packet::tuple::{
    PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use stateway_core::packet::{Addr, ETHERNET_LEN, Family};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const URG: u8 = 32;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;
const MOST: usize = 1500;

/// Conversations that go on at the same time.
const MAX_FLOWS: usize = 40;

/// Makes frames; what was sent before has a part in what comes.
pub(super) struct Traffic<'a> {
    rng: &'a mut Rng,
    /// Whether some IPv6 packets are for the router itself.
    asks_router: bool,
    flows: Vec<Flow>,
    /// IP packets that errors may quote.
    earlier: Vec<(usize, Vec<u8>)>,
}

/// Two hosts that talk; the opener is first.
#[derive(Clone, Debug)]
struct Flow {
    family: Family,
    hosts: [Addr; 2],
    sides: [usize; 2],
    proto: u8,
    numbers: [u16; 2],
    seq: [u32; 2],
    stage: u8,
    is_to_router: bool,
}

impl<'a> Traffic<'a> {
    pub(super) fn new(rng: &'a mut Rng, asks_router: bool) -> Self {
        Self { rng, asks_router, flows: Vec::new(), earlier: Vec::new() }
    }

    /// So many frames, or a few more where a packet comes in pieces.
    pub(super) fn frames(&mut self, count: usize) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(count + 8);
        while frames.len() < count {
            self.packet(&mut frames);
        }
        frames
    }

    fn packet(&mut self, frames: &mut Vec<Frame>) {
        if chance(self.rng, 6) && !self.earlier.is_empty() {
            let (side, packet) = self.error();
            frames.push(self.frame(side, &packet, "error"));
            return;
        }
        if self.flows.is_empty() || chance(self.rng, 25) {
            let flow = self.flow();
            if self.flows.len() >= MAX_FLOWS {
                self.flows.swap_remove(0);
            }
            self.flows.push(flow);
        }
        let at = self.rng.usize(..self.flows.len());
        let sender = self.sender(at);
        let flow = self.flows[at].clone();
        let mut ip = Ip::new(flow.family, flow.hosts[sender], flow.hosts[1 - sender], flow.proto);
        self.dress(&mut ip);
        if flow.family == Family::Ipv6 && !flow.is_to_router && chance(self.rng, 8) {
            self.extend(&mut ip);
        }
        let (l4, kind) = self.l4(at, sender, &ip);
        let side = flow.sides[sender];
        let size = self.piece_len(&l4);
        if chance(self.rng, 4) && l4.len() > 8 && ip.extra.is_empty() && !tears_a_word(&l4, size) {
            for piece in self.pieces(&ip, &l4, size) {
                frames.push(self.frame(side, &piece, "fragment"));
            }
            return;
        }
        let packet = ip.build(&l4);
        frames.push(self.frame(side, &packet, kind));
        self.earlier.push((side, packet));
        if self.earlier.len() > 64 {
            self.earlier.swap_remove(0);
        }
    }

    fn flow(&mut self) -> Flow {
        let rng = &mut *self.rng;
        let family = if chance(rng, 40) { Family::Ipv6 } else { Family::Ipv4 };
        let sides = if chance(rng, 35) { [1, 0] } else { [0, 1] };
        let mut hosts = sides.map(|side| host(rng, family, side));
        let is_to_router = chance(rng, 5) && (self.asks_router || family == Family::Ipv4);
        if is_to_router {
            hosts[1] = router(family, sides[0]);
        }
        let icmp = if family == Family::Ipv4 { PROTO_ICMP } else { PROTO_ICMPV6 };
        let proto = match rng.u8(..100) {
            0..=44 => PROTO_TCP,
            45..=66 => PROTO_UDP,
            67..=80 => icmp,
            81..=95 => *pick(rng, &WITH_PORTS),
            _ => *pick(rng, &OTHERS),
        };
        // The kernel does not know what to make of a checksum of UDP-Lite for itself, once tracking has looked at it.
        let proto = if is_to_router && proto == PROTO_UDPLITE { PROTO_UDP } else { proto };
        let numbers = [near(rng, &PORTS), near(rng, &PORTS)];
        let seq = [rng.u32(..), rng.u32(..)];
        Flow { family, hosts, sides, proto, numbers, seq, stage: 0, is_to_router }
    }

    /// Whose turn it is in a conversation.
    fn sender(&mut self, at: usize) -> usize {
        let stage = self.flows[at].stage;
        // Nobody else speaks for the router.
        if self.flows[at].is_to_router {
            return 0;
        }
        if chance(self.rng, 10) {
            return self.rng.usize(..2);
        }
        usize::from(stage % 2 == 1)
    }

    /// The header's fields that rules look at.
    fn dress(&mut self, ip: &mut Ip) {
        let rng = &mut *self.rng;
        ip.ident = rng.u16(..);
        if chance(rng, 30) {
            ip.tos =
                if rng.bool() { *pick(rng, &[0x10, 0x02, 0xb8, 0x28, 0xff, 0xfc, 3]) } else { rng.u8(..) };
        }
        if chance(rng, 25) {
            ip.ttl = *pick(rng, &TTLS);
        }
        if chance(rng, 40) {
            ip.fragment = 0;
        }
        if chance(rng, 5) {
            match ip.family {
                // No operation; record route with one free place.
                Family::Ipv4 => {
                    let options: [&[u8]; 2] = [&[1, 1, 1, 0], &[7, 7, 4, 0, 0, 0, 0, 0]];
                    ip.extra = pick(rng, &options).to_vec();
                }
                // Hop-by-hop or destination options with padding.
                Family::Ipv6 => {
                    ip.first = *pick(rng, &[0, 60]);
                    ip.extra = vec![ip.proto, 0, 1, 4, 0, 0, 0, 0];
                }
            }
        }
    }

    /// Puts headers in front of the upper layer, in IPv6.
    fn extend(&mut self, ip: &mut Ip) {
        const OPTIONS: [&[u8]; 6] = [
            &[1, 4, 0, 0, 0, 0],
            &[0, 0, 1, 2, 0, 0],
            &[1, 0, 1, 2, 0, 0],
            &[0, 0, 0, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[63, 4, 7, 7, 7, 7],
        ];
        const ADDRS: [[u8; 16]; 2] = [
            [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        ];
        let rng = &mut *self.rng;
        let mut extra = Vec::new();
        // The last header first: each names the one behind it.
        let mut next = ip.proto;
        let mut put = |header: u8, len: u8, body: &[u8]| {
            extra = [&[next, len][..], body, &extra].concat();
            next = header;
        };
        if chance(rng, 30) {
            // Reserved, number, sequence, and as much to check as the length says.
            let spi = rng.u32(255..258).to_be_bytes();
            let reserved = u8::from(chance(rng, 20));
            let words = *pick(rng, &[0, 3]);
            let check = vec![9; words * 4];
            put(51, 1 + words as u8, &[&[0, reserved][..], &spi, &[0, 0, 0, 1], &check].concat());
        }
        if chance(rng, 50) {
            let kind = *pick(rng, &[0, 2, 4]);
            let addrs = rng.usize(..3);
            let reserved = u8::from(chance(rng, 20));
            let first = rng.usize(..2);
            let list: Vec<u8> = (0..addrs).flat_map(|n| ADDRS[(first + n) % 2]).collect();
            put(43, addrs as u8 * 2, &[&[kind, rng.u8(..3), 0, 0, 0, reserved][..], &list].concat());
        }
        if chance(rng, 50) {
            let list = *pick(rng, &OPTIONS);
            put(60, (list.len() / 8) as u8, list);
        }
        if chance(rng, 30) {
            let list = *pick(rng, &OPTIONS);
            put(0, (list.len() / 8) as u8, list);
        }
        (ip.extra, ip.first) = (extra, next);
    }

    /// The header behind IP with its payload, and what it is.
    fn l4(&mut self, at: usize, sender: usize, ip: &Ip) -> (Vec<u8>, &'static str) {
        let flow = self.flows[at].clone();
        let (mut l4, kind, checksum) = match flow.proto {
            PROTO_TCP => (self.tcp(at, sender), "tcp", Some(16)),
            PROTO_UDP => (self.udp(&flow, sender), "udp", Some(6)),
            PROTO_UDPLITE => (self.udp(&flow, sender), "udplite", Some(6)),
            PROTO_SCTP => (self.sctp(&flow, sender), "sctp", None),
            PROTO_ICMP | PROTO_ICMPV6 => (self.icmp(&flow, sender), "icmp", Some(2)),
            _ => (self.payload(8), "other", None),
        };
        if self.flows[at].stage < 200 {
            self.flows[at].stage += 1;
        }
        if chance(self.rng, 3) {
            // A chunk that is cut short drops the packet, and counts where it is negated.
            let most = if flow.proto == PROTO_SCTP { 11 } else { 24 };
            l4.truncate(self.rng.usize(..=l4.len().min(most)));
            return (l4, "cut short");
        }
        if let Some(place) = checksum {
            ip.fill_checksum(&mut l4, place);
            if chance(self.rng, 2) && l4.len() > place {
                l4[place] ^= 0x40;
            }
        }
        (l4, kind)
    }

    fn tcp(&mut self, at: usize, sender: usize) -> Vec<u8> {
        let flow = self.flows[at].clone();
        let rng = &mut *self.rng;
        let usual = match flow.stage {
            0 => SYN,
            1 => SYN | ACK,
            2 => ACK,
            7 => FIN | ACK,
            _ if rng.bool() => ACK | PSH,
            _ => ACK,
        };
        let mut flags = if chance(rng, 12) {
            let odd = [0, FIN, RST, RST | ACK, SYN | FIN, FIN | URG | PSH, SYN, URG | ACK, SYN | ACK, 0x3f];
            *pick(rng, &odd)
        } else {
            usual
        };
        if chance(rng, 15) {
            flags |= *pick(rng, &[0x40, 0x80, 0xc0]);
        }
        let options = match rng.u8(..8) {
            0..=2 if flags & SYN != 0 => {
                [&[2, 4][..], &pick(rng, &[536_u16, 1459, 1460, 1461, 9000]).to_be_bytes()].concat()
            }
            3 if flags & SYN != 0 => vec![2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 0, 0, 0],
            4 => vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            5 if chance(rng, 20) => {
                pick(rng, &[vec![3, 0, 2, 4], vec![2, 4, 5], vec![5, 40, 1, 1], vec![255, 1]]).clone()
            }
            _ => Vec::new(),
        };
        let payload = if flags & (SYN | RST) != 0 || rng.bool() { Vec::new() } else { self.payload(60) };
        let rng = &mut *self.rng;
        let flow = &mut self.flows[at];
        let seq = flow.seq[sender];
        flow.seq[sender] = seq
            .wrapping_add(payload.len() as u32)
            .wrapping_add(u32::from(flags & SYN != 0))
            .wrapping_add(u32::from(flags & FIN != 0));
        let ack = if flags & ACK != 0 { flow.seq[1 - sender] } else { 0 };
        let offset = chance(rng, 1).then(|| *pick(rng, &[0, 4, 15]));
        let ports = (flow.numbers[sender], flow.numbers[1 - sender]);
        Tcp { ports, seq, ack, flags, win: 8000, options, payload, offset }.build()
    }

    fn udp(&mut self, flow: &Flow, sender: usize) -> Vec<u8> {
        let payload = self.payload(28);
        let (from, to) = (flow.numbers[sender], flow.numbers[1 - sender]);
        // To UDP-Lite this is how much the checksum covers: here everything too.
        let len = payload.len() as u16 + 8;
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0; 2], &payload].concat()
    }

    fn sctp(&mut self, flow: &Flow, sender: usize) -> Vec<u8> {
        let rng = &mut *self.rng;
        let (from, to) = (flow.numbers[sender], flow.numbers[1 - sender]);
        let kinds: Vec<u8> = match flow.stage {
            0 => vec![1],
            1 => vec![2],
            2 => vec![10],
            3 => vec![11],
            _ => (0..rng.usize(1..4)).map(|_| *pick(rng, &[0, 0, 3, 4, 6, 7, 9, 200])).collect(),
        };
        let tag = if kinds[0] == 1 { 0 } else { flow.seq[1 - sender] };
        let mut l4 = [&from.to_be_bytes()[..], &to.to_be_bytes(), &tag.to_be_bytes(), &[0; 4]].concat();
        for kind in kinds {
            let body = match kind {
                1 | 2 => [&flow.seq[sender].to_be_bytes()[..], &[0, 0, 0xff, 0xff, 0, 10, 0, 10, 0, 0, 0, 1]]
                    .concat(),
                0 => [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], b"data"].concat(),
                10 => vec![7; 16],
                _ => vec![0; 4],
            };
            let flags = if chance(rng, 40) { rng.u8(..16) } else { 0 };
            l4.extend([kind, flags]);
            l4.extend((body.len() as u16 + 4).to_be_bytes());
            l4.extend(body);
        }
        let checksum = crc32c(&l4);
        l4[8..12].copy_from_slice(&checksum.to_le_bytes());
        l4
    }

    fn icmp(&mut self, flow: &Flow, sender: usize) -> Vec<u8> {
        let rng = &mut *self.rng;
        let kinds: [u8; 2] = if flow.family == Family::Ipv4 { [8, 0] } else { [128, 129] };
        let odd: &[u8] = if flow.family == Family::Ipv4 {
            &[13, 14, 17, 9, 40, 255]
        } else {
            &[130, 133, 143, 139, 144, 200]
        };
        // What time it is cannot be compared.
        let kind = if chance(rng, 15) && !flow.is_to_router { *pick(rng, odd) } else { kinds[sender] };
        let code = u8::from(chance(rng, 8));
        let payload = self.payload(28);
        [&[kind, code, 0, 0][..], &flow.numbers[0].to_be_bytes(), &[0, 1], &payload].concat()
    }

    /// A payload that makes the packet one of the lengths that rules speak of; `head`: what stands in front.
    fn payload(&mut self, head: usize) -> Vec<u8> {
        let rng = &mut *self.rng;
        let len = match rng.u8(..10) {
            0..=2 => 0,
            3..=6 => (*pick(rng, &LENGTHS) + rng.usize(..3)).saturating_sub(head + 1),
            _ => rng.usize(..60),
        };
        let mut payload = vec![b'.'; len.min(MOST - head)];
        for _ in 0..2 {
            let word: &[u8] = match rng.u8(..10) {
                0 => &[0, 1, 2],
                1..=7 => pick(rng, &WORDS).as_bytes(),
                _ => &[],
            };
            if !word.is_empty() && payload.len() >= word.len() {
                let last = payload.len() - word.len();
                let place = if rng.bool() { 0 } else { rng.usize(..=last.min(64)) };
                payload[place..place + word.len()].copy_from_slice(word);
            }
        }
        payload
    }

    fn piece_len(&mut self, l4: &[u8]) -> usize {
        l4.len().div_ceil(2).next_multiple_of(8).max(*pick(self.rng, &[8, 16, 64]))
    }

    /// The packet in pieces of which all but the last are of the same length.
    fn pieces(&mut self, ip: &Ip, l4: &[u8], size: usize) -> Vec<Vec<u8>> {
        let id = self.rng.u32(..);
        let count = l4.len().div_ceil(size);
        let piece = |(n, bytes): (usize, &[u8])| {
            let mut ip = ip.clone();
            let (offset, more) = ((n * size / 8) as u16, n + 1 < count);
            match ip.family {
                Family::Ipv4 => {
                    ip.ident = id as u16;
                    ip.fragment = offset | if more { MORE } else { 0 };
                }
                Family::Ipv6 => {
                    ip.first = 44;
                    let field = offset << 3 | u16::from(more);
                    ip.extra = [&[ip.proto, 0][..], &field.to_be_bytes(), &id.to_be_bytes()].concat();
                }
            }
            ip.build(bytes)
        };
        l4.chunks(size).enumerate().map(piece).collect()
    }

    /// An ICMP error about an earlier packet, from the side that it went to.
    fn error(&mut self) -> (usize, Vec<u8>) {
        let (side, quoted) = pick(self.rng, &self.earlier).clone();
        let family = if quoted[0] >> 4 == 4 { Family::Ipv4 } else { Family::Ipv6 };
        let rng = &mut *self.rng;
        let (proto, kinds): (u8, &[(u8, u8)]) = match family {
            Family::Ipv4 => (PROTO_ICMP, &[(3, 3), (3, 1), (3, 4), (11, 0), (5, 1), (12, 0), (4, 0)]),
            Family::Ipv6 => (PROTO_ICMPV6, &[(1, 4), (1, 1), (2, 0), (3, 0), (4, 1)]),
        };
        let (kind, code) = *pick(rng, kinds);
        let addr = |at: usize| match family {
            Family::Ipv4 => {
                quoted[at..at + 4].first_chunk().map_or(Addr::UNSPECIFIED, |b: &[u8; 4]| Addr::from_v4(*b))
            }
            Family::Ipv6 => {
                quoted[at..at + 16].first_chunk().map_or(Addr::UNSPECIFIED, |b: &[u8; 16]| Addr::from_v6(*b))
            }
        };
        let (src, dst) = if family == Family::Ipv4 { (addr(12), addr(16)) } else { (addr(8), addr(24)) };
        let mut ip = Ip::new(family, dst, src, proto);
        self.dress(&mut ip);
        ip.fragment = DONT_FRAGMENT;
        let len = quoted.len().min(*pick(self.rng, &[28, 48, 60, 200]));
        let mut l4 = [&[kind, code, 0, 0, 0, 0, 5, 0][..], &quoted[..len]].concat();
        ip.fill_checksum(&mut l4, 2);
        (1 - side, ip.build(&l4))
    }

    /// A frame from the side, by one of its stations, to the router or, seldom, to everybody.
    fn frame(&mut self, side: usize, packet: &[u8], kind: &'static str) -> Frame {
        let mut frame = Frame::of_packet(side, packet, kind);
        if chance(self.rng, 30) {
            frame.bytes[6..12].copy_from_slice(&pick(self.rng, &SENDERS).0);
        }
        if chance(self.rng, 2) {
            let group: [u8; 6] = if self.rng.bool() { [0xff; 6] } else { [1, 0, 0x5e, 0, 0, 1] };
            frame.bytes[..6].copy_from_slice(&group);
        }
        if frame.bytes.len() < ETHERNET_LEN + 46 && chance(self.rng, 10) {
            frame.bytes.resize(ETHERNET_LEN + 46, 0);
        }
        frame
    }
}

/// Whether a word would stand in two pieces: the kernel's Boyer-Moore does not find it there, or does, as the memory lies.
fn tears_a_word(l4: &[u8], size: usize) -> bool {
    (size..l4.len()).step_by(size).any(|at| l4[at - 1] != b'.' && l4[at] != b'.')
}

//! TCP: brought to some state by the book, then pushed at every edge that a tracker has.

#![forbid(unsafe_code)]

use super::packet::Tcp;
use super::{Ends, chance, error, frame, pick, season};
use crate::trace::{Frame, Step, Trace, Waiting};
use fastrand::Rng;
use stateway_core::conntrack::Direction;
use stateway_core::packet::ETHERNET_LEN;
use stateway_core::packet::tuple::PROTO_TCP;
use stateway_trace::flow::Link;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// What a tracker may know of one side, as far as it is needed to aim at its bounds.
#[derive(Clone, Debug, Default)]
struct Side {
    /// Where the next byte goes.
    next: u32,
    /// The highest byte sent, and the highest that the other side lets it send.
    end: u32,
    max_end: u32,
    max_win: u32,
    max_ack: u32,
    scale: u8,
    offers_scale: bool,
    win: u16,
}

pub(super) struct Talk<'a> {
    rng: &'a mut Rng,
    ends: &'a Ends,
    sides: [Side; 2],
    steps: Vec<Step>,
    kinds: [u16; 2],
    /// Connections that were opened beside it.
    beside: u16,
}

/// Where a story begins: what was exchanged before the disturbance.
const OPENINGS: [&[(usize, u8)]; 14] = [
    &[],
    &[(0, SYN)],
    &[(0, SYN), (1, SYN | ACK)],
    &[(0, SYN), (1, SYN | ACK), (0, ACK)],
    &[(0, SYN), (1, SYN | ACK), (0, ACK), (0, PSH | ACK), (1, ACK), (1, PSH | ACK), (0, ACK)],
    &[(0, SYN), (1, SYN | ACK), (0, ACK), (0, FIN | ACK)],
    &[(0, SYN), (1, SYN | ACK), (0, ACK), (1, FIN | ACK), (0, ACK)],
    &[(0, SYN), (1, SYN | ACK), (0, ACK), (0, FIN | ACK), (1, ACK), (1, FIN | ACK)],
    &[(0, SYN), (1, SYN | ACK), (0, ACK), (0, FIN | ACK), (1, ACK), (1, FIN | ACK), (0, ACK)],
    &[(0, SYN), (1, SYN | ACK), (0, ACK), (1, RST | ACK)],
    &[(0, SYN), (1, SYN)],
    &[(0, SYN), (1, SYN), (0, SYN | ACK), (1, SYN | ACK)],
    &[(0, ACK)],
    &[(0, PSH | ACK), (1, ACK), (0, PSH | ACK)],
];

pub(super) fn trace(rng: &mut Rng, ends: &Ends) -> Trace {
    let mut talk = Talk::new(rng, ends);
    let opening = *pick(talk.rng, &OPENINGS);
    for &(sender, flags) in opening {
        talk.by_the_book(sender, flags);
    }
    let wildness = *pick(talk.rng, &[0, 10, 30, 60, 100]);
    for _ in 0..talk.rng.usize(2..24) {
        if chance(talk.rng, wildness) { talk.disturb() } else { talk.go_on() }
    }
    talk.finish()
}

/// A connection that is reset as soon as it stands.
pub(super) fn reset(rng: &mut Rng, ends: &Ends) -> Trace {
    let mut talk = Talk::opened(rng, ends);
    talk.by_the_book(0, RST | ACK);
    talk.finish()
}

/// The first segment of a connection, perhaps twice.
pub(super) fn opening(rng: &mut Rng, ends: &Ends) -> Trace {
    let mut talk = Talk::new(rng, ends);
    talk.by_the_book(0, SYN);
    if chance(talk.rng, 20) {
        talk.repeat();
    }
    talk.finish()
}

fn sides(rng: &mut Rng) -> [Side; 2] {
    [0, 1].map(|_| {
        let next = *pick(rng, &[1000, 0, u32::MAX - 3, 0x7fff_fff0, 0x8000_0000]);
        let next = if chance(rng, 50) { rng.u32(..) } else { next };
        let win = *pick(rng, &[1000, 65535, 5000, 1, 0, 29200, 501]);
        Side { next, end: next, max_end: next, win, ..Side::default() }
    })
}

impl<'a> Talk<'a> {
    fn new(rng: &'a mut Rng, ends: &'a Ends) -> Self {
        let sides = sides(rng);
        Self { rng, ends, sides, steps: Vec::new(), kinds: ends.numbers, beside: 0 }
    }

    /// A connection after its handshake, to say something in.
    pub(super) fn opened(rng: &'a mut Rng, ends: &'a Ends) -> Self {
        let mut talk = Self::new(rng, ends);
        for side in &mut talk.sides {
            side.win = 65535;
        }
        for (sender, flags) in [(0, SYN), (1, SYN | ACK), (0, ACK)] {
            talk.by_the_book(sender, flags);
        }
        talk
    }

    pub(super) const fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    pub(super) fn finish(self) -> Trace {
        Trace { steps: self.steps, waiting: Waiting::Timers }
    }

    /// Sends these bytes in order.
    pub(super) fn say(&mut self, sender: usize, text: &[u8]) {
        let (seq, ack) = (self.sides[sender].next, self.sides[1 - sender].next);
        let win = self.sides[sender].win;
        let len = text.len() as u32;
        let seg = Segment { flags: PSH | ACK, seq, ack, win, len, options: Vec::new() };
        self.send_bytes(sender, seg, text.to_vec(), "ftp");
    }

    /// An error about what was said last, from the side that it was for.
    pub(super) fn complain_of_the_last(&mut self) {
        if let Some(Step::Frame(last)) = self.steps.last().cloned() {
            let step = error::about(self.rng, self.ends, &last.bytes);
            self.steps.push(step);
        }
    }

    pub(super) fn again(&mut self) {
        self.repeat();
    }

    pub(super) fn wait(&mut self) {
        let span = *pick(self.rng, &[1, 60, 299, 300, 301]);
        self.steps.push(Step::Elapse(span));
    }

    /// A SYN, perhaps answered, of another connection.
    pub(super) fn open_beside(&mut self, ends: &Ends, opener: usize) {
        let flags = *pick(self.rng, &[SYN, SYN, SYN, ACK, RST]);
        let answers = self.rng.usize(..3);
        self.beside += 1;
        let flow = self.beside;
        for n in 0..=answers {
            let sender = if n % 2 == 0 { opener } else { 1 - opener };
            let tcp = Tcp {
                ports: (ends.numbers[sender], ends.numbers[1 - sender]),
                seq: 7000 + u32::from(n > 0),
                ack: if n == 0 { 0 } else { 7001 },
                flags: [flags, SYN | ACK, ACK][n.min(2)],
                win: 65535,
                options: Vec::new(),
                payload: Vec::new(),
                offset: None,
            };
            let ip = ends.ip(sender, PROTO_TCP);
            let mut l4 = tcp.build();
            ip.fill_checksum(&mut l4, 16);
            let mut step = frame(self.rng, ends, sender, &ip.build(&l4), "ftp data");
            if let Step::Frame(frame) = &mut step {
                frame.link = Some(match n {
                    0 => Link::Announced { flow, master: 0 },
                    1 => Link::Along { flow, dir: Direction::Reply },
                    _ => Link::Along { flow, dir: Direction::Original },
                });
            }
            self.steps.push(step);
        }
    }
}

impl Talk<'_> {
    /// Sends what the sender may send.
    fn by_the_book(&mut self, sender: usize, flags: u8) {
        let len = if flags & PSH == 0 { 0 } else { *pick(self.rng, &[1, 10, 100, 536, 1400]) };
        let ack = if flags & ACK == 0 { 0 } else { self.sides[1 - sender].next };
        let win = self.sides[sender].win;
        let options = self.usual_options(sender, flags);
        let seq = self.sides[sender].next;
        self.send(sender, Segment { flags, seq, ack, win, len, options }, "tcp");
    }

    fn usual_options(&mut self, sender: usize, flags: u8) -> Vec<u8> {
        let mut options = Vec::new();
        if flags & SYN != 0 {
            options.extend([2, 4, 5, 180]);
            if chance(self.rng, 60) {
                options.extend([4, 2]);
            }
            if chance(self.rng, 60) {
                let scale = *pick(self.rng, &[0, 1, 2, 7, 14, 15, 255]);
                options.extend([1, 3, 3, scale]);
                self.sides[sender].scale = scale.min(14);
                self.sides[sender].offers_scale = true;
            } else {
                self.sides[sender].offers_scale = false;
            }
        } else if chance(self.rng, 30) {
            options.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        }
        options
    }

    /// What usually comes next.
    fn go_on(&mut self) {
        let sender = self.rng.usize(..2);
        let flags = match self.rng.u8(..20) {
            0..=7 => ACK,
            8..=14 => PSH | ACK,
            15 | 16 => FIN | ACK,
            17 => SYN,
            18 => SYN | ACK,
            _ => RST | ACK,
        };
        self.by_the_book(sender, flags);
        if chance(self.rng, 3) {
            self.pass_time();
        }
    }

    fn disturb(&mut self) {
        match self.rng.u8(..100) {
            0..=4 => self.repeat(),
            5..=9 => self.pass_time(),
            10..=14 => self.complain(),
            15..=17 => self.malform(),
            _ => self.odd_segment(),
        }
    }

    /// A copy of an earlier frame, from either side of the router.
    fn repeat(&mut self) {
        let frames: Vec<&Step> = self.steps.iter().filter(|step| matches!(step, Step::Frame(_))).collect();
        if frames.is_empty() {
            return;
        }
        let mut step = (*pick(self.rng, &frames)).clone();
        if let Step::Frame(again) = &mut step {
            again.kind = "repeated";
            if chance(self.rng, 15) {
                // The wrong way round: it comes from where it went.
                *again = Frame::of_packet(1 - again.port, &again.bytes[ETHERNET_LEN..], "wrong side");
            }
        }
        self.steps.push(step);
    }

    fn pass_time(&mut self) {
        const SPANS: [u32; 22] = [
            1, 3, 9, 10, 11, 29, 30, 31, 59, 60, 61, 119, 120, 121, 180, 240, 299, 300, 301, 431_999,
            432_000, 19,
        ];
        let span = *pick(self.rng, &SPANS);
        self.steps.push(Step::Elapse(span));
    }

    fn complain(&mut self) {
        let frames: Vec<Vec<u8>> = self
            .steps
            .iter()
            .filter_map(|step| if let Step::Frame(f) = step { Some(f.bytes.clone()) } else { None })
            .collect();
        if !frames.is_empty() {
            let quoted = pick(self.rng, &frames).clone();
            let step = error::about(self.rng, self.ends, &quoted);
            self.steps.push(step);
        }
    }

    /// Bytes that are no proper segment.
    fn malform(&mut self) {
        let sender = self.rng.usize(..2);
        let side = &self.sides[sender];
        let mut tcp = Tcp {
            ports: self.port_numbers(sender),
            seq: side.next,
            ack: self.sides[1 - sender].next,
            flags: *pick(self.rng, &[SYN, ACK, ACK | FIN, RST, SYN | ACK]),
            win: side.win,
            options: Vec::new(),
            payload: vec![0x2e; self.rng.usize(..20)],
            offset: None,
        };
        let what = self.rng.u8(..3);
        if what == 0 {
            tcp.offset = Some(self.rng.u8(..16));
        }
        let mut ip = self.ends.ip(sender, PROTO_TCP);
        season(self.rng, &mut ip);
        let mut l4 = tcp.build();
        if what == 1 {
            l4.truncate(self.rng.usize(..21));
        }
        ip.fill_checksum(&mut l4, 16);
        if what == 2 {
            let at = self.rng.usize(16..18);
            l4[at] ^= 1 << self.rng.u8(..8);
        }
        let step = frame(self.rng, self.ends, sender, &ip.build(&l4), "tcp malformed");
        self.steps.push(step);
    }

    /// A segment with any flags, aimed at the bounds of the window.
    fn odd_segment(&mut self) {
        let sender = self.rng.usize(..2);
        let flags = match self.rng.u8(..100) {
            0..=29 => ACK,
            30..=41 => PSH | ACK,
            42..=49 => SYN,
            50..=59 => SYN | ACK,
            60..=71 => FIN | ACK,
            72..=81 => RST,
            82..=88 => RST | ACK,
            89 => URG | ACK,
            90 => SYN | URG,
            91 => FIN | ACK | URG,
            _ => self.rng.u8(..),
        };
        let len = if flags & PSH != 0 || chance(self.rng, 10) {
            *pick(self.rng, &[1, 2, 10, 100, 536, 999, 1000, 1001, 1400])
        } else {
            0
        };
        let seq = self.odd_seq(sender, len);
        let ack = self.odd_ack(sender, flags);
        let win = if chance(self.rng, 60) {
            self.sides[sender].win
        } else {
            *pick(self.rng, &[0, 1, 100, 1000, 5000, 65535])
        };
        let options =
            if chance(self.rng, 25) { self.odd_options(sender) } else { self.usual_options(sender, flags) };
        self.send(sender, Segment { flags, seq, ack, win, len, options }, "tcp odd");
    }

    fn odd_seq(&mut self, sender: usize, len: u32) -> u32 {
        let (side, other) = (&self.sides[sender], &self.sides[1 - sender]);
        let step = self.rng.u32(..3).wrapping_sub(1);
        let base = match self.rng.u8(..16) {
            0..=4 => return side.next,
            5 => side.max_end,
            6 => side.max_end.wrapping_sub(len),
            7 => side.max_end.wrapping_add(other.max_win).wrapping_sub(len),
            8 => side.end.wrapping_sub(other.max_win).wrapping_sub(len),
            9 | 10 => other.max_ack,
            11 => side.end,
            12 => 0,
            13 => side.next.wrapping_sub(self.rng.u32(..3000)),
            14 => side.next.wrapping_add(self.rng.u32(..100_000)),
            _ => return self.rng.u32(..),
        };
        base.wrapping_add(step)
    }

    fn odd_ack(&mut self, sender: usize, flags: u8) -> u32 {
        let (side, other) = (&self.sides[sender], &self.sides[1 - sender]);
        if flags & ACK == 0 && chance(self.rng, 60) {
            return 0;
        }
        let step = self.rng.u32(..3).wrapping_sub(1);
        let base = match self.rng.u8(..12) {
            0..=4 => return other.next,
            5 => other.end,
            6 => other.end.wrapping_sub(66_000),
            7 => other.end.wrapping_sub(side.max_win),
            8 => side.max_ack,
            9 => 0,
            10 => other.next.wrapping_sub(self.rng.u32(..70_000)),
            _ => return self.rng.u32(..),
        };
        base.wrapping_add(step)
    }

    /// Option lists as no stack sends them.
    fn odd_options(&mut self, sender: usize) -> Vec<u8> {
        let right =
            self.sides[1 - sender].end.wrapping_add(self.rng.u32(..200)).wrapping_sub(100).to_be_bytes();
        let left = self.sides[1 - sender].end.to_be_bytes();
        let sack = |blocks: usize, len: u8| {
            let mut option = vec![5, len];
            for _ in 0..blocks {
                option.extend(left);
                option.extend(right);
            }
            option
        };
        let mut options = match self.rng.u8(..14) {
            0 => vec![3, 3, self.rng.u8(..)],
            1 => vec![3, 4, 7, 0],
            2 => vec![4, 2, 0, 3, 3, 5],
            3 => vec![4, 3, 1],
            4 => sack(1, 10),
            5 => sack(3, 26),
            6 => sack(1, 9),
            7 => sack(2, 10),
            8 => sack(1, 40),
            9 => vec![1; self.rng.usize(1..9)],
            10 => vec![0; 4],
            11 => vec![8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1],
            12 => [&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0][..], &sack(1, 10)].concat(),
            _ => (0..self.rng.usize(1..40)).map(|_| self.rng.u8(..12)).collect(),
        };
        options.truncate(40);
        options
    }

    const fn port_numbers(&self, sender: usize) -> (u16, u16) {
        (self.kinds[sender], self.kinds[1 - sender])
    }

    fn send(&mut self, sender: usize, seg: Segment, kind: &'static str) {
        let payload = vec![0x2e; seg.len as usize];
        self.send_bytes(sender, seg, payload, kind);
    }

    fn send_bytes(&mut self, sender: usize, seg: Segment, payload: Vec<u8>, kind: &'static str) {
        let tcp = Tcp {
            ports: self.port_numbers(sender),
            seq: seg.seq,
            ack: seg.ack,
            flags: seg.flags,
            win: seg.win,
            options: seg.options.clone(),
            payload,
            offset: None,
        };
        let mut ip = self.ends.ip(sender, PROTO_TCP);
        season(self.rng, &mut ip);
        let mut l4 = tcp.build();
        ip.fill_checksum(&mut l4, 16);
        self.learn(sender, &seg);
        let step = frame(self.rng, self.ends, sender, &ip.build(&l4), kind);
        self.steps.push(step);
    }

    /// Follows the conversation as a tracker does that lets everything pass which is not far off.
    fn learn(&mut self, sender: usize, seg: &Segment) {
        let [opener, responder] = &mut self.sides;
        let (side, other) = if sender == 0 { (opener, responder) } else { (responder, opener) };
        let control = u32::from(seg.flags & SYN != 0) + u32::from(seg.flags & FIN != 0);
        let end = seg.seq.wrapping_add(seg.len).wrapping_add(control);
        let is_near = |a: u32, b: u32| a.wrapping_sub(b).wrapping_add(100_000) < 200_000;
        if side.max_win == 0 || seg.flags & SYN != 0 && chance(self.rng, 50) {
            (side.end, side.max_end) = (end, end);
            side.max_win = u32::from(seg.win).max(1);
        }
        if !is_near(end, side.end) {
            return;
        }
        if end.wrapping_sub(side.next) < 0x8000_0000 {
            side.next = end;
        }
        if end.wrapping_sub(side.end) < 0x8000_0000 {
            side.end = end;
        }
        let scale =
            if side.offers_scale && other.offers_scale && seg.flags & SYN == 0 { side.scale } else { 0 };
        let win = u32::from(seg.win) << scale;
        side.max_win = side.max_win.max(win);
        if seg.flags & ACK != 0 && is_near(seg.ack, other.end) {
            side.max_ack = seg.ack;
            let limit = seg.ack.wrapping_add(win);
            if limit.wrapping_sub(other.max_end) < 0x8000_0000 {
                other.max_end = limit.wrapping_add(u32::from(win == 0));
            }
        }
    }
}

struct Segment {
    flags: u8,
    seq: u32,
    ack: u32,
    win: u16,
    len: u32,
    options: Vec<u8>,
}

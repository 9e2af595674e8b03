//! Fragments: joined before tracking, and cut again behind it.
//!
//! Tracking and rules see whole packets only, as in Linux once connection tracking is in use. What leaves is cut
//! where the sender cut it, if those pieces fit the way out, so that nobody behind us sees a difference; if they
//! do not fit, into the largest pieces that do and that are no larger than the largest that came.
//!
//! An attacker can send pieces and never the rest: the memory that waits is bounded in bytes, in datagrams and in
//! time, and what overlaps ends the wait for its datagram (RFC 5722; RFC 8200 §4.5 asks for it in IPv6, and Linux
//! does the same for IPv4).

#![forbid(unsafe_code)]

use super::checksum::Sum;
use super::{
    Addr, ETHERNET_LEN, Family, Fragment, IPV6_DESTINATION, IPV6_FRAGMENT, IPV6_HOP_BY_HOP, IPV6_ROUTING,
};
use super::{Offload, Packet};
use crate::fate::DropReason;
use crate::time::{Duration, Instant};
use core::ops::Range;
use parking_lot::Mutex;
use std::collections::BTreeMap;

const IPV6_HEADER_LEN: usize = 40;
const FRAGMENT_HEADER_LEN: usize = 8;
/// IPv6 is not cut smaller than what every link carries (RFC 8200 §5), unless the sender did.
const IPV6_MIN_MTU_BYTES: usize = 1280;
/// Neither length field can say more.
const MAX_LEN: usize = 65_535;
const MORE_FRAGMENTS: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;
/// The option is to stand in every fragment (RFC 791 §3.1).
const COPIED: u8 = 0x80;

/// How much may wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `ipfrag_time`
    pub ipv4: Duration,
    /// `nf_conntrack_frag6_timeout` (RFC 8200 §4.5: 60 seconds)
    pub ipv6: Duration,
    /// `ipfrag_high_thresh`: bytes of all pieces together, with what it takes to hold them.
    pub bytes: usize,
    /// Datagrams that are waited for at once.
    pub datagrams: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { ipv4: Duration::from_secs(30), ipv6: Duration::from_secs(60), bytes: 4 << 20, datagrams: 4096 }
    }
}

/// Datagrams of which some pieces are still missing.
#[derive(Debug, Default)]
pub struct Fragments {
    waiting: Mutex<Waiting>,
    bounds: Bounds,
}

/// What became of one piece.
#[derive(Debug)]
pub enum Reassembly {
    /// It waits for the others.
    Pending,
    Refused(DropReason),
    /// It was the last one.
    Whole(Whole),
}

/// A datagram whose pieces have all come.
#[derive(Debug)]
pub struct Whole {
    frame: Vec<u8>,
    pub pieces: Pieces,
}

impl Whole {
    pub fn packet(&mut self) -> Result<Packet<'_>, DropReason> {
        Packet::parse(&mut self.frame, Offload::NONE)
    }
}

/// How a datagram had been cut when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Where each piece ends in the whole IP packet.
    ends: Vec<usize>,
    /// The largest piece that came, as an IP packet.
    pub max_len: usize,
    /// The largest piece had "don't fragment" set: whatever is cut anew has it too.
    dont_fragment: bool,
    id: u32,
}

// ── Joining ──────────────────────────────────────────────────────────────────────────────────────────────────

#[derive(Debug, Default)]
struct Waiting {
    queues: BTreeMap<Key, Queue>,
    /// In the order in which they are given up.
    deadlines: BTreeMap<(Instant, u64), Key>,
    bytes: usize,
    next_serial: u64,
}

/// What the pieces of one datagram have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    family: Family,
    src: Addr,
    dst: Addr,
    id: u32,
    /// IPv4 only: in IPv6 the identification alone tells datagrams apart.
    proto: u8,
}

/// The pieces of one datagram.
#[derive(Debug)]
struct Queue {
    deadline: (Instant, u64),
    /// By their place.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Stretches that came in order. A piece inside one has been seen; one across an edge contradicts it.
    runs: Vec<Range<usize>>,
    /// The frame up to the payload, from the first piece, without a fragment header.
    header: Vec<u8>,
    /// Where the payload ends, as far as is known.
    len: usize,
    last_came: bool,
    /// Bytes of payload that came.
    came: usize,
    /// Which of the four ECN codepoints were seen, a bit each.
    ecn: u8,
    max_len: usize,
    max_dont_fragment_len: usize,
    cost: usize,
}

/// One piece, read from its packet.
struct Piece<'a> {
    header: Vec<u8>,
    range: Range<usize>,
    more: bool,
    data: &'a [u8],
    ecn: u8,
    /// Of the IP packet that it came in.
    len: usize,
    dont_fragment: bool,
}

/// What a piece of memory costs besides its bytes.
const PIECE_OVERHEAD: usize = 256;

impl Fragments {
    pub fn new(bounds: Bounds) -> Self {
        Self { waiting: Mutex::default(), bounds }
    }

    /// Takes one piece of a datagram.
    ///
    /// # Panics
    /// If `pkt` is whole.
    pub fn add(&self, pkt: &Packet, now: Instant) -> Reassembly {
        let Some(fragment) = pkt.fragment() else { panic!("not a fragment") };
        let family = pkt.family();
        let proto = if family == Family::Ipv4 { pkt.proto() } else { 0 };
        let key = Key { family, src: pkt.src(), dst: pkt.dst(), id: fragment.id, proto };
        let waiting = &mut *self.waiting.lock();
        waiting.expire(now);
        if waiting.bytes > self.bounds.bytes {
            return Reassembly::Refused(DropReason::FragmentLimit);
        }
        if !waiting.queues.contains_key(&key) {
            if waiting.queues.len() >= self.bounds.datagrams {
                return Reassembly::Refused(DropReason::FragmentLimit);
            }
            let wait = if family == Family::Ipv4 { self.bounds.ipv4 } else { self.bounds.ipv6 };
            waiting.open(key, now + wait);
        }
        waiting.add(key, &Piece::read(pkt, fragment))
    }

    /// Gives up on what has waited too long.
    pub fn handle_timeout(&self, now: Instant) {
        self.waiting.lock().expire(now);
    }

    /// When [`Fragments::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.lock().deadlines.keys().next().map(|(at, _)| *at)
    }
}

impl Waiting {
    fn open(&mut self, key: Key, at: Instant) {
        let deadline = (at, self.next_serial);
        self.next_serial += 1;
        self.deadlines.insert(deadline, key);
        self.queues.insert(key, Queue::new(deadline));
    }

    fn close(&mut self, key: Key) -> Option<Queue> {
        let queue = self.queues.remove(&key)?;
        self.deadlines.remove(&queue.deadline);
        self.bytes -= queue.cost;
        Some(queue)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((&(at, _), &key)) = self.deadlines.first_key_value()
            && at <= now
        {
            self.close(key);
        }
    }

    fn add(&mut self, key: Key, piece: &Piece) -> Reassembly {
        let Some(queue) = self.queues.get_mut(&key) else {
            return Reassembly::Refused(DropReason::FragmentLimit);
        };
        let before = queue.cost;
        let result = queue.add(key.family, piece);
        self.bytes += queue.cost - before;
        match result {
            Ok(()) if !queue.is_complete() => Reassembly::Pending,
            Ok(()) => self
                .close(key)
                .and_then(|queue| queue.join(key))
                .map_or(Reassembly::Refused(DropReason::FragmentBad), Reassembly::Whole),
            Err(Refusal::Piece(reason)) => {
                // Nothing to wait for if it was the first.
                if queue.pieces.is_empty() {
                    self.close(key);
                }
                Reassembly::Refused(reason)
            }
            Err(Refusal::Datagram(reason)) => {
                self.close(key);
                Reassembly::Refused(reason)
            }
        }
    }
}

/// How far the damage of a bad piece goes.
enum Refusal {
    /// It alone is dropped.
    Piece(DropReason),
    /// All pieces of its datagram are.
    Datagram(DropReason),
}

impl<'a> Piece<'a> {
    fn read(pkt: &'a Packet, fragment: Fragment) -> Self {
        let frame = pkt.frame();
        let (header, data) = match pkt.family() {
            Family::Ipv4 => (pkt.frame()[..ETHERNET_LEN + pkt.l3_header_len()].to_vec(), pkt.l4()),
            Family::Ipv6 => {
                // Without the fragment header: the one before it names what comes behind it.
                let mut header = frame[..fragment.header].to_vec();
                let next = frame[fragment.header];
                let at = next_header_at(&header);
                header[at] = next;
                (header, &frame[fragment.header + FRAGMENT_HEADER_LEN..])
            }
        };
        let mut data = data;
        // IPv4: a piece that is not the last counts in whole units of eight bytes.
        if fragment.more && pkt.family() == Family::Ipv4 {
            data = &data[..data.len() & !7];
        }
        Self {
            header,
            range: fragment.offset..fragment.offset + data.len(),
            more: fragment.more,
            data,
            ecn: 1 << (pkt.tos() & 3),
            len: pkt.l3().len(),
            dont_fragment: pkt.family() == Family::Ipv4 && pkt.dont_fragment(),
        }
    }
}

impl Queue {
    const fn new(deadline: (Instant, u64)) -> Self {
        Self {
            deadline,
            pieces: BTreeMap::new(),
            runs: Vec::new(),
            header: Vec::new(),
            len: 0,
            last_came: false,
            came: 0,
            ecn: 0,
            max_len: 0,
            max_dont_fragment_len: 0,
            cost: 0,
        }
    }

    fn add(&mut self, family: Family, piece: &Piece) -> Result<(), Refusal> {
        self.learn_end(family, piece)?;
        self.insert(piece.range.clone())?;
        self.cost += piece.data.len() + PIECE_OVERHEAD;
        self.came += piece.data.len();
        self.pieces.insert(piece.range.start, piece.data.to_vec());
        if piece.range.start == 0 {
            self.header.clone_from(&piece.header);
        }
        self.ecn |= piece.ecn;
        self.max_len = self.max_len.max(piece.len);
        if piece.dont_fragment {
            self.max_dont_fragment_len = self.max_dont_fragment_len.max(piece.len);
        }
        Ok(())
    }

    /// Takes in what the piece says of the end of the datagram, unless it contradicts what others said.
    fn learn_end(&mut self, family: Family, piece: &Piece) -> Result<(), Refusal> {
        let end = piece.range.end;
        // IPv6 gives up the piece, IPv4 the datagram.
        let bad = match family {
            Family::Ipv4 => Refusal::Datagram(DropReason::FragmentBad),
            Family::Ipv6 => Refusal::Piece(DropReason::FragmentBad),
        };
        if family == Family::Ipv6 && end > MAX_LEN {
            return Err(bad);
        }
        if !piece.more {
            if end < self.len || (self.last_came && end != self.len) {
                return Err(bad);
            }
            self.last_came = true;
            self.len = end;
        } else if end % 8 != 0 {
            // RFC 8200 §4.5; IPv4 has cut it off already.
            return Err(Refusal::Datagram(DropReason::FragmentBad));
        } else if end > self.len {
            if self.last_came {
                return Err(bad);
            }
            self.len = end;
        }
        if piece.range.is_empty() { Err(bad) } else { Ok(()) }
    }

    /// Finds the place of a piece among the others.
    fn insert(&mut self, new: Range<usize>) -> Result<(), Refusal> {
        const OVERLAP: Refusal = Refusal::Datagram(DropReason::FragmentOverlap);
        match self.runs.last_mut() {
            // Mostly they come in order.
            Some(last) if last.end < new.end => {
                if new.start < last.end {
                    return Err(OVERLAP);
                }
                if new.start == last.end {
                    last.end = new.end;
                } else {
                    self.runs.push(new);
                }
            }
            _ => {
                let at = self.runs.partition_point(|run| run.end <= new.start);
                if let Some(run) = self.runs.get(at)
                    && run.start < new.end
                {
                    let inside = run.start <= new.start && new.end <= run.end;
                    return Err(if inside { Refusal::Piece(DropReason::FragmentDuplicate) } else { OVERLAP });
                }
                self.runs.insert(at, new);
            }
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.last_came && !self.header.is_empty() && self.came == self.len
    }

    /// Puts the datagram together; `None` if the result cannot be.
    fn join(self, key: Key) -> Option<Whole> {
        let mut frame = self.header;
        let header_len = frame.len() - ETHERNET_LEN;
        let mut ends = Vec::with_capacity(self.pieces.len());
        for data in self.pieces.values() {
            frame.extend(data);
            ends.push(frame.len() - ETHERNET_LEN);
        }
        let len = header_len + self.len;
        let tos = joined_ecn(self.ecn)?;
        let dont_fragment = self.max_dont_fragment_len == self.max_len;
        match key.family {
            Family::Ipv4 => {
                let total = u16::try_from(len).ok()?;
                let flags = if dont_fragment { DONT_FRAGMENT } else { 0 };
                finish_ipv4(&mut frame, total, flags, tos);
            }
            Family::Ipv6 => {
                let payload = u16::try_from(len - IPV6_HEADER_LEN).ok()?;
                frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&payload.to_be_bytes());
                // The codepoint stands in the middle of the traffic class.
                frame[ETHERNET_LEN + 1] |= tos << 4;
            }
        }
        let pieces = Pieces { ends, max_len: self.max_len, dont_fragment, id: key.id };
        Some(Whole { frame, pieces })
    }
}

/// The ECN bits to set in the whole, from those seen in its pieces; `None` where they contradict (RFC 3168 §5.3).
const fn joined_ecn(seen: u8) -> Option<u8> {
    const NOT_ECT: u8 = 1 << 0b00;
    const CE: u8 = 1 << 0b11;
    if seen & NOT_ECT != 0 {
        return if seen == NOT_ECT { Some(0) } else { None };
    }
    // One congested piece makes the whole congested. CE alone, or ECT alone, stands in the first piece already.
    if seen & CE != 0 { Some(0b11) } else { Some(0) }
}

fn finish_ipv4(frame: &mut [u8], total_len: u16, flags_and_offset: u16, tos: u8) {
    let header_len = usize::from(frame[ETHERNET_LEN] & 0x0f) * 4;
    let header = &mut frame[ETHERNET_LEN..ETHERNET_LEN + header_len];
    header[1] |= tos;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    header[10..12].fill(0);
    let checksum = Sum::ZERO.bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Where the header stands that names the one behind `frame`, which ends where a fragment header stood.
fn next_header_at(frame: &[u8]) -> usize {
    let mut at = ETHERNET_LEN + 6;
    let mut header = ETHERNET_LEN + IPV6_HEADER_LEN;
    while header < frame.len() {
        // Hop-by-hop, routing and destination options count in units of eight, authentication in units of four.
        let len = usize::from(frame[header + 1]);
        let len = if frame[at] == super::IPV6_AUTH { (len + 2) * 4 } else { (len + 1) * 8 };
        at = header;
        header += len;
    }
    at
}

// ── Cutting ──────────────────────────────────────────────────────────────────────────────────────────────────

impl Pieces {
    /// Whether they may leave on a link of this MTU: "don't fragment" holds for each of them.
    pub const fn fit(&self, pkt: &Packet, mtu_bytes: usize) -> bool {
        self.max_len <= mtu_bytes || (matches!(pkt.family(), Family::Ipv4) && !self.dont_fragment)
    }

    /// The frames in which a joined packet leaves.
    pub fn cut(&self, pkt: &Packet, mtu_bytes: usize) -> Vec<Vec<u8>> {
        let fixed = fixed_len(pkt);
        let len = pkt.l3().len();
        let max_len = match pkt.family() {
            Family::Ipv4 => mtu_bytes.min(self.max_len),
            // What the sender could have sent in one piece stays whole.
            Family::Ipv6 if len <= mtu_bytes && len <= self.max_len => return vec![pkt.frame().to_vec()],
            Family::Ipv6 => mtu_bytes.min(self.max_len.max(IPV6_MIN_MTU_BYTES)),
        };
        let room = room(pkt, fixed, max_len);
        let starts = [fixed].into_iter().chain(self.ends.iter().copied());
        let as_it_came: Vec<Range<usize>> =
            starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end).collect();
        let last = as_it_came.len() - 1;
        let keeps = self.ends.last() == Some(&len)
            && as_it_came.iter().enumerate().all(|(at, range)| {
                range.start <= range.end && range.len() <= room && (at == last || range.len() % 8 == 0)
            });
        let (ranges, dont_fragment) = if keeps {
            // As Linux, whose pieces lose the flag here: they are known to fit what lies behind us.
            (as_it_came, false)
        } else {
            (ranges(fixed, len, room), self.dont_fragment)
        };
        cut_at(pkt, fixed, &ranges, dont_fragment, self.id)
    }
}

/// The frames in which an IPv4 packet leaves that is larger than the MTU and may be cut.
pub fn cut_to_mtu(pkt: &Packet, mtu_bytes: usize) -> Vec<Vec<u8>> {
    let fixed = fixed_len(pkt);
    let ranges = ranges(fixed, pkt.l3().len(), room(pkt, fixed, mtu_bytes));
    cut_at(pkt, fixed, &ranges, false, 0)
}

/// Bytes at the start of the IP packet that stand in every piece.
fn fixed_len(pkt: &Packet) -> usize {
    let l3 = pkt.l3();
    if pkt.family() == Family::Ipv4 {
        return usize::from(l3[0] & 0x0f) * 4;
    }
    // RFC 8200 §4.5: up to a routing header; destination options only in front of it.
    let (mut at, mut next, mut routed) = (IPV6_HEADER_LEN, l3[6], false);
    while let Some(&[following, len]) = l3.get(at..).and_then(|rest| rest.first_chunk()) {
        match next {
            IPV6_HOP_BY_HOP => {}
            IPV6_ROUTING => routed = true,
            IPV6_DESTINATION if !routed => {}
            _ => break,
        }
        let end = at + (usize::from(len) + 1) * 8;
        if end > l3.len() {
            break;
        }
        (at, next) = (end, following);
    }
    at
}

/// Bytes of payload in each piece but the last; at least one unit.
fn room(pkt: &Packet, fixed: usize, max_len: usize) -> usize {
    let headers = fixed + if pkt.family() == Family::Ipv6 { FRAGMENT_HEADER_LEN } else { 0 };
    max_len.saturating_sub(headers).max(8)
}

fn ranges(fixed: usize, len: usize, room: usize) -> Vec<Range<usize>> {
    let step = room & !7;
    let mut ranges = Vec::with_capacity((len - fixed).div_ceil(step));
    let mut at = fixed;
    while at < len {
        let end = if len - at <= room { len } else { at + step };
        ranges.push(at..end);
        at = end;
    }
    ranges
}

fn cut_at(pkt: &Packet, fixed: usize, ranges: &[Range<usize>], dont_fragment: bool, id: u32) -> Vec<Vec<u8>> {
    let last = ranges.len().saturating_sub(1);
    let piece = |(at, range): (usize, &Range<usize>)| {
        let mut frame = pkt.frame()[..ETHERNET_LEN + fixed].to_vec();
        let offset = range.start - fixed;
        match pkt.family() {
            Family::Ipv4 => {
                if offset > 0 {
                    drop_first_only_options(&mut frame);
                }
                let more = if at == last { 0 } else { MORE_FRAGMENTS };
                let flags = more | if dont_fragment { DONT_FRAGMENT } else { 0 };
                finish_ipv4(&mut frame, (fixed + range.len()) as u16, flags | (offset / 8) as u16, 0);
            }
            Family::Ipv6 => {
                let named = next_header_at(&frame);
                let next = core::mem::replace(&mut frame[named], IPV6_FRAGMENT);
                let payload = fixed - IPV6_HEADER_LEN + FRAGMENT_HEADER_LEN + range.len();
                frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&(payload as u16).to_be_bytes());
                frame.extend([next, 0]);
                frame.extend((offset as u16 | u16::from(at != last)).to_be_bytes());
                frame.extend(id.to_be_bytes());
            }
        }
        frame.extend(&pkt.l3()[range.clone()]);
        frame
    };
    ranges.iter().enumerate().map(piece).collect()
}

/// Later pieces carry only the options that ask for it; the others become padding, so that nothing moves.
fn drop_first_only_options(frame: &mut [u8]) {
    const END: u8 = 0;
    const NOP: u8 = 1;
    let mut options = &mut frame[ETHERNET_LEN + 20..];
    while let [kind, rest @ ..] = options {
        let len = match *kind {
            END => return,
            NOP => 1,
            _ => rest.first().map_or(0, |&len| usize::from(len)),
        };
        if len == 0 || len > options.len() || (len == 1 && options[0] != NOP) {
            return;
        }
        let (option, behind) = options.split_at_mut(len);
        if option[0] & COPIED == 0 {
            option.fill(NOP);
        }
        options = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Family = Family::Ipv4;
    const V6: Family = Family::Ipv6;

    /// A fragment of `family` with id 7: `offset`, payload, more.
    fn fragment(family: Family, offset: usize, data: &[u8], more: bool) -> Vec<u8> {
        let mut frame = vec![0; 12];
        match family {
            Family::Ipv4 => {
                frame.extend([8, 0, 0x45, 0, 0, 0, 0, 7, 0, 0, 64, 17, 0, 0]);
                frame.extend([192, 0, 2, 10, 198, 51, 100, 10]);
                let flags = (offset / 8) as u16 | if more { MORE_FRAGMENTS } else { 0 };
                finish_ipv4(&mut frame, (20 + data.len()) as u16, flags, 0);
            }
            Family::Ipv6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(((8 + data.len()) as u16).to_be_bytes());
                frame.extend([IPV6_FRAGMENT, 64]);
                frame.extend([[0x20; 16], [0x21; 16]].concat());
                frame.extend([17, 0]);
                frame.extend((offset as u16 | u16::from(more)).to_be_bytes());
                frame.extend(7_u32.to_be_bytes());
            }
        }
        frame.extend(data);
        frame
    }

    fn add(fragments: &Fragments, frame: &[u8], at_secs: u64) -> Reassembly {
        let mut frame = frame.to_vec();
        let pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
        fragments.add(&pkt, Instant::from_secs(at_secs))
    }

    /// What becomes of pieces that come one after the other: `_` pending, `=` whole, else the reason.
    fn story(family: Family, pieces: &[(usize, usize, bool)]) -> Vec<&'static str> {
        let fragments = Fragments::default();
        let outcome = |&(offset, len, more): &(usize, usize, bool)| match add(
            &fragments,
            &fragment(family, offset, &vec![7; len], more),
            0,
        ) {
            Reassembly::Pending => "_",
            Reassembly::Whole(_) => "=",
            Reassembly::Refused(reason) => reason.code(),
        };
        pieces.iter().map(outcome).collect()
    }

    #[test]
    fn pieces_join_in_any_order_and_leave_as_they_came() {
        let data: Vec<u8> = (0..60).collect();
        for family in [V4, V6] {
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
                let fragments = Fragments::default();
                let ranges = [0..24, 24..32, 32..60];
                let frames = ranges.map(|r| fragment(family, r.start, &data[r.clone()], r.end < 60));
                let mut whole = None;
                for at in order {
                    match add(&fragments, &frames[at], 0) {
                        Reassembly::Whole(w) => whole = Some(w),
                        Reassembly::Pending => assert!(whole.is_none()),
                        Reassembly::Refused(reason) => panic!("{reason}"),
                    }
                }
                let mut whole = whole.expect("all came");
                let pieces = whole.pieces.clone();
                let pkt = whole.packet().unwrap();
                assert!(pkt.fragment().is_none());
                assert_eq!(pkt.l4(), data, "{family:?} {order:?}");
                assert_eq!(pieces.cut(&pkt, 1500), frames, "{family:?} {order:?}");
            }
        }
    }

    #[test]
    fn a_copy_is_dropped_and_an_overlap_ends_the_wait() {
        use DropReason::{FragmentBad, FragmentDuplicate, FragmentOverlap};
        let [copy, overlap, bad] = [FragmentDuplicate, FragmentOverlap, FragmentBad].map(|r| r.code());
        for family in [V4, V6] {
            assert_eq!(story(family, &[(0, 24, true), (0, 24, true), (24, 8, false)]), ["_", copy, "="]);
            assert_eq!(story(family, &[(0, 24, true), (8, 8, true), (24, 8, false)]), ["_", copy, "="]);
            assert_eq!(story(family, &[(0, 24, true), (16, 16, true), (24, 8, false)]), ["_", overlap, "_"]);
            assert_eq!(
                story(family, &[(0, 24, true), (32, 8, true), (24, 16, true), (40, 8, false)]),
                ["_", "_", overlap, "_"]
            );
            assert_eq!(story(family, &[(24, 8, false), (0, 48, true)])[1], bad, "beyond the end");
        }
    }

    #[test]
    fn a_piece_that_is_not_the_last_has_whole_units() {
        assert_eq!(story(V4, &[(0, 27, true), (24, 8, false)]), ["_", "="], "the rest is cut off");
        assert_eq!(story(V6, &[(0, 27, true), (24, 8, false)]), ["fragment-bad", "_"]);
    }

    #[test]
    fn the_wait_ends_after_thirty_and_sixty_seconds() {
        for (family, secs) in [(V4, 30), (V6, 60)] {
            for (at, whole) in [(secs - 1, true), (secs, false)] {
                let fragments = Fragments::default();
                add(&fragments, &fragment(family, 0, &[7; 24], true), 0);
                assert_eq!(fragments.poll_timeout(), Some(Instant::from_secs(secs)));
                let last = add(&fragments, &fragment(family, 24, &[7; 8], false), at);
                assert_eq!(matches!(last, Reassembly::Whole(_)), whole, "{family:?} after {at} s");
            }
        }
    }

    #[test]
    fn what_waits_is_bounded_in_datagrams_and_bytes() {
        let piece = fragment(V4, 0, &[7; 1024], true);
        let flood = |bounds| {
            let fragments = Fragments::new(bounds);
            let taken = (0..100_u8).filter(|n| {
                let mut frame = piece.clone();
                frame[29] = *n;
                finish_ipv4(&mut frame, 1044, MORE_FRAGMENTS, 0);
                matches!(add(&fragments, &frame, 0), Reassembly::Pending)
            });
            taken.count()
        };
        assert_eq!(flood(Bounds { datagrams: 10, ..Bounds::default() }), 10);
        assert_eq!(flood(Bounds { bytes: 20 * 1280, ..Bounds::default() }), 21, "one more than fits");
    }

    #[test]
    fn the_joined_codepoint_is_that_of_rfc_3168() {
        const NOT: u8 = 1;
        const ECT1: u8 = 2;
        const ECT0: u8 = 4;
        const CE: u8 = 8;
        assert_eq!(joined_ecn(NOT), Some(0));
        assert_eq!(joined_ecn(ECT0 | ECT1), Some(0));
        assert_eq!(joined_ecn(ECT0 | CE), Some(3));
        assert_eq!(joined_ecn(NOT | CE), None);
        assert_eq!(joined_ecn(NOT | ECT0), None);
    }

    #[test]
    fn what_does_not_fit_is_cut_anew_in_whole_units() {
        let mut frame = fragment(V4, 0, &[7; 100], false);
        let pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
        let lens = |mtu| cut_to_mtu(&pkt, mtu).iter().map(|f| f.len() - ETHERNET_LEN).collect::<Vec<_>>();
        assert_eq!(lens(68), [68, 68, 24]);
        assert_eq!(lens(75), [68, 72], "six units and a rest; the last need not be whole");
        assert_eq!(lens(119), [116, 24]);
        assert_eq!(lens(120), [120]);
    }

    #[test]
    fn later_pieces_carry_only_the_options_that_ask_for_it() {
        let mut frame = vec![0; ETHERNET_LEN + 20];
        frame.extend([7, 3, 4, 148, 4, 0, 0, 1, 68, 4, 5, 0, 0]);
        drop_first_only_options(&mut frame);
        assert_eq!(frame[ETHERNET_LEN + 20..], [1, 1, 1, 148, 4, 0, 0, 1, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn an_atomic_fragment_is_whole_at_once_and_loses_its_header() {
        let fragments = Fragments::default();
        let Reassembly::Whole(mut whole) = add(&fragments, &fragment(V6, 0, &[7; 24], false), 0) else {
            panic!("RFC 6946 §4")
        };
        let pieces = whole.pieces.clone();
        let pkt = whole.packet().unwrap();
        assert_eq!((pkt.proto(), pkt.l3_header_len()), (17, 40));
        assert_eq!(pieces.cut(&pkt, 1500), [pkt.frame()]);
        assert_eq!(fragments.poll_timeout(), None);
    }
}

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

mod bounds;
mod cut;
#[cfg(test)]
mod tests;

pub use bounds::{Bounds, Bounds6, check_sysctl};
pub use cut::{IPV6_MIN_MTU_BYTES, cut_by_sender, cut_to_mtu};

use super::checksum::Sum;
use super::tuple::{PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
use super::{Addr, ETHERNET_LEN, Family, Fragment, Frame, IPV6_AUTH, NO_NEXT_HEADER, Offload, Packet};
use crate::base::fate::DropReason;
use crate::base::time::Instant;
use core::ops::Range;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};

const IPV6_HEADER_LEN: usize = 40;
const FRAGMENT_HEADER_LEN: usize = 8;
/// Neither length field can say more.
const MAX_LEN: usize = 65_535;
const DONT_FRAGMENT: u16 = 0x4000;

/// Datagrams of which some pieces are still missing.
#[derive(Debug, Default)]
pub struct Fragments {
    waiting: Mutex<Waiting>,
    bounds: Bounds,
}

/// The first piece of a datagram that waited in vain for the rest.
#[derive(Debug)]
pub struct Expired {
    frame: Vec<u8>,
    /// What of its payload counts, in bytes of the IP packet.
    pub kept_bytes: usize,
    /// Where its latest piece came in, as [`Fragments::add`] was told.
    pub from: u16,
}

impl Expired {
    pub fn packet(&mut self) -> Result<Packet<'_>, DropReason> {
        Packet::parse(&mut self.frame, Offload::NONE)
    }
}

/// What became of one piece.
#[derive(Debug)]
pub enum Reassembly {
    /// It waits for the others.
    Pending,
    Refused(DropReason),
    /// IPv6: its length is none for a piece that more follow, or it is the first and shows no upper layer (RFC 8200
    /// §4.5), or its header says no length at all. It goes on as it is.
    Passes,
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
        Packet::parse_again(Frame::new(&mut self.frame))
    }
}

/// How a datagram had been cut when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Where each piece ends in the whole IP packet.
    ends: Vec<usize>,
    /// Where the first piece's payload begins there: in IPv6 a fragment header stood there.
    pub joined_at: usize,
    /// The largest piece that came, as an IP packet.
    pub max_len: usize,
    /// The largest piece had "don't fragment" set: whatever is cut anew has it too.
    dont_fragment: bool,
    id: u32,
    /// Somebody needed the whole in one: how it had been cut is forgotten, and it is cut anew.
    pub is_linear: bool,
    /// The shortest headers of a later piece, as an IP packet, fragment header included.
    later_headers_len: usize,
    /// They leave by a bridge, as Linux's cuts them: each with all IPv4 options, and not at all if the whole is no longer than
    /// the largest that came, which may have had more options.
    is_bridged: bool,
}

impl Pieces {
    /// They leave by a bridge, and none with "don't fragment".
    pub const fn leave_on_bridge(&mut self) {
        self.is_bridged = true;
        self.dont_fragment = false;
    }

    /// Somebody needed the first `len` bytes of the packet in one: no piece ends before that any more.
    pub fn pull(&mut self, len: usize) {
        if self.ends.last().is_some_and(|&end| len <= end) && self.ends[0] < len {
            self.ends.retain(|&end| end > len);
            self.is_linear |= self.ends.is_empty();
            self.ends.insert(0, len);
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    queues: BTreeMap<Key, Queue>,
    /// In the order in which they are given up.
    deadlines: BTreeMap<(Instant, u64), Key>,
    bytes: usize,
    next_serial: u64,
    /// Pieces taken so far, by sender, for as long as something of theirs waits: `ipfrag_max_dist`.
    senders: BTreeMap<Addr, Sender>,
    /// First pieces whose senders are to be told.
    expired: VecDeque<Expired>,
}

/// Somebody whose IPv4 datagrams wait for pieces.
#[derive(Debug, Default)]
struct Sender {
    queues: u32,
    pieces: u32,
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
    later_headers_len: usize,
    cost: usize,
    /// Where the latest piece came in.
    from: u16,
    /// The first piece as it came: up to its payload, and what was cut off behind it.
    first: Vec<u8>,
    tail: Vec<u8>,
    /// How many pieces its sender had sent when the latest of this datagram came.
    at_piece: u32,
}

/// One piece, read from its packet.
struct Piece<'a> {
    header: Vec<u8>,
    /// The frame up to the payload, fragment header included.
    head: &'a [u8],
    /// What is cut off behind.
    tail: &'a [u8],
    from: u16,
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
/// First pieces that wait until their senders are told; of more nobody hears.
const MAX_EXPIRED: usize = 1024;

impl Fragments {
    pub fn new(bounds: Bounds) -> Self {
        Self { waiting: Mutex::default(), bounds }
    }

    /// Takes one piece of a datagram, which came in by interface `from`. What is said of IPv6 may change at any time.
    ///
    /// One that does not say where it belongs is refused.
    pub fn add(&self, pkt: &Packet, from: u16, ipv6: Bounds6, now: Instant) -> Reassembly {
        let Some(fragment) = pkt.fragment() else { return Reassembly::Refused(DropReason::FragmentBad) };
        if lacks_headers(pkt) || pkt.has_no_length() {
            return Reassembly::Passes;
        }
        let family = pkt.family();
        if family == Family::Ipv6 && fragment.header + FRAGMENT_HEADER_LEN > pkt.frame_len() {
            return Reassembly::Refused(DropReason::FragmentBad);
        }
        if family == Family::Ipv6 && is_named_far_behind(pkt.frame(), fragment) {
            return Reassembly::Refused(DropReason::FragmentBad);
        }
        let proto = if family == Family::Ipv4 { pkt.proto() } else { 0 };
        let key = Key { family, src: pkt.src(), dst: pkt.dst(), id: fragment.id, proto };
        let waiting = &mut *self.waiting.lock();
        waiting.expire(now);
        let (bytes, wait) = match family {
            Family::Ipv4 => (self.bounds.bytes, self.bounds.wait),
            Family::Ipv6 => (ipv6.bytes, ipv6.wait),
        };
        if waiting.bytes > bytes || bytes == 0 {
            return Reassembly::Refused(DropReason::FragmentLimit);
        }
        if !waiting.queues.contains_key(&key) {
            if waiting.queues.len() >= self.bounds.datagrams {
                return Reassembly::Refused(DropReason::FragmentLimit);
            }
            waiting.open(key, now + wait);
        }
        let piece = Piece::read(pkt, fragment, from);
        if family == Family::Ipv4 && self.bounds.max_dist > 0 {
            waiting.keep_near(key, self.bounds.max_dist, now + wait);
        }
        waiting.add(key, &piece)
    }

    /// Gives up on what has waited too long; returns the first pieces of such datagrams, where they came.
    pub fn handle_timeout(&self, now: Instant) -> VecDeque<Expired> {
        let mut waiting = self.waiting.lock();
        waiting.expire(now);
        core::mem::take(&mut waiting.expired)
    }

    /// When [`Fragments::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.lock();
        // Somebody is to be told at once.
        let told = (!waiting.expired.is_empty()).then_some(Instant::ZERO);
        told.or_else(|| waiting.deadlines.keys().next().map(|(at, _)| *at))
    }
}

impl Waiting {
    fn open(&mut self, key: Key, at: Instant) {
        let deadline = (at, self.next_serial);
        self.next_serial += 1;
        self.deadlines.insert(deadline, key);
        self.queues.insert(key, Queue::new(deadline));
        if key.family == Family::Ipv4 {
            self.senders.entry(key.src).or_default().queues += 1;
        }
    }

    fn close(&mut self, key: Key) -> Option<Queue> {
        let queue = self.queues.remove(&key)?;
        self.deadlines.remove(&queue.deadline);
        self.bytes -= queue.cost;
        if let Some(sender) = self.senders.get_mut(&key.src).filter(|_| key.family == Family::Ipv4) {
            sender.queues -= 1;
            if sender.queues == 0 {
                self.senders.remove(&key.src);
            }
        }
        Some(queue)
    }

    /// `ipfrag_max_dist`: a sender that has sent so many other pieces meanwhile has begun to use the identification
    /// anew, and what waits belongs to another datagram. Linux then forgets all but how large the largest piece was.
    fn keep_near(&mut self, key: Key, max_dist: u32, at: Instant) {
        let Some(sender) = self.senders.get_mut(&key.src) else { return };
        sender.pieces = sender.pieces.wrapping_add(1);
        let pieces = sender.pieces;
        let Some(queue) = self.queues.get_mut(&key) else { return };
        let is_far = !queue.pieces.is_empty() && pieces.wrapping_sub(queue.at_piece) > max_dist;
        queue.at_piece = pieces;
        if !is_far {
            return;
        }
        let before = self.close(key);
        self.open(key, at);
        if let (Some(queue), Some(before)) = (self.queues.get_mut(&key), before) {
            queue.at_piece = pieces;
            (queue.max_len, queue.max_dont_fragment_len) = (before.max_len, before.max_dont_fragment_len);
        }
        self.senders.entry(key.src).or_default().pieces = pieces;
    }

    fn expire(&mut self, now: Instant) {
        while let Some((&(at, _), &key)) = self.deadlines.first_key_value()
            && at <= now
        {
            let expired = self.close(key).and_then(Queue::into_first);
            if self.expired.len() < MAX_EXPIRED {
                self.expired.extend(expired);
            }
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
            // What it said of the end stands, and the wait has begun.
            Err(Refusal::Piece(reason)) => Reassembly::Refused(reason),
            Err(Refusal::Datagram(reason)) => {
                self.close(key);
                Reassembly::Refused(reason)
            }
            Err(Refusal::Passes) => {
                self.close(key);
                Reassembly::Passes
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
    /// All that came before are; it goes on as it is, and its receiver sees to it (RFC 8200 §4.5).
    Passes,
}

/// IPv6: whether a packet is a first piece that ends before its upper-layer header does (RFC 7112 §5).
pub fn lacks_headers(pkt: &Packet) -> bool {
    let least = match pkt.proto() {
        PROTO_TCP => 20,
        PROTO_UDP | PROTO_ICMPV6 => 8,
        // There is none to come.
        NO_NEXT_HEADER => 0,
        _ => 1,
    };
    pkt.family() == Family::Ipv6 && pkt.is_fragment() && !pkt.is_later_fragment() && pkt.l4().len() < least
}

/// IPv6: whether the header that names a first piece's fragment header begins so far behind that Linux, which has one byte for the
/// place, writes the number of the header behind it elsewhere.
fn is_named_far_behind(frame: &[u8], fragment: Fragment) -> bool {
    fragment.offset == 0 && next_header_at(&frame[..fragment.header]) > ETHERNET_LEN + usize::from(u8::MAX)
}

impl<'a> Piece<'a> {
    fn read(pkt: &'a Packet, fragment: Fragment, from: u16) -> Self {
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
        let (mut data, whole) = (data, data);
        // IPv4: a piece that is not the last counts in whole units of eight bytes.
        if fragment.more && pkt.family() == Family::Ipv4 {
            data = &data[..data.len() & !7];
        }
        Self {
            header,
            head: &frame[..frame.len() - whole.len()],
            tail: &whole[data.len()..],
            from,
            range: fragment.offset..fragment.offset + data.len(),
            more: fragment.more,
            data,
            ecn: 1 << (pkt.tos() & 3),
            len: pkt.l3().len() - (whole.len() - data.len()),
            dont_fragment: pkt.family() == Family::Ipv4 && pkt.dont_fragment(),
        }
    }

    const fn is_first(&self) -> bool {
        self.range.start == 0
    }

    /// What of it waits in memory: of the first piece also its headers, which may be long in IPv6, and are kept once
    /// for the whole and once to tell the sender.
    const fn kept_bytes(&self) -> usize {
        let headers = if self.is_first() { self.header.len() + self.head.len() + self.tail.len() } else { 0 };
        self.data.len() + headers
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
            later_headers_len: usize::MAX,
            cost: 0,
            from: 0,
            first: Vec::new(),
            tail: Vec::new(),
            at_piece: 0,
        }
    }

    fn add(&mut self, family: Family, piece: &Piece) -> Result<(), Refusal> {
        self.learn_end(family, piece)?;
        self.insert(piece.range.clone())?;
        self.cost += piece.kept_bytes() + PIECE_OVERHEAD;
        self.came += piece.data.len();
        self.pieces.insert(piece.range.start, piece.data.to_vec());
        if piece.is_first() {
            self.header.clone_from(&piece.header);
            self.first = piece.head.to_vec();
            self.tail = piece.tail.to_vec();
        } else {
            self.later_headers_len = self.later_headers_len.min(piece.head.len() - ETHERNET_LEN);
        }
        self.from = piece.from;
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
        } else if !end.is_multiple_of(8) {
            // RFC 8200 §4.5; IPv4 has cut it off already.
            return Err(Refusal::Passes);
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

    /// The first piece as it came, if it did.
    fn into_first(mut self) -> Option<Expired> {
        let data = self.pieces.remove(&0)?;
        let kept_bytes = self.first.len() + data.len() - ETHERNET_LEN;
        Some(Expired { frame: [self.first, data, self.tail].concat(), kept_bytes, from: self.from })
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
        let pieces = Pieces {
            ends,
            joined_at: header_len,
            max_len: self.max_len,
            dont_fragment,
            id: key.id,
            later_headers_len: self.later_headers_len,
            is_linear: false,
            is_bridged: false,
        };
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
        let len = if frame[at] == IPV6_AUTH { (len + 2) * 4 } else { (len + 1) * 8 };
        at = header;
        header += len;
    }
    at
}

//! Frames that follow what the kernel chose: what a host answers goes to the address and port that the kernel gave the
//! connection, and an error quotes the packet that left.
//!
//! Such a frame is written down as if nothing were translated, with a [`Link`] that says which connection it belongs to.
//! Before it is fed it gets the addresses and ports of that connection, which is the same however often it is done.

#![forbid(unsafe_code)]

use crate::ctnetlink::KernelExpectation;
use crate::generate::sctp::crc32c;
use crate::kernel::{Answer, MACS, NEIGHBOUR_MACS};
use crate::trace::Frame;
use core::ops::Range;
use stateway_core::conntrack::Direction;
use stateway_core::packet::checksum::{Sum, adjust_bytes};
use stateway_core::packet::tuple::{
    PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use stateway_core::packet::{Addr, ETHERNET_LEN, Family, Tuple};
use stateway_trace::flow::Link;
use std::collections::BTreeMap;

/// What is known of the connections of one trace, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<u16, Known>);

/// What the kernel has made of a connection so far.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Its tuples, original and reply.
    tuples: Option<[Tuple; 2]>,
    /// The last frame that left, each way, and by which interface.
    last: [Option<(usize, Vec<u8>)>; 2],
    /// What it has announced last.
    announced: Option<Tuple>,
}

impl Links {
    /// The frame as it is to be fed.
    pub(super) fn resolve(&self, frame: &Frame) -> Frame {
        let mut resolved = frame.clone();
        let done = match frame.link {
            None => Some(()),
            Some(Link::Along { flow, dir }) => self.along(&mut resolved, flow, dir),
            Some(Link::Announced { master, .. }) => self.announced(&mut resolved, master),
            Some(Link::About { flow, dir }) => self.about(&mut resolved, flow, dir),
        };
        // Where the connection is not known it goes as it stands.
        if done.is_some() { resolved } else { frame.clone() }
    }

    fn along(&self, frame: &mut Frame, flow: u16, dir: Direction) -> Option<()> {
        let known = self.0.get(&flow)?;
        let mut ends = Ends::of(&known.tuples?[dir as usize]);
        if dir == Direction::Original {
            return retuple(frame.bytes.get_mut(ETHERNET_LEN..)?, ends);
        }
        // Nobody answers what has not left. An answer goes to whom its question came from: tracking does not know of
        // prefixes that rules have exchanged.
        let (port, question) = known.last[Direction::Original as usize].as_ref()?;
        ends.dst = Frame::addresses_of(question)?.0;
        retuple(frame.bytes.get_mut(ETHERNET_LEN..)?, ends)?;
        come_in_by(frame, *port);
        Some(())
    }

    fn announced(&self, frame: &mut Frame, master: u16) -> Option<()> {
        let tuple = self.0.get(&master)?.announced?;
        let ends = Ends { left: None, ..Ends::of(&tuple) };
        retuple(frame.bytes.get_mut(ETHERNET_LEN..)?, ends)
    }

    fn about(&self, frame: &mut Frame, flow: u16, dir: Direction) -> Option<()> {
        let (port, left) = self.0.get(&flow)?.last[dir as usize].as_ref()?;
        requote(frame, left.get(ETHERNET_LEN..)?)?;
        come_in_by(frame, *port);
        Some(())
    }

    /// Learns from what the kernel did with a frame.
    pub(super) fn learn(&mut self, frame: &Frame, theirs: &Answer, expected: &[KernelExpectation]) {
        let (flow, dir) = match frame.link {
            Some(Link::Along { flow, dir }) => (flow, dir),
            Some(Link::Announced { flow, .. }) => (flow, Direction::Original),
            Some(Link::About { .. }) | None => return,
        };
        // An answer that opens a connection of its own says nothing of the one that it was to answer.
        if theirs.direction != Some(dir) {
            return;
        }
        let known = self.0.entry(flow).or_default();
        let Some(entry) = &theirs.entry else { return };
        let (Some(original), Some(reply)) = (entry.original, entry.reply) else { return };
        known.tuples = Some([original, reply]);
        let receiver = if dir == Direction::Original { reply.src } else { original.src };
        // What goes elsewhere is an answer of the router's own.
        let goes_on =
            |left: &&(usize, Vec<u8>)| Frame::addresses_of(&left.1).is_some_and(|(_, dst)| dst == receiver);
        if let Some(left) = theirs.sent.iter().find(goes_on) {
            known.last[dir as usize] = Some(left.clone());
        }
        known.announced = expected.iter().rev().find(|e| e.master == original).map(|e| e.tuple);
    }
}

fn come_in_by(frame: &mut Frame, port: usize) {
    frame.port = port;
    frame.bytes[..6].copy_from_slice(&MACS[port].0);
    frame.bytes[6..12].copy_from_slice(&NEIGHBOUR_MACS[port].0);
}

/// What a packet's ends are to be; a port that is `None` stays.
#[derive(Clone, Copy)]
struct Ends {
    src: Addr,
    dst: Addr,
    left: Option<u16>,
    right: Option<u16>,
}

impl Ends {
    const fn of(tuple: &Tuple) -> Self {
        Self { src: tuple.src, dst: tuple.dst, left: Some(tuple.left), right: Some(tuple.right) }
    }
}

/// Where things stand in an IP packet.
struct Layout {
    family: Family,
    proto: u8,
    src: Range<usize>,
    dst: Range<usize>,
    /// Where the upper layer begins, and whether it is all there or at least its beginning.
    l4: usize,
    is_piece: bool,
    is_later_piece: bool,
}

impl Layout {
    fn of(packet: &[u8]) -> Option<Self> {
        if packet.first()? >> 4 == 4 {
            let field = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?);
            return Some(Self {
                family: Family::Ipv4,
                proto: *packet.get(9)?,
                src: 12..16,
                dst: 16..20,
                l4: usize::from(packet[0] & 0x0f) * 4,
                is_piece: field & 0x3fff != 0,
                is_later_piece: field & 0x1fff != 0,
            })
            .filter(|layout| (20..=packet.len()).contains(&layout.l4));
        }
        let (mut next, mut at, mut is_piece, mut is_later_piece) = (*packet.get(6)?, 40, false, false);
        loop {
            let len = match next {
                0 | 43 | 60 => (usize::from(*packet.get(at + 1)?) + 1) * 8,
                51 => (usize::from(*packet.get(at + 1)?) + 2) * 4,
                44 => {
                    let field = u16::from_be_bytes(*packet.get(at + 2..)?.first_chunk()?);
                    (is_piece, is_later_piece) = (true, is_later_piece || field & 0xfff8 != 0);
                    8
                }
                _ => break,
            };
            next = *packet.get(at)?;
            at += len;
        }
        let (src, dst) = (8..24, 24..40);
        let family = Family::Ipv6;
        (at <= packet.len()).then_some(Self {
            family,
            proto: next,
            src,
            dst,
            l4: at,
            is_piece,
            is_later_piece,
        })
    }

    /// Where the upper layer's checksum stands, if it covers addresses and ports and is there.
    fn checksum(&self, packet: &[u8]) -> Option<usize> {
        let at = self.l4
            + match (self.family, self.proto) {
                (_, PROTO_TCP) => 16,
                (_, PROTO_UDP | PROTO_UDPLITE) => 6,
                (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6) => 2,
                _ => return None,
            };
        let field = packet.get(at..at + 2).filter(|_| !self.is_later_piece)?;
        (self.proto != PROTO_UDP || field != [0, 0]).then_some(at)
    }
}

/// Gives a packet other ends. Checksums that were wrong stay wrong.
fn retuple(packet: &mut [u8], ends: Ends) -> Option<()> {
    let layout = Layout::of(packet)?;
    let had_crc = has_crc(packet, &layout);
    let checksum = layout.checksum(packet);
    let covers_addresses = (layout.family, layout.proto) != (Family::Ipv4, PROTO_ICMP);
    for (place, addr) in [(layout.src.clone(), ends.src), (layout.dst.clone(), ends.dst)] {
        let sums = [(layout.family == Family::Ipv4).then_some(10), checksum.filter(|_| covers_addresses)];
        replace(packet, place, addr.bytes(layout.family), sums);
    }
    let kind = packet.get(layout.l4).copied();
    for (place, number) in numbers(&layout, kind, ends).into_iter().flatten() {
        if packet.len() >= place.end {
            replace(packet, place, &number.to_be_bytes(), [checksum, None]);
        }
    }
    if had_crc {
        fill_crc(&mut packet[layout.l4..]);
    }
    Some(())
}

/// Where ports or an identifier stand, and what they are to be.
fn numbers(layout: &Layout, kind: Option<u8>, ends: Ends) -> [Option<(Range<usize>, u16)>; 2] {
    let at = layout.l4;
    match (layout.family, layout.proto) {
        _ if layout.is_later_piece => [None, None],
        (_, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP) => {
            [ends.left.map(|port| (at..at + 2, port)), ends.right.map(|port| (at + 2..at + 4, port))]
        }
        (Family::Ipv4, PROTO_ICMP) if matches!(kind, Some(0 | 8 | 13..=18)) => {
            [ends.left.map(|id| (at + 4..at + 6, id)), None]
        }
        (Family::Ipv6, PROTO_ICMPV6) if matches!(kind, Some(128 | 129)) => {
            [ends.left.map(|id| (at + 4..at + 6, id)), None]
        }
        _ => [None, None],
    }
}

/// Whether it is a whole SCTP packet with its right checksum.
fn has_crc(packet: &[u8], layout: &Layout) -> bool {
    let l4 = &packet[layout.l4..];
    let is_whole = layout.proto == PROTO_SCTP && !layout.is_piece && l4.len() >= 12;
    is_whole && {
        let mut copy = l4.to_vec();
        fill_crc(&mut copy);
        copy == l4
    }
}

fn fill_crc(l4: &mut [u8]) {
    l4[8..12].fill(0);
    let crc = crc32c(l4).to_le_bytes();
    l4[8..12].copy_from_slice(&crc);
}

/// Replaces bytes, and has checksums follow.
fn replace(packet: &mut [u8], place: Range<usize>, new: &[u8], sums: [Option<usize>; 2]) {
    let old = packet[place.clone()].to_vec();
    packet[place].copy_from_slice(new);
    for at in sums.into_iter().flatten() {
        let field = u16::from_be_bytes([packet[at], packet[at + 1]]);
        packet[at..at + 2].copy_from_slice(&adjust_bytes(field, &old, new).to_be_bytes());
    }
}

/// Has an ICMP error quote `left`, as much of it as it has quoted so far, and go to who sent that.
fn requote(frame: &mut Frame, left: &[u8]) -> Option<()> {
    const ICMP_HEADER_LEN: usize = 8;
    let packet = frame.bytes.get_mut(ETHERNET_LEN..)?;
    let outer = Layout::of(packet)?;
    let inner = Layout::of(left)?;
    let quote_at = outer.l4 + ICMP_HEADER_LEN;
    let old = Layout::of(packet.get(quote_at..)?)?;
    let is_icmp = matches!(outer.proto, PROTO_ICMP | PROTO_ICMPV6);
    if !is_icmp || outer.is_piece || inner.family != outer.family {
        return None;
    }
    // Who speaks of what was sent to it has the address that it was sent to.
    let speaks_for_itself = packet[outer.src.clone()] == packet[quote_at..][old.dst];
    let was_right = outer_sum(packet, &outer) == 0;
    let len = (packet.len() - quote_at).min(left.len());
    packet[quote_at..quote_at + len].copy_from_slice(&left[..len]);
    let mut ends = vec![(outer.dst.clone(), left[inner.src].to_vec())];
    if speaks_for_itself {
        ends.push((outer.src.clone(), left[inner.dst].to_vec()));
    }
    for (place, addr) in ends {
        replace(packet, place, &addr, [(outer.family == Family::Ipv4).then_some(10), None]);
    }
    if was_right {
        let at = outer.l4 + 2;
        packet[at..at + 2].fill(0);
        let sum = outer_sum(packet, &outer);
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    Some(())
}

fn outer_sum(packet: &[u8], layout: &Layout) -> u16 {
    let l4 = &packet[layout.l4..];
    let sum = match layout.family {
        Family::Ipv4 => Sum::default(),
        Family::Ipv6 => {
            let addr = |place: &Range<usize>| {
                packet[place.clone()].first_chunk().map_or(Addr::UNSPECIFIED, |b| Addr::from_v6(*b))
            };
            Sum::pseudo_header(addr(&layout.src), addr(&layout.dst), layout.family, layout.proto, l4.len())
        }
    };
    sum.bytes(l4).checksum()
}

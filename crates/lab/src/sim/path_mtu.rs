//! How long a packet of a host may be, and how a host keeps to it: the stack knows of no bound but its buffers'.

#![forbid(unsafe_code)]

use super::fragments::{Pieces, is_too_long};
use smoltcp::wire::{IpAddress, Ipv4Packet, TcpPacket};
use stateway_core::packet::{ETHERNET_LEN, Offload, Packet, tuple};
use stateway_core::time::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The least that every link carries (RFC 791 §3.2).
const LEAST: usize = 68;
const FIN_AND_PSH: u8 = 0x09;

/// The link's MTU, that towards each destination that an ICMP error told of, and what waits for its other pieces.
#[derive(Debug)]
pub(super) struct Sizes {
    link_mtu_bytes: usize,
    learnt: BTreeMap<IpAddr, usize>,
    pieces: Pieces,
}

impl Sizes {
    pub(super) fn new(link_mtu_bytes: usize) -> Self {
        Self { link_mtu_bytes, learnt: BTreeMap::new(), pieces: Pieces::new() }
    }

    pub(super) fn learn(&mut self, dst: IpAddr, mtu_bytes: u32) {
        self.learnt.insert(dst, (mtu_bytes as usize).max(LEAST));
    }

    /// A frame that came as the stack is to see it: whole, or not yet.
    pub(super) fn join(&self, frame: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        self.pieces.join(frame, now)
    }

    /// The frame, or what a host sends in its place: shorter segments, or pieces.
    pub(super) fn fit(&mut self, mut frame: Vec<u8>) -> Vec<Vec<u8>> {
        offer_no_more_than(self.link_mtu_bytes, &mut frame);
        let is_short = self.learnt.is_empty() && !is_too_long(frame.len(), self.link_mtu_bytes);
        if is_short {
            return vec![frame];
        }
        let Ok(pkt) = Packet::parse(&mut frame, Offload::NONE) else { return vec![frame] };
        let learnt = self.learnt.get(&pkt.dst().to_ip(pkt.family())).copied().unwrap_or(usize::MAX);
        let mtu_bytes = learnt.min(self.link_mtu_bytes);
        if !is_too_long(pkt.frame_len(), mtu_bytes) || pkt.fragment().is_some() {
            return vec![frame];
        }
        if pkt.proto() == tuple::PROTO_TCP { cut(&pkt, mtu_bytes) } else { self.pieces.cut(&pkt, mtu_bytes) }
    }
}

/// Makes a SYN offer segments that the link takes: to the stack, the link has no bound.
fn offer_no_more_than(mtu_bytes: usize, frame: &mut [u8]) {
    const SYN: u8 = 0x02;
    const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    let Ok(pkt) = Packet::parse(frame, Offload::NONE) else { return };
    let (l4, headers) = (ETHERNET_LEN + pkt.l3_header_len(), pkt.l3_header_len() + 20);
    let (src, dst): (IpAddress, IpAddress) =
        (pkt.src().to_ip(pkt.family()).into(), pkt.dst().to_ip(pkt.family()).into());
    let is_syn = pkt.proto() == tuple::PROTO_TCP && pkt.l4().get(13).is_some_and(|flags| flags & SYN != 0);
    // The stack's first option of a SYN.
    if !is_syn || pkt.l4().get(20..22) != Some(&[MAXIMUM_SEGMENT_SIZE, 4]) {
        return;
    }
    let offered = u16::from_be_bytes([frame[l4 + 22], frame[l4 + 23]]);
    let most = offered.min(mtu_bytes.saturating_sub(headers) as u16);
    frame[l4 + 22..l4 + 24].copy_from_slice(&most.to_be_bytes());
    TcpPacket::new_unchecked(&mut frame[l4..]).fill_checksum(&src, &dst);
}

/// Cuts a segment into shorter ones, each complete.
fn cut(pkt: &Packet, mtu_bytes: usize) -> Vec<Vec<u8>> {
    let l4 = ETHERNET_LEN + pkt.l3_header_len();
    let data = l4 + usize::from(pkt.l4()[12] >> 4) * 4;
    let room = (ETHERNET_LEN + mtu_bytes).saturating_sub(data).max(1);
    let (head, payload) = pkt.frame().split_at(data);
    let (src, dst): (IpAddress, IpAddress) =
        (pkt.src().to_ip(pkt.family()).into(), pkt.dst().to_ip(pkt.family()).into());
    let seq = u32::from_be_bytes([head[l4 + 4], head[l4 + 5], head[l4 + 6], head[l4 + 7]]);
    let mut segments = Vec::new();
    for (number, piece) in payload.chunks(room).enumerate() {
        let mut frame = [head, piece].concat();
        let offset = number * room;
        frame[l4 + 4..l4 + 8].copy_from_slice(&seq.wrapping_add(offset as u32).to_be_bytes());
        if offset + piece.len() < payload.len() {
            frame[l4 + 13] &= !FIN_AND_PSH;
        }
        let length = (frame.len() - ETHERNET_LEN) as u16;
        if dst.version() == smoltcp::wire::IpVersion::Ipv4 {
            let mut ip = Ipv4Packet::new_unchecked(&mut frame[ETHERNET_LEN..]);
            ip.set_total_len(length);
            ip.fill_checksum();
        } else {
            /// Of an IPv6 header, which its own length does not count.
            const HEADER: u16 = 40;
            frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&(length - HEADER).to_be_bytes());
        }
        TcpPacket::new_unchecked(&mut frame[l4..]).fill_checksum(&src, &dst);
        segments.push(frame);
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::packets::packet;
    use stateway_core::packet::Segment;

    #[test]
    fn a_segment_that_is_too_long_becomes_several_that_carry_the_same() {
        for (src, dst, ethertype) in
            [("192.0.2.1", "192.0.2.2", [8, 0]), ("2001:db8::1", "2001:db8::2", [0x86, 0xdd])]
        {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let ip = packet("P. 100:1300(1200) ack 7", src, dst, (7, 40_000)).unwrap();
            let frame = [&[0; 12][..], &ethertype, &ip].concat();
            let mut known = Sizes::new(1500);
            assert_eq!(known.fit(frame.clone()), std::slice::from_ref(&frame), "nothing is known yet");
            known.learn(dst, 600);
            let mut next = 100;
            let pieces = known.fit(frame);
            for (number, mut piece) in pieces.clone().into_iter().enumerate() {
                assert!(piece.len() <= ETHERNET_LEN + 600);
                let pkt = Packet::parse(&mut piece, Offload::NONE).unwrap();
                assert!(pkt.l4_checksum_ok());
                let segment = Segment::parse(pkt.l4()).unwrap();
                assert_eq!(segment.seq.0, next);
                assert_eq!(segment.flags.to_string().contains('P'), number + 1 == pieces.len());
                next += segment.len;
            }
            assert_eq!(next, 1300);
        }
    }
    #[test]
    fn datagrams_larger_than_the_link_leave_in_pieces_that_join_again() {
        for (src, dst, ethertype) in
            [("192.0.2.1", "192.0.2.2", [8, 0]), ("2001:db8::1", "2001:db8::2", [0x86, 0xdd])]
        {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let mut sizes = Sizes::new(1500);
            for len in [8000, 3000, 1400] {
                let ip = packet(&format!("udp ({len})"), src, dst, (7, 40_000)).unwrap();
                let frame = [&[0; 12][..], &ethertype, &ip].concat();
                let pieces = sizes.fit(frame.clone());
                assert_eq!(pieces.len(), len / 1472 + 1, "{src} {len}");
                let mut joined: Vec<Vec<u8>> = Vec::new();
                for piece in pieces {
                    assert!(piece.len() <= ETHERNET_LEN + 1500);
                    joined.extend(sizes.join(piece, Instant::ZERO));
                }
                let mut whole = joined.pop().unwrap();
                assert!(joined.is_empty());
                let pkt = Packet::parse(&mut whole, Offload::NONE).unwrap();
                assert!(pkt.l4_checksum_ok());
                assert_eq!(pkt.l4().len(), len + 8);
            }
        }
    }
}

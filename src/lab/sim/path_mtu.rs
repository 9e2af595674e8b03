//! What a host learns of narrow paths, and how it keeps to it: the stack itself knows its own link only.

#![forbid(unsafe_code)]

use crate::packet::{ETHERNET_LEN, Offload, Packet, tuple};
use smoltcp::wire::{IpAddress, Ipv4Packet, TcpPacket};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The least that every link carries (RFC 791 §3.2).
const LEAST: usize = 68;
const FIN_AND_PSH: u8 = 0x09;

/// The MTU towards each destination that an ICMP error told of.
#[derive(Debug, Default)]
pub(super) struct PathMtu(BTreeMap<IpAddr, usize>);

impl PathMtu {
    pub(super) fn learn(&mut self, dst: IpAddr, mtu_bytes: u32) {
        self.0.insert(dst, (mtu_bytes as usize).max(LEAST));
    }

    /// The frame, or the shorter segments that a host sends in its place.
    pub(super) fn fit(&self, mut frame: Vec<u8>) -> Vec<Vec<u8>> {
        if self.0.is_empty() {
            return vec![frame];
        }
        let cut = Packet::parse(&mut frame, Offload::NONE).ok().and_then(|pkt| {
            let mtu_bytes = *self.0.get(&pkt.dst().to_ip(pkt.family()))?;
            let too_long = pkt.frame_len() > ETHERNET_LEN + mtu_bytes;
            (too_long && pkt.proto() == tuple::PROTO_TCP).then(|| cut(&pkt, mtu_bytes))
        });
        cut.unwrap_or_else(|| vec![frame])
    }
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
    use crate::lab::resolve::packets::packet;
    use crate::packet::Segment;

    #[test]
    fn a_segment_that_is_too_long_becomes_several_that_carry_the_same() {
        for (src, dst, ethertype) in
            [("192.0.2.1", "192.0.2.2", [8, 0]), ("2001:db8::1", "2001:db8::2", [0x86, 0xdd])]
        {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let ip = packet("P. 100:1300(1200) ack 7", src, dst, (7, 40_000)).unwrap();
            let frame = [&[0; 12][..], &ethertype, &ip].concat();
            let mut known = PathMtu::default();
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
}

//! Bytes of an IP packet from what a step says of it.

#![forbid(unsafe_code)]

use super::packet::Oddities;
use stateway_core::packet::checksum::Sum;
use stateway_core::packet::tuple::PROTO_UDP;
use stateway_core::packet::{Addr, ETHERNET_LEN, Family, Offload, Packet};

/// Behind which extension headers an IPv6 packet hides its upper layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    HopByHop,
    Destination,
    Routing,
    NoNextHeader,
}

const FRAGMENT_HEADER: u8 = 44;
const PROTO_SCTP: u8 = 132;

/// Puts headers in front of the upper layer, fills in its checksum, and does what is odd about it.
pub(super) fn ip_packet(
    family: Family,
    (src, dst): (Addr, Addr),
    proto: u8,
    l4: Vec<u8>,
    odd: &Oddities,
) -> Vec<u8> {
    let mut l4 = with_checksum(family, (src, dst), proto, l4, odd);
    if let Some(len) = odd.cut {
        l4.truncate(len);
    }
    match family {
        Family::Ipv4 => ipv4((src, dst), proto, &l4, odd),
        Family::Ipv6 => ipv6((src, dst), proto, &l4, odd),
    }
}

fn with_checksum(family: Family, addrs: (Addr, Addr), proto: u8, mut l4: Vec<u8>, odd: &Oddities) -> Vec<u8> {
    if proto == PROTO_SCTP && l4.len() >= 12 {
        // RFC 9260 §6.8: over the packet with the field zero, least significant byte first.
        l4[8..12].fill(0);
        let crc = crc32c::crc32c(&l4) ^ u32::from(odd.bad_checksum);
        l4[8..12].copy_from_slice(&crc.to_le_bytes());
        return l4;
    }
    if odd.no_checksum {
        return l4;
    }
    let mut frame = vec![0; 12];
    let plain = Oddities::default();
    match family {
        Family::Ipv4 => {
            frame.extend([0x08, 0]);
            frame.extend(ipv4(addrs, proto, &l4, &plain));
        }
        Family::Ipv6 => {
            frame.extend([0x86, 0xdd]);
            frame.extend(ipv6(addrs, proto, &l4, &plain));
        }
    }
    let Ok(mut pkt) = Packet::parse(&mut frame, Offload::NONE) else { return l4 };
    pkt.fill_l4_checksum();
    if odd.bad_checksum {
        let at = match proto {
            6 => 16,
            1 | 58 => 2,
            _ => 6,
        };
        // Never to zero, which UDP takes for "none".
        if let Some(byte) = pkt.l4_mut().get_mut(at) {
            *byte ^= 0x01;
        }
    }
    pkt.l4().to_vec()
}

fn ipv4((src, dst): (Addr, Addr), proto: u8, l4: &[u8], odd: &Oddities) -> Vec<u8> {
    let header_len = 20 + odd.ip_options.len();
    let (range, more) = odd.piece_of(l4.len());
    let total = odd.total.unwrap_or((header_len + range.len()) as u16);
    let mut flags = (range.start / 8) as u16;
    flags |= if more { 0x2000 } else { 0 } | if odd.dont_fragment { 0x4000 } else { 0 };
    let mut packet = vec![0x40 | (header_len / 4) as u8, odd.tos];
    packet.extend(total.to_be_bytes());
    packet.extend((odd.ident as u16).to_be_bytes());
    packet.extend(flags.to_be_bytes());
    packet.extend([odd.ttl, proto, 0, 0]);
    packet.extend(src.v4());
    packet.extend(dst.v4());
    packet.extend(&odd.ip_options);
    let checksum = Sum::ZERO.bytes(&packet).checksum() ^ u16::from(odd.bad_ip_checksum);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(&l4[range]);
    packet
}

fn ipv6((src, dst): (Addr, Addr), proto: u8, l4: &[u8], odd: &Oddities) -> Vec<u8> {
    let (range, more) = odd.piece_of(l4.len());
    // From the upper layer outwards: each header names the one behind it.
    let mut behind: Vec<u8> = l4[range.clone()].to_vec();
    let mut next = proto;
    if odd.piece.is_some() {
        let mut header = vec![next, 0];
        header.extend((range.start as u16 | u16::from(more)).to_be_bytes());
        header.extend(odd.ident.to_be_bytes());
        behind.splice(0..0, header);
        next = FRAGMENT_HEADER;
    }
    for extension in odd.extensions.iter().rev() {
        let (kind, rest) = match extension {
            // Six bytes of padding (PadN), or no segments left.
            Extension::HopByHop => (0, [1, 4, 0, 0, 0, 0]),
            Extension::Destination => (60, [1, 4, 0, 0, 0, 0]),
            Extension::Routing => (43, [0, 0, 0, 0, 0, 0]),
            Extension::NoNextHeader => {
                next = 59;
                continue;
            }
        };
        let mut header = vec![next, 0];
        header.extend(rest);
        behind.splice(0..0, header);
        next = kind;
    }
    let mut packet = vec![0x60 | odd.tos >> 4, odd.tos << 4, 0, 0];
    packet.extend(odd.total.unwrap_or(behind.len() as u16).to_be_bytes());
    packet.extend([next, odd.ttl]);
    packet.extend(src.v6());
    packet.extend(dst.v6());
    packet.extend(behind);
    packet
}

/// A datagram from a socket that is bound to no address: the router fills its own in.
pub(super) fn datagram(family: Family, dst: Addr, ports: [u16; 2], text: &[u8]) -> Vec<u8> {
    let mut l4 = ports.map(u16::to_be_bytes).concat();
    l4.extend(((8 + text.len()) as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(text);
    let odd = Oddities { dont_fragment: true, ..Oddities::default() };
    ip_packet(family, (Addr::UNSPECIFIED, dst), PROTO_UDP, l4, &odd)
}

/// The frame that carries an IP packet.
pub(super) fn frame(dst: [u8; 6], src: [u8; 6], packet: &[u8], padding: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + packet.len() + padding);
    frame.extend(dst);
    frame.extend(src);
    let ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
    frame.extend(if ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(packet);
    frame.resize(frame.len() + padding, 0);
    frame
}

//! IP packets from scratch, right or wrong as asked for.

#![forbid(unsafe_code)]

use stateway_core::packet::checksum::Sum;
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_UDP};
use stateway_core::packet::{Addr, Family};

/// The fields of an IP header that a generator may want to vary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) family: Family,
    pub(crate) src: Addr,
    pub(crate) dst: Addr,
    pub(crate) proto: u8,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) ident: u16,
    /// IPv4's three flags and the offset.
    pub(crate) fragment: u16,
    /// IPv4 options, or whole IPv6 extension headers of which the last one names `proto`.
    pub(crate) extra: Vec<u8>,
    /// What the fixed IPv6 header says comes first, where `extra` is not empty.
    pub(crate) first: u8,
}

const DONT_FRAGMENT: u16 = 0x4000;

impl Ip {
    pub(crate) const fn new(family: Family, src: Addr, dst: Addr, proto: u8) -> Self {
        Self {
            family,
            src,
            dst,
            proto,
            ttl: 64,
            tos: 0,
            ident: 1,
            fragment: DONT_FRAGMENT,
            extra: Vec::new(),
            first: 0,
        }
    }

    /// The packet with `l4` behind the header.
    pub(crate) fn build(&self, l4: &[u8]) -> Vec<u8> {
        match self.family {
            Family::Ipv4 => self.build_ipv4(l4),
            Family::Ipv6 => self.build_ipv6(l4),
        }
    }

    fn build_ipv4(&self, l4: &[u8]) -> Vec<u8> {
        let header_len = 20 + self.extra.len().next_multiple_of(4);
        let mut packet = vec![0; header_len];
        packet[0] = 0x40 | (header_len / 4) as u8;
        packet[1] = self.tos;
        packet[2..4].copy_from_slice(&((header_len + l4.len()) as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&self.ident.to_be_bytes());
        packet[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        packet[8] = self.ttl;
        packet[9] = self.proto;
        packet[12..16].copy_from_slice(self.src.bytes(Family::Ipv4));
        packet[16..20].copy_from_slice(self.dst.bytes(Family::Ipv4));
        packet[20..20 + self.extra.len()].copy_from_slice(&self.extra);
        let checksum = Sum::default().bytes(&packet).checksum();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend_from_slice(l4);
        packet
    }

    fn build_ipv6(&self, l4: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60 | self.tos >> 4;
        packet[1] = self.tos << 4;
        packet[4..6].copy_from_slice(&((self.extra.len() + l4.len()) as u16).to_be_bytes());
        packet[6] = if self.extra.is_empty() { self.proto } else { self.first };
        packet[7] = self.ttl;
        packet[8..24].copy_from_slice(self.src.bytes(Family::Ipv6));
        packet[24..40].copy_from_slice(self.dst.bytes(Family::Ipv6));
        packet.extend_from_slice(&self.extra);
        packet.extend_from_slice(l4);
        packet
    }

    /// Puts the Internet checksum of `l4` at `at`, with pseudo-header where the protocol has one.
    pub(crate) fn fill_checksum(&self, l4: &mut [u8], at: usize) {
        let Some(field) = l4.get_mut(at..at + 2) else { return };
        field.fill(0);
        let sum = if self.proto == PROTO_ICMP {
            Sum::default()
        } else {
            Sum::pseudo_header(self.src, self.dst, self.family, self.proto, l4.len())
        };
        let mut checksum = sum.bytes(l4).checksum();
        if self.proto == PROTO_UDP && checksum == 0 {
            checksum = 0xffff;
        }
        l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// The protocol number of ICMP in this family.
    pub(crate) const fn icmp_proto(family: Family) -> u8 {
        match family {
            Family::Ipv4 => PROTO_ICMP,
            Family::Ipv6 => PROTO_ICMPV6,
        }
    }
}

/// A TCP segment; lengths and offsets may lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) ports: (u16, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) win: u16,
    /// Padded to words with zeros.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Data offset in words instead of the true one.
    pub(crate) offset: Option<u8>,
}

impl Tcp {
    pub(crate) fn build(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len().next_multiple_of(4);
        let mut l4 = vec![0; header_len];
        l4[..2].copy_from_slice(&self.ports.0.to_be_bytes());
        l4[2..4].copy_from_slice(&self.ports.1.to_be_bytes());
        l4[4..8].copy_from_slice(&self.seq.to_be_bytes());
        l4[8..12].copy_from_slice(&self.ack.to_be_bytes());
        l4[12] = self.offset.unwrap_or((header_len / 4) as u8) << 4;
        l4[13] = self.flags;
        l4[14..16].copy_from_slice(&self.win.to_be_bytes());
        l4[20..20 + self.options.len()].copy_from_slice(&self.options);
        l4.extend_from_slice(&self.payload);
        l4
    }
}

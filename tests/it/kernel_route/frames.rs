//! IP packets, written by hand.

use stateway_core::packet::checksum::Sum;
use stateway_core::packet::{Addr, Family};

/// An IP packet under construction. It is done once it has a payload.
#[derive(Clone)]
pub(super) struct Ip {
    family: Family,
    src: Addr,
    dst: Addr,
    ttl: u8,
    tos: u8,
    ident: u16,
    /// Flags and fragment offset, as they stand there.
    flags: u16,
    options: Vec<u8>,
    proto: u8,
    pub(super) l4: Vec<u8>,
}

pub(super) fn ipv4(src: &str, dst: &str) -> Ip {
    ip(Family::Ipv4, src, dst)
}

pub(super) fn ipv6(src: &str, dst: &str) -> Ip {
    ip(Family::Ipv6, src, dst)
}

fn ip(family: Family, src: &str, dst: &str) -> Ip {
    Ip {
        family,
        src: super::addr(src).0,
        dst: super::addr(dst).0,
        ttl: 64,
        tos: 0,
        ident: 1,
        flags: 0x4000,
        options: Vec::new(),
        proto: 59,
        l4: Vec::new(),
    }
}

impl Ip {
    pub(super) fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub(super) fn tos(self, tos: u8) -> Self {
        Self { tos, ..self }
    }

    pub(super) fn ident(self, ident: u16) -> Self {
        Self { ident, ..self }
    }

    pub(super) fn flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    pub(super) fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    pub(super) fn payload(self, proto: u8, l4: &[u8]) -> Self {
        Self { proto, l4: l4.to_vec(), ..self }
    }

    pub(super) fn udp(self, len: usize) -> Self {
        let mut l4 = vec![0x13, 0x88, 0, 53];
        l4.extend((8 + len as u16).to_be_bytes());
        l4.extend([0, 0]);
        l4.resize(8 + len, 0x71);
        self.checksummed(17, l4, 6)
    }

    pub(super) fn tcp(self, flags: u8) -> Self {
        self.segment(80, flags, 0)
    }

    pub(super) fn tcp_to(self, port: u16) -> Self {
        self.segment(port, 0x02, 0)
    }

    pub(super) fn tcp_data(self, len: usize) -> Self {
        self.segment(8080, 0x10, len)
    }

    fn segment(self, port: u16, flags: u8, len: usize) -> Self {
        let mut l4 = vec![0x9c, 0x40];
        l4.extend(port.to_be_bytes());
        l4.extend([0, 0, 0x03, 0xe8, 0, 0, 0, 200, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        l4.resize(20 + len, 0x72);
        self.checksummed(6, l4, 16)
    }

    /// ICMP or ICMPv6 by the family, with an identifier and a sequence number.
    pub(super) fn icmp(self, kind: u8, code: u8, data: &[u8]) -> Self {
        let proto = if self.family == Family::Ipv4 { 1 } else { 58 };
        let l4 = [&[kind, code, 0, 0, 0, 7, 0, 1], data].concat();
        self.checksummed(proto, l4, 2)
    }

    pub(super) fn icmpv6_raw(self, kind: u8, body: &[u8]) -> Self {
        let l4 = [&[kind, 0, 0, 0], body].concat();
        self.checksummed(58, l4, 2)
    }

    fn checksummed(self, proto: u8, mut l4: Vec<u8>, at: usize) -> Self {
        let sum = if proto == 1 {
            Sum::ZERO
        } else {
            Sum::pseudo_header(self.src, self.dst, self.family, proto, l4.len())
        };
        let checksum = sum.bytes(&l4).checksum().to_be_bytes();
        l4[at..at + 2].copy_from_slice(&checksum);
        Self { proto, l4, ..self }
    }
}

impl From<Ip> for Vec<u8> {
    fn from(ip: Ip) -> Self {
        let mut bytes = Self::new();
        match ip.family {
            Family::Ipv4 => {
                let header_len = 20 + ip.options.len();
                bytes.extend([0x40 | (header_len / 4) as u8, ip.tos]);
                bytes.extend(((header_len + ip.l4.len()) as u16).to_be_bytes());
                bytes.extend(ip.ident.to_be_bytes());
                bytes.extend(ip.flags.to_be_bytes());
                bytes.extend([ip.ttl, ip.proto, 0, 0]);
                bytes.extend(ip.src.v4());
                bytes.extend(ip.dst.v4());
                bytes.extend(&ip.options);
                let checksum = Sum::ZERO.bytes(&bytes).checksum().to_be_bytes();
                bytes[10..12].copy_from_slice(&checksum);
            }
            Family::Ipv6 => {
                bytes.extend([0x60 | ip.tos >> 4, ip.tos << 4, 0, 0]);
                bytes.extend((ip.l4.len() as u16).to_be_bytes());
                bytes.extend([ip.proto, ip.ttl]);
                bytes.extend(ip.src.v6());
                bytes.extend(ip.dst.v6());
            }
        }
        bytes.extend(ip.l4);
        bytes
    }
}

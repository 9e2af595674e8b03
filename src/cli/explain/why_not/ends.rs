//! What a packet is made of, as far as `--why-not` may change it.

use crate::cli::explain::{STATION, UNKNOWN, framed};
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
use stateway_core::packet::{Addr, Family, Offload, Packet, TcpFlags};
use stateway_lab::resolve::packets;
use stateway_model::Field;
use std::net::IpAddr;

/// The ends of a packet, and what else may be changed of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) family: Family,
    pub(super) proto: u8,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// Of ICMP zero.
    pub(super) ports: (u16, u16),
    /// Of ICMP.
    kind: (u8, u8),
    pub(super) flags: u8,
    payload: usize,
}

impl Ends {
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let mut frame = framed(packet, STATION, UNKNOWN);
        let pkt = Packet::parse(&mut frame, Offload::NONE).ok()?;
        let (family, proto, l4) = (pkt.family(), pkt.proto(), pkt.l4());
        let word = |at: usize| Some(u16::from_be_bytes([*l4.get(at)?, *l4.get(at + 1)?]));
        let is_icmp = proto == if family == Family::Ipv4 { PROTO_ICMP } else { PROTO_ICMPV6 };
        let (ports, kind, flags, head) = match proto {
            PROTO_TCP => {
                let head = usize::from(l4.get(12)? >> 4) * 4;
                ((word(0)?, word(2)?), (0, 0), *l4.get(13)?, head)
            }
            PROTO_UDP => ((word(0)?, word(2)?), (0, 0), 0, 8),
            _ if is_icmp => ((0, 0), (*l4.first()?, *l4.get(1)?), 0, 8),
            _ => return None,
        };
        Some(Self {
            family,
            proto,
            src: pkt.src().to_ip(family),
            dst: pkt.dst().to_ip(family),
            ports,
            kind,
            flags,
            payload: l4.len().saturating_sub(head),
        })
    }

    /// A packet with these ends.
    pub(super) fn packet(&self) -> Result<Vec<u8>, String> {
        let Self { proto, src, dst, ports, kind, flags, payload, .. } = *self;
        let line = match proto {
            PROTO_TCP => {
                format!("{} 0:{payload}({payload}) ack 0 win 65535", TcpFlags::from_bits_retain(flags))
            }
            PROTO_UDP => format!("udp ({payload})"),
            _ => match (self.family, kind) {
                (Family::Ipv4, (8, 0)) | (Family::Ipv6, (128, 0)) => {
                    "icmp echo_request id 1 seq 1".to_owned()
                }
                (Family::Ipv4, (0, 0)) | (Family::Ipv6, (129, 0)) => "icmp echo_reply id 1 seq 1".to_owned(),
                _ => return Err("no such packet is made here".to_owned()),
            },
        };
        packets::packet(&line, src, dst, ports)
    }

    pub(super) fn as_conditions(&self) -> String {
        let Self { family, proto, src, dst, ports, kind, .. } = *self;
        let len = family.bits();
        let of_proto = match proto {
            PROTO_TCP => format!("-p tcp -m tcp --dport {}", ports.1),
            PROTO_UDP => format!("-p udp -m udp --dport {}", ports.1),
            _ if family == Family::Ipv4 => format!("-p icmp -m icmp --icmp-type {}/{}", kind.0, kind.1),
            _ => format!("-p ipv6-icmp -m icmp6 --icmpv6-type {}/{}", kind.0, kind.1),
        };
        format!(" -s {src}/{len} -d {dst}/{len} {of_proto}")
    }

    pub(super) fn value(&self, field: Field) -> u128 {
        let bits = |addr: IpAddr| Addr::from(addr).bits() >> (128 - u32::from(self.family.bits()));
        let is_icmp = !matches!(self.proto, PROTO_TCP | PROTO_UDP);
        match field {
            Field::Src => bits(self.src),
            Field::Dst => bits(self.dst),
            Field::Sport => self.ports.0.into(),
            Field::Dport if is_icmp => u128::from(self.kind.0) << 8 | u128::from(self.kind.1),
            Field::Dport => self.ports.1.into(),
            Field::Proto => self.proto.into(),
            Field::Flags if self.proto == PROTO_TCP => (self.flags & 0x3f).into(),
            _ => 0,
        }
    }

    pub(super) fn set(&mut self, field: Field, value: u128) {
        let addr = |family: Family| Addr::from_bits(value << (128 - u32::from(family.bits()))).to_ip(family);
        match field {
            Field::Src => self.src = addr(self.family),
            Field::Dst => self.dst = addr(self.family),
            Field::Sport => self.ports.0 = value as u16,
            Field::Dport if matches!(self.proto, PROTO_TCP | PROTO_UDP) => self.ports.1 = value as u16,
            Field::Dport => self.kind = ((value >> 8) as u8, value as u8),
            Field::Proto => self.proto = value as u8,
            Field::Flags => self.flags = value as u8,
            _ => {}
        }
    }
}

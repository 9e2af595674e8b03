//! A packet in one line, for people: `tcp S 192.0.2.77:40000 → 192.0.2.104:22`.

#![forbid(unsafe_code)]

use super::{Addr, ETHERNET_LEN, Family, Kind, Offload, Packet, Segment, TcpFlags, tuple};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

/// What tells a packet from others between the same ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gist {
    /// Of a TCP segment whose header is there.
    pub tcp_flags: Option<TcpFlags>,
    /// Type and code of an ICMP or ICMPv6 message whose header is there.
    pub icmp: Option<(u8, u8)>,
    /// Identification and offset of a fragment.
    pub fragment: Option<(u32, usize)>,
}

impl Gist {
    pub fn of(pkt: &Packet) -> Self {
        let fragment = pkt.fragment().map(|fragment| (fragment.id, fragment.offset));
        let mut gist = Self { fragment, ..Self::default() };
        match pkt.proto() {
            _ if pkt.is_later_fragment() => {}
            tuple::PROTO_TCP => gist.tcp_flags = Segment::parse(pkt.l4()).map(|segment| segment.flags),
            tuple::PROTO_ICMP | tuple::PROTO_ICMPV6 => {
                if let [kind, code, ..] = pkt.l4() {
                    gist.icmp = Some((*kind, *code));
                }
            }
            _ => {}
        }
        gist
    }
}

/// What [`of_packet`] says of a packet, kept in a few bytes and written out later, by whoever has the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headline {
    /// Which kind of packet.
    pub family: Family,
    /// Where it comes from.
    pub src: Addr,
    /// Where it goes.
    pub dst: Addr,
    /// The upper-layer protocol by its number.
    pub proto: u8,
    /// Source and destination port, where the header has them.
    pub ports: Option<(u16, u16)>,
    /// What tells it from others between the same ends.
    pub gist: Gist,
    /// It is a fragment, and others come behind it.
    has_more: bool,
    /// It is a fragment without the upper-layer header.
    is_later: bool,
}

impl Headline {
    /// Reads it from a packet.
    pub fn of(pkt: &Packet) -> Self {
        Self {
            family: pkt.family(),
            src: pkt.src(),
            dst: pkt.dst(),
            proto: pkt.proto(),
            ports: pkt.ports(),
            gist: Gist::of(pkt),
            has_more: pkt.fragment().is_some_and(|fragment| fragment.more),
            is_later: pkt.is_later_fragment(),
        }
    }

    fn kind(&self) -> String {
        let Gist { tcp_flags, icmp, .. } = self.gist;
        if self.is_later {
            return format!("proto {}", self.proto);
        }
        match self.proto {
            tuple::PROTO_TCP => tcp_flags.map_or("tcp".to_owned(), |flags| format!("tcp {flags}")),
            tuple::PROTO_UDP => "udp".to_owned(),
            tuple::PROTO_UDPLITE => "udplite".to_owned(),
            tuple::PROTO_SCTP => "sctp".to_owned(),
            tuple::PROTO_GRE => "gre".to_owned(),
            tuple::PROTO_ICMP => of_icmp("icmp", self.family, icmp),
            tuple::PROTO_ICMPV6 => of_icmp("icmpv6", self.family, icmp),
            other => format!("proto {other}"),
        }
    }
}

impl fmt::Display for Headline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = (self.src.to_ip(self.family), self.dst.to_ip(self.family));
        let (from, to) = (end(src, self.ports.map(|p| p.0)), end(dst, self.ports.map(|p| p.1)));
        write!(f, "{} {from} → {to}", self.kind())?;
        if let Some((id, offset)) = self.gist.fragment {
            let more = if self.has_more { "+" } else { "" };
            write!(f, " fragment {id}@{offset}{more}")?;
        }
        Ok(())
    }
}

/// Tells of a frame as it came from a port.
pub fn of_frame(frame: &mut [u8]) -> String {
    match super::kind(frame) {
        Some(Kind::Arp) => of_arp(frame),
        Some(Kind::Other(ethertype)) => format!("ethertype {ethertype:#06x}"),
        Some(Kind::Ipv4 | Kind::Ipv6) | None => match Packet::parse(frame, Offload::NONE) {
            Ok(pkt) => of_packet(&pkt),
            Err(reason) => format!("unreadable ({reason})"),
        },
    }
}

/// Tells of an IP packet.
pub fn of_packet(pkt: &Packet) -> String {
    Headline::of(pkt).to_string()
}

/// Reads an IP packet by itself. What is missing of its length counts as zeros.
pub fn with_ip<T>(ip: &[u8], read: impl FnOnce(&Packet) -> T) -> Option<T> {
    let length = |at: usize| Some(usize::from(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?])));
    let (ethertype, whole) = match ip.first()? >> 4 {
        6 => ([0x86, 0xdd], 40 + length(4)?),
        _ => ([8, 0], length(2)?),
    };
    let mut frame = vec![0; ETHERNET_LEN - ethertype.len()];
    frame.extend(ethertype);
    frame.extend_from_slice(ip);
    frame.resize((ETHERNET_LEN + whole).max(frame.len()), 0);
    Packet::parse(&mut frame, Offload::NONE).ok().map(|pkt| read(&pkt))
}

fn end(addr: IpAddr, port: Option<u16>) -> String {
    match (addr, port) {
        (_, None) => addr.to_string(),
        (IpAddr::V4(addr), Some(port)) => format!("{addr}:{port}"),
        (IpAddr::V6(addr), Some(port)) => format!("[{addr}]:{port}"),
    }
}

/// By iptables' names where there is one, else by its numbers.
fn of_icmp(name: &str, family: Family, message: Option<(u8, u8)>) -> String {
    let Some((kind, code)) = message else { return name.to_owned() };
    match icmp_name(family, kind, code) {
        Some(word) => format!("{name} {word}"),
        None => format!("{name} {kind}/{code}"),
    }
}

/// iptables' name of an ICMP or ICMPv6 message.
#[expect(clippy::match_same_arms, reason = "a row for each message, by family and number")]
pub const fn icmp_name(family: Family, kind: u8, code: u8) -> Option<&'static str> {
    Some(match (family, kind, code) {
        (Family::Ipv4, 0, _) => "echo-reply",
        (Family::Ipv4, 8, _) => "echo-request",
        (Family::Ipv4, 3, 0) => "network-unreachable",
        (Family::Ipv4, 3, 1) => "host-unreachable",
        (Family::Ipv4, 3, 2) => "protocol-unreachable",
        (Family::Ipv4, 3, 3) => "port-unreachable",
        (Family::Ipv4, 3, 4) => "fragmentation-needed",
        (Family::Ipv4, 3, 9) => "network-prohibited",
        (Family::Ipv4, 3, 10) => "host-prohibited",
        (Family::Ipv4, 3, 13) => "communication-prohibited",
        (Family::Ipv4, 5, _) => "redirect",
        (Family::Ipv4, 11, 0) => "ttl-zero-during-transit",
        (Family::Ipv4, 11, 1) => "ttl-zero-during-reassembly",
        (Family::Ipv4, 12, _) => "parameter-problem",
        (Family::Ipv4, 13, _) => "timestamp-request",
        (Family::Ipv4, 14, _) => "timestamp-reply",
        (Family::Ipv6, 1, 0) => "no-route",
        (Family::Ipv6, 1, 1) => "communication-prohibited",
        (Family::Ipv6, 1, 2) => "beyond-scope",
        (Family::Ipv6, 1, 3) => "address-unreachable",
        (Family::Ipv6, 1, 4) => "port-unreachable",
        (Family::Ipv6, 1, 5) => "failed-policy",
        (Family::Ipv6, 1, 6) => "reject-route",
        (Family::Ipv6, 2, _) => "packet-too-big",
        (Family::Ipv6, 3, 0) => "ttl-zero-during-transit",
        (Family::Ipv6, 3, 1) => "ttl-zero-during-reassembly",
        (Family::Ipv6, 4, _) => "parameter-problem",
        (Family::Ipv6, 128, _) => "echo-request",
        (Family::Ipv6, 129, _) => "echo-reply",
        _ => return None,
    })
}

fn of_arp(frame: &[u8]) -> String {
    let arp = &frame[ETHERNET_LEN..];
    let addr = |at: usize| {
        arp.get(at..at + 4)
            .and_then(|b| <[u8; 4]>::try_from(b).ok())
            .map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from)
    };
    match arp.get(6..8) {
        Some([0, 1]) => format!("arp who-has {} tell {}", addr(24), addr(14)),
        Some([0, 2]) => format!("arp reply {} is-at", addr(14)),
        _ => "arp".to_owned(),
    }
}

//! The messages of address resolution: ARP (RFC 826) and neighbour discovery (RFC 4861 §4), byte for byte as Linux
//! writes them.

#![forbid(unsafe_code)]

use crate::packet::checksum::Sum;
use crate::packet::tuple::PROTO_ICMPV6;
use crate::packet::{Addr, ETHERNET_LEN, Family, Mac, Packet};

/// A message with another hop limit came from beyond the link (RFC 4861 §7.1).
pub const ON_LINK_HOPS: u8 = 255;
pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Hardware is Ethernet, protocol IPv4, addresses have six and four bytes.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// The same from a station that calls its Ethernet IEEE 802: it is understood, and answered as Ethernet.
const ARP_IEEE802_IPV4: [u8; 6] = [0, 6, 8, 0, 6, 4];
const ARP_LEN: usize = 28;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const REDIRECTED_HEADER: u8 = 4;
/// Type, code, checksum, flags, target.
const ND_LEN: usize = 24;
const ALL_NODES: Addr = Addr::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// An ARP message for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    pub is_request: bool,
    pub sender_mac: Mac,
    pub sender: Addr,
    pub target: Addr,
}

impl Arp {
    /// Reads a frame; `None` if it is no question and no answer about IPv4 on Ethernet.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let arp: &[u8; ARP_LEN] = frame.get(ETHERNET_LEN..)?.first_chunk()?;
        let operation = u16::from_be_bytes([arp[6], arp[7]]);
        let is_ours = arp[..6] == ARP_ETHERNET_IPV4 || arp[..6] == ARP_IEEE802_IPV4;
        if !is_ours || !matches!(operation, REQUEST | REPLY) {
            return None;
        }
        let addr = |at: usize| Addr::from_v4([arp[at], arp[at + 1], arp[at + 2], arp[at + 3]]);
        let sender_mac = Mac([arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]]);
        Some(Self { is_request: operation == REQUEST, sender_mac, sender: addr(14), target: addr(24) })
    }

    /// The answer to a question for one of our addresses.
    pub fn answer(&self, mac: Mac) -> Vec<u8> {
        write_arp(REPLY, self.sender_mac, (mac, self.target), (self.sender_mac, self.sender))
    }

    /// "Who has `target`?" Everybody is asked, or the one who had it.
    pub fn ask(mac: Mac, sender: Addr, target: Addr, to: Option<Mac>) -> Vec<u8> {
        write_arp(REQUEST, to.unwrap_or(Mac::BROADCAST), (mac, sender), (Mac::default(), target))
    }
}

fn write_arp(operation: u16, to: Mac, sender: (Mac, Addr), target: (Mac, Addr)) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + ARP_LEN);
    frame.extend(to.0);
    frame.extend(sender.0.0);
    frame.extend([0x08, 0x06]);
    frame.extend(ARP_ETHERNET_IPV4);
    frame.extend(operation.to_be_bytes());
    frame.extend(sender.0.0);
    frame.extend(sender.1.v4());
    frame.extend(target.0.0);
    frame.extend(target.1.v4());
    frame
}

/// A neighbour solicitation or advertisement that passed the checks of RFC 4861 §7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discovery {
    pub target: Addr,
    /// The link address that it brings along: of its source if it asks, of its target if it answers.
    pub mac: Option<Mac>,
    pub solicited: bool,
    pub overrides: bool,
}

impl Discovery {
    /// Reads a neighbour solicitation or advertisement, whose ICMPv6 checksum is known to be right.
    pub fn parse(pkt: &Packet) -> Option<Self> {
        const SOLICITED: u8 = 0x40;
        const OVERRIDE: u8 = 0x20;
        let message = pkt.l4();
        let header: &[u8; ND_LEN] = message.first_chunk()?;
        let target: [u8; 16] = header[8..].try_into().ok()?;
        if pkt.ttl() != ON_LINK_HOPS || header[1] != 0 || target[0] == 0xff {
            return None;
        }
        let wanted = if header[0] == SOLICITATION { SOURCE_LINK_ADDRESS } else { TARGET_LINK_ADDRESS };
        let mac = link_address(&message[ND_LEN..], wanted)?;
        // Whoever has no address yet has no link address to tell (RFC 4861 §7.1.1).
        if header[0] == SOLICITATION && pkt.src().is_unspecified() && mac.is_some() {
            return None;
        }
        let (solicited, overrides) = (header[4] & SOLICITED != 0, header[4] & OVERRIDE != 0);
        Some(Self { target: Addr::from_v6(target), mac, solicited, overrides })
    }
}

/// The link-layer option of that type, if there is one; `None` if an option has no length.
#[expect(clippy::option_option, reason = "broken options and no such option are two things")]
fn link_address(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while let [kind, len, ..] = *options {
        let len = usize::from(len) * 8;
        if len == 0 || len > options.len() {
            return None;
        }
        if kind == wanted && len == 8 {
            found = options[2..8].try_into().ok().map(Mac);
        }
        options = &options[len..];
    }
    Some(found)
}

/// "Who has `target`?" Asked of the group that it must be in, or of itself.
pub fn solicitation(mac: Mac, src: Addr, target: Addr, to: Option<Mac>) -> Vec<u8> {
    let (dst, dst_mac) = match to {
        Some(neighbour) => (target, neighbour),
        None => (solicited_node(target), group_mac(solicited_node(target))),
    };
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.v6());
    message.extend([SOURCE_LINK_ADDRESS, 1]);
    message.extend(mac.0);
    write_icmpv6((mac, src), (dst_mac, dst), message)
}

/// What an advertisement says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub target: Addr,
    pub solicited: bool,
    pub overrides: bool,
    pub with_mac: bool,
}

/// "I have `target`." Without somebody to say it to, everybody is told.
pub fn advertisement(mac: Mac, claim: Claim, to: Option<Addr>) -> Vec<u8> {
    const IS_ROUTER: u8 = 0x80;
    let flags = IS_ROUTER | u8::from(claim.solicited) << 6 | u8::from(claim.overrides) << 5;
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(claim.target.v6());
    if claim.with_mac {
        message.extend([TARGET_LINK_ADDRESS, 1]);
        message.extend(mac.0);
    }
    let dst = to.unwrap_or(ALL_NODES);
    write_icmpv6((mac, claim.target), (Mac::default(), dst), message)
}

/// "For `pkt`'s destination there is a better first hop" (RFC 4861 §4.5). It goes to the packet's source.
pub fn redirect(pkt: &Packet, mac: Mac, src: Addr, target: Addr, target_mac: Option<Mac>) -> Vec<u8> {
    const MAX_BYTES: usize = 1280;
    let mut message = vec![REDIRECT, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.v6());
    message.extend(pkt.dst().v6());
    if let Some(target_mac) = target_mac {
        message.extend([TARGET_LINK_ADDRESS, 1]);
        message.extend(target_mac.0);
    }
    let room = MAX_BYTES - 40 - message.len();
    let len = room.min(pkt.l3().len() + 8) & !7;
    message.extend([REDIRECTED_HEADER, (len / 8) as u8, 0, 0, 0, 0, 0, 0]);
    message.extend(&pkt.l3()[..len - 8]);
    write_icmpv6((mac, src), (Mac::default(), pkt.src()), message)
}

fn write_icmpv6(src: (Mac, Addr), dst: (Mac, Addr), mut message: Vec<u8>) -> Vec<u8> {
    let checksum = Sum::pseudo_header(src.1, dst.1, Family::Ipv6, PROTO_ICMPV6, message.len())
        .bytes(&message)
        .checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = Vec::with_capacity(ETHERNET_LEN + 40 + message.len());
    frame.extend(dst.0.0);
    frame.extend(src.0.0);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([PROTO_ICMPV6, ON_LINK_HOPS]);
    frame.extend(src.1.v6());
    frame.extend(dst.1.v6());
    frame.extend(message);
    frame
}

/// The group in which a neighbour listens for questions about `addr` (RFC 4291 §2.7.1).
pub fn solicited_node(addr: Addr) -> Addr {
    let [.., a, b, c] = addr.v6();
    Addr::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The link address of an IPv6 group (RFC 2464 §7).
pub fn group_mac(group: Addr) -> Mac {
    let [.., a, b, c, d] = group.v6();
    Mac([0x33, 0x33, a, b, c, d])
}

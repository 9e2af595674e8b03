//! What the router writes in answer to a packet: ICMP and ICMPv6 errors, TCP resets, echo replies.
//!
//! Every byte is as Linux writes it: what is quoted, how much of it, TTL, type of service. Who answers, and whether a
//! rate limit forbids it, is for others to say. The frames have no link addresses yet.

#![forbid(unsafe_code)]

use crate::base::RejectWith;
use crate::packet::checksum::Sum;
use crate::packet::segment::MIN_HEADER_LEN as TCP_HEADER_LEN;
use crate::packet::tuple::{
    PROTO_AH, PROTO_ESP, PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use crate::packet::{Addr, ETHERNET_LEN, Family, Packet, Segment, TcpFlags};

/// `ip_default_ttl` and the hop limit of what the router writes.
pub const OWN_TTL: u8 = 64;
/// An ICMP error with its quote is at most so long (RFC 1812 §4.3.2.3).
const MAX_ERROR_V4_BYTES: usize = 576;
/// An ICMPv6 error with its quote is at most so long (RFC 4443 §2.4 (c)).
const MAX_ERROR_V6_BYTES: usize = 1280;
/// Type of service of an ICMP error: "internetwork control" (RFC 1812 §4.3.2.5).
const PRECEDENCE_INTERNETWORK_CONTROL: u8 = 0xc0;
/// The part of the type of service that an error takes over from the packet it is about (RFC 1349).
const RFC_1349_TOS: u8 = 0x1e;
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const ICMP_HEADER_LEN: usize = 8;
const DONT_FRAGMENT: u16 = 0x4000;

/// Type, code and what stands in the second word of the ICMP header: an MTU, a pointer, a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    pub kind: u8,
    pub code: u8,
    pub info: u32,
    /// So much of the packet is quoted at most: the rest was taken off it before.
    quoted_bytes: usize,
}

impl IcmpError {
    pub const fn new(kind: u8, code: u8) -> Self {
        Self::with_info(kind, code, 0)
    }

    pub const fn with_info(kind: u8, code: u8, info: u32) -> Self {
        Self { kind, code, info, quoted_bytes: usize::MAX }
    }

    #[must_use]
    pub const fn quoting(self, bytes: usize) -> Self {
        Self { quoted_bytes: bytes, ..self }
    }
}

/// Who answers, and as which packet of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    pub src: Addr,
    /// The identification of an IPv4 packet that may be fragmented.
    pub ident: u16,
}

/// Whether an ICMP error may be sent about this packet at all.
///
/// Never about errors, groups, or a source that is not one host (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)); in IPv4 never
/// about later fragments.
pub fn deserves_error(pkt: &Packet, error: IcmpError) -> bool {
    let is_later = pkt.is_later_fragment();
    if (is_later && pkt.family() == Family::Ipv4) || is_icmp_error(pkt) {
        return false;
    }
    // A group may be told of two things: that the packet is too big, and an option that it must not ignore.
    let tells_group = pkt.family() == Family::Ipv6 && matches!((error.kind, error.code), (2, _) | (4, 2));
    let to_group = pkt.dst_mac().is_group() || is_group(pkt.dst(), pkt.family());
    is_host(pkt.src(), pkt.family()) && (!to_group || tells_group)
}

/// Whether REJECT may answer with an ICMP error: its packet must also be sound.
pub fn deserves_reject(pkt: &Packet, error: IcmpError) -> bool {
    let has_header = match pkt.family() {
        Family::Ipv4 => pkt.fragment().is_none_or(|f| !f.more),
        Family::Ipv6 => !pkt.is_later_fragment() && !pkt.l4().is_empty(),
    };
    deserves_error(pkt, error) && has_header && is_sound(pkt)
}

/// Whether a TCP reset may answer this packet: a sound segment to one host, and no reset itself.
pub fn deserves_reset(pkt: &Packet) -> bool {
    pkt.proto() == PROTO_TCP
        && !pkt.is_later_fragment()
        && !is_group(pkt.dst(), pkt.family())
        && is_host(pkt.src(), pkt.family())
        && is_sound(pkt)
        && pkt.l4().len() >= TCP_HEADER_LEN
        && !flags(pkt).contains(TcpFlags::RST)
}

/// Whether a rule's REJECT answers this packet, or keeps silent as Linux does.
pub fn deserves(with: RejectWith, pkt: &Packet) -> bool {
    match with {
        RejectWith::TcpReset => deserves_reset(pkt),
        RejectWith::Icmp(kind, code) => deserves_reject(pkt, IcmpError::new(kind, code)),
    }
}

/// What a rule's REJECT answers to a packet that [`deserves`] it.
pub fn refuse(with: RejectWith, pkt: &Packet, author: Author) -> Vec<u8> {
    match with {
        RejectWith::TcpReset => reject_reset(pkt),
        RejectWith::Icmp(kind, code) => write_error(pkt, IcmpError::new(kind, code), author, &[]),
    }
}

/// An ICMP error about the packet. `options` are IPv4 options for the error's own header, padded to whole words.
pub fn write_error(pkt: &Packet, error: IcmpError, author: Author, options: &[u8]) -> Vec<u8> {
    let whole = match pkt.family() {
        Family::Ipv4 => MAX_ERROR_V4_BYTES - IPV4_HEADER_LEN - options.len() - ICMP_HEADER_LEN,
        Family::Ipv6 => MAX_ERROR_V6_BYTES - IPV6_HEADER_LEN - ICMP_HEADER_LEN,
    };
    let quote = &pkt.l3()[..pkt.l3().len().min(whole).min(error.quoted_bytes)];
    let mut message = Vec::with_capacity(ICMP_HEADER_LEN + quote.len());
    message.extend([error.kind, error.code, 0, 0]);
    message.extend(error.info.to_be_bytes());
    message.extend(quote);
    let tos = match pkt.family() {
        Family::Ipv4 => pkt.tos() & RFC_1349_TOS | PRECEDENCE_INTERNETWORK_CONTROL,
        Family::Ipv6 => 0,
    };
    write_icmp(pkt, author, tos, options, message)
}

/// The reply to an echo request: its code, identifier, sequence number and data come back, and so does its type of
/// service.
pub fn echo_reply(pkt: &Packet, author: Author, options: &[u8]) -> Vec<u8> {
    let reply = match pkt.family() {
        Family::Ipv4 => 0,
        Family::Ipv6 => 129,
    };
    let mut message = pkt.l4().to_vec();
    message[0] = reply;
    message[2..4].fill(0);
    write_icmp(pkt, author, pkt.tos(), options, message)
}

/// The reply to a timestamp request (RFC 792), `stamp` being both the time of arrival and of departure.
pub fn timestamp_reply(pkt: &Packet, author: Author, stamp: u32, options: &[u8]) -> Vec<u8> {
    const LEN: usize = 20;
    let mut message = pkt.l4().to_vec();
    message.resize(LEN, 0);
    message[0] = 14;
    message[2..4].fill(0);
    let stamp = stamp.to_be_bytes();
    message[12..16].copy_from_slice(&stamp);
    message[16..20].copy_from_slice(&stamp);
    write_icmp(pkt, author, pkt.tos(), options, message)
}

fn write_icmp(pkt: &Packet, author: Author, tos: u8, options: &[u8], mut message: Vec<u8>) -> Vec<u8> {
    let (family, dst) = (pkt.family(), pkt.src());
    let sum = match family {
        Family::Ipv4 => Sum::ZERO,
        Family::Ipv6 => Sum::pseudo_header(author.src, dst, family, PROTO_ICMPV6, message.len()),
    };
    let checksum = sum.bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header = Header { family, src: author.src, dst, tos };
    match family {
        Family::Ipv4 => header.write_v4(PROTO_ICMP, author.ident, 0, options, &message),
        Family::Ipv6 => header.write_v6(PROTO_ICMPV6, &message),
    }
}

/// REJECT's reset. In IPv4 Linux finishes its checksum as an offload would, which writes no zero (seen on the kernel).
///
/// # Panics
/// If the packet does not [`deserves_reset`].
pub fn reject_reset(pkt: &Packet) -> Vec<u8> {
    let mut frame = reset(pkt, 0, &[]);
    let checksum = ETHERNET_LEN + 20 + 16;
    if pkt.family() == Family::Ipv4 && frame[checksum..checksum + 2] == [0, 0] {
        frame[checksum..checksum + 2].fill(0xff);
    }
    frame
}

/// A reset that fits the segment (RFC 9293 §3.10.7.1), in the name of the host that the segment was for.
///
/// # Panics
/// If the packet does not [`deserves_reset`].
pub fn reset(pkt: &Packet, tos: u8, options: &[u8]) -> Vec<u8> {
    let l4 = pkt.l4();
    let word = |at: usize| u32::from_be_bytes([l4[at], l4[at + 1], l4[at + 2], l4[at + 3]]);
    let flags = flags(pkt);
    let (seq, ack, control) = if flags.contains(TcpFlags::ACK) {
        (word(8), 0, TcpFlags::RST)
    } else {
        (0, end_of(pkt), TcpFlags::RST | TcpFlags::ACK)
    };
    let mut segment = Vec::with_capacity(TCP_HEADER_LEN);
    segment.extend(&l4[2..4]);
    segment.extend(&l4[..2]);
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, control.bits(), 0, 0, 0, 0, 0, 0]);
    let (family, src, dst) = (pkt.family(), pkt.dst(), pkt.src());
    let checksum = Sum::pseudo_header(src, dst, family, PROTO_TCP, TCP_HEADER_LEN).bytes(&segment).checksum();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    let header = Header { family, src, dst, tos };
    match family {
        Family::Ipv4 => header.write_v4(PROTO_TCP, 0, DONT_FRAGMENT, options, &segment),
        Family::Ipv6 => header.write_v6(PROTO_TCP, &segment),
    }
}

fn flags(pkt: &Packet) -> TcpFlags {
    TcpFlags::from_bits_retain(pkt.l4()[13])
}

/// The sequence number behind the segment; Linux takes a data offset outside the packet as it stands.
fn end_of(pkt: &Packet) -> u32 {
    if let Some(segment) = Segment::parse(pkt.l4()) {
        return segment.end().0;
    }
    let l4 = pkt.l4();
    let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
    let header_len = u32::from(l4[12] >> 4) * 4;
    let control =
        u32::from(flags(pkt).contains(TcpFlags::SYN)) + u32::from(flags(pkt).contains(TcpFlags::FIN));
    seq.wrapping_add(l4.len() as u32).wrapping_sub(header_len).wrapping_add(control)
}

struct Header {
    family: Family,
    src: Addr,
    dst: Addr,
    tos: u8,
}

impl Header {
    fn write_v4(&self, proto: u8, ident: u16, flags: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let header_len = IPV4_HEADER_LEN + options.len();
        let mut frame = vec![0; ETHERNET_LEN];
        frame.reserve(header_len + payload.len());
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame.extend([0x40 | (header_len / 4) as u8, self.tos]);
        frame.extend(((header_len + payload.len()) as u16).to_be_bytes());
        frame.extend(ident.to_be_bytes());
        frame.extend(flags.to_be_bytes());
        frame.extend([OWN_TTL, proto, 0, 0]);
        frame.extend(self.src.bytes(self.family));
        frame.extend(self.dst.bytes(self.family));
        frame.extend(options);
        let checksum = Sum::ZERO.bytes(&frame[ETHERNET_LEN..]).checksum();
        frame[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// The flow label stays zero: it is a hint, and an error or a reset is no flow.
    fn write_v6(&self, proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET_LEN];
        frame.reserve(IPV6_HEADER_LEN + payload.len());
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([proto, OWN_TTL]);
        frame.extend(self.src.bytes(self.family));
        frame.extend(self.dst.bytes(self.family));
        frame.extend(payload);
        frame
    }
}

/// An error, or a message of which nobody can say that it is none (RFC 1122 §3.2.2.1): Linux answers neither. Of pieces
/// of an ICMPv6 message that were not joined it answers those that do not show the message's type.
fn is_icmp_error(pkt: &Packet) -> bool {
    let kind = pkt.l4().first().copied();
    match (pkt.family(), pkt.proto()) {
        (Family::Ipv4, PROTO_ICMP) => kind.is_none_or(|kind| !matches!(kind, 0 | 8 | 13..=18)),
        (Family::Ipv6, PROTO_ICMPV6) if pkt.is_later_fragment() => false,
        (Family::Ipv6, PROTO_ICMPV6) => match kind {
            Some(kind) => kind < 128,
            None => !pkt.is_told_to_be_a_piece(),
        },
        _ => false,
    }
}

/// Whether the packet's checksum is right, as REJECT looks at it before it answers.
///
/// A protocol that Linux does not know is summed as if its whole payload were checksummed, so that most such packets
/// go unanswered.
fn is_sound(pkt: &Packet) -> bool {
    if pkt.offload().skips_checksum() {
        return true;
    }
    match (pkt.family(), pkt.proto()) {
        (_, PROTO_TCP | PROTO_UDP) | (Family::Ipv6, PROTO_ICMPV6) => pkt.l4_checksum_ok(),
        // Checked by other means, or over a part only.
        (_, PROTO_UDPLITE | PROTO_SCTP | PROTO_GRE | PROTO_ESP | PROTO_AH) => true,
        // The header is summed with it, so that zeros alone count as right.
        (Family::Ipv4, _) => matches!(Sum::ZERO.bytes(pkt.l4()).folded(), 0 | 0xffff),
        (Family::Ipv6, proto) => {
            let pseudo = Sum::pseudo_header(pkt.src(), pkt.dst(), Family::Ipv6, proto, pkt.l4().len());
            pseudo.bytes(pkt.l4()).checksum() == 0
        }
    }
}

fn is_group(addr: Addr, family: Family) -> bool {
    match family {
        Family::Ipv4 => addr.v4()[0] >> 4 == 0xe || addr.v4() == [255; 4],
        Family::Ipv6 => addr.v6()[0] == 0xff,
    }
}

/// An address that can only mean one host.
fn is_host(addr: Addr, family: Family) -> bool {
    let loopback = match family {
        Family::Ipv4 => addr.v4()[0] == 127,
        Family::Ipv6 => addr.bits() == 1,
    };
    !addr.is_unspecified() && !is_group(addr, family) && !loopback
}

#[cfg(test)]
mod tests;

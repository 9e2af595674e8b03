//! Which flow a packet belongs to, and which one the packet that an ICMP error quotes.

#![forbid(unsafe_code)]

use super::InvalidReason;
use super::protocol::unsound;
use crate::packet::tuple::{
    self, PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use crate::packet::{
    Addr, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Family, NO_NEXT_HEADER, Packet, Tuple,
    skip_extensions,
};

/// What the call identifier of PPTP stands behind (RFC 2637 §4.1).
const GRE_VERSION_MASK: u8 = 7;
const GRE_VERSION_PPTP: u8 = 1;
const GRE_PROTOCOL_PPP: [u8; 2] = [0x88, 0x0b];

/// The tuple of a packet.
///
/// # Errors
/// Why the packet belongs to no flow at all.
pub(super) fn tuple(pkt: &Packet, zone: u16) -> Result<Tuple, InvalidReason> {
    tuple_of(pkt, pkt.family(), pkt.proto(), zone)
}

/// The same, where family and protocol are at hand.
#[inline(always)]
pub(super) fn tuple_of(pkt: &Packet, family: Family, proto: u8, zone: u16) -> Result<Tuple, InvalidReason> {
    if family == Family::Ipv6 && proto == NO_NEXT_HEADER {
        return unsound(InvalidReason::NoNextHeader);
    }
    // Only a piece that could not be joined comes here.
    if pkt.is_later_fragment() {
        return unsound(InvalidReason::Truncated);
    }
    Endpoints { family, src: pkt.src(), dst: pkt.dst(), proto, zone }.tuple(pkt.l4())
}

/// The tuple that a packet has in a zone, tracked or not; `None` if its headers are cut short.
pub fn flow_of(pkt: &Packet, zone: u16) -> Option<Tuple> {
    tuple(pkt, zone).ok()
}

/// The tuple of a packet that an ICMP error quotes, cut short wherever it may be.
///
/// Lengths and checksums of the quoted header are not looked at, as the kernel does not.
pub(super) fn quoted(family: Family, bytes: &[u8], zone: u16) -> Option<Tuple> {
    match family {
        Family::Ipv4 => quoted_ipv4(bytes, zone),
        Family::Ipv6 => quoted_ipv6(bytes, zone),
    }
}

/// The tuple that an Ethernet frame seems to have in the usual zone, with nothing verified.
#[inline]
pub(super) fn glance(frame: &[u8]) -> Option<Tuple> {
    let (&[.., high, low], packet) = frame.split_first_chunk::<ETHERNET_LEN>()?;
    match u16::from_be_bytes([high, low]) {
        ETHERTYPE_IPV4 => quoted_ipv4(packet, 0),
        ETHERTYPE_IPV6 => quoted_ipv6(packet, 0),
        _ => None,
    }
}

fn quoted_ipv4(bytes: &[u8], zone: u16) -> Option<Tuple> {
    let header: &[u8; 20] = bytes.first_chunk()?;
    let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    if is_later_fragment {
        return None;
    }
    let l4 = bytes.get(usize::from(header[0] & 0x0f) * 4..)?;
    let addr = |at: usize| Addr::from_v4([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let ends = Endpoints { family: Family::Ipv4, src: addr(12), dst: addr(16), proto: header[9], zone };
    ends.tuple(l4).ok()
}

fn quoted_ipv6(bytes: &[u8], zone: u16) -> Option<Tuple> {
    let header: &[u8; 40] = bytes.first_chunk()?;
    let (l4, proto) = skip_extensions(bytes, 40, header[6])?;
    if proto == NO_NEXT_HEADER {
        return None;
    }
    let addr = |at: usize| Addr::from_v6(core::array::from_fn(|i| header[at + i]));
    Endpoints { family: Family::Ipv6, src: addr(8), dst: addr(24), proto, zone }.tuple(bytes.get(l4..)?).ok()
}

/// Everything of a tuple that stands in the IP header.
struct Endpoints {
    family: Family,
    src: Addr,
    dst: Addr,
    proto: u8,
    zone: u16,
}

impl Endpoints {
    #[inline(always)]
    fn tuple(&self, l4: &[u8]) -> Result<Tuple, InvalidReason> {
        let Self { family, src, dst, proto, zone } = *self;
        let (left, right) = match (family, proto) {
            (_, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP) => {
                let Some(&[a, b, c, d]) = l4.first_chunk() else { return unsound(InvalidReason::Truncated) };
                (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            }
            (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6) => {
                let &[kind, code, _, _, a, b, _, _] = l4.first_chunk().ok_or(InvalidReason::IcmpTruncated)?;
                (u16::from_be_bytes([a, b]), u16::from_be_bytes([kind, code]))
            }
            (_, PROTO_GRE) => (0, gre_call(l4)?),
            _ => (0, 0),
        };
        Ok(Tuple { src, dst, left, right, zone, proto, family })
    }
}

/// The call that an enhanced GRE header names; plain GRE tells no flows apart.
fn gre_call(l4: &[u8]) -> Result<u16, InvalidReason> {
    let Some(&[_, version, a, b, _, _, call_high, call_low]) = l4.first_chunk() else { return Ok(0) };
    match version & GRE_VERSION_MASK {
        GRE_VERSION_PPTP if [a, b] == GRE_PROTOCOL_PPP => Ok(u16::from_be_bytes([call_high, call_low])),
        GRE_VERSION_PPTP => Err(InvalidReason::GreProtocol),
        _ => Ok(0),
    }
}

/// Whether somebody may answer such a packet: ICMP errors and announcements have no reply tuple.
pub(super) fn is_answerable(tuple: &Tuple) -> bool {
    match (tuple.family, tuple.proto) {
        (Family::Ipv4, PROTO_ICMP) => tuple::icmp_answer(tuple.icmp_type()).is_some(),
        (Family::Ipv6, PROTO_ICMPV6) => tuple::icmpv6_answer(tuple.icmp_type()).is_some(),
        _ => true,
    }
}

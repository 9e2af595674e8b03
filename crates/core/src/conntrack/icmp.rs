//! ICMP and ICMPv6: queries are flows of their own, errors belong to the flow whose packet they quote.

#![forbid(unsafe_code)]

use super::{InvalidReason, Sysctls, flow};
use crate::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6};
use crate::packet::{Family, Packet, Tuple};

const HEADER_LEN: usize = 8;
/// The highest type that the kernel knows of ICMP: address mask reply.
const LAST_ICMP_TYPE: u8 = 18;
/// ICMPv6: below are errors, from here on queries and announcements (RFC 4443 §2.1).
const FIRST_ICMPV6_INFO: u8 = 128;
const REDIRECT: u8 = 137;
/// Target and destination address stand between a redirect's header and its options (RFC 4861 §4.5).
const REDIRECT_OPTIONS: usize = 40;
const OPTION_REDIRECTED_HEADER: u8 = 4;

/// What kind of message a packet is, before any flow is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No error: it goes on like a packet of any protocol.
    Query,
    /// Neighbour discovery and multicast listeners: never tracked.
    Untracked,
    /// An error about a packet. The flow is the one that an answer to the quoted packet would belong to.
    Error(Tuple),
}

#[inline]
pub(super) const fn is_icmp(family: Family, proto: u8) -> bool {
    matches!((family, proto), (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6))
}

/// Tells the kinds apart.
///
/// # Errors
/// Why the message is INVALID whatever is known.
pub(super) fn kind(pkt: &Packet, zone: u16, sysctls: &Sysctls) -> Result<Kind, InvalidReason> {
    let Some(&[kind, code, ..]) = pkt.l4().first_chunk::<HEADER_LEN>() else {
        return Err(InvalidReason::IcmpTruncated);
    };
    if sysctls.checksum && !pkt.offload().skips_checksum() && !pkt.l4_checksum_ok() {
        return Err(InvalidReason::Checksum);
    }
    match (pkt.family(), kind) {
        (Family::Ipv4, _) if kind > LAST_ICMP_TYPE => Err(InvalidReason::IcmpType),
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (Family::Ipv4, 3 | 4 | 5 | 11 | 12) => about(pkt, HEADER_LEN, zone),
        (Family::Ipv6, 130..=136 | 143 | 151 | 152) => Ok(Kind::Untracked),
        // One with another code is none (RFC 4861 §4.5).
        (Family::Ipv6, REDIRECT) if code == 0 => redirect(pkt, zone),
        (Family::Ipv4, _) | (Family::Ipv6, FIRST_ICMPV6_INFO..) => Ok(Kind::Query),
        (Family::Ipv6, _) => about(pkt, HEADER_LEN, zone),
    }
}

/// The flow of the packet that is quoted from `at` on.
fn about(pkt: &Packet, at: usize, zone: u16) -> Result<Kind, InvalidReason> {
    let quote = pkt.l4().get(at..).unwrap_or_default();
    let quoted = flow::quoted(pkt.family(), quote, zone).ok_or(InvalidReason::IcmpQuote)?;
    // An error about an error: nobody answers those.
    if !flow::is_answerable(&quoted) {
        return Err(InvalidReason::IcmpQuote);
    }
    Ok(Kind::Error(quoted.reply()))
}

/// A redirect must come from the link itself (RFC 4861 §8.1); it may quote the packet that caused it.
fn redirect(pkt: &Packet, zone: u16) -> Result<Kind, InvalidReason> {
    let [a, b, ..] = pkt.src().v6();
    if pkt.ttl() != 255 || a != 0xfe || b & 0xc0 != 0x80 {
        return Err(InvalidReason::IcmpRedirect);
    }
    match pkt.l4().get(REDIRECT_OPTIONS..) {
        None | Some(&[] | &[_] | &[_, 0, ..]) => Err(InvalidReason::IcmpRedirect),
        Some(&[OPTION_REDIRECTED_HEADER, ..]) => about(pkt, REDIRECT_OPTIONS + HEADER_LEN, zone),
        Some(_) => Ok(Kind::Query),
    }
}

/// Whether a flow may begin with such a message.
pub(super) const fn is_request(tuple: &Tuple) -> bool {
    match tuple.family {
        Family::Ipv4 => matches!(tuple.icmp_type(), 8 | 13 | 15 | 17),
        Family::Ipv6 => matches!(tuple.icmp_type(), 128 | 139),
    }
}

//! IPv6 options for every hop (RFC 8200 §4.3), which a router looks through before anything else sees the packet.

#![forbid(unsafe_code)]

use crate::icmp_reply::IcmpError;
use crate::packet::{Family, Packet};
use core::ops::Range;

const PAD1: u8 = 0;
const PADN: u8 = 1;
const ROUTER_ALERT: u8 = 5;
/// Measurements on the way (RFC 9486 §3), of which this router takes none.
const IOAM: u8 = 0x31;
/// A label (RFC 5570 §6.2.2), to be dropped where its domain is not known; this router knows none.
const CALIPSO: u8 = 7;
const JUMBO: u8 = 0xc2;
/// Padding brings what follows to a multiple of eight bytes, so more than seven of it have no use: Linux refuses them
/// as a covert channel (RFC 4942 §2.1.9.5), and padding that is not zero as well.
const MAX_PADDING: usize = 7;
/// `net.ipv6.max_hbh_opts_number`: more of them than this, padding apart, cost a router too much.
const MAX_OPTIONS: usize = 8;
const IPV6_LEN: usize = 40;

/// Why a router goes no further with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Nobody is told.
    Silent,
    /// The sender is told (RFC 4443 §3.4).
    Told(IcmpError),
}

/// Whether the packet has options for every hop: they follow the fixed header.
#[inline]
fn has_options(pkt: &Packet) -> bool {
    pkt.family() == Family::Ipv6 && pkt.l3()[6] == 0
}

/// Looks through the options, if the packet has some.
pub(super) fn check(pkt: &Packet) -> Result<(), Flaw> {
    if !has_options(pkt) {
        return Ok(());
    }
    let len = pkt.l3().get(IPV6_LEN + 1).map(|&units| (usize::from(units) + 1) * 8).ok_or(Flaw::Silent)?;
    look_through(pkt, IPV6_LEN..IPV6_LEN + len, meet)
}

/// Whether the options, if the packet has some, end where their header does: Linux's bridge asks for no more, and does not
/// read them. A jumbo payload is refused, for it is longer than any packet here.
#[inline]
pub(crate) fn fill_their_header(pkt: &Packet) -> bool {
    !has_options(pkt) || end_with_their_header(pkt)
}

#[cold]
fn end_with_their_header(pkt: &Packet) -> bool {
    let l3 = pkt.l3();
    let end = l3.get(IPV6_LEN + 1).map_or(usize::MAX, |&units| IPV6_LEN + (usize::from(units) + 1) * 8);
    let Some(header) = l3.get(..end) else { return false };
    let mut at = IPV6_LEN + 2;
    while at < end {
        at += match header[at..] {
            [PAD1, ..] => 1,
            [JUMBO, ..] | [_] | [] => return false,
            [_, len, ..] => 2 + usize::from(len),
        };
    }
    at == end
}

/// Looks through the options of the header at `place` in the packet; `meet` is shown each that says something, and where
/// it stands.
pub(super) fn look_through(
    pkt: &Packet,
    place: Range<usize>,
    meet: fn(u8, &[u8], usize, &Packet) -> Result<(), Flaw>,
) -> Result<(), Flaw> {
    let header = pkt.l3().get(..place.end).ok_or(Flaw::Silent)?;
    let (mut at, mut padding, mut options) = (place.start + 2, 0, 0);
    while let Some(&kind) = header.get(at) {
        let len = match kind {
            PAD1 => 1,
            _ => 2 + usize::from(*header.get(at + 1).ok_or(Flaw::Silent)?),
        };
        let body = header.get(at..at + len).ok_or(Flaw::Silent)?;
        if matches!(kind, PAD1 | PADN) {
            padding += len;
            if padding > MAX_PADDING || body[1..].iter().skip(1).any(|&byte| byte != 0) {
                return Err(Flaw::Silent);
            }
        } else {
            (padding, options) = (0, options + 1);
            if options > MAX_OPTIONS {
                return Err(Flaw::Silent);
            }
            meet(kind, body, at, pkt)?;
        }
        at += len;
    }
    Ok(())
}

/// A jumbo payload (RFC 2675 §3): no packet here is so long, so that its length is too small, or stands there although
/// the header has one, or promises more than came.
fn refuse_jumbo(body: &[u8], at: u32, pkt: &Packet) -> Flaw {
    match *body {
        [_, 4, a, b, c, d] if at % 4 == 2 => {
            let is_too_small = u16::try_from(u32::from_be_bytes([a, b, c, d])).is_ok();
            match (is_too_small, pkt.has_no_length()) {
                (true, _) => Flaw::Told(IcmpError::with_info(4, 0, at + 2)),
                (false, false) => Flaw::Told(IcmpError::with_info(4, 0, at)),
                (false, true) => Flaw::Silent,
            }
        }
        _ => Flaw::Silent,
    }
}

/// One option that says something: `body` stands at `at` in the packet.
fn meet(kind: u8, body: &[u8], at: usize, pkt: &Packet) -> Result<(), Flaw> {
    match kind {
        ROUTER_ALERT if body.len() == 4 => Ok(()),
        ROUTER_ALERT | CALIPSO => Err(Flaw::Silent),
        JUMBO => Err(refuse_jumbo(body, at as u32, pkt)),
        IOAM if !at.is_multiple_of(4) => Err(Flaw::Silent),
        _ => refuse_unknown(kind, body, at, pkt),
    }
}

/// An option that nobody here knows: its two highest bits say what becomes of the packet (RFC 8200 §4.2).
pub(super) fn refuse_unknown(kind: u8, _: &[u8], at: usize, pkt: &Packet) -> Result<(), Flaw> {
    let is_group = pkt.dst().v6()[0] == 0xff;
    match kind >> 6 {
        0 => Ok(()),
        1 => Err(Flaw::Silent),
        3 if is_group => Err(Flaw::Silent),
        _ => Err(Flaw::Told(IcmpError::with_info(4, 2, at as u32))),
    }
}

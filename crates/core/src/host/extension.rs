//! IPv6 extension headers of a packet for the router itself (RFC 8200 §4): a receiver looks at each of them in turn, and
//! may refuse it there. What Linux refuses, and where it points to, is followed byte by byte.

#![forbid(unsafe_code)]

use super::hop_by_hop::{self, Flaw};
use crate::icmp_reply::IcmpError;
use crate::packet::fragment::lacks_headers;
use crate::packet::{Addr, Packet};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// Where the fixed header names what follows it.
const NAMED_IN_FIXED_HEADER: usize = 6;
const IPV6_LEN: usize = 40;
const FRAGMENT_LEN: usize = 8;
/// Parameter problem: a first fragment without all headers (RFC 7112 §5).
const INCOMPLETE_HEADERS: IcmpError = IcmpError::new(4, 3);
/// Parameter problem: the field at byte 4 of the header.
const PAYLOAD_LENGTH: IcmpError = IcmpError::with_info(4, 0, 4);

/// Where the headers end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Upper {
    /// The upper-layer protocol.
    pub(super) proto: u8,
    /// Where it begins, from the start of the IPv6 header.
    at: usize,
    /// Where it was named.
    named_at: usize,
}

impl Upper {
    /// Whether it stands where tracking found it, so that it can be read there.
    pub(super) fn is_found(&self, pkt: &Packet) -> bool {
        self.at == pkt.l3_header_len()
    }

    /// Nobody here knows this protocol (RFC 4443 §3.4).
    pub(super) const fn unknown(&self) -> IcmpError {
        IcmpError::with_info(4, 1, self.named_at as u32)
    }
}

/// Looks at each header in turn. `joined_at` is where the fragment header stood that a joined packet had: Linux goes on
/// from there, whatever headers stood in front of it, with what the fixed header or options for every hop name next.
pub(super) fn walk(pkt: &Packet, joined_at: Option<usize>) -> Result<Upper, Flaw> {
    let l3 = pkt.l3();
    let (mut named_at, mut at) = (NAMED_IN_FIXED_HEADER, IPV6_LEN);
    if l3[named_at] == HOP_BY_HOP && joined_at != Some(IPV6_LEN) {
        // The router has looked at them where the packet came in; not at what only joining brought to the front.
        (named_at, at) = (at, at + options_len(l3, at)?);
    }
    at = joined_at.unwrap_or(at);
    let mut was_fragment = joined_at.is_some();
    loop {
        let upper = Upper { proto: l3[named_at], at, named_at };
        let len = match upper.proto {
            // Options for every hop stand in front or nowhere; nobody here has keys.
            HOP_BY_HOP | AUTHENTICATION => return Err(Flaw::Told(upper.unknown())),
            ROUTING => check_route(l3, at, pkt.dst())?,
            DESTINATION => check_options(pkt, at)?,
            FRAGMENT => {
                check_fragment(pkt, at, was_fragment)?;
                was_fragment = true;
                FRAGMENT_LEN
            }
            _ => return Ok(upper),
        };
        (named_at, at) = (at, at + len);
    }
}

fn options_len(l3: &[u8], at: usize) -> Result<usize, Flaw> {
    let len = l3.get(at + 1).map(|&units| (usize::from(units) + 1) * 8).ok_or(Flaw::Silent)?;
    if at + len <= l3.len() { Ok(len) } else { Err(Flaw::Silent) }
}

fn check_options(pkt: &Packet, at: usize) -> Result<usize, Flaw> {
    let len = options_len(pkt.l3(), at)?;
    hop_by_hop::look_through(pkt, at..at + len, hop_by_hop::refuse_unknown)?;
    Ok(len)
}

/// A route that ends here is no matter. No other is followed (RFC 5095; RFC 8200 §4.4), and of those that have to be
/// switched on nobody is told.
fn check_route(l3: &[u8], at: usize, dst: Addr) -> Result<usize, Flaw> {
    const RPL: u8 = 3;
    const SEGMENTS: u8 = 4;
    const TYPE: usize = 2;
    let len = options_len(l3, at)?;
    let is_group = dst.v6()[0] == 0xff;
    match (l3[at + TYPE], l3[at + 3]) {
        (RPL | SEGMENTS, _) => Err(Flaw::Silent),
        _ if is_group => Err(Flaw::Silent),
        (_, 0) => Ok(len),
        (_, _) => Err(Flaw::Told(IcmpError::with_info(4, 0, (at + TYPE) as u32))),
    }
}

/// What is a piece still could not be joined: its receiver says why (RFC 8200 §4.5). There is one fragment header at most.
fn check_fragment(pkt: &Packet, at: usize, was_fragment: bool) -> Result<(), Flaw> {
    let here = Flaw::Told(IcmpError::with_info(4, 0, at as u32));
    let header: Option<&[u8; FRAGMENT_LEN]> = pkt.l3().get(at..).and_then(|rest| rest.first_chunk());
    let [_, _, high, low, ..] = *header.filter(|_| !was_fragment && !pkt.has_no_length()).ok_or(here)?;
    match u16::from_be_bytes([high, low]) & !0b110 {
        0 => Ok(()),
        1 if lacks_headers(pkt) => Err(Flaw::Told(INCOMPLETE_HEADERS)),
        _ => Err(Flaw::Told(PAYLOAD_LENGTH)),
    }
}

//! Rewrites the packet that an ICMP error quotes, cut short wherever it may be.

#![forbid(unsafe_code)]

use super::Side;
use super::mangle::{can_rewrite, fill_crc, has_id};
use crate::packet::checksum::adjust_bytes;
use crate::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
use crate::packet::{Addr, Family, skip_extensions};

const IPV4_CHECKSUM: usize = 10;
const TCP_HEADER_LEN: usize = 20;
const SCTP_HEADER_LEN: usize = 12;

/// Gives the quoted packet another end. `false`: too little of it is quoted.
pub(super) fn rewrite(quote: &mut [u8], family: Family, side: Side, (addr, port): (Addr, u16)) -> bool {
    let Some((l4_at, proto)) = upper_layer(quote, family) else { return false };
    let addr_at = match (family, side) {
        (Family::Ipv4, Side::Source) => 12,
        (Family::Ipv4, Side::Destination) => 16,
        (Family::Ipv6, Side::Source) => 8,
        (Family::Ipv6, Side::Destination) => 24,
    };
    let (header, l4) = quote.split_at_mut(l4_at);
    if !can_rewrite(l4, family, proto, side) {
        return false;
    }
    let new = addr.bytes(family);
    let field = &mut header[addr_at..addr_at + new.len()];
    let old = field.to_vec();
    field.copy_from_slice(new);
    if family == Family::Ipv4 {
        follow(header, IPV4_CHECKSUM, &old, new);
    }
    rewrite_upper_layer(l4, (family, proto), side, port, (&old, new));
    true
}

/// Where the upper layer begins, and which it is.
fn upper_layer(quote: &[u8], family: Family) -> Option<(usize, u8)> {
    match family {
        Family::Ipv4 => {
            let header_len = usize::from(quote.first()? & 0x0f) * 4;
            (header_len >= 20 && quote.len() >= header_len).then(|| (header_len, quote[9]))
        }
        Family::Ipv6 => {
            let (at, proto) = skip_extensions(quote, 40, *quote.get(6)?)?;
            (quote.len() >= 40 && quote.len() >= at).then_some((at, proto))
        }
    }
}

fn rewrite_upper_layer(
    l4: &mut [u8],
    (family, proto): (Family, u8),
    side: Side,
    port: u16,
    (old_addr, new_addr): (&[u8], &[u8]),
) {
    let port_at = if side == Side::Source { 0 } else { 2 };
    let set = |l4: &mut [u8], at: usize| {
        let old = [l4[at], l4[at + 1]];
        l4[at..at + 2].copy_from_slice(&port.to_be_bytes());
        old
    };
    match (family, proto) {
        (_, PROTO_TCP) => {
            let old = set(l4, port_at);
            // Only where all of the header is quoted is there a checksum to mend.
            if l4.len() >= TCP_HEADER_LEN {
                follow(l4, 16, old_addr, new_addr);
                follow(l4, 16, &old, &port.to_be_bytes());
            }
        }
        (_, PROTO_UDP | PROTO_UDPLITE) => {
            let old = set(l4, port_at);
            if proto == PROTO_UDP && l4[6..8] == [0, 0] {
                return;
            }
            follow(l4, 6, old_addr, new_addr);
            follow(l4, 6, &old, &port.to_be_bytes());
            if l4[6..8] == [0, 0] {
                l4[6..8].fill(0xff);
            }
        }
        (_, PROTO_SCTP) => {
            set(l4, port_at);
            if l4.len() >= SCTP_HEADER_LEN {
                fill_crc(l4);
            }
        }
        (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6) => {
            if family == Family::Ipv6 {
                follow(l4, 2, old_addr, new_addr);
            }
            if has_id(family, l4[0]) {
                let old = set(l4, 4);
                follow(l4, 2, &old, &port.to_be_bytes());
            }
        }
        _ => {}
    }
}

/// Adjusts the checksum at a place to bytes that were replaced.
fn follow(bytes: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let field = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&adjust_bytes(field, old, new).to_be_bytes());
}

//! Cutting: how a packet leaves in pieces.

#![forbid(unsafe_code)]

use super::super::{IPV6_DESTINATION, IPV6_FRAGMENT, IPV6_HOP_BY_HOP, IPV6_ROUTING};
use super::{DONT_FRAGMENT, FRAGMENT_HEADER_LEN, IPV6_HEADER_LEN};
use super::{Pieces, finish_ipv4, next_header_at};
use crate::packet::{ETHERNET_LEN, Family, Packet};
use core::ops::Range;

/// IPv6 is not cut smaller than what every link carries (RFC 8200 §5), unless the sender did.
pub const IPV6_MIN_MTU_BYTES: usize = 1280;
pub(super) const MORE_FRAGMENTS: u16 = 0x2000;
/// The option is to stand in every fragment (RFC 791 §3.1).
const COPIED: u8 = 0x80;

impl Pieces {
    /// Whether they may leave on a link of this MTU: "don't fragment" holds for each of them.
    pub fn fit(&self, pkt: &Packet, mtu_bytes: usize) -> bool {
        // A piece that is the whole leaves without its fragment header (RFC 6946).
        let is_atomic = self.ends.len() == 1 && pkt.l3().len() <= mtu_bytes;
        is_atomic
            || self.max_len <= mtu_bytes
            || (matches!(pkt.family(), Family::Ipv4) && !self.dont_fragment)
    }

    /// Whether the whole leaves as it is, since it is no longer than a piece was: in IPv6, and in IPv4 on a bridge.
    pub fn stay_whole(&self, pkt: &Packet, mtu_bytes: usize) -> bool {
        let len = pkt.l3().len();
        (pkt.family() == Family::Ipv6 || self.is_bridged) && len <= mtu_bytes && len <= self.max_len
    }

    /// Whether the headers of the whole fit in front of each later piece, in the memory where Linux has it. Otherwise it copies
    /// all pieces, and cuts them anew.
    fn has_room_in_front(&self, fixed: usize) -> bool {
        /// Bytes that Linux leaves free in front of a frame that comes.
        const FREE: usize = 64;
        /// Bytes that it wants there for the header of the link.
        const LINK: usize = 16;
        let wanted = fixed + FRAGMENT_HEADER_LEN + LINK;
        wanted <= FREE + ETHERNET_LEN + self.later_headers_len
    }

    /// The frames in which a joined packet leaves.
    pub fn cut(&self, pkt: &Packet, mtu_bytes: usize) -> Vec<Vec<u8>> {
        let fixed = fixed_len(pkt);
        let len = pkt.l3().len();
        let max_len = match pkt.family() {
            _ if self.stay_whole(pkt, mtu_bytes) => return vec![pkt.frame().to_vec()],
            Family::Ipv4 => mtu_bytes.min(self.max_len),
            Family::Ipv6 => mtu_bytes.min(self.max_len.max(IPV6_MIN_MTU_BYTES)),
        };
        let room = room(pkt, fixed, max_len);
        let starts = [fixed].into_iter().chain(self.ends.iter().copied());
        let as_it_came: Vec<Range<usize>> =
            starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end).collect();
        let last = as_it_came.len() - 1;
        let keeps = !self.is_linear
            && self.has_room_in_front(fixed)
            && self.ends.last() == Some(&len)
            && as_it_came.iter().enumerate().all(|(at, range)| {
                range.start <= range.end && range.len() <= room && (at == last || range.len() % 8 == 0)
            });
        let (ranges, dont_fragment) = if keeps {
            // As Linux, whose pieces lose the flag here: they are known to fit what lies behind us.
            (as_it_came, false)
        } else {
            (ranges(fixed, len, room), self.dont_fragment)
        };
        cut_at(pkt, fixed, &ranges, &Style { dont_fragment, copies_options: self.is_bridged, id: self.id })
    }
}

/// The frames in which an IPv4 packet leaves that is larger than the MTU and may be cut. Later ones have all options, as
/// those of a bridge have, or those that ask for it (RFC 791 §3.1).
pub fn cut_to_mtu(pkt: &Packet, mtu_bytes: usize, copies_options: bool) -> Vec<Vec<u8>> {
    let fixed = fixed_len(pkt);
    let ranges = ranges(fixed, pkt.l3().len(), room(pkt, fixed, mtu_bytes));
    cut_at(pkt, fixed, &ranges, &Style { dont_fragment: false, copies_options, id: 0 })
}

/// The frames in which a host sends a packet of its own that is larger than the MTU, under an identification of its choice.
pub fn cut_by_sender(pkt: &Packet, mtu_bytes: usize, id: u32) -> Vec<Vec<u8>> {
    let fixed = fixed_len(pkt);
    let ranges = ranges(fixed, pkt.l3().len(), room(pkt, fixed, mtu_bytes));
    let style = Style { dont_fragment: false, copies_options: false, id };
    let mut frames = cut_at(pkt, fixed, &ranges, &style);
    if pkt.family() == Family::Ipv4 {
        for frame in &mut frames {
            frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&(id as u16).to_be_bytes());
            let [high, low] = [frame[ETHERNET_LEN + 6], frame[ETHERNET_LEN + 7]];
            let (len, flags) = ((frame.len() - ETHERNET_LEN) as u16, u16::from_be_bytes([high, low]));
            finish_ipv4(frame, len, flags, 0);
        }
    }
    frames
}

/// Bytes at the start of the IP packet that stand in every piece.
fn fixed_len(pkt: &Packet) -> usize {
    let l3 = pkt.l3();
    if pkt.family() == Family::Ipv4 {
        return usize::from(l3[0] & 0x0f) * 4;
    }
    // RFC 8200 §4.5: up to a routing header; destination options only in front of it.
    let (mut at, mut next, mut routed) = (IPV6_HEADER_LEN, l3[6], false);
    while let Some(&[following, len]) = l3.get(at..).and_then(|rest| rest.first_chunk()) {
        match next {
            IPV6_HOP_BY_HOP => {}
            IPV6_ROUTING => routed = true,
            IPV6_DESTINATION if !routed => {}
            _ => break,
        }
        let end = at + (usize::from(len) + 1) * 8;
        if end > l3.len() {
            break;
        }
        (at, next) = (end, following);
    }
    at
}

/// Bytes of payload in each piece but the last; at least one unit.
fn room(pkt: &Packet, fixed: usize, max_len: usize) -> usize {
    let headers = fixed + if pkt.family() == Family::Ipv6 { FRAGMENT_HEADER_LEN } else { 0 };
    max_len.saturating_sub(headers).max(8)
}

fn ranges(fixed: usize, len: usize, room: usize) -> Vec<Range<usize>> {
    let step = room & !7;
    let mut ranges = Vec::with_capacity((len - fixed).div_ceil(step));
    let mut at = fixed;
    while at < len {
        let end = if len - at <= room { len } else { at + step };
        ranges.push(at..end);
        at = end;
    }
    ranges
}

/// What pieces have in common.
struct Style {
    dont_fragment: bool,
    copies_options: bool,
    id: u32,
}

fn cut_at(pkt: &Packet, fixed: usize, ranges: &[Range<usize>], style: &Style) -> Vec<Vec<u8>> {
    let Style { dont_fragment, copies_options, id } = *style;
    let last = ranges.len().saturating_sub(1);
    let piece = |(at, range): (usize, &Range<usize>)| {
        let mut frame = pkt.frame()[..ETHERNET_LEN + fixed].to_vec();
        let offset = range.start - fixed;
        match pkt.family() {
            Family::Ipv4 => {
                if offset > 0 && !copies_options {
                    drop_first_only_options(&mut frame);
                }
                let more = if at == last { 0 } else { MORE_FRAGMENTS };
                let flags = more | if dont_fragment { DONT_FRAGMENT } else { 0 };
                finish_ipv4(&mut frame, (fixed + range.len()) as u16, flags | (offset / 8) as u16, 0);
            }
            Family::Ipv6 => {
                let named = next_header_at(&frame);
                let next = core::mem::replace(&mut frame[named], IPV6_FRAGMENT);
                let payload = fixed - IPV6_HEADER_LEN + FRAGMENT_HEADER_LEN + range.len();
                frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&(payload as u16).to_be_bytes());
                frame.extend([next, 0]);
                frame.extend((offset as u16 | u16::from(at != last)).to_be_bytes());
                frame.extend(id.to_be_bytes());
            }
        }
        frame.extend(&pkt.l3()[range.clone()]);
        frame
    };
    ranges.iter().enumerate().map(piece).collect()
}

/// Later pieces carry only the options that ask for it; the others become padding, so that nothing moves.
pub(super) fn drop_first_only_options(frame: &mut [u8]) {
    const END: u8 = 0;
    const NOP: u8 = 1;
    let mut options = &mut frame[ETHERNET_LEN + 20..];
    while let [kind, rest @ ..] = options {
        let len = match *kind {
            END => return,
            NOP => 1,
            _ => rest.first().map_or(0, |&len| usize::from(len)),
        };
        if len == 0 || len > options.len() || (len == 1 && options[0] != NOP) {
            return;
        }
        let (option, behind) = options.split_at_mut(len);
        if option[0] & COPIED == 0 {
            option.fill(NOP);
        }
        options = behind;
    }
}

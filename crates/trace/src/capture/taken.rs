//! Artefacts of how a capture was taken, which are not what the router met: outgoing copies of frames that came in,
//! checksums that a card was to finish, frames that were cut short.

#![forbid(unsafe_code)]

use super::{Frame, Place, Unjudged};
use stateway_core::packet::checksum::Sum;
use stateway_core::packet::tuple::{PROTO_TCP, PROTO_UDP};
use stateway_core::packet::{Addr, ETHERNET_LEN, Family, Kind, Offload, Packet, kind};

/// A frame larger than this is none that an interface can carry; nothing is filled up beyond it.
const MAX_FRAME: usize = ETHERNET_LEN + 40 + 65_535;

/// Takes a frame for what was on the link: fills up what was cut off, and says which checksum is to be finished.
pub(super) fn mend(frame: &mut Frame, original_len: usize) -> Option<Unjudged> {
    let Some(l4) = L4::of(&frame.data) else {
        let is_ip = matches!(kind(&frame.data), Some(Kind::Ipv4 | Kind::Ipv6));
        let is_cut = original_len > frame.data.len() && (is_ip || frame.data.len() < ETHERNET_LEN);
        return is_cut.then_some(Unjudged::HeadersCut);
    };
    if original_len > frame.data.len() {
        if !l4.is_whole(&frame.data) {
            return Some(Unjudged::HeadersCut);
        }
        frame.data.resize(original_len.min(MAX_FRAME).max(frame.data.len()), 0);
        // The rest is not known, and so the sum over it cannot be wrong.
        frame.offload.flags |= Offload::DATA_VALID;
    } else if let Some(csum_offset) = l4.unfinished(&frame.data) {
        frame.offload.flags |= Offload::NEEDS_CSUM;
        frame.offload.csum_start = l4.at as u16;
        frame.offload.csum_offset = csum_offset as u16;
    }
    None
}

/// Finishes a checksum that a card was to finish, so that the frame stands for itself.
pub fn finish_checksum(frame: &mut [u8]) {
    let Some((l4, csum_offset)) = L4::of(frame).and_then(|l4| Some((l4, l4.unfinished(frame)?))) else {
        return;
    };
    let offload = Offload {
        flags: Offload::NEEDS_CSUM,
        csum_start: l4.at as u16,
        csum_offset: csum_offset as u16,
        ..Offload::NONE
    };
    if let Ok(mut pkt) = Packet::parse(frame, offload) {
        pkt.finish_checksum();
    }
}

/// The protocol within a frame, which is IP and no later fragment.
#[derive(Clone, Copy, Debug)]
struct L4 {
    family: Family,
    proto: u8,
    src: Addr,
    dst: Addr,
    /// From the start of the frame.
    at: usize,
    /// By the IP header.
    len: usize,
    is_fragment: bool,
}

impl L4 {
    fn of(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET_LEN..)?;
        match kind(frame)? {
            Kind::Ipv4 => Self::of_ipv4(ip),
            Kind::Ipv6 => Self::of_ipv6(ip),
            Kind::Arp | Kind::Other(_) => None,
        }
    }

    fn of_ipv4(ip: &[u8]) -> Option<Self> {
        let head: &[u8; 20] = ip.first_chunk()?;
        let header_len = usize::from(head[0] & 0xf) * 4;
        ip.get(..header_len).filter(|header| header.len() >= head.len())?;
        let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let fragment = u16::from_be_bytes([head[6], head[7]]);
        Some(Self {
            family: Family::Ipv4,
            proto: head[9],
            src: Addr::from_v4([head[12], head[13], head[14], head[15]]),
            dst: Addr::from_v4([head[16], head[17], head[18], head[19]]),
            at: ETHERNET_LEN + header_len,
            len: total.saturating_sub(header_len),
            is_fragment: fragment & 0x3fff != 0,
        })
    }

    fn of_ipv6(ip: &[u8]) -> Option<Self> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        let head: &[u8; 40] = ip.first_chunk()?;
        let addr = |at: usize| head.get(at..at + 16)?.try_into().ok().map(Addr::from_v6);
        let end = 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
        let (mut proto, mut at) = (head[6], 40);
        while matches!(proto, HOP_BY_HOP | ROUTING | DESTINATION) {
            let extension: &[u8; 2] = ip.get(at..)?.first_chunk()?;
            (proto, at) = (extension[0], at + 8 + usize::from(extension[1]) * 8);
        }
        Some(Self {
            family: Family::Ipv6,
            proto,
            src: addr(8)?,
            dst: addr(24)?,
            at: ETHERNET_LEN + at,
            len: end.saturating_sub(at),
            is_fragment: proto == FRAGMENT,
        })
    }

    /// Whether the header was captured, with its options.
    fn is_whole(&self, frame: &[u8]) -> bool {
        const PROTO_ICMP: u8 = 1;
        const PROTO_ICMPV6: u8 = 58;
        let l4 = frame.get(self.at..).unwrap_or_default();
        let needed = match self.proto {
            _ if self.is_fragment => 8,
            PROTO_TCP => l4.get(12).map_or(20, |offset| usize::from(offset >> 4) * 4),
            // An error quotes a packet: its IP header, and eight bytes behind it.
            PROTO_ICMP if matches!(l4.first(), Some(3..=5 | 11 | 12)) => 8 + 20 + 8,
            PROTO_ICMPV6 if matches!(l4.first(), Some(1..=4)) => 8 + 40 + 8,
            _ => 8,
        };
        l4.len() >= needed.min(self.len)
    }

    /// Where in its header the checksum stands, of those that a card finishes.
    const fn checksum_offset(&self) -> Option<usize> {
        match self.proto {
            PROTO_TCP => Some(16),
            PROTO_UDP => Some(6),
            _ => None,
        }
    }

    /// Where in its header a checksum stands that its card was to finish: it holds the sum of the pseudo-header.
    fn unfinished(&self, frame: &[u8]) -> Option<usize> {
        let offset = self.checksum_offset()?;
        let l4 = frame.get(self.at..self.at + self.len).filter(|_| !self.is_fragment)?;
        let field = u16::from_be_bytes([*l4.get(offset)?, *l4.get(offset + 1)?]);
        let pseudo_header = |len| Sum::pseudo_header(self.src, self.dst, self.family, self.proto, len);
        // Some drivers of cards that cut segments want the length left out.
        let is_partial = field == pseudo_header(self.len).folded() || field == pseudo_header(0).folded();
        let is_right = || pseudo_header(self.len).bytes(l4).checksum() == 0;
        (is_partial && !is_right()).then_some(offset)
    }
}

/// Frames that went out, told apart by the packet that came in just before: the same but for what a router changes.
///
/// Of packets whose fingerprints fall into one group, the latest few are remembered. There are more groups the denser the
/// frames come, and no more than that: what is looked at for every frame shall stay in the cache.
#[derive(Debug)]
pub(super) struct Copies {
    groups: Vec<Group>,
}

type Group = [Option<Seen>; Copies::IN_GROUP];

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// What stays the same of the packet.
    fingerprint: u64,
    place: Place,
    nanos: i64,
    ttl: u8,
    source_mac: [u8; 6],
}

impl Default for Copies {
    fn default() -> Self {
        Self { groups: vec![[None; Self::IN_GROUP]; Self::FEWEST_GROUPS] }
    }
}

impl Copies {
    /// A router takes microseconds; the capturing machine may be busy.
    const WINDOW_NANOS: u64 = 5_000_000;
    const FEWEST_GROUPS: usize = 1 << 6;
    /// Together with those in each, enough for ten million packets a second.
    const MOST_GROUPS: usize = 1 << 14;
    const IN_GROUP: usize = 4;

    /// Whether the same packet came in elsewhere a moment ago; if not, it is remembered.
    pub(super) fn is_copy(&mut self, place: Place, nanos: i128, frame: &[u8]) -> bool {
        let Some((fingerprint, ttl)) = fingerprint(frame) else { return false };
        // Frames more than 292 years apart may look as if they were at the same time.
        let nanos = nanos as i64;
        let source_mac = frame.get(6..12).and_then(|mac| mac.try_into().ok()).unwrap_or_default();
        self.make_room(fingerprint, nanos);
        let group = self.group(fingerprint);
        let is_same =
            |seen: &Seen| seen.fingerprint == fingerprint && is_a_moment(seen.nanos.abs_diff(nanos));
        let known = group.iter().position(|seen| seen.as_ref().is_some_and(is_same));
        if let Some(seen) = known.and_then(|at| group[at])
            && seen.place != place
        {
            let is_bridged = ttl == seen.ttl && source_mac == seen.source_mac;
            let is_routed = seen.ttl.checked_sub(1) == Some(ttl) && source_mac != seen.source_mac;
            return is_bridged || is_routed;
        }
        // The latest one stands first.
        group[..=known.unwrap_or(Self::IN_GROUP - 1)].rotate_right(1);
        group[0] = Some(Seen { fingerprint, place, nanos, ttl, source_mac });
        false
    }

    /// More groups, while the one of this packet holds nothing that may be forgotten.
    fn make_room(&mut self, fingerprint: u64, nanos: i64) {
        let is_needed =
            |seen: &Option<Seen>| seen.is_some_and(|seen| is_a_moment(seen.nanos.abs_diff(nanos)));
        while self.groups.len() < Self::MOST_GROUPS && self.group(fingerprint).iter().all(is_needed) {
            self.grow();
        }
    }

    fn group(&mut self, fingerprint: u64) -> &mut Group {
        let groups = self.groups.len();
        &mut self.groups[fingerprint as usize % groups]
    }

    /// Twice as many groups. In each the order stays: the latest one stands first.
    fn grow(&mut self) {
        let larger = vec![[None; Self::IN_GROUP]; self.groups.len() * 2];
        for group in core::mem::replace(&mut self.groups, larger) {
            for seen in group.into_iter().flatten() {
                let free = self.group(seen.fingerprint).iter_mut().find(|place| place.is_none());
                if let Some(place) = free {
                    *place = Some(seen);
                }
            }
        }
    }
}

/// Whether two frames so many nanoseconds apart may be one packet on its way.
const fn is_a_moment(nanos: u64) -> bool {
    nanos <= Copies::WINDOW_NANOS
}

/// What stays the same of a packet from its way in to its way out, as a number, and its TTL.
fn fingerprint(frame: &[u8]) -> Option<(u64, u8)> {
    /// Beyond the headers, so much of the payload counts.
    const LOOKED_AT: usize = 96;
    let ip = frame.get(ETHERNET_LEN..)?;
    let mut head = [0; 64];
    let (ttl, fixed) = match kind(frame)? {
        Kind::Ipv4 => (*ip.get(8)?, ip.get(..20)?),
        Kind::Ipv6 => (*ip.get(7)?, ip.get(..40)?),
        Kind::Arp => (0, ip.get(..28)?),
        Kind::Other(_) => return None,
    };
    head[..fixed.len()].copy_from_slice(fixed);
    match fixed.len() {
        20 => (head[8], head[10], head[11]) = (0, 0, 0),
        40 => head[7] = 0,
        _ => {}
    }
    let hash = mix(0, &head[..fixed.len()]);
    let rest = ip.get(fixed.len()..).unwrap_or_default();
    let mut looked_at = [0; LOOKED_AT];
    let len = rest.len().min(LOOKED_AT);
    looked_at[..len].copy_from_slice(&rest[..len]);
    let rest = &mut looked_at[..len];
    // Finished on its way out, or not.
    if let Some(l4) = L4::of(frame) {
        let at = l4.at - ETHERNET_LEN - fixed.len();
        let field = l4.checksum_offset().and_then(|offset| rest.get_mut(at + offset..at + offset + 2));
        if let Some(field) = field {
            field.fill(0);
        }
    }
    Some((mix(hash, rest), ttl))
}

/// FNV-1a over words of eight bytes. Two frames that meet by chance within milliseconds would be needed to fool it, and
/// what is at stake is a line of a report.
fn mix(seed: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.chunks(8).fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(PRIME);
        hash ^ hash >> 32
    })
}

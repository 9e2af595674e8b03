//! Bytes that flip in traffic that is right otherwise: what a bad cable or a bad sender makes of it.

#![forbid(unsafe_code)]

use super::{chance, pick};
use crate::trace::{Frame, Step, Trace};
use fastrand::Rng;
use stateway_core::packet::checksum::Sum;
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
use stateway_core::packet::{ETHERNET_LEN, Family, Offload, Packet};

const IPV4: [u8; 2] = [8, 0];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Puts copies of some frames behind them that are wrong somewhere.
pub(super) fn some(rng: &mut Rng, trace: &mut Trace) {
    let steps = core::mem::take(&mut trace.steps);
    for step in steps {
        let wrong = match &step {
            Step::Frame(frame) if chance(rng, 15) => Some(Step::Frame(wrong(rng, frame))),
            _ => None,
        };
        // In front or behind: what is met first may be the wrong one.
        if chance(rng, 70) {
            trace.steps.push(step);
            trace.steps.extend(wrong);
        } else {
            trace.steps.extend(wrong);
            trace.steps.push(step);
        }
    }
}

fn wrong(rng: &mut Rng, frame: &Frame) -> Frame {
    let mut other = Frame { kind: "flipped", ..frame.clone() };
    if chance(rng, 25) {
        other.kind = "length of zero";
        take_length(rng, &mut other.bytes);
    } else if chance(rng, 15) {
        other.kind = "cut";
        other.bytes.truncate(rng.usize(ETHERNET_LEN..=frame.bytes.len()));
        if chance(rng, 70) {
            tell_length(&mut other.bytes);
        }
    } else {
        for _ in 0..rng.usize(1..4) {
            flip(rng, &mut other.bytes);
        }
    }
    repair(&mut other.bytes, chance(rng, 60));
    other
}

/// One byte, among the headers mostly: one bit of it, an end of its range, or anything.
fn flip(rng: &mut Rng, bytes: &mut [u8]) {
    const HEADERS: usize = 100;
    let end = if chance(rng, 90) { bytes.len().min(HEADERS) } else { bytes.len() };
    let start = if chance(rng, 97) { ETHERNET_LEN } else { 0 };
    if start >= end {
        return;
    }
    let at = rng.usize(start..end);
    if names_sender(bytes, at) {
        return;
    }
    bytes[at] = match rng.u8(..6) {
        0..=2 => bytes[at] ^ 1 << rng.u8(..8),
        3 => *pick(rng, &[0, 0xff, 0x7f, 0x80]),
        4 => bytes[at].wrapping_add(1),
        _ => rng.u8(..),
    };
}

/// Whether that byte tells the sender from those of traces that run at the same time.
fn names_sender(bytes: &[u8], at: usize) -> bool {
    match bytes.get(12..ETHERNET_LEN) {
        Some(ethertype) if ethertype == IPV4 => (ETHERNET_LEN + 14..ETHERNET_LEN + 16).contains(&at),
        Some(ethertype) if ethertype == IPV6 => (ETHERNET_LEN + 22..ETHERNET_LEN + 24).contains(&at),
        _ => true,
    }
}

/// Takes away one of the lengths that a packet tells.
fn take_length(rng: &mut Rng, bytes: &mut [u8]) {
    let (fixed_len, length_at) = match bytes.get(12..ETHERNET_LEN) {
        Some(ethertype) if ethertype == IPV4 => {
            (usize::from(bytes.get(ETHERNET_LEN).map_or(5, |b| b & 15)) * 4, 2)
        }
        Some(ethertype) if ethertype == IPV6 => (40, 4),
        _ => return,
    };
    let upper = ETHERNET_LEN + fixed_len;
    let place = match rng.u8(..6) {
        // The IP packet's own, of its payload or of all of it.
        0 | 1 => ETHERNET_LEN + length_at..ETHERNET_LEN + length_at + 2,
        // UDP's and that of SCTP's first chunk; TCP's offset; where options and extension headers have theirs.
        2 => upper + 4..upper + 6,
        3 => upper + 14..upper + 16,
        4 => upper + 12..upper + 13,
        _ => upper + 1..upper + 2,
    };
    if let Some(length) = bytes.get_mut(place) {
        length.fill(0);
    }
}

/// Has the IP header say as much as there is.
fn tell_length(bytes: &mut [u8]) {
    let len = bytes.len().saturating_sub(ETHERNET_LEN);
    let (at, len) = match bytes.get(12..ETHERNET_LEN) {
        Some(ethertype) if ethertype == IPV4 => (2, len),
        Some(ethertype) if ethertype == IPV6 => (4, len.saturating_sub(40)),
        _ => return,
    };
    if let Some(field) = bytes.get_mut(ETHERNET_LEN + at..ETHERNET_LEN + at + 2) {
        field.copy_from_slice(&(len as u16).to_be_bytes());
    }
}

/// Makes the checksum of an IPv4 header right, without which nobody looks further; and that of the upper layer, if asked
/// for.
pub(super) fn repair(bytes: &mut [u8], upper_too: bool) {
    if bytes.get(12..ETHERNET_LEN) == Some(&IPV4) {
        let len = bytes.get(ETHERNET_LEN).map_or(0, |first| usize::from(first & 15) * 4);
        if let Some(header) = bytes.get_mut(ETHERNET_LEN..ETHERNET_LEN + len).filter(|h| h.len() >= 20) {
            header[10..12].fill(0);
            let checksum = Sum::default().bytes(header).checksum();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
    }
    if !upper_too {
        return;
    }
    let mut copy = bytes.to_vec();
    let Ok(mut pkt) = Packet::parse(&mut copy, Offload::NONE) else { return };
    if pkt.fragment().is_some() {
        return;
    }
    let at = match pkt.proto() {
        PROTO_TCP => 16,
        PROTO_UDP => 6,
        PROTO_ICMP | PROTO_ICMPV6 => 2,
        _ => return,
    };
    let (src, dst, family, proto) = (pkt.src(), pkt.dst(), pkt.family(), pkt.proto());
    let sum = match (family, proto) {
        (Family::Ipv4, PROTO_ICMP) => Sum::default(),
        _ => Sum::pseudo_header(src, dst, family, proto, pkt.l4().len()),
    };
    let l4 = pkt.l4_mut();
    let Some(field) = l4.get_mut(at..at + 2) else { return };
    field.fill(0);
    let checksum = sum.bytes(l4).checksum();
    l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    let len = pkt.frame_len();
    bytes[..len].copy_from_slice(&copy[..len]);
}

/// Tags of 802.1Q and 802.1ad around some frames, as [`super::frame`] puts them: cut short, stacked, of every kind.
pub(super) fn tags(rng: &mut Rng, bytes: &mut Vec<u8>) {
    const KINDS: [[u8; 2]; 4] = [[0x81, 0], [0x88, 0xa8], [0x91, 0], [0x81, 0]];
    for _ in 0..rng.usize(1..4) {
        let kind = *pick(rng, &KINDS);
        let vlan = if chance(rng, 70) { 0 } else { rng.u8(..) };
        let tag = [kind[0], kind[1], rng.u8(..16) << 4, vlan];
        bytes.splice(ETHERNET_LEN - 2..ETHERNET_LEN - 2, tag);
    }
    if chance(rng, 10) {
        bytes.truncate(rng.usize(ETHERNET_LEN..ETHERNET_LEN + 12).min(bytes.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::packet::Ip;
    use stateway_core::packet::Addr;

    #[test]
    fn what_is_repaired_is_right_again() {
        let [src, dst] = [1, 2].map(|host| Addr::from_v4([198, 18, 1, host]));
        let datagram = [4, 0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
        let mut frame =
            Frame::of_packet(0, &Ip::new(Family::Ipv4, src, dst, PROTO_UDP).build(&datagram), "").bytes;
        frame[ETHERNET_LEN + 8] = 7;
        assert!(Packet::parse(&mut frame.clone(), Offload::NONE).is_err(), "the header's checksum is wrong");
        repair(&mut frame, true);
        let pkt = Packet::parse(&mut frame, Offload::NONE).expect("it is right");
        let sum = Sum::pseudo_header(src, dst, Family::Ipv4, PROTO_UDP, datagram.len()).bytes(pkt.l4());
        assert!(sum.is_all_ones());
    }

    #[test]
    fn wrong_frames_come_beside_the_right_ones() {
        let mut rng = Rng::with_seed(3);
        let [src, dst] = [1, 2].map(|host| Addr::from_v4([198, 18, 1, host]));
        let frame = Frame::of_packet(0, &Ip::new(Family::Ipv4, src, dst, 253).build(&[0; 40]), "plain");
        let mut trace = Trace { steps: vec![Step::Frame(frame.clone()); 400], ..Trace::default() };
        some(&mut rng, &mut trace);
        assert_eq!(trace.frames().filter(|f| **f == frame).count(), 400);
        for kind in ["flipped", "length of zero", "cut"] {
            assert!(trace.frames().any(|f| f.kind == kind), "{kind}");
        }
    }
}

//! Packets whose answer could not leave, because the link address of the next hop was not known yet.
//!
//! The stack asks for the address and forgets the answer. Linux keeps it, so what was to be answered is heard once more when
//! the address has come.

#![forbid(unsafe_code)]

use stateway_core::packet::{ETHERNET_LEN, Family};
use stateway_core::time::{Duration, Instant};
use std::net::IpAddr;

/// As many as Linux keeps by default, and more than a lab needs.
const MOST: usize = 64;
/// When Linux gives up on a neighbour.
const PATIENCE: Duration = Duration::from_secs(3);

const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

#[derive(Debug, Default)]
pub(super) struct Unresolved {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    next_hop: IpAddr,
    frame: Vec<u8>,
}

impl Unresolved {
    /// Takes note of a frame that the stack has heard, and of what it `sent` at once because of it. A socket that the frame
    /// is for keeps its answer by itself.
    pub(super) fn note(&mut self, frame: &[u8], has_socket: bool, sent: &[Vec<u8>], now: Instant) {
        self.waiting.retain(|waiting| waiting.until > now);
        if !is_ip(frame) || self.waiting.len() >= MOST {
            return;
        }
        // Who has asked a moment ago does not ask again.
        let asked = || self.waiting.iter().rev().map(|waiting| waiting.next_hop);
        let same_family = |hop: &IpAddr| (Family::from(*hop) == Family::Ipv6) == (frame[12..14] == IPV6);
        let next_hop = match sent {
            [] if !has_socket && is_answered(frame) => asked().find(same_family),
            sent => sent.iter().find_map(|frame| asked_for(frame)),
        };
        if let Some(next_hop) = next_hop {
            self.waiting.push(Waiting { until: now + PATIENCE, next_hop, frame: frame.to_vec() });
        }
    }

    /// What is to be heard once more because of a frame that tells a link address.
    pub(super) fn resolved_by(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let Some(addr) = told_of(frame).filter(|_| !self.waiting.is_empty()) else { return Vec::new() };
        let (now_known, others) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.next_hop == addr);
        self.waiting = others;
        let now_known: Vec<Waiting> = now_known;
        now_known.into_iter().map(|waiting| waiting.frame).collect()
    }
}

/// What a stack may answer by way of a next hop: neighbour solicitations, too, whose sender it may know by no other way.
fn is_ip(frame: &[u8]) -> bool {
    frame.len() > ETHERNET_LEN + 20 && frame[12..14] != ARP
}

/// Echo requests, and what goes to a port, where nobody may listen.
fn is_answered(frame: &[u8]) -> bool {
    const TO_PORTS: [u8; 2] = [6, 17];
    let l3 = &frame[ETHERNET_LEN..];
    let (proto, icmp, echo_request, header) = if frame[12..14] == IPV6 {
        (l3.get(6), ICMPV6, 128, 40)
    } else {
        (l3.get(9), 1, 8, usize::from(l3[0] & 0x0f) * 4)
    };
    proto.is_some_and(|proto| {
        TO_PORTS.contains(proto) || *proto == icmp && l3.get(header) == Some(&echo_request)
    })
}

/// The address that an ARP request or a neighbour solicitation asks for.
fn asked_for(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)?.try_into().ok()? {
        ARP if frame.get(20..22)? == [0, 1] => four(frame, 38),
        IPV6 => neighbour_message(frame, SOLICITATION),
        _ => None,
    }
}

/// The address whose link address an ARP packet or a neighbour advertisement tells.
fn told_of(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)?.try_into().ok()? {
        ARP => four(frame, 28),
        IPV6 => neighbour_message(frame, ADVERTISEMENT),
        _ => None,
    }
}

fn four(frame: &[u8], at: usize) -> Option<IpAddr> {
    let four: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    Some(four.into())
}

fn neighbour_message(frame: &[u8], kind: u8) -> Option<IpAddr> {
    let l3 = frame.get(ETHERNET_LEN..)?;
    let is_it = *l3.get(6)? == ICMPV6 && *l3.get(40)? == kind;
    let target: [u8; 16] = l3.get(48..64)?.try_into().ok()?;
    is_it.then(|| target.into())
}

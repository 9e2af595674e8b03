//! Which kinds of packets met connections in which states, and what became of them.

#![forbid(unsafe_code)]

use super::flow_key;
use super::trace::Frame;
use stateway_core::conntrack::{Entry, Proto, Status};
use stateway_core::packet::tuple::{
    PROTO_DCCP, PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use stateway_core::packet::{Family, Frame as Untagged, Packet, Segment, TcpFlags, Tuple};
use std::collections::BTreeMap;

pub(super) const FATES: [&str; 3] = ["answered", "dropped", "forwarded"];

/// What a frame is, in few words: `ipv6 tcp syn`.
pub(super) fn kind(frame: &Frame) -> String {
    let mut copy = frame.bytes.clone();
    let mut untagged = Untagged::new(&mut copy);
    untagged.strip_priority_tags();
    let Ok(pkt) = untagged.parse() else { return "unreadable".to_owned() };
    let family = if pkt.family() == Family::Ipv4 { "ipv4" } else { "ipv6" };
    format!("{family} {}", word(&pkt))
}

fn word(pkt: &Packet) -> &'static str {
    match pkt.fragment() {
        Some(fragment) if !fragment.is_first() => return "later piece",
        Some(fragment) if fragment.more => return "first piece",
        _ => {}
    }
    match (pkt.family(), pkt.proto()) {
        (_, PROTO_TCP) => Segment::parse(pkt.l4()).map_or("tcp cut short", |seg| {
            let has = |flag| seg.flags.contains(flag);
            match (has(TcpFlags::SYN), has(TcpFlags::ACK), has(TcpFlags::FIN), has(TcpFlags::RST)) {
                (_, _, _, true) => "tcp rst",
                (true, true, ..) => "tcp synack",
                (true, ..) => "tcp syn",
                (_, _, true, _) => "tcp fin",
                (_, true, ..) => "tcp ack",
                _ => "tcp without flags",
            }
        }),
        (_, PROTO_UDP) => "udp",
        (_, PROTO_UDPLITE) => "udplite",
        (_, PROTO_SCTP) => "sctp",
        (_, PROTO_DCCP) => "dccp",
        (_, PROTO_GRE) => "gre",
        (Family::Ipv4, PROTO_ICMP) => match pkt.l4().first() {
            Some(3 | 4 | 5 | 11 | 12) => "icmp error",
            Some(8 | 13 | 15 | 17) => "icmp query",
            Some(0 | 14 | 16 | 18) => "icmp answer",
            _ => "icmp other",
        },
        (Family::Ipv6, PROTO_ICMPV6) => match pkt.l4().first() {
            Some(0..=127) => "icmp error",
            Some(128 | 139) => "icmp query",
            Some(129 | 140) => "icmp answer",
            _ => "icmp other",
        },
        _ => "other protocol",
    }
}

/// The connection that a frame meets, in one word.
pub(super) fn state(frame: &Frame, entry: impl Fn(&Tuple) -> Option<Entry>) -> &'static str {
    let Some(entry) = flow_key::of_frame(&frame.bytes).and_then(|key| entry(&key)) else { return "none" };
    match entry.proto() {
        Proto::Tcp(tcp) => tcp.state().name(),
        Proto::Sctp(_) | Proto::Plain if entry.status.contains(Status::ASSURED) => "assured",
        Proto::Sctp(_) | Proto::Plain if entry.status.contains(Status::SEEN_REPLY) => "answered",
        Proto::Sctp(_) | Proto::Plain => "unanswered",
    }
}

/// Cells of kind x state x fate that were not reached, among the states that a kind has met and the fates that there are.
pub(super) fn missing(reached: &BTreeMap<String, u64>) -> Vec<String> {
    let mut pairs: Vec<&str> = reached.keys().filter_map(|cell| Some(cell.rsplit_once(" x ")?.0)).collect();
    pairs.dedup();
    let cells = pairs.iter().flat_map(|pair| FATES.map(|fate| format!("{pair} x {fate}")));
    cells.filter(|cell| !reached.contains_key(cell)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_reached_is_told() {
        let reached = BTreeMap::from([("ipv4 udp x none x dropped".to_owned(), 3)]);
        assert_eq!(missing(&reached), ["ipv4 udp x none x answered", "ipv4 udp x none x forwarded"]);
    }
}

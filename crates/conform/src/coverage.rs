//! What a run has reached, and what it has not.

#![forbid(unsafe_code)]

use super::compare::tcp_state_word;
use super::icmp_cases;
use super::kernel::Answer;
use super::nat_cases::NatCases;
use super::pairs;
use super::subject::Ours;
use super::trace::Frame;
use serde::Serialize;
use stateway_core::conntrack::tcp::{Class, TcpState};
use stateway_core::conntrack::{CtState, Direction, InvalidReason};
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP};
use stateway_core::packet::{Family, Offload, Packet, Segment, Tuple};
use std::collections::{BTreeMap, BTreeSet};

/// Counts of what was seen, by name.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Coverage {
    pub frames: u64,
    /// By what the generator had in mind.
    pub kinds: BTreeMap<&'static str, u64>,
    pub states: BTreeMap<&'static str, u64>,
    pub fates: BTreeMap<&'static str, u64>,
    /// `SYN_SENT original syn`
    pub tcp_cells: BTreeMap<String, u64>,
    pub invalid: BTreeMap<&'static str, u64>,
    /// `ipv6 tcp syn x TIME_WAIT x forwarded`: kind of packet, state of the connection that it met, fate.
    pub cells: BTreeMap<String, u64>,
    /// `ipv4 type 3 RELATED reply`
    pub icmp: BTreeMap<String, u64>,
    /// What a translation has met.
    pub nat: NatCases,
    /// The kernel's own words, numbers left out.
    pub kernel_reasons: BTreeMap<String, u64>,
}

impl Coverage {
    /// Notes one frame; `before` is the connection that it met and the state of that connection's TCP.
    pub(super) fn saw(&mut self, frame: &Frame, theirs: &Answer, ours: &Ours, before: Option<(Tuple, u8)>) {
        self.frames += 1;
        *self.kinds.entry(frame.kind).or_default() += 1;
        *self.states.entry(theirs.state.map_or("none", CtState::word)).or_default() += 1;
        *self.fates.entry(theirs.fate(frame.port)).or_default() += 1;
        if let Some(reason) = ours.invalid {
            *self.invalid.entry(reason.code()).or_default() += 1;
        }
        for reason in &theirs.reasons {
            let words: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
            *self.kernel_reasons.entry(words).or_default() += 1;
        }
        let mut copy = frame.bytes.clone();
        if let Ok(pkt) = Packet::parse(&mut copy, Offload::NONE) {
            self.saw_packet(&pkt, theirs, ours, before);
        }
    }

    fn saw_packet(&mut self, pkt: &Packet, theirs: &Answer, ours: &Ours, before: Option<(Tuple, u8)>) {
        match (pkt.family(), pkt.proto()) {
            (_, PROTO_TCP) if pkt.fragment().is_none() => {
                let Some(seg) = Segment::parse(pkt.l4()) else { return };
                let (state, dir) = match (before, theirs.key) {
                    (Some((original, state)), Some(key)) => {
                        let dir = if key == original { Direction::Original } else { Direction::Reply };
                        (tcp_state_word(state), dir)
                    }
                    _ => ("NONE", Direction::Original),
                };
                let class = format!("{:?}", Class::of(seg.flags)).to_lowercase();
                *self.tcp_cells.entry(format!("{state} {} {class}", dir.word())).or_default() += 1;
            }
            (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6) => {
                let Some(state) = theirs.state else { return };
                let case = icmp_cases::name(pkt, state, theirs.direction, ours.invalid);
                let about = theirs.key.filter(|_| state == CtState::Related);
                let about = about.map(|key| icmp_cases::about(pkt.family(), key.proto));
                for case in case.into_iter().chain(about) {
                    *self.icmp.entry(case).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// Cells of the TCP table that no segment has met. Nothing is in `NONE` in the reply direction.
    pub fn missing_tcp_cells(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for state in TcpState::ALL {
            for dir in [Direction::Original, Direction::Reply] {
                for class in ["syn", "synack", "fin", "ack", "rst"] {
                    let cell = format!("{} {} {class}", state.name(), dir.word());
                    let exists = state != TcpState::None || dir == Direction::Original;
                    if exists && !self.tcp_cells.contains_key(&cell) {
                        missing.push(cell);
                    }
                }
            }
        }
        missing
    }

    /// Cases of ICMP that no message has met.
    pub fn missing_icmp(&self) -> Vec<String> {
        icmp_cases::all().into_iter().filter(|case| !self.icmp.contains_key(case)).collect()
    }

    pub fn missing_invalid(&self) -> Vec<&'static str> {
        let seen: BTreeSet<_> = self.invalid.keys().copied().collect();
        InvalidReason::CODES.iter().copied().filter(|code| !seen.contains(code)).collect()
    }

    /// Notes which kind of packet met a connection in which state, and what the kernel made of it.
    pub(super) fn met(&mut self, frame: &Frame, state: &'static str, theirs: &Answer) {
        let cell = format!("{} x {state} x {}", pairs::kind(frame), theirs.fate(frame.port));
        *self.cells.entry(cell).or_default() += 1;
    }

    /// Fates that no packet has met in a state that its kind was seen in.
    pub fn missing_cells(&self) -> Vec<String> {
        pairs::missing(&self.cells)
    }

    /// Adds what another run has seen.
    pub fn merge(&mut self, other: Self) {
        self.frames += other.frames;
        add(&mut self.kinds, other.kinds);
        add(&mut self.states, other.states);
        add(&mut self.fates, other.fates);
        add(&mut self.tcp_cells, other.tcp_cells);
        add(&mut self.invalid, other.invalid);
        add(&mut self.cells, other.cells);
        add(&mut self.icmp, other.icmp);
        self.nat.merge(other.nat);
        add(&mut self.kernel_reasons, other.kernel_reasons);
    }
}

fn add<K: Ord>(to: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, n) in from {
        *to.entry(key).or_default() += n;
    }
}

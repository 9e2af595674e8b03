//! Which cases of address translation a run has met.

#![forbid(unsafe_code)]

use super::compare::Mismatch;
use super::ctnetlink::KernelExpectation;
use super::kernel::Answer;
use super::learnt::chance_in_vain;
use super::subject::{Ours, Subject};
use super::trace::Frame;
use serde::Serialize;
use stateway_core::conntrack::{CtState, Direction, Status};
use stateway_core::fate::{DropReason, Fate};
use stateway_core::nat::{How, Range, Side, Target};
use stateway_core::packet::tuple::{
    PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use stateway_core::packet::{Family, Offload, Packet};
use stateway_core::record::Translated;
use std::collections::BTreeMap;

/// The cases of each family.
const CASES: &[&str] = &[
    // Which address.
    "DNAT to one address",
    "DNAT to a range",
    "DNAT to a range --persistent",
    "DNAT of a port alone",
    "SNAT to one address",
    "SNAT to a range",
    "SNAT to a range --persistent",
    "SNAT to a range that the source is in",
    "SNAT of a port alone",
    "MASQUERADE",
    "REDIRECT",
    "NETMAP of the destination",
    "NETMAP of the source",
    "null binding of the destination",
    "null binding of the source",
    "source in INPUT",
    // Which port, at the source.
    "source: nothing had to change",
    "source: port kept",
    "source: mapping used again",
    "source: drawn from 1-511",
    "source: drawn from 600-1023",
    "source: drawn from 1024-65535",
    "source: drawn from a range",
    "source: drawn identifier",
    "source: taken over from a closed connection",
    "source: nothing free",
    "source: null binding of a clash",
    // And at the destination.
    "destination: port kept",
    "destination: inside the range and kept",
    "destination: next free of a range",
    "destination: shifted range",
    "destination: drawn",
    "destination: identifier counted from 0",
    "destination: nothing free",
    // Rewriting.
    "rewritten TCP, original",
    "rewritten TCP, reply",
    "rewritten UDP, original",
    "rewritten UDP, reply",
    "rewritten UDP without checksum",
    "rewritten UDP-Lite, original",
    "rewritten UDP-Lite, reply",
    "rewritten SCTP, original",
    "rewritten SCTP, reply",
    "rewritten ICMP, original",
    "rewritten ICMP, reply",
    "rewritten GRE, original",
    "rewritten other protocol, original",
    "rewritten other protocol, reply",
    "rewritten in pieces",
    "header too short",
    // Errors.
    "error with the connection, source translated",
    "error with the connection, destination translated",
    "error against the connection, source translated",
    "error against the connection, destination translated",
    "error of an untranslated connection",
    "error that cannot be translated",
    "error about TCP",
    "error about UDP",
    "error about SCTP",
    "error about ICMP",
    "router answers about a translated connection",
    // Helpers.
    "FTP announcement rewritten",
    "FTP numbers shifted",
    "FTP error shifted like a segment",
    "child of a translated connection",
    "child follows its master",
    // The rest.
    "dropped at confirm",
    "untracked or INVALID leaves as it is",
    "rules exchanged",
    "connection from before the table",
    "source port learnt from the kernel",
];

/// What one family cannot meet.
const IMPOSSIBLE: &[&str] = &[];

/// How often each case was met.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NatCases {
    /// `ipv4 MASQUERADE`
    pub met: BTreeMap<String, u64>,
    #[serde(skip)]
    loads: u64,
}

impl NatCases {
    pub(super) const fn saw_load(&mut self) {
        self.loads += 1;
    }

    /// Cases that nothing has met; none at all if nothing was translated.
    pub fn missing(&self) -> Vec<String> {
        if self.met.is_empty() {
            return Vec::new();
        }
        let both = ["ipv4", "ipv6"]
            .iter()
            .flat_map(|family| CASES.iter().map(move |case| format!("{family} {case}")));
        both.filter(|case| !self.met.contains_key(case) && !IMPOSSIBLE.contains(&case.as_str())).collect()
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (case, n) in other.met {
            *self.met.entry(case).or_default() += n;
        }
    }

    /// Notes one frame and what became of it.
    pub(super) fn saw(
        &mut self,
        frame: &Frame,
        (theirs, announced): (&Answer, &[KernelExpectation]),
        ours: &Ours,
        subject: &Subject,
    ) {
        let mut copy = frame.bytes.clone();
        let Ok(pkt) = Packet::parse(&mut copy, Offload::NONE) else { return };
        let family = pkt.family();
        let mut cases = Vec::new();
        for translated in &ours.translated {
            chosen(translated, subject, family, &mut cases);
        }
        rewritten(&pkt, theirs, ours, &mut cases);
        errors(&pkt, theirs, ours, &mut cases);
        helpers(&pkt, theirs, announced, ours, &mut cases);
        cases.extend(match ours.fate {
            Fate::Dropped(DropReason::ConfirmClash) => Some("dropped at confirm"),
            Fate::Dropped(DropReason::NatHeader) => Some("header too short"),
            Fate::Dropped(DropReason::NatError) => Some("error that cannot be translated"),
            _ => None,
        });
        if core::mem::take(&mut self.loads) > 0 {
            cases.push("rules exchanged");
        }
        for case in cases {
            let family = if family == Family::Ipv4 { "ipv4" } else { "ipv6" };
            *self.met.entry(format!("{family} {case}")).or_default() += 1;
        }
    }
}

/// What was chosen for one end, and how.
fn chosen(translated: &Translated, subject: &Subject, family: Family, cases: &mut Vec<&'static str>) {
    let rules = subject.router().rules();
    let rules = rules.for_family(family);
    let target = translated.by.and_then(|by| rules?.translation(by));
    let side = translated.side;
    match target {
        None => cases.push(match side {
            Side::Source => "null binding of the source",
            Side::Destination => "null binding of the destination",
        }),
        Some(target) => cases.push(named(target, translated)),
    }
    let range = asked(target);
    let by_nobody = target.is_none();
    cases.push(match side {
        Side::Source => source(translated, &range),
        Side::Destination => destination(translated, &range),
    });
    if by_nobody && side == Side::Source && translated.choice.tuple != translated.from {
        cases.push("source: null binding of a clash");
    }
    if side == Side::Source && translated.choice.how == How::Drawn {
        cases.push("source port learnt from the kernel");
    }
    let name = translated.by.and_then(|by| subject.router().rule_name(by));
    if name.is_some_and(|name| name.starts_with("nat/INPUT")) {
        cases.push("source in INPUT");
    }
}

/// The ports that a rule asks for, if it does.
fn asked(target: Option<&Target>) -> Range {
    match target {
        Some(
            Target::Dnat(range) | Target::Snat(range) | Target::Masquerade(range) | Target::Redirect(range),
        ) => *range,
        Some(Target::Netmap { .. }) | None => Range::default(),
    }
}

/// What the router left to chance where the kernel has none.
pub(super) fn compare_chance(ours: &Ours, subject: &Subject) -> Vec<Mismatch> {
    let rules = subject.router().rules();
    let in_vain = |translated: &Translated| {
        let rules = rules.for_family(translated.from.family)?;
        let target = translated.by.and_then(|by| rules.translation(by));
        chance_in_vain(translated, &asked(target))
    };
    ours.translated.iter().filter_map(in_vain).collect()
}

fn named(target: &Target, translated: &Translated) -> &'static str {
    let spread = |range: &Range| range.addrs.map(|(first, last)| first != last);
    match target {
        Target::Dnat(range) => match (spread(range), range.persistent) {
            (None, _) => "DNAT of a port alone",
            (Some(false), _) => "DNAT to one address",
            (Some(true), false) => "DNAT to a range",
            (Some(true), true) => "DNAT to a range --persistent",
        },
        Target::Snat(range) => match (spread(range), range.persistent) {
            (None, _) => "SNAT of a port alone",
            (Some(false), _) => "SNAT to one address",
            (Some(true), _) if translated.choice.how == How::Unchanged => {
                "SNAT to a range that the source is in"
            }
            (Some(true), false) => "SNAT to a range",
            (Some(true), true) => "SNAT to a range --persistent",
        },
        Target::Masquerade(_) => "MASQUERADE",
        Target::Redirect(_) => "REDIRECT",
        Target::Netmap { .. } => match translated.side {
            Side::Source => "NETMAP of the source",
            Side::Destination => "NETMAP of the destination",
        },
    }
}

fn source(translated: &Translated, range: &Range) -> &'static str {
    let from = translated.from;
    match translated.choice.how {
        How::Unchanged => "source: nothing had to change",
        How::PortKept => "source: port kept",
        How::Reused => "source: mapping used again",
        How::TakenOver => "source: taken over from a closed connection",
        How::Exhausted => "source: nothing free",
        How::NextFree | How::Drawn if from.is_icmp() => "source: drawn identifier",
        How::NextFree | How::Drawn if range.ports.is_some() => "source: drawn from a range",
        How::NextFree | How::Drawn => match from.left {
            ..512 => "source: drawn from 1-511",
            512..1024 => "source: drawn from 600-1023",
            1024.. => "source: drawn from 1024-65535",
        },
    }
}

fn destination(translated: &Translated, range: &Range) -> &'static str {
    match translated.choice.how {
        How::NextFree if range.base.is_some() => "destination: shifted range",
        How::NextFree if translated.from.is_icmp() => "destination: identifier counted from 0",
        How::NextFree => "destination: next free of a range",
        How::Drawn | How::Reused | How::TakenOver => "destination: drawn",
        How::Exhausted => "destination: nothing free",
        How::Unchanged | How::PortKept if range.ports.is_some_and(|(first, last)| first != last) => {
            "destination: inside the range and kept"
        }
        How::Unchanged | How::PortKept => "destination: port kept",
    }
}

/// What is rewritten of packets that are no errors.
fn rewritten(pkt: &Packet, theirs: &Answer, ours: &Ours, cases: &mut Vec<&'static str>) {
    if matches!(theirs.state, Some(CtState::Invalid | CtState::Untracked)) && ours.fate == Fate::Forwarded {
        cases.push("untracked or INVALID leaves as it is");
    }
    let Some(entry) = &theirs.entry else { return };
    let is_translated = has(entry.status, Status::SRC_NAT.union(Status::DST_NAT));
    if !has(entry.status, Status::SRC_NAT_DONE.union(Status::DST_NAT_DONE))
        && theirs.state == Some(CtState::Established)
    {
        cases.push("connection from before the table");
    }
    if !is_translated || theirs.sent.is_empty() || is_error(pkt) {
        return;
    }
    if pkt.fragment().is_some() {
        cases.push("rewritten in pieces");
        return;
    }
    if pkt.proto() == PROTO_UDP && pkt.l4().get(6..8) == Some(&[0, 0]) {
        cases.push("rewritten UDP without checksum");
    }
    let is_reply = theirs.direction == Some(Direction::Reply);
    cases.push(match (pkt.proto(), is_reply) {
        (PROTO_TCP, false) => "rewritten TCP, original",
        (PROTO_TCP, true) => "rewritten TCP, reply",
        (PROTO_UDP, false) => "rewritten UDP, original",
        (PROTO_UDP, true) => "rewritten UDP, reply",
        (PROTO_UDPLITE, false) => "rewritten UDP-Lite, original",
        (PROTO_UDPLITE, true) => "rewritten UDP-Lite, reply",
        (PROTO_SCTP, false) => "rewritten SCTP, original",
        (PROTO_SCTP, true) => "rewritten SCTP, reply",
        (PROTO_ICMP | PROTO_ICMPV6, false) => "rewritten ICMP, original",
        (PROTO_ICMP | PROTO_ICMPV6, true) => "rewritten ICMP, reply",
        (PROTO_GRE, _) => "rewritten GRE, original",
        (_, false) => "rewritten other protocol, original",
        (_, true) => "rewritten other protocol, reply",
    });
}

fn errors(pkt: &Packet, theirs: &Answer, ours: &Ours, cases: &mut Vec<&'static str>) {
    let Some(entry) = &theirs.entry else { return };
    let (source, destination) = (has(entry.status, Status::SRC_NAT), has(entry.status, Status::DST_NAT));
    let answers = matches!(ours.fate, Fate::Rejected(..) | Fate::Delivered | Fate::Dropped(_));
    if answers && (source || destination) && !theirs.sent.is_empty() {
        cases.push("router answers about a translated connection");
    }
    if !is_error(pkt) || theirs.state != Some(CtState::Related) || theirs.sent.is_empty() {
        return;
    }
    let along = theirs.direction == Some(Direction::Original);
    if source {
        cases.push(if along {
            "error with the connection, source translated"
        } else {
            "error against the connection, source translated"
        });
    }
    if destination {
        cases.push(if along {
            "error with the connection, destination translated"
        } else {
            "error against the connection, destination translated"
        });
    }
    if !source && !destination {
        cases.push("error of an untranslated connection");
        return;
    }
    cases.extend(match entry.original.map(|tuple| tuple.proto) {
        Some(PROTO_TCP) => Some("error about TCP"),
        Some(PROTO_UDP) => Some("error about UDP"),
        Some(PROTO_SCTP) => Some("error about SCTP"),
        Some(PROTO_ICMP | PROTO_ICMPV6) => Some("error about ICMP"),
        _ => None,
    });
    if along && has(entry.status, Status::SEQ_ADJUST) {
        cases.push("FTP error shifted like a segment");
    }
}

fn helpers(
    pkt: &Packet,
    theirs: &Answer,
    announced: &[KernelExpectation],
    ours: &Ours,
    cases: &mut Vec<&'static str>,
) {
    let Some(entry) = &theirs.entry else { return };
    if theirs.sent.is_empty() {
        return;
    }
    let is_translated = has(entry.status, Status::SRC_NAT.union(Status::DST_NAT));
    let has_announced = announced.iter().any(|e| Some(e.master) == entry.original);
    if entry.helper.as_deref() == Some("ftp") && is_translated {
        if has_announced && pkt.l4().len() > 30 {
            cases.push("FTP announcement rewritten");
        }
        if has(entry.status, Status::SEQ_ADJUST) && !is_error(pkt) {
            cases.push("FTP numbers shifted");
        }
    }
    if has(entry.status, Status::EXPECTED) && is_translated {
        cases.push("child of a translated connection");
        if theirs.state == Some(CtState::Related) && ours.translated.is_empty() {
            cases.push("child follows its master");
        }
    }
}

fn is_error(pkt: &Packet) -> bool {
    const FIRST_QUERY_V6: u8 = 128;
    let kind = pkt.l4().first().copied();
    match (pkt.family(), pkt.proto()) {
        (Family::Ipv4, PROTO_ICMP) => matches!(kind, Some(3 | 4 | 5 | 11 | 12)),
        (Family::Ipv6, PROTO_ICMPV6) => kind.is_some_and(|kind| kind < FIRST_QUERY_V6),
        _ => false,
    }
}

fn has(status: u32, bits: Status) -> bool {
    status & u32::from(bits.bits()) != 0
}

//! Which cases of ICMP there are: what kind of message, and what tracking says of it.

#![forbid(unsafe_code)]

use stateway_core::conntrack::{CtState, Direction, InvalidReason};
use stateway_core::packet::tuple::{
    PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use stateway_core::packet::{Family, Packet};

/// The names of the messages that are treated alike, by family: errors, questions, answers, what is never tracked, and
/// what nobody knows.
const ERRORS: [&[u8]; 2] = [&[3, 4, 5, 11, 12], &[1, 2, 3, 4, 100, 127, 0]];
const QUESTIONS: [&[u8]; 2] = [&[8, 13, 15, 17], &[128, 139]];
const ANSWERS: [&[u8]; 2] = [&[0, 14, 16, 18], &[129, 140]];
const UNTRACKED: [&[u8]; 2] = [&[], &[130, 131, 132, 133, 134, 135, 136, 143, 151, 152]];
const REDIRECT_V6: u8 = 137;
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];
const QUOTED: [&str; 6] = ["tcp", "udp", "udplite", "icmp", "sctp", "gre"];

/// The name of the case that a message is.
pub(super) fn name(
    pkt: &Packet,
    state: CtState,
    direction: Option<Direction>,
    invalid: Option<InvalidReason>,
) -> Option<String> {
    let family = usize::from(pkt.family() == Family::Ipv6);
    let Some(kind) = pkt.l4().first() else { return Some(format!("{} empty", FAMILIES[family])) };
    let is_error = ERRORS[family].contains(kind) || family == 1 && *kind == REDIRECT_V6;
    let known = [QUESTIONS, ANSWERS, UNTRACKED].iter().any(|list| list[family].contains(kind));
    let message = match (is_error || known, family, kind) {
        (true, ..) => format!("type {kind}"),
        (false, 1, ..128) => "other error".to_owned(),
        _ => "unknown".to_owned(),
    };
    let verdict = match (state, invalid) {
        (CtState::Invalid, reason) => format!("INVALID {}", reason.map_or("", InvalidReason::code)),
        (CtState::Related, _) => {
            let way = direction.map_or("", Direction::word);
            return Some(format!("{} {message} RELATED {way}", FAMILIES[family]));
        }
        (state, _) => state.word().to_owned(),
    };
    Some(format!("{} {message} {verdict}", FAMILIES[family]))
}

/// The name of what a RELATED error is about.
pub(super) fn about(family: Family, quoted: u8) -> String {
    let proto = match quoted {
        PROTO_TCP => "tcp",
        PROTO_UDP => "udp",
        PROTO_UDPLITE => "udplite",
        PROTO_ICMP | PROTO_ICMPV6 => "icmp",
        PROTO_SCTP => "sctp",
        PROTO_GRE => "gre",
        _ => "another protocol",
    };
    format!("{} error about {proto}", FAMILIES[usize::from(family == Family::Ipv6)])
}

/// Every case that a long run must meet.
pub(super) fn all() -> Vec<String> {
    let mut all = Vec::new();
    for (at, family) in FAMILIES.iter().enumerate() {
        let mut add = |kinds: &[u8], verdicts: &[&str]| {
            for kind in kinds {
                all.extend(verdicts.iter().map(|verdict| format!("{family} type {kind} {verdict}")));
            }
        };
        add(
            ERRORS[at],
            &[
                "RELATED original",
                "RELATED reply",
                "INVALID icmp-orphan",
                "INVALID icmp-quote",
                "INVALID icmp-addressee",
                "INVALID icmp-truncated",
                "INVALID checksum",
            ],
        );
        add(QUESTIONS[at], &["NEW", "ESTABLISHED", "INVALID checksum", "INVALID icmp-truncated"]);
        add(ANSWERS[at], &["ESTABLISHED", "INVALID icmp-unsolicited"]);
        add(UNTRACKED[at], &["UNTRACKED"]);
        all.push(format!("{family} unknown INVALID icmp-type"));
        all.extend(QUOTED.iter().chain(&["another protocol"]).map(|p| format!("{family} error about {p}")));
    }
    let redirects = ["RELATED original", "RELATED reply", "INVALID icmp-redirect", "INVALID icmp-orphan"];
    all.extend(redirects.iter().map(|verdict| format!("ipv6 type {REDIRECT_V6} {verdict}")));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_case_is_named_twice() {
        let mut cases = all();
        let count = cases.len();
        cases.sort();
        cases.dedup();
        assert_eq!(cases.len(), count);
    }
}

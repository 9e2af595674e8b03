//! `-m ipv6header`: which headers stand between the IPv6 header and the upper layer; and the way from one to the next.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::names;
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::not;
use crate::packet::{Family, Packet};
use bitflags::bitflags;
use core::fmt;

pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
pub(super) const AUTH: u8 = 51;
const NONE: u8 = 59;
pub(super) const DESTINATION: u8 = 60;
const IPV6_HEADER_LEN: usize = 40;
const FRAGMENT_HEADER_LEN: usize = 8;

/// How long an extension header says to be; its first two bytes are `next` and `len`.
pub(super) const fn header_len(header: u8, len: u8) -> usize {
    match header {
        FRAGMENT => FRAGMENT_HEADER_LEN,
        AUTH => (len as usize + 2) * 4,
        _ => (len as usize + 1) * 8,
    }
}

/// Looks for one extension header, and asks `read` about the packet from there on.
///
/// A packet without it is none of the match's; one that ends on the way there, or of which `read` says `None`, is
/// dropped.
pub(super) fn ask(view: &View<'_>, wanted: u8, read: impl FnOnce(&[u8]) -> Option<bool>) -> Answer {
    let packet = view.pkt.l3();
    let (mut at, mut header) = (IPV6_HEADER_LEN, packet[6]);
    while let HOP_BY_HOP | ROUTING | FRAGMENT | AUTH | DESTINATION = header {
        let rest = packet.get(at..).unwrap_or_default();
        let (Some(&[next, len]), false) = (rest.first_chunk(), header == ROUTING && rest.len() < 4) else {
            return Answer::Drop;
        };
        if header == wanted {
            return read(rest).map_or(Answer::Drop, Answer::from);
        }
        // Behind the header of a later fragment there is nothing that could be read.
        if header == FRAGMENT && rest.get(2..4).is_none_or(|offset| (offset[0], offset[1] & 0xf8) != (0, 0)) {
            return if rest.len() < 4 { Answer::Drop } else { Answer::No };
        }
        (at, header) = (at + header_len(header, len), next);
    }
    Answer::No
}

/// Whether the packet ends before its upper layer is named, or is a later fragment whose piece begins among extension
/// headers: then it has no protocol that `-p` could ask for.
pub(in crate::filter) fn ends_early(pkt: &Packet<'_>) -> bool {
    if pkt.family() != Family::Ipv6 {
        return false;
    }
    // Of a routing header Linux wants four bytes here: the packet may end behind two, which name what follows.
    let may_end_early = pkt.proto() == NONE || pkt.l4().is_empty() || pkt.is_later_fragment();
    if !may_end_early {
        return false;
    }
    let packet = pkt.l3();
    let (mut at, mut header) = (IPV6_HEADER_LEN, packet[6]);
    while let HOP_BY_HOP | ROUTING | FRAGMENT | AUTH | DESTINATION = header {
        let rest = packet.get(at..).unwrap_or_default();
        let is_cut = matches!(header, ROUTING | FRAGMENT) && rest.len() < 4;
        let (Some(&[next, len]), false) = (rest.first_chunk(), is_cut) else { return true };
        if header == FRAGMENT && (rest[2], rest[3] & !0b111) != (0, 0) {
            return matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTH | DESTINATION);
        }
        (at, header) = (at + header_len(header, len), next);
    }
    false
}

bitflags! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Headers: u8 {
        const PROTOCOL = 1;
        const NONE = 2;
        const ESP = 8;
        const AUTH = 16;
        const FRAGMENT = 32;
        const ROUTING = 64;
        const DESTINATION = 4;
        const HOP_BY_HOP = 128;
    }
}

/// In the order in which iptables-save prints them: what they print as, other names, and the number.
const NAMES: [(Headers, &str, &[&str], u8); 8] = [
    (Headers::HOP_BY_HOP, "hop-by-hop", &["hop", "hopopt"], HOP_BY_HOP),
    (Headers::DESTINATION, "ipv6-opts", &["dst"], DESTINATION),
    (Headers::ROUTING, "ipv6-route", &["route"], ROUTING),
    (Headers::FRAGMENT, "ipv6-frag", &["frag"], FRAGMENT),
    (Headers::AUTH, "ah", &["auth"], AUTH),
    (Headers::ESP, "esp", &[], ESP),
    (Headers::NONE, "ipv6-nonxt", &["none"], NONE),
    (Headers::PROTOCOL, "protocol", &["prot"], 255),
];

fn parse(text: &str) -> Result<Headers, Complaint> {
    text.strip_suffix(',').unwrap_or(text).split(',').try_fold(Headers::empty(), |all, word| {
        let by_name = || names::protocol_number(word).filter(|n| *n != 0);
        let is_plain = word == "0" || word.starts_with(|c: char| ('1'..='9').contains(&c));
        let by_number = word.parse::<u8>().ok().filter(|_| is_plain).or_else(by_name);
        let found = NAMES.iter().find(|(_, name, others, number)| {
            *name == word || others.contains(&word) || by_number == Some(*number)
        });
        let (bit, ..) = found.ok_or_else(|| {
            let known = NAMES.iter().flat_map(|(_, name, others, _)| others.iter().chain([name]));
            let all: Vec<&str> = NAMES.iter().map(|(_, name, ..)| *name).collect();
            Complaint::new(format!("no header of IPv6 named `{word}`")).hint(
                did_you_mean(word, known.copied())
                    .unwrap_or_else(|| format!("the headers are {}", all.join(", "))),
            )
        })?;
        Ok(all | *bit)
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    pub headers: Headers,
    pub negated: bool,
    /// Others may be there as well.
    pub soft: bool,
}

/// The headers that a packet has; `None` where it ends in the middle of them.
fn headers_of(pkt: &Packet<'_>) -> Option<Headers> {
    let packet = pkt.l3();
    let (mut at, mut header) = (IPV6_HEADER_LEN, packet[6]);
    let mut found = Headers::empty();
    loop {
        found |= match header {
            HOP_BY_HOP => Headers::HOP_BY_HOP,
            ROUTING => Headers::ROUTING,
            FRAGMENT => Headers::FRAGMENT,
            AUTH => Headers::AUTH,
            DESTINATION => Headers::DESTINATION,
            NONE => return Some(found | Headers::NONE),
            ESP => {
                packet.get(at..)?.first_chunk::<2>()?;
                return Some(found | Headers::ESP);
            }
            _ => return Some(found | Headers::PROTOCOL),
        };
        let &[next, len] = packet.get(at..)?.first_chunk()?;
        (at, header) = (at + header_len(header, len), next);
        if at > packet.len() {
            // What comes next is named, though it is not there.
            let end = match header {
                NONE | ESP => Headers::empty(),
                _ => Headers::PROTOCOL,
            };
            return Some(found | end);
        }
    }
}

impl Matcher for Ipv6Header {
    const SPEC: Spec = Spec {
        name: "ipv6header",
        family: Some(Family::Ipv6),
        protos: &[],
        options: &[Opt::value("header").or_not(), Opt::flag("soft")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("header")?;
        Ok(Self { headers: given.read(parse)?, negated: given.negated, soft: options.has("soft") })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let Self { headers, negated, soft } = *self;
        let Some(found) = headers_of(view.pkt) else { return Answer::No };
        // Turned round, a soft one asks that none of them is there.
        let holds = match (soft, negated) {
            (true, true) => !found.intersects(headers),
            (true, false) => found.contains(headers),
            (false, _) => (found == headers) != negated,
        };
        holds.into()
    }
}

impl fmt::Display for Ipv6Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { headers, negated, soft } = self;
        let names = NAMES.iter().filter(|(bit, ..)| headers.contains(*bit)).map(|(_, name, ..)| *name);
        write!(f, "{} --header {}", not(*negated), names.collect::<Vec<_>>().join(","))?;
        if *soft { f.write_str(" --soft") } else { Ok(()) }
    }
}

//! `-m icmp` and `-m icmp6`: type and code of a message.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{not, number_u8, unsigned};
use crate::packet::Family;
use crate::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6};
use core::fmt;

/// A name, its type, and the codes that it means.
type Name = (&'static str, u8, u8, u8);

const V4_NAMES: &[Name] = &[
    ("any", 255, 0, 255),
    ("echo-reply", 0, 0, 255),
    ("pong", 0, 0, 255),
    ("destination-unreachable", 3, 0, 255),
    ("network-unreachable", 3, 0, 0),
    ("host-unreachable", 3, 1, 1),
    ("protocol-unreachable", 3, 2, 2),
    ("port-unreachable", 3, 3, 3),
    ("fragmentation-needed", 3, 4, 4),
    ("source-route-failed", 3, 5, 5),
    ("network-unknown", 3, 6, 6),
    ("host-unknown", 3, 7, 7),
    ("network-prohibited", 3, 9, 9),
    ("host-prohibited", 3, 10, 10),
    ("TOS-network-unreachable", 3, 11, 11),
    ("TOS-host-unreachable", 3, 12, 12),
    ("communication-prohibited", 3, 13, 13),
    ("host-precedence-violation", 3, 14, 14),
    ("precedence-cutoff", 3, 15, 15),
    ("source-quench", 4, 0, 255),
    ("redirect", 5, 0, 255),
    ("network-redirect", 5, 0, 0),
    ("host-redirect", 5, 1, 1),
    ("TOS-network-redirect", 5, 2, 2),
    ("TOS-host-redirect", 5, 3, 3),
    ("echo-request", 8, 0, 255),
    ("ping", 8, 0, 255),
    ("router-advertisement", 9, 0, 255),
    ("router-solicitation", 10, 0, 255),
    ("time-exceeded", 11, 0, 255),
    ("ttl-exceeded", 11, 0, 255),
    ("ttl-zero-during-transit", 11, 0, 0),
    ("ttl-zero-during-reassembly", 11, 1, 1),
    ("parameter-problem", 12, 0, 255),
    ("ip-header-bad", 12, 0, 0),
    ("required-option-missing", 12, 1, 1),
    ("timestamp-request", 13, 0, 255),
    ("timestamp-reply", 14, 0, 255),
    ("address-mask-request", 17, 0, 255),
    ("address-mask-reply", 18, 0, 255),
];

const V6_NAMES: &[Name] = &[
    ("destination-unreachable", 1, 0, 255),
    ("no-route", 1, 0, 0),
    ("communication-prohibited", 1, 1, 1),
    ("beyond-scope", 1, 2, 2),
    ("address-unreachable", 1, 3, 3),
    ("port-unreachable", 1, 4, 4),
    ("failed-policy", 1, 5, 5),
    ("reject-route", 1, 6, 6),
    ("packet-too-big", 2, 0, 255),
    ("time-exceeded", 3, 0, 255),
    ("ttl-exceeded", 3, 0, 255),
    ("ttl-zero-during-transit", 3, 0, 0),
    ("ttl-zero-during-reassembly", 3, 1, 1),
    ("parameter-problem", 4, 0, 255),
    ("bad-header", 4, 0, 0),
    ("unknown-header-type", 4, 1, 1),
    ("unknown-option", 4, 2, 2),
    ("echo-request", 128, 0, 255),
    ("ping", 128, 0, 255),
    ("echo-reply", 129, 0, 255),
    ("pong", 129, 0, 255),
    ("router-solicitation", 133, 0, 255),
    ("router-advertisement", 134, 0, 255),
    ("neighbour-solicitation", 135, 0, 255),
    ("neighbor-solicitation", 135, 0, 255),
    ("neighbour-advertisement", 136, 0, 255),
    ("neighbor-advertisement", 136, 0, 255),
    ("redirect", 137, 0, 255),
];

/// The type and code that a name stands for in a set of hash:ip,port; none for names of a type with several codes.
pub(in crate::filter) fn type_and_code(name: &str, family: Family) -> Option<(u8, u8)> {
    let names = if family == Family::Ipv4 { V4_NAMES } else { V6_NAMES };
    let (_, kind, low, high) = *names.iter().find(|(known, ..)| *known == name)?;
    let has_codes = names.iter().any(|(_, other, low, high)| *other == kind && low == high);
    (kind != 255 && (low == high || !has_codes)).then_some((kind, low))
}

/// What both families share: one type, and codes from `0` to `1` of `codes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeMatch {
    pub kind: u8,
    pub codes: (u8, u8),
    pub negated: bool,
}

impl TypeMatch {
    fn read(options: &Options<'_>, option: &str, names: &[Name]) -> Result<Self, Problem> {
        let given = options.require(option)?;
        let (kind, codes) = given.read(|text| parse(text, names))?;
        Ok(Self { kind, codes, negated: given.negated })
    }

    /// `None` if the header is not there.
    fn holds(self, view: &View<'_>, any: Option<u8>) -> Answer {
        if view.pkt.is_later_fragment() {
            return Answer::No;
        }
        // Netfilter asks for all eight bytes of the header.
        let Some(&[kind, code, ..]) = view.pkt.l4().first_chunk::<8>() else { return Answer::Drop };
        let Self { kind: wanted, codes: (low, high), negated } = self;
        let holds = any == Some(wanted) || (kind == wanted && low <= code && code <= high);
        (holds != negated).into()
    }

    fn write(self, option: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, codes: (low, high), negated } = self;
        write!(f, "{} --{option} {kind}", not(negated))?;
        // Of a range iptables-save prints the beginning alone.
        if (low, high) == (0, 255) { Ok(()) } else { write!(f, "/{low}") }
    }
}

/// A name, the unique beginning of one, or `TYPE` and perhaps `/CODE` or `/LOW:HIGH` as numbers.
fn parse(text: &str, names: &[Name]) -> Result<(u8, (u8, u8)), Complaint> {
    let beginnings = |text: &str| {
        let text = text.to_ascii_lowercase();
        names.iter().filter(move |(name, ..)| name.to_ascii_lowercase().starts_with(&text))
    };
    let exact = names.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text));
    let mut candidates = beginnings(text);
    if let Some((_, kind, low, high)) = exact.or_else(|| candidates.next()) {
        if exact.is_none()
            && let Some((other, ..)) = candidates.next()
        {
            return Err(Complaint::new(format!("`{text}` is the beginning of several ICMP types"))
                .hint(format!("one is `{other}`")));
        }
        return Ok((*kind, (*low, *high)));
    }
    let (kind, code) = match text.split_once('/') {
        Some((kind, code)) => (kind, Some(code)),
        None => (text, None),
    };
    if !unsigned(kind).bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        let complaint = Complaint::new(format!("no ICMP type named `{text}`"));
        return Err(complaint.hint(
            did_you_mean(text, names.iter().map(|(name, ..)| *name))
                .unwrap_or_else(|| "a number will do: `TYPE` or `TYPE/CODE`".to_owned()),
        ));
    }
    let kind = number_u8(kind)?;
    let codes = match code.map(|code| code.split_once(':').unwrap_or((code, code))) {
        None => (0, 255),
        Some((low, high)) => (number_u8(low)?, number_u8(high)?),
    };
    Ok((kind, codes))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp(pub TypeMatch);

impl Matcher for Icmp {
    const SPEC: Spec = Spec {
        name: "icmp",
        family: Some(Family::Ipv4),
        protos: &[PROTO_ICMP],
        options: &[Opt::value("icmp-type").or_not()],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        TypeMatch::read(options, "icmp-type", V4_NAMES).map(Self)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        self.0.holds(view, Some(255))
    }
}

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.kind == 255 {
            return write!(f, "{} --icmp-type any", not(self.0.negated));
        }
        self.0.write("icmp-type", f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp6(pub TypeMatch);

impl Matcher for Icmp6 {
    const SPEC: Spec = Spec {
        name: "icmp6",
        family: Some(Family::Ipv6),
        protos: &[PROTO_ICMPV6],
        options: &[Opt::value("icmpv6-type").or_not()],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        TypeMatch::read(options, "icmpv6-type", V6_NAMES).map(Self)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        self.0.holds(view, None)
    }
}

impl fmt::Display for Icmp6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write("icmpv6-type", f)
    }
}

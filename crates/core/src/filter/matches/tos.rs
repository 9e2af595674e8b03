//! `-m tos` and `-m dscp`: the type of service, whole or without its last two bits.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{not, number, number_u8, unsigned};
use core::fmt;

const NAMES: [(&str, u8); 5] = [
    ("Minimize-Delay", 0x10),
    ("Maximize-Throughput", 0x08),
    ("Maximize-Reliability", 0x04),
    ("Minimize-Cost", 0x02),
    ("Normal-Service", 0x00),
];
/// A name says nothing of the two bits that are ECN today.
const NAME_MASK: u8 = 0x3f;

const CLASSES: [(&str, u8); 22] = [
    ("CS0", 0x00),
    ("CS1", 0x08),
    ("CS2", 0x10),
    ("CS3", 0x18),
    ("CS4", 0x20),
    ("CS5", 0x28),
    ("CS6", 0x30),
    ("CS7", 0x38),
    ("BE", 0x00),
    ("AF11", 0x0a),
    ("AF12", 0x0c),
    ("AF13", 0x0e),
    ("AF21", 0x12),
    ("AF22", 0x14),
    ("AF23", 0x16),
    ("AF31", 0x1a),
    ("AF32", 0x1c),
    ("AF33", 0x1e),
    ("AF41", 0x22),
    ("AF42", 0x24),
    ("AF43", 0x26),
    ("EF", 0x2e),
];

/// A value, `VALUE/MASK` or a name.
pub(in crate::filter) fn parse_tos(text: &str) -> Result<(u8, u8), Complaint> {
    if unsigned(text).bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        return match text.split_once('/') {
            None => Ok((number_u8(text)?, 0xff)),
            Some((value, mask)) => Ok((number_u8(value)?, number_u8(mask)?)),
        };
    }
    if let Some((_, value)) = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok((*value, NAME_MASK));
    }
    let names = NAMES.iter().map(|(name, _)| *name);
    Err(Complaint::new(format!("no type of service named `{text}`")).hint(
        did_you_mean(text, names.clone())
            .unwrap_or_else(|| format!("a number, or one of {}", names.collect::<Vec<_>>().join(", "))),
    ))
}

pub(in crate::filter) fn parse_dscp(text: &str) -> Result<u8, Complaint> {
    number(text, 63).map(|n| n as u8)
}

pub(in crate::filter) fn parse_class(text: &str) -> Result<u8, Complaint> {
    if let Some((_, value)) = CLASSES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(*value);
    }
    Err(Complaint::new(format!("no DSCP class named `{text}`"))
        .hint("the classes are CS0 to CS7, BE, AF11 to AF43, EF"))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tos {
    pub value: u8,
    pub mask: u8,
    pub negated: bool,
}

impl Matcher for Tos {
    const SPEC: Spec =
        Spec { name: "tos", family: None, protos: &[], options: &[Opt::value("tos").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("tos")?;
        let (value, mask) = given.read(parse_tos)?;
        Ok(Self { value, mask, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        ((view.pkt.tos() & self.mask == self.value) != self.negated).into()
    }
}

impl fmt::Display for Tos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} --tos {:#04x}/{:#04x}", not(self.negated), self.value, self.mask)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dscp {
    pub value: u8,
    pub negated: bool,
}

impl Matcher for Dscp {
    const SPEC: Spec = Spec {
        name: "dscp",
        family: None,
        protos: &[],
        options: &[Opt::value("dscp").or_not(), Opt::value("dscp-class").or_not()],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        options.require_any()?;
        options.exclusive(&["dscp", "dscp-class"])?;
        let given = &options.given[0];
        let value = given.read(if given.opt.name == "dscp" { parse_dscp } else { parse_class })?;
        Ok(Self { value, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        ((view.pkt.tos() >> 2 == self.value) != self.negated).into()
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} --dscp {:#04x}", not(self.negated), self.value)
    }
}

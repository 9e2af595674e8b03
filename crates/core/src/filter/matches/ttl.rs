//! `-m ttl` and `-m hl`: how many hops a packet has left.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::{not, number_u8};
use crate::packet::Family;
use core::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// What both share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hops {
    pub compare: Compare,
    pub value: u8,
}

impl Hops {
    fn read(options: &Options<'_>, names: [&str; 3]) -> Result<Self, Problem> {
        options.require_any()?;
        options.exclusive(&names)?;
        let given = &options.given[0];
        let compare = match given.opt.name {
            name if name == names[0] && given.negated => Compare::NotEqual,
            name if name == names[0] => Compare::Equal,
            name if name == names[1] => Compare::Less,
            _ => Compare::Greater,
        };
        Ok(Self { compare, value: given.read(number_u8)? })
    }

    fn holds(self, ttl: u8) -> Answer {
        let Self { compare, value } = self;
        match compare {
            Compare::Equal => ttl == value,
            Compare::NotEqual => ttl != value,
            Compare::Less => ttl < value,
            Compare::Greater => ttl > value,
        }
        .into()
    }

    fn write(self, prefix: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compare, value } = self;
        let word = match compare {
            Compare::Equal | Compare::NotEqual => "eq",
            Compare::Less => "lt",
            Compare::Greater => "gt",
        };
        write!(f, "{} --{prefix}-{word} {value}", not(compare == Compare::NotEqual))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ttl(pub Hops);

impl Matcher for Ttl {
    const SPEC: Spec = Spec {
        name: "ttl",
        family: Some(Family::Ipv4),
        protos: &[],
        options: &[Opt::value("ttl-eq").also(&["ttl"]).or_not(), Opt::value("ttl-lt"), Opt::value("ttl-gt")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Hops::read(options, ["ttl-eq", "ttl-lt", "ttl-gt"]).map(Self)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        self.0.holds(view.pkt.ttl())
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write("ttl", f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hl(pub Hops);

impl Matcher for Hl {
    const SPEC: Spec = Spec {
        name: "hl",
        family: Some(Family::Ipv6),
        protos: &[],
        options: &[Opt::value("hl-eq").also(&["hl"]).or_not(), Opt::value("hl-lt"), Opt::value("hl-gt")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Hops::read(options, ["hl-eq", "hl-lt", "hl-gt"]).map(Self)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        self.0.holds(view.pkt.ttl())
    }
}

impl fmt::Display for Hl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write("hl", f)
    }
}

//! `-j TTL` and `-j HL`: write how many hops a packet has left.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::filter::Table;
use crate::filter::matches::Setting;
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::number_u8;
use crate::filter::walk::context::Context;
use crate::packet::{Family, Packet};
use crate::record::Recorder;
use core::fmt;

/// What both share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Set(u8),
    Inc(u8),
    Dec(u8),
}

impl Change {
    fn read(options: &Options<'_>, names: [&str; 3]) -> Result<Self, Problem> {
        options.exclusive(&names)?;
        let Some(given) = options.given.first() else {
            let problem = options.problem(format!("`-j {}` needs to know what to do", options.name));
            return Err(problem.hint(names.map(|n| format!("`--{n}`")).join(", ")));
        };
        let some = |text: &str| match number_u8(text)? {
            0 => Err(Complaint::new("a change by 0 is none").hint("at least 1")),
            n => Ok(n),
        };
        match given.opt.name {
            name if name == names[0] => given.read(number_u8).map(Self::Set),
            name if name == names[1] => given.read(some).map(Self::Inc),
            _ => given.read(some).map(Self::Dec),
        }
    }

    const fn of(self, ttl: u8) -> u8 {
        match self {
            Self::Set(value) => value,
            Self::Inc(by) => ttl.saturating_add(by),
            Self::Dec(by) => ttl.saturating_sub(by),
        }
    }

    fn write(self, prefix: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(n) => write!(f, " --{prefix}-set {n}"),
            Self::Inc(n) => write!(f, " --{prefix}-inc {n}"),
            Self::Dec(n) => write!(f, " --{prefix}-dec {n}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ttl(pub Change);

impl Targeted for Ttl {
    const SPEC: Spec = Spec {
        name: "TTL",
        family: Some(Family::Ipv4),
        protos: &[],
        tables: &[Table::Mangle],
        hooks: &[],
        options: &[Opt::value("ttl-set"), Opt::value("ttl-inc"), Opt::value("ttl-dec")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Change::read(options, ["ttl-set", "ttl-inc", "ttl-dec"]).map(Self)
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, _: &mut Context<R>, _: Place) -> Next {
        pkt.set_ttl(self.0.of(pkt.ttl()));
        Next::Rule
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write("ttl", f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hl(pub Change);

impl Targeted for Hl {
    const SPEC: Spec = Spec {
        name: "HL",
        family: Some(Family::Ipv6),
        protos: &[],
        tables: &[Table::Mangle],
        hooks: &[],
        options: &[Opt::value("hl-set"), Opt::value("hl-inc"), Opt::value("hl-dec")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Change::read(options, ["hl-set", "hl-inc", "hl-dec"]).map(Self)
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, _: &mut Context<R>, _: Place) -> Next {
        pkt.set_ttl(self.0.of(pkt.ttl()));
        Next::Rule
    }
}

impl fmt::Display for Hl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write("hl", f)
    }
}

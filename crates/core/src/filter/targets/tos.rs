//! `-j DSCP` and `-j TOS`: write the type of service.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::filter::Table;
use crate::filter::matches::{Setting, parse_class, parse_dscp, parse_tos};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::number_u8;
use crate::filter::walk::context::Context;
use crate::packet::Packet;
use crate::record::Recorder;
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dscp {
    pub value: u8,
}

impl Targeted for Dscp {
    const SPEC: Spec = Spec {
        name: "DSCP",
        family: None,
        protos: &[],
        tables: &[Table::Mangle],
        hooks: &[],
        options: &[Opt::value("set-dscp"), Opt::value("set-dscp-class")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["set-dscp", "set-dscp-class"])?;
        let Some(given) = options.given.first() else {
            return Err(options
                .problem("`-j DSCP` needs the value to set")
                .hint("`--set-dscp 10` or `--set-dscp-class EF`"));
        };
        Ok(Self { value: given.read(if given.opt.name == "set-dscp" { parse_dscp } else { parse_class })? })
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, _: &mut Context<R>, _: Place) -> Next {
        pkt.set_tos(pkt.tos() & 3 | self.value << 2);
        Next::Rule
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " --set-dscp {:#04x}", self.value)
    }
}

/// Clears the bits of `mask`, then turns over those of `value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tos {
    pub value: u8,
    pub mask: u8,
}

impl Targeted for Tos {
    const SPEC: Spec = Spec {
        name: "TOS",
        family: None,
        protos: &[],
        tables: &[Table::Mangle],
        hooks: &[],
        options: &[Opt::value("set-tos"), Opt::value("and-tos"), Opt::value("or-tos"), Opt::value("xor-tos")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["set-tos", "and-tos", "or-tos", "xor-tos"])?;
        let Some(given) = options.given.first() else {
            return Err(options.problem("`-j TOS` needs the value to set").hint("`--set-tos 0x10`"));
        };
        let (value, mask) = match given.opt.name {
            "set-tos" => given.read(parse_tos)?,
            "and-tos" => (0, !given.read(number_u8)?),
            "or-tos" => given.read(number_u8).map(|bits| (bits, bits))?,
            _ => (given.read(number_u8)?, 0),
        };
        Ok(Self { value, mask })
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, _: &mut Context<R>, _: Place) -> Next {
        pkt.set_tos((pkt.tos() & !self.mask) ^ self.value);
        Next::Rule
    }
}

impl fmt::Display for Tos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " --set-tos {:#04x}/{:#04x}", self.value, self.mask)
    }
}

//! `-j CT` and `-j NOTRACK`: what the raw table asks of connection tracking.

#![forbid(unsafe_code)]

use super::{Next, Spec, Targeted};
use crate::context::Context;
use crate::filter::matches::Setting;
use crate::filter::options::{Opt, Options, Problem};
use crate::filter::{RuleId, Table};
use crate::packet::Packet;
use crate::record::Recorder;
use core::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ct {
    pub notrack: bool,
}

impl Targeted for Ct {
    const SPEC: Spec = Spec {
        name: "CT",
        family: None,
        protos: &[],
        tables: &[Table::Raw],
        hooks: &[],
        options: &[Opt::flag("notrack")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Ok(Self { notrack: options.has("notrack") })
    }

    fn apply<R: Recorder>(&self, _: &mut Packet, ctx: &mut Context<R>, _: RuleId) -> Next {
        ctx.template.notrack |= self.notrack;
        Next::Rule
    }
}

impl fmt::Display for Ct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.notrack { f.write_str(" --notrack") } else { Ok(()) }
    }
}

/// The old name of `-j CT --notrack`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notrack;

impl Targeted for Notrack {
    const SPEC: Spec =
        Spec { name: "NOTRACK", family: None, protos: &[], tables: &[Table::Raw], hooks: &[], options: &[] };

    fn build(_: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Ok(Self)
    }

    fn apply<R: Recorder>(&self, _: &mut Packet, ctx: &mut Context<R>, _: RuleId) -> Next {
        ctx.template.notrack = true;
        Next::Rule
    }
}

impl fmt::Display for Notrack {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

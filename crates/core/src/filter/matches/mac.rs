//! `-m mac`: the link address that a packet came from.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::not;
use crate::packet::Mac as LinkAddr;
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mac {
    pub source: LinkAddr,
    pub negated: bool,
}

impl Matcher for Mac {
    const SPEC: Spec =
        Spec { name: "mac", family: None, protos: &[], options: &[Opt::value("mac-source").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("mac-source")?;
        let source = given.read(|text| {
            text.parse().map_err(|()| {
                Complaint::new(format!("`{text}` is not a link address"))
                    .hint("six bytes: `02:00:00:00:00:01`")
            })
        })?;
        Ok(Self { source, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        // A packet that the router itself wrote came from no link.
        if view.in_iface.is_none() {
            return Answer::No;
        }
        ((view.pkt.src_mac() == self.source) != self.negated).into()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} --mac-source {}", not(self.negated), self.source)
    }
}

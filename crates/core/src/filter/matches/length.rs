//! `-m length`: the length of the IP packet.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::{not, range_u16};
use core::fmt;

const IPV6_LEN: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Length {
    pub low: u16,
    pub high: u16,
    pub negated: bool,
}

impl Matcher for Length {
    const SPEC: Spec =
        Spec { name: "length", family: None, protos: &[], options: &[Opt::value("length").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("length")?;
        let (low, high) = given.read(range_u16)?;
        Ok(Self { low, high, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        // A packet that says no length counts as its header.
        let len = if view.pkt.has_no_length() { IPV6_LEN } else { view.pkt.l3().len() };
        let holds = usize::from(self.low) <= len && len <= usize::from(self.high);
        (holds != self.negated).into()
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high, negated } = self;
        write!(f, "{} --length {low}", not(*negated))?;
        if low == high { Ok(()) } else { write!(f, ":{high}") }
    }
}

//! `-m length`: the length of the IP packet.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::options::{Complaint, Opt, Options, Problem};
use crate::filter::value::{not, number_u16};
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Length {
    pub low: u16,
    pub high: u16,
    pub negated: bool,
}

/// `A`, `A:B`, `A:`, `:B`
fn parse(text: &str) -> Result<(u16, u16), Complaint> {
    let Some((low, high)) = text.split_once(':') else { return number_u16(text).map(|n| (n, n)) };
    let low = if low.is_empty() { 0 } else { number_u16(low)? };
    let high = if high.is_empty() { u16::MAX } else { number_u16(high)? };
    Ok((low, high))
}

impl Matcher for Length {
    const SPEC: Spec =
        Spec { name: "length", family: None, protos: &[], options: &[Opt::value("length").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("length")?;
        let (low, high) = given.read(parse)?;
        Ok(Self { low, high, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let len = view.pkt.l3().len();
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

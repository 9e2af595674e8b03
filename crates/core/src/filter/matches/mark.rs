//! `-m mark` and `-m connmark`: the mark of the packet, or of its connection.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, number_u32};
use core::fmt;

/// `value` in the bits of `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    pub value: u32,
    pub mask: u32,
    pub negated: bool,
}

/// `VALUE` or `VALUE/MASK`.
pub(in crate::filter) fn parse_marked(text: &str) -> Result<(u32, u32), Complaint> {
    match text.split_once('/') {
        None => Ok((number_u32(text)?, u32::MAX)),
        Some((value, mask)) => Ok((number_u32(value)?, number_u32(mask)?)),
    }
}

impl Marked {
    fn read(options: &Options<'_>) -> Result<Self, Problem> {
        let given = options.require("mark")?;
        let (value, mask) = given.read(parse_marked)?;
        Ok(Self { value, mask, negated: given.negated })
    }

    const fn holds(self, mark: u32) -> bool {
        (mark & self.mask == self.value) != self.negated
    }
}

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, mask, negated } = self;
        write!(f, "{} --mark {value:#x}", not(*negated))?;
        if *mask == u32::MAX { Ok(()) } else { write!(f, "/{mask:#x}") }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(pub Marked);

impl Matcher for Mark {
    const SPEC: Spec =
        Spec { name: "mark", family: None, protos: &[], options: &[Opt::value("mark").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Marked::read(options).map(Self)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        self.0.holds(view.mark).into()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connmark(pub Marked);

impl Matcher for Connmark {
    const SPEC: Spec =
        Spec { name: "connmark", family: None, protos: &[], options: &[Opt::value("mark").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Marked::read(options).map(Self)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        // Without a connection there is no mark to compare, negated or not.
        (view.ct.has_entry() && self.0.holds(view.ct.mark)).into()
    }
}

impl fmt::Display for Connmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

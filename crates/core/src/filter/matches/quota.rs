//! `-m quota`: holds until so many bytes have passed.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::kept::memory::Memory;
use crate::filter::kept::shared::Copies;
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::{not, number};
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    pub bytes: u64,
    pub negated: bool,
    /// Bytes that have been taken from it.
    used: Memory<u64>,
}

impl Matcher for Quota {
    const SPEC: Spec =
        Spec { name: "quota", family: None, protos: &[], options: &[Opt::value("quota").or_not()] };

    fn copied(&self, _: &Copies<'_>) -> Self {
        Self { used: self.used.copied(), ..self.clone() }
    }

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("quota")?;
        let bytes = given.read(|text| number(text, u64::MAX))?;
        Ok(Self { bytes, negated: given.negated, used: Memory::default() })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let len = view.pkt.l3().len() as u64;
        let mut used = self.used.lock();
        let enough = self.bytes - *used >= len;
        // What does not fit ends it, also for smaller packets that come later.
        *used = if enough { *used + len } else { self.bytes };
        (enough != self.negated).into()
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} --quota {}", not(self.negated), self.bytes)
    }
}

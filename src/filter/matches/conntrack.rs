//! `-m conntrack`: what connection tracking knows of the packet's connection.

#![forbid(unsafe_code)]

use super::state::StateSet;
use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::options::{Opt, Options, Problem};
use crate::filter::value::not;
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    pub states: StateSet,
    pub negated: bool,
}

impl Matcher for Conntrack {
    const SPEC: Spec =
        Spec { name: "conntrack", family: None, protos: &[], options: &[Opt::value("ctstate").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("ctstate")?;
        Ok(Self { states: given.read(StateSet::parse_conntrack)?, negated: given.negated })
    }

    #[inline]
    fn check(&self, view: &View<'_>) -> Answer {
        (self.states.contains(StateSet::of(view.state())) != self.negated).into()
    }
}

impl fmt::Display for Conntrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} --ctstate {}", not(self.negated), self.states)
    }
}

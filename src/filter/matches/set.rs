//! `-m set`: addresses and ports that a set holds.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::ipset::{Set, Side};
use crate::filter::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::value::not;
use core::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub struct SetMatch {
    pub set: Arc<Set>,
    pub sides: Vec<Side>,
    pub negated: bool,
}

/// Finds a set by name.
pub(in crate::filter) fn lookup(name: &str, setting: &Setting) -> Result<Arc<Set>, Complaint> {
    setting.shared.set(name).ok_or_else(|| {
        let names = setting.shared.set_names();
        let complaint = Complaint::new(format!("no set named `{name}`"));
        match did_you_mean(name, names.iter().map(String::as_str)) {
            Some(hint) => complaint.hint(hint),
            None => complaint.hint("sets stand in front of the tables, as `ipset save` writes them"),
        }
    })
}

impl Matcher for SetMatch {
    const SPEC: Spec = Spec {
        name: "set",
        family: None,
        protos: &[],
        options: &[Opt::pair("match-set").also(&["set"]).or_not()],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let given = options.require("match-set")?;
        let set = given.read_arg(0, |name| lookup(name, setting))?;
        Ok(Self { set, sides: given.read_arg(1, Side::parse_list)?, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        (self.set.contains(view.pkt, &self.sides, view.now) != self.negated).into()
    }
}

impl fmt::Display for SetMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sides: Vec<&str> = self.sides.iter().map(|s| s.word()).collect();
        write!(f, "{} --match-set {} {}", not(self.negated), self.set.name, sides.join(","))
    }
}

//! `-m set`: addresses and ports that a set holds.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::kept::shared::Copies;
use crate::filter::text::ipset::{Compare, Query, Set, Side, Sight};
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{not, number};
use core::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub struct SetMatch {
    pub set: Arc<Set>,
    pub sides: Vec<Side>,
    pub negated: bool,
    pub query: Query,
}

/// The ways in which `--packets-…` and `--bytes-…` compare.
const COUNTERS: [[&str; 3]; 2] =
    [["packets-eq", "packets-lt", "packets-gt"], ["bytes-eq", "bytes-lt", "bytes-gt"]];

fn compare(options: &Options<'_>, names: &[&str; 3]) -> Result<Option<Compare>, Problem> {
    options.exclusive(names)?;
    let Some(given) = names.iter().find_map(|name| options.get(name)) else { return Ok(None) };
    let n = given.read(|text| number(text, u64::MAX))?;
    Ok(Some(match names.iter().position(|name| *name == given.opt.name) {
        Some(0) if given.negated => Compare::Differs(n),
        Some(0) => Compare::Equal(n),
        Some(1) => Compare::Less(n),
        _ => Compare::Greater(n),
    }))
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
        options: &[
            Opt::pair("match-set").also(&["set"]).or_not(),
            Opt::flag("return-nomatch").again(),
            Opt::flag("update-counters").or_not().again(),
            Opt::flag("update-subcounters").or_not().again(),
            Opt::value("packets-eq").or_not(),
            Opt::value("packets-lt"),
            Opt::value("packets-gt"),
            Opt::value("bytes-eq").or_not(),
            Opt::value("bytes-lt"),
            Opt::value("bytes-gt"),
        ],
    };

    fn copied(&self, copies: &Copies<'_>) -> Self {
        Self { set: copies.set(&self.set), ..self.clone() }
    }

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let given = options.require("match-set")?;
        let set = given.read_arg(0, |name| lookup(name, setting))?;
        let sides = given.read_arg(1, Side::parse_list)?;
        if sides.len() < set.kind.dimensions() {
            let problem = Problem::new(
                given.at,
                format!("set `{}` asks for {} sides, so this never holds", set.name, set.kind.dimensions()),
            );
            setting.warn(problem.hint(format!("its elements are like `{}`", set.kind.example())));
        }
        let is_off = |name| options.given.iter().any(|given| given.opt.name == name && given.negated);
        let query = Query {
            wants_nomatch: options.has("return-nomatch"),
            keeps_counters: is_off("update-counters"),
            keeps_subcounters: is_off("update-subcounters"),
            packets: compare(options, &COUNTERS[0])?,
            bytes: compare(options, &COUNTERS[1])?,
        };
        let asked = COUNTERS.as_flattened().iter().find_map(|name| options.get(name));
        if let Some(asked) = asked.filter(|_| !set.has_counters()) {
            let problem =
                Problem::new(asked.at, format!("set `{}` counts nothing, so this always holds", set.name));
            setting.warn(problem.hint("`create … counters` makes its elements count"));
        }
        Ok(Self { set, sides, negated: given.negated, query })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let View { pkt, in_iface, out_iface, now, .. } = *view;
        let sight = Sight { pkt, in_iface, out_iface, now };
        (self.set.contains(&sight, &self.sides, &self.query) != self.negated).into()
    }
}

impl fmt::Display for SetMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set, sides, negated, query } = self;
        let sides: Vec<&str> = sides.iter().map(|s| s.word()).collect();
        write!(f, "{} --match-set {} {}", not(*negated), set.name, sides.join(","))?;
        for (is_set, text) in [
            (query.wants_nomatch, " --return-nomatch"),
            (query.keeps_counters, " ! --update-counters"),
            (query.keeps_subcounters, " ! --update-subcounters"),
        ] {
            f.write_str(if is_set { text } else { "" })?;
        }
        for (compare, [equal, less, greater]) in [query.packets, query.bytes].into_iter().zip(COUNTERS) {
            match compare {
                None => {}
                Some(Compare::Equal(n)) => write!(f, " --{equal} {n}")?,
                Some(Compare::Differs(n)) => write!(f, " ! --{equal} {n}")?,
                Some(Compare::Less(n)) => write!(f, " --{less} {n}")?,
                Some(Compare::Greater(n)) => write!(f, " --{greater} {n}")?,
            }
        }
        Ok(())
    }
}

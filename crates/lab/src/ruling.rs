//! Which rule a lab file means, and what the rules that are in force say.

#![forbid(unsafe_code)]

use super::model::{Lab, RuleText, RulesText};
use stateway_core::filter::matches::Match;
use stateway_core::filter::{Rule, RuleId, Ruleset};
use stateway_core::packet::Family;

/// A rule as a test means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleRef {
    /// No rule decided, but the policy of a chain.
    Policy,
    /// By its place: `filter/FORWARD/1`.
    Name(String),
    /// By what `-m comment` says of it: it stays the same wherever the rule stands.
    Comment(String),
}

impl RuleRef {
    /// Reads `policy`, `filter/FORWARD/1`, `FORWARD/1`; anything else is a comment.
    pub(crate) fn read(text: &str) -> Self {
        let is_number = |part: &str| part.parse::<u32>().is_ok();
        match text.split('/').collect::<Vec<_>>()[..] {
            ["policy"] | [_, "policy"] | [_, _, "policy"] => Self::Policy,
            [_, number] if is_number(number) => Self::Name(format!("filter/{text}")),
            [_, _, number] if is_number(number) => Self::Name(text.to_owned()),
            _ => Self::Comment(text.to_owned()),
        }
    }

    /// As a report says it.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Policy => POLICY,
            Self::Name(text) | Self::Comment(text) => text,
        }
    }
}

const POLICY: &str = "policy";

/// The rules that are in force during a step.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    pub(crate) v4: Option<String>,
    pub(crate) v6: Option<String>,
    /// What `-i` and `-o` may name.
    ports: Vec<String>,
}

impl InForce {
    /// The lab's own.
    pub(crate) fn of(lab: &Lab) -> Self {
        let ports = lab.router.ifaces.iter().map(|iface| iface.name.clone()).collect();
        Self { v4: lab.router.rules.clone(), v6: lab.router.rules6.clone(), ports }
    }

    /// Those that a step puts in force.
    pub(crate) fn replace(&mut self, rules: &RulesText) {
        self.v4.clone_from(&rules.v4);
        self.v6.clone_from(&rules.v6);
    }

    /// Their text, if there are any of this family.
    pub(crate) fn text(&self, family: Family) -> Option<&str> {
        match family {
            Family::Ipv4 => self.v4.as_deref(),
            Family::Ipv6 => self.v6.as_deref(),
        }
    }

    pub(crate) fn ruleset(&self, family: Family) -> Option<Ruleset> {
        Ruleset::load(self.text(family)?, family, &self.ports).ok().map(|loaded| loaded.ruleset)
    }

    /// The names of the rules that are meant; none if no rule has this comment.
    pub(crate) fn names(&self, rule: &RuleRef, family: Family) -> Vec<String> {
        match rule {
            RuleRef::Policy | RuleRef::Name(_) => vec![rule.text().to_owned()],
            RuleRef::Comment(wanted) => {
                let Some(ruleset) = self.ruleset(family) else { return Vec::new() };
                let has = |rule: &Rule| comment(rule).is_some_and(|comment| comment == wanted);
                rules(&ruleset).filter(|(_, rule)| has(rule)).map(|(id, _)| ruleset.rule_name(id)).collect()
            }
        }
    }
}

/// Every rule of a ruleset, and which one it is.
pub(crate) fn rules(ruleset: &Ruleset) -> impl Iterator<Item = (RuleId, &Rule)> {
    ruleset.tables().iter().flat_map(move |table| {
        ruleset.chains(*table).iter().enumerate().flat_map(move |(chain, found)| {
            found.rules.iter().enumerate().map(move |(index, rule)| {
                let (chain, index) = (chain as u16, index as u32);
                (RuleId { family: ruleset.family, table: *table, chain, index }, rule)
            })
        })
    })
}

/// Every comment in a ruleset.
pub(crate) fn comments(text: &RuleText, ports: &[String]) -> Vec<String> {
    let Ok(loaded) = Ruleset::load(&text.text, text.family, ports) else { return Vec::new() };
    rules(&loaded.ruleset).filter_map(|(_, rule)| comment(rule).map(str::to_owned)).collect()
}

fn comment(rule: &Rule) -> Option<&str> {
    rule.matches.listed.iter().find_map(|listed| match listed {
        Match::Comment(comment) => Some(comment.text.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_goes_by_its_place_or_else_by_its_comment() {
        let name = |name: &str| RuleRef::Name(name.to_owned());
        let comment = |text: &str| RuleRef::Comment(text.to_owned());
        for (text, want) in [
            ("policy", RuleRef::Policy),
            ("FORWARD/policy", RuleRef::Policy),
            ("filter/FORWARD/policy", RuleRef::Policy),
            ("FORWARD/2", name("filter/FORWARD/2")),
            ("raw/PREROUTING/1", name("raw/PREROUTING/1")),
            ("#ssh out", comment("#ssh out")),
            ("in/out", comment("in/out")),
            ("FORWARD/x", comment("FORWARD/x")),
        ] {
            assert_eq!(RuleRef::read(text), want, "{text}");
        }
    }
}

//! `rules`: puts other rules in force.

#![forbid(unsafe_code)]

use super::Kind;
use crate::locate::key;
use crate::model::Word;
#[cfg(target_os = "linux")]
use crate::netns::Namespaces;
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError};
use crate::sim::Sim;
use schemars::JsonSchema;
use serde::Deserialize;
use stateway_core::packet::Family;

/// Puts other rules in force, all or nothing; a family that is not named has those of the lab.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesSpec {
    /// The rules for IPv4, as iptables-save prints them.
    pub v4: Option<String>,
    /// The same in a file, named from the folder of the lab file.
    pub v4_file: Option<String>,
    /// The rules for IPv6, as ip6tables-save prints them.
    pub v6: Option<String>,
    /// The same in a file, named from the folder of the lab file.
    pub v6_file: Option<String>,
    /// Puts the rules of the lab back in force.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub restore: bool,
}

/// The rules that come into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesText {
    pub v4: Option<String>,
    pub v6: Option<String>,
}

impl Kind for RulesText {
    type Spec = RulesSpec;

    const SUCCEEDS: bool = false;

    fn resolve(spec: &RulesSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        Self::checked(spec, check, path, place).into_iter().collect()
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        runner.middle.replace_rules(self)?;
        Ok(in_force())
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.replace_rules(self)?;
        Ok(in_force())
    }
}

impl RulesText {
    fn checked(spec: &RulesSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Option<Self> {
        let scope = place.scope;
        let given = [&spec.v4, &spec.v4_file, &spec.v6, &spec.v6_file].iter().any(|text| text.is_some());
        if spec.restore {
            if given {
                check.problem(path, "`restore` brings the lab's own rules back: leave the others out", None);
            }
            let text = Self { v4: scope.router.rules.clone(), v6: scope.router.rules6.clone() };
            return Some(text);
        }
        if !given {
            check.problem(
                path,
                "no rules are given",
                Some("`v4`, `v4_file`, `v6`, `v6_file` or `restore: true`".to_owned()),
            );
            return None;
        }
        let names: Vec<String> = scope.router.ifaces.iter().map(|iface| iface.name.clone()).collect();
        let v4 = check.rules(Family::Ipv4, &key(path, "v4"), spec.v4.as_ref(), spec.v4_file.as_ref(), &names);
        let v6 = check.rules(Family::Ipv6, &key(path, "v6"), spec.v6.as_ref(), spec.v6_file.as_ref(), &names);
        // The family that the step does not speak of keeps the rules of the lab.
        let v4 = v4.or_else(|| scope.router.rules.clone());
        let v6 = v6.or_else(|| scope.router.rules6.clone());
        Some(Self { v4, v6 })
    }
}

fn in_force() -> Observation {
    Observation::new(Word::Ok, "the new rules are in force")
}

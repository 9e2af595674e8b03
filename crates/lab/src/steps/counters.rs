//! `counters`: looks at counters of rules and drops.

#![forbid(unsafe_code)]

use super::Kind;
use crate::model::Word;
#[cfg(target_os = "linux")]
use crate::netns::Namespaces;
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError};
use crate::sim::Sim;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

/// Counters by name: `filter/FORWARD/2` and `filter/FORWARD/policy` count packets that a rule or a policy decided,
/// `drop/table-full` those that were dropped for a reason.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountersSpec {
    /// Counters that must have exactly this value.
    #[serde(default)]
    pub equal: IndexMap<String, u64>,
    /// Counters that must have this value or a higher one.
    #[serde(default)]
    pub at_least: IndexMap<String, u64>,
}

/// What counters must show, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterQuery {
    pub equal: Vec<(String, u64)>,
    pub at_least: Vec<(String, u64)>,
}

impl Kind for CounterQuery {
    type Spec = CountersSpec;

    const SUCCEEDS: bool = false;

    fn resolve(spec: &CountersSpec, _: &mut Check<'_>, _: &str, _: &StepPlace<'_>) -> Vec<Self> {
        let pairs = |map: &IndexMap<String, u64>| map.iter().map(|(name, n)| (name.clone(), *n)).collect();
        vec![Self { equal: pairs(&spec.equal), at_least: pairs(&spec.at_least) }]
    }

    fn compare(&self, seen: &Observation, wrong: &mut Vec<String>) {
        let checks =
            self.equal.iter().map(|pair| (pair, "")).chain(self.at_least.iter().map(|p| (p, "at least ")));
        for ((name, want), bound) in checks {
            let have = seen.values.get(name).copied();
            let agrees =
                have.is_some_and(|have| if bound.is_empty() { have == *want } else { have >= *want });
            if !agrees {
                let have = have.map_or("no such counter".to_owned(), |have| have.to_string());
                wrong.push(format!("{name}: expected {bound}{want}, got {have}"));
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        let values = runner.middle.counters()?;
        Ok(Observation { values, ..Observation::new(Word::Ok, "") })
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        Ok(Observation { values: sim.counters(), ..Observation::new(Word::Ok, "") })
    }
}

//! `conntrack`: looks at the connection table.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::table_differs;
use crate::model::Word;
#[cfg(target_os = "linux")]
use crate::netns::Namespaces;
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError};
use crate::sim::Sim;
use crate::spec::OneOrMany;
use schemars::JsonSchema;
use serde::Deserialize;

/// What the connection table holds. A line is described by words that must all be in it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConntrackSpec {
    /// For each of these, some line has all its words.
    pub contains: Option<OneOrMany>,
    /// For each of these, no line has all its words.
    pub lacks: Option<OneOrMany>,
    /// How many connections there are.
    pub count: Option<u64>,
}

/// What the connection table must hold and must not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableQuery {
    pub contains: Vec<String>,
    pub lacks: Vec<String>,
    pub count: Option<u64>,
}

impl Kind for TableQuery {
    type Spec = ConntrackSpec;

    const SUCCEEDS: bool = false;

    fn resolve(spec: &ConntrackSpec, _: &mut Check<'_>, _: &str, _: &StepPlace<'_>) -> Vec<Self> {
        let words = |list: &Option<OneOrMany>| list.clone().unwrap_or_default().0;
        vec![Self { contains: words(&spec.contains), lacks: words(&spec.lacks), count: spec.count }]
    }

    fn compare(&self, seen: &Observation, wrong: &mut Vec<String>) {
        let table: Vec<String> = seen.stdout.lines().map(str::to_owned).collect();
        table_differs(wrong, &table, &self.contains, &self.lacks);
        if let Some(count) = self.count.filter(|count| *count != table.len() as u64) {
            wrong.push(format!("expected {count} connections, there are {}", table.len()));
        }
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        runner.middle.table().map(|table| listed(&table))
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        Ok(listed(&sim.list()))
    }
}

fn listed(table: &[String]) -> Observation {
    let note = format!("{} connections", table.len());
    Observation { stdout: table.join("\n"), ..Observation::new(Word::Ok, note) }
}

//! `exec`: runs a command on a host.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::{self, Flows};
use crate::locate::key;
use crate::model::{Expect, HostId, Lab};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::spec::OneOrMany;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// Runs a command on a host; `ok` if it succeeds, else `failed` (live and kernel only).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// Where it runs; several hosts repeat the step.
    pub host: OneOrMany,
    /// A line for `sh -c`.
    pub run: String,
    /// What the command reads.
    pub input: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub host: HostId,
    /// A line for `sh -c`.
    pub run: String,
    pub input: Option<String>,
    pub timeout: Option<Duration>,
}

/// Why it is not simulated.
const NOT_SIMULATED: &str =
    "not applicable in simulation: `exec` runs a program, and simulated hosts have none";

impl Kind for Exec {
    type Spec = ExecSpec;

    fn resolve(spec: &ExecSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let make =
            |host| Self { host, run: spec.run.clone(), input: spec.input.clone(), timeout: place.timeout };
        check.hosts_named(&key(path, "host"), &spec.host, place.scope).into_iter().map(make).collect()
    }

    fn host(&self) -> Option<HostId> {
        Some(self.host)
    }

    fn deciding<'a>(&self, expect: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
        judge::of_a_program(expect, seen, earlier)
    }

    fn lacks_in_simulation(&self, _: &Lab) -> Option<String> {
        Some(NOT_SIMULATED.to_owned())
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        clients::watched(runner, |runner| namespaces::exec(runner, self))
    }

    fn simulate(&self, _: &mut Sim) -> Result<Observation, RunError> {
        Err(RunError::Unsupported(NOT_SIMULATED.to_owned()))
    }
}

/// On hosts that are namespaces.
#[cfg(target_os = "linux")]
mod namespaces {
    use super::Exec;
    use crate::model::Word;
    use crate::netns::Namespaces;
    use crate::netns::clients::{WORK, on};
    use crate::probe::Finding;
    use std::ffi::OsString;
    use std::os::unix::process::ExitStatusExt as _;

    pub(super) fn exec(runner: &Namespaces, step: &Exec) -> anyhow::Result<Finding> {
        let words = ["sh", "-c", &step.run].map(OsString::from).to_vec();
        let output = on(runner, step.host, words, step.input.as_deref(), step.timeout.unwrap_or(WORK))?;
        let exit = output.code();
        let signal = output.status.and_then(|status| status.signal());
        let (word, note) = match (exit, signal) {
            (Some(0), _) => (Word::Ok, output.stdout.trim().lines().next().unwrap_or_default().to_owned()),
            (Some(code), _) => (Word::Failed, format!("exit code {code}: {}", output.stderr.trim())),
            (None, Some(signal)) => {
                (Word::Failed, format!("signal {signal} ended it: {}", output.stderr.trim()))
            }
            (None, None) => (Word::Failed, "it does not end".to_owned()),
        };
        let note = note.trim_end_matches(": ");
        Ok(Finding { stdout: output.stdout, exit, ..Finding::new(word, note) })
    }
}

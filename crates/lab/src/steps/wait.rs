//! `wait`: lets time pass.

#![forbid(unsafe_code)]

use super::Kind;
use crate::model::Word;
#[cfg(target_os = "linux")]
use crate::netns::Namespaces;
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError, Runner as _};
use crate::sim::Sim;
use crate::spec::TimeSpec;
use std::time::Duration;

/// How much time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub Duration);

/// Nobody waits longer in real time.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

impl Kind for Wait {
    type Spec = TimeSpec;

    const SUCCEEDS: bool = false;

    fn resolve(spec: &TimeSpec, check: &mut Check<'_>, path: &str, _: &StepPlace<'_>) -> Vec<Self> {
        check.duration(path, Some(spec)).map(Self).into_iter().collect()
    }

    fn lacks_in_real_time(&self) -> Option<String> {
        (self.0 > LONGEST_WAIT).then(|| {
            let duration = humantime::format_duration(self.0);
            format!("not applicable in real time: it waits {duration}; `--on sim` does so in no time")
        })
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        use crate::netns::command;
        let (_never, channel) = crossbeam_channel::bounded::<()>(0);
        command::receive(&channel, self.0, &runner.state.interrupt)?;
        Ok(self.passed())
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.wait(self.0);
        Ok(self.passed())
    }
}

impl Wait {
    fn passed(self) -> Observation {
        Observation::new(Word::Ok, format!("{} passed", humantime::format_duration(self.0)))
    }
}

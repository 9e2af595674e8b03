//! One lab on one runner: makes it, takes its tests, takes it away.

use super::super::super::Failure;
#[cfg(target_os = "linux")]
use super::super::super::Result;
use super::super::{Format, Voice, Words};
use super::TestArgs;
use super::jobs::Job;
use stateway_lab::builtin;
use stateway_lab::model::{Lab, RunnerKind};
#[cfg(target_os = "linux")]
use stateway_lab::netns::command::Interrupt;
use stateway_lab::report;
use stateway_lab::sim::Sim;
use stateway_lab::trial::{self, TestReport};

/// The report's names for what comes before the tests.
pub(super) const COMES_UP: &str = "the lab comes up";
const HAS_TESTS: &str = "the lab has tests";

/// Elsewhere nothing is made that must be taken away: the signal ends the command.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt;

#[cfg(not(target_os = "linux"))]
impl Interrupt {
    fn is_set(&self) -> bool {
        false
    }
}

/// What tells that the user wants to stop. Nobody listens for it where only the simulator runs, which leaves nothing behind.
pub(super) fn listen(kinds: &[RunnerKind]) -> anyhow::Result<Interrupt> {
    #[cfg(target_os = "linux")]
    if kinds.iter().any(|kind| *kind != RunnerKind::Sim) {
        return Interrupt::listen();
    }
    let _ = kinds;
    Ok(Interrupt::default())
}

/// What came of one lab on one runner.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) reports: Vec<TestReport>,
    pub(super) failure: Option<Failure>,
}

/// Takes the tests of a job, and tells of each as it ends.
pub(super) fn take(job: &Job<'_>, args: &TestArgs, interrupt: &Interrupt, voice: Voice<'_>) -> Taken {
    let teller = Teller::new(job, args.format, voice);
    teller.begin();
    if interrupt.is_set() {
        return teller.not_run("interrupted");
    }
    if job.lab.tests.is_empty() {
        let failure = Failure::Input(anyhow::anyhow!("{} has no tests", builtin::shown(&job.lab.file)));
        return teller.not_begun(HAS_TESTS, failure);
    }
    match job.kind {
        RunnerKind::Sim => simulated(args.seed, &teller),
        #[cfg(target_os = "linux")]
        RunnerKind::Live | RunnerKind::Kernel => real(args.restart, interrupt, &teller),
        #[cfg(not(target_os = "linux"))]
        RunnerKind::Live | RunnerKind::Kernel => {
            teller.not_begun(COMES_UP, Failure::Machine(anyhow::anyhow!("it takes Linux")))
        }
    }
}

/// Tells of each test as it ends.
struct Teller<'a> {
    lab: &'a Lab,
    kind: RunnerKind,
    format: Format,
    width: usize,
    voice: Voice<'a>,
}

impl<'a> Teller<'a> {
    fn new(job: &Job<'a>, format: Format, voice: Voice<'a>) -> Self {
        let Job { lab, kind } = *job;
        let width = lab.tests.iter().map(|test| test.name.chars().count()).max().unwrap_or_default().min(60);
        Self { lab, kind, format, width, voice }
    }

    fn begin(&self) {
        if self.format == Format::Text {
            (self.voice)(Words::Said(format!("{}: {}", self.lab.name, self.lab.description)));
        }
    }

    fn tell(&self, test: &TestReport) {
        let mut text = match self.format {
            Format::Json => report::json(&self.lab.name, test).to_string(),
            Format::Text => report::line(test, self.width),
        };
        let details = if self.format == Format::Text { report::details(test) } else { String::new() };
        if !details.is_empty() {
            text = format!("{text}\n{}", details.trim_end());
        }
        (self.voice)(Words::Said(text));
    }

    /// It did not come so far that a test could be run.
    fn not_begun(&self, first: &str, failure: Failure) -> Taken {
        let reports = trial::not_begun(self.lab, self.kind, first, &failure.text());
        for report in &reports {
            self.tell(report);
        }
        Taken { reports, failure: Some(failure) }
    }

    /// It did not come to this lab at all.
    fn not_run(&self, why: &str) -> Taken {
        let reports: Vec<TestReport> = trial::not_run(self.lab, self.kind, why).collect();
        for report in &reports {
            self.tell(report);
        }
        Taken { reports, failure: Some(Failure::Machine(anyhow::anyhow!("{why}"))) }
    }
}

fn simulated(seed: u64, teller: &Teller<'_>) -> Taken {
    let lab = teller.lab;
    match Sim::new(lab.clone(), seed) {
        Ok(mut sim) => {
            let reports = trial::run(lab, &mut sim, |test| teller.tell(test));
            Taken { reports, failure: None }
        }
        Err(errors) => {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let error = anyhow::anyhow!("{}: {}", builtin::shown(&lab.file), errors.join("\n"));
            teller.not_begun(COMES_UP, Failure::Input(error))
        }
    }
}

/// With real programs. A lab that is up is used and left up; else it is made, and taken down whatever happens.
#[cfg(target_os = "linux")]
fn real(restart: bool, interrupt: &Interrupt, teller: &Teller<'_>) -> Taken {
    use stateway_lab::netns::state;
    let (mut runner, stays) = match stand_up(restart, interrupt, teller) {
        Ok(standing) => standing,
        Err(failure) => return teller.not_begun(COMES_UP, failure),
    };
    let reports = trial::run(teller.lab, &mut runner, |test| teller.tell(test));
    runner.sessions_end();
    let left = if stays {
        runner.restore_rules()
    } else {
        state::remove_locked(&teller.lab.name, &runner.state.lock).map(drop)
    };
    let failure = left.and(interrupt.check()).err().map(Failure::Machine);
    Taken { reports, failure }
}

/// A lab that stands, and whether it stays when the tests are over.
#[cfg(target_os = "linux")]
fn stand_up(
    restart: bool,
    interrupt: &Interrupt,
    teller: &Teller<'_>,
) -> Result<(stateway_lab::netns::Namespaces, bool)> {
    use super::super::up::{self, Standing};
    let Teller { lab, kind, voice, .. } = teller;
    let tell = |text: String| voice(Words::Told(text));
    let standing = up::make_way(lab, *kind, restart, interrupt, voice)?;
    if let Standing::Up(_) = standing
        && let Some(mut runner) = up::attach((*lab).clone(), *kind, interrupt)?
    {
        if runner.has_other_rules().map_err(Failure::Machine)? {
            return Err(Failure::Input(anyhow::anyhow!(
                "the router of the lab `{}` has other rules than it came up with from {}: somebody has replaced them\n  \
                 hint: `--restart` builds it again from the file",
                lab.name,
                builtin::shown(&runner.state.record.file)
            )));
        }
        tell(format!("the lab `{}` is up already: it is tested as it stands, and left up", lab.name));
        return Ok((runner, true));
    }
    let mut runner = up::bring_up((*lab).clone(), *kind, interrupt, voice)?;
    let stays = matches!(standing, Standing::TakenDown);
    if stays {
        runner.finish().map_err(Failure::Machine)?;
        tell(format!("the lab `{}` is up again, and is left up", lab.name));
    }
    Ok((runner, stays))
}

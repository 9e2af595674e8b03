//! One lab on one runner: makes it, takes its tests, takes it away.

use super::super::super::Failure;
#[cfg(target_os = "linux")]
use super::super::super::Result;
use super::super::super::render;
use super::super::{Voice, Words};
use super::jobs::Job;
use super::{TestArgs, TestFormat};
use stateway_lab::builtin;
#[cfg(target_os = "linux")]
use stateway_lab::model::RulesText;
use stateway_lab::model::{Lab, RunnerKind};
#[cfg(target_os = "linux")]
pub(super) use stateway_lab::netns::command::Interrupt;
use stateway_lab::report::{self, Look};
use stateway_lab::sim::Sim;
use stateway_lab::trial::{self, TestReport};
use stateway_runtime::terminal;

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
    let teller = Teller::new(job, args, voice);
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
        RunnerKind::Live | RunnerKind::Kernel => real(args, interrupt, &teller),
        #[cfg(not(target_os = "linux"))]
        RunnerKind::Live | RunnerKind::Kernel => {
            teller.not_begun(COMES_UP, Failure::Machine(anyhow::anyhow!("it takes Linux")))
        }
    }
}

/// Tells of each test as it ends.
struct Teller<'a> {
    label: &'a str,
    lab: &'a Lab,
    kind: RunnerKind,
    format: TestFormat,
    look: Look,
    width: usize,
    voice: Voice<'a>,
}

impl<'a> Teller<'a> {
    fn new(job: &Job<'a>, args: &TestArgs, voice: Voice<'a>) -> Self {
        let Job { label, lab, kind } = *job;
        let format = args.format;
        let look = match format {
            TestFormat::Text if render::has_colours() => Look { colours: true, clean: terminal::escape },
            TestFormat::Text | TestFormat::Github | TestFormat::Json => Look::PLAIN,
        };
        let width = report::width(lab);
        Self { label, lab, kind, format, look, width, voice }
    }

    fn begin(&self) {
        if self.format != TestFormat::Json {
            (self.voice)(Words::Said(format!("{}: {}", self.label, self.lab.description)));
        }
    }

    fn tell(&self, test: &TestReport) {
        let said = match self.format {
            TestFormat::Json => Words::Said(report::json(self.label, test).to_string()),
            TestFormat::Text if self.look.colours => Words::Painted(self.text(test)),
            TestFormat::Text => Words::Said(self.text(test)),
            TestFormat::Github => {
                let annotation = report::github(self.label, test).map(|line| format!("\n{line}"));
                Words::Said(self.text(test) + &annotation.unwrap_or_default())
            }
        };
        (self.voice)(said);
    }

    fn text(&self, test: &TestReport) -> String {
        let line = report::line(test, self.width, self.look);
        let details = report::details(test, self.look);
        if details.is_empty() { line } else { format!("{line}\n{}", details.trim_end()) }
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

/// With real programs. A lab that is up is used and left up; else it is made, and taken down whatever happens, unless one
/// that fails is to be kept.
#[cfg(target_os = "linux")]
fn real(args: &TestArgs, interrupt: &Interrupt, teller: &Teller<'_>) -> Taken {
    use stateway_lab::netns::state;
    let (mut runner, stays) = match stand_up(args, interrupt, teller) {
        Ok(standing) => standing,
        Err(failure) => return teller.not_begun(COMES_UP, failure),
    };
    let reports = trial::run(teller.lab, &mut runner, |test| teller.tell(test));
    runner.sessions_end();
    let is_kept =
        args.keep && !stays && !interrupt.is_set() && reports.iter().any(|test| test.ending.is_wrong());
    let left = if stays {
        runner.restore_rules()
    } else if is_kept {
        runner.finish().map(|()| (teller.voice)(Words::Said(kept(teller.lab, args.has_other_rules()))))
    } else {
        state::remove_locked(&teller.lab.name, &runner.state.lock).map(drop)
    };
    let failure = left.and(interrupt.check()).err().map(Failure::Machine);
    Taken { reports, failure }
}

/// How to get into a lab that was kept, and how to be rid of it.
#[cfg(target_os = "linux")]
fn kept(lab: &Lab, has_other_rules: bool) -> String {
    let name = &lab.name;
    let host = lab.hosts.first().map_or("router", |host| host.name.as_str());
    let mut text = format!(
        "the lab `{name}` failed and is kept up, as its last test left it:\n  \
         stateway lab shell {name} {host}    a shell on a host; `router` is the router's place\n  \
         stateway lab inspect {name}    hosts, addresses, services\n  \
         stateway lab down {name}    takes it down"
    );
    if has_other_rules {
        text.push_str(
            "\n  it has the rules of `--rules`; `stateway lab reload` would bring those of the lab file",
        );
    }
    text
}

/// A lab that stands, and whether it stays when the tests are over.
#[cfg(target_os = "linux")]
fn stand_up(
    args: &TestArgs,
    interrupt: &Interrupt,
    teller: &Teller<'_>,
) -> Result<(stateway_lab::netns::Namespaces, bool)> {
    use super::super::up::{self, Standing};
    let Teller { lab, kind, voice, .. } = teller;
    let tell = |text: String| voice(Words::Told(text));
    let standing = up::make_way(lab, *kind, args.restart, interrupt, voice)?;
    if let Standing::Up(record) = &standing
        && args.has_other_rules()
    {
        let name = &record.lab;
        return Err(Failure::Input(anyhow::anyhow!(
            "the lab `{name}` is up, from an earlier try\n  hint: `stateway lab down {name}`, or `--restart`"
        )));
    }
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
    if args.has_other_rules() {
        // The router has read the lab file for itself.
        let rules = RulesText { v4: lab.router.rules.clone(), v6: lab.router.rules6.clone() };
        runner.middle.replace_rules(&rules).map_err(Failure::Machine)?;
    }
    let stays = matches!(standing, Standing::TakenDown) && !args.has_other_rules();
    if stays {
        runner.finish().map_err(Failure::Machine)?;
        tell(format!("the lab `{}` is up again, and is left up", lab.name));
    }
    Ok((runner, stays))
}

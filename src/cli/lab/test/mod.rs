//! `stateway lab test`: takes the tests of labs through one runner or several.

mod agree;
mod args;
mod chosen;
mod jobs;
mod labs;
mod neighbours;
mod runners;
mod take;
#[cfg(target_os = "linux")]
mod watch;

pub(super) use self::args::TestArgs;
use super::super::{Failure, Result};
use super::{say, tell, utter};
use anyhow::Context as _;
use args::{ReportKind, TestFormat};
use jobs::{Heard, Job};
use neighbours::Fullness;
use serde_json::json;
use stateway_lab::model::{Lab, RunnerKind};
use stateway_lab::report;
use stateway_lab::trial::{self, Ending, TestReport};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use take::{COMES_UP, Interrupt, Taken};

/// What came of all that was asked for.
#[derive(Default)]
struct Outcome {
    /// The name of the lab, and one of its tests.
    reports: Vec<(String, TestReport)>,
    /// The name of the lab, and on what the runners differ.
    disagreements: Vec<(String, String)>,
    /// What kept tests from being run: the first of what has the highest exit code.
    failure: Option<Failure>,
    /// Others test the rest: that this part may have nothing to say is no fault.
    is_shard: bool,
}

impl Outcome {
    fn add(&mut self, lab: &str, reports: impl IntoIterator<Item = TestReport>) {
        self.reports.extend(reports.into_iter().map(|report| (lab.to_owned(), report)));
    }

    fn fails(&mut self, failure: impl Into<Option<Failure>>) {
        let Some(failure) = failure.into() else { return };
        if self.failure.as_ref().is_none_or(|other| other.code() < failure.code()) {
            self.failure = Some(failure);
        }
    }

    /// Everything that a report tells: what fails the command fails in there as well, also where every test went well.
    fn told(&self) -> Vec<(String, TestReport)> {
        let mut told = self.reports.clone();
        let runner = told.last().map_or(RunnerKind::Sim, |(_, report)| report.runner);
        for (lab, text) in &self.disagreements {
            let ending = Ending::Failed(vec![text.clone()]);
            told.push((lab.clone(), TestReport::new(AGREE, runner, ending)));
        }
        let none = || (!self.says_enough()).then(|| NO_TEST.to_owned());
        let wrong = self.failure.as_ref().map(Failure::text).or_else(none);
        let is_told = told.iter().any(|(_, report)| report.ending.is_wrong());
        if let Some(why) = wrong.filter(|_| !is_told) {
            let lab = told.last().map_or_else(|| "stateway".to_owned(), |(lab, _)| lab.clone());
            told.push((lab, TestReport::new(ENDS_WELL, runner, Ending::Broken(why))));
        }
        told
    }

    /// Whether a test said anything about the rules, or need not have.
    fn says_enough(&self) -> bool {
        self.is_shard || self.reports.iter().any(|(_, report)| report.ending.is_judgement())
    }

    /// No lab came so far that a test could be run.
    fn nothing_begun(
        &mut self,
        args: &TestArgs,
        labs: &[Lab],
        (runner, first): (RunnerKind, &str),
        failure: Failure,
    ) -> Prepared {
        let why = failure.text();
        for lab in labs {
            self.add(&args.label(lab), trial::not_begun(lab, runner, first, &why));
        }
        self.fails(failure);
        Prepared::Failed
    }
}

/// The report's names for what comes before the tests.
const FILE: &str = "the lab file can be read";
const CHOSEN: &str = "a test is chosen";
/// And for what comes after them.
const AGREE: &str = "the runners agree";
const ENDS_WELL: &str = "the command ends well";
const NO_TEST: &str = "no test was run";

/// What several rounds of the command have in common.
#[derive(Default)]
struct Session {
    /// What tells that the user wants to stop, once somebody listens for it.
    interrupt: Option<Interrupt>,
    /// There is room for labs in the user namespace that it runs in.
    #[cfg(target_os = "linux")]
    is_settled: bool,
}

pub(super) fn test(args: TestArgs) -> Result {
    #[cfg(target_os = "linux")]
    if args.watch {
        return watch::watch(&args);
    }
    round(&args, &mut Session::default()).result
}

/// What came of one round.
struct Round {
    result: Result,
    /// The labs that were read.
    labs: Vec<Lab>,
}

/// Reads the labs and takes their tests.
fn round(args: &TestArgs, session: &mut Session) -> Round {
    let mut outcome = Outcome { is_shard: args.shard.is_some(), ..Outcome::default() };
    let (labs, wrong) = labs::read(args);
    let read = labs.clone();
    let result = match prepare(args, session, labs, &wrong, &mut outcome) {
        Prepared::Ready(labs, kinds) => take_and_report(args, session, (&labs, &kinds), outcome),
        Prepared::Failed => report_and_conclude(args, outcome),
        #[cfg(target_os = "linux")]
        Prepared::Told(0) => Ok(()),
        #[cfg(target_os = "linux")]
        Prepared::Told(code) => Err(Failure::Told(code)),
    };
    Round { result, labs: read }
}

fn take_and_report(
    args: &TestArgs,
    session: &mut Session,
    (labs, kinds): (&[Lab], &[RunnerKind]),
    mut outcome: Outcome,
) -> Result {
    // Before any test, so that none is taken in vain; and so that a command that is killed leaves no report that
    // looks well, least of all an older one.
    write_all(args, &planned(args, labs, kinds)).map_err(Failure::Input)?;
    let interrupt = match &session.interrupt {
        Some(interrupt) => interrupt.clone(),
        None => take::listen(kinds).map_err(Failure::Machine)?,
    };
    let tables = Fullness::until_now();
    run_all(args, (labs, kinds), &interrupt, &mut outcome)?;
    tables.warn();
    report_and_conclude(args, outcome)
}

fn report_and_conclude(args: &TestArgs, outcome: Outcome) -> Result {
    write_all(args, &outcome.told()).map_err(Failure::Machine)?;
    conclude(args, outcome)
}

/// What is known before the first test.
enum Prepared {
    Ready(Vec<Lab>, Vec<RunnerKind>),
    /// The outcome says why.
    Failed,
    /// The command ran again as root of a user namespace, and ended with this code.
    #[cfg(target_os = "linux")]
    Told(u8),
}

/// Sees whether this machine can run the labs. `wrong` are those that could not be read.
fn prepare(
    args: &TestArgs,
    session: &mut Session,
    mut labs: Vec<Lab>,
    wrong: &[(PathBuf, String)],
    outcome: &mut Outcome,
) -> Prepared {
    let chosen = runners::chosen(&args.on);
    let first = chosen.first().copied().unwrap_or(RunnerKind::Live);
    if !wrong.is_empty() {
        for (path, text) in wrong {
            let report = TestReport::new(FILE, first, Ending::Broken(text.clone()));
            let label = path.to_string_lossy();
            if args.format == TestFormat::Github {
                outcome.fails(report::github(&label, &report).and_then(|line| say(&line).err()));
            }
            outcome.add(&label, [report]);
        }
        for lab in &labs {
            outcome.add(&args.label(lab), trial::not_run(lab, first, "another lab file is wrong"));
        }
        let texts: Vec<&str> = wrong.iter().map(|(_, text)| text.as_str()).collect();
        outcome.fails(Failure::Input(anyhow::anyhow!("{}", texts.join("\nerror: "))));
        return Prepared::Failed;
    }
    if let Err(failure) = chosen::keep(&mut labs, &args.filter) {
        return outcome.nothing_begun(args, &labs, (first, CHOSEN), failure);
    }
    let part = args.shard.map(|shard| args::take_part(shard, &mut labs));
    let (kinds, first_line) = match runners::runners(chosen, &labs) {
        Ok(found) => found,
        Err(failure) => return outcome.nothing_begun(args, &labs, (first, COMES_UP), failure),
    };
    if let Err(failure) = runners::can_keep(args, &kinds, &first_line) {
        return outcome.nothing_begun(args, &labs, (first, COMES_UP), failure);
    }
    #[cfg(target_os = "linux")]
    if kinds.contains(&RunnerKind::Live) && !session.is_settled {
        use stateway_lab::netns::rootless;
        let is_root = rustix::process::geteuid().is_root();
        let entered = if is_root { rootless::settle().map(|()| None) } else { rootless::again().map(Some) };
        match entered {
            Ok(None) => session.is_settled = true,
            Ok(Some(code)) => return Prepared::Told(code),
            Err(error) => {
                return outcome.nothing_begun(args, &labs, (first, COMES_UP), Failure::Machine(error));
            }
        }
    }
    let lines = [Some(first_line), part, args.other_rules()];
    for line in lines.iter().flatten() {
        if args.format == TestFormat::Json {
            tell(line);
        } else if let Err(failure) = say(line) {
            outcome.fails(failure);
            return Prepared::Failed;
        }
    }
    Prepared::Ready(labs, kinds)
}

/// The reports of a command that was killed.
fn planned(args: &TestArgs, labs: &[Lab], kinds: &[RunnerKind]) -> Vec<(String, TestReport)> {
    const KILLED: &str = "the command has not come to its end";
    let suites = labs.iter().flat_map(|lab| kinds.iter().map(move |kind| (lab, *kind)));
    suites
        .flat_map(|(lab, kind)| {
            trial::not_begun(lab, kind, COMES_UP, KILLED).into_iter().map(|report| (args.label(lab), report))
        })
        .collect()
}

/// Takes every lab through every runner. What keeps one of them from being tested keeps no other.
fn run_all(
    args: &TestArgs,
    (labs, kinds): (&[Lab], &[RunnerKind]),
    interrupt: &Interrupt,
    outcome: &mut Outcome,
) -> Result {
    let standing: Vec<(String, Lab)> = labs.iter().map(|lab| (args.label(lab), args.standing(lab))).collect();
    let jobs = standing
        .iter()
        .flat_map(|(label, lab)| kinds.iter().map(move |kind| Job { label, lab, kind: *kind }));
    let jobs: Vec<Job> = jobs.collect();
    let at_once = args.jobs.map_or_else(|| jobs::usual(kinds), NonZeroUsize::get);
    jobs::take_all(
        &jobs,
        at_once,
        |job, voice| take::take(job, args, interrupt, voice),
        |job, heard| match heard {
            // The tests go on where nobody hears of them: what they made must be taken away, and there may be a report.
            Heard::Words(words) => outcome.fails(utter(words).err()),
            Heard::Taken(taken) => {
                let Taken { reports, failure } = *taken;
                outcome.add(job.label, reports);
                outcome.fails(failure);
            }
        },
    );
    outcome.disagreements = agree::disagreements(&outcome.reports);
    for (lab, text) in &outcome.disagreements {
        say(&format!("DISAGREE {lab}: {text}"))?;
    }
    Ok(())
}

/// Sums up, and says how it went.
fn conclude(args: &TestArgs, outcome: Outcome) -> Result {
    let says_enough = outcome.says_enough();
    let Outcome { reports, disagreements, failure, .. } = outcome;
    if args.format != TestFormat::Json && !reports.is_empty() {
        let all: Vec<TestReport> = reports.iter().map(|(_, report)| report.clone()).collect();
        let apart = match disagreements.len() {
            0 => String::new(),
            n => format!(", {n} disagreements between runners"),
        };
        say(&format!("{}{apart}", report::summary(&all)))?;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if !says_enough {
        tell(&format!("error: {NO_TEST}"));
        return Err(Failure::Differs);
    }
    let well = reports.iter().all(|(_, report)| report.ending.is_well()) && disagreements.is_empty();
    if well { Ok(()) } else { Err(Failure::Differs) }
}

fn write_all(args: &TestArgs, reports: &[(String, TestReport)]) -> anyhow::Result<()> {
    let shard = args.shard.map(|shard| shard.to_string());
    args.report.iter().try_for_each(|(kind, file)| write(*kind, file, reports, shard.as_deref()))
}

fn write(
    kind: ReportKind,
    file: &Path,
    reports: &[(String, TestReport)],
    shard: Option<&str>,
) -> anyhow::Result<()> {
    let text = match kind {
        ReportKind::Junit => report::junit(reports, shard)?,
        ReportKind::Tap => report::tap(reports),
        ReportKind::Json => {
            let tests: Vec<_> = reports.iter().map(|(lab, test)| report::json(lab, test)).collect();
            match shard {
                Some(shard) => {
                    serde_json::to_string_pretty(&json!({ report::SHARD: shard, report::TESTS: tests }))?
                }
                None => serde_json::to_string_pretty(&tests)?,
            }
        }
    };
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a report looks well to who reads nothing else.
    fn looks_well(outcome: &Outcome) -> bool {
        !outcome.told().iter().any(|(_, report)| report.ending.is_wrong())
    }

    #[test]
    fn a_report_never_looks_better_than_the_exit_code() {
        let one = |ending| vec![("lab".to_owned(), TestReport::new("one", RunnerKind::Live, ending))];
        let well = Outcome { reports: one(Ending::Passed), ..Outcome::default() };
        assert!(looks_well(&well) && well.told().len() == 1);
        let skipped =
            Outcome { reports: one(Ending::Skipped("only on kernel".to_owned())), ..Outcome::default() };
        let failure = || Some(Failure::Machine(anyhow::anyhow!("interrupted")));
        let not_run = one(Ending::NotRun("interrupted".to_owned()));
        let interrupted = Outcome { reports: not_run, failure: failure(), ..Outcome::default() };
        let disagreements = vec![("lab".to_owned(), "one: live pass, kernel pass".to_owned())];
        let differ = Outcome { reports: one(Ending::Passed), disagreements, ..Outcome::default() };
        let ended = Outcome { reports: one(Ending::Passed), failure: failure(), ..Outcome::default() };
        for wrong in [&skipped, &interrupted, &differ, &ended, &Outcome::default()] {
            assert!(!looks_well(wrong), "{:?}", wrong.told());
        }
    }
}

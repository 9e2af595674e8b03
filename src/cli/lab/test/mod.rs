//! `stateway lab test`: takes the tests of labs through one runner or several.

mod agree;
mod chosen;
mod jobs;
mod neighbours;
mod runners;
mod take;

use super::super::{Failure, Result};
use super::{Format, load, say, tell, utter};
use anyhow::Context as _;
use jobs::{Heard, Job};
use neighbours::Fullness;
use stateway_lab::model::{Lab, RunnerKind};
use stateway_lab::report;
use stateway_lab::trial::{self, Ending, TestReport};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use take::{COMES_UP, Taken};

/// What the exit code says.
const EXIT_CODES: &str = "Exit code 0: every test passed or was skipped, and at least one was run. 1: a test failed, was late, or \
broke its lab; runners disagree; or no test was run. 2: a lab file is wrong or has no tests, or another lab of that name is up. 3: \
this machine cannot run the labs, one did not come up, or the command was interrupted. Of several reasons the highest \
code counts.\n\nLabs that are tested at the same time do not meet, and are told of in the order in which they were named; \
several that would make something of the same name wait for each other.\n\nReports list every test, also those that \
were not run, and are there from the start.";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub(super) struct TestArgs {
    /// Folders with a lab.yaml, such files, or names of built-in labs
    #[arg(required = true)]
    labs: Vec<PathBuf>,
    /// `sim`, `live`, `kernel`, several of them, or `all`; by default live where it can run, else sim
    #[arg(long, value_delimiter = ',', value_enum)]
    on: Vec<On>,
    /// Only tests with this in their name; several times: with any of them. Labs without such a test are not built
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// As many labs at the same time; by default what pays here: two for each processor, in simulation one
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// If a lab of that name is up from other files, or they have changed since, build it again
    #[arg(long)]
    restart: bool,
    /// What the simulator's chances are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also writes a report: `junit=FILE`, `tap=FILE`, `json=FILE`
    #[arg(long, value_parser = parse_report)]
    report: Vec<(ReportKind, PathBuf)>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum On {
    Sim,
    Live,
    Kernel,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReportKind {
    Junit,
    Tap,
    Json,
}

fn parse_report(text: &str) -> std::result::Result<(ReportKind, PathBuf), String> {
    let (kind, file) = text.split_once('=').ok_or("such as `junit=FILE`, `tap=FILE` or `json=FILE`")?;
    let kind = match kind {
        "junit" => ReportKind::Junit,
        "tap" => ReportKind::Tap,
        "json" => ReportKind::Json,
        _ => return Err(format!("`{kind}` is none of junit, tap, json")),
    };
    Ok((kind, PathBuf::from(file)))
}

/// What came of all that was asked for.
#[derive(Default)]
struct Outcome {
    /// The name of the lab, and one of its tests.
    reports: Vec<(String, TestReport)>,
    /// The name of the lab, and on what the runners differ.
    disagreements: Vec<(String, String)>,
    /// What kept tests from being run: the first of what has the highest exit code.
    failure: Option<Failure>,
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
        let none = || (!self.is_judged()).then(|| NO_TEST.to_owned());
        let wrong = self.failure.as_ref().map(Failure::text).or_else(none);
        let is_told = told.iter().any(|(_, report)| report.ending.is_wrong());
        if let Some(why) = wrong.filter(|_| !is_told) {
            let lab = told.last().map_or_else(|| "stateway".to_owned(), |(lab, _)| lab.clone());
            told.push((lab, TestReport::new(ENDS_WELL, runner, Ending::Broken(why))));
        }
        told
    }

    /// Whether a test said anything about the rules.
    fn is_judged(&self) -> bool {
        self.reports.iter().any(|(_, report)| report.ending.is_judgement())
    }

    /// No lab came so far that a test could be run.
    fn nothing_begun(
        &mut self,
        labs: &[Lab],
        runner: RunnerKind,
        first: &str,
        why: &str,
        failure: Failure,
    ) -> Prepared {
        for lab in labs {
            self.add(&lab.name, trial::not_begun(lab, runner, first, why));
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

pub(super) fn test(args: TestArgs) -> Result {
    let mut outcome = Outcome::default();
    match prepare(&args, &mut outcome) {
        Prepared::Ready(labs, kinds) => {
            // Before any test, so that none is taken in vain; and so that a command that is killed leaves no report that
            // looks well, least of all an older one.
            write_all(&args.report, &planned(&labs, &kinds)).map_err(Failure::Input)?;
            let tables = Fullness::until_now();
            run_all(&args, &labs, &kinds, &mut outcome)?;
            tables.warn();
        }
        Prepared::Failed => {}
        #[cfg(target_os = "linux")]
        Prepared::Told(0) => return Ok(()),
        #[cfg(target_os = "linux")]
        Prepared::Told(code) => return Err(Failure::Told(code)),
    }
    write_all(&args.report, &outcome.told()).map_err(Failure::Machine)?;
    conclude(&args, outcome)
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

/// Reads the labs, and sees whether this machine can run them.
fn prepare(args: &TestArgs, outcome: &mut Outcome) -> Prepared {
    let chosen = runners::chosen(&args.on);
    let (mut labs, mut wrong) = (Vec::new(), Vec::new());
    for path in &args.labs {
        match load(path) {
            Ok(lab) => labs.push(lab),
            Err(failure) => wrong.push((path, failure.text())),
        }
    }
    let first = chosen.first().copied().unwrap_or(RunnerKind::Live);
    if !wrong.is_empty() {
        for (path, text) in &wrong {
            let report = TestReport::new(FILE, first, Ending::Broken(text.clone()));
            outcome.add(&path.to_string_lossy(), [report]);
        }
        for lab in &labs {
            outcome.add(&lab.name, trial::not_run(lab, first, "another lab file is wrong"));
        }
        let texts: Vec<String> = wrong.into_iter().map(|(_, text)| text).collect();
        outcome.fails(Failure::Input(anyhow::anyhow!("{}", texts.join("\nerror: "))));
        return Prepared::Failed;
    }
    if let Err(failure) = chosen::keep(&mut labs, &args.filter) {
        let why = failure.text();
        return outcome.nothing_begun(&labs, first, CHOSEN, &why, failure);
    }
    let (kinds, first_line) = match runners::runners(chosen, &labs) {
        Ok(found) => found,
        Err(failure) => {
            let why = failure.text();
            return outcome.nothing_begun(&labs, first, COMES_UP, &why, failure);
        }
    };
    #[cfg(target_os = "linux")]
    if kinds.contains(&RunnerKind::Live) {
        use stateway_lab::netns::rootless;
        let is_root = rustix::process::geteuid().is_root();
        let entered = if is_root { rootless::settle().map(|()| None) } else { rootless::again().map(Some) };
        match entered {
            Ok(None) => {}
            Ok(Some(code)) => return Prepared::Told(code),
            Err(error) => {
                let why = format!("{error:#}");
                return outcome.nothing_begun(&labs, first, COMES_UP, &why, Failure::Machine(error));
            }
        }
    }
    if args.format == Format::Json {
        tell(&first_line);
    } else if let Err(failure) = say(&first_line) {
        outcome.fails(failure);
        return Prepared::Failed;
    }
    Prepared::Ready(labs, kinds)
}

/// The reports of a command that was killed.
fn planned(labs: &[Lab], kinds: &[RunnerKind]) -> Vec<(String, TestReport)> {
    const KILLED: &str = "the command has not come to its end";
    let suites = labs.iter().flat_map(|lab| kinds.iter().map(move |kind| (lab, *kind)));
    suites
        .flat_map(|(lab, kind)| {
            trial::not_begun(lab, kind, COMES_UP, KILLED).into_iter().map(|report| (lab.name.clone(), report))
        })
        .collect()
}

/// Takes every lab through every runner. What keeps one of them from being tested keeps no other.
fn run_all(args: &TestArgs, labs: &[Lab], kinds: &[RunnerKind], outcome: &mut Outcome) -> Result {
    let interrupt = take::listen(kinds).map_err(Failure::Machine)?;
    let jobs: Vec<Job> =
        labs.iter().flat_map(|lab| kinds.iter().map(move |kind| Job { lab, kind: *kind })).collect();
    let at_once = args.jobs.map_or_else(|| jobs::usual(kinds), NonZeroUsize::get);
    jobs::take_all(
        &jobs,
        at_once,
        |job, voice| take::take(job, args, &interrupt, voice),
        |job, heard| match heard {
            // The tests go on where nobody hears of them: what they made must be taken away, and there may be a report.
            Heard::Words(words) => outcome.fails(utter(words).err()),
            Heard::Taken(taken) => {
                let Taken { reports, failure } = *taken;
                outcome.add(&job.lab.name, reports);
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
    let is_judged = outcome.is_judged();
    let Outcome { reports, disagreements, failure } = outcome;
    if args.format == Format::Text && !reports.is_empty() {
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
    if !is_judged {
        tell(&format!("error: {NO_TEST}"));
        return Err(Failure::Differs);
    }
    let well = reports.iter().all(|(_, report)| report.ending.is_well()) && disagreements.is_empty();
    if well { Ok(()) } else { Err(Failure::Differs) }
}

fn write_all(files: &[(ReportKind, PathBuf)], reports: &[(String, TestReport)]) -> anyhow::Result<()> {
    files.iter().try_for_each(|(kind, file)| write(*kind, file, reports))
}

fn write(kind: ReportKind, file: &Path, reports: &[(String, TestReport)]) -> anyhow::Result<()> {
    let text = match kind {
        ReportKind::Junit => report::junit(reports)?,
        ReportKind::Tap => report::tap(reports),
        ReportKind::Json => {
            let list: Vec<_> = reports.iter().map(|(lab, test)| report::json(lab, test)).collect();
            serde_json::to_string_pretty(&list)?
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

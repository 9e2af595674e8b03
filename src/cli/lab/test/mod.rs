//! `stateway lab test`: takes the tests of labs through one runner or several.

use super::super::{Failure, Result};
use super::{Format, load, say, tell};
use crate::lab::model::{Lab, RunnerKind};
use crate::lab::report;
use crate::lab::sim::Sim;
use crate::lab::trial::{self, Ending, TestReport};
use anyhow::Context as _;
use std::path::{Path, PathBuf};

/// What the exit code says.
const EXIT_CODES: &str = "Exit code 0: every test passed or was skipped, and at least one was run. 1: a test failed, was late, or \
broke its lab; runners disagree; or no test was run. 2: a lab file is wrong or has no tests, or another lab of that name is up. 3: \
this machine cannot run the labs, one did not come up, or the command was interrupted.\n\nReports list every test, also those that \
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
    disagreements: Vec<String>,
    /// The first thing that kept tests from being run.
    failure: Option<Failure>,
}

impl Outcome {
    fn add(&mut self, lab: &str, reports: impl IntoIterator<Item = TestReport>) {
        self.reports.extend(reports.into_iter().map(|report| (lab.to_owned(), report)));
    }

    fn fails(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// No lab came so far that a test could be run.
    fn nothing_begun(&mut self, labs: &[Lab], runner: RunnerKind, why: &str, failure: Failure) -> Prepared {
        for lab in labs {
            self.add(&lab.name, trial::not_begun(lab, runner, COMES_UP, why));
        }
        self.fails(failure);
        Prepared::Failed
    }
}

/// The report's names for what comes before the tests.
const FILE: &str = "the lab file can be read";
const COMES_UP: &str = "the lab comes up";
const HAS_TESTS: &str = "the lab has tests";

pub(super) fn test(args: TestArgs) -> Result {
    let mut outcome = Outcome::default();
    match prepare(&args, &mut outcome) {
        Prepared::Ready(labs, kinds) => {
            // Before any test, so that none is taken in vain; and so that a command that is killed leaves no report that
            // looks well, least of all an older one.
            write_all(&args.report, &planned(&labs, &kinds)).map_err(Failure::Input)?;
            run_all(&args, &labs, &kinds, &mut outcome)?;
        }
        Prepared::Failed => {}
        #[cfg(target_os = "linux")]
        Prepared::Told(0) => return Ok(()),
        #[cfg(target_os = "linux")]
        Prepared::Told(code) => return Err(Failure::Told(code)),
    }
    write_all(&args.report, &outcome.reports).map_err(Failure::Machine)?;
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
    let chosen = chosen(&args.on);
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
    let (kinds, first_line) = match runners(chosen, &labs) {
        Ok(found) => found,
        Err(failure) => {
            let why = failure.text();
            return outcome.nothing_begun(&labs, first, &why, failure);
        }
    };
    #[cfg(target_os = "linux")]
    if kinds.contains(&RunnerKind::Live) {
        use crate::lab::netns::rootless;
        let is_root = rustix::process::geteuid().is_root();
        let entered = if is_root { rootless::settle().map(|()| None) } else { rootless::again().map(Some) };
        match entered {
            Ok(None) => {}
            Ok(Some(code)) => return Prepared::Told(code),
            Err(error) => {
                let why = format!("{error:#}");
                return outcome.nothing_begun(&labs, first, &why, Failure::Machine(error));
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
    let mut interrupted = false;
    for lab in labs {
        for kind in kinds {
            if interrupted {
                outcome.add(&lab.name, trial::not_run(lab, *kind, "interrupted"));
                continue;
            }
            let mut teller = Teller::begin(lab, args)?;
            let taken = one(lab, *kind, args, &mut teller);
            interrupted = taken.interrupted;
            outcome.add(&lab.name, taken.reports);
            taken.failure.into_iter().chain(teller.failure).for_each(|failure| outcome.fails(failure));
        }
    }
    outcome.disagreements = disagreements(&outcome.reports);
    for line in &outcome.disagreements {
        say(&format!("DISAGREE {line}"))?;
    }
    Ok(())
}

/// Sums up, and says how it went.
fn conclude(args: &TestArgs, outcome: Outcome) -> Result {
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
    if !reports.iter().any(|(_, report)| report.ending.is_judgement()) {
        tell("error: no test was run");
        return Err(Failure::Differs);
    }
    let well = reports.iter().all(|(_, report)| report.ending.is_well()) && disagreements.is_empty();
    if well { Ok(()) } else { Err(Failure::Differs) }
}

/// Tells of each test as it ends.
struct Teller {
    lab: String,
    format: Format,
    width: usize,
    /// Why it could not be told. The tests go on: what they made must be taken away, and there may be a report.
    failure: Option<Failure>,
}

impl Teller {
    fn begin(lab: &Lab, args: &TestArgs) -> Result<Self> {
        if args.format == Format::Text {
            say(&format!("{}: {}", lab.name, lab.description))?;
        }
        let width = lab.tests.iter().map(|test| test.name.chars().count()).max().unwrap_or_default().min(60);
        Ok(Self { lab: lab.name.clone(), format: args.format, width, failure: None })
    }

    fn tell(&mut self, test: &TestReport) {
        let mut text = match self.format {
            Format::Json => report::json(&self.lab, test).to_string(),
            Format::Text => report::line(test, self.width),
        };
        let details = if self.format == Format::Text { report::details(test) } else { String::new() };
        if !details.is_empty() {
            text = format!("{text}\n{}", details.trim_end());
        }
        if let Err(failure) = say(&text) {
            self.failure.get_or_insert(failure);
        }
    }
}

/// Which runners are meant, and the first line of output, which says so and why.
fn runners(chosen: Vec<RunnerKind>, labs: &[Lab]) -> Result<(Vec<RunnerKind>, String)> {
    const LIVE: &str = "running live: real programs in network namespaces, the router on TAPs";
    if chosen.is_empty() {
        return Ok(match lacking(labs, RunnerKind::Live) {
            None => (vec![RunnerKind::Live], LIVE.to_owned()),
            Some(why) => {
                (vec![RunnerKind::Sim], format!("running in simulation: {}", why.replace("\n  ", "; ")))
            }
        });
    }
    for kind in &chosen {
        if let Some(why) = lacking(labs, *kind) {
            return Err(Failure::Machine(anyhow::anyhow!(
                "this machine cannot run labs {}: {why}",
                kind.word()
            )));
        }
    }
    if chosen == [RunnerKind::Live] {
        return Ok((chosen, LIVE.to_owned()));
    }
    let names: Vec<&str> = chosen.iter().map(|kind| kind.word()).collect();
    let line = format!("running on {}, as asked", names.join(", "));
    Ok((chosen, line))
}

/// The runners that were asked for by name.
fn chosen(on: &[On]) -> Vec<RunnerKind> {
    let is_asked = |kind: &RunnerKind| match kind {
        RunnerKind::Sim => on.contains(&On::Sim),
        RunnerKind::Live => on.contains(&On::Live),
        RunnerKind::Kernel => on.contains(&On::Kernel),
    };
    let all = [RunnerKind::Sim, RunnerKind::Live, RunnerKind::Kernel];
    all.into_iter().filter(|kind| on.contains(&On::All) || is_asked(kind)).collect()
}

/// What keeps this machine from running these labs, with the remedy.
#[cfg(target_os = "linux")]
fn lacking(labs: &[Lab], kind: RunnerKind) -> Option<String> {
    use crate::lab::netns::programs;
    if kind == RunnerKind::Sim {
        return None;
    }
    let mut missing: Vec<String> = labs.iter().flat_map(|lab| programs::missing(lab, kind)).collect();
    missing.dedup();
    (!missing.is_empty()).then(|| missing.join("\n  "))
}

#[cfg(not(target_os = "linux"))]
fn lacking(_: &[Lab], kind: RunnerKind) -> Option<String> {
    (kind != RunnerKind::Sim).then(|| "it takes Linux\n  hint: `--on sim` runs everywhere".to_owned())
}

/// What came of one lab on one runner.
#[derive(Default)]
struct Taken {
    reports: Vec<TestReport>,
    failure: Option<Failure>,
    interrupted: bool,
}

impl Taken {
    /// It did not come so far that a test could be run.
    fn not_begun(lab: &Lab, kind: RunnerKind, first: &str, failure: Failure, teller: &mut Teller) -> Self {
        let reports = trial::not_begun(lab, kind, first, &failure.text());
        for report in &reports {
            teller.tell(report);
        }
        Self { reports, failure: Some(failure), interrupted: false }
    }
}

fn one(lab: &Lab, kind: RunnerKind, args: &TestArgs, teller: &mut Teller) -> Taken {
    if lab.tests.is_empty() {
        let failure = Failure::Input(anyhow::anyhow!("{} has no tests", lab.file.display()));
        return Taken::not_begun(lab, kind, HAS_TESTS, failure, teller);
    }
    match kind {
        RunnerKind::Sim => match Sim::new(lab.clone(), args.seed) {
            Ok(mut sim) => {
                let reports = trial::run(lab, &mut sim, |test| teller.tell(test));
                Taken { reports, ..Taken::default() }
            }
            Err(errors) => {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                let error = anyhow::anyhow!("{}: {}", lab.file.display(), errors.join("\n"));
                Taken::not_begun(lab, kind, COMES_UP, Failure::Input(error), teller)
            }
        },
        #[cfg(target_os = "linux")]
        RunnerKind::Live | RunnerKind::Kernel => real(lab, kind, args.restart, teller),
        #[cfg(not(target_os = "linux"))]
        RunnerKind::Live | RunnerKind::Kernel => {
            let failure = Failure::Machine(anyhow::anyhow!("it takes Linux"));
            Taken::not_begun(lab, kind, COMES_UP, failure, teller)
        }
    }
}

/// With real programs. A lab that is up is used and left up; else it is made, and taken down whatever happens.
#[cfg(target_os = "linux")]
fn real(lab: &Lab, kind: RunnerKind, restart: bool, teller: &mut Teller) -> Taken {
    use crate::lab::netns::command::Interrupt;
    use crate::lab::netns::state;
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => return Taken::not_begun(lab, kind, COMES_UP, Failure::Machine(error), teller),
    };
    let (mut runner, stays) = match stand_up(lab, kind, restart, &interrupt) {
        Ok(standing) => standing,
        Err(failure) => {
            let taken = Taken::not_begun(lab, kind, COMES_UP, failure, teller);
            return Taken { interrupted: interrupt.is_set(), ..taken };
        }
    };
    let reports = trial::run(lab, &mut runner, |test| teller.tell(test));
    runner.sessions_end();
    let removed = if stays { Ok(true) } else { state::remove_locked(&lab.name, &runner.state.lock) };
    let failure = removed.and(interrupt.check()).err().map(Failure::Machine);
    Taken { reports, failure, interrupted: interrupt.is_set() }
}

/// A lab that stands, and whether it stays when the tests are over.
#[cfg(target_os = "linux")]
fn stand_up(
    lab: &Lab,
    kind: RunnerKind,
    restart: bool,
    interrupt: &crate::lab::netns::command::Interrupt,
) -> Result<(crate::lab::netns::Namespaces, bool)> {
    use super::up::{self, Standing};
    let standing = up::make_way(lab, kind, restart, interrupt)?;
    if let Standing::Up(_) = standing
        && let Some(runner) = up::attach(lab.clone(), kind, interrupt)?
    {
        tell(&format!("the lab `{}` is up already: it is tested as it stands, and left up", lab.name));
        return Ok((runner, true));
    }
    let mut runner = up::bring_up(lab.clone(), kind, interrupt)?;
    let stays = matches!(standing, Standing::TakenDown);
    if stays {
        runner.state.finish().map_err(Failure::Machine)?;
        tell(&format!("the lab `{}` is up again, and is left up", lab.name));
    }
    Ok((runner, stays))
}

/// Tests that ended well on one runner and not on another.
fn disagreements(reports: &[(String, TestReport)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, (lab, report)) in reports.iter().enumerate() {
        let same = |(other, taken): &&(String, TestReport)| {
            other == lab && taken.name == report.name && taken.runner != report.runner
        };
        let Some((_, other)) = reports[..at].iter().find(same) else { continue };
        if !report.ending.is_judgement() || !other.ending.is_judgement() {
            continue;
        }
        let differs = report.ending.word() != other.ending.word() || !agree(report, other);
        if differs {
            lines.push(format!(
                "{lab}: {}: {} {} ({}), {} {} ({})",
                report.name,
                other.runner.word(),
                other.ending.word(),
                outcomes(other).join(", "),
                report.runner.word(),
                report.ending.word(),
                outcomes(report).join(", ")
            ));
        }
    }
    lines
}

/// Runners must agree on results, and on the state and the rule of the packet that decided.
///
/// What one of them could not see is no difference: the kernel shows nothing of a packet that never came to a rule.
fn agree(one: &TestReport, other: &TestReport) -> bool {
    fn same<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
        one.zip(other).is_none_or(|(one, other)| one == other)
    }
    one.steps.len() == other.steps.len()
        && one.steps.iter().zip(&other.steps).all(|(one, other)| {
            let (a, b) = (one.deciding.as_ref(), other.deciding.as_ref());
            one.result == other.result
                && same(a.and_then(|packet| packet.state), b.and_then(|packet| packet.state))
                && same(a.and_then(|packet| packet.rule.as_ref()), b.and_then(|packet| packet.rule.as_ref()))
        })
}

fn outcomes(report: &TestReport) -> Vec<String> {
    let told = |step: &trial::StepReport| {
        let packet = step.deciding.as_ref();
        let state = packet.and_then(|packet| packet.state).map_or("-", |state| state.word());
        let rule = packet.and_then(|packet| packet.rule.as_deref()).unwrap_or("-");
        format!("{} {state} {rule}", step.result.text())
    };
    report.steps.iter().map(told).collect()
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

//! Takes the tests of a lab through a runner and compares what came of each step with what was expected.

#![forbid(unsafe_code)]

use super::judge::{Flows, flow_of, table_differs};
use super::model::{Action, Expect, Lab, RunnerKind, Step, Test, Word};
use super::runner::{Observation, RunError, Runner, Seen};
use stateway_core::conntrack::CtState;
use std::time::Duration;

/// Between two tries of a step that may take a while to come out.
const PAUSE: Duration = Duration::from_millis(100);

/// How one test ended.
#[derive(Clone, Debug)]
pub struct TestReport {
    pub name: String,
    pub runner: RunnerKind,
    pub ending: Ending,
    pub steps: Vec<StepReport>,
    pub took: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Passed,
    /// What was not as expected, of the last step.
    Failed(Vec<String>),
    /// Why it was not run.
    Skipped(String),
    /// A program that was to tell did not end in time: nothing is known.
    Late(String),
    /// The lab itself is at fault.
    Broken(String),
    /// It did not come to it, and why.
    NotRun(String),
}

impl Ending {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Passed => "pass",
            Self::Failed(_) => "FAIL",
            Self::Skipped(_) => "skip",
            Self::Late(_) => "LATE",
            Self::Broken(_) => "BROKEN",
            Self::NotRun(_) => "not run",
        }
    }

    pub const fn is_well(&self) -> bool {
        matches!(self, Self::Passed | Self::Skipped(_))
    }

    /// Whether a report has it as a failure or an error.
    pub const fn is_wrong(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Late(_) | Self::Broken(_))
    }

    /// Whether it says anything about the rules.
    pub const fn is_judgement(&self) -> bool {
        matches!(self, Self::Passed | Self::Failed(_))
    }
}

/// What came of one step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// `ssh host104 → host77`.
    pub title: String,
    pub result: Word,
    pub icmp: Option<String>,
    pub note: String,
    /// The packet that decided, if the router saw one.
    pub deciding: Option<Seen>,
    pub packets: Vec<Seen>,
}

impl TestReport {
    /// A test that ended before its first step.
    pub fn new(name: &str, runner: RunnerKind, ending: Ending) -> Self {
        Self { name: name.to_owned(), runner, ending, steps: Vec::new(), took: Duration::ZERO }
    }
}

/// The report of a lab that did not come so far that a test could be run: what was to be done first, what was wrong
/// with that, and every test.
pub fn not_begun(lab: &Lab, runner: RunnerKind, first: &str, wrong: &str) -> Vec<TestReport> {
    let ending = Ending::Broken(wrong.to_owned());
    std::iter::once(TestReport::new(first, runner, ending)).chain(not_run(lab, runner, wrong)).collect()
}

/// Every test of a lab, as one that was not run.
pub fn not_run(lab: &Lab, runner: RunnerKind, why: &str) -> impl Iterator<Item = TestReport> {
    // Its first line is enough for each of them.
    let why = why.lines().next().unwrap_or_default();
    lab.tests.iter().map(move |test| TestReport::new(&test.name, runner, Ending::NotRun(why.to_owned())))
}

/// Takes every test in turn, and says so after each. Once the lab is broken, the others are not run.
pub fn run(lab: &Lab, runner: &mut dyn Runner, mut after: impl FnMut(&TestReport)) -> Vec<TestReport> {
    let mut reports = Vec::new();
    let mut earlier = Flows::new();
    let mut broken: Option<String> = None;
    for test in &lab.tests {
        let report = match &broken {
            None => one(lab, test, runner, &mut earlier),
            Some(why) => TestReport::new(&test.name, runner.kind(), Ending::NotRun(why.clone())),
        };
        after(&report);
        if let Ending::Broken(_) = &report.ending {
            broken = Some(format!("the lab broke in the test `{}`", report.name));
        }
        reports.push(report);
    }
    reports
}

fn one(lab: &Lab, test: &Test, runner: &mut dyn Runner, earlier: &mut Flows) -> TestReport {
    let kind = runner.kind();
    let start = runner.now();
    let mut report = TestReport::new(&test.name, kind, Ending::Passed);
    if !test.on.is_empty() && !test.on.contains(&kind) {
        let on: Vec<&str> = test.on.iter().map(|kind| kind.word()).collect();
        report.ending = Ending::Skipped(format!("only on {}", on.join(", ")));
        return report;
    }
    if let Some(why) = test.steps.iter().find_map(|step| runner.lacks(step)) {
        report.ending = Ending::Skipped(why);
        return report;
    }
    for step in &test.steps {
        match take(lab, step, runner, earlier) {
            Ok((step, wrong)) => {
                report.steps.push(step);
                if !wrong.is_empty() {
                    report.ending = Ending::Failed(wrong);
                    break;
                }
            }
            Err(RunError::Unsupported(why)) => {
                report.ending = Ending::Skipped(why);
                break;
            }
            Err(RunError::Late(why)) => {
                report.ending = Ending::Late(why);
                break;
            }
            Err(RunError::Broken(why)) => {
                report.ending = Ending::Broken(why);
                break;
            }
        }
    }
    report.took = runner.now().saturating_sub(start);
    report
}

/// Takes a step, again and again if it may, and says what is wrong with what came of it.
fn take(
    lab: &Lab,
    step: &Step,
    runner: &mut dyn Runner,
    earlier: &mut Flows,
) -> Result<(StepReport, Vec<String>), RunError> {
    let deadline = step.within.map(|within| runner.now() + within);
    if !step.impair.is_empty() {
        runner.impair(&step.impair)?;
    }
    let outcome = loop {
        let seen = match runner.act(&step.action, step.awaits()) {
            Ok(seen) => seen,
            Err(error) => break Err(error),
        };
        let deciding = step.action.deciding(&step.expect, &seen, earlier).cloned();
        earlier.extend(seen.packets.iter().filter_map(flow_of));
        let wrong = compare(&step.action, &step.expect, &seen, deciding.as_ref(), runner)?;
        if wrong.is_empty() || deadline.is_none_or(|deadline| runner.now() >= deadline) {
            let report = StepReport {
                title: title(lab, &step.action),
                result: seen.result,
                icmp: seen.icmp,
                note: seen.note,
                deciding,
                packets: seen.packets,
            };
            break Ok((report, wrong));
        }
        runner.wait(PAUSE);
    };
    if !step.impair.is_empty() {
        runner.impair(&[])?;
    }
    outcome
}

/// Everything that is not as expected.
fn compare(
    action: &Action,
    expect: &Expect,
    seen: &Observation,
    deciding: Option<&Seen>,
    runner: &mut dyn Runner,
) -> Result<Vec<String>, RunError> {
    let mut wrong = Vec::new();
    if let Some(want) = expect.result.filter(|want| *want != seen.result) {
        wrong.push(format!(
            "expected {}, got {}",
            want.text(),
            result_text(seen.result, seen.icmp.as_deref())
        ));
    }
    differs(&mut wrong, "icmp", expect.icmp.as_deref(), seen.icmp.as_deref());
    let exit = |code: i32| code.to_string();
    let wanted_exit = expect.exit.map(|code| exit(code.into()));
    differs(&mut wrong, "exit code", wanted_exit.as_deref(), seen.exit.map(exit).as_deref());
    differs(
        &mut wrong,
        "state",
        expect.state.map(CtState::word),
        deciding.and_then(|p| p.state).map(CtState::word),
    );
    let rule = |name: &str| if name.ends_with("/policy") { "policy".to_owned() } else { name.to_owned() };
    let decided_by = deciding.and_then(|packet| packet.rule.as_deref()).map(rule);
    let reason = deciding.and_then(|packet| packet.reason.as_deref());
    // The kernel tells neither of a single packet: there they are compared only where they are known.
    let known = |told: Option<&str>| told.is_some() || runner.kind() != RunnerKind::Kernel;
    let rule = expect.rule.as_deref().map(rule).filter(|_| known(decided_by.as_deref()));
    differs(&mut wrong, "rule", rule.as_deref(), decided_by.as_deref());
    differs(&mut wrong, "reason", expect.reason.as_deref().filter(|_| known(reason)), reason);
    for (states, must) in [(&expect.seen, true), (&expect.unseen, false)] {
        for state in states {
            if seen.packets.iter().any(|packet| packet.state == Some(*state)) != must {
                let was = if must { "no packet was" } else { "a packet was" };
                wrong.push(format!("{was} seen as {}", state.word()));
            }
        }
    }
    differs(&mut wrong, "stdout", expect.stdout.as_deref().map(str::trim), Some(seen.stdout.trim()));
    for text in expect.contains.iter().filter(|text| !seen.stdout.contains(text.as_str())) {
        wrong.push(format!("stdout lacks `{text}`"));
    }
    if expect.entry.is_some() || expect.no_entry.is_some() {
        let table = runner.table()?;
        table_differs(&mut wrong, &table, expect.entry.as_slice(), expect.no_entry.as_slice());
    }
    action.compare(seen, &mut wrong);
    Ok(wrong)
}

fn differs(wrong: &mut Vec<String>, what: &str, want: Option<&str>, have: Option<&str>) {
    if let Some(want) = want
        && have != Some(want)
    {
        wrong.push(format!(
            "{what}: expected `{want}`, got {}",
            have.map_or("none".into(), |have| format!("`{have}`"))
        ));
    }
}

/// `unreachable (icmp-port-unreachable)`.
pub fn result_text(result: Word, icmp: Option<&str>) -> String {
    icmp.map_or(result.text().to_owned(), |icmp| format!("{} ({icmp})", result.text()))
}

/// What a step does, in few words.
pub fn title(lab: &Lab, action: &Action) -> String {
    let word = action.word();
    match (action.flow(), action.host()) {
        (Some(flow), _) => {
            let to = flow.to_host.map_or_else(|| flow.to.to_string(), |id| lab.host(id).name.clone());
            format!("{word} {} → {to}", lab.host(flow.from).name)
        }
        (None, Some(host)) => format!("{word} {}", lab.host(host).name),
        (None, None) => word.to_owned(),
    }
}

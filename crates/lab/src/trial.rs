//! Takes the tests of a lab through a runner and compares what came of each step with what was expected.

#![forbid(unsafe_code)]

use super::judge::{Flows, flow_of, table_differs};
use super::model::{Action, Lab, RunnerKind, Step, Test, Word};
use super::ruling::InForce;
use super::runner::{Observation, RunError, Runner, Seen};
use super::spot::Spot;
use super::why::{Why, why};
use stateway_core::conntrack::CtState;
use stateway_core::packet::Family;
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
    /// Where the test stands in the lab file.
    pub spot: Option<Spot>,
    /// What is known of the last step, if that failed.
    pub why: Option<Box<Why>>,
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
        let (name, took) = (name.to_owned(), Duration::ZERO);
        Self { name, runner, ending, steps: Vec::new(), took, spot: None, why: None }
    }

    /// As [`TestReport::new`], of a test of a lab file.
    fn of(lab: &Lab, test: &Test, runner: RunnerKind, ending: Ending) -> Self {
        Self { spot: lab.spot(&test.path), ..Self::new(&test.name, runner, ending) }
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
    lab.tests.iter().map(move |test| TestReport::of(lab, test, runner, Ending::NotRun(why.to_owned())))
}

/// Takes every test in turn, and says so after each. Once the lab is broken, the others are not run.
pub fn run(lab: &Lab, runner: &mut dyn Runner, mut after: impl FnMut(&TestReport)) -> Vec<TestReport> {
    let mut reports = Vec::new();
    let mut known = Known { earlier: Flows::new(), in_force: InForce::of(lab) };
    let mut broken: Option<String> = None;
    for test in &lab.tests {
        let report = match &broken {
            None => one(lab, test, runner, &mut known),
            Some(why) => TestReport::of(lab, test, runner.kind(), Ending::NotRun(why.clone())),
        };
        after(&report);
        if let Ending::Broken(_) = &report.ending {
            broken = Some(format!("the lab broke in the test `{}`", report.name));
        }
        reports.push(report);
    }
    reports
}

/// What earlier steps leave to later ones.
struct Known {
    /// The connections that they have seen.
    earlier: Flows,
    in_force: InForce,
}

fn one(lab: &Lab, test: &Test, runner: &mut dyn Runner, known: &mut Known) -> TestReport {
    let kind = runner.kind();
    let start = runner.now();
    let mut report = TestReport::of(lab, test, kind, Ending::Passed);
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
        match take(lab, step, runner, known) {
            Ok((taken, wrong)) => {
                if let Action::Rules(rules) = &step.action {
                    known.in_force.replace(rules);
                }
                if !wrong.texts.is_empty() {
                    let deciding = taken.deciding.as_ref();
                    report.why = Some(Box::new(why(lab, &known.in_force, step, wrong.key, deciding)));
                    report.ending = Ending::Failed(wrong.texts);
                }
                report.steps.push(taken);
                if report.why.is_some() {
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
    known: &mut Known,
) -> Result<(StepReport, Wrong), RunError> {
    runner.begins(step);
    let deadline = step.within.map(|within| runner.now() + within);
    if !step.impair.is_empty() {
        runner.impair(&step.impair)?;
    }
    let outcome = loop {
        let seen = match runner.act(&step.action, step.awaits()) {
            Ok(seen) => seen,
            Err(error) => break Err(error),
        };
        let deciding = step.action.deciding(&step.expect, &seen, &known.earlier).cloned();
        known.earlier.extend(seen.packets.iter().filter_map(flow_of));
        let wrong = compare(step, &known.in_force, &seen, deciding.as_ref(), runner)?;
        if wrong.texts.is_empty() || deadline.is_none_or(|deadline| runner.now() >= deadline) {
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

/// What is not as expected.
#[derive(Default)]
struct Wrong {
    texts: Vec<String>,
    /// The first expectation that was not met, by its key; none if it is the step's own.
    key: Option<&'static str>,
}

impl Wrong {
    fn add(&mut self, key: &'static str, text: String) {
        self.key.get_or_insert(key);
        self.texts.push(text);
    }

    fn differs(&mut self, key: &'static str, want: Option<&str>, have: Option<&str>) {
        if let Some(want) = want
            && have != Some(want)
        {
            let what = if key == "exit" { "exit code" } else { key };
            let have = have.map_or("none".into(), |have| format!("`{have}`"));
            self.add(key, format!("{what}: expected `{want}`, got {have}"));
        }
    }

    /// Whatever `look` adds belongs to `key`.
    fn with(&mut self, key: &'static str, look: impl FnOnce(&mut Vec<String>)) {
        let before = self.texts.len();
        look(&mut self.texts);
        if self.texts.len() > before {
            self.key.get_or_insert(key);
        }
    }
}

/// Everything that is not as expected.
fn compare(
    step: &Step,
    in_force: &InForce,
    seen: &Observation,
    deciding: Option<&Seen>,
    runner: &mut dyn Runner,
) -> Result<Wrong, RunError> {
    let (expect, mut wrong) = (&step.expect, Wrong::default());
    if let Some(want) = expect.result.filter(|want| *want != seen.result) {
        let have = result_text(seen.result, seen.icmp.as_deref());
        wrong.add("result", format!("expected {}, got {have}", want.text()));
    }
    wrong.differs("icmp", expect.icmp.as_deref(), seen.icmp.as_deref());
    let exit = |code: i32| code.to_string();
    let wanted_exit = expect.exit.map(|code| exit(code.into()));
    wrong.differs("exit", wanted_exit.as_deref(), seen.exit.map(exit).as_deref());
    let state = deciding.and_then(|packet| packet.state).map(CtState::word);
    wrong.differs("state", expect.state.map(CtState::word), state);
    // The kernel tells neither rule nor reason of a single packet: there they are compared only where they are known.
    let known = |told: Option<&str>| told.is_some() || runner.kind() != RunnerKind::Kernel;
    let decided_by = deciding.and_then(|packet| packet.rule.as_deref());
    if known(decided_by) {
        rule_differs(&mut wrong, step, in_force, deciding);
    }
    let reason = deciding.and_then(|packet| packet.reason.as_deref());
    wrong.differs("reason", expect.reason.as_deref().filter(|_| known(reason)), reason);
    for (key, states, must) in [("seen", &expect.seen, true), ("unseen", &expect.unseen, false)] {
        for state in states {
            if seen.packets.iter().any(|packet| packet.state == Some(*state)) != must {
                let was = if must { "no packet was" } else { "a packet was" };
                wrong.add(key, format!("{was} seen as {}", state.word()));
            }
        }
    }
    wrong.differs("stdout", expect.stdout.as_deref().map(str::trim), Some(seen.stdout.trim()));
    for text in expect.contains.iter().filter(|text| !seen.stdout.contains(text.as_str())) {
        wrong.add("contains", format!("stdout lacks `{text}`"));
    }
    if expect.entry.is_some() || expect.no_entry.is_some() {
        let table = runner.table()?;
        wrong.with("entry", |texts| table_differs(texts, &table, expect.entry.as_slice(), &[]));
        wrong.with("no_entry", |texts| table_differs(texts, &table, &[], expect.no_entry.as_slice()));
    }
    step.action.compare(seen, &mut wrong.texts);
    Ok(wrong)
}

/// Whether another rule decided than the one that is expected.
fn rule_differs(wrong: &mut Wrong, step: &Step, in_force: &InForce, deciding: Option<&Seen>) {
    let Some(rule) = &step.expect.rule else { return };
    let have = deciding.and_then(|packet| packet.rule.as_deref());
    let have = have.map(|name| if name.ends_with("/policy") { "policy" } else { name });
    let is_ipv6 = deciding.is_some_and(|packet| packet.src.is_ipv6());
    let names = in_force.names(rule, if is_ipv6 { Family::Ipv6 } else { Family::Ipv4 });
    if have.is_some_and(|have| names.iter().any(|name| name == have)) {
        return;
    }
    let (want, got) = (rule.text(), have.map_or("none".to_owned(), |have| format!("`{have}`")));
    wrong.add(
        "rule",
        match names.as_slice() {
            [] => format!("rule: expected `{want}`, which is the comment of no rule, got {got}"),
            [name] if name == want => format!("rule: expected `{want}`, got {got}"),
            names => format!("rule: expected `{want}` ({}), got {got}", names.join(", ")),
        },
    );
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

//! What a person, or a machine, reads after the tests: one line a test, and for a failure the packets around it.

#![forbid(unsafe_code)]

use super::model::Lab;
use super::runner::Seen;
use super::spot::Spot;
use super::trial::{Ending, StepReport, TestReport, result_text};
use super::why::{Miss, Ruling, Why};
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet, Title};
use anstyle::{AnsiColor, Color, Style};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};
use stateway_core::packet::tuple::PROTO_ICMPV6;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// What a report in the form of `JUnit` is called; that of a shard also has the shard's name, `stateway 2/4`.
pub const JUNIT_NAME: &str = "stateway";
/// A report in JSON is a list of tests; that of a shard is an object of the shard's name and that list.
pub const SHARD: &str = "shard";
/// The list.
pub const TESTS: &str = "tests";
/// As many packets of a failed step are shown.
const SHOWN: usize = 12;
/// What belongs to a test stands below its name.
const INDENT: &str = "       ";

/// How it looks to who reads it.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Only a terminal has any.
    pub colours: bool,
    /// What others wrote, without what a terminal acts on. It is needed where colours are: nothing else stands between.
    pub clean: for<'a> fn(&'a str) -> Cow<'a, str>,
}

impl Look {
    /// As it is written to files.
    pub const PLAIN: Self = Self { colours: false, clean: |text| Cow::Borrowed(text) };

    fn paint(self, style: Style, text: &str) -> String {
        let text = (self.clean)(text);
        if self.colours { format!("{style}{text}{style:#}") } else { text.into_owned() }
    }
}

/// How wide the names of a lab's tests are in their lines.
pub fn width(lab: &Lab) -> usize {
    const WIDEST: usize = 60;
    lab.tests.iter().map(|test| test.name.chars().count()).max().unwrap_or_default().min(WIDEST)
}

/// One line: what was tested, what happened, the state of the packet that decided, and how long it took.
pub fn line(report: &TestReport, width: usize, look: Look) -> String {
    let word = format!("{:<6}", report.ending.word());
    let name = format!("{:<width$}", report.name);
    let mut text = look.paint(ending_style(&report.ending), &word);
    _ = write!(text, " {:<6} {}", report.runner.word(), (look.clean)(&name));
    match (&report.ending, report.steps.last()) {
        (Ending::Skipped(why) | Ending::Late(why) | Ending::Broken(why) | Ending::NotRun(why), _) => {
            _ = write!(text, "  {}", (look.clean)(why));
        }
        (_, Some(_)) => _ = write!(text, "  {}", told(&report.steps, look).join("; ")),
        (_, None) => {}
    }
    let text = text.trim_end();
    if report.steps.is_empty() { text.to_owned() } else { format!("{text}  ({})", time(report.took)) }
}

/// As long as a person wants to know it: `0.3 ms`, `12 ms`, `2.41 s`, `5 days`.
fn time(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match took.as_secs() {
        0 if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        0 => format!("{:.0} ms", seconds * 1e3),
        1..60 => format!("{seconds:.2} s"),
        whole => humantime::format_duration(Duration::from_secs(whole)).to_string(),
    }
}

fn ending_style(ending: &Ending) -> Style {
    match ending {
        Ending::Passed => colour(AnsiColor::Green),
        Ending::Failed(_) => colour(AnsiColor::Red).bold(),
        Ending::Late(_) | Ending::Broken(_) => colour(AnsiColor::Magenta).bold(),
        Ending::Skipped(_) | Ending::NotRun(_) => colour(AnsiColor::Yellow),
    }
}

/// The colour of what became of a packet.
pub fn fate_style(fate: &str) -> Style {
    match fate {
        "forwarded" => colour(AnsiColor::Green),
        "dropped" => colour(AnsiColor::Red).bold(),
        "rejected" => colour(AnsiColor::Magenta).bold(),
        "queued" => colour(AnsiColor::Yellow),
        _ => colour(AnsiColor::Blue),
    }
}

/// The colour of a connection state.
pub fn state_style(state: &str) -> Style {
    match state {
        "NEW" => colour(AnsiColor::Cyan),
        "ESTABLISHED" => colour(AnsiColor::Green),
        "RELATED" => colour(AnsiColor::Blue),
        "INVALID" => colour(AnsiColor::Red).bold(),
        _ => Style::new().dimmed(),
    }
}

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// The steps that are worth a word: those with traffic, or else all. Repetitions over hosts are told once.
fn told(steps: &[StepReport], look: Look) -> Vec<String> {
    const TOLD: usize = 4;
    let with_traffic: Vec<&StepReport> = steps.iter().filter(|step| step.title.contains('→')).collect();
    let chosen: Vec<&StepReport> =
        if with_traffic.is_empty() { steps.iter().collect() } else { with_traffic };
    let alike = |a: &&StepReport, b: &&StepReport| {
        let kind = |step: &StepReport| step.title.split(' ').next().map(str::to_owned);
        a.result == b.result && kind(a) == kind(b) && a.note == b.note
    };
    let told = chosen.chunk_by(alike).map(|steps| match steps {
        [step] => outcome(step, look),
        steps => format!("{} times {}", steps.len(), outcome(steps[steps.len() - 1], look)),
    });
    let told: Vec<String> = told.collect();
    told[told.len().saturating_sub(TOLD)..].to_vec()
}

fn outcome(step: &StepReport, look: Look) -> String {
    let mut text = result_text(step.result, step.icmp.as_deref());
    if !step.note.is_empty() {
        _ = write!(text, ": {}", (look.clean)(&step.note));
    }
    let Some(packet) = &step.deciding else { return text };
    let state = packet.state.map_or("no state", |state| state.word());
    let (state, fate) =
        (look.paint(state_style(state), state), look.paint(fate_style(&packet.fate), &packet.fate));
    let by = packet.rule.as_deref().or(packet.reason.as_deref());
    _ = write!(text, " [{state}, {fate}{}]", by.map(|by| format!(" by {by}")).unwrap_or_default());
    text
}

/// What was wrong, the packets around it, and why, for people.
pub fn details(report: &TestReport, look: Look) -> String {
    let mut text = String::new();
    let Ending::Failed(wrong) = &report.ending else { return text };
    for wrong in wrong {
        _ = writeln!(text, "{INDENT}{}", (look.clean)(wrong));
    }
    let Some(step) = report.steps.last() else { return text };
    _ = writeln!(text, "{INDENT}in: {}", (look.clean)(&step.title));
    for packet in step.packets.iter().take(SHOWN) {
        // The one that the expectations are about.
        let mark = if step.deciding.as_ref() == Some(packet) { '>' } else { ' ' };
        _ = writeln!(text, "{INDENT}{mark} {}", packet_line(packet, look));
    }
    if step.packets.len() > SHOWN {
        _ = writeln!(text, "{INDENT}  … and {} more packets", step.packets.len() - SHOWN);
    }
    if step.packets.is_empty() {
        _ = writeln!(text, "{INDENT}  the router saw no packet");
    }
    // A bridge filters it like any other IPv6, and then nobody finds anybody.
    let is_discovery = |packet: &Seen| {
        packet.was_stopped()
            && packet.protocol == PROTO_ICMPV6
            && matches!(packet.gist.icmp, Some((135 | 136, _)))
    };
    if step.packets.iter().any(is_discovery) {
        _ = writeln!(
            text,
            "{INDENT}hint: the rules stop neighbour discovery; accept `-p ipv6-icmp --icmpv6-type` \
             neighbour-solicitation and neighbour-advertisement"
        );
    }
    if let Some(why) = &report.why {
        for line in snippets(why, wrong, step, look).lines() {
            _ = writeln!(text, "{}", format!("{INDENT}{line}").trim_end());
        }
    }
    text
}

fn packet_line(packet: &Seen, look: Look) -> String {
    let state = packet.state.map_or("-", |state| state.word());
    let by = packet.rule.as_deref().map(|rule| format!(" by {rule}")).unwrap_or_default();
    let why = packet.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!(
        "{:>8.3}s {:<10} {:<56} {} {}{by}{why}",
        packet.time.as_secs_f64(),
        (look.clean)(&packet.in_port),
        (look.clean)(&packet.summary),
        look.paint(state_style(state), &format!("{state:<11}")),
        look.paint(fate_style(&packet.fate), &packet.fate),
    )
}

/// The lines of the lab file and of the rules that it is about, as compilers show them.
fn snippets(why: &Why, wrong: &[String], step: &StepReport, look: Look) -> String {
    let fate = step.deciding.as_ref().map_or("judged", |packet| packet.fate.as_str());
    let mut groups = Vec::new();
    if let Some(spot) = &why.expected {
        let title = wrong.first().map_or_else(String::new, |first| (look.clean)(first).into_owned());
        groups.push(Level::ERROR.primary_title(title).element(snippet(spot, None, look)));
    }
    if let Some(Ruling { name, text, spot }) = &why.decided {
        let title =
            Level::NOTE.secondary_title(format!("the packet was {fate} by {name}: {}", (look.clean)(text)));
        groups.push(with_spot(title, spot.as_ref(), None, look));
    }
    for Miss { rule, condition, value } in &why.missed {
        let title =
            Level::NOTE.secondary_title(format!("{} did not match: {}", rule.name, (look.clean)(&rule.text)));
        let label = match value {
            Some(value) => format!("no: {value}"),
            None => format!("no: {condition}"),
        };
        groups.push(with_spot(title, rule.spot.as_ref(), Some((look.clean)(&label).into_owned()), look));
    }
    if groups.is_empty() {
        return String::new();
    }
    let renderer = if look.colours { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&groups) + "\n"
}

fn with_spot<'a>(title: Title<'a>, spot: Option<&'a Spot>, label: Option<String>, look: Look) -> Group<'a> {
    match (spot, label) {
        (Some(spot), label) => title.element(snippet(spot, label, look)),
        (None, Some(label)) => Group::with_title(title).element(Level::NOTE.message(label)),
        (None, None) => Group::with_title(title),
    }
}

fn snippet(spot: &Spot, label: Option<String>, look: Look) -> Snippet<'_, Annotation<'_>> {
    let text = (look.clean)(&spot.text);
    // Where something had to be cleaned away, columns mean nothing any more.
    let range = if text == spot.text { spot.start..spot.end } else { 0..text.len() };
    let annotation = AnnotationKind::Primary.span(range).label(label);
    let file = (look.clean)(&spot.file.to_string_lossy()).into_owned();
    Snippet::source(text).line_start(spot.line).path(file).annotation(annotation)
}

/// `5 passed, 1 failed`.
pub fn summary(reports: &[TestReport]) -> String {
    let count = |wanted: fn(&Ending) -> bool| reports.iter().filter(|report| wanted(&report.ending)).count();
    let parts = [
        (count(|e| matches!(e, Ending::Passed)), "passed"),
        (count(|e| matches!(e, Ending::Failed(_))), "failed"),
        (count(|e| matches!(e, Ending::Late(_))), "late"),
        (count(|e| matches!(e, Ending::Broken(_))), "broken"),
        (count(|e| matches!(e, Ending::Skipped(_))), "skipped"),
        (count(|e| matches!(e, Ending::NotRun(_))), "not run"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(n, word)| *n > 0 || *word == "passed")
        .map(|(n, word)| format!("{n} {word}"))
        .collect();
    parts.join(", ")
}

/// One object a test.
pub fn json(lab: &str, report: &TestReport) -> Value {
    let steps: Vec<Value> = report.steps.iter().map(step_json).collect();
    let (wrong, why): (&[String], Option<&str>) = match &report.ending {
        Ending::Passed => (&[], None),
        Ending::Failed(wrong) => (wrong, None),
        Ending::Skipped(why) | Ending::Late(why) | Ending::Broken(why) | Ending::NotRun(why) => {
            (&[], Some(why))
        }
    };
    json!({
        "lab": lab,
        "test": report.name,
        "runner": report.runner.word(),
        "ending": report.ending.word().to_lowercase(),
        "wrong": wrong,
        "why": why,
        "seconds": report.took.as_secs_f64(),
        "file": report.spot.as_ref().map(|spot| spot.file.display().to_string()),
        "line": report.spot.as_ref().map(|spot| spot.line),
        "decided_by": report.why.as_ref().and_then(|why| why.decided.as_ref()).map(ruling_json),
        "missed": report.why.iter().flat_map(|why| &why.missed).map(miss_json).collect::<Vec<_>>(),
        "steps": steps,
    })
}

fn ruling_json(ruling: &Ruling) -> Value {
    json!({
        "rule": ruling.name,
        "text": ruling.text,
        "file": ruling.spot.as_ref().map(|spot| spot.file.display().to_string()),
        "line": ruling.spot.as_ref().map(|spot| spot.line),
    })
}

fn miss_json(miss: &Miss) -> Value {
    json!({ "rule": ruling_json(&miss.rule), "condition": miss.condition, "value": miss.value })
}

fn step_json(step: &StepReport) -> Value {
    let deciding = step.deciding.as_ref().map(|packet| {
        json!({
            "packet": packet.summary,
            "in": packet.in_port,
            "out": packet.out_port,
            "ctstate": packet.state.map(stateway_core::conntrack::CtState::word),
            "fate": packet.fate,
            "rule": packet.rule,
            "reason": packet.reason,
        })
    });
    json!({
        "step": step.title,
        "result": step.result.text(),
        "icmp": step.icmp,
        "note": step.note,
        "deciding": deciding,
        "packets": step.packets.len(),
    })
}

/// A failed test as GitHub shows it beside the line of the lab file; `None` if there is nothing to show.
pub fn github(lab: &str, report: &TestReport) -> Option<String> {
    let message = match &report.ending {
        Ending::Passed | Ending::Skipped(_) | Ending::NotRun(_) => return None,
        Ending::Late(why) | Ending::Broken(why) => why.clone(),
        Ending::Failed(wrong) => {
            let mut lines = wrong.clone();
            let why = report.why.as_deref();
            lines.extend(
                why.and_then(|why| why.decided.as_ref()).map(|by| format!("{}: {}", by.name, by.text)),
            );
            lines.extend(why.iter().flat_map(|why| &why.missed).map(|miss| {
                let why = miss.value.as_ref().unwrap_or(&miss.condition);
                format!("{} did not match `{}`: {why}", miss.rule.name, miss.condition)
            }));
            lines.join("\n")
        }
    };
    let spot = report.why.as_ref().and_then(|why| why.expected.as_ref()).or(report.spot.as_ref());
    let place =
        spot.and_then(|spot| Some((spot, spot.on_disk()?))).map_or_else(String::new, |(spot, file)| {
            format!(
                "file={},line={},col={},",
                property(&file.display().to_string()),
                spot.line,
                spot.column()
            )
        });
    let title = property(&format!("{lab}: {} ({})", report.name, report.runner.word()));
    Some(format!("::error {place}title={title}::{}", message_of(&message)))
}

/// What a workflow command may hold behind its `::`.
fn message_of(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What one of its properties may hold.
fn property(text: &str) -> String {
    message_of(text).replace(':', "%3A").replace(',', "%2C")
}

/// The Test Anything Protocol, version 13.
pub fn tap(reports: &[(String, TestReport)]) -> String {
    let mut text = format!("TAP version 13\n1..{}\n", reports.len());
    for (number, (lab, report)) in reports.iter().enumerate() {
        let ok = if report.ending.is_well() { "ok" } else { "not ok" };
        let name = report.name.replace('#', " ");
        _ = write!(text, "{ok} {} - {lab}: {name} ({})", number + 1, report.runner.word());
        if let Ending::Skipped(why) = &report.ending {
            _ = write!(text, " # SKIP {why}");
        }
        text.push('\n');
        if let Ending::Late(why) | Ending::Broken(why) | Ending::NotRun(why) = &report.ending {
            let word = report.ending.word().to_lowercase();
            why.lines().for_each(|line| _ = writeln!(text, "# {word}: {}", line.trim()));
        }
        for line in details(report, Look::PLAIN).lines() {
            _ = writeln!(text, "# {}", line.trim());
        }
    }
    text
}

/// What CI systems read.
///
/// # Errors
/// The report cannot be written as XML.
pub fn junit(reports: &[(String, TestReport)], shard: Option<&str>) -> anyhow::Result<String> {
    let mut xml =
        Report::new(shard.map_or_else(|| JUNIT_NAME.to_owned(), |shard| format!("{JUNIT_NAME} {shard}")));
    let mut suites: Vec<(String, TestSuite)> = Vec::new();
    for (lab, report) in reports {
        let name = format!("{lab} ({})", report.runner.word());
        let mut status = match &report.ending {
            Ending::Passed => TestCaseStatus::success(),
            Ending::Failed(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
            Ending::Late(_) | Ending::Broken(_) => TestCaseStatus::non_success(NonSuccessKind::Error),
            // What kept it from being run is an error of its own.
            Ending::Skipped(_) | Ending::NotRun(_) => TestCaseStatus::skipped(),
        };
        match &report.ending {
            Ending::Passed => {}
            Ending::Failed(wrong) => {
                status.set_message(wrong.join("; "));
                status.set_description(details(report, Look::PLAIN));
            }
            Ending::Skipped(why) | Ending::Broken(why) => _ = status.set_message(why.clone()),
            Ending::Late(why) => _ = status.set_message(format!("late: {why}")),
            Ending::NotRun(why) => _ = status.set_message(format!("not run: {why}")),
        }
        let mut case = TestCase::new(report.name.clone(), status);
        case.set_classname(name.clone());
        case.set_time(report.took);
        // As pytest and others write it; GitLab and several viewers link to it.
        if let Some((spot, file)) = report.spot.as_ref().and_then(|spot| Some((spot, spot.on_disk()?))) {
            case.extra.insert("file".into(), file.display().to_string().into());
            case.extra.insert("line".into(), spot.line.to_string().into());
        }
        case.set_system_out(line(report, 0, Look::PLAIN));
        if let Some((_, suite)) = suites.iter_mut().find(|(other, _)| *other == name) {
            suite.add_test_case(case);
        } else {
            let mut suite = TestSuite::new(name.clone());
            suite.add_test_case(case);
            suites.push((name, suite));
        }
    }
    xml.add_test_suites(suites.into_iter().map(|(_, suite)| suite));
    Ok(xml.to_string()?)
}

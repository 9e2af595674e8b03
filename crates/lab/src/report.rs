//! What a person, or a machine, reads after the tests: one line a test, and for a failure the packets around it.

#![forbid(unsafe_code)]

use super::runner::Seen;
use super::trial::{Ending, StepReport, TestReport, result_text};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};
use stateway_core::packet::tuple::PROTO_ICMPV6;
use std::fmt::Write as _;

/// As many packets of a failed step are shown.
const SHOWN: usize = 12;

/// One line: what was tested, what happened, and the state of the packet that decided.
pub fn line(report: &TestReport, width: usize) -> String {
    let mut text = format!("{:<6} {:<6} {:<width$}", report.ending.word(), report.runner.word(), report.name);
    match (&report.ending, report.steps.last()) {
        (Ending::Skipped(why) | Ending::Late(why) | Ending::Broken(why) | Ending::NotRun(why), _) => {
            _ = write!(text, "  {why}");
        }
        (_, Some(_)) => _ = write!(text, "  {}", told(&report.steps).join("; ")),
        (_, None) => {}
    }
    text.trim_end().to_owned()
}

/// The steps that are worth a word: those with traffic, or else all. Repetitions over hosts are told once.
fn told(steps: &[StepReport]) -> Vec<String> {
    const TOLD: usize = 4;
    let with_traffic: Vec<&StepReport> = steps.iter().filter(|step| step.title.contains('→')).collect();
    let chosen: Vec<&StepReport> =
        if with_traffic.is_empty() { steps.iter().collect() } else { with_traffic };
    let alike = |a: &&StepReport, b: &&StepReport| {
        let kind = |step: &StepReport| step.title.split(' ').next().map(str::to_owned);
        a.result == b.result && kind(a) == kind(b) && a.note == b.note
    };
    let told = chosen.chunk_by(alike).map(|steps| match steps {
        [step] => outcome(step),
        steps => format!("{} times {}", steps.len(), outcome(steps[steps.len() - 1])),
    });
    let told: Vec<String> = told.collect();
    told[told.len().saturating_sub(TOLD)..].to_vec()
}

fn outcome(step: &StepReport) -> String {
    let mut text = result_text(step.result, step.icmp.as_deref());
    if !step.note.is_empty() {
        _ = write!(text, ": {}", step.note);
    }
    let Some(packet) = &step.deciding else { return text };
    let state = packet.state.map_or("no state", |state| state.word());
    let by = packet.rule.as_deref().or(packet.reason.as_deref());
    _ = write!(text, " [{state}, {}{}]", packet.fate, by.map(|by| format!(" by {by}")).unwrap_or_default());
    text
}

/// What was wrong, and the packets around it, for people.
pub fn details(report: &TestReport) -> String {
    let mut text = String::new();
    let Ending::Failed(wrong) = &report.ending else { return text };
    for wrong in wrong {
        _ = writeln!(text, "       {wrong}");
    }
    let Some(step) = report.steps.last() else { return text };
    _ = writeln!(text, "       in: {}", step.title);
    for packet in step.packets.iter().take(SHOWN) {
        let state = packet.state.map_or("-", |state| state.word());
        // The one that the expectations are about.
        let mark = if step.deciding.as_ref() == Some(packet) { '>' } else { ' ' };
        let by = packet.rule.as_deref().map(|rule| format!(" by {rule}")).unwrap_or_default();
        let why = packet.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        _ = writeln!(
            text,
            "       {mark} {:>8.3}s {:<10} {:<56} {state:<11} {}{by}{why}",
            packet.time.as_secs_f64(),
            packet.in_port,
            packet.summary,
            packet.fate
        );
    }
    if step.packets.len() > SHOWN {
        _ = writeln!(text, "         … and {} more packets", step.packets.len() - SHOWN);
    }
    if step.packets.is_empty() {
        _ = writeln!(text, "         the router saw no packet");
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
            "       hint: the rules stop neighbour discovery; accept `-p ipv6-icmp --icmpv6-type` \
             neighbour-solicitation and neighbour-advertisement"
        );
    }
    text
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
        "steps": steps,
    })
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
        for line in details(report).lines() {
            _ = writeln!(text, "# {}", line.trim());
        }
    }
    text
}

/// What CI systems read.
///
/// # Errors
/// The report cannot be written as XML.
pub fn junit(reports: &[(String, TestReport)]) -> anyhow::Result<String> {
    let mut xml = Report::new("stateway");
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
                status.set_description(details(report));
            }
            Ending::Skipped(why) | Ending::Broken(why) => _ = status.set_message(why.clone()),
            Ending::Late(why) => _ = status.set_message(format!("late: {why}")),
            Ending::NotRun(why) => _ = status.set_message(format!("not run: {why}")),
        }
        let mut case = TestCase::new(report.name.clone(), status);
        case.set_classname(name.clone());
        case.set_time(report.took);
        case.set_system_out(line(report, 0));
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

//! Whether runners agree on what came of a test.

use stateway_lab::trial::{self, TestReport};

/// Tests that ended well on one runner and not on another: the name of the lab, and on what they differ.
pub(super) fn disagreements(reports: &[(String, TestReport)]) -> Vec<(String, String)> {
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
            let text = format!(
                "{}: {} {} ({}), {} {} ({})",
                report.name,
                other.runner.word(),
                other.ending.word(),
                outcomes(other).join(", "),
                report.runner.word(),
                report.ending.word(),
                outcomes(report).join(", ")
            );
            lines.push((lab.clone(), text));
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

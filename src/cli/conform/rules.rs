//! `stateway conform --profile rules`.

use super::{Args, list, note, print, saved_as, show_step};
use crate::cli::render::Format;
use crate::cli::{Failure, Result};
use serde_json::json;
use stateway_conform::rules::{Finding, Plan, Report, Use, run as run_plan};
use stateway_conform::saved::{Saved, save};
use stateway_conform::trace::Step;
use std::collections::BTreeMap;

/// Random rulesets, each with its traffic.
pub(super) fn run(args: &Args) -> Result {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    note(&format!("seed {seed}"));
    let plan = Plan { seed, frames: args.frames, mode: args.mode.into(), stop_early: args.stop };
    let report = run_plan(&plan, |frames| {
        if frames % 50_000 < 1000 {
            note(&format!("{frames} frames"));
        }
    });
    let report = report.map_err(Failure::Machine)?;
    let mut saved = Vec::new();
    for (n, finding) in report.findings.iter().chain(&report.unrepeated).enumerate() {
        let name = format!("rules-{seed}-{}", n + 1);
        saved.push(save(&finding.as_story(), &args.save, &name).map_err(Failure::Machine)?);
    }
    match args.format {
        Format::Json => print(&as_json(&report, seed, &saved).to_string()),
        Format::Text => print(&as_text(&report, seed, &saved)),
    }
    if report.findings.is_empty() && report.unrepeated.is_empty() { Ok(()) } else { Err(Failure::Differs) }
}

fn as_json(report: &Report, seed: u64, saved: &[Saved]) -> serde_json::Value {
    let finding = |(finding, saved): (&Finding, &Saved)| {
        let mismatches = finding.difference.mismatches.iter();
        json!({
            "after_frames": finding.after_frames,
            "frames": finding.case.frames.len(),
            "mismatches": mismatches
                .map(|m| json!({"aspect": m.aspect, "kernel": m.kernel, "stateway": m.ours}))
                .collect::<Vec<_>>(),
            "kernel_reasons": finding.difference.reasons,
            "files": saved.files,
        })
    };
    let [absent, idle] = report.coverage.missing();
    json!({
        "seed": seed,
        "frames": report.coverage.frames,
        "coverage": report.coverage,
        "missing": { "absent": absent, "never_held": idle },
        "differences": report.findings.iter().zip(saved).map(finding).collect::<Vec<_>>(),
        "unrepeated": report.unrepeated.iter().zip(&saved[report.findings.len()..]).map(finding).collect::<Vec<_>>(),
    })
}

fn as_text(report: &Report, seed: u64, saved: &[Saved]) -> String {
    let coverage = &report.coverage;
    let mut lines = vec![format!("seed {seed}")];
    let counts = |map: &BTreeMap<&str, u64>| {
        map.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
    };
    lines.push(format!("frames by kind: {}", counts(&coverage.kinds)));
    lines.push(format!("fates: {}", counts(&coverage.fates)));
    lines.push(format!("ctstates: {}", counts(&coverage.states)));
    lines.push("rules with it, of them held, packets for which they held:".to_owned());
    lines.extend(
        coverage
            .uses
            .iter()
            .map(|(name, Use { rules, held, packets })| format!("  {name}  {rules}  {held}  {packets}")),
    );
    let [absent, idle] = coverage.missing();
    lines.push(format!("took no part: {}", list(&absent)));
    lines.push(format!("never held: {}", list(&idle)));
    for (finding, files) in report.findings.iter().zip(saved) {
        lines.push(format!("\ndifference after {} frames:", finding.after_frames));
        for tables in &finding.case.rules {
            lines.extend(tables.lines().into_iter().map(|line| format!("  {line}")));
        }
        lines.extend(finding.case.frames.iter().cloned().map(|frame| show_step(&Step::Frame(frame))));
        lines.extend(finding.difference.mismatches.iter().map(|mismatch| format!("  {mismatch}")));
        lines.extend(finding.difference.reasons.iter().map(|reason| format!("  the kernel says: {reason}")));
        lines.extend(saved_as(files));
    }
    for (finding, files) in report.unrepeated.iter().zip(&saved[report.findings.len()..]) {
        let what = finding.difference.mismatches.iter().map(ToString::to_string).collect::<Vec<_>>();
        let what = what.join("; ").chars().take(300).collect::<String>();
        lines.push(format!("\ndifference, not seen again, after {} frames: {what}", finding.after_frames));
        lines.extend(saved_as(files));
    }
    lines.push(format!(
        "{} rulesets, {} rules, {} frames, {} differences",
        coverage.rulesets,
        coverage.rules,
        coverage.frames,
        report.findings.len()
    ));
    lines.join("\n")
}

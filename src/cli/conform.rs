//! `stateway conform`: the same frames through the kernel and through the router, and what differs.

use super::render::{Format, tell as note};
use super::{Failure, Result};
use anyhow::{Context as _, anyhow};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde_json::json;
use stateway_conform::generate::Profile;
use stateway_conform::kernel::NAMES;
use stateway_conform::saved::{self, Saved};
use stateway_conform::session::{Finding, Plan, Report, compare_story, run as run_plan};
use stateway_conform::story::{self, Story};
use stateway_conform::trace::Step;
use stateway_conform::{Kernel, Setup};
use stateway_core::config::Mode;
use stateway_core::filter;
use stateway_trace::input;
use std::path::{Path, PathBuf};

mod rules;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Captures (pcapng, interfaces `left` and `right`) and scenarios (`.flow`); generated traffic without any
    files: Vec<PathBuf>,
    /// Seed of the generator; without it a fresh one is chosen and printed
    #[arg(long)]
    seed: Option<u64>,
    /// Frames to generate
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    frames: u64,
    /// What kind of traffic to generate
    #[arg(long, value_enum, default_value_t = Wanted::Traffic(Profile::Mixed))]
    profile: Wanted,
    /// What router and kernel are: a router, or a bridge of `left` and `right`
    #[arg(long, value_enum, default_value_t = ModeArg::Route)]
    mode: ModeArg,
    /// Rules for captures (iptables-save)
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// IPv6 rules for captures (ip6tables-save)
    #[arg(long, value_name = "FILE")]
    rules6: Option<PathBuf>,
    /// Settings for captures
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// How much an interface takes, for captures
    #[arg(long, value_name = "IFACE=BYTES")]
    mtu: Vec<String>,
    /// Stop at the first difference
    #[arg(long)]
    stop: bool,
    /// Where differences are saved, as pcapng and `.flow`
    #[arg(long, value_name = "FOLDER", default_value = "conform-differences")]
    save: PathBuf,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What router and kernel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    Route,
    Bridge,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Route => Self::Route,
            ModeArg::Bridge => Self::Bridge,
        }
    }
}

/// What is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Traffic that disturbs connection tracking, under plain rules.
    Traffic(Profile),
    /// Random rules, and traffic aimed at their edges.
    Rules,
}

impl ValueEnum for Wanted {
    fn value_variants<'a>() -> &'a [Self] {
        const {
            &[
                Self::Traffic(Profile::Tcp),
                Self::Traffic(Profile::Udp),
                Self::Traffic(Profile::Icmp),
                Self::Traffic(Profile::Fragment),
                Self::Traffic(Profile::Sctp),
                Self::Traffic(Profile::Mixed),
                Self::Traffic(Profile::Ftp),
                Self::Traffic(Profile::Tftp),
                Self::Traffic(Profile::Timer),
                Self::Traffic(Profile::Nat),
                Self::Rules,
            ]
        }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Traffic(profile) => profile.to_possible_value(),
            Self::Rules => Some(
                PossibleValue::new("rules")
                    .help("Random rulesets, one for each 1000 frames; every counter is compared as well"),
            ),
        }
    }
}

pub(super) fn run(args: Args) -> Result {
    // Whether this machine can do it at all is found out first.
    Kernel::new(&Setup { mode: args.mode.into(), ..Setup::default() }).map_err(Failure::Machine)?;
    let (seed, report) = match args.profile {
        _ if !args.files.is_empty() => (None, from_files(&args)?),
        Wanted::Rules => return rules::run(&args),
        Wanted::Traffic(profile) => generated(&args, profile)?,
    };
    let mut saved = Vec::new();
    for (n, finding) in report.findings.iter().chain(&report.unrepeated).enumerate() {
        let name = seed.map_or(format!("difference-{}", n + 1), |seed| format!("seed-{seed}-{}", n + 1));
        saved.push(saved::save(finding, &args.save, &name).map_err(Failure::Machine)?);
    }
    match args.format {
        Format::Json => print(&as_json(&report, seed, &saved).to_string()),
        Format::Text => print(&as_text(&report, seed, &saved)),
    }
    if report.findings.is_empty() && report.unrepeated.is_empty() { Ok(()) } else { Err(Failure::Differs) }
}

fn generated(args: &Args, profile: Profile) -> Result<(Option<u64>, Report)> {
    if profile == Profile::Nat && Mode::from(args.mode) == Mode::Bridge {
        return Err(Failure::Input(anyhow!(
            "`--profile nat` compares routers: a bridge has no addresses to translate to\n  hint: `--mode route`"
        )));
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    note(&format!("seed {seed}"));
    let plan = Plan { seed, frames: args.frames, profile, mode: args.mode.into(), stop_early: args.stop };
    let report = run_plan(&plan, |frames| {
        if frames % 100_000 < 10_000 {
            note(&format!("{frames} frames"));
        }
    });
    Ok((Some(seed), report.map_err(Failure::Machine)?))
}

fn from_files(args: &Args) -> Result<Report> {
    let mut report = Report::default();
    let mut left_out = 0;
    for path in &args.files {
        match read(args, path).map_err(Failure::Input)? {
            Some(story) => compare_story(&story, &mut report).map_err(Failure::Machine)?,
            None => left_out += 1,
        }
    }
    if report.coverage.frames == 0 {
        return Err(Failure::Input(anyhow!(
            "nothing was compared: the files have no frame that the kernel can be told"
        )));
    }
    if left_out > 0 {
        note(&format!("{left_out} of {} files were left out", args.files.len()));
    }
    Ok(report)
}

fn read(args: &Args, path: &Path) -> anyhow::Result<Option<Story>> {
    if path.extension().is_some_and(|extension| extension == "flow") {
        let text = text_of(path)?;
        return Ok(match story::from_flow(&text).with_context(|| path.display().to_string())? {
            Ok(story) => Some(story),
            Err(unfit) => {
                note(&format!("{}: left out: {unfit:?}", path.display()));
                None
            }
        });
    }
    let rules = |path: &Option<PathBuf>| path.as_deref().map(text_of).transpose();
    let sysctl = args.sysctl.iter().map(|setting| {
        let (name, value) =
            setting.split_once('=').ok_or_else(|| anyhow!("`{setting}`: NAME=VALUE is wanted"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    let mtu = args.mtu.iter().map(|setting| {
        let read =
            setting.split_once('=').and_then(|(name, bytes)| Some((name.to_owned(), bytes.parse().ok()?)));
        read.filter(|(name, _)| NAMES.contains(&name.as_str()))
            .ok_or_else(|| anyhow!("`{setting}`: left=BYTES or right=BYTES is wanted"))
    });
    let (rules4, rules6) = (rules(&args.rules)?, rules(&args.rules6)?);
    let is_serial = [&rules4, &rules6].into_iter().flatten().any(|rules| story::translates(rules));
    let setup = Setup {
        mode: args.mode.into(),
        is_serial,
        mtu: mtu.collect::<anyhow::Result<_>>()?,
        rules4,
        rules6,
        sysctl: sysctl.collect::<anyhow::Result<_>>()?,
        ..Setup::default()
    };
    story::from_capture(path, setup).map(Some)
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    let bytes = input::read(path, input::MAX_RULES).with_context(|| path.display().to_string())?;
    filter::text_of(bytes).with_context(|| path.display().to_string())
}

fn as_json(report: &Report, seed: Option<u64>, saved: &[Saved]) -> serde_json::Value {
    let finding = |(finding, saved): (&Finding, &Saved)| {
        let mismatches = finding.difference.mismatches.iter();
        json!({
            "after_frames": finding.after_frames,
            "frames": finding.trace.frames().count(),
            "mismatches": mismatches
                .map(|m| json!({"aspect": m.aspect, "kernel": m.kernel, "stateway": m.ours}))
                .collect::<Vec<_>>(),
            "kernel_reasons": finding.difference.reasons,
            "files": saved.files,
        })
    };
    json!({
        "seed": seed,
        "frames": report.coverage.frames,
        "blurred": report.blurred,
        "coverage": report.coverage,
        "missing": {
            "tcp_cells": report.coverage.missing_tcp_cells(),
            "invalid": report.coverage.missing_invalid(),
            "icmp": report.coverage.missing_icmp(),
            "cells": report.coverage.missing_cells(),
            "nat": report.coverage.nat.missing(),
        },
        "differences": report.findings.iter().zip(saved).map(finding).collect::<Vec<_>>(),
        "unrepeated": report.unrepeated.iter().zip(&saved[report.findings.len()..]).map(finding).collect::<Vec<_>>(),
    })
}

fn as_text(report: &Report, seed: Option<u64>, saved: &[Saved]) -> String {
    let coverage = &report.coverage;
    let mut lines = Vec::new();
    lines.extend(seed.map(|seed| format!("seed {seed}")));
    let counts = |map: &std::collections::BTreeMap<&str, u64>| {
        map.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
    };
    lines.push(format!("frames by kind: {}", counts(&coverage.kinds)));
    lines.push(format!("fates: {}", counts(&coverage.fates)));
    lines.push(format!("ctstates: {}", counts(&coverage.states)));
    lines.push(format!("INVALID: {}", counts(&coverage.invalid)));
    let missing_cells = coverage.missing_cells();
    lines.push(format!("cells of kind of packet x state x fate reached: {}", coverage.cells.len()));
    lines.push(format!("cells not reached: {}", list(&missing_cells)));
    let missing_icmp = coverage.missing_icmp();
    lines.push(format!("cases of ICMP reached: {}", coverage.icmp.len()));
    lines.push(format!("cases of ICMP not reached: {}", list(&missing_icmp)));
    lines.push(format!("cells of the TCP table reached: {}", coverage.tcp_cells.len()));
    lines.push(format!("cells of the TCP table not reached: {}", list(&coverage.missing_tcp_cells())));
    lines.push(format!("reasons for INVALID not reached: {}", list(&coverage.missing_invalid())));
    if !coverage.nat.met.is_empty() {
        lines.push(format!("cases of translation reached: {}", coverage.nat.met.len()));
        lines.push(format!("cases of translation not reached: {}", list(&coverage.nat.missing())));
    }
    let findings = report.findings.iter().map(|finding| (finding, "difference"));
    let unrepeated = report.unrepeated.iter().map(|finding| (finding, "difference, not seen again,"));
    for ((finding, what), saved) in findings.chain(unrepeated).zip(saved) {
        lines.push(format!("\n{what} after {} frames:", finding.after_frames));
        lines.extend(finding.trace.steps.iter().map(show_step));
        lines.extend(finding.difference.mismatches.iter().map(|mismatch| format!("  {mismatch}")));
        lines.extend(finding.difference.reasons.iter().map(|reason| format!("  the kernel says: {reason}")));
        if !finding.is_alone {
            lines.push("  (alone, the trace does not differ: this is the whole of it)".to_owned());
        }
        lines.extend(saved_as(saved));
    }
    if report.blurred > 0 {
        let n = report.blurred;
        lines.push(format!(
            "{n} traces agreed when run again: the kernel's clock had ticked in the middle of a frame"
        ));
    }
    if !report.unrepeated.is_empty() {
        lines.push(format!("{} differences were not seen again", report.unrepeated.len()));
    }
    lines.push(format!("{} frames, {} differences", coverage.frames, report.findings.len()));
    lines.join("\n")
}

/// Where a finding is, and what runs it again.
fn saved_as(Saved { files, arguments }: &Saved) -> [String; 2] {
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let flow = names.first().map_or("", String::as_str);
    [
        format!("  saved as {}", names.join(", ")),
        format!("  once more: stateway conform {flow}, or stateway conform {arguments}"),
    ]
}

/// Names, but not pages of them: a profile has most of the others' cases missing.
fn list<T: AsRef<str>>(items: &[T]) -> String {
    const SHOWN: usize = 12;
    if items.is_empty() {
        return "none".to_owned();
    }
    let mut names: Vec<&str> = items.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = format!("and {} more, which `--format json` names", items.len().saturating_sub(SHOWN));
    if items.len() > SHOWN {
        names.push(&more);
    }
    names.join(", ")
}

fn show_step(step: &Step) -> String {
    match step {
        Step::Elapse(seconds) => format!("  {seconds} s pass"),
        Step::Load(_) => "  other rules are loaded".to_owned(),
        Step::Own(packet) => format!("  a program on the router sends {} bytes", packet.len()),
        Step::Addresses(_) => "  addresses of the router's come or go".to_owned(),
        Step::Frame(frame) => format!("  {}", frame.describe()),
    }
}

/// Prints a line; whoever reads no more still learns from the exit code.
fn print(text: &str) {
    super::render::line(text);
}

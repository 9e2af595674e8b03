//! `stateway lab test`: takes the tests of labs through one runner or several.

use super::super::{Failure, Result};
use super::{Format, load, say, tell};
use crate::lab::model::{Lab, RunnerKind};
use crate::lab::report;
use crate::lab::sim::Sim;
use crate::lab::trial::{self, TestReport};
use anyhow::Context as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// Folders with a lab.yaml, or such files
    #[arg(required = true)]
    labs: Vec<PathBuf>,
    /// `sim`, `live`, `kernel`, several of them, or `all`; by default live where it can run, else sim
    #[arg(long, value_delimiter = ',', value_enum)]
    on: Vec<On>,
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

pub(super) fn test(args: TestArgs) -> Result {
    let labs = load_all(&args.labs)?;
    let (kinds, first_line) = runners(&args.on, &labs)?;
    #[cfg(target_os = "linux")]
    if kinds.contains(&RunnerKind::Live) {
        use crate::lab::netns::rootless;
        if !rustix::process::geteuid().is_root() {
            return match rootless::again().map_err(Failure::Machine)? {
                0 => Ok(()),
                code => Err(Failure::Told(code)),
            };
        }
        rootless::settle().map_err(Failure::Machine)?;
    }
    // Before any test, so that none is taken in vain.
    for (_, file) in &args.report {
        let create = || std::fs::File::create(file).map(drop);
        create().with_context(|| format!("cannot write {}", file.display())).map_err(Failure::Input)?;
    }
    if args.format == Format::Text {
        say(&first_line);
    } else {
        tell(&first_line);
    }
    let mut reports: Vec<(String, TestReport)> = Vec::new();
    let mut failure = None;
    for lab in &labs {
        for kind in &kinds {
            match one(lab, *kind, &args) {
                Ok(found) => reports.extend(found.into_iter().map(|report| (lab.name.clone(), report))),
                // What has been seen so far is still reported.
                Err(error) => failure = failure.or(Some(error)),
            }
            if failure.is_some() {
                break;
            }
        }
        if failure.is_some() {
            break;
        }
    }
    let disagreements = disagreements(&reports);
    for line in &disagreements {
        say(&format!("DISAGREE {line}"));
    }
    for (kind, file) in &args.report {
        write(*kind, file, &reports).map_err(Failure::Machine)?;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if args.format == Format::Text {
        let all: Vec<TestReport> = reports.iter().map(|(_, report)| report.clone()).collect();
        let apart = match disagreements.len() {
            0 => String::new(),
            n => format!(", {n} disagreements between runners"),
        };
        say(&format!("{}{apart}", report::summary(&all)));
    }
    let well = reports.iter().all(|(_, report)| report.ending.is_well()) && disagreements.is_empty();
    if well { Ok(()) } else { Err(Failure::Differs) }
}

/// Every lab, or what is wrong with each of those that are broken.
fn load_all(paths: &[PathBuf]) -> Result<Vec<Lab>> {
    let (mut labs, mut wrong) = (Vec::new(), Vec::new());
    for path in paths {
        match load(path) {
            Ok(lab) => labs.push(lab),
            Err(Failure::Input(error)) => wrong.push(format!("{error:#}")),
            Err(other) => return Err(other),
        }
    }
    if wrong.is_empty() {
        Ok(labs)
    } else {
        Err(Failure::Input(anyhow::anyhow!("{}", wrong.join("\nerror: "))))
    }
}

/// Which runners are meant, and the first line of output, which says so and why.
fn runners(on: &[On], labs: &[Lab]) -> Result<(Vec<RunnerKind>, String)> {
    const ALL: [RunnerKind; 3] = [RunnerKind::Sim, RunnerKind::Live, RunnerKind::Kernel];
    const LIVE: &str = "running live: real programs in network namespaces, the router on TAPs";
    if on.is_empty() {
        return Ok(match lacking(labs, RunnerKind::Live) {
            None => (vec![RunnerKind::Live], LIVE.to_owned()),
            Some(why) => {
                (vec![RunnerKind::Sim], format!("running in simulation: {}", why.replace("\n  ", "; ")))
            }
        });
    }
    let chosen: Vec<RunnerKind> = ALL
        .into_iter()
        .filter(|kind| {
            on.iter().any(|on| {
                matches!(
                    (on, kind),
                    (On::All, _)
                        | (On::Sim, RunnerKind::Sim)
                        | (On::Live, RunnerKind::Live)
                        | (On::Kernel, RunnerKind::Kernel)
                )
            })
        })
        .collect();
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

fn one(lab: &Lab, kind: RunnerKind, args: &TestArgs) -> Result<Vec<TestReport>> {
    let width = lab.tests.iter().map(|test| test.name.chars().count()).max().unwrap_or_default().min(60);
    let after = &mut |test: &TestReport| match args.format {
        Format::Json => say(&report::json(&lab.name, test).to_string()),
        Format::Text => {
            say(&report::line(test, width));
            let details = report::details(test);
            if !details.is_empty() {
                say(details.trim_end());
            }
        }
    };
    if args.format == Format::Text {
        say(&format!("{}: {}", lab.name, lab.description));
    }
    match kind {
        RunnerKind::Sim => {
            let mut sim = Sim::new(lab.clone(), args.seed).map_err(|errors| {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Failure::Input(anyhow::anyhow!("{}: {}", lab.file.display(), errors.join("\n")))
            })?;
            Ok(trial::run(lab, &mut sim, after))
        }
        #[cfg(target_os = "linux")]
        RunnerKind::Live | RunnerKind::Kernel => real(lab, kind, after),
        #[cfg(not(target_os = "linux"))]
        RunnerKind::Live | RunnerKind::Kernel => Err(Failure::Machine(anyhow::anyhow!("it takes Linux"))),
    }
}

/// With real programs. A lab that is up is used and left up; else it is made, and taken down whatever happens.
#[cfg(target_os = "linux")]
fn real(lab: &Lab, kind: RunnerKind, after: &mut dyn FnMut(&TestReport)) -> Result<Vec<TestReport>> {
    use super::up;
    use crate::lab::netns::command::Interrupt;
    use crate::lab::netns::state;
    let interrupt = Interrupt::listen().map_err(Failure::Machine)?;
    if let Some(mut runner) = up::attach(lab.clone(), kind, &interrupt)? {
        tell(&format!("the lab `{}` is up already: it is tested as it stands, and left up", lab.name));
        return Ok(trial::run(lab, &mut runner, after));
    }
    if state::read(&lab.name).is_some() {
        tell(&format!("taking away what an interrupted command left of `{}`", lab.name));
        state::remove(&lab.name, &interrupt).map_err(Failure::Machine)?;
    }
    let mut runner = up::bring_up(lab.clone(), kind, &interrupt)?;
    let reports = trial::run(lab, &mut runner, after);
    runner.sessions_end();
    state::remove_locked(&lab.name, &runner.state.lock).map_err(Failure::Machine)?;
    interrupt.check().map_err(Failure::Machine)?;
    Ok(reports)
}

/// Tests that ended well on one runner and not on another.
fn disagreements(reports: &[(String, TestReport)]) -> Vec<String> {
    use trial::Ending;
    let mut lines = Vec::new();
    for (at, (lab, report)) in reports.iter().enumerate() {
        let same = |(other, taken): &&(String, TestReport)| {
            other == lab && taken.name == report.name && taken.runner != report.runner
        };
        let Some((_, other)) = reports[..at].iter().find(same) else { continue };
        let judged = |ending: &Ending| !matches!(ending, Ending::Skipped(_));
        if !judged(&report.ending) || !judged(&other.ending) {
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

//! `stateway rules mutate`: which small changes of a ruleset nobody would notice, a capture or the tests of a lab.

use super::equivalent::Equivalence;
use super::traced::{self, Trace, Traced};
use crate::cli::render::{self, Format};
use crate::cli::rules_text::in_front_of_tables;
use crate::cli::{Failure, Result};
use anyhow::anyhow;
use core::ops::ControlFlow::{Break, Continue};
use parking_lot::Mutex;
use serde_json::json;
use stateway_core::config::RouterConfig;
use stateway_core::packet::Family;
use stateway_lab::model::Lab;
use stateway_lab::sim::Sim;
use stateway_lab::trial::{self, Ending};
use stateway_trace::coverage::{self, Mutant, Mutants};
use stateway_trace::replay::FrameVerdict;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::thread;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ruleset; without it, that of the lab
    #[arg(required_unless_present = "lab")]
    file: Option<PathBuf>,
    /// A capture to take through it; without any, the tests of the lab are run in the simulator
    #[arg(long = "replay", value_name = "TRACE", required_unless_present = "lab")]
    traces: Vec<PathBuf>,
    #[command(flatten)]
    traced: Traced,
    /// How many changes are tried at the same time; by default as many as there are processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Exit code 1 only if less than this percentage of the changes is noticed
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_under: Option<f64>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let number = text.trim_end_matches('%').parse().ok().filter(|n| (0.0..=100.0).contains(n));
    number.ok_or_else(|| "a number from 0 to 100 is wanted".to_owned())
}

/// A capture, the router around the rules, and what became of every frame under the rules as they are.
struct Usual<'a> {
    trace: Trace<'a>,
    config: RouterConfig,
    /// A number a frame, so that memory stays small whatever the capture.
    fates: Vec<u64>,
}

/// What may notice a change.
enum Watchers<'a> {
    Captures(Vec<Usual<'a>>),
    /// A lab whose tests end well under the rules as they are.
    Tests(Box<Lab>),
}

/// A change that loads, and whether somebody noticed.
struct Tried {
    mutant: Mutant,
    is_noticed: bool,
}

pub(super) fn run(args: &Args) -> Result {
    let lab = args.traced.lab()?;
    let reading = args.traced.reading();
    let whole = match (&args.file, &lab) {
        (Some(file), _) => {
            let text = reading.text(file)?;
            reading.load_right(&text, false)?;
            text.into_whole()
        }
        (None, Some(lab)) => rules_of(lab, args.traced.family())?,
        (None, None) => return Err(Failure::Input(anyhow!("`FILE` or `--lab LAB` is wanted"))),
    };
    let watchers = if args.traces.is_empty() {
        let Some(lab) = lab else {
            return Err(Failure::Input(anyhow!("`--replay TRACE` or `--lab LAB` is wanted")));
        };
        Watchers::Tests(Box::new(tested(with_rules(lab, args.traced.family(), &whole))?))
    } else {
        let traces = args.traced.open(&args.traces)?.into_iter();
        Watchers::Captures(traces.map(|trace| usual(args, trace, &whole)).collect::<Result<_>>()?)
    };
    let names = watchers.ifaces();
    let rules = super::Reading { ifaces: names.clone(), ..reading }.load_text(&whole)?;
    let mutants = Mutants::of(&rules);
    let sets = in_front_of_tables(&whole);
    let tried = try_all(args, &watchers, &mutants, sets);
    let equivalence = Equivalence::new(&rules, names, watchers.is_bridge());
    let (mut noticed, mut unnoticed, mut equivalent) = (0, Vec::new(), Vec::new());
    for (done, Tried { mutant, is_noticed }) in tried.into_iter().enumerate() {
        if is_noticed {
            noticed += 1;
            continue;
        }
        render::progress(&format!("{done}: is it a change at all?"));
        let is_same = equivalence.is_same(&mutant, sets);
        (if is_same { &mut equivalent } else { &mut unnoticed }).push(mutant);
    }
    render::progress("");
    say(args, noticed, &unnoticed, &equivalent);
    let all = noticed + unnoticed.len();
    let is_enough = match args.fail_under {
        None => unnoticed.is_empty(),
        Some(percent) => noticed as f64 * 100.0 >= percent * all as f64,
    };
    if is_enough { Ok(()) } else { Err(Failure::Differs) }
}

fn say(args: &Args, noticed: usize, unnoticed: &[Mutant], equivalent: &[Mutant]) {
    let all = noticed + unnoticed.len();
    match args.format {
        Format::Json => {
            let list = |mutants: &[Mutant]| -> Vec<_> {
                mutants.iter().map(|m| json!({ "rule": m.name, "change": m.change })).collect()
            };
            render::json(&json!({
                "mutants": all,
                "noticed": noticed,
                "unnoticed": list(unnoticed),
                "equivalent": list(equivalent),
            }));
        }
        Format::Text => {
            for Mutant { name, change, .. } in unnoticed {
                render::line(&format!("unnoticed  {name}  {change}"));
            }
            render::line(&format!("{noticed} of {all} changes were noticed"));
            if !equivalent.is_empty() {
                let n = equivalent.len();
                render::line(&format!("{n} more are no changes: every packet meets the same fate with them"));
            }
        }
    }
}

/// Tries every change, several at a time; those that do not load are no test of anything.
fn try_all(args: &Args, watchers: &Watchers<'_>, mutants: &Mutants, sets: &str) -> Vec<Tried> {
    let all = mutants.count();
    let waiting = Mutex::new(mutants.iter().enumerate());
    let tried: Mutex<(usize, Vec<(usize, Tried)>)> = Mutex::default();
    let usual = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..args.jobs.map_or(usual, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((number, mutant)) = waiting.lock().next() else { break };
                    let is_noticed = watchers.notice(args, &format!("{sets}{}", mutant.text));
                    let mut tried = tried.lock();
                    tried.0 += 1;
                    render::progress(&format!("{} of {all} changes tried", tried.0));
                    tried.1.extend(is_noticed.map(|is_noticed| (number, Tried { mutant, is_noticed })));
                }
            });
        }
    });
    let mut tried = tried.into_inner().1;
    tried.sort_by_key(|(number, _)| *number);
    tried.into_iter().map(|(_, tried)| tried).collect()
}

impl Watchers<'_> {
    /// Whether a change is noticed; `None` if the rules do not load.
    fn notice(&self, args: &Args, rules: &str) -> Option<bool> {
        match self {
            Self::Captures(traces) => is_noticed(args, traces, rules),
            Self::Tests(lab) => {
                let lab = with_rules((**lab).clone(), args.traced.family(), rules);
                let endings = endings(&lab)?;
                Some(!endings.iter().all(|(_, ending)| ending.is_well()))
            }
        }
    }

    fn ifaces(&self) -> Vec<String> {
        let config = match self {
            Self::Captures(traces) => traces.first().map(|usual| &usual.config),
            Self::Tests(lab) => Some(&lab.router),
        };
        config.map_or_else(Vec::new, |config| config.ifaces.iter().map(|iface| iface.name.clone()).collect())
    }

    fn is_bridge(&self) -> bool {
        let is_bridge = |config: &RouterConfig| config.mode == stateway_core::config::Mode::Bridge;
        match self {
            Self::Captures(traces) => traces.iter().all(|usual| is_bridge(&usual.config)),
            Self::Tests(lab) => is_bridge(&lab.router),
        }
    }
}

// ── labs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn rules_of(lab: &Lab, family: Family) -> Result<String> {
    let rules = if family == Family::Ipv4 { &lab.router.rules } else { &lab.router.rules6 };
    rules.clone().ok_or_else(|| {
        Failure::Input(anyhow!(
            "the lab `{}` has no rules for {}\n  hint: `-6` is for its rules for IPv6",
            lab.name,
            family.name()
        ))
    })
}

fn with_rules(mut lab: Lab, family: Family, rules: &str) -> Lab {
    let place = if family == Family::Ipv4 { &mut lab.router.rules } else { &mut lab.router.rules6 };
    *place = Some(rules.to_owned());
    lab
}

/// The lab, if its tests end well under the rules as they are.
fn tested(lab: Lab) -> Result<Lab> {
    if lab.tests.is_empty() {
        return Err(Failure::Input(anyhow!("the lab `{}` has no tests", lab.name)));
    }
    let Some(endings) = endings(&lab) else {
        return Err(Failure::Input(anyhow!("the rules of the lab `{}` do not load", lab.name)));
    };
    let ill: Vec<String> = endings
        .into_iter()
        .filter(|(_, ending)| !ending.is_well())
        .map(|(name, ending)| format!("  {}  {name}", ending.word()))
        .collect();
    if ill.is_empty() {
        return Ok(lab);
    }
    Err(Failure::Input(anyhow!(
        "tests of the lab `{}` do not pass in the simulator as it is:\n{}\n  hint: `stateway lab test --on sim` tells why",
        lab.name,
        ill.join("\n")
    )))
}

/// How each test ends in the simulator; `None` if the rules do not load.
fn endings(lab: &Lab) -> Option<Vec<(String, Ending)>> {
    /// Any will do, and the same each time.
    const SEED: u64 = 1;
    let mut sim = Sim::new(lab.clone(), SEED).ok()?;
    let reports = trial::run(lab, &mut sim, |_| {});
    Some(reports.into_iter().map(|report| (report.name, report.ending)).collect())
}

// ── captures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A capture under the rules as they are.
fn usual<'a>(args: &Args, trace: Trace<'a>, rules: &str) -> Result<Usual<'a>> {
    let config = args.traced.config(&trace)?;
    let router = args.traced.router_right(&config, rules)?;
    let mut fates = Vec::new();
    traced::run(&trace, &[&router], |_, verdicts| {
        fates.extend(verdicts.iter().map(number_of));
        Continue(())
    })?;
    Ok(Usual { trace, config, fates })
}

/// Whether a frame meets another fate under changed rules; `None` if they do not load.
fn is_noticed(args: &Args, traces: &[Usual], rules: &str) -> Option<bool> {
    for usual in traces {
        let router = args.traced.router_of(&usual.config, rules)?;
        let mut before = usual.fates.iter();
        let mut differs = false;
        // The capture was read to its end before: what is wrong with it was said.
        let _ = coverage::run(&usual.trace.opened.source, &[&router], |frame, verdicts| {
            if frame.unjudged.is_none() {
                differs = verdicts.iter().any(|verdict| before.next() != Some(&number_of(verdict)));
            }
            if differs { Break(()) } else { Continue(()) }
        });
        if differs {
            return Some(true);
        }
    }
    Some(false)
}

/// What became of a frame, whichever rule decided, as a number.
fn number_of(verdict: &FrameVerdict) -> u64 {
    let mut hasher = DefaultHasher::new();
    coverage::what_became(verdict).hash(&mut hasher);
    hasher.finish()
}

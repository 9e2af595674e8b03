//! `stateway rules coverage` and `mutate`: how well captures test a ruleset.

use super::traced::{self, Trace, Traced};
use crate::cli::render::{self, Format};
use crate::cli::{Failure, Result};
use core::ops::ControlFlow::{Break, Continue};
use serde_json::json;
use stateway_core::config::RouterConfig;
use stateway_trace::coverage::{self, Covered, Mutants};
use stateway_trace::replay::FrameVerdict;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ruleset
    file: PathBuf,
    /// A capture to take through it; from a bridge with the ports of the capture, unless a lab says otherwise
    #[arg(long = "replay", value_name = "TRACE", required = true)]
    traces: Vec<PathBuf>,
    #[command(flatten)]
    traced: Traced,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Says of every rule how often it held.
pub(super) fn coverage(args: &Args) -> Result {
    let reading = args.traced.reading();
    let text = reading.text(&args.file)?;
    reading.load_right(&text, false)?;
    let mut total: Vec<Covered> = Vec::new();
    for trace in args.traced.open(&args.traces)? {
        let router = args.traced.router_right(&args.traced.config(&trace)?, text.whole())?;
        traced::run(&trace, &[&router], |_, _| Continue(()))?;
        let rules = router.rules();
        let Some(rules) = rules.for_family(args.traced.family()) else { continue };
        let covered = coverage::coverage(rules);
        if total.is_empty() {
            total = covered;
        } else {
            total.iter_mut().zip(covered).for_each(|(before, now)| before.count += now.count);
        }
    }
    let met = total.iter().filter(|c| c.count.packets > 0).count();
    match args.format {
        Format::Json => {
            let list = total.iter().map(|c| {
                json!({ "rule": c.name, "line": c.line, "text": c.text, "packets": c.count.packets, "bytes": c.count.bytes })
            });
            let list: Vec<_> = list.collect();
            render::json(&json!({ "met": met, "rules": total.len(), "list": list }));
        }
        Format::Text => {
            for c in &total {
                let packets =
                    if c.count.packets == 0 { "never".to_owned() } else { c.count.packets.to_string() };
                render::line(&format!("{packets:>8}  {}  {}", c.name, c.text));
            }
            render::line(&format!("{met} of {} rules and policies were met", total.len()));
        }
    }
    Ok(())
}

/// A capture, the router around the rules, and what became of every frame under the rules as they are.
struct Usual<'a> {
    trace: Trace<'a>,
    config: RouterConfig,
    /// A number a frame, so that memory stays small whatever the capture.
    fates: Vec<u64>,
}

/// Changes the ruleset a little, over and over, and says which changes no capture notices.
pub(super) fn mutate(args: &Args) -> Result {
    let reading = args.traced.reading();
    let text = reading.text(&args.file)?;
    let rules = reading.load_right(&text, false)?;
    let traces = args.traced.open(&args.traces)?.into_iter().map(|trace| usual(args, trace, text.whole()));
    let traces: Vec<Usual> = traces.collect::<Result<_>>()?;
    let (mut noticed, mut unnoticed) = (0, Vec::new());
    let mutants = Mutants::of(&rules);
    let all = mutants.count();
    for (done, mutant) in mutants.iter().enumerate() {
        render::progress(&format!("{done} of {all} changes tried"));
        match is_noticed(args, &traces, &format!("{}{}", text.sets(), mutant.text)) {
            Some(true) => noticed += 1,
            Some(false) => unnoticed.push((mutant.name, mutant.change)),
            // A change that the rules do not survive is no test of the captures.
            None => {}
        }
    }
    render::progress("");
    let all = noticed + unnoticed.len();
    match args.format {
        Format::Json => {
            let list: Vec<_> =
                unnoticed.iter().map(|(rule, change)| json!({ "rule": rule, "change": change })).collect();
            render::json(&json!({ "mutants": all, "noticed": noticed, "unnoticed": list }));
        }
        Format::Text => {
            for (rule, change) in &unnoticed {
                render::line(&format!("unnoticed  {rule}  {change}"));
            }
            render::line(&format!("{noticed} of {all} changes were noticed"));
        }
    }
    if unnoticed.is_empty() { Ok(()) } else { Err(Failure::Differs) }
}

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

//! `stateway rules coverage` and `mutate`: how well captures test a ruleset.

use super::{Reading, RunFailure};
use crate::cli::render::{self, Format};
use crate::cli::{Failure, Result};
use crate::coverage;
use crate::device::pcap::Capture;
use crate::replay::FrameVerdict;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ruleset
    file: PathBuf,
    /// A pcapng file to take through it, from a bridge with the ports of the file
    #[arg(long = "replay", value_name = "TRACE.pcapng", required = true)]
    traces: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Says of every rule how often it held.
pub(super) fn coverage(args: &Args) -> Result {
    let (text, before) = args.reading.text(&args.file)?;
    args.reading.load_text_right(&args.file, &text, before, false)?;
    let mut total: BTreeMap<usize, coverage::Covered> = BTreeMap::new();
    for trace in &args.traces {
        let capture = crate::cli::replay::read(trace)?;
        let (_, router) =
            coverage::run(&capture, args.reading.family(), &text).map_err(RunFailure::explain)?;
        let rules = router.rules();
        let Some(rules) = rules.for_family(args.reading.family()) else { continue };
        for (place, covered) in coverage::coverage(rules).into_iter().enumerate() {
            match total.get_mut(&place) {
                Some(before) => before.count += covered.count,
                None => drop(total.insert(place, covered)),
            }
        }
    }
    let met = total.values().filter(|c| c.count.packets > 0).count();
    match args.format {
        Format::Json => {
            let list = total.values().map(|c| {
                json!({ "rule": c.name, "line": c.line, "text": c.text, "packets": c.count.packets, "bytes": c.count.bytes })
            });
            let list: Vec<_> = list.collect();
            render::json(&json!({ "met": met, "rules": total.len(), "list": list }));
        }
        Format::Text => {
            for c in total.values() {
                let packets =
                    if c.count.packets == 0 { "never".to_owned() } else { c.count.packets.to_string() };
                render::line(&format!("{packets:>8}  {}  {}", c.name, c.text));
            }
            render::line(&format!("{met} of {} rules and policies were met", total.len()));
        }
    }
    Ok(())
}

/// Changes the ruleset a little, over and over, and says which changes no capture notices.
pub(super) fn mutate(args: &Args) -> Result {
    let (text, before) = args.reading.text(&args.file)?;
    let rules = args.reading.load_text_right(&args.file, &text, before, false)?;
    let sets = args.reading.sets_text()?;
    let family = args.reading.family();
    let captures: Vec<Capture> =
        args.traces.iter().map(|trace| crate::cli::replay::read(trace)).collect::<Result<_>>()?;
    let run = |text: &str| -> std::result::Result<Vec<Vec<FrameVerdict>>, coverage::RunError> {
        captures
            .iter()
            .map(|capture| coverage::run(capture, family, text).map(|(verdicts, _)| verdicts))
            .collect()
    };
    let usual = run(&text).map_err(RunFailure::explain)?;
    let (mut noticed, mut unnoticed) = (0, Vec::new());
    let mutants = coverage::Mutants::of(&rules);
    let all = mutants.count();
    for (done, mutant) in mutants.iter().enumerate() {
        render::progress(&format!("{done} of {all} changes tried"));
        // A change that the rules do not survive is no test of the captures.
        let Ok(verdicts) = run(&format!("{sets}{}", mutant.text)) else { continue };
        let is_same =
            usual.iter().flatten().zip(verdicts.iter().flatten()).all(|(a, b)| coverage::is_same(a, b));
        if is_same { unnoticed.push((mutant.name, mutant.change)) } else { noticed += 1 }
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

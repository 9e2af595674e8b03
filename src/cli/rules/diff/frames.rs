//! `stateway rules diff --replay`: which frames of captures meet another fate, told as they are found.

use super::super::traced::{self, Trace};
use super::{Args, Change};
use crate::cli::Result;
use crate::cli::render::{self, Format};
use core::cell::{Cell, RefCell};
use core::ops::ControlFlow::Continue;
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use stateway_core::filter::Ruleset;
use stateway_core::packet::{Family, summary};
use stateway_runtime::terminal;
use stateway_trace::coverage::what_became;
use stateway_trace::replay::FrameVerdict;
use std::collections::BTreeSet;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// A frame that meets another fate under the new rules.
#[derive(Serialize)]
struct Differing {
    trace: String,
    frame: u64,
    /// What it is.
    packet: String,
    old: String,
    new: String,
}

/// Prints what changed in the rules, and every frame that meets another fate. Gives back how many there are.
pub(super) fn tell(args: &Args, changes: &[Change], rules: [&str; 2]) -> Result<u64> {
    // What is no capture is said before anything is printed.
    let traces = args.traced.open(&args.traces)?;
    let mut count = 0;
    match args.format {
        Format::Text => {
            super::print(changes);
            find(args, &traces, rules, |Differing { frame, trace, packet, old, new }| {
                count += 1;
                render::line(&format!("frame {frame} of {trace}, {packet}: {old} → {new}"));
            })?;
        }
        Format::Json => {
            let (seen, end) = (Cell::new(0), RefCell::new(Ok(())));
            let document = Document { args, traces: &traces, changes, rules, count: &seen, end: &end };
            let mut out = BufWriter::new(terminal::Output::stdout());
            let written = serde_json::to_writer_pretty(&mut out, &document).map_err(Into::into);
            render::finish(written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()));
            end.into_inner()?;
            count = seen.get();
        }
    }
    Ok(count)
}

/// Takes the captures through both rulesets.
fn find(args: &Args, traces: &[Trace<'_>], rules: [&str; 2], mut each: impl FnMut(Differing)) -> Result {
    let words = |v: &FrameVerdict<'_>| match &v.rule {
        Some(rule) => format!("{} by {rule}", v.fate),
        None => v.fate.to_owned(),
    };
    for trace in traces {
        let config = args.traced.config(trace)?;
        warn_of_ports(trace.path, &trace.opened.source.survey().ports, args.traced.family(), rules);
        let [old, new] =
            [args.traced.router_right(&config, rules[0])?, args.traced.router_right(&config, rules[1])?];
        traced::run(trace, &[&old, &new], |frame, verdicts| {
            if let [old, new] = verdicts
                && what_became(old) != what_became(new)
            {
                each(Differing {
                    trace: trace.path.display().to_string(),
                    frame: frame.number,
                    packet: summary::of_frame(&mut frame.data.clone()),
                    old: words(old),
                    new: words(new),
                });
            }
            Continue(())
        })?;
    }
    Ok(())
}

/// What is printed as JSON: frames are found while it is written, so that memory does not grow with them.
struct Document<'a> {
    args: &'a Args,
    traces: &'a [Trace<'a>],
    changes: &'a [Change],
    rules: [&'a str; 2],
    count: &'a Cell<u64>,
    /// How reading the captures ended: what is found before is whole.
    end: &'a RefCell<Result>,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> core::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("changes", &self.changes.iter().map(Change::json).collect::<Vec<_>>())?;
        map.serialize_entry("frames", &Frames(self))?;
        map.end()
    }
}

struct Frames<'a>(&'a Document<'a>);

impl Serialize for Frames<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> core::result::Result<S::Ok, S::Error> {
        let Document { args, traces, rules, count, end, .. } = self.0;
        let (mut list, mut written) = (to.serialize_seq(None)?, Ok(()));
        *end.borrow_mut() = find(args, traces, *rules, |frame| {
            count.set(count.get() + 1);
            if written.is_ok() {
                written = list.serialize_element(&frame);
            }
        });
        written?;
        list.end()
    }
}

/// Rules for interfaces that the capture does not have can change nothing in it.
fn warn_of_ports(trace: &Path, ports: &[String], family: Family, rules: [&str; 2]) {
    let mut told = BTreeSet::new();
    for text in rules {
        let warnings =
            Ruleset::load(text, family, ports).map_or_else(|_| Vec::new(), |loaded| loaded.warnings);
        for warning in warnings.into_iter().filter(|w| w.message.starts_with("no interface named")) {
            if told.insert(warning.message.clone()) {
                let names = ports.join(", ");
                render::warn(&format!(
                    "{}: {} in this capture; it has {names}",
                    trace.display(),
                    warning.message
                ));
            }
        }
    }
}

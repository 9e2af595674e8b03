//! Random rulesets and random traffic aimed at their edges, the kernel and the router side by side.
//!
//! Each ruleset has a kernel of its own. Every frame's fate, the bytes that leave, what rules log and the marks that
//! they show are compared as they come; at the end every counter, and the text that iptables-save prints.

#![forbid(unsafe_code)]

mod bench;
mod bridge;
mod coverage;
mod headers;
mod matches;
mod ruleset;
mod sets;
mod shrink;
mod targets;
mod text;
mod traffic;
mod universe;

pub use bench::{Case, Difference, Kind};
pub use coverage::{Coverage, Use};
pub use text::Tables;

use super::story::{Manner, Story};
use super::trace::{Step, Trace};
use super::{Setup, saved, session, world};
use anyhow::Result;
use fastrand::Rng;
use stateway_core::config::Mode;
use stateway_core::packet::Family;
use traffic::Traffic;
use universe::{chance, pick};

/// Frames that go through one ruleset.
const FRAMES_PER_RULESET: u64 = 1000;
/// Where time must pass between them.
const FRAMES_OF_SLOW_RULESET: usize = 150;
/// Differences that are shrunk and kept; a run with more stops.
const MAX_DIFFERENCES: usize = 10;
/// Zones that rules put packets into.
const ZONES: [u16; 2] = [5, 7];

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub frames: u64,
    /// What router and kernel are.
    pub mode: Mode,
    pub stop_early: bool,
}

/// A difference, made as small as possible.
#[derive(Clone, Debug)]
pub struct Finding {
    pub case: Case,
    pub difference: Difference,
    /// Frames fed before it was found.
    pub after_frames: u64,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    pub coverage: Coverage,
    pub findings: Vec<Finding>,
    /// What differed, and did not when the same was run again: this machine was too busy, or its clock went on.
    pub unrepeated: Vec<Finding>,
}

/// Runs generated rulesets. `progress` is told the frames so far.
///
/// # Errors
/// This machine cannot do it.
pub fn run(plan: &Plan, mut progress: impl FnMut(u64)) -> Result<Report> {
    let mut rng = Rng::with_seed(plan.seed);
    let mut report = Report::default();
    let most = if plan.stop_early { 1 } else { MAX_DIFFERENCES };
    while report.coverage.frames < plan.frames && report.findings.len() < most {
        let left = plan.frames - report.coverage.frames;
        let mut case = draw(&mut rng.fork(), left.min(FRAMES_PER_RULESET) as usize);
        if plan.mode == Mode::Bridge {
            bridge::turn(&mut case);
        }
        let outcome = bench::run(&case)?;
        report.coverage.saw(&case, &outcome);
        if let Some(difference) = outcome.difference {
            let behind = case.frames.len().saturating_sub(difference.fed) as u64;
            let after_frames = report.coverage.frames - behind;
            match shrink::shrink(&case, difference.kind)? {
                Some((case, difference)) => {
                    let finding = Finding { case, difference, after_frames };
                    let repeats = saved::repeats(&finding.as_story())?;
                    let list = if repeats { &mut report.findings } else { &mut report.unrepeated };
                    list.push(finding);
                }
                None => report.unrepeated.push(Finding { case, difference, after_frames }),
            }
        }
        progress(report.coverage.frames);
    }
    Ok(report)
}

/// One ruleset and its traffic.
fn draw(rng: &mut Rng, frames: usize) -> Case {
    let is_slow = chance(rng, 6);
    let rules = [Family::Ipv4, Family::Ipv6].map(|family| ruleset::draw(rng, family, is_slow));
    let mut mtu = Vec::new();
    if chance(rng, 20) {
        mtu.push(("right".to_owned(), *pick(rng, &[1280, 1400, 1492])));
    }
    // What rules rewrite of IPv6 the kernel itself does not take any more: its own note of the checksum is wrong then.
    let rewrites = rules[1]
        .lines()
        .iter()
        .any(|line| [" -j TOS", " -j DSCP", " -j HL"].iter().any(|t| line.contains(t)));
    let frames = Traffic::new(rng, !rewrites).frames(if is_slow {
        frames.min(FRAMES_OF_SLOW_RULESET)
    } else {
        frames
    });
    Case { rules, frames, mtu, is_slow, mode: Mode::Route }
}

impl Finding {
    /// As files tell it.
    pub fn as_story(&self) -> session::Finding {
        let steps = self.case.frames.iter().cloned().map(Step::Frame).collect();
        session::Finding {
            setup: self.case.setup(),
            trace: Trace { steps, ..Trace::default() },
            difference: in_world(&self.difference),
            after_frames: self.after_frames,
            is_alone: true,
            manner: Manner::Rules { is_slow: self.case.is_slow },
        }
    }
}

/// Runs a story from files as a case.
pub(super) fn compare_story(story: &Story, is_slow: bool) -> Result<Option<world::Difference>> {
    let Setup { rules4, rules6, mtu, mode, .. } = &story.setup;
    let rules = [rules4, rules6].map(|text| Tables::parse(text.as_deref().unwrap_or_default()));
    let frames = story.trace.frames().cloned().collect();
    let case = Case { rules, frames, mtu: mtu.clone(), is_slow, mode: *mode };
    Ok(bench::run(&case)?.difference.map(|difference| in_world(&difference)))
}

fn in_world(Difference { fed, mismatches, reasons, .. }: &Difference) -> world::Difference {
    world::Difference {
        step: fed.saturating_sub(1),
        mismatches: mismatches.clone(),
        reasons: reasons.clone(),
        fed: Vec::new(),
        is_blurred: false,
    }
}

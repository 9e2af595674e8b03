//! A whole run: worlds, traces, and what differed.

#![forbid(unsafe_code)]

use super::Setup;
use super::coverage::Coverage;
use super::generate::{Generator, Profile};
use super::shrink::shrink;
use super::story::Story;
use super::trace::Trace;
use super::world::now;
use super::world::{Difference, Progress, Running, World};
use anyhow::Result;
use std::collections::VecDeque;
use std::time::Instant;

/// Frames in one world before the next is made.
const FRAMES_PER_WORLD: u64 = 10_000;
/// Traces that wait for time to pass.
const MAX_PARKED: usize = 4000;
/// Differences that are shrunk and kept; a run with more stops.
const MAX_DIFFERENCES: usize = 10;

/// A difference, made as small as possible.
#[derive(Clone, Debug)]
pub struct Finding {
    pub setup: Setup,
    pub trace: Trace,
    pub difference: Difference,
    /// Frames fed before it was found.
    pub after_frames: u64,
    /// Run alone, the trace did not differ: the whole of it is kept.
    pub is_alone: bool,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    pub coverage: Coverage,
    pub findings: Vec<Finding>,
    /// Traces that were run again because the machine was busy.
    pub late: u64,
}

/// A generated run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub frames: u64,
    pub profile: Profile,
    /// Stop at the first difference.
    pub stop_early: bool,
}

/// Runs generated traffic. `progress` is told the frames so far.
pub fn run(plan: &Plan, mut progress: impl FnMut(u64)) -> Result<Report> {
    let mut generator = Generator::new(plan.seed, plan.profile);
    let mut session = Session::default();
    while session.report.coverage.frames < plan.frames && !session.is_over(plan) {
        let until = plan.frames.min(session.report.coverage.frames + FRAMES_PER_WORLD);
        let mut shift = Shift { world: World::new(generator.world())?, parked: VecDeque::new() };
        while session.report.coverage.frames < until && !session.is_over(plan) {
            let run = shift.world.begin(generator.trace())?;
            session.advance(&mut shift, run)?;
            session.wake(&mut shift, false)?;
        }
        session.shifts.push_back(shift);
        session.close_shifts(false)?;
        progress(session.report.coverage.frames);
    }
    session.close_shifts(true)?;
    Ok(session.report)
}

/// Runs one story in a world of its own.
pub fn compare_story(story: &Story, report: &mut Report) -> Result<()> {
    let mut session = Session { report: core::mem::take(report), ..Session::default() };
    let mut world = World::new(story.setup.clone())?;
    let found = world.run(&story.trace, &mut session.report.coverage)?;
    if let Some(difference) = found {
        session.found(&world, story.trace.clone(), difference)?;
    }
    *report = session.report;
    Ok(())
}

/// A world, and the traces in it for which time has to pass.
#[derive(Debug)]
struct Shift {
    world: World,
    parked: VecDeque<(Instant, Running)>,
}

#[derive(Debug, Default)]
struct Session {
    report: Report,
    /// Worlds that take no more traces, and in which some still wait.
    shifts: VecDeque<Shift>,
}

impl Session {
    fn is_over(&self, plan: &Plan) -> bool {
        self.report.findings.len() >= if plan.stop_early { 1 } else { MAX_DIFFERENCES }
    }

    fn advance(&mut self, shift: &mut Shift, mut run: Running) -> Result<()> {
        match shift.world.advance(&mut run, &mut self.report.coverage)? {
            Progress::Done => Ok(()),
            Progress::Waits(until) => {
                shift.parked.push_back((until, run));
                Ok(())
            }
            Progress::Late => self.again(&shift.world, run.trace),
            Progress::Differs(difference) => self.found(&shift.world, run.trace, difference),
        }
    }

    /// Goes on with traces whose time has come; with `all`, waits for each.
    fn wake(&mut self, shift: &mut Shift, all: bool) -> Result<()> {
        while let Some((until, _)) = shift.parked.front() {
            let left = until.saturating_duration_since(now());
            if !left.is_zero() {
                if !all && shift.parked.len() < MAX_PARKED {
                    break;
                }
                super::world::wait(left);
            }
            if let Some((_, run)) = shift.parked.pop_front() {
                self.advance(shift, run)?;
            }
        }
        Ok(())
    }

    /// Looks after worlds that take no more traces; with `all`, until nothing waits any more.
    fn close_shifts(&mut self, all: bool) -> Result<()> {
        for mut shift in core::mem::take(&mut self.shifts) {
            self.wake(&mut shift, all)?;
            if !shift.parked.is_empty() {
                self.shifts.push_back(shift);
            }
        }
        Ok(())
    }

    fn again(&mut self, world: &World, trace: Trace) -> Result<()> {
        self.report.late += 1;
        let mut fresh = World::new(world.setup.clone())?;
        match fresh.run(&trace, &mut Coverage::default())? {
            Some(difference) => self.found(&fresh, trace, difference),
            None => Ok(()),
        }
    }

    fn found(&mut self, world: &World, trace: Trace, difference: Difference) -> Result<()> {
        let after_frames = self.report.coverage.frames;
        let mut fresh = World::new(world.setup.clone())?;
        let shrunk = shrink(&mut fresh, &trace, difference.step)?;
        let is_alone = shrunk.is_some();
        let (trace, difference) = shrunk.unwrap_or((trace, difference));
        let setup = world.setup.clone();
        self.report.findings.push(Finding { setup, trace, difference, after_frames, is_alone });
        Ok(())
    }
}

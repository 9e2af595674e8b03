//! A whole run: worlds, traces, and what differed.
//!
//! Nobody waits while there is something to do. A trace for which time has to pass is parked while others run; a
//! world that takes no more traces is kept until its last one has ended, while the next is at work; worlds are made
//! and torn down on other threads. A trace that differs is run again, with all others of its world that did, in a
//! fresh one: what differs again is a finding.

#![forbid(unsafe_code)]

use super::Setup;
use super::clock::{now, wait};
use super::coverage::Coverage;
use super::generate::{Generator, Profile};
use super::shrink::shrink;
use super::story::{Manner, Story};
use super::trace::Trace;
use super::world::{Difference, Progress, Running, World};
use super::{rules, saved};
use anyhow::{Result, anyhow};
use stateway_core::config::Mode;
use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::Instant;

/// Frames in one world before the next is made.
const FRAMES_PER_WORLD: u64 = 10_000;
/// The same where addresses are translated: what counts there is rules, and each world has others.
const FRAMES_PER_SERIAL_WORLD: u64 = 1500;
/// Traces that wait for time to pass, in all worlds together: each has a router of its own.
const MAX_PARKED: usize = 4000;
/// Differences that are shrunk and kept; a run with more stops.
const MAX_DIFFERENCES: usize = 10;
/// How often a trace is run again before a difference counts as one that does not repeat.
const MAX_TURNS: usize = 3;

/// A difference, made as small as possible.
#[derive(Clone, Debug)]
pub struct Finding {
    pub setup: Setup,
    pub trace: Trace,
    pub difference: Difference,
    /// Frames fed before it was found.
    pub after_frames: u64,
    /// Run alone, the trace differed again. Where it did not, the whole of it is kept.
    pub is_alone: bool,
    pub manner: Manner,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    pub coverage: Coverage,
    pub findings: Vec<Finding>,
    /// What differed and was not seen again, though no tick had ended in the wrong moment: in a fresh world, alone, or from
    /// its files.
    pub unrepeated: Vec<Finding>,
    /// Traces that were run again, and agreed, because a tick had ended while the kernel worked on a frame.
    pub blurred: u64,
}

/// A generated run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub frames: u64,
    pub profile: Profile,
    /// What the router is.
    pub mode: Mode,
    /// Stop at the first difference.
    pub stop_early: bool,
}

/// Runs generated traffic. `progress` is told the frames so far.
pub fn run(plan: &Plan, mut progress: impl FnMut(u64)) -> Result<Report> {
    let mut generator = Generator::new(plan.seed, plan.profile, plan.mode);
    let mut session = Session::default();
    let (mut drawn, mut wanted) = (0, plan.frames);
    let mut next = WorldToBe::new(generator.world());
    while drawn < wanted && !session.is_over(plan) {
        let mut shift = Shift::new(next.wait()?, 0);
        // The world after this one is made while this one is at work.
        next = WorldToBe::new(generator.world());
        let most = if shift.world.setup.is_serial { FRAMES_PER_SERIAL_WORLD } else { FRAMES_PER_WORLD };
        let until = wanted.min(drawn + most);
        while drawn < until && !session.is_over(plan) {
            let trace = generator.trace(&shift.world.setup);
            drawn += trace.frames().count() as u64;
            let run = shift.world.begin(trace)?;
            session.advance(&mut shift, Attempt { run, earlier: None })?;
            session.wake(&mut shift)?;
        }
        session.compare_counters(&shift)?;
        session.shifts.push_back(shift);
        session.work()?;
        progress(session.report.coverage.frames);
        if drawn >= wanted {
            // Of a trace that differed the rest was not fed: it is made up for.
            session.end_all()?;
            wanted = drawn + plan.frames.saturating_sub(session.report.coverage.frames);
        }
    }
    session.finish()?;
    Ok(session.report)
}

/// Runs one story in a world of its own.
pub fn compare_story(story: &Story, report: &mut Report) -> Result<()> {
    let after_frames = report.coverage.frames;
    let (setup, trace, manner) = (story.setup.clone(), story.trace.clone(), story.manner);
    let finding = |difference| Finding { setup, trace, difference, after_frames, is_alone: true, manner };
    if let Manner::Rules { is_slow } = manner {
        report.coverage.frames += story.trace.frames().count() as u64;
        report.findings.extend(rules::compare_story(story, is_slow)?.map(finding));
        return Ok(());
    }
    let mut world = World::new(story.setup.clone())?;
    let mut found = world.run(&story.trace, &mut report.coverage)?;
    // The kernel's clock ticked in the middle of a frame: this was no measurement, and another one is made.
    for _ in 1..MEASUREMENTS {
        if !found.as_ref().is_some_and(|difference| difference.is_blurred) {
            break;
        }
        world = World::new(story.setup.clone())?;
        found = world.run(&story.trace, &mut Coverage::default())?;
    }
    if let Some(difference) = found {
        report.findings.push(smaller(&mut world, finding(difference))?);
    }
    Ok(())
}

/// How often a story is told before a difference that the clock may have made counts as one.
const MEASUREMENTS: usize = 5;

/// Whether kernel and router differ in this story, for certain.
pub(super) fn differs(story: &Story) -> Result<bool> {
    if let Manner::Rules { is_slow } = story.manner {
        return Ok(rules::compare_story(story, is_slow)?.is_some());
    }
    let found = World::new(story.setup.clone())?.run(&story.trace, &mut Coverage::default())?;
    Ok(found.is_some_and(|difference| !difference.is_blurred))
}

/// The same difference in as few steps as possible.
fn smaller(world: &mut World, found: Finding) -> Result<Finding> {
    Ok(match shrink(world, &found.trace, found.difference.step)? {
        Some((trace, difference)) => Finding { trace, difference, is_alone: true, ..found },
        None => Finding { is_alone: false, ..found },
    })
}

/// A world that another thread makes.
struct WorldToBe(JoinHandle<Result<World>>);

impl WorldToBe {
    fn new(setup: Setup) -> Self {
        Self(std::thread::spawn(move || World::new(setup)))
    }

    fn wait(self) -> Result<World> {
        self.0.join().map_err(|_| anyhow!("the thread that makes a namespace has panicked"))?
    }
}

/// A trace, and what differed when it ran before.
#[derive(Debug)]
struct Attempt {
    run: Running,
    earlier: Option<Difference>,
}

/// A world, and the traces in it for which time has to pass.
#[derive(Debug)]
struct Shift {
    world: World,
    parked: VecDeque<(Instant, Attempt)>,
    /// Traces that differed here, to be run again elsewhere.
    doubtful: Vec<(Trace, Difference)>,
    /// How often its traces have been run before.
    turn: usize,
    /// Where they share counters: all that ran here, to find the one that counts otherwise.
    counted: Vec<Trace>,
}

impl Shift {
    const fn new(world: World, turn: usize) -> Self {
        Self { world, parked: VecDeque::new(), doubtful: Vec::new(), turn, counted: Vec::new() }
    }

    /// Its end takes the kernel a while, which nobody waits for.
    fn close(self) {
        std::thread::spawn(move || drop(self));
    }
}

/// Traces that differed in one world, which is made anew for them.
#[derive(Debug)]
struct Rerun {
    setup: Setup,
    turn: usize,
    traces: Vec<(Trace, Difference)>,
}

#[derive(Debug, Default)]
struct Session {
    report: Report,
    /// Worlds that take no more traces, and in which some still wait.
    shifts: VecDeque<Shift>,
    again: VecDeque<Rerun>,
}

impl Session {
    fn is_over(&self, plan: &Plan) -> bool {
        self.report.findings.len() >= if plan.stop_early { 1 } else { MAX_DIFFERENCES }
    }

    fn advance(&mut self, shift: &mut Shift, mut attempt: Attempt) -> Result<()> {
        // What runs again was counted before.
        let mut unseen = Coverage::default();
        let coverage = if shift.turn == 0 { &mut self.report.coverage } else { &mut unseen };
        match shift.world.advance(&mut attempt.run, coverage)? {
            Progress::Waits(until) => shift.parked.push_back((until, attempt)),
            Progress::Done => {
                shift.world.tidy(&attempt.run, false)?;
                if shift.world.setup.is_serial && shift.turn == 0 {
                    shift.counted.push(attempt.run.trace.clone());
                }
                self.agreed(shift, attempt);
            }
            Progress::Differs(difference) => {
                shift.world.tidy(&attempt.run, true)?;
                self.differed(shift, attempt, difference);
            }
        }
        Ok(())
    }

    /// Compares what all traces of a world have counted, and finds the first one that counts otherwise.
    fn compare_counters(&mut self, shift: &Shift) -> Result<()> {
        // What differed was not fed to its end.
        let of_all =
            if shift.doubtful.is_empty() { shift.world.compare_counters_of_all()? } else { Vec::new() };
        if of_all.is_empty() {
            return Ok(());
        }
        let mut world = World::new(shift.world.setup.clone())?;
        world.counts_each = true;
        let mut unseen = Coverage::default();
        for trace in &shift.counted {
            let mut run = world.begin(trace.clone())?;
            let progress = world.advance(&mut run, &mut unseen)?;
            world.tidy(&run, false)?;
            if let Progress::Differs(difference) = progress {
                let finding = self.finding(&world, run.trace, difference);
                self.report.findings.push(finding);
                return Ok(());
            }
        }
        let difference = Difference {
            step: 0,
            mismatches: of_all,
            reasons: Vec::new(),
            fed: Vec::new(),
            is_blurred: false,
        };
        let finding = self.finding(&world, Trace::default(), difference);
        self.report.unrepeated.push(finding);
        Ok(())
    }

    /// A trace came to its end without a difference, perhaps at last.
    fn agreed(&mut self, shift: &mut Shift, Attempt { run, earlier }: Attempt) {
        let Some(earlier) = earlier else { return };
        if earlier.is_blurred {
            self.report.blurred += 1;
        } else if shift.turn < MAX_TURNS {
            shift.doubtful.push((run.trace, earlier));
        } else {
            let finding = self.finding(&shift.world, run.trace, earlier);
            self.report.unrepeated.push(finding);
        }
    }

    fn differed(&mut self, shift: &mut Shift, Attempt { run, earlier }: Attempt, difference: Difference) {
        let is_twice = earlier.is_some() && !difference.is_blurred;
        if is_twice || shift.turn == MAX_TURNS {
            let finding = self.finding(&shift.world, run.trace, difference);
            self.report.findings.push(finding);
        } else {
            shift.doubtful.push((run.trace, difference));
        }
    }

    fn finding(&self, world: &World, trace: Trace, difference: Difference) -> Finding {
        let (setup, after_frames) = (world.setup.clone(), self.report.coverage.frames);
        Finding { setup, trace, difference, after_frames, is_alone: true, manner: Manner::Frames }
    }

    /// Goes on with the traces of a world whose time has come.
    fn wake(&mut self, shift: &mut Shift) -> Result<()> {
        // Waits differ in length, so the first in the line need not be the first to go on.
        for _ in 0..shift.parked.len() {
            let Some((until, attempt)) = shift.parked.pop_front() else { break };
            if until <= now() {
                self.advance(shift, attempt)?;
            } else {
                shift.parked.push_back((until, attempt));
            }
        }
        Ok(())
    }

    /// Looks after worlds that take no more traces, and lets some end before too many wait.
    fn work(&mut self) -> Result<()> {
        loop {
            self.turn()?;
            let parked: usize = self.shifts.iter().map(|shift| shift.parked.len()).sum();
            if parked <= MAX_PARKED {
                return Ok(());
            }
            self.sleep();
        }
    }

    /// Goes on until nothing waits any more.
    fn end_all(&mut self) -> Result<()> {
        loop {
            self.turn()?;
            if self.shifts.is_empty() && self.again.is_empty() {
                return Ok(());
            }
            self.sleep();
        }
    }

    /// Comes to the end, and makes what differed as small as possible. What does not repeat from its files is no difference.
    fn finish(&mut self) -> Result<()> {
        self.end_all()?;
        for finding in core::mem::take(&mut self.report.findings) {
            let mut world = World::new(finding.setup.clone())?;
            let finding = smaller(&mut world, finding)?;
            let repeats = finding.is_alone && saved::repeats(&finding)?;
            let list = if repeats { &mut self.report.findings } else { &mut self.report.unrepeated };
            list.push(finding);
        }
        Ok(())
    }

    /// One look at every world.
    fn turn(&mut self) -> Result<()> {
        if let Some(Rerun { setup, turn, traces }) = self.again.pop_front() {
            let mut shift = Shift::new(World::new(setup)?, turn);
            for (trace, earlier) in traces {
                let run = shift.world.begin(trace)?;
                self.advance(&mut shift, Attempt { run, earlier: Some(earlier) })?;
            }
            self.shifts.push_back(shift);
        }
        for mut shift in core::mem::take(&mut self.shifts) {
            self.wake(&mut shift)?;
            if !shift.parked.is_empty() {
                self.shifts.push_back(shift);
                continue;
            }
            let traces = core::mem::take(&mut shift.doubtful);
            if !traces.is_empty() {
                let setup = shift.world.setup.clone();
                self.again.push_back(Rerun { setup, turn: shift.turn + 1, traces });
            }
            shift.close();
        }
        Ok(())
    }

    /// Sleeps until the first parked trace can go on.
    fn sleep(&self) {
        let parked = self.shifts.iter().flat_map(|shift| &shift.parked);
        if let Some(until) = parked.map(|(until, _)| *until).min().filter(|_| self.again.is_empty()) {
            wait(until.saturating_duration_since(now()));
        }
    }
}

//! One kernel and the traces that run against it, each with a router of its own beside it.

#![forbid(unsafe_code)]

use super::compare::{Mismatch, compare, compare_entries, compare_expectations};
use super::coverage::Coverage;
use super::flow_key;
use super::kernel::{Answer, Kernel, Setup};
use super::subject::{Ours, Subject};
use super::trace::{Step, Trace};
use crate::packet::Tuple;
use anyhow::Result;
use std::time::{Duration, Instant};

/// UDP looks at the kernel's own clock: a stream is one that has lasted for more than two seconds.
const REAL_WAIT: Duration = Duration::from_millis(2100);
const JUST_TWO_SECONDS: Duration = Duration::from_millis(1900);
/// The shortest timer of a parked trace is ten seconds.
const LONGEST_PARKED: Duration = Duration::from_secs(9);
/// Longer than this between two waits, and the kernel's clock has gone on where ours stood still.
const PATIENCE: Duration = Duration::from_millis(900);

/// The kernel in one setup.
#[derive(Debug)]
pub struct World {
    pub setup: Setup,
    kernel: Kernel,
    /// The rules assign helpers, so that expectations are looked at.
    has_helpers: bool,
}

/// A difference: at which step, and what.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The place in the trace.
    pub step: usize,
    pub mismatches: Vec<Mismatch>,
    /// The kernel's own words, if it said any.
    pub reasons: Vec<String>,
}

/// What became of a trace so far.
#[derive(Debug)]
pub enum Progress {
    Done,
    /// Time must really pass before it can go on.
    Waits(Instant),
    Differs(Difference),
    /// This machine was too busy: so much time passed that the kernel's clock disagrees. It must be run again.
    Late,
}

/// A trace on its way.
#[derive(Debug)]
pub struct Running {
    pub trace: Trace,
    subject: Subject,
    next: usize,
    /// Connections that the trace has touched, by tuple, with the state that the kernel's TCP was in.
    touched: Vec<(Tuple, Option<u8>)>,
    since: Instant,
}

impl World {
    pub fn new(setup: Setup) -> Result<Self> {
        let kernel = Kernel::new(&setup)?;
        let has_helpers = setup.rules4.as_deref().is_some_and(|rules| rules.contains("--helper"));
        Ok(Self { setup, kernel, has_helpers })
    }

    pub fn begin(&self, trace: Trace) -> Result<Running> {
        let subject = Subject::new(&self.setup)?;
        Ok(Running { trace, subject, next: 0, touched: Vec::new(), since: now() })
    }

    /// Goes on until the trace ends, waits or differs.
    pub fn advance(&mut self, run: &mut Running, coverage: &mut Coverage) -> Result<Progress> {
        // Parked for so long that the kernel's timers may have run out, which the router's did not.
        if run.next > 0 && run.since.elapsed() > LONGEST_PARKED {
            return Ok(Progress::Late);
        }
        self.kernel.quiet()?;
        run.since = now();
        if run.next > 0
            && let Step::Elapse(seconds) = run.trace.steps[run.next - 1]
        {
            self.elapse(run, seconds)?;
        }
        while let Some(step) = run.trace.steps.get(run.next) {
            run.next += 1;
            match step {
                Step::Elapse(seconds) if run.trace.needs_real_time && *seconds > 1 => {
                    return Ok(if run.is_late() {
                        Progress::Late
                    } else {
                        Progress::Waits(now() + real_wait(*seconds))
                    });
                }
                Step::Elapse(seconds) => self.elapse(run, *seconds)?,
                Step::Frame(frame) => {
                    let theirs = self.kernel.feed(frame.port, &frame.bytes)?;
                    let ours = run.subject.feed(frame.port, &frame.bytes);
                    let key = theirs.key.or_else(|| flow_key::of_frame(&frame.bytes));
                    let entry = key.and_then(|key| run.subject.entry(&key));
                    coverage.saw(frame, &theirs, &ours, run.state_before(key));
                    let mut mismatches = compare(&theirs, &ours, entry.as_ref(), &run.subject);
                    if self.has_helpers {
                        // A first packet may announce something at once.
                        let new = theirs.entry.as_ref().and_then(|entry| entry.original);
                        let known = run.touched.iter().map(|(tuple, _)| *tuple);
                        let masters: Vec<Tuple> = known.chain(new).collect();
                        let announced = self.kernel.table.expectations()?;
                        mismatches.extend(compare_expectations(&announced, &masters, &run.subject));
                    }
                    if !mismatches.is_empty() {
                        if run.is_late() {
                            return Ok(Progress::Late);
                        }
                        let reasons = theirs.reasons;
                        return Ok(Progress::Differs(Difference { step: run.next - 1, mismatches, reasons }));
                    }
                    run.touch(&theirs, &ours);
                }
            }
        }
        self.finish(run)
    }

    /// At the end nothing may be left on one side only.
    fn finish(&mut self, run: &Running) -> Result<Progress> {
        for (tuple, _) in &run.touched {
            let theirs = self.kernel.table.get(tuple)?;
            let ours = run.subject.entry(tuple);
            let mismatches = compare_entries(theirs.as_ref(), ours.as_ref(), &run.subject);
            if !mismatches.is_empty() {
                if run.is_late() {
                    return Ok(Progress::Late);
                }
                let step = run.trace.steps.len().saturating_sub(1);
                return Ok(Progress::Differs(Difference { step, mismatches, reasons: Vec::new() }));
            }
        }
        Ok(Progress::Done)
    }

    /// Lets time pass on both sides. The kernel's timers are set to what ours have left, which was the same before.
    fn elapse(&mut self, run: &mut Running, seconds: u32) -> Result<()> {
        run.subject.elapse(seconds);
        for (tuple, _) in &run.touched {
            match run.subject.entry(tuple) {
                Some(entry) => self.kernel.table.set_timeout(tuple, run.subject.timeout(&entry))?,
                None => self.kernel.table.delete(tuple)?,
            };
        }
        if self.has_helpers {
            self.elapse_expectations(run)?;
        }
        run.since = now();
        Ok(())
    }

    fn elapse_expectations(&mut self, run: &Running) -> Result<()> {
        let ours = run.subject.expectations();
        for theirs in self.kernel.table.expectations()? {
            if let Some(ours) = ours.iter().find(|e| e.master == theirs.master && e.tuple == theirs.tuple) {
                let left = ours.timeout(run.subject.now()).as_secs() as u32;
                self.kernel.table.set_expectation_timeout(&theirs, left)?;
            } else if run.touched.iter().any(|(tuple, _)| *tuple == theirs.master) {
                self.kernel.table.delete_expectation(&theirs)?;
            }
        }
        Ok(())
    }

    /// Forgets every connection, so that a trace can be run once more.
    pub fn clear(&mut self) -> Result<()> {
        self.kernel.table.flush()
    }

    /// Runs a whole trace from the beginning, waiting where it must.
    pub fn run(&mut self, trace: &Trace, coverage: &mut Coverage) -> Result<Option<Difference>> {
        loop {
            if trace.has_fragments() {
                // Nothing but the end of the namespace makes the kernel forget fragments.
                self.kernel = Kernel::new(&self.setup)?;
            }
            self.clear()?;
            let mut run = self.begin(trace.clone())?;
            loop {
                match self.advance(&mut run, coverage)? {
                    Progress::Done => return Ok(None),
                    Progress::Differs(difference) => return Ok(Some(difference)),
                    Progress::Waits(until) => wait(until.saturating_duration_since(now())),
                    Progress::Late => break,
                }
            }
        }
    }
}

impl Running {
    fn is_late(&self) -> bool {
        self.since.elapsed() > PATIENCE
    }

    fn state_before(&self, key: Option<Tuple>) -> Option<(Tuple, u8)> {
        let key = key?;
        self.touched
            .iter()
            .find(|(tuple, _)| *tuple == key || tuple.reply() == key)
            .and_then(|(tuple, state)| state.map(|state| (*tuple, state)))
    }

    fn touch(&mut self, theirs: &Answer, ours: &Ours) {
        let _ = ours;
        let Some(entry) = &theirs.entry else {
            if let Some(key) = theirs.key {
                self.touched
                    .iter_mut()
                    .filter(|(t, _)| *t == key || t.reply() == key)
                    .for_each(|t| t.1 = None);
            }
            return;
        };
        let Some(original) = entry.original else { return };
        let state = entry.tcp.map(|tcp| tcp.state);
        match self.touched.iter_mut().find(|(tuple, _)| *tuple == original) {
            Some(known) => known.1 = state,
            None => self.touched.push((original, state)),
        }
    }
}

/// How long time must really pass for so many seconds to have passed to UDP.
const fn real_wait(seconds: u32) -> Duration {
    if seconds > 2 { REAL_WAIT } else { JUST_TWO_SECONDS }
}

/// The clock of this machine, which is the kernel's.
#[expect(clippy::disallowed_methods, reason = "the kernel lives by real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Lets real time pass.
#[expect(clippy::disallowed_methods, reason = "the kernel's two seconds of UDP have to pass")]
pub(super) fn wait(duration: Duration) {
    std::thread::sleep(duration);
}

//! One kernel and the traces that run against it, each with a router of its own beside it.
//!
//! Both live by the same clock: before each frame the router is told the tick at which the kernel will see it. However
//! long a trace is parked, and however busy the machine is, the timers of both have run for the same time. What is
//! left is a tick that ends while the kernel works on a frame: then either tick may have counted, and a difference
//! proves nothing. Such a trace is called blurred.

#![forbid(unsafe_code)]

use super::asides;
use super::clock::{now, ticks, wait};
use super::compare::{
    Mismatch, compare, compare_entries, compare_expectations, compare_rules, compare_unasked,
};
use super::coverage::Coverage;
use super::ctnetlink::KernelExpectation;
use super::flow_key;
use super::kernel::{Answer, Kernel, Setup};
use super::learnt::Learnt;
use super::links::Links;
use super::nat_cases::compare_chance;
use super::pairs;
use super::subject::{Sent, Subject};
use super::trace::{Frame, Step, Trace, Waiting};
use anyhow::Result;
use core::ops::RangeInclusive;
use stateway_core::config::Mode;
use stateway_core::packet::tuple::PROTO_UDP;
use stateway_core::packet::{Addr, Family, Tuple};
use stateway_core::router::Rules;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A UDP flow that has lasted longer than two seconds is a stream to the kernel's own clock.
const STREAM: Duration = Duration::from_millis(2100);
/// Within so many milliseconds of its two seconds it is a matter of one tick which it is.
const STREAM_EDGE_MILLIS: RangeInclusive<u128> = 1960..=2040;
/// What brings a flow out of that.
const BEYOND_THE_EDGE: Duration = Duration::from_millis(100);
/// Frames that the kernel sent of its own accord are kept until their trace goes on; most never do.
const MAX_STRAYS: usize = 10_000;
/// Runs of a trace whose difference may be a tick's fault.
const ATTEMPTS: usize = 5;

/// The kernel in one setup.
#[derive(Debug)]
pub struct World {
    pub setup: Setup,
    kernel: Kernel,
    /// The rules assign helpers, so that expectations are looked at.
    has_helpers: bool,
    /// The kernel has waited for a neighbour, or told of a missing route, which it does only so often.
    is_marked: bool,
    /// What the kernel sent when a timer ran out, until the trace that it concerns goes on.
    strays: VecDeque<(usize, Vec<u8>)>,
    /// Where traces run one after another: the rules that all routers share, so that their counters are those of all.
    rules: Option<Arc<Rules>>,
    /// Rules were loaded that this world has not.
    has_loaded: bool,
    /// Counters are compared after each trace, and not at the end of all.
    pub(super) counts_each: bool,
}

/// A difference: at which step, and what.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The place in the trace.
    pub step: usize,
    pub mismatches: Vec<Mismatch>,
    /// The kernel's own words, if it said any.
    pub reasons: Vec<String>,
    /// The frames up to there, as they were fed.
    pub fed: Vec<Frame>,
    /// A tick ended while the kernel worked on one of the frames: it proves nothing by itself.
    pub is_blurred: bool,
}

/// What became of a trace so far.
#[derive(Debug)]
pub enum Progress {
    Done,
    /// Time must really pass before it can go on.
    Waits(Instant),
    Differs(Difference),
}

/// A trace on its way.
#[derive(Debug)]
pub struct Running {
    pub trace: Trace,
    subject: Subject,
    next: usize,
    /// Connections that the trace has touched, by tuple, with the state that the kernel's TCP was in.
    touched: Vec<(Tuple, Option<u8>)>,
    /// What time is skipped once the real part of a wait is over.
    to_skip: Option<Duration>,
    /// What the router sent of its own accord and was not compared yet.
    unasked: Vec<Sent>,
    is_blurred: bool,
    /// What the kernel chose for its connections.
    links: Links,
    learnt: Learnt,
    /// The frames as they were fed.
    fed: Vec<Frame>,
    /// Time was skipped: clocks of the kernel's that nobody can set are behind.
    has_skipped: bool,
    /// Everybody who sends something in it.
    hosts: Vec<Addr>,
}

impl World {
    pub fn new(setup: Setup) -> Result<Self> {
        let kernel = Kernel::new(&setup)?;
        let has_helpers = setup.rules4.as_deref().is_some_and(|rules| rules.contains("--helper"));
        let mut world = Self {
            setup,
            kernel,
            has_helpers,
            is_marked: false,
            strays: VecDeque::new(),
            rules: None,
            has_loaded: false,
            counts_each: false,
        };
        world.share_rules()?;
        Ok(world)
    }

    /// Makes the rules that routers share, with counters at zero, where traces run one after another.
    fn share_rules(&mut self) -> Result<()> {
        if self.setup.is_serial {
            self.rules = Some(Subject::new(&self.setup)?.router().rules());
        }
        Ok(())
    }

    pub fn begin(&self, trace: Trace) -> Result<Running> {
        let learnt = Learnt::default();
        let subject = match &self.rules {
            Some(rules) => Subject::sharing(&self.setup, Arc::clone(rules), Arc::new(learnt.clone()))?,
            None => Subject::new(&self.setup)?,
        };
        let ends = trace.frames().filter_map(Frame::addresses);
        let mut hosts: Vec<_> = ends.map(|(src, _)| src).collect();
        hosts.sort_unstable();
        hosts.dedup();
        Ok(Running {
            trace,
            subject,
            next: 0,
            touched: Vec::new(),
            to_skip: None,
            unasked: Vec::new(),
            is_blurred: false,
            links: Links::default(),
            learnt,
            fed: Vec::new(),
            has_skipped: false,
            hosts,
        })
    }

    /// Goes on until the trace ends, waits or differs.
    pub fn advance(&mut self, run: &mut Running, coverage: &mut Coverage) -> Result<Progress> {
        self.listen()?;
        if let Some(skipped) = run.to_skip.take() {
            self.skip(run, skipped)?;
            if let Some(difference) = self.compare_unasked(run) {
                return Ok(Progress::Differs(difference));
            }
        }
        while let Some(step) = run.trace.steps.get(run.next).cloned() {
            run.next += 1;
            match step {
                Step::Elapse(seconds) => {
                    let time = Duration::from_secs(seconds.into());
                    let really = run.really(time);
                    if !really.is_zero() {
                        run.to_skip = Some(time.saturating_sub(really));
                        return Ok(Progress::Waits(now() + really));
                    }
                    self.skip(run, time)?;
                }
                Step::Frame(frame) => {
                    if let Some(difference) = self.feed(run, &frame, coverage)? {
                        return Ok(Progress::Differs(difference));
                    }
                }
                Step::Own(packet) => {
                    if let Some(difference) = self.originate(run, &packet)? {
                        return Ok(Progress::Differs(difference));
                    }
                }
                Step::Addresses(changes) => {
                    self.has_loaded = true;
                    run.tick();
                    self.kernel.change_addresses(&changes)?;
                    run.subject.change_addresses(&changes)?;
                    self.wait_until_gone(run)?;
                }
                Step::Load(rules) => {
                    let [v4, v6] = &*rules;
                    self.has_loaded = true;
                    self.kernel.load_rules(Some(v4), Some(v6))?;
                    run.subject.load(v4, v6)?;
                    coverage.nat.saw_load();
                }
            }
        }
        self.finish(run)
    }

    /// Feeds one frame to both.
    fn feed(
        &mut self,
        run: &mut Running,
        frame: &Frame,
        coverage: &mut Coverage,
    ) -> Result<Option<Difference>> {
        let frame = &run.links.resolve(frame);
        // What a timer sent since the last frame has nothing to do with this one.
        self.listen()?;
        let before = run.tick();
        let mut theirs = self.kernel.feed(frame.port, &frame.bytes)?;
        let after = ticks();
        run.is_blurred |= after != before;
        if !self.setup.is_serial {
            self.set_aside(&mut theirs.sent, run);
        }
        let announced = if self.has_helpers { self.kernel.table.expectations()? } else { Vec::new() };
        run.learn(frame, &theirs, &announced);
        let met = pairs::state(frame, |key| run.subject.entry(key));
        let mut ours = run.subject.feed(frame.port, &frame.bytes);
        self.is_marked |= asides::leaves_marks(&ours);
        if self.setup.mode == Mode::Route {
            asides::leave_out(&mut theirs, &mut ours, run.has_skipped);
        }
        let key = theirs.key.or_else(|| flow_key::of_frame(&frame.bytes));
        let entry = key.and_then(|key| run.subject.entry(&key));
        coverage.saw(frame, &theirs, &ours, run.state_before(key));
        coverage.met(frame, met, &theirs);
        if self.setup.is_serial {
            coverage.nat.saw(frame, (&theirs, &announced), &ours, &run.subject);
        }
        let mut mismatches = compare(&theirs, &ours, entry.as_ref(), &run.subject, after);
        mismatches.extend(compare_chance(&ours, &run.subject));
        if self.has_helpers {
            // A first packet may announce something at once.
            let new = theirs.entry.as_ref().and_then(|entry| entry.original);
            let known = run.touched.iter().map(|(tuple, _)| *tuple);
            let masters: Vec<Tuple> = known.chain(new).collect();
            mismatches.extend(compare_expectations(&announced, &masters, &run.subject, ticks()));
        }
        if mismatches.is_empty() {
            run.touch(&theirs);
            return Ok(None);
        }
        Ok(Some(run.difference(mismatches, theirs.reasons)))
    }

    /// A worker of the kernel's ends connections some time after their address has gone.
    fn wait_until_gone(&mut self, run: &Running) -> Result<()> {
        const LOOKS: u32 = 2000;
        let gone = run.touched.iter().filter(|(tuple, _)| run.subject.entry(tuple).is_none());
        for (tuple, _) in gone {
            for _ in 0..LOOKS {
                if self.kernel.table.get(tuple)?.is_none() {
                    break;
                }
                wait(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Has a program on each router send the same.
    fn originate(&mut self, run: &mut Running, packet: &[u8]) -> Result<Option<Difference>> {
        self.listen()?;
        let before = run.tick();
        let theirs = self.kernel.originate(packet)?;
        let after = ticks();
        run.is_blurred |= after != before;
        run.learnt.learn(&theirs, &[]);
        let ours = run.subject.originate(packet);
        let entry = theirs.key.and_then(|key| run.subject.entry(&key));
        let mismatches = compare(&theirs, &ours, entry.as_ref(), &run.subject, after);
        if mismatches.is_empty() {
            run.touch(&theirs);
            return Ok(None);
        }
        Ok(Some(run.difference(mismatches, theirs.reasons)))
    }

    /// At the end nothing may be left on one side only.
    fn finish(&mut self, run: &mut Running) -> Result<Progress> {
        self.listen()?;
        if let Some(difference) = self.compare_unasked(run) {
            return Ok(Progress::Differs(difference));
        }
        for (tuple, _) in run.touched.clone() {
            let before = run.tick();
            let theirs = self.kernel.table.get(&tuple)?;
            let after = ticks();
            run.is_blurred |= after != before;
            let ours = run.subject.entry(&tuple);
            let mismatches = compare_entries(theirs.as_ref(), ours.as_ref(), &run.subject, after);
            if !mismatches.is_empty() {
                return Ok(Progress::Differs(run.difference(mismatches, Vec::new())));
            }
        }
        if self.rules.is_some() && (self.counts_each || run.trace.has_loads()) {
            let mismatches = self.compare_counters(&run.subject.router().rules())?;
            if !mismatches.is_empty() {
                return Ok(Progress::Differs(run.difference(mismatches, Vec::new())));
            }
        }
        if self.has_helpers && !self.setup.is_serial {
            // What it announced goes with it: every frame has all of that listed.
            self.forget(run)?;
        }
        Ok(Progress::Done)
    }

    /// Has the kernel forget the connections of a trace.
    fn forget(&mut self, run: &Running) -> Result<()> {
        for (tuple, _) in &run.touched {
            self.kernel.table.delete(tuple)?;
        }
        Ok(())
    }

    /// Has the kernel forget all that a trace left behind, where the next must not meet it.
    pub(super) fn tidy(&mut self, run: &Running, differs: bool) -> Result<()> {
        if !self.setup.is_serial {
            return Ok(());
        }
        if self.has_loaded {
            // What names a table once has its hooks for as long as the namespace lives.
            return self.renew();
        }
        if differs { self.clear() } else { self.forget(run) }
    }

    /// Makes the kernel anew, and with it all counters.
    fn renew(&mut self) -> Result<()> {
        self.kernel = Kernel::new(&self.setup)?;
        self.has_loaded = false;
        self.is_marked = false;
        self.share_rules()
    }

    /// What all traces so far have counted, where they share their rules.
    pub(super) fn compare_counters_of_all(&self) -> Result<Vec<Mismatch>> {
        self.rules.as_ref().map_or(Ok(Vec::new()), |rules| self.compare_counters(rules))
    }

    fn compare_counters(&self, rules: &Rules) -> Result<Vec<Mismatch>> {
        let saved = self.kernel.save_rules(true)?;
        let compared = saved.iter().zip([Family::Ipv4, Family::Ipv6]).flat_map(|(theirs, family)| {
            let ours = rules.for_family(family).map_or(String::new(), |rules| rules.render(true));
            compare_rules(theirs, &ours)
        });
        Ok(compared.collect())
    }

    /// Skips time on both sides. The kernel's timers and the router's are set to the same whole number of seconds:
    /// ctnetlink knows no others.
    fn skip(&mut self, run: &mut Running, time: Duration) -> Result<()> {
        let tick = run.tick();
        if time.is_zero() {
            return Ok(());
        }
        run.has_skipped = true;
        let sent = run.subject.skip(time);
        run.unasked.extend(sent);
        for (tuple, _) in &run.touched {
            match run.subject.round_timeout(tuple) {
                Some(seconds) => self.kernel.table.set_timeout(tuple, seconds)?,
                None => self.kernel.table.delete(tuple)?,
            };
        }
        if self.has_helpers {
            self.skip_expectations(run)?;
        }
        run.is_blurred |= ticks() != tick;
        Ok(())
    }

    fn skip_expectations(&mut self, run: &Running) -> Result<()> {
        let ours = run.subject.expectations();
        for theirs in self.kernel.table.expectations()? {
            if let Some(ours) = ours.iter().find(|e| e.master == theirs.master && e.tuple == theirs.tuple) {
                let left = ours.timeout(run.subject.now());
                let left = left.as_secs() as u32 + u32::from(left.subsec_nanos() > 0);
                self.kernel.table.set_expectation_timeout(&theirs, left)?;
            } else if run.touched.iter().any(|(tuple, _)| *tuple == theirs.master) {
                self.kernel.table.delete_expectation(&theirs)?;
            }
        }
        Ok(())
    }

    /// Takes in what the kernel has sent of its own accord.
    fn listen(&mut self) -> Result<()> {
        self.strays.extend(self.kernel.unasked()?);
        let too_many = self.strays.len().saturating_sub(MAX_STRAYS);
        self.strays.drain(..too_many);
        Ok(())
    }

    /// Sets aside what the kernel sent about another trace just now.
    fn set_aside(&mut self, sent: &mut Vec<(usize, Vec<u8>)>, run: &Running) {
        let is_other = |frame: &[u8]| {
            Frame::addresses_of(frame)
                .is_some_and(|(src, dst)| !run.hosts.contains(&src) && !run.hosts.contains(&dst))
        };
        self.strays.extend(sent.extract_if(.., |(_, frame)| is_other(frame)));
    }

    /// Compares what both sent of their own accord, where it can be: if all time has really passed.
    fn compare_unasked(&mut self, run: &mut Running) -> Option<Difference> {
        let mut ours = core::mem::take(&mut run.unasked);
        ours.retain(|(_, frame, _)| !asides::is_question(frame));
        if run.trace.waiting != Waiting::Really {
            return None;
        }
        let is_mine =
            |frame: &[u8]| Frame::addresses_of(frame).is_some_and(|(_, dst)| run.hosts.contains(&dst));
        let strays = core::mem::take(&mut self.strays);
        let (theirs, others): (Vec<_>, Vec<_>) = strays.into_iter().partition(|s| is_mine(&s.1));
        self.strays = others.into();
        let mismatches = compare_unasked(theirs, ours);
        (!mismatches.is_empty()).then(|| run.difference(mismatches, Vec::new()))
    }

    /// Forgets every connection, so that a trace can be run once more.
    pub fn clear(&mut self) -> Result<()> {
        self.strays.clear();
        self.kernel.table.flush()
    }

    /// Runs a whole trace from the beginning, waiting where it must.
    pub fn run(&mut self, trace: &Trace, coverage: &mut Coverage) -> Result<Option<Difference>> {
        let mut found = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 || trace.has_fragments() || self.is_marked || self.has_loaded {
                // Nothing but the end of the namespace makes the kernel forget fragments, whom it has asked or told, and
                // which tables there were.
                self.renew()?;
            } else if self.setup.is_serial {
                let Setup { rules4, rules6, .. } = &self.setup;
                self.kernel.load_rules(rules4.as_deref(), rules6.as_deref())?;
                self.share_rules()?;
            }
            self.counts_each = true;
            self.clear()?;
            found = self.run_once(trace, coverage)?;
            if found.as_ref().is_none_or(|difference| !difference.is_blurred) {
                break;
            }
        }
        Ok(found)
    }

    fn run_once(&mut self, trace: &Trace, coverage: &mut Coverage) -> Result<Option<Difference>> {
        let mut run = self.begin(trace.clone())?;
        loop {
            match self.advance(&mut run, coverage)? {
                Progress::Done => return Ok(None),
                Progress::Differs(difference) => return Ok(Some(difference)),
                Progress::Waits(until) => wait(until.saturating_duration_since(now())),
            }
        }
    }
}

impl Running {
    /// Brings the router to the kernel's clock; returns the tick.
    fn tick(&mut self) -> u32 {
        let tick = ticks();
        let sent = self.subject.tick(tick);
        self.unasked.extend(sent);
        tick
    }

    /// How much of a time must really pass, because the kernel looks at its own clock.
    fn really(&self, time: Duration) -> Duration {
        let ages = || {
            let flows = self.touched.iter().filter(|(tuple, _)| tuple.proto == PROTO_UDP);
            flows.filter_map(|(tuple, _)| self.subject.entry(tuple)).map(|e| self.subject.age(&e))
        };
        match self.trace.waiting {
            Waiting::Timers => Duration::ZERO,
            Waiting::Streams => {
                let wait = ages().min().map_or(Duration::ZERO, |age| time.min(STREAM.saturating_sub(age)));
                let is_on_edge = |age: Duration| STREAM_EDGE_MILLIS.contains(&(age + wait).as_millis());
                if !wait.is_zero() && ages().any(is_on_edge) { wait + BEYOND_THE_EDGE } else { wait }
            }
            Waiting::Really => time,
        }
    }

    fn difference(&self, mismatches: Vec<Mismatch>, reasons: Vec<String>) -> Difference {
        let step = self.next.saturating_sub(1);
        let (fed, is_blurred) = (self.fed.clone(), self.is_blurred);
        Difference { step, mismatches, reasons, fed, is_blurred }
    }

    /// Takes in what the kernel chose.
    fn learn(&mut self, frame: &Frame, theirs: &Answer, announced: &[KernelExpectation]) {
        self.links.learn(frame, theirs, announced);
        self.learnt.learn(theirs, announced);
        self.fed.push(frame.clone());
    }

    fn state_before(&self, key: Option<Tuple>) -> Option<(Tuple, u8)> {
        let key = key?;
        self.touched
            .iter()
            .find(|(tuple, _)| *tuple == key || tuple.reply() == key)
            .and_then(|(tuple, state)| state.map(|state| (*tuple, state)))
    }

    fn touch(&mut self, theirs: &Answer) {
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

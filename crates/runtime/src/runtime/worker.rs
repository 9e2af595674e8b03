//! One worker: a burst in, each frame to its end, a burst out.

use super::wall::WallClock;
use super::watch::{self, Arriving, Watcher, Witness};
use super::{PortCount, Shared};
use crate::device::{Burst, segment};
use stateway_core::base::Emission;
use stateway_core::config::BusyPoll;
use stateway_core::iface::IfaceId;
use stateway_core::packet::{Frame, Offload};
use stateway_core::record::{NoRecord, Recorder};
use stateway_core::router::{self, Outcome};
use stateway_core::time::{Duration, Instant};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Under load the router's timeouts are looked at this often, not after every burst.
const TIMEOUT_CHECK: Duration = Duration::from_millis(1);
/// With several workers: how long the one that keeps the time sleeps at most.
const OTHERS_CHECK: Duration = Duration::from_millis(50);
/// `busy_poll: adaptive`: how long a worker stays awake after the last frame of light traffic.
const STAYS_AWAKE: Duration = Duration::from_micros(50);
/// Over so long it is judged whether traffic is light.
const WEIGHED: Duration = Duration::from_millis(1);
/// Light traffic has fewer frames than this in that time, and fewer bytes. Whoever asks and waits for the answer is far
/// below; with a flood or a bulk transfer, frames gather while the worker sleeps, and are cheaper in bursts.
const LIGHT_FRAMES: u64 = 250;
const LIGHT_BYTES: u64 = 128 * 1024;

pub(super) struct Worker {
    shared: Arc<Shared>,
    index: usize,
    /// What the core keeps for this worker.
    core: router::Worker,
    /// The first worker does what falls due.
    keeps_time: bool,
    /// Others bring timeouts about that this one keeps.
    shared_duty: bool,
    /// Since the last burst, by port.
    counts: Vec<PortCount>,
    next_check: Instant,
    last_frame: Instant,
    traffic: Traffic,
    wall: WallClock,
    /// What was known of ports that came back: of all, and of each.
    all_returns: u64,
    returns: Vec<u64>,
}

/// How much came in lately.
#[derive(Debug, Default)]
struct Traffic {
    since: Instant,
    frames: u64,
    bytes: u64,
    is_heavy: bool,
}

impl Traffic {
    fn add(&mut self, now: Instant, frames: u64, bytes: u64) {
        if now.saturating_since(self.since) >= WEIGHED {
            // What came in a longer time than that was light anyhow.
            self.is_heavy = now.saturating_since(self.since) < 2 * WEIGHED && self.is_much();
            *self = Self { since: now, is_heavy: self.is_heavy, ..Self::default() };
        }
        self.frames += frames;
        self.bytes += bytes;
    }

    const fn is_much(&self) -> bool {
        self.frames >= LIGHT_FRAMES || self.bytes >= LIGHT_BYTES
    }

    const fn is_light(&self) -> bool {
        !self.is_heavy && !self.is_much()
    }
}

impl Worker {
    pub(super) fn new(index: usize, workers: usize, shared: Arc<Shared>) -> Self {
        Self {
            counts: vec![PortCount::default(); shared.ports.len()],
            returns: vec![0; shared.ports.len()],
            all_returns: 0,
            core: shared.router.worker(),
            shared,
            index,
            keeps_time: index == 0,
            shared_duty: workers > 1,
            next_check: Instant::ZERO,
            last_frame: Instant::ZERO,
            traffic: Traffic::default(),
            wall: WallClock::default(),
        }
    }

    /// Forwards until the runtime stops.
    pub(super) fn run<B: Burst>(mut self, mut burst: B) -> io::Result<()> {
        while !self.shared.stopping.load(Ordering::Acquire) {
            self.shared.pulses[self.index].turn();
            if self.shared.port_states.all_returns() != self.all_returns {
                self.take_ports_back(&mut burst)?;
            }
            let frames = burst.turn()?;
            let now = self.shared.clock.now();
            if self.wall.is_due(now) {
                self.look_at_the_wall();
            }
            if frames > 0 {
                self.last_frame = now;
                self.carry_all(&mut burst, frames, now);
            }
            self.do_what_is_due(&mut burst, now);
            self.count(&mut burst, now);
            if frames > 0 || burst.has_queued() {
                continue;
            }
            if self.stays_awake(now) {
                // Whoever else has something to do on this CPU goes first: it may be the sender of the next frame.
                rustix::thread::sched_yield();
                continue;
            }
            if let Some(timeout) = self.until_next_timeout(now) {
                let pulse = &self.shared.pulses[self.index];
                if !burst.wait(pulse.as_fd(), timeout)? {
                    pulse.is_awake();
                }
            }
        }
        let last = burst.turn().map(drop);
        self.count(&mut burst, self.shared.clock.now());
        last
    }

    /// Tells the router if the clock on the wall was set.
    fn look_at_the_wall(&mut self) {
        let router = &self.shared.router;
        // Both clocks in one breath.
        let (now, unix_nanos) = (self.shared.clock.now(), super::unix_nanos());
        if let Some(epoch) = self.wall.epoch(now, unix_nanos, router.unix_nanos(Instant::ZERO)) {
            router.set_unix_epoch(epoch);
        }
    }

    /// Ports that have another interface are read and written again.
    #[cold]
    fn take_ports_back<B: Burst>(&mut self, burst: &mut B) -> io::Result<()> {
        let states = &self.shared.port_states;
        self.all_returns = states.all_returns();
        for (index, known) in self.returns.iter_mut().enumerate() {
            let iface = IfaceId(index as u16);
            let returns = states.returns(iface);
            if returns != *known {
                *known = returns;
                burst.is_back(iface)?;
            }
        }
        Ok(())
    }

    /// Takes the frames of one turn to their ends.
    fn carry_all<B: Burst>(&mut self, burst: &mut B, frames: usize, now: Instant) {
        self.look_ahead(burst, frames);
        let shared = Arc::clone(&self.shared);
        match shared.watchers.now() {
            Some(watchers) if !watch::are_lost_to_all(&watchers, frames, now) => {
                for n in 0..frames {
                    self.carry_watched(burst, n, now, &watchers);
                }
            }
            _ => {
                for n in 0..frames {
                    self.carry(burst, n, now);
                }
            }
        }
    }

    /// Lets the router fetch from memory what it will need for these frames, for all of them at once.
    fn look_ahead<B: Burst>(&mut self, burst: &mut B, frames: usize) {
        let router = &self.shared.router;
        if frames > 1 && router.looks_ahead() {
            for n in 0..frames {
                router.look_ahead(&mut self.core, burst.frame(n).1);
            }
            router.fetch_ahead(&mut self.core);
        }
    }

    /// Takes one frame through the router to its end.
    fn carry<B: Burst>(&mut self, burst: &mut B, n: usize, now: Instant) {
        let outcome = self.judge(burst, n, now, &mut NoRecord);
        self.send(burst, n, &outcome);
    }

    /// As [`Worker::carry`], and tells who listens, before anybody can see what came of it.
    fn carry_watched<B: Burst>(&mut self, burst: &mut B, n: usize, now: Instant, watchers: &[Arc<Watcher>]) {
        let (iface, frame, offload) = burst.frame(n);
        let arriving = Arriving::read(iface, frame, offload, now);
        if !watch::concerns_any(watchers, &arriving) {
            return self.carry(burst, n, now);
        }
        let explains = watch::is_explained(watchers, &arriving);
        let mut witness = Witness::new(arriving, explains);
        let rules = self.shared.router.rules();
        let outcome = self.judge(burst, n, now, &mut witness);
        watch::tell(watchers, &witness.finish(&outcome, rules));
        self.send(burst, n, &outcome);
    }

    fn judge<B: Burst, R: Recorder>(
        &mut self,
        burst: &mut B,
        n: usize,
        now: Instant,
        rec: &mut R,
    ) -> Outcome {
        let (iface, frame, offload) = burst.frame(n);
        let count = &mut self.counts[iface.index()];
        count.rx_frames += 1;
        count.rx_bytes += frame.len() as u64;
        self.shared.router.process(&mut self.core, now, iface, Frame::new(frame).with_offload(offload), rec)
    }

    /// Queues what is to be sent: first the frame itself, then what grew out of it.
    fn send<B: Burst>(&mut self, burst: &mut B, n: usize, outcome: &Outcome) {
        if let Some(to) = outcome.out {
            let count = &mut self.counts[to.index()];
            count.tx_frames += 1;
            count.tx_bytes += outcome.len as u64;
            if outcome.offload == Offload::NONE || self.shared.ports[to.index()].takes_offload() {
                burst.forward(n, to, outcome.len, outcome.offload);
            } else {
                self.send_finished(burst, n, to, outcome);
            }
        }
        self.emit(burst);
    }

    /// Sends a frame with work left to do on a port that cannot take it: does the work.
    #[cold]
    fn send_finished<B: Burst>(&mut self, burst: &mut B, n: usize, to: IfaceId, outcome: &Outcome) {
        let (_, frame, _) = burst.frame(n);
        if !outcome.offload.is_super_frame() {
            segment::finish_checksum(&mut frame[..outcome.len], outcome.offload);
            return burst.forward(n, to, outcome.len, Offload::NONE);
        }
        let mut whole = frame[..outcome.len].to_vec();
        if !segment::split(&mut whole, outcome.offload, &mut |piece| burst.emit(to, piece, Offload::NONE)) {
            self.counts[to.index()].tx_lost += 1;
        }
    }

    /// Queues what the router wants to send besides the frame that came in.
    #[inline]
    fn emit<B: Burst>(&mut self, burst: &mut B) {
        if self.core.has_emissions() {
            self.emit_all(burst);
        }
    }

    fn emit_all<B: Burst>(&mut self, burst: &mut B) {
        for emission in self.core.take_emissions() {
            let count = &mut self.counts[emission.iface.index()];
            count.tx_frames += 1;
            count.tx_bytes += emission.frame.len() as u64;
            emit_one(burst, &self.shared, emission);
        }
    }

    fn do_what_is_due<B: Burst>(&mut self, burst: &mut B, now: Instant) {
        if !self.keeps_time || now < self.next_check {
            return;
        }
        self.next_check = now + TIMEOUT_CHECK;
        if self.shared.router.poll_timeout().is_some_and(|due| due <= now) {
            self.shared.router.handle_timeout(&mut self.core, now);
            self.emit(burst);
        }
    }

    /// How long there is nothing to do if no frame comes: `Some(None)` for ever, `None` not at all.
    #[expect(clippy::option_option, reason = "the inner one is poll(2)'s")]
    fn until_next_timeout(&self, now: Instant) -> Option<Option<Duration>> {
        if !self.keeps_time {
            return Some(None);
        }
        // What another worker's frames bring forward is noticed this late at worst.
        let at_most = self.shared_duty.then_some(OTHERS_CHECK);
        match self.shared.router.poll_timeout() {
            None => Some(at_most),
            Some(due) if due <= now => None,
            // Never shorter than the pace of the checks, or the worker would wake for nothing.
            Some(due) => {
                let sleep = due.saturating_since(now).max(TIMEOUT_CHECK);
                Some(Some(at_most.map_or(sleep, |most| sleep.min(most))))
            }
        }
    }

    fn stays_awake(&self, now: Instant) -> bool {
        match self.shared.busy_poll {
            BusyPoll::Never => false,
            BusyPoll::Adaptive => {
                now.saturating_since(self.last_frame) < STAYS_AWAKE && self.traffic.is_light()
            }
            BusyPoll::Always => true,
        }
    }

    /// Adds up what this burst carried.
    fn count<B: Burst>(&mut self, burst: &mut B, now: Instant) {
        burst.lost(&mut |iface, n| self.counts[iface.index()].tx_lost += n);
        if burst.take_gone() {
            self.shared.port_states.look_at_once();
        }
        if let retries @ 1.. = burst.take_retries() {
            self.shared.retries.fetch_add(retries, Ordering::Relaxed);
        }
        let (mut frames, mut bytes) = (0, 0);
        for (count, total) in self.counts.iter_mut().zip(&self.shared.counters) {
            if *count != PortCount::default() {
                frames += count.rx_frames;
                bytes += count.rx_bytes;
                total.add(core::mem::take(count));
            }
        }
        if frames > 0 {
            self.traffic.add(now, frames, bytes);
        }
    }
}

/// Queues a frame of the router's own, finished if its way out cannot take it as it is.
fn emit_one<B: Burst>(burst: &mut B, shared: &Shared, emission: Emission) {
    let Emission { iface, mut frame, offload, .. } = emission;
    if offload == Offload::NONE || shared.ports[iface.index()].takes_offload() {
        burst.emit(iface, &frame, offload);
    } else if !offload.is_super_frame() {
        segment::finish_checksum(&mut frame, offload);
        burst.emit(iface, &frame, Offload::NONE);
    } else {
        segment::split(&mut frame, offload, &mut |piece| burst.emit(iface, piece, Offload::NONE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether traffic is light after so many milliseconds with so many turns of one frame each.
    fn is_light(millis: u64, frames_a_milli: u64, frame_bytes: u64) -> bool {
        let mut traffic = Traffic::default();
        let step = Duration::from_millis(1) / frames_a_milli as u32;
        for n in 0..millis * frames_a_milli {
            traffic.add(Instant::ZERO + step * n as u32, 1, frame_bytes);
        }
        traffic.is_light()
    }

    #[test]
    fn floods_and_bulk_are_heavy_and_the_rest_is_light() {
        for (frames_a_milli, frame_bytes, light) in [
            (1, 100, true),
            (100, 100, true),
            (240, 100, true),
            (400, 100, false),
            // A gigabit of full frames stays light, ten in super-frames do not.
            (80, 1500, true),
            (20, 65_000, false),
        ] {
            assert_eq!(is_light(10, frames_a_milli, frame_bytes), light, "{frames_a_milli} of {frame_bytes}");
        }
    }

    #[test]
    fn what_was_heavy_long_ago_is_light_now() {
        let mut traffic = Traffic::default();
        let at = |micros| Instant::ZERO + Duration::from_micros(micros);
        for n in 0..1000 {
            traffic.add(at(n * 4), 1, 100);
        }
        assert!(!traffic.is_light());
        traffic.add(at(9000), 1, 100);
        assert!(traffic.is_light());
    }
}

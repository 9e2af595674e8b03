//! Who listens to what the router does, and how they hear of it without ever being in its way.
//!
//! A listener has a bounded channel. The worker never waits for it: what does not fit is lost, and counted.

use crate::control::protocol::{Verdict, VerdictFilter};
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};
use stateway_core::decision::Decision;
use stateway_core::iface::IfaceId;
use stateway_core::packet::summary::{self, Gist};
use stateway_core::packet::{Offload, Packet};
use stateway_core::record::{Note, Recorder};
use stateway_core::router::{Outcome, Router};
use stateway_core::time::Instant;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Events that wait for one listener.
const QUEUE: usize = 8192;

/// The listeners to verdicts. Nobody listens most of the time, and then it costs one load a burst.
#[derive(Debug, Default)]
pub struct Watchers {
    all: ArcSwap<Vec<Arc<Watcher>>>,
}

#[derive(Debug)]
pub(super) struct Watcher {
    filter: VerdictFilter,
    events: Sender<Verdict>,
    lost: Arc<AtomicU64>,
}

/// A listener's end. Dropping it ends the subscription.
pub struct Subscription<T> {
    events: Receiver<T>,
    lost: Arc<AtomicU64>,
    end: Option<Box<dyn FnOnce() + Send>>,
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("waiting", &self.events.len()).finish_non_exhaustive()
    }
}

impl<T> Subscription<T> {
    /// `end` is what takes the listener off the list again.
    pub fn new(events: Receiver<T>, lost: Arc<AtomicU64>, end: impl FnOnce() + Send + 'static) -> Self {
        Self { events, lost, end: Some(Box::new(end)) }
    }

    pub const fn events(&self) -> &Receiver<T> {
        &self.events
    }

    /// How many events were lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl Watchers {
    /// Begins to listen: every packet that comes in from now on and that `filter` wants is told.
    pub fn subscribe(self: &Arc<Self>, filter: VerdictFilter) -> Subscription<Verdict> {
        let (sender, events) = bounded(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let watcher = Arc::new(Watcher { filter, events: sender, lost: Arc::clone(&lost) });
        self.all.rcu(|all| all.iter().cloned().chain([Arc::clone(&watcher)]).collect::<Vec<_>>());
        let watchers = Arc::clone(self);
        let end = move || {
            watchers
                .all
                .rcu(|all| all.iter().filter(|w| !Arc::ptr_eq(w, &watcher)).cloned().collect::<Vec<_>>());
        };
        Subscription::new(events, lost, end)
    }

    /// Those who listen now; to be asked for after the frames were read, so that none is missed.
    pub(super) fn now(&self) -> Option<arc_swap::Guard<Arc<Vec<Arc<Watcher>>>>> {
        let all = self.all.load();
        (!all.is_empty()).then_some(all)
    }
}

/// Tells everybody whom it concerns.
pub(super) fn tell(watchers: &[Arc<Watcher>], verdict: &Verdict) {
    for watcher in watchers.iter().filter(|w| w.filter.wants(verdict)) {
        if watcher.events.try_send(verdict.clone()).is_err() {
            watcher.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Gathers what a verdict says of one packet.
#[derive(Debug)]
pub(super) struct VerdictRecorder {
    verdict: Verdict,
    decision: Decision,
}

impl VerdictRecorder {
    /// Reads the packet before the router edits it.
    pub(super) fn new(iface: &str, frame: &mut [u8], offload: Offload, now: Instant) -> Self {
        let mut verdict =
            Verdict { time: now.as_secs_f64(), in_iface: iface.to_owned(), ..Verdict::default() };
        match Packet::parse(frame, offload) {
            Ok(pkt) => describe(&pkt, &mut verdict),
            Err(_) => "not IP".clone_into(&mut verdict.summary),
        }
        Self { verdict, decision: Decision::default() }
    }

    pub(super) fn finish(self, router: &Router, outcome: &Outcome) -> Verdict {
        let Self { mut verdict, decision } = self;
        let name = |id: &IfaceId| router.ifaces()[id.index()].name.clone();
        verdict.out = decision.out.iter().map(name).collect();
        outcome.fate.word().clone_into(&mut verdict.fate);
        verdict.rule = decision.rule(outcome.fate, router);
        verdict.reason = decision.reason(outcome.fate).map(|reason| reason.code().to_owned());
        verdict.ctstate = decision.ctstate.map(|state| state.word().to_owned());
        verdict.direction = decision.direction.map(|direction| direction.word().to_owned());
        verdict
    }
}

impl Recorder for VerdictRecorder {
    fn note(&mut self, note: impl FnOnce() -> Note) {
        self.decision.note(note);
    }
}

/// Addresses, ports, and a line for people.
fn describe(pkt: &Packet, verdict: &mut Verdict) {
    verdict.src = Some(pkt.src().to_ip(pkt.family()));
    verdict.dst = Some(pkt.dst().to_ip(pkt.family()));
    verdict.protocol = Some(pkt.proto());
    let ports = pkt.ports();
    verdict.sport = ports.map(|(sport, _)| sport);
    verdict.dport = ports.map(|(_, dport)| dport);
    let gist = Gist::of(pkt);
    verdict.tcp_flags = gist.tcp_flags.map(|flags| flags.bits());
    verdict.icmp = gist.icmp;
    verdict.fragment = gist.fragment;
    verdict.summary = summary::of_packet(pkt);
}

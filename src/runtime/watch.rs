//! Who listens to what the router does, and how they hear of it without ever being in its way.
//!
//! A listener has a bounded channel. The worker never waits for it: what does not fit is lost, and counted.

use crate::control::protocol::{Verdict, VerdictFilter};
use crate::fate::Fate;
use crate::filter::{RuleId, Table};
use crate::iface::IfaceId;
use crate::packet::{Offload, Packet, Segment, tuple};
use crate::record::{Note, Recorder};
use crate::router::{Outcome, Router};
use crate::time::Instant;
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};
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
    out: Vec<IfaceId>,
    table: Option<Table>,
    /// The last rule of the filter table that agreed, or whose policy decided.
    decided: Option<(RuleId, bool)>,
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
        Self { verdict, out: Vec::new(), table: None, decided: None }
    }

    pub(super) fn finish(mut self, router: &Router, outcome: &Outcome) -> Verdict {
        let name = |id: &IfaceId| router.ifaces()[id.index()].name.clone();
        self.verdict.out = self.out.iter().map(name).collect();
        outcome.fate.word().clone_into(&mut self.verdict.fate);
        let by = match outcome.fate {
            Fate::Dropped(reason) => {
                self.verdict.reason = Some(reason.code().to_owned());
                self.decided
            }
            Fate::Queued(reason) => {
                self.verdict.reason = Some(reason.code().to_owned());
                self.decided
            }
            Fate::Rejected(_, rule) => Some((rule, false)),
            Fate::Forwarded | Fate::Delivered => self.decided,
        };
        self.verdict.rule =
            by.and_then(
                |(rule, policy)| {
                    if policy { Some("policy".to_owned()) } else { router.rule_name(rule) }
                },
            );
        self.verdict
    }
}

impl Recorder for VerdictRecorder {
    fn note(&mut self, note: impl FnOnce() -> Note) {
        match note() {
            Note::Hook(table, _) => self.table = Some(table),
            Note::Rule { rule, failed: None } if self.table == Some(Table::Filter) => {
                self.decided = Some((rule, false));
            }
            Note::Policy(rule) if self.table == Some(Table::Filter) => self.decided = Some((rule, true)),
            Note::Tracked(ct) => {
                self.verdict.set_state(ct.state, ct.direction);
                self.verdict.reason = ct.invalid.map(|reason| reason.code().to_owned());
            }
            Note::Sent(iface) => self.out.push(iface),
            _ => {}
        }
    }
}

/// Addresses, ports, and a line for people.
fn describe(pkt: &Packet, verdict: &mut Verdict) {
    let (src, dst) = (pkt.src().to_ip(pkt.family()), pkt.dst().to_ip(pkt.family()));
    verdict.src = Some(src);
    verdict.dst = Some(dst);
    verdict.protocol = Some(pkt.proto());
    let ports = pkt.ports();
    verdict.sport = ports.map(|(sport, _)| sport);
    verdict.dport = ports.map(|(_, dport)| dport);
    let end = |addr: std::net::IpAddr, port: Option<u16>| match (addr, port) {
        (_, None) => addr.to_string(),
        (std::net::IpAddr::V4(addr), Some(port)) => format!("{addr}:{port}"),
        (std::net::IpAddr::V6(addr), Some(port)) => format!("[{addr}]:{port}"),
    };
    let kind = match pkt.proto() {
        tuple::PROTO_TCP => Segment::parse(pkt.l4()).map_or("tcp".to_owned(), |s| format!("tcp {}", s.flags)),
        tuple::PROTO_UDP => "udp".to_owned(),
        tuple::PROTO_ICMP => icmp("icmp", pkt),
        tuple::PROTO_ICMPV6 => icmp("icmpv6", pkt),
        other => format!("proto {other}"),
    };
    verdict.summary = format!("{kind} {} → {}", end(src, verdict.sport), end(dst, verdict.dport));
}

fn icmp(name: &str, pkt: &Packet) -> String {
    match pkt.l4() {
        [kind, code, ..] => format!("{name} {kind}/{code}"),
        _ => name.to_owned(),
    }
}

//! What becomes of the ports' interfaces, and how a port that lost its interface gets one again.
//!
//! ```text
//!   deleted, or its namespace was ─→ gone: told, counted; frames to it are lost; the other ports go on
//!     ├ somebody makes it again ───→ attached to
//!     └ nobody does for MAKES_IT ──→ made, as at start
//!   set down ─→ down: told; frames to it are lost; up again, it goes on by itself
//! ```
//!
//! Whoever deleted it may be about to make his own, and would find the name taken by ours: so he goes first.

use super::Shared;
use super::pulse::Pulse;
use crate::device::link::Lookup;
use crate::device::{Link, Port};
use crate::keeper::Keeper;
use crossbeam_channel::{Receiver, Sender, bounded};
use stateway_core::iface::IfaceId;
use stateway_core::time::{Duration, Instant};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often the ports are looked at when nobody asks for it, and while one is gone.
const CALM: Duration = Duration::from_secs(1);
const WATCHFUL: Duration = Duration::from_millis(250);
/// After so long without an interface of its name, a port makes it itself.
const MAKES_IT: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How the ports stand, for all threads.
#[derive(Debug)]
pub struct PortStates {
    each: Vec<PortState>,
    /// All of their `returns`: what a worker compares.
    returns: AtomicU64,
    look: Sender<()>,
}

#[derive(Debug, Default)]
struct PortState {
    is_gone: AtomicBool,
    times_gone: AtomicU64,
    returns: AtomicU64,
}

impl PortStates {
    /// For so many ports; the receiver hears when somebody is to look at once.
    pub(super) fn new(ports: usize) -> (Self, Receiver<()>) {
        let (look, looks) = bounded(1);
        let each = (0..ports).map(|_| PortState::default()).collect();
        (Self { each, returns: AtomicU64::new(0), look }, looks)
    }

    /// How a port's interface stands now.
    pub fn link(&self, port: &dyn Port, iface: IfaceId) -> Link {
        if self.each[iface.index()].is_gone.load(Ordering::Acquire) { Link::Gone } else { port.link() }
    }

    /// How often a port lost its interface.
    pub fn times_gone(&self, iface: IfaceId) -> u64 {
        self.each[iface.index()].times_gone.load(Ordering::Relaxed)
    }

    /// How often a port got an interface again.
    pub fn returns(&self, iface: IfaceId) -> u64 {
        self.each[iface.index()].returns.load(Ordering::Acquire)
    }

    /// How often any port did.
    pub(super) fn all_returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    /// A worker found a port gone.
    pub(super) fn look_at_once(&self) {
        // If that was said already, once is enough.
        let _ = self.look.try_send(());
    }

    fn goes(&self, iface: IfaceId) {
        self.each[iface.index()].times_gone.fetch_add(1, Ordering::Relaxed);
        self.each[iface.index()].is_gone.store(true, Ordering::Release);
    }

    fn is_back(&self, iface: IfaceId) {
        self.each[iface.index()].returns.fetch_add(1, Ordering::Release);
        self.each[iface.index()].is_gone.store(false, Ordering::Release);
        self.returns.fetch_add(1, Ordering::Release);
    }
}

/// Looks after the ports, in a thread of its own, since opening a port may block.
pub(super) struct PortWatch {
    shared: Arc<Shared>,
    keeper: Arc<dyn Keeper>,
    lookup: Lookup,
    seen: Vec<Seen>,
}

/// One port, as it was seen last.
#[derive(Debug, Default)]
struct Seen {
    link: Link,
    awaited: Option<Awaited>,
}

impl PortWatch {
    pub(super) fn new(shared: Arc<Shared>, keeper: Arc<dyn Keeper>, lookup: Lookup) -> Self {
        let seen = shared.ports.iter().map(|_| Seen::default()).collect();
        Self { shared, keeper, lookup, seen }
    }

    /// Looks until `ended` has nobody at its other end; at once when `looks` says so.
    pub(super) fn run(mut self, looks: &Receiver<()>, ended: &Receiver<()>) {
        loop {
            let now = self.shared.clock.now();
            for n in 0..self.seen.len() {
                self.look(IfaceId(n as u16), now);
            }
            let watchful = self.seen.iter().any(|seen| seen.link == Link::Gone);
            crossbeam_channel::select! {
                recv(ended) -> _ => return,
                recv(looks) -> _ => {}
                default(if watchful { WATCHFUL } else { CALM }) => {}
            }
        }
    }

    fn look(&mut self, iface: IfaceId, now: Instant) {
        let port = &*self.shared.ports[iface.index()];
        let link = self.shared.port_states.link(port, iface);
        let seen = &mut self.seen[iface.index()];
        if link != seen.link {
            let name = port.name();
            match link {
                Link::Gone => {
                    self.shared.port_states.goes(iface);
                    tracing::warn!(
                        "port {name} is gone: its interface, or the namespace of it, was deleted; frames to it are lost"
                    );
                    seen.awaited = Some(Awaited::since(now));
                }
                Link::Down => tracing::info!("port {name} is down: frames to it are lost"),
                Link::Up => tracing::info!("port {name} is up"),
            }
            if link != Link::Up {
                self.shared.router.conntrack().end_masqueraded(iface, now);
            }
            seen.link = link;
        }
        if let Some(awaited) = &mut seen.awaited
            && awaited.is_due(now, self.lookup.exists(port.name()))
        {
            self.open_again(iface, now);
        }
    }

    fn open_again(&mut self, iface: IfaceId, now: Instant) {
        let port = &*self.shared.ports[iface.index()];
        let seen = &mut self.seen[iface.index()];
        let opened = self.keeper.open_port(port.name()).and_then(|fd| port.replace(fd.as_fd()));
        match opened {
            Ok(()) => {
                self.shared.port_states.is_back(iface);
                self.shared.pulses.iter().for_each(Pulse::wake);
                *seen = Seen { link: port.link(), awaited: None };
                tracing::warn!("port {} is back", port.name());
            }
            Err(error) => {
                if let Some(awaited) = &mut seen.awaited
                    && awaited.failed(now)
                {
                    tracing::warn!(
                        "port {} cannot be opened again: {error}; it is tried further",
                        port.name()
                    );
                }
            }
        }
    }
}

/// When a port that is gone is to be opened.
#[derive(Debug)]
struct Awaited {
    /// From here on it makes the interface itself.
    makes_it: Instant,
    next: Instant,
    pause: Duration,
    existed: bool,
}

impl Awaited {
    fn since(now: Instant) -> Self {
        Self { makes_it: now + MAKES_IT, next: now, pause: WATCHFUL, existed: false }
    }

    fn is_due(&mut self, now: Instant, exists: bool) -> bool {
        if exists && !self.existed {
            // Here it is: whatever was tried before was about something else.
            self.next = now;
        }
        self.existed = exists;
        (exists || now >= self.makes_it) && now >= self.next
    }

    /// Says whether it was the first time.
    fn failed(&mut self, now: Instant) -> bool {
        let first = self.pause == WATCHFUL;
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn who_made_it_again_is_attached_to_and_who_waits_in_vain_makes_it() {
        let mut awaited = Awaited::since(at(0));
        assert!(!awaited.is_due(at(9_999), false));
        assert!(awaited.is_due(at(5_000), true), "somebody made it");
        let mut awaited = Awaited::since(at(0));
        assert!(awaited.is_due(at(10_000), false), "nobody did");
    }

    #[test]
    fn attempts_that_fail_become_rare_until_something_changes() {
        let mut awaited = Awaited::since(at(0));
        assert!(awaited.is_due(at(10_000), false));
        assert!(awaited.failed(at(10_000)), "told");
        assert!(!awaited.is_due(at(10_249), false));
        assert!(awaited.is_due(at(10_250), false));
        assert!(!awaited.failed(at(10_250)), "not told again");
        assert!(!awaited.is_due(at(10_749), false));
        for n in 0..10 {
            awaited.failed(at(20_000 + n));
        }
        assert!(!awaited.is_due(at(20_009 + 9_999), false));
        assert!(awaited.is_due(at(20_010), true), "here it is");
    }
}

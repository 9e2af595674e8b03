//! The forwarding loop: workers that carry frames between the ports and the router, and the only reader of the clock.
//!
//! ```text
//!   signals ─┐                    ┌─ worker 0 ── ports ── hosts
//!   control ─┴─ orders ─→ main ─→ ┤  worker 1 …
//!                                 └─ one Router, shared by reference
//! ```
//!
//! A worker reads a burst from its ports, takes each frame through the router to its end, queues what is to be sent,
//! and then does what is due; with nothing left to do it sleeps until a frame comes or the router's next timeout.
//! Whatever need not be immediate (signals, control commands, listeners) reaches it over channels or shared state,
//! never in the way of a frame.

use crate::confine::{self, Role};
use crate::device::link::Lookup;
use crate::device::poll::PollBurst;
use crate::device::ring::RingBurst;
use crate::device::{Burst, Port};
use crate::keeper::Keeper;
use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender};
use ports::{PortStates, PortWatch};
use pulse::Pulse;
use stateway_core::config::BusyPoll;
use stateway_core::iface::IfaceId;
use stateway_core::router::Router;
use stateway_core::time::Instant;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use watch::Watchers;

mod counters;
pub mod ending;
pub mod listener;
pub mod log;
pub mod nflog;
pub mod orders;
mod picker;
pub mod ports;
mod pulse;
pub mod service;
pub mod state;
mod wall;
pub mod watch;
mod worker;

pub use counters::{PortCount, PortCounters};
pub use picker::Unforeseen;

/// Monotonic time, as the core wants it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
    /// What it shows at `start`: more than nothing if something is known that began before.
    begins: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub fn start(begins: Duration) -> Self {
        Self { start: std::time::Instant::now(), begins }
    }

    /// The time of day, in seconds since 1970, by the clock on the wall as it goes now.
    pub fn unix_seconds(&self, at: Instant) -> f64 {
        let ago = self.now().as_secs_f64() - at.as_secs_f64();
        unix_nanos() as f64 / 1e9 - ago
    }

    pub fn now(&self) -> Instant {
        Instant::ZERO + self.begins + self.start.elapsed()
    }

    /// How long it runs.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The time of day, in nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// What all threads of a running router share.
#[derive(Debug)]
pub struct Shared {
    pub router: Arc<Router>,
    pub clock: Clock,
    pub ports: Arc<[Box<dyn Port>]>,
    pub counters: Vec<PortCounters>,
    pub watchers: Arc<Watchers>,
    pub port_states: PortStates,
    /// System calls that failed for the moment and were made again.
    pub retries: AtomicU64,
    /// One for each worker.
    pulses: Vec<Pulse>,
    busy_poll: BusyPoll,
    stopping: AtomicBool,
}

/// How to forward.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub busy_poll: BusyPoll,
    /// Move bursts by io_uring where it is to be had; else by poll, read and write.
    pub io_uring: bool,
    /// Threads that forward; never more than there are ports.
    pub workers: usize,
}

/// How many workers so many ports deserve: one is enough for two, and more than there are CPUs only get in each
/// other's way.
pub fn usual_workers(ports: usize) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (ports / 2).clamp(1, cpus)
}

/// A router that forwards. Dropping it ends the workers.
#[derive(Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    burst: &'static str,
    failures: Receiver<anyhow::Error>,
    looks: Receiver<()>,
    /// Ends the thread that looks after the ports when it is dropped.
    watch: Option<Sender<()>>,
}

impl Runtime {
    /// Begins to forward between `ports`, which stand in the order of the router's interfaces.
    ///
    /// # Panics
    /// If the ports are not those of the router.
    pub fn start(router: Arc<Router>, ports: Vec<Box<dyn Port>>, options: Options) -> anyhow::Result<Self> {
        Self::start_at(Duration::ZERO, router, ports, options)
    }

    /// As [`Runtime::start`], with a clock that shows `begins` at first: the router knows of what began before.
    ///
    /// # Panics
    /// If the ports are not those of the router.
    pub fn start_at(
        begins: Duration,
        router: Arc<Router>,
        ports: Vec<Box<dyn Port>>,
        options: Options,
    ) -> anyhow::Result<Self> {
        let names = |n: usize| router.ifaces().get(n).map(|i| i.name.as_str());
        assert!(ports.len() == router.ifaces().len(), "a port for each interface");
        assert!(ports.iter().enumerate().all(|(n, p)| names(n) == Some(p.name())), "in the same order");
        let workers = options.workers.clamp(1, ports.len().max(1));
        let (port_states, looks) = PortStates::new(ports.len());
        let pulses: io::Result<_> = (0..workers).map(|_| Pulse::new()).collect();
        let shared = Arc::new(Shared {
            pulses: pulses.context("no eventfd")?,
            port_states,
            retries: AtomicU64::new(0),
            counters: ports.iter().map(|_| PortCounters::default()).collect(),
            watchers: Arc::default(),
            router,
            clock: Clock::start(begins),
            ports: ports.into(),
            busy_poll: options.busy_poll,
            stopping: AtomicBool::new(false),
        });
        let (failed, failures) = crossbeam_channel::bounded(1);
        let mut runtime = Self { shared, workers: Vec::new(), burst: "", failures, looks, watch: None };
        for index in 0..workers {
            // All that comes in on a port goes through one worker, so that no flow overtakes itself.
            let reads: Vec<IfaceId> =
                (index..runtime.shared.ports.len()).step_by(workers).map(|n| IfaceId(n as u16)).collect();
            runtime.spawn((index, workers), &reads, options.io_uring, &failed)?;
        }
        Ok(runtime)
    }

    /// One more worker, which reads the ports `reads`.
    fn spawn(
        &mut self,
        (index, workers): (usize, usize),
        reads: &[IfaceId],
        io_uring: bool,
        failed: &Sender<anyhow::Error>,
    ) -> anyhow::Result<()> {
        let ports = || Arc::clone(&self.shared.ports);
        let ring =
            if io_uring { RingBurst::new(ports(), reads) } else { Err(io::ErrorKind::Unsupported.into()) };
        match ring {
            Ok(burst) => self.spawn_on((index, workers), burst, failed),
            Err(error) => {
                if io_uring {
                    tracing::warn!(%error, "no io_uring: frames are moved by poll, read and write");
                }
                self.spawn_on((index, workers), PollBurst::new(ports(), reads.to_vec()), failed)
            }
        }
    }

    fn spawn_on<B: Burst + Send + 'static>(
        &mut self,
        (index, workers): (usize, usize),
        burst: B,
        failed: &Sender<anyhow::Error>,
    ) -> anyhow::Result<()> {
        self.burst = burst.describe();
        let worker = worker::Worker::new(index, workers, Arc::clone(&self.shared));
        let failed = failed.clone();
        let run = move || {
            if let Err(error) = worker.run(burst) {
                // Only the first failure is told; whoever listens ends the others.
                let _ = failed.try_send(error.into());
            }
        };
        let thread = confine::spawn(&format!("worker-{index}"), Role::Worker, run)?;
        self.workers.push(thread);
        Ok(())
    }

    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How frames are moved, for people.
    pub const fn burst(&self) -> &'static str {
        self.burst
    }

    /// Where a worker that cannot go on says why.
    pub const fn failures(&self) -> &Receiver<anyhow::Error> {
        &self.failures
    }

    /// Begins to look after the ports: one that loses its interface gets it again through `keeper`.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn look_after_ports(&mut self, keeper: Arc<dyn Keeper>, lookup: Lookup) -> io::Result<()> {
        let (shared, looks) = (Arc::clone(&self.shared), self.looks.clone());
        let watch = PortWatch::new(shared, keeper, lookup);
        let (watching, ended) = crossbeam_channel::bounded(0);
        confine::spawn("ports", Role::Main, move || watch.run(&looks, &ended))?;
        self.watch = Some(watching);
        Ok(())
    }

    /// The workers that took no turn since the last call. Wakes those that sleep, so that whoever can takes one until
    /// the next.
    pub fn standing_still(&self) -> Vec<usize> {
        let pulses = self.shared.pulses.iter().enumerate();
        pulses.filter(|(_, pulse)| !pulse.has_turned()).map(|(index, _)| index).collect()
    }

    /// Ends the workers, each after its burst.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // Its thread is not waited for: it may be opening a port.
        drop(self.watch.take());
        self.shared.pulses.iter().for_each(Pulse::wake);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;

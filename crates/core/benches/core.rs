//! The core alone, on one thread: `cargo bench`. What a packet of a known connection costs among few and many, what a
//! new connection costs, and what rules in front cost both.

#![allow(unreachable_pub, missing_docs, reason = "nothing in a program is reached from outside")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use stateway_core::router::{Router, Worker};
use std::hint::black_box;
use std::time::{Duration, Instant};

#[path = "../examples/packets/traffic.rs"]
#[expect(dead_code, reason = "other programs use more of it")]
mod traffic;

use traffic::{
    Frame, LEFT, answered_tcp, answered_udp, carry, open_tcp, open_udp, resident, router, send, udp,
};

/// A step that visits every flow, each far from the one before.
const STRIDE: u64 = 7_368_787;
/// Flows whose frames are kept ready: enough that no cache holds their entries.
const READY: u32 = 250_000;
/// Frames that a port hands over at a time, as under load.
const BURST: usize = 64;

/// So many flows out of all of them, in no order.
fn scattered(flows: u32) -> impl Iterator<Item = u32> {
    (0..u64::from(flows.min(READY))).map(move |n| (n * STRIDE % u64::from(flows)) as u32)
}

/// Numbers of connections: `STATEWAY_BENCH_FLOWS=4000000` adds one more.
fn sizes() -> impl Iterator<Item = u32> {
    let more = std::env::var("STATEWAY_BENCH_FLOWS").ok().and_then(|flows| flows.parse().ok());
    [1000, 100_000, 1_000_000].into_iter().chain(more)
}

type Open = fn(&Router, u32);
type Frames = fn(Vec<u32>) -> Vec<Frame>;

fn established(c: &mut Criterion) {
    let mut group = c.benchmark_group("established");
    let kinds: [(&str, Open, Frames); 2] =
        [("udp", open_udp, |flows| answered_udp(flows)), ("tcp", open_tcp, |flows| answered_tcp(flows))];
    for (name, open, frames) in kinds {
        for flows in sizes() {
            let router = router(0);
            open(&router, flows);
            let mut frames = frames(scattered(flows).collect());
            let (mut worker, mut next) = (router.worker(), 0);
            group.bench_with_input(BenchmarkId::new(name, flows), &flows, |b, _| {
                #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
                b.iter_custom(|count| {
                    let (mut left, start) = (count as usize, Instant::now());
                    while left > 0 {
                        // One after the other, as a port hands them over: what is far apart is the connections.
                        let burst = BURST.min(left).min(frames.len() - next);
                        carry(&router, &mut worker, &mut frames[next..next + burst]);
                        left -= burst;
                        next = (next + burst) % frames.len();
                    }
                    start.elapsed()
                });
            });
        }
    }
    group.finish();
}

/// What a connection takes in memory, with everything around it, as the kernel counts this program's pages.
#[expect(clippy::print_stdout, reason = "criterion measures times alone")]
fn memory(_: &mut Criterion) {
    const FLOWS: u32 = 1_000_000;
    let before = resident();
    let router = router(0);
    open_udp(&router, FLOWS);
    let each = resident().saturating_sub(before) / u64::from(FLOWS);
    println!("memory/{FLOWS}: {each} bytes a connection");
}

/// Connections that are opened before the next router begins with an empty table.
const FILLED: u32 = 1_000_000;

/// First packets of flows that nobody has seen, in bursts as under load: the time for so many of them.
struct Openings {
    before: usize,
    router: Router,
    worker: Worker,
    next: u32,
}

impl Openings {
    /// With so many rules in front.
    fn new(before: usize) -> Self {
        let router = router(before);
        Self { before, worker: router.worker(), router, next: 0 }
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn time(&mut self, count: u64) -> Duration {
        let (mut left, mut elapsed) = (count as usize, Duration::ZERO);
        while left > 0 {
            if self.next + BURST as u32 > FILLED {
                *self = Self::new(self.before);
            }
            // Made right before, so that they are where a port has just put them: in the cache.
            let burst = BURST.min(left) as u32;
            let mut frames: Vec<Frame> =
                (self.next..self.next + burst).map(|flow| (LEFT, udp(flow, false))).collect();
            self.next += burst;
            left -= burst as usize;
            let start = Instant::now();
            carry(&self.router, &mut self.worker, &mut frames);
            elapsed += start.elapsed();
        }
        elapsed
    }
}

fn new_connection(c: &mut Criterion) {
    let mut group = c.benchmark_group("new");
    let mut openings = Openings::new(0);
    group.bench_function("udp", |b| b.iter_custom(|count| openings.time(count)));
    group.finish();
}

fn rules(c: &mut Criterion) {
    let mut group = c.benchmark_group("rules");
    for count in [0, 10, 100, 1000, 10_000, 100_000] {
        let router = router(count);
        open_udp(&router, 1);
        let (mut known, mut worker) = (udp(0, false), router.worker());
        group.bench_with_input(BenchmarkId::new("established", count), &count, |b, _| {
            b.iter(|| black_box(send(&router, &mut worker, LEFT, &mut known)));
        });
        let mut openings = Openings::new(count);
        group.bench_with_input(BenchmarkId::new("new", count), &count, |b, _| {
            b.iter_custom(|n| openings.time(n));
        });
    }
    group.finish();
}

// Memory first, while the allocator has nothing to use again.
criterion_group!(benches, memory, established, new_connection, rules);
criterion_main!(benches);

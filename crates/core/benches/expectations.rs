//! What a client that announces without end costs everybody else: `cargo bench --bench expectations`.
//!
//! Between bursts of others the client announces. Only the others are timed, and the memory is printed.

#![allow(unreachable_pub, missing_docs, reason = "nothing in a program is reached from outside")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use stateway_core::router::{Router, Worker};
use std::time::{Duration, Instant};

#[path = "../examples/packets/traffic.rs"]
#[expect(dead_code, reason = "other programs use more of it")]
mod traffic;

use traffic::{
    ACK, CLIENT, CLIENT_PORTS, Frame, LEFT, RIGHT, SYN, answered_udp, carry, open_udp, resident,
    router_with_helpers, segment, send, tftp_request, udp,
};

/// Others' frames between two rounds of announcements.
const BURST: u32 = 64;
/// Connections of others that are known.
const OTHERS: u32 = 1000;
/// Where flows begin that nobody has seen.
const FRESH: u32 = 100 * 60_000;

/// A client that announces connections, each another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announcer {
    /// It keeps still: what the others cost by themselves.
    Nobody,
    /// It sends as many packets that announce nothing.
    Talker,
    /// One FTP connection, a `PORT` command with each segment: each replaces the one before.
    OneConnection,
    /// A TFTP request from each of its ports, again and again: until as many wait as may.
    EachPort,
}

struct World {
    router: Router,
    worker: Worker,
    announcer: Announcer,
    made: u32,
    seq: u32,
}

impl World {
    fn new(announcer: Announcer) -> Self {
        let router = router_with_helpers();
        let mut worker = router.worker();
        open_udp(&router, OTHERS);
        let handshake = [(LEFT, SYN, [100, 0]), (RIGHT, SYN | ACK, [500, 101]), (LEFT, ACK, [101, 501])];
        for (iface, flags, numbers) in handshake {
            let mut frame = segment(CLIENT, iface == RIGHT, flags, numbers, &[]);
            assert!(send(&router, &mut worker, iface, &mut frame).out.is_some());
        }
        Self { router, worker, announcer, made: 0, seq: 101 }
    }

    fn announce(&mut self, count: u32) {
        for _ in 0..count {
            match self.announcer {
                Announcer::Nobody => continue,
                Announcer::Talker => self.say("NOOP\r\n"),
                Announcer::OneConnection => {
                    let port = 1024 + self.made % CLIENT_PORTS;
                    self.say(&format!("PORT 198,19,0,60,{},{}\r\n", port >> 8, port & 255));
                }
                Announcer::EachPort => {
                    send(&self.router, &mut self.worker, LEFT, &mut tftp_request(self.made));
                }
            }
            self.made += 1;
        }
    }

    /// A line of the control connection, and its acknowledgment.
    fn say(&mut self, line: &str) {
        let mut frame = segment(CLIENT, false, ACK, [self.seq, 501], line.as_bytes());
        assert!(send(&self.router, &mut self.worker, LEFT, &mut frame).out.is_some());
        self.seq = self.seq.wrapping_add(line.len() as u32);
        let mut frame = segment(CLIENT, true, ACK, [501, self.seq], &[]);
        assert!(send(&self.router, &mut self.worker, RIGHT, &mut frame).out.is_some());
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn time(&mut self, frames: &mut [Frame]) -> Duration {
        let start = Instant::now();
        carry(&self.router, &mut self.worker, frames);
        start.elapsed()
    }
}

const ANNOUNCERS: [(&str, Announcer); 4] = [
    ("nobody", Announcer::Nobody),
    ("talker", Announcer::Talker),
    ("one connection", Announcer::OneConnection),
    ("each port", Announcer::EachPort),
];

/// So many announcements come before anything is timed, and one more with every 4 frames of the others.
const BEFORE: u32 = 100_000;

fn established(c: &mut Criterion) {
    let mut group = c.benchmark_group("others/established");
    for (name, announcer) in ANNOUNCERS {
        let mut world = World::new(announcer);
        world.announce(BEFORE);
        let mut frames = answered_udp(0..OTHERS);
        frames.truncate(BURST as usize);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_custom(|count| {
                let bursts = (0..count.div_ceil(BURST.into())).map(|_| {
                    world.announce(BURST / 4);
                    world.time(&mut frames)
                });
                // As many as were asked for were not sent: whole bursts were.
                let (elapsed, sent) =
                    bursts.fold((Duration::ZERO, 0), |(all, n), one| (all + one, n + BURST));
                elapsed.mul_f64(count as f64 / f64::from(sent))
            });
        });
    }
    group.finish();
}

fn new_connection(c: &mut Criterion) {
    let mut group = c.benchmark_group("others/new");
    for (name, announcer) in ANNOUNCERS {
        let (mut world, mut fresh) = (World::new(announcer), FRESH);
        world.announce(BEFORE);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_custom(|count| {
                let (mut elapsed, mut sent) = (Duration::ZERO, 0);
                while sent < count {
                    if fresh > FRESH + 1_000_000 {
                        (world, fresh) = (World::new(announcer), FRESH);
                        world.announce(BEFORE);
                    }
                    world.announce(BURST / 4);
                    let mut frames: Vec<Frame> =
                        (fresh..fresh + BURST).map(|flow| (LEFT, udp(flow, false))).collect();
                    fresh += BURST;
                    sent += u64::from(BURST);
                    elapsed += world.time(&mut frames);
                }
                elapsed.mul_f64(count as f64 / sent as f64)
            });
        });
    }
    group.finish();
}

/// How many expectations wait and what memory the program takes, as the kernel counts its pages.
#[expect(clippy::print_stdout, reason = "criterion measures times alone")]
fn memory(_: &mut Criterion) {
    for (name, announcer) in &ANNOUNCERS[2..] {
        let mut world = World::new(*announcer);
        for total in [10_000, 100_000, 1_000_000, 4_000_000] {
            world.announce(total - world.made);
            let waiting =
                world.router.conntrack().expectations(stateway_core::time::Instant::from_secs(1)).len();
            println!("memory/{name}: {total} announced, {waiting} wait, {} KiB resident", resident() / 1024);
        }
    }
}

criterion_group!(benches, memory, established, new_connection);
criterion_main!(benches);

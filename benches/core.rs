//! The core alone, on one thread: `cargo bench`. What a packet of a known connection costs among few and many, what a
//! new connection costs, and what rules in front cost both.

#![allow(unreachable_pub, missing_docs, reason = "nothing in a program is reached from outside")]

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use stateway::router::Worker;
use std::hint::black_box;

#[path = "../examples/packets/traffic.rs"]
mod traffic;

use traffic::{LEFT, RIGHT, open_tcp, open_udp, router, send, tcp, udp};

/// A stride that visits every flow, far from the one before.
const STRIDE: usize = 7919;
/// Frames that are kept ready: beyond this many, the frames themselves would fall out of the caches.
const FRAMES: u32 = 1000;

fn established(c: &mut Criterion) {
    let mut group = c.benchmark_group("established");
    for flows in [1000, 100_000, 1_000_000] {
        let router = router(0);
        open_udp(&router, flows);
        // Every so-manieth flow, so that the whole table is in use.
        let step = flows / FRAMES;
        let mut frames: Vec<_> =
            (0..FRAMES).flat_map(|n| [(LEFT, udp(n * step, false)), (RIGHT, udp(n * step, true))]).collect();
        let (mut worker, mut at) = (Worker::new(0), 0);
        group.bench_with_input(BenchmarkId::new("udp", flows), &flows, |b, _| {
            b.iter(|| {
                at = (at + STRIDE) % frames.len();
                let (iface, frame) = &mut frames[at];
                black_box(send(&router, &mut worker, *iface, frame))
            });
        });
    }
    let router = router(0);
    open_tcp(&router, 0);
    let mut data = tcp(0, false, 16, 101, 501);
    let mut worker = Worker::new(0);
    group.bench_function("tcp", |b| b.iter(|| black_box(send(&router, &mut worker, LEFT, &mut data))));
    group.finish();
}

fn new_connection(c: &mut Criterion) {
    let mut group = c.benchmark_group("new");
    let mut worker = Worker::new(0);
    let many = router(0);
    let mut next = 0;
    group.bench_function("udp", |b| {
        b.iter_batched_ref(
            || {
                next += 1;
                udp(next % 4_000_000, false)
            },
            |frame| black_box(send(&many, &mut worker, LEFT, frame)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn rules(c: &mut Criterion) {
    let mut group = c.benchmark_group("rules");
    for count in [0, 10, 100, 1000, 10_000, 100_000] {
        let router = router(count);
        open_udp(&router, 1);
        let (mut known, mut worker) = (udp(0, false), Worker::new(0));
        group.bench_with_input(BenchmarkId::new("established", count), &count, |b, _| {
            b.iter(|| black_box(send(&router, &mut worker, LEFT, &mut known)));
        });
        let mut next = 0;
        group.bench_with_input(BenchmarkId::new("new", count), &count, |b, _| {
            b.iter_batched_ref(
                || {
                    next += 1;
                    udp(next % 4_000_000, false)
                },
                |frame| black_box(send(&router, &mut worker, LEFT, frame)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, established, new_connection, rules);
criterion_main!(benches);

//! What a verdict costs, by the number of rules in front of the one that decides; the linear walk stands beside it.

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use stateway_core::config::RouterConfig;
use stateway_core::filter::Ruleset;
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::{Family, Frame};
use stateway_core::record::{NoRecord, Note, Recorder};
use stateway_core::router::{Router, Worker};
use stateway_core::time::Instant;
use std::fmt::Write as _;
use std::hint::black_box;

#[path = "../examples/packets/services.rs"]
#[expect(unreachable_pub, reason = "nothing in a program is reached from outside")]
mod services;

/// Listens without hearing: the walk is linear, and nothing else is measured.
struct Linear;

impl Recorder for Linear {
    #[inline(always)]
    fn note(&mut self, _: impl FnOnce() -> Note) {}
}

/// `before` rules for hosts that send nothing here, then what a stateful filter says.
fn rules(before: usize) -> String {
    let mut text = "*filter\n:FORWARD DROP [0:0]\n".to_owned();
    for n in 0..before {
        let (high, third, last, port) = (18 + n / 64_000, n / 250 % 256, n % 250 + 1, 1 + n % 60_000);
        let _ =
            writeln!(text, "-A FORWARD -s 198.{high}.{third}.{last}/32 -p tcp -m tcp --dport {port} -j DROP");
    }
    text.push_str("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n");
    text.push_str("-A FORWARD -i left -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n");
    text
}

fn router(before: usize) -> Router {
    let mut config = RouterConfig::new(vec![Iface::new("left", IfaceId(0)), Iface::new("right", IfaceId(1))]);
    config.rules = Some(rules(before));
    config.sysctl = vec![("nf_conntrack_max".into(), "4000000".into())];
    match Router::new(config) {
        Ok(router) => router,
        Err(errors) => panic!("{errors:?}"),
    }
}

/// A UDP datagram without checksum from 192.0.2.x to 203.0.113.9, or back.
fn udp(flow: u32, back: bool) -> Vec<u8> {
    let near = [192, 0, 2, (flow >> 16) as u8 | 1];
    let far = [203, 0, 113, 9];
    let (src, dst) = if back { (far, near) } else { (near, far) };
    let (near_port, far_port) = ((flow as u16).max(1).to_be_bytes(), 53_u16.to_be_bytes());
    let (sport, dport) = if back { (far_port, near_port) } else { (near_port, far_port) };
    let (to, from) = if back { (1, 2) } else { (2, 1) };
    let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0];
    let mut header = vec![0x45, 0, 0, 36, 0, 0, 0x40, 0, 64, 17, 0, 0];
    header.extend(src);
    header.extend(dst);
    let sum: u32 = header.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend(sport);
    frame.extend(dport);
    frame.extend([0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame
}

fn send(router: &Router, worker: &mut Worker, at: u64, port: u16, frame: &mut [u8], rec: &mut impl Recorder) {
    let outcome = router.process(worker, Instant::from_nanos(at), IfaceId(port), Frame::new(frame), rec);
    black_box(outcome);
    if worker.has_emissions() {
        worker.take_emissions();
    }
}

/// Both stations are known to the bridge and flow 7 has been answered.
fn warm(router: &Router, worker: &mut Worker) {
    for at in 1..4 {
        send(router, worker, at * 1_000_000_000, 0, &mut udp(7, false), &mut NoRecord);
        send(router, worker, at * 1_000_000_000 + 1, 1, &mut udp(7, true), &mut NoRecord);
    }
}

fn established(c: &mut Criterion) {
    let mut group = c.benchmark_group("established");
    for before in [0, 10, 1_000, 10_000, 100_000] {
        let router = router(before);
        let mut worker = router.worker();
        warm(&router, &mut worker);
        let mut frame = udp(7, false);
        group.bench_function(BenchmarkId::new("router", before), |b| {
            b.iter(|| send(&router, &mut worker, 5_000_000_000, 0, &mut frame, &mut NoRecord));
        });
        if before <= 10_000 {
            group.bench_function(BenchmarkId::new("linear", before), |b| {
                b.iter(|| send(&router, &mut worker, 5_000_000_000, 0, &mut frame, &mut Linear));
            });
        }
    }
    group.finish();
}

fn new_connection(c: &mut Criterion) {
    let mut group = c.benchmark_group("new");
    group.sample_size(20);
    for (before, linear) in [(10, false), (10_000, false), (100_000, false), (10, true), (10_000, true)] {
        let router = router(before);
        let mut worker = router.worker();
        warm(&router, &mut worker);
        let mut flow = 100;
        let name = BenchmarkId::new(if linear { "linear" } else { "router" }, before);
        group.bench_function(name, |b| {
            let next = || {
                flow += 1;
                udp(flow, false)
            };
            let open = |frame: &mut Vec<u8>| {
                if linear {
                    send(&router, &mut worker, 5_000_000_000, 0, frame, &mut Linear);
                } else {
                    send(&router, &mut worker, 5_000_000_000, 0, frame, &mut NoRecord);
                }
            };
            b.iter_batched_ref(next, open, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn loading(c: &mut Criterion) {
    let mut group = c.benchmark_group("load");
    group.sample_size(10);
    for before in [10_000, 100_000] {
        let text = rules(before);
        let ifaces = ["left".to_owned(), "right".to_owned()];
        group.bench_function(BenchmarkId::from_parameter(before), |b| {
            b.iter(|| black_box(Ruleset::load(&text, Family::Ipv4, &ifaces)));
        });
    }
    for count in [5, 5_000] {
        let text = services::rules(count);
        group.bench_function(BenchmarkId::new("services", count), |b| {
            b.iter(|| black_box(Ruleset::load(&text, Family::Ipv4, &[])));
        });
    }
    group.finish();
}

criterion_group!(benches, established, new_connection, loading);
criterion_main!(benches);

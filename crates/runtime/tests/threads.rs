//! Workers on threads of their own around one router: nothing is lost, counted twice, or judged by half a ruleset.
//!
//! A program without the usual harness, so that `scripts/sanitize` can run it under `ThreadSanitizer`, which knows the
//! standard library only by what it calls: the harness's own threads would be reported.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that cannot go on fails; traffic.rs is shared"
)]

#[path = "../../core/examples/packets/traffic.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod traffic;

use stateway_core::config::{BusyPoll, RouterConfig};
use stateway_core::conntrack::Filter;
use stateway_core::fate::Fate;
use stateway_core::iface::Iface;
use stateway_core::packet::Family;
use stateway_core::router::{Outcome, Router, Worker};
use stateway_core::time::Instant;
use stateway_runtime::device::Port;
use stateway_runtime::device::memory::{self, FarEnd};
use stateway_runtime::runtime::{Options, Runtime};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use traffic::{LEFT, RIGHT, router, udp};

const WORKERS: u32 = 4;
const ROUNDS: u32 = 40;
/// Nothing takes so long but a frame that was lost, not even where all threads wait for a sanitizer that reads symbols.
const PATIENCE: Duration = Duration::from_secs(300);
/// Flows that every worker has packets of, and those of each alone.
const FLOWS: u32 = 64;

fn send(router: &Router, worker: &mut Worker, flow: u32, is_answer: bool) -> Fate {
    let iface = if is_answer { RIGHT } else { LEFT };
    let Outcome { fate, .. } = traffic::send(router, worker, iface, &mut udp(flow, is_answer));
    fate
}

/// Runs threads, and something else beside them for as long as they are at it, at least once.
fn beside(workers: u32, work: impl Fn(u32) + Sync, other: impl Fn() + Send) {
    let (start, is_over) = (Barrier::new(workers as usize + 1), AtomicBool::new(false));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|n| {
                let (work, start) = (&work, &start);
                scope.spawn(move || {
                    start.wait();
                    work(n);
                })
            })
            .collect();
        let (start, is_over) = (&start, &is_over);
        let beside = scope.spawn(move || {
            start.wait();
            loop {
                other();
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let ends: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(beside.join().is_ok(), "what goes on beside the workers failed");
        assert!(ends.iter().all(Result::is_ok), "a worker failed");
    });
}

/// Packets that the rules and policies of FORWARD have counted.
fn counted(router: &Router) -> u64 {
    let text = router.rules().for_family(Family::Ipv4).unwrap().render(true);
    let filter = text.split("*filter").nth(1).unwrap();
    let counts = filter.lines().filter(|line| line.contains("FORWARD")).map(|line| {
        let (_, counts) = line.split_once('[').unwrap();
        counts.split(':').next().unwrap().parse::<u64>().unwrap()
    });
    counts.sum()
}

fn every_packet_is_forwarded_and_counted_once() {
    let router = router(10);
    let before = counted(&router);
    beside(
        WORKERS,
        |n| {
            let worker = &mut router.worker();
            for round in 0..ROUNDS {
                for flow in 0..FLOWS {
                    // Whoever comes first opens a flow of all; the others find it, or meet it on the way.
                    assert_eq!(send(&router, worker, flow, false), Fate::Forwarded, "{round}");
                    assert_eq!(send(&router, worker, flow, true), Fate::Forwarded, "{round}");
                    assert_eq!(send(&router, worker, (n + 1) * 1000 + flow, false), Fate::Forwarded);
                }
            }
        },
        || {
            let now = Instant::from_secs(1);
            let listed = router.conntrack().list(&Filter::default(), now).len();
            assert!(listed <= (FLOWS * (WORKERS + 1)) as usize + 1, "{listed}");
            assert!(counted(&router) <= before + u64::from(WORKERS * ROUNDS * FLOWS * 3));
        },
    );
    assert_eq!(counted(&router) - before, u64::from(WORKERS * ROUNDS * FLOWS * 3));
    // One more was opened before the test.
    assert_eq!(router.conntrack().count(), (FLOWS * (WORKERS + 1)) as usize + 1);
    assert!(router.drop_counters().all(|(_, n)| n == 0));
}

/// Each table of a ruleset lets pass only what the other one of the same ruleset has marked.
fn marking(mark: u32) -> String {
    let mut text = String::from("*mangle\n");
    let _ = writeln!(text, "-A FORWARD -j MARK --set-mark {mark}\nCOMMIT\n*filter\n:FORWARD DROP [0:0]");
    for n in 0..20 {
        let _ = writeln!(text, "-A FORWARD -s 203.0.113.{n} -j DROP");
    }
    let _ = writeln!(text, "-A FORWARD -m mark --mark {mark} -j ACCEPT\nCOMMIT");
    text
}

fn while_rules_are_replaced_no_packet_is_judged_by_half_of_them() {
    let router = router(0);
    let rulesets = [marking(1), marking(2)];
    router.replace_rules(Some(&rulesets[0]), None).unwrap();
    beside(
        WORKERS,
        |n| {
            let worker = &mut router.worker();
            for _ in 0..ROUNDS {
                for flow in 0..FLOWS {
                    assert_eq!(send(&router, worker, n % 2 * 1000 + flow, false), Fate::Forwarded);
                }
            }
        },
        || {
            for rules in rulesets.iter().rev() {
                router.replace_rules(Some(rules), None).unwrap();
            }
        },
    );
}

fn while_the_table_is_emptied_every_packet_has_one_fate() {
    let router = router(0);
    let before = counted(&router);
    let logs = router.logs().listen();
    let events = router.conntrack().listen();
    beside(
        WORKERS,
        |_| {
            let worker = &mut router.worker();
            for _ in 0..ROUNDS {
                for flow in 0..FLOWS {
                    assert_eq!(send(&router, worker, flow, false), Fate::Forwarded);
                    // An answer to a connection that is gone opens none.
                    let fate = send(&router, worker, flow, true);
                    assert!(matches!(fate, Fate::Forwarded | Fate::Dropped(_)), "{fate:?}");
                }
            }
        },
        || {
            router.conntrack().flush(Instant::from_secs(1));
            router.handle_timeout(&mut router.worker(), Instant::from_secs(1));
            router.conntrack().set_sysctl("nf_conntrack_udp_timeout", "31").unwrap();
            let _ = (logs.try_iter().count(), events.try_iter().count());
        },
    );
    assert_eq!(counted(&router) - before, u64::from(WORKERS * ROUNDS * FLOWS * 2));
    router.conntrack().flush(Instant::from_secs(1));
    assert_eq!(router.conntrack().count(), 0);
}

/// The datagrams of one side come out at the other, each and in order.
fn cross(from: &FarEnd, to: &FarEnd, flow: u32, is_answer: bool) {
    for round in 0..ROUNDS {
        let frame = udp(flow + round % 8, is_answer);
        from.send(&frame).unwrap();
        assert_eq!(to.recv(PATIENCE).unwrap(), Some(frame), "round {round}");
    }
}

fn workers_of_a_runtime_lose_nothing_while_rules_change() {
    for io_uring in [false, true] {
        let names = ["left", "right"];
        let ifaces = names.iter().zip([LEFT, RIGHT]).map(|(name, id)| Iface::new(*name, id)).collect();
        let rulesets = [marking(1), marking(2)];
        let rules = Some(rulesets[0].clone());
        let mut config = RouterConfig::new(ifaces);
        config.rules = rules;
        let router = Arc::new(Router::new(config).unwrap());
        let (near, far): (Vec<_>, Vec<_>) = names.iter().map(|name| memory::port(name).unwrap()).unzip();
        let near = near.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
        let options = Options { busy_poll: BusyPoll::Never, io_uring, workers: 2 };
        let runtime = Runtime::start(Arc::clone(&router), near, options).unwrap();
        beside(
            2,
            |n| match n {
                0 => cross(&far[0], &far[1], 0, false),
                // Other flows: two packets that open one from both ends at once are one too many, for the kernel too.
                _ => cross(&far[1], &far[0], 1000, true),
            },
            || {
                for rules in rulesets.iter().rev() {
                    router.replace_rules(Some(rules), None).unwrap();
                }
            },
        );
        runtime.stop();
    }
}

fn main() {
    workers_of_a_runtime_lose_nothing_while_rules_change();
    every_packet_is_forwarded_and_counted_once();
    while_rules_are_replaced_no_packet_is_judged_by_half_of_them();
    while_the_table_is_emptied_every_packet_has_one_fate();
}

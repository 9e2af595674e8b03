//! The loop on ports in memory: bridge mode between two hosts.

use super::*;
use crate::device::faulty::{Fault, FaultyPort};
use crate::device::memory::{self, FarEnd};
use stateway_core::config::RouterConfig;
use stateway_core::iface::Iface;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A runtime with so many ports in memory, and their far ends.
fn start(ports: usize, io_uring: bool) -> (Runtime, Vec<FarEnd>) {
    start_with(ports, io_uring, |_, port| Box::new(port))
}

/// As [`start`], with what is made of each port.
fn start_with(
    ports: usize,
    io_uring: bool,
    mut make: impl FnMut(usize, memory::MemoryPort) -> Box<dyn Port>,
) -> (Runtime, Vec<FarEnd>) {
    let names: Vec<String> = (0..ports).map(|n| format!("port{n}")).collect();
    let ifaces = names.iter().enumerate().map(|(n, name)| Iface::new(name, IfaceId(n as u16))).collect();
    let router = Router::new(RouterConfig::new(ifaces)).unwrap();
    let (near, far): (Vec<_>, Vec<_>) = names.iter().map(|name| memory::port(name).unwrap()).unzip();
    let near = near.into_iter().enumerate().map(|(n, port)| make(n, port)).collect();
    let options = Options { busy_poll: BusyPoll::Never, io_uring, workers: ports / 2 };
    (Runtime::start(Arc::new(router), near, options).unwrap(), far)
}

/// An ARP frame that carries `n`: the router forwards it whatever the rules.
fn arp(src: [u8; 6], dst: [u8; 6], n: u32) -> Vec<u8> {
    let mut frame = [dst.as_slice(), &src, &[0x08, 0x06]].concat();
    frame.extend(n.to_be_bytes());
    frame.resize(60, 0);
    frame
}

#[test]
fn frames_cross_in_order_and_are_counted() {
    for io_uring in [false, true] {
        let (runtime, hosts) = start(2, io_uring);
        for n in 0..200 {
            hosts[0].send(&arp(A, B, n)).unwrap();
            if n % 8 == 7 {
                for m in n - 7..=n {
                    assert_eq!(hosts[1].recv(SOON).unwrap(), Some(arp(A, B, m)));
                }
            }
        }
        let shared = Arc::clone(runtime.shared());
        runtime.stop();
        let (left, right) = (shared.counters[0].read(), shared.counters[1].read());
        assert_eq!((left.rx_frames, left.rx_bytes, left.tx_frames), (200, 12_000, 0));
        assert_eq!((right.tx_frames, right.tx_bytes, right.tx_lost), (200, 12_000, 0));
    }
}

#[test]
fn a_broadcast_reaches_every_other_port() {
    for io_uring in [false, true] {
        let (runtime, hosts) = start(4, io_uring);
        hosts[2].send(&arp(A, [0xff; 6], 7)).unwrap();
        for n in [0, 1, 3] {
            assert_eq!(hosts[n].recv(SOON).unwrap(), Some(arp(A, [0xff; 6], 7)), "port{n}");
        }
        runtime.stop();
        assert_eq!(
            hosts[2].recv(Duration::from_millis(1)).ok().flatten(),
            None,
            "not back to where it came from"
        );
    }
}

#[test]
fn a_port_that_vanishes_leaves_the_others_at_work() {
    for io_uring in [false, true] {
        let (runtime, mut hosts) = start(3, io_uring);
        drop(hosts.remove(1));
        for n in 0..50 {
            hosts[0].send(&arp(A, [0xff; 6], n)).unwrap();
            assert_eq!(hosts[1].recv(SOON).unwrap(), Some(arp(A, [0xff; 6], n)));
        }
        let shared = Arc::clone(runtime.shared());
        runtime.stop();
        assert_eq!(shared.counters[1].read().tx_lost, 50);
    }
}

#[test]
fn a_runtime_ends_while_nothing_happens() {
    for io_uring in [false, true] {
        let (runtime, _hosts) = start(2, io_uring);
        runtime.stop();
    }
}

#[test]
fn several_workers_keep_the_order_of_every_flow() {
    for io_uring in [false, true] {
        let (runtime, hosts) = start(4, io_uring);
        // Each station is known, so that frames between two ports stay there.
        let station = |n: usize| [2, 0, 0, 0, 0, n as u8];
        for (n, host) in hosts.iter().enumerate() {
            host.send(&arp(station(n), [0xff; 6], 0)).unwrap();
            for other in hosts.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, other)| other) {
                assert!(other.recv(SOON).unwrap().is_some());
            }
        }
        std::thread::scope(|scope| {
            for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
                let (sender, receiver) = (&hosts[from], &hosts[to]);
                scope.spawn(move || {
                    for n in 0..500 {
                        sender.send(&arp(station(from), station(to), n)).unwrap();
                        assert_eq!(receiver.recv(SOON).unwrap(), Some(arp(station(from), station(to), n)));
                    }
                });
            }
        });
        runtime.stop();
    }
}

/// Names the test that is to play the router, in a process of its own.
const ROUTER: &str = "STATEWAY_TEST_ROUTER";

/// Forwards between so many ports, the last of which panics when a frame comes in.
fn a_router_that_panics(ports: usize) {
    crate::stderr::detach().unwrap();
    ending::at_any_panic();
    let make = |n, port| -> Box<dyn Port> {
        if n + 1 == ports { Box::new(FaultyPort { port, fault: Fault::Panics }) } else { Box::new(port) }
    };
    let (runtime, hosts) = start_with(ports, false, make);
    hosts[ports - 1].send(&arp(A, B, 0)).unwrap();
    let _ = runtime.failures().recv_timeout(SOON);
    // Still here: not the code of a panic, which is the test program's own as well.
    signal_hook::low_level::exit(0);
}

/// The command that plays the test of this name in a process of its own.
fn router(test: &str, ports: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("runtime::tests::{test}"), "--nocapture"])
        .env(ROUTER, ports.to_string());
    command
}

#[test]
fn a_panic_in_a_worker_ends_the_process_and_says_where() {
    if let Ok(ports) = std::env::var(ROUTER) {
        return a_router_that_panics(ports.parse().unwrap());
    }
    for (ports, thread) in [(2, "worker-0"), (4, "worker-1")] {
        let output = router("a_panic_in_a_worker_ends_the_process_and_says_where", ports).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(ending::FAILED), "{said}");
        let words = format!("the thread `{thread}` panicked at crates/runtime/src/device/faulty.rs:");
        assert!(said.contains(&words) && said.contains("a fault that was injected"), "{said}");
    }
}

#[test]
fn a_panic_ends_the_process_although_nobody_reads_what_it_says() {
    if let Ok(ports) = std::env::var(ROUTER) {
        return a_router_that_panics(ports.parse().unwrap());
    }
    let (reader, writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while (&writer).write(&[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut router = router("a_panic_ends_the_process_although_nobody_reads_what_it_says", 2);
    let status = router.stdout(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(ending::FAILED));
    drop(reader);
}

#[test]
fn a_worker_that_hangs_is_noticed_and_one_that_sleeps_is_not() {
    let (hangs, is_hanging) = crossbeam_channel::unbounded();
    let (word, gets_word) = crossbeam_channel::unbounded();
    let mut fault = Some(Fault::Hangs(hangs, gets_word));
    let make = |n, port| -> Box<dyn Port> {
        match (n, &mut fault) {
            (1, fault) => Box::new(FaultyPort { port, fault: fault.take().unwrap() }),
            _ => Box::new(port),
        }
    };
    let (runtime, hosts) = start_with(4, false, make);
    let stands = || {
        runtime.standing_still();
        loop {
            // Whoever can answer does so between two calls, sooner or later.
            std::thread::yield_now();
            match runtime.standing_still().as_slice() {
                [_, _] => {}
                still => return still.to_vec(),
            }
        }
    };
    hosts[1].send(&arp(A, B, 0)).unwrap();
    is_hanging.recv_timeout(SOON).unwrap();
    while stands() != [1] {}
    word.send(()).unwrap();
    while !stands().is_empty() {}
    runtime.stop();
}

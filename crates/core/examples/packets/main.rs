//! `packets KIND COUNT`: so many packets of a kind through the core and nothing else, for `perf` and callgrind.
//! `scripts/instructions` counts with it what one packet costs.

#![allow(unreachable_pub, reason = "nothing in a program is reached from outside")]

use stateway_core::router::Router;
use std::hint::black_box;

mod services;
#[expect(dead_code, reason = "other programs use more of it")]
mod traffic;

use traffic::{
    Frame, LEFT, PUBLIC, answered_tcp, answered_udp, open_tcp, open_udp, readdressed, resident, router,
    router_with_helpers, routing, send, tftp_request, to_many, translating, translating_by,
    translating_to_many, udp,
};

/// More than `nf_conntrack_expect_max` lets wait.
const ANNOUNCED: u32 = 10_000;
/// Connections that are open while packets of known ones are counted.
const FLOWS: u32 = 1000;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, count] = &args[..] else { anyhow::bail!("usage: packets KIND COUNT") };
    let count: u32 = count.parse()?;
    match kind.as_str() {
        "established-udp" => established(&udp_flows(0), count),
        "established-udp-10k-rules" => established(&udp_flows(10_000), count),
        "established-tcp" => {
            let router = router(0);
            open_tcp(&router, FLOWS);
            established(&(router, answered_tcp(0..FLOWS)), count);
        }
        "routed-udp" => routed(&routing(), &answered_udp(0..FLOWS), count),
        "translated-udp" => {
            let mut frames = answered_udp(0..FLOWS);
            for (_, frame) in frames.iter_mut().filter(|(iface, _)| *iface != LEFT) {
                *frame = readdressed(core::mem::take(frame), PUBLIC);
            }
            routed(&translating(), &frames, count);
        }
        "translated-connections" => translated_connections(count)?,
        "new-udp" => new(&router(0), udp_flows_to_come(count)),
        "new-10-services" => new(&translating_services(5), to_services(5, count)),
        "new-10k-services" => new(&translating_services(5_000), to_services(5_000, count)),
        // The same beside a client that may announce connections, and beside one that has: as many as may wait.
        "new-udp-helpers" => new(&router_with_helpers(), udp_flows_to_come(count)),
        "new-udp-announced" => {
            let router = router_with_helpers();
            let mut worker = router.worker();
            for n in 0..ANNOUNCED {
                send(&router, &mut worker, LEFT, &mut tftp_request(n));
            }
            new(&router, udp_flows_to_come(count));
        }
        // What `new-udp` and `new-10k-services` spend on making their frames, to be taken off.
        "frames" => drop(black_box(udp_flows_to_come(count))),
        "frames-services" => drop(black_box(to_services(5_000, count))),
        other => anyhow::bail!(
            "no kind `{other}`: established-udp, established-udp-10k-rules, established-tcp, routed-udp, \
             translated-udp, translated-connections, new-udp, new-10-services, new-10k-services, \
             new-udp-helpers, new-udp-announced, frames, frames-services"
        ),
    }
    Ok(())
}

fn udp_flows(rules: usize) -> (Router, Vec<Frame>) {
    let router = router(rules);
    open_udp(&router, FLOWS);
    (router, answered_udp(0..FLOWS))
}

/// Sends the frames over and over, at least `count` of them, each time as they are: a router changes them on their way.
fn routed(router: &Router, frames: &[Frame], count: u32) {
    let (mut worker, mut carried) = (router.worker(), Vec::new());
    for _ in 0..(count as usize).div_ceil(frames.len()) {
        for (iface, frame) in frames {
            carried.clone_from(frame);
            let out = send(router, &mut worker, *iface, &mut carried).out;
            assert!(out.is_some_and(|out| out != *iface), "it goes to the other side");
        }
    }
}

/// The first frames of so many flows.
fn udp_flows_to_come(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|flow| udp(flow, false)).collect()
}

/// The same, to one service after the other. A service has two hosts: 5 services are 10 DNAT rules.
fn to_services(services: u32, count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|flow| readdressed(udp(flow, false), services::service(flow % services))).collect()
}

fn translating_services(services: u32) -> Router {
    translating_by(&services::rules(services))
}

/// Opens a flow with each frame.
fn new(router: &Router, frames: Vec<Vec<u8>>) {
    let mut worker = router.worker();
    for mut frame in frames {
        let outcome = send(router, &mut worker, LEFT, &mut frame);
        assert!(outcome.out.is_some(), "{:?}", outcome.fate);
    }
}

/// Sends the same frames over and over, at least `count` of them.
fn established((router, frames): &(Router, Vec<Frame>), count: u32) {
    let (mut worker, mut frames) = (router.worker(), frames.clone());
    for _ in 0..(count as usize).div_ceil(frames.len()) {
        for (iface, frame) in &mut frames {
            black_box(send(router, &mut worker, *iface, frame).out);
        }
    }
}

/// Opens so many connections through one address to many servers, and says what each has taken.
#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "the time that it takes is what was asked for"
)]
fn translated_connections(count: u32) -> anyhow::Result<()> {
    let router = translating_to_many();
    let mut worker = router.worker();
    let (before, began) = (resident(), std::time::Instant::now());
    for flow in 0..count {
        let outcome = send(&router, &mut worker, LEFT, &mut to_many(flow));
        anyhow::ensure!(outcome.out.is_some(), "connection {flow}: {:?}", outcome.fate);
    }
    let took = began.elapsed();
    let entries = router.conntrack().count();
    anyhow::ensure!(entries == count as usize, "{entries} connections are there");
    println!(
        "{count} connections through one address: {} bytes each, {:.1} µs each",
        (resident() - before) / u64::from(count.max(1)),
        took.as_secs_f64() * 1e6 / f64::from(count.max(1)),
    );
    for (side, how, n) in router.conntrack().translations().filter(|(.., n)| *n > 0) {
        println!("  {n} {side:?}: {}", how.words());
    }
    Ok(())
}

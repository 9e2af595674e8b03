//! `packets KIND COUNT`: so many packets of a kind through the core and nothing else, for `perf` and callgrind.
//! `scripts/instructions` counts with it what one packet costs.

#![allow(unreachable_pub, reason = "nothing in a program is reached from outside")]

use stateway::router::Worker;
use std::hint::black_box;

mod traffic;

use traffic::{LEFT, RIGHT, open_tcp, open_udp, router, send, tcp, udp};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, count] = &args[..] else { anyhow::bail!("usage: packets KIND COUNT") };
    let count: u32 = count.parse()?;
    let mut worker = Worker::new(0);
    match kind.as_str() {
        "established-udp" => established_udp(1000, 0, count, &mut worker),
        "established-udp-10k-rules" => established_udp(1000, 10_000, count, &mut worker),
        "established-tcp" => {
            let router = router(0);
            open_tcp(&router, 0);
            let data = tcp(0, false, 16, 101, 501);
            for _ in 0..count {
                black_box(send(&router, &mut worker, LEFT, &mut data.clone()));
            }
        }
        "new-udp" => {
            let router = router(0);
            let mut frames: Vec<Vec<u8>> = (0..count).map(|flow| udp(flow, false)).collect();
            for frame in &mut frames {
                black_box(send(&router, &mut worker, LEFT, frame));
            }
        }
        // What `new-udp` spends on making its frames, to be taken off.
        "frames" => drop(black_box((0..count).map(|flow| udp(flow, false)).collect::<Vec<_>>())),
        other => anyhow::bail!(
            "no kind `{other}`: established-udp, established-udp-10k-rules, established-tcp, new-udp, frames"
        ),
    }
    Ok(())
}

fn established_udp(flows: u32, rules: usize, count: u32, worker: &mut Worker) {
    let router = router(rules);
    open_udp(&router, flows);
    let mut frames: Vec<_> =
        (0..flows).flat_map(|flow| [(LEFT, udp(flow, false)), (RIGHT, udp(flow, true))]).collect();
    for n in 0..count as usize {
        let at = n % frames.len();
        let (iface, frame) = &mut frames[at];
        black_box(send(&router, worker, *iface, frame));
    }
}

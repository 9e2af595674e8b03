//! The bare copy: two TAPs, every frame that comes in on one goes out on the other, nothing is looked at.
//!
//! What a router on TAPs is measured against: `tapcopy fast|tap|busy NAME NAME`, see docs/BENCHMARKS.md. It moves frames
//! by the same means as `stateway run` does, so that the difference is what the router itself costs. `busy` is `fast`,
//! and never sleeps.

use anyhow::Context as _;
use rustix::event::{EventfdFlags, eventfd};
use stateway_core::iface::IfaceId;
use stateway_runtime::device::offload::OffloadPort;
use stateway_runtime::device::poll::PollBurst;
use stateway_runtime::device::ring::RingBurst;
use stateway_runtime::device::tap::TapPort;
use stateway_runtime::device::{Burst, Port};
use std::os::fd::AsFd as _;
use std::sync::Arc;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [device, left, right] = &args[..] else { anyhow::bail!("usage: tapcopy fast|tap|busy NAME NAME") };
    let open = |name: &str| -> anyhow::Result<Box<dyn Port>> {
        let what = || format!("cannot open the TAP `{name}`");
        match device.as_str() {
            "fast" | "busy" => Ok(Box::new(OffloadPort::open(name).with_context(what)?)),
            "tap" => Ok(Box::new(TapPort::open(name).with_context(what)?)),
            other => anyhow::bail!("`{other}` is none of `fast`, `tap` and `busy`"),
        }
    };
    let ports: Arc<[Box<dyn Port>]> = Arc::new([open(left)?, open(right)?]);
    let both = [IfaceId(0), IfaceId(1)];
    match device.as_str() {
        "tap" => copy(PollBurst::new(ports, both.to_vec()), false),
        device => copy(RingBurst::new(ports, &both)?, device == "busy"),
    }
}

fn copy(mut burst: impl Burst, never_sleeps: bool) -> anyhow::Result<()> {
    // Nobody wakes us but frames.
    let never = eventfd(0, EventfdFlags::CLOEXEC)?;
    loop {
        let frames = burst.turn()?;
        for n in 0..frames {
            let (iface, frame, offload) = burst.frame(n);
            let len = frame.len();
            burst.forward(n, IfaceId(1 - iface.0), len, offload);
        }
        if frames > 0 || burst.has_queued() {
            continue;
        }
        if never_sleeps {
            // As the router does: whoever else has something to do on this CPU goes first.
            rustix::thread::sched_yield();
        } else {
            burst.wait(never.as_fd(), None)?;
        }
    }
}

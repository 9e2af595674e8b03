//! The kernel's clock, in the ticks that its timers count.
//!
//! Connection tracking counts in ticks of the kernel's timer interrupt. The coarse clock moves with that interrupt and
//! only with it: whoever reads the same value before and after a frame knows that the kernel saw the whole frame at
//! that one tick. So the router can be given the very time that the kernel had.

#![forbid(unsafe_code)]

use rustix::time::{ClockId, clock_getres, clock_gettime};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long one tick is.
pub(super) fn tick() -> Duration {
    static TICK: OnceLock<Duration> = OnceLock::new();
    *TICK.get_or_init(|| duration(clock_getres(ClockId::MonotonicCoarse)))
}

/// Whole ticks since the first call.
pub(super) fn ticks() -> u32 {
    static ORIGIN: OnceLock<Duration> = OnceLock::new();
    let now = duration(clock_gettime(ClockId::MonotonicCoarse));
    let since = now.saturating_sub(*ORIGIN.get_or_init(|| now));
    // The clock is adjusted by nanoseconds now and then, and the ticks are not.
    ((since + tick() / 2).as_nanos() / tick().as_nanos().max(1)) as u32
}

fn duration(time: rustix::time::Timespec) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The clock of this machine, to wait by.
#[expect(clippy::disallowed_methods, reason = "the kernel lives by real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Lets real time pass.
#[expect(clippy::disallowed_methods, reason = "the kernel's two seconds of UDP have to pass")]
pub(super) fn wait(duration: Duration) {
    std::thread::sleep(duration);
}

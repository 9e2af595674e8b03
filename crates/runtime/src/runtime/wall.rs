//! The clock on the wall. The router counts from its start on a clock that nobody sets and that stands while the
//! machine sleeps, as the kernel's timers do; rules that ask for the time of day want the other one.

#![forbid(unsafe_code)]

use stateway_core::time::{Duration, Instant};

/// It is looked at this often at most, and before the first frame after a pause.
const LOOK: Duration = Duration::from_millis(1);
/// What differs by less is the time between two looks at two clocks.
const STEP: Duration = Duration::from_millis(1);

/// One worker's eye on it.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    next: Instant,
}

impl WallClock {
    /// Whether it is time to look.
    #[inline]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// When [`Instant::ZERO`] was, in nanoseconds since 1970, unless that is `known`; `unix_nanos` is `now`.
    pub(super) fn epoch(&mut self, now: Instant, unix_nanos: u64, known: u64) -> Option<u64> {
        self.next = now + LOOK;
        let epoch = unix_nanos.saturating_sub(now.as_nanos());
        (epoch.abs_diff(known) >= STEP.as_nanos() as u64).then_some(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_sleep_are_followed_and_a_little_jitter_is_not() {
        const SECOND: u64 = 1_000_000_000;
        let mut wall = WallClock::default();
        let mut known = 1000 * SECOND;
        for (monotonic_millis, unix_nanos, epoch) in [
            (0, 1000 * SECOND, None),
            (1000, 1001 * SECOND + 900_000, None),
            // Set back by an hour's half, and on by a day.
            (2000, 2 * SECOND, Some(0)),
            (3000, 90_003 * SECOND, Some(90_000 * SECOND)),
            // Asleep for ten seconds.
            (4000, 90_014 * SECOND, Some(90_010 * SECOND)),
            (5000, 90_015 * SECOND, None),
        ] {
            let now = Instant::ZERO + Duration::from_millis(monotonic_millis);
            assert!(wall.is_due(now));
            let found = wall.epoch(now, unix_nanos, known);
            assert_eq!(found, epoch, "after {monotonic_millis} ms");
            known = found.unwrap_or(known);
            assert!(!wall.is_due(now));
        }
    }
}

//! What a link does to frames: delay, loss, duplication, reordering and rate, as `tc netem` does them.

#![forbid(unsafe_code)]

use crate::model::Impairment;
use stateway_core::time::{Duration, Instant};

/// How long a frame takes where nothing is impaired.
const BASE: Duration = Duration::from_micros(20);
/// Full frames that wait for a slow link before it drops, as netem's `limit`.
const QUEUE: u32 = 1000;
const FULL_FRAME_BITS: u64 = 1514 * 8;

/// One direction of a link.
#[derive(Debug, Default)]
pub(super) struct Link {
    impairment: Impairment,
    /// Until when the frames before keep a slow link busy.
    busy_until: Instant,
}

impl Link {
    pub(super) fn impair(&mut self, impairment: Impairment) {
        *self = Self { impairment, busy_until: Instant::ZERO };
    }

    /// When a frame that is sent now arrives: never, once, or twice.
    pub(super) fn arrivals(&mut self, len: usize, now: Instant, chance: &mut fastrand::Rng) -> Vec<Instant> {
        let Impairment { delay, jitter, loss_percent, reorder_percent, duplicate_percent, rate_kbit } =
            self.impairment;
        let mut happens = |percent: f64| percent > 0.0 && chance.f64() * 100.0 < percent;
        if happens(loss_percent) {
            return Vec::new();
        }
        let copies = if happens(duplicate_percent) { 2 } else { 1 };
        // netem reorders by letting a frame pass those that are delayed.
        let overtakes = happens(reorder_percent);
        let mut all = Vec::new();
        for _ in 0..copies {
            let Some(sent) = self.transmit(len, now, rate_kbit) else { continue };
            let wait = if overtakes { Duration::ZERO } else { delay_of(delay, jitter, chance) };
            all.push(sent + BASE + wait);
        }
        all
    }

    /// When the last bit of a frame is on the wire; `None` if too many wait before it.
    fn transmit(&mut self, len: usize, now: Instant, rate_kbit: Option<u64>) -> Option<Instant> {
        let Some(rate) = rate_kbit.filter(|rate| *rate > 0) else { return Some(now) };
        let time = |bits: u64| Duration::from_nanos(bits.saturating_mul(1_000_000) / rate);
        if self.busy_until.saturating_since(now) > time(FULL_FRAME_BITS) * QUEUE {
            return None;
        }
        self.busy_until = self.busy_until.max(now) + time(len as u64 * 8);
        Some(self.busy_until)
    }
}

/// Evenly between `delay - jitter` and `delay + jitter`.
fn delay_of(delay: Duration, jitter: Duration, chance: &mut fastrand::Rng) -> Duration {
    if jitter.is_zero() {
        return delay;
    }
    let shift =
        Duration::from_nanos(chance.u64(..=jitter.as_nanos().min(u128::from(u64::MAX / 2)) as u64 * 2));
    (delay + shift).saturating_sub(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(impairment: Impairment, frames: usize) -> Vec<usize> {
        let mut link = Link::default();
        link.impair(impairment);
        let mut chance = fastrand::Rng::with_seed(7);
        let arrived = |_| link.arrivals(1000, Instant::ZERO, &mut chance).len();
        (0..frames).map(arrived).collect()
    }

    #[test]
    fn a_link_loses_doubles_and_delays_as_it_is_told() {
        let none = Impairment::default();
        assert_eq!(count(none, 3), [1, 1, 1]);
        assert_eq!(count(Impairment { loss_percent: 100.0, ..none }, 3), [0, 0, 0]);
        assert_eq!(count(Impairment { duplicate_percent: 100.0, ..none }, 2), [2, 2]);
        let lost =
            count(Impairment { loss_percent: 30.0, ..none }, 10_000).iter().filter(|n| **n == 0).count();
        assert!((2_800..3_200).contains(&lost), "{lost}");
    }

    #[test]
    fn a_slow_link_takes_its_time_and_drops_what_it_cannot_hold() {
        let mut link = Link::default();
        link.impair(Impairment {
            rate_kbit: Some(8),
            delay: Duration::from_secs(1),
            ..Impairment::default()
        });
        let mut chance = fastrand::Rng::with_seed(7);
        let mut arrive = || link.arrivals(1000, Instant::ZERO, &mut chance).first().copied();
        assert_eq!(arrive(), Some(Instant::from_secs(2) + BASE));
        assert_eq!(arrive(), Some(Instant::from_secs(3) + BASE));
        let left = (0..2000).filter(|_| arrive().is_some()).count();
        assert!(left < 2000, "its queue has an end");
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        let mut chance = fastrand::Rng::with_seed(7);
        let (delay, jitter) = (Duration::from_millis(10), Duration::from_millis(4));
        for _ in 0..1000 {
            let wait = delay_of(delay, jitter, &mut chance);
            assert!(wait + jitter >= delay && wait <= delay + jitter, "{wait:?}");
        }
    }
}

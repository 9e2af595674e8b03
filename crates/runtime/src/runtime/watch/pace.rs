//! How many packets a listener is told of in a second, so that looking on does not slow the router down.

use stateway_core::time::Instant;
use std::sync::atomic::{AtomicU64, Ordering};

/// An allowance that is new in every second of the router's clock.
#[derive(Debug)]
pub(super) struct Pace {
    most: u32,
    /// Upper half: the second. Lower half: how many packets were told in it, by all workers.
    told: AtomicU64,
}

impl Pace {
    pub(super) const fn new(most: u32) -> Self {
        Self { most, told: AtomicU64::new(0) }
    }

    /// Nothing is left of it in the second of `now`.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        let told = self.told.load(Ordering::Relaxed);
        told >> 32 == second(now) && told as u32 >= self.most
    }

    /// Takes one packet of it; `false` if nothing is left.
    pub(super) fn take(&self, now: Instant) -> bool {
        let second = second(now);
        let count = |told: u64| {
            let told = if told >> 32 == second { told } else { second << 32 };
            ((told as u32) < self.most).then_some(told + 1)
        };
        self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok()
    }
}

/// Cut to what half a word holds: 136 years.
const fn second(now: Instant) -> u64 {
    (now.as_millis() / 1000) & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_has_its_own_allowance() {
        let pace = Pace::new(2);
        let at = Instant::from_millis;
        let taken: Vec<bool> =
            [0, 10, 20, 999, 1000, 1999, 1999].into_iter().map(|ms| pace.take(at(ms))).collect();
        assert_eq!(taken, [true, true, false, false, true, true, false]);
        assert!(pace.is_spent(at(1999)) && !pace.is_spent(at(2000)));
    }
}

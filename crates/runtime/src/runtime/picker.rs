//! Where a router at work begins to look for a port: nobody can foresee it.

#![forbid(unsafe_code)]

use stateway_core::nat::{Picker, Side};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts, and shows the count under a secret of the system's: what was seen of it says nothing of what comes.
#[derive(Debug, Default)]
pub struct Unforeseen {
    secret: RandomState,
    count: AtomicU64,
}

impl Picker for Unforeseen {
    fn pick(&self, _: Side, first: u16, count: u32) -> u16 {
        let n = self.secret.hash_one(self.count.fetch_add(1, Ordering::Relaxed));
        first.wrapping_add((((n >> 32) * u64::from(count)) >> 32) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_a_range_is_drawn_and_no_other() {
        let picker = Unforeseen::default();
        let mut seen = [false; 16];
        for _ in 0..10_000 {
            seen[usize::from(picker.pick(Side::Source, 60_000, 16) - 60_000)] = true;
        }
        assert_eq!(seen, [true; 16]);
    }
}

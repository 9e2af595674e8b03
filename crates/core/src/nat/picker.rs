//! Chance, which comes from outside: where a search for a port begins.

#![forbid(unsafe_code)]

use super::Side;
use core::fmt::Debug;
use core::sync::atomic::{AtomicU64, Ordering};

/// Says where searches begin.
///
/// A router that strangers talk to has one that nobody can foresee; a run that must repeat has one with a seed; and who
/// compares two routers has the other one's choices.
pub trait Picker: Debug + Send + Sync {
    /// One of `count` ports from `first` on, for that end of a connection. Anything else is taken modulo `count`.
    fn pick(&self, side: Side, first: u16, count: u32) -> u16;
}

/// The same numbers for the same seed, for one that asks after another (Steele et al., `SplitMix`, 2014).
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Picker for Seeded {
    fn pick(&self, _: Side, first: u16, count: u32) -> u16 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let n = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        first.wrapping_add((((n >> 32) * u64::from(count)) >> 32) as u16)
    }
}

//! Sequence numbers on a circle (RFC 9293 §3.4).

#![forbid(unsafe_code)]

use core::fmt;
use core::ops::{Add, Sub};

/// A TCP sequence number. It has no order, only a direction: `a` is after `b` if the shorter way leads forward.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// Strictly after `other`.
    pub const fn is_after(self, other: Self) -> bool {
        other.is_before(self)
    }

    /// Strictly before `other`.
    pub const fn is_before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    #[must_use]
    pub const fn later_of(self, other: Self) -> Self {
        if other.is_after(self) { other } else { self }
    }

    /// How far it is from `earlier` forward to here, modulo 2³².
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    fn sub(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_follows_the_shorter_way_round() {
        assert!(Seq(1).is_after(Seq(u32::MAX)));
        assert!(Seq(u32::MAX).is_before(Seq(1)));
        assert!(!Seq(5).is_after(Seq(5)) && !Seq(5).is_before(Seq(5)));
        assert_eq!(Seq(u32::MAX).later_of(Seq(3)), Seq(3));
        assert_eq!((Seq(2) - 3).since(Seq(u32::MAX)), 0);
    }
}

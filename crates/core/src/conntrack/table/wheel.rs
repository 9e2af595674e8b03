//! The order in which connections end: a hierarchical timer wheel of whole seconds.
//!
//! A packet renews its connection's life without touching the wheel: only when a life becomes *shorter* than where
//! the wheel would look is it linked anew. A slot that comes due is looked through, and what has been renewed since
//! is linked again farther out. So a packet costs one comparison, and each connection a visit now and then.

#![forbid(unsafe_code)]

use crate::base::time::{Duration, Instant};

const LEVELS: usize = 6;
const SLOTS: usize = 64;
const BITS: u32 = SLOTS.trailing_zeros();

/// Whole seconds; 32 bits reach to the year 2106 in a capture's own time.
pub(in crate::conntrack) type Tick = u32;

/// "No slot": the end of a list.
pub(in crate::conntrack) const NONE: u32 = u32::MAX;

/// The first tick at which something that ends at `at` is over.
#[inline]
pub(in crate::conntrack) fn tick_after(at: Instant) -> Tick {
    u32::try_from(at.as_nanos() / 1_000_000_000 + 1).unwrap_or(Tick::MAX)
}

/// What ends before this is over at an earlier tick than `due`: the same as asking [`tick_after`], but no division.
#[inline]
pub(in crate::conntrack) fn begin_of(due: Tick) -> Instant {
    Instant::from_nanos(u64::from(due.saturating_sub(1)) * 1_000_000_000)
}

/// The last tick that has begun at `now`.
pub(in crate::conntrack) fn tick_at(now: Instant) -> Tick {
    u32::try_from(now.as_nanos() / 1_000_000_000).unwrap_or(Tick::MAX)
}

pub(in crate::conntrack) fn instant_of(tick: Tick) -> Instant {
    Instant::ZERO + Duration::from_secs(tick.into())
}

/// What each member keeps for the wheel.
#[derive(Clone, Copy, Debug)]
pub(in crate::conntrack) struct Link {
    prev: u32,
    next: u32,
    bucket: u16,
}

impl Link {
    pub(in crate::conntrack) const EMPTY: Self = Self { prev: NONE, next: NONE, bucket: 0 };
}

impl Default for Link {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Where the members keep their links.
pub(in crate::conntrack) trait Links {
    fn link(&mut self, member: u32) -> &mut Link;

    /// Where the wheel will look at a member. Read for every packet, so it may live apart from the link.
    fn due(&mut self, member: u32) -> &mut Tick;
}

#[derive(Debug)]
pub(in crate::conntrack) struct Wheel {
    /// Everything due at or before this tick has been handed out.
    now: Tick,
    heads: Box<[u32; LEVELS * SLOTS]>,
    /// One bit for each slot that has members.
    occupied: [u64; LEVELS],
}

impl Default for Wheel {
    fn default() -> Self {
        Self { now: 0, heads: Box::new([NONE; LEVELS * SLOTS]), occupied: [0; LEVELS] }
    }
}

impl Wheel {
    /// Bytes that a wheel keeps besides itself.
    #[cfg(test)]
    pub(in crate::conntrack) const ALLOCATED: usize = size_of::<[u32; LEVELS * SLOTS]>();

    /// Links a member that is in no list.
    pub(in crate::conntrack) fn insert(&mut self, links: &mut impl Links, member: u32, due: Tick) {
        let due = due.max(self.now.saturating_add(1));
        // The level is that of the highest digit in which `due` differs from now.
        let level = ((due ^ self.now).max(1).ilog2() / BITS) as usize;
        let slot = (due >> (level as u32 * BITS)) as usize % SLOTS;
        let bucket = level * SLOTS + slot;
        let first = core::mem::replace(&mut self.heads[bucket], member);
        self.occupied[level] |= 1 << slot;
        *links.link(member) = Link { prev: NONE, next: first, bucket: bucket as u16 };
        *links.due(member) = due;
        if first != NONE {
            links.link(first).prev = member;
        }
    }

    /// Takes a member out of its list.
    pub(in crate::conntrack) fn remove(&mut self, links: &mut impl Links, member: u32) {
        let Link { prev, next, bucket, .. } = *links.link(member);
        if next != NONE {
            links.link(next).prev = prev;
        }
        if prev != NONE {
            links.link(prev).next = next;
            return;
        }
        let bucket = usize::from(bucket);
        self.heads[bucket] = next;
        if next == NONE {
            self.occupied[bucket / SLOTS] &= !(1 << (bucket % SLOTS));
        }
    }

    /// Takes out one member that is due at `now`, or `None` once there is no such member.
    ///
    /// It may have been renewed since: then the caller inserts it again.
    pub(in crate::conntrack) fn pop(&mut self, links: &mut impl Links, now: Tick) -> Option<u32> {
        while let Some((tick, bucket)) = self.next().filter(|&(tick, _)| tick <= now) {
            self.now = tick;
            let member = self.heads[bucket];
            self.remove(links, member);
            let due = *links.due(member);
            if due <= now {
                return Some(member);
            }
            // The turn of a far slot has begun: its members are sorted into nearer ones.
            self.insert(links, member, due);
        }
        self.now = self.now.max(now);
        None
    }

    /// When a member is to be looked at next; never too late, perhaps too early.
    pub(in crate::conntrack) fn next_due(&self) -> Option<Tick> {
        self.next().map(|(tick, _)| tick)
    }

    /// The first slot that has members, and the tick at which its turn begins.
    fn next(&self) -> Option<(Tick, usize)> {
        let here = |level: usize| self.now >> (level as u32 * BITS) & (SLOTS as u32 - 1);
        // A far slot whose turn has begun, and which is not sorted to its end yet.
        for level in 1..LEVELS {
            if self.occupied[level] >> here(level) & 1 == 1 {
                return Some((self.now, level * SLOTS + here(level) as usize));
            }
        }
        // Nearer slots lie on lower levels; on each level only ahead of the present one.
        (0..LEVELS).find_map(|level| {
            let ahead = self.occupied[level] & u64::MAX << here(level);
            if ahead == 0 {
                return None;
            }
            let shift = level as u32 * BITS;
            let slot = ahead.trailing_zeros();
            let turn = u64::from(self.now) >> shift >> BITS << BITS;
            let tick = (turn + u64::from(slot)) << shift;
            Some((Tick::try_from(tick).unwrap_or(Tick::MAX), level * SLOTS + slot as usize))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Members(Vec<(Link, Tick)>);

    impl Links for Members {
        fn link(&mut self, member: u32) -> &mut Link {
            &mut self.0[member as usize].0
        }

        fn due(&mut self, member: u32) -> &mut Tick {
            &mut self.0[member as usize].1
        }
    }

    fn members(n: usize) -> (Wheel, Members) {
        (Wheel::default(), Members(vec![(Link::default(), 0); n]))
    }

    #[test]
    fn each_member_comes_up_at_its_tick_and_not_before() {
        for start in [0, 63, 64, 4095, 1_700_000_000, u32::MAX - 500_000] {
            for wait in [1, 2, 63, 64, 65, 127, 4095, 4096, 4097, 262_143, 262_144, 432_000] {
                let (mut wheel, mut links) = members(1);
                assert_eq!(wheel.pop(&mut links, start), None);
                wheel.insert(&mut links, 0, start + wait);
                assert!(wheel.next_due().unwrap() <= start + wait);
                assert_eq!(wheel.pop(&mut links, start + wait - 1), None, "{start} + {wait} - 1");
                assert_eq!(wheel.pop(&mut links, start + wait), Some(0), "{start} + {wait}");
                assert_eq!(wheel.next_due(), None);
            }
        }
    }

    #[test]
    fn the_begin_of_a_tick_is_where_the_one_before_it_ends() {
        for due in [0, 1, 2, 1_700_000_000, Tick::MAX] {
            for nanos in
                [0, 1, 999_999_999, 1_000_000_000, 1_000_000_001, 1_699_999_999_000_000_000, u64::MAX]
            {
                let end = Instant::from_nanos(nanos);
                assert_eq!(end < begin_of(due), tick_after(end) < due, "{nanos} {due}");
            }
        }
    }

    #[test]
    fn any_order_of_inserts_and_removals_agrees_with_a_plain_list() {
        // The same numbers in every run.
        let mut random = fastrand::Rng::with_seed(7);
        let mut next = move |below: u32| random.u32(..below);
        let (mut wheel, mut links) = members(200);
        let mut plain: Vec<Option<Tick>> = vec![None; 200];
        let mut now = 0;
        for _ in 0..20_000 {
            let member = next(200);
            match plain[member as usize] {
                Some(_) if next(3) == 0 => {
                    wheel.remove(&mut links, member);
                    plain[member as usize] = None;
                }
                Some(_) => {}
                None => {
                    let due = now + 1 + [next(10), next(300), next(10_000), next(500_000)][next(4) as usize];
                    wheel.insert(&mut links, member, due);
                    plain[member as usize] = Some(due);
                }
            }
            now += [0, 0, 1, next(100), next(5000)][next(5) as usize];
            let due = |d: &Option<Tick>| d.is_some_and(|d| d <= now);
            while let Some(member) = wheel.pop(&mut links, now) {
                assert!(due(&plain[member as usize]), "{member} at {now}");
                plain[member as usize] = None;
            }
            assert!(!plain.iter().any(due), "none is forgotten at {now}");
            let first = plain.iter().flatten().min().copied();
            assert!(wheel.next_due() <= first || first.is_none());
            assert_eq!(wheel.next_due().is_some(), first.is_some());
        }
    }
}

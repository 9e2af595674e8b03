//! Expectations: connections that another one has announced.
//!
//! Each is used once, lives for a bounded time, and belongs to its master: when the master goes, it goes.

#![forbid(unsafe_code)]

use super::table::hash::Seed;
use super::{Direction, EntryId, Helper};
use crate::base::time::{Duration, Instant};
use crate::packet::Tuple;
use core::sync::atomic::{AtomicUsize, Ordering};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A connection that is expected: from any source port, else exactly this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// `left`, the source port, is any.
    pub tuple: Tuple,
    /// The connection that announced it, as its first packet went.
    pub master: Tuple,
    /// Who read the announcement.
    pub helper: Helper,
    /// When it is given up.
    pub expires_at: Instant,
    /// Where its master is translated: how it is itself.
    pub follows: Option<Follows>,
    /// Whether its beginning is told, and its end is not (`-j CT --expevents`); `None`: both are.
    pub is_told: Option<bool>,
}

impl Expectation {
    /// How long it will wait yet.
    pub const fn timeout(&self, now: Instant) -> Duration {
        self.expires_at.saturating_since(now)
    }
}

/// How an expected connection follows the translation of its master, whatever the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follows {
    /// Which way of the master the announcement went: it leads back to who made it.
    pub announcer: Direction,
    /// The port that was announced, which is the one that the announcer has.
    pub port: u16,
}

/// Why an expectation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another connection has announced the same.
    Clash,
    /// `nf_conntrack_expect_max` is reached.
    Limit,
}

#[derive(Debug, Default)]
pub(super) struct Expectations {
    /// How many there are, so that nobody takes the lock in vain.
    count: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    seed: Seed,
    waiting: BTreeMap<Key, (EntryId, Expectation)>,
    /// Oldest first.
    masters: BTreeMap<EntryId, VecDeque<Tuple>>,
    ends: BTreeSet<(Instant, Tuple)>,
}

/// By what an expectation is looked for, once for every new connection: numbers compare faster than tuples.
type Key = (u64, Tuple);

/// The tuple that an expectation is found by.
const fn any_source_port(tuple: &Tuple) -> Tuple {
    Tuple { left: 0, ..*tuple }
}

/// In the order of their tuples, which is the same whatever the seed.
fn in_order(expectations: impl Iterator<Item = Expectation>) -> Vec<Expectation> {
    let mut list: Vec<_> = expectations.collect();
    list.sort_unstable_by_key(|expectation| expectation.tuple);
    list
}

impl Expectations {
    pub(super) fn new(seed: Seed) -> Self {
        Self { count: AtomicUsize::new(0), inner: Mutex::new(Inner { seed, ..Inner::default() }) }
    }

    /// Takes an expectation of `master`; returns what it replaced, and what its master had above its limit.
    ///
    /// # Errors
    /// Why it cannot be had; nothing has changed then.
    pub(super) fn add(
        &self,
        master: EntryId,
        expectation: Expectation,
        total_max: u32,
        now: Instant,
    ) -> Result<Vec<Expectation>, Refused> {
        let mut inner = self.inner.lock();
        inner.reap(now, &mut Vec::new());
        let result = inner.add(master, expectation, total_max as usize);
        self.count.store(inner.waiting.len(), Ordering::Relaxed);
        result
    }

    /// Whether [`Expectations::add`] would take it of a master that is not confirmed yet.
    pub(super) fn would_add(
        &self,
        expectation: &Expectation,
        total_max: u32,
        now: Instant,
    ) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        inner.reap(now, &mut Vec::new());
        if inner.waiting.contains_key(&inner.key(&expectation.tuple)) {
            return Err(Refused::Clash);
        }
        if inner.waiting.len() >= total_max as usize { Err(Refused::Limit) } else { Ok(()) }
    }

    /// Uses up the expectation that `tuple` fulfils.
    pub(super) fn take(&self, tuple: &Tuple, now: Instant) -> Option<(EntryId, Expectation)> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut inner = self.inner.lock();
        let tuple = any_source_port(tuple);
        if inner.waiting.get(&inner.key(&tuple))?.1.expires_at <= now {
            return None;
        }
        let taken = inner.remove(&tuple);
        self.count.store(inner.waiting.len(), Ordering::Relaxed);
        taken
    }

    /// Drops what a master has announced, because it has gone.
    pub(super) fn forget(&self, master: EntryId) -> Vec<Expectation> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let mut inner = self.inner.lock();
        let tuples = inner.masters.get(&master).cloned().unwrap_or_default();
        let gone = tuples.iter().filter_map(|tuple| inner.remove(tuple)).map(|(_, gone)| gone).collect();
        self.count.store(inner.waiting.len(), Ordering::Relaxed);
        gone
    }

    /// Drops those whose time is over.
    pub(super) fn reap(&self, now: Instant) -> Vec<Expectation> {
        let mut gone = Vec::new();
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut inner = self.inner.lock();
            inner.reap(now, &mut gone);
            self.count.store(inner.waiting.len(), Ordering::Relaxed);
        }
        gone
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.inner.lock().ends.first().map(|(end, _)| *end)
    }

    pub(super) fn clear(&self) -> Vec<Expectation> {
        let mut inner = self.inner.lock();
        let gone = core::mem::take(&mut inner.waiting);
        inner.masters.clear();
        inner.ends.clear();
        self.count.store(0, Ordering::Relaxed);
        drop(inner);
        in_order(gone.into_values().map(|(_, expectation)| expectation))
    }

    /// Those that live, in the order of their tuples, each behind the connection that announced it.
    pub(super) fn list(&self, now: Instant) -> Vec<(EntryId, Expectation)> {
        let inner = self.inner.lock();
        let alive = inner.waiting.values().filter(|(_, expectation)| expectation.expires_at > now);
        let mut list: Vec<_> = alive.cloned().collect();
        list.sort_by_key(|(_, expectation)| expectation.tuple);
        list
    }
}

impl Inner {
    fn key(&self, tuple: &Tuple) -> Key {
        (self.seed.hash(tuple), *tuple)
    }

    fn add(
        &mut self,
        master: EntryId,
        expectation: Expectation,
        total_max: usize,
    ) -> Result<Vec<Expectation>, Refused> {
        let tuple = expectation.tuple;
        let mut replaced = Vec::new();
        let key = self.key(&tuple);
        match self.waiting.get(&key) {
            Some((owner, _)) if *owner != master => return Err(Refused::Clash),
            Some(_) => replaced.extend(self.remove(&tuple)),
            None => {}
        }
        // One that is superseded makes room for the new one.
        let own = self.masters.get(&master).map_or(0, VecDeque::len);
        if own >= expectation.helper.max_expectations()
            && let Some(oldest) = self.masters.get(&master).and_then(|own| own.front()).copied()
        {
            replaced.extend(self.remove(&oldest));
        }
        let replaced = replaced.into_iter().map(|(_, old)| old).collect();
        if self.waiting.len() >= total_max {
            return Err(Refused::Limit);
        }
        self.ends.insert((expectation.expires_at, tuple));
        self.masters.entry(master).or_default().push_back(tuple);
        self.waiting.insert(key, (master, expectation));
        Ok(replaced)
    }

    fn remove(&mut self, tuple: &Tuple) -> Option<(EntryId, Expectation)> {
        let (master, expectation) = self.waiting.remove(&self.key(tuple))?;
        self.ends.remove(&(expectation.expires_at, *tuple));
        if let Some(own) = self.masters.get_mut(&master) {
            own.retain(|other| other != tuple);
            if own.is_empty() {
                self.masters.remove(&master);
            }
        }
        Some((master, expectation))
    }

    fn reap(&mut self, now: Instant, gone: &mut Vec<Expectation>) {
        while let Some(&(end, tuple)) = self.ends.first() {
            if end > now {
                break;
            }
            gone.extend(self.remove(&tuple).map(|(_, expectation)| expectation));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Addr, Family, tuple::PROTO_TCP};
    use core::num::NonZero;

    const NOW: Instant = Instant::from_secs(1000);

    fn master(n: u32) -> EntryId {
        EntryId::new(0, n, NonZero::<u32>::MIN)
    }

    fn announced(number: u32) -> Expectation {
        let [a, b, c, d] = number.to_be_bytes();
        let (src, dst) = (Addr::from_v4([198, 51, 100, 10]), Addr::from_v4([198, 18, a, b]));
        let right = u16::from_be_bytes([c, d]);
        let tuple = Tuple { src, dst, left: 0, right, zone: 0, proto: PROTO_TCP, family: Family::Ipv4 };
        let expires_at = NOW + Helper::Ftp.patience();
        Expectation {
            tuple,
            master: tuple.reply(),
            helper: Helper::Ftp,
            expires_at,
            follows: None,
            is_told: None,
        }
    }

    #[test]
    fn one_connection_has_one_announcement_however_many_it_makes() {
        let expectations = Expectations::default();
        for n in 0..100_000 {
            let replaced = expectations.add(master(0), announced(n), 4096, NOW).unwrap();
            assert_eq!(replaced.len(), usize::from(n > 0));
        }
        assert_eq!(expectations.list(NOW), [(master(0), announced(99_999))]);
    }

    #[test]
    fn all_connections_together_have_no_more_than_the_limit() {
        let expectations = Expectations::default();
        let taken =
            (0..10_000).filter(|&n| expectations.add(master(n), announced(n), 4096, NOW).is_ok()).count();
        assert_eq!((taken, expectations.list(NOW).len()), (4096, 4096));
        assert_eq!(expectations.add(master(5000), announced(5000), 4096, NOW), Err(Refused::Limit));
        // What one takes back, another may have.
        assert_eq!(expectations.forget(master(0)), [announced(0)]);
        assert_eq!(expectations.add(master(5000), announced(5000), 4096, NOW), Ok(Vec::new()));
        // And all end in time, without anybody asking.
        let end = NOW + Helper::Ftp.patience();
        assert_eq!(expectations.next_due(), Some(end));
        assert_eq!(expectations.reap(end).len(), 4096);
        assert_eq!(expectations.next_due(), None);
    }
}

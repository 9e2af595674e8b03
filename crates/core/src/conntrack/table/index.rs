//! From a hash to the slots that have it: open addressing, so that a lookup reads one cache line and seldom two.
//!
//! A place is a number of 64 bits: the hash above, the slot below. An entry stands at the first free place from where
//! its hash points; one that leaves lets those behind it move up, so that there are no gaps and no tombstones.

#![forbid(unsafe_code)]

use prefetch_index::prefetch_index;

/// Empty; no slot has this number.
const FREE: u64 = u64::MAX;
const MIN_PLACES: usize = 16;

#[derive(Debug)]
pub(in crate::conntrack) struct Index {
    /// A power of two of them, never more than five eighths in use: a row in use is then short.
    places: Box<[u64]>,
    used: usize,
}

/// Slots with the same hash, one after another.
#[derive(Debug)]
pub(in crate::conntrack) struct Found<'a> {
    places: &'a [u64],
    hash: u32,
    at: usize,
}

impl Iterator for Found<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        loop {
            let place = self.places[self.at & (self.places.len() - 1)];
            if place == FREE {
                return None;
            }
            self.at += 1;
            if (place >> 32) as u32 == self.hash {
                return Some(place as u32);
            }
        }
    }
}

impl Default for Index {
    fn default() -> Self {
        Self { places: Box::new([FREE; MIN_PLACES]), used: 0 }
    }
}

const fn place(hash: u32, slot: u32) -> u64 {
    (hash as u64) << 32 | slot as u64
}

impl Index {
    /// The slots with this hash: seldom more than one.
    #[inline]
    pub(in crate::conntrack) fn find(&self, hash: u32) -> Found<'_> {
        Found { places: &self.places, hash, at: hash as usize }
    }

    /// Has the cache line fetched where [`Index::find`] begins.
    #[inline]
    pub(in crate::conntrack) fn fetch(&self, hash: u32) {
        prefetch_index(&self.places, hash as usize & (self.places.len() - 1));
    }

    /// Puts a slot in that is not there.
    pub(in crate::conntrack) fn insert(&mut self, hash: u32, slot: u32) {
        if (self.used + 1) * 8 > self.places.len() * 5 {
            self.grow();
        }
        self.used += 1;
        self.put(place(hash, slot));
    }

    fn put(&mut self, new: u64) {
        let mask = self.places.len() - 1;
        let mut at = (new >> 32) as usize & mask;
        while self.places[at] != FREE {
            at = (at + 1) & mask;
        }
        self.places[at] = new;
    }

    fn grow(&mut self) {
        let places = vec![FREE; self.places.len() * 2].into_boxed_slice();
        let before = core::mem::replace(&mut self.places, places);
        for place in before.into_iter().filter(|&place| place != FREE) {
            self.put(place);
        }
    }

    /// Takes a slot out; harmless if it is not there.
    pub(in crate::conntrack) fn remove(&mut self, hash: u32, slot: u32) {
        let mask = self.places.len() - 1;
        let mut gap = hash as usize & mask;
        while self.places[gap] != place(hash, slot) {
            if self.places[gap] == FREE {
                return;
            }
            gap = (gap + 1) & mask;
        }
        self.used -= 1;
        // Whoever may stand in the gap moves there, and leaves a gap of his own.
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let next = self.places[at];
            if next == FREE {
                break;
            }
            let from_home = at.wrapping_sub((next >> 32) as usize) & mask;
            let from_gap = at.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                self.places[gap] = next;
                gap = at;
            }
        }
        self.places[gap] = FREE;
    }

    #[cfg(test)]
    pub(in crate::conntrack) fn allocated(&self) -> usize {
        size_of_val(&*self.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_of_inserts_and_removals_agrees_with_a_plain_list() {
        // The same numbers in every run.
        let mut random = fastrand::Rng::with_seed(7);
        let mut next = move |below: u32| random.u32(..below);
        for hashes in [1, 5, 300, u32::MAX] {
            let (mut index, mut plain) = (Index::default(), Vec::<(u32, u32)>::new());
            for slot in 0..6000 {
                // Grows to some hundreds, and shrinks again.
                if next(100) < if slot < 3000 { 60 } else { 40 } {
                    // Those at the end of the row go on at its beginning, and so they shall.
                    let hash = u32::MAX - next(hashes);
                    index.insert(hash, slot);
                    plain.push((hash, slot));
                } else if !plain.is_empty() {
                    let (hash, slot) = plain.swap_remove(next(plain.len() as u32) as usize);
                    index.remove(hash, slot);
                    index.remove(hash, slot);
                    assert!(!index.find(hash).any(|found| found == slot));
                }
                assert_eq!(index.used, plain.len());
                assert!(index.used * 8 <= index.places.len() * 5);
            }
            for &(hash, slot) in &plain {
                assert!(index.find(hash).any(|found| found == slot), "{hash:x} {slot}");
            }
            assert_eq!(index.places.iter().filter(|&&place| place != FREE).count(), plain.len());
        }
    }
}

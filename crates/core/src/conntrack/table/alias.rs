//! Replies that are no mirror of their original: under which tuple they come, and whose they are.
//!
//! A connection stands in the table under the key that its original tuple and the mirror of that have in common. Where
//! the reply tuple is another, this second way leads from the reply's own key to the connection's handle. Who comes
//! here has found nothing in the table: connections that are not translated pay nothing.
//!
//! The tuple itself stands with the connection. Here its whole hash is kept, with a bit that tells it from its mirror;
//! whoever follows the handle looks at the tuple.

#![forbid(unsafe_code)]

use crate::conntrack::EntryId;
use crate::conntrack::table::index::Index;
use crate::packet::Tuple;

/// The aliases whose keys fall into one shard.
#[derive(Debug, Default)]
pub(in crate::conntrack) struct Aliases {
    index: Index,
    rows: Vec<Option<Alias>>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Alias {
    /// Of the key, what the index does not have.
    check: u32,
    entry: EntryId,
}

const _: () = assert!(size_of::<Option<Alias>>() == 16, "four to a cache line");

/// A hash that a tuple and its mirror have in common, with the bit that tells them apart. The bit that it takes the place of
/// is the same for all of a shard.
pub(in crate::conntrack) fn key(hash: u64, tuple: &Tuple) -> u64 {
    const SIDE: u64 = 1 << 32;
    const KIND: u32 = 40;
    // One identifier may ask for several things; the hash does not tell them apart.
    let hash = if tuple.is_icmp() { hash ^ u64::from(tuple.right) << KIND } else { hash };
    if *tuple <= tuple.reply() { hash | SIDE } else { hash & !SIDE }
}

/// The part of a key that leads through the index, and the rest of it.
const fn halves(key: u64) -> (u32, u32) {
    (key as u32, (key >> 32) as u32)
}

impl Aliases {
    #[inline]
    pub(in crate::conntrack) fn is_empty(&self) -> bool {
        self.rows.len() == self.free.len()
    }

    /// Whose reply the tuple of that key is. The connection may have ended since: its handle tells.
    pub(in crate::conntrack) fn find(&self, key: u64) -> Option<EntryId> {
        self.row_of(key).map(|(_, alias)| alias.entry)
    }

    fn row_of(&self, key: u64) -> Option<(u32, Alias)> {
        let (low, check) = halves(key);
        let mut rows = self.index.find(low).filter_map(|row| Some((row, self.rows[row as usize]?)));
        rows.find(|(_, alias)| alias.check == check)
    }

    /// Puts one in, for which [`Aliases::find`] has found nothing.
    pub(in crate::conntrack) fn insert(&mut self, key: u64, entry: EntryId) {
        let row = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            self.rows.len() as u32 - 1
        });
        let (low, check) = halves(key);
        self.rows[row as usize] = Some(Alias { check, entry });
        self.index.insert(low, row);
    }

    /// Takes out the one of a connection; harmless if it is not there.
    pub(in crate::conntrack) fn remove(&mut self, key: u64, entry: EntryId) {
        if let Some((row, alias)) = self.row_of(key)
            && alias.entry == entry
        {
            self.index.remove(halves(key).0, row);
            self.rows[row as usize] = None;
            self.free.push(row);
        }
    }
}

//! Replies that are no mirror of their original: under which tuple they come, and whose they are.
//!
//! A connection stands in the table under the key that its original tuple and the mirror of that have in common. Where
//! the reply tuple is another, this second way leads from the reply's own key to the connection's handle. Who comes
//! here has found nothing in the table: connections that are not translated pay nothing.

#![forbid(unsafe_code)]

use super::EntryId;
use super::index::Index;
use crate::packet::Tuple;

/// The aliases whose keys fall into one shard.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    index: Index,
    rows: Vec<Option<Alias>>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Alias {
    reply: Tuple,
    entry: EntryId,
}

impl Aliases {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == self.free.len()
    }

    /// Whose reply the tuple is. The connection may have ended since: its handle tells.
    pub(super) fn find(&self, hash: u32, tuple: &Tuple) -> Option<EntryId> {
        self.row_of(hash, tuple).map(|(_, alias)| alias.entry)
    }

    fn row_of(&self, hash: u32, tuple: &Tuple) -> Option<(u32, Alias)> {
        let mut rows = self.index.find(hash).filter_map(|row| Some((row, self.rows[row as usize]?)));
        rows.find(|(_, alias)| alias.reply == *tuple)
    }

    /// Puts one in, for which [`Aliases::find`] has found nothing.
    pub(super) fn insert(&mut self, hash: u32, reply: Tuple, entry: EntryId) {
        let row = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            self.rows.len() as u32 - 1
        });
        self.rows[row as usize] = Some(Alias { reply, entry });
        self.index.insert(hash, row);
    }

    /// Takes out the one of a connection; harmless if it is not there.
    pub(super) fn remove(&mut self, hash: u32, reply: &Tuple, entry: EntryId) {
        if let Some((row, alias)) = self.row_of(hash, reply)
            && alias.entry == entry
        {
            self.index.remove(hash, row);
            self.rows[row as usize] = None;
            self.free.push(row);
        }
    }
}

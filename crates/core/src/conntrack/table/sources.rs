//! Which translated connections a source has, the latest first: what it got once it gets again.
//!
//! A source is an address with a protocol and a port or identifier. Handles of connections that have ended stay until
//! there are as many of them as of others, so that nothing is to be done when a connection ends.

#![forbid(unsafe_code)]

use crate::conntrack::table::index::Index;
use crate::conntrack::{Entry, EntryId, table::Table};
use crate::packet::{Addr, Tuple};
use parking_lot::Mutex;

const SHARDS: usize = 64;
const NONE: u32 = u32::MAX;
/// Rows before a shard is cleared of those whose connections have ended.
const FIRST_SWEEP: usize = 64;

#[derive(Debug)]
pub(in crate::conntrack) struct Sources(Box<[Mutex<Shard>; SHARDS]>);

#[derive(Debug, Default)]
struct Shard {
    /// To the latest row of each hash.
    index: Index,
    rows: Vec<Row>,
    /// Rows at which it is swept next.
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    entry: EntryId,
    hash: u32,
    /// The row of the same hash that came before this one.
    older: u32,
}

impl Default for Sources {
    fn default() -> Self {
        Self(Box::new(core::array::from_fn(|_| Mutex::default())))
    }
}

/// The tuple that all connections of a source have in common.
fn source_of(original: &Tuple) -> Tuple {
    Tuple { dst: Addr::UNSPECIFIED, right: 0, ..*original }
}

impl Sources {
    /// Remembers a translated connection that has entered the table.
    pub(in crate::conntrack) fn add(&self, table: &Table, original: &Tuple, entry: EntryId) {
        let hash = table.hash(&source_of(original));
        let mut shard = self.0[(hash >> 32) as usize % SHARDS].lock();
        if shard.rows.len() >= shard.sweep_at.max(FIRST_SWEEP) {
            shard.sweep(table);
        }
        shard.insert(entry, hash as u32);
    }

    /// Asks `read` about the connections of the source that `sent` has, in the zone of what opens them, the latest first, and
    /// returns its first answer.
    pub(in crate::conntrack) fn find<T>(
        &self,
        table: &Table,
        sent: &Tuple,
        zone: u16,
        mut read: impl FnMut(&Entry) -> Option<T>,
    ) -> Option<T> {
        let source = Tuple { zone, ..source_of(sent) };
        let hash = table.hash(&source);
        let mut shard = self.0[(hash >> 32) as usize % SHARDS].lock();
        let (mut at, mut newer) = (shard.latest(hash as u32), NONE);
        while let Some(&row) = shard.rows.get(at as usize) {
            let is_same = |entry: &Entry| source_of(&entry.original) == source;
            match table.with(row.entry, |entry| if is_same(entry) { read(entry) } else { None }) {
                Some(Some(found)) => return Some(found),
                Some(None) => newer = at,
                // It has ended, and is taken out of the row, so that the next search does not meet it again.
                None => shard.pass_over(row, at, newer),
            }
            at = row.older;
        }
        None
    }
}

impl Shard {
    /// The latest row of a hash.
    fn latest(&self, hash: u32) -> u32 {
        self.index.find(hash).next().unwrap_or(NONE)
    }

    /// Has the row at `at` found no more, to which the row `newer` leads or, without one, the index. It is taken out with
    /// the next sweep.
    fn pass_over(&mut self, row: Row, at: u32, newer: u32) {
        if let Some(newer) = self.rows.get_mut(newer as usize) {
            newer.older = row.older;
            return;
        }
        self.index.remove(row.hash, at);
        if row.older != NONE {
            self.index.insert(row.hash, row.older);
        }
    }

    fn insert(&mut self, entry: EntryId, hash: u32) {
        let row = self.rows.len() as u32;
        let older = self.latest(hash);
        if older != NONE {
            self.index.remove(hash, older);
        }
        self.rows.push(Row { entry, hash, older });
        self.index.insert(hash, row);
    }

    /// Forgets connections that have ended.
    fn sweep(&mut self, table: &Table) {
        let rows = core::mem::take(&mut self.rows);
        self.index = Index::default();
        for row in rows.into_iter().filter(|row| table.with(row.entry, |_| ()).is_some()) {
            self.insert(row.entry, row.hash);
        }
        self.sweep_at = self.rows.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Family, Instant};
    use crate::conntrack::{Proto, Sysctls};
    use crate::packet::tuple::PROTO_UDP;

    fn flow(port: u16, server: u16) -> Tuple {
        let [a, b] = server.to_be_bytes();
        let (src, dst) = (Addr::from_v4([192, 0, 2, 10]), Addr::from_v4([198, 18, a, b]));
        Tuple { src, dst, left: port, right: 53, zone: 0, proto: PROTO_UDP, family: Family::Ipv4 }
    }

    fn enter(table: &Table, sources: &Sources, original: Tuple) -> EntryId {
        let place = table.place(&original);
        let entry = Entry::new(original, Proto::Plain, Instant::ZERO, &Sysctls::default());
        let id = table.insert(place, &mut table.lock(place), entry);
        sources.add(table, &original, id);
        id
    }

    #[test]
    fn connections_that_have_ended_are_walked_over_once() {
        const COUNT: u16 = 2000;
        let (table, sources) = (Table::new(7), Sources::default());
        // As if there were so many others that nothing is swept.
        for shard in &*sources.0 {
            shard.lock().sweep_at = usize::MAX;
        }
        let hash = table.hash(&source_of(&flow(5000, 0)));
        let rows_to_walk = || {
            let shard = sources.0[(hash >> 32) as usize % SHARDS].lock();
            let older = |&at: &u32| shard.rows.get(at as usize).map(|row| row.older);
            core::iter::successors(Some(shard.latest(hash as u32)), older).count() - 1
        };
        let oldest = enter(&table, &sources, flow(5000, 0));
        let mut walked = 0;
        for server in 1..=COUNT {
            walked += rows_to_walk();
            let found = sources.find(&table, &flow(5000, server), 0, |entry| Some(entry.original.dst));
            assert_eq!(found, Some(flow(5000, 0).dst));
            table.remove_id(enter(&table, &sources, flow(5000, server)));
        }
        assert!(walked <= 2 * usize::from(COUNT), "{walked} rows");
        table.remove_id(oldest);
        assert_eq!(sources.find(&table, &flow(5000, 0), 0, |_| Some(())), None);
        assert_eq!(rows_to_walk(), 0);
    }

    #[test]
    fn the_latest_of_a_source_comes_first_and_those_that_ended_are_forgotten() {
        let (table, sources) = (Table::new(7), Sources::default());
        let enter = |original| enter(&table, &sources, original);
        let found = |port| sources.find(&table, &flow(port, 0), 0, |entry| Some(entry.original.dst));
        let ids: Vec<_> = (0..1000).map(|server| enter(flow(5000, server))).collect();
        enter(flow(5001, 7));
        assert_eq!(found(5000), Some(flow(5000, 999).dst));
        assert_eq!(found(5001), Some(flow(5001, 7).dst));
        for id in &ids[1..] {
            table.remove_id(*id);
        }
        assert_eq!(found(5000), Some(flow(5000, 0).dst));
        for server in 0..20_000 {
            let id = enter(flow(5000, server));
            table.remove_id(id);
        }
        let rows: usize = sources.0.iter().map(|shard| shard.lock().rows.len()).sum();
        assert!(rows < 200, "{rows}");
    }
}

//! The table: one key to one connection; sharded, bounded by its owner, and cheap to expire.
//!
//! A connection is found from either side by one hash, which is the same for a tuple and for its reply. It picks a
//! shard, each behind a lock that is held for one packet. In a shard, an index of eight bytes a connection
//! leads to the entry's slot, so that growing moves the index and never the entries.
//!
//! Lookup treats an entry past its timeout as absent. [`Table::reap`] takes such entries out a few at a time.

#![forbid(unsafe_code)]

pub(super) mod ahead;
mod alias;
pub mod entry;
pub(super) mod hash;
mod index;
pub(super) mod sources;
mod wheel;

use super::{Direction, EntryId};
use crate::base::time::Instant;
use crate::packet::Tuple;
use alias::Aliases;
use core::num::NonZero;
use core::slice::from_ref;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use entry::Entry;
use hash::Seed;
use index::Index;
use parking_lot::{Mutex, MutexGuard};
use prefetch_index::prefetch_index;
use wheel::{Link, Links, Tick, Wheel};

/// Enough that workers seldom meet, and that one shard's index grows in a moment.
const SHARDS: usize = 64;
/// Slots that are made at a time.
const CHUNK: usize = 64;
const CACHE_LINE: usize = 64;
/// Of a slot's lines, those that a packet of an established connection reads: see [`Slot`].
const LINES_READ: usize = 3;
/// Entries that early drop looks at before it gives up.
const EARLY_DROP_LOOKS: usize = 16;
/// Slots that [`Table::copy_some`] looks at under one lock: some tens of microseconds.
const COPIED_AT_ONCE: u32 = 256;
/// Entries that [`Table::reap`] looks at in each shard before it lets others go on.
const REAP_LOOKS: usize = 256;

#[derive(Debug)]
pub(in crate::conntrack) struct Table {
    shards: Box<[Line<Mutex<Shard>>; SHARDS]>,
    seed: Seed,
    count: AtomicUsize,
    /// No shard has anything to reap before this; in nanoseconds.
    next_due: AtomicU64,
}

/// Keeps neighbours' locks out of each other's cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

/// Connections whose keys fall together.
#[derive(Debug, Default)]
pub(in crate::conntrack) struct Shard {
    index: Index,
    aliases: Aliases,
    slots: Slots,
    wheel: Wheel,
}

/// Where a connection lives for as long as it is in the table. In the order of use: a packet of an established
/// connection reads the first two cache lines, and the third if its protocol has states.
#[derive(Debug)]
#[repr(C, align(64))]
struct Slot {
    /// Counts tenants.
    generation: NonZero<u32>,
    /// Where the wheel will look at the entry.
    due: Tick,
    entry: Option<Entry>,
    hash: u32,
    link: Link,
}

const _: () = assert!(size_of::<Slot>() == 192, "three cache lines");

/// Slots in chunks, so that growing copies nothing.
#[derive(Debug, Default)]
struct Slots {
    chunks: Vec<Box<[Slot; CHUNK]>>,
    /// How many were ever in use; those behind them are not yet.
    made: u32,
    free: Vec<u32>,
}

/// Where a tuple belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conntrack) struct Place {
    shard: usize,
    hash: u32,
}

/// How far somebody has come who looks at all entries a few at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::conntrack) struct Cursor {
    shard: usize,
    slot: u32,
}

/// A connection found, under the lock of its shard.
#[derive(Clone, Copy, Debug)]
pub(in crate::conntrack) struct Found {
    pub(in crate::conntrack) slot: u32,
    pub(in crate::conntrack) direction: Direction,
}

/// A connection found, with the lock of its shard.
pub(in crate::conntrack) struct Held<'a> {
    pub(in crate::conntrack) shard: MutexGuard<'a, Shard>,
    /// Which shard that is.
    pub(in crate::conntrack) number: usize,
    pub(in crate::conntrack) slot: u32,
    /// Which way a packet goes that has the tuple by which it was found.
    pub(in crate::conntrack) direction: Direction,
}

impl Held<'_> {
    /// The handle of the connection, of which `generation` counts the tenants of its slot.
    #[inline]
    pub(in crate::conntrack) fn id(&self, generation: NonZero<u32>) -> EntryId {
        EntryId::new(self.number, self.slot, generation)
    }

    pub(in crate::conntrack) fn entry(&mut self) -> Option<&mut Entry> {
        self.shard.entry(self.slot)
    }
}

/// The connection in a slot, with what the slot knows of it.
pub(in crate::conntrack) struct Tenant<'a> {
    /// Counts the slot's tenants.
    pub(in crate::conntrack) generation: NonZero<u32>,
    pub(in crate::conntrack) entry: &'a mut Entry,
    /// Where the wheel will look at it.
    pub(in crate::conntrack) due: Tick,
}

impl Place {
    /// The handle of a connection that was found here.
    #[inline]
    pub(in crate::conntrack) fn id(self, slot: u32, generation: NonZero<u32>) -> EntryId {
        EntryId::new(self.shard, slot, generation)
    }
}

impl Slot {
    const fn empty() -> Self {
        Self { generation: NonZero::<u32>::MIN, due: 0, entry: None, hash: 0, link: Link::EMPTY }
    }

    /// Which way a packet of `tuple` goes, if the tenant is its connection.
    #[inline]
    fn direction_of(&self, tuple: &Tuple) -> Option<Direction> {
        self.entry.as_ref()?.direction_of(tuple)
    }

    /// Has the cache lines fetched that a packet of an established connection reads.
    #[inline]
    fn fetch(&self) {
        for line in 0..LINES_READ {
            prefetch_index(from_ref(&self.due), line * CACHE_LINE / size_of::<Tick>());
        }
    }
}

impl Slots {
    #[inline]
    fn get(&self, slot: u32) -> &Slot {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    #[inline]
    fn get_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    /// A free slot, made if there is none.
    fn take(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        // 64 shards of so many slots take more than 800 GB.
        assert!(self.made < 1 << EntryId::SLOT_BITS, "a shard has no more slots than handles can name");
        if self.made as usize == self.chunks.len() * CHUNK {
            // Made in its place: an array would be made on the stack and copied.
            let chunk: Box<[Slot]> = (0..CHUNK).map(|_| Slot::empty()).collect();
            self.chunks.extend(<Box<[Slot; CHUNK]>>::try_from(chunk).ok());
        }
        self.made += 1;
        self.made - 1
    }
}

impl Links for Slots {
    fn link(&mut self, slot: u32) -> &mut Link {
        &mut self.get_mut(slot).link
    }

    fn due(&mut self, slot: u32) -> &mut Tick {
        &mut self.get_mut(slot).due
    }
}

impl Shard {
    /// Finds the connection under the key of `tuple`, alive or not.
    #[inline(always)]
    pub(in crate::conntrack) fn find(&self, place: Place, tuple: &Tuple) -> Option<Found> {
        let slot = self.index.find(place.hash).next()?;
        match self.slots.get(slot).direction_of(tuple) {
            Some(direction) => Some(Found { slot, direction }),
            None => self.find_among(place, tuple),
        }
    }

    /// The same where the first connection of that hash is another one: seldom, and kept out of the way of the others.
    #[cold]
    fn find_among(&self, place: Place, tuple: &Tuple) -> Option<Found> {
        for slot in self.index.find(place.hash) {
            if let Some(direction) = self.slots.get(slot).direction_of(tuple) {
                return Some(Found { slot, direction });
            }
        }
        None
    }

    /// Finds the connection under that key that has one of the tuples of a new one, alive or not; the direction is that
    /// of the new one's original.
    pub(super) fn find_either(&self, place: Place, [original, reply]: [&Tuple; 2]) -> Option<Found> {
        self.index.find(place.hash).next()?;
        self.find_among(place, original).or_else(|| {
            // Where one is translated and the other is not, they may have only this one in common.
            let found = self.find_among(place, reply)?;
            Some(Found { direction: found.direction.opposite(), ..found })
        })
    }

    /// The connection in a slot, with what the slot knows of it.
    #[inline(always)]
    pub(in crate::conntrack) fn tenant(&mut self, slot: u32) -> Option<Tenant<'_>> {
        let Slot { generation, due, entry, .. } = self.slots.get_mut(slot);
        Some(Tenant { generation: *generation, entry: entry.as_mut()?, due: *due })
    }

    /// A translated connection whose reply is one of those that [`Table::alias_key`] makes `keys` of: they are asked for
    /// only where there are such connections.
    pub(in crate::conntrack) fn aliased(&self, keys: impl FnOnce() -> [u64; 2]) -> Option<EntryId> {
        if self.aliases.is_empty() {
            return None;
        }
        keys().into_iter().find_map(|key| self.aliases.find(key))
    }

    #[inline]
    pub(in crate::conntrack) fn entry(&mut self, slot: u32) -> Option<&mut Entry> {
        self.slots.get_mut(slot).entry.as_mut()
    }

    #[inline]
    pub(in crate::conntrack) fn generation(&self, slot: u32) -> NonZero<u32> {
        self.slots.get(slot).generation
    }

    /// Whether the tenant that `id` means is still there.
    fn holds(&self, id: EntryId) -> bool {
        id.slot() < self.slots.made && self.generation(id.slot()).get() == id.generation()
    }

    /// Puts an entry in, for which [`Shard::find`] has found nothing.
    pub(in crate::conntrack) fn insert(&mut self, place: Place, entry: Entry) -> u32 {
        let slot = self.slots.take();
        let due = wheel::tick_after(entry.expires_at);
        let taken = self.slots.get_mut(slot);
        assert!(taken.entry.is_none(), "a free slot is empty");
        taken.entry = Some(entry);
        taken.hash = place.hash;
        self.index.insert(place.hash, slot);
        self.wheel.insert(&mut self.slots, slot, due);
        slot
    }

    /// Takes an entry out.
    pub(in crate::conntrack) fn remove(&mut self, slot: u32) -> Option<Entry> {
        let entry = self.detach(slot)?;
        self.wheel.remove(&mut self.slots, slot);
        Some(entry)
    }

    /// Takes an entry out that the wheel no longer knows.
    fn detach(&mut self, slot: u32) -> Option<Entry> {
        let vacated = self.slots.get_mut(slot);
        let entry = vacated.entry.take()?;
        vacated.generation = vacated.generation.checked_add(1).unwrap_or(NonZero::<u32>::MIN);
        self.index.remove(vacated.hash, slot);
        self.slots.free.push(slot);
        Some(entry)
    }

    /// Tells the wheel that an entry's life may have become shorter than it knows.
    ///
    /// Returns when the shard is to be reaped because of that.
    #[inline]
    pub(in crate::conntrack) fn rescheduled(&mut self, slot: u32) -> Option<Instant> {
        let Slot { due, entry, .. } = self.slots.get(slot);
        let ends = wheel::tick_after(entry.as_ref()?.expires_at);
        if ends >= *due { None } else { Some(self.hasten(slot, ends)) }
    }

    #[cold]
    fn hasten(&mut self, slot: u32, due: Tick) -> Instant {
        self.wheel.remove(&mut self.slots, slot);
        self.wheel.insert(&mut self.slots, slot, due);
        wheel::instant_of(due)
    }

    /// Takes out what has ended, looking at a bounded number of entries; `true` if there is more to look at.
    fn reap(&mut self, number: usize, now: Instant, dead: &mut Vec<(EntryId, Entry)>) -> bool {
        let tick = wheel::tick_at(now);
        for _ in 0..REAP_LOOKS {
            let Some(slot) = self.wheel.pop(&mut self.slots, tick) else { return false };
            let Some(expires_at) = self.entry(slot).map(|entry| entry.expires_at) else { continue };
            if expires_at > now {
                self.wheel.insert(&mut self.slots, slot, wheel::tick_after(expires_at));
            } else {
                let id = EntryId::new(number, slot, self.generation(slot));
                dead.extend(self.detach(slot).map(|entry| (id, entry)));
            }
        }
        true
    }

    fn entries(&self) -> impl Iterator<Item = (u32, &Slot, &Entry)> {
        (0..self.slots.made).filter_map(|at| {
            let slot = self.slots.get(at);
            slot.entry.as_ref().map(|entry| (at, slot, entry))
        })
    }
}

impl Table {
    pub(in crate::conntrack) fn new(seed: u64) -> Self {
        Self {
            shards: Box::new(core::array::from_fn(|_| Line::default())),
            seed: Seed::new(seed),
            count: AtomicUsize::new(0),
            next_due: AtomicU64::new(u64::MAX),
        }
    }

    /// Entries in the table, those past their time included until they are reaped.
    pub(in crate::conntrack) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What spreads tuples over places.
    pub(in crate::conntrack) fn hash(&self, tuple: &Tuple) -> u64 {
        self.seed.hash(tuple)
    }

    /// Under what an alias for that tuple stands.
    pub(in crate::conntrack) fn alias_key(&self, tuple: &Tuple) -> u64 {
        alias::key(self.hash(tuple), tuple)
    }

    #[inline]
    pub(in crate::conntrack) fn place(&self, tuple: &Tuple) -> Place {
        let hash = self.seed.hash(tuple);
        Place { shard: (hash >> 32) as usize % SHARDS, hash: hash as u32 }
    }

    /// A number for the connection of `original` that began at a time.
    pub(in crate::conntrack) fn number(&self, original: &Tuple, began_at: Instant) -> u32 {
        self.seed.number(original, began_at.as_nanos())
    }

    /// Waits for the shard where `place` is; to be held for one packet, and never two at once.
    #[inline]
    pub(in crate::conntrack) fn lock(&self, place: Place) -> MutexGuard<'_, Shard> {
        self.shards[place.shard].0.lock()
    }

    /// Finds the connection of `tuple`, alive or not, and locks it.
    #[inline(always)]
    pub(in crate::conntrack) fn hold(&self, tuple: &Tuple) -> Option<Held<'_>> {
        let place = self.place(tuple);
        let shard = self.lock(place);
        match shard.find(place, tuple) {
            Some(Found { slot, direction }) => Some(Held { shard, number: place.shard, slot, direction }),
            None if shard.aliases.is_empty() => None,
            None => {
                let (shard, id, direction) = self.hold_by_alias(shard, tuple)?;
                Some(Held { shard, number: id.shard(), slot: id.slot(), direction })
            }
        }
    }

    /// The same for a connection that stands under another key. No two shards are locked at once: whether the one that
    /// the alias means is still there is told by its generation.
    #[cold]
    fn hold_by_alias<'a>(
        &'a self,
        shard: MutexGuard<'a, Shard>,
        tuple: &Tuple,
    ) -> Option<(MutexGuard<'a, Shard>, EntryId, Direction)> {
        let id = shard.aliases.find(self.alias_key(tuple))?;
        drop(shard);
        let shard = self.shards.get(id.shard())?.0.lock();
        if !shard.holds(id) {
            return None;
        }
        let direction = shard.slots.get(id.slot()).entry.as_ref()?.direction_of(tuple)?;
        Some((shard, id, direction))
    }

    /// Has answers to a connection found under a tuple that is not the mirror of its original; `false` if another
    /// connection has that tuple.
    pub(in crate::conntrack) fn insert_alias(&self, reply: Tuple, id: EntryId) -> bool {
        let place = self.place(&reply);
        let mut shard = self.lock(place);
        let key = self.alias_key(&reply);
        let is_free = shard.find(place, &reply).is_none() && shard.aliases.find(key).is_none();
        if is_free {
            shard.aliases.insert(key, id);
        }
        is_free
    }

    /// Takes the alias out of a connection that has left the table.
    pub(in crate::conntrack) fn remove_alias(&self, reply: &Tuple, id: EntryId) {
        self.lock(self.place(reply)).aliases.remove(self.alias_key(reply), id);
    }

    /// Has that part of the index fetched that leads on from `place`.
    ///
    /// Waits for nobody: whoever holds the shard is the one to whom it matters.
    #[inline]
    pub(in crate::conntrack) fn fetch_index(&self, place: Place) {
        if let Some(shard) = self.shards[place.shard].0.try_lock() {
            shard.index.fetch(place.hash);
        }
    }

    /// Has the entry fetched to which the index leads from `place`, if it leads to one.
    #[inline]
    pub(in crate::conntrack) fn fetch_entry(&self, place: Place) {
        if let Some(shard) = self.shards[place.shard].0.try_lock()
            && let Some(slot) = shard.index.find(place.hash).next()
        {
            shard.slots.get(slot).fetch();
        }
    }

    /// Reads or changes a connection that may have gone.
    pub(in crate::conntrack) fn with<T>(
        &self,
        id: EntryId,
        change: impl FnOnce(&mut Entry) -> T,
    ) -> Option<T> {
        let mut shard = self.shards.get(id.shard())?.0.lock();
        if !shard.holds(id) {
            return None;
        }
        let result = change(shard.entry(id.slot())?);
        let sooner = shard.rescheduled(id.slot());
        drop(shard);
        self.expect_due(sooner);
        Some(result)
    }

    /// Puts an entry in, under the lock of its shard.
    pub(in crate::conntrack) fn insert(&self, place: Place, shard: &mut Shard, entry: Entry) -> EntryId {
        let due = wheel::instant_of(wheel::tick_after(entry.expires_at));
        let slot = shard.insert(place, entry);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.expect_due(Some(due));
        place.id(slot, shard.generation(slot))
    }

    /// Takes an entry out, under the lock of its shard.
    pub(in crate::conntrack) fn remove(&self, id: EntryId, shard: &mut Shard) -> Option<(EntryId, Entry)> {
        let entry = shard.remove(id.slot())?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some((id, entry))
    }

    pub(in crate::conntrack) fn remove_id(&self, id: EntryId) -> Option<Entry> {
        let mut shard = self.shards.get(id.shard())?.0.lock();
        if !shard.holds(id) {
            return None;
        }
        let entry = shard.remove(id.slot())?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(entry)
    }

    /// Remembers that a shard has something to reap at a time.
    #[inline]
    pub(in crate::conntrack) fn expect_due(&self, at: Option<Instant>) {
        if let Some(at) = at
            && at.as_nanos() < self.next_due.load(Ordering::Relaxed)
        {
            self.next_due.fetch_min(at.as_nanos(), Ordering::Relaxed);
        }
    }

    /// When [`Table::reap`] has something to do.
    pub(in crate::conntrack) fn next_due(&self) -> Option<Instant> {
        match self.next_due.load(Ordering::Relaxed) {
            u64::MAX => None,
            nanos => Some(Instant::from_nanos(nanos)),
        }
    }

    /// Takes out what has ended. A bounded step: [`Table::next_due`] says when to come back, perhaps at once.
    pub(in crate::conntrack) fn reap(&self, now: Instant) -> Vec<(EntryId, Entry)> {
        let mut dead = Vec::new();
        if self.next_due().is_none_or(|due| due > now) {
            return dead;
        }
        self.next_due.store(u64::MAX, Ordering::Relaxed);
        for (number, shard) in self.shards.iter().enumerate() {
            let mut shard = shard.0.lock();
            let has_more = shard.reap(number, now, &mut dead);
            let due = shard.wheel.next_due().map(wheel::instant_of);
            self.expect_due(if has_more { Some(now) } else { due });
        }
        self.count.fetch_sub(dead.len(), Ordering::Relaxed);
        dead
    }

    /// Makes room: takes out one entry that is worth less than a new one, looking at few, from `place` on.
    pub(in crate::conntrack) fn early_drop(&self, place: Place) -> Option<(EntryId, Entry)> {
        let mut looks = EARLY_DROP_LOOKS;
        for step in 0..SHARDS {
            let number = (place.shard + step) % SHARDS;
            let mut shard = self.shards[number].0.lock();
            let len = shard.slots.made;
            let start = if len == 0 { 0 } else { place.hash % len };
            for at in 0..len {
                let slot = (start + at) % len;
                let Some(entry) = shard.entry(slot) else { continue };
                if entry.is_evictable() {
                    let id = EntryId::new(number, slot, shard.generation(slot));
                    let entry = shard.remove(slot)?;
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return Some((id, entry));
                }
                looks -= 1;
                if looks == 0 {
                    return None;
                }
            }
        }
        None
    }

    /// Copies the next entries from `at` on; returns where to go on. Entries that come or go meanwhile may be missed.
    pub(in crate::conntrack) fn copy_some(&self, at: Cursor, to: &mut Vec<Entry>) -> Option<Cursor> {
        let shard = self.shards.get(at.shard)?.0.lock();
        let end = at.slot.saturating_add(COPIED_AT_ONCE).min(shard.slots.made);
        to.extend((at.slot..end).filter_map(|slot| shard.slots.get(slot).entry.clone()));
        if end < shard.slots.made {
            return Some(Cursor { slot: end, ..at });
        }
        let next = at.shard + 1;
        (next < SHARDS).then_some(Cursor { shard: next, slot: 0 })
    }

    /// Shows every entry, a copy of each shard at a time.
    pub(in crate::conntrack) fn for_each(&self, mut show: impl FnMut(EntryId, Entry)) {
        for (number, shard) in self.shards.iter().enumerate() {
            let copies: Vec<_> = {
                let shard = shard.0.lock();
                let id = |slot, generation| EntryId::new(number, slot, generation);
                shard.entries().map(|(at, slot, entry)| (id(at, slot.generation), entry.clone())).collect()
            };
            for (id, entry) in copies {
                show(id, entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::{Proto, Sysctls};
    use crate::packet::tuple::PROTO_UDP;
    use crate::packet::{Addr, Family};

    fn tuple(number: u32) -> Tuple {
        let [a, b, c, d] = number.to_be_bytes();
        let (src, dst) = (Addr::from_v4([198, 18, c, d]), Addr::from_v4([198, 19, 0, 1]));
        let left = u16::from_be_bytes([a, b]);
        Tuple { src, dst, left, right: 53, zone: 0, proto: PROTO_UDP, family: Family::Ipv4 }
    }

    fn fill(count: u32) -> Table {
        let table = Table::new(7);
        for n in 0..count {
            let place = table.place(&tuple(n));
            let entry = Entry::new(tuple(n), Proto::Plain, Instant::from_secs(1), &Sysctls::default());
            table.insert(place, &mut table.lock(place), entry);
        }
        table
    }

    /// Bytes that a shard has asked for.
    fn allocated(shard: &Shard) -> usize {
        shard.slots.chunks.len() * CHUNK * size_of::<Slot>()
            + shard.slots.chunks.capacity() * size_of::<Box<[Slot; CHUNK]>>()
            + shard.slots.free.capacity() * size_of::<u32>()
            + shard.index.allocated()
            + Wheel::ALLOCATED
            + size_of::<Line<Mutex<Shard>>>()
    }

    #[test]
    fn a_connection_takes_less_than_320_bytes_with_everything_around_it() {
        let count = Sysctls::default().max;
        let table = fill(count);
        let total: usize = table.shards.iter().map(|shard| allocated(&shard.0.lock())).sum();
        let each = total / count as usize;
        assert!(each < 320, "{each} bytes");
    }

    #[test]
    fn either_direction_finds_the_connection_and_a_handle_dies_with_it() {
        let table = fill(1000);
        for n in 0..1000 {
            for (tuple, direction) in [(tuple(n), Direction::Original), (tuple(n).reply(), Direction::Reply)]
            {
                let place = table.place(&tuple);
                let found = table.lock(place).find(place, &tuple).unwrap();
                assert_eq!(found.direction, direction);
            }
        }
        let place = table.place(&tuple(7));
        let slot = table.lock(place).find(place, &tuple(7)).unwrap().slot;
        let id = place.id(slot, table.lock(place).generation(slot));
        assert!(table.remove_id(id).is_some());
        assert!(table.remove_id(id).is_none());
        let again = Entry::new(tuple(7), Proto::Plain, Instant::ZERO, &Sysctls::default());
        table.insert(place, &mut table.lock(place), again);
        assert!(table.with(id, |_| ()).is_none(), "the slot has another tenant");
        assert_eq!(table.len(), 1000);
    }

    #[test]
    fn reaping_goes_in_bounded_steps_and_forgets_nobody() {
        let count = 100_000;
        let table = fill(count);
        assert!(table.reap(Instant::ZERO).is_empty(), "too early");
        let (mut dead, mut steps, now) = (0, 0, Instant::from_secs(10));
        while table.next_due().is_some_and(|due| due <= now) {
            let reaped = table.reap(now).len();
            assert!(reaped <= SHARDS * REAP_LOOKS);
            dead += reaped;
            steps += 1;
        }
        assert_eq!((dead, table.len(), table.next_due()), (count as usize, 0, None));
        assert!(steps > 1);
    }
}

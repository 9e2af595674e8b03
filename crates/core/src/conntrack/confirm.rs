//! The end of a packet's way: a new connection enters the table.

#![forbid(unsafe_code)]

use super::{Conntrack, Direction, Entry, EntryId, EventKind, Happened, Helper, Status, Tracked, table};
use crate::base::fate::{DropReason, Fate, Stage};
use crate::base::time::Instant;
use crate::packet::Tuple;
use core::ops::ControlFlow::{Break, Continue};
use core::sync::atomic::Ordering;

impl Conntrack {
    /// Enters a new connection into the table, at the end of its first packet's way. Harmless for any other packet.
    pub fn confirm(&self, ct: &mut Tracked, now: Instant) -> Stage<()> {
        match ct.new.take() {
            Some(entry)
                if ct.direction == Direction::Original && !entry.status.contains(Status::CONFIRMED) =>
            {
                self.enter(ct, entry, now)
            }
            // An error about the packet that would have opened it, or one whose packet has ended it.
            None | Some(_) => Continue(()),
        }
    }

    fn enter(&self, ct: &mut Tracked, mut entry: Box<Entry>, now: Instant) -> Stage<()> {
        entry.status.insert(Status::CONFIRMED);
        let pending = entry.extra.as_mut().and_then(|extra| extra.rare.as_mut()?.pending.take());
        let (master, translated) = (entry.master(), entry.translated_reply());
        let (original, status, helper) = (entry.original, entry.status, entry.helper);
        let event = self.events.is_heard().then(|| entry.clone());
        if let Some(reply) = translated {
            self.end_if_over(&reply, now);
        }

        let place = self.table.place(&entry.original);
        let mut shard = self.table.lock(place);
        let keys = || [entry.original, entry.reply()].map(|tuple| self.table.alias_key(&tuple));
        if let Some(other) = shard.aliased(keys) {
            drop(shard);
            if self.table.with(other, |other| other.is_alive(now)).unwrap_or(false) {
                return self.give_way();
            }
            let dead = self.table.remove_id(other).map(|dead| (other, dead));
            self.bury(dead, now);
            shard = self.table.lock(place);
        }
        let mut dead = None;
        let both = [&entry.original, &entry.reply()];
        if let Some(table::Found { slot, direction }) = shard.find_either(place, both) {
            let there = place.id(slot, shard.generation(slot));
            if shard.entry(slot).is_some_and(|there| there.is_alive(now)) {
                return self.resolve_clash(ct, there, direction);
            }
            dead = self.table.remove(there, &mut shard);
        }
        let id = self.table.insert(place, &mut shard, *entry);
        drop(shard);
        self.bury(dead, now);
        if let Some(reply) = translated {
            if !self.table.insert_alias(reply, id) {
                self.table.remove_id(id);
                return self.give_way();
            }
            if helper == Some(Helper::Ftp) {
                self.rewrites_payloads.store(true, Ordering::Relaxed);
            }
            self.note_source(&original, status, id);
        }

        ct.id = Some(id);
        ct.status.insert(Status::CONFIRMED);
        self.counters.insert.add(1);
        if let Some(master) = master {
            self.table.with(master, |master| master.extra_mut().children += 1);
        }
        if let Some(entry) = event {
            self.events.entry(EventKind::New, Happened::at_first(&entry), now, &entry);
        }
        if let Some(expectation) = pending {
            // Another worker may have announced the same meanwhile: then that one stands.
            let _ = self.expect(ct, expectation, now);
        }
        Continue(())
    }

    /// Takes a connection of this tuple out of the table if its time is over.
    pub(super) fn end_if_over(&self, tuple: &Tuple, now: Instant) {
        let Some(mut held) = self.table.hold(tuple) else { return };
        if held.entry().is_some_and(|entry| !entry.is_alive(now)) {
            let id = held.id(held.shard.generation(held.slot));
            self.end(id, held.shard, now);
        }
    }

    /// One of the new connection's tuples is another connection's.
    fn give_way(&self) -> Stage<()> {
        self.counters.insert_failed.add(1);
        self.counters.drop.add(1);
        Break(Fate::Dropped(DropReason::ConfirmClash))
    }

    /// Another packet of the flow was confirmed while this one was on its way.
    fn resolve_clash(&self, ct: &mut Tracked, there: EntryId, direction: Direction) -> Stage<()> {
        if direction == Direction::Original {
            // The same connection, so the packet belongs to the entry that came first.
            self.counters.clash_resolve.add(1);
            ct.id = Some(there);
            return Continue(());
        }
        self.give_way()
    }

    /// Cleans up behind entries that have left the table: what they announced is forgotten, and listeners are told.
    pub(super) fn bury(&self, dead: impl IntoIterator<Item = (EntryId, Entry)>, now: Instant) {
        for (id, mut entry) in dead {
            entry.status.insert(Status::DYING);
            if let Some(reply) = entry.translated_reply() {
                self.table.remove_alias(&reply, id);
            }
            if entry.helper.is_some() {
                for expectation in self.expectations.forget(id) {
                    self.events.expectation(EventKind::Destroy, now, &expectation);
                }
            }
            if let Some(master) = entry.master() {
                self.table.with(master, |master| {
                    let extra = master.extra_mut();
                    extra.children = extra.children.saturating_sub(1);
                });
            }
            self.events.entry(EventKind::Destroy, Happened::DESTROY, now, &entry);
        }
    }
}

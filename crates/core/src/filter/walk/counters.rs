//! How often each rule held and each policy decided: a row of cells for every worker, so that no two write the same.

#![forbid(unsafe_code)]

use crate::filter::rule::Count;
use core::fmt;
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most workers that have a row of their own; later ones share one.
const MAX_WORKERS: usize = 64;

#[derive(Default)]
struct Cell {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Cell {
    /// Nobody else writes to this row, so a plain addition loses nothing and costs no locked bus.
    #[inline]
    fn count_alone(&self, bytes: u64) {
        self.packets.store(self.packets.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.bytes.store(self.bytes.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }
}

/// Cells of one ruleset, by worker and slot.
pub(in crate::filter) struct Counters {
    slots: usize,
    rows: [OnceLock<Box<[Cell]>>; MAX_WORKERS],
    /// The row of all workers that have none.
    shared: OnceLock<Box<[Cell]>>,
    /// What was counted when somebody set the counters to zero. Workers go on in cells of their own, to which nobody else
    /// may write.
    zeroed: Mutex<Vec<Count>>,
}

impl Counters {
    pub(in crate::filter) fn new(slots: usize) -> Self {
        let rows = [const { OnceLock::new() }; MAX_WORKERS];
        Self { slots, rows, shared: OnceLock::new(), zeroed: Mutex::default() }
    }

    pub(in crate::filter) const fn slots(&self) -> usize {
        self.slots
    }

    /// The row of one worker.
    #[inline]
    pub(in crate::filter) fn row(&self, worker: usize) -> Row<'_> {
        let cells = || (0..self.slots).map(|_| Cell::default()).collect();
        match self.rows.get(worker) {
            Some(row) => Row { cells: row.get_or_init(cells), shared: false },
            None => Row { cells: self.shared.get_or_init(cells), shared: true },
        }
    }

    /// Counts once for a worker.
    #[inline]
    pub(in crate::filter) fn count(&self, worker: usize, slot: usize, bytes: u64) {
        match self.rows.get(worker).and_then(OnceLock::get) {
            Some(row) => row[slot].count_alone(bytes),
            None => self.count_first(worker, slot, bytes),
        }
    }

    /// The same for a worker without a row of its own, or without one yet.
    #[cold]
    fn count_first(&self, worker: usize, slot: usize, bytes: u64) {
        self.row(worker).count(slot, bytes);
    }

    /// From here on `count`, which is what there is now, is nothing.
    pub(in crate::filter) fn set_zero(&self, slot: usize, count: Count) {
        let mut zeroed = self.zeroed.lock();
        zeroed.resize(self.slots, Count::default());
        zeroed[slot] = count;
    }

    /// What is taken off the counters of a slot.
    pub(in crate::filter) fn zero(&self, slot: usize) -> Count {
        self.zeroed.lock().get(slot).copied().unwrap_or_default()
    }

    /// The sum over all workers.
    pub(in crate::filter) fn total(&self, slot: usize) -> Count {
        let mut total = Count::default();
        let rows = self.rows.iter().chain([&self.shared]);
        for cell in rows.filter_map(OnceLock::get).map(|row| &row[slot]) {
            total += Count {
                packets: cell.packets.load(Ordering::Relaxed),
                bytes: cell.bytes.load(Ordering::Relaxed),
            };
        }
        total
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// Where one worker counts.
#[derive(Clone, Copy)]
pub(in crate::filter) struct Row<'a> {
    cells: &'a [Cell],
    shared: bool,
}

impl Row<'_> {
    #[inline]
    pub(in crate::filter) fn count(&self, slot: usize, bytes: u64) {
        let cell = &self.cells[slot];
        if self.shared {
            cell.packets.fetch_add(1, Ordering::Relaxed);
            cell.bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            cell.count_alone(bytes);
        }
    }
}

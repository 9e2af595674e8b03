//! How often each rule held and each policy decided: a row of cells for every worker, so that no two write the same.

#![forbid(unsafe_code)]

use super::rule::Count;
use core::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most workers that have a row of their own; later ones share the last.
const MAX_WORKERS: usize = 64;

#[derive(Default)]
struct Cell {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// Cells of one ruleset, by worker and slot.
pub(super) struct Counters {
    slots: usize,
    rows: [OnceLock<Box<[Cell]>>; MAX_WORKERS],
}

impl Counters {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, rows: [const { OnceLock::new() }; MAX_WORKERS] }
    }

    /// The row of one worker.
    #[inline(always)]
    pub(super) fn row(&self, worker: usize) -> Row<'_> {
        let row = self.rows[worker.min(MAX_WORKERS - 1)]
            .get_or_init(|| (0..self.slots).map(|_| Cell::default()).collect());
        Row { cells: row, shared: worker >= MAX_WORKERS - 1 }
    }

    /// The sum over all workers.
    pub(super) fn total(&self, slot: usize) -> Count {
        let mut total = Count::default();
        for cell in self.rows.iter().filter_map(OnceLock::get).map(|row| &row[slot]) {
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
pub(super) struct Row<'a> {
    cells: &'a [Cell],
    shared: bool,
}

impl Row<'_> {
    #[inline(always)]
    pub(super) fn count(&self, slot: usize, bytes: u64) {
        let Cell { packets, bytes: total } = &self.cells[slot];
        if self.shared {
            packets.fetch_add(1, Ordering::Relaxed);
            total.fetch_add(bytes, Ordering::Relaxed);
            return;
        }
        // Nobody else writes to this row, so a plain addition loses nothing and costs no locked bus.
        packets.store(packets.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        total.store(total.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }
}

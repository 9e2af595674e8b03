//! How much each port carried. Workers count for themselves during a burst and add it up once behind it.

use std::sync::atomic::{AtomicU64, Ordering};

/// One port's frames since the start.
#[derive(Debug, Default)]
pub struct PortCounters {
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    tx_lost: AtomicU64,
}

/// A reading of [`PortCounters`], or what one worker counted during a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortCount {
    /// As they came in: a super-frame counts once.
    pub rx_frames: u64,
    pub rx_bytes: u64,
    /// As they were queued.
    pub tx_frames: u64,
    pub tx_bytes: u64,
    /// Queued and not sent: the interface is down, or its queue is full.
    pub tx_lost: u64,
}

impl PortCounters {
    pub fn read(&self) -> PortCount {
        PortCount {
            rx_frames: self.rx_frames.load(Ordering::Relaxed),
            rx_bytes: self.rx_bytes.load(Ordering::Relaxed),
            tx_frames: self.tx_frames.load(Ordering::Relaxed),
            tx_bytes: self.tx_bytes.load(Ordering::Relaxed),
            tx_lost: self.tx_lost.load(Ordering::Relaxed),
        }
    }

    pub(super) fn add(&self, count: PortCount) {
        let PortCount { rx_frames, rx_bytes, tx_frames, tx_bytes, tx_lost } = count;
        self.rx_frames.fetch_add(rx_frames, Ordering::Relaxed);
        self.rx_bytes.fetch_add(rx_bytes, Ordering::Relaxed);
        self.tx_frames.fetch_add(tx_frames, Ordering::Relaxed);
        self.tx_bytes.fetch_add(tx_bytes, Ordering::Relaxed);
        self.tx_lost.fetch_add(tx_lost, Ordering::Relaxed);
    }
}

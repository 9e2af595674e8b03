//! What one look at a router shows, and how fast it moves between two.

use serde::Serialize;
use stateway_runtime::control::protocol::{Interface, Named, Status, Summary};

/// One look.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Snapshot {
    pub(super) status: Option<Status>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) drops: Vec<Named>,
    pub(super) stats: Vec<Named>,
    pub(super) summary: Summary,
}

impl Snapshot {
    fn uptime(&self) -> f64 {
        self.status.as_ref().map_or(0.0, |status| status.uptime_seconds)
    }
}

/// Changes a second, each in the order of the snapshot's own list.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) new_connections: f64,
    pub(super) interfaces: Vec<PortRate>,
    pub(super) drops: Vec<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct PortRate {
    pub(super) rx_frames: f64,
    pub(super) rx_bits: f64,
    pub(super) tx_frames: f64,
    pub(super) tx_bits: f64,
}

impl Rates {
    /// All zero if no time has passed.
    pub(super) fn between(before: &Snapshot, now: &Snapshot) -> Self {
        let seconds = now.uptime() - before.uptime();
        let rate = |before: u64, now: u64| {
            if seconds > 0.0 { now.saturating_sub(before) as f64 / seconds } else { 0.0 }
        };
        let find = |list: &[Named], name: &str| list.iter().find(|n| n.name == name).map_or(0, |n| n.count);
        let interfaces = now.interfaces.iter().zip(&before.interfaces).map(|(now, before)| PortRate {
            rx_frames: rate(before.rx_frames, now.rx_frames),
            rx_bits: rate(before.rx_bytes, now.rx_bytes) * 8.0,
            tx_frames: rate(before.tx_frames, now.tx_frames),
            tx_bits: rate(before.tx_bytes, now.tx_bytes) * 8.0,
        });
        Self {
            new_connections: rate(find(&before.stats, "insert"), find(&now.stats, "insert")),
            interfaces: interfaces.collect(),
            drops: now.drops.iter().map(|n| rate(find(&before.drops, &n.name), n.count)).collect(),
        }
    }
}

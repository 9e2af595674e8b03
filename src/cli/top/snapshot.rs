//! What one look at a router shows, and how fast it moves between two.

use super::numbers::bytes;
use crate::cli::rules::target_of;
use serde::Serialize;
use stateway_runtime::control::protocol::{Interface, Named, RuleCount, Status, Summary};
use std::collections::BTreeMap;

/// One look.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Snapshot {
    pub(super) status: Option<Status>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) drops: Vec<Named>,
    /// INVALID packets by reason.
    pub(super) invalid: Vec<Named>,
    pub(super) stats: Vec<Named>,
    pub(super) rules: Vec<RuleCount>,
    pub(super) summary: Summary,
}

impl Snapshot {
    fn uptime(&self) -> f64 {
        self.status.as_ref().map_or(0.0, |status| status.uptime_seconds)
    }

    /// Ports that lost their interface.
    pub(super) fn gone(&self) -> &[String] {
        self.status.as_ref().map_or(&[], |status| &status.gone)
    }
}

/// Changes a second, each in the order of the snapshot's own list.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) new_connections: f64,
    pub(super) interfaces: Vec<PortRate>,
    pub(super) drops: Vec<f64>,
    pub(super) invalid: Vec<f64>,
    /// Packets.
    pub(super) rules: Vec<f64>,
    /// Bits of the connections that are listed, by their number: those that were listed before, and count bytes.
    #[serde(skip)]
    pub(super) connections: BTreeMap<u32, f64>,
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
        let by_name = |now: &[Named], before: &[Named]| -> Vec<f64> {
            now.iter().map(|n| rate(find(before, &n.name), n.count)).collect()
        };
        let interfaces = now.interfaces.iter().zip(&before.interfaces).map(|(now, before)| PortRate {
            rx_frames: rate(before.rx_frames, now.rx_frames),
            rx_bits: rate(before.rx_bytes, now.rx_bytes) * 8.0,
            tx_frames: rate(before.tx_frames, now.tx_frames),
            tx_bits: rate(before.tx_bytes, now.tx_bytes) * 8.0,
        });
        Self {
            new_connections: rate(find(&before.stats, "insert"), find(&now.stats, "insert")),
            interfaces: interfaces.collect(),
            drops: by_name(&now.drops, &before.drops),
            invalid: by_name(&now.invalid, &before.invalid),
            rules: rules(before, now, rate),
            connections: connections(before, now, rate),
        }
    }

    pub(super) fn packets(&self) -> f64 {
        sum(self.interfaces.iter().map(|port| port.rx_frames))
    }

    pub(super) fn dropped(&self) -> f64 {
        sum(self.drops.iter().copied())
    }
}

/// The sum of nothing is 0, not -0 as of floating point numbers.
fn sum(rates: impl Iterator<Item = f64>) -> f64 {
    rates.fold(0.0, |sum, rate| sum + rate)
}

/// A rule that was not there before, or not at that place, has no rate yet.
fn rules(before: &Snapshot, now: &Snapshot, rate: impl Fn(u64, u64) -> f64) -> Vec<f64> {
    fn key(rule: &RuleCount) -> (u8, &str, &str) {
        (rule.family, &rule.name, &rule.text)
    }
    let known: BTreeMap<_, u64> = before.rules.iter().map(|rule| (key(rule), rule.packets)).collect();
    let of = |rule: &RuleCount| known.get(&key(rule)).map_or(0.0, |before| rate(*before, rule.packets));
    now.rules.iter().map(of).collect()
}

fn connections(before: &Snapshot, now: &Snapshot, rate: impl Fn(u64, u64) -> f64) -> BTreeMap<u32, f64> {
    let listed = before.summary.newest.iter();
    let known: BTreeMap<u32, u64> = listed.filter_map(|entry| Some((entry.id, bytes(entry)?))).collect();
    let of = |entry| -> Option<(u32, f64)> {
        let entry: &stateway_runtime::control::protocol::EntryView = entry;
        Some((entry.id, rate(*known.get(&entry.id)?, bytes(entry)?) * 8.0))
    };
    now.summary.newest.iter().filter_map(of).collect()
}

/// Whether packets that meet this rule, or this policy, go no further.
pub(super) fn refuses(rule: &RuleCount) -> bool {
    let target = if rule.name.ends_with("/policy") { rule.text.clone() } else { target_of(&rule.text) };
    matches!(target.as_str(), "DROP" | "REJECT")
}

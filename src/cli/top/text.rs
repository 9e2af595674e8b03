//! One look in plain text, for standard output that is no terminal.

use super::numbers::{duration, short};
use super::snapshot::{Rates, Snapshot, refuses};
use stateway_runtime::control::protocol::Named;

/// Titles and their lines: the table, the ports, the states, the drops, the newest connections.
pub(super) fn sections(now: &Snapshot, rates: &Rates) -> Vec<(String, Vec<String>)> {
    let newest = now.summary.newest.iter().map(|entry| entry.line.clone()).collect();
    vec![
        (headline(now, rates), Vec::new()),
        ("Ports".to_owned(), ports(now, rates)),
        ("Connections by state".to_owned(), states(now)),
        ("Drops by reason".to_owned(), counts(&now.drops, &rates.drops)),
        ("INVALID by reason".to_owned(), counts(&now.invalid, &rates.invalid)),
        ("Drops by rule".to_owned(), rules(now, rates)),
        ("Newest connections".to_owned(), newest),
    ]
}

fn headline(now: &Snapshot, rates: &Rates) -> String {
    let Some(status) = &now.status else { return String::new() };
    let (count, limit) = (now.summary.count, now.summary.limit);
    format!(
        "stateway {}, {} mode, up {}: {count} of {limit} connections, {} new/s",
        status.version,
        status.mode,
        duration(status.uptime_seconds),
        short(rates.new_connections)
    )
}

fn ports(now: &Snapshot, rates: &Rates) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<16} {:<4} {:>9} {:>9} {:>9} {:>9} {:>12} {:>12} {:>8}",
        "port", "link", "in pps", "in bit/s", "out pps", "out bit/s", "frames in", "frames out", "lost"
    )];
    for (n, port) in now.interfaces.iter().enumerate() {
        let rate = rates.interfaces.get(n).copied().unwrap_or_default();
        lines.push(format!(
            "{:<16} {:<4} {:>9} {:>9} {:>9} {:>9} {:>12} {:>12} {:>8}",
            port.name,
            port.link,
            short(rate.rx_frames),
            short(rate.rx_bits),
            short(rate.tx_frames),
            short(rate.tx_bits),
            port.rx_frames,
            port.tx_frames,
            port.tx_lost
        ));
    }
    lines
}

fn states(now: &Snapshot) -> Vec<String> {
    /// As wide as the most frequent state's bar.
    const WIDTH: u64 = 40;
    let most = now.summary.by_state.iter().map(|state| state.count).max().unwrap_or(0).max(1);
    let bar = |count: u64| "#".repeat((count * WIDTH).div_ceil(most) as usize);
    let states = now.summary.by_state.iter();
    states.map(|state| format!("{:<20} {:>8} {}", state.name, state.count, bar(state.count))).collect()
}

/// Only the reasons that were ever met.
fn counts(counts: &[Named], rates: &[f64]) -> Vec<String> {
    let met = counts.iter().zip(rates).filter(|(reason, _)| reason.count > 0);
    met.map(|(reason, rate)| line(&reason.name, reason.count, *rate)).collect()
}

fn rules(now: &Snapshot, rates: &Rates) -> Vec<String> {
    let refusing = now.rules.iter().zip(&rates.rules).filter(|(rule, _)| refuses(rule) && rule.packets > 0);
    refusing.map(|(rule, rate)| line(&rule.name, rule.packets, *rate)).collect()
}

fn line(name: &str, count: u64, rate: f64) -> String {
    format!("{name:<24} {count:>8} {:>9}/s", short(rate))
}

//! The look of it: the same sections on a terminal and in plain text.

use super::snapshot::{Rates, Snapshot};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph};

/// Titles and their lines: the table, the ports, the states, the drops, the newest connections.
pub(super) fn sections(now: &Snapshot, rates: &Rates) -> Vec<(String, Vec<String>)> {
    vec![
        (headline(now, rates), Vec::new()),
        ("Ports".to_owned(), ports(now, rates)),
        ("Connections by state".to_owned(), states(now)),
        ("Drops".to_owned(), drops(now, rates)),
        ("Newest connections".to_owned(), newest(now)),
    ]
}

/// Draws all sections one under the other; the connections get what room is left.
pub(super) fn draw(frame: &mut Frame, now: &Snapshot, rates: &Rates) {
    let sections = sections(now, rates);
    let heights = sections.iter().enumerate().map(|(n, (_, lines))| match n {
        0 => Constraint::Length(1),
        4 => Constraint::Min(3),
        _ => Constraint::Length(lines.len() as u16 + 2),
    });
    let areas = Layout::vertical(heights).split(frame.area());
    for (n, (title, lines)) in sections.into_iter().enumerate() {
        let text: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
        let widget = if n == 0 {
            Paragraph::new(title)
        } else {
            Paragraph::new(text).block(Block::bordered().title(format!(" {title} ")))
        };
        frame.render_widget(widget, areas[n]);
    }
}

fn headline(now: &Snapshot, rates: &Rates) -> String {
    let Some(status) = &now.status else { return String::new() };
    let (count, limit) = (now.summary.count, now.summary.limit);
    format!(
        "stateway {}, {} mode, up {}: {count} of {limit} connections, {} new/s   (q ends)",
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
fn drops(now: &Snapshot, rates: &Rates) -> Vec<String> {
    let drops = now.drops.iter().enumerate().filter(|(_, drop)| drop.count > 0);
    let line = |(n, drop): (usize, &stateway_runtime::control::protocol::Named)| {
        let rate = rates.drops.get(n).copied().unwrap_or(0.0);
        format!("{:<20} {:>8} {:>9}/s", drop.name, drop.count, short(rate))
    };
    drops.map(line).collect()
}

fn newest(now: &Snapshot) -> Vec<String> {
    now.summary.newest.iter().map(|entry| entry.line.clone()).collect()
}

/// Three digits and a unit.
fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.iter().find(|(size, _)| value >= *size) {
        Some((size, unit)) => format!("{:.1}{unit}", value / size),
        None => format!("{value:.0}"),
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes, seconds) =
        (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}d {hours:02}:{minutes:02}")
    } else {
        format!("{hours:02}:{minutes:02}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use stateway_runtime::control::protocol::{Interface, Named, Status, Summary};

    fn snapshot(uptime_seconds: f64, frames: u64) -> Snapshot {
        let named = |name: &str, count| Named { name: name.into(), count };
        Snapshot {
            status: Some(Status {
                version: "1".into(),
                pid: 1,
                uptime_seconds,
                file: None,
                mode: "bridge".into(),
                burst: "poll".into(),
                gone: Vec::new(),
                confined: Vec::new(),
                kept: Vec::new(),
            }),
            interfaces: vec![Interface {
                name: "host77".into(),
                mac: String::new(),
                mtu: 1500,
                addresses: Vec::new(),
                device: "tap".into(),
                link: "gone".into(),
                rx_frames: frames,
                rx_bytes: frames * 1000,
                tx_frames: 0,
                tx_bytes: 0,
                tx_lost: 0,
            }],
            drops: vec![named("rule", 0), named("policy", frames)],
            stats: vec![named("insert", frames / 2)],
            summary: Summary {
                count: 3,
                limit: 100,
                by_state: vec![named("tcp ESTABLISHED", 2), named("udp", 1)],
                ..Summary::default()
            },
        }
    }

    #[test]
    fn rates_are_what_changed_between_two_looks() {
        let (before, now) = (snapshot(10.0, 1000), snapshot(12.0, 5000));
        let rates = Rates::between(&before, &now);
        assert!((rates.new_connections - 1000.0).abs() < 1e-9);
        assert!((rates.interfaces[0].rx_bits - 16e6).abs() < 1e-3);
        assert_eq!(Rates::between(&now, &now).drops, [0.0, 0.0], "no time, no rate");
    }

    #[test]
    fn a_terminal_shows_every_section() {
        let (before, now) = (snapshot(10.0, 1000), snapshot(3.0 * 86_400.0 + 12.0, 5000));
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &now, &Rates::between(&before, &now))).unwrap();
        let text = terminal.backend().to_string();
        for part in [
            "up 3d 00:00",
            "3 of 100 connections",
            "host77           gone",
            "tcp ESTABLISHED",
            "policy",
            "Newest",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains(" rule "), "a reason that nobody met");
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.0, "0"), (999.0, "999"), (1000.0, "1.0k"), (2.5e6, "2.5M"), (1.2e10, "12.0G")]
        {
            assert_eq!(short(value), text);
        }
    }
}

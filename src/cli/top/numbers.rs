//! Numbers and names as short as columns want them.

use stateway_runtime::control::protocol::{EntryView, FlowView};

/// Three digits and a unit.
pub(super) fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.iter().find(|(size, _)| value >= *size) {
        Some((size, unit)) => format!("{:.1}{unit}", value / size),
        None => format!("{value:.0}"),
    }
}

/// As much of a text as there is room for, and a mark where it goes on.
pub(super) fn fitted(text: String, room: usize) -> String {
    if text.chars().count() <= room {
        return text;
    }
    let mut cut: String = text.chars().take(room.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes, seconds) =
        (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}d {hours:02}:{minutes:02}")
    } else {
        format!("{hours:02}:{minutes:02}:{seconds:02}")
    }
}

/// From whom to whom, with ports or what makes a ping.
pub(super) fn flow(flow: &FlowView) -> String {
    let end = |address: std::net::IpAddr, port: Option<u16>| match port {
        Some(port) if address.is_ipv6() => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_string(),
    };
    let icmp = match (flow.icmp_type, flow.icmp_id) {
        (Some(kind), Some(id)) => format!(" type {kind} id {id}"),
        _ => String::new(),
    };
    format!("{} → {}{icmp}", end(flow.src, flow.sport), end(flow.dst, flow.dport))
}

/// The protocol's state, or what is known of the connection where it has none.
pub(super) fn state(entry: &EntryView) -> &str {
    let has = |word: &str| entry.status.iter().any(|have| have == word);
    match &entry.state {
        Some(state) => state,
        None if has("ASSURED") => "ASSURED",
        None if has("SEEN_REPLY") => "REPLIED",
        None => "UNREPLIED",
    }
}

/// Bytes of both directions, if they are counted.
pub(super) fn bytes(entry: &EntryView) -> Option<u64> {
    Some(entry.original.bytes? + entry.reply.bytes?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.0, "0"), (999.0, "999"), (1000.0, "1.0k"), (2.5e6, "2.5M"), (1.2e10, "12.0G")]
        {
            assert_eq!(short(value), text);
        }
        assert_eq!((fitted("→→→".into(), 3), fitted("→→→→".into(), 3)), ("→→→".into(), "→→…".into()));
        assert_eq!((duration(3.0 * 86_400.0 + 12.0), duration(62.0)), ("3d 00:00".into(), "00:01:02".into()));
    }
}

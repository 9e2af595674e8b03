//! What would become of a packet now: judged by a copy of the router, of which nothing is changed.

use super::protocol::Reply;
use super::server::Context;
use stateway_core::iface::IfaceId;
use stateway_core::packet::{ETHERNET_LEN, Offload, Packet, Segment, TcpFlags};
use stateway_core::router::Router;
use stateway_core::time::Instant;
use stateway_trace::explain;

/// A copy of more connections than this would take too much memory, and too long.
const MAX_CONNECTIONS: usize = 1 << 18;

/// # Errors
/// What is wrong with the question, or why the router makes no copy of itself; for the client.
pub(super) fn explain(context: &Context, in_iface: &str, frame: &str, fit: bool) -> Result<Reply, String> {
    let router = &context.shared.router;
    let named = router.ifaces().iter().position(|iface| iface.name == in_iface);
    let iface = named.map(|at| IfaceId(at as u16)).ok_or_else(|| {
        let names: Vec<String> = router.ifaces().iter().map(|iface| format!("`{}`", iface.name)).collect();
        format!("no port `{in_iface}`\n  hint: the router has {}", names.join(", "))
    })?;
    let mut frame = bytes(frame).ok_or("a frame is written in hex, two digits a byte")?;
    let count = router.conntrack().count();
    if count > MAX_CONNECTIONS {
        return Err(format!(
            "the table holds {count} connections, and a copy is made of {MAX_CONNECTIONS} at most\n  \
             hint: `stateway watch --explain` shows the way of packets that come in"
        ));
    }
    let config = context.config.clone().ok_or("this router does not know what it was made from")?;
    let now = context.shared.clock.now();
    let copy = router.copied(config, now).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        format!("no copy of the router can be made: {}", errors.join("; "))
    })?;
    if fit {
        fit_in(&mut frame, &copy, now);
    }
    let account = explain::explain(&copy, &mut copy.worker(), now, (iface, &frame, Offload::NONE));
    let text = explain::render(&account);
    let account = serde_json::to_value(&account).map_err(|error| error.to_string())?;
    Ok(Reply::Explained { account, text })
}

/// Gives a segment the numbers that its sender would go on with. They cannot be known to whoever asks.
fn fit_in(frame: &mut [u8], router: &Router, now: Instant) {
    let Ok(pkt) = Packet::parse(frame, Offload::NONE) else { return };
    let Some((seq, ack)) = router.conntrack().next_segment(&pkt, now) else { return };
    let acknowledges = Segment::parse(pkt.l4()).is_some_and(|segment| segment.flags.contains(TcpFlags::ACK));
    let at = ETHERNET_LEN + pkt.l3_len() - pkt.l4().len();
    if let Some(header) = frame.get_mut(at..at + 12) {
        header[4..8].copy_from_slice(&seq.to_be_bytes());
        header[8..12].copy_from_slice(&if acknowledges { ack } else { 0 }.to_be_bytes());
    }
    if let Ok(mut pkt) = Packet::parse(frame, Offload::NONE) {
        pkt.fill_l4_checksum();
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) || !hex.len().is_multiple_of(2) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn hex_is_two_digits_a_byte() {
        assert_eq!(bytes("00ffA5"), Some(vec![0, 255, 0xa5]));
        assert_eq!(bytes(""), Some(Vec::new()));
        assert!(["0", "0g", "é", "+1"].iter().all(|hex| bytes(hex).is_none()));
    }
}

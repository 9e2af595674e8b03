//! Frames that wait a moment before they are written: for their verdict, and for earlier frames of other ports.
//!
//! A frame that a host sent is married to the first verdict of its port that tells of the same packet; both come in
//! order.

#![forbid(unsafe_code)]

use core::net::IpAddr;
use stateway_core::packet::{Offload, Packet};
use stateway_runtime::control::protocol::Verdict;
use stateway_trace::capture::finish_checksum;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Earlier frames of other ports are there after so long.
const SETTLES: Duration = Duration::from_millis(100);
/// A verdict is there after so long, or is lost.
const DECIDED: Duration = Duration::from_secs(1);
/// No more is held than this; then the earliest frame does not wait any longer.
const MAX_FRAMES: usize = 16_384;
const MAX_BYTES: usize = 32 << 20;
/// Verdicts whose frames did not come yet, and packets whose verdict comes too late.
const MAX_UNMARRIED: usize = 4096;

/// A frame that was captured.
#[derive(Clone, Debug)]
pub(super) struct Captured {
    /// The place of its port.
    pub(super) port: usize,
    /// Since 1970.
    pub(super) at: Duration,
    pub(super) frame: Vec<u8>,
    /// A host sent it to the router.
    pub(super) came_in: bool,
    /// The packet in it, if a verdict tells of it.
    packet: Option<Key>,
    /// What became of it.
    pub(super) verdict: Option<String>,
}

impl Captured {
    pub(super) fn new(port: usize, at: Duration, mut frame: Vec<u8>, came_in: bool) -> Self {
        let packet = if came_in { key_of(port, &mut frame) } else { None };
        // The router finished it, or its card would have: on the wire it is right.
        finish_checksum(&mut frame);
        Self { port, at, frame, came_in, packet, verdict: None }
    }
}

/// What a frame and its verdict have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    port: usize,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
}

fn key_of(port: usize, frame: &mut [u8]) -> Option<Key> {
    // A super-frame, or a checksum that is still to be filled in, parses all the same.
    let pkt = Packet::parse(frame, Offload::NONE).ok()?;
    let (src, dst) = (pkt.src().to_ip(pkt.family()), pkt.dst().to_ip(pkt.family()));
    Some(Key { port, src, dst, protocol: pkt.proto(), ports: pkt.ports() })
}

struct Waiting {
    captured: Captured,
    since: Instant,
}

pub(super) struct Held {
    ports: Vec<String>,
    /// In the order of time; those of the same time in the order in which they came.
    frames: BTreeMap<(Duration, u64), Waiting>,
    bytes: usize,
    count: u64,
    verdicts: VecDeque<(Key, String)>,
    /// Packets that were written without their verdict: it is none of a later packet that looks the same.
    given_up: VecDeque<Key>,
}

impl Held {
    pub(super) fn new(ports: &[&str]) -> Self {
        Self {
            ports: ports.iter().map(|port| (*port).to_owned()).collect(),
            frames: BTreeMap::new(),
            bytes: 0,
            count: 0,
            verdicts: VecDeque::new(),
            given_up: VecDeque::new(),
        }
    }

    pub(super) fn frame(&mut self, mut captured: Captured, now: Instant) {
        if let Some(key) = captured.packet
            && let Some(at) = self.verdicts.iter().position(|(of, _)| *of == key)
        {
            captured.verdict = self.verdicts.remove(at).map(|(_, text)| text);
        }
        self.bytes += captured.frame.len();
        self.count += 1;
        self.frames.insert((captured.at, self.count), Waiting { captured, since: now });
    }

    pub(super) fn verdict(&mut self, verdict: Verdict) {
        let Some(port) = self.ports.iter().position(|port| *port == verdict.in_iface) else { return };
        let (Some(src), Some(dst), Some(protocol)) = (verdict.src, verdict.dst, verdict.protocol) else {
            return;
        };
        let key = Key { port, src, dst, protocol, ports: verdict.sport.zip(verdict.dport) };
        if let Some(at) = self.given_up.iter().position(|of| *of == key) {
            self.given_up.remove(at);
            return;
        }
        let text = describe(verdict);
        let waits = |waiting: &&mut Waiting| {
            waiting.captured.packet == Some(key) && waiting.captured.verdict.is_none()
        };
        if let Some(waiting) = self.frames.values_mut().find(waits) {
            waiting.captured.verdict = Some(text);
            return;
        }
        if self.verdicts.len() == MAX_UNMARRIED {
            self.verdicts.pop_front();
        }
        self.verdicts.push_back((key, text));
    }

    /// The earliest frame, once it has waited long enough.
    pub(super) fn take(&mut self, now: Instant) -> Option<Captured> {
        let Waiting { captured, since } = self.frames.first_key_value()?.1;
        let is_married = captured.packet.is_none() || captured.verdict.is_some();
        let long_enough = if is_married { SETTLES } else { DECIDED };
        let is_full = self.frames.len() > MAX_FRAMES || self.bytes > MAX_BYTES;
        if is_full || now.duration_since(*since) >= long_enough { self.take_any() } else { None }
    }

    /// The earliest frame, however long it has waited.
    pub(super) fn take_any(&mut self) -> Option<Captured> {
        let (_, Waiting { captured, .. }) = self.frames.pop_first()?;
        self.bytes -= captured.frame.len();
        if let (Some(key), None) = (captured.packet, &captured.verdict) {
            if self.given_up.len() == MAX_UNMARRIED {
                self.given_up.pop_front();
            }
            self.given_up.push_back(key);
        }
        Some(captured)
    }
}

/// `ESTABLISHED, forwarded to right by filter/FORWARD/1`.
fn describe(verdict: Verdict) -> String {
    let state = verdict.ctstate.unwrap_or_else(|| "no state".to_owned());
    let by = verdict.rule.map(|rule| format!(" by {rule}")).unwrap_or_default();
    let why = verdict.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let out = if verdict.out.is_empty() { String::new() } else { format!(" to {}", verdict.out.join(", ")) };
    format!("{state}, {}{out}{by}{why}", verdict.fate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::Ipv4Packet;
    use stateway_core::packet::tuple::PROTO_UDP;

    const CLIENT: [u8; 4] = [192, 0, 2, 1];
    const SERVER: [u8; 4] = [192, 0, 2, 2];

    /// A datagram without payload, from a port of the client.
    fn datagram(sport: u16) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, PROTO_UDP, 0, 0]);
        frame.extend([CLIENT, SERVER].concat());
        frame.extend([sport.to_be_bytes(), [0, 53], [0, 8], [0, 0]].concat());
        Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        frame
    }

    fn captured(port: usize, millis: u64, sport: u16) -> Captured {
        Captured::new(port, Duration::from_millis(millis), datagram(sport), port == 0)
    }

    fn verdict(sport: u16, fate: &str) -> Verdict {
        Verdict {
            in_iface: "lan".into(),
            src: Some(CLIENT.into()),
            dst: Some(SERVER.into()),
            protocol: Some(PROTO_UDP),
            sport: Some(sport),
            dport: Some(53),
            fate: fate.into(),
            ..Verdict::default()
        }
    }

    /// Port, time and verdict of each frame that may be written.
    fn written(held: &mut Held, now: Instant) -> Vec<(usize, u64, Option<String>)> {
        core::iter::from_fn(|| held.take(now))
            .map(|frame| (frame.port, frame.at.as_millis() as u64, frame.verdict))
            .collect()
    }

    #[test]
    fn frames_of_all_ports_are_in_order_and_each_has_its_verdict() {
        let (mut held, start) = (Held::new(&["lan", "wan"]), command_now());
        // What one port carried is read after what came later on the other.
        held.frame(captured(1, 12, 1), start);
        held.verdict(verdict(1, "forwarded"));
        held.frame(captured(0, 10, 1), start);
        held.frame(captured(0, 11, 2), start);
        held.verdict(verdict(2, "dropped"));
        assert_eq!(written(&mut held, start), []);
        let text = |fate: &str| Some(format!("no state, {fate}"));
        let expected = [(0, 10, text("forwarded")), (0, 11, text("dropped")), (1, 12, None)];
        assert_eq!(written(&mut held, start + SETTLES), expected);
    }

    #[test]
    fn a_verdict_that_comes_too_late_is_not_taken_for_that_of_the_next_packet() {
        let (mut held, start) = (Held::new(&["lan", "wan"]), command_now());
        held.frame(captured(0, 1, 7), start);
        assert_eq!(written(&mut held, start + SETTLES), []);
        assert_eq!(written(&mut held, start + DECIDED), [(0, 1, None)]);
        held.verdict(verdict(7, "dropped"));
        held.frame(captured(0, 2_000, 7), start);
        held.verdict(verdict(7, "forwarded"));
        let expected = [(0, 2_000, Some("no state, forwarded".to_owned()))];
        assert_eq!(written(&mut held, start + SETTLES), expected);
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let (mut held, start) = (Held::new(&["lan"]), command_now());
        for number in 0..MAX_FRAMES as u64 + 10 {
            held.frame(captured(0, number, 7), start);
        }
        assert_eq!(written(&mut held, start).len(), 10);
        let mut held = Held::new(&["lan"]);
        for _ in 0..2 * MAX_UNMARRIED {
            held.verdict(verdict(9, "dropped"));
        }
        assert_eq!(held.verdicts.len(), MAX_UNMARRIED);
    }

    fn command_now() -> Instant {
        crate::netns::command::now()
    }
}

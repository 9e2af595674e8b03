//! A capture through the router, in virtual time.
//!
//! Every frame of the capture comes in on the port that its interface is named after, at its own timestamp; what
//! comes due in between happens in between. Timestamps that go backwards do not turn the clock back.

#![forbid(unsafe_code)]

use crate::capture::Frame;
use crate::explain::{self, Account};
use serde::{Serialize, Serializer};
use stateway_core::base::{EmissionKind, Reason};
use stateway_core::config::{Mode, RouterConfig};
use stateway_core::conntrack::{CtState, Direction, Entry, listing};
use stateway_core::decision::Decision;
use stateway_core::fate::Fate;
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::tuple::PROTO_TCP;
use stateway_core::packet::{self, ETHERNET_LEN, Family, Offload, Packet, Segment};
use stateway_core::record::{NoRecord, Recorder};
use stateway_core::router::{Outcome, Router, Worker};
use stateway_core::time::Instant;
use std::fmt::Write as _;

#[cfg(test)]
mod tests;

/// How the table is listed: `conntrack -L -o extended`.
const LISTING: listing::Options = listing::Options { extended: true, id: None };

/// A router as far as a capture describes one: its interfaces are the ports of a bridge.
pub fn bridge_of(ports: &[String]) -> RouterConfig {
    let ifaces = ports.iter().enumerate().map(|(at, name)| Iface::new(name, IfaceId(at as u16)));
    RouterConfig::new(ifaces.collect())
}

/// When the clock of a replay begins: the first frame's timestamp, in nanoseconds since 1970.
pub fn epoch_of(first_nanos: Option<i128>) -> u64 {
    first_nanos.map_or(0, |nanos| u64::try_from(nanos).unwrap_or(0))
}

/// What the router made of one frame, as `replay --format json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrameVerdict<'a> {
    /// From 1.
    pub frame: u64,
    /// Since the first frame, by the frame's own timestamp.
    #[serde(serialize_with = "seconds")]
    pub time: i128,
    #[serde(rename = "in")]
    pub in_port: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctstate: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    pub fate: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub out: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub emitted: Vec<Emitted>,
}

/// A frame that left: one that the router wrote or changed, or any.
#[cfg_attr(feature = "types", derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Emitted {
    pub port: String,
    #[serde(serialize_with = "hex")]
    #[cfg_attr(feature = "types", ts(type = "string"))]
    pub bytes: Vec<u8>,
}

/// What the router sent because time passed, between two frames.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Due {
    #[serde(serialize_with = "seconds")]
    pub time: i128,
    pub emitted: Vec<Emitted>,
}

/// Nanoseconds, printed as seconds.
fn seconds<S: Serializer>(nanos: &i128, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(*nanos as f64 / 1e9)
}

fn hex<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    to.serialize_str(&text)
}

/// The capture names a port that the router does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the capture's interface `{port}` is no port of the router\n  hint: its ports are {}", list(.known))]
pub struct UnknownPort {
    pub port: String,
    pub known: Vec<String>,
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A replay under way.
///
/// Whoever drives it gives it one frame after the other: [`Replay::pass_time`] up to the frame, then [`Replay::step`],
/// [`Replay::judge`] or [`Replay::explain`].
#[derive(Debug)]
pub struct Replay<'a> {
    router: &'a Router,
    /// The router's interface for each port of the capture.
    ifaces: Vec<IfaceId>,
    /// Every frame that leaves is told, not only those that the router wrote or changed.
    bytes: bool,
    worker: Worker,
    decision: Decision,
    buffer: Vec<u8>,
    /// The first frame's time, from which the others count.
    start_nanos: Option<i128>,
    now: Instant,
    super_frames: u64,
}

impl<'a> Replay<'a> {
    /// `ports` are those of the capture.
    ///
    /// # Errors
    /// One of them is not the router's.
    pub fn new(ports: &[String], router: &'a Router, bytes: bool) -> Result<Self, UnknownPort> {
        let iface = |port: &String| {
            let at = router.ifaces().iter().position(|iface| iface.name == *port);
            at.map(|at| IfaceId(at as u16)).ok_or_else(|| UnknownPort {
                port: port.clone(),
                known: router.ifaces().iter().map(|iface| iface.name.clone()).collect(),
            })
        };
        Ok(Self {
            router,
            ifaces: ports.iter().map(iface).collect::<Result<_, _>>()?,
            bytes,
            worker: router.worker(),
            decision: Decision::default(),
            buffer: Vec::new(),
            start_nanos: None,
            now: Instant::ZERO,
            super_frames: 0,
        })
    }

    /// The clock of the router: the latest timestamp so far.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// How many frames so far were longer than the link carries, and stood for segments whose length is a guess.
    pub const fn super_frames(&self) -> u64 {
        self.super_frames
    }

    /// When a frame came, since the first one.
    fn time_of(&self, frame: &Frame) -> i128 {
        frame.nanos - self.start_nanos.unwrap_or(frame.nanos)
    }

    /// Lets time pass until a frame. Gives back what the router sent of its own accord meanwhile.
    pub fn pass_time(&mut self, frame: &Frame) -> Vec<Due> {
        self.start_nanos.get_or_insert(frame.nanos);
        let frame_at = Instant::from_nanos(u64::try_from(self.time_of(frame)).unwrap_or(0)).max(self.now);
        let mut all = Vec::new();
        while let Some(due) = self.router.poll_timeout().filter(|due| *due <= frame_at) {
            self.now = due.max(self.now);
            self.router.handle_timeout(&mut self.worker, self.now);
            let router = self.router;
            let emitted: Vec<_> =
                self.worker.take_emissions().map(|e| emitted(router, e.iface, e.frame)).collect();
            if !emitted.is_empty() {
                all.push(Due { time: i128::from(self.now.as_nanos()), emitted });
            }
            if self.router.poll_timeout() == Some(due) {
                // It had enough for one step: the rest comes with the next frame.
                break;
            }
        }
        self.now = frame_at;
        all
    }

    /// Takes a frame to its fate, and tells of it.
    pub fn step(&mut self, frame: &Frame) -> FrameVerdict<'a> {
        self.decision.clear();
        let mut decision = core::mem::take(&mut self.decision);
        let (iface, outcome) = self.process(frame, &mut decision);
        self.decision = decision;
        let original = &frame.data;
        FrameVerdict {
            frame: frame.number,
            time: self.time_of(frame),
            in_port: self.name(iface),
            ctstate: self.decision.ctstate.map(CtState::word),
            direction: self.decision.direction.map(Direction::word),
            fate: outcome.fate.word(),
            out: self.decision.out.iter().map(|iface| self.name(*iface)).collect(),
            rule: self.decision.rule(outcome.fate, self.router),
            reason: self.decision.reason(outcome.fate).map(Reason::code),
            entry: entry_behind(self.router, &self.decision, original, self.now),
            emitted: self.emitted(original, outcome),
        }
    }

    /// Takes a frame to its fate, which is all that is told. The frame's bytes are then what the router made of them.
    pub fn judge(&mut self, frame: &mut Frame) -> Fate {
        let iface = self.iface(frame);
        self.set_receiver(iface, frame.link_is_made_up, &mut frame.data);
        let offload = self.offload(frame, iface);
        let buffered = packet::Frame::new(&mut frame.data).with_offload(offload);
        let outcome = self.router.process(&mut self.worker, self.now, iface, buffered, &mut NoRecord);
        self.worker.take_emissions();
        outcome.fate
    }

    /// Takes a frame as [`Replay::step`] does, and tells its whole way.
    pub fn explain(&mut self, frame: &Frame) -> Account {
        let iface = self.prepare(frame);
        let offload = self.offload(frame, iface);
        explain::explain(self.router, &mut self.worker, self.now, (iface, &self.buffer, offload))
    }

    fn process<R: Recorder>(&mut self, frame: &Frame, rec: &mut R) -> (IfaceId, Outcome) {
        let iface = self.prepare(frame);
        let offload = self.offload(frame, iface);
        let buffered = packet::Frame::new(&mut self.buffer).with_offload(offload);
        (iface, self.router.process(&mut self.worker, self.now, iface, buffered, rec))
    }

    fn iface(&self, frame: &Frame) -> IfaceId {
        self.ifaces[usize::from(frame.port)]
    }

    /// Puts the frame into the buffer that the router edits.
    fn prepare(&mut self, frame: &Frame) -> IfaceId {
        let iface = self.iface(frame);
        let mut buffer = core::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&frame.data);
        self.set_receiver(iface, frame.link_is_made_up, &mut buffer);
        self.buffer = buffer;
        iface
    }

    /// What an interface of a router took in, it was sent: where no link address was captured, it is that of the interface.
    fn set_receiver(&self, iface: IfaceId, link_is_made_up: bool, bytes: &mut [u8]) {
        if link_is_made_up
            && self.router.mode() == Mode::Route
            && let Some(dst) = bytes.first_chunk_mut::<6>()
            && dst[0] & 1 == 0
        {
            *dst = self.router.ifaces()[iface.index()].mac.0;
        }
    }

    /// What the capturing kernel had left to its card: a frame longer than the link carries was still to be cut, or was put
    /// together of several.
    fn offload(&mut self, frame: &Frame, iface: IfaceId) -> Offload {
        let mtu = self.router.ifaces()[iface.index()].mtu_bytes;
        if frame.data.len() > ETHERNET_LEN + mtu {
            let offload = as_super_frame(&frame.data, mtu, frame.offload);
            self.super_frames += u64::from(offload.gso_size > 0);
            offload
        } else {
            frame.offload
        }
    }

    fn name(&self, iface: IfaceId) -> &'a str {
        &self.router.ifaces()[iface.index()].name
    }

    fn emitted(&mut self, original: &[u8], outcome: Outcome) -> Vec<Emitted> {
        let router = self.router;
        let in_place = outcome.out.map(|iface| (iface, &self.buffer[..outcome.len]));
        let in_place = in_place.filter(|(_, sent)| self.bytes || is_changed(original, sent));
        let mut all: Vec<_> =
            in_place.into_iter().map(|(iface, sent)| emitted(router, iface, sent.to_vec())).collect();
        for emission in self.worker.take_emissions() {
            let tell = match emission.kind {
                EmissionKind::Own | EmissionKind::Fragment => true,
                EmissionKind::Copy => self.bytes || is_changed(original, &emission.frame),
                EmissionKind::Released => self.bytes,
            };
            if tell {
                all.push(emitted(router, emission.iface, emission.frame));
            }
        }
        all
    }

    /// The table, a line for each connection as `conntrack -L -o extended` prints it.
    pub fn table(&self) -> Vec<String> {
        let entries = self.router.conntrack().list(&stateway_core::conntrack::Filter::default(), self.now);
        entries.iter().map(|entry| listing::entry(entry, self.now, LISTING)).collect()
    }

    /// The expectations, as `conntrack -L expect` prints them.
    pub fn expectations(&self) -> Vec<String> {
        let expectations = self.router.conntrack().expectations(self.now);
        expectations.iter().map(|expectation| listing::expectation(expectation, self.now)).collect()
    }
}

/// The connection as it stands behind a frame: also that of an INVALID packet, which it did not change.
pub(crate) fn entry_behind(
    router: &Router,
    decision: &Decision,
    frame: &[u8],
    now: Instant,
) -> Option<String> {
    let line = |entry: &Entry| listing::entry(entry, now, LISTING);
    let entry = match (decision.tuple, decision.ctstate?) {
        (Some(tuple), _) => return router.conntrack().read_entry_of(&tuple, now, line),
        (None, CtState::Invalid) => {
            let mut frame = frame.to_vec();
            let pkt = Packet::parse(&mut frame, Offload::NONE).ok()?;
            router.conntrack().find(&pkt, 0, now)
        }
        (None, _) => None,
    }?;
    Some(line(&entry))
}

fn emitted(router: &Router, iface: IfaceId, bytes: Vec<u8>) -> Emitted {
    Emitted { port: router.ifaces()[iface.index()].name.clone(), bytes }
}

/// A TCP frame that stands for many: segments as long as the link takes.
fn as_super_frame(frame: &[u8], mtu: usize, offload: Offload) -> Offload {
    let mut frame = frame.to_vec();
    let Ok(pkt) = Packet::parse(&mut frame, offload) else { return offload };
    let Some(segment) = Segment::parse(pkt.l4()).filter(|_| pkt.proto() == PROTO_TCP) else { return offload };
    let headers = (pkt.frame_len() - ETHERNET_LEN).saturating_sub(segment.len as usize);
    let gso_type = match pkt.family() {
        Family::Ipv4 => Offload::GSO_TCPV4,
        Family::Ipv6 => Offload::GSO_TCPV6,
    };
    Offload { gso_type, gso_size: mtu.saturating_sub(headers).max(1) as u16, ..offload }
}

/// Whether a packet was changed beyond link addresses and TTL; the checksum of an IPv4 header follows the TTL.
fn is_changed(original: &[u8], sent: &[u8]) -> bool {
    const TTL: usize = ETHERNET_LEN + 8;
    const CHECKSUM: core::ops::Range<usize> = ETHERNET_LEN + 10..ETHERNET_LEN + 12;
    const HOP_LIMIT: usize = ETHERNET_LEN + 7;
    // What was sent is without Ethernet padding; its length stands in its header.
    let Some(original) = original.get(..sent.len()) else { return true };
    let is_ipv4 = original.get(12..ETHERNET_LEN) == Some(&[0x08, 0x00]);
    let may_differ =
        |at: usize| at < 12 || if is_ipv4 { at == TTL || CHECKSUM.contains(&at) } else { at == HOP_LIMIT };
    original.iter().zip(sent).enumerate().any(|(at, (before, after))| before != after && !may_differ(at))
}

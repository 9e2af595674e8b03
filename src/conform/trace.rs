//! What is fed to both sides: frames, and time that passes between them.

#![forbid(unsafe_code)]

use super::compare::hex;
use super::kernel::{MACS, NAMES, NEIGHBOUR_MACS};
use crate::packet::tuple::PROTO_TCP;
use crate::packet::{Offload, Packet, Segment};

/// One step of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Frame(Frame),
    /// So many seconds pass.
    Elapse(u32),
}

impl Step {
    pub const fn frame(&self) -> Option<&Frame> {
        match self {
            Self::Frame(frame) => Some(frame),
            Self::Elapse(_) => None,
        }
    }
}

/// A frame that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub port: usize,
    pub bytes: Vec<u8>,
    /// What the generator had in mind.
    pub kind: &'static str,
}

impl Frame {
    /// A frame with `packet`, as the neighbour on `port` sends it.
    pub fn of_packet(port: usize, packet: &[u8], kind: &'static str) -> Self {
        let ethertype: [u8; 2] =
            if packet.first().is_some_and(|b| b >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] };
        let bytes = [&MACS[port].0[..], &NEIGHBOUR_MACS[port].0, &ethertype, packet].concat();
        Self { port, bytes, kind }
    }

    /// The frame in few words, as `tcpdump` might put it.
    pub fn describe(&self) -> String {
        let name = NAMES[self.port];
        let mut copy = self.bytes.clone();
        let Ok(pkt) = Packet::parse(&mut copy, Offload::NONE) else {
            return format!("{name} {} ({})", hex(&self.bytes), self.kind);
        };
        let (family, proto) = (pkt.family(), pkt.proto());
        let hosts = format!("{} > {}", pkt.src().to_ip(family), pkt.dst().to_ip(family));
        let ports = pkt.ports().map_or(String::new(), |(from, to)| format!(" ports {from} > {to}"));
        let what = match Segment::parse(pkt.l4()).filter(|_| proto == PROTO_TCP) {
            Some(seg) => format!(
                "tcp {} seq {:?} ack {:?} win {} len {} {:?}",
                seg.flags, seg.seq, seg.ack, seg.win, seg.len, seg.options
            ),
            None => format!("proto {proto} {}", hex(&pkt.l4()[..pkt.l4().len().min(64)])),
        };
        format!("{name} {hosts}{ports} ttl {} {what} ({})", pkt.ttl(), self.kind)
    }
}

/// A story that stands for itself: it shares no connection with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub steps: Vec<Step>,
    /// The kernel's own clock decides something here, so time must really pass (UDP's two seconds).
    pub needs_real_time: bool,
}

impl Trace {
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.steps.iter().filter_map(Step::frame)
    }

    /// Whether any frame is a piece of a packet.
    pub fn has_fragments(&self) -> bool {
        self.frames().any(|frame| {
            let mut copy = frame.bytes.clone();
            Packet::parse(&mut copy, Offload::NONE).is_ok_and(|pkt| pkt.fragment().is_some())
        })
    }
}

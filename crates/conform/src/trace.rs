//! What is fed to both sides: frames, and time that passes between them.

#![forbid(unsafe_code)]

use super::compare::hex;
use super::kernel::{MACS, NAMES, NEIGHBOUR_MACS};
use stateway_core::packet::tuple::PROTO_TCP;
use stateway_core::packet::{self, Addr, ETHERNET_LEN, Offload, Packet, Segment};
use stateway_trace::flow::{AddressChange, Link};

/// One step of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Frame(Frame),
    /// So many seconds pass.
    Elapse(u32),
    /// Other rules are loaded, as iptables-save text: IPv4 and IPv6.
    Load(Box<[String; 2]>),
    /// A program on the router sends an IP packet.
    Own(Vec<u8>),
    /// Addresses of the router's come or go.
    Addresses(Vec<AddressChange>),
}

impl Step {
    pub const fn frame(&self) -> Option<&Frame> {
        match self {
            Self::Frame(frame) => Some(frame),
            Self::Elapse(_) | Self::Load(_) | Self::Own(_) | Self::Addresses(_) => None,
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
    /// What it has to do with connections that get their addresses and ports from the kernel.
    pub link: Option<Link>,
}

impl Frame {
    /// A frame with `packet`, as the neighbour on `port` sends it.
    pub fn of_packet(port: usize, packet: &[u8], kind: &'static str) -> Self {
        let ethertype: [u8; 2] =
            if packet.first().is_some_and(|b| b >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] };
        let bytes = [&MACS[port].0[..], &NEIGHBOUR_MACS[port].0, &ethertype, packet].concat();
        Self { port, bytes, kind, link: None }
    }

    /// Addresses the frame to the neighbour on the other side: the router is a bridge.
    pub fn cross(&mut self) {
        if let Some(to) = self.bytes.first_chunk_mut() {
            *to = NEIGHBOUR_MACS[1 - self.port].0;
        }
    }

    /// Who sends it, and to whom; `None` if it is no IP packet.
    pub fn addresses(&self) -> Option<(Addr, Addr)> {
        Self::addresses_of(&self.bytes)
    }

    /// As [`Frame::addresses`], for any bytes.
    pub fn addresses_of(frame: &[u8]) -> Option<(Addr, Addr)> {
        let mut copy = frame.to_vec();
        let mut untagged = packet::Frame::new(&mut copy);
        untagged.strip_priority_tags();
        let frame = untagged.bytes();
        let v4 = |at: usize| frame.get(at..)?.first_chunk().map(|bytes| Addr::from_v4(*bytes));
        let v6 = |at: usize| frame.get(at..)?.first_chunk().map(|bytes| Addr::from_v6(*bytes));
        match frame.get(12..14)? {
            [0x08, 0x00] => Some((v4(ETHERNET_LEN + 12)?, v4(ETHERNET_LEN + 16)?)),
            [0x86, 0xdd] => Some((v6(ETHERNET_LEN + 8)?, v6(ETHERNET_LEN + 24)?)),
            _ => None,
        }
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
        let link = self.link.map_or(String::new(), |link| format!(", {link}"));
        format!("{name} {hosts}{ports} ttl {} {what} ({}{link})", pkt.ttl(), self.kind)
    }
}

/// A story that stands for itself: it shares no connection with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub steps: Vec<Step>,
    pub waiting: Waiting,
}

/// What "time passes" means to the kernel, whose clock nobody can set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waiting {
    /// Its timers are set to what is left of them.
    #[default]
    Timers,
    /// Besides, the two seconds that make a stream of a UDP flow really pass.
    Streams,
    /// All of it really passes: for pieces of packets, whose timer nobody can set, and rules that look at the clock.
    Really,
}

impl Trace {
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.steps.iter().filter_map(Step::frame)
    }

    /// Seconds that pass in all.
    pub fn seconds(&self) -> u64 {
        let elapsed = |step: &Step| if let Step::Elapse(seconds) = step { u64::from(*seconds) } else { 0 };
        self.steps.iter().map(elapsed).sum()
    }

    /// Whether rules are exchanged on the way.
    pub fn has_loads(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Load(_)))
    }

    /// Whether addresses come or go on the way.
    pub fn has_changes_of_addresses(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Addresses(_)))
    }

    /// Whether any frame is a piece of a packet.
    pub fn has_fragments(&self) -> bool {
        self.frames().any(|frame| {
            let mut copy = frame.bytes.clone();
            Packet::parse(&mut copy, Offload::NONE).is_ok_and(|pkt| pkt.fragment().is_some())
        })
    }
}

//! The kernel's connection table over ctnetlink: read one entry, list all, change a timeout, delete.

#![forbid(unsafe_code)]

use anyhow::{Result, bail};
use rustix::io::Errno;
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6};
use stateway_core::packet::{Addr, Family, Tuple};
use stateway_runtime::netlink::{
    Connection, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Received, attributes, is,
};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const SUBSYSTEM_EXPECT: u16 = 2 << 8;
const EXPECT_NEW: u16 = SUBSYSTEM_EXPECT;
const EXPECT_GET: u16 = SUBSYSTEM_EXPECT | 1;
const EXPECT_DELETE: u16 = SUBSYSTEM_EXPECT | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_HELP: u16 = 5;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_ZONE: u16 = 18;
/// Inside a tuple.
const CTA_TUPLE_ZONE: u16 = 3;

const CTA_EXPECT_MASTER: u16 = 1;
const CTA_EXPECT_TUPLE: u16 = 2;
const CTA_EXPECT_MASK: u16 = 3;
const CTA_EXPECT_TIMEOUT: u16 = 4;

/// One connection as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelEntry {
    pub original: Option<Tuple>,
    pub reply: Option<Tuple>,
    /// `IPS_*`, all of them.
    pub status: u32,
    /// Whole seconds that are left.
    pub timeout: u32,
    pub mark: u32,
    pub helper: Option<String>,
    pub tcp: Option<KernelTcp>,
    /// SCTP's state, by its number.
    pub sctp: Option<u8>,
}

/// What the kernel tells of a TCP connection's inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelTcp {
    pub state: u8,
    /// By direction, original first.
    pub wscale: [u8; 2],
    pub flags: [u8; 2],
}

/// One expected connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelExpectation {
    pub master: Tuple,
    pub tuple: Tuple,
    pub mask: Tuple,
    pub timeout: u32,
}

/// The table of one network namespace.
#[derive(Debug)]
pub struct Ctnetlink {
    connection: Connection,
}

impl Ctnetlink {
    /// Opens the table of the namespace that the calling thread is in.
    pub(super) fn open() -> Result<Self> {
        Ok(Self { connection: Connection::open()? })
    }

    /// The connection that has `tuple` in either direction.
    pub fn get(&mut self, tuple: &Tuple) -> Result<Option<KernelEntry>> {
        let message = with_key(Message::new(GET, NLM_F_REQUEST, tuple.family.af(), 0), tuple);
        self.connection.send(message)?;
        let mut found = None;
        match self.connection.receive_one(|m| found = Some(KernelEntry::read(m.family, m.attributes()))) {
            Ok(()) => Ok(found),
            // EINVAL: a tuple that no connection can have, such as that of an unknown ICMP type.
            Err(e) if is(&e, Errno::NOENT) || is(&e, Errno::INVAL) => Ok(None),
            Err(e) => bail!("ctnetlink get {tuple:?}: {e}"),
        }
    }

    /// Gives a connection `seconds` more to live; false if there is none.
    pub fn set_timeout(&mut self, tuple: &Tuple, seconds: u32) -> Result<bool> {
        let message = Message::new(NEW, NLM_F_REQUEST | NLM_F_ACK, tuple.family.af(), 0);
        self.connection.command(with_key(message, tuple).attr(CTA_TIMEOUT, &seconds.to_be_bytes()))
    }

    /// Deletes a connection; false if there is none.
    pub fn delete(&mut self, tuple: &Tuple) -> Result<bool> {
        let message = Message::new(DELETE, NLM_F_REQUEST | NLM_F_ACK, tuple.family.af(), 0);
        self.connection.command(with_key(message, tuple))
    }

    /// Empties the table.
    pub fn flush(&mut self) -> Result<()> {
        self.connection.command(Message::new(DELETE, NLM_F_REQUEST | NLM_F_ACK, 0, 0)).map(drop)
    }

    /// Every connection.
    pub fn list(&mut self) -> Result<Vec<KernelEntry>> {
        let mut all = Vec::new();
        self.dump(GET, |m| all.push(KernelEntry::read(m.family, m.attributes())))?;
        Ok(all)
    }

    /// Every expectation, in the order of their tuples.
    pub fn expectations(&mut self) -> Result<Vec<KernelExpectation>> {
        let mut all = Vec::new();
        self.dump(EXPECT_GET, |m| all.extend(KernelExpectation::read(m)))?;
        all.sort();
        Ok(all)
    }

    /// Gives an expectation `seconds` more to live; false if there is none.
    pub fn set_expectation_timeout(&mut self, e: &KernelExpectation, seconds: u32) -> Result<bool> {
        let message = Message::new(EXPECT_NEW, NLM_F_REQUEST | NLM_F_ACK, e.tuple.family.af(), 0)
            .nest(CTA_EXPECT_MASTER, |m| with_tuple(m, &e.master))
            .nest(CTA_EXPECT_TUPLE, |m| with_tuple(m, &e.tuple))
            .nest(CTA_EXPECT_MASK, |m| with_tuple(m, &e.mask))
            .attr(CTA_EXPECT_TIMEOUT, &seconds.to_be_bytes());
        self.connection.command(message)
    }

    /// Deletes an expectation; false if there is none.
    pub fn delete_expectation(&mut self, e: &KernelExpectation) -> Result<bool> {
        let message = Message::new(EXPECT_DELETE, NLM_F_REQUEST | NLM_F_ACK, e.tuple.family.af(), 0)
            .nest(CTA_EXPECT_TUPLE, |m| with_tuple(m, &e.tuple));
        self.connection.command(message)
    }

    fn dump(&mut self, kind: u16, take: impl FnMut(Received<'_>)) -> Result<()> {
        self.connection.send(Message::new(kind, NLM_F_REQUEST | NLM_F_DUMP, 0, 0))?;
        Ok(self.connection.receive(take)?)
    }
}

impl KernelEntry {
    fn read<'a>(family: u8, list: impl Iterator<Item = (u16, &'a [u8])>) -> Self {
        let mut entry = Self::default();
        let mut zone = 0;
        for (kind, value) in list {
            match kind {
                CTA_TUPLE_ORIG => entry.original = read_tuple(family, value),
                CTA_TUPLE_REPLY => entry.reply = read_tuple(family, value),
                CTA_STATUS => entry.status = be32(value),
                CTA_TIMEOUT => entry.timeout = be32(value),
                CTA_MARK => entry.mark = be32(value),
                CTA_ZONE => zone = be16(value),
                CTA_HELP => entry.helper = read_helper(value),
                CTA_PROTOINFO => entry.read_protoinfo(value),
                _ => {}
            }
        }
        // One of a single direction stands with that direction's tuple.
        for tuple in [&mut entry.original, &mut entry.reply].into_iter().flatten() {
            tuple.zone |= zone;
        }
        entry
    }

    fn read_protoinfo(&mut self, value: &[u8]) {
        const TCP: u16 = 1;
        const SCTP: u16 = 3;
        for (kind, value) in attributes(value) {
            match kind {
                TCP => self.tcp = Some(KernelTcp::read(value)),
                SCTP => self.sctp = attributes(value).find(|a| a.0 == 1).and_then(|a| a.1.first().copied()),
                _ => {}
            }
        }
    }
}

impl KernelTcp {
    fn read(value: &[u8]) -> Self {
        let mut tcp = Self::default();
        for (kind, value) in attributes(value) {
            let first = value.first().copied().unwrap_or(0);
            match kind {
                1 => tcp.state = first,
                2 => tcp.wscale[0] = first,
                3 => tcp.wscale[1] = first,
                4 => tcp.flags[0] = first,
                5 => tcp.flags[1] = first,
                _ => {}
            }
        }
        tcp
    }
}

impl KernelExpectation {
    fn read(m: Received<'_>) -> Option<Self> {
        let (mut master, mut tuple, mut mask, mut timeout) = (None, None, None, 0);
        for (kind, value) in m.attributes() {
            match kind {
                CTA_EXPECT_MASTER => master = read_tuple(m.family, value),
                CTA_EXPECT_TUPLE => tuple = read_tuple(m.family, value),
                CTA_EXPECT_MASK => mask = read_tuple(m.family, value),
                CTA_EXPECT_TIMEOUT => timeout = be32(value),
                _ => {}
            }
        }
        Some(Self { master: master?, tuple: tuple?, mask: mask?, timeout })
    }
}

fn with_key(message: Message, tuple: &Tuple) -> Message {
    let message = message.nest(CTA_TUPLE_ORIG, |m| with_tuple(m, tuple));
    if tuple.zone == 0 { message } else { message.attr(CTA_ZONE, &tuple.zone.to_be_bytes()) }
}

fn with_tuple(message: Message, tuple: &Tuple) -> Message {
    let (src, dst) = match tuple.family {
        Family::Ipv4 => (1, 2),
        Family::Ipv6 => (3, 4),
    };
    message
        .nest(1, |m| m.attr(src, tuple.src.bytes(tuple.family)).attr(dst, tuple.dst.bytes(tuple.family)))
        .nest(2, |m| with_proto(m, tuple))
}

fn with_proto(message: Message, tuple: &Tuple) -> Message {
    let message = message.attr(1, &[tuple.proto]);
    let icmp = match (tuple.family, tuple.proto) {
        (Family::Ipv4, PROTO_ICMP) => Some(4),
        (Family::Ipv6, PROTO_ICMPV6) => Some(7),
        _ => None,
    };
    let Some(first) = icmp else {
        return message.attr(2, &tuple.left.to_be_bytes()).attr(3, &tuple.right.to_be_bytes());
    };
    message
        .attr(first, &tuple.left.to_be_bytes())
        .attr(first + 1, &[tuple.icmp_type()])
        .attr(first + 2, &[tuple.icmp_code()])
}

fn read_tuple(family: u8, value: &[u8]) -> Option<Tuple> {
    let family = if family == Family::Ipv6.af() { Family::Ipv6 } else { Family::Ipv4 };
    let mut tuple = Tuple {
        src: Addr::UNSPECIFIED,
        dst: Addr::UNSPECIFIED,
        left: 0,
        right: 0,
        zone: 0,
        proto: 0,
        family,
    };
    for (kind, value) in attributes(value) {
        if kind == CTA_TUPLE_ZONE {
            tuple.zone = be16(value);
            continue;
        }
        for (inner, value) in attributes(value) {
            match (kind, inner) {
                (1, 1) => tuple.src = Addr::from_v4(*value.first_chunk()?),
                (1, 2) => tuple.dst = Addr::from_v4(*value.first_chunk()?),
                (1, 3) => tuple.src = Addr::from_v6(*value.first_chunk()?),
                (1, 4) => tuple.dst = Addr::from_v6(*value.first_chunk()?),
                (2, 1) => tuple.proto = *value.first()?,
                (2, 2 | 4 | 7) => tuple.left = be16(value),
                (2, 3) => tuple.right = be16(value),
                (2, 5 | 8) => tuple.right |= u16::from(*value.first()?) << 8,
                (2, 6 | 9) => tuple.right |= u16::from(*value.first()?),
                _ => {}
            }
        }
    }
    Some(tuple)
}

fn read_helper(value: &[u8]) -> Option<String> {
    let (_, name) = attributes(value).find(|a| a.0 == 1)?;
    Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
}

fn be32(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}

fn be16(value: &[u8]) -> u16 {
    value.first_chunk().map_or(0, |b| u16::from_be_bytes(*b))
}

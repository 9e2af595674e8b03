//! Which port of the router a captured frame came in on.
//!
//! An interface is the port of its own name, unless it is given another: by `--port`, as [`PortName`] reads it.

#![forbid(unsafe_code)]

use super::{CaptureError, Direction, Interface};
use core::net::IpAddr;
use core::str::FromStr;
use stateway_core::iface::MAX_IFACES;
use stateway_core::packet::{ETHERNET_LEN, Family, Kind, Prefix, kind};

/// One `--port`: `eth0`, `0=lan`, `eth0=lan`, `192.0.2.0/24=lan`, `in=wan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    key: Key,
    port: String,
}

/// What is given a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    /// The only interface of the capture.
    Only,
    /// An interface by its number in the capture, from 0; of `tcpdump -i any`, by the kernel's index.
    Number(u32),
    /// An interface by its name in the capture.
    Name(String),
    /// The side that these addresses send from, wherever it was captured.
    Net(Prefix),
    /// The side that such frames come from, as a host sees its own traffic.
    Direction(Direction),
}

impl Key {
    /// It tells arrivals by what they are, not by where they were captured.
    const fn is_side(&self) -> bool {
        matches!(self, Self::Net(_) | Self::Direction(_))
    }
}

impl PortName {
    /// The name of the only interface of a capture.
    pub fn only(port: &str) -> Self {
        Self { key: Key::Only, port: port.to_owned() }
    }
}

impl FromStr for PortName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, port) = match text.split_once('=') {
            None => (Key::Only, text),
            Some(("in", port)) => (Key::Direction(Direction::In), port),
            Some(("out", port)) => (Key::Direction(Direction::Out), port),
            Some((key, port)) if key.contains('/') => (Key::Net(prefix(key)?), port),
            Some((key, port)) => (key.parse().map_or_else(|_| Key::Name(key.to_owned()), Key::Number), port),
        };
        if port.is_empty() || key == Key::Name(String::new()) {
            return Err(
                "a port is `NAME`, or `INTERFACE=NAME` such as 0=lan, eth0=lan or 192.0.2.0/24=lan".into()
            );
        }
        Ok(Self { key, port: port.to_owned() })
    }
}

fn prefix(text: &str) -> Result<Prefix, String> {
    let wrong = || format!("`{text}` is no network such as 192.0.2.0/24");
    let (addr, len) = text.split_once('/').ok_or_else(wrong)?;
    let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
    let family = Family::from(addr);
    let len = len.parse().ok().filter(|len| *len <= family.bits()).ok_or_else(wrong)?;
    Ok(Prefix::new(addr.into(), len, family))
}

/// What is known of a frame when its port is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) interface: usize,
    /// The kernel's number of the interface, where `any` was captured.
    pub(super) kernel_index: Option<u32>,
    pub(super) direction: Option<Direction>,
    pub(super) data: &'a [u8],
}

/// The ports of a capture.
#[derive(Debug, Default)]
pub(super) struct Ports {
    names: Vec<String>,
    /// What was given a name, and its place in `names`.
    keys: Vec<(Key, u16)>,
    /// The port of each interface of the file, where it has one.
    interfaces: Vec<Option<u16>>,
    /// And of each that the kernel numbered.
    numbered: Vec<(u32, Option<u16>)>,
    /// All ports are known: what else appears is none.
    is_complete: bool,
}

impl Ports {
    pub(super) fn new(given: &[PortName]) -> Self {
        let mut ports = Self::default();
        for PortName { key, port } in given {
            // Whoever names more ports than there can be is told when the capture describes one more.
            if let Some(at) = ports.place(port) {
                ports.keys.push((key.clone(), at));
            }
        }
        ports
    }

    /// Those that an earlier reading of the same capture found, and no others.
    pub(super) fn complete(&mut self, names: &[String]) {
        for name in names {
            self.place(name);
        }
        self.is_complete = true;
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Arrivals are told by addresses or by direction.
    pub(super) fn by_side(&self) -> bool {
        self.keys.iter().any(|(key, _)| key.is_side())
    }

    /// The place of a port of this name, which is made if it may be.
    fn place(&mut self, name: &str) -> Option<u16> {
        if let Some(at) = self.names.iter().position(|known| known == name) {
            return Some(at as u16);
        }
        if self.is_complete || self.names.len() == MAX_IFACES {
            return None;
        }
        self.names.push(name.to_owned());
        Some(self.names.len() as u16 - 1)
    }

    fn given(&self, key: &Key) -> Option<u16> {
        self.keys.iter().find(|(known, _)| known == key).map(|(_, at)| *at)
    }

    /// Learns of interfaces that the file describes. A name makes a port, even if no frame ever comes in there: rules
    /// and `out` may name it.
    ///
    /// # Errors
    /// One name is for the only interface, and there are several.
    pub(super) fn describe(&mut self, all: &[Interface]) -> Result<(), CaptureError> {
        for (number, Interface { name, .. }) in all.iter().enumerate().skip(self.interfaces.len()) {
            let only = self.given(&Key::Only);
            if only.is_some() && number > 0 && *name != all[0].name {
                return Err(CaptureError::new(
                    0,
                    "one port is named, and the capture has several interfaces",
                )
                .hint("name each: `--port 0=lan --port 1=wan`"));
            }
            let given = only
                .or_else(|| self.given(&Key::Number(number as u32)))
                .or_else(|| self.given(&Key::Name(name.clone()?)));
            let port = match name {
                _ if given.is_some() => given,
                Some(name) if !self.by_side() => Some(
                    self.place(name)
                        .ok_or_else(|| CaptureError::new(0, format!("more than {MAX_IFACES} interfaces")))?,
                ),
                _ => None,
            };
            self.interfaces.push(port);
        }
        Ok(())
    }

    /// The port that a frame came in on.
    pub(super) fn find(&mut self, arrival: &Arrival) -> Option<u16> {
        if self.by_side() {
            return self.side(arrival);
        }
        if let Some(index) = arrival.kernel_index {
            return self.numbered(index);
        }
        if self.interfaces[arrival.interface].is_none() {
            // It has no name: it is called by its number.
            self.interfaces[arrival.interface] = self.place(&format!("if{}", arrival.interface));
        }
        self.interfaces[arrival.interface]
    }

    fn numbered(&mut self, index: u32) -> Option<u16> {
        if let Some((_, port)) = self.numbered.iter().find(|(known, _)| *known == index) {
            return *port;
        }
        let is_given = self.keys.iter().any(|(key, _)| matches!(key, Key::Number(_)));
        // Whoever names some of them does not ask about the others: `any` has the loopback too.
        let port = if is_given { self.given(&Key::Number(index)) } else { self.place(&format!("if{index}")) };
        self.numbered.push((index, port));
        port
    }

    /// The side that a frame came from; the longest network that holds its source.
    fn side(&self, arrival: &Arrival) -> Option<u16> {
        let source = source_of(arrival.data);
        let nets = self.keys.iter().filter_map(|(key, at)| match (key, source) {
            (Key::Net(net), Some((family, source))) if net.family == family && net.contains(source) => {
                Some((net.len, *at))
            }
            _ => None,
        });
        nets.max_by_key(|(len, _)| *len)
            .map(|(_, at)| at)
            .or_else(|| self.given(&Key::Direction(arrival.direction?)))
    }
}

/// Who sent a frame, by IP or by ARP.
fn source_of(frame: &[u8]) -> Option<(Family, stateway_core::packet::Addr)> {
    let at = |at: usize, len: usize| frame.get(ETHERNET_LEN + at..ETHERNET_LEN + at + len);
    match kind(frame)? {
        Kind::Ipv4 => Some((Family::Ipv4, IpAddr::from(<[u8; 4]>::try_from(at(12, 4)?).ok()?).into())),
        Kind::Ipv6 => Some((Family::Ipv6, IpAddr::from(<[u8; 16]>::try_from(at(8, 16)?).ok()?).into())),
        Kind::Arp => Some((Family::Ipv4, IpAddr::from(<[u8; 4]>::try_from(at(14, 4)?).ok()?).into())),
        Kind::Other(_) => None,
    }
}

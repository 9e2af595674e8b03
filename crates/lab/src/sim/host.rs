//! A host of a simulated lab: a smoltcp stack, what it serves, and what it hears.

#![forbid(unsafe_code)]

use super::path_mtu::Sizes;
use super::services::Services;
use super::unresolved::Unresolved;
use crate::model;
use crate::runner::icmp_name;
use smoltcp::iface::{Config, Interface, PollResult, Route, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::Socket;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use stateway_core::packet::{Addr, Family, Offload, Packet, Prefix, tuple};
use stateway_core::time::Instant;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Rounds of stack and services before the clock moves on; what is left comes a moment later.
const MAX_ROUNDS: usize = 32;
/// No packet is longer than its length field can say.
const LONGEST: usize = 65_535;
/// The first port that connections of our own leave from.
const FIRST_PORT: u16 = 40_000;

pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) services: Services,
    /// ICMP errors that came since they were last cleared.
    pub(crate) heard: Vec<IcmpError>,
    iface: Interface,
    wire: Wire,
    next_port: u16,
    sizes: Sizes,
    unresolved: Unresolved,
}

/// An ICMP error about something that this host sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IcmpError {
    pub(crate) from: IpAddr,
    /// By iptables' names.
    pub(crate) name: String,
    /// Of a packet too big, what would fit.
    pub(crate) mtu: Option<u32>,
    /// Where the packet went that it is about.
    pub(crate) dst: IpAddr,
    pub(crate) proto: u8,
    /// TCP and UDP: its ports; ICMP: its identifier and sequence number.
    pub(crate) words: Option<(u16, u16)>,
}

impl Host {
    pub(crate) fn new(host: &model::Host, seed: u64) -> Self {
        let mut wire = Wire { rx: VecDeque::new(), tx: Vec::new() };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(host.mac.0)));
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut wire, time(Instant::ZERO));
        iface.update_ip_addrs(|addrs| {
            for Prefix { addr, len, family } in &host.addresses {
                // The lab file bounds them below what a stack holds.
                let _ = addrs.push(IpCidr::new(IpAddress::from(addr.to_ip(*family)), *len));
            }
        });
        iface.routes_mut().update(|routes| {
            let mut add = |cidr, via: IpAddr| {
                let route = Route { cidr, via_router: via.into(), preferred_until: None, expires_at: None };
                let _ = routes.push(route);
            };
            for route in &host.routes {
                add(IpCidr::new(route.to.addr.to_ip(route.to.family).into(), route.to.len), route.via);
            }
            for via in &host.gateways {
                let any: IpAddr = if via.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
                add(IpCidr::new(any.into(), 0), *via);
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let services = Services::new(host, &mut sockets);
        Self {
            name: host.name.clone(),
            sockets,
            services,
            heard: Vec::new(),
            iface,
            wire,
            next_port: FIRST_PORT,
            sizes: Sizes::new(host.mtu_bytes),
            unresolved: Unresolved::default(),
        }
    }

    /// A port that no connection of this host used for long.
    pub(crate) fn new_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == u16::MAX { FIRST_PORT } else { port + 1 };
        port
    }

    /// What connections are opened with.
    pub(crate) fn context(&mut self) -> (&mut smoltcp::iface::Context, &mut SocketSet<'static>) {
        (self.iface.context(), &mut self.sockets)
    }

    /// Takes in a frame; [`Host::poll`] sees what comes of it.
    pub(crate) fn hear(&mut self, frame: Vec<u8>, now: Instant) {
        let Some(mut frame) = self.sizes.join(frame, now) else { return };
        if let Ok(pkt) = Packet::parse(&mut frame, Offload::NONE)
            && let Some(error) = IcmpError::read(&pkt)
        {
            if let Some(mtu) = error.mtu {
                self.sizes.learn(error.dst, mtu);
            }
            self.heard.push(error);
        }
        self.wire.rx.push_back(frame);
    }

    /// Lets the stack and the services work. Says what they send, and when they want to be asked again.
    pub(crate) fn poll(&mut self, now: Instant) -> (Vec<Vec<u8>>, Option<Instant>) {
        for _ in 0..MAX_ROUNDS {
            self.take_in(now);
            let stack = self.iface.poll(time(now), &mut self.wire, &mut self.sockets);
            let served = self.services.run(&mut self.iface, &mut self.sockets, &self.name);
            if stack == PollResult::None && !served {
                break;
            }
        }
        // Not at once: what could be done at once has been done.
        const SOON: core::time::Duration = core::time::Duration::from_micros(10);
        let again = self.iface.poll_at(time(now), &self.sockets);
        let again = again.map(|at| Instant::from_micros(at.total_micros().max(0) as u64).max(now + SOON));
        let sent = core::mem::take(&mut self.wire.tx);
        (sent.into_iter().flat_map(|frame| self.sizes.fit(frame)).collect(), again)
    }

    /// Whether a socket has the port that a frame goes to.
    fn has_socket_for(&self, frame: &[u8]) -> bool {
        let mut frame = frame.to_vec();
        let Ok(pkt) = Packet::parse(&mut frame, Offload::NONE) else { return false };
        let Some((_, port)) = pkt.ports() else { return false };
        self.sockets.iter().any(|(_, socket)| match socket {
            Socket::Udp(udp) => pkt.proto() == tuple::PROTO_UDP && udp.endpoint().port == port,
            Socket::Tcp(tcp) => {
                let own = tcp.local_endpoint().map_or(tcp.listen_endpoint().port, |own| own.port);
                pkt.proto() == tuple::PROTO_TCP && own == port
            }
            Socket::Icmp(_) | Socket::Raw(_) => false,
        })
    }

    /// Has the stack hear frames one by one, so that what it sends because of each is known.
    fn take_in(&mut self, now: Instant) {
        while let Some(frame) = self.wire.rx.front().cloned() {
            let sent_before = self.wire.tx.len();
            self.iface.poll_ingress_single(time(now), &mut self.wire, &mut self.sockets);
            let has_socket = self.has_socket_for(&frame);
            self.unresolved.note(&frame, has_socket, &self.wire.tx[sent_before..], now);
            for again in self.unresolved.resolved_by(&frame).into_iter().rev() {
                self.wire.rx.push_front(again);
            }
        }
    }
}

fn time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(now.as_micros() as i64)
}

impl IcmpError {
    /// Reads an error and the packet that it quotes (RFC 792, RFC 4443 §3).
    fn read(pkt: &Packet) -> Option<Self> {
        let v6 = pkt.family() == Family::Ipv6;
        let l4 = pkt.l4();
        let (&kind, &code) = (l4.first()?, l4.get(1)?);
        let is_error = match pkt.proto() {
            tuple::PROTO_ICMP if !v6 => matches!(kind, 3 | 11 | 12),
            tuple::PROTO_ICMPV6 if v6 => kind < 128,
            _ => false,
        };
        if !is_error {
            return None;
        }
        let quoted = l4.get(8..)?;
        let (dst, proto, header): (IpAddr, u8, usize) = if v6 {
            let dst: [u8; 16] = quoted.get(24..40)?.try_into().ok()?;
            (dst.into(), *quoted.get(6)?, 40)
        } else {
            let dst: [u8; 4] = quoted.get(16..20)?.try_into().ok()?;
            (dst.into(), *quoted.get(9)?, usize::from(*quoted.first()? & 15) * 4)
        };
        let word =
            |at: usize| Some(u16::from_be_bytes(quoted.get(header + at..header + at + 2)?.try_into().ok()?));
        let is_icmp = matches!(proto, tuple::PROTO_ICMP | tuple::PROTO_ICMPV6);
        let words = if is_icmp { word(4).zip(word(6)) } else { word(0).zip(word(2)) };
        let field = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
        let mtu = match (v6, kind, code) {
            (false, 3, 4) => Some(u32::from(field(6))),
            (true, 2, _) => Some(u32::from(field(4)) << 16 | u32::from(field(6))),
            _ => None,
        };
        let from = pkt.src().to_ip(pkt.family());
        Some(Self { from, name: icmp_name(v6, kind, code), mtu, dst, proto, words })
    }
}

/// Whether a host with these parts knows a way to `to`.
pub(crate) fn has_way(host: &model::Host, to: IpAddr) -> bool {
    let (family, addr) = (Family::from(to), Addr::from(to));
    let within = |net: &Prefix| net.family == family && net.contains(addr);
    host.addresses.iter().any(within)
        || host.routes.iter().any(|route| within(&route.to))
        || host.gateways.iter().any(|via| Family::from(*via) == family)
}

/// The end of the cable, in memory.
#[derive(Debug)]
struct Wire {
    rx: VecDeque<Vec<u8>>,
    tx: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);

struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let result = fill(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.rx.pop_front()?;
        Some((Received(frame), Sending(&mut self.tx)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        // What is too long for the link is cut behind the stack: see `path_mtu`.
        capabilities.max_transmission_unit = LONGEST + stateway_core::packet::ETHERNET_LEN;
        capabilities
    }
}

//! Connections whose addresses are translated: few hosts and few ports, so that they compete for the same tuples, and
//! everything that the other profiles make of one connection.

#![forbid(unsafe_code)]

mod aimed;
mod net;
mod rules;

use super::{Ends, chance, fragment, ftp, icmp, pick, sctp, tcp, udp};
use crate::Setup;
use crate::trace::{Frame, Step, Trace, Waiting};
use fastrand::Rng;
use net::Net;
use stateway_core::conntrack::Direction;
use stateway_core::packet::tuple::{PROTO_UDP, PROTO_UDPLITE};
use stateway_core::packet::{Addr, ETHERNET_LEN, Family, Offload, Packet, Prefix};
use stateway_trace::flow::{Address, Link};
use std::collections::VecDeque;

/// A connection's number is a multiple of this; what it announces comes behind it.
const NUMBERS: u16 = 100;
/// The number of the router's second address among the servers of a side.
const OWN: u8 = 100;
/// Longer than anything but an established TCP connection lives: what is left of a UDP flow is no question then.
const LONG: u32 = 601;

/// Rules and settings; some worlds have no table `nat` until a trace loads it.
pub(super) fn setup(rng: &mut Rng) -> Setup {
    let has_nat = !chance(rng, 6);
    let mut setup = Setup { zones: vec![rules::ZONE], is_serial: true, ..Setup::default() };
    let [v4, v6] = [Family::Ipv4, Family::Ipv6].map(|family| rules::draw(rng, Net(family), has_nat));
    (setup.rules4, setup.rules6) = (Some(v4), Some(v6));
    if chance(rng, 20) {
        setup.mtu.push(("right".to_owned(), *pick(rng, &[1280, 1400, 1492])));
    }
    if chance(rng, 15) {
        setup.sysctl.push(("nf_conntrack_checksum".to_owned(), "0".to_owned()));
    }
    if chance(rng, 10) {
        setup.sysctl.push(("nf_conntrack_tcp_loose".to_owned(), "0".to_owned()));
    }
    if chance(rng, 40) {
        setup.addresses = addresses(rng);
    }
    setup
}

/// More addresses of the router's, so that it has a choice.
fn addresses(rng: &mut Rng) -> Vec<Address> {
    let mut list = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        for iface in 0..2 {
            if chance(rng, 50) {
                let addr = Net(family).server(iface, OWN);
                let prefix = Prefix::new(addr, family.bits(), family);
                list.push(Address { iface, is_first: chance(rng, 50), prefix });
            }
        }
    }
    list
}

/// Several connections side by side, in a world that was made with `setup`.
pub(super) fn trace(rng: &mut Rng, serial: u64, setup: &Setup) -> Trace {
    let family = if chance(rng, 40) { Family::Ipv6 } else { Family::Ipv4 };
    let mut steps = Vec::new();
    let mut flows: Vec<VecDeque<Step>> = Vec::new();
    if chance(rng, 15) {
        let aimed = aimed::flows(rng, Net(family), serial);
        for (number, (ends, trace)) in (1..).zip(aimed) {
            steps.extend(linked(rng, trace, &ends, number * NUMBERS));
        }
    } else {
        let scene = Scene::draw(rng, Net(family), serial);
        let count = rng.u16(1..6);
        flows.extend((1..=count).map(|n| scene.flow(rng, n * NUMBERS)));
    }
    // Mostly one goes on for a while before another has its turn.
    while let Some(at) = (!flows.is_empty()).then(|| rng.usize(..flows.len())) {
        let run = rng.usize(1..6).min(flows[at].len());
        steps.extend(flows[at].drain(..run));
        flows.retain(|flow| !flow.is_empty());
    }
    mind_the_clock(&mut steps);
    if steps.iter().filter_map(Step::frame).any(|frame| frame.kind == "fragment") {
        // Pieces wait by the kernel's clock, too.
        steps.retain(|step| !matches!(step, Step::Elapse(_)));
    }
    let is_late = setup.rules4.as_ref().is_some_and(|rules| !rules.contains("*nat"));
    if chance(rng, if is_late { 30 } else { 2 }) {
        let families = [Family::Ipv4, Family::Ipv6];
        let rules = families.map(|family| rules::draw(rng, Net(family), true));
        steps.insert(rng.usize(..=steps.len()), Step::Load(Box::new(rules)));
    }
    Trace { steps, waiting: Waiting::Timers }
}

/// The kernel's own clock says when a UDP flow has lasted two seconds, and time does not really pass here.
fn mind_the_clock(steps: &mut [Step]) {
    let has_udp = steps.iter().filter_map(Step::frame).any(|frame| {
        let packet = frame.bytes.get(ETHERNET_LEN..).unwrap_or_default();
        let proto = if frame.bytes.get(12..14) == Some(&[8, 0]) { packet.get(9) } else { packet.get(6) };
        proto.is_none_or(|proto| matches!(*proto, PROTO_UDP | PROTO_UDPLITE | 0 | 43 | 44 | 60))
    });
    for step in steps {
        if let Step::Elapse(seconds) = step
            && has_udp
        {
            *seconds = (*seconds).max(LONG);
        }
    }
}

/// The hosts and ports of one trace.
struct Scene {
    net: Net,
    clients: Vec<(usize, Addr)>,
    servers: Vec<Addr>,
    client_ports: Vec<u16>,
    server_ports: Vec<u16>,
}

impl Scene {
    fn draw(rng: &mut Rng, net: Net, serial: u64) -> Self {
        const CLIENT_PORTS: [u16; 16] =
            [0, 1, 80, 511, 512, 599, 600, 1023, 1024, 2000, 2000, 2001, 5000, 5000, 7000, 65535];
        const SERVER_PORTS: [u16; 17] =
            [80, 8080, 8080, 53, 5000, 5000, 2000, 2001, 2009, 22, 443, 21, 2121, 69, 444, 7000, 9];
        let from = usize::from(chance(rng, 30));
        let mut clients: Vec<_> = (0..rng.u64(1..4)).map(|n| (from, net.host(from, serial, n))).collect();
        if chance(rng, 8) {
            // Somebody who has an address that others are translated to.
            clients.push((from, net.public(rng.u8(1..6))));
        }
        let servers =
            (0..rng.usize(1..4)).map(|n| Self::server(rng, net, (from, serial, n as u64))).collect();
        let some = |rng: &mut Rng, list: &[u16]| (0..rng.usize(1..3)).map(|_| *pick(rng, list)).collect();
        let (client_ports, server_ports) = (some(rng, &CLIENT_PORTS), some(rng, &SERVER_PORTS));
        Self { net, clients, servers, client_ports, server_ports }
    }

    /// Somebody whom a client may ask for.
    fn server(rng: &mut Rng, net: Net, (from, serial, n): (usize, u64, u64)) -> Addr {
        match rng.u8(..20) {
            0..=6 => net.public(65 + rng.u8(..6)),
            7 | 8 => net.public(72 + rng.u8(..3)),
            9..=12 => net.router(1),
            13 => net.router(0),
            14 => net.server(1 - from, rng.u8(..4)),
            15 => net.public(rng.u8(1..6)),
            _ => net.host(1 - from, serial, n),
        }
    }

    /// What one connection does, from its number on.
    fn flow(&self, rng: &mut Rng, number: u16) -> VecDeque<Step> {
        let (from, client) = *pick(rng, &self.clients);
        let mut ends = Ends {
            family: self.net.0,
            hosts: [client, *pick(rng, &self.servers)],
            ports: [from, 1 - from],
            numbers: [*pick(rng, &self.client_ports), *pick(rng, &self.server_ports)],
        };
        if chance(rng, 5) {
            ends.numbers[0] = rng.u16(..);
        }
        let mut longest = rng.usize(2..16);
        let trace = match rng.u8(..100) {
            0..=34 => tcp::trace(rng, &ends),
            35..=59 => udp::trace(rng, &ends),
            60..=71 => icmp::trace(rng, &ends),
            72..=78 => sctp::trace(rng, &ends),
            79..=84 => {
                longest = 40;
                fragment::trace(rng, &ends, false)
            }
            85..=94 => {
                longest = 40;
                ends.numbers[1] = *pick(rng, &[21, 21, 2121]);
                // Behind a rule the server has an address of its own for itself.
                let own = *pick(rng, &[ends.hosts[1], self.net.server(0, 0), self.net.server(1, 2)]);
                ftp::session(rng, &ends, [client, own])
            }
            _ => ftp::tftp(rng, &ends),
        };
        let mut steps = linked(rng, trace, &ends, number);
        steps.truncate(longest);
        steps
    }
}

/// The steps of a connection that can be told, its frames with their connection's number.
fn linked(rng: &mut Rng, trace: Trace, ends: &Ends, number: u16) -> VecDeque<Step> {
    let mut steps: VecDeque<Step> = trace.steps.into();
    let own = own_addresses(Net(ends.family));
    steps.retain(|step| {
        let is_fit =
            |frame: &Frame| is_plain(frame) && !asks_for_the_time(frame) && !claims_to_be(&own, frame);
        step.frame().is_none_or(is_fit)
    });
    for step in &mut steps {
        if let Step::Frame(frame) = step {
            frame.link = link(rng, frame, ends, number);
        }
    }
    steps
}

/// The router's addresses.
fn own_addresses(net: Net) -> [Addr; 4] {
    [net.router(0), net.router(1), net.server(0, OWN), net.server(1, OWN)]
}

/// Whether it can be told which connection a frame belongs to: there are no tags, and no pieces but those of the profile.
fn is_plain(frame: &Frame) -> bool {
    let is_piece = || {
        let mut copy = frame.bytes.clone();
        Packet::parse(&mut copy, Offload::NONE).is_ok_and(|pkt| pkt.fragment().is_some())
    };
    matches!(frame.bytes.get(12..14), Some([8, 0] | [0x86, 0xdd]))
        && (frame.kind == "fragment" || !is_piece())
}

/// Whether the answer tells the time of day, if the router gives it.
fn asks_for_the_time(frame: &Frame) -> bool {
    const ICMP: u8 = 1;
    const TIMESTAMP: u8 = 13;
    let packet = frame.bytes.get(ETHERNET_LEN..).unwrap_or_default();
    let at = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    frame.bytes.get(12..14) == Some(&[8, 0])
        && packet.get(9) == Some(&ICMP)
        && packet.get(at) == Some(&TIMESTAMP)
}

/// What claims to come from the router goes by its `lo`, which ours has not.
fn claims_to_be(own: &[Addr], frame: &Frame) -> bool {
    frame.addresses().is_some_and(|(src, _)| own.contains(&src))
}

/// What a frame has to do with its connection; now and then it goes as if nobody had been translated.
fn link(rng: &mut Rng, frame: &Frame, ends: &Ends, number: u16) -> Option<Link> {
    if frame.kind == "wrong side" || chance(rng, 4) {
        return None;
    }
    let number_of = |flow: u16| number + flow;
    match frame.link {
        Some(Link::Announced { flow, .. }) => {
            return Some(Link::Announced { flow: number_of(flow), master: number });
        }
        Some(Link::Along { flow, dir }) => return Some(Link::Along { flow: number_of(flow), dir }),
        Some(Link::About { .. }) | None => {}
    }
    if frame.kind == "icmp error" {
        let dir = if quoted_source(frame, ends.family)? == ends.hosts[1] {
            Direction::Reply
        } else {
            Direction::Original
        };
        return chance(rng, 85).then_some(Link::About { flow: number, dir });
    }
    let (src, _) = frame.addresses()?;
    if frame.kind == "tftp" {
        return tftp_link(frame, (src == ends.hosts[1]).into(), number);
    }
    let dir = if src == ends.hosts[1] { Direction::Reply } else { Direction::Original };
    Some(Link::Along { flow: number, dir })
}

/// The server of TFTP answers from another port, and so begins a connection of its own.
fn tftp_link(frame: &Frame, sender: usize, number: u16) -> Option<Link> {
    const SERVER: u16 = 69;
    let packet = frame.bytes.get(ETHERNET_LEN..)?;
    let at = if packet.first()? >> 4 == 4 { usize::from(packet[0] & 0x0f) * 4 } else { 40 };
    let port = |at: usize| packet.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let (from, to) = (port(at)?, port(at + 2)?);
    let theirs = if sender == 1 { from } else { to };
    let dir = if sender == 1 { Direction::Reply } else { Direction::Original };
    if theirs == SERVER {
        return Some(Link::Along { flow: number, dir });
    }
    let flow = number + 1 + theirs % (NUMBERS - 1);
    Some(if sender == 1 {
        Link::Announced { flow, master: number }
    } else {
        Link::Along { flow, dir: Direction::Reply }
    })
}

/// Who had sent what an error quotes.
fn quoted_source(frame: &Frame, family: Family) -> Option<Addr> {
    let packet = frame.bytes.get(ETHERNET_LEN..)?;
    let at = match family {
        Family::Ipv4 => usize::from(packet.first()? & 0x0f) * 4 + 8 + 12,
        Family::Ipv6 => 40 + 8 + 8,
    };
    let bytes = packet.get(at..at + family.bits() as usize / 8)?;
    Some(match family {
        Family::Ipv4 => Addr::from_v4(*bytes.first_chunk()?),
        Family::Ipv6 => Addr::from_v6(*bytes.first_chunk()?),
    })
}

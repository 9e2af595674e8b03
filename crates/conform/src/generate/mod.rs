//! Plausible conversations, disturbed: the same seed gives the same frames.

#![forbid(unsafe_code)]

mod bridge;
mod error;
mod flip;
mod fragment;
mod ftp;
mod ftp_text;
mod hostile;
mod icmp;
mod nat;
pub(crate) mod packet;
mod router;
pub(crate) mod sctp;
mod tcp;
mod timer;
mod udp;
mod world;

use super::trace::{Frame, Step, Trace};
use core::ops::Range;
use fastrand::Rng;
use packet::Ip;
use stateway_core::config::Mode;
use stateway_core::packet::{Addr, ETHERNET_LEN, Family};
use world::setup;

/// What kind of traffic is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    Tcp,
    Udp,
    Icmp,
    Fragment,
    Sctp,
    Mixed,
    /// Control connections with the helper, and the data connections that they announce
    Ftp,
    Tftp,
    /// Every timer just before and after its end
    Timer,
    /// Random rules that translate addresses, one set for each 1500 frames, and connections that compete for ports
    Nat,
}

/// Hosts on each side; above them are those of [`error::nearby`].
const HOSTS: u16 = 50_000;

/// Half of it is TCP, where the most can go wrong.
const MIX: [Profile; 12] = [
    Profile::Tcp,
    Profile::Tcp,
    Profile::Tcp,
    Profile::Tcp,
    Profile::Tcp,
    Profile::Udp,
    Profile::Udp,
    Profile::Icmp,
    Profile::Fragment,
    Profile::Sctp,
    Profile::Sctp,
    Profile::Timer,
];

/// Makes traces, each with addresses and ports of its own.
#[derive(Debug)]
pub struct Generator {
    rng: Rng,
    profile: Profile,
    mode: Mode,
    flows: u64,
}

impl Generator {
    pub fn new(seed: u64, profile: Profile, mode: Mode) -> Self {
        Self { rng: Rng::with_seed(seed), profile, mode, flows: 0 }
    }

    /// A world for the next traces: rules and settings.
    pub fn world(&mut self) -> super::Setup {
        let mut world = match self.profile {
            Profile::Nat => nat::setup(&mut self.rng),
            profile => setup(&mut self.rng, profile),
        };
        if self.mode == Mode::Bridge {
            bridge::turn(&mut self.rng, &mut world);
        }
        world
    }

    /// The next story, for a world that was made with `setup`.
    pub fn trace(&mut self, setup: &super::Setup) -> Trace {
        self.flows += 1;
        let rng = &mut self.rng.fork();
        if self.profile == Profile::Nat {
            return nat::trace(rng, self.flows, setup);
        }
        let mut ends = Ends::choose(rng, self.flows);
        let profile = match self.profile {
            Profile::Mixed => *pick(rng, &MIX),
            one => one,
        };
        if !matches!(profile, Profile::Ftp | Profile::Tftp | Profile::Timer) && chance(rng, 2) {
            ends.turn_to_oneself();
        }
        let mut trace = match profile {
            Profile::Tcp | Profile::Mixed => tcp::trace(rng, &ends),
            // A bridge is nobody's host, and what is sent to everybody belongs to no trace.
            Profile::Udp if self.mode == Mode::Route && chance(rng, 15) => {
                router::trace(rng, &ends, self.flows as u16)
            }
            Profile::Udp => udp::trace(rng, &ends),
            Profile::Icmp => icmp::trace(rng, &ends),
            Profile::Fragment if chance(rng, 30) => hostile::trace(rng, &ends, world::forgets_soon(setup)),
            Profile::Fragment => fragment::trace(rng, &ends, world::forgets_soon(setup)),
            Profile::Timer => timer::trace(rng, &ends, setup),
            Profile::Ftp | Profile::Nat => ftp::trace(rng, &ends),
            Profile::Tftp => ftp::tftp(rng, &ends),
            Profile::Sctp => sctp::trace(rng, &ends),
        };
        if chance(rng, 12) {
            flip::some(rng, &mut trace);
        }
        if self.mode == Mode::Bridge {
            bridge::cross(rng, setup, &mut trace);
        }
        trace
    }
}

/// Who talks to whom in one story. The opener is behind `port[0]`.
#[derive(Clone, Debug)]
struct Ends {
    family: Family,
    /// Opener and responder.
    hosts: [Addr; 2],
    /// The interfaces that they are behind.
    ports: [usize; 2],
    /// Their port numbers, or an identifier in the first.
    numbers: [u16; 2],
}

impl Ends {
    /// No two flows of a world have a host in common.
    fn choose(rng: &mut Rng, flow: u64) -> Self {
        let family = if rng.u8(..) < 96 { Family::Ipv6 } else { Family::Ipv4 };
        let host = 256 + (flow % u64::from(HOSTS)) as u16;
        let sides = match family {
            Family::Ipv4 => [v4([198, 18], host), v4([198, 19], host)],
            Family::Ipv6 => [v6(1, host), v6(2, host)],
        };
        let is_reversed = rng.u8(..) < 40;
        let ports = if is_reversed { [1, 0] } else { [0, 1] };
        let server = *pick(rng, &[80, 22, 21, 443, 53, 9, 5000, 0, 65535, 7000]);
        let opener = rng.u16(1024..);
        Self { family, hosts: ports.map(|port| sides[port]), ports, numbers: [opener, server] }
    }

    /// The opener speaks to itself, from a port to the same port.
    fn turn_to_oneself(&mut self) {
        self.hosts[1] = self.hosts[0];
        self.ports[1] = self.ports[0];
        self.numbers[1] = self.numbers[0];
    }

    /// The header of a packet that the opener (0) or the responder (1) sends.
    const fn ip(&self, sender: usize, proto: u8) -> Ip {
        Ip::new(self.family, self.hosts[sender], self.hosts[1 - sender], proto)
    }
}

fn v4(net: [u8; 2], host: u16) -> Addr {
    let [high, low] = host.to_be_bytes();
    Addr::from_v4([net[0], net[1], high, low])
}

fn v6(net: u8, host: u16) -> Addr {
    let mut bytes = [0x20, 0x01, 0x0d, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[14..].copy_from_slice(&host.to_be_bytes());
    Addr::from_v6(bytes)
}

fn pick<'a, T>(rng: &mut Rng, list: &'a [T]) -> &'a T {
    &list[rng.usize(..list.len())]
}

/// True in `percent` of a hundred cases.
fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(..100) < percent
}

/// What may happen to any packet's IP header on its way.
fn season(rng: &mut Rng, ip: &mut Ip) {
    ip.ident = rng.u16(..);
    if chance(rng, 10) {
        ip.tos = rng.u8(..);
    }
    if chance(rng, 10) {
        ip.ttl = *pick(rng, &[0, 1, 2, 3, 128, 255]);
    }
    if ip.family == Family::Ipv4 && chance(rng, 30) {
        ip.fragment = 0;
    }
    if chance(rng, 4) {
        match ip.family {
            Family::Ipv4 => ip.extra = pick(rng, &OPTIONS).to_vec(),
            Family::Ipv6 => extend(rng, ip),
        }
    }
}

/// IPv4 options: padding, record route, router alert, security, source routes; times alone, with addresses and of those
/// asked for, full and with room; too short, too long, unknown.
const OPTIONS: [&[u8]; 20] = [
    &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[68, 12, 13, 0x70, 1, 2, 3, 4, 5, 6, 7, 8],
    &[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    &[68, 12, 5, 3, 198, 18, 1, 2, 0, 0, 0, 0],
    &[68, 12, 5, 3, 192, 0, 2, 1, 0, 0, 0, 0],
    &[68, 12, 5, 2, 0, 0, 0, 0, 0, 0, 0, 0],
    &[1, 1, 1, 1],
    &[0, 0, 0, 0],
    &[0, 7, 7, 4],
    &[7, 7, 4, 0, 0, 0, 0, 0],
    &[7, 11, 8, 198, 18, 1, 2, 0, 0, 0, 0, 1],
    &[7, 7, 8, 198, 18, 1, 2, 1],
    &[7, 7, 3, 0, 0, 0, 0, 0],
    &[7, 2, 4, 0],
    &[148, 4, 0, 0],
    &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[131, 7, 4, 198, 18, 1, 2, 0],
    &[137, 7, 8, 198, 18, 1, 2, 0],
    &[131, 3, 4, 0],
    &[30, 40, 0, 0],
];

/// Headers between IPv6 and what it carries, in every order; or the word that nothing follows.
fn extend(rng: &mut Rng, ip: &mut Ip) {
    const NO_NEXT_HEADER: u8 = 59;
    const HEADERS: [u8; 8] = [0, 0, 60, 43, 44, 44, 60, 51];
    /// Mobility, host identities, shims, encryption, experiments: the upper layer to whoever reads no further.
    const UNREAD: [u8; 5] = [135, 139, 140, 50, 254];
    match rng.u8(..100) {
        0..15 => ip.proto = NO_NEXT_HEADER,
        15..18 => ip.proto = *pick(rng, &UNREAD),
        _ => {}
    }
    let most = if chance(rng, 15) { 8 } else { 4 };
    let mut kinds: Vec<u8> = (0..rng.usize(1..most)).map(|_| *pick(rng, &HEADERS)).collect();
    // Options for every hop stand in front, mostly.
    if chance(rng, 80) {
        kinds.sort_by_key(|kind| *kind != 0);
    }
    let mut is_nested = false;
    ip.first = kinds[0];
    for at in 0..kinds.len() {
        let next = kinds.get(at + 1).copied().unwrap_or(ip.proto);
        if matches!(kinds[at], 0 | 60) && chance(rng, 50) {
            ip.extra.extend(options(rng, next));
            continue;
        }
        let body: [u8; 7] = match kinds[at] {
            // An atomic fragment: a piece that is the whole (RFC 6946). Behind it others may say what they like.
            44 if !core::mem::replace(&mut is_nested, true) => [0, 0, 0, 1, 2, 3, 4],
            44 => [0, 0, *pick(rng, &[0, 0, 1, 8, 9]), rng.u8(..), 2, 3, 4],
            // Authentication counts in words: the rest of it follows below.
            51 => [1, 0, 0, 0, 0, 1, 0],
            // Type 253, which nobody has to visit; others, and some that want to go on.
            43 if chance(rng, 70) => [0, 253, 0, 0, 0, 0, 0],
            43 => [0, *pick(rng, &[0, 2, 3, 4, 253]), rng.u8(..3), 0, 0, 0, 0],
            _ => [0, 1, 4, 0, 0, 0, 0],
        };
        ip.extra.push(next);
        ip.extra.extend(body);
        if kinds[at] == 51 {
            ip.extra.extend([0; 4]);
        }
    }
    if chance(rng, if is_nested { 8 } else { 3 }) {
        // It ends in the middle of its headers.
        let len = rng.usize(..ip.extra.len());
        ip.extra.truncate(len);
    }
}

/// A header of IPv6 options: padding of any length, options that are known, and unknown ones of every action; seldom
/// one that reaches beyond the header.
fn options(rng: &mut Rng, next: u8) -> Vec<u8> {
    const KINDS: [u8; 14] = [0, 0, 1, 1, 1, 5, 7, 0x31, 0x1e, 0x3e, 0x5e, 0x9e, 0xde, 0xc2];
    let mut header = vec![next, 0];
    for _ in 0..rng.usize(..12) {
        match *pick(rng, &KINDS) {
            0 => header.push(0),
            1 => {
                let len = rng.u8(..7);
                header.extend([1, len]);
                header.extend((0..len).map(|_| u8::from(chance(rng, 3))));
            }
            kind => {
                let usual = if kind == 5 { 2 } else { 4 };
                let len = if chance(rng, 80) { usual } else { rng.u8(..15) };
                header.extend([kind, len]);
                header.extend((0..len).map(|_| if chance(rng, 50) { rng.u8(..) } else { rng.u8(..2) }));
            }
        }
    }
    // Brought to a multiple of eight, as it has to be; or left short, so that its last option reaches too far.
    let missing = header.len().next_multiple_of(8) - header.len();
    match missing {
        0 => {}
        1 => header.push(0),
        n => {
            header.extend([1, n as u8 - 2]);
            header.resize(header.len() + n - 2, 0);
        }
    }
    if chance(rng, 5) && header.len() > 8 {
        header.truncate(header.len() - 8);
    }
    header[1] = (header.len() / 8 - 1) as u8;
    header
}

/// Tags of 802.1Q and 802.1ad: of no VLAN mostly, with priorities and without.
const TAGS: [[u8; 4]; 6] = [
    [0x81, 0, 0, 0],
    [0x81, 0, 0xe0, 0],
    [0x81, 0, 0x10, 0],
    [0x88, 0xa8, 0, 0],
    [0x88, 0xa8, 0x60, 0],
    [0x81, 0, 0, 5],
];

/// A frame from the side of `sender`, with Ethernet padding where it is short, as a NIC adds it.
fn frame(rng: &mut Rng, ends: &Ends, sender: usize, packet: &[u8], kind: &'static str) -> Step {
    const LENGTH: Range<usize> = ETHERNET_LEN + 4..ETHERNET_LEN + 6;
    let mut frame = Frame::of_packet(ends.ports[sender], packet, kind);
    let has_options_for_every_hop = packet.len() > 40 && packet[0] >> 4 == 6 && packet[6] == 0;
    if has_options_for_every_hop && chance(rng, 10) {
        // As that of a jumbo payload, which it is not.
        frame.bytes[LENGTH].fill(0);
    }
    match rng.u8(..100) {
        0 | 1 => {
            let tags: Vec<u8> = (0..rng.usize(1..3)).flat_map(|_| *pick(rng, &TAGS)).collect();
            frame.bytes.splice(ETHERNET_LEN - 2..ETHERNET_LEN - 2, tags);
        }
        2 if chance(rng, 30) => flip::tags(rng, &mut frame.bytes),
        _ => {}
    }
    if frame.bytes.len() < 60 && chance(rng, 20) {
        frame.bytes.resize(60, rng.u8(..));
    }
    Step::Frame(frame)
}

//! What becomes of a trace where the router is a bridge: everybody is on one segment, and not every frame is IP.

#![forbid(unsafe_code)]

use super::packet::Ip;
use super::{chance, pick};
use crate::Setup;
use crate::kernel::{NAMES, NEIGHBOUR_MACS};
use crate::trace::{Frame, Step, Trace};
use fastrand::Rng;
use stateway_core::config::Mode;
use stateway_core::neighbour::message::Arp;
use stateway_core::packet::{Addr, ETHERNET_LEN, Family};

const DEFAULT_MTU: usize = 1500;
/// An IPv4 header: what is shorter is disturbed enough.
const MIN_PACKET: usize = 20;
/// For experiments (RFC 3692).
const NOBODYS_PROTOCOL: u8 = 253;

/// Link addresses that no station has: of groups, of everybody, of nobody.
const NO_STATIONS: [[u8; 6]; 4] = [[1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0xff; 6], [0; 6]];

/// Groups that bridges speak to each other by, which stay on their link, and others.
const GROUPS: [[u8; 6]; 6] = [
    [1, 0x80, 0xc2, 0, 0, 0],
    [1, 0x80, 0xc2, 0, 0, 0x0e],
    [1, 0x80, 0xc2, 0, 0, 3],
    [1, 0x80, 0xc2, 0, 0, 0x20],
    [1, 0, 0x5e, 0, 0, 5],
    [0xff; 6],
];

/// Makes a bridge of the world: with rules that answer nothing, since a bridge without an address cannot, and now and then
/// a port that takes less: not so little that it speaks no IPv6.
pub(super) fn turn(rng: &mut Rng, setup: &mut Setup) {
    setup.mode = Mode::Bridge;
    for rules in [&mut setup.rules4, &mut setup.rules6].into_iter().flatten() {
        *rules = rules.lines().map(|line| without_reject(line) + "\n").collect();
    }
    if chance(rng, 50) {
        let name = pick(rng, &NAMES);
        setup.mtu.push(((*name).to_owned(), *pick(rng, &[1280, 1300, 1400, 1499])));
    }
}

fn without_reject(line: &str) -> String {
    line.find("-j REJECT").map_or(line.to_owned(), |at| format!("{}-j DROP", &line[..at]))
}

/// Has every frame go to the station on the other side, and puts what is peculiar to a bridge among them.
pub(super) fn cross(rng: &mut Rng, setup: &Setup, trace: &mut Trace) {
    let steps = core::mem::take(&mut trace.steps);
    for mut step in steps {
        if let Step::Frame(frame) = &mut step {
            frame.cross();
            tell_length(&mut frame.bytes);
            if frame.bytes.len() >= ETHERNET_LEN + MIN_PACKET && chance(rng, 4) {
                trace.steps.push(Step::Frame(disturbed(rng, setup, frame)));
            }
        }
        trace.steps.push(step);
    }
}

/// An IPv6 packet that does not tell its length is INVALID to a bridge of Linux's and to no router: it tells it.
fn tell_length(frame: &mut [u8]) {
    let len = (frame.len().saturating_sub(ETHERNET_LEN + 40) as u16).to_be_bytes();
    if let Some([0x86, 0xdd, _, _, _, _, length @ .., 0, _]) = frame.get_mut(12..ETHERNET_LEN + 8)
        && *length == [0, 0]
    {
        length.copy_from_slice(&len);
    }
}

/// From the Ethernet type on: whether it is an IP packet that is no piece, and in IPv6 has no extension header.
fn is_one_without_options(bytes: &[u8]) -> bool {
    match *bytes {
        [8, 0, _, _, _, _, _, _, flags, offset, ..] => (flags & 0x3f, offset) == (0, 0),
        [0x86, 0xdd, _, _, _, _, _, _, next, ..] => ![0, 43, 44, 51, 60].contains(&next),
        _ => false,
    }
}

/// One frame more, made from `frame`.
fn disturbed(rng: &mut Rng, setup: &Setup, frame: &Frame) -> Frame {
    let mut other = Frame { kind: "bridge", ..frame.clone() };
    let bytes = &mut other.bytes;
    // What is for the port itself, and what the bridge hears of a group, its own stack looks at in its own way.
    let hides_something =
        ["fragment", "hostile fragment", "flipped", "cut", "length of zero"].contains(&frame.kind);
    let is_plain = !hides_something && is_one_without_options(&bytes[12..]);
    match rng.u8(..9) {
        0 => bytes[6..12].copy_from_slice(&pick(rng, &NO_STATIONS)[..]),
        1 if is_plain => bytes[..6].copy_from_slice(&pick(rng, &GROUPS)[..]),
        // To the sender's own side.
        2 => bytes[..6].copy_from_slice(&NEIGHBOUR_MACS[frame.port].0),
        3 => *bytes = arp(rng, frame.port),
        // Of a VLAN, in a session of PPPoE, of the days before Ethernet types, of a type that nobody has.
        4 => {
            let vlan = rng.u8(1..);
            bytes.splice(ETHERNET_LEN - 2..ETHERNET_LEN - 2, [0x81, 0, 0, vlan]);
        }
        5 => {
            bytes[12..14].copy_from_slice(&[0x88, 0x64]);
            bytes.splice(ETHERNET_LEN..ETHERNET_LEN, [0x11, 0, 0, 1, 0, 42, 0, 0x21]);
        }
        6 => {
            bytes.truncate(ETHERNET_LEN + 40);
            bytes[12..14].copy_from_slice(&[0, 40]);
            bytes[ETHERNET_LEN..ETHERNET_LEN + 3].copy_from_slice(&[0x42, 0x42, 3]);
        }
        7 => {
            bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
            bytes.resize(ETHERNET_LEN + mtu_of(setup, 1 - frame.port) + rng.usize(..9), 7);
        }
        _ => *bytes = long(rng, setup, frame),
    }
    other
}

/// ARP, whole or cut somewhere.
fn arp(rng: &mut Rng, port: usize) -> Vec<u8> {
    let [sender, target] = [10, 77].map(|host| Addr::from_v4([192, 0, 2, host]));
    let mut frame = Arp::ask(NEIGHBOUR_MACS[port], sender, target, None);
    frame.truncate(rng.usize(ETHERNET_LEN..=frame.len()));
    frame
}

/// A packet between the hosts of `frame`, about as long as the MTU of the way out: IPv4 that may be cut or not, or IPv6.
fn long(rng: &mut Rng, setup: &Setup, frame: &Frame) -> Vec<u8> {
    let (family, header_len) = match frame.bytes[12..14] {
        [0x08, 0x00] => (Family::Ipv4, 20),
        [0x86, 0xdd] => (Family::Ipv6, 40),
        _ => return frame.bytes.clone(),
    };
    let Some((src, dst)) = frame.addresses() else { return frame.bytes.clone() };
    let mut ip = Ip::new(family, src, dst, NOBODYS_PROTOCOL);
    if chance(rng, 50) {
        ip.fragment = 0;
    }
    let len = (mtu_of(setup, 1 - frame.port) - 8 + rng.usize(..64)).min(DEFAULT_MTU + 3);
    let mut long = Frame::of_packet(frame.port, &ip.build(&vec![0x74; len - header_len]), frame.kind);
    long.cross();
    long.bytes
}

fn mtu_of(setup: &Setup, port: usize) -> usize {
    setup.mtu.iter().find(|(name, _)| name == NAMES[port]).map_or(DEFAULT_MTU, |(_, mtu)| *mtu)
}

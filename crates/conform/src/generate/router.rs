//! Packets for the router itself, or in its name: to its addresses on either side, to its groups, and to any router of a
//! network.

#![forbid(unsafe_code)]

use super::{Ends, Ip, chance, extend, fragment, frame, pick, season};
use crate::trace::{Step, Trace, Waiting};
use fastrand::Rng;
use stateway_core::packet::tuple::{PROTO_TCP, PROTO_UDP};
use stateway_core::packet::{Addr, Family};
use std::net::IpAddr;

const GROUPS: [&str; 4] = ["ff02::1", "ff02::2", "2001:db8:1::", "2001:db8:2::"];
const EVERYBODY: &str = "255.255.255.255";
const NOBODY: u8 = 59;
const UNKNOWN: u8 = 99;

/// `serial` tells traces apart that have no host of their own.
pub(super) fn trace(rng: &mut Rng, ends: &Ends, serial: u16) -> Trace {
    let mut ends = ends.clone();
    let own_host = ends.hosts[0];
    ends.numbers[0] = serial;
    ends.hosts[1] = fragment::router_address(rng, ends.family);
    match ends.family {
        Family::Ipv6 if chance(rng, 30) => ends.hosts[1] = addr(rng.choice(GROUPS).unwrap_or(EVERYBODY)),
        Family::Ipv4 if chance(rng, 5) => {
            ends.hosts = [addr("127.0.0.1"), addr(EVERYBODY)];
        }
        Family::Ipv4 | Family::Ipv6 => {}
    }
    if chance(rng, 30) {
        // In by the interface that no answer goes to.
        ends.ports.swap(0, 1);
    }
    if ends.family == Family::Ipv6 && chance(rng, 10) {
        ends.hosts[0] = fragment::router_address(rng, ends.family);
    }
    let has_own_host = ends.hosts[0] == own_host;
    let steps = (0..rng.usize(1..4)).map(|_| packet(rng, &ends, has_own_host)).collect();
    Trace { steps, waiting: Waiting::Timers }
}

/// Without a host of its own a trace is told from others that run at the same time by its numbers alone.
fn packet(rng: &mut Rng, ends: &Ends, has_own_host: bool) -> Step {
    let protos = [PROTO_TCP, PROTO_UDP, Ip::icmp_proto(ends.family), UNKNOWN, NOBODY];
    let proto = *pick(rng, &protos[..if has_own_host { 5 } else { 3 }]);
    let mut ip = ends.ip(0, proto);
    season(rng, &mut ip);
    ip.fragment = 0;
    if ip.family == Family::Ipv6 && ip.extra.is_empty() && chance(rng, 60) {
        extend(rng, &mut ip);
    }
    let [from, to] = ends.numbers.map(u16::to_be_bytes);
    let l4 = match ip.proto {
        PROTO_TCP => {
            let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, *pick(rng, &[2, 16, 18, 4]), 1, 0, 0, 0, 0, 0];
            let mut l4 = [&from[..], &to, &rest].concat();
            ip.fill_checksum(&mut l4, 16);
            l4
        }
        PROTO_UDP => {
            let mut l4 = [&from[..], &to, &[0, 12, 0, 0, 1, 2, 3, 4]].concat();
            ip.fill_checksum(&mut l4, 6);
            l4
        }
        proto if proto == Ip::icmp_proto(ip.family) => {
            let echo = if ip.family == Family::Ipv4 { 8 } else { 128 };
            let mut l4 = [&[echo, 0, 0, 0][..], &from, &[0, 1, 0x61]].concat();
            ip.fill_checksum(&mut l4, 2);
            l4
        }
        _ => vec![0x71],
    };
    frame(rng, ends, 0, &ip.build(&l4), "for the router")
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().map_or(Addr::UNSPECIFIED, Into::into)
}

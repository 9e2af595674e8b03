//! What chance seldom comes to: rules at the head of the chains, and connections that meet them.

#![forbid(unsafe_code)]

use super::super::{Ends, chance, ftp, icmp, pick, tcp, udp};
use super::net::Net;
use crate::trace::Trace;
use fastrand::Rng;
use stateway_core::packet::Addr;

/// Where a shifted range, and one that is drawn from, are asked for.
const RANGES: u8 = 80;
/// Where a port alone is exchanged.
const PORTS: u8 = 81;
/// Another name for the first server of those below.
const NAME: u8 = 82;
/// Servers on the right, by what is done to those who ask them.
const SERVER: u8 = 4;
const ONE_PORT: u8 = 5;
const FTP: u8 = 6;
const RANGE_OF_SOURCES: u8 = 7;

const FTP_PORT: u16 = 21;
const ONE_PORT_PORT: u16 = 7777;

/// Rules at the head of PREROUTING.
pub(super) fn destination(net: Net) -> Vec<String> {
    let public = |n| net.text(net.public(n));
    let server = |ports: &str| net.target(net.server(1, SERVER), net.server(1, SERVER), ports);
    let (shifted, drawn, plain) = (server("3000-3003/2000"), server("3000-3003"), server(""));
    vec![
        format!("-d {} -p tcp -m tcp --dport 2000:2009 -j DNAT --to-destination {shifted}", public(RANGES)),
        format!(
            "-d {} -p udp -m udp --dport 2000:2009 -j DNAT --to-destination {drawn} --random",
            public(RANGES)
        ),
        format!("-d {} -p tcp -m tcp --dport 5000 -j DNAT --to-destination :5000-5001", public(PORTS)),
        format!("-d {} -j DNAT --to-destination {plain}", public(NAME)),
    ]
}

/// Rules at the head of POSTROUTING.
pub(super) fn source(net: Net) -> Vec<String> {
    let server = |n| net.text(net.server(1, n));
    let one = |n, ports: &str| net.target(net.public(n), net.public(n), ports);
    let some = net.target(net.public(1), net.public(4), "");
    vec![
        format!(
            "-d {} -o right -p tcp -m tcp --dport {ONE_PORT_PORT} -j SNAT --to-source {}",
            server(ONE_PORT),
            one(9, "2000")
        ),
        format!("-d {} -o right -p tcp -j SNAT --to-source {}", server(FTP), one(1, "")),
        format!("-d {} -o right -j SNAT --to-source {some} --persistent", server(RANGE_OF_SOURCES)),
    ]
}

/// Connections of clients on the left that meet one of these rules, each with its ends, in their order.
pub(super) fn flows(rng: &mut Rng, net: Net, serial: u64) -> Vec<(Ends, Trace)> {
    let ends = |n: u64, server: Addr, numbers| Ends {
        family: net.0,
        hosts: [net.host(0, serial, n), server],
        ports: [0, 1],
        numbers,
    };
    let of = |ends: Ends, trace: &mut dyn FnMut(&Ends) -> Trace| {
        let trace = trace(&ends);
        (ends, trace)
    };
    let (public, server) = (|n| net.public(n), |n| net.server(1, n));
    match rng.u8(..7) {
        // A connection that is over, and one that may take its port.
        0 => {
            let numbers = |port| [port, ONE_PORT_PORT];
            vec![
                of(ends(0, server(ONE_PORT), numbers(2000)), &mut |ends| tcp::reset(rng, ends)),
                of(ends(1, server(ONE_PORT), numbers(5000)), &mut |ends| tcp::opening(rng, ends)),
                of(ends(2, server(ONE_PORT), numbers(5001)), &mut |ends| tcp::opening(rng, ends)),
            ]
        }
        1 => (0..3)
            .map(|n| {
                let asked = rng.u16(2000..2010);
                of(ends(n % 2, public(RANGES), [5000, asked]), &mut |ends| tcp::opening(rng, ends))
            })
            .collect(),
        2 => (0..3)
            .map(|n| {
                let asked = rng.u16(2000..2010);
                of(ends(n % 2, public(RANGES), [5000, asked]), &mut |ends| udp::trace(rng, ends))
            })
            .collect(),
        3 => vec![of(ends(0, public(PORTS), [5000, 5000]), &mut |ends| tcp::trace(rng, ends))],
        4 => vec![of(ends(0, server(RANGE_OF_SOURCES), [5000, 53]), &mut |ends| udp::trace(rng, ends))],
        5 => {
            let own = u64::from(chance(rng, 10));
            let own = net.host(0, serial, own);
            vec![of(ends(0, server(FTP), [5000, FTP_PORT]), &mut |ends| ftp::complaint(rng, ends, own))]
        }
        // Two names of one server, asked with one identifier.
        _ => {
            let id = *pick(rng, &[0, 1, 7, 65535]);
            [public(NAME), server(SERVER), public(NAME)]
                .into_iter()
                .map(|server| of(ends(0, server, [id, 0]), &mut |ends| icmp::trace(rng, ends)))
                .collect()
        }
    }
}

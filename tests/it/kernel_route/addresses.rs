//! What the rules take an address for: `-m addrtype`, `-m rpfilter`.
//!
//! Each rule turns over one bit of the type of service; a packet that leaves, or the error about it, shows them all.

use super::{HOST, HOST6, LEFT, Pair, To, World, ipv4, ipv6};

const ROUTES: &[(&str, To)] = &[
    ("203.0.113.64/28", To::Blackhole),
    ("203.0.113.80/28", To::Unreachable),
    ("198.18.7.0/24", To::OnLink(super::RIGHT)),
    ("2001:db8:b1::/48", To::Blackhole),
    ("2001:db8:b2::/48", To::Unreachable),
    ("2001:db8:b3::/48", To::Prohibit),
    ("2001:db8:77::/48", To::OnLink(super::RIGHT)),
];

/// The rules of a hook of the mangle table, one for each bit.
fn rules(chain: &str, matches: &[&str]) -> &'static str {
    let rule = |(bit, text): (usize, &&str)| {
        let value = 1 << (bit + 2);
        format!("-A {chain} {text} -j TOS --set-tos {value:#04x}/{value:#04x}\n")
    };
    let rules: String = matches.iter().enumerate().map(rule).collect();
    format!("*mangle\n:{chain} ACCEPT [0:0]\n{rules}COMMIT\n").leak()
}

const TYPES_V4: [&str; 6] = [
    "-m addrtype --dst-type LOCAL",
    "-m addrtype --dst-type BROADCAST",
    "-m addrtype --dst-type UNICAST",
    "-m addrtype --dst-type LOCAL,BROADCAST --limit-iface-in",
    "-m addrtype --src-type LOCAL,BROADCAST,MULTICAST",
    "-m addrtype ! --dst-type UNICAST --src-type UNICAST",
];

const TYPES_V6: [&str; 6] = [
    "-m addrtype --dst-type LOCAL",
    "-m addrtype --dst-type ANYCAST",
    "-m addrtype --dst-type UNREACHABLE",
    "-m addrtype --dst-type LOCAL --limit-iface-in",
    "-m addrtype --dst-type UNICAST",
    "-m addrtype --dst-type UNREACHABLE --limit-iface-in",
];

#[test]
fn types_of_addresses() {
    let world = World {
        rules4: Some(rules("PREROUTING", &TYPES_V4)),
        rules6: Some(rules("PREROUTING", &TYPES_V6)),
        routes: ROUTES,
        addresses: &[(LEFT, "203.0.113.129/28")],
        neighbours: &[(super::RIGHT, "198.18.7.7", [2, 0, 0, 0, 2, 7])],
        ..World::default()
    };
    let Some(mut pair) = Pair::new(&world) else { return };
    for dst in [
        "192.0.2.1",
        "198.51.100.1",
        "192.0.2.0",
        "192.0.2.3",
        "198.51.100.3",
        "198.51.100.20",
        "203.0.113.129",
        "203.0.113.143",
        "203.0.113.140",
        "203.0.113.81",
        "198.18.7.7",
        "198.18.7.0",
        "10.0.0.1",
    ] {
        pair.check(&format!("a ping to {dst}"), LEFT, ipv4(HOST, dst).icmp(8, 0, b"x"));
        pair.check(&format!("a datagram to {dst}"), LEFT, ipv4("192.0.2.11", dst).udp(1));
    }
    for src in ["0.0.0.0", "0.1.2.3", "192.0.2.3", "240.0.0.1"] {
        pair.check(&format!("from {src}"), LEFT, ipv4(src, "198.51.100.20").udp(1));
    }
    for dst in [
        "2001:db8:1::1",
        "2001:db8:2::1",
        "2001:db8:1::",
        "2001:db8:2::",
        "2001:db8:2::20",
        "2001:db8:1::20",
        "2001:db8:b1::1",
        "2001:db8:b2::1",
        "2001:db8:b3::1",
        "2001:db8:77::",
        "fd00::1",
        "fe80::ff:fe00:101",
        "fe80::ff:fe00:201",
    ] {
        pair.check(&format!("a ping to {dst}"), LEFT, ipv6(HOST6, dst).icmp(128, 0, b"x"));
        pair.check(&format!("a datagram to {dst}"), LEFT, ipv6(HOST6, dst).udp(1));
    }
    pair.finish(50);
}

#[test]
fn types_of_addresses_on_the_way_out() {
    let world = World {
        rules4: Some(rules(
            "POSTROUTING",
            &[
                "-m addrtype --src-type LOCAL",
                "-m addrtype --src-type LOCAL --limit-iface-out",
                "-m addrtype --dst-type UNICAST",
            ],
        )),
        rules6: Some(rules(
            "POSTROUTING",
            &["-m addrtype --src-type LOCAL", "-m addrtype --src-type LOCAL --limit-iface-out"],
        )),
        ..World::default()
    };
    let Some(mut pair) = Pair::new(&world) else { return };
    for dst in ["192.0.2.1", "198.51.100.1", "198.51.100.20"] {
        pair.check(&format!("a ping to {dst}"), LEFT, ipv4(HOST, dst).icmp(8, 0, b"x"));
    }
    for dst in ["2001:db8:1::1", "2001:db8:2::1", "2001:db8:2::20"] {
        pair.check(&format!("a ping to {dst}"), LEFT, ipv6(HOST6, dst).icmp(128, 0, b"x"));
    }
    pair.finish(6);
}

#[test]
fn the_way_back() {
    const WAYS: [&str; 4] =
        ["-m rpfilter", "-m rpfilter --loose", "-m rpfilter --accept-local", "-m rpfilter --invert"];
    let world = World {
        rules4: Some(rules("PREROUTING", &WAYS)),
        rules6: Some(rules("PREROUTING", &WAYS)),
        routes: ROUTES,
        ..World::default()
    };
    let Some(mut pair) = Pair::new(&world) else { return };
    for src in [
        HOST,
        "198.51.100.30",
        "10.0.0.1",
        "203.0.113.65",
        "203.0.113.81",
        "198.18.7.7",
        "192.0.2.3",
        "0.1.2.3",
        "192.0.2.2",
    ] {
        pair.check(&format!("from {src}"), LEFT, ipv4(src, "198.51.100.20").udp(1));
    }
    for src in [
        HOST6,
        "2001:db8:2::30",
        "2001:db8:b1::1",
        "2001:db8:b2::1",
        "2001:db8:b3::1",
        "2001:db8:77::5",
        "fd00::1",
        "2001:db8:1::1",
        "2001:db8:2::1",
        "2001:db8:1::",
        "2001:db8:2::",
    ] {
        pair.check(&format!("from {src}"), LEFT, ipv6(src, "2001:db8:2::20").udp(1));
    }
    pair.finish(20);
}

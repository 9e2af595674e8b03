//! Rulesets that translate: such in which the kernel has no choice, and such in which it has one.

#![forbid(unsafe_code)]

use super::super::{chance, pick};
use super::aimed;
use super::net::Net;
use fastrand::Rng;
use stateway_core::packet::Family;
use std::fmt::Write as _;

/// A zone of its own, a port without tracking, and one that is refused.
pub(super) const ZONE: u16 = 7;
pub(super) const ZONE_PORT: u16 = 7000;
pub(super) const NOTRACK_PORT: u16 = 9;
pub(super) const REFUSED_PORT: u16 = 444;

/// All tables of one family, as iptables-save text. Without `has_nat` none that translates is named.
pub(super) fn draw(rng: &mut Rng, net: Net, has_nat: bool) -> String {
    let mut text = raw(rng);
    text.push_str(&mangle(rng, net));
    if has_nat {
        text.push_str(&nat(rng, net));
    }
    text.push_str(&filter(rng, net));
    text
}

fn raw(rng: &mut Rng) -> String {
    let mut text = String::from("*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    for port in [21, 2121] {
        let _ = writeln!(text, "-A PREROUTING -p tcp -m tcp --dport {port} -j CT --helper ftp");
    }
    text.push_str("-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp\n");
    if chance(rng, 30) {
        for (proto, side) in [("udp", "sport"), ("udp", "dport"), ("tcp", "dport")] {
            let _ =
                writeln!(text, "-A PREROUTING -p {proto} -m {proto} --{side} {NOTRACK_PORT} -j CT --notrack");
        }
    }
    if chance(rng, 20) {
        for (proto, side) in [("udp", "sport"), ("udp", "dport"), ("tcp", "dport")] {
            let _ = writeln!(
                text,
                "-A PREROUTING -p {proto} -m {proto} --{side} {ZONE_PORT} -j CT --zone {ZONE}"
            );
        }
    }
    text + "COMMIT\n"
}

/// Prefixes that are exchanged without a word to tracking, in IPv6.
fn mangle(rng: &mut Rng, net: Net) -> String {
    let mut text = String::from("*mangle\n");
    for chain in ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"] {
        let _ = writeln!(text, ":{chain} ACCEPT [0:0]");
    }
    if net.0 == Family::Ipv6 && chance(rng, 10) {
        let (inner, outer) = (net.side(0), "2001:db8:4::/48");
        let _ = writeln!(
            text,
            "-A PREROUTING -i right -d {outer} -j DNPT --src-pfx {outer} --dst-pfx {inner}\n\
             -A POSTROUTING -s {inner} -o right -j SNPT --src-pfx {inner} --dst-pfx {outer}"
        );
    }
    text + "COMMIT\n"
}

fn nat(rng: &mut Rng, net: Net) -> String {
    let mut text = String::from("*nat\n");
    let drops = chance(rng, 4).then(|| rng.usize(..4));
    for (n, chain) in ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"].iter().enumerate() {
        let policy = if drops == Some(n) { "DROP" } else { "ACCEPT" };
        let _ = writeln!(text, ":{chain} {policy} [0:0]");
    }
    let has_chain = chance(rng, 25);
    if has_chain {
        text.push_str(":dnat - [0:0]\n");
    }
    for rule in aimed::destination(net) {
        let _ = writeln!(text, "-A PREROUTING {rule}");
    }
    let mut destination = destination(rng, net);
    rng.shuffle(&mut destination);
    destination.truncate(rng.usize(2..12));
    let chain = if has_chain { "dnat" } else { "PREROUTING" };
    if has_chain {
        text.push_str("-A PREROUTING -j dnat\n");
    }
    for rule in destination {
        let _ = writeln!(text, "-A {chain} {rule}");
    }
    if chance(rng, 20) {
        let to = net.target(net.host(0, 9999, 0), net.host(0, 9999, 0), "");
        let _ = writeln!(
            text,
            "-A INPUT {} -j SNAT --to-source {to}",
            pick(rng, &["-p udp", "-p tcp", "-i left"])
        );
    }
    for rule in aimed::source(net) {
        let _ = writeln!(text, "-A POSTROUTING {rule}");
    }
    let mut source = source(rng, net);
    rng.shuffle(&mut source);
    source.truncate(rng.usize(..5));
    source.extend(last(rng, net));
    for rule in source {
        let _ = writeln!(text, "-A POSTROUTING {rule}");
    }
    text + "COMMIT\n"
}

/// Rules of PREROUTING.
fn destination(rng: &mut Rng, net: Net) -> Vec<String> {
    let (left, right) = (|n| net.server(0, n), |n| net.server(1, n));
    let public = |n| net.text(net.public(n));
    let one = |addr, ports: &str| net.target(addr, addr, ports);
    let router = net.text(net.router(1));
    let proto = *pick(rng, &["tcp", "udp"]);
    let order = *pick(rng, &["", "", " --random", " --persistent"]);
    let near = *pick(rng, &["5000-5001", "4999-5002", "80-81"]);
    let shift = *pick(rng, &["", "", "/2000", "/2003"]);
    let mut rules = vec![
        format!("-d {} -j DNAT --to-destination {}", public(65), one(right(0), "")),
        format!(
            "-d {} -p tcp -m tcp --dport 8080 -j DNAT --to-destination {}",
            public(66),
            one(right(0), "80")
        ),
        format!(
            "-d {} -p {proto} -m {proto} --dport 2000:2009 -j DNAT --to-destination {}{order}",
            public(67),
            one(right(1), &format!("3000-3003{shift}"))
        ),
        format!(
            "-d {} -j DNAT --to-destination {}{}",
            public(68),
            net.target(right(0), right(3), ""),
            if chance(rng, 40) { " --persistent" } else { "" }
        ),
        format!(
            "-i right -d {router} -p tcp -m tcp --dport 2121 -j DNAT --to-destination {}",
            one(left(0), "21")
        ),
        format!("-d {router} -p tcp -m tcp --dport 8080 -j DNAT --to-destination {}", one(left(0), "80")),
        format!("-d {router} -p udp -m udp --dport 5000 -j DNAT --to-destination {}", one(left(1), "")),
        format!("-d {} -j NETMAP --to {}", net.eight(net.public(72)), net.eight(right(8))),
        "-i left -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080".to_owned(),
        "-i left -p udp -m udp --dport 53 -j REDIRECT".to_owned(),
        format!("-d {} -p tcp -m tcp --dport 443 -j DNAT --to-destination :4443", public(69)),
        format!(
            "-d {} -p sctp -m sctp --dport 5000 -j DNAT --to-destination {}",
            public(69),
            one(right(2), "6000")
        ),
        format!("-d {} -p udp -m udp --dport 69 -j DNAT --to-destination {}", public(69), one(right(2), "")),
        format!("-d {} -p tcp -m tcp --dport 21 -j DNAT --to-destination {}", public(69), one(right(2), "")),
        "-p tcp -m tcp --dport 22 -j ACCEPT".to_owned(),
        format!(
            "-d {} -p {proto} -m {proto} --dport 5000 -j DNAT --to-destination {}",
            public(70),
            one(right(1), near)
        ),
    ];
    if net.0 == Family::Ipv4 {
        let id = *pick(rng, &["100", "100-101", "2000-2001"]);
        rules.push(format!("-d {} -p icmp -j DNAT --to-destination {}", public(70), one(right(1), id)));
    }
    rules
}

/// Rules of POSTROUTING for some of what leaves.
fn source(rng: &mut Rng, net: Net) -> Vec<String> {
    let one = |n, ports: &str| net.target(net.public(n), net.public(n), ports);
    let random = *pick(rng, &["", "", " --random", " --random-fully"]);
    let port = *pick(rng, &["2000", "2000-2001", "2000-2003", "1024-1151"]);
    let mut rules = vec![
        format!("-o right -p tcp -m tcp -j SNAT --to-source {}", one(1, "2000")),
        format!("-o right -p udp -m udp -j SNAT --to-source {}{random}", one(2, port)),
        format!("-o right -p tcp -m tcp -j SNAT --to-source {}", one(3, port)),
        format!("-o right -p tcp -m tcp -j MASQUERADE --to-ports 7000-7001{random}"),
        format!("-o right -p udp -m udp -j MASQUERADE --to-ports 7002"),
        format!("-o right -p sctp -m sctp -j SNAT --to-source {}", one(4, "2000-2001")),
        format!("-s {} -o right -p udp -m udp --sport 5000 -j SNAT --to-source :4000-4001", net.side(0)),
        "-o right -p tcp -m tcp --dport 22 -j ACCEPT".to_owned(),
        format!(
            "-d {} -j SNAT --to-source {}",
            net.eight(net.server(0, 0)),
            net.target(net.router(0), net.router(0), "")
        ),
        format!("-s {} -d {} -j MASQUERADE", net.side(0), net.eight(net.server(0, 0))),
    ];
    if net.0 == Family::Ipv4 {
        let id = *pick(rng, &["10", "10-11", "2000-2001"]);
        rules.push(format!("-o right -p icmp -j SNAT --to-source {}", one(5, id)));
    }
    rules
}

/// What the rest of POSTROUTING is.
fn last(rng: &mut Rng, net: Net) -> Option<String> {
    let some = |first, last| net.target(net.public(first), net.public(last), "");
    let persistent = if chance(rng, 40) { " --persistent" } else { "" };
    let random = *pick(rng, &["", "", "", " --random"]);
    let own = net.target(net.host(0, 0, 0), net.host(0, 9_999, 0), "");
    match rng.u8(..10) {
        0 | 1 => Some(format!("-o right -j MASQUERADE{random}")),
        2 | 3 => Some(format!("-o right -j SNAT --to-source {}{random}", some(1, 1))),
        4 => Some(format!("-o right -j SNAT --to-source {}{persistent}", some(1, 4))),
        5 => Some(format!("-s {} -o right -j NETMAP --to {}", net.side(0), net.eight(net.public(8)))),
        6 => Some(format!("-o right -j SNAT --to-source {own}")),
        7 => Some("-j MASQUERADE".to_owned()),
        _ => None,
    }
}

/// What passes, and what is counted on the way.
fn filter(rng: &mut Rng, net: Net) -> String {
    let mut text =
        String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    let public = net.text(net.public(65));
    let mut rules = vec![
        "-A FORWARD -m conntrack --ctstate DNAT".to_owned(),
        "-A FORWARD -m conntrack --ctstate SNAT".to_owned(),
        "-A FORWARD -m conntrack --ctstate RELATED,SNAT".to_owned(),
        format!("-A FORWARD -m conntrack --ctorigdst {public}"),
        "-A FORWARD -m conntrack --ctorigdstport 8080".to_owned(),
        "-A FORWARD -m conntrack --ctrepldstport 2000".to_owned(),
        format!("-A FORWARD -m conntrack --ctreplsrc {}", net.text(net.server(1, 0))),
        "-A FORWARD -m conntrack --ctstate INVALID -j DROP".to_owned(),
        "-A INPUT -m conntrack --ctstate DNAT".to_owned(),
        "-A OUTPUT -m conntrack --ctstate DNAT".to_owned(),
    ];
    let keep = rng.usize(..=rules.len());
    while rules.len() > keep {
        let at = rng.usize(..rules.len());
        rules.remove(at);
    }
    let unreachable = if net.0 == Family::Ipv4 { "icmp-port-unreachable" } else { "icmp6-port-unreachable" };
    rules.push(format!("-A FORWARD -p tcp -m tcp --dport {REFUSED_PORT} -j REJECT --reject-with tcp-reset"));
    rules.push(format!(
        "-A FORWARD -p udp -m udp --dport {REFUSED_PORT} -j REJECT --reject-with {unreachable}"
    ));
    for rule in rules {
        let _ = writeln!(text, "{rule}");
    }
    text + "COMMIT\n"
}

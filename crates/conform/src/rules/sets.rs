//! Sets by chance, as `ipset save` writes them.

#![forbid(unsafe_code)]

use super::universe::{PORTS, SENDERS, chance, host, pick};
use fastrand::Rng;
use stateway_core::packet::Family;

/// A name, a type, an option, and how many sides of a packet an element is about.
const KINDS: [(&str, &str, &str, usize); 15] = [
    ("ip", "hash:ip", "", 1),
    ("masked", "hash:ip", "netmask", 1),
    ("net", "hash:net", "", 1),
    ("ports", "hash:ip,port", "", 2),
    ("timed", "hash:ip", "timeout 10000", 1),
    ("timedports", "hash:ip,port", "timeout 10000", 2),
    ("netports", "hash:net,port", "", 2),
    ("pairs", "hash:ip,port,ip", "", 3),
    ("pairsnet", "hash:ip,port,net", "", 3),
    ("behind", "hash:net,iface", "", 2),
    ("map", "bitmap:ip", "range 198.18.0.0/16", 1),
    ("nets", "bitmap:ip", "range 198.18.0.0/15 netmask 24", 1),
    ("macs", "bitmap:ip,mac", "range 198.18.0.0/16", 2),
    ("numbers", "bitmap:port", "range 20-1024", 1),
    ("timedmap", "bitmap:ip", "range 198.19.0.0/16 timeout 10000", 1),
];

/// The lines; and the names of the sets, with how many sides of a packet each is about.
pub(super) fn sets(rng: &mut Rng, family: Family) -> (Vec<String>, Vec<(String, usize)>) {
    let inet = if family == Family::Ipv4 { "inet" } else { "inet6" };
    let (mut lines, mut names) = (Vec::new(), Vec::new());
    for (name, kind, option, sides) in KINDS {
        let is_address_map = kind.starts_with("bitmap:ip");
        if !chance(rng, 30) || (is_address_map && family == Family::Ipv6) {
            continue;
        }
        let name = format!("{name}{inet}");
        let mut line = format!("create {name} {kind}");
        if kind.starts_with("hash:") {
            line += &format!(" family {inet} hashsize 64 maxelem {}", pick(rng, &[65_536, 65_536, 8]));
        }
        match option {
            "" => {}
            "netmask" => line += &format!(" netmask {}", family.bits() - 8),
            option => line += &format!(" {option}"),
        }
        lines.push(line + counters(rng));
        let mut elements: Vec<_> = (0..rng.usize(0..7)).map(|_| element(rng, family, kind, option)).collect();
        elements.dedup();
        lines.extend(elements.iter().flatten().map(|element| format!("add {name} {element}")));
        names.push((name, sides));
    }
    if names.len() > 1 && chance(rng, 40) {
        let list = format!("list{inet}");
        lines.push(format!("create {list} list:set size 8{}", counters(rng)));
        let mut members = names.clone();
        rng.shuffle(&mut members);
        members.truncate(rng.usize(1..4));
        lines.extend(members.iter().map(|(member, _)| format!("add {list} {member}")));
        // Sometimes enough for all of them.
        names.push((list, rng.usize(1..4)));
    }
    (lines, names)
}

fn counters(rng: &mut Rng) -> &'static str {
    if chance(rng, 40) { " counters" } else { "" }
}

/// An element; `None` if it would be out of the range of its set.
fn element(rng: &mut Rng, family: Family, kind: &str, option: &str) -> Option<String> {
    let bits = family.bits();
    let side = rng.usize(..2);
    let addr = host(rng, family, side).to_ip(family);
    let other = host(rng, family, 1 - side).to_ip(family);
    let len = bits - pick(rng, &[0, 1, 7, 8]);
    let nomatch = if chance(rng, 20) { " nomatch" } else { "" };
    let port = format!("{}:{}", pick(rng, &["tcp", "udp", "sctp"]), pick(rng, &PORTS));
    let is_left = addr.to_string().starts_with("198.18.");
    let is_beyond =
        option.contains("198.18.0.0/16") && !is_left || option.contains("198.19.0.0/16") && is_left;
    if is_beyond {
        return None;
    }
    Some(match kind {
        "hash:net" => format!("{addr}/{len}{nomatch}"),
        "hash:ip,port" => format!("{addr},{port}"),
        "hash:net,port" => format!("{addr}/{len},{port}{nomatch}"),
        "hash:ip,port,ip" => format!("{addr},{port},{other}"),
        "hash:ip,port,net" => format!("{addr},{port},{other}/{len}{nomatch}"),
        "hash:net,iface" => {
            let iface = pick(rng, &["left", "right", "le wildcard", "eth0", "l wildcard"]);
            format!("{addr}/{len},{iface}{nomatch}")
        }
        "bitmap:ip,mac" if chance(rng, 50) => format!("{addr},{}", pick(rng, &SENDERS)),
        "bitmap:port" => pick(rng, &PORTS[2..13]).to_string(),
        _ => addr.to_string(),
    })
}

//! Targets by chance: every one that is honoured, where it may stand.

#![forbid(unsafe_code)]

use super::matches::{Draw, Place};
use super::universe::{MARKS, TTLS, chance, pick};
use stateway_core::filter::{Hook, Table};
use stateway_core::packet::Family;
use stateway_core::packet::tuple::{PROTO_TCP, PROTO_UDP};

/// NFLOG groups that the comparison listens to.
pub(super) const GROUPS: [u16; 2] = [2, 3];

/// Draws a target for the rule; it may add conditions that the target needs. `callees`: chains that it may lead to.
pub(super) fn target(d: &mut Draw<'_>, callees: &[String]) -> String {
    let place = d.place;
    if !callees.is_empty() && chance(d.rng, 25) {
        let chain = pick(d.rng, callees);
        return if chance(d.rng, 75) { format!("-j {chain}") } else { format!("-g {chain}") };
    }
    let is_filter = place.table == Table::Filter;
    match d.rng.u8(..100) {
        0..=17 => String::new(),
        18..=24 => "-j RETURN".to_owned(),
        25..=36 if is_filter => "-j ACCEPT".to_owned(),
        25..=28 => "-j ACCEPT".to_owned(),
        37..=44 if is_filter => "-j DROP".to_owned(),
        37 => "-j DROP".to_owned(),
        // What the router itself sends it could only tell itself.
        45..=58 if is_filter && d.place.only(&[Hook::Input, Hook::Forward]) => reject(d),
        59..=64 => nflog(d),
        65..=67 => log(d),
        68..=76 => format!("-j MARK {}", change(d)),
        77..=85 if place.table != Table::Raw => connmark(d),
        86..=88 => set(d),
        89..=90 => tcpmss(d),
        _ => by_table(d),
    }
}

fn by_table(d: &mut Draw<'_>) -> String {
    match d.place.table {
        Table::Raw => ct(d),
        Table::Mangle => rewrite(d),
        Table::Filter | Table::Nat | Table::Security => String::new(),
    }
}

fn reject(d: &mut Draw<'_>) -> String {
    let kinds: &[&str] = match d.place.family {
        Family::Ipv4 => &[
            "icmp-port-unreachable",
            "icmp-net-unreachable",
            "icmp-host-unreachable",
            "icmp-proto-unreachable",
            "icmp-net-prohibited",
            "icmp-host-prohibited",
            "icmp-admin-prohibited",
        ],
        Family::Ipv6 => &[
            "icmp6-port-unreachable",
            "icmp6-no-route",
            "icmp6-adm-prohibited",
            "icmp6-addr-unreachable",
            "icmp6-policy-fail",
            "icmp6-reject-route",
        ],
    };
    if chance(d.rng, 30) && matches!(d.proto, None | Some(PROTO_TCP)) {
        if d.proto.is_none() {
            d.parts.push("-p tcp".to_owned());
            d.proto = Some(PROTO_TCP);
        }
        return "-j REJECT --reject-with tcp-reset".to_owned();
    }
    if chance(d.rng, 15) {
        "-j REJECT".to_owned()
    } else {
        format!("-j REJECT --reject-with {}", pick(d.rng, kinds))
    }
}

fn nflog(d: &mut Draw<'_>) -> String {
    let mut text = format!("-j NFLOG --nflog-group {}", pick(d.rng, &GROUPS));
    if chance(d.rng, 70) {
        text += &format!(" --nflog-prefix \"rule {}\"", d.rng.u16(..1000));
    }
    if chance(d.rng, 40) {
        text += &format!(" --nflog-size {}", pick(d.rng, &[1, 20, 40, 64, 2000]));
    }
    if chance(d.rng, 10) {
        text += " --nflog-threshold 1";
    }
    text
}

fn log(d: &mut Draw<'_>) -> String {
    let mut text = "-j LOG".to_owned();
    if chance(d.rng, 60) {
        text += " --log-prefix \"seen: \"";
    }
    if chance(d.rng, 30) {
        text += &format!(" --log-level {}", d.rng.u8(..8));
    }
    for flag in ["tcp-sequence", "tcp-options", "ip-options", "uid", "macdecode"] {
        if chance(d.rng, 15) {
            text += &format!(" --log-{flag}");
        }
    }
    text
}

fn change(d: &mut Draw<'_>) -> String {
    let value = *pick(d.rng, &MARKS);
    let mask = *pick(d.rng, &MARKS);
    match d.rng.u8(..6) {
        0 => format!("--set-mark {value:#x}"),
        1 => format!("--set-mark {value:#x}/{mask:#x}"),
        2 => format!("--set-xmark {value:#x}/{mask:#x}"),
        3 => format!("--and-mark {value:#x}"),
        4 => format!("--or-mark {value:#x}"),
        _ => format!("--xor-mark {value:#x}"),
    }
}

fn connmark(d: &mut Draw<'_>) -> String {
    let way = match d.rng.u8(..6) {
        0..=1 => return format!("-j CONNMARK {}", change(d)),
        2..=3 => "--save-mark",
        _ => "--restore-mark",
    };
    let (nf, ct) = (*pick(d.rng, &MARKS), *pick(d.rng, &MARKS));
    match d.rng.u8(..4) {
        0 => format!("-j CONNMARK {way} --nfmask {nf:#x} --ctmask {ct:#x}"),
        1 => format!("-j CONNMARK {way} --mask {nf:#x}"),
        _ => format!("-j CONNMARK {way}"),
    }
}

fn set(d: &mut Draw<'_>) -> String {
    let sets = d.sets;
    if sets.is_empty() {
        return String::new();
    }
    let (name, sides) = pick(d.rng, sets);
    let sides: Vec<&str> = (0..*sides).map(|_| *pick(d.rng, &["src", "dst"])).collect();
    match d.rng.u8(..3) {
        0 => format!("-j SET --del-set {name} {}", sides.join(",")),
        n => {
            let exist = if n == 1 { " --exist" } else { "" };
            // Only sets with timeouts take one; the longest run is shorter than this.
            let timeout = if name.starts_with("timed") && chance(d.rng, 50) { " --timeout 5000" } else { "" };
            format!("-j SET --add-set {name} {}{exist}{timeout}", sides.join(","))
        }
    }
}

fn tcpmss(d: &mut Draw<'_>) -> String {
    if !matches!(d.proto, None | Some(PROTO_TCP)) || d.parts.iter().any(|p| p.starts_with("-m tcp ")) {
        return String::new();
    }
    if d.proto.is_none() {
        d.parts.push("-p tcp".to_owned());
        d.proto = Some(PROTO_TCP);
    }
    d.parts.push("-m tcp --tcp-flags SYN,RST SYN".to_owned());
    if chance(d.rng, 50) && d.place.only(&[Hook::Forward, Hook::Output, Hook::Postrouting]) {
        return "-j TCPMSS --clamp-mss-to-pmtu".to_owned();
    }
    format!("-j TCPMSS --set-mss {}", pick(d.rng, &[0, 536, 1200, 1459, 1460, 1461, 65_000]))
}

fn ct(d: &mut Draw<'_>) -> String {
    match d.rng.u8(..10) {
        0..=1 => "-j NOTRACK".to_owned(),
        2..=3 => "-j CT --notrack".to_owned(),
        4 => "-j TRACE".to_owned(),
        5 => format!("-j CT --zone {}{}", pick(d.rng, &super::ZONES), ct_events(d)),
        6 => format!("-j CT{}", ct_events(d)),
        _ => {
            let (proto, name) = *pick(d.rng, &[(PROTO_TCP, "ftp"), (PROTO_UDP, "tftp")]);
            if d.proto.is_none() {
                d.parts.push(format!("-p {proto}"));
                d.proto = Some(proto);
            }
            if d.proto == Some(proto) {
                format!("-j CT --helper {name}{}", ct_events(d))
            } else {
                "-j TRACE".to_owned()
            }
        }
    }
}

/// Which events are told; no packet fares otherwise for it.
fn ct_events(d: &mut Draw<'_>) -> String {
    const LISTS: [&str; 4] = ["new", "destroy", "new,related,destroy", "reply,assured,protoinfo,helper,mark"];
    let mut text = String::new();
    if chance(d.rng, 40) {
        text += &format!(" --ctevents {}", pick(d.rng, &LISTS));
    }
    if chance(d.rng, 20) {
        text += " --expevents new";
    }
    text
}

fn rewrite(d: &mut Draw<'_>) -> String {
    let (name, low) = if d.place.family == Family::Ipv4 { ("TTL", "ttl") } else { ("HL", "hl") };
    match d.rng.u8(..14) {
        10 => "-j CHECKSUM --checksum-fill".to_owned(),
        11..=12 => tcp_header(d),
        0 => format!("-j {name} --{low}-set {}", pick(d.rng, &TTLS)),
        1 => format!("-j {name} --{low}-inc {}", pick(d.rng, &[1, 2, 200])),
        2 => format!("-j {name} --{low}-dec {}", pick(d.rng, &[1, 2, 63, 200])),
        3 => format!("-j DSCP --set-dscp {:#04x}", pick(d.rng, &[0, 0x0a, 0x3f])),
        4 => format!("-j DSCP --set-dscp-class {}", pick(d.rng, &["EF", "AF43", "CS1"])),
        5 => format!(
            "-j TOS --set-tos {}",
            pick(d.rng, &["0x10/0x3f", "0xff", "0x02/0xff", "Maximize-Reliability"])
        ),
        6 => format!("-j TOS --and-tos {:#04x}", pick(d.rng, &[0, 0x3f, 0xfc])),
        7 => format!("-j TOS --or-tos {:#04x}", pick(d.rng, &[1, 0x10, 0xff])),
        _ => format!("-j TOS --xor-tos {:#04x}", pick(d.rng, &[0x10, 0x55, 0xff])),
    }
}

/// Something taken out of a TCP header.
fn tcp_header(d: &mut Draw<'_>) -> String {
    if d.proto.is_none() {
        d.parts.push("-p tcp".to_owned());
        d.proto = Some(PROTO_TCP);
    }
    let is_ipv4 = d.place.family == Family::Ipv4;
    if d.proto != Some(PROTO_TCP) {
        return if is_ipv4 { "-j ECN --ecn-ip-ect 1".to_owned() } else { String::new() };
    }
    if is_ipv4 && d.rng.bool() {
        let kinds = [
            "--ecn-tcp-remove",
            "--ecn-tcp-cwr 1",
            "--ecn-tcp-ece 1 --ecn-tcp-cwr 0",
            "--ecn-tcp-remove --ecn-ip-ect 2",
            "--ecn-ip-ect 3",
        ];
        return format!("-j ECN {}", pick(d.rng, &kinds));
    }
    format!(
        "-j TCPOPTSTRIP --strip-options {}",
        pick(d.rng, &["mss", "2,3,4", "timestamp", "255,5", "wscale,8"])
    )
}

/// A user chain's place: it is reached from these hooks.
pub(super) fn place(family: Family, table: Table, hooks: Vec<Hook>, is_base: bool) -> Place {
    Place { family, table, hooks, is_base }
}

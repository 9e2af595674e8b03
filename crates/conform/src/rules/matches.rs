//! Conditions by chance: every match that is honoured, every option, with and without `!`.

#![forbid(unsafe_code)]

use super::headers::{eui64, extension, ipsec, owner, policy, tcpmss};
use super::universe::{
    LENGTHS, MARKS, OTHERS, PORTS, SENDERS, TTLS, WITH_PORTS, WORDS, chance, host, near, pick,
};
use fastrand::Rng;
use stateway_core::filter::{Hook, Table};
use stateway_core::packet::Family;
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP};

/// Where a rule stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) family: Family,
    pub(super) table: Table,
    /// The hooks from which its chain is reached.
    pub(super) hooks: Vec<Hook>,
    pub(super) is_base: bool,
}

impl Place {
    /// Whether it is reached from these hooks only.
    pub(super) fn only(&self, hooks: &[Hook]) -> bool {
        self.hooks.iter().all(|hook| hooks.contains(hook))
    }
}

/// One rule's conditions in the making.
pub(super) struct Draw<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) place: &'a Place,
    /// Names of sets, with the number of sides that a rule must name.
    pub(super) sets: &'a [(String, usize)],
    /// Frames come slowly enough for what counts by the tick.
    pub(super) is_slow: bool,
    /// What `-p` said, if it was not negated.
    pub(super) proto: Option<u8>,
    pub(super) parts: Vec<String>,
}

type Maker = fn(&mut Draw<'_>) -> Option<String>;

/// Matches that need nothing of `-p`, by how often they are wanted.
const MAKERS: [(u8, Maker); 40] = [
    (2, addrtype),
    (1, comment),
    (3, connbytes),
    (3, connlimit),
    (3, connmark),
    (12, conntrack),
    (2, dscp),
    (2, ecn),
    (4, hashlimit),
    (1, helper),
    (2, iprange),
    (3, length),
    (3, limit),
    (2, mac),
    (4, mark),
    (6, multiport),
    (1, physdev),
    (2, pkttype),
    (3, quota),
    (6, recent),
    (2, rpfilter),
    (4, set),
    (4, state),
    (4, statistic),
    (4, string),
    (2, time),
    (2, tos),
    (3, ttl),
    (4, u32),
    (10, tcp),
    (4, udp),
    (4, sctp),
    (4, icmp),
    (6, extension),
    (1, ipsec),
    (1, eui64),
    (3, tcpmss),
    (1, policy),
    (1, owner),
    (1, again),
];

impl Draw<'_> {
    /// Draws the conditions of one rule.
    pub(super) fn conditions(&mut self) {
        self.addresses();
        self.ifaces();
        self.protocol();
        let count = *pick(self.rng, &[0, 1, 1, 1, 1, 2, 2, 3]);
        let total: u32 = MAKERS.iter().map(|(weight, _)| u32::from(*weight)).sum();
        for _ in 0..count {
            let mut at = self.rng.u32(..total);
            let maker = MAKERS.iter().find(|(weight, _)| {
                let found = at < u32::from(*weight);
                at = at.wrapping_sub(u32::from(*weight));
                found
            });
            if let Some(part) = maker.and_then(|(_, make)| make(self)) {
                self.add(part);
            }
        }
    }

    /// A match that comes again stands behind its first use: an option that several matches have, such as `--mark`,
    /// belongs to the one whose name came last for the first time.
    fn add(&mut self, part: String) {
        let name_of = |part: &str| part.strip_prefix("-m ")?.split(' ').next().map(str::to_owned);
        let name = name_of(&part);
        let first = self.parts.iter().rposition(|other| name.is_some() && name_of(other) == name);
        self.parts.insert(first.map_or(self.parts.len(), |at| at + 1), part);
    }

    /// `! ` now and then.
    pub(super) fn not(&mut self) -> &'static str {
        if chance(self.rng, 25) { "! " } else { "" }
    }

    pub(super) fn network(&mut self, side: usize) -> String {
        let family = self.place.family;
        if family == Family::Ipv4 && chance(self.rng, 8) {
            let addr = host(self.rng, family, side).to_ip(family);
            return format!("{addr}/{}", pick(self.rng, &["255.255.0.255", "0.0.255.0", "255.255.255.1"]));
        }
        self.prefix(side)
    }

    /// A network whose mask is a prefix. What another mask means in `--ctorigsrc` and `--tunnel-src` depends on the version of
    /// iptables: 1.8.9 ignores it.
    pub(super) fn prefix(&mut self, side: usize) -> String {
        let family = self.place.family;
        let addr = host(self.rng, family, side).to_ip(family);
        let lens: &[u8] = match family {
            Family::Ipv4 => &[32, 32, 31, 30, 25, 24, 23, 22, 16, 15, 8, 0],
            Family::Ipv6 => &[128, 128, 127, 121, 120, 119, 112, 64, 48, 32, 1, 0],
        };
        format!("{addr}/{}", pick(self.rng, lens))
    }

    fn addresses(&mut self) {
        for flag in ["-s", "-d"] {
            if chance(self.rng, 22) {
                let (not, side) = (self.not(), self.rng.usize(..2));
                let net = self.network(side);
                self.parts.push(format!("{not}{flag} {net}"));
            }
        }
    }

    fn ifaces(&mut self) {
        const NAMES: [&str; 7] = ["left", "right", "le+", "r+", "+", "leftmost", "eth0"];
        // In base chains the tools know which of the two can be there.
        let ways = [
            ("-i", [Hook::Prerouting, Hook::Input, Hook::Forward]),
            ("-o", [Hook::Forward, Hook::Output, Hook::Postrouting]),
        ];
        for (flag, hooks) in ways {
            if chance(self.rng, 12) && (self.place.only(&hooks) || !self.place.is_base) {
                let not = self.not();
                let name = pick(self.rng, &NAMES);
                // `! -i +` holds never, and the tools refuse it.
                if !(not == "! " && *name == "+") {
                    self.parts.push(format!("{not}{flag} {name}"));
                }
            }
        }
        if self.place.family == Family::Ipv4 && chance(self.rng, 3) {
            let not = self.not();
            self.parts.push(format!("{not}-f"));
        }
    }

    fn protocol(&mut self) {
        if !chance(self.rng, 30) {
            return;
        }
        let icmp = if self.place.family == Family::Ipv4 { PROTO_ICMP } else { PROTO_ICMPV6 };
        let proto = match self.rng.u8(..10) {
            0..=3 => PROTO_TCP,
            4..=5 => PROTO_UDP,
            6 => icmp,
            7 => *pick(self.rng, &WITH_PORTS),
            _ => *pick(self.rng, &OTHERS),
        };
        let not = self.not();
        self.parts.push(format!("{not}-p {proto}"));
        // A negated one still stands in the way of `want`.
        self.proto = Some(if not.is_empty() { proto } else { 0 });
    }

    /// Makes `-p` say one of these; `None` if it says another already.
    pub(super) fn want(&mut self, protos: &[u8]) -> Option<u8> {
        if let Some(proto) = self.proto {
            return protos.contains(&proto).then_some(proto);
        }
        let proto = *pick(self.rng, protos);
        self.parts.push(format!("-p {proto}"));
        self.proto = Some(proto);
        Some(proto)
    }

    fn ports(&mut self) -> String {
        let (a, b) = (near(self.rng, &PORTS), near(self.rng, &PORTS));
        match self.rng.u8(..10) {
            0..=4 => a.to_string(),
            5 => format!(":{a}"),
            6 => format!("{a}:"),
            _ => format!("{}:{}", a.min(b), a.max(b)),
        }
    }

    fn masked_mark(&mut self) -> String {
        let value = *pick(self.rng, &MARKS);
        if chance(self.rng, 50) {
            return format!("{value:#x}");
        }
        let mask = *pick(self.rng, &MARKS);
        format!("{:#x}/{mask:#x}", value & mask)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.starts_with(&format!("-m {name} ")))
    }
}

/// A match that is there already, once more, with other options.
fn again(d: &mut Draw<'_>) -> Option<String> {
    let repeatable = [mark as Maker, length, conntrack, ttl, statistic];
    pick(d.rng, &repeatable)(d)
}

fn addrtype(d: &mut Draw<'_>) -> Option<String> {
    const TYPES: [&str; 9] = [
        "UNICAST",
        "LOCAL",
        "UNSPEC",
        "MULTICAST",
        "ANYCAST",
        "UNREACHABLE",
        "BROADCAST",
        "BLACKHOLE",
        "PROHIBIT",
    ];
    let known = if d.place.family == Family::Ipv4 { &TYPES[..] } else { &TYPES[..6] };
    let mut text = "-m addrtype".to_owned();
    let which = d.rng.u8(1..4);
    for (bit, flag) in [(1, "--src-type"), (2, "--dst-type")] {
        if which & bit != 0 {
            let not = d.not();
            let mut types: Vec<&str> = (0..d.rng.usize(1..3)).map(|_| *pick(d.rng, known)).collect();
            types.dedup();
            text += &format!(" {not}{flag} {}", types.join(","));
        }
    }
    if chance(d.rng, 20) {
        if d.place.only(&[Hook::Prerouting, Hook::Input, Hook::Forward]) {
            text += " --limit-iface-in";
        } else if d.place.only(&[Hook::Postrouting, Hook::Output, Hook::Forward]) {
            text += " --limit-iface-out";
        }
    }
    Some(text)
}

fn comment(d: &mut Draw<'_>) -> Option<String> {
    let texts = ["plain", "\"two words\"", "\"a \\\"quote\\\"\"", "\"Grüße\"", "\"a\\\\b\"", "\"it's\""];
    Some(format!("-m comment --comment {}", pick(d.rng, &texts)))
}

fn connbytes(d: &mut Draw<'_>) -> Option<String> {
    let (not, low, more) = (d.not(), *pick(d.rng, &[0, 1, 2, 3, 40, 100, 1000]), d.rng.u64(..5));
    let range = match d.rng.u8(..3) {
        0 => format!("{low}"),
        1 => format!("{low}:{}", low + more * (low + 1)),
        _ => format!("0:{low}"),
    };
    let dir = pick(d.rng, &["original", "reply", "both"]);
    let mode = pick(d.rng, &["packets", "bytes", "avgpkt"]);
    Some(format!("-m connbytes {not}--connbytes {range} --connbytes-mode {mode} --connbytes-dir {dir}"))
}

fn connlimit(d: &mut Draw<'_>) -> Option<String> {
    // In a chain that a packet passes once: what comes in the same tick the kernel counts twice.
    if !d.is_slow || !d.place.is_base || d.has("connlimit") {
        return None;
    }
    let (not, count) = (d.not(), d.rng.u8(..5));
    let kind = pick(d.rng, &["upto", "above"]);
    let most = if d.place.family == Family::Ipv4 { 32 } else { 128 };
    let mask = *pick(d.rng, &[most, most - 1, most - 8, 0]);
    let side = pick(d.rng, &["saddr", "daddr"]);
    // What belongs to no connection counts for a moment, by rules of its own.
    d.parts.push("-m state --state NEW,RELATED,ESTABLISHED".to_owned());
    Some(format!("-m connlimit {not}--connlimit-{kind} {count} --connlimit-mask {mask} --connlimit-{side}"))
}

fn connmark(d: &mut Draw<'_>) -> Option<String> {
    // Behind `CT --zone` the kernel shows the raw table something of its own instead of a connection.
    if d.place.table == Table::Raw {
        return None;
    }
    let (not, mark) = (d.not(), d.masked_mark());
    Some(format!("-m connmark {not}--mark {mark}"))
}

fn conntrack(d: &mut Draw<'_>) -> Option<String> {
    const STATES: [&str; 5] = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"];
    const STATUS: [&str; 5] = ["NONE", "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"];
    let mut text = "-m conntrack".to_owned();
    for _ in 0..*pick(d.rng, &[1, 1, 1, 2]) {
        let not = d.not();
        let side = d.rng.usize(..2);
        let option = match d.rng.u8(..22) {
            8..=255 if d.place.table == Table::Raw => continue,
            0..=7 => {
                let first = *pick(d.rng, &STATES);
                let second = *pick(d.rng, &STATES);
                format!(
                    "--ctstate {first}{}",
                    if first == second { String::new() } else { format!(",{second}") }
                )
            }
            8..=9 => format!("--ctproto {}", pick(d.rng, &[6, 17, 1, 58, 132])),
            10 => format!("--ctorigsrc {}", d.prefix(side)),
            11 => format!("--ctorigdst {}", d.prefix(side)),
            12 => format!("--ctreplsrc {}", d.prefix(side)),
            13 => format!("--ctrepldst {}", d.prefix(side)),
            14 => format!("--ctorigsrcport {}", port_range(d)),
            15 => format!("--ctorigdstport {}", port_range(d)),
            16 => format!("--ctreplsrcport {}", port_range(d)),
            17 => format!("--ctrepldstport {}", port_range(d)),
            18..=19 => format!("--ctstatus {}", pick(d.rng, &STATUS)),
            // Far from what any timer has left, for the kernel's clock goes on.
            20 => format!("--ctexpire {}", pick(d.rng, &["15", "20:60", "0:200", "1000:100000", "200:"])),
            _ => format!("--ctdir {}", pick(d.rng, &["ORIGINAL", "REPLY"])),
        };
        let name = option.split(' ').next().unwrap_or_default().to_owned();
        if text.contains(&format!("{name} ")) {
            continue;
        }
        let not = if name == "--ctdir" { "" } else { not };
        text += &format!(" {not}{option}");
    }
    (text.len() > 12).then_some(text)
}

fn port_range(d: &mut Draw<'_>) -> String {
    let (a, b) = (near(d.rng, &PORTS), near(d.rng, &PORTS));
    if chance(d.rng, 50) { a.to_string() } else { format!("{}:{}", a.min(b), a.max(b)) }
}

fn dscp(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    Some(if chance(d.rng, 70) {
        format!("-m dscp {not}--dscp {:#04x}", pick(d.rng, &[0, 0x0a, 0x2e, 0x3f]))
    } else {
        format!("-m dscp {not}--dscp-class {}", pick(d.rng, &["EF", "AF11", "BE", "CS7"]))
    })
}

fn ecn(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    if chance(d.rng, 40) {
        return Some(format!("-m ecn {not}--ecn-ip-ect {}", d.rng.u8(..4)));
    }
    d.want(&[PROTO_TCP])?;
    let other = d.not();
    Some(match d.rng.u8(..3) {
        0 => format!("-m ecn {not}--ecn-tcp-cwr"),
        1 => format!("-m ecn {not}--ecn-tcp-ece"),
        _ => format!("-m ecn {not}--ecn-tcp-cwr {other}--ecn-tcp-ece --ecn-ip-ect {}", d.rng.u8(..4)),
    })
}

/// A rate so low that the bucket does not fill again during the run.
fn slow_rate(d: &mut Draw<'_>) -> String {
    format!("{}/{}", d.rng.u8(1..9), pick(d.rng, &["hour", "day"]))
}

fn hashlimit(d: &mut Draw<'_>) -> Option<String> {
    let rate = slow_rate(d);
    let burst = if rate.ends_with("day") { 1 } else { d.rng.u8(1..9) };
    let modes =
        ["srcip", "dstip", "srcip,dstip", "srcip,srcport", "dstip,dstport", "srcip,srcport,dstip,dstport"];
    let mode = pick(d.rng, &modes);
    let (kind, name) = (*pick(d.rng, &["upto", "above"]), d.rng.u16(..));
    let mut text = format!("-m hashlimit --hashlimit-{kind} {rate} --hashlimit-burst {burst}");
    if chance(d.rng, 90) {
        text += &format!(" --hashlimit-mode {mode}");
    }
    text += &format!(" --hashlimit-name h{name}");
    let most = if d.place.family == Family::Ipv4 { 32 } else { 128 };
    for (flag, needs) in [("srcmask", "srcip"), ("dstmask", "dstip")] {
        if chance(d.rng, 30) && text.contains(needs) {
            text += &format!(" --hashlimit-{flag} {}", pick(d.rng, &[most - 1, most - 8, 0]));
        }
    }
    for (flag, value) in [("size", 128), ("max", 1000), ("gcinterval", 100_000), ("expire", 500_000)] {
        if chance(d.rng, 10) {
            text += &format!(" --hashlimit-htable-{flag} {value}");
        }
    }
    Some(text)
}

fn helper(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    Some(format!("-m helper {not}--helper {}", pick(d.rng, &["ftp", "tftp"])))
}

fn iprange(d: &mut Draw<'_>) -> Option<String> {
    let mut text = "-m iprange".to_owned();
    let which = d.rng.u8(1..4);
    let family = d.place.family;
    for (bit, flag) in [(1, "--src-range"), (2, "--dst-range")] {
        if which & bit != 0 {
            let (not, side) = (d.not(), d.rng.usize(..2));
            let (a, b) = (host(d.rng, family, side), host(d.rng, family, side));
            text += &format!(" {not}{flag} {}-{}", a.min(b).to_ip(family), a.max(b).to_ip(family));
        }
    }
    Some(text)
}

fn length(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    let mut at = || {
        let list = LENGTHS.map(|len| len as u16);
        near(d.rng, &list)
    };
    let (a, b) = (at(), at());
    let range = match d.rng.u8(..4) {
        0 => format!("{a}"),
        1 => format!("{a}:"),
        2 => format!(":{a}"),
        _ => format!("{}:{}", a.min(b), a.max(b)),
    };
    Some(format!("-m length {not}--length {range}"))
}

fn limit(d: &mut Draw<'_>) -> Option<String> {
    let (rate, burst) = (slow_rate(d), *pick(d.rng, &[1, 2, 5, 10]));
    // The kernel's bucket is too small for more of a day.
    if rate.ends_with("day") && burst > 1 || chance(d.rng, 10) {
        return Some("-m limit --limit 10/hour --limit-burst 3".to_owned());
    }
    Some(format!("-m limit --limit {rate} --limit-burst {burst}"))
}

fn mac(d: &mut Draw<'_>) -> Option<String> {
    if !d.place.only(&[Hook::Prerouting, Hook::Input, Hook::Forward]) {
        return None;
    }
    let not = d.not();
    let known = [SENDERS[0], SENDERS[1], crate::kernel::NEIGHBOUR_MACS[0]];
    Some(format!("-m mac {not}--mac-source {}", pick(d.rng, &known)))
}

fn mark(d: &mut Draw<'_>) -> Option<String> {
    let (not, mark) = (d.not(), d.masked_mark());
    Some(format!("-m mark {not}--mark {mark}"))
}

fn multiport(d: &mut Draw<'_>) -> Option<String> {
    d.want(&[PROTO_TCP, PROTO_UDP, PROTO_SCTP, 136])?;
    let not = d.not();
    let which = pick(d.rng, &["sports", "dports", "ports"]);
    let mut list = Vec::new();
    let mut room = d.rng.usize(1..=15);
    while room > 0 {
        let (a, b) = (near(d.rng, &PORTS), near(d.rng, &PORTS));
        if room >= 2 && a != b && chance(d.rng, 40) {
            list.push(format!("{}:{}", a.min(b), a.max(b)));
            room -= 2;
        } else {
            list.push(a.to_string());
            room -= 1;
        }
    }
    Some(format!("-m multiport {not}--{which} {}", list.join(",")))
}

/// Packets are routed here, so that it says the same of all of them.
fn physdev(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    let mut options = vec!["--physdev-in left", "--physdev-is-in"];
    if d.place.only(&[Hook::Forward, Hook::Postrouting]) {
        options.extend(["--physdev-out right", "--physdev-is-out", "--physdev-is-bridged"]);
    }
    Some(format!("-m physdev {not}{}", pick(d.rng, &options)))
}

fn pkttype(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    Some(format!("-m pkttype {not}--pkt-type {}", pick(d.rng, &["unicast", "broadcast", "multicast"])))
}

fn quota(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    Some(format!("-m quota {not}--quota {}", pick(d.rng, &[0, 39, 40, 41, 100, 1000, 20_000])))
}

fn recent(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    let action = *pick(d.rng, &["set", "set", "rcheck", "update", "remove"]);
    let mut text = format!("-m recent {not}--{action}");
    if action == "rcheck" || action == "update" {
        if chance(d.rng, 40) {
            text += &format!(" --seconds {}", pick(d.rng, &[1000, 100_000]));
            text += if chance(d.rng, 30) { " --reap" } else { "" };
        }
        if chance(d.rng, 40) {
            text += &format!(" --hitcount {}", pick(d.rng, &[1, 2, 3, 5, 8, 9]));
        }
        text += if chance(d.rng, 15) { " --rttl" } else { "" };
    }
    // The kernel shares a list between the families: which rule comes first would depend on both.
    let version = if d.place.family == Family::Ipv4 { 4 } else { 6 };
    text += &format!(" --name {}{version}", pick(d.rng, &["a", "b", "c"]));
    if chance(d.rng, 30) {
        let masks = match d.place.family {
            Family::Ipv4 => ["255.255.255.0", "255.255.255.254"],
            Family::Ipv6 => ["ffff:ffff:ffff:ffff::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"],
        };
        text += &format!(" --mask {}", pick(d.rng, &masks));
    }
    text += *pick(d.rng, &["", " --rsource", " --rdest"]);
    Some(text)
}

fn rpfilter(d: &mut Draw<'_>) -> Option<String> {
    if d.place.table == Table::Filter || !d.place.only(&[Hook::Prerouting]) {
        return None;
    }
    let mut text = "-m rpfilter".to_owned();
    for flag in ["--loose", "--validmark", "--accept-local", "--invert"] {
        if chance(d.rng, 30) {
            text += &format!(" {flag}");
        }
    }
    Some(text)
}

fn set(d: &mut Draw<'_>) -> Option<String> {
    let sets = d.sets;
    if sets.is_empty() {
        return None;
    }
    let not = d.not();
    let (name, sides) = pick(d.rng, sets);
    let sides: Vec<&str> = (0..*sides).map(|_| *pick(d.rng, &["src", "dst"])).collect();
    let mut text = format!("-m set {not}--match-set {name} {}", sides.join(","));
    if not.is_empty() {
        text += &set_counters(d);
    }
    Some(text)
}

/// What a set's element has counted before; it says nothing of sets that count nothing.
fn set_counters(d: &mut Draw<'_>) -> String {
    let mut text = String::new();
    for (unit, about) in [("packets", 3), ("bytes", 400)] {
        if chance(d.rng, 20) {
            let not = d.not();
            let (how, n) = (*pick(d.rng, &["eq", "lt", "gt"]), d.rng.u32(..2 * about));
            let not = if how == "eq" { not } else { "" };
            text += &format!(" {not}--{unit}-{how} {n}");
        }
    }
    if chance(d.rng, 10) {
        text += " --return-nomatch";
    }
    for flag in ["counters", "subcounters"] {
        if chance(d.rng, 10) {
            text += &format!(" ! --update-{flag}");
        }
    }
    text
}

fn state(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    let lists =
        ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "RELATED,ESTABLISHED", "INVALID,NEW"];
    Some(format!("-m state {not}--state {}", pick(d.rng, &lists)))
}

/// Only `nth`: nobody can say beforehand what `random` does.
fn statistic(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    let every = d.rng.u8(1..6);
    let packet = d.rng.u8(..every);
    Some(format!("-m statistic --mode nth {not}--every {every} --packet {packet}"))
}

fn string(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    let algo = pick(d.rng, &["bm", "kmp"]);
    let pattern = match d.rng.u8(..8) {
        0 => "--hex-string \"|00 01 02|\"".to_owned(),
        1 => "--hex-string \"a|62|ab\"".to_owned(),
        _ => format!("--string \"{}\"", pick(d.rng, &WORDS)),
    };
    let mut text = format!("-m string {not}{pattern} --algo {algo}");
    let from = *pick(d.rng, &[0, 1, 20, 28, 40, 41, 48, 52, 60, 64]);
    if chance(d.rng, 40) {
        text += &format!(" --from {from}");
    }
    if chance(d.rng, 40) {
        text += &format!(" --to {}", from + d.rng.u16(1..60));
    }
    text += if chance(d.rng, 30) { " --icase" } else { "" };
    Some(text)
}

fn time(d: &mut Draw<'_>) -> Option<String> {
    let mut text = "-m time".to_owned();
    let (a, b) = (d.rng.u8(..24), d.rng.u8(..24));
    if chance(d.rng, 60) {
        text += &format!(" --timestart {a:02}:30 --timestop {b:02}:30");
        if a > b && chance(d.rng, 50) {
            text += " --contiguous";
        }
    }
    if chance(d.rng, 40) {
        let not = d.not();
        text += &format!(
            " {not}--weekdays {}",
            pick(d.rng, &["Mon", "Sat,Sun", "Mon,Tue,Wed", "Thu,Fri,Sat,Sun"])
        );
    }
    if chance(d.rng, 30) {
        let not = d.not();
        text +=
            &format!(" {not}--monthdays {}", pick(d.rng, &["1", "1,2,3,4,5,6,7,8,9,10", "31", "22,23,24"]));
    }
    if chance(d.rng, 30) {
        text += *pick(
            d.rng,
            &[
                " --datestart 2026-01-01",
                " --datestop 2030-06-01T12:00:00",
                " --datestart 2035-01-01T00:00:00",
            ],
        );
    }
    (text.len() > 7).then_some(text)
}

fn tos(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    let value = pick(d.rng, &["0x10", "0x00/0x3f", "0x10/0x10", "0x02/0x03", "Minimize-Delay", "0xff"]);
    Some(format!("-m tos {not}--tos {value}"))
}

fn ttl(d: &mut Draw<'_>) -> Option<String> {
    let name = if d.place.family == Family::Ipv4 { "ttl" } else { "hl" };
    let value = *pick(d.rng, &TTLS);
    Some(match d.rng.u8(..3) {
        0 => {
            let not = d.not();
            format!("-m {name} {not}--{name}-eq {value}")
        }
        1 => format!("-m {name} --{name}-lt {value}"),
        _ => format!("-m {name} --{name}-gt {value}"),
    })
}

/// Words of an IPv4 packet without identification and checksums, which the kernel draws for its own packets.
const SETTLED: [u8; 8] = [0, 6, 12, 16, 24, 31, 38, 50];

fn u32(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    let sees_own = !d.place.only(&[Hook::Prerouting, Hook::Input, Hook::Forward]);
    let word = |d: &mut Draw<'_>, below: u8| {
        if sees_own && d.place.family == Family::Ipv4 { *pick(d.rng, &SETTLED) } else { d.rng.u8(..below) }
    };
    let test = match (d.place.family, d.rng.u8(..8)) {
        (Family::Ipv4, 0) => "6&0xFF=6".to_owned(),
        (Family::Ipv4, 1) => "0&0xFFFF=0x28:0x64,0x5dc".to_owned(),
        (Family::Ipv4, 2) => format!("0>>22&0x3C@0>>16={}", pick(d.rng, &PORTS)),
        (Family::Ipv4, 3) => "6&0xFF=0x11&&0>>22&0x3C@4>>16=8:100".to_owned(),
        (Family::Ipv6, 0) => "4&0xFF00=0x600".to_owned(),
        (Family::Ipv6, 1) => format!("40>>16={}", pick(d.rng, &PORTS)),
        (Family::Ipv6, 2) => "4&0xFFFF0000>>16=8:40".to_owned(),
        (_, 4) => format!("{}&0xFF={}", word(d, 70), d.rng.u8(..)),
        (_, 5) => format!("{}>>{}={}:0xFFFFFFFF", word(d, 60), d.rng.u8(..32), d.rng.u16(..)),
        (_, 6) if !sees_own => {
            format!("{}&0x3C@{}&0xFFFF=0:{}", d.rng.u8(..40), d.rng.u8(..40), d.rng.u16(..))
        }
        _ => format!("{}<<{}&0xF0=0x10:0x80", word(d, 60), d.rng.u8(..32)),
    };
    Some(format!("-m u32 {not}--u32 \"{test}\""))
}

fn tcp(d: &mut Draw<'_>) -> Option<String> {
    const FLAGS: [&str; 8] =
        ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "FIN,SYN,RST,ACK", "FIN,SYN,RST,PSH,ACK,URG"];
    if d.has("tcp") {
        return None;
    }
    d.want(&[PROTO_TCP])?;
    let mut text = "-m tcp".to_owned();
    for flag in ["--sport", "--dport"] {
        if chance(d.rng, 50) {
            let (not, ports) = (d.not(), d.ports());
            text += &format!(" {not}{flag} {ports}");
        }
    }
    match d.rng.u8(..10) {
        0..=1 => text += &format!(" {}--syn", d.not()),
        2..=4 => {
            let not = d.not();
            let mask = *pick(d.rng, &FLAGS);
            let set: Vec<&str> = mask.split(',').filter(|_| d.rng.bool()).collect();
            let set = if set.is_empty() { "NONE".to_owned() } else { set.join(",") };
            text += &format!(" {not}--tcp-flags {mask} {set}");
        }
        5 => {
            let not = d.not();
            text += &format!(" {not}--tcp-option {}", pick(d.rng, &[2, 3, 4, 5, 8, 19, 255]));
        }
        _ => {}
    }
    (text.len() > 6).then_some(text)
}

fn udp(d: &mut Draw<'_>) -> Option<String> {
    if d.has("udp") {
        return None;
    }
    d.want(&[PROTO_UDP])?;
    let mut text = "-m udp".to_owned();
    let which = d.rng.u8(1..4);
    for (bit, flag) in [(1, "--sport"), (2, "--dport")] {
        if which & bit != 0 {
            let (not, ports) = (d.not(), d.ports());
            text += &format!(" {not}{flag} {ports}");
        }
    }
    Some(text)
}

fn sctp(d: &mut Draw<'_>) -> Option<String> {
    const CHUNKS: [&str; 10] = [
        "DATA",
        "INIT",
        "DATA:UBE",
        "DATA:Be",
        "DATA,SACK",
        "INIT,INIT_ACK,COOKIE_ECHO",
        "HEARTBEAT",
        "ABORT:T",
        "ABORT:t,SHUTDOWN",
        "DATA:I,INIT",
    ];
    if d.has("sctp") {
        return None;
    }
    d.want(&[PROTO_SCTP])?;
    let mut text = "-m sctp".to_owned();
    for flag in ["--sport", "--dport"] {
        if chance(d.rng, 30) {
            let (not, ports) = (d.not(), d.ports());
            text += &format!(" {not}{flag} {ports}");
        }
    }
    if chance(d.rng, 70) || text.len() < 8 {
        let not = d.not();
        let how = pick(d.rng, &["all", "any", "only"]);
        let list = *pick(d.rng, &["ALL", "NONE"].iter().chain(&CHUNKS).copied().collect::<Vec<_>>());
        text += &format!(" {not}--chunk-types {how} {list}");
    }
    Some(text)
}

fn icmp(d: &mut Draw<'_>) -> Option<String> {
    let not = d.not();
    match d.place.family {
        Family::Ipv4 => {
            d.want(&[PROTO_ICMP])?;
            let types =
                ["8", "0", "3", "3/1", "3/3", "11", "any", "echo-request", "redirect", "5/1", "13", "255"];
            Some(format!("-m icmp {not}--icmp-type {}", pick(d.rng, &types)))
        }
        Family::Ipv6 => {
            d.want(&[PROTO_ICMPV6])?;
            let types =
                ["128", "129", "1", "1/4", "3", "135", "packet-too-big", "echo-reply", "1/1", "143", "4/1"];
            Some(format!("-m icmp6 {not}--icmpv6-type {}", pick(d.rng, &types)))
        }
    }
}

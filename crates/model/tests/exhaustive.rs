//! Random rulesets on a small universe: what the model says of every packet is what a walk through the core says of it, its
//! translation included.
//!
//! 16 addresses on each side, 16 ports, three protocols, four interfaces, and all states. `STATEWAY_RULESETS` says how many
//! rulesets, `STATEWAY_EVERY_PACKET` that each of them gets every packet of that universe, and not some of them. Of pairs of
//! rulesets it is what the model says of their difference: `STATEWAY_PAIRS` and `STATEWAY_PACKETS` say how many.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]
#![expect(clippy::print_stdout, reason = "who asks for a great number wants to see it")]

use fastrand::Rng;
use stateway_core::base::{Iface, IfaceId, Instant};
use stateway_core::conntrack::{Conntrack, CtState, Sysctls, Tracked, flow_of};
use stateway_core::filter::context::{Arrival, Context, Env};
use stateway_core::filter::{Hook, RuleId, Rules, Ruleset, Table, Verdict};
use stateway_core::nat::{self, Side};
use stateway_core::packet::{Family, Offload, Packet, Tuple};
use stateway_core::record::NoRecord;
use stateway_model::walk::{Fates, Walk, Way};
use stateway_model::{
    Field, Model, Moved, Moves, Room, Router, Set, Space, changes, retranslated, state_number,
};
use std::net::IpAddr;

/// In a debug build some seconds.
const USUAL: u64 = 16;
/// Of each ruleset: every packet where there is time, else so many of them.
const PACKETS: usize = 3_000;

/// Pairs of rulesets, and packets for each.
const USUAL_PAIRS: u64 = 8;
const USUAL_PACKETS: u64 = 3_000;

const IFACES: [&str; 4] = ["lan", "wan", "eth0", "eth1"];
const STATES: [CtState; 5] =
    [CtState::New, CtState::Established, CtState::Related, CtState::Invalid, CtState::Untracked];

#[derive(Clone, Copy, Debug)]
struct Sample {
    state: CtState,
    came: u16,
    leaves: u16,
    proto: u8,
    src: u8,
    dst: u8,
    sport: u8,
    dport: u8,
    flags: u8,
}

#[test]
fn the_model_says_of_every_packet_what_the_core_says() {
    let rulesets = number("STATEWAY_RULESETS", USUAL);
    let is_whole = std::env::var_os("STATEWAY_EVERY_PACKET").is_some();
    let mut judged = 0_u64;
    for seed in 0..rulesets {
        let mut rng = Rng::with_seed(seed);
        let text = ruleset(&mut rng);
        let names = IFACES.map(str::to_owned).to_vec();
        let rules = Ruleset::load(&text, Family::Ipv4, &names)
            .unwrap_or_else(|errors| panic!("seed {seed}: {errors:?}\n{text}"))
            .ruleset;
        let space = Space::new(Family::Ipv4, names, Room::SMALL).unwrap();
        let mut walk = Walk::new(&rules, &space);
        let fates = walk.go(Way::Forward, &space.full(), |all, _| Ok(all.clone())).unwrap();
        let model = Judged { space: &space, fates, moves: [walk.destinations, walk.sources] };
        let core = Core::new(&rules);
        let mut check = |sample: Sample| {
            let (said, is) = (model.becomes(sample), core.becomes(sample));
            assert_eq!(said, is, "seed {seed}, {sample:?}\n{text}");
            judged += 1;
        };
        if is_whole {
            every(&mut check);
        } else {
            (0..PACKETS).for_each(|_| check(any(&mut rng)));
        }
    }
    println!("{judged} packets under {rulesets} rulesets");
    assert!(judged > 0, "no packet was judged");
    if is_whole {
        assert!(judged >= rulesets * 61_440, "{judged} packets");
    }
}

#[test]
fn a_difference_is_what_two_walks_through_the_core_disagree_on() {
    let (pairs, packets) = (number("STATEWAY_PAIRS", USUAL_PAIRS), number("STATEWAY_PACKETS", USUAL_PACKETS));
    let (mut judged, mut differing) = (0_u64, 0_u64);
    for seed in 0..pairs {
        let mut rng = Rng::with_seed(1_000_000 + seed);
        let before = ruleset(&mut rng);
        let after = changed(&mut rng, &before);
        let load = |text: &str| {
            let names = IFACES.map(str::to_owned);
            Ruleset::load(text, Family::Ipv4, &names)
                .unwrap_or_else(|errors| panic!("seed {seed}: {errors:?}\n{text}"))
                .ruleset
        };
        let (old, new) = (load(&before), load(&after));
        let space = Space::new(Family::Ipv4, IFACES.map(str::to_owned).to_vec(), Room::SMALL).unwrap();
        let model = |rules| Model::new(rules, &space, Way::Forward, Router::default()).unwrap();
        let (was, is) = (model(&old), model(&new));
        let (fates, tracked) = changes(&was, &is).unwrap();
        assert!(tracked.is_empty(), "these rules exempt nothing from tracking");
        let otherwise = retranslated(&was, &is, &space.empty()).unwrap();
        let possible = was.possible.or(&is.possible).unwrap();
        let cores = [Core::new(&old), Core::new(&new)];
        for _ in 0..packets {
            let sample = any(&mut rng);
            let values = values(sample);
            if sample.came == sample.leaves || !space.holds(&possible, &values) {
                continue;
            }
            let said = [
                fates.iter().any(|change| space.holds(&change.packets, &values)),
                otherwise.iter().any(|translated| space.holds(&translated.packets, &values)),
            ];
            let [a, b] = cores.each_ref().map(|core| core.becomes(sample));
            let passes = [a.0, b.0].map(|fate| fate == "accept");
            let [destination, source] = [0, 1].map(|side| a.1[side] != b.1[side]);
            let differs =
                [a.0 != b.0, destination && passes.contains(&true) || source && passes == [true, true]];
            assert_eq!(said, differs, "seed {seed}, {sample:?}: {a:?} → {b:?}\n{before}\n{after}");
            judged += 1;
            differing += u64::from(differs.contains(&true));
        }
    }
    println!("{judged} packets through both of {pairs} pairs, {differing} of them differ");
    assert!(differing > 0, "no packet differed");
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// The same ruleset with a rule less, two rules the other way round, or another verdict.
fn changed(rng: &mut Rng, text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..rng.usize(1..4) {
        let rules: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].starts_with("-A ")).collect();
        let at = rules[rng.usize(..rules.len())];
        match rng.u8(..3) {
            0 => drop(lines.remove(at)),
            1 if lines[at + 1].starts_with("-A ") => lines.swap(at, at + 1),
            _ if lines[at].ends_with("-j ACCEPT") => {
                let verdict =
                    if lines[at].starts_with("-A POSTROUTING") { "-j MASQUERADE" } else { "-j DROP" };
                lines[at] = lines[at].replace("-j ACCEPT", verdict);
            }
            _ => {
                lines[at] = lines[at].replace("-j DROP", "-j ACCEPT").replace("198.51.100.3", "198.51.100.4");
            }
        }
    }
    lines.join("\n") + "\n"
}

/// Every packet of the small universe: each address with each port, protocol, state and pair of interfaces.
fn every(check: &mut impl FnMut(Sample)) {
    for state in STATES {
        for (came, leaves) in (0..4).flat_map(|came| (0..4).map(move |leaves| (came, leaves))) {
            for proto in [6, 17, 1] {
                for (addr, port) in (0..16_u8).flat_map(|addr| (0..16_u8).map(move |port| (addr, port))) {
                    // The other end goes through all of them as well, in another order.
                    let (dst, sport) = ((addr * 7 + port) % 16, (port * 5 + addr) % 16);
                    let flags = [2, 16, 18, 4, 17][usize::from(addr + port) % 5];
                    check(Sample { state, came, leaves, proto, src: addr, dst, sport, dport: port, flags });
                }
            }
        }
    }
}

fn any(rng: &mut Rng) -> Sample {
    Sample {
        state: STATES[rng.usize(..5)],
        came: rng.u16(..4),
        leaves: rng.u16(..4),
        proto: [6, 6, 17, 1][rng.usize(..4)],
        src: rng.u8(..16),
        dst: rng.u8(..16),
        sport: rng.u8(..16),
        dport: rng.u8(..16),
        flags: [2, 16, 18, 4, 17, 1, 0, 24][rng.usize(..8)],
    }
}

// ── the model ────────────────────────────────────────────────────────────────────────────────────────────────────

/// What becomes of a packet, and how it is translated, in the words of rules.
type Becomes = (&'static str, [Option<String>; 2]);

struct Judged<'a> {
    space: &'a Space,
    fates: Fates,
    moves: [Moves; 2],
}

impl Judged<'_> {
    fn becomes(&self, sample: Sample) -> Becomes {
        let values = values(sample);
        let meets = |set: &Set| self.space.holds(set, &values);
        let Fates { passed, dropped, rejected, .. } = &self.fates;
        let met: Vec<&str> = [("accept", passed), ("drop", dropped), ("reject", rejected)]
            .into_iter()
            .filter(|(_, set)| meets(set))
            .map(|(word, _)| word)
            .collect();
        assert_eq!(met.len(), 1, "each packet meets one fate: {met:?} {sample:?}");
        let translated = self.moves.each_ref().map(|moves| {
            let by: Vec<&Moved> = moves.all().iter().filter(|moved| meets(&moved.held)).collect();
            assert!(by.len() <= 1, "each packet is translated once: {by:?} {sample:?}");
            by.first().map(|moved| moved.text.clone())
        });
        (met[0], translated)
    }
}

fn values(sample: Sample) -> [(Field, u128); 12] {
    let Sample { state, came, leaves, proto, src, dst, sport, dport, flags } = sample;
    let is_icmp = proto == 1;
    [
        (Field::State, state_number(state)),
        (Field::In, came.into()),
        (Field::Out, leaves.into()),
        (Field::Proto, proto.into()),
        (Field::Fragment, 0),
        (Field::Src, u128::from(0xc000_0200_u32 + u32::from(src))),
        (Field::Dst, u128::from(0xc633_6400_u32 + u32::from(dst))),
        (Field::Sport, if is_icmp { 0 } else { u128::from(sport) }),
        (Field::Dport, if is_icmp { u128::from(dport) << 8 } else { u128::from(dport) }),
        (Field::Flags, if proto == 6 { flags.into() } else { 0 }),
        (Field::Length, bytes(sample).len() as u128 - 14),
        (Field::Tos, 0),
    ]
}

// ── the core ─────────────────────────────────────────────────────────────────────────────────────────────────────

struct Core<'a> {
    rules: &'a Ruleset,
    env: Env,
    none: Rules,
    sysctls: Sysctls,
}

impl<'a> Core<'a> {
    fn new(rules: &'a Ruleset) -> Self {
        let ifaces = IFACES.iter().enumerate().map(|(at, name)| Iface::new(*name, IfaceId(at as u16)));
        let env = Env::new(ifaces.collect(), Conntrack::new(1, Sysctls::default(), Vec::new()));
        Self { rules, env, none: Rules::default(), sysctls: Sysctls::default() }
    }

    fn becomes(&self, sample: Sample) -> Becomes {
        let mut frame = bytes(sample);
        let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
        let at = Arrival {
            now: Instant::ZERO,
            iface: Some(IfaceId(sample.came)),
            rules: &self.none,
            sysctls: &self.sysctls,
            row: 0,
            env: &self.env,
        };
        let mut rec = NoRecord;
        let mut ctx = Context::new(&at, &mut rec);
        ctx.ct = Tracked::none();
        ctx.ct.state = sample.state;
        let mut translated = [None, None];
        for (table, hook) in [
            (Table::Raw, Hook::Prerouting),
            (Table::Mangle, Hook::Prerouting),
            (Table::Nat, Hook::Prerouting),
            (Table::Mangle, Hook::Forward),
            (Table::Filter, Hook::Forward),
            (Table::Mangle, Hook::Postrouting),
            (Table::Nat, Hook::Postrouting),
        ] {
            if table == Table::Nat && sample.state != CtState::New {
                continue;
            }
            ctx.out_iface = (hook != Hook::Prerouting).then_some(IfaceId(sample.leaves));
            match self.rules.run(table, hook, &mut pkt, &mut ctx) {
                Verdict::Accept => {}
                Verdict::Translate(by) => {
                    let side = if hook == Hook::Prerouting { Side::Destination } else { Side::Source };
                    translated[usize::from(hook != Hook::Prerouting)] =
                        Some(self.translate(by, side, &mut pkt));
                }
                Verdict::Drop(_) | Verdict::DropByPolicy(_) | Verdict::DropTruncated(_) => {
                    return ("drop", translated);
                }
                Verdict::Reject(..) => return ("reject", translated),
            }
        }
        ("accept", translated)
    }

    /// Gives the packet another end as a rule says, as if there were no other connection.
    fn translate(&self, by: RuleId, side: Side, pkt: &mut Packet<'_>) -> String {
        let target = self.rules.translation(by).unwrap();
        let current = if side == Side::Source { pkt.src() } else { pkt.dst() };
        let range = target.range(current, || Some(IpAddr::from([203, 0, 113, 1]))).unwrap();
        let tuple = nat::choose(&NothingElse, &flow_of(pkt, 0).unwrap(), 0, side, &range).tuple;
        assert!(nat::rewrite(pkt, side, &tuple));
        format!("{}{}", target.name(), self.rules.rule(by).unwrap().target)
    }
}

/// There is no other connection.
struct NothingElse;

impl nat::Known for NothingElse {
    fn is_taken(&self, _: &Tuple) -> bool {
        false
    }

    fn takes_over(&self, _: &Tuple) -> bool {
        false
    }

    fn mapping(&self, _: &Tuple, _: &dyn Fn(&Tuple) -> bool) -> Option<Tuple> {
        None
    }

    fn start(&self, _: Side, first: u16, _: u32) -> u16 {
        first
    }
}

/// An Ethernet frame with the packet, whole and without checksums.
fn bytes(sample: Sample) -> Vec<u8> {
    let Sample { proto, src, dst, sport, dport, flags, .. } = sample;
    let (sport, dport) = (u16::from(sport).to_be_bytes(), u16::from(dport).to_be_bytes());
    let l4 = match proto {
        6 => {
            let mut l4 = [sport, dport].concat();
            l4.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 255, 255, 0, 0, 0, 0]);
            l4
        }
        17 => [sport, dport, [0, 8], [0, 0]].concat(),
        _ => vec![dport[1], 0, 0, 0, 0, 1, 0, 1],
    };
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 20 + l4.len() as u8, 0, 0, 0, 0, 64, proto, 0, 0]);
    frame.extend([192, 0, 2, src, 198, 51, 100, dst]);
    let words = frame[14..].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(l4);
    frame
}

// ── rulesets ─────────────────────────────────────────────────────────────────────────────────────────────────────

fn ruleset(rng: &mut Rng) -> String {
    let mut text = "create hosts hash:ip\nadd hosts 192.0.2.3\nadd hosts 198.51.100.9\ncreate nets hash:net\n\
        add nets 192.0.2.0/29\nadd nets 192.0.2.4/30 nomatch\ncreate doors hash:ip,port\nadd doors 198.51.100.4,tcp:7\n\
        add doors 198.51.100.5,udp:9\nadd doors 198.51.100.6,icmp:8/0\n"
        .to_owned();
    let translates = rng.bool();
    if translates {
        text.push_str(&nat(rng));
    }
    if rng.u8(..3) == 0 {
        text.push_str("*mangle\n");
        for _ in 0..rng.usize(1..4) {
            // What known connections were sent to before they were translated is no matter of this test.
            let hook = ["FORWARD", "PREROUTING"][rng.usize(..if translates { 1 } else { 2 })];
            let mark = ["--set-mark 1", "--set-xmark 0x2/0x3", "--or-mark 4", "--xor-mark 1", "--and-mark 5"]
                [rng.usize(..5)];
            let matches = conditions(rng, hook != "PREROUTING");
            text.push_str(&format!("-A {hook}{matches} -j MARK {mark}\n"));
        }
        text.push_str("COMMIT\n");
    }
    let policy = ["ACCEPT", "DROP"][rng.usize(..2)];
    text.push_str(&format!("*filter\n:FORWARD {policy} [0:0]\n:c1 - [0:0]\n:c2 - [0:0]\n:c3 - [0:0]\n"));
    for (chain, deeper) in
        [("FORWARD", ["c1", "c2", "c3"].as_slice()), ("c1", &["c2", "c3"]), ("c2", &["c3"]), ("c3", &[])]
    {
        for _ in 0..rng.usize(1..8) {
            let target = match rng.u8(..10) {
                0..3 => "-j ACCEPT".to_owned(),
                3..5 => "-j DROP".to_owned(),
                5 => "-j REJECT".to_owned(),
                6 => "-j RETURN".to_owned(),
                7 => String::new(),
                _ if deeper.is_empty() => "-j LOG".to_owned(),
                n => format!("-{} {}", if n == 8 { 'j' } else { 'g' }, deeper[rng.usize(..deeper.len())]),
            };
            let matches = conditions(rng, true);
            text.push_str(&format!("-A {chain}{matches} {target}\n"));
        }
    }
    text.push_str("COMMIT\n");
    text
}

fn nat(rng: &mut Rng) -> String {
    let mut text = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:mine - [0:0]\n".to_owned();
    let mut line = |chain: &str, matches: &str, target: &str| {
        text.push_str(&format!("-A {chain}{matches} {target}\n"));
    };
    for _ in 0..rng.usize(1..5) {
        let matches = if rng.bool() {
            conditions(rng, false)
        } else {
            format!(" -p {}", ["tcp", "udp"][rng.usize(..2)])
        };
        let to = format!("198.51.100.{}", rng.u8(..16));
        match rng.u8(..8) {
            0..3 => line("PREROUTING", &matches, &format!("-j DNAT --to-destination {to}")),
            3 => line("PREROUTING", " -p udp", &format!("-j DNAT --to-destination {to}:{}", rng.u8(1..16))),
            4 => line("PREROUTING", " -p tcp -m tcp --dport 1:9", "-j DNAT --to-destination :7"),
            5 => line("PREROUTING", &matches, "-j NETMAP --to 198.51.100.8/29"),
            6 => line("PREROUTING", &matches, "-j RETURN"),
            _ => line("PREROUTING", &matches, "-j mine"),
        }
    }
    let matches = conditions(rng, false);
    line("mine", &matches, "-j DNAT --to-destination 198.51.100.3");
    for _ in 0..rng.usize(..4) {
        // Where packets came in is not asked there.
        let matches = core::iter::repeat_with(|| conditions(rng, true)).find(|m| !m.contains(" -i "));
        let matches = matches.unwrap();
        let targets = ["MASQUERADE", "SNAT --to-source 203.0.113.9", "NETMAP --to 198.18.0.0/24", "ACCEPT"];
        line("POSTROUTING", &matches, &format!("-j {}", targets[rng.usize(..4)]));
    }
    text + "COMMIT\n"
}

fn conditions(rng: &mut Rng, knows_way_out: bool) -> String {
    let mut text = String::new();
    let not = |rng: &mut Rng| if rng.u8(..5) == 0 { " !" } else { "" };
    let one_in = |rng: &mut Rng, n: u8| rng.u8(..n) == 0;
    if one_in(rng, 4) {
        text.push_str(&format!("{} -s 192.0.2.{}/{}", not(rng), rng.u8(..16), rng.u8(27..33)));
    }
    if one_in(rng, 4) {
        text.push_str(&format!("{} -d 198.51.100.{}/{}", not(rng), rng.u8(..16), rng.u8(27..33)));
    }
    if one_in(rng, 4) {
        text.push_str(&format!("{} -i {}", not(rng), ["lan", "wan", "eth+", "eth1"][rng.usize(..4)]));
    }
    if knows_way_out && one_in(rng, 5) {
        text.push_str(&format!("{} -o {}", not(rng), ["lan", "wan", "eth+", "eth1"][rng.usize(..4)]));
    }
    let range = |rng: &mut Rng| {
        let (a, b) = (rng.u8(..16), rng.u8(..16));
        format!("{}:{}", a.min(b), a.max(b))
    };
    match rng.u8(..8) {
        0 => text.push_str(&format!(" -p tcp -m tcp{} --dport {}", not(rng), range(rng))),
        1 => text.push_str(&format!(" -p udp -m udp{} --sport {}", not(rng), range(rng))),
        2 => text.push_str(&format!(" -p icmp -m icmp{} --icmp-type {}", not(rng), rng.u8(..16))),
        3 => {
            let mask = ["SYN,ACK", "FIN,SYN,RST,ACK", "ALL"][rng.usize(..3)];
            text.push_str(&format!(" -p tcp -m tcp{} --tcp-flags {mask} SYN", not(rng)));
        }
        4 => {
            let side = ["sports", "dports", "ports"][rng.usize(..3)];
            text.push_str(&format!(" -p tcp -m multiport{} --{side} 1,3,5:9", not(rng)));
        }
        5 => text.push_str([" ! -p tcp", " -p udp", " -p icmp"][rng.usize(..3)]),
        _ => {}
    }
    match rng.u8(..9) {
        0..2 => {
            let states = ["NEW", "RELATED,ESTABLISHED", "INVALID", "NEW,UNTRACKED"][rng.usize(..4)];

            text.push_str(&format!(" -m conntrack{} --ctstate {states}", not(rng)));
        }
        2 => text.push_str(&format!(
            " -m mark{} --mark {}/{}",
            not(rng),
            ["0x1", "0x4", "0x0"][rng.usize(..3)],
            "0x5"
        )),
        3 => {
            text.push_str(&format!(
                " -m iprange{} --src-range 192.0.2.3-192.0.2.{}",
                not(rng),
                rng.u8(3..16)
            ));
        }
        4 => {
            let set = ["hosts src", "hosts dst", "nets src", "doors dst,dst"][rng.usize(..4)];
            text.push_str(&format!(" -m set{} --match-set {set}", not(rng)));
        }
        5 => text.push_str(&format!(
            " -m length{} --length {}",
            not(rng),
            ["28", "40", "30:60"][rng.usize(..3)]
        )),
        _ => {}
    }
    text
}

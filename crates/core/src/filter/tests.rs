//! Rules against packets, and what loading and printing make of text.

use super::*;
use crate::base::iface::IfaceId;
use crate::base::time::Instant;
use crate::config::RouterConfig;
use crate::conntrack::{CtState, Status};
use crate::filter::walk::context::{Context, WithoutRouter};
use crate::packet::{Offload, Packet, TcpFlags};
use crate::record::Recorder;
use crate::record::{NoRecord, Note, Trace};
use expect_test::{Expect, expect};
use proptest::prelude::*;

mod headers;
mod kept;
mod sets;

fn ifaces() -> Vec<String> {
    ["lan", "wan0", "wan1"].map(str::to_owned).to_vec()
}

fn load(text: &str) -> Loaded {
    Ruleset::load(text, Family::Ipv4, &ifaces()).unwrap_or_else(|e| {
        let list: Vec<String> = e.iter().map(ToString::to_string).collect();
        panic!("{}", list.join("\n"))
    })
}

fn filter(rules: &str) -> Ruleset {
    load(&format!("*filter\n{rules}\nCOMMIT\n")).ruleset
}

/// An IPv4 frame from 192.0.2.1 to 198.51.100.1.
fn frame(proto: u8, l4: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let mut header = vec![0x45, 0, 0, (20 + l4.len()) as u8, 0, 0, 0, 0, 64, proto, 0, 0];
    header.extend([192, 0, 2, 1, 198, 51, 100, 1]);
    let sum: u32 = header.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend(l4);
    frame
}

fn tcp(dport: u16, flags: TcpFlags) -> Vec<u8> {
    let mut l4 = vec![0; 20];
    l4[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    l4[2..4].copy_from_slice(&dport.to_be_bytes());
    (l4[12], l4[13]) = (0x50, flags.bits());
    frame(6, &l4)
}

/// Runs filter/FORWARD from `lan` to `wan0` in this state.
fn verdict(rules: &Ruleset, mut frame: Vec<u8>, state: CtState) -> Verdict {
    let (place, mut rec) = (WithoutRouter::default(), NoRecord);
    let at = place.arrival(Instant::ZERO, 0);
    let mut ctx = Context::new(&at, &mut rec);
    ctx.out_iface = Some(IfaceId(1));
    ctx.ct.state = state;
    let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    rules.run(Table::Filter, Hook::Forward, &mut pkt, &mut ctx)
}

/// How the verdict on a SYN to port 22, NEW, reads.
fn word(rules: &Ruleset) -> String {
    match verdict(rules, tcp(22, TcpFlags::SYN), CtState::New) {
        Verdict::Accept => "accept".into(),
        Verdict::Drop(by) | Verdict::DropByPolicy(by) => format!("drop {}", rules.rule_name(by)),
        Verdict::DropTruncated(by) => format!("truncated {}", rules.rule_name(by)),
        Verdict::Reject(with, by) => format!("reject {with:?} {}", rules.rule_name(by)),
        Verdict::Translate(by) => format!("translate {}", rules.rule_name(by)),
    }
}

/// Whether a list of states takes a SYN of this state, whose connection is translated so.
fn takes(states: &str, state: CtState, status: Status) -> bool {
    let rules = filter(&format!("-A FORWARD -m conntrack {states} -j DROP"));
    let (place, mut rec) = (WithoutRouter::default(), NoRecord);
    let at = place.arrival(Instant::ZERO, 0);
    let mut ctx = Context::new(&at, &mut rec);
    (ctx.ct.state, ctx.ct.status) = (state, status);
    let mut frame = tcp(22, TcpFlags::SYN);
    let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    rules.run(Table::Filter, Hook::Forward, &mut pkt, &mut ctx) != Verdict::Accept
}

#[test]
fn what_has_been_translated_is_asked_beside_the_state() {
    let (none, both) = (Status::empty(), Status::SRC_NAT | Status::DST_NAT);
    for (states, state, status, holds) in [
        ("--ctstate DNAT", CtState::New, none, false),
        ("--ctstate DNAT", CtState::New, Status::DST_NAT, true),
        ("--ctstate DNAT", CtState::Related, both, true),
        ("--ctstate DNAT", CtState::Established, Status::SRC_NAT, false),
        ("--ctstate SNAT", CtState::Established, Status::SRC_NAT, true),
        // Of what is listed one is enough.
        ("--ctstate NEW,SNAT", CtState::New, none, true),
        ("--ctstate NEW,SNAT", CtState::Established, Status::SRC_NAT, true),
        ("--ctstate NEW,SNAT", CtState::Established, Status::DST_NAT, false),
        ("! --ctstate RELATED,DNAT", CtState::New, Status::DST_NAT, false),
        ("! --ctstate RELATED,DNAT", CtState::New, Status::SRC_NAT, true),
    ] {
        assert_eq!(takes(states, state, status), holds, "{states} of {state:?} {status:?}");
    }
}

#[test]
fn a_rule_holds_if_all_its_conditions_do() {
    for (rule, holds) in [
        ("-s 192.0.2.0/24", true),
        ("-s 192.0.2.2", false),
        ("! -s 192.0.2.2", true),
        ("-d 198.51.0.0/255.255.0.0", true),
        ("-i lan -o wan+", true),
        ("-i wan0", false),
        ("! -o lan", true),
        ("-p tcp", true),
        ("! -p udp", true),
        ("-p udp", false),
        ("-f", false),
        ("! -f", true),
        ("-p tcp --dport 22", true),
        ("-p tcp --dport 23:", false),
        ("-p tcp ! --dport 22", false),
        ("-p tcp --sport 40000 --dport ssh", true),
        ("-p tcp --syn", true),
        ("-p tcp ! --syn", false),
        ("-p tcp --tcp-flags SYN,ACK SYN,ACK", false),
        ("-p tcp --tcp-flags ACK NONE", true),
        ("-p tcp --tcp-option 2", false),
        ("-p tcp ! --tcp-option 2", true),
        ("-m state --state NEW", true),
        ("-m conntrack ! --ctstate NEW,ESTABLISHED", false),
        ("-m conntrack --ctstate RELATED", false),
        ("-m comment --comment x", true),
        ("-p tcp -m tcpmss --mss 0:", false),
        ("-p tcp -m tcpmss ! --mss 0:", true),
        ("-m policy --dir in --pol ipsec", false),
        ("-m policy --dir in --pol none", true),
        ("-m pkttype --pkt-type otherhost", false),
    ] {
        let rules = filter(&format!("-A FORWARD {rule} -j DROP"));
        let expected = if holds { "drop filter/FORWARD/1" } else { "accept" };
        assert_eq!(word(&rules), expected, "{rule}");
    }
}

#[test]
fn chains_are_walked_as_netfilter_walks_them() {
    for (what, rules, expected) in [
        (
            "the policy decides last",
            ":FORWARD DROP\n-A FORWARD -p udp -j ACCEPT",
            "drop filter/FORWARD/policy",
        ),
        (
            "a jump comes back",
            ":a -\n-A FORWARD -j a\n-A FORWARD -j DROP\n-A a -p udp -j ACCEPT",
            "drop filter/FORWARD/2",
        ),
        (
            "RETURN comes back",
            ":a -\n-A FORWARD -j a\n-A FORWARD -j DROP\n-A a -j RETURN\n-A a -j ACCEPT",
            "drop filter/FORWARD/2",
        ),
        (
            "goto does not",
            ":FORWARD DROP\n:a -\n-A FORWARD -g a\n-A FORWARD -j ACCEPT\n-A a -p udp",
            "drop filter/FORWARD/policy",
        ),
        (
            "goto from a called chain returns to the caller",
            ":a -\n:b -\n-A FORWARD -j a\n-A FORWARD -j DROP\n-A a -g b\n-A a -j ACCEPT\n-A b -j RETURN",
            "drop filter/FORWARD/2",
        ),
        (
            "RETURN in a base chain asks the policy",
            ":FORWARD DROP\n-A FORWARD -j RETURN\n-A FORWARD -j ACCEPT",
            "drop filter/FORWARD/policy",
        ),
        (
            "a user chain decides",
            ":zone-lan -\n-A FORWARD -j zone-lan\n-A zone-lan -j DROP",
            "drop filter/zone-lan/1",
        ),
        ("REJECT", "-A FORWARD -j REJECT", "reject Icmp(3, 3) filter/FORWARD/1"),
        (
            "a reset",
            "-A FORWARD -p tcp -j REJECT --reject-with tcp-reset",
            "reject TcpReset filter/FORWARD/1",
        ),
    ] {
        assert_eq!(word(&filter(rules)), expected, "{what}");
    }
}

#[test]
fn a_cut_header_is_dropped_where_a_match_needs_it() {
    let rules = filter("-A FORWARD -p tcp -j ACCEPT");
    assert_eq!(verdict(&rules, frame(6, &[0; 8]), CtState::Invalid), Verdict::Accept);
    let rules = filter("-A FORWARD -p tcp --dport 22 -j ACCEPT");
    assert!(matches!(verdict(&rules, frame(6, &[0; 8]), CtState::Invalid), Verdict::DropTruncated(_)));
    // So many that rules for other ports are not looked at.
    let many: String = (1..=40).map(|port| format!("-A FORWARD -p tcp --dport {port} -j ACCEPT\n")).collect();
    let rules = filter(&format!("{many}-A FORWARD -j ACCEPT"));
    for len in [4, 8, 19] {
        let cut = frame(6, &vec![0; len]);
        assert!(matches!(verdict(&rules, cut, CtState::Invalid), Verdict::DropTruncated(_)), "{len} bytes");
    }
    assert_eq!(verdict(&rules, frame(6, &[0; 20]), CtState::Invalid), Verdict::Accept);
}

#[test]
fn rules_and_policies_count_packets_and_bytes() {
    let rules = filter(":FORWARD DROP\n:a -\n-A FORWARD -p tcp -j a\n-A FORWARD -p udp\n-A a -s 192.0.2.1");
    for _ in 0..3 {
        verdict(&rules, tcp(22, TcpFlags::SYN), CtState::New);
    }
    expect![[r"
        *filter
        :INPUT ACCEPT [0:0]
        :FORWARD DROP [3:120]
        :OUTPUT ACCEPT [0:0]
        :a - [0:0]
        [3:120] -A FORWARD -p tcp -j a
        [0:0] -A FORWARD -p udp
        [3:120] -A a -s 192.0.2.1/32
        COMMIT
    "]]
    .assert_eq(&rules.render(true));
}

#[test]
fn the_recorder_hears_of_every_rule() {
    let rules = filter(":FORWARD DROP\n-A FORWARD -s 192.0.2.1 -p udp\n-A FORWARD -p tcp");
    let mut rec = Trace::default();
    let place = WithoutRouter::default();
    let at = place.arrival(Instant::ZERO, 0);
    let mut ctx = Context::new(&at, &mut rec);
    let mut frame = tcp(22, TcpFlags::SYN);
    let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    rules.run(Table::Filter, Hook::Forward, &mut pkt, &mut ctx);
    let heard: Vec<String> = rec
        .notes
        .iter()
        .map(|note| match note {
            Note::Hook(table, hook) => format!("{}/{}", table.word(), hook.word()),
            Note::Rule { rule, failed } => format!("{} {failed:?}", rules.rule_name(*rule)),
            Note::Policy(rule) => rules.rule_name(*rule),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        heard,
        ["filter/FORWARD", "filter/FORWARD/1 Some(1)", "filter/FORWARD/2 None", "filter/FORWARD/policy"]
    );
}

fn check_show(text: &str, expected: Expect) {
    expected.assert_eq(&load(text).ruleset.render(false));
}

#[test]
fn text_is_printed_as_iptables_save_prints_it() {
    check_show(
        "*filter
:FORWARD DROP [3:400]
:foo - [0:0]
:Bar - [0:0]
-A FORWARD -s 192.0.2.1/255.255.255.0,198.51.100.7 -p tcp --dport ssh -j ACCEPT
[5:600] -A FORWARD -p tcp --syn -j foo
-A FORWARD ! -s 192.0.2.0/24 -i wan+ ! -o lan -g foo
-A FORWARD -p icmp --icmp-type echo-request -j REJECT
-I FORWARD 2 -p tcp -m tcp ! --tcp-flags SYN,ACK SYN -m state --state NEW,INVALID
COMMIT
*raw
-A PREROUTING -j NOTRACK
-A PREROUTING -m comment --comment \"say \\\"no\\\"\" -j CT --notrack
COMMIT
",
        expect![[r#"
            *raw
            :PREROUTING ACCEPT [0:0]
            :OUTPUT ACCEPT [0:0]
            -A PREROUTING -j NOTRACK
            -A PREROUTING -m comment --comment "say \"no\"" -j CT --notrack
            COMMIT
            *filter
            :INPUT ACCEPT [0:0]
            :FORWARD DROP [0:0]
            :OUTPUT ACCEPT [0:0]
            :Bar - [0:0]
            :foo - [0:0]
            -A FORWARD -s 192.0.2.0/24 -p tcp -m tcp --dport 22 -j ACCEPT
            -A FORWARD -p tcp -m tcp ! --tcp-flags SYN,ACK SYN -m state --state INVALID,NEW
            -A FORWARD -s 198.51.100.7/32 -p tcp -m tcp --dport 22 -j ACCEPT
            -A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j foo
            -A FORWARD ! -s 192.0.2.0/24 -i wan+ ! -o lan -g foo
            -A FORWARD -p icmp -m icmp --icmp-type 8 -j REJECT --reject-with icmp-port-unreachable
            COMMIT
        "#]],
    );
}

#[test]
fn what_the_tools_do_not_read_again_is_printed_as_they_print_it() {
    check_show(
        "*filter
-A FORWARD -m recent --rcheck --seconds 4294967295 --name \"a b\"
-A FORWARD -m hashlimit --hashlimit-above 5/s --hashlimit-name \"a b\"
-A FORWARD -m time --datestop 1970
-A FORWARD -m conntrack --ctorigdstport 25:0
COMMIT
",
        expect![[r"
            *filter
            :INPUT ACCEPT [0:0]
            :FORWARD ACCEPT [0:0]
            :OUTPUT ACCEPT [0:0]
            -A FORWARD -m recent --rcheck --seconds -1 --name a b --mask 255.255.255.255 --rsource
            -A FORWARD -m hashlimit --hashlimit-above 5/sec --hashlimit-burst 5 --hashlimit-name a b
            -A FORWARD -m time
            -A FORWARD -m conntrack --ctorigdstport 25
            COMMIT
        "]],
    );
}

#[test]
fn a_section_that_comes_again_counts_from_zero() {
    let text = "*filter\n:FORWARD DROP [5:600]\nCOMMIT\n*filter\n:INPUT DROP [7:8]\nCOMMIT\n";
    let loaded = Ruleset::load_with_counters(text, Family::Ipv4, &[]).expect("the rules are right");
    expect![[r"
        *filter
        :INPUT DROP [7:8]
        :FORWARD DROP [0:0]
        :OUTPUT ACCEPT [0:0]
        COMMIT
    "]]
    .assert_eq(&loaded.ruleset.render(true));
}

#[test]
fn where_no_packet_comes_the_kernel_does_not_look() {
    let taken = |rules: &str| {
        Ruleset::load(&format!("*filter\n:a -\n:b -\n{rules}\nCOMMIT\n"), Family::Ipv4, &[]).is_ok()
    };
    let owner = "-m owner --uid-owner 0 -j ACCEPT";
    assert!(!taken(&format!("-A FORWARD {owner}")));
    assert!(taken(&format!("-A FORWARD -j DROP\n-A FORWARD {owner}")));
    assert!(!taken(&format!("-A FORWARD -m comment --comment x -j DROP\n-A FORWARD {owner}")));
    assert!(taken("-A a -j b\n-A b -j a"));
    assert!(taken("-A FORWARD -j DROP\n-A FORWARD -j a\n-A a -j b\n-A b -j a"));
    assert!(!taken("-A FORWARD -j a\n-A a -j b\n-A b -j a"));
    // The tools themselves see to the interfaces.
    assert!(!taken("-A OUTPUT -j DROP\n-A OUTPUT -i lan -j DROP"));
}

#[test]
fn commands_as_people_type_them_are_taken() {
    check_show(
        "#!/bin/sh\nsudo iptables -P FORWARD DROP\niptables -N lan\n/usr/sbin/iptables-legacy -w -A FORWARD -i lan -j lan\n\
         ip6tables -A FORWARD -j DROP\niptables -A lan -p tcp --dport ssh -j ACCEPT\niptables -I FORWARD -j LOG\n\
         iptables --table=mangle -A FORWARD -j MARK --set-mark 1\n",
        expect![[r"
            *mangle
            :PREROUTING ACCEPT [0:0]
            :INPUT ACCEPT [0:0]
            :FORWARD ACCEPT [0:0]
            :OUTPUT ACCEPT [0:0]
            :POSTROUTING ACCEPT [0:0]
            -A FORWARD -j MARK --set-xmark 0x1/0xffffffff
            COMMIT
            *filter
            :INPUT ACCEPT [0:0]
            :FORWARD DROP [0:0]
            :OUTPUT ACCEPT [0:0]
            :lan - [0:0]
            -A FORWARD -j LOG
            -A FORWARD -i lan -j lan
            -A lan -p tcp -m tcp --dport 22 -j ACCEPT
            COMMIT
        "]],
    );
}

#[test]
fn many_rules_may_be_put_in_front() {
    let text: String = (0..50_000).map(|n| format!("-I FORWARD -p tcp --dport {n} -j DROP\n")).collect();
    let rules = filter(text.trim_end());
    assert!(rules.chains(Table::Filter)[1].rules[0].matches.to_string().ends_with("--dport 49999"));
}

#[test]
fn a_router_refuses_wrong_rules_and_names_them_all() {
    let config = RouterConfig {
        rules: Some("*filter\n-A FOWARD -j DROP\n-A FORWARD -p tpc -j ACEPT\nCOMMIT\n".into()),
        ..RouterConfig::default()
    };
    let errors = crate::router::Router::new(config).err().unwrap_or_default();
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expect![[r"
        2:4: table `filter` has no chain `FOWARD`
          hint: did you mean `FORWARD`?
        3:15: no protocol named `tpc`
          hint: did you mean `tcp`?
        3:22: no chain or target named `ACEPT`
          hint: did you mean `ACCEPT`?"]]
    .assert_eq(&text.join("\n"));
}

/// A rule of random conditions, most of them such as the classifier looks at.
fn any_rule() -> impl Strategy<Value = String> {
    let condition = prop_oneof![
        (0..8_u8, 20..=32_u8, any::<bool>()).prop_map(|(host, len, not)| {
            format!("{}-s 192.0.2.{host}/{len}", if not { "! " } else { "" })
        }),
        (0..8_u8, 24..=32_u8).prop_map(|(host, len)| format!("-d 198.51.100.{host}/{len}")),
        (0..3_u8, any::<bool>()).prop_map(|(iface, not)| {
            format!("{}-i {}", if not { "! " } else { "" }, ["lan", "wan0", "wan+"][usize::from(iface)])
        }),
        (0..2_u8).prop_map(|iface| format!("-o {}", ["wan0", "wan1"][usize::from(iface)])),
        (0..6_u16, 0..6_u16).prop_map(|(a, b)| format!("-p tcp --dport {}:{}", a.min(b), a.max(b))),
        (0..6_u16).prop_map(|port| format!("-p udp ! --sport {port}")),
        (0..6_u16, 0..3_u16).prop_map(|(a, n)| format!("-p tcp -m multiport --dports {a},{}", a + n)),
        (0..4_u8, 0..4_u8).prop_map(|(a, n)| format!("-m iprange --src-range 192.0.2.{a}-192.0.2.{}", a + n)),
        Just("-m conntrack --ctstate RELATED,ESTABLISHED".to_owned()),
        Just("-m state ! --state NEW".to_owned()),
        Just("-p icmp".to_owned()),
        Just("-p tcp --syn".to_owned()),
        Just("-m statistic --mode nth --every 2 --packet 0".to_owned()),
        // What remembers, in front of what the classifier looks at, and behind it.
        (0..4_u8).prop_map(|a| format!(
            "-m recent --set --name seen -m iprange --src-range 192.0.2.{a}-192.0.2.3"
        )),
        Just("-m recent --remove --name seen -m state --state NEW".to_owned()),
        (0..6_u16).prop_map(|a| format!("-p tcp -m multiport --dports {a} -m recent --rcheck --name seen")),
        (0..6_u16).prop_map(|a| format!("-p tcp -m limit --limit 1/h --limit-burst 9 -m tcp --dport {a}")),
        (0..6_u16).prop_map(|a| format!("-p tcp -m tcp --tcp-option 5 -m multiport --dports {a}")),
        Just("-m length --length 0:30".to_owned()),
        Just(String::new()),
    ];
    let target = prop_oneof![
        3 => Just("-j ACCEPT"), 3 => Just("-j DROP"), 3 => Just("-j one"), 2 => Just("-g two"), 1 => Just("-j RETURN"),
        3 => Just(""), 1 => Just("-j REJECT"), 1 => Just("-j MARK --set-mark 1"),
    ];
    (condition, target).prop_map(|(condition, target)| format!("{condition} {target}"))
}

/// Chains of many rules: those of `one` and `two` jump nowhere.
fn any_rules() -> impl Strategy<Value = String> {
    let chain = || proptest::collection::vec(any_rule(), 0..60);
    (chain(), chain(), chain()).prop_map(|(forward, one, two)| {
        let mut text = "*filter\n:FORWARD DROP\n:one -\n:two -\n".to_owned();
        for (name, rules) in [("FORWARD", forward), ("one", one), ("two", two)] {
            for rule in rules {
                let ends = rule.ends_with("-j one") || (rule.ends_with("-g two") && name == "two");
                let rule = if ends && name != "FORWARD" {
                    rule.replace("-j one", "").replace("-g two", "")
                } else {
                    rule
                };
                text += &format!("-A {name} {rule}\n");
            }
        }
        text + "COMMIT\n"
    })
}

/// Protocol, last bytes of the addresses, ports, whether the header is cut short, interfaces and state.
type Shot = (u8, u8, u8, u16, u16, bool, u8, u8, u8);

fn any_shot() -> impl Strategy<Value = Shot> {
    (
        prop_oneof![Just(1_u8), Just(6), Just(17), Just(47)],
        0..9_u8,
        0..9_u8,
        0..7_u16,
        0..7_u16,
        proptest::bool::weighted(0.05),
        0..3_u8,
        0..3_u8,
        0..5_u8,
    )
}

fn shoot<R: Recorder>(rules: &Ruleset, shot: Shot, rec: &mut R) -> Verdict {
    let (proto, src, dst, sport, dport, cut, from, to, state) = shot;
    let mut l4 = vec![0; if cut { 3 } else { 20 }];
    if !cut {
        l4[..2].copy_from_slice(&sport.to_be_bytes());
        l4[2..4].copy_from_slice(&dport.to_be_bytes());
        (l4[12], l4[13]) = (0x50, if sport % 2 == 0 { 2 } else { 16 });
    }
    let mut frame = frame(proto, &l4);
    (frame[29], frame[33]) = (src, dst);
    // The checksum follows the last byte of each address.
    let sum: u32 = frame[14..34]
        .chunks(2)
        .enumerate()
        .filter(|(n, _)| *n != 5)
        .map(|(_, w)| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let states = [CtState::New, CtState::Established, CtState::Related, CtState::Invalid, CtState::Untracked];
    let place = WithoutRouter::default();
    let at = place.arrival(Instant::ZERO, u16::from(from));
    let mut ctx = Context::new(&at, rec);
    ctx.out_iface = Some(IfaceId(u16::from(to)));
    ctx.ct.state = states[usize::from(state)];
    let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    rules.run(Table::Filter, Hook::Forward, &mut pkt, &mut ctx)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// And tells whoever listens of the same rules.
    #[test]
    fn classified_rules_decide_and_count_as_the_linear_walk_does(
        text in any_rules(),
        shots in proptest::collection::vec(any_shot(), 1..200),
    ) {
        let [classified, heard, mut linear] = [(); 3].map(|()| load(&text).ruleset);
        for chain in linear.tables.iter_mut().flat_map(|table| &mut table.chains) {
            chain.classifier = None;
        }
        for shot in shots {
            let (mut trace, mut linear_trace) = (Trace::default(), Trace::default());
            let slow = shoot(&linear, shot, &mut linear_trace);
            prop_assert_eq!(slow, shoot(&classified, shot, &mut NoRecord), "{:?}", shot);
            prop_assert_eq!(slow, shoot(&heard, shot, &mut trace), "{:?}", shot);
            prop_assert_eq!(format!("{linear_trace:?}"), format!("{trace:?}"), "{:?}", shot);
        }
        prop_assert_eq!(linear.render(true), heard.render(true));
        prop_assert_eq!(linear.render(true), classified.render(true));
        let printed = load(&text).ruleset.render(false);
        prop_assert_eq!(load(&printed).ruleset.render(false), printed);
    }
}

/// Sends a SYN of 40 bytes to port 22 at each of these seconds; says for each whether the first rule held.
fn held_at(rule: &str, seconds: &[u64]) -> Vec<bool> {
    let sets = "create friends hash:ip family inet\nadd friends 192.0.2.1\ncreate nets hash:net family inet\n\
                add nets 198.51.100.0/24\nadd nets 198.51.100.0/30 nomatch\ncreate web hash:ip,port family inet\n\
                add web 198.51.100.1,tcp:22\n";
    let rules = load(&format!("{sets}*filter\n-A FORWARD -p tcp {rule} -j DROP\nCOMMIT\n")).ruleset;
    let (place, mut rec) = (WithoutRouter::default(), NoRecord);
    let mut held = Vec::new();
    for second in seconds {
        let at = place.arrival(Instant::from_secs(*second), 0);
        let mut ctx = Context::new(&at, &mut rec);
        ctx.out_iface = Some(IfaceId(1));
        let mut frame = tcp(22, TcpFlags::SYN);
        let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
        let verdict = rules.run(Table::Filter, Hook::Forward, &mut pkt, &mut ctx);
        held.push(verdict != Verdict::Accept);
    }
    held
}

#[test]
fn some_matches_remember_what_came_before() {
    const Y: bool = true;
    const N: bool = false;
    for (what, rule, seconds, held) in [
        (
            "a bucket begins full",
            "-m limit --limit 1/s --limit-burst 2",
            vec![5, 5, 5, 6, 6],
            vec![Y, Y, N, Y, N],
        ),
        (
            "and holds no more than its burst",
            "-m limit --limit 1/s --limit-burst 2",
            vec![0, 90, 90, 90],
            vec![Y, Y, Y, N],
        ),
        (
            "a bucket for each source",
            "-m hashlimit --hashlimit-above 1/s --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name h",
            vec![0, 0, 1, 1],
            vec![N, Y, N, Y],
        ),
        ("bytes run out", "-m quota --quota 100", vec![0, 0, 0, 0], vec![Y, Y, N, N]),
        (
            "the second of three",
            "-m statistic --mode nth --every 3 --packet 1",
            vec![0; 6],
            vec![N, Y, N, N, Y, N],
        ),
        ("never by chance", "-m statistic --mode random --probability 0", vec![0; 3], vec![N; 3]),
        ("always by chance", "-m statistic --mode random --probability 1", vec![0; 3], vec![Y; 3]),
        ("not seen yet", "-m recent --rcheck --name nobody", vec![0, 1], vec![N, N]),
        (
            "seen",
            "-m recent --set --name a -m recent --rcheck --name a --seconds 5 --hitcount 2",
            vec![0, 1, 20],
            vec![N, Y, N],
        ),
        (
            "refreshed by asking",
            "-m recent --set --name a -m recent --update --name a --seconds 5 --hitcount 3",
            vec![0, 1, 2],
            vec![N, N, Y],
        ),
        ("a set of hosts", "-m set --match-set friends src", vec![0], vec![Y]),
        ("an exception in a set of networks", "-m set --match-set nets dst", vec![0], vec![N]),
        ("a set of services", "-m set --match-set web dst,dst", vec![0], vec![Y]),
        ("too few sides", "-m set ! --match-set web dst", vec![0], vec![Y]),
    ] {
        assert_eq!(held_at(rule, &seconds), held, "{what}: {rule}");
    }
}

#[test]
fn what_can_never_be_reached_is_warned_of() {
    let loaded = load(
        "*filter\n-A FORWARD -m comment --comment all -j DROP\n-A FORWARD -p tcp -j ACCEPT\n-A INPUT -i lan0 -j DROP\nCOMMIT\n",
    );
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    expect![[r"
        4:13: no interface named `lan0`
          hint: did you mean `lan`?
        3:1: no packet comes as far as this rule of chain `FORWARD`
          hint: line 2 takes them all"]]
    .assert_eq(&warnings.join("\n"));
}

#[test]
fn what_the_tools_cut_or_leave_empty_is_warned_of() {
    let text = |rule: &str| format!("*filter\n{rule}\nCOMMIT\n");
    let long = "x".repeat(256);
    for (rule, warning) in [
        (format!("-A INPUT -m comment --comment {long} -j DROP"), "2:31: the comment has 256 bytes"),
        (format!("-A INPUT -m helper --helper {long} -j DROP"), "2:29: the helper's name has 256 bytes"),
        ("-A INPUT -p udp --dport 20:10".to_owned(), "2:25: the port range `20:10` holds no port"),
        (
            "-A INPUT -m conntrack ! --ctorigdstport 20:10".to_owned(),
            "2:41: the port range `20:10` holds no port",
        ),
    ] {
        let loaded = load(&text(&rule));
        let [found] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
        assert!(found.to_string().starts_with(warning), "{found}");
    }
}

#[test]
fn a_file_that_is_no_utf_8_is_told_where() {
    let error = text_of(b"*filter\n# \xc3\xa9 caf\xe9\n".to_vec()).unwrap_err();
    assert_eq!((error.line, error.column), (2, 8));
    assert_eq!(error.message, "byte 0xe9 is no text in UTF-8");
    assert_eq!(text_of(b"COMMIT\n".to_vec()).as_deref(), Ok("COMMIT\n"));
}

#[test]
fn those_who_listen_hear_what_rules_log() {
    let rules = filter(
        "-A FORWARD -j LOG --log-prefix \"new: \"\n-A FORWARD -j NFLOG --nflog-group 3 --nflog-size 20",
    );
    let (place, mut rec) = (WithoutRouter::default(), NoRecord);
    let heard = place.env.logs.listen();
    let at = place.arrival(Instant::ZERO, 0);
    let mut ctx = Context::new(&at, &mut rec);
    let mut frame = tcp(22, TcpFlags::SYN);
    let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    rules.run(Table::Filter, Hook::Forward, &mut pkt, &mut ctx);
    let messages: Vec<_> =
        heard.try_iter().map(|m| (rules.rule_name(m.rule), m.packet.len(), m.by)).collect();
    assert_eq!(
        messages,
        [
            (
                "filter/FORWARD/1".into(),
                40,
                crate::base::log::Speaker::Log {
                    prefix: "new: ".into(),
                    level: 4,
                    details: crate::base::log::LogDetails::default()
                }
            ),
            (
                "filter/FORWARD/2".into(),
                20,
                crate::base::log::Speaker::Nflog { prefix: String::new(), group: 3 }
            ),
        ]
    );
}

#[test]
fn typed_commands_are_read_as_the_shell_hands_them_over() {
    let rule = |script: &str| {
        let loaded =
            Ruleset::load(script, Family::Ipv4, &[]).map_err(|errors| errors[0].to_string()).unwrap();
        let chain = &loaded.ruleset.chains(Table::Filter)[1];
        chain
            .rules
            .iter()
            .map(|rule| loaded.ruleset.rule_text(Table::Filter, rule).trim_start().to_owned())
            .collect::<Vec<_>>()
            .join("; ")
    };
    for (script, expected) in [
        (
            "iptables -A FORWARD -p tcp -m comment --comment 'no web here' -j DROP",
            "-p tcp -m comment --comment \"no web here\" -j DROP",
        ),
        ("iptables -A FORWARD -j LOG --log-prefix 'IN: '", "-j LOG --log-prefix \"IN: \""),
        (
            "iptables -A FORWARD -j LOG --log-prefix IN:\\ ; iptables -A FORWARD -j DROP",
            "-j LOG --log-prefix \"IN: \"; -j DROP",
        ),
        ("iptables -A FORWARD -s '192.0.2.1' -j DROP # the end", "-s 192.0.2.1/32 -j DROP"),
        ("iptables -A FORWARD \\! -i lo \\\n  -j DROP >/dev/null 2>&1", "! -i lo -j DROP"),
        ("iptables -w 5 -W 100000 -A FORWARD -j DROP", "-j DROP"),
        ("iptables -w5 -A FORWARD -j DROP\niptables --wait=5 -A FORWARD -j ACCEPT -w", "-j DROP; -j ACCEPT"),
        // What `iptables -S` prints.
        ("-P INPUT ACCEPT\n-P FORWARD DROP\n-N lan\n-A FORWARD -i lan -j lan\n", "-i lan -j lan"),
    ] {
        assert_eq!(rule(script), expected, "{script}");
    }
}

#[test]
fn a_script_is_told_once_what_of_it_is_not_read_and_where_its_mistakes_are() {
    let check = |text: &str, expected: &[&str]| {
        let errors = Ruleset::load(text, Family::Ipv4, &[]).map(|_| ()).unwrap_err();
        let errors: Vec<String> =
            errors.iter().map(|e| e.to_string().lines().next().unwrap_or("").to_owned()).collect();
        assert_eq!(errors, expected, "{text}");
    };
    check(
        "iptables -P FORWARD DROP\niptables -A FORWARD -p tcp --dport 22 -j ACCPT\n",
        &["2:42: no chain or target named `ACCPT`"],
    );
    check("iptables -A FORWARD \\\n  -p tcp -j ACCPT\n", &["2:13: no chain or target named `ACCPT`"]);
    check(
        "echo 1 > /proc/sys/net/ipv4/ip_forward\niptables -A FORWARD -j DROP\nmodprobe x\n",
        &["1:1: this is no iptables command; lines are commands here; one more is like that"],
    );
    check(
        "iptables -A FORWARD -i $WAN -j DROP\niptables -A FORWARD -i \"$LAN\" -j DROP\n",
        &["1:24: variables of the shell are not expanded; one more is like that"],
    );
    check(
        "WAN=eth0\nfor p in 1 2; do\niptables -A FORWARD -j DROP\ndone\n",
        &["1:1: this is shell, which is not run here; 3 more are like that"],
    );
    check(
        "IPT=/sbin/iptables\n$IPT -F\n$IPT -A FORWARD -j DROP\n",
        &["1:1: this is a shell script: its variables are not expanded here"],
    );
    check(
        "Chain INPUT (policy ACCEPT)\ntarget     prot opt source               destination\n",
        &["1:1: this is what `iptables -L` prints, which leaves half of each rule out"],
    );
    check("table inet filter {\n}\n", &["1:1: this is a ruleset of nft, not of iptables"]);
    check(
        "ip6tables -A FORWARD -j DROP\nip6tables -P FORWARD DROP\n",
        &["1:1: all 2 lines are for IPv6: nothing was read"],
    );
    check("iptables -A FORWARD -m comment --comment 'never -j DROP\n", &["1:42: the quote is never closed"]);
    let many: String = (0..8_000).map(|n| format!("-A FORWARD -p tcp --dport {n} -j NOSUCH\n")).collect();
    check(
        &format!("*filter\n{many}COMMIT\n"),
        &["2:32: no chain or target named `NOSUCH` (and 7999 more lines like this one)"],
    );
}

#[test]
fn a_text_that_is_all_wrong_is_given_up() {
    let read = |lines: usize| {
        let wrong: String = (0..lines).map(|n| format!("wrong-{n}\n")).collect();
        let errors = Ruleset::load(&format!("*filter\n{wrong}COMMIT\n"), Family::Ipv4, &[]).unwrap_err();
        let last = errors.last().unwrap().clone();
        (errors.len(), last.line, last.message == "there may be more problems behind this line")
    };
    assert_eq!(read(9_999), (9_999, 10_000, false));
    assert_eq!(read(30_000), (10_001, 10_002, true));
}

use super::*;
use crate::filter::Ruleset;
use crate::packet::Family;
use core::net::IpAddr;

/// What a rule for TCP asks of the core.
fn target(family: Family, chain: &str, rule: &str) -> nat::Target {
    let text = format!("*nat\n-A {chain} -p tcp {rule}\nCOMMIT\n");
    let ruleset = Ruleset::load(&text, family, &[]).expect("the rule is right").ruleset;
    let rules = ruleset.chains(Table::Nat).iter().flat_map(|chain| &chain.rules);
    let target = rules.map(|rule| rule.target.translation()).next().flatten();
    *target.expect("it translates")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn every_option_comes_to_the_core() {
    let range = Range::default();
    let one = Some((ip("192.0.2.7"), ip("192.0.2.7")));
    for (chain, rule, expected) in [
        (
            "PREROUTING",
            "-j DNAT --to-destination 192.0.2.7",
            nat::Target::Dnat(Range { addrs: one, ..range }),
        ),
        (
            "PREROUTING",
            "-j DNAT --to-destination 192.0.2.9-192.0.2.7:70-90/60 --random --persistent",
            nat::Target::Dnat(Range {
                addrs: Some((ip("192.0.2.9"), ip("192.0.2.7"))),
                ports: Some((70, 90)),
                base: Some(60),
                random: true,
                persistent: true,
                ..range
            }),
        ),
        (
            "POSTROUTING",
            "-j SNAT --to-source :5 --random-fully",
            nat::Target::Snat(Range { ports: Some((5, 5)), random_fully: true, ..range }),
        ),
        ("POSTROUTING", "-j MASQUERADE", nat::Target::Masquerade(range)),
        ("OUTPUT", "-j REDIRECT --to-ports 0", nat::Target::Redirect(Range { ports: Some((0, 0)), ..range })),
        (
            "INPUT",
            "-j NETMAP --to 192.0.2.7/24",
            nat::Target::Netmap { network: ip("192.0.2.0"), prefix_len: 24 },
        ),
    ] {
        assert_eq!(target(Family::Ipv4, chain, rule), expected, "{rule}");
    }
    assert_eq!(
        target(Family::Ipv6, "PREROUTING", "-j DNAT --to-destination [2001:db8::1]:80"),
        nat::Target::Dnat(Range {
            addrs: Some((ip("2001:db8::1"), ip("2001:db8::1"))),
            ports: Some((80, 80)),
            ..range
        })
    );
}

#[test]
fn what_does_nothing_is_warned_of() {
    let text = "*nat\n-A POSTROUTING -p tcp -j SNAT --to-source :5-9/7\n-A INPUT -j NETMAP --to 192.0.2.7/255.0.0.255\nCOMMIT\n";
    let warnings = Ruleset::load(text, Family::Ipv4, &[]).expect("the tools take it").warnings;
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "2:43: `/7` does nothing: only destinations are shifted\n  hint: leave it out",
            "3:25: the mask has holes, and stands for one address alone\n  hint: a network is written `NETWORK/LENGTH`",
        ]
    );
}

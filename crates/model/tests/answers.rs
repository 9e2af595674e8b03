//! What is said of all packets of a ruleset, in the words of rules.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use stateway_core::filter::Ruleset;
use stateway_core::packet::Family;
use stateway_model::{Fate, Model, Room, Router, Space, Way, groups, interfaces};

/// The groups of packets that meet a fate.
fn said(family: Family, rules: &str, fate: Fate) -> Vec<String> {
    let load = |names: &[String]| Ruleset::load(rules, family, names).unwrap().ruleset;
    let names = interfaces(std::iter::once(&load(&[])), &[]);
    let rules = load(&names);
    let space = Space::new(family, names, Room::SMALL).unwrap();
    let model = Model::new(&rules, &space, Way::Forward, Router::default()).unwrap();
    let (groups, is_more) = groups(&space, model.of(fate), &model.possible, 20).unwrap();
    assert!(!is_more);
    groups.iter().map(stateway_model::Group::text).collect()
}

fn filter(rules: &[&str]) -> String {
    let mut text = "*filter\n:FORWARD DROP [0:0]\n".to_owned();
    for rule in rules {
        text.push_str(&format!("-A FORWARD {rule}\n"));
    }
    text + "COMMIT\n"
}

#[test]
fn a_state_is_something_that_earlier_packets_make() {
    let answers_only = filter(&["-m state --state RELATED,ESTABLISHED -j ACCEPT"]);
    assert_eq!(
        said(Family::Ipv4, &answers_only, Fate::Passed),
        [""; 0],
        "nothing opens, so nothing is answered"
    );
    let one_opens = filter(&[
        "-m state --state RELATED,ESTABLISHED -j ACCEPT",
        "-s 192.0.2.104 -p udp --dport 53 -m state --state NEW -j ACCEPT",
    ]);
    let said = said(Family::Ipv4, &one_opens, Fate::Passed);
    // All answers there are belong to what was opened: to say more of them would say nothing.
    let expected =
        ["-s 192.0.2.104 -p udp --dport 53 --ctstate NEW,ESTABLISHED", "--ctstate ESTABLISHED,RELATED"];
    assert_eq!(said, expected);
}

#[test]
fn ports_addresses_flags_and_states_are_said_as_rules_say_them() {
    for (rule, expected) in [
        ("-p tcp --dport 22 -m state --state NEW", "-p tcp --dport 22 --ctstate NEW"),
        (
            "-p tcp -m multiport ! --dports 22,80:90 -m state --state NEW",
            "-p tcp ! --dport 22,80:90 --ctstate NEW",
        ),
        (
            "-i wan -s 198.51.100.0/25 -p udp -m state --state NEW",
            "-i wan -s 198.51.100.0/25 -p udp --ctstate NEW",
        ),
        ("-p tcp --syn -m state --state NEW", "-p tcp --tcp-flags FIN,SYN,RST,ACK SYN --ctstate NEW"),
        ("-p icmp --icmp-type 8 -m state --state NEW", "-p icmp --icmp-type 8 --ctstate NEW"),
        (
            "-p udp --dport 53 -m limit --limit 1/s -m state --state NEW",
            "-p udp --dport 53 --ctstate NEW, where `-m limit --limit 1/sec` holds",
        ),
    ] {
        let said = said(Family::Ipv4, &filter(&[&format!("{rule} -j ACCEPT")]), Fate::Passed);
        assert!(said.iter().any(|group| group == expected), "{expected} in {said:#?}");
    }
}

#[test]
fn ipv6_has_its_own_words() {
    let rules = filter(&["-s 2001:db8::/64 -p icmpv6 --icmpv6-type 128 -m state --state NEW -j ACCEPT"]);
    let said = said(Family::Ipv6, &rules, Fate::Passed);
    let expected = "-s 2001:db8::/64 -p ipv6-icmp --icmpv6-type 128 --ctstate NEW";
    assert!(said.iter().any(|group| group == expected), "{said:#?}");
}

#[test]
fn marks_of_one_table_are_seen_by_the_next() {
    let rules = "*mangle\n-A PREROUTING -i wan -j MARK --set-mark 7\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\n\
        -A FORWARD -m mark --mark 7 -j DROP\nCOMMIT\n";
    assert_eq!(said(Family::Ipv4, rules, Fate::Dropped), ["-i wan"]);
}

#[test]
fn a_set_changed_by_rules_is_unknown() {
    let rules = "create seen hash:ip\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m set --match-set seen src -m state --state NEW -j ACCEPT\n\
        -A FORWARD -p icmp -j SET --add-set seen src\nCOMMIT\n";
    let said = said(Family::Ipv4, rules, Fate::Passed);
    assert!(
        said.iter().any(|group| group.contains("where `-m set --match-set seen src` holds")),
        "{said:#?}"
    );
}

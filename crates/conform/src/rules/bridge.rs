//! A case where router and kernel are bridges: what a bridge without an address cannot do, or what its kernel tells in other
//! words, is taken out of the rules; and every frame goes to the station on the other side.

#![forbid(unsafe_code)]

use super::bench::Case;
use super::text::{Line, TableText, Tables};
use stateway_core::config::Mode;

/// The kernel's rules see the bridge where ours see its port, or ask routes and sockets that a bridge has not.
const NOT_ON_A_BRIDGE: [&str; 5] = ["physdev", "rpfilter", "addrtype", "owner", "pkttype"];

/// Makes bridges of a case's router and kernel.
pub(super) fn turn(case: &mut Case) {
    case.mode = Mode::Bridge;
    case.frames.iter_mut().for_each(crate::trace::Frame::cross);
    case.rules.iter_mut().for_each(suit);
}

fn suit(tables: &mut Tables) {
    let by_interface = sets_of_interfaces(&tables.sets);
    for table in &mut tables.tables {
        table.rules.retain(|rule| !asks_too_much(rule) && !speaks_of(rule, &by_interface));
        for rule in &mut table.rules {
            if rule.target.starts_with("-j REJECT") {
                "-j DROP".clone_into(&mut rule.target);
            }
            leave_ports_to_others(rule);
        }
        cut_off_output(table);
    }
    tables.tidy();
}

/// Sets of elements with an interface, and lists of them. The kernel asks them for the bridge, and its rules never find an
/// element `physdev:left`.
fn sets_of_interfaces(sets: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in sets {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["create", name, "hash:net,iface", ..] => names.push(name.to_owned()),
            ["add", list, member, ..] if names.iter().any(|name| name == member) => {
                names.push(list.to_owned());
            }
            _ => {}
        }
    }
    names
}

fn speaks_of(rule: &Line, names: &[String]) -> bool {
    let words = rule.parts.iter().chain([&rule.target]).flat_map(|part| part.split(' '));
    words.into_iter().any(|word| names.iter().any(|name| name == word))
}

fn asks_too_much(rule: &Line) -> bool {
    rule.parts.iter().any(|part| NOT_ON_A_BRIDGE.iter().any(|name| part.contains(&format!("-m {name}"))))
}

/// `-p` of IPv6 drops a packet that ends before its protocol is told, if addresses and interfaces fit: for the kernel, whose
/// rule has `physdev` in their place, they always do.
fn leave_ports_to_others(rule: &mut Line) {
    let begins = |part: &str, options: &[&str]| {
        options.iter().any(|option| part.strip_prefix("! ").unwrap_or(part).starts_with(option))
    };
    if rule.parts.iter().any(|part| begins(part, &["-p "])) {
        rule.parts.retain(|part| !begins(part, &["-i ", "-o "]));
    }
    // Before the way out is known, `physdev` does not even find one of any name.
    if !matches!(&rule.chain[..], "FORWARD" | "POSTROUTING") {
        rule.parts.retain(|part| !begins(part, &["-o "]));
    }
}

/// A bridge sends nothing of its own, and the kernel refuses to ask there by which port: no chain leads there.
fn cut_off_output(table: &mut TableText) {
    table.rules.retain(|rule| rule.chain != "OUTPUT");
}

/// A line that iptables-save prints with counters, without what the rule asks for: the kernel's ports are `physdev`.
pub(super) fn without_conditions(line: &str) -> String {
    line.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_speak_of_sets_of_interfaces_are_taken_out() {
        let sets = [
            "create behind hash:net,iface",
            "add behind 198.18.0.0/24,left",
            "create all list:set",
            "add all behind",
        ];
        let names = sets_of_interfaces(&sets.map(str::to_owned));
        assert_eq!(names, ["behind", "all"]);
        let rule = |part: &str, target: &str| Line {
            chain: "FORWARD".to_owned(),
            parts: vec![part.to_owned()],
            target: target.to_owned(),
        };
        assert!(speaks_of(&rule("-m set ! --match-set all src,src", "-j DROP"), &names));
        assert!(speaks_of(&rule("-p tcp", "-j SET --add-set behind src,src"), &names));
        assert!(!speaks_of(&rule("-m set --match-set net src", "-j SET --add-set ip src"), &names));
    }

    #[test]
    fn what_a_bridge_cannot_do_is_taken_out() {
        let text = "*filter\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:B - [0:0]\n-A FORWARD -i left -j REJECT\n\
                    -A OUTPUT -o left -j B\nCOMMIT\n";
        let mut tables = Tables::parse(text);
        tables.tables[0].rules[0].target = "-j REJECT --reject-with tcp-reset".to_owned();
        suit(&mut tables);
        let rest = "*filter\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A FORWARD -j DROP\nCOMMIT\n";
        assert_eq!(tables.render(), rest);
        let parts = ["-i left", "! -o eth0", "! -p tcp", "-m mark --mark 1"].map(str::to_owned).to_vec();
        let mut rule = Line { chain: "FORWARD".to_owned(), parts, target: String::new() };
        leave_ports_to_others(&mut rule);
        assert_eq!(rule.text(), "! -p tcp -m mark --mark 1");
        assert_eq!(without_conditions("[3:120] -A FORWARD -p tcp -j DROP"), "[3:120] -A FORWARD");
    }
}

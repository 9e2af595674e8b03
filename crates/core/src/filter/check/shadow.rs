//! Rules that never decide, because an earlier one takes every packet that they would match.
//!
//! It is said only where it is certain: of conditions that look at nothing but the packet, its interfaces and its state,
//! and that are known to be as wide as the later rule's.

#![forbid(unsafe_code)]

use crate::filter::matches::{Conntrack, Match, Multiport, MultiportSide, PortMatch, State, Tcp, Udp};
use crate::filter::rule::{AddrMatch, IfaceMatch, ProtoMatch};
use crate::filter::targets::Target;
use crate::filter::text::value::Ports;
use crate::filter::{Chain, Matches, Rule};

/// Rules of one chain that are compared with one another.
const MOST: usize = 2_000;
/// Chains that are followed one into the other.
const DEEPEST: usize = 16;

/// Which chains no packet comes back from.
pub(in crate::filter) struct Endings(Vec<bool>);

impl Endings {
    pub(in crate::filter) fn of(chains: &[Chain]) -> Self {
        let mut endings = Self(vec![false; chains.len()]);
        for _ in 0..DEEPEST {
            let ends = |(chain, known): (&Chain, &bool)| *known || endings.ends_every_packet(chain);
            let known: Vec<bool> = chains.iter().zip(&endings.0).map(ends).collect();
            if known == endings.0 {
                break;
            }
            endings.0 = known;
        }
        endings
    }

    fn ends_every_packet(&self, chain: &Chain) -> bool {
        let leaves = |rule: &&Rule| matches!(rule.target, Target::Return | Target::Goto(_));
        let ends = |rule: &&Rule| is_unconditional(&rule.matches) && self.ends(&rule.target);
        chain.rules.iter().find(|rule| leaves(rule) || ends(rule)).is_some_and(|rule| !leaves(&rule))
    }

    /// Whether a packet that comes to this target never comes to the next rule.
    pub(in crate::filter) fn ends(&self, target: &Target) -> bool {
        match target {
            Target::Accept | Target::Drop | Target::Return | Target::Goto(_) | Target::Reject(_) => true,
            Target::Jump(to) => self.0.get(to.index()) == Some(&true),
            _ => false,
        }
    }
}

/// Each rule among `rules` that never holds, with the earlier one that takes all of its packets.
pub(in crate::filter) fn shadowed<'a>(endings: &Endings, rules: &'a [Rule]) -> Vec<(&'a Rule, &'a Rule)> {
    let rules = &rules[..rules.len().min(MOST)];
    let ending: Vec<bool> = rules.iter().map(|rule| endings.ends(&rule.target)).collect();
    let taker = |place: usize| {
        let earlier = rules[..place].iter().zip(&ending).filter(|(_, ends)| **ends).map(|(rule, _)| rule);
        earlier.into_iter().find(|earlier| takes_all(&earlier.matches, &rules[place].matches))
    };
    (1..rules.len()).filter_map(|place| Some((&rules[place], taker(place)?))).collect()
}

/// Whether every packet matches.
pub(in crate::filter) fn is_unconditional(matches: &Matches) -> bool {
    // Named in full: a new condition does not compile until it is asked for here.
    let Matches { src, dst, in_iface, out_iface, proto, fragment, listed } = matches;
    src.is_none()
        && dst.is_none()
        && in_iface.is_none()
        && out_iface.is_none()
        && proto.is_none()
        && fragment.is_none()
        && listed.iter().all(|m| matches!(m, Match::Comment(_)))
}

/// Whether every packet that agrees with `later` agrees with `earlier`.
fn takes_all(earlier: &Matches, later: &Matches) -> bool {
    // Named in full: a new condition does not compile until it is compared here.
    let Matches { src, dst, in_iface, out_iface, proto, fragment, listed } = earlier;
    wider(src.as_ref(), later.src.as_ref(), |a, b| addr(*a, *b))
        && wider(dst.as_ref(), later.dst.as_ref(), |a, b| addr(*a, *b))
        && wider(in_iface.as_ref(), later.in_iface.as_ref(), iface)
        && wider(out_iface.as_ref(), later.out_iface.as_ref(), iface)
        && wider(proto.as_ref(), later.proto.as_ref(), |a, b| protocol(*a, *b))
        && wider(fragment.as_ref(), later.fragment.as_ref(), |a, b| a == b)
        && listed.iter().all(|m| {
            matches!(m, Match::Comment(_)) || is_pure(m) && later.listed.iter().any(|other| covers(m, other))
        })
}

/// A condition that is not there is the widest.
fn wider<T>(earlier: Option<&T>, later: Option<&T>, covers: impl Fn(&T, &T) -> bool) -> bool {
    earlier.is_none_or(|earlier| later.is_some_and(|later| covers(earlier, later)))
}

fn addr(earlier: AddrMatch, later: AddrMatch) -> bool {
    let is_within = |inner: AddrMatch, outer: AddrMatch| {
        inner.net.mask & outer.net.mask == outer.net.mask && outer.net.contains(inner.net.addr)
    };
    match (earlier.negated, later.negated) {
        (false, false) => is_within(later, earlier),
        (true, true) => is_within(earlier, later),
        (false, true) | (true, false) => false,
    }
}

fn iface(earlier: &IfaceMatch, later: &IfaceMatch) -> bool {
    let is_begun = || {
        earlier.name.strip_suffix('+').is_some_and(|stem| later.name.trim_end_matches('+').starts_with(stem))
    };
    match (earlier.negated, later.negated) {
        (false, false) => earlier.name == later.name || is_begun(),
        (true, true) => earlier.name == later.name,
        (false, true) | (true, false) => false,
    }
}

fn protocol(earlier: ProtoMatch, later: ProtoMatch) -> bool {
    earlier == later || earlier.negated && !later.negated && earlier.proto != later.proto
}

/// Whether a match says the same of a packet whenever it is asked, whatever rules before it did.
const fn is_pure(m: &Match) -> bool {
    matches!(
        m,
        Match::Addrtype(_)
            | Match::Conntrack(_)
            | Match::Icmp(_)
            | Match::Icmp6(_)
            | Match::Iprange(_)
            | Match::Length(_)
            | Match::Mac(_)
            | Match::Multiport(_)
            | Match::Owner(_)
            | Match::Physdev(_)
            | Match::Pkttype(_)
            | Match::Sctp(_)
            | Match::State(_)
            | Match::Tcp(_)
            | Match::Udp(_)
    )
}

/// Whether what agrees with `later` agrees with `earlier`.
fn covers(earlier: &Match, later: &Match) -> bool {
    match (earlier, later) {
        (Match::Tcp(a), Match::Tcp(b)) => tcp(a, b),
        (Match::Udp(a), Match::Udp(b)) => {
            port(a.sport.as_ref(), b.sport.as_ref()) && port(a.dport.as_ref(), b.dport.as_ref())
        }
        (Match::Multiport(a), Match::Tcp(Tcp { sport, dport, .. }) | Match::Udp(Udp { sport, dport })) => {
            among(a, sport.as_ref(), dport.as_ref())
        }
        (Match::State(a), Match::State(b)) => state(a, b),
        (Match::Conntrack(a), Match::Conntrack(b)) => a == b || conntrack(a, b),
        (a, b) => a == b,
    }
}

fn tcp(a: &Tcp, b: &Tcp) -> bool {
    port(a.sport.as_ref(), b.sport.as_ref())
        && port(a.dport.as_ref(), b.dport.as_ref())
        && wider(a.option.as_ref(), b.option.as_ref(), |a, b| a == b)
        && wider(a.flags.as_ref(), b.flags.as_ref(), |a, b| a == b)
}

fn port(earlier: Option<&PortMatch>, later: Option<&PortMatch>) -> bool {
    let earlier = earlier.filter(|earlier| earlier.negated || !earlier.ports.is_any());
    wider(earlier, later, |a, b| match (a.negated, b.negated) {
        (false, false) => is_within(b.ports, a.ports),
        (true, true) => is_within(a.ports, b.ports),
        (true, false) => a.ports.1 < b.ports.0 || b.ports.1 < a.ports.0,
        (false, true) => false,
    })
}

/// A range whose end lies before its beginning holds no port.
const fn is_within(inner: Ports, outer: Ports) -> bool {
    outer.0 <= inner.0 && inner.1 <= outer.1 && outer.0 <= outer.1
}

/// Whether one of several ports is that of a later rule.
fn among(several: &Multiport, sport: Option<&PortMatch>, dport: Option<&PortMatch>) -> bool {
    let Multiport { side, ports, negated } = several;
    let has = |port: Option<&PortMatch>| {
        port.is_some_and(|port| !port.negated && ports.iter().any(|(range, _)| is_within(port.ports, *range)))
    };
    let is_among = match side {
        MultiportSide::Source => has(sport),
        MultiportSide::Destination => has(dport),
        MultiportSide::Either => has(sport) || has(dport),
    };
    is_among && !negated
}

const fn state(a: &State, b: &State) -> bool {
    match (a.negated, b.negated) {
        (false, false) => a.states.contains(b.states),
        (true, true) => b.states.contains(a.states),
        (true, false) => !a.states.intersects(b.states),
        (false, true) => false,
    }
}

/// Of conditions that differ in nothing but the states.
fn conntrack(a: &Conntrack, b: &Conntrack) -> bool {
    let without_states = |ct: &Conntrack| Conntrack { states: None, ..ct.clone() };
    if without_states(a) != without_states(b) {
        return false;
    }
    match (a.states, b.states) {
        (None, _) => true,
        (Some((a, a_negated)), Some((b, b_negated))) => {
            state(&State { states: a, negated: a_negated }, &State { states: b, negated: b_negated })
        }
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::filter::Ruleset;
    use crate::packet::Family;

    /// Which line is told to take all of the second rule's packets.
    fn taker(first: &str, second: &str) -> Option<String> {
        let text = format!(
            "*filter\n:TO - [0:0]\n-A FORWARD {first}\n-A FORWARD {second}\n-A TO -p tcp -j LOG\n-A TO -j DROP\nCOMMIT\n"
        );
        let loaded = Ruleset::load(&text, Family::Ipv4, &[]).unwrap();
        let of_second = loaded.warnings.iter().find(|warning| warning.line == 4);
        of_second.and_then(|warning| warning.hint.clone())
    }

    #[test]
    fn a_rule_whose_packets_all_end_before_it_is_told() {
        for (first, second) in [
            ("-p tcp -j ACCEPT", "-p tcp -m tcp --dport 22 -j DROP"),
            ("-s 198.51.100.0/24 -j ACCEPT", "-s 198.51.100.7/32 -p udp -j DROP"),
            ("-p tcp -m tcp --dport 22 -j ACCEPT", "-i eth0 -p tcp -m tcp --dport 22 -j DROP"),
            ("-j TO", "-p tcp -m tcp --dport 13001 -j ACCEPT"),
            ("-p udp -j TO", "-p udp -s 192.0.2.1 -j ACCEPT"),
            ("-i eth1 -j ACCEPT", "-i eth1 -j ACCEPT"),
            ("-i eth+ -j ACCEPT", "-i eth1 -j DROP"),
            ("-p tcp -m tcp --dport 1:1024 -j DROP", "-p tcp -m tcp --dport 22 -j ACCEPT"),
            ("-p tcp -m multiport --dports 22,80 -j DROP", "-p tcp -m tcp --dport 80 -j ACCEPT"),
            ("-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT", "-m conntrack --ctstate NEW -j DROP"),
            ("-m state --state NEW,RELATED -j ACCEPT", "-i lan -m state --state NEW -j DROP"),
            ("! -p tcp -j DROP", "-p udp -j ACCEPT"),
            ("! -s 192.0.2.0/28 -j DROP", "! -s 192.0.2.0/24 -j ACCEPT"),
            ("-m comment --comment x -p icmp -j ACCEPT", "-p icmp -m icmp --icmp-type 8 -j DROP"),
        ] {
            assert!(taker(first, second).is_some_and(|hint| hint.contains("line 3")), "{first} | {second}");
        }
    }

    #[test]
    fn a_rule_that_may_hold_is_not() {
        for (first, second) in [
            ("-p tcp -m tcp --dport 22 -j DROP", "-p tcp -j ACCEPT"),
            ("-p tcp -j LOG", "-p tcp -j DROP"),
            ("-s 198.51.100.7/32 -j ACCEPT", "-s 198.51.100.0/24 -j DROP"),
            ("-s 198.51.100.0/24 -j ACCEPT", "! -s 198.51.100.0/24 -j DROP"),
            ("-i eth0 -j ACCEPT", "-i eth+ -j DROP"),
            ("-m limit --limit 1/s -j ACCEPT", "-m limit --limit 1/s -j ACCEPT"),
            ("-m mark --mark 1 -j ACCEPT", "-m mark --mark 1 -j DROP"),
            ("-p tcp -m tcp -j ACCEPT", "-p tcp -j DROP"),
            ("-p tcp -m tcp ! --dport 22 -j DROP", "-p tcp -m tcp --dport 22 -j ACCEPT"),
            ("-p tcp -j TO", "-p udp -j ACCEPT"),
            ("-p udp -m udp --dport 53 -j ACCEPT", "-p tcp -m tcp --dport 53 -j ACCEPT"),
            ("-m conntrack --ctstate NEW -j ACCEPT", "-m conntrack --ctstate NEW,RELATED -j DROP"),
        ] {
            assert_eq!(taker(first, second), None, "{first} | {second}");
        }
    }

    #[test]
    fn no_port_at_all_never_holds() {
        let text = "*filter\n-A FORWARD -p tcp -m tcp ! --dport : -j DROP\nCOMMIT\n";
        let loaded = Ruleset::load(text, Family::Ipv4, &[]).unwrap();
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    }
}

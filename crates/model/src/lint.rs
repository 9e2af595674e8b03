//! What is wrong in a ruleset for certain: rules that never hold, and the lessons of what lets strangers in.

#![forbid(unsafe_code)]

use crate::condition::{ICMP, ICMPV6, TCP, UDP, matching};
use crate::model::{Model, state_number};
use crate::space::{Field, Made, Set, Space};
use crate::walk::{Met, Seen, Walk};
use stateway_core::conntrack::CtState;
use stateway_core::filter::matches::{Match, PortMatch, StateSet};
use stateway_core::filter::{Chain, Policy, Rule, Ruleset, Table, Target};
use std::collections::BTreeSet;

mod families;
mod partly;
mod ssh;

pub use families::left_open;
pub use ssh::{names_ssh, of_router};

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    pub code: &'static str,
    /// From 1; 0 if it is about no rule.
    pub line: u32,
    pub message: String,
    pub hint: String,
    /// Packets that show it, on the way that was asked about.
    pub shown_by: Option<Set>,
}

/// So many rules that differ in nothing but a host stand in for one that asks for the state.
const MANY_HOSTS: usize = 8;

/// Everything that is found without asking what packets there are.
pub fn of_rules(rules: &Ruleset, space: &Space) -> Made<Vec<Finding>> {
    let mut walk = Walk::seeing(rules, space);
    let last = space.ifaces.len() as u128 - 1;
    let packets = space
        .between(Field::State, 0, 4)?
        .and(&space.between(Field::In, 0, last)?)?
        .and(&space.between(Field::Out, 0, last)?)?;
    for table in Table::ALL {
        for hook in table.hooks() {
            walk.only(table, *hook, &packets)?;
        }
    }
    let seen = walk.into_seen();
    let mut findings = Vec::new();
    for table in Table::ALL {
        for (place, chain) in rules.chains(table).iter().enumerate() {
            let id = place as u16;
            if !seen.contains_key(&(table, id, 0)) {
                if chain.policy.is_none() && !chain.rules.is_empty() && !is_jumped_to(rules, table, place) {
                    findings.push(Finding {
                        code: "SW003",
                        line: chain.rules[0].line,
                        message: format!(
                            "nothing jumps to chain `{}`, so that its rules are never asked",
                            chain.name
                        ),
                        hint: "jump to it, or delete it".to_owned(),
                        shown_by: None,
                    });
                }
                continue;
            }
            never_holding(table, id, chain, &seen, &mut findings)?;
            if table == Table::Filter {
                findings.extend(partly::of_chain(space, id, chain, &seen)?);
            }
            copies(rules, table, chain, &mut findings);
        }
    }
    Ok(findings)
}

fn is_jumped_to(rules: &Ruleset, table: Table, place: usize) -> bool {
    rules
        .chains(table)
        .iter()
        .flat_map(|chain| &chain.rules)
        .any(|rule| matches!(rule.target, Target::Jump(to) | Target::Goto(to) if to.index() == place))
}

fn never_holding(table: Table, id: u16, chain: &Chain, seen: &Seen, findings: &mut Vec<Finding>) -> Made<()> {
    for (index, rule) in chain.rules.iter().enumerate() {
        let Some(met) = seen.get(&(table, id, index as u32)) else { continue };
        // What a set holds is no condition of the rule.
        let asks_set = rule.matches.listed.iter().any(|m| matches!(m, Match::Set(_)));
        if met.wanted.is_empty() {
            if !asks_set {
                findings.push(Finding {
                    code: "SW002",
                    line: rule.line,
                    message: format!(
                        "no packet agrees with all conditions of this rule of chain `{}`",
                        chain.name
                    ),
                    hint: "its conditions contradict each other".to_owned(),
                    shown_by: None,
                });
            }
            continue;
        }
        if !met.held.is_empty() {
            continue;
        }
        let takers = takers(table, id, chain, index, seen, met)?;
        let hint = match takers.as_slice() {
            [] => "what jumps to this chain lets none of them come".to_owned(),
            [one] => format!("line {one} takes them all"),
            several => {
                let list: Vec<String> = several.iter().map(ToString::to_string).collect();
                format!("lines {} take them all", list.join(", "))
            }
        };
        findings.push(Finding {
            code: "SW001",
            line: rule.line,
            message: format!("no packet of this rule comes as far as it in chain `{}`", chain.name),
            hint,
            shown_by: None,
        });
        if met.reached.is_empty() {
            // Nor does any to the rules behind it.
            break;
        }
    }
    Ok(())
}

/// The lines of the rules before in the chain that hold for packets that this one wants.
fn takers(table: Table, id: u16, chain: &Chain, index: usize, seen: &Seen, met: &Met) -> Made<Vec<u32>> {
    let mut lines = Vec::new();
    for (before, rule) in chain.rules[..index].iter().enumerate() {
        let ends = matches!(
            rule.target,
            Target::Accept
                | Target::Drop
                | Target::Reject(_)
                | Target::Return
                | Target::Goto(_)
                | Target::Jump(_)
        ) || rule.target.translation().is_some();
        if ends
            && let Some(other) = seen.get(&(table, id, before as u32))
            && other.held.meets(&met.wanted)?
        {
            lines.push(rule.line);
        }
    }
    Ok(lines)
}

/// Rules that say and do what one before them in the chain says and does, and changes nothing by doing it twice.
fn copies(rules: &Ruleset, table: Table, chain: &Chain, findings: &mut Vec<Finding>) {
    let mut known: Vec<(String, u32)> = Vec::new();
    for rule in &chain.rules {
        let is_pure = rule.matches.listed.iter().all(is_lasting);
        let does_once = matches!(rule.target, Target::Log(_) | Target::Nflog(_));
        if !is_pure || !does_once || findings.iter().any(|finding| finding.line == rule.line) {
            continue;
        }
        let text = rules.rule_text(table, rule);
        match known.iter().find(|(other, _)| *other == text) {
            Some((_, line)) => findings.push(Finding {
                code: "SW004",
                line: rule.line,
                message: format!("this rule of chain `{}` is a copy", chain.name),
                hint: format!("line {line} says the same"),
                shown_by: None,
            }),
            None => known.push((text, rule.line)),
        }
    }
}

const fn is_lasting(m: &Match) -> bool {
    matches!(
        m,
        Match::Comment(_)
            | Match::Conntrack(_)
            | Match::Icmp(_)
            | Match::Icmp6(_)
            | Match::Iprange(_)
            | Match::Multiport(_)
            | Match::State(_)
            | Match::Tcp(_)
            | Match::Udp(_)
    )
}

/// What lets strangers through, or keeps answers out; at FORWARD.
pub fn of_forward(rules: &Ruleset, model: &Model<'_>) -> Made<Vec<Finding>> {
    let space = model.space;
    let mut walk = Walk::seeing(rules, space);
    let start = model.possible.and(&model.real)?;
    walk.go(model.way, &start, |all, _| Ok(all.clone()))?;
    let seen = walk.into_seen();
    let new =
        space.is(Field::State, state_number(CtState::New))?.and(&model.fates.passed)?.and(&model.real)?;
    let asks_state =
        rules.chains(Table::Filter).iter().flat_map(|c| &c.rules).any(|rule| states(rule).is_some());
    let mut findings = Vec::new();
    for (place, chain) in rules.chains(Table::Filter).iter().enumerate() {
        for (index, rule) in chain.rules.iter().enumerate() {
            let Some(met) = seen.get(&(Table::Filter, place as u16, index as u32)) else { continue };
            let lets_new = met.held.and(&new)?;
            if rule.target == Target::Accept && !lets_new.is_empty() {
                findings.extend(by_source_port(model, rule, &lets_new)?);
                findings.extend(new_from_anywhere(rule, &lets_new));
            }
            findings.extend(by_flags(model, rule, asks_state, met, &new)?);
        }
        findings.extend(trusted_hosts(chain, place, asks_state, &seen, &new)?);
    }
    findings.extend(answers(rules, model, &seen)?);
    Ok(findings)
}

/// The states that a rule names itself: not those that it leaves by naming others.
fn states(rule: &Rule) -> Option<(StateSet, bool)> {
    rule.matches.listed.iter().find_map(|m| match m {
        Match::State(c) => Some((c.states, c.negated)),
        Match::Conntrack(c) => c.states,
        _ => None,
    })
}

fn by_source_port(model: &Model<'_>, rule: &Rule, lets_new: &Set) -> Made<Option<Finding>> {
    let is_asked = |port: &Option<PortMatch>| port.as_ref().is_some_and(|p| !p.negated && p.ports.1 < 1024);
    let mut is_by_source = false;
    for m in &rule.matches.listed {
        is_by_source |= match m {
            Match::Tcp(tcp) => is_asked(&tcp.sport) && tcp.dport.is_none() && tcp.flags.is_none(),
            Match::Udp(udp) => is_asked(&udp.sport) && udp.dport.is_none(),
            _ => false,
        };
    }
    // Some other way to narrow the other end would be an answer to the question who may ask.
    let is_plain =
        rule.matches.listed.iter().all(|m| matches!(m, Match::Tcp(_) | Match::Udp(_) | Match::Comment(_)));
    let ports = model.destinations.before(model.space, &model.space.between(Field::Dport, 1, 1023)?)?;
    if !is_by_source || !is_plain || !lets_new.meets(&ports)? {
        return Ok(None);
    }
    Ok(Some(Finding {
        code: "SW010",
        line: rule.line,
        message:
            "answers are let in by their source port: whoever sends from it opens connections to every port"
                .to_owned(),
        hint: "accept `-m conntrack --ctstate ESTABLISHED,RELATED` instead".to_owned(),
        shown_by: Some(lets_new.clone()),
    }))
}

fn new_from_anywhere(rule: &Rule, lets_new: &Set) -> Option<Finding> {
    let (named, negated) = states(rule)?;
    let matches = &rule.matches;
    let is_alone = matches.src.is_none()
        && matches.dst.is_none()
        && matches.in_iface.is_none()
        && matches.out_iface.is_none()
        && matches.proto.is_none()
        && matches
            .listed
            .iter()
            .all(|m| matches!(m, Match::State(_) | Match::Comment(_)) || is_state_alone(m));
    (is_alone && !negated && named.contains(StateSet::NEW)).then(|| Finding {
        code: "SW015",
        line: rule.line,
        message: "NEW is accepted from everywhere: either side may open whatever it likes".to_owned(),
        hint: "name where connections may be opened: `-i IFACE`".to_owned(),
        shown_by: Some(lets_new.clone()),
    })
}

fn is_state_alone(m: &Match) -> bool {
    match m {
        Match::Conntrack(c) => {
            c.states.is_some()
                && c.proto.is_none()
                && c.addrs.iter().all(Option::is_none)
                && c.ports.iter().all(Option::is_none)
                && c.status.is_none()
                && c.expires.is_none()
                && c.direction.is_none()
        }
        _ => false,
    }
}

fn by_flags(model: &Model<'_>, rule: &Rule, asks_state: bool, met: &Met, new: &Set) -> Made<Option<Finding>> {
    let space = model.space;
    if asks_state || met.held.is_empty() {
        return Ok(None);
    }
    let tells_first = rule.matches.listed.iter().any(|m| match m {
        Match::Tcp(tcp) => tcp.flags.is_some_and(|flags| {
            let is_syn = flags.set.bits() == 2 && flags.mask.bits() & 0x12 == 0x12;
            let refuses = matches!(rule.target, Target::Drop | Target::Reject(_));
            is_syn
                && (flags.negated == (rule.target == Target::Accept))
                && (refuses || rule.target == Target::Accept)
        }),
        _ => false,
    });
    if !tells_first {
        return Ok(None);
    }
    // What the rule says of everything but the protocol.
    let mut around = rule.matches.clone();
    around.proto = None;
    around.listed.clear();
    let others = space.one_of(Field::Proto, [UDP, ICMP, ICMPV6].map(u128::from))?;
    let open = model.destinations.before(space, &matching(space, &around)?)?.and(new)?;
    let beside = open.and(&others)?;
    // A probe without SYN comes through as well.
    let probes = open.and(&space.is(Field::Proto, TCP.into())?)?;
    let shown = if beside.is_empty() { probes } else { beside };
    if shown.is_empty() {
        return Ok(None);
    }
    Ok(Some(Finding {
        code: "SW012",
        line: rule.line,
        message: "the first handshake is told by its flags: UDP, ICMP and segments without SYN have none to be refused by".to_owned(),
        hint: "accept `-m conntrack --ctstate ESTABLISHED,RELATED`, and NEW from where connections may be opened".to_owned(),
        shown_by: Some(shown),
    }))
}

fn trusted_hosts(
    chain: &Chain,
    place: usize,
    asks_state: bool,
    seen: &Seen,
    new: &Set,
) -> Made<Option<Finding>> {
    if asks_state {
        return Ok(None);
    }
    let mut hosts = BTreeSet::new();
    let mut first: Option<(&Rule, Set)> = None;
    for (index, rule) in chain.rules.iter().enumerate() {
        let is_host = rule
            .matches
            .src
            .is_some_and(|src| !src.negated && src.net.prefix_len() == Some(src.net.family.bits().into()));
        let is_plain = rule.matches.proto.is_none()
            && rule.matches.listed.iter().all(|m| matches!(m, Match::Comment(_)));
        if rule.target != Target::Accept || !is_host || !is_plain || rule.matches.dst.is_some() {
            continue;
        }
        let Some(met) = seen.get(&(Table::Filter, place as u16, index as u32)) else { continue };
        let lets_new = met.held.and(new)?;
        if lets_new.is_empty() {
            continue;
        }
        hosts.extend(rule.matches.src.map(|src| src.net.addr));
        first.get_or_insert((rule, lets_new));
    }
    let Some((rule, shown)) = first.filter(|_| hosts.len() >= MANY_HOSTS) else { return Ok(None) };
    Ok(Some(Finding {
        code: "SW011",
        line: rule.line,
        message: format!(
            "{} hosts are trusted one by one: each may open whatever it likes, and every other one is kept out",
            hosts.len()
        ),
        hint:
            "one rule for `-m conntrack --ctstate ESTABLISHED,RELATED` lets all answers in, and nothing else"
                .to_owned(),
        shown_by: Some(shown),
    }))
}

/// What becomes of packets that belong to connections, or to none.
fn answers(rules: &Ruleset, model: &Model<'_>, seen: &Seen) -> Made<Vec<Finding>> {
    let space = model.space;
    let passed = model.fates.passed.and(&model.real)?;
    let of = |state| space.is(Field::State, state_number(state));
    let named = |bit: StateSet, target: &dyn Fn(&Target) -> bool| {
        rules.chains(Table::Filter).iter().flat_map(|chain| &chain.rules).find(|rule| {
            target(&rule.target)
                && states(rule).is_some_and(|(states, negated)| !negated && states.contains(bit))
        })
    };
    let accepts = |target: &Target| *target == Target::Accept;
    let mut findings = Vec::new();
    let established = passed.and(&of(CtState::Established)?)?;
    let related = model.possible.and(&model.real)?.and(&of(CtState::Related)?)?;
    if let Some(rule) = named(StateSet::ESTABLISHED, &accepts)
        && !established.is_empty()
        && !related.is_empty()
        && !related.meets(&passed)?
    {
        findings.push(Finding {
            code: "SW013",
            line: rule.line,
            message: "ESTABLISHED is accepted and RELATED is not: errors about connections that pass are refused, and large packets get lost in silence".to_owned(),
            hint: "`--ctstate ESTABLISHED,RELATED`".to_owned(),
            shown_by: Some(related),
        });
    }
    let invalid = passed.and(&of(CtState::Invalid)?)?;
    if let Some(rule) = named(StateSet::INVALID, &accepts)
        && !invalid.is_empty()
    {
        findings.push(Finding {
            code: "SW014",
            line: rule.line,
            message: "INVALID is accepted: packets that belong to no connection pass".to_owned(),
            hint: "drop `-m conntrack --ctstate INVALID`".to_owned(),
            shown_by: Some(invalid.clone()),
        });
    } else if let Some(rule) = named(StateSet::ESTABLISHED, &accepts)
        && named(StateSet::INVALID, &|_| true).is_none()
        && let Some(by_policy) = accepted_by_policy(rules, seen)
        && let invalid = invalid.and(by_policy)?.and(&where_new_is_refused(rules, model)?)?
        && !invalid.is_empty()
    {
        findings.push(Finding {
            code: "SW014",
            line: rule.line,
            message: "INVALID is never dropped: what fits no connection passes by the policy".to_owned(),
            hint: "drop `-m conntrack --ctstate INVALID`, or let the policy be DROP".to_owned(),
            shown_by: Some(invalid),
        });
    }
    Ok(findings)
}

/// The packets at FORWARD that no rule ends, if the policy lets them pass.
fn accepted_by_policy<'a>(rules: &Ruleset, seen: &'a Seen) -> Option<&'a Set> {
    let mut chains = rules.chains(Table::Filter).iter().enumerate();
    let (place, chain) = chains.find(|(_, c)| c.name == "FORWARD" && c.policy == Some(Policy::Accept))?;
    Some(&seen.get(&(Table::Filter, place as u16, chain.rules.len() as u32))?.held)
}

/// Packets with the ends of those that may not open a connection, whatever their own state and flags.
fn where_new_is_refused(rules: &Ruleset, model: &Model<'_>) -> Made<Set> {
    if !rules.may_refuse(Table::Filter) {
        return Ok(model.space.empty());
    }
    let new = model.space.is(Field::State, state_number(CtState::New))?;
    let refused = model.fates.dropped.or(&model.fates.rejected)?.and(&model.real)?.and(&new)?;
    model.space.forget(&refused, &[Field::State, Field::Flags, Field::Length], false)
}

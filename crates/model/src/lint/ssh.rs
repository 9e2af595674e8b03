//! A router that nobody can log in to any more, though a rule says that somebody may.

#![forbid(unsafe_code)]

use super::Finding;
use crate::condition::TCP;
use crate::model::{Model, state_number};
use crate::space::{Field, Made, Set};
use crate::walk::{Walk, Way};
use stateway_core::conntrack::CtState;
use stateway_core::filter::matches::{Match, MultiportSide};
use stateway_core::filter::{Rule, Ruleset, Table, Target};

const SSH: u16 = 22;

/// Whether any rule accepts ssh by its number: only then is there something to ask.
pub fn names_ssh(rules: &Ruleset) -> bool {
    let all = rules.chains(Table::Filter).iter().flat_map(|chain| &chain.rules);
    all.into_iter().any(is_for_ssh)
}

/// `input` and `output` are the models of the packets to the router and from it.
pub fn of_router(rules: &Ruleset, input: &Model<'_>, output: &Model<'_>) -> Made<Option<Finding>> {
    let space = input.space;
    let Some(rule) = rule_for_ssh(rules, input)? else { return Ok(None) };
    let of = |state| space.is(Field::State, state_number(state));
    let tcp = space.is(Field::Proto, TCP.into())?;
    let to_ssh = input.destinations.before(space, &space.is(Field::Dport, SSH.into())?)?.and(&tcp)?;
    let opening = to_ssh.and(&of(CtState::New)?)?.and(&input.possible)?;
    let refused = input.fates.dropped.or(&input.fates.rejected)?.and(&opening)?;
    if !opening.meets(&input.fates.passed)? {
        return Ok(Some(finding(
            rule,
            "a rule accepts ssh to the router, and nobody can open it: every first packet is refused",
            lines_that_refuse(rules, input, &refused)?,
            Some(refused),
        )));
    }
    let from_ssh = space.is(Field::Sport, SSH.into())?.and(&tcp)?.and(&of(CtState::Established)?)?;
    if from_ssh.meets(&output.fates.passed)? {
        return Ok(None);
    }
    let refused = output.fates.dropped.or(&output.fates.rejected)?.and(&from_ssh)?;
    Ok(Some(finding(
        rule,
        "a rule accepts ssh to the router, and OUTPUT refuses every answer",
        lines_that_refuse(rules, output, &refused)?,
        None,
    )))
}

fn finding(rule: &Rule, message: &str, lines: Vec<u32>, shown_by: Option<Set>) -> Finding {
    let hint = match lines.as_slice() {
        [] => {
            "the policy refuses them: accept `--ctstate ESTABLISHED,RELATED`, and NEW to port 22".to_owned()
        }
        [one] => format!("line {one} refuses them, or what it leads to"),
        several => {
            let list: Vec<String> = several.iter().map(ToString::to_string).collect();
            format!("lines {} refuse them, or what they lead to", list.join(", "))
        }
    };
    Finding { code: "SW017", line: rule.line, message: message.to_owned(), hint, shown_by }
}

/// The first rule that accepts packets to the port of ssh by its number, in a chain that packets to the router come to.
fn rule_for_ssh<'a>(rules: &'a Ruleset, input: &Model<'_>) -> Made<Option<&'a Rule>> {
    let seen = seen(rules, input)?;
    for (place, chain) in rules.chains(Table::Filter).iter().enumerate() {
        // What nothing jumps to was never meant for anybody.
        if !seen.contains_key(&(Table::Filter, place as u16, 0)) {
            continue;
        }
        let found = chain.rules.iter().find(|rule| is_for_ssh(rule));
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn is_for_ssh(rule: &Rule) -> bool {
    let is_tcp = rule.target == Target::Accept
        && rule.matches.proto.is_some_and(|proto| proto.proto == TCP && !proto.negated);
    let has_ssh = |low: u16, high: u16| low <= SSH && SSH <= high;
    is_tcp
        && rule.matches.listed.iter().any(|m| match m {
            Match::Tcp(tcp) => {
                tcp.dport.is_some_and(|port| !port.negated && port.ports.0 == SSH && port.ports.1 == SSH)
            }
            Match::Multiport(list) => {
                let is_to = list.side == MultiportSide::Destination && !list.negated;
                is_to && list.ports.iter().any(|(ports, _)| has_ssh(ports.0, ports.1))
            }
            _ => false,
        })
}

/// The rules of the base chain that packets of this way end in.
fn lines_that_refuse(rules: &Ruleset, model: &Model<'_>, refused: &Set) -> Made<Vec<u32>> {
    let seen = seen(rules, model)?;
    let base = if model.way == Way::Input { "INPUT" } else { "OUTPUT" };
    let mut lines = Vec::new();
    for (place, chain) in rules.chains(Table::Filter).iter().enumerate().filter(|(_, c)| c.name == base) {
        for (index, rule) in chain.rules.iter().enumerate() {
            let ends =
                matches!(rule.target, Target::Drop | Target::Reject(_) | Target::Jump(_) | Target::Goto(_));
            let met = seen.get(&(Table::Filter, place as u16, index as u32)).filter(|_| ends);
            if let Some(met) = met
                && met.held.meets(refused)?
            {
                lines.push(rule.line);
            }
        }
    }
    Ok(lines)
}

fn seen(rules: &Ruleset, model: &Model<'_>) -> Made<crate::walk::Seen> {
    let mut walk = Walk::seeing(rules, model.space);
    walk.go(model.way, &model.possible, |all, _| Ok(all.clone()))?;
    Ok(walk.into_seen())
}

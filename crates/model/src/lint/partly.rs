//! Rules of which a part never holds: a value of a list whose packets a rule before has decided otherwise.
//!
//! Exceptions in front of a wider rule are how rules are written, so an overlap alone is no finding. A value that is written out
//! in a list, and of which nothing is left, is: what its author wrote there does not happen.

#![forbid(unsafe_code)]

use super::{Finding, states};
use crate::condition::STATES;
use crate::space::{Field, Made, Set, Space};
use crate::walk::{Met, Seen};
use stateway_core::filter::matches::{Match, MultiportSide, StateSet};
use stateway_core::filter::{Chain, Rule, Table, Target};

/// Values of lists in this chain that never hold.
pub(super) fn of_chain(space: &Space, id: u16, chain: &Chain, seen: &Seen) -> Made<Vec<Finding>> {
    let mut findings = Vec::new();
    for (index, rule) in chain.rules.iter().enumerate() {
        let Some(met) = seen.get(&(Table::Filter, id, index as u32)) else { continue };
        if met.held.is_empty() || !is_verdict(&rule.target) {
            continue;
        }
        for (word, packets) in listed(space, rule)? {
            if let Some(lines) = decided_otherwise(id, chain, index, seen, met, &packets)? {
                let does = if rule.target == Target::Accept { "refuses" } else { "accepts" };
                let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
                let plural = if lines.len() == 1 { "line" } else { "lines" };
                findings.push(Finding {
                    code: "SW005",
                    line: rule.line,
                    message: format!("{word} in the list of this rule of chain `{}` never holds", chain.name),
                    hint: format!("what is before {does} all of it: {plural} {}", lines.join(", ")),
                    shown_by: None,
                });
            }
        }
    }
    Ok(findings)
}

const fn is_verdict(target: &Target) -> bool {
    matches!(target, Target::Accept | Target::Drop | Target::Reject(_))
}

/// The values that a rule lists, each with all packets that have it.
fn listed(space: &Space, rule: &Rule) -> Made<Vec<(String, Set)>> {
    let mut all = Vec::new();
    for m in &rule.matches.listed {
        let Match::Multiport(list) = m else { continue };
        let field = match list.side {
            MultiportSide::Source => Field::Sport,
            MultiportSide::Destination => Field::Dport,
            MultiportSide::Either => continue,
        };
        if list.negated || list.ports.len() < 2 {
            continue;
        }
        for (ports, _) in &list.ports {
            let (low, high) = (ports.0, ports.1);
            let word = if low == high { format!("port {low}") } else { format!("ports {low}:{high}") };
            all.push((word, space.between(field, low.into(), high.into())?));
        }
    }
    if let Some((named, false)) = states(rule) {
        let bits =
            [StateSet::NEW, StateSet::ESTABLISHED, StateSet::RELATED, StateSet::INVALID, StateSet::UNTRACKED];
        let named: Vec<usize> = (0..bits.len()).filter(|at| named.contains(bits[*at])).collect();
        if named.len() > 1 {
            for at in named {
                all.push((format!("state {}", STATES[at].word()), space.is(Field::State, at as u128)?));
            }
        }
    }
    Ok(all)
}

/// The lines that decided all of these packets before, each by itself and otherwise than this rule; `None` if others did, or nobody.
fn decided_otherwise(
    id: u16,
    chain: &Chain,
    index: usize,
    seen: &Seen,
    met: &Met,
    packets: &Set,
) -> Made<Option<Vec<u32>>> {
    let wanted = met.wanted.and(packets)?;
    if wanted.is_empty() || met.held.meets(packets)? {
        return Ok(None);
    }
    let accepts = chain.rules[index].target == Target::Accept;
    let mut lines = Vec::new();
    for (before, rule) in chain.rules[..index].iter().enumerate() {
        let takes =
            !matches!(rule.target, Target::None) && (is_verdict(&rule.target) || leaves(&rule.target));
        let Some(other) = seen.get(&(Table::Filter, id, before as u32)).filter(|_| takes) else { continue };
        if !other.held.meets(&wanted)? {
            continue;
        }
        if !is_verdict(&rule.target) || (rule.target == Target::Accept) == accepts {
            return Ok(None);
        }
        lines.push(rule.line);
    }
    Ok((!lines.is_empty()).then_some(lines))
}

/// Whether packets may not come back behind the rule.
const fn leaves(target: &Target) -> bool {
    matches!(target, Target::Return | Target::Goto(_) | Target::Jump(_))
}

//! What the rules counted, under the names that verdicts call them by.

use super::protocol::RuleCount;
use stateway_core::filter::{RuleId, Ruleset};
use stateway_core::router::Rules;

/// Every rule of both families in the order of its chain, and then the chain's policy.
pub(super) fn count(rules: &Rules) -> Vec<RuleCount> {
    rules.all().flat_map(count_family).collect()
}

fn count_family(ruleset: &Ruleset) -> Vec<RuleCount> {
    let mut counts = Vec::new();
    for &table in ruleset.tables() {
        for (number, chain) in ruleset.chains(table).iter().enumerate() {
            let id = |index: usize| RuleId {
                family: ruleset.family,
                table,
                chain: number as u16,
                index: index as u32,
            };
            let mut push = |index: usize, name: String, text: String| {
                let count = ruleset.count(id(index));
                let (packets, bytes) = (count.packets, count.bytes);
                counts.push(RuleCount { family: ruleset.family as u8, name, text, packets, bytes });
            };
            for (index, rule) in chain.rules.iter().enumerate() {
                let text = format!("-A {}{}", chain.name, ruleset.rule_text(table, rule));
                push(index, ruleset.rule_name(id(index)), text);
            }
            if let Some(policy) = chain.policy {
                let behind = chain.rules.len();
                push(behind, ruleset.rule_name(id(behind)), policy.word().to_owned());
            }
        }
    }
    counts
}

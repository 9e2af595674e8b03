//! What the rules counted, under the names that verdicts call them by.

use super::protocol::{ChainName, RuleCount};
use stateway_core::filter::{Count, RuleId, Ruleset, Table};
use stateway_core::router::Rules;

/// Every rule of both families in the order of its chain, and then the chain's policy.
pub(super) fn count(rules: &Rules) -> Vec<RuleCount> {
    rules.all().flat_map(count_family).collect()
}

/// Every chain, in the same order.
pub(super) fn chains(rules: &Rules) -> Vec<ChainName> {
    placed(rules).map(|(_, _, _, name)| name).collect()
}

/// Has the chains that are meant count from nothing again.
pub(super) fn zero(rules: &Rules, is_meant: impl Fn(&ChainName) -> bool) {
    for (ruleset, table, number, _) in placed(rules).filter(|(.., name)| is_meant(name)) {
        ruleset.zero_counts(table, number);
    }
}

/// Every chain, where it stands, and its name.
fn placed(rules: &Rules) -> impl Iterator<Item = (&Ruleset, Table, u16, ChainName)> {
    let tables = rules.all().flat_map(|ruleset| ruleset.tables().iter().map(move |table| (ruleset, *table)));
    tables.flat_map(|(ruleset, table)| {
        ruleset.chains(table).iter().enumerate().map(move |(number, chain)| {
            let family = ruleset.family as u8;
            let name = ChainName { family, table: table.word().to_owned(), name: chain.name.clone() };
            (ruleset, table, number as u16, name)
        })
    })
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
            let places = chain.rules.len() + usize::from(chain.policy.is_some());
            counts.extend((0..places).map(|index| {
                let Count { packets, bytes } = ruleset.count(id(index));
                let (name, text) = in_words(ruleset, id(index));
                RuleCount { family: ruleset.family as u8, name, text, packets, bytes }
            }));
        }
    }
    counts
}

/// What verdicts call a rule, and its text; of the place behind the last one, those of the policy.
pub(super) fn in_words(ruleset: &Ruleset, id: RuleId) -> (String, String) {
    let text = match (ruleset.rule(id), ruleset.chains(id.table).get(usize::from(id.chain))) {
        (Some(rule), Some(chain)) => format!("-A {}{}", chain.name, ruleset.rule_text(id.table, rule)),
        (_, chain) => chain.and_then(|chain| chain.policy).map_or("", |policy| policy.word()).to_owned(),
    };
    (ruleset.rule_name(id), text)
}

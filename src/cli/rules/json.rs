//! Rulesets and findings as JSON.

use serde_json::{Value, json};
use stateway_core::filter::{RuleError, RuleId, Ruleset, Table};

pub(super) fn finding(e: &RuleError, severity: &str) -> Value {
    let mut value = json!({ "severity": severity, "line": e.line, "column": e.column, "message": e.message });
    if let Some(hint) = &e.hint {
        value["hint"] = json!(hint);
    }
    value
}

pub(super) fn ruleset(rules: &Ruleset) -> Value {
    let tables: Vec<Value> = rules.tables().iter().map(|t| table(rules, *t)).collect();
    json!({ "family": if rules.family.bits() == 32 { "ipv4" } else { "ipv6" }, "tables": tables })
}

fn table(rules: &Ruleset, table: Table) -> Value {
    let chains = rules.chains(table).iter().enumerate().map(|(place, chain)| {
        let id =
            |index: usize| RuleId { family: rules.family, table, chain: place as u16, index: index as u32 };
        let list: Vec<Value> = chain
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                let count = rules.count(id(index));
                json!({
                    "name": rules.rule_name(id(index)),
                    "line": rule.line,
                    "rule": format!("-A {}{}", chain.name, rules.rule_text(table, rule)),
                    "matches": rule.matches.words(),
                    "packets": count.packets,
                    "bytes": count.bytes,
                })
            })
            .collect();
        let mut value = json!({ "name": chain.name });
        if let Some(policy) = chain.policy {
            let count = rules.count(id(chain.rules.len()));
            value["policy"] = json!(policy.word());
            value["packets"] = json!(count.packets);
            value["bytes"] = json!(count.bytes);
        }
        value["rules"] = json!(list);
        value
    });
    json!({ "name": table.word(), "chains": chains.collect::<Vec<_>>() })
}

//! Rulesets by chance: three tables, their base chains, and user chains that lead to one another.

#![forbid(unsafe_code)]

use super::matches::{Draw, Place};
use super::text::{Line, TableText, Tables};
use super::universe::{chance, pick};
use super::{sets, targets};
use fastrand::Rng;
use stateway_core::filter::{Hook, Table};
use stateway_core::packet::Family;

const USER_NAMES: [&str; 8] = ["in-wan", "B", "a", "ufw-before", "KUBE-SVC", "z_9", "limit", "DOCKER"];

/// All rules of one family.
pub(super) fn draw(rng: &mut Rng, family: Family, is_slow: bool) -> Tables {
    let (sets, names) = sets::sets(rng, family);
    let tables = [Table::Raw, Table::Mangle, Table::Filter];
    let tables = tables.map(|table| draw_table(rng, family, table, &Scope { sets: &names, is_slow })).into();
    Tables { sets, tables }
}

/// What all rules may speak of.
struct Scope<'a> {
    sets: &'a [(String, usize)],
    is_slow: bool,
}

/// A chain that rules may be put into.
struct ChainPlan {
    name: String,
    place: Place,
    callees: Vec<String>,
    rules: usize,
}

fn draw_table(rng: &mut Rng, family: Family, table: Table, scope: &Scope<'_>) -> TableText {
    let mut chains = Vec::new();
    let mut plans = Vec::new();
    for hook in table.hooks() {
        // Most of it is forwarded, and more must come through than not.
        let drops = chance(rng, if *hook == Hook::Forward { 20 } else { 3 });
        chains.push((hook.word().to_owned(), Some(if drops { "DROP" } else { "ACCEPT" }.to_owned())));
        let rules = match (table, hook) {
            (Table::Filter, Hook::Forward) => rng.usize(4..26),
            (_, Hook::Prerouting | Hook::Forward | Hook::Postrouting) => rng.usize(0..7),
            _ => rng.usize(0..4),
        };
        let place = targets::place(family, table, vec![*hook], true);
        plans.push(ChainPlan { name: hook.word().to_owned(), place, callees: Vec::new(), rules });
    }
    user_chains(rng, family, table, &mut plans);
    chains.extend(plans.iter().filter(|p| !p.place.is_base).map(|p| (p.name.clone(), None)));
    let mut rules: Vec<Line> = Vec::new();
    for plan in &plans {
        for _ in 0..plan.rules {
            rules.push(rule(rng, plan, scope));
        }
    }
    TableText { name: table.word().to_owned(), chains, rules }
}

/// Adds user chains, and says which chain may lead to which: never back.
fn user_chains(rng: &mut Rng, family: Family, table: Table, plans: &mut Vec<ChainPlan>) {
    let mut names = USER_NAMES;
    rng.shuffle(&mut names);
    let bases = plans.len();
    // In the order in which the tools hand them to the kernel: what rules share is as the first of them says.
    let chosen = &mut names[..rng.usize(0..6)];
    chosen.sort_unstable();
    for name in &*chosen {
        let all = table.hooks();
        let hooks = if chance(rng, 70) { vec![*pick(rng, all)] } else { all.to_vec() };
        let place = targets::place(family, table, hooks, false);
        let rules = rng.usize(0..6);
        for (at, caller) in plans.iter_mut().enumerate() {
            let fits = caller.place.hooks.iter().all(|hook| place.hooks.contains(hook));
            // A base chain leads to most of them, user chains to those that come behind them.
            if fits && (at < bases || chance(rng, 60)) {
                caller.callees.push((*name).to_owned());
            }
        }
        plans.push(ChainPlan { name: (*name).to_owned(), place, callees: Vec::new(), rules });
    }
}

fn rule(rng: &mut Rng, plan: &ChainPlan, scope: &Scope<'_>) -> Line {
    let Scope { sets, is_slow } = *scope;
    let mut draw = Draw { rng, place: &plan.place, sets, is_slow, proto: None, parts: Vec::new() };
    draw.conditions();
    let target = targets::target(&mut draw, &plan.callees);
    let mut parts = draw.parts;
    // `-p` stands in front of what it brings along.
    parts.sort_by_key(|part| part.starts_with("-m "));
    // A rule that takes everything leaves nothing to those behind it.
    let ends =
        target.starts_with("-j ACCEPT") || target.starts_with("-j DROP") || target.starts_with("-j REJECT");
    if parts.is_empty() && ends {
        parts.push("-m statistic --mode nth --every 3 --packet 0".to_owned());
    }
    Line { chain: plan.name.clone(), parts, target }
}

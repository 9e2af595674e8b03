//! Which matches, targets and options took part, and how often rules with them held.

#![forbid(unsafe_code)]

use super::bench::{Case, Outcome};
use super::text::Line;
use serde::Serialize;
use stateway_core::filter::{matches, targets};
use std::collections::BTreeMap;

/// How much one thing was used.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Use {
    pub rules: u64,
    /// Rules with it that held at least once, and at least once did not.
    pub held: u64,
    /// Packets for which such a rule held.
    pub packets: u64,
}

/// Counts by what is written in the rules: `-m tcp ! --dport`, `-j REJECT --reject-with tcp-reset`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Coverage {
    pub rulesets: u64,
    pub frames: u64,
    pub rules: u64,
    pub uses: BTreeMap<String, Use>,
    pub fates: BTreeMap<&'static str, u64>,
    pub states: BTreeMap<&'static str, u64>,
    pub kinds: BTreeMap<&'static str, u64>,
}

/// What rules are not made of, and why.
const LEFT_OUT: [(&str, &str); 5] = [
    ("-m statistic --probability", "random"),
    ("-m statistic ! --probability", "random"),
    ("-m time --kerneltz", "refused: the router has no time zone"),
    ("-m time --localtz", "refused: the router has no time zone"),
    ("-j NFLOG --nflog-range", "without effect in the kernel too"),
];

impl Coverage {
    pub(super) fn saw(&mut self, case: &Case, outcome: &Outcome) {
        self.rulesets += 1;
        self.frames += case.frames.len() as u64;
        for frame in &case.frames {
            *self.kinds.entry(frame.kind).or_default() += 1;
        }
        for (name, n) in &outcome.fates {
            *self.fates.entry(name).or_default() += n;
        }
        for (name, n) in &outcome.states {
            *self.states.entry(name).or_default() += n;
        }
        for (tables, saved) in case.rules.iter().zip(&outcome.saved) {
            let held = packets_by_rule(saved);
            let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
            for table in &tables.tables {
                for rule in &table.rules {
                    let place = places.entry((table.name.as_str(), &rule.chain)).or_default();
                    let packets = held.get(&(table.name.as_str(), &rule.chain, *place)).copied().unwrap_or(0);
                    *place += 1;
                    self.saw_rule(rule, packets);
                }
            }
        }
    }

    fn saw_rule(&mut self, rule: &Line, packets: u64) {
        self.rules += 1;
        for part in rule.parts.iter().chain([&rule.target]) {
            for name in names(part) {
                let seen = self.uses.entry(name).or_default();
                seen.rules += 1;
                seen.held += u64::from(packets > 0);
                seen.packets += packets;
            }
        }
    }

    /// Options that are honoured and took no part; and those that did, but whose rules never held.
    pub fn missing(&self) -> [Vec<String>; 2] {
        let mut missing = [Vec::new(), Vec::new()];
        for name in honoured() {
            if LEFT_OUT.iter().any(|(left_out, _)| *left_out == name) {
                continue;
            }
            match self.uses.get(&name) {
                None => missing[0].push(name),
                Some(seen) if seen.held == 0 => missing[1].push(name),
                Some(_) => {}
            }
        }
        missing
    }
}

/// Everything that is honoured, from the tables of the filter itself.
fn honoured() -> Vec<String> {
    let mut names = Vec::new();
    for spec in matches::SPECS {
        for opt in spec.options {
            names.push(format!("-m {} --{}", spec.name, opt.name));
            if opt.negatable {
                names.push(format!("-m {} ! --{}", spec.name, opt.name));
            }
        }
    }
    for spec in targets::SPECS {
        names.push(format!("-j {}", spec.name));
        names.extend(spec.options.iter().map(|opt| format!("-j {} --{}", spec.name, opt.name)));
    }
    for flag in ["-s", "-d", "-i", "-o", "-p"] {
        names.extend([flag.to_owned(), format!("! {flag}")]);
    }
    names
}

/// What one condition or target is made of.
fn names(part: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut module = "";
    let mut words = part.split(' ').peekable();
    let mut not = "";
    while let Some(word) = words.next() {
        match word {
            "!" => {
                not = "! ";
                continue;
            }
            "-m" => module = words.next().unwrap_or_default(),
            "-j" => found.push(format!("-j {}", words.peek().copied().unwrap_or_default())),
            "-g" => found.push("-g".to_owned()),
            "-s" | "-d" | "-i" | "-o" | "-p" | "-f" => found.push(format!("{not}{word}")),
            _ if word.starts_with("--") && module.is_empty() => {
                let target = part.split(' ').nth(1).unwrap_or_default();
                found.push(format!("-j {target} {word}"));
            }
            _ if word.starts_with("--") => found.push(format!("-m {module} {not}{word}")),
            _ => {}
        }
        not = "";
    }
    found
}

/// Packets by table, chain and place, from `iptables-save -c`.
fn packets_by_rule(saved: &str) -> BTreeMap<(&str, &str, usize), u64> {
    let mut packets = BTreeMap::new();
    let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut table = "";
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        let Some((count, rule)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] -A ")) else {
            continue;
        };
        let chain = rule.split(' ').next().unwrap_or_default();
        let n = count.split(':').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let place = places.entry((table, chain)).or_default();
        packets.insert((table, chain, *place), n);
        *place += 1;
    }
    packets
}

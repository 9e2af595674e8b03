//! The rules as the kernel has them, read back with `iptables-legacy-save -c`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

/// Chains of both families with what their rules do, and the packets that each rule has met.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    v4: Chains,
    v6: Chains,
    /// Rules at the head of raw PREROUTING that assign helpers, and that no lab file names.
    helpers: usize,
}

/// By table and chain (`filter/FORWARD`).
type Chains = BTreeMap<String, Chain>;

#[derive(Debug, Default)]
struct Chain {
    /// Packets that met it, and what it does; own chains have none.
    policy: Option<(u64, String)>,
    /// Packets and target of each rule.
    rules: Vec<(u64, String)>,
}

impl Loaded {
    /// Reads what both programs print.
    pub(super) fn parse(v4: &str, v6: &str, helpers: usize) -> Self {
        Self { v4: chains(v4), v6: chains(v6), helpers }
    }

    /// The name of what a packet met at a place of the trace: `filter/FORWARD/2`, `filter/FORWARD/policy`. The end of
    /// a chain of one's own decides nothing.
    pub(super) fn name(&self, ip: &[u8], (table, chain, number): (&str, &str, usize)) -> Option<String> {
        let chains = if ip.first()? >> 4 == 6 { &self.v6 } else { &self.v4 };
        let found = chains.get(&format!("{table}/{chain}"))?;
        if number > found.rules.len() {
            return found.policy.as_ref().map(|_| format!("{table}/{chain}/policy"));
        }
        let helpers = if (table, chain) == ("raw", "PREROUTING") { self.helpers } else { 0 };
        number.checked_sub(helpers).filter(|own| *own > 0).map(|own| format!("{table}/{chain}/{own}"))
    }

    /// Whether the rule of this name ends a packet.
    pub(super) fn stops(&self, name: &str) -> bool {
        self.does(name, &["DROP", "REJECT"])
    }

    /// Whether the rule of this name answers with an error.
    pub(super) fn rejects(&self, name: &str) -> bool {
        self.does(name, &["REJECT"])
    }

    fn does(&self, name: &str, targets: &[&str]) -> bool {
        let Some((chain, number)) = name.rsplit_once('/') else { return false };
        let target = |chains: &Chains| {
            let chain = chains.get(chain)?;
            let (_, target) = match number.parse::<usize>() {
                Ok(number) => chain.rules.get(number.checked_sub(1)?)?,
                Err(_) => chain.policy.as_ref()?,
            };
            Some(target.clone())
        };
        [&self.v4, &self.v6].into_iter().filter_map(target).any(|target| targets.contains(&target.as_str()))
    }

    /// Packets by name, of both families together.
    pub(super) fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = BTreeMap::new();
        for (name, chain) in self.v4.iter().chain(&self.v6) {
            let helpers = if name == "raw/PREROUTING" { self.helpers } else { 0 };
            let rules = chain.rules.iter().skip(helpers).zip(1..);
            for ((packets, _), number) in rules {
                *counters.entry(format!("{name}/{number}")).or_default() += packets;
            }
            if let Some((packets, _)) = &chain.policy {
                *counters.entry(format!("{name}/policy")).or_default() += packets;
            }
        }
        counters
    }
}

fn chains(text: &str) -> Chains {
    let mut chains = Chains::new();
    let mut table = "";
    let count = |field: &str| {
        field.trim_start_matches('[').split(':').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name] if name.starts_with('*') => table = &name[1..],
            [chain, policy, field] if chain.starts_with(':') => {
                let chain = chains.entry(format!("{table}/{}", &chain[1..])).or_default();
                chain.policy = (*policy != "-").then(|| (count(field), (*policy).to_owned()));
            }
            [field, "-A", chain, rest @ ..] => {
                let at = rest.iter().position(|word| matches!(*word, "-j" | "-g"));
                let target = at.and_then(|at| rest.get(at + 1)).copied().unwrap_or_default();
                let chain = chains.entry(format!("{table}/{chain}")).or_default();
                chain.rules.push((count(field), target.to_owned()));
            }
            _ => {}
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVE: &str = "*raw\n:PREROUTING ACCEPT [9:9]\n[1:60] -A PREROUTING -p tcp -j CT --helper ftp\n\
                        [4:60] -A PREROUTING -s 192.0.2.1/32 -j CT --notrack\nCOMMIT\n\
                        *filter\n:FORWARD DROP [3:180]\n:own - [0:0]\n\
                        [10:600] -A FORWARD -m state --state NEW -j own\n[2:80] -A own -j REJECT\nCOMMIT\n";

    #[test]
    fn counters_are_read_by_rule_and_policy() {
        let counters = Loaded::parse(SAVE, SAVE, 1).counters();
        let told: Vec<_> = counters.iter().map(|(name, packets)| format!("{name} {packets}")).collect();
        let want = [
            "filter/FORWARD/1 20",
            "filter/FORWARD/policy 6",
            "filter/own/1 4",
            "raw/PREROUTING/1 8",
            "raw/PREROUTING/policy 18",
        ];
        assert_eq!(told, want);
    }

    #[test]
    fn a_place_in_a_chain_has_a_name() {
        let loaded = Loaded::parse(SAVE, "", 1);
        for (place, name) in [
            (("filter", "FORWARD", 1), Some("filter/FORWARD/1")),
            (("filter", "FORWARD", 2), Some("filter/FORWARD/policy")),
            (("filter", "own", 1), Some("filter/own/1")),
            (("filter", "own", 2), None),
            (("raw", "PREROUTING", 1), None),
            (("raw", "PREROUTING", 2), Some("raw/PREROUTING/1")),
        ] {
            assert_eq!(loaded.name(&[0x45], place).as_deref(), name, "{place:?}");
        }
        assert!(loaded.rejects("filter/own/1") && !loaded.stops("filter/FORWARD/1"));
        assert!(loaded.stops("filter/FORWARD/policy") && !loaded.stops("raw/PREROUTING/policy"));
    }
}

//! `stateway explain --why-not`: the nearest packet that would pass, and the nearest rules under which this one would.
//!
//! What is near is looked for in the model of the ruleset and among small changes of its text; what is said has been run, each
//! in a router of its own.

mod ends;
mod near;

use super::Args;
use crate::cli::Result;
use crate::cli::rules_text::in_front_of_tables;
use ends::Ends;
use near::Near;
use serde::Serialize;
use stateway_core::config::RouterConfig;
use stateway_core::filter::{Ruleset, Table, Target};
use stateway_core::packet::Family;
use stateway_core::router::Router;
use stateway_trace::capture::Source;
use stateway_trace::coverage::{Mutant, Mutants};
use stateway_trace::explain::{Account, Step};

/// So many changed rulesets are tried.
const MOST_TRIALS: usize = 300;

/// What would have to be different.
#[derive(Debug, Default, Serialize)]
pub(super) struct WhyNot {
    /// Nothing is to be found: it passes, or no rule refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    none: Option<String>,
    /// The nearest packet that passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<Change>,
    /// The nearest change of a rule with which it passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Change>,
    /// A rule more, for packets such as this.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<Change>,
}

/// A change that was tried.
#[derive(Debug, Serialize)]
struct Change {
    #[serde(rename = "change")]
    what: String,
    fate: &'static str,
    #[serde(rename = "by", skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// A packet that did not pass, and what it is tried in.
pub(super) struct Case<'a> {
    pub(super) args: &'a Args,
    pub(super) config: &'a RouterConfig,
    pub(super) capture: Option<&'a Source>,
    /// An IP packet, with or without its frame.
    pub(super) packet: &'a [u8],
    pub(super) account: &'a Account,
}

const PASSED: [&str; 2] = ["forwarded", "delivered"];

impl Case<'_> {
    pub(super) fn look(&self) -> Result<WhyNot> {
        let nothing = |none: String| Ok(WhyNot { none: Some(none), ..WhyNot::default() });
        if PASSED.contains(&self.account.fate) {
            return nothing("it passes".to_owned());
        }
        let decided = self.account.rule.as_ref().and_then(|_| self.decided());
        let Some(decided) = decided else {
            let why = self.account.why.unwrap_or("the router could not carry it further");
            return nothing(format!("no rule refuses it: {why}"));
        };
        let Some(ends) = Ends::of(self.packet) else {
            return nothing("it is no whole packet of TCP, UDP or ICMP".to_owned());
        };
        let names: Vec<String> = self.config.ifaces.iter().map(|iface| iface.name.clone()).collect();
        let text = if ends.family == Family::Ipv4 { &self.config.rules } else { &self.config.rules6 };
        let loaded = text.as_deref().and_then(|text| Ruleset::load(text, ends.family, &names).ok());
        let (Some(text), Some(loaded)) = (text.as_deref(), loaded) else {
            return nothing("there are no rules for its family".to_owned());
        };
        let rules = &loaded.ruleset;
        Ok(WhyNot {
            none: None,
            packet: self.nearest_packet(rules, &ends)?,
            rule: self.nearest_rule(text, rules)?,
            more: self.one_rule_more(text, rules, decided, &ends)?,
        })
    }

    /// The rule or policy that was asked last.
    fn decided(&self) -> Option<&str> {
        self.account.steps.iter().rev().find_map(|step| match step {
            Step::Rule { rule, matched: true, .. } | Step::Policy { rule, .. } => Some(rule.as_str()),
            _ => None,
        })
    }

    /// What becomes of a packet under rules; `None` if they do not load.
    fn try_out(&self, rules: Option<&str>, port: &str, packet: &[u8]) -> Result<Option<Account>> {
        let mut config = self.config.clone();
        if let Some(rules) = rules {
            let is_six = self.packet_family() == Family::Ipv6;
            *(if is_six { &mut config.rules6 } else { &mut config.rules }) = Some(rules.to_owned());
        }
        let mode = config.mode;
        let Ok(router) = Router::new(config) else { return Ok(None) };
        self.args.of_packet_at(port, self.capture, &router, mode, packet).map(Some)
    }

    fn packet_family(&self) -> Family {
        Ends::of(self.packet).map_or(Family::Ipv4, |ends| ends.family)
    }

    fn passes(&self, rules: Option<&str>, port: &str, packet: &[u8], change: &str) -> Result<Option<Change>> {
        let account = self.try_out(rules, port, packet)?;
        Ok(account.filter(|account| PASSED.contains(&account.fate)).map(|account| Change {
            what: change.to_owned(),
            fate: account.fate,
            rule: account.rule,
        }))
    }

    // ── another packet ───────────────────────────────────────────────────────────────────────────────────────────

    fn nearest_packet(&self, rules: &Ruleset, ends: &Ends) -> Result<Option<Change>> {
        let found = Near::new(self, rules, ends).and_then(|near| near.candidates(rules));
        // A ruleset that is too large for the model has no nearest packet that is known.
        let Ok(candidates) = found else { return Ok(None) };
        for (port, ends, change) in candidates {
            let Ok(packet) = ends.packet() else { continue };
            if let Some(change) = self.passes(None, &port, &packet, &change)? {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }

    // ── other rules ──────────────────────────────────────────────────────────────────────────────────────────────

    /// The nearest change among rules that looked at the packet, and what decided.
    fn nearest_rule(&self, text: &str, rules: &Ruleset) -> Result<Option<Change>> {
        let asked: Vec<&str> = self
            .account
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Rule { rule, .. } | Step::Policy { rule, .. } => Some(rule.as_str()),
                _ => None,
            })
            .collect();
        let mut mutants: Vec<Mutant> =
            Mutants::of(rules).iter().filter(|mutant| asked.contains(&mutant.name.as_str())).collect();
        mutants.sort_by_key(|mutant| distance(mutant, rules));
        let sets = in_front_of_tables(text);
        for mutant in mutants.into_iter().take(MOST_TRIALS) {
            let rules = format!("{sets}{}", mutant.text);
            let change = format!("{} {}", mutant.name, mutant.change);
            if let Some(change) = self.passes(Some(&rules), self.port(), self.packet, &change)? {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }

    /// The narrowest rule in front of what decided.
    fn one_rule_more(
        &self,
        text: &str,
        rules: &Ruleset,
        decided: &str,
        ends: &Ends,
    ) -> Result<Option<Change>> {
        let mut parts = decided.split('/');
        let (Some(table), Some(chain), Some(place)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(None);
        };
        let seen = self.as_rules_see(ends);
        let mut rule = String::new();
        if !matches!(chain, "OUTPUT" | "POSTROUTING") {
            rule.push_str(&format!(" -i {}", self.port()));
        }
        rule.push_str(&seen.as_conditions());
        let state = self.account.steps.iter().find_map(|step| match step {
            Step::Conntrack { ctstate, .. } => Some(*ctstate),
            _ => None,
        });
        if let Some(state) = state.filter(|_| table != "raw") {
            rule.push_str(&format!(" -m conntrack --ctstate {state}"));
        }
        rule.push_str(" -j ACCEPT");
        let rendered = rules.render(false);
        let Some((inserted, number)) = inserted(&rendered, table, chain, place.parse().ok(), &rule) else {
            return Ok(None);
        };
        let table = if table == "filter" { String::new() } else { format!("-t {table} ") };
        let change = format!("iptables {table}-I {chain} {number}{rule}");
        let change =
            if seen.family == Family::Ipv6 { change.replacen("iptables", "ip6tables", 1) } else { change };
        let rules = format!("{}{inserted}", in_front_of_tables(text));
        self.passes(Some(&rules), self.port(), self.packet, &change)
    }

    fn port(&self) -> &str {
        &self.account.in_port
    }

    /// The packet's ends where it was refused: with the destination that the table `nat` gave it.
    fn as_rules_see(&self, ends: &Ends) -> Ends {
        let mut seen = *ends;
        for step in &self.account.steps {
            let Step::Translated { side: "destination", to, .. } = step else { continue };
            if let Ok(to) = to.parse::<std::net::SocketAddr>() {
                (seen.dst, seen.ports.1) = (to.ip(), to.port());
            } else if let Ok(to) = to.parse() {
                seen.dst = to;
            }
        }
        seen
    }
}

/// How near a change is: a condition less on a rule that accepts is nearest, best of one that has many; another policy is furthest.
fn distance(mutant: &Mutant, rules: &Ruleset) -> (u8, usize) {
    let is_it = |table: Table, chain: &str, index: usize| {
        mutant.name == format!("{}/{chain}/{}", table.word(), index + 1)
    };
    let changed = Table::ALL.into_iter().find_map(|table| {
        rules.chains(table).iter().find_map(|chain| {
            let mut of_chain = chain.rules.iter().enumerate();
            of_chain.find(|(index, _)| is_it(table, &chain.name, *index)).map(|(_, rule)| rule)
        })
    });
    let accepts = changed.is_some_and(|rule| rule.target == Target::Accept);
    let words = changed.map_or(0, |rule| rule.matches.words().len());
    let kind = match mutant.change.split(' ').next() {
        Some("without" | "state") if accepts => 0,
        Some("without" | "state") => 1,
        Some("removed") => 2,
        Some("swapped") => 3,
        Some("target") => 4,
        _ => 5,
    };
    (kind, usize::MAX - words)
}

/// The ruleset with a rule in front of the one at `place`, or behind all of the chain's; and its number.
fn inserted(
    rules: &str,
    table: &str,
    chain: &str,
    place: Option<usize>,
    rule: &str,
) -> Option<(String, usize)> {
    let mut text = String::new();
    let (mut is_inside, mut number, mut done) = (false, 0, None);
    for line in rules.lines() {
        if let Some(name) = line.strip_prefix('*') {
            is_inside = name == table;
            number = 0;
        }
        let is_of_chain =
            is_inside && line.strip_prefix("-A ").is_some_and(|l| l.split(' ').next() == Some(chain));
        number += usize::from(is_of_chain);
        let is_here = is_inside
            && done.is_none()
            && match place {
                Some(place) => is_of_chain && number == place,
                None => line == "COMMIT",
            };
        if is_here {
            text.push_str(&format!("-A {chain}{rule}\n"));
            done = Some(place.unwrap_or(number + 1));
        }
        text.push_str(line);
        text.push('\n');
    }
    done.map(|number| (text, number))
}

// ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────

impl WhyNot {
    pub(super) fn text(&self) -> String {
        if let Some(none) = &self.none {
            return format!("why not: {none}");
        }
        let mut text = "it would pass".to_owned();
        let all = [
            ("as another packet", &self.packet),
            ("with a rule changed", &self.rule),
            ("with a rule more", &self.more),
        ];
        for (how, change) in all {
            match change {
                Some(Change { what, fate, rule }) => {
                    let by = rule.as_ref().map_or_else(String::new, |rule| format!(" by {rule}"));
                    text.push_str(&format!("\n  {how}: {what}\n    tried: {fate}{by}"));
                }
                None => text.push_str(&format!("\n  {how}: none was found")),
            }
        }
        text
    }
}

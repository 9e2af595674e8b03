//! What a run says of a ruleset: which of its rules held, and which changes to it nobody would notice.

#![forbid(unsafe_code)]

use crate::capture::{CaptureError, Frame, Source};
use crate::replay::{Emitted, FrameVerdict, Replay, UnknownPort};
use core::ops::ControlFlow;
use stateway_core::filter::targets::Dnat;
use stateway_core::filter::{Count, Rule, RuleId, Ruleset, Table, Target};
use stateway_core::nat::{self, Range};
use stateway_core::router::Router;

/// A rule or a policy, and how often it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// `filter/FORWARD/1`, `filter/FORWARD/policy`.
    pub name: String,
    /// The rule as iptables-save prints it.
    pub text: String,
    /// From 1; `None` for a policy.
    pub line: Option<u32>,
    pub count: Count,
}

/// Every rule and every policy, in the order in which they are printed.
pub fn coverage(rules: &Ruleset) -> Vec<Covered> {
    let mut all = Vec::new();
    for table in rules.tables() {
        for (place, chain) in rules.chains(*table).iter().enumerate() {
            let id = |index: usize| RuleId {
                family: rules.family,
                table: *table,
                chain: place as u16,
                index: index as u32,
            };
            let covered = |index: usize, text: String, line| Covered {
                name: rules.rule_name(id(index)),
                text,
                line,
                count: rules.count(id(index)),
            };
            for (index, rule) in chain.rules.iter().enumerate() {
                let text = format!("-A {}{}", chain.name, rules.rule_text(*table, rule));
                all.push(covered(index, text, Some(rule.line)));
            }
            if let Some(policy) = chain.policy {
                all.push(covered(chain.rules.len(), format!("-P {} {}", chain.name, policy.word()), None));
            }
        }
    }
    all
}

/// Why a run could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Port(#[from] UnknownPort),
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// A capture through several routers at the same time, frame by frame, until `each` has seen enough: it is given every
/// frame, and what became of it in each router; nothing of a frame that cannot be judged.
///
/// # Errors
/// A port of the capture is not a router's, or the file is damaged; what came before was seen by `each`.
pub fn run(
    source: &Source,
    routers: &[&Router],
    mut each: impl FnMut(&Frame, &[FrameVerdict]) -> ControlFlow<()>,
) -> Result<(), RunError> {
    let mut capture = source.open()?;
    let replays = routers.iter().map(|router| Replay::new(capture.ports(), router, false));
    let mut replays: Vec<Replay> = replays.collect::<Result<_, _>>()?;
    let mut frame = Frame::default();
    let mut verdicts = Vec::with_capacity(routers.len());
    while capture.read(&mut frame)? {
        verdicts.clear();
        if frame.unjudged.is_none() {
            for replay in &mut replays {
                replay.pass_time(&frame);
                verdicts.push(replay.step(&frame));
            }
        }
        if each(&frame, &verdicts).is_break() {
            break;
        }
    }
    Ok(())
}

/// What a run did with a frame, whichever rule decided: fate, ports, frames that left.
pub fn what_became<'v>(verdict: &'v FrameVerdict<'_>) -> (&'static str, &'v [&'v str], &'v [Emitted]) {
    (verdict.fate, &verdict.out, &verdict.emitted)
}

/// A ruleset with one change that a run should notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The rule that is changed.
    pub name: String,
    pub change: String,
    /// The whole ruleset with the change.
    pub text: String,
}

/// One line of a ruleset, and the ways in which it can be changed.
#[derive(Debug)]
struct Line {
    table: Table,
    name: String,
    text: String,
    /// What it becomes, and how that reads; `None`: it goes.
    changes: Vec<(Option<String>, String)>,
    is_rule: bool,
}

/// The small changes to a ruleset, one at a time.
#[derive(Debug)]
pub struct Mutants {
    lines: Vec<Line>,
}

impl Mutants {
    pub fn of(rules: &Ruleset) -> Self {
        Self { lines: lines(rules) }
    }

    /// Every small change that is worth a test: a rule gone, two neighbours swapped, a condition dropped, a state
    /// added or left out, ACCEPT for DROP and the reverse, the other policy. Not all of them load.
    ///
    /// Each holds the whole text, so they are made as they are asked for.
    pub fn iter(&self) -> impl Iterator<Item = Mutant> {
        self.lines.iter().enumerate().flat_map(move |(place, line)| {
            let changed = line.changes.iter().map(move |(becomes, change)| {
                let text = self.render(|n, text| if n == place { becomes.as_deref() } else { Some(text) });
                Mutant { name: line.name.clone(), change: change.clone(), text }
            });
            changed.chain(self.swapped(place))
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        let swaps = (0..self.lines.len()).filter(|place| self.next_of_chain(*place).is_some()).count();
        swaps + self.lines.iter().map(|line| line.changes.len()).sum::<usize>()
    }

    /// The rule behind this one, if it is of the same chain and another one.
    fn next_of_chain(&self, place: usize) -> Option<&Line> {
        let line = &self.lines[place];
        let next = self.lines.get(place + 1)?;
        let is_neighbour = next.is_rule && line.is_rule && next.table == line.table;
        (is_neighbour && chain_of(&next.text) == chain_of(&line.text) && next.text != line.text)
            .then_some(next)
    }

    fn swapped(&self, place: usize) -> Option<Mutant> {
        let (line, next) = (&self.lines[place], self.next_of_chain(place)?);
        let text = self.render(|n, text| match n {
            n if n == place => Some(&next.text),
            n if n == place + 1 => Some(&line.text),
            _ => Some(text),
        });
        Some(Mutant { name: line.name.clone(), change: format!("swapped with {}", next.name), text })
    }

    fn render<'a>(&'a self, text_of: impl Fn(usize, &'a str) -> Option<&'a str>) -> String {
        let mut text = String::new();
        let mut open = None;
        for (n, line) in self.lines.iter().enumerate() {
            if open != Some(line.table) {
                if open.is_some() {
                    text.push_str("COMMIT\n");
                }
                text.push('*');
                text.push_str(line.table.word());
                text.push('\n');
                open = Some(line.table);
            }
            if let Some(line) = text_of(n, &line.text) {
                text.push_str(line);
                text.push('\n');
            }
        }
        if open.is_some() {
            text.push_str("COMMIT\n");
        }
        text
    }
}

fn chain_of(text: &str) -> &str {
    text.split(' ').nth(1).unwrap_or("")
}

fn lines(rules: &Ruleset) -> Vec<Line> {
    let mut lines = Vec::new();
    // The text is read again, and tables print in the reverse order.
    for table in rules.tables().iter().rev().copied() {
        for chain in rules.chains(table) {
            let policy = chain.policy.map_or("-", stateway_core::filter::Policy::word);
            let declared = |policy: &str| format!(":{} {policy} [0:0]", chain.name);
            let other = match policy {
                "ACCEPT" => Some("DROP"),
                "DROP" => Some("ACCEPT"),
                _ => None,
            };
            let change = other.map(|other| (Some(declared(other)), format!("policy {other}")));
            lines.push(Line {
                table,
                name: format!("{}/{}/policy", table.word(), chain.name),
                text: declared(policy),
                changes: change.into_iter().collect(),
                is_rule: false,
            });
        }
        for chain in rules.chains(table) {
            for (index, rule) in chain.rules.iter().enumerate() {
                let whole = rules.rule_text(table, rule);
                lines.push(Line {
                    table,
                    name: format!("{}/{}/{}", table.word(), chain.name, index + 1),
                    text: format!("-A {}{whole}", chain.name),
                    changes: changes(rules, table, &chain.name, rule, &whole),
                    is_rule: true,
                });
            }
        }
    }
    lines
}

fn changes(
    rules: &Ruleset,
    table: Table,
    chain: &str,
    rule: &Rule,
    whole: &str,
) -> Vec<(Option<String>, String)> {
    let mut changes = vec![(None, "removed".to_owned())];
    let words = rule.matches.words();
    let target = &rules.rule_text(table, rule)[rule.matches.to_string().len()..];
    let text = |conditions: &[String], target: &str| {
        let conditions = conditions.iter().fold(String::new(), |all, c| all + " " + c);
        Some(format!("-A {chain}{conditions}{target}"))
    };
    for (place, word) in words.iter().enumerate() {
        let mut fewer = words.clone();
        fewer.remove(place);
        if !word.starts_with("-m comment") {
            changes.push((text(&fewer, target), format!("without `{word}`")));
        }
    }
    const STATES: [&str; 5] = ["INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED"];
    for (place, word) in words.iter().enumerate() {
        let Some((head, list)) =
            word.rsplit_once("state ").filter(|_| word.contains("--ctstate ") || word.contains("--state "))
        else {
            continue;
        };
        let now: Vec<&str> = list.split(',').collect();
        for state in STATES {
            let mut then = now.clone();
            let change = if now.contains(&state) {
                then.retain(|s| *s != state);
                format!("state {state} left out")
            } else {
                then.push(state);
                format!("state {state} added")
            };
            if !then.is_empty() && !list.contains(' ') {
                let mut other = words.clone();
                other[place] = format!("{head}state {}", then.join(","));
                changes.push((text(&other, target), change));
            }
        }
    }
    let flipped = match &rule.target {
        // Nothing is dropped in nat, and what is let pass there keeps its addresses.
        Target::Accept if table == Table::Nat => None,
        Target::Accept => Some(" -j DROP"),
        Target::Drop | Target::Reject(_) => Some(" -j ACCEPT"),
        target if target.translation().is_some() => Some(" -j ACCEPT"),
        _ => None,
    };
    if let Some(flipped) = flipped {
        changes.push((text(&words, flipped), format!("target{flipped}")));
    }
    if let Target::Dnat(Dnat(nat::Target::Dnat(to @ Range { addrs: Some(_), ports: Some(_), .. }))) =
        rule.target
    {
        let to = nat::Target::Dnat(Range { ports: None, base: None, ..to });
        let other = Rule { target: Target::Dnat(Dnat(to)), ..rule.clone() };
        let whole = rules.rule_text(table, &other);
        changes.push((Some(format!("-A {chain}{whole}")), "target without its port".to_owned()));
    }
    debug_assert!(whole.ends_with(target));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateway_core::packet::Family;

    #[test]
    fn a_translation_is_given_up_or_loses_its_port() {
        let text = "*nat\n-A PREROUTING -p tcp -j DNAT --to-destination 192.0.2.7:80\n\
             -A POSTROUTING -j MASQUERADE\n-A POSTROUTING -j ACCEPT\nCOMMIT\n";
        let rules = Ruleset::load(text, Family::Ipv4, &[]).expect("the rules are right").ruleset;
        let mutants = Mutants::of(&rules);
        let of_targets: Vec<String> = mutants
            .iter()
            .filter(|mutant| mutant.change.starts_with("target"))
            .map(|mutant| format!("{} {}", mutant.name, mutant.change))
            .collect();
        assert_eq!(
            of_targets,
            [
                "nat/PREROUTING/1 target -j ACCEPT",
                "nat/PREROUTING/1 target without its port",
                "nat/POSTROUTING/1 target -j ACCEPT",
            ]
        );
        let changed = mutants.iter().find(|m| m.change == "target without its port").expect("it has one");
        assert!(
            changed.text.contains("-A PREROUTING -p tcp -j DNAT --to-destination 192.0.2.7\n"),
            "{}",
            changed.text
        );
        let loaded = |mutant: &Mutant| Ruleset::load(&mutant.text, Family::Ipv4, &[]).is_ok();
        assert!(mutants.iter().filter(|m| !m.change.starts_with("without `-p tcp`")).all(|m| loaded(&m)));
    }

    #[test]
    fn changes_are_made_one_at_a_time() {
        let text =
            "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i lan -j ACCEPT\n-A FORWARD -p tcp -j DROP\nCOMMIT\n";
        let rules = Ruleset::load(text, Family::Ipv4, &[]).expect("the rules are right").ruleset;
        let mutants = Mutants::of(&rules);
        let changes: Vec<String> = mutants.iter().map(|m| format!("{} {}", m.name, m.change)).collect();
        assert_eq!(changes.len(), mutants.count());
        let of_forward: Vec<&str> =
            changes.iter().filter_map(|c| c.strip_prefix("filter/FORWARD/")).collect();
        assert_eq!(
            of_forward,
            [
                "policy policy ACCEPT",
                "1 removed",
                "1 without `-i lan`",
                "1 target -j DROP",
                "1 swapped with filter/FORWARD/2",
                "2 removed",
                "2 without `-p tcp`",
                "2 target -j ACCEPT",
            ]
        );
        let swapped = mutants.iter().find(|m| m.change.starts_with("swapped")).expect("there are two rules");
        assert!(
            swapped.text.contains("-A FORWARD -p tcp -j DROP\n-A FORWARD -i lan -j ACCEPT\n"),
            "{}",
            swapped.text
        );
    }
}

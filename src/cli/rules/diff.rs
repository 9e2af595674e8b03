//! `stateway rules diff`: what changes from one ruleset to another.

use super::changes;
use super::traced::Traced;
use crate::cli::render::{self, Format};
use crate::cli::{Failure, Result};
use serde_json::{Value, json};
use stateway_core::filter::{Ruleset, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

mod frames;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ruleset as it was
    old: PathBuf,
    /// The ruleset as it will be
    new: PathBuf,
    /// A capture: tell which of its frames meet another fate
    #[arg(long = "replay", value_name = "TRACE")]
    traces: Vec<PathBuf>,
    #[command(flatten)]
    traced: Traced,
    /// How to print the differences
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One line of difference.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    table: Table,
    chain: String,
    kind: &'static str,
    text: String,
}

pub(super) fn run(args: &Args) -> Result {
    if args.old == args.new && args.old == Path::new("-") {
        return Err(Failure::Input(anyhow::anyhow!("only one of the two rulesets can be standard input")));
    }
    // Each is read once: standard input has nothing more the second time.
    let reading = args.traced.reading();
    let (old_text, new_text) = (reading.text(&args.old)?, reading.text(&args.new)?);
    let (old, new) = (reading.load_right(&old_text, false)?, reading.load_right(&new_text, false)?);
    let changes = compare(&old, &new);
    if !args.traces.is_empty() {
        // A capture is the question, where there is one.
        let frames = frames::tell(args, &changes, [old_text.whole(), new_text.whole()])?;
        return if changes.is_empty() && frames == 0 { Ok(()) } else { Err(Failure::Differs) };
    }
    let fates = changes::of(&reading, [&old_text, &new_text], [&old, &new])?;
    let is_equivalent = fates.is_empty();
    match args.format {
        Format::Text => {
            print(&changes);
            changes::print(&fates);
            if is_equivalent {
                render::line("equivalent: every packet meets the same fate");
            }
        }
        Format::Json => render::json(&json!({
            "changes": changes.iter().map(Change::json).collect::<Vec<_>>(),
            "frames": [],
            "equivalent": is_equivalent,
            "fates": changes::as_json(&fates),
        })),
    }
    if is_equivalent { Ok(()) } else { Err(Failure::Differs) }
}

impl Change {
    fn json(&self) -> Value {
        json!({ "table": self.table.word(), "chain": self.chain, "change": self.kind, "text": self.text })
    }
}

fn print(changes: &[Change]) {
    let mut before = None;
    for change in changes {
        let place = (change.table, &change.chain);
        if before != Some(place) {
            render::line(&format!("{}/{}", change.table.word(), change.chain));
            before = Some(place);
        }
        let sign = match change.kind {
            "removed" | "chain-removed" => "-",
            "added" | "chain-added" => "+",
            _ => "~",
        };
        render::line(&format!("  {sign} {}", change.text));
    }
}

/// A chain as text: its policy, and its rules in order.
type Lines = (Option<&'static str>, Vec<String>);

fn chains(rules: &Ruleset, table: Table) -> BTreeMap<String, Lines> {
    let line = |chain: &stateway_core::filter::Chain| {
        let lines = chain.rules.iter().map(|r| format!("-A {}{}", chain.name, rules.rule_text(table, r)));
        (chain.name.clone(), (chain.policy.map(stateway_core::filter::Policy::word), lines.collect()))
    };
    rules.chains(table).iter().map(line).collect()
}

fn compare(old: &Ruleset, new: &Ruleset) -> Vec<Change> {
    let mut changes = Vec::new();
    for table in Table::ALL {
        let (before, after) = (chains(old, table), chains(new, table));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let mut say = |kind, text: String| {
                changes.push(Change { table, chain: name.clone(), kind, text });
            };
            let empty: Lines = (None, Vec::new());
            let (old, new) = (before.get(name), after.get(name));
            if old.is_none() && new.is_some_and(|n| n.0.is_none() || n.0 == Some("DROP") || !n.1.is_empty()) {
                say("chain-added", format!("chain {name}"));
            }
            if new.is_none() && old.is_some_and(|o| o.0.is_none() || o.0 == Some("DROP") || !o.1.is_empty()) {
                say("chain-removed", format!("chain {name}"));
            }
            let ((old_policy, old_rules), (new_policy, new_rules)) =
                (old.unwrap_or(&empty), new.unwrap_or(&empty));
            // A table that is not there accepts.
            let (was, is) = (old_policy.unwrap_or("ACCEPT"), new_policy.unwrap_or("ACCEPT"));
            if was != is {
                say("policy", format!("policy {was} → {is}"));
            }
            for (kind, text) in lines(old_rules, new_rules) {
                say(kind, text);
            }
        }
    }
    changes
}

/// What was removed and added, in order: the shortest way found by the longest common subsequence.
fn lines(old: &[String], new: &[String]) -> Vec<(&'static str, String)> {
    let same_start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same_start..], &new[same_start..]);
    let same_end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - same_end], &new[..new.len() - same_end]);
    // Beyond this the table would be large; all old rules then go and all new ones come.
    const MAX_CELLS: usize = 25_000_000;
    if old.len().saturating_mul(new.len()) > MAX_CELLS {
        let gone = old.iter().map(|l| ("removed", l.clone()));
        return gone.chain(new.iter().map(|l| ("added", l.clone()))).collect();
    }
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut changes = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j >= new.len()
            || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            changes.push(("removed", old[i].clone()));
            i += 1;
        } else {
            changes.push(("added", new[j].clone()));
            j += 1;
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_only_what_moved() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let changes = lines(&list("a b c d"), &list("a c x d"));
        assert_eq!(changes, [("removed", "b".to_owned()), ("added", "x".to_owned())]);
        assert_eq!(lines(&list("a b"), &list("a b")), []);
    }
}

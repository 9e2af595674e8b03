//! Rules as text in pieces, so that pieces can be taken away.

#![forbid(unsafe_code)]

use core::fmt::Write as _;

/// The rules of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Lines for `ipset restore`.
    pub sets: Vec<String>,
    pub tables: Vec<TableText>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableText {
    pub name: String,
    /// Base chains have a policy.
    pub chains: Vec<(String, Option<String>)>,
    pub rules: Vec<Line>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub chain: String,
    /// Conditions: `-s 192.0.2.0/24`, `-m length ! --length 40`.
    pub parts: Vec<String>,
    /// `-j DROP`; empty for a rule that only counts.
    pub target: String,
}

impl Line {
    /// The rule without `-A CHAIN`.
    pub fn text(&self) -> String {
        let mut words = self.parts.clone();
        words.push(self.target.clone());
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }

    /// The chain that it leads to, if it does.
    fn leads_to(&self) -> Option<&str> {
        let (flag, name) = self.target.split_once(' ')?;
        (flag == "-j" || flag == "-g").then_some(name)
    }
}

impl Tables {
    /// Reads what [`Tables::render`] has written; conditions are not told apart.
    pub fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            let table = read.tables.last_mut();
            match (first, table) {
                ("create" | "add", _) => read.sets.push(line.to_owned()),
                ("-A", Some(table)) => {
                    let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
                    table.rules.push(Line {
                        chain: chain.to_owned(),
                        parts: Vec::new(),
                        target: rule.to_owned(),
                    });
                }
                (_, Some(table)) if first.starts_with(':') => {
                    let policy = rest.split(' ').next().filter(|policy| *policy != "-");
                    table.chains.push((first[1..].to_owned(), policy.map(ToOwned::to_owned)));
                }
                _ => read.tables.extend(first.strip_prefix('*').map(|name| TableText {
                    name: name.to_owned(),
                    chains: Vec::new(),
                    rules: Vec::new(),
                })),
            }
        }
        read
    }

    /// As iptables-save writes it, the sets in front.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for set in &self.sets {
            let _ = writeln!(out, "{set}");
        }
        for table in &self.tables {
            let _ = writeln!(out, "*{}", table.name);
            for (name, policy) in &table.chains {
                let _ = writeln!(out, ":{name} {} [0:0]", policy.as_deref().unwrap_or("-"));
            }
            for rule in &table.rules {
                let _ = writeln!(out, "-A {} {}", rule.chain, rule.text());
            }
            out.push_str("COMMIT\n");
        }
        out
    }

    /// The rules that there are, and where, in few lines: a case made small is mostly empty.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.sets.clone();
        for table in &self.tables {
            let policies = table.chains.iter().filter(|(_, policy)| policy.as_deref() == Some("DROP"));
            lines.extend(policies.map(|(name, _)| format!("-t {} -P {name} DROP", table.name)));
            let rules = table.rules.iter();
            lines.extend(rules.map(|rule| format!("-t {} -A {} {}", table.name, rule.chain, rule.text())));
        }
        lines
    }

    /// How many rules, conditions, chains and sets there are: what shrinking makes less.
    pub fn size(&self) -> usize {
        let rules = self.tables.iter().flat_map(|table| &table.rules);
        self.sets.len() + rules.map(|rule| 1 + rule.parts.len()).sum::<usize>()
    }

    /// Every rule by its table and place there.
    pub fn places(&self) -> Vec<(usize, usize)> {
        let tables = self.tables.iter().enumerate();
        tables.flat_map(|(t, table)| (0..table.rules.len()).map(move |r| (t, r))).collect()
    }

    /// Removes rules by their places, which are in order.
    pub fn remove(&mut self, places: &[(usize, usize)]) {
        for (table, rule) in places.iter().rev() {
            self.tables[*table].rules.remove(*rule);
        }
    }

    /// Removes chains that are empty and to which nothing leads, and sets that nobody names.
    pub fn tidy(&mut self) {
        for table in &mut self.tables {
            let TableText { chains, rules, .. } = table;
            chains.retain(|(name, policy)| {
                policy.is_some() || rules.iter().any(|r| r.chain == *name || r.leads_to() == Some(name))
            });
        }
        let text: Vec<String> = self.tables.iter().flat_map(|table| &table.rules).map(Line::text).collect();
        let is_named = |name: &str| text.iter().any(|rule| rule.split(' ').any(|word| word == name));
        // A list names the sets that are in it.
        let is_in_a_list = |name: &str| {
            self.sets.iter().any(|line| {
                matches!(line.split(' ').collect::<Vec<_>>()[..], ["add", list, set] if set == name && is_named(list))
            })
        };
        let kept: Vec<String> = self
            .sets
            .iter()
            .filter(|line| {
                let name = line.split(' ').nth(1).unwrap_or_default();
                is_named(name) || is_in_a_list(name)
            })
            .cloned()
            .collect();
        self.sets = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let text = "create a hash:ip family inet\nadd a 198.18.1.1\n*raw\n:PREROUTING ACCEPT [0:0]\n:B - [0:0]\n\
                    -A PREROUTING -p tcp -m tcp --dport 80 -j B\n-A B \nCOMMIT\n*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
        let read = Tables::parse(&format!("# a comment\n{text}"));
        assert_eq!(read.render(), text);
        assert_eq!(read.places(), [(0, 0), (0, 1)]);
    }
}

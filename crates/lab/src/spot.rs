//! Where something stands in a file that a lab was read from: what a report shows with a caret below it.

#![forbid(unsafe_code)]

use super::builtin;
use super::model::{Lab, RulesFrom};
use std::path::{Path, PathBuf};

/// A passage of one line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file as users know it.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In bytes, from 0.
    pub start: usize,
    pub end: usize,
    /// The whole line.
    pub text: String,
}

impl Spot {
    fn of(file: &Path, line: usize, text: &str, passage: (usize, usize)) -> Self {
        let file = PathBuf::from(builtin::shown(file.strip_prefix(".").unwrap_or(file)).to_string());
        Self { file, line, start: passage.0, end: passage.1, text: text.to_owned() }
    }

    /// The file, unless it is in the program itself.
    pub fn on_disk(&self) -> Option<&Path> {
        let is_built_in = self.file.to_str().is_some_and(|name| builtin::names().contains(&name));
        (!is_built_in).then_some(&self.file)
    }

    /// From 1, in characters.
    pub fn column(&self) -> usize {
        self.text[..self.start].chars().count() + 1
    }
}

impl Lab {
    /// The value at a path of the lab file (`tests[2].expect.rule`), or what is around it.
    pub fn spot(&self, path: &str) -> Option<Spot> {
        let (line, column) = self.places.find(path)?;
        let source = self.sources.first()?;
        let text = source.text.lines().nth(line.checked_sub(1)?)?;
        let start = text.char_indices().nth(column.checked_sub(1)?).map_or(text.len(), |(at, _)| at);
        Some(Spot::of(&source.path, line, text, (start, start + value_len(&text[start..]))))
    }

    /// A line of a ruleset that the lab was read with, and where the first of `words` that it has stands in it.
    pub(crate) fn spot_in_rules(&self, rules: &str, line: usize, words: &[&str]) -> Option<Spot> {
        let found = self.rule_texts.iter().find(|text| text.text == rules)?;
        let (source, line) = match &found.from {
            RulesFrom::Lab(path) => (self.sources.first()?, self.places.in_text(path, line, 1)?.0),
            RulesFrom::File(file, before) => {
                (self.sources.iter().find(|source| source.path == *file)?, line.checked_sub(*before)?)
            }
        };
        let text = source.text.lines().nth(line.checked_sub(1)?)?;
        let whole = (text.len() - text.trim_start().len(), text.trim_end().len());
        let passage = words.iter().find_map(|words| text.find(words).map(|at| (at, at + words.len())));
        Some(Spot::of(&source.path, line, text, passage.unwrap_or(whole)))
    }
}

/// How long the key and its value are, on the line where they begin.
fn value_len(text: &str) -> usize {
    let mut open = 0_usize;
    let end = text.char_indices().find(|(_, c)| {
        match c {
            '{' | '[' => open += 1,
            '}' | ']' if open > 0 => open -= 1,
            ',' | '}' | ']' if open == 0 => return true,
            _ => {}
        }
        false
    });
    let text = end.map_or(text, |(at, _)| &text[..at]);
    let text = text.split(" #").next().unwrap_or_default();
    text.trim_end().len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str = "\
name: small
router:
  ports: { a: {}, b: {} }
  rules: |
    *filter
    -A FORWARD -p tcp --dport 22 -j ACCEPT
    COMMIT
hosts:
  a: { port: a, address: 192.0.2.1/24 }
  b: { port: b, address: 192.0.2.2/24 }
tests:
  - ping: { from: a, to: b }
    expect: { result: ok, state: NEW }
";

    fn passage(spot: &Spot) -> (usize, usize, &str) {
        (spot.line, spot.column(), &spot.text[spot.start..spot.end])
    }

    #[test]
    fn a_value_of_the_lab_file_is_found_with_its_key() {
        let lab = crate::resolve::load_text(LAB, Path::new("lab.yaml")).unwrap();
        for (path, want) in [
            ("tests[0].expect.result", (13, 15, "result: ok")),
            ("tests[0].expect.state", (13, 27, "state: NEW")),
            ("tests[0].expect.rule", (13, 5, "expect: { result: ok, state: NEW }")),
            ("tests[0]", (12, 5, "ping: { from: a, to: b }")),
        ] {
            assert_eq!(passage(&lab.spot(path).unwrap()), want, "{path}");
        }
    }

    #[test]
    fn a_condition_of_a_rule_is_found_where_the_rule_is_written() {
        let lab = crate::resolve::load_text(LAB, Path::new("lab.yaml")).unwrap();
        let rules = lab.router.rules.clone().unwrap();
        let spot = lab.spot_in_rules(&rules, 2, &["-m tcp --dport 22", "--dport 22"]).unwrap();
        assert_eq!(passage(&spot), (6, 23, "--dport 22"));
        let spot = lab.spot_in_rules(&rules, 2, &["--sport 1"]).unwrap();
        assert_eq!(passage(&spot), (6, 5, "-A FORWARD -p tcp --dport 22 -j ACCEPT"));
        assert_eq!(lab.spot_in_rules("another", 2, &[]), None);
    }
}

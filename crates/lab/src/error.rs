//! What is wrong with a lab file: everything at once, each with its place and, where one can be had, a hint.

#![forbid(unsafe_code)]

use super::builtin::shown;
use core::fmt;
use std::path::PathBuf;
use unicode_width::UnicodeWidthStr as _;

/// One thing wrong with a lab file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its path in the file: `tests[2].ssh.to`.
    pub path: String,
    /// Line and column, from 1.
    pub place: Option<(usize, usize)>,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n    hint: {hint}"))
    }
}

/// Everything that is wrong with one lab file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LabErrors {
    pub file: PathBuf,
    pub problems: Vec<Problem>,
    /// What the file says, if it could be read.
    pub text: Option<String>,
}

impl LabErrors {
    /// The file could not be read at all.
    pub(crate) fn unreadable(file: PathBuf, error: &std::io::Error, hint: Option<String>) -> Self {
        let message = format!("cannot read it: {error}");
        Self { file, problems: vec![Problem { path: String::new(), place: None, message, hint }], text: None }
    }

    /// As it is printed, and below each problem the line that it is about, with a caret.
    pub fn with_lines(&self) -> String {
        let mut text = self.head();
        for problem in &self.problems {
            let said = problem.to_string();
            let (message, hint) = said.split_once('\n').unwrap_or((&said, ""));
            text += &format!("\n  {message}");
            if let Some((line, column)) = problem.place
                && let Some(own) = self.text.as_deref().and_then(|text| text.lines().nth(line - 1))
            {
                text += &excerpt(line, column, own);
            }
            if !hint.is_empty() {
                text += &format!("\n{hint}");
            }
        }
        text
    }

    fn head(&self) -> String {
        let (count, noun) =
            (self.problems.len(), if self.problems.len() == 1 { "problem" } else { "problems" });
        format!("{} has {count} {noun}", shown(&self.file))
    }
}

/// A line of a file, and a caret below one of its characters.
fn excerpt(line: usize, column: usize, text: &str) -> String {
    /// Of a longer line, its place says enough.
    const LONGEST: usize = 200;
    let before: String = text.chars().take(column.saturating_sub(1)).collect();
    if text.chars().count() > LONGEST || text.contains('\t') {
        return String::new();
    }
    let number = line.to_string();
    format!("\n    {number} | {text}\n    {:w$} | {:b$}^", "", "", w = number.len(), b = before.width())
}

impl fmt::Display for LabErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// The name among `known` that somebody who wrote `word` may have meant.
pub(crate) fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this, two words share too little to be a slip of the finger.
    const ALIKE: f64 = 0.75;
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&word, &name.to_lowercase()), name))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// "did you mean `x`?", or else what there is.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone, what: &str) -> Option<String> {
    /// A list longer than this helps nobody.
    const LISTED: usize = 12;
    if let Some(name) = near(word, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let names: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => Some(format!("there are no {what}")),
        1..=LISTED => Some(format!("{what}: {}", names.join(", "))),
        more => Some(format!("{what}: {}, and {} more", names[..LISTED].join(", "), more - LISTED)),
    }
}

/// The first character that no YAML may hold.
pub(crate) fn control_character(text: &str) -> Option<Problem> {
    let is_allowed = |c: char| matches!(c, '\n' | '\r' | '\t' | '\u{85}') || !c.is_control();
    let at = text.find(|c| !is_allowed(c))?;
    let (before, rest) = text.split_at(at);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some(Problem {
        path: String::new(),
        place: Some((before.matches('\n').count() + 1, column)),
        message: format!("not YAML: the control character {:?}", rest.chars().next().unwrap_or_default()),
        hint: Some("is this a text file, in UTF-8?".to_owned()),
    })
}

/// Brackets that may be open at once. The parser refuses less, but only after looking at all of them again and again.
const MAX_OPEN: usize = 1000;

/// The first bracket that is nested too deep, wherever it stands.
pub(crate) fn too_deep(text: &str) -> Option<Problem> {
    let mut open = 0_usize;
    let at = text.bytes().position(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_OPEN
    })?;
    let before = &text[..at];
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some(Problem {
        path: String::new(),
        place: Some((before.matches('\n').count() + 1, column)),
        message: format!("not a lab file: more than {MAX_OPEN} brackets are open"),
        hint: None,
    })
}

/// What somebody who made one of the usual mistakes would want to know.
pub(crate) fn yaml_hint(text: &str, place: Option<(usize, usize)>, message: &str) -> Option<String> {
    let line = text.lines().nth(place?.0.checked_sub(1)?).unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    let hint = if indent.contains('\t') {
        "YAML is indented with blanks, never with tabs"
    } else if message.contains("duplicate entry") {
        "a key stands once only: put what belongs to it together"
    } else if message.contains("mapping values are not allowed") {
        "text with `: ` in it stands in quotes"
    } else if message.contains("unknown anchor") || message.contains("scanning an alias") {
        "`*name` repeats what `&name` marks before it; text that begins with `*` stands in quotes"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_that_are_never_closed_are_not_looked_at_for_long() {
        assert_eq!(too_deep(&"[{".repeat(MAX_OPEN / 2)), None);
        assert_eq!(too_deep(&":FORWARD DROP [0:0]\n".repeat(2 * MAX_OPEN)), None);
        let problem = too_deep(&format!("a\nb: {}", "[".repeat(100_000))).unwrap();
        assert_eq!(problem.to_string(), "2:1004: not a lab file: more than 1000 brackets are open");
    }

    #[test]
    fn a_problem_is_shown_with_its_line_and_a_caret() {
        let text = "name: x\nhosts:\n  ä: { prot: a }\n".to_owned();
        let hint = Some("did you mean `port`?".to_owned());
        let problem = |place, hint| Problem { path: "hosts".into(), place, message: "no".into(), hint };
        let problems = vec![problem(Some((3, 8)), hint), problem(None, None)];
        let errors = LabErrors { file: "lab.yaml".into(), problems, text: Some(text) };
        let said = "lab.yaml has 2 problems\n  3:8: hosts: no\n    3 |   ä: { prot: a }\n      |        ^\n    \
                    hint: did you mean `port`?\n  hosts: no";
        assert_eq!(errors.with_lines(), said);
        assert!(!errors.to_string().contains('^'));
    }

    #[test]
    fn a_slip_of_the_finger_is_met_with_the_name_that_was_meant() {
        let names = ["host104", "host77", "gateway"];
        assert_eq!(hint("hsot77", names, "hosts").as_deref(), Some("did you mean `host77`?"));
        assert_eq!(hint("zzz", names, "hosts").as_deref(), Some("hosts: `host104`, `host77`, `gateway`"));
        assert_eq!(hint("zzz", [], "hosts").as_deref(), Some("there are no hosts"));
    }
}

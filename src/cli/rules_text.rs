//! The text of a ruleset behind that of the sets it names, and which file a line of it stands in.

use super::{Failure, Result};
use crate::filter::{RuleError, text_of};
use crate::input;
use anyhow::{Context as _, anyhow};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// Sets and rules in one text, as they are loaded.
#[derive(Clone, Debug)]
pub(super) struct RulesText {
    whole: String,
    /// Each file, and how many lines stand before its own. The rules come last.
    files: Vec<(PathBuf, usize)>,
}

impl RulesText {
    /// Reads files of sets, and behind them the rules; `-` is standard input.
    pub(super) fn read(sets: &[PathBuf], rules: &Path) -> Result<Self> {
        let mut text = Self { whole: String::new(), files: Vec::new() };
        for file in sets {
            text.push(file, &read(file)?);
        }
        text.push(rules, &read(rules)?);
        Ok(text)
    }

    fn push(&mut self, file: &Path, own: &str) {
        if !self.whole.is_empty() && !self.whole.ends_with('\n') {
            self.whole.push('\n');
        }
        self.files.push((file.to_owned(), self.whole.lines().count()));
        self.whole.push_str(own);
    }

    pub(super) fn whole(&self) -> &str {
        &self.whole
    }

    pub(super) fn into_whole(self) -> String {
        self.whole
    }

    /// The text of the sets alone, to stand in front of other rules.
    pub(super) fn sets(&self) -> &str {
        let before = self.files.last().map_or(0, |(_, before)| *before);
        let end = self.whole.split_inclusive('\n').take(before).map(str::len).sum();
        &self.whole[..end]
    }

    /// The file that an error is in, and the error with the line of that file.
    pub(super) fn locate(&self, error: &RuleError) -> (&Path, RuleError) {
        let found = self.files.iter().rev().find(|(_, before)| error.line > *before).or(self.files.first());
        let (file, before) = found.map_or((Path::new("-"), 0), |(file, before)| (file.as_path(), *before));
        (file, RuleError { line: error.line.saturating_sub(before), ..error.clone() })
    }

    /// `FILE has 2 problems` and one line for each.
    pub(super) fn problems(&self, errors: &[RuleError]) -> String {
        let rules = self.files.last().map_or(Path::new("-"), |(file, _)| file);
        let plural = if errors.len() == 1 { "" } else { "s" };
        let mut text = format!("`{}` has {} problem{plural}", rules.display(), errors.len());
        for error in errors {
            let (file, error) = self.locate(error);
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{}:{error}", file.display());
        }
        text
    }
}

/// Reads the text of one file.
fn read(file: &Path) -> Result<String> {
    let bytes = if file == Path::new("-") {
        input::read_bounded(io::stdin(), input::MAX_RULES)
    } else {
        input::read(file, input::MAX_RULES)
    };
    let bytes = bytes.with_context(|| format!("cannot read `{}`", file.display())).map_err(Failure::Input)?;
    text_of(bytes)
        .map_err(|error| Failure::Input(anyhow!("`{0}` has 1 problem\n{0}:{error}", file.display())))
}

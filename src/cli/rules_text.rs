//! The text of a ruleset behind that of the sets it names, and which file a line of it stands in.

use super::{Failure, Result};
use anyhow::Context as _;
use stateway_core::filter::{RuleError, text_of};
use stateway_trace::input;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// Sets and rules in one text, as they are loaded.
#[derive(Clone, Debug)]
pub(super) struct RulesText {
    whole: String,
    /// Each file, and how many lines stand before its own. The rules come last.
    files: Vec<(PathBuf, usize)>,
    /// Why one of them is no text at all.
    unreadable: Option<RuleError>,
}

/// What stands in front of the first table of a text: its sets. They stay where its tables are replaced.
pub(super) fn in_front_of_tables(text: &str) -> &str {
    let before = text.split_inclusive('\n').take_while(|line| !line.trim_start().starts_with('*'));
    &text[..before.map(str::len).sum()]
}

impl RulesText {
    /// Reads files of sets, and behind them the rules; `-` is standard input.
    pub(super) fn read(sets: &[PathBuf], rules: &Path) -> Result<Self> {
        let mut text = Self { whole: String::new(), files: Vec::new(), unreadable: None };
        for file in sets {
            text.push(file, read(file)?);
        }
        text.push(rules, read(rules)?);
        Ok(text)
    }

    /// A text that is in no file.
    #[cfg(all(target_os = "linux", feature = "web"))]
    pub(super) fn of(text: String) -> Self {
        let mut own = Self { whole: String::new(), files: Vec::new(), unreadable: None };
        own.push(Path::new("-"), text.into_bytes());
        own
    }

    fn push(&mut self, file: &Path, own: Vec<u8>) {
        if !self.whole.is_empty() && !self.whole.ends_with('\n') {
            self.whole.push('\n');
        }
        let before = self.whole.lines().count();
        self.files.push((file.to_owned(), before));
        match text_of(own) {
            Ok(own) => self.whole.push_str(&own),
            Err(error) => {
                self.unreadable.get_or_insert(RuleError { line: error.line + before, ..error });
            }
        }
    }

    /// The text as it is loaded.
    ///
    /// # Errors
    /// A file is no text.
    pub(super) fn text(&self) -> std::result::Result<&str, Vec<RuleError>> {
        self.unreadable.clone().map_or(Ok(&self.whole), |error| Err(vec![error]))
    }

    /// As [`RulesText::text`], of files that were loaded before.
    pub(super) fn whole(&self) -> &str {
        &self.whole
    }

    pub(super) fn into_whole(self) -> String {
        self.whole
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

/// Reads the bytes of one file.
fn read(file: &Path) -> Result<Vec<u8>> {
    let bytes = if file == Path::new("-") {
        input::read_bounded(io::stdin(), input::MAX_RULES)
    } else {
        input::read(file, input::MAX_RULES)
    };
    bytes.with_context(|| format!("cannot read `{}`", file.display())).map_err(Failure::Input)
}

//! `stateway rules check`: what is wrong with a ruleset, and what deserves a second look.

use super::Reading;
use super::codes;
use super::findings::{self, Found};
use crate::cli::render;
use crate::cli::rules_text::RulesText;
use crate::cli::{Failure, Result};
use anyhow::anyhow;
use stateway_core::filter::{RuleError, Ruleset};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Text as iptables-save writes it; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// End with exit code 1 if there is a finding of this code; `all` for any
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = codes::parse)]
    deny: Vec<String>,
    /// Leave findings of this code out
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = codes::parse)]
    allow: Vec<String>,
    /// How to print the findings
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
    /// For programs that show findings of analysers (SARIF 2.1.0)
    Sarif,
    /// Annotations of a workflow on GitHub
    Github,
}

pub(super) fn run(args: &Args) -> Result {
    let text = args.reading.text(&args.file)?;
    let (errors, mut found) = match args.reading.load(&text, false) {
        Ok(loaded) if loaded.ruleset.tables().is_empty() => {
            (vec![no_rules(&text)], loaded.warnings.iter().map(Found::of_core).collect())
        }
        Ok(loaded) => (Vec::new(), all(args, &text, &loaded.ruleset, &loaded.warnings)?),
        Err(errors) => (errors, Vec::new()),
    };
    let is_allowed = |code: &str| args.allow.iter().any(|allowed| allowed == code || allowed == "all");
    let in_file = findings::allowed(text.whole())
        .map_err(|error| Failure::Input(anyhow!("{}", text.problems(&[error]))))?;
    found.retain(|found| {
        found.code.is_none_or(|code| {
            !is_allowed(code) && !in_file.iter().any(|a| a.is_about(code, found.error.line))
        })
    });
    match args.format {
        Format::Json => render::json(&findings::json(&text, &errors, &found)),
        Format::Sarif => render::json(&findings::sarif(&text, &errors, &found)),
        Format::Github => findings::github(&text, &errors, &found),
        Format::Text => {
            for found in &found {
                render::line(&found.text(&text));
            }
            if errors.is_empty() && found.is_empty() {
                render::line(&format!("{}: nothing to report", args.file.display()));
            }
        }
    }
    if !errors.is_empty() {
        return Err(Failure::Input(anyhow!("{}", text.problems(&errors))));
    }
    let is_denied = |found: &Found| {
        let code = found.code.unwrap_or_default();
        args.deny.iter().any(|denied| denied == code || denied == "all")
    };
    if found.iter().any(is_denied) { Err(Failure::Differs) } else { Ok(()) }
}

/// What the core warns of, and what the model finds besides.
fn all(args: &Args, text: &RulesText, rules: &Ruleset, warnings: &[RuleError]) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = warnings.iter().map(Found::of_core).collect();
    let own = findings::of_model(&args.reading, text, rules)?;
    // The core has told of these rules, and knows the column.
    let is_told = |line: usize| warnings.iter().any(|warning| warning.line == line);
    found.extend(own.into_iter().filter(|own| !own.is_of_never() || !is_told(own.error.line)));
    found.sort_by_key(|found| (found.error.line, found.error.column));
    Ok(found)
}

/// A file without any section is seldom meant.
fn no_rules(text: &RulesText) -> RuleError {
    let hint = "is the file whole? a section begins with `*filter` and ends with `COMMIT`".to_owned();
    let line = text.whole().lines().count().max(1);
    RuleError { line, column: 1, message: "there are no rules in it".to_owned(), hint: Some(hint) }
}

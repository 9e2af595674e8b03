//! `stateway rules check`: what is wrong with a ruleset, and what deserves a second look.

use super::Reading;
use super::codes;
use super::findings::{self, Checked, Found};
use crate::cli::render;
use crate::cli::rules_text::RulesText;
use crate::cli::{Failure, Result};
use anyhow::anyhow;
use stateway_core::filter::{RuleError, Ruleset};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Text as iptables-save writes it; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// The rules for IPv6, as of ip6tables-save, beside FILE: also checked, and whether one of the families is left open
    #[arg(long, value_name = "FILE", conflicts_with = "ipv6")]
    rules6: Option<PathBuf>,
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
    let mut all = vec![check(args, &args.reading, &args.file)?];
    if let Some(file) = &args.rules6 {
        let reading = Reading { ipv6: true, ..args.reading.clone() };
        all.push(check(args, &reading, file)?);
        if let [Checked { rules: Some(four), .. }, Checked { rules: Some(six), .. }] = all.as_slice() {
            let of_four = findings::of_families(&args.reading, &all[0].text, four, six)?;
            let of_six = findings::of_families(&reading, &all[1].text, six, four)?;
            all[0].found.extend(of_four);
            all[1].found.extend(of_six);
        }
    }
    for checked in &mut all {
        leave_out_allowed(args, checked)?;
    }
    match args.format {
        Format::Json => render::json(&findings::json(&all)),
        Format::Sarif => render::json(&findings::sarif(&all)),
        Format::Github => all.iter().for_each(findings::github),
        Format::Text => {
            for (checked, file) in
                all.iter().zip([Some(&args.file), args.rules6.as_ref()].into_iter().flatten())
            {
                for found in &checked.found {
                    render::line(&found.text(&checked.text));
                }
                if checked.errors.is_empty() && checked.found.is_empty() {
                    render::line(&format!("{}: nothing to report", file.display()));
                }
            }
        }
    }
    for Checked { text, errors, .. } in &all {
        if !errors.is_empty() {
            return Err(Failure::Input(anyhow!("{}", text.problems(errors))));
        }
    }
    let is_denied = |found: &Found| {
        let code = found.code.unwrap_or_default();
        args.deny.iter().any(|denied| denied == code || denied == "all")
    };
    if all.iter().flat_map(|checked| &checked.found).any(is_denied) { Err(Failure::Differs) } else { Ok(()) }
}

/// One file.
fn check(args: &Args, reading: &Reading, file: &Path) -> Result<Checked> {
    let text = reading.text(file)?;
    Ok(match reading.load(&text, false) {
        // An empty file beside another one is a family without rules.
        Ok(loaded) if loaded.ruleset.tables().is_empty() && args.rules6.is_none() => {
            let (errors, found) =
                (vec![no_rules(&text)], loaded.warnings.iter().map(Found::of_core).collect());
            Checked { text, errors, found, rules: None }
        }
        Ok(loaded) => {
            let found = all(reading, &text, &loaded.ruleset, &loaded.warnings)?;
            Checked { text, errors: Vec::new(), found, rules: Some(loaded.ruleset) }
        }
        Err(errors) => Checked { text, errors, found: Vec::new(), rules: None },
    })
}

/// What is wrong with a text that somebody writes for a router with these interfaces, and what deserves a second look: as
/// `--format json` prints it.
///
/// # Errors
/// The rules are more than can be looked at.
#[cfg(all(target_os = "linux", feature = "web"))]
pub(in crate::cli) fn of_text(
    text: String,
    is_ipv6: bool,
    ifaces: Vec<String>,
) -> Result<Vec<serde_json::Value>> {
    let reading = Reading { ipv6: is_ipv6, sets: Vec::new(), ifaces };
    let text = RulesText::of(text);
    let (errors, found) = match reading.load(&text, false) {
        Ok(loaded) => (Vec::new(), all(&reading, &text, &loaded.ruleset, &loaded.warnings)?),
        Err(errors) => (errors, Vec::new()),
    };
    Ok(findings::json_of(&Checked { text, errors, found, rules: None }))
}

/// Leaves out what options and comments in the file allow.
fn leave_out_allowed(args: &Args, checked: &mut Checked) -> Result {
    let is_allowed = |code: &str| args.allow.iter().any(|allowed| allowed == code || allowed == "all");
    let in_file = findings::allowed(checked.text.whole())
        .map_err(|error| Failure::Input(anyhow!("{}", checked.text.problems(&[error]))))?;
    checked.found.retain(|found| {
        found.code.is_none_or(|code| {
            !is_allowed(code) && !in_file.iter().any(|a| a.is_about(code, found.error.line))
        })
    });
    Ok(())
}

/// What the core warns of, and what the model finds besides.
fn all(reading: &Reading, text: &RulesText, rules: &Ruleset, warnings: &[RuleError]) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = warnings.iter().map(Found::of_core).collect();
    let own = findings::of_model(reading, text, rules)?;
    // The core has told of these rules, and knows the column.
    let is_told = |line: usize| warnings.iter().any(|warning| warning.line == line);
    found.extend(own.into_iter().filter(|own| !own.is_of_never() || !is_told(own.error.line)));
    // That nobody can log in says more than that a rule never holds.
    let ssh: Vec<usize> = found.iter().filter(|f| f.code == Some("SW017")).map(|f| f.error.line).collect();
    found.retain(|found| !found.is_of_never() || !ssh.contains(&found.error.line));
    found.sort_by_key(|found| (found.error.line, found.error.column));
    Ok(found)
}

/// A file without any section is seldom meant.
fn no_rules(text: &RulesText) -> RuleError {
    let hint = "is the file whole? a section begins with `*filter` and ends with `COMMIT`".to_owned();
    let line = text.whole().lines().count().max(1);
    RuleError { line, column: 1, message: "there are no rules in it".to_owned(), hint: Some(hint) }
}

//! `stateway rules`: check, print and compare rulesets.

use super::render::{self, Format};
use super::{Failure, Result};
use crate::coverage::RunError;
use crate::filter::{Loaded, RuleError, Ruleset, text_of};
use crate::packet::Family;
use anyhow::Context as _;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

mod coverage;
mod diff;
mod json;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what is wrong with a ruleset, and what deserves a second look
    Check(One),
    /// Print what iptables-save would print after iptables-restore FILE
    Show(Show),
    /// Say what changes from one ruleset to another
    Diff(diff::Args),
    /// Say which rules held while captures went through a ruleset
    Coverage(coverage::Args),
    /// Change a ruleset a little, over and over, and say which changes no capture notices
    Mutate(coverage::Args),
    /// Print which matches and targets of iptables are honoured
    #[command(hide = true)]
    Matrix,
}

/// How rules are read.
#[derive(Clone, Debug, clap::Args)]
struct Reading {
    /// The rules are for IPv6, as of ip6tables-save
    #[arg(short = '6', long)]
    ipv6: bool,
    /// A file of `ipset save`, whose sets the rules may name
    #[arg(long, value_name = "FILE")]
    sets: Vec<PathBuf>,
    /// An interface of the router; other names in the rules are then reported
    #[arg(long = "iface", value_name = "NAME")]
    ifaces: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct One {
    /// Text as iptables-save writes it; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// How to print the findings
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    one: One,
    /// Take over and print the counters of all rules, as `iptables-restore -c` and `iptables-save -c` do
    #[arg(short, long)]
    counters: bool,
}

pub(super) fn run(args: Args) -> Result {
    match args.command {
        Command::Check(args) => check(&args),
        Command::Show(args) => show(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Coverage(args) => coverage::coverage(&args),
        Command::Mutate(args) => coverage::mutate(&args),
        Command::Matrix => {
            render::line(crate::filter::matrix::render().trim_end());
            Ok(())
        }
    }
}

impl Reading {
    const fn family(&self) -> Family {
        if self.ipv6 { Family::Ipv6 } else { Family::Ipv4 }
    }

    /// The text of the rules behind that of the sets, and how many lines the sets take.
    fn text(&self, file: &Path) -> Result<(String, usize)> {
        let mut text = self.sets_text()?;
        let lines = text.lines().count();
        text.push_str(&read(file)?);
        Ok((text, lines))
    }

    /// The text of the sets.
    fn sets_text(&self) -> Result<String> {
        let mut text = String::new();
        for set in &self.sets {
            text.push_str(&read(set)?);
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        Ok(text)
    }

    /// Loads a file; what is wrong with it has the lines of the file itself.
    fn load(&self, file: &Path, counters: bool) -> Result<std::result::Result<Loaded, Vec<RuleError>>> {
        let mut text = self.sets_text()?;
        let before = text.lines().count();
        let own = match text_of(bytes_of(file)?) {
            Ok(own) => own,
            Err(error) => return Ok(Err(vec![error])),
        };
        text.push_str(&own);
        Ok(self.load_text(&text, before, counters))
    }

    /// Loads text that has so many lines in front of the file's own.
    fn load_text(
        &self,
        text: &str,
        before: usize,
        counters: bool,
    ) -> std::result::Result<Loaded, Vec<RuleError>> {
        let load = if counters { Ruleset::load_with_counters } else { Ruleset::load };
        let own_line = |mut e: RuleError| {
            e.line = e.line.saturating_sub(before);
            e
        };
        let loaded = load(text, self.family(), &self.ifaces);
        let other = if self.ipv6 { Family::Ipv4 } else { Family::Ipv6 };
        if loaded.is_err() && load(text, other, &self.ifaces).is_ok() {
            let message = format!("these rules are for {}", other.name());
            let hint = if self.ipv6 { "leave `--ipv6` out" } else { "`--ipv6` reads them" };
            return Err(vec![RuleError { line: 1, column: 1, message, hint: Some(hint.to_owned()) }]);
        }
        match loaded {
            Ok(Loaded { ruleset, warnings }) => {
                Ok(Loaded { ruleset, warnings: warnings.into_iter().map(own_line).collect() })
            }
            Err(errors) => Err(errors.into_iter().map(own_line).collect()),
        }
    }

    /// Loads a file that must be right.
    fn load_right(&self, file: &Path, counters: bool) -> Result<Ruleset> {
        let (text, before) = self.text(file)?;
        self.load_text_right(file, &text, before, counters)
    }

    /// Loads the text of a file that must be right.
    fn load_text_right(&self, file: &Path, text: &str, before: usize, counters: bool) -> Result<Ruleset> {
        match self.load_text(text, before, counters) {
            Ok(loaded) => Ok(loaded.ruleset),
            Err(errors) => Err(Failure::Input(anyhow::anyhow!("{}", listing(file, &errors)))),
        }
    }
}

/// Says why a capture could not be taken through the rules.
struct RunFailure;

impl RunFailure {
    fn explain(error: RunError) -> Failure {
        match error {
            RunError::Rules(errors) => {
                let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Failure::Input(anyhow::anyhow!("{}", list.join("\n")))
            }
            other @ RunError::Port(_) => Failure::Input(other.into()),
        }
    }
}

fn bytes_of(file: &Path) -> Result<Vec<u8>> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    bytes.with_context(|| format!("cannot read `{}`", file.display())).map_err(Failure::Input)
}

fn read(file: &Path) -> Result<String> {
    text_of(bytes_of(file)?).map_err(|error| Failure::Input(anyhow::anyhow!(listing(file, &[error]))))
}

/// `FILE has 2 problems` and one line for each.
fn listing(file: &Path, errors: &[RuleError]) -> String {
    let file = file.display();
    let plural = if errors.len() == 1 { "" } else { "s" };
    let mut text = format!("`{file}` has {} problem{plural}", errors.len());
    for error in errors {
        let _ = write!(text, "\n{file}:{error}");
    }
    text
}

fn check(args: &One) -> Result {
    let (errors, warnings) = match args.reading.load(&args.file, false)? {
        Ok(loaded) => (Vec::new(), loaded.warnings),
        Err(errors) => (errors, Vec::new()),
    };
    match args.format {
        Format::Json => render::json(&json::findings(&errors, &warnings)),
        Format::Text => {
            for warning in &warnings {
                render::line(&format!("{}:{}", args.file.display(), Warning(warning)));
            }
            if errors.is_empty() && warnings.is_empty() {
                render::line(&format!("{}: nothing to report", args.file.display()));
            }
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::Input(anyhow::anyhow!("{}", listing(&args.file, &errors))))
}

/// A finding that does not stop the ruleset from being loaded.
struct Warning<'a>(&'a RuleError);

impl std::fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RuleError { line, column, message, hint } = self.0;
        write!(f, "{line}:{column}: warning: {message}")?;
        hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

fn show(args: &Show) -> Result {
    let One { file, reading, format } = &args.one;
    let ruleset = reading.load_right(file, args.counters)?;
    match format {
        Format::Text => render::line(ruleset.render(args.counters).trim_end()),
        Format::Json => render::json(&json::ruleset(&ruleset)),
    }
    Ok(())
}

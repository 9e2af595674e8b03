//! `stateway rules`: check, print and compare rulesets.

use super::render::{self, Format};
use super::rules_text::RulesText;
use super::{Failure, Result};
use stateway_core::filter::{Loaded, RuleError, Ruleset};
use stateway_core::packet::Family;
use std::path::{Path, PathBuf};

mod changes;
mod check;
mod codes;
#[cfg(target_os = "linux")]
mod columns;
mod coverage;
mod diff;
mod equivalent;
mod findings;
mod json;
#[cfg(target_os = "linux")]
pub(super) mod list;
mod mutate;
mod prove;
mod question;
mod search;
mod traced;

/// Where a rule, as iptables-save writes it, sends what it matches.
#[cfg(target_os = "linux")]
pub(super) fn target_of(rule: &str) -> String {
    columns::Columns::of(rule).target
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what is wrong with a ruleset, and what deserves a second look
    Check(check::Args),
    /// Say what a code of `check` means, why it matters, and what to write instead
    ExplainCode(codes::Args),
    /// Print what iptables-save would print after iptables-restore FILE
    Show(Show),
    /// List the rules of a running router and what they counted, as `iptables -L -v -n --line-numbers` does
    #[cfg(target_os = "linux")]
    #[command(visible_alias = "live")]
    List(list::Args),
    /// Say what changes from one ruleset to another
    Diff(diff::Args),
    /// Say which packets meet a fate, of all that there can be, and prove it by running one
    Search(search::Args),
    /// Say which rules held while captures went through a ruleset
    Coverage(coverage::Args),
    /// Change a ruleset a little, over and over, and say which changes no capture notices, or no test of a lab
    Mutate(mutate::Args),
    /// Print which matches and targets of iptables are honoured
    #[command(hide = true)]
    Matrix,
}

#[cfg(all(target_os = "linux", feature = "web"))]
pub(super) use check::of_text as check_text;

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
        Command::Check(args) => check::run(&args),
        Command::ExplainCode(args) => codes::run(&args),
        Command::Show(args) => show(&args),
        #[cfg(target_os = "linux")]
        Command::List(args) => list::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Search(args) => search::run(&args),
        Command::Coverage(args) => coverage::coverage(&args),
        Command::Mutate(args) => mutate::run(&args),
        Command::Matrix => {
            render::line(stateway_core::filter::matrix::render().trim_end());
            Ok(())
        }
    }
}

impl Reading {
    const fn family(&self) -> Family {
        if self.ipv6 { Family::Ipv6 } else { Family::Ipv4 }
    }

    /// The rules behind the sets.
    fn text(&self, file: &Path) -> Result<RulesText> {
        RulesText::read(&self.sets, file)
    }

    fn load(&self, text: &RulesText, counters: bool) -> std::result::Result<Loaded, Vec<RuleError>> {
        let text = text.text()?;
        let load = if counters { Ruleset::load_with_counters } else { Ruleset::load };
        let loaded = load(text, self.family(), &self.ifaces);
        let other = if self.ipv6 { Family::Ipv4 } else { Family::Ipv6 };
        // A line that the other family passes over is no sign that the rules are for it.
        let is_of_other = || load(text, other, &self.ifaces).is_ok_and(|loaded| !loaded.passed_over);
        if loaded.is_err() && is_of_other() {
            let message = format!("these rules are for {}", other.name());
            let hint = if self.ipv6 { "leave `--ipv6` out" } else { "`--ipv6` reads them" };
            return Err(vec![RuleError { line: 1, column: 1, message, hint: Some(hint.to_owned()) }]);
        }
        loaded
    }

    /// Loads a text that was read without a mistake before.
    fn load_text(&self, text: &str) -> Result<Ruleset> {
        let loaded = Ruleset::load(text, self.family(), &self.ifaces);
        loaded.map(|loaded| loaded.ruleset).map_err(|errors| {
            let first = errors.first().map_or_else(String::new, ToString::to_string);
            Failure::Input(anyhow::anyhow!("the rules do not load: {first}"))
        })
    }

    /// Loads rules that must be right.
    fn load_right(&self, text: &RulesText, counters: bool) -> Result<Ruleset> {
        match self.load(text, counters) {
            Ok(loaded) => Ok(loaded.ruleset),
            Err(errors) => Err(Failure::Input(anyhow::anyhow!("{}", text.problems(&errors)))),
        }
    }
}

fn show(args: &Show) -> Result {
    let One { file, reading, format } = &args.one;
    let ruleset = reading.load_right(&reading.text(file)?, args.counters)?;
    match format {
        Format::Text => render::line(ruleset.render(args.counters).trim_end()),
        Format::Json => render::json(&json::ruleset(&ruleset)),
    }
    Ok(())
}

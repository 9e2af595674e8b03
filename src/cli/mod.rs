//! The command line: one file per subcommand.
//!
//! Exit codes: 0 all is well; 1 a test failed or a difference was found; 2 the input is wrong; 3 this machine
//! cannot do it; 101 a router that ended itself (`run`).

#[doc(hidden)]
pub use explain::explain_packet;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use stateway_runtime::terminal;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

mod captures;
mod completions;
#[cfg_attr(not(target_os = "linux"), path = "linux_only.rs")]
mod conform;
#[cfg_attr(not(target_os = "linux"), path = "linux_only.rs")]
mod conntrack;
#[cfg_attr(not(target_os = "linux"), path = "linux_only.rs")]
mod doctor;
mod examples;
mod explain;
#[cfg(target_os = "linux")]
mod fold;
#[cfg_attr(not(target_os = "linux"), path = "linux_only.rs")]
mod keeper;
mod lab;
mod man;
#[cfg(target_os = "linux")]
mod reload;
mod render;
mod replay;
mod report;
mod router_args;
mod rules;
mod rules_text;
#[cfg_attr(not(target_os = "linux"), path = "linux_only.rs")]
mod run;
mod shard;
#[cfg_attr(not(target_os = "linux"), path = "linux_only.rs")]
mod top;
#[cfg_attr(not(target_os = "linux"), path = "linux_only.rs")]
mod watch;
#[cfg(all(target_os = "linux", feature = "web"))]
mod web;

/// A virtual router in userspace with an iptables-style stateful filter, and labs around it.
#[derive(Debug, Parser)]
#[command(name = "stateway", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build, test and inspect labs of hosts around a router
    Lab(lab::Args),
    /// Run the router alone, on TAP devices that others use
    Run(run::Args),
    /// Show one packet's whole way through the router, and why it met its fate
    Explain(explain::Args),
    /// Take a capture through a ruleset, in virtual time
    Replay(replay::Args),
    /// Check, print, compare and measure rulesets
    Rules(rules::Args),
    /// List and watch the connections of a running router
    Conntrack(conntrack::Args),
    /// Compare the router with this machine's kernel, packet by packet
    Conform(conform::Args),
    /// Show the packets of a running router as they are judged, a line each
    Watch(watch::Args),
    /// Have a running router load its rules again, all or nothing
    #[cfg(target_os = "linux")]
    Reload(reload::ReloadArgs),
    /// Print or change the connection tracking settings of a running router
    #[cfg(target_os = "linux")]
    Sysctl(reload::SysctlArgs),
    /// Show connections, rates and drops of a running router, live
    Top(top::Args),
    /// Show a running router in a browser: packets, their ways, connections, rules
    #[cfg(all(target_os = "linux", feature = "web"))]
    Web(web::Args),
    /// Make one report of those that several machines wrote
    Report(report::Args),
    /// Say what this machine lacks, and the command that mends it
    Doctor(doctor::Args),
    /// Print completions for a shell
    #[command(hide = true)]
    Completions(completions::Args),
    /// Do for a router what it has no privilege for; `run` starts it
    #[command(hide = true)]
    Keeper(keeper::Args),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Args),
}

/// Why a command did not end well.
#[derive(Debug)]
pub enum Failure {
    /// A test failed or a difference was found; it has been reported.
    Differs,
    /// The input is wrong: usage, lab file, rules, capture.
    Input(anyhow::Error),
    /// This machine cannot do it, and why.
    Machine(anyhow::Error),
    /// Another process did it, said what is to be said, and ended with this code.
    Told(u8),
}

impl Failure {
    const fn code(&self) -> u8 {
        match self {
            Self::Differs => 1,
            Self::Input(_) => 2,
            Self::Machine(_) => 3,
            Self::Told(code) => *code,
        }
    }

    /// What is to be said of it, beside what has been said already.
    fn text(&self) -> String {
        match self {
            Self::Input(error) | Self::Machine(error) => format!("{error:#}"),
            Self::Differs | Self::Told(_) => "it failed".to_owned(),
        }
    }
}

/// What was said is given so long to be read.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What every subcommand returns.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Parses the arguments, runs the command and says what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(usage) => return print_usage(&usage),
    };
    let code = match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Failure::Input(error) | Failure::Machine(error) = &failure {
                report(error);
            }
            ExitCode::from(failure.code())
        }
    };
    stateway_runtime::stderr::flush(LAST_WORDS);
    code
}

/// Help and version go to standard output, mistakes to standard error.
fn print_usage(usage: &clap::Error) -> ExitCode {
    let printed = if usage.use_stderr() {
        usage.print()
    } else {
        terminal::check_stdout().and_then(|()| usage.print())
    };
    // Where nobody reads of a mistake, the exit code tells of it.
    if !usage.use_stderr() {
        render::finish(printed.and_then(|()| io::stdout().flush()));
    }
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}

fn run(command: Command) -> Result {
    match command {
        Command::Lab(args) => lab::run(args),
        Command::Run(args) => run::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Rules(args) => rules::run(args),
        Command::Conntrack(args) => conntrack::run(args),
        Command::Conform(args) => conform::run(args),
        Command::Watch(args) => watch::run(args),
        #[cfg(target_os = "linux")]
        Command::Reload(args) => reload::reload(&args),
        #[cfg(target_os = "linux")]
        Command::Sysctl(args) => reload::sysctl(&args),
        Command::Top(args) => top::run(args),
        #[cfg(all(target_os = "linux", feature = "web"))]
        Command::Web(args) => web::run(&args),
        Command::Report(args) => report::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Keeper(args) => keeper::run(args),
        Command::Man(args) => man::run(args),
    }
}

fn report(error: &anyhow::Error) {
    render::tell_error(&shortened(&format!("{error:#}")));
}

/// What is said of a file quotes it, and a file may be one line of megabytes.
fn shortened(text: &str) -> String {
    const MOST: usize = 1000;
    let shorten = |line: &str| match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} … ({} bytes more)", &line[..end], line.len() - end),
        None => line.to_owned(),
    };
    text.lines().map(shorten).collect::<Vec<_>>().join("\n")
}

/// The whole command line, with its examples.
fn command() -> clap::Command {
    examples::add(Cli::command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_quote_no_megabytes() {
        assert_eq!(shortened("first\n  second"), "first\n  second");
        let long = format!("short\n{}", "é".repeat(1500));
        let expected = format!("short\n{} … (1000 bytes more)", "é".repeat(1000));
        assert_eq!(shortened(&long), expected);
    }
}

//! `stateway doctor`: what can run here, what is missing, and the one command that mends it.
//!
//! What it says of this machine it has tried, in child processes whose namespaces end with them: nothing is left. Trying
//! the kernel's rules may load modules, as the first lab would.

mod attempt;
mod finding;
mod leftovers;
mod machine;
mod programs;

use super::render::{self, Format};
use super::{Failure, Result};
use anyhow::anyhow;
use attempt::Attempt;
use finding::{Ability, Finding, Runner, State};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What must be able to run for exit code 0: `sim`, `live`, `kernel`; by default all three
    #[arg(long, value_delimiter = ',', value_enum)]
    on: Vec<Runner>,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Try this, and nothing else
    #[arg(long, value_enum, hide = true)]
    attempt: Option<Attempt>,
}

pub(super) fn run(args: Args) -> Result {
    if let Some(attempt) = args.attempt {
        return attempt.make();
    }
    let is_root = rustix::process::geteuid().is_root();
    let findings = examine(is_root);
    let abilities = Runner::ALL.map(|runner| Ability::of(runner, &findings));
    let mend = finding::mend(&findings, is_root);
    match args.format {
        Format::Text => print_text(&findings, &abilities, mend.as_deref()),
        Format::Json => render::json(&serde_json::json!({
            "runners": abilities,
            "findings": findings,
            "mend": mend,
        })),
    }
    let is_asked = |ability: &&Ability| args.on.is_empty() || args.on.contains(&ability.runner);
    let lacking: Vec<&Ability> = abilities.iter().filter(is_asked).filter(|ability| !ability.can).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let list: Vec<&str> = lacking.iter().map(|ability| ability.runner.word()).collect();
    Err(Failure::Machine(anyhow!("not everything runs on this machine: {}", list.join(", "))))
}

fn examine(is_root: bool) -> Vec<Finding> {
    let mut findings = machine::examine(is_root);
    findings.extend(programs::examine());
    findings.extend(leftovers::examine());
    findings
}

fn print_text(findings: &[Finding], abilities: &[Ability], mend: Option<&str>) {
    let able: Vec<String> = abilities.iter().map(Ability::text).collect();
    render::line(&able.join(" · "));
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for Finding { name, state, detail, needed_for, advice, .. } in findings {
        let word = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Missing => "missing",
        };
        render::line(&format!("{word:<8} {name:<width$}  {detail}"));
        if let Some(what) = needed_for.filter(|_| *state != State::Ok) {
            render::line(&format!("{:<8} {:<width$}    needed for {what}", "", ""));
        }
        if let Some(advice) = advice {
            render::line(&format!("{:<8} {:<width$}    {advice}", "", ""));
        }
    }
    if let Some(command) = mend {
        render::line(&format!("mend it: {command}"));
    }
}

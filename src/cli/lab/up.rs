//! `stateway lab up`, `down` and `ls`.

use super::super::{Failure, Result};
use super::{Format, load, name_of, say, tell};
use crate::cli::render::progress;
use crate::lab::Lab;
use crate::lab::model::RunnerKind;
use crate::lab::netns::command::Interrupt;
use crate::lab::netns::state::{self, State};
use crate::lab::netns::{Namespaces, programs};
use crate::lab::{kernel, live};
use serde_json::json;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct UpArgs {
    /// A folder with a lab.yaml, or the file
    lab: PathBuf,
    /// What stands between the hosts: stateway on TAPs, or the kernel with the same rules
    #[arg(long, value_enum, default_value_t)]
    on: Between,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Between {
    #[default]
    Live,
    Kernel,
}

#[derive(Debug, clap::Args)]
pub(super) struct DownArgs {
    /// A folder with a lab.yaml, the file, or the name of a lab that is up
    #[arg(required_unless_present = "all")]
    labs: Vec<PathBuf>,
    /// Every lab that is up
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct LsArgs {
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn up(args: UpArgs) -> Result {
    let lab = load(&args.lab)?;
    takes_root("a lab that stays up", "; `stateway lab test` does without root")?;
    let interrupt = Interrupt::listen().map_err(Failure::Machine)?;
    let kind = match args.on {
        Between::Live => RunnerKind::Live,
        Between::Kernel => RunnerKind::Kernel,
    };
    if let Some(record) = state::read(&lab.name) {
        if record.complete {
            check_kind(&record, kind)?;
            say(&format!("the lab `{}` is up already, from {}", lab.name, record.file.display()));
            return Ok(());
        }
        tell(&format!("taking away what an interrupted command left of `{}`", lab.name));
        state::remove(&lab.name, &interrupt).map_err(Failure::Machine)?;
    }
    let (name, hosts) = (lab.name.clone(), lab.hosts.len());
    let mut namespaces = bring_up(lab, kind, &interrupt)?;
    namespaces.state.finish().map_err(Failure::Machine)?;
    drop(namespaces);
    let between = if kind == RunnerKind::Kernel { ", the kernel between them" } else { "" };
    say(&format!("the lab `{name}` is up: {hosts} hosts{between}"));
    Ok(())
}

/// Brings a lab up, live or on the kernel, or says what the machine lacks.
pub(super) fn bring_up(lab: Lab, kind: RunnerKind, interrupt: &Interrupt) -> Result<Namespaces> {
    let missing = programs::missing(&lab, kind);
    if !missing.is_empty() {
        return Err(Failure::Machine(anyhow::anyhow!("{}", missing.join("\nerror: "))));
    }
    let report = &mut |text: &str| progress(text);
    let result = match kind {
        RunnerKind::Kernel => kernel::up(lab, interrupt, report),
        RunnerKind::Live | RunnerKind::Sim => live::up(lab, interrupt, report),
    };
    progress("");
    result.map_err(Failure::Machine)
}

pub(super) fn down(args: DownArgs) -> Result {
    let interrupt = Interrupt::listen().map_err(Failure::Machine)?;
    let mut names = Vec::new();
    if args.all {
        names.extend(state::all().into_iter().map(|record| record.lab));
    }
    for lab in &args.labs {
        names.push(name_of(lab)?);
    }
    for name in names {
        let there = state::is_there(&name) && {
            takes_root("taking a lab down", "")?;
            state::remove(&name, &interrupt).map_err(Failure::Machine)?
        };
        let what = if there { "is down" } else { "is not up" };
        say(&format!("the lab `{name}` {what}"));
    }
    Ok(())
}

/// Says so where an ordinary user tries what only root may.
pub(super) fn takes_root(what: &str, or_else: &str) -> Result {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::Machine(anyhow::anyhow!("{what} takes root\n  hint: run it with `sudo`{or_else}")))
}

pub(super) fn ls(args: LsArgs) -> Result {
    let records = state::all();
    for record in &records {
        let health = health(record);
        let hosts = record.members().count().saturating_sub(1);
        match args.format {
            Format::Json => say(&json!({
                "lab": record.lab,
                "runner": record.runner,
                "state": health,
                "hosts": hosts,
                "file": record.file,
                "control": record.control,
            })
            .to_string()),
            Format::Text => {
                say(&format!(
                    "{:<20} {:<7} {:<9} {hosts:>4} hosts  {}",
                    record.lab,
                    record.runner,
                    health,
                    record.file.display()
                ));
            }
        }
    }
    if records.is_empty() && args.format == Format::Text {
        tell("no lab is up");
    }
    Ok(())
}

/// `up`; `at work` while a command makes, tests or removes it; `half up` if such a command was interrupted; `broken` if the
/// router is gone.
pub(in crate::cli) fn health(record: &state::Record) -> &'static str {
    let router = record.control.as_ref().is_none_or(|socket| match UnixStream::connect(socket) {
        Ok(_) => true,
        // An ordinary user may not ask it.
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    });
    match (record.complete, router) {
        (true, true) => "up",
        (true, false) => "broken",
        (false, _) if state::is_held(&record.lab) => "at work",
        (false, _) => "half up",
    }
}

/// A lab that is up as something else is somebody's work: it is left alone.
fn check_kind(record: &state::Record, kind: RunnerKind) -> Result {
    if record.runner == kind.word() {
        return Ok(());
    }
    Err(Failure::Machine(anyhow::anyhow!(
        "the lab `{}` is up already, on {}\n  hint: `stateway lab down {}` first",
        record.lab,
        record.runner,
        record.lab
    )))
}

/// Takes hold of a lab that is up and whole.
pub(super) fn attach(lab: Lab, kind: RunnerKind, interrupt: &Interrupt) -> Result<Option<Namespaces>> {
    let Some(record) = state::read(&lab.name).filter(|record| record.complete) else { return Ok(None) };
    check_kind(&record, kind)?;
    let state = State::attach(&lab.name, interrupt.clone()).map_err(Failure::Machine)?;
    let Some(state) = state else { return Ok(None) };
    let attached = match kind {
        RunnerKind::Kernel => kernel::attach(lab, state),
        RunnerKind::Live | RunnerKind::Sim => live::attach(lab, state),
    };
    attached.map(Some).map_err(Failure::Machine)
}

//! `stateway lab up`, `down` and `ls`.

use super::super::{Failure, Result};
use super::named::{self, Named, named};
use super::{Format, Voice, Words, load, say, tell, utter};
use serde_json::json;
use stateway_lab::Lab;
use stateway_lab::builtin;
use stateway_lab::model::RunnerKind;
use stateway_lab::netns::command::Interrupt;
use stateway_lab::netns::init::Init;
use stateway_lab::netns::origin::{self, Origin};
use stateway_lab::netns::state::{self, Record, State};
use stateway_lab::netns::{Namespaces, programs};
use stateway_lab::{kernel, live};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct UpArgs {
    /// A folder with a lab.yaml, the file, or the name of a built-in lab
    lab: PathBuf,
    /// What stands between the hosts: stateway on TAPs, or the kernel with the same rules
    #[arg(long, value_enum, default_value_t)]
    on: Between,
    /// If a lab of that name is up, take it down first
    #[arg(long)]
    restart: bool,
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
    // It tells of its way only what may be lost.
    let aloud: Voice<'_> = &|words| drop(utter(words));
    let kind = match args.on {
        Between::Live => RunnerKind::Live,
        Between::Kernel => RunnerKind::Kernel,
    };
    if let Standing::Up(record) = make_way(&lab, kind, args.restart, &interrupt, aloud)? {
        if health(&record) != BROKEN {
            return say(&format!(
                "the lab `{}` is up already, from {}",
                lab.name,
                builtin::shown(&record.file)
            ));
        }
        tell(&format!("the lab `{}` is broken, since its router has ended: it is built again", lab.name));
        state::remove(&lab.name, &interrupt).map_err(Failure::Machine)?;
    }
    let (name, hosts) = (lab.name.clone(), lab.hosts.len());
    let mut namespaces = bring_up(lab, kind, &interrupt, aloud)?;
    namespaces.finish().map_err(Failure::Machine)?;
    drop(namespaces);
    let between = match kind {
        RunnerKind::Kernel => ", the kernel between them".to_owned(),
        _ => format!(", log {}", state::folder().join(&name).join(state::LOG).display()),
    };
    say(&format!("the lab `{name}` is up: {hosts} hosts{between}"))
}

/// Builds a lab again from its file, with what stood between its hosts; one that is not up comes up.
pub(super) fn restart(lab: &Path, record: Option<&Record>) -> Result {
    let is_kernel = record.is_some_and(|record| record.runner == RunnerKind::Kernel.word());
    let file = record.map(|record| &record.file).filter(|file| file.exists());
    let on = if is_kernel { Between::Kernel } else { Between::Live };
    up(UpArgs { lab: file.map_or(lab, PathBuf::as_path).to_owned(), on, restart: true })
}

/// What of a lab is there before a command begins.
pub(super) enum Standing {
    Nothing,
    /// It was up, and was taken down to be made anew.
    TakenDown,
    /// It is up, from the very files that were just read.
    Up(Box<Record>),
}

/// Takes away what an interrupted command left of the lab, or, if the user wants so, all of it. What is up as something
/// else is left alone.
pub(super) fn make_way(
    lab: &Lab,
    kind: RunnerKind,
    restart: bool,
    interrupt: &Interrupt,
    voice: Voice<'_>,
) -> Result<Standing> {
    let Some(record) = state::read(&lab.name) else { return Ok(Standing::Nothing) };
    let origin = origin::compare(&record, lab);
    if record.complete && !restart {
        return match origin {
            Origin::Same => check_kind(&record, kind).map(|()| Standing::Up(Box::new(record))),
            Origin::Elsewhere => Err(named::elsewhere(&record, &lab.file)),
            Origin::Changed(source) => Err(named::changed(&record, &source)),
        };
    }
    let what = match record.complete {
        true => "taking down",
        false if state::is_held(&lab.name) => "waiting for the command that builds or tests",
        false => "taking away what an interrupted command left of",
    };
    voice(Words::Told(format!("{what} `{}`, from {}", lab.name, builtin::shown(&record.file))));
    state::remove(&lab.name, interrupt).map_err(Failure::Machine)?;
    Ok(if record.complete { Standing::TakenDown } else { Standing::Nothing })
}

/// Brings a lab up, live or on the kernel, or says what the machine lacks.
pub(super) fn bring_up(
    lab: Lab,
    kind: RunnerKind,
    interrupt: &Interrupt,
    voice: Voice<'_>,
) -> Result<Namespaces> {
    let missing = programs::missing(&lab, kind);
    if !missing.is_empty() {
        return Err(Failure::Machine(anyhow::anyhow!("{}", missing.join("\nerror: "))));
    }
    let report = &mut |text: &str| voice(Words::Progress(text.to_owned()));
    let result = match kind {
        RunnerKind::Kernel => kernel::up(lab, interrupt, report),
        RunnerKind::Live | RunnerKind::Sim => live::up(lab, interrupt, report),
    };
    report("");
    let namespaces = result.map_err(Failure::Machine)?;
    // The router has read the files for itself, a moment later than we.
    let Some(source) = origin::changed_since(&namespaces.state.record) else { return Ok(namespaces) };
    let error = anyhow::anyhow!("{} was changed while the lab was built from it", source.display());
    let State { record, lock, .. } = namespaces.state;
    state::remove_locked(&record.lab, &lock).map_err(Failure::Machine)?;
    Err(Failure::Input(error))
}

pub(super) fn down(args: DownArgs) -> Result {
    let interrupt = Interrupt::listen().map_err(Failure::Machine)?;
    let mut names = Vec::new();
    if args.all {
        names.extend(state::all().into_iter().map(|record| record.lab));
    }
    for lab in &args.labs {
        let Named { name, .. } = named(lab)?;
        names.push(name);
    }
    let mut said = Ok(());
    for name in names {
        let there = state::is_there(&name) && {
            takes_root("taking a lab down", "")?;
            state::remove(&name, &interrupt).map_err(Failure::Machine)?
        };
        let what = if there { "is down" } else { "is not up" };
        // The others go down even if nobody hears of it.
        said = said.and(say(&format!("the lab `{name}` {what}")));
    }
    said
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
        let line = match args.format {
            Format::Json => json!({
                "lab": record.lab,
                "runner": record.runner,
                "state": health,
                "hosts": hosts,
                "file": builtin::shown(&record.file).to_string(),
                "control": record.control,
            })
            .to_string(),
            Format::Text => format!(
                "{:<20} {:<7} {:<9} {hosts:>4} hosts  {}",
                record.lab,
                record.runner,
                health,
                builtin::shown(&record.file)
            ),
        };
        say(&line)?;
    }
    if records.is_empty() && args.format == Format::Text {
        tell("no lab is up");
    }
    Ok(())
}

/// Its router, or all of its processes, have ended.
const BROKEN: &str = "broken";

/// `up`; `at work` while a command makes, tests or removes it; `half up` if such a command was interrupted; `broken` if its
/// processes are gone.
pub(in crate::cli) fn health(record: &Record) -> &'static str {
    let router = record.control.as_ref().is_none_or(|socket| match UnixStream::connect(socket) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound),
    });
    match (record.complete, router && Init::of(&record.lab).is_some()) {
        (true, true) => "up",
        (true, false) => BROKEN,
        (false, _) if state::is_held(&record.lab) => "at work",
        (false, _) => "half up",
    }
}

/// A lab that is up as something else is somebody's work: it is left alone.
fn check_kind(record: &Record, kind: RunnerKind) -> Result {
    if record.runner == kind.word() {
        return Ok(());
    }
    Err(Failure::Machine(anyhow::anyhow!(
        "the lab `{}` is up already, on {}\n  hint: `stateway lab down {}` first, or `--restart`",
        record.lab,
        record.runner,
        record.lab
    )))
}

/// Takes hold of a lab that is up and whole.
pub(super) fn attach(lab: Lab, kind: RunnerKind, interrupt: &Interrupt) -> Result<Option<Namespaces>> {
    let state = State::attach(&lab.name, interrupt.clone()).map_err(Failure::Machine)?;
    let Some(state) = state.filter(|state| state.record.complete) else { return Ok(None) };
    let attached = match kind {
        RunnerKind::Kernel => kernel::attach(lab, state),
        RunnerKind::Live | RunnerKind::Sim => live::attach(lab, state),
    };
    attached.map(Some).map_err(Failure::Machine)
}

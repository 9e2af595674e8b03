//! `stateway lab exec`, `shell`, `ssh` and `inspect`: looking around in a lab that is up.

use super::super::{Failure, Result};
use super::up::{health, takes_root};
use super::{Format, named, say, tell};
use serde_json::json;
use stateway_lab::builtin;
use stateway_lab::error;
use stateway_lab::live::RouterProcess;
use stateway_lab::live::capture::{self, Target};
use stateway_lab::netns::command::Interrupt;
use stateway_lab::netns::state::{self, Record, folder, netns_name};
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct ExecArgs {
    /// A folder with a lab.yaml, the file, or the name of a lab that is up
    lab: PathBuf,
    /// A host of the lab, or `router`
    host: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShellArgs {
    /// A folder with a lab.yaml, the file, or the name of a lab that is up
    lab: PathBuf,
    /// A host of the lab, or `router`
    host: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct SshArgs {
    /// Which lab, if several are up
    #[arg(long)]
    lab: Option<PathBuf>,
    /// The host to start from
    from: String,
    /// The host to log in to, or an address
    to: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// A folder with a lab.yaml, the file, or the name of a lab that is up
    lab: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct CaptureArgs {
    /// A folder with a lab.yaml, the file, or the name of a lab that is up
    lab: PathBuf,
    /// Ports of the router; all of them unless told otherwise
    ports: Vec<String>,
    /// A folder that gets a PORT.pcapng for each port, a FILE.pcapng for all of them, or `-` for standard output
    #[arg(long, short, value_name = "WHERE", default_value = ".")]
    write: PathBuf,
    /// Stop after so long (`10s`); otherwise at Ctrl-C
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

#[cfg(feature = "web")]
#[derive(Debug, clap::Args)]
pub(super) struct WebArgs {
    /// A folder with a lab.yaml, the file, or the name of a lab that is up
    lab: PathBuf,
    #[command(flatten)]
    options: crate::cli::web::Options,
}

#[cfg(feature = "web")]
pub(super) fn web(args: &WebArgs) -> Result {
    let record = named::up(&args.lab)?;
    crate::cli::web::lab(&args.lab, &record, &args.options)
}

impl CaptureArgs {
    fn target(&self) -> Result<Target> {
        let extension = self.write.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if self.write == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(Failure::Input(anyhow::anyhow!(
                    "a capture is nothing to read on a terminal\n  hint: `-w - | wireshark -k -i -`, `-w - | tcpdump -r -`"
                )));
            }
            return Ok(Target::Stdout);
        }
        if self.write.is_dir() {
            return Ok(Target::Folder(self.write.clone()));
        }
        match extension {
            "pcapng" => Ok(Target::File(self.write.clone())),
            "pcap" | "cap" => Err(Failure::Input(anyhow::anyhow!(
                "`{}`: what is written is pcapng\n  hint: call it `{}`",
                self.write.display(),
                self.write.with_extension("pcapng").display()
            ))),
            _ => Ok(Target::Folder(self.write.clone())),
        }
    }
}

pub(super) fn capture(args: CaptureArgs) -> Result {
    let record = named::up(&args.lab)?;
    takes_root("a capture", "")?;
    let all: Vec<&str> = record.ports.iter().map(String::as_str).collect();
    if let Some(name) = args.ports.iter().find(|name| !all.contains(&name.as_str())) {
        let hint =
            error::hint(name, all, "ports").map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        return Err(Failure::Input(anyhow::anyhow!("the lab `{}` has no port `{name}`{hint}", record.lab)));
    }
    let is_wanted = |port: &&str| args.ports.is_empty() || args.ports.iter().any(|wanted| wanted == port);
    let ports: Vec<&str> = all.into_iter().filter(is_wanted).collect();
    let plan = capture::Plan { ports: &ports, target: args.target()?, duration: args.duration };
    let interrupt = Interrupt::listen().map_err(Failure::Machine)?;
    let router = RouterProcess::of(&record).map_err(Failure::Machine)?;
    let ready = || tell(if args.duration.is_none() { "capturing; Ctrl-C ends it" } else { "capturing" });
    let done = capture::capture(&record, &router, &plan, &interrupt, ready).map_err(Failure::Machine)?;
    for (file, frames) in &done.files {
        let line = format!("{file}: {frames} frames");
        if plan.target == Target::Stdout { tell(&line) } else { say(&line)? }
    }
    if done.dropped > 0 {
        tell(&format!("warning: {} frames came too fast and are not in the capture", done.dropped));
    }
    if done.untold > 0 {
        tell(&format!("warning: of {} packets it is not known what became of them", done.untold));
    }
    Ok(())
}

pub(super) fn exec(args: ExecArgs) -> Result {
    let record = named::up(&args.lab)?;
    become_inside(&record, &args.host, args.command)
}

pub(super) fn shell(args: ShellArgs) -> Result {
    let record = named::up(&args.lab)?;
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    become_inside(&record, &args.host, vec![shell])
}

pub(super) fn ssh(args: SshArgs) -> Result {
    let record = match &args.lab {
        Some(lab) => named::up(lab)?,
        None => the_only_one()?,
    };
    takes_root("entering a host", "")?;
    let config = folder().join(&record.lab).join("ssh/config");
    if !config.exists() {
        return Err(Failure::Input(anyhow::anyhow!("no host of the lab `{}` serves ssh", record.lab)));
    }
    let mut words: Vec<OsString> = vec!["ssh".into(), "-F".into(), config.into(), args.to.into()];
    words.extend(args.command);
    become_inside(&record, &args.from, words)
}

fn the_only_one() -> Result<Record> {
    let mut records = state::all();
    match records.len() {
        0 => Err(Failure::Input(anyhow::anyhow!("no lab is up\n  hint: `stateway lab up LAB`"))),
        1 => Ok(records.remove(0)),
        _ => {
            let names: Vec<&str> = records.iter().map(|record| record.lab.as_str()).collect();
            Err(Failure::Input(anyhow::anyhow!(
                "several labs are up\n  hint: `--lab` with one of {}",
                names.join(", ")
            )))
        }
    }
}

/// Becomes another program, inside a host.
fn become_inside(record: &Record, host: &str, command: Vec<OsString>) -> Result {
    let netns = netns_name(&record.lab, host);
    if !record.netns.contains(&netns) {
        let hosts: Vec<&str> = record.members().collect();
        let hint =
            error::hint(host, hosts, "hosts").map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        return Err(Failure::Input(anyhow::anyhow!("the lab `{}` has no host `{host}`{hint}", record.lab)));
    }
    takes_root("entering a host", "")?;
    let mut words = state::entry(&record.lab, host).map_err(Failure::Machine)?.words();
    words.extend(command);
    let (program, rest) = (words[0].clone(), &words[1..]);
    // Only comes back if it fails.
    let error = Command::new(&program).args(rest).exec();
    Err(Failure::Machine(anyhow::anyhow!("cannot run `{}`: {error}", program.to_string_lossy())))
}

pub(super) fn inspect(args: InspectArgs) -> Result {
    let record = named::up(&args.lab)?;
    let hosts: Vec<_> = record
        .hosts
        .iter()
        .map(|host| {
            json!({
                "host": host.host,
                "netns": netns_name(&record.lab, &host.host),
                "port": host.port,
                "addresses": host.addresses,
                "mac": host.mac,
                "services": host.services,
            })
        })
        .collect();
    if args.format == Format::Json {
        let all = json!({
            "lab": record.lab, "runner": record.runner, "state": health(&record), "file": builtin::shown(&record.file).to_string(),
            "control": record.control, "hosts": hosts,
        });
        return say(&all.to_string());
    }
    say(&format!(
        "{}: {}, {} ({})",
        record.lab,
        health(&record),
        record.runner,
        builtin::shown(&record.file)
    ))?;
    if let Some(control) = &record.control {
        say(&format!("router   {}   control {}", netns_name(&record.lab, "router"), control.display()))?;
    }
    for host in hosts {
        let list = |key: &str| {
            let items = host[key].as_array().into_iter().flatten().filter_map(|item| item.as_str());
            items.collect::<Vec<_>>().join(" ")
        };
        let word = |key: &str| host[key].as_str().unwrap_or_default().to_owned();
        say(&format!(
            "{:<12} {:<24} port {:<12} {:<36} {}",
            word("host"),
            word("netns"),
            word("port"),
            list("addresses"),
            list("services")
        ))?;
    }
    Ok(())
}

//! Which running router a command speaks to.

use crate::cli::lab::Named;
use crate::cli::{Failure, Result, lab};
use anyhow::anyhow;
use stateway_lab::netns::state;
use stateway_runtime::control::{Client, place};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const HINT: &str = "hint: run it with `sudo`";

/// Which running router is meant.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RouterArgs {
    /// The router's control socket; by default that of the one that runs
    #[arg(long, value_name = "SOCKET", conflicts_with = "lab")]
    control: Option<PathBuf>,
    /// The router of a lab that is up: its name, its folder or its file
    #[arg(long, value_name = "LAB")]
    lab: Option<PathBuf>,
}

impl RouterArgs {
    /// The router of one lab.
    pub(in crate::cli) fn of(lab: &Path) -> Self {
        Self { control: None, lab: Some(lab.to_owned()) }
    }

    /// The router that listens at this control socket.
    pub(in crate::cli) fn at(socket: &Path) -> Self {
        Self { control: Some(socket.to_owned()), lab: None }
    }

    /// Whether it is said which router is meant: a second look finds the same one.
    pub(in crate::cli) const fn names_one(&self) -> bool {
        self.control.is_some() || self.lab.is_some()
    }

    pub(in crate::cli) fn connect(&self) -> Result<Client> {
        match (&self.control, &self.lab) {
            (Some(path), _) => of_socket(path),
            (None, Some(lab)) => of_lab(lab),
            (None, None) => of_socket(&the_only_one()?),
        }
    }
}

fn of_socket(path: &Path) -> Result<Client> {
    if is_forbidden(path) {
        // Where its folder is shut, that one's owner is told.
        let seen = path.ancestors().find_map(|place| fs::metadata(place).ok());
        let is_root = seen.is_some_and(|file| file.uid() == 0);
        let owner = if is_root { "root, and answers root alone" } else { "another user" };
        return Err(Failure::Machine(anyhow!(
            "the router at {} belongs to {owner}\n  {HINT}",
            path.display()
        )));
    }
    Client::connect(path).map_err(Failure::Input)
}

fn of_lab(lab: &Path) -> Result<Client> {
    let Named { name, record } = lab::named(lab)?;
    let Some(record) = record else {
        return Err(Failure::Input(anyhow!(
            "the lab `{name}` is not up\n  hint: `stateway lab up {}`",
            lab.display()
        )));
    };
    let socket = record.control.ok_or_else(|| {
        Failure::Input(anyhow!(
            "in the lab `{name}` the kernel stands between the hosts: no router of ours is running"
        ))
    })?;
    if is_forbidden(&socket) {
        return Err(Failure::Machine(of_roots_labs(&[format!("`{name}`")])));
    }
    Client::connect(&socket).map_err(|error| {
        Failure::Input(anyhow!(
            "the router of the lab `{name}` has ended ({error:#})\n  hint: `stateway lab up` builds it again, \
             `stateway lab down {name}` takes the rest away"
        ))
    })
}

/// The control socket of the one router that runs, and that we may ask.
fn the_only_one() -> Result<PathBuf> {
    let mut sockets = place::running().map_err(Failure::Input)?;
    match sockets.len() {
        1 => Ok(sockets.remove(0)),
        0 => match of_root() {
            Some(error) => Err(Failure::Machine(error)),
            None => place::of_the_only_one().map_err(Failure::Input),
        },
        _ => {
            let labs = state::all();
            let option = |socket: &PathBuf| match labs.iter().find(|lab| lab.control.as_ref() == Some(socket))
            {
                Some(record) => format!("  --lab {}", record.lab),
                None => format!("  --control {}", socket.display()),
            };
            let list: Vec<String> = sockets.iter().map(option).collect();
            Err(Failure::Input(anyhow!("several routers are running, so say which:\n{}", list.join("\n"))))
        }
    }
}

/// Why an ordinary user finds no router though root runs some.
fn of_root() -> Option<anyhow::Error> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let labs: Vec<String> = state::all()
        .into_iter()
        .filter(|record| record.control.as_ref().is_some_and(|socket| is_forbidden(socket)))
        .map(|record| format!("`{}`", record.lab))
        .collect();
    if !labs.is_empty() {
        return Some(of_roots_labs(&labs));
    }
    let folder = Path::new("/run/stateway");
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Some(anyhow!(
                "a router may be running, but {} is for root alone\n  {HINT}",
                folder.display()
            ));
        }
        Err(_) => return None,
    };
    let socket = entries
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|path| is_forbidden(path))?;
    Some(anyhow!("the router at {} belongs to root, and answers root alone\n  {HINT}", socket.display()))
}

/// Where labs are root's; several are told apart by an option.
fn of_roots_labs(labs: &[String]) -> anyhow::Error {
    match labs {
        [lab] => anyhow!("the router of the lab {lab} belongs to root, and answers root alone\n  {HINT}"),
        labs => anyhow!(
            "the routers of the labs {} belong to root, and answer root alone\n  {HINT}, and with `--lab NAME`",
            labs.join(", ")
        ),
    }
}

/// Whether somebody else's router listens there, who does not let us in.
fn is_forbidden(socket: &Path) -> bool {
    UnixStream::connect(socket).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

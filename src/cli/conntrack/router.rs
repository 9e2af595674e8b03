//! Which running router a command speaks to.

use crate::cli::lab::Named;
use crate::cli::{Failure, Result, lab};
use anyhow::anyhow;
use stateway_lab::netns::state;
use stateway_runtime::control::{Client, place};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

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
    pub(in crate::cli) fn connect(&self) -> Result<Client> {
        let path = match (&self.control, &self.lab) {
            (Some(path), _) => path.clone(),
            (None, Some(lab)) => of_lab(lab)?,
            (None, None) => the_only_one()?,
        };
        if is_forbidden(&path) {
            return Err(Failure::Machine(anyhow!(
                "the router at {} belongs to another user\n  hint: run it with `sudo`",
                path.display()
            )));
        }
        Client::connect(&path).map_err(Failure::Input)
    }
}

fn of_lab(lab: &Path) -> Result<PathBuf> {
    let Named { name, record } = lab::named(lab)?;
    let Some(record) = record else {
        return Err(Failure::Input(anyhow!(
            "the lab `{name}` is not up\n  hint: `stateway lab up {}`",
            lab.display()
        )));
    };
    record.control.ok_or_else(|| {
        Failure::Input(anyhow!(
            "in the lab `{name}` the kernel stands between the hosts: no router of ours is running"
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
    const HINT: &str = "hint: run it with `sudo`";
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let labs: Vec<String> = state::all()
        .into_iter()
        .filter(|record| record.control.as_ref().is_some_and(|socket| is_forbidden(socket)))
        .map(|record| format!("`{}`", record.lab))
        .collect();
    if !labs.is_empty() {
        let noun = if labs.len() == 1 { "the router of the lab" } else { "the routers of the labs" };
        let verb = if labs.len() == 1 { "belongs" } else { "belong" };
        return Some(anyhow!("{noun} {} {verb} to root, and answers root alone\n  {HINT}", labs.join(", ")));
    }
    let folder = Path::new("/run/stateway");
    let entries = match std::fs::read_dir(folder) {
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

/// Whether somebody else's router listens there, who does not let us in.
fn is_forbidden(socket: &Path) -> bool {
    UnixStream::connect(socket).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

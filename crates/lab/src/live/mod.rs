//! The live runner: hosts are namespaces whose network card is a TAP, and the router is this program.

#![forbid(unsafe_code)]

pub mod capture;
mod reload;
mod router;

use super::model::{Lab, RunnerKind};
use super::netns::build::{self, Wire};
use super::netns::command::Interrupt;
use super::netns::init::Init;
use super::netns::state::{self, State};
use super::netns::{Namespaces, names, services};
pub use reload::reload;
pub use router::{RouterProcess, seen};

/// Says how far a lab has come up.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// Brings a lab up. On any failure, and on Ctrl-C, everything is taken away again.
pub fn up(lab: Lab, interrupt: &Interrupt, progress: Progress<'_>) -> anyhow::Result<Namespaces> {
    let state = State::begin(&lab, RunnerKind::Live, interrupt.clone())?;
    match make(&lab, &state, progress) {
        Ok(router) => Ok(Namespaces::new(lab, state, Box::new(router))),
        Err(error) => {
            state::remove_locked(&state.record.lab, &state.lock)?;
            Err(error)
        }
    }
}

fn make(lab: &Lab, state: &State, progress: Progress<'_>) -> anyhow::Result<RouterProcess> {
    progress("namespaces");
    names::prepare(lab, state)?;
    services::prepare_ssh(lab, state)?;
    Init::start(state)?;
    build::namespaces(lab, state)?;
    progress("router");
    let router = RouterProcess::start(state)?;
    progress("links");
    build::links(lab, state, Wire::Tap)?;
    hosts(lab, state, progress)?;
    Ok(router)
}

/// Sets up every host and starts what it serves; then waits for all of it.
pub fn hosts(lab: &Lab, state: &State, progress: Progress<'_>) -> anyhow::Result<()> {
    let count = lab.hosts.len();
    for (number, host) in lab.hosts.iter().enumerate() {
        progress(&format!("hosts {}/{count}", number + 1));
        build::host(host, state)?;
        services::start(host, state)?;
    }
    for host in lab.hosts.iter().filter(|host| !host.services.is_empty()) {
        progress(&format!("services of {}", host.name));
        services::await_ready(host, state)?;
    }
    Ok(())
}

/// Takes hold of a lab that is up.
pub fn attach(lab: Lab, state: State) -> anyhow::Result<Namespaces> {
    let router = RouterProcess::of(&state.record)?;
    Ok(Namespaces::new(lab, state, Box::new(router)))
}

//! The kernel runner: the same hosts, but what stands between them is Linux itself.
//!
//! The same rules are loaded with `iptables-legacy-restore`. In route mode the namespace of the router forwards
//! between its veths. The kernel's own bridge would show iptables only the bridge as `-i`, so proxy ARP, proxy ND
//! and host routes stand in for bridge mode, where `-i` is the port again.

#![forbid(unsafe_code)]

mod loaded;
mod nflog;
mod router;

use super::live::{Progress, hosts};
use super::model::{Lab, RunnerKind};
use super::netns::build::{self, Wire};
use super::netns::command::Interrupt;
use super::netns::init::Init;
use super::netns::state::{self, State};
use super::netns::{Namespaces, names, services};
pub use router::KernelRouter;

/// Brings a lab up with the kernel as its router. On any failure everything is taken away again.
pub fn up(lab: Lab, interrupt: &Interrupt, progress: Progress<'_>) -> anyhow::Result<Namespaces> {
    let state = State::begin(&lab, RunnerKind::Kernel, interrupt.clone())?;
    match make(&lab, &state, progress) {
        Ok(router) => Ok(Namespaces::new(lab, state, Box::new(router))),
        Err(error) => {
            state::remove_locked(&state.record.lab, &state.lock)?;
            Err(error)
        }
    }
}

fn make(lab: &Lab, state: &State, progress: Progress<'_>) -> anyhow::Result<KernelRouter> {
    progress("namespaces");
    names::prepare(lab, state)?;
    services::prepare_ssh(lab, state)?;
    Init::start(state)?;
    build::namespaces(lab, state)?;
    progress("links");
    build::links(lab, state, Wire::Veth)?;
    progress("router");
    let router = KernelRouter::start(lab, state)?;
    hosts(lab, state, progress)?;
    Ok(router)
}

/// Takes hold of a lab that is up.
pub fn attach(lab: Lab, state: State) -> anyhow::Result<Namespaces> {
    let router = KernelRouter::of(&lab, &state)?;
    Ok(Namespaces::new(lab, state, Box::new(router)))
}

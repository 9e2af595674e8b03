//! The keeper's process: it answers one router, and ends with it.

#![forbid(unsafe_code)]

use super::direct::open_file;
use super::wire::{self, Answer, Request, What};
use super::{Direct, Keeper as _, Plan, ReadConfig};
use crate::confine::{self, Access, CapabilitySet, Keeps, Role, User};
use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What it takes to set up an interface, and to read and write files of whatever owner.
const CAPABILITIES: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::DAC_OVERRIDE);

/// Serves the router at the other end of `socket` until it is gone.
///
/// # Errors
/// There is no router, or this process cannot be confined.
pub fn serve(socket: BorrowedFd<'_>, read_config: ReadConfig) -> anyhow::Result<()> {
    // A whole group is told to end, or to reload: the keeper ends once its router has.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let (plan, _) = wire::receive::<Plan>(socket)
        .context("this is started by `stateway run` alone")?
        .context("no plan")?;
    let keeps = Keeps {
        user: User::Same,
        capabilities: CAPABILITIES,
        paths: paths(&plan, read_config),
        role: Role::Keeper,
    };
    confine::process(&keeps)?;
    wire::send(socket, &Answer { number: 0, result: Ok(()) }, None)?;
    let keeper = Direct::new(plan, read_config);
    while let Some((Request { number, what }, _)) = wire::receive(socket)? {
        let (result, fd) = match carry_out(&keeper, what) {
            Ok(fd) => (Ok(()), fd),
            Err(error) => (Err(error.into()), None),
        };
        wire::send(socket, &Answer { number, result }, fd.as_ref())?;
    }
    keeper.remove_socket();
    Ok(())
}

fn carry_out(keeper: &Direct, what: What) -> io::Result<Option<OwnedFd>> {
    match what {
        What::OpenConfig(path) => keeper.open_config(Path::new(&path)).map(|file| Some(file.into())),
        What::OpenPort(name) => keeper.open_port(&name).map(Some),
        What::BeginState => keeper.begin_state().map(|file| Some(file.into())),
        What::FinishState { keep } => keeper.finish_state(keep).map(|()| None),
        What::RemoveSocket => {
            keeper.remove_socket();
            Ok(None)
        }
    }
}

/// Folders rather than files: editors replace a file, and a link may lead elsewhere.
fn paths(plan: &Plan, read_config: ReadConfig) -> Vec<(PathBuf, Access)> {
    let files = RefCell::new(vec![plan.lab.clone()]);
    let note = |path: &Path| {
        files.borrow_mut().push(path.to_owned());
        open_file(path)
    };
    // Errors were told by the router, before it started us.
    read_config(&plan.lab, &note);
    let folder = |path: &Path| path.parent().map(Path::to_owned);
    let mut paths: Vec<(PathBuf, Access)> = Vec::new();
    for file in files.into_inner() {
        let real = fs::canonicalize(&file).ok().as_deref().and_then(folder);
        paths.extend(folder(&file).into_iter().chain(real).map(|folder| (folder, Access::Read)));
    }
    paths.push((PathBuf::from("/dev/net/tun"), Access::Device));
    paths.extend(
        plan.state.as_deref().map(Path::new).and_then(folder).map(|folder| (folder, Access::Replace)),
    );
    paths.extend(
        plan.socket.as_ref().and_then(|socket| folder(&socket.path)).map(|folder| (folder, Access::Remove)),
    );
    paths
}

//! A keeper in a process of its own, seen from the router.

#![forbid(unsafe_code)]

use super::wire::{self, Answer, Request, What};
use super::{Keeper, Plan, Reach};
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The program's hidden subcommand that is a keeper.
pub const SUBCOMMAND: &str = "keeper";
/// A keeper that does not answer for so long is taken to be stuck, on a disk for example.
const PATIENCE: Duration = Duration::from_secs(5);

/// The keeper that this process started. It ends with this process, whatever ends that.
#[derive(Debug)]
pub struct KeeperProcess {
    line: Mutex<Line>,
    child: Mutex<Child>,
}

/// One question at a time.
#[derive(Debug)]
struct Line {
    socket: Option<OwnedFd>,
    number: u64,
}

impl KeeperProcess {
    /// Starts it, with the privileges that this process has, of which it gives up most.
    ///
    /// # Errors
    /// This program cannot be started again, or the keeper did not begin its work.
    pub fn start(plan: &Plan) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(PATIENCE))?;
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Send, Some(PATIENCE))?;
        let mut command = Command::new("/proc/self/exe");
        // What it says of itself goes where the router's own words go.
        command.arg(SUBCOMMAND).env_clear().current_dir("/").stdin(theirs).stdout(Stdio::null());
        let child = command.spawn()?;
        drop(command);
        let keeper =
            Self { line: Mutex::new(Line { socket: Some(ours), number: 0 }), child: Mutex::new(child) };
        keeper.line.lock().introduce(plan)?;
        Ok(keeper)
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().id()
    }

    /// The router ends: its control socket goes, and then the keeper.
    pub fn end(&self) {
        let _ = self.ask(What::RemoveSocket);
        self.line.lock().socket = None;
        let _ = self.child.lock().wait();
    }

    fn ask(&self, what: What) -> io::Result<Option<OwnedFd>> {
        self.line.lock().ask(what)
    }
}

impl Line {
    fn introduce(&self, plan: &Plan) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or_else(gone)?;
        wire::send(socket.as_fd(), plan, None)?;
        let (Answer { result, .. }, _) = wire::receive(socket.as_fd())?.ok_or_else(gone)?;
        Ok(result?)
    }

    fn ask(&mut self, what: What) -> io::Result<Option<OwnedFd>> {
        let socket = self.socket.as_ref().ok_or_else(gone)?.as_fd();
        self.number += 1;
        wire::send(socket, &Request { number: self.number, what }, None)?;
        loop {
            let (Answer { number, result }, fd) = wire::receive(socket)?.ok_or_else(gone)?;
            // One that came too late belongs to an earlier question.
            if number == self.number {
                return Ok(result.map(|()| fd)?);
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the router's keeper is gone; restart the router")
}

fn descriptor(fd: Option<OwnedFd>) -> io::Result<OwnedFd> {
    fd.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the router's keeper sent no descriptor"))
}

impl Keeper for KeeperProcess {
    fn open_config(&self, path: &Path) -> io::Result<File> {
        self.ask(What::OpenConfig(OsStr::new(path).to_owned())).and_then(descriptor).map(File::from)
    }

    fn open_port(&self, name: &str) -> io::Result<OwnedFd> {
        self.ask(What::OpenPort(name.to_owned())).and_then(descriptor)
    }

    fn replace_state(
        &self,
        reach: Reach,
        fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = self.ask(What::BeginState).and_then(descriptor).map(File::from)?;
        let filled = fill(&mut file).and_then(|()| reach.sync(&file));
        let finished = self.ask(What::FinishState { keep: filled.is_ok().then_some(reach) }).map(drop);
        filled.and(finished)
    }
}

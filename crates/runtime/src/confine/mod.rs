//! Giving privileges up, for good: a router holds what it opened at start and nothing else.
//!
//! ```text
//!   start ── opens ports, files, sockets ── process() ── threads, each narrow()ed to its role ── forwards
//!                                             │
//!                user and groups · capabilities · no new privileges · Landlock · system calls
//! ```
//!
//! [`process`] is called while there is one thread, so that every later one inherits all of it; [`narrow`] takes from a
//! thread what its role does not need. What a kernel, a container or a user namespace does not let us take away is
//! no error but said, see [`Report`].

#![forbid(unsafe_code)]

mod identity;
mod paths;
mod syscalls;

pub use identity::User;
pub use paths::Access;
pub use rustix::thread::CapabilitySet;
pub use syscalls::Role;

use anyhow::{Context as _, bail};
use crossbeam_channel::bounded;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Descriptors that a process may have besides those that are open, and twice as many again: clients of the control
/// socket, files of a reload. A worker takes two, for at least two ports; a port that is opened again takes one.
const MORE_DESCRIPTORS: u64 = 64;

/// Whether this process filters its system calls, and so each of its threads has to.
static FILTERS: AtomicBool = AtomicBool::new(false);

/// What a process keeps.
#[derive(Debug)]
pub struct Keeps {
    pub user: User,
    pub capabilities: CapabilitySet,
    /// Files and folders, and what may be done with them; nothing else is opened.
    pub paths: Vec<(PathBuf, Access)>,
    /// What any of its threads may ask of the kernel.
    pub role: Role,
}

/// What became of the privileges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What was taken away, as people say it.
    pub taken: Vec<String>,
    /// What could not be, and why.
    pub kept: Vec<String>,
}

impl Report {
    /// One line of it.
    pub fn line(&self) -> String {
        let kept = if self.kept.is_empty() { "nothing".to_owned() } else { self.kept.join(", ") };
        format!("confined: {}; kept: {kept}", self.taken.join(", "))
    }

    fn note(&mut self, what: &str, result: anyhow::Result<()>) {
        match result {
            Ok(()) => self.taken.push(what.to_owned()),
            Err(error) => self.kept.push(format!("{what} ({error:#})")),
        }
    }
}

/// Takes everything from this process but what it `keeps`.
///
/// # Errors
/// There is more than one thread; the user that was asked for cannot be had.
pub fn process(keeps: &Keeps) -> anyhow::Result<Report> {
    if fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() != 1) {
        bail!("a process with several threads cannot be confined");
    }
    let mut report = Report::default();
    limit_descriptors();
    report.note("bounding set", identity::clear_bounding_set(keeps.capabilities));
    identity::become_user(keeps.user, &mut report)?;
    report.note(
        if keeps.capabilities.is_empty() { "all capabilities" } else { "other capabilities" },
        identity::keep_capabilities(keeps.capabilities),
    );
    report.note("new privileges", rustix::thread::set_no_new_privs(true).map_err(Into::into));
    // Nobody of the same user looks into its memory either.
    report.note("core dumps", set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Into::into));
    paths::restrict(&keeps.paths, &mut report);
    let filtered = syscalls::begin(keeps.role);
    FILTERS.store(filtered.is_ok(), Ordering::Release);
    report.note("other system calls", filtered);
    Ok(report)
}

/// Takes from this thread, and from those that it starts, what its role does not need. Does nothing in a process
/// that is not confined.
///
/// # Panics
/// If the kernel refuses a filter after it took one: the thread must not run without.
pub fn narrow(role: Role) {
    if FILTERS.load(Ordering::Acquire) {
        syscalls::allow(role).expect("a kernel that filters system calls filters more of them");
    }
}

/// Starts a thread that is [`narrow`]ed to its role, and returns once it is.
///
/// # Errors
/// No thread is to be had.
pub fn spawn(name: &str, role: Role, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let (begins, is_narrow) = bounded::<()>(0);
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        narrow(role);
        drop(begins);
        run();
    })?;
    // Nothing is sent: that nobody can send any more is the message.
    let _ = is_narrow.recv();
    Ok(thread)
}

/// Leaves room for some descriptors more than there are.
fn limit_descriptors() {
    let Ok(open) = fs::read_dir("/proc/self/fd").map(Iterator::count) else { return };
    let old = getrlimit(Resource::Nofile);
    let most = 3 * open as u64 + MORE_DESCRIPTORS;
    let least = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    let new = Rlimit { current: least(old.current), maximum: least(old.maximum) };
    // A lower limit is never refused.
    let _ = setrlimit(Resource::Nofile, new);
}

/// Reads a user as `--user` has it: a name, or a number.
///
/// # Errors
/// There is no such user.
pub fn user(word: &str) -> anyhow::Result<User> {
    identity::parse(word).with_context(|| format!("no user `{word}`"))
}

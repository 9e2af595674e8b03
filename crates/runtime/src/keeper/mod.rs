//! What a running router cannot do by itself, and asks for.
//!
//! Once its ports are open a router gives up every privilege: it opens no file and no device any more. Three things
//! need more than that, and a [`Keeper`] does them and nothing else, for the names in its [`Plan`] and no others:
//!
//! ```text
//!   router ── open_config(path) ──→ keeper ──→ the lab file and what it names, again at every reload
//!          ── open_port(name) ────→        ──→ a TAP that vanished and is wanted back
//!          ── replace_state(fill) →        ──→ the state file, whole or not at all
//! ```
//!
//! Descriptors come back, never contents: the router reads and writes by itself. All of it may block, so no worker
//! asks, only the thread that carries orders out.

#![forbid(unsafe_code)]

mod direct;
mod process;
mod serve;
mod wire;

use crate::device::Kind;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use direct::Direct;
pub use process::{KeeperProcess, SUBCOMMAND};
pub use serve::serve;

/// Does for a router what takes a privilege.
pub trait Keeper: Debug + Send + Sync {
    /// Opens a file of the configuration for reading: [`Plan::lab`], or one that it names as it now stands.
    /// [`ReadConfig`] asks for all that it takes.
    ///
    /// # Errors
    /// With the kernel's reason; [`io::ErrorKind::PermissionDenied`] for every other file.
    fn open_config(&self, path: &Path) -> io::Result<File>;

    /// Makes the TAP of the port `name` again or attaches to it, as at start, with its MTU, and sets it up.
    /// [`crate::device::port_on`] makes a port of it.
    ///
    /// # Errors
    /// With the kernel's reason; [`io::ErrorKind::ResourceBusy`] while somebody else holds it.
    fn open_port(&self, name: &str) -> io::Result<OwnedFd>;

    /// Puts what `fill` writes in place of the state file: whoever reads it finds the old one or the new one, whole.
    ///
    /// # Errors
    /// With the kernel's reason, or that of `fill`: the old file stays. [`io::ErrorKind::Unsupported`] if the plan names none.
    fn replace_state(
        &self,
        reach: Reach,
        fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
    ) -> io::Result<()>;
}

/// Up to where a new state file is good once it is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// Whatever ends this process: the kernel has it.
    Process,
    /// Whatever ends this machine: the disk has it.
    Disk,
}

impl Reach {
    fn sync(self, file: &File) -> io::Result<()> {
        match self {
            Self::Process => Ok(()),
            Self::Disk => file.sync_all(),
        }
    }
}

/// Reads a lab file, and opens it and all that it names with the function that it is given. What is wrong with a file is
/// told elsewhere.
pub type ReadConfig = fn(&Path, &dyn Fn(&Path) -> io::Result<File>);

/// All that a keeper does anything about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The lab file, as an absolute path. It is looked up again each time, since editors replace files.
    #[serde(with = "any_bytes")]
    pub lab: PathBuf,
    pub ports: Vec<PortPlan>,
    /// The state file.
    pub state: Option<OsString>,
    /// The control socket, which is removed when the router ends.
    pub socket: Option<SocketPlan>,
}

/// A socket in the file system, and the inode that it is: whatever else lies there by then is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketPlan {
    #[serde(with = "any_bytes")]
    pub path: PathBuf,
    pub device: u64,
    pub inode: u64,
}

/// One port, as it is opened again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPlan {
    pub name: String,
    pub kind: Kind,
    pub mtu_bytes: usize,
}

impl Plan {
    fn port(&self, name: &str) -> io::Result<&PortPlan> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no port is called `{name}`"));
        self.ports.iter().find(|port| port.name == name).ok_or_else(unknown)
    }

    fn state(&self) -> io::Result<&Path> {
        let none = || io::Error::new(io::ErrorKind::Unsupported, "there is no state file");
        self.state.as_deref().map(Path::new).ok_or_else(none)
    }
}

/// Paths in JSON, whatever bytes they are made of.
mod any_bytes {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(from).map(PathBuf::from)
    }
}

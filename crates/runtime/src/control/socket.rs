//! The control socket itself: made for its owner alone, whatever the umask is, and known again by its inode.

use super::place::{self, MAX_SOCKET_PATH};
use crate::keeper::SocketPlan;
use anyhow::{Context as _, bail};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Clients that wait to be taken.
const BACKLOG: i32 = 64;
const OWNER_ALONE: u32 = 0o600;

/// A socket that clients may connect to, though nobody answers yet.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// The user who made it.
    pub(super) owner: u32,
}

impl ControlSocket {
    /// Makes it at `path`, which only the owner of this process can open.
    ///
    /// # Errors
    /// Somebody listens there already, or the path cannot be a socket.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            bail!("`{}` is too long for the path of a socket", path.display());
        }
        place::make_room(path)?;
        let listener = bind_privately(path)
            .with_context(|| format!("cannot make the control socket `{}`", path.display()))?;
        let owner = rustix::process::geteuid().as_raw();
        Ok(Self { listener, path: path.to_owned(), owner })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What has to be known to remove it, and nothing else that may lie there.
    ///
    /// # Errors
    /// It is gone already.
    pub fn plan(&self) -> io::Result<SocketPlan> {
        let path = std::path::absolute(&self.path)?;
        let file = fs::symlink_metadata(&path)?;
        Ok(SocketPlan { path, device: file.dev(), inode: file.ino() })
    }
}

/// Binds under a name that nobody knows, and gives the socket its own once only the owner may open it.
pub(super) fn bind_privately(path: &Path) -> io::Result<UnixListener> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push("~");
    let hidden = PathBuf::from(hidden);
    // Left by a router that was killed just then.
    if place::is_socket(&hidden) {
        let _ = fs::remove_file(&hidden);
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The file gets the mode that the socket has, less the umask: at no time may others connect.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(OWNER_ALONE))?;
    bind(&socket, &SocketAddrUnix::new(&hidden)?)?;
    // A umask may have taken from the owner, too.
    fs::set_permissions(&hidden, fs::Permissions::from_mode(OWNER_ALONE))
        .and_then(|()| Ok(listen(&socket, BACKLOG)?))
        .and_then(|()| fs::rename(&hidden, path))
        .inspect_err(|_| drop(fs::remove_file(&hidden)))?;
    Ok(socket.into())
}

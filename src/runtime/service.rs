//! What the service manager is told, if there is one that asked (`sd_notify(3)`).

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// The service manager's socket, connected at start: later on, a router opens nothing any more.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
}

impl ServiceManager {
    /// Connects to `$NOTIFY_SOCKET`. If nobody asked, or does not listen any more, there is nobody to tell.
    pub fn connect() -> Self {
        Self { socket: std::env::var_os("NOTIFY_SOCKET").and_then(|path| connect(&path)) }
    }

    /// Tells one assignment, as `READY=1`. Whoever does not listen has no use for an error.
    pub fn tell(&self, assignment: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(assignment.as_bytes());
        }
    }
}

fn connect(path: &OsStr) -> Option<UnixDatagram> {
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(path)),
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(&address.ok()?).ok()?;
    // A manager that is stuck must not hold up the router.
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

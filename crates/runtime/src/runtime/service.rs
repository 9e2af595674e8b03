//! What the service manager is told, if there is one that asked (`sd_notify(3)`): that the router forwards, that it
//! loads its rules again, that it ends, and, as long as every worker takes its turns, that it is alive.

use rustix::time::{ClockId, clock_gettime};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

/// The service manager, or nobody.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Connects to the one that the environment names: later on, a router opens nothing any more. If nobody asked, or
    /// does not listen any more, there is nobody to tell.
    pub fn connect() -> Self {
        let text = |name| std::env::var(name).ok();
        // A watchdog may be meant for another process, who left us his environment.
        let is_ours = text("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = text("WATCHDOG_USEC").filter(|_| is_ours).and_then(|usec| usec.parse().ok());
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").and_then(|path| connect(path.as_encoded_bytes())),
            watchdog: watchdog.filter(|usec| *usec > 0).map(Duration::from_micros),
        }
    }

    /// How often it wants to hear that the router is alive, with room for a word that comes late.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some()).map(|limit| limit / 3)
    }

    pub fn ready(&self) {
        self.tell("READY=1");
    }

    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// [`ServiceManager::ready`] says when it is over.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}{:06}", now.tv_sec, now.tv_nsec / 1000));
    }

    fn tell(&self, state: &str) {
        // Whoever asked and does not listen any more has no use for an error, and is not waited for.
        let _ = self.socket.as_ref().map(|socket| socket.send(state.as_bytes()));
    }
}

fn connect(path: &[u8]) -> Option<UnixDatagram> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(&*String::from_utf8_lossy(path))),
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect_addr(&address.ok()?).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_that_does_not_read_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listens = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager {
            socket: connect(path.as_os_str().as_encoded_bytes()),
            watchdog: Some(Duration::from_secs(3)),
        };
        assert_eq!(manager.watchdog_interval(), Some(Duration::from_secs(1)));
        manager.ready();
        for _ in 0..10_000 {
            manager.alive();
        }
        let mut word = [0; 64];
        let len = listens.recv(&mut word).unwrap();
        assert_eq!(&word[..len], b"READY=1");
    }
}

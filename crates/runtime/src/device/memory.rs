//! A port without a device: a pair of sockets in memory, so that the forwarding loop runs anywhere.

#![forbid(unsafe_code)]

use super::{HEADROOM, Kind, Port};
use crate::uninterrupted;
use stateway_core::packet::Offload;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The router's end.
#[derive(Debug)]
pub struct MemoryPort {
    name: String,
    socket: UnixDatagram,
}

/// The other end, where a host would be.
#[derive(Debug)]
pub struct FarEnd {
    socket: UnixDatagram,
}

/// A port called `name`, and its far end.
///
/// # Errors
/// No sockets are to be had.
pub fn port(name: &str) -> io::Result<(MemoryPort, FarEnd)> {
    let (near, far) = UnixDatagram::pair()?;
    near.set_nonblocking(true)?;
    Ok((MemoryPort { name: name.to_owned(), socket: near }, FarEnd { socket: far }))
}

impl FarEnd {
    /// Gives the router a frame.
    ///
    /// # Errors
    /// The router is gone.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// The next frame that the router sent, or `None` if it sends none for so long.
    ///
    /// # Errors
    /// The router is gone.
    pub fn recv(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        self.socket.set_read_timeout(Some(timeout))?;
        let mut frame = vec![0; super::SLOT_LEN];
        match uninterrupted(|| self.socket.recv(&mut frame)) {
            Ok(len) => {
                frame.truncate(len);
                Ok(Some(frame))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for MemoryPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Port for MemoryPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Memory
    }

    fn recv(&self, slot: &mut [u8]) -> io::Result<(usize, Offload)> {
        self.socket.recv(&mut slot[HEADROOM..]).map(|len| (len, Offload::NONE))
    }

    fn send(&self, slot: &mut [u8], len: usize, _: Offload) -> io::Result<()> {
        self.socket.send(&slot[HEADROOM..HEADROOM + len]).map(drop)
    }
}

//! The plain TAP port: one read, one frame. The only place that names `tun-tap`.

#![allow(unsafe_code, reason = "tun-tap hands its file descriptor over as a bare number")]

use super::{HEADROOM, Kind, Port, link};
use stateway_core::packet::Offload;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use tun_tap::{Iface, Mode};

/// A TAP device, made or attached to by name.
#[derive(Debug)]
pub struct TapPort {
    name: String,
    fd: OwnedFd,
}

impl TapPort {
    /// Makes the TAP `name` in the current network namespace, or attaches to it.
    ///
    /// # Errors
    /// With the kernel's reason: no `/dev/net/tun`, no privilege, the name is taken by something else.
    pub fn open(name: &str) -> io::Result<Self> {
        open_fd(name).map(|fd| Self::from_fd(name, fd))
    }

    /// The port on a descriptor that [`open_fd`] opened, here or in another process.
    pub fn from_fd(name: &str, fd: OwnedFd) -> Self {
        Self { name: name.to_owned(), fd }
    }
}

/// As [`TapPort::open`]: the descriptor alone.
///
/// # Errors
/// As [`TapPort::open`].
pub fn open_fd(name: &str) -> io::Result<OwnedFd> {
    let iface = Iface::without_packet_info(name, Mode::Tap)?;
    if iface.name() != name {
        let message = format!("the kernel calls it `{}`", iface.name());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    iface.set_non_blocking()?;
    // SAFETY: `iface` owned the descriptor and gives it up here, so nobody else closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(iface.into_raw_fd()) })
}

impl AsFd for TapPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Port for TapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Tap
    }

    fn replace(&self, by: BorrowedFd<'_>) -> io::Result<()> {
        link::put_under(by, self.fd.as_fd())
    }

    fn recv(&self, slot: &mut [u8]) -> io::Result<(usize, Offload)> {
        Ok((rustix::io::read(&self.fd, &mut slot[HEADROOM..])?, Offload::NONE))
    }

    fn send(&self, slot: &mut [u8], len: usize, _: Offload) -> io::Result<()> {
        rustix::io::write(&self.fd, &slot[HEADROOM..HEADROOM + len])?;
        Ok(())
    }
}

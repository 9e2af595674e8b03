//! The plain TAP port: one read, one frame. The only place that names `tun-tap`.

#![allow(unsafe_code, reason = "tun-tap lends its file descriptor as a bare number")]

use super::{HEADROOM, Kind, Port};
use crate::packet::Offload;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use tun_tap::{Iface, Mode};

/// A TAP device, made or attached to by name.
#[derive(Debug)]
pub struct TapPort {
    name: String,
    iface: Iface,
}

impl TapPort {
    /// Makes the TAP `name` in the current network namespace, or attaches to it.
    ///
    /// # Errors
    /// With the kernel's reason: no `/dev/net/tun`, no privilege, the name is taken by something else.
    pub fn open(name: &str) -> io::Result<Self> {
        let iface = Iface::without_packet_info(name, Mode::Tap)?;
        if iface.name() != name {
            let message = format!("the kernel calls it `{}`", iface.name());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        iface.set_non_blocking()?;
        Ok(Self { name: name.to_owned(), iface })
    }
}

impl AsFd for TapPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `iface` owns the descriptor and closes it only when it is dropped, with `self`.
        unsafe { BorrowedFd::borrow_raw(self.iface.as_raw_fd()) }
    }
}

impl Port for TapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Tap
    }

    fn recv(&self, slot: &mut [u8]) -> io::Result<(usize, Offload)> {
        self.iface.recv(&mut slot[HEADROOM..]).map(|len| (len, Offload::NONE))
    }

    fn send(&self, slot: &mut [u8], len: usize, _: Offload) -> io::Result<()> {
        self.iface.send(&slot[HEADROOM..HEADROOM + len]).map(drop)
    }
}

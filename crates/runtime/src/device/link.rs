//! What is set on a network interface besides its frames: its MTU, and that it is up.

#![allow(unsafe_code, reason = "ioctls take untyped pointers")]

use rustix::io::DupFlags;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// `struct ifreq` with an integer or flags in its union (netdevice(7)).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct IfReq {
    name: [u8; Self::NAME_LEN],
    value: IfReqValue,
}

/// The union of `struct ifreq`: 24 bytes on 64-bit machines, of which at most four matter here.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
struct IfReqValue {
    bytes: [u8; 24],
}

impl IfReq {
    /// `IFNAMSIZ`, with the NUL at the end.
    const NAME_LEN: usize = 16;

    pub(super) fn new(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() >= Self::NAME_LEN || name.contains(['\0', '/', '%']) {
            let message = format!("`{name}` cannot be the name of an interface");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut request = Self { name: [0; Self::NAME_LEN], value: IfReqValue { bytes: [0; 24] } };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.value.bytes[0], self.value.bytes[1]])
    }

    pub(super) fn set_flags(&mut self, flags: u16) {
        self.value.bytes[..2].copy_from_slice(&flags.to_ne_bytes());
    }

    fn set_int(&mut self, value: i32) {
        self.value.bytes[..4].copy_from_slice(&value.to_ne_bytes());
    }
}

const SIOCGIFFLAGS: Opcode = 0x8913;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFMTU: Opcode = 0x8922;
const TUNSETPERSIST: Opcode = 0x4004_54cb;
const IFF_UP: u16 = 1;

/// Keeps a TAP, and whatever is set on it, when nobody holds it open any more.
///
/// # Errors
/// With the kernel's reason.
pub fn keep(tap: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes a number for its argument, no pointer.
    unsafe { ioctl(tap, IntegerSetter::<TUNSETPERSIST>::new_usize(1)) }.map_err(io::Error::from)
}

/// Sets the MTU of the interface `name` in the current network namespace, and brings it up.
///
/// # Errors
/// With the kernel's reason.
pub fn bring_up(name: &str, mtu_bytes: usize) -> io::Result<()> {
    let socket = any_socket()?;
    let mut request = IfReq::new(name)?;
    request.set_int(mtu_bytes.try_into().unwrap_or(i32::MAX));
    // SAFETY: SIOCSIFMTU reads a `struct ifreq`, which `IfReq` is.
    unsafe { ioctl(&socket, Setter::<SIOCSIFMTU, _>::new(request)) }?;
    // SAFETY: SIOCGIFFLAGS reads and writes a `struct ifreq`, which `IfReq` is.
    unsafe { ioctl(&socket, Updater::<SIOCGIFFLAGS, _>::new(&mut request)) }?;
    request.set_flags(request.flags() | IFF_UP);
    // SAFETY: SIOCSIFFLAGS reads a `struct ifreq`, which `IfReq` is.
    unsafe { ioctl(&socket, Setter::<SIOCSIFFLAGS, _>::new(request)) }?;
    Ok(())
}

/// Asks which interfaces there are, in the network namespace in which it was made.
#[derive(Debug)]
pub struct Lookup {
    socket: OwnedFd,
}

impl Lookup {
    /// # Errors
    /// No socket is to be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self { socket: any_socket()? })
    }

    /// Whether there is an interface of this name.
    pub fn exists(&self, name: &str) -> bool {
        let Ok(mut request) = IfReq::new(name) else { return false };
        // SAFETY: SIOCGIFFLAGS reads and writes a `struct ifreq`, which `IfReq` is.
        unsafe { ioctl(&self.socket, Updater::<SIOCGIFFLAGS, _>::new(&mut request)) }.is_ok()
    }
}

/// Puts the file of `by` under the descriptor `at`, whose own file is let go of. Whoever uses `at` in another thread
/// meets the one or the other.
pub(super) fn put_under(by: BorrowedFd<'_>, at: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open, since it is borrowed, and stays so: dup3(2) closes it only to open it again in
    // the same moment, and `ManuallyDrop` keeps this second owner from closing it.
    let mut owner = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(at.as_raw_fd()) });
    Ok(rustix::io::dup3(by, &mut owner, DupFlags::CLOEXEC)?)
}

/// Interfaces are asked about through a socket, of whatever kind.
fn any_socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_size_that_the_kernel_copies() {
        assert_eq!(size_of::<IfReq>(), 40);
    }

    #[test]
    fn names_that_the_kernel_would_bend_are_refused() {
        for bad in ["", "sixteen-letters-", "a/b", "tap%d", "a\0b"] {
            assert!(IfReq::new(bad).is_err(), "{bad}");
        }
        assert!(IfReq::new("fifteen-letters").is_ok());
    }
}

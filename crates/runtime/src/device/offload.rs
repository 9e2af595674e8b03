//! The fast port: a TAP whose frames carry a virtio header, so that a super-frame of up to 64 KiB crosses whole, and
//! checksums that the sender's kernel left for later stay so. `tun-tap` cannot open one.

#![allow(unsafe_code, reason = "ioctls take untyped pointers")]

use super::link::IfReq;
use super::{HEADROOM, Kind, Port, link};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl};
use stateway_core::packet::Offload;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const TUNSETIFF: Opcode = 0x4004_54ca;
const TUNSETOFFLOAD: Opcode = 0x4004_54d0;
const TUNSETVNETHDRSZ: Opcode = 0x4004_54d8;

const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// Checksums may be partial, TCP of both families may come in super-frames, with ECN too.
const TCP_OFFLOADS: usize = 0x01 | 0x02 | 0x04 | 0x08;
/// UDP as well; the kernel takes both families or none, since Linux 6.2.
const UDP_OFFLOADS: usize = 0x20 | 0x40;

/// A TAP with virtio header, made or attached to by name.
#[derive(Debug)]
pub struct OffloadPort {
    name: String,
    fd: OwnedFd,
}

impl OffloadPort {
    /// Makes the TAP `name` in the current network namespace, or attaches to it.
    ///
    /// # Errors
    /// With the kernel's reason: as for a plain TAP, and that it knows no virtio header or offloads.
    pub fn open(name: &str) -> io::Result<Self> {
        open_fd(name).map(|fd| Self::from_fd(name, fd))
    }

    /// The port on a descriptor that [`open_fd`] opened, here or in another process.
    pub fn from_fd(name: &str, fd: OwnedFd) -> Self {
        Self { name: name.to_owned(), fd }
    }
}

/// As [`OffloadPort::open`]: the descriptor alone.
///
/// # Errors
/// As [`OffloadPort::open`].
pub fn open_fd(name: &str) -> io::Result<OwnedFd> {
    let mut request = IfReq::new(name)?;
    let fd =
        rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    request.set_flags(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `IfReq` is.
    unsafe { ioctl(&fd, Updater::<TUNSETIFF, _>::new(&mut request)) }?;
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    unsafe { ioctl(&fd, Setter::<TUNSETVNETHDRSZ, _>::new(HEADROOM as i32)) }?;
    let offer = |offloads: usize| {
        // SAFETY: TUNSETOFFLOAD takes a bit mask for its argument, no pointer.
        unsafe { ioctl(&fd, IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads)) }
    };
    offer(TCP_OFFLOADS | UDP_OFFLOADS).or_else(|_| offer(TCP_OFFLOADS))?;
    Ok(fd)
}

impl AsFd for OffloadPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Port for OffloadPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Offload
    }

    fn takes_offload(&self) -> bool {
        true
    }

    fn replace(&self, by: BorrowedFd<'_>) -> io::Result<()> {
        link::put_under(by, self.fd.as_fd())
    }

    fn recv(&self, slot: &mut [u8]) -> io::Result<(usize, Offload)> {
        let len = rustix::io::read(&self.fd, &mut *slot)?;
        let len = len.checked_sub(HEADROOM).ok_or(io::ErrorKind::InvalidData)?;
        Ok((len, read_header(slot)))
    }

    fn send(&self, slot: &mut [u8], len: usize, offload: Offload) -> io::Result<()> {
        write_header(slot, offload);
        rustix::io::write(&self.fd, &slot[..HEADROOM + len])?;
        Ok(())
    }
}

/// Reads the header that the kernel put in front of a frame, in the machine's byte order (`struct virtio_net_hdr`).
pub(super) fn read_header(slot: &[u8]) -> Offload {
    let word = |at: usize| u16::from_ne_bytes([slot[at], slot[at + 1]]);
    Offload {
        flags: slot[0],
        gso_type: slot[1],
        hdr_len: word(2),
        gso_size: word(4),
        csum_start: word(6),
        csum_offset: word(8),
    }
}

/// Writes the header that goes in front of a frame.
pub(super) fn write_header(slot: &mut [u8], offload: Offload) {
    let Offload { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = offload;
    slot[0] = flags;
    slot[1] = gso_type;
    for (at, word) in [(2, hdr_len), (4, gso_size), (6, csum_start), (8, csum_offset)] {
        slot[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_front_of_a_frame_reads_back() {
        let offload = Offload {
            flags: 1,
            gso_type: 0x81,
            hdr_len: 66,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
        };
        let mut slot = [0xff; HEADROOM + 1];
        write_header(&mut slot, offload);
        assert_eq!(read_header(&slot), offload);
        assert_eq!(slot[HEADROOM], 0xff, "the frame is left alone");
    }
}

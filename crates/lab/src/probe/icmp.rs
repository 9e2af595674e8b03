//! A raw socket that hears the ICMP errors about one flow.

#![forbid(unsafe_code)]

use crate::runner::icmp_name;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto, recv, socket_with};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Hears errors about what is sent to one address and port.
pub(super) struct IcmpEar {
    fd: OwnedFd,
    to: IpAddr,
    protocol: u8,
    port: u16,
}

/// The name of an error, and the MTU that it tells, if it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IcmpError {
    pub(super) name: String,
    pub(super) mtu: Option<u16>,
}

impl IcmpEar {
    pub(super) fn open(to: IpAddr, protocol: u8, port: u16) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = match to {
            IpAddr::V4(_) => socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))?,
            IpAddr::V6(_) => {
                socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6))?
            }
        };
        Ok(Self { fd, to, protocol, port })
    }

    /// The first error about the flow that has come so far.
    pub(super) fn heard(&self) -> Option<IcmpError> {
        let mut buffer = [0; 2048];
        while let Ok((len, _)) = recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
            if let Some(error) = self.concerns(&buffer[..len]) {
                return Some(error);
            }
        }
        None
    }

    /// Reads a message; IPv4 raw sockets give the IP header as well.
    fn concerns(&self, bytes: &[u8]) -> Option<IcmpError> {
        let v6 = self.to.is_ipv6();
        let message = if v6 { bytes } else { bytes.get(usize::from(bytes.first()? & 15) * 4..)? };
        let (kind, code) = (*message.first()?, *message.get(1)?);
        let is_error = if v6 { kind < 128 } else { matches!(kind, 3 | 11 | 12) };
        let quoted = message.get(8..)?;
        let (dst, protocol, l4): (IpAddr, u8, &[u8]) = if v6 {
            let dst: [u8; 16] = quoted.get(24..40)?.try_into().ok()?;
            (dst.into(), *quoted.get(6)?, quoted.get(40..)?)
        } else {
            let dst: [u8; 4] = quoted.get(16..20)?.try_into().ok()?;
            (dst.into(), *quoted.get(9)?, quoted.get(usize::from(quoted.first()? & 15) * 4..)?)
        };
        let port = u16::from_be_bytes(l4.get(2..4)?.try_into().ok()?);
        if !is_error || dst != self.to || protocol != self.protocol || port != self.port {
            return None;
        }
        let mtu = ((v6 && kind == 2) || (!v6 && kind == 3 && code == 4))
            .then(|| u16::from_be_bytes([message[6], message[7]]));
        Some(IcmpError { name: icmp_name(v6, kind, code), mtu })
    }
}

impl AsFd for IcmpEar {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

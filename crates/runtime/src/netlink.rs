//! Netfilter's netlink messages: a header, the family, and attributes that may hold attributes.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail};
use netlink_packet_core::NlasIterator;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use std::io;
use std::time::Duration;

/// A reply of the kernel fits.
const MAX_MESSAGE: usize = 64 << 10;
/// What may wait to be received while we have no turn.
const BUFFER: usize = 64 << 20;
const NLMSG_HEADER: usize = 16;
const NFGEN_HEADER: usize = 4;

pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_ACK: u16 = 0x4;
pub const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;

/// A message under construction.
#[derive(Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// `kind`: subsystem and type. `resource` is the group for NFLOG and zero elsewhere.
    pub fn new(kind: u16, flags: u16, family: u8, resource: u16) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[family, 0]);
        bytes.extend_from_slice(&resource.to_be_bytes());
        Self { bytes }
    }

    #[must_use]
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, |m| m.bytes.extend_from_slice(value));
        self
    }

    /// An attribute that holds attributes.
    #[must_use]
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self = fill(self);
        self.close(start, kind | NLA_F_NESTED);
        self
    }

    fn push(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        self.close(start, kind);
    }

    fn close(&mut self, start: usize, kind: u16) {
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes
    }
}

/// One message of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub kind: u16,
    pub family: u8,
    /// NFLOG: the group.
    pub resource: u16,
    attributes: &'a [u8],
}

impl<'a> Received<'a> {
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.attributes)
    }
}

/// The attributes in `bytes`; a broken one ends the list.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, len) = (attribute.kind(), attribute.value_length());
        Some((kind, &attribute.into_inner()[4..4 + len]))
    })
}

/// A socket to netfilter in the namespace where it was made, which it keeps alive.
pub struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER).context("netlink socket")?;
        socket.bind_auto().context("netlink socket")?;
        socket.connect(&SocketAddr::new(0, 0)).context("netlink socket")?;
        // Root may have more than the machine's limit.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            socket.set_rx_buf_sz(BUFFER).context("netlink socket")?;
        }
        socket.set_non_blocking(true).context("netlink socket")?;
        Ok(Self { socket, buffer: Vec::with_capacity(MAX_MESSAGE) })
    }

    /// Waits until there is something to receive, at most so long.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a request; the kernel has carried it out when this returns.
    pub fn send(&self, message: Message) -> Result<()> {
        let bytes = message.finish();
        self.socket.send(&bytes, 0).context("netlink request")?;
        Ok(())
    }

    /// Hands every waiting message to `take`, until none waits or a dump ends. Says whether a dump goes on.
    ///
    /// An acknowledgement is swallowed; the kernel's error number, if it is not zero, is returned as an error.
    pub fn receive(&mut self, mut take: impl FnMut(Received<'_>)) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            if walk(&self.buffer, &mut take)? {
                return Ok(());
            }
        }
    }

    /// Reads the one answer to the request that was just sent, without asking for more.
    pub fn receive_one(&mut self, mut take: impl FnMut(Received<'_>)) -> io::Result<()> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        walk(&self.buffer, &mut take).map(drop)
    }

    /// Sends a request with [`NLM_F_ACK`] and waits for the kernel's yes; `Ok(false)` if there is no such thing.
    pub fn command(&mut self, message: Message) -> Result<bool> {
        self.send(message)?;
        match self.receive_one(|_| ()) {
            Ok(()) => Ok(true),
            Err(error) if is(&error, Errno::NOENT) => Ok(false),
            Err(error) => bail!("netlink: {error}"),
        }
    }
}

/// Whether the kernel answered with `errno`.
pub fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Walks the messages of one datagram; true at the end of a dump.
fn walk(mut bytes: &[u8], take: &mut impl FnMut(Received<'_>)) -> io::Result<bool> {
    while bytes.len() >= NLMSG_HEADER {
        let len = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let Some(message) = bytes.get(NLMSG_HEADER..len) else { break };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let errno = message.first_chunk().map_or(0, |n| i32::from_ne_bytes(*n));
                if errno != 0 {
                    return Err(io::Error::from_raw_os_error(-errno));
                }
            }
            _ if message.len() >= NFGEN_HEADER => {
                let resource = u16::from_be_bytes([message[2], message[3]]);
                take(Received { kind, family: message[0], resource, attributes: &message[NFGEN_HEADER..] });
            }
            _ => {}
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

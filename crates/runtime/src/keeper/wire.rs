//! What router and keeper say to each other: a JSON object a message, over a pair of sockets that keep messages apart,
//! and a descriptor beside the answer.

#![forbid(unsafe_code)]

use super::Reach;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The longest message: a plan with as many ports as there can be takes half of it.
const MAX_MESSAGE: usize = 160 * 1024;

/// What is asked, with a number that the answer repeats.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) what: What,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    /// Not text: a path may be any bytes.
    OpenConfig(OsString),
    OpenPort(String),
    BeginState,
    FinishState {
        keep: Option<Reach>,
    },
    RemoveSocket,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) result: Result<(), Refusal>,
}

/// An [`io::Error`] as it travels.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    errno: Option<i32>,
    kind: String,
    message: String,
}

/// The kinds of errors that are told with a message of ours.
const KINDS: [io::ErrorKind; 4] = [
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::NotFound,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::Unsupported,
];

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { errno: error.raw_os_error(), kind: format!("{:?}", error.kind()), message: error.to_string() }
    }
}

impl From<Refusal> for io::Error {
    fn from(Refusal { errno, kind, message }: Refusal) -> Self {
        if let Some(errno) = errno {
            return Self::from_raw_os_error(errno);
        }
        let kind = KINDS.into_iter().find(|known| format!("{known:?}") == kind);
        Self::new(kind.unwrap_or(io::ErrorKind::Other), message)
    }
}

pub(super) fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fd: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let Some(fd) = fd else {
        return Ok(rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL).map(drop)?);
    };
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    beside.push(SendAncillaryMessage::ScmRights(&fds));
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL).map(drop)?)
}

/// The next message, and the descriptor beside it; `None` once the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let len = loop {
        match rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(received) => break received.bytes,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let fd = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    if len == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes[..len])?, fd)))
}

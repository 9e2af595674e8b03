//! One client of the control socket: who it is, what it says, and what it is told.
//!
//! Each line of an answer is taken within [`Context::patience`], or the client is left; a stream waits for its reader, and
//! loses events meanwhile. What a client says has a longest line; and when it is left, the thread that reads from it ends too.

use super::answer;
use super::protocol::{Command, MAX_LINE, Reply};
use super::server::Context;
use crate::confine::{self, Role};
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use stateway_core::time::Instant;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The longest line of a guest: it may only ask.
const MAX_QUESTION: usize = 64 * 1024;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// The user who started the router, and root.
    Owner,
    /// Whoever else the mode of the socket lets in: it may look.
    Guest,
}

impl Rights {
    const fn of(uid: u32, owner: u32) -> Self {
        if uid == 0 || uid == owner { Self::Owner } else { Self::Guest }
    }
}

/// A line, or the reason why there is none any more.
pub(super) type Line = Result<String, TooLong>;

#[derive(Clone, Copy, Debug)]
pub(super) struct TooLong;

/// A client that is being served.
#[derive(Debug)]
pub(super) struct Visitor<'a> {
    stream: &'a UnixStream,
    rights: Rights,
    owner: u32,
    context: &'a Context,
}

impl<'a> Visitor<'a> {
    /// # Errors
    /// The kernel does not say who it is.
    pub(super) fn new(stream: &'a UnixStream, owner: u32, context: &'a Context) -> io::Result<Self> {
        // rustix's answer cannot hold the process number 0 of a client in another PID namespace.
        let peer = getsockopt(stream, PeerCredentials)?;
        let rights = Rights::of(peer.uid(), owner);
        Ok(Self { stream, rights, owner, context })
    }

    pub(super) const fn rights(&self) -> Rights {
        self.rights
    }

    /// Why this client may not have `command` carried out.
    pub(super) fn refusal(&self, command: &Command) -> Option<String> {
        (self.rights == Rights::Guest && command.changes_something()).then(|| {
            format!("only root and user {}, who started the router, may change anything", self.owner)
        })
    }

    /// Answers until the client goes, or is left.
    pub(super) fn serve(&self) -> io::Result<()> {
        let longest = if self.rights == Rights::Owner { MAX_LINE } else { MAX_QUESTION };
        let (sender, lines) = bounded(1);
        std::thread::scope(|scope| {
            let read = move || {
                confine::narrow(Role::Writer);
                read_lines(self.stream, longest, &sender);
            };
            std::thread::Builder::new().name("client-lines".into()).spawn_scoped(scope, read)?;
            let served = self.answer_all(&lines);
            // The thread that reads ends: with its lines, whom nobody takes, or here.
            drop(lines);
            let _ = self.stream.shutdown(Shutdown::Both);
            served
        })
    }

    fn answer_all(&self, lines: &Receiver<Line>) -> io::Result<()> {
        while let Ok(line) = lines.recv() {
            let Ok(line) = line else {
                return self.reply(&error("the line is too long".to_owned()));
            };
            if line.trim().is_empty() {
                continue;
            }
            let last = match serde_json::from_str(&line) {
                Ok(command) => answer::answer(self, self.context, lines, command)?,
                Err(problem) => error(format!("not a command: {problem}")),
            };
            self.reply(&last)?;
        }
        Ok(())
    }

    /// Sends one line of an answer.
    ///
    /// # Errors
    /// The client went, or does not read.
    pub(super) fn reply(&self, reply: &Reply) -> io::Result<()> {
        let deadline = self.context.shared.clock.now() + self.context.patience;
        self.send(reply, Some(deadline))
    }

    /// Sends one line of a stream, whose reader may stop for as long as it likes: what happens meanwhile is lost and counted,
    /// and nothing but this thread waits.
    ///
    /// # Errors
    /// The client went.
    pub(super) fn pour(&self, reply: &Reply) -> io::Result<()> {
        self.send(reply, None)
    }

    fn send(&self, reply: &Reply, deadline: Option<Instant>) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        let clock = self.context.shared.clock;
        let mut rest = &line[..];
        while !rest.is_empty() {
            match send(self.stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => rest = &rest[len..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = deadline.map(|deadline| deadline.saturating_since(clock.now()));
                    if left.is_some_and(|left| left.is_zero()) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    wait_for_room(self.stream, left)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

pub(super) const fn error(message: String) -> Reply {
    Reply::Error { message }
}

/// Tells a client why it is not served, if it has room for a line.
pub(super) fn turn_away(stream: &UnixStream, why: String) {
    if let Ok(mut line) = serde_json::to_vec(&error(why)) {
        line.push(b'\n');
        let _ = send(stream, &line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

fn wait_for_room(stream: &UnixStream, left: Option<Duration>) -> io::Result<()> {
    let timeout =
        left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
    match poll(&mut [PollFd::new(stream, PollFlags::OUT)], timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn read_lines(stream: &UnixStream, longest: usize, lines: &Sender<Line>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let line = match (&mut reader).take(longest as u64).read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(len) if len == longest && !line.ends_with('\n') => Err(TooLong),
            Ok(_) => Ok(line),
        };
        let is_last = line.is_err();
        if lines.send(line).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_who_started_the_router_are_owners() {
        let rights =
            [(0, 1000), (1000, 1000), (1001, 1000), (1000, 0)].map(|(uid, owner)| Rights::of(uid, owner));
        assert_eq!(rights, [Rights::Owner, Rights::Owner, Rights::Guest, Rights::Guest]);
    }
}

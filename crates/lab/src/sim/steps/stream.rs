//! Steps over TCP: `tcp`, `ssh`, `http`.

#![forbid(unsafe_code)]

use super::super::Sim;
use super::super::services::{SSH_BANNER, SSH_COMMANDS, new_tcp};
use super::{no_answer, unreachable};
use crate::model::{Flow, HostId, Http, Session, Ssh, Tcp, Word};
use crate::runner::{Observation, RunError};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::IpEndpoint;
use stateway_core::packet::tuple::PROTO_TCP;
use stateway_core::time::Instant;
use std::time::Duration;

/// To hang up takes two packets and their answers.
const GOODBYE: Duration = Duration::from_millis(500);

impl Sim {
    fn stream(&mut self, host: HostId, handle: SocketHandle) -> &mut Socket<'static> {
        self.host(host).sockets.get_mut(handle)
    }

    /// Opens a connection, or says why there is none.
    pub(super) fn connect(
        &mut self,
        flow: &Flow,
        port: u16,
        source_port: Option<u16>,
    ) -> Result<SocketHandle, Observation> {
        let (from, deadline) = (flow.from, self.deadline(flow));
        let host = self.host(from);
        let local = IpEndpoint::new(flow.source.into(), source_port.unwrap_or_else(|| host.new_port()));
        let (context, sockets) = host.context();
        let handle = sockets.add(new_tcp());
        if sockets.get_mut::<Socket>(handle).connect(context, (flow.to, port), local).is_err() {
            sockets.remove(handle);
            return Err(Observation::new(Word::Unreachable, "no route"));
        }
        self.wake(from);
        let found = self.run_until(deadline, |sim| match sim.stream(from, handle).state() {
            State::Established | State::CloseWait => Some(Ok(handle)),
            State::Closed => Some(Err(Observation::new(Word::Refused, "reset"))),
            _ => sim.heard(flow, PROTO_TCP, Some(port)).map(|error| Err(unreachable(error))),
        });
        let found = found.unwrap_or_else(|| Err(no_answer(flow)));
        if found.is_err() {
            // Nobody is told: as when a program gives up, its SYN is not taken back.
            self.host(from).sockets.remove(handle);
        }
        found
    }

    /// Says something; what does not fit at once is said as room comes. `None` if it could not be said in time.
    pub(super) fn say_on(
        &mut self,
        host: HostId,
        handle: SocketHandle,
        text: &[u8],
        until: Instant,
    ) -> Option<()> {
        let mut sent = 0;
        self.run_until(until, |sim| {
            let socket = sim.stream(host, handle);
            if !socket.may_send() {
                return Some(None);
            }
            if sent < text.len() && socket.can_send() {
                sent += socket.send_slice(&text[sent..]).unwrap_or_default();
                sim.wake(host);
            }
            (sent == text.len()).then_some(Some(()))
        })?
    }

    /// What came: up to `len` bytes, or until the end. Waiting costs nothing here, and a lost segment comes late.
    pub(super) fn hear_on(
        &mut self,
        host: HostId,
        handle: SocketHandle,
        len: usize,
        until: Instant,
    ) -> Vec<u8> {
        let mut heard = Vec::new();
        while heard.len() < len {
            let more = self.run_until(until, |sim| {
                let socket = sim.stream(host, handle);
                if socket.can_recv() {
                    let room = len - heard.len();
                    let take = |data: &mut [u8]| {
                        let taken = data.len().min(room);
                        (taken, data[..taken].to_vec())
                    };
                    let bytes = socket.recv(take).unwrap_or_default();
                    // The window that opened is told to the other side.
                    sim.wake(host);
                    return Some(bytes);
                }
                (!socket.may_recv()).then(Vec::new)
            });
            match more {
                Some(bytes) if !bytes.is_empty() => heard.extend(bytes),
                _ => break,
            }
        }
        heard
    }

    /// Hangs up and waits until the other side has, too.
    pub(super) fn hang_up(&mut self, host: HostId, handle: SocketHandle) {
        self.stream(host, handle).close();
        self.wake(host);
        let until = self.now + GOODBYE;
        self.run_until(until, |sim| {
            matches!(sim.stream(host, handle).state(), State::Closed | State::TimeWait).then_some(())
        });
        self.host(host).sockets.remove(handle);
    }

    pub(super) fn tcp(&mut self, step: &Tcp) -> Result<Observation, RunError> {
        let Tcp { flow, port, source_port, send, session } = step;
        if let Session::Use(name) = session {
            let (host, handle) = self.kept(name)?;
            let text = send.as_deref().unwrap_or("stateway");
            return Ok(self.converse(flow, host, handle, text));
        }
        let handle = match self.connect(flow, *port, *source_port) {
            Ok(handle) => handle,
            Err(found) => return Ok(found),
        };
        if let Session::Keep(name) = session {
            self.kept.insert(name.clone(), (flow.from, handle));
            return Ok(Observation::new(Word::Ok, "connected"));
        }
        let found = match send {
            Some(text) => self.converse(flow, flow.from, handle, text),
            None => Observation::new(Word::Ok, "connected"),
        };
        self.hang_up(flow.from, handle);
        Ok(found)
    }

    fn kept(&self, name: &str) -> Result<(HostId, SocketHandle), RunError> {
        let broken = || RunError::Broken(format!("no connection is kept under the name `{name}`"));
        self.kept.get(name).copied().ok_or_else(broken)
    }

    /// Says `text` and gathers as many bytes of answer.
    fn converse(&mut self, flow: &Flow, host: HostId, handle: SocketHandle, text: &str) -> Observation {
        let until = self.deadline(flow);
        let said = self.say_on(host, handle, text.as_bytes(), until);
        let heard = self.hear_on(host, handle, text.len(), until);
        if heard.is_empty() {
            if said.is_none() || self.stream(host, handle).state() == State::Closed {
                return Observation::new(Word::Refused, "reset while talking");
            }
            if let Some(error) = self.heard(flow, PROTO_TCP, None) {
                return unreachable(error);
            }
            let patience = flow.timeout.unwrap_or(super::PATIENCE).as_secs_f64();
            let note = format!("nothing came back in {patience} s");
            return Observation::new(Word::Blocked, note);
        }
        let note = format!("{} bytes each way", heard.len());
        Observation {
            stdout: String::from_utf8_lossy(&heard).into_owned(),
            ..Observation::new(Word::Ok, note)
        }
    }

    pub(super) fn http(&mut self, step: &Http) -> Observation {
        let Http { flow, port, path } = step;
        let handle = match self.connect(flow, *port, None) {
            Ok(handle) => handle,
            Err(found) => return found,
        };
        let until = self.deadline(flow);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", flow.to);
        self.say_on(flow.from, handle, request.as_bytes(), until);
        let answer = self.hear_on(flow.from, handle, usize::MAX, until);
        self.hang_up(flow.from, handle);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, page)) = answer.split_once("\r\n\r\n") else {
            return Observation::new(Word::Blocked, "no page came");
        };
        let status = head.lines().next().unwrap_or_default();
        if !status.contains(" 200 ") {
            return Observation::new(Word::Blocked, status);
        }
        let note = page.lines().next().unwrap_or_default();
        Observation { stdout: page.to_owned(), ..Observation::new(Word::Ok, note) }
    }

    pub(super) fn ssh(&mut self, step: &Ssh) -> Result<Observation, RunError> {
        let Ssh { flow, port, source_port, run, input, session } = step;
        let (host, handle) = match session {
            Session::Use(name) => self.kept(name)?,
            Session::Once | Session::Keep(_) => match self.log_in(flow, *port, *source_port) {
                Ok(handle) => (flow.from, handle),
                Err(found) => return Ok(found),
            },
        };
        let found = self.run_there(flow, host, handle, run, input.as_deref().unwrap_or_default());
        match session {
            Session::Keep(name) => {
                self.kept.insert(name.clone(), (host, handle));
            }
            Session::Use(_) => {}
            Session::Once => self.hang_up(host, handle),
        }
        found
    }

    /// Connects and exchanges banners with a simulated ssh.
    fn log_in(
        &mut self,
        flow: &Flow,
        port: u16,
        source_port: Option<u16>,
    ) -> Result<SocketHandle, Observation> {
        let handle = self.connect(flow, port, source_port)?;
        let until = self.deadline(flow);
        let banner = format!("{SSH_BANNER}\r\n");
        let heard = self.hear_on(flow.from, handle, banner.len(), until);
        if heard != banner.as_bytes() {
            self.hang_up(flow.from, handle);
            return Err(Observation::new(Word::Blocked, "no ssh answers there"));
        }
        self.say_on(flow.from, handle, banner.as_bytes(), until);
        Ok(handle)
    }

    fn run_there(
        &mut self,
        flow: &Flow,
        host: HostId,
        handle: SocketHandle,
        command: &str,
        input: &str,
    ) -> Result<Observation, RunError> {
        let until = self.deadline(flow);
        let request = format!("{command} {}\n{input}", input.len());
        self.say_on(host, handle, request.as_bytes(), until);
        let mut head = Vec::new();
        while head.last() != Some(&b'\n') {
            let byte = self.hear_on(host, handle, 1, until);
            if byte.is_empty() {
                return Ok(Observation::new(Word::Blocked, "the session hangs"));
            }
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut numbers = head.split_whitespace().map(|word| word.parse::<usize>().unwrap_or_default());
        let (code, len) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        if code == 127 {
            return Err(RunError::Unsupported(format!(
                "not applicable in simulation: its ssh knows only {SSH_COMMANDS}, and not `{command}`"
            )));
        }
        let stdout = String::from_utf8_lossy(&self.hear_on(host, handle, len, until)).into_owned();
        let note = match (code, stdout.lines().next()) {
            (0, Some(line)) => format!("{line} (simulated ssh)"),
            (0, None) => "simulated ssh".to_owned(),
            (code, _) => format!("the command's exit code is {code} (simulated ssh)"),
        };
        Ok(Observation { stdout, ..Observation::new(Word::Ok, note) })
    }
}

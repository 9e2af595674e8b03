//! TCP connections of simulated clients.

#![forbid(unsafe_code)]

use super::super::Sim;
use super::super::services::new_tcp;
use super::{no_answer, unreachable};
use crate::model::{Flow, HostId, Word};
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
    pub(crate) fn stream(&mut self, host: HostId, handle: SocketHandle) -> &mut Socket<'static> {
        self.host(host).sockets.get_mut(handle)
    }

    /// Opens a connection, or says why there is none.
    pub(crate) fn connect(
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
    pub(crate) fn say_on(
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
    pub(crate) fn hear_on(
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
    pub(crate) fn hang_up(&mut self, host: HostId, handle: SocketHandle) {
        self.stream(host, handle).close();
        self.wake(host);
        let until = self.now + GOODBYE;
        self.run_until(until, |sim| {
            matches!(sim.stream(host, handle).state(), State::Closed | State::TimeWait).then_some(())
        });
        self.host(host).sockets.remove(handle);
    }

    pub(crate) fn kept(&self, name: &str) -> Result<(HostId, SocketHandle), RunError> {
        let broken = || RunError::Broken(format!("no connection is kept under the name `{name}`"));
        self.kept.get(name).copied().ok_or_else(broken)
    }
}

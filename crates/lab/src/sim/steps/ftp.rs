//! The `ftp` step: a client with a real dialogue, in its four modes.

#![forbid(unsafe_code)]

use super::super::Sim;
use super::super::services::new_tcp;
use super::{compared, content};
use crate::model::{Flow, Ftp, FtpMode, HostId, Transfer, Word};
use crate::runner::{Observation, RunError};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use stateway_core::time::Instant;
use std::net::IpAddr;
use std::time::Duration;

/// A transfer may take this much longer than an answer.
const WORK: Duration = Duration::from_millis(1500);
const MAX_LINE: usize = 512;

/// The command connection, and until when all of it must be done.
struct Control<'a> {
    flow: &'a Flow,
    handle: SocketHandle,
    until: Instant,
}

impl Sim {
    pub(super) fn ftp(&mut self, step: &Ftp) -> Result<Observation, RunError> {
        let Some(server) = step.flow.to_host else {
            return Err(RunError::Broken("the server is no host of this lab".to_owned()));
        };
        let handle = match self.connect(&step.flow, step.port, None) {
            Ok(handle) => handle,
            Err(found) => return Ok(found),
        };
        let control = Control { flow: &step.flow, handle, until: self.deadline(&step.flow) + WORK };
        let found = self.ftp_session(step, &control, server);
        self.hang_up(step.flow.from, handle);
        Ok(found.unwrap_or_else(|why| Observation::new(Word::Blocked, why)))
    }

    fn ftp_session(&mut self, step: &Ftp, control: &Control, server: HostId) -> Result<Observation, String> {
        let (Transfer::Get { bytes } | Transfer::Put { bytes }) = step.transfer else {
            return self.ftp_moved(step, control, "LIST", None).map(|listing| {
                let stdout = String::from_utf8_lossy(&listing).into_owned();
                Observation { stdout, ..Observation::new(Word::Ok, "listed") }
            });
        };
        let content = content(bytes);
        if let Transfer::Get { .. } = step.transfer {
            self.host(server).services.files.insert("file".to_owned(), content.clone());
            let got = self.ftp_moved(step, control, "RETR file", None)?;
            return Ok(compared(&content, Some(&got)));
        }
        self.host(server).services.files.remove("file");
        self.ftp_moved(step, control, "STOR file", Some(&content))?;
        Ok(compared(&content, self.host(server).services.files.get("file").map(Vec::as_slice)))
    }

    /// Logs in, agrees on a data connection, and moves data over it.
    fn ftp_moved(
        &mut self,
        step: &Ftp,
        control: &Control,
        command: &str,
        give: Option<&[u8]>,
    ) -> Result<Vec<u8>, String> {
        self.ftp_answer(control, "220")?;
        self.ftp_ask(control, "USER anonymous", "331")?;
        self.ftp_ask(control, "PASS stateway", "230")?;
        self.ftp_ask(control, "TYPE I", "200")?;
        let data = self.ftp_data(step, control)?;
        let result = self.ftp_transfer(control, data, command, give);
        self.hang_up(control.flow.from, data);
        let got = result?;
        self.ftp_answer(control, "226")?;
        // Whoever has what it came for may leave without an answer.
        let _ = self.ftp_ask(control, "QUIT", "221");
        Ok(got)
    }

    /// Active: a socket that listens. Passive: one that is connected.
    fn ftp_data(&mut self, step: &Ftp, control: &Control) -> Result<SocketHandle, String> {
        let flow = control.flow;
        match step.mode {
            FtpMode::Active | FtpMode::Eprt => {
                let host = self.host(flow.from);
                let port = host.new_port();
                let mut socket = new_tcp();
                let _ = socket.listen(port);
                let handle = host.sockets.add(socket);
                let command = match (step.mode, flow.source) {
                    (FtpMode::Active, IpAddr::V4(addr)) => {
                        let ([a, b, c, d], [high, low]) = (addr.octets(), port.to_be_bytes());
                        format!("PORT {a},{b},{c},{d},{high},{low}")
                    }
                    (_, addr) => format!("EPRT |{}|{addr}|{port}|", if addr.is_ipv4() { 1 } else { 2 }),
                };
                self.ftp_ask(control, &command, "200").map(|_| handle)
            }
            FtpMode::Passive | FtpMode::Epsv => {
                let (command, code) =
                    if step.mode == FtpMode::Passive { ("PASV", "227") } else { ("EPSV", "229") };
                let line = self.ftp_ask(control, command, code)?;
                let port = passive_port(&line).ok_or_else(|| format!("not understood: {line}"))?;
                self.connect(flow, port, None).map_err(|found| format!("data connection: {}", found.note))
            }
        }
    }

    fn ftp_transfer(
        &mut self,
        control: &Control,
        data: SocketHandle,
        command: &str,
        give: Option<&[u8]>,
    ) -> Result<Vec<u8>, String> {
        let (host, until) = (control.flow.from, control.until);
        self.ftp_ask(control, command, "150")?;
        let came = self.run_until(until, |sim| {
            let socket = sim.host(host).sockets.get::<Socket>(data);
            matches!(socket.state(), State::Established | State::CloseWait).then_some(())
        });
        came.ok_or("data connection: no answer")?;
        match give {
            Some(bytes) => {
                self.say_on(host, data, bytes, until).ok_or("the data was not taken")?;
                Ok(Vec::new())
            }
            None => Ok(self.hear_on(host, data, usize::MAX, until)),
        }
    }

    fn ftp_ask(&mut self, control: &Control, command: &str, code: &str) -> Result<String, String> {
        let line = format!("{command}\r\n");
        self.say_on(control.flow.from, control.handle, line.as_bytes(), control.until)
            .ok_or_else(|| format!("{command}: the connection is gone"))?;
        self.ftp_answer(control, code).map_err(|why| format!("{command}: {why}"))
    }

    fn ftp_answer(&mut self, control: &Control, code: &str) -> Result<String, String> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') && line.len() < MAX_LINE {
            let byte = self.hear_on(control.flow.from, control.handle, 1, control.until);
            if byte.is_empty() {
                return Err("no answer".to_owned());
            }
            line.extend(byte);
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.starts_with(code) { Ok(line) } else { Err(line) }
    }
}

/// The port in an answer to PASV or EPSV.
fn passive_port(line: &str) -> Option<u16> {
    let inside = line.split_once('(')?.1.split_once(')')?.0;
    if let Some(port) = inside.strip_prefix("|||") {
        return port.trim_end_matches('|').parse().ok();
    }
    let mut numbers = inside.split(',').skip(4).map(str::parse::<u8>);
    Some(u16::from_be_bytes([numbers.next()?.ok()?, numbers.next()?.ok()?]))
}

//! `ftp`: lists a folder or moves a file, with a real dialogue in one of four modes.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::{self, Flows, Own};
use crate::model::{Expect, Flow, HostId, Transfer, USUAL_BYTES, Word};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::sim::clients::{compared, content};
use crate::sim::services::new_tcp;
use crate::spec::{FamilySpec, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use stateway_core::packet::tuple::PROTO_TCP;
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

/// Lists a folder, or moves a file and compares both ends.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FtpSpec {
    /// Who begins: a host; several repeat the step.
    pub from: OneOrMany,
    /// With whom: a host or an address; several repeat the step.
    pub to: OneOrMany,
    /// Which addresses of the hosts; IPv4 unless told otherwise, or unless they have IPv6 alone.
    pub family: Option<FamilySpec>,
    /// The port where it is served.
    #[schemars(range(min = 1), extend("default" = 21))]
    pub port: Option<u16>,
    /// How the data connection is announced.
    #[serde(default)]
    #[schemars(extend("default" = "passive"))]
    pub mode: FtpModeSpec,
    /// What to do.
    #[serde(default)]
    #[schemars(extend("default" = "list"))]
    pub command: FtpCommandSpec,
    /// The size of the file that is got or put, in bytes.
    #[schemars(range(max = 100_000_000), extend("default" = 20_000))]
    pub bytes: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FtpModeSpec {
    /// `PORT`: the server connects to the client.
    Active,
    /// `PASV`: the client connects a second time.
    #[default]
    Passive,
    /// `EPRT`: active, for either family.
    Eprt,
    /// `EPSV`: passive, for either family.
    Epsv,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FtpCommandSpec {
    /// Lists the folder.
    #[default]
    List,
    /// Fetches a file.
    Get,
    /// Stores a file.
    Put,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ftp {
    pub flow: Flow,
    pub port: u16,
    pub mode: FtpMode,
    pub transfer: Transfer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FtpMode {
    /// PORT
    Active,
    /// PASV
    Passive,
    /// EPRT
    Eprt,
    /// EPSV
    Epsv,
}

impl Kind for Ftp {
    type Spec = FtpSpec;

    const PROGRAMS: &'static [&'static str] = &["curl"];

    fn resolve(spec: &FtpSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let mode = match spec.mode {
            FtpModeSpec::Active => FtpMode::Active,
            FtpModeSpec::Passive => FtpMode::Passive,
            FtpModeSpec::Eprt => FtpMode::Eprt,
            FtpModeSpec::Epsv => FtpMode::Epsv,
        };
        let bytes = spec.bytes.unwrap_or(USUAL_BYTES);
        let transfer = match spec.command {
            FtpCommandSpec::List => Transfer::List,
            FtpCommandSpec::Get => Transfer::Get { bytes },
            FtpCommandSpec::Put => Transfer::Put { bytes },
        };
        let make = |flow| Self { flow, port: spec.port.unwrap_or(21), mode, transfer };
        check.flows(path, &spec.from, &spec.to, spec.family, place).into_iter().map(make).collect()
    }

    fn flow(&self) -> Option<&Flow> {
        Some(&self.flow)
    }

    fn deciding<'a>(&self, _: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
        judge::of_flow(&self.flow, Own::of(PROTO_TCP, None), seen, earlier)
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        clients::watched(runner, |runner| namespaces::ftp(runner, self))
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.traffic(&self.flow, Some(self.port), |sim| sim.ftp(self))
    }
}

impl Sim {
    fn ftp(&mut self, step: &Ftp) -> Result<Observation, RunError> {
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

/// On hosts that are namespaces.
#[cfg(target_os = "linux")]
mod namespaces {
    use super::{Ftp, FtpMode};
    use crate::model::Transfer;
    use crate::netns::Namespaces;
    use crate::netns::transfers::{files, transfer, url};
    use crate::probe::Finding;
    use std::ffi::OsString;

    pub(super) fn ftp(runner: &Namespaces, step: &Ftp) -> anyhow::Result<Finding> {
        let mut args: Vec<OsString> = match step.mode {
            FtpMode::Active => vec!["--ftp-port".into(), "-".into(), "--disable-eprt".into()],
            FtpMode::Eprt => vec!["--ftp-port".into(), "-".into()],
            FtpMode::Passive => vec!["--disable-epsv".into()],
            FtpMode::Epsv => vec![],
        };
        args.extend(["--user".into(), "anonymous:stateway".into()]);
        let flow = &step.flow;
        let at = |path: &str| url("ftp", flow.to, step.port, path);
        let bytes = match step.transfer {
            Transfer::List => 0,
            Transfer::Get { bytes } | Transfer::Put { bytes } => bytes,
        };
        let (local, dir, content) = files(runner, flow, "ftp", bytes)?;
        transfer(
            runner,
            flow,
            step.port,
            step.transfer,
            args,
            at("up/"),
            &[at("up/file")],
            &local,
            &dir.join("up"),
            &content,
        )
    }
}

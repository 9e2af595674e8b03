//! `tcp`: opens a connection, and may say something.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::{self, Flows, Own};
use crate::model::{Expect, Flow, HostId, Session, Word};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, Ends, StepPlace};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::sim::clients::{PATIENCE, unreachable};
use crate::spec::{FamilySpec, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use stateway_core::packet::tuple::PROTO_TCP;

/// Opens a TCP connection, and may say something; the step's output is what comes back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpSpec {
    /// Who begins: a host; several repeat the step.
    pub from: Option<OneOrMany>,
    /// With whom: a host or an address; several repeat the step.
    pub to: Option<OneOrMany>,
    /// Which addresses of the hosts; IPv4 unless told otherwise, or unless they have IPv6 alone.
    pub family: Option<FamilySpec>,
    /// The port where it is served.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The port it comes from; the system chooses one unless told.
    #[schemars(range(min = 1))]
    pub source_port: Option<u16>,
    /// What to say once connected.
    pub send: Option<String>,
    /// Keeps the connection open under this name.
    pub keep: Option<String>,
    /// Speaks on a connection that was kept, from and to where it was opened.
    pub session: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub flow: Flow,
    pub port: u16,
    pub source_port: Option<u16>,
    /// Said once connected; then what comes back is read until as many bytes came, or the end.
    pub send: Option<String>,
    pub session: Session,
}

impl Kind for Tcp {
    type Spec = TcpSpec;

    fn resolve(spec: &TcpSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let own = Ends { from: spec.from.clone(), to: spec.to.clone(), family: spec.family, port: spec.port };
        let (session, ends) = check.session(path, "tcp", spec.keep.as_ref(), spec.session.as_ref(), own);
        let flows = check.session_flows(path, ends.as_ref(), place);
        let port = ends.and_then(|ends| ends.port).unwrap_or_default();
        let make = |flow| Self {
            flow,
            port,
            source_port: spec.source_port,
            send: spec.send.clone(),
            session: session.clone(),
        };
        flows.into_iter().map(make).collect()
    }

    fn flow(&self) -> Option<&Flow> {
        Some(&self.flow)
    }

    fn deciding<'a>(&self, _: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
        judge::of_flow(
            &self.flow,
            Own { continues: matches!(self.session, Session::Use(_)), ..Own::of(PROTO_TCP, Some(self.port)) },
            seen,
            earlier,
        )
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        clients::watched(runner, |runner| namespaces::tcp(runner, self))
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.traffic(&self.flow, Some(self.port), |sim| sim.tcp(self))
    }
}

impl Sim {
    fn tcp(&mut self, step: &Tcp) -> Result<Observation, RunError> {
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
            let patience = flow.timeout.unwrap_or(PATIENCE).as_secs_f64();
            let note = format!("nothing came back in {patience} s");
            return Observation::new(Word::Blocked, note);
        }
        let note = format!("{} bytes each way", heard.len());
        Observation {
            stdout: String::from_utf8_lossy(&heard).into_owned(),
            ..Observation::new(Word::Ok, note)
        }
    }
}

/// On hosts that are namespaces.
#[cfg(target_os = "linux")]
mod namespaces {
    use super::Tcp;
    use crate::model::{HostId, Session, Word};
    use crate::netns::Namespaces;
    use crate::netns::clients::{GRACE, Kept, Late, hex, patience, probe, probe_args};
    use crate::netns::command;
    use crate::netns::services::own_program;
    use crate::probe::Finding;
    use anyhow::{Context as _, bail};
    use std::ffi::OsString;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    pub(super) fn tcp(runner: &mut Namespaces, step: &Tcp) -> anyhow::Result<Finding> {
        let mut args = probe_args(runner, "tcp", &step.flow, step.port, step.source_port);
        match &step.session {
            Session::Once => {
                if let Some(text) = &step.send {
                    args.extend(["--say".to_owned(), hex(text.as_bytes())]);
                }
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                probe(runner, &step.flow, &args, None)
            }
            Session::Keep(name) => {
                args.push("--hold".to_owned());
                let kept = hold(runner, step.flow.from, &args)?;
                let Kept::Tcp { findings, .. } = &kept else { bail!("no TCP connection") };
                let timeout = patience(runner, &step.flow) + GRACE;
                let finding = command::receive(findings, timeout, &runner.state.interrupt)?
                    .ok_or_else(|| Late(format!("probe {}", args.join(" "))))?;
                if finding.word() == Word::Ok {
                    runner.sessions.insert(name.clone(), kept);
                }
                Ok(finding)
            }
            Session::Use(name) => {
                let text = step.send.clone().unwrap_or_else(|| "stateway".to_owned());
                let (timeout, interrupt) = (patience(runner, &step.flow), runner.state.interrupt.clone());
                let Some(Kept::Tcp { stdin, findings, .. }) = runner.sessions.get_mut(name) else {
                    bail!("no TCP connection is kept under the name `{name}`");
                };
                let line = serde_json::to_string(&(text, timeout.as_secs_f64()))?;
                writeln!(stdin, "{line}").context("the connection is gone")?;
                Ok(command::receive(findings, timeout + GRACE, &interrupt)?
                    .unwrap_or_else(|| Finding::new(Word::Blocked, "the connection is gone")))
            }
        }
    }

    /// Starts a probe that keeps its connection open.
    fn hold(runner: &Namespaces, host: HostId, args: &[String]) -> anyhow::Result<Kept> {
        let mut words = runner.state.inside(&runner.lab.host(host).name)?;
        words.extend(own_program(&["lab", "probe"])?);
        words.extend(args.iter().map(OsString::from));
        let (program, args) = words.split_first().context("no program")?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot run a probe")?;
        let (stdin, stdout) =
            (child.stdin.take().context("no pipe")?, child.stdout.take().context("no pipe")?);
        let (sender, findings) = crossbeam_channel::unbounded();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(finding) = serde_json::from_str(&line)
                    && sender.send(finding).is_err()
                {
                    return;
                }
            }
        });
        Ok(Kept::Tcp { child, stdin, findings })
    }
}

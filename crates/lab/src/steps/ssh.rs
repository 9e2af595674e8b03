//! `ssh`: logs in and runs a command.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::{self, Flows, Own};
use crate::model::{Expect, Flow, HostId, Session, Word};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, Ends, StepPlace};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::sim::services::{SSH_BANNER, SSH_COMMANDS};
use crate::spec::{FamilySpec, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;
use smoltcp::iface::SocketHandle;
use stateway_core::packet::tuple::PROTO_TCP;

/// Logs in with real OpenSSH (in simulation, a stand-in for it) and runs a command; the step's output is what it prints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SshSpec {
    /// Who logs in; several hosts repeat the step.
    pub from: Option<OneOrMany>,
    /// Where: a host or an address; several repeat the step.
    pub to: Option<OneOrMany>,
    /// Which addresses of the hosts; IPv4 unless told otherwise, or unless they have IPv6 alone.
    pub family: Option<FamilySpec>,
    /// The port where it is served.
    #[schemars(range(min = 1), extend("default" = 22))]
    pub port: Option<u16>,
    /// The port it comes from; the system chooses one unless told.
    #[schemars(range(min = 1))]
    pub source_port: Option<u16>,
    /// The command to run there.
    #[schemars(extend("default" = "true"))]
    pub run: Option<String>,
    /// What the command reads.
    pub input: Option<String>,
    /// Keeps the session open under this name.
    pub keep: Option<String>,
    /// Runs the command in a session that was kept, from and to where it was opened.
    pub session: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    pub flow: Flow,
    pub port: u16,
    pub source_port: Option<u16>,
    /// A line for the shell there.
    pub run: String,
    pub input: Option<String>,
    pub session: Session,
}

impl Kind for Ssh {
    type Spec = SshSpec;

    const PROGRAMS: &'static [&'static str] = &["ssh"];

    fn resolve(spec: &SshSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let own = Ends {
            from: spec.from.clone(),
            to: spec.to.clone(),
            family: spec.family,
            port: spec.port.or(Some(22)),
        };
        let (session, ends) = check.session(path, "ssh", spec.keep.as_ref(), spec.session.as_ref(), own);
        let flows = check.session_flows(path, ends.as_ref(), place);
        let port = ends.and_then(|ends| ends.port).unwrap_or_default();
        let run = spec.run.clone().unwrap_or_else(|| "true".to_owned());
        let make = |flow| Self {
            flow,
            port,
            source_port: spec.source_port,
            run: run.clone(),
            input: spec.input.clone(),
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
        clients::watched(runner, |runner| namespaces::ssh(runner, self))
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.traffic(&self.flow, Some(self.port), |sim| sim.ssh(self))
    }
}

impl Sim {
    fn ssh(&mut self, step: &Ssh) -> Result<Observation, RunError> {
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

/// On hosts that are namespaces.
#[cfg(target_os = "linux")]
mod namespaces {
    use super::Ssh;
    use crate::model::{Session, Word};
    use crate::netns::Namespaces;
    use crate::netns::clients::{Kept, WORK, as_awaited, on, patience, probe, probe_args};
    use crate::netns::command::Output;
    use crate::netns::services::own_program;
    use crate::probe::Finding;
    use anyhow::bail;
    use std::ffi::OsString;
    use std::time::Duration;

    /// OpenSSH counts the greeting of the other side as well, which a busy machine sends late.
    const LOGIN: Duration = Duration::from_secs(4);

    pub(super) fn ssh(runner: &mut Namespaces, step: &Ssh) -> anyhow::Result<Finding> {
        let config = runner.state.path("ssh/config").into_os_string();
        let seconds = step.flow.timeout.unwrap_or_else(|| as_awaited(runner, LOGIN)).as_secs().max(1);
        let mut words: Vec<OsString> = vec!["ssh".into(), "-F".into(), config];
        let mut option = |text: String| words.extend(["-o".into(), OsString::from(text)]);
        option(format!("ConnectTimeout={seconds}"));
        option(format!("Port={}", step.port));
        match step.source_port {
            None => option(format!("BindAddress={}", step.flow.source)),
            Some(port) => {
                let args = probe_args(runner, "pipe", &step.flow, step.port, Some(port));
                let own = own_program(&["lab", "probe"])?;
                let own: Vec<String> = own.iter().map(|word| word.to_string_lossy().into_owned()).collect();
                option(format!("ProxyCommand={} {}", own.join(" "), args.join(" ")));
            }
        }
        let socket = |name: &str| runner.state.path(&format!("ssh/{name}.master"));
        match &step.session {
            Session::Once => {}
            Session::Keep(name) => {
                words.extend(["-M".into(), "-S".into(), socket(name).into_os_string()]);
                option_persist(&mut words);
            }
            Session::Use(name) => {
                let Some(Kept::Ssh { socket }) = runner.sessions.get(name) else {
                    bail!("no ssh session is kept under the name `{name}`");
                };
                words.extend(["-S".into(), socket.clone().into_os_string()]);
            }
        }
        words.extend([step.flow.to.to_string().into(), step.run.clone().into()]);
        let output = on(
            runner,
            step.flow.from,
            words,
            step.input.as_deref().or(Some("")),
            patience(runner, &step.flow) + WORK,
        )?;
        if let (Session::Keep(name), true) = (&step.session, output.ok()) {
            runner.sessions.insert(name.clone(), Kept::Ssh { socket: socket(name) });
        }
        ssh_finding(runner, step, &output)
    }

    /// The first session stays in the background.
    fn option_persist(words: &mut Vec<OsString>) {
        words.extend(["-o".into(), "ControlPersist=yes".into()]);
    }

    fn ssh_finding(runner: &Namespaces, step: &Ssh, output: &Output) -> anyhow::Result<Finding> {
        /// OpenSSH's own failures; anything else is the exit code of the command.
        const SSH_FAILED: i32 = 255;
        let stdout = output.stdout.clone();
        let note = stdout.trim().lines().next().unwrap_or_default().to_owned();
        match output.code() {
            Some(0) => Ok(Finding { stdout, ..Finding::new(Word::Ok, note) }),
            Some(code) if code != SSH_FAILED => {
                Ok(Finding { stdout, ..Finding::new(Word::Ok, format!("the command's exit code is {code}")) })
            }
            None => Ok(Finding::new(Word::Blocked, "the session hangs")),
            Some(_) => {
                let said = output.stderr.trim().lines().last().unwrap_or_default().to_owned();
                let word = |text: &str| said.to_lowercase().contains(text);
                if word("timed out") || word("timeout") {
                    return Ok(Finding::new(Word::Blocked, said));
                }
                // OpenSSH does not tell a reset from an ICMP error; a probe does.
                let args = probe_args(runner, "tcp", &step.flow, step.port, None);
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let found = probe(runner, &step.flow, &args, None)?;
                match found.word() {
                    Word::Ok => bail!("ssh failed though the port is open: {said}"),
                    _ => Ok(Finding { note: said, ..found }),
                }
            }
        }
    }
}

//! What the steps of a test share where hosts are namespaces: programs and probes inside them, and how long those may take.

#![forbid(unsafe_code)]

use super::Namespaces;
use super::command::{self, Output};
use super::services::own_program;
use crate::model::{Flow, HostId};
use crate::probe::Finding;
use crate::runner::{Awaits, Observation, Seen};
use anyhow::Context as _;
use crossbeam_channel::Receiver;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin};
use std::time::Duration;

/// How long an answer may take unless the step says otherwise: after this, none has come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Where an answer is to come, it may take so many times as long.
const AWAITED: u32 = 5;
/// A program ends by itself after its own time-out. One that has not even then, after so much longer, is late.
pub(crate) const GRACE: Duration = Duration::from_secs(60);
/// Talking takes longer than being let in: a login, a transfer.
pub(crate) const WORK: Duration = Duration::from_secs(20);

/// What a program said last.
pub(crate) fn last_line(text: &str) -> &str {
    text.trim().lines().last().unwrap_or("it says nothing")
}

/// A program that was to tell did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` has not ended in time: this machine is too busy, or it hangs")]
pub(crate) struct Late(pub(crate) String);

/// A connection that is kept open.
pub(crate) enum Kept {
    Tcp {
        child: Child,
        stdin: ChildStdin,
        findings: Receiver<Finding>,
    },
    /// The control socket of an ssh master.
    Ssh {
        socket: PathBuf,
    },
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Self::Tcp { child, .. } = self {
            command::end(child);
        }
    }
}

/// Takes a step that sends something, while the middle watches.
pub(crate) fn watched(
    runner: &mut Namespaces,
    take: impl FnOnce(&mut Namespaces) -> anyhow::Result<Finding>,
) -> anyhow::Result<Observation> {
    watched_until(runner, &|_| true, take)
}

/// As [`watched`]; packets that are still under way are waited for until `enough` have come.
pub(crate) fn watched_until(
    runner: &mut Namespaces,
    enough: &dyn Fn(&[Seen]) -> bool,
    take: impl FnOnce(&mut Namespaces) -> anyhow::Result<Finding>,
) -> anyhow::Result<Observation> {
    runner.middle.watch()?;
    let finding = take(runner);
    let packets = runner.middle.seen(enough)?;
    let finding = finding?;
    let result = finding.word();
    Ok(Observation {
        icmp: finding.icmp,
        stdout: finding.stdout,
        exit: finding.exit,
        packets,
        ..Observation::new(result, finding.note)
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn patience(runner: &Namespaces, flow: &Flow) -> Duration {
    flow.timeout.unwrap_or_else(|| as_awaited(runner, PATIENCE))
}

pub(crate) fn as_awaited(runner: &Namespaces, time: Duration) -> Duration {
    match runner.awaits {
        Awaits::Answer => time * AWAITED,
        Awaits::Silence => time,
    }
}

/// Runs a program on a host.
pub(crate) fn on(
    runner: &Namespaces,
    host: HostId,
    words: Vec<OsString>,
    input: Option<&str>,
    timeout: Duration,
) -> anyhow::Result<Output> {
    let mut all = runner.state.inside(&runner.lab.host(host).name)?;
    all.extend(words);
    command::run(&all, input, timeout, &runner.state.interrupt)
}

/// Runs one of our own probes on the host that a flow comes from.
pub(crate) fn probe(
    runner: &Namespaces,
    flow: &Flow,
    args: &[&str],
    input: Option<&str>,
) -> anyhow::Result<Finding> {
    let mut words = own_program(&["lab", "probe"])?;
    words.extend(args.iter().map(OsString::from));
    let output = on(runner, flow.from, words, input, patience(runner, flow) + GRACE)?;
    parse(args, &output)
}

/// The arguments of a TCP or UDP probe.
pub(crate) fn probe_args(
    runner: &Namespaces,
    kind: &str,
    flow: &Flow,
    port: u16,
    source_port: Option<u16>,
) -> Vec<String> {
    let mut args = vec![kind.to_owned(), flow.to.to_string(), port.to_string()];
    args.extend(["--source".to_owned(), flow.source.to_string()]);
    args.extend(["--timeout".to_owned(), patience(runner, flow).as_secs_f64().to_string()]);
    if let Some(port) = source_port {
        args.extend(["--source-port".to_owned(), port.to_string()]);
    }
    args
}

fn parse(args: &[&str], output: &Output) -> anyhow::Result<Finding> {
    if output.status.is_none() {
        return Err(Late(format!("probe {}", args.join(" "))).into());
    }
    let line = output.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("a probe failed: {}", output.stderr.trim()))
}

//! The steps of a test, taken with real programs inside the hosts' namespaces.

#![forbid(unsafe_code)]

use super::Namespaces;
use super::command::{self, Output};
use super::services::own_program;
use crate::model::{
    Action, Exec, Flow, Ftp, FtpMode, HostId, Http, Ping, Session, Ssh, Step, Tcp, Tftp, Transfer, Udp, Word,
};
use crate::probe::Finding;
use crate::runner::{Awaits, Observation, has_come, judge_by_hand};
use anyhow::{Context as _, bail};
use crossbeam_channel::Receiver;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// How long an answer may take unless the step says otherwise: after this, none has come.
const PATIENCE: Duration = Duration::from_secs(2);
/// OpenSSH counts the greeting of the other side as well, which a busy machine sends late.
const LOGIN: Duration = Duration::from_secs(4);
/// Where an answer is to come, it may take so many times as long.
const AWAITED: u32 = 5;
/// A program ends by itself after its own time-out. One that has not even then, after so much longer, is late.
const GRACE: Duration = Duration::from_secs(60);
/// Talking takes longer than being let in: a login, a transfer.
const WORK: Duration = Duration::from_secs(20);

/// Nobody waits longer in real time.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A program that was to tell did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` has not ended in time: this machine is too busy, or it hangs")]
pub struct Late(String);

/// Why a step cannot be taken with real programs.
pub fn lacks(runner: &mut Namespaces, step: &Step) -> Option<String> {
    match &step.action {
        Action::Wait(duration) if *duration > LONGEST_WAIT => {
            let duration = humantime::format_duration(*duration);
            Some(format!("not applicable in real time: it waits {duration}; `--on sim` does so in no time"))
        }
        _ if !step.impair.is_empty() => runner.lacks_netem(),
        _ => None,
    }
}

/// A connection that is kept open.
pub enum Kept {
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

/// Takes one step while the middle watches.
pub fn act(runner: &mut Namespaces, action: &Action) -> anyhow::Result<Observation> {
    match action {
        Action::Wait(duration) => {
            let (_never, channel) = crossbeam_channel::bounded::<()>(0);
            command::receive(&channel, *duration, &runner.state.interrupt)?;
            return Ok(Observation::new(
                Word::Ok,
                format!("{} passed", humantime::format_duration(*duration)),
            ));
        }
        Action::Rules(rules) => {
            runner.middle.replace_rules(rules)?;
            return Ok(Observation::new(Word::Ok, "the new rules are in force"));
        }
        Action::Conntrack(_) => {
            let table = runner.middle.table()?;
            let note = format!("{} connections", table.len());
            return Ok(Observation { stdout: table.join("\n"), ..Observation::new(Word::Ok, note) });
        }
        Action::Counters(_) => {
            let values = runner.middle.counters()?;
            return Ok(Observation { values, ..Observation::new(Word::Ok, "") });
        }
        _ => {}
    }
    runner.middle.watch()?;
    let finding = traffic(runner, action);
    let packets = match action {
        // They have left their host; the router needs a moment for them.
        Action::Send(send) => runner.middle.seen(&|packets| has_come(send, packets))?,
        _ => runner.middle.seen(&|_| true)?,
    };
    let finding = finding?;
    let result = finding.word();
    let mut seen = Observation {
        icmp: finding.icmp,
        stdout: finding.stdout,
        packets,
        ..Observation::new(result, finding.note)
    };
    if let Action::Send(send) = action {
        (seen.result, seen.note) = judge_by_hand(send, &seen.packets);
    }
    Ok(seen)
}

fn traffic(runner: &mut Namespaces, action: &Action) -> anyhow::Result<Finding> {
    match action {
        Action::Ssh(step) => ssh(runner, step),
        Action::Tcp(step) => tcp(runner, step),
        Action::Udp(step) => udp(runner, step),
        Action::Ping(step) => ping(runner, step),
        Action::Http(step) => http(runner, step),
        Action::Ftp(step) => ftp(runner, step),
        Action::Tftp(step) => tftp(runner, step),
        Action::Traceroute(flow) => traceroute(runner, flow),
        Action::Exec(step) => exec(runner, step),
        Action::Send(step) => {
            let packets = step.packets.iter().map(|packet| hex(packet)).collect::<Vec<_>>().join("\n");
            probe(runner, &step.flow, &["send"], Some(&packets))
        }
        Action::Wait(_) | Action::Rules(_) | Action::Conntrack(_) | Action::Counters(_) => {
            Ok(Finding::new(Word::Ok, ""))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn patience(runner: &Namespaces, flow: &Flow) -> Duration {
    flow.timeout.unwrap_or_else(|| as_awaited(runner, PATIENCE))
}

fn as_awaited(runner: &Namespaces, time: Duration) -> Duration {
    match runner.awaits {
        Awaits::Answer => time * AWAITED,
        Awaits::Silence => time,
    }
}

/// Runs a program on a host.
fn on(
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
fn probe(runner: &Namespaces, flow: &Flow, args: &[&str], input: Option<&str>) -> anyhow::Result<Finding> {
    let mut words = own_program(&["lab", "probe"])?;
    words.extend(args.iter().map(OsString::from));
    let output = on(runner, flow.from, words, input, patience(runner, flow) + GRACE)?;
    parse(args, &output)
}

fn parse(args: &[&str], output: &Output) -> anyhow::Result<Finding> {
    if output.status.is_none() {
        return Err(Late(format!("probe {}", args.join(" "))).into());
    }
    let line = output.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("a probe failed: {}", output.stderr.trim()))
}

/// The arguments of a TCP or UDP probe.
fn probe_args(
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

fn tcp(runner: &mut Namespaces, step: &Tcp) -> anyhow::Result<Finding> {
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
    let (stdin, stdout) = (child.stdin.take().context("no pipe")?, child.stdout.take().context("no pipe")?);
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

fn udp(runner: &Namespaces, step: &Udp) -> anyhow::Result<Finding> {
    let mut args = probe_args(runner, "udp", &step.flow, step.port, step.source_port);
    args.extend(["--say".to_owned(), hex(step.send.as_bytes())]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    probe(runner, &step.flow, &args, None)
}

fn ssh(runner: &mut Namespaces, step: &Ssh) -> anyhow::Result<Finding> {
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

fn ping(runner: &Namespaces, step: &Ping) -> anyhow::Result<Finding> {
    let timeout = patience(runner, &step.flow);
    let mut words: Vec<OsString> = ["ping", "-n", "-i", "0.2", "-c"].map(OsString::from).to_vec();
    words.extend([step.count.to_string().into(), "-W".into(), timeout.as_secs_f64().to_string().into()]);
    words.extend([
        "-s".into(),
        step.size.to_string().into(),
        "-I".into(),
        step.flow.source.to_string().into(),
    ]);
    if step.dont_fragment {
        words.extend(["-M".into(), "do".into()]);
    }
    if let Some(ttl) = step.ttl {
        words.extend(["-t".into(), ttl.to_string().into()]);
    }
    words.push(step.flow.to.to_string().into());
    let output = on(
        runner,
        step.flow.from,
        words,
        None,
        timeout + GRACE + Duration::from_millis(200) * u32::from(step.count),
    )?;
    if output.status.is_none() {
        return Err(Late(format!("ping {}", step.flow.to)).into());
    }
    Ok(ping_finding(&output, step.flow.to))
}

/// What iputils' `ping` says for each ICMP error.
const PING_WORDS: [(&str, &str, &str); 12] = [
    ("Port Unreachable", "icmp-port-unreachable", "icmp6-port-unreachable"),
    ("Port unreachable", "icmp-port-unreachable", "icmp6-port-unreachable"),
    ("Packet filtered", "icmp-admin-prohibited", "icmp6-adm-prohibited"),
    ("Administratively prohibited", "icmp-admin-prohibited", "icmp6-adm-prohibited"),
    ("Destination Host Prohibited", "icmp-host-prohibited", "icmp6-adm-prohibited"),
    ("Destination Net Prohibited", "icmp-net-prohibited", "icmp6-adm-prohibited"),
    ("Destination Host Unreachable", "icmp-host-unreachable", "icmp6-addr-unreachable"),
    ("Address unreachable", "icmp-host-unreachable", "icmp6-addr-unreachable"),
    ("Destination Net Unreachable", "icmp-net-unreachable", "icmp6-no-route"),
    ("No route", "icmp-net-unreachable", "icmp6-no-route"),
    ("Frag needed", "frag-needed", "packet-too-big"),
    ("Packet too big", "frag-needed", "packet-too-big"),
];

fn ping_finding(output: &Output, to: IpAddr) -> Finding {
    if output.ok() {
        let note = output.stdout.lines().find(|line| line.contains("received")).unwrap_or_default();
        let note = note.split(", ").take(2).collect::<Vec<_>>().join(", ");
        return Finding { stdout: output.stdout.clone(), ..Finding::new(Word::Ok, note) };
    }
    let said = format!("{}\n{}", output.stdout, output.stderr);
    let found = PING_WORDS.iter().find(|(words, ..)| said.contains(words));
    let line =
        said.lines().find(|line| line.starts_with("From") || line.contains("error")).unwrap_or("no answer");
    match found {
        Some((_, v4, v6)) => {
            let name = if to.is_ipv4() { v4 } else { v6 };
            Finding { icmp: Some((*name).to_owned()), ..Finding::new(Word::Unreachable, line) }
        }
        None if said.contains("Time to live exceeded") || said.contains("Time exceeded") => {
            Finding { icmp: Some("time-exceeded".to_owned()), ..Finding::new(Word::Unreachable, line) }
        }
        None if said.contains("message too long") => Finding::new(Word::Unreachable, line),
        None => Finding::new(Word::Blocked, "no answer"),
    }
}

/// `curl` on the host that the flow comes from.
fn curl(runner: &Namespaces, flow: &Flow, args: Vec<OsString>) -> anyhow::Result<Output> {
    let mut words: Vec<OsString> = ["curl", "-sS", "--max-time"].map(OsString::from).to_vec();
    let timeout = patience(runner, flow);
    words.extend([(timeout + PATIENCE).as_secs_f64().to_string().into(), "--connect-timeout".into()]);
    words.push(timeout.as_secs_f64().to_string().into());
    words.extend(args);
    on(runner, flow.from, words, None, timeout + WORK)
}

fn curl_finding(runner: &Namespaces, flow: &Flow, port: u16, output: &Output) -> anyhow::Result<Finding> {
    /// "Failed to connect", for whatever reason.
    const NO_CONNECTION: i32 = 7;
    let said = output.stderr.trim().lines().last().unwrap_or_default().to_owned();
    match output.code() {
        Some(0) => {
            let note = output.stdout.trim().lines().next().unwrap_or_default().to_owned();
            Ok(Finding { stdout: output.stdout.clone(), ..Finding::new(Word::Ok, note) })
        }
        Some(NO_CONNECTION) => {
            let args = probe_args(runner, "tcp", flow, port, None);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let found = probe(runner, flow, &args, None)?;
            if found.word() == Word::Ok { Ok(Finding::new(Word::Blocked, said)) } else { Ok(found) }
        }
        _ => Ok(Finding::new(Word::Blocked, said)),
    }
}

fn url(scheme: &str, to: IpAddr, port: u16, path: &str) -> OsString {
    let path = path.trim_start_matches('/');
    match to {
        IpAddr::V4(to) => format!("{scheme}://{to}:{port}/{path}").into(),
        IpAddr::V6(to) => format!("{scheme}://[{to}]:{port}/{path}").into(),
    }
}

fn http(runner: &Namespaces, step: &Http) -> anyhow::Result<Finding> {
    let output =
        curl(runner, &step.flow, vec!["-f".into(), url("http", step.flow.to, step.port, &step.path)])?;
    curl_finding(runner, &step.flow, step.port, &output)
}

/// The file that a transfer moves, and where the server keeps it.
fn files(
    runner: &Namespaces,
    flow: &Flow,
    server_dir: &str,
    bytes: u32,
) -> anyhow::Result<(PathBuf, PathBuf, Vec<u8>)> {
    let server = flow.to_host.context("the server is no host of this lab")?;
    let dir = runner.state.path(server_dir).join(&runner.lab.host(server).name);
    // Bytes that do not repeat soon, so that a piece that is lost or doubled shows.
    let content: Vec<u8> = (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Ok((runner.state.path("transfer"), dir, content))
}

fn ftp(runner: &Namespaces, step: &Ftp) -> anyhow::Result<Finding> {
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

fn tftp(runner: &Namespaces, step: &Tftp) -> anyhow::Result<Finding> {
    const PORT: u16 = 69;
    let bytes = match step.transfer {
        Transfer::List => 0,
        Transfer::Get { bytes } | Transfer::Put { bytes } => bytes,
    };
    let (local, dir, content) = files(runner, &step.flow, "tftp", bytes)?;
    let at = url("tftp", step.flow.to, PORT, "file");
    transfer(runner, &step.flow, PORT, step.transfer, Vec::new(), at.clone(), &[at], &local, &dir, &content)
}

/// Lists, gets or puts, and compares the bytes.
#[expect(clippy::too_many_arguments, reason = "the ends of a transfer")]
fn transfer(
    runner: &Namespaces,
    flow: &Flow,
    port: u16,
    what: Transfer,
    mut args: Vec<OsString>,
    list: OsString,
    file: &[OsString],
    local: &std::path::Path,
    server: &std::path::Path,
    content: &[u8],
) -> anyhow::Result<Finding> {
    use std::os::unix::fs::PermissionsExt as _;
    let remote = server.join("file");
    let moved = match what {
        Transfer::List => {
            args.push(list);
            None
        }
        Transfer::Get { .. } => {
            fs::write(&remote, content)?;
            fs::set_permissions(&remote, fs::Permissions::from_mode(0o644))?;
            args.extend(["--output".into(), local.as_os_str().to_owned()]);
            args.extend_from_slice(file);
            Some(local)
        }
        Transfer::Put { .. } => {
            fs::write(local, content)?;
            // What an earlier step left may belong to the server's own user.
            if remote.exists() {
                fs::remove_file(&remote)?;
            }
            args.extend(["--upload-file".into(), local.as_os_str().to_owned()]);
            args.extend_from_slice(file);
            Some(remote.as_path())
        }
    };
    let output = curl(runner, flow, args)?;
    let mut finding = curl_finding(runner, flow, port, &output)?;
    if let (Some(moved), Word::Ok) = (moved, finding.word()) {
        let same = fs::read(moved).is_ok_and(|bytes| bytes == content);
        let note = format!(
            "{} bytes, {}",
            content.len(),
            if same { "the same at both ends" } else { "but not the same" }
        );
        finding = Finding::new(if same { Word::Ok } else { Word::Blocked }, note);
    }
    Ok(finding)
}

fn traceroute(runner: &Namespaces, flow: &Flow) -> anyhow::Result<Finding> {
    let words: Vec<OsString> = ["traceroute", "-n", "-q", "1", "-w", "1", "-m", "8"]
        .iter()
        .map(OsString::from)
        .chain([flow.to.to_string().into()])
        .collect();
    let output = on(runner, flow.from, words, None, Duration::from_secs(20))?;
    let hops: Vec<&str> =
        output.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    let arrived = hops.last().is_some_and(|last| *last == flow.to.to_string());
    let word = if arrived { Word::Ok } else { Word::Blocked };
    Ok(Finding { stdout: hops.join("\n"), ..Finding::new(word, hops.join(" ")) })
}

fn exec(runner: &Namespaces, step: &Exec) -> anyhow::Result<Finding> {
    let words = ["sh", "-c", &step.run].map(OsString::from).to_vec();
    let output = on(runner, step.host, words, step.input.as_deref(), step.timeout.unwrap_or(WORK))?;
    let (word, note) = match output.code() {
        Some(0) => (Word::Ok, output.stdout.trim().lines().next().unwrap_or_default().to_owned()),
        Some(code) => (Word::Blocked, format!("exit code {code}: {}", output.stderr.trim())),
        None => (Word::Blocked, "it does not end".to_owned()),
    };
    Ok(Finding { stdout: output.stdout, ..Finding::new(word, note.trim_end_matches(": ").to_owned()) })
}

//! Running programs: briefly, with a deadline, or for as long as the lab lives.
//!
//! Two rules keep a killed command from leaving anything behind. A brief child has the lab's lock as its standard
//! input, so that whoever cleans up waits for it. Everything else runs in the lab's PID namespace, which ends with its
//! init; what starts a lasting child holds the lock until the child is in there.

#![forbid(unsafe_code)]

use super::init::Init;
use anyhow::{Context as _, bail};
use crossbeam_channel::{RecvTimeoutError, bounded};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a wait looks up to see whether the user wants to stop.
const LOOK_UP: Duration = Duration::from_millis(50);
/// How long `nsenter` may take to end once what it waits for is gone.
const GOES: Duration = Duration::from_secs(1);
/// What a program may print before the rest is thrown away.
const MAX_OUTPUT: u64 = 64 << 20;

/// The clock of the runners that live in real time.
#[expect(clippy::disallowed_methods, reason = "real programs live in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets real time pass.
pub fn pause(duration: Duration) {
    // A channel on which nothing ever comes.
    let _ = crossbeam_channel::after(duration).recv();
}

/// A deadline on a machine that may be busy: time in which this process was kept waiting for its turn does not count,
/// since whoever it waits for was probably kept waiting as well.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    left: Duration,
    last: Instant,
}

impl Patience {
    /// The longest that it may wait in one go.
    const SLICE: Duration = Duration::from_millis(50);
    /// A wait that takes longer than was asked for by no more than this was not kept waiting.
    const LATE: Duration = Duration::from_millis(5);

    pub fn new(time: Duration) -> Self {
        Self { left: time, last: now() }
    }

    /// How long to wait now, before [`Patience::is_over`] is asked again.
    pub fn slice(&self) -> Duration {
        self.left.min(Self::SLICE)
    }

    /// Counts the time since this was last asked.
    pub fn is_over(&mut self) -> bool {
        let now = now();
        self.count(now.saturating_duration_since(self.last));
        self.last = now;
        self.left.is_zero()
    }

    fn count(&mut self, passed: Duration) {
        let most = self.slice() + Self::LATE;
        self.left = self.left.saturating_sub(passed.min(most));
    }
}

/// Set once the user pressed Ctrl-C or the machine wants us to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to listen for SIGINT, SIGTERM and SIGHUP instead of being ended by them.
    pub fn listen() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot catch signals")?;
        }
        Ok(Self(flag))
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// The user wants to stop.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.is_set() {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Output {
    /// `None`: it was still running at the deadline, and was ended.
    pub status: Option<ExitStatus>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    pub fn ok(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// A brief command of our own: it must succeed. Ctrl-C is for us alone: it must not end what builds or removes half-way.
pub fn brief(lock: &File, program: &str, args: &[&OsStr]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(lock.try_clone()?)
        .process_group(0)
        .output()
        .with_context(|| format!("cannot run `{program}`"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    let how = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    };
    bail!("`{program} {}` failed ({how}): {}", words.join(" "), said.trim())
}

/// Where in a lab a program is to run.
#[derive(Clone, Debug)]
pub struct Entry {
    pub init: Init,
    pub netns: String,
    /// The host's name as a machine; what is no host has none.
    pub uts: Option<PathBuf>,
}

impl Entry {
    /// The words that run a program there. It sees the lab's files, begins in our folder if the lab has it, and ends with the lab.
    pub fn words(&self) -> Vec<OsString> {
        let mut words = self.nsenter(&["--mount"]);
        words.extend(["sh", "-c", "cd \"$0\" 2>/dev/null; exec \"$@\""].map(OsString::from));
        words.push(std::env::current_dir().unwrap_or_else(|_| "/".into()).into_os_string());
        words
    }

    fn nsenter(&self, options: &[&str]) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["nsenter".into(), "--pid".into()];
        words.extend(options.iter().map(OsString::from));
        words.extend(["--target".into(), self.init.pid().to_string().into()]);
        words.push(format!("--net=/run/netns/{}", self.netns).into());
        if let Some(uts) = &self.uts {
            let mut word = OsString::from("--uts=");
            word.push(uts);
            words.push(word);
        }
        words.push("--".into());
        words
    }
}

/// Runs a program to its end or to `timeout`, whichever is first.
pub fn run(
    words: &[OsString],
    input: Option<&str>,
    timeout: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Output> {
    let (program, args) = words.split_first().context("no program")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run `{}`", program.to_string_lossy()))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        let text = text.to_owned();
        // The program may not want to read it all.
        std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    }
    let stdout = gather(child.stdout.take());
    let stderr = gather(child.stderr.take());
    let status = await_end(&mut child, Patience::new(timeout), interrupt)?;
    if status.is_none() {
        end(&mut child);
    }
    let text = |side: crossbeam_channel::Receiver<Vec<u8>>| {
        // A grandchild may hold the pipe open; its words are not waited for.
        let bytes = side.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
}

fn gather(pipe: Option<impl std::io::Read + Send + 'static>) -> crossbeam_channel::Receiver<Vec<u8>> {
    let (sender, receiver) = bounded(1);
    if let Some(pipe) = pipe {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What came before an error still counts.
            let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    receiver
}

/// Waits for the end of a child; `None` once patience is over.
fn await_end(
    child: &mut Child,
    mut patience: Patience,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if interrupt.is_set() {
            end(child);
            bail!("interrupted");
        }
        if patience.is_over() {
            return Ok(None);
        }
        let slice = patience.slice();
        match &pidfd {
            Ok(fd) => {
                let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
                let slice = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(slice.subsec_nanos()) };
                // A signal ends the wait early: then we look up.
                let _ = rustix::event::poll(&mut fds, Some(&slice));
            }
            Err(_) => pause(slice),
        }
    }
}

/// Ends a child and whatever it started in its process group.
///
/// The child is `nsenter`, which takes note of the end of what it started in a lab. It goes last: else that would be left
/// to process 1 of the machine, and in a container there may be one that does not care.
pub fn end(child: &mut Child) {
    let group = Pid::from_child(child);
    for member in group_of(group).filter(|member| *member != group) {
        // It may have ended by itself.
        let _ = kill_process(member, Signal::KILL);
    }
    let mut patience = Patience::new(GOES);
    while matches!(child.try_wait(), Ok(None)) && !patience.is_over() {
        pause(Duration::from_millis(2));
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

/// The processes of a process group.
fn group_of(group: Pid) -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let own = group.as_raw_nonzero().get();
    pids.filter(move |pid| group_in(&stat_of(*pid)) == Some(own))
}

fn stat_of(pid: Pid) -> String {
    // It may have ended meanwhile.
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default()
}

/// The fifth field of `/proc/PID/stat`; the second one, a name in brackets, may hold anything.
fn group_in(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// A program that lives on after this command.
pub struct Lasting<'a> {
    pub words: &'a [OsString],
    pub env: &'a [(&'a str, &'a OsStr)],
    /// Whether it sees the lab's files, or the machine's.
    pub in_view: bool,
    /// Its words go here.
    pub log: &'a Path,
    /// Its standard output, if that is not for the log.
    pub stdout: Option<OwnedFd>,
}

impl Lasting<'_> {
    /// Starts it in the lab. When this returns it is in there, and ends with the init.
    pub fn start(mut self, lock: &File, entry: &Entry) -> anyhow::Result<()> {
        let stdout = self.stdout.take();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut all = entry.nsenter(if self.in_view { &["--mount"] } else { &[] });
        // `setsid` is inside already when it forks and goes, so that the lab's init is whom the program is left to.
        // The lock is let go only by the child, inside.
        all.extend(["setsid", "--fork", "sh", "-c", "exec \"$@\" </dev/null", "sh"].map(OsString::from));
        all.extend_from_slice(self.words);
        let stdout = stdout.map_or_else(|| log.try_clone().map(Stdio::from), |fd| Ok(fd.into()))?;
        let (program, args) = all.split_first().context("no program")?;
        let status = Command::new(program)
            .args(args)
            .envs(self.env.iter().copied())
            .stdin(lock.try_clone()?)
            .stdout(stdout)
            .stderr(log)
            .process_group(0)
            .status()
            .with_context(|| format!("cannot run `{}`", program.to_string_lossy()))?;
        if !status.success() {
            let said = fs::read_to_string(self.log).unwrap_or_default();
            bail!("`{}` does not start: {}", self.name(), said.lines().last().unwrap_or_default());
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.words.first().map_or_else(Default::default, |word| word.to_string_lossy().into_owned())
    }
}

/// Waits until `ready` says so, the child ends, or the deadline passes.
pub fn wait_until(
    deadline: Instant,
    interrupt: &Interrupt,
    mut ready: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    loop {
        if ready()? {
            return Ok(true);
        }
        interrupt.check()?;
        if now() >= deadline {
            return Ok(false);
        }
        pause(LOOK_UP.min(Duration::from_millis(10)));
    }
}

/// Waits for the other end of a channel, a deadline, or the user.
pub fn receive<T>(
    channel: &crossbeam_channel::Receiver<T>,
    timeout: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<T>> {
    let deadline = now() + timeout;
    loop {
        interrupt.check()?;
        let left = deadline.saturating_duration_since(now());
        match channel.recv_timeout(left.min(LOOK_UP)) {
            Ok(value) => return Ok(Some(value)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_ended_with_all_that_it_started() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 600 & echo started; wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut said = [0; 8];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut said).unwrap();
        let group = Pid::from_child(&child);
        assert_eq!(group_of(group).count(), 2);
        end(&mut child);
        // The end of the pipe, which both of them held.
        assert_eq!(stdout.read(&mut said).unwrap(), 0);
        assert_eq!(group_in("77 (a) b) S 1 42 42 0"), Some(42));
    }

    #[test]
    fn time_in_which_nobody_had_a_turn_does_not_count() {
        let mut patience = Patience::new(Duration::from_secs(1));
        patience.count(Duration::from_millis(50));
        assert_eq!(patience.left, Duration::from_millis(950));
        patience.count(Duration::from_secs(30));
        assert_eq!(
            patience.left,
            Duration::from_millis(895),
            "it was asked to wait 50 ms, and was kept waiting"
        );
        for _ in 0..17 {
            patience.count(Duration::from_millis(52));
        }
        assert_eq!(patience.left, Duration::from_millis(11));
        patience.count(Duration::from_millis(11));
        assert!(patience.left.is_zero());
    }
}

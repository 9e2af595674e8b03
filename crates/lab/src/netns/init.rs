//! The init of a lab: process 1 of the lab's PID namespace. When it ends, the kernel ends every process of the lab.
//!
//! ```text
//!   lab up ── unshare, setsid ──→ init           PID 1, and the lab's own view of files
//!                                   ├─ router    started by way of nsenter
//!                                   ├─ sshd, …
//!                                   └─ probes
//! ```
//!
//! Programs enter the lab by way of the namespaces of its init, so that nothing can start in a lab whose init is gone. The
//! init itself has the lab's lock as its standard input until it has written down who it is: whoever cleans up waits for
//! the lock, and then finds it. As long as the lab is not complete, the init waits for that lock as well: once the command
//! that makes or tests the lab has let go of it, or was killed, the init ends.
//!
//! The programs of a lab share one view of files: names of its hosts in `/etc/hosts`, OpenSSH's configuration, a `/run` of
//! their own, and a `/proc` that shows the lab alone.

#![forbid(unsafe_code)]

use super::rootless;
use super::services::own_program;
use super::state::{self, State};
use anyhow::{Context as _, bail};
use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the init says once programs can enter.
const READY: &str = "ready";
/// What of the lab's folder `etc` is seen in place of the machine's own files.
const SHOWN: [&str; 2] = ["hosts", "ssh/ssh_config"];
/// OpenSSH's place for its unprivileged half; it is compiled in.
const SSHD_ROOT: &str = "sshd";
/// Killed processes are waited for this long, in seconds.
const END_PATIENCE: u32 = 60;

/// Who the init of a lab is. The time of its start tells it from a later process with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    pid: i32,
    /// In clock ticks since the machine's start, as `/proc/PID/stat` has it.
    started: u64,
}

impl Init {
    /// Starts it, and waits until programs can enter. Signals do not cut this short: it takes a moment only.
    pub fn start(state: &State) -> anyhow::Result<Self> {
        let lab = &state.record.lab;
        let log = state.path("init.log");
        let mut words: Vec<std::ffi::OsString> =
            ["--mount", "--propagation", "slave", "--pid", "--", "setsid", "--fork"].map(Into::into).to_vec();
        words.extend(own_program(&["lab", "init-process", lab])?);
        let mut child = Command::new("unshare")
            .args(words)
            .current_dir("/")
            .stdin(state.lock.try_clone()?)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?)
            .process_group(0)
            .spawn()
            .context("cannot run `unshare`")?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        child.wait()?;
        if said.trim() != READY {
            bail!("the lab has no init: {}", fs::read_to_string(&log).unwrap_or_default().trim());
        }
        Self::of(lab).context("the init of the lab has not said who it is")
    }

    /// The init of a lab, if it is alive.
    pub fn of(lab: &str) -> Option<Self> {
        let text = fs::read_to_string(file(lab)).ok()?;
        let init: Self = serde_json::from_str(&text).ok()?;
        (started(init.pid) == Some(init.started)).then_some(init)
    }

    pub fn pid(self) -> i32 {
        self.pid
    }

    /// What tells the PID namespace of the lab from others.
    pub fn pid_namespace(self) -> Option<u64> {
        fs::metadata(format!("/proc/{}/ns/pid", self.pid)).ok().map(|file| file.ino())
    }

    /// Ends the init, and with it every process of the lab; waits until they are gone. `is_alone` tells whether no other
    /// process of the lab is alive.
    pub fn end(self, is_alone: impl Fn() -> bool) -> anyhow::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        // Now that the number is held by the descriptor: is it still the same one?
        if started(self.pid) != Some(self.started) {
            return Ok(());
        }
        pidfd_send_signal(&fd, Signal::KILL).context("cannot end the init of the lab")?;
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        for _ in 0..END_PATIENCE {
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&second)) {
                // The kernel lets it go once somebody has taken note of every one that it killed; that may be left to
                // process 1 of a container which does not care.
                Ok(0) if is_alone() => return Ok(()),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        bail!("the init of the lab, process {}, does not end", self.pid)
    }
}

fn file(lab: &str) -> PathBuf {
    state::folder().join(lab).join("init")
}

/// When a process was started; `None` for one that has ended.
pub fn started(pid: i32) -> Option<u64> {
    started_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The 22nd field of `/proc/PID/stat`; the second one, a name in brackets, may hold anything.
fn started_in(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// What the init is told while it waits.
enum Word {
    /// A process of the lab has ended, and somebody must take note.
    Ended,
    /// Nobody holds the lab's lock any more.
    Unlocked,
}

/// What the init does, until it is killed or the lab is given up. It runs as process 1 of a new PID namespace, in a
/// mount namespace of its own that still looks like the machine's.
pub fn run(lab: &str) -> anyhow::Result<()> {
    let lock = File::open(state::lock_file(lab)).context("this is for `stateway lab up` to call")?;
    say_who(lab)?;
    // Whoever cleans up finds us now.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let (sender, words) = crossbeam_channel::unbounded();
    note_ends(sender.clone())?;
    make_view(lab)?;
    writeln!(io::stdout(), "{READY}")?;
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    std::thread::spawn(move || {
        let free = flock(&lock, FlockOperation::LockShared).is_ok();
        drop(lock);
        // The other end lives as long as this process.
        free.then(|| sender.send(Word::Unlocked))
    });
    for word in words {
        match word {
            Word::Ended => while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {},
            Word::Unlocked if state::read(lab).is_some_and(|record| record.complete) => {}
            Word::Unlocked => break,
        }
    }
    Ok(())
}

/// Writes down who this process is, in the numbers of those outside: `/proc` is still theirs.
fn say_who(lab: &str) -> anyhow::Result<()> {
    let pid = fs::read_link("/proc/self").context("there is no /proc")?;
    let pid = pid.to_string_lossy().parse().context("/proc/self names no process")?;
    let init = Init { pid, started: started(pid).context("/proc does not show this process")? };
    let new = file(lab).with_extension("new");
    fs::write(&new, serde_json::to_string(&init)?)
        .and_then(|()| fs::rename(&new, file(lab)))
        .context("cannot write down who keeps the lab")
}

fn note_ends(sender: Sender<Word>) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGCHLD])?;
    std::thread::spawn(move || {
        for _ in &mut signals {
            if sender.send(Word::Ended).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Makes the view of files that the programs of a lab have.
fn make_view(lab: &str) -> anyhow::Result<()> {
    let dir = state::folder().join(lab);
    show_names(&dir.join("etc")).context("cannot show the lab's names in /etc")?;
    own_run(&dir).context("cannot make a /run for the lab")?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .context("cannot mount /proc for the lab")
}

/// Puts the lab's own files in place of the machine's.
fn show_names(etc: &Path) -> anyhow::Result<()> {
    let shown = SHOWN.iter().map(|name| (etc.join(name), Path::new("/etc").join(name)));
    let shown: Vec<(PathBuf, PathBuf)> = shown.filter(|(own, _)| own.exists()).collect();
    if shown.iter().all(|(_, place)| place.exists()) || rootless::is_alone() {
        for (own, place) in shown.iter().filter(|(_, place)| place.exists()) {
            mount_bind(own, place).with_context(|| place.display().to_string())?;
        }
    } else {
        // There is nothing to put them on: then they are laid over the whole folder.
        let mut lower = b"lowerdir=".to_vec();
        lower.extend_from_slice(etc.as_os_str().as_bytes());
        lower.extend_from_slice(b":/etc");
        mount("overlay", "/etc", "overlay", MountFlags::empty(), Some(CString::new(lower)?.as_c_str()))?;
    }
    // What root has configured for the machine's own logins must not get in the way of the lab's.
    let (own, place) = (etc.join("ssh/ssh_config"), Path::new("/root/.ssh/config"));
    if own.exists() && place.exists() {
        mount_bind(own, place).context("/root/.ssh/config")?;
    }
    Ok(())
}

/// A `/run` in which nobody but root writes, with the lab's folder in it: what its programs leave there goes with the lab.
fn own_run(dir: &Path) -> anyhow::Result<()> {
    let run = dir.join("run");
    fs::create_dir_all(&run)?;
    mount("stateway", &run, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755"))?;
    let within = run.join(dir.strip_prefix("/run").unwrap_or(dir));
    for folder in [&within, &run.join(SSHD_ROOT)] {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    mount_bind(dir, within)?;
    Ok(mount_move(&run, "/run")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_the_time_of_its_start() {
        let stat = "77 (a) b) c) S 1 77 77 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 424242 1000 10 18446744073709551615";
        assert_eq!(started_in(stat), Some(424_242));
        assert_eq!(started_in(&stat.replace(" S ", " Z ")), None, "it has ended");
        assert!(started(std::process::id() as i32).is_some());
    }
}

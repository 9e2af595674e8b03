//! What a lab leaves on the machine while it is up, and how all of it is taken away.
//!
//! ```text
//!   /run/stateway/labs/LAB.lock        held by whoever builds or removes the lab, and by its brief children
//!   /run/stateway/labs/LAB/state.json  written first: the names of all that will be made
//!   /run/stateway/labs/LAB/init        who its init is
//!   /run/stateway/labs/LAB/sources/N   copies of the files that it was made from
//!   /run/stateway/labs/LAB/rules       the rules that its router had when it had come up
//!   /run/stateway/labs/LAB/router.log  what its router says
//!   /run/stateway/labs/LAB/uts/HOST    UTS namespaces
//!   /run/netns/sw-LAB-HOST             network namespaces
//! ```

#![forbid(unsafe_code)]

use super::build;
use super::command::{self, Entry, Interrupt};
use super::init::{self, Init};
use super::origin;
use crate::builtin;
use crate::model::{Host, Lab, RunnerKind, Service};
use crate::resolve::is_lab_name;
use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use stateway_runtime::control::place;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a command that builds or removes the same lab is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// Where `ip netns` keeps namespaces.
const NETNS: &str = "/run/netns";
/// The file in a lab's folder with the rules that its router had when it had come up.
pub const RULES: &str = "rules";
/// The file in a lab's folder with what its router says.
pub const LOG: &str = "router.log";
/// How long processes have to end by themselves.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The folder of all labs.
pub fn folder() -> PathBuf {
    PathBuf::from("/run/stateway/labs")
}

/// What is written down of a lab.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub lab: String,
    /// The lab file, as an absolute path.
    pub file: PathBuf,
    pub runner: String,
    pub netns: Vec<String>,
    /// The control socket of its router, if that is a process.
    pub control: Option<PathBuf>,
    /// All of it stands, and nobody who made it is going to take it away: what lacks this is left over, or being
    /// made, or tested.
    pub complete: bool,
    /// The router's ports, in their order.
    #[serde(default)]
    pub ports: Vec<String>,
    #[serde(default)]
    pub hosts: Vec<HostRecord>,
    /// Every file that it was made from, as absolute paths, the lab file first; copies are in the folder `sources`.
    #[serde(default)]
    pub sources: Vec<PathBuf>,
}

/// A host as it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    pub host: String,
    /// The router's port that it is behind.
    pub port: String,
    /// Each with the length of its network.
    pub addresses: Vec<String>,
    pub mac: String,
    /// By kind, and port if there is one.
    pub services: Vec<String>,
}

impl Record {
    /// What is going to be made of a lab.
    fn of(lab: &Lab, runner: RunnerKind) -> Self {
        Self {
            lab: lab.name.clone(),
            file: origin::absolute(&lab.file),
            runner: runner.word().to_owned(),
            netns: netns_names(lab),
            control: (runner == RunnerKind::Live).then(|| place::of_lab(&lab.name)),
            complete: false,
            ports: lab.router.ifaces.iter().map(|iface| iface.name.clone()).collect(),
            hosts: lab.hosts.iter().map(|host| HostRecord::of(lab, host)).collect(),
            sources: lab.sources.iter().map(|source| origin::absolute(&source.path)).collect(),
        }
    }

    /// The hosts behind one port of the router.
    pub fn hosts_on<'a>(&'a self, port: &'a str) -> impl Iterator<Item = &'a HostRecord> {
        self.hosts.iter().filter(move |host| host.port == port)
    }

    /// The names of what is in the lab: its hosts, and `router`.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        let prefix = netns_name(&self.lab, "");
        self.netns
            .iter()
            .filter_map(move |netns| netns.strip_prefix(&prefix))
            .filter(|name| !name.starts_with('_'))
    }
}

impl HostRecord {
    fn of(lab: &Lab, host: &Host) -> Self {
        let service = |service: &Service| match service.port {
            Some(port) => format!("{}:{port}", service.kind.word()),
            None => service.kind.word().to_owned(),
        };
        Self {
            host: host.name.clone(),
            port: lab.port_name(host.iface).to_owned(),
            addresses: host.addresses.iter().map(ToString::to_string).collect(),
            mac: host.mac.to_string(),
            services: host.services.iter().map(service).collect(),
        }
    }
}

/// One lab on this machine, whose lock we hold.
#[derive(Debug)]
pub struct State {
    pub record: Record,
    pub lock: File,
    pub interrupt: Interrupt,
}

/// The network namespace of a host, or of `router`.
pub fn netns_name(lab: &str, host: &str) -> String {
    format!("sw-{lab}-{host}")
}

/// Every network namespace that a lab makes.
pub fn netns_names(lab: &Lab) -> Vec<String> {
    let mut names = vec![netns_name(&lab.name, "router")];
    names.extend(lab.hosts.iter().map(|host| netns_name(&lab.name, &host.name)));
    names.extend(build::segments(lab).map(|port| build::segment_netns(&lab.name, port)));
    names
}

impl State {
    /// Takes the lab's lock and writes down what is going to be made.
    pub fn begin(lab: &Lab, runner: RunnerKind, interrupt: Interrupt) -> anyhow::Result<Self> {
        let lock = lock(&lab.name, &interrupt)?;
        if let Some(record) = read(&lab.name) {
            bail!("the lab `{}` is up already, from {}", lab.name, builtin::shown(&record.file));
        }
        let record = Record::of(lab, runner);
        if let Some(taken) = record.netns.iter().find(|name| Path::new(NETNS).join(name).exists()) {
            bail!("there is a network namespace `{taken}` already, which another lab or program made");
        }
        note_made_folder()?;
        let state = Self { record, lock, interrupt };
        // What a command that was killed while it removed the lab, or before it wrote anything down, left of it.
        clear(&state.path(""), &state.lock)?;
        // Owned by root and open to nobody else: sshd insists on it, and so do private keys.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(state.path(""))
            .context("cannot make the lab's folder")?;
        state.write()?;
        origin::keep(lab, &state)?;
        Ok(state)
    }

    /// Takes the lock of a lab that is up.
    pub fn attach(name: &str, interrupt: Interrupt) -> anyhow::Result<Option<Self>> {
        let lock = lock(name, &interrupt)?;
        Ok(read(name).map(|record| Self { record, lock, interrupt }))
    }

    /// Notes that all of it stands, and stays.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.record.complete = true;
        self.write()
    }

    /// A path in the lab's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        folder().join(&self.record.lab).join(name)
    }

    pub fn netns(&self, host: &str) -> String {
        netns_name(&self.record.lab, host)
    }

    pub fn uts(&self, host: &str) -> PathBuf {
        self.path("uts").join(host)
    }

    /// The way into a host, or into what is between hosts.
    pub fn entry(&self, member: &str) -> anyhow::Result<Entry> {
        entry(&self.record.lab, member)
    }

    /// The words that run a program on a host.
    pub fn inside(&self, host: &str) -> anyhow::Result<Vec<OsString>> {
        Ok(self.entry(host)?.words())
    }

    /// Runs one of our own brief scripts in the network namespace of a host; `/proc/sys/net` is that namespace's own.
    pub fn script(&self, host: &str, script: &str) -> anyhow::Result<String> {
        let init = self.entry(host)?.init.pid().to_string();
        let net = format!("--net=/run/netns/{}", self.netns(host));
        // In the lab's view of files, since a container may have its own /proc/sys read-only.
        let args = ["--mount", "--target", &init, &net, "--", "sh", "-c", script];
        self.brief("nsenter", &args.map(OsStr::new))
    }

    /// Runs one of our own brief commands.
    pub fn brief(&self, program: &str, args: &[&OsStr]) -> anyhow::Result<String> {
        self.interrupt.check()?;
        command::brief(&self.lock, program, args)
    }

    /// Carries out many `ip` commands at once.
    pub fn ip_batch(&self, netns: Option<&str>, lines: &str) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let file = self.path("ip.batch");
        fs::write(&file, lines)?;
        let mut args = Vec::new();
        if let Some(netns) = netns {
            args.extend([OsStr::new("-n"), OsStr::new(netns)]);
        }
        args.extend([OsStr::new("-batch"), file.as_os_str()]);
        self.brief("ip", &args).map(drop)
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.record)?;
        // Renamed into place, so that nobody ever reads half of it.
        let (new, file) = (self.path("state.new"), self.path("state.json"));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The way into a part of a lab that is on this machine.
pub fn entry(lab: &str, member: &str) -> anyhow::Result<Entry> {
    let init = Init::of(lab).with_context(|| {
        format!("the lab `{lab}` is broken: its processes were killed\n  hint: `stateway lab down {lab}` takes the rest away")
    })?;
    let uts = folder().join(lab).join("uts").join(member);
    Ok(Entry { init, netns: netns_name(lab, member), uts: uts.exists().then_some(uts) })
}

/// Whoever builds, tests or removes the lab holds a lock on it.
pub fn lock_file(lab: &str) -> PathBuf {
    folder().join(format!("{lab}.lock"))
}

/// Takes the lock of a lab; waits a while for another command that is at it.
fn lock(name: &str, interrupt: &Interrupt) -> anyhow::Result<File> {
    // It becomes a path, below which everything is removed in the end.
    if !is_lab_name(name) {
        bail!("no lab can be called `{name}`");
    }
    let folder = folder();
    let path = lock_file(name);
    // Nobody else may open it: whoever can, can hold the lock.
    let open = || {
        let mut options = File::options();
        options.create(true).truncate(false).write(true).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path)
    };
    let make_folders = || {
        // Open to others: on its hosts, a lab's programs are ordinary users.
        let mut folders = folder.parent().into_iter().chain([folder.as_path()]);
        folders.try_for_each(|folder| place::make_own_folder(folder, 0o755))
    };
    let deadline = command::now() + LOCK_PATIENCE;
    let mut held = None;
    let taken = command::wait_until(deadline, interrupt, || {
        match make_folders() {
            Err(error) if error.downcast_ref().is_some_and(is_not_found) => return Ok(false),
            made => made?,
        }
        let file = match open() {
            Ok(file) => file,
            // The last of the other labs has just taken the folder along.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        // Whoever had it before may have removed the file under us.
        let same = fs::metadata(&path)
            .is_ok_and(|there| file.metadata().is_ok_and(|ours| there.ino() == ours.ino()));
        held = same.then_some(file);
        Ok(same)
    })?;
    match held {
        Some(file) if taken => Ok(file),
        _ => bail!("another command is at work on the lab `{name}`"),
    }
}

fn is_not_found(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Whether some command is at work on the lab `name`.
pub fn is_held(name: &str) -> bool {
    let file = File::open(lock_file(name));
    file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// Whether there is anything of the lab `name` on this machine, whole or not.
pub fn is_there(name: &str) -> bool {
    is_lab_name(name) && (folder().join(name).exists() || lock_file(name).exists())
}

/// What is written down of the lab `name`, if it is on this machine.
pub fn read(name: &str) -> Option<Record> {
    if !is_lab_name(name) {
        return None;
    }
    let text = fs::read_to_string(folder().join(name).join("state.json")).ok()?;
    serde_json::from_str(&text).ok()
}

/// Every lab on this machine, in the order of their names.
pub fn all() -> Vec<Record> {
    let Ok(entries) = fs::read_dir(folder()) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.iter().filter_map(|name| read(name)).collect()
}

/// Takes the lab away: processes, namespaces, mounts, files. What is gone already is fine.
/// Says whether there was anything.
pub fn remove(name: &str, interrupt: &Interrupt) -> anyhow::Result<bool> {
    if !folder().exists() {
        return Ok(false);
    }
    let lock = lock(name, interrupt)?;
    remove_locked(name, &lock)
}

/// As [`remove`], by whoever holds the lock already.
pub fn remove_locked(name: &str, lock: &File) -> anyhow::Result<bool> {
    let dir = folder().join(name);
    let there = dir.exists();
    let record = read(name);
    if let Some(record) = &record {
        end_processes(record)?;
        for netns in record.netns.iter().filter(|netns| Path::new(NETNS).join(netns).exists()) {
            command::brief(lock, "ip", &["netns".as_ref(), "delete".as_ref(), netns.as_ref()])?;
        }
        if let Some(control) = &record.control {
            gone(fs::remove_file(control))?;
        }
    }
    clear(&dir, lock)?;
    // Last, and still locked: who waits for it sees that the file is another one.
    gone(fs::remove_file(lock_file(name)))?;
    remove_folders(record.and_then(|record| record.control).as_deref());
    Ok(there)
}

/// There if `ip netns` found no folder for its namespaces, so that it made one.
const MADE_NETNS: &str = ".made-netns";

/// Notes that the folder of network namespaces is going to be made for a lab, whose lock is held.
fn note_made_folder() -> anyhow::Result<()> {
    // Whoever takes it away for the last lab has seen our lock, or has done so before we look.
    let _shared = lock_folder()?;
    if !Path::new(NETNS).exists() {
        fs::write(folder().join(MADE_NETNS), "")?;
    }
    Ok(())
}

/// Held, and only for a moment, by whoever makes or takes away what all labs share.
fn lock_folder() -> io::Result<File> {
    let folder = File::open(folder())?;
    flock(&folder, FlockOperation::LockExclusive)?;
    Ok(folder)
}

/// Removes what the last lab leaves behind empty.
fn remove_folders(control: Option<&Path>) {
    // Where the folder is gone, somebody has just done the rest as well.
    let Ok(_shared) = lock_folder() else { return };
    let mark = folder().join(MADE_NETNS);
    let is_last = fs::read_dir(folder())
        .is_ok_and(|entries| entries.filter_map(Result::ok).all(|entry| entry.path() == mark));
    if !is_last {
        // The router of another lab may be about to make its socket there.
        return;
    }
    if mark.exists() {
        let is_empty = fs::read_dir(NETNS).is_ok_and(|mut entries| entries.next().is_none());
        if is_empty {
            // `ip netns` has mounted it on itself. Whoever uses it at this moment keeps it.
            let _ = rustix::mount::unmount(NETNS, rustix::mount::UnmountFlags::empty());
            let _ = fs::remove_dir(NETNS);
        }
        if !Path::new(NETNS).exists() {
            let _ = fs::remove_file(mark);
        }
    }
    // Only if nothing is in there.
    for folder in [Some(folder().as_path()), folder().parent(), control.and_then(Path::parent)] {
        let _ = folder.map(fs::remove_dir);
    }
}

/// Removes the folder of a lab whose namespaces and processes are gone, and what is mounted in it.
fn clear(dir: &Path, lock: &File) -> anyhow::Result<()> {
    unmount_below(dir, lock)?;
    gone(fs::remove_dir_all(dir)).with_context(|| format!("cannot remove {}", dir.display()))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Ends every process of the lab: those in its PID namespace, and those that somebody else started in one of its
/// network namespaces.
fn end_processes(record: &Record) -> anyhow::Result<()> {
    let init = Init::of(&record.lab);
    let mut namespaces: Vec<u64> = record
        .netns
        .iter()
        .filter_map(|netns| fs::metadata(Path::new(NETNS).join(netns)).ok())
        .map(|file| file.ino())
        .collect();
    namespaces.extend(init.and_then(Init::pid_namespace));
    let others = || processes_in(&namespaces, init);
    // It is given the time to take leave.
    send(&others(), Signal::TERM);
    wait_for(|| others().is_empty())?;
    if let Some(init) = init {
        init.end(|| others().is_empty())?;
    }
    // From here on nothing starts in the lab any more.
    send(&others(), Signal::KILL);
    if wait_for(|| others().is_empty())? {
        return Ok(());
    }
    bail!("processes of the lab do not end: {:?}", others())
}

fn send(processes: &[Pid], signal: Signal) {
    for pid in processes {
        // It may have ended meanwhile.
        let _ = kill_process(*pid, signal);
    }
}

fn wait_for(done: impl Fn() -> bool) -> anyhow::Result<bool> {
    // Whoever wants to stop us would find half a lab.
    let calm = Interrupt::default();
    command::wait_until(command::now() + END_PATIENCE, &calm, || Ok(done()))
}

/// The processes whose PID or network namespace is one of `inodes`, without the init; zombies do not count.
fn processes_in(inodes: &[u64], but: Option<Init>) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids =
        entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_in = |pid: &i32, kind: &str| {
        fs::metadata(format!("/proc/{pid}/ns/{kind}")).is_ok_and(|file| inodes.contains(&file.ino()))
    };
    pids.filter(|pid| but.is_none_or(|init| init.pid() != *pid))
        .filter(|pid| (is_in(pid, "pid") || is_in(pid, "net")) && init::started(*pid).is_some())
        .filter_map(Pid::from_raw)
        .collect()
}

/// Unmounts the UTS namespaces, and whatever else is mounted below `dir`.
fn unmount_below(dir: &Path, lock: &File) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let mut points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| Path::new(point).starts_with(dir))
        .collect();
    // The last one mounted goes first.
    points.reverse();
    for chunk in points.chunks(256) {
        let args: Vec<&OsStr> = ["-n", "-l"].iter().chain(chunk).map(OsStr::new).collect();
        command::brief(lock, "umount", &args)?;
    }
    Ok(())
}

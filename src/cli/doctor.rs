//! `stateway doctor`: what this machine lacks, and the command that mends it.
//!
//! Every check looks and changes nothing.

use super::lab::health;
use super::render::{self, Format};
use super::{Failure, Result};
use crate::lab::netns::state::{self, Record};
use crate::lab::netns::{programs, rootless};
use anyhow::anyhow;
use rustix::fs::{Access, access};
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    name: String,
    state: State,
    /// What was seen.
    detail: String,
    /// What cannot be done without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    needed_for: Option<&'static str>,
    /// The command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Something works without it: less well, or not all of it.
    Warning,
    /// Nothing works without it, but `--on sim`.
    Missing,
}

impl Finding {
    fn new(name: impl Into<String>, state: State, detail: impl Into<String>) -> Self {
        Self { name: name.into(), state, detail: detail.into(), needed_for: None, fix: None }
    }

    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, State::Ok, detail)
    }

    fn needed_for(self, what: &'static str) -> Self {
        Self { needed_for: Some(what), ..self }
    }

    fn fix(self, command: impl Into<String>) -> Self {
        Self { fix: Some(command.into()), ..self }
    }
}

pub(super) fn run(args: Args) -> Result {
    let findings = examine();
    match args.format {
        Format::Text => print_text(&findings),
        Format::Json => render::json(&findings),
    }
    let missing: Vec<&str> =
        findings.iter().filter(|f| f.state == State::Missing).map(|f| f.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(", ");
    Err(Failure::Machine(anyhow!("missing: {list}; labs run on this machine with `--on sim` only")))
}

fn examine() -> Vec<Finding> {
    let is_root = rustix::process::geteuid().is_root();
    let mut findings = vec![kernel(), tun(), privileges(is_root)];
    if !is_root {
        findings.extend(user_namespaces());
    }
    findings.push(io_uring());
    findings.extend(programs::PROGRAMS.iter().map(|program| find_program(*program, &search_path())));
    findings.extend(leftovers());
    findings
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let detail = format!("Linux {release}");
    if version < (6, 2) {
        return Finding::new(
            "kernel",
            State::Warning,
            format!("{detail}: datagrams come one by one before 6.2"),
        )
        .needed_for("UDP in super-frames");
    }
    Finding::ok("kernel", detail)
}

fn tun() -> Finding {
    const PATH: &str = "/dev/net/tun";
    const FOR: &str = "stateway run, and labs with --on live";
    match access(PATH, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Finding::ok(PATH, "there, and we may open it"),
        Err(rustix::io::Errno::NOENT) => Finding::new(PATH, State::Missing, "there is none")
            .needed_for(FOR)
            .fix("modprobe tun || { mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200; }"),
        Err(error) => Finding::new(PATH, State::Missing, io::Error::from(error).to_string())
            .needed_for(FOR)
            .fix("chmod 666 /dev/net/tun"),
    }
}

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` (capabilities(7)), as bits of the effective set.
const CAPABILITIES: u64 = 1 << 12 | 1 << 21;

fn privileges(is_root: bool) -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    match (set & CAPABILITIES == CAPABILITIES, is_root) {
        (true, true) => Finding::ok("privileges", "root"),
        (true, false) => Finding::ok("privileges", "CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        (false, true) => Finding::new(
            "privileges",
            State::Missing,
            "root without CAP_NET_ADMIN or CAP_SYS_ADMIN",
        )
        .needed_for("namespaces and TAPs")
        .fix("docker run --privileged …, or --cap-add NET_ADMIN --cap-add SYS_ADMIN --device /dev/net/tun"),
        (false, false) => Finding::new(
            "privileges",
            State::Warning,
            "an ordinary user: `lab test` runs in a user namespace",
        )
        .needed_for("stateway run, lab up, and --on kernel")
        .fix("sudo stateway …"),
    }
}

/// What may forbid an ordinary user a namespace of their own.
fn user_namespaces() -> Vec<Finding> {
    if rootless::forbidden().is_none() {
        return vec![Finding::ok("user namespaces", "an ordinary user may have them")];
    }
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let forbids = |name: &str, path: &str, is_forbidden: fn(u64) -> bool, fix: &str| {
        let value = number(path)?;
        let detail = format!("{path} is {value}");
        if !is_forbidden(value) {
            return Some(Finding::ok(name, detail));
        }
        Some(Finding::new(name, State::Missing, detail).needed_for("running as an ordinary user").fix(fix))
    };
    [
        forbids(
            "user namespaces",
            "/proc/sys/user/max_user_namespaces",
            |n| n == 0,
            "sudo sysctl -w user.max_user_namespaces=15000",
        ),
        forbids(
            "user namespaces for users",
            "/proc/sys/kernel/unprivileged_userns_clone",
            |n| n == 0,
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        forbids(
            "AppArmor's restriction",
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            |n| n != 0,
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn io_uring() -> Finding {
    const NAME: &str = "io_uring";
    match crate::device::ring::is_available() {
        Ok(()) => Finding::ok(NAME, "there, and we may use it"),
        Err(error) => Finding::new(NAME, State::Warning, format!("{error}: frames are moved one by one"))
            .needed_for("full speed")
            .fix("sudo sysctl -w kernel.io_uring_disabled=0"),
    }
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons live where an ordinary user's PATH does not lead.
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect()
}

fn find_program((name, package, needed_for): (&str, &str, &'static str), path: &[PathBuf]) -> Finding {
    let found = path.iter().map(|dir| dir.join(name)).find(|file| access(file, Access::EXEC_OK).is_ok());
    let state = if programs::ALWAYS.contains(&name) { State::Missing } else { State::Warning };
    match found {
        Some(file) => Finding::ok(name, file.display().to_string()),
        None => Finding::new(name, state, "not installed")
            .needed_for(needed_for)
            .fix(format!("apt-get install -y {package}")),
    }
}

/// Labs that are neither up nor at work, and namespaces that belong to no lab.
fn leftovers() -> Vec<Finding> {
    let entries = fs::read_dir(Path::new("/run/netns")).into_iter().flatten().filter_map(io::Result::ok);
    let mut namespaces: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    namespaces.sort();
    let labs: Vec<(Record, &str)> = state::all()
        .into_iter()
        .map(|record| {
            let health = health(&record);
            (record, health)
        })
        .collect();
    let left = left_over(&labs, &namespaces);
    if left.is_empty() { vec![Finding::ok("leftovers", "none")] } else { left }
}

fn left_over(labs: &[(Record, &str)], namespaces: &[String]) -> Vec<Finding> {
    let left = |detail, fix| Finding::new("leftovers", State::Warning, detail).fix(fix);
    let halves = labs.iter().filter(|(_, health)| !matches!(*health, "up" | "at work"));
    let mut all: Vec<Finding> = halves
        .map(|(record, health)| {
            let fix = format!("stateway lab down {}", record.lab);
            left(format!("the lab `{}` is {health}", record.lab), fix)
        })
        .collect();
    let owned = |name: &String| labs.iter().any(|(record, _)| record.netns.contains(name));
    let stray: Vec<&str> = namespaces
        .iter()
        .filter(|name| name.starts_with("sw-") && !owned(name))
        .map(String::as_str)
        .collect();
    if !stray.is_empty() {
        let fix = stray.iter().map(|name| format!("ip netns del {name}")).collect::<Vec<_>>().join(" && ");
        all.push(left(format!("namespaces of no lab: {}", stray.join(", ")), fix));
    }
    all
}

fn print_text(findings: &[Finding]) {
    let width = findings.iter().map(|f| f.name.len()).max().unwrap_or(0);
    for Finding { name, state, detail, needed_for, fix } in findings {
        let word = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Missing => "missing",
        };
        render::line(&format!("{word:<8} {name:<width$}  {detail}"));
        if *state == State::Ok {
            continue;
        }
        if let Some(what) = needed_for {
            render::line(&format!("{:<8} {:<width$}    needed for {what}", "", ""));
        }
        if let Some(fix) = fix {
            render::line(&format!("{:<8} {:<width$}    mend it: {fix}", "", ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_on_the_path_or_named_with_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let path = [folder.path().to_owned()];
        let thing = ("thing", "things", "testing");
        let missing = find_program(thing, &path);
        assert_eq!(missing.state, State::Warning);
        assert_eq!(missing.fix.as_deref(), Some("apt-get install -y things"));
        let file = folder.path().join("thing");
        fs::write(&file, "").unwrap();
        assert_eq!(find_program(thing, &path).state, State::Warning, "it must be a program");
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program(thing, &path).state, State::Ok);
    }

    #[test]
    fn what_is_up_is_not_left_over_whatever_stands_between_its_hosts() {
        let lab = |name: &str, runner: &str, complete| Record {
            lab: name.to_owned(),
            file: PathBuf::from("/lab.yaml"),
            runner: runner.to_owned(),
            netns: vec![format!("sw-{name}-router")],
            complete,
            ..Record::default()
        };
        let labs = [
            (lab("one", "kernel", true), "up"),
            (lab("two", "live", false), "at work"),
            (lab("three", "live", false), "half up"),
        ];
        let namespaces =
            ["sw-four-router", "sw-one-router", "sw-three-router", "sw-two-router", "vpn"].map(str::to_owned);
        let found: Vec<(String, Option<String>)> =
            left_over(&labs, &namespaces).into_iter().map(|finding| (finding.detail, finding.fix)).collect();
        let expected = [
            ("the lab `three` is half up", "stateway lab down three"),
            ("namespaces of no lab: sw-four-router", "ip netns del sw-four-router"),
        ];
        assert_eq!(found, expected.map(|(detail, fix)| (detail.to_owned(), Some(fix.to_owned()))));
    }
}

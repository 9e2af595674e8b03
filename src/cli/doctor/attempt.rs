//! What can only be known by trying it. Each attempt is a child process in namespaces of its own, so that whatever it
//! makes is gone when it ends, and so that what kills it does not kill us.

use super::super::{Failure, Result};
use rustix::net::{AddressFamily, SocketType, ipproto};
use stateway_lab::netns::programs;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};

/// What this program itself does in a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Attempt {
    /// Opens a TAP device.
    Tap,
    /// Sets up an io_uring.
    Ring,
    /// Opens a raw socket.
    Raw,
}

impl Attempt {
    const fn word(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Ring => "ring",
            Self::Raw => "raw",
        }
    }

    /// In the child: tries it.
    pub(super) fn make(self) -> Result {
        match self {
            Self::Tap => stateway_runtime::device::tap::open_fd("swdoctor").map(drop),
            Self::Ring => stateway_runtime::device::ring::is_available(),
            Self::Raw => rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))
                .map(drop)
                .map_err(Into::into),
        }
        .map_err(|error| Failure::Machine(error.into()))
    }
}

/// Where an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// As we are.
    Here,
    /// In the namespaces that a lab of this user lives in.
    Apart,
}

/// The namespaces around an attempt: root's own, or, without root, those that `lab test` makes for itself.
fn around(place: Where) -> Vec<OsString> {
    let words: &[&str] = match place {
        Where::Here => &[],
        // A lab has a /proc of its own: that of a container may be read-only in parts.
        Where::Apart if rustix::process::geteuid().is_root() => {
            &["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--"]
        }
        Where::Apart => &[
            "unshare",
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--mount-proc",
            "--",
        ],
    };
    words.iter().map(OsString::from).collect()
}

/// Has this program try something; says why it cannot be had.
pub(super) fn own(what: Attempt, place: Where) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut words = around(place);
    words.extend([program.into(), "doctor".into(), "--attempt".into(), what.word().into()]);
    run(&words, "").map(drop)
}

/// Runs a line of shell, which reads `input`; says why it failed.
pub(super) fn shell(line: &str, input: &str, place: Where) -> Result<String, String> {
    let mut words = around(place);
    words.extend(["sh".into(), "-c".into(), line.into()]);
    run(&words, input)
}

/// Runs a program, and says what it printed; or why it failed, in its own words.
pub(super) fn run(words: &[OsString], input: &str) -> Result<String, String> {
    let (first, rest) = words.split_first().expect("there is a program");
    let name = first.to_string_lossy();
    let program = programs::find(&name).ok_or_else(|| format!("`{name}` is not installed"))?;
    let child = Command::new(program)
        .args(rest)
        .env_remove("STATEWAY_INSIDE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ended early says itself why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(said(&output)) } else { Err(why(&output)) }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// What iptables writes behind the reason.
const BEHIND: [&str; 2] = ["Error occurred at line", "Try `"];

/// The last line that a program wrote before it failed, without what only leads it.
fn why(output: &Output) -> String {
    if let Some(signal) = output.status.signal() {
        return format!("it was killed by signal {signal}");
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut lines =
        errors.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:"));
    let mut lines = lines.by_ref().filter(|line| !BEHIND.iter().any(|text| line.starts_with(text)));
    let last = lines.next_back().unwrap_or("it failed without a word");
    last.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_the_programs_own_words() {
        let failed = |line| shell(line, "", Where::Here).unwrap_err();
        assert_eq!(failed("echo 'error: no way\n  hint: none' >&2; exit 1"), "no way");
        assert_eq!(failed("exit 1"), "it failed without a word");
        assert_eq!(failed("kill -9 $$"), "it was killed by signal 9");
        assert_eq!(run(&["no-such-program".into()], "").unwrap_err(), "`no-such-program` is not installed");
        assert_eq!(shell("cat", "input", Where::Here).unwrap(), "input");
    }
}

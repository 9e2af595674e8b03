//! Labs without root: the command runs again in a user namespace of its own, where it is root.
//!
//! ```text
//!   stateway lab test ── unshare ──→ stateway lab test     user, network, mount, UTS, IPC and PID namespace:
//!        └── a pipe, whose end tells the inner one to stop    what it makes there dies with it
//! ```
//!
//! There is one user in there, and groups cannot be changed: OpenSSH runs as an ordinary user, and vsftpd as whoever
//! launched it.

#![forbid(unsafe_code)]

use super::command::{self, Interrupt};
use super::programs;
use anyhow::{Context as _, bail};
use std::fs;
use std::io::{self, Read as _};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set for the command that runs inside.
const INSIDE: &str = "STATEWAY_INSIDE";
/// Everything that a lab touches, and no process outlives the command.
const NAMESPACES: [&str; 9] =
    ["--user", "--map-root-user", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"];
/// How often the outer command looks whether the inner one has ended.
const LOOK_UP: Duration = Duration::from_millis(20);

/// The user, and group, that OpenSSH runs as.
pub const USER: (&str, u32) = ("lab", 1000);

/// Whether this process is root of a user namespace with no other user in it.
pub fn is_alone() -> bool {
    fs::read_to_string("/proc/self/setgroups").is_ok_and(|word| word.trim() == "deny")
}

/// What keeps an ordinary user from having namespaces here, and what mends it.
pub fn forbidden() -> Option<String> {
    if programs::find("unshare").is_none() {
        return Some("`unshare` is not installed\n  hint: apt-get install util-linux".to_owned());
    }
    let tried = Command::new("unshare").args(NAMESPACES).args(["--", "true"]).stdin(Stdio::null()).output();
    let said = match tried {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let remedies = [
        ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let remedy = remedies.iter().find(|(name, shut, _)| setting(name).trim() == *shut);
    let remedy = remedy.map_or("run it with `sudo`", |(.., command)| command);
    Some(format!(
        "without root it takes a user namespace, which this system does not allow ({said})\n  hint: {remedy}"
    ))
}

/// Runs this very command inside; gives back its exit code.
pub fn again() -> anyhow::Result<u8> {
    let interrupt = Interrupt::listen()?;
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    // Where an ordinary user's search does not lead: `ip`, `tc`, servers.
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    let mut child = Command::new("unshare")
        .args(NAMESPACES)
        // Process 1 takes note of the end of every other one: a shell does.
        .args(["--kill-child", "--", "sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .env("PATH", path)
        // It lies below what gets another file system in there.
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run `unshare`")?;
    let mut pipe = child.stdin.take();
    loop {
        if let Some(status) = child.try_wait()? {
            /// What shells say of a program that was killed.
            const KILLED: i32 = 137;
            return Ok(u8::try_from(status.code().unwrap_or(KILLED)).unwrap_or(1));
        }
        if interrupt.is_set() {
            drop(pipe.take());
        }
        command::pause(LOOK_UP);
    }
}

/// Inside: makes room for a lab. Elsewhere it does nothing.
pub fn settle() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        return Ok(());
    }
    std::thread::spawn(|| {
        // It ends when the outer command does, or wants us to.
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        signal_hook::low_level::raise(signal_hook::consts::SIGTERM)
    });
    mount(&["-t", "tmpfs", "-o", "mode=755", "stateway", "/run"])?;
    let (name, id) = USER;
    let users = format!(
        "root:x:0:0:root:/run:/bin/sh\n{name}:x:{id}:{id}:{name}:/run:/bin/sh\n\
         ftp:x:0:0:ftp:/run:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    );
    fs::write("/run/passwd", users).context("cannot write /run/passwd")?;
    mount(&["--bind", "/run/passwd", "/etc/passwd"])
}

fn mount(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("mount").args(args).output().context("cannot run `mount`")?;
    if !output.status.success() {
        bail!("`mount {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

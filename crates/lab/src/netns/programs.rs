//! What a lab with real programs needs of this machine, and how to get what is missing.

#![forbid(unsafe_code)]

use super::rootless;
use crate::model::{Lab, RunnerKind, ServiceKind};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Programs, the Debian packages that bring them, and what takes them.
pub const PROGRAMS: [(&str, &str, &str); 19] = [
    ("ip", "iproute2", "labs with --on live"),
    ("nsenter", "util-linux", "labs with --on live"),
    ("unshare", "util-linux", "labs with --on live"),
    ("setsid", "util-linux", "labs with --on live"),
    ("umount", "mount", "labs with --on live"),
    ("hostname", "hostname", "labs with --on live"),
    ("tc", "iproute2", "steps with `impair`"),
    ("ssh", "openssh-client", "steps `ssh`"),
    ("ssh-keygen", "openssh-client", "the service `ssh`"),
    ("sshd", "openssh-server", "the service `ssh`"),
    ("ping", "iputils-ping", "steps `ping`"),
    ("curl", "curl", "steps `http`, `ftp` and `tftp`"),
    ("vsftpd", "vsftpd", "the service `ftp`"),
    ("in.tftpd", "tftpd-hpa", "the service `tftp`"),
    ("traceroute", "traceroute", "steps `traceroute`"),
    ("iptables-legacy-restore", "iptables", "--on kernel, and stateway conform"),
    ("nft", "nftables", "--on kernel"),
    ("conntrack", "conntrack", "--on kernel"),
    ("tcpdump", "tcpdump", "lab capture"),
];
/// Without these no lab runs with real programs.
pub const ALWAYS: [&str; 6] = ["ip", "nsenter", "unshare", "setsid", "umount", "hostname"];

/// Where a program lies, `sbin` included.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Everything that keeps this machine from running the lab with real programs; each with what mends it.
pub fn missing(lab: &Lab, runner: RunnerKind) -> Vec<String> {
    let mut missing = privileges(runner);
    let mut packages = BTreeSet::new();
    let mut absent = Vec::new();
    for program in needed(lab, runner) {
        if find(program).is_none() {
            absent.push(format!("`{program}`"));
            packages
                .extend(PROGRAMS.iter().find(|(name, ..)| *name == program).map(|(_, package, _)| *package));
        }
    }
    if !absent.is_empty() {
        let packages: Vec<&str> = packages.into_iter().collect();
        missing.push(format!(
            "{} not installed\n  hint: apt-get install {}",
            absent.join(", "),
            packages.join(" ")
        ));
    }
    missing
}

/// Root, or for the live runner a user namespace; and the TUN device.
pub fn privileges(runner: RunnerKind) -> Vec<String> {
    let mut missing = Vec::new();
    match (runner, rustix::process::geteuid().is_root()) {
        (RunnerKind::Kernel, root) if !root || rootless::is_alone() => {
            missing.push("the kernel's own rules take root\n  hint: run it with `sudo`".into());
        }
        (RunnerKind::Live, false) => missing.extend(rootless::forbidden()),
        _ => {}
    }
    if runner == RunnerKind::Live {
        let tun = Path::new("/dev/net/tun");
        if !tun.exists() {
            missing.push(
                "there is no /dev/net/tun\n  hint: `modprobe tun`; in a container `--device /dev/net/tun`"
                    .to_owned(),
            );
        } else if let Err(error) = File::options().read(true).write(true).open(tun) {
            missing.push(format!(
                "/dev/net/tun cannot be opened: {error}\n  hint: run it as root, or `chmod 666 /dev/net/tun`"
            ));
        }
    }
    missing
}

fn needed(lab: &Lab, runner: RunnerKind) -> BTreeSet<&'static str> {
    let mut needed = BTreeSet::from(ALWAYS);
    if runner == RunnerKind::Kernel {
        needed.extend(["iptables-legacy-restore", "nft", "conntrack"]);
    }
    for service in lab.hosts.iter().flat_map(|host| &host.services) {
        match service.kind {
            ServiceKind::Ssh => needed.extend(["ssh", "ssh-keygen", "sshd"]),
            ServiceKind::Ftp => needed.extend(["vsftpd"]),
            ServiceKind::Tftp => needed.extend(["in.tftpd"]),
            ServiceKind::Http | ServiceKind::Echo | ServiceKind::Dns | ServiceKind::Command { .. } => {}
        }
    }
    for step in lab.tests.iter().flat_map(|test| &test.steps) {
        if !step.impair.is_empty() {
            needed.insert("tc");
        }
        needed.extend(step.action.programs());
    }
    needed
}

//! What the machine itself allows: devices, namespaces, capabilities, settings, the kernel's own rules.

use super::attempt::{self, Attempt, Where};
use super::finding::{Finding, Runner};
use rustix::fs::{Access, access};
use stateway_lab::netns::{programs, rootless};
use std::fs;

/// What takes namespaces.
const BOTH: [Runner; 2] = [Runner::Live, Runner::Kernel];
/// What a container is given so that labs run in it.
const CONTAINER: &str = "in a container: `--privileged`, or `--cap-add NET_ADMIN --cap-add SYS_ADMIN --cap-add NET_RAW \
                         --device /dev/net/tun --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
                         --security-opt systempaths=unconfined`";

pub(super) fn examine(is_root: bool) -> Vec<Finding> {
    let privileges = privileges(is_root);
    let is_whole = is_root && privileges.stops.is_empty();
    let mut findings = vec![kernel_version(), privileges];
    let namespaces = namespaces(is_root);
    // What is tried within them cannot be tried without.
    let has_namespaces = namespaces.stops.is_empty();
    findings.push(namespaces);
    findings.push(if has_namespaces { tun() } else { device() });
    if has_namespaces {
        findings.push(names_of_namespaces(is_root));
        findings.push(settings());
        findings.push(raw_sockets());
    }
    findings.push(io_uring());
    // Where root lacks capabilities, that is the reason, and no module helps.
    if is_whole && has_namespaces {
        findings.extend(kernel_rules());
    }
    findings
}

fn kernel_version() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let detail = format!("Linux {release}");
    if version < (6, 2) {
        return Finding::warning("kernel", format!("{detail}: datagrams come one by one before 6.2"))
            .needed_for("UDP in super-frames");
    }
    Finding::ok("kernel", detail)
}

/// Capabilities (capabilities(7)) and their bits.
const CAPABILITIES: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_SYS_ADMIN", 21)];

fn privileges(is_root: bool) -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let lacks: Vec<&str> =
        CAPABILITIES.iter().filter(|(_, bit)| set & 1 << bit == 0).map(|(name, _)| *name).collect();
    match (lacks.is_empty(), is_root) {
        (true, true) if rootless::is_alone() => {
            Finding::stops("privileges", "root of a user namespace, not of the machine", &[Runner::Kernel])
                .needed_for("the kernel's own rules")
        }
        (true, true) => Finding::ok("privileges", "root"),
        (true, false) => Finding::ok("privileges", "an ordinary user with the capabilities of a router"),
        (false, true) => Finding::stops("privileges", format!("root without {}", lacks.join(", ")), &BOTH)
            .advice(CONTAINER),
        (false, false) => Finding::stops(
            "privileges",
            "an ordinary user: `lab test` runs in a user namespace; the kernel's own rules take root",
            &[Runner::Kernel],
        )
        .needed_for("stateway run, lab up, and --on kernel")
        .advice("run it with `sudo`"),
    }
}

/// Settings that forbid an ordinary user a namespace: the file, the value that shuts, and what opens.
const SHUT: [(&str, &str, &str); 4] = [
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("user/max_net_namespaces", "0", "sysctl -w user.max_net_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

fn setting(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().to_owned()
}

/// Makes what a lab of this user lives in.
fn namespaces(is_root: bool) -> Finding {
    let name = if is_root { "namespaces" } else { "user namespaces" };
    let Err(why) = attempt::shell("true", "", Where::Apart) else {
        return Finding::ok(
            name,
            if is_root { "made and entered" } else { "an ordinary user may have them" },
        );
    };
    let finding = Finding::stops(name, &why, &BOTH).needed_for("labs with real programs");
    if programs::find("unshare").is_none() {
        return finding;
    }
    let shut = SHUT.iter().find(|(file, shut, _)| setting(file) == *shut);
    match shut {
        Some((file, value, fix)) => {
            let detail = format!("{why} (/proc/sys/{file} is {value})");
            Finding { detail, ..finding }.fix(*fix)
        }
        None if has_seccomp() => finding
            .advice(format!("a seccomp filter is at work here, for which no setting helps; {CONTAINER}")),
        None if is_root => finding.advice(CONTAINER),
        None => finding.advice("run it with `sudo`"),
    }
}

/// Whether system calls of this process are filtered, as in containers and sandboxes.
fn has_seccomp() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

const TUN: &str = "/dev/net/tun";
const TUN_FOR: &str = "stateway run, and labs with --on live";

/// The device alone: whether it is there, and may be opened.
fn device() -> Finding {
    use rustix::io::Errno;
    match access(TUN, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Finding::ok(TUN, "there, and we may open it"),
        Err(Errno::NOENT | Errno::NOTDIR) => Finding::stops(TUN, "there is none", &[Runner::Live])
            .needed_for(TUN_FOR)
            .fix("{ modprobe tun; [ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200; }; }")
            .advice("in a container: `--device /dev/net/tun`"),
        Err(error) => Finding::stops(TUN, std::io::Error::from(error).to_string(), &[Runner::Live])
            .needed_for(TUN_FOR)
            .fix("chmod 666 /dev/net/tun"),
    }
}

/// Makes a TAP, where nobody sees it.
fn tun() -> Finding {
    let found = device();
    if !found.stops.is_empty() {
        return found;
    }
    match attempt::own(Attempt::Tap, Where::Apart) {
        Ok(()) => Finding::ok(TUN, "opened, and a TAP made"),
        // The file may be there and yet stand for nothing: no driver, or a container's rules for devices.
        Err(why) => Finding::stops(TUN, format!("there, but no TAP can be made: {why}"), &[Runner::Live])
            .needed_for(TUN_FOR)
            .fix("modprobe tun")
            .advice("in a container: `--device /dev/net/tun`"),
    }
}

/// Gives a namespace a name, which takes mounts that others see, and enters it.
fn names_of_namespaces(is_root: bool) -> Finding {
    const NAME: &str = "mounts";
    // Without root, /run is the lab's own.
    let own_run = if is_root { "" } else { "mount -t tmpfs -o mode=755 stateway /run && " };
    let line = format!(
        "set -e; n=swdoctor{}; {own_run}ip netns add $n; trap 'ip netns del $n' EXIT; nsenter --net=/run/netns/$n -- true",
        // Where it is tried, every process is the first of its namespace.
        std::process::id()
    );
    match attempt::shell(&line, "", Where::Apart) {
        Ok(_) => Finding::ok(NAME, "a namespace was given a name, and entered by it"),
        Err(why) if why.ends_with("not found") || why.ends_with("not installed") => {
            // The program itself is missing, which is said where programs are.
            Finding::warning(NAME, format!("not tried: {why}"))
        }
        Err(why) => Finding::stops(NAME, why, &BOTH).needed_for("names of namespaces").advice(CONTAINER),
    }
}

/// Writes a setting of a namespace of its own.
fn settings() -> Finding {
    const NAME: &str = "/proc/sys";
    const WRITE: &str = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    let Err(why) = attempt::shell(WRITE, "", Where::Apart) else {
        return Finding::ok(NAME, "a setting of a new namespace was written");
    };
    let finding = Finding::stops(NAME, why, &BOTH).needed_for("settings of hosts and of the kernel's router");
    finding.advice(CONTAINER)
}

fn raw_sockets() -> Finding {
    match attempt::own(Attempt::Raw, Where::Apart) {
        Ok(()) => Finding::ok("raw sockets", "opened"),
        Err(why) => Finding::stops("raw sockets", why, &BOTH)
            .needed_for("packets made by hand, and to hear of ICMP errors")
            .advice("in a container: `--cap-add NET_RAW`"),
    }
}

fn io_uring() -> Finding {
    const NAME: &str = "io_uring";
    const FOR: &str = "full speed";
    let Err(why) = attempt::own(Attempt::Ring, Where::Here) else {
        return Finding::ok(NAME, "set up");
    };
    let finding =
        |why: String| Finding::warning(NAME, format!("{why}: frames are moved one by one")).needed_for(FOR);
    match setting("kernel/io_uring_disabled").as_str() {
        value @ ("1" | "2") => finding(format!("{why} (kernel.io_uring_disabled is {value})"))
            .fix("sysctl -w kernel.io_uring_disabled=0"),
        _ if has_seccomp() => finding(format!("{why} (refused by a seccomp filter)")).advice(
            "no sysctl helps: whoever made this container must allow `io_uring_setup`, `io_uring_enter` and \
                     `io_uring_register`, such as with `--security-opt seccomp=unconfined`",
        ),
        _ if why.contains("allocate memory") => {
            finding(why).advice("a higher limit for locked memory helps: `ulimit -l unlimited`")
        }
        _ => finding(why),
    }
}

/// Rules such as `--on kernel` loads, and the modules for them where the program says that its table is missing.
const RULES: &str = "*raw\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*mangle\n:FORWARD ACCEPT [0:0]\nCOMMIT\n*filter\n\
                     :FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n";
const NFT: &str = "table ip swdoctor { chain c { type filter hook forward priority 0; log group 1; }; }\n";

/// Loads rules into the kernel of a namespace of its own.
fn kernel_rules() -> Vec<Finding> {
    let tries = [
        (
            "the kernel's iptables",
            "iptables-legacy-restore",
            "iptables-legacy-restore",
            RULES,
            "modprobe -a iptable_raw iptable_mangle iptable_filter xt_conntrack",
        ),
        (
            "the kernel's ip6tables",
            "ip6tables-legacy-restore",
            "ip6tables-legacy-restore",
            RULES,
            "modprobe -a ip6table_raw ip6table_mangle ip6table_filter xt_conntrack",
        ),
        ("the kernel's nftables", "nft", "nft -f -", NFT, "modprobe -a nf_tables nft_log nfnetlink_log"),
        ("the kernel's conntrack", "conntrack", "conntrack -L", "", "modprobe nf_conntrack_netlink"),
    ];
    let installed = tries.into_iter().filter(|(_, program, ..)| programs::find(program).is_some());
    installed
        .map(|(name, _, line, input, modules)| {
            // As in a lab: its /run is its own, where xtables keeps a lock. Daemons' programs lie where not every PATH leads.
            let line = format!("PATH=$PATH:/usr/sbin:/sbin; mount -t tmpfs stateway /run && {line}");
            match attempt::shell(&line, input, Where::Apart) {
                Ok(_) => Finding::ok(name, "loaded into a namespace, and gone with it"),
                Err(why) => Finding::stops(name, why, &[Runner::Kernel])
                    .needed_for("--on kernel, and stateway conform")
                    .fix(modules)
                    .advice("in a container, the modules are the host's to load"),
            }
        })
        .collect()
}

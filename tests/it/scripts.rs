//! What `scripts/setup` and `scripts/run` do before anything takes long: on a machine whose programs are all made up, so
//! that nothing is installed or built, and whatever is asked of sudo, apt-get and cargo is written down.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// What the scripts use of a machine's own programs.
const REAL: [&str; 20] = [
    "basename", "bash", "cat", "cut", "dirname", "env", "grep", "head", "ls", "realpath", "sed", "setpriv",
    "sh", "sleep", "sort", "timeout", "touch", "tr", "true", "kill",
];
/// What `setup run` looks for, so that it is all here unless a test takes it away.
const ALWAYS: [&str; 12] = [
    "cc",
    "ip",
    "tc",
    "nsenter",
    "unshare",
    "mount",
    "umount",
    "hostname",
    "ssh",
    "ssh-keygen",
    "sshd",
    "ping",
];

/// Notes its name, its arguments, what it was told of debconf, and what it can read of its input.
const NOTES: &str =
    r#"echo "${0##*/} $* [${DEBIAN_FRONTEND-unset}] [$(timeout 5 cat || echo waits)]" >>"$NOTES""#;
/// sudo as Debian sets it up: of the environment nothing is left.
const SUDO: &str = r#"case $1 in -*) exit 1 ;; esac; exec env -i NOTES="$NOTES" PATH="$PATH" "$@""#;

/// A made-up machine: a folder of programs that is all of PATH.
struct Machine(tempfile::TempDir);

/// How a script ended.
struct Ended {
    code: i32,
    output: String,
    errors: String,
    /// What was asked of the programs that are made up.
    notes: String,
}

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::set_permissions(machine.0.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(machine.bin()).unwrap();
        for name in REAL {
            let real =
                ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|file| file.exists());
            symlink(real.unwrap(), machine.bin().join(name)).unwrap();
        }
        for name in ALWAYS {
            machine.program(name, "exit 0");
        }
        // An ordinary user, and what would change the machine itself.
        machine.program("id", "echo 1000");
        for name in ["apt-get", "dpkg", "tee", "rm", "chmod"] {
            machine.program(name, NOTES);
        }
        machine.program("sudo", SUDO);
        machine.cargo("1.95.0");
        machine
    }

    fn bin(&self) -> std::path::PathBuf {
        self.0.path().join("bin")
    }

    fn program(&self, name: &str, script: &str) {
        let file = self.bin().join(name);
        fs::write(&file, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }

    fn cargo(&self, version: &str) {
        self.program(
            "cargo",
            &format!("echo \"cargo $*\" >>\"$NOTES\"; [ \"$1\" != --version ] || echo 'cargo {version}'"),
        );
    }

    fn without(&self, name: &str) {
        fs::remove_file(self.bin().join(name)).unwrap();
    }

    /// Runs a script of the repository with nothing but this machine's programs, and an input that is never at its end.
    fn run(&self, before: &[String], script: &str) -> Ended {
        let notes = self.0.path().join("notes");
        fs::write(&notes, "").unwrap();
        fs::set_permissions(&notes, Permissions::from_mode(0o666)).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let words: Vec<&str> =
            before.iter().map(String::as_str).chain(["bash"]).chain(script.split(' ')).collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .current_dir(root)
            .env_clear()
            .env("PATH", self.bin())
            .env("HOME", self.0.path())
            .env("NOTES", &notes)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Open as long as the script runs, as a terminal's is.
        let input = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(input);
        let code = output.status.code().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (output, errors) = (text(output.stdout), text(output.stderr));
        Ended { code, output, errors, notes: fs::read_to_string(notes).unwrap() }
    }
}

impl Ended {
    /// It ended because the machine cannot do it, and said this; nothing was built.
    #[track_caller]
    fn cannot(&self, said: &[&str]) {
        assert_eq!(self.code, 3, "{}", self.errors);
        for said in said {
            assert!(self.errors.contains(said), "{}", self.errors);
        }
        assert!(!self.notes.contains("cargo build"), "{}", self.notes);
    }

    fn asked(&self, program: &str) -> Vec<&str> {
        self.notes.lines().filter(|line| line.starts_with(program)).collect()
    }
}

/// Runs what follows where a folder of the machine is empty. It takes root.
fn hidden(folder: &str) -> [String; 6] {
    let hide = format!("/bin/mount -t tmpfs none {folder} && exec \"$@\"");
    ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", &hide, "sh"].map(str::to_owned)
}

#[test]
fn an_installation_asks_nothing_though_sudo_drops_the_environment() {
    let machine = Machine::new();
    machine.without("ping");
    let ping = machine.bin().join("ping");
    // The packages bring what was missing.
    machine.program(
        "apt-get",
        &format!("{NOTES}\n[ \"${{*#*install}}\" = \"$*\" ] || /bin/ln -s /bin/true {}", ping.display()),
    );
    let ended = machine.run(&[], "scripts/setup run");
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert!(ended.errors.contains("setup: installing iputils-ping\n"), "{}", ended.errors);
    let asked: Vec<&str> = [ended.asked("apt-get "), ended.asked("dpkg ")].concat();
    assert_eq!(asked.len(), 3, "{}", ended.notes);
    // Told to ask nothing, and with an input that is at its end.
    assert!(asked.iter().all(|line| line.ends_with(" [noninteractive] []")), "{}", ended.notes);
    assert!(asked.iter().all(|line| line.contains("--force-confold")), "{}", ended.notes);
    assert!(asked[1].contains("install --yes --no-install-recommends iputils-ping"), "{}", ended.notes);
    // Where servers were kept from starting, they may start again.
    let policy =
        |program: &str| ended.asked(program).iter().any(|line| line.contains("/usr/sbin/policy-rc.d"));
    assert_eq!(policy("tee "), policy("rm "), "{}", ended.notes);
}

#[test]
fn a_lab_installs_what_it_takes_and_no_more() {
    if std::env::var_os("STATEWAY_SIM_ONLY").is_some() {
        return;
    }
    let machine = Machine::new();
    for (script, packages) in [
        ("scripts/setup --list run", ""),
        ("scripts/setup --list run topologies/icmp-related topologies/untracked", ""),
        ("scripts/setup --list run topologies/two-networks", "curl\ntraceroute\n"),
        ("scripts/setup --list run topologies/ftp-related", "curl\nvsftpd\n"),
        ("scripts/setup --list run article tftp-related", "curl\ntftpd-hpa\n"),
    ] {
        let ended = machine.run(&hidden("/usr/sbin"), script);
        assert_eq!((ended.code, ended.output.as_str()), (0, packages), "{script}: {}", ended.errors);
    }
    let ended = machine.run(&hidden("/usr/sbin"), "scripts/setup --list test");
    for package in ["curl", "iptables", "valgrind", "vsftpd"] {
        assert!(ended.output.lines().any(|line| line == package), "{}", ended.output);
    }
}

#[test]
fn an_old_toolchain_or_none_is_named_before_anything_is_installed() {
    let machine = Machine::new();
    machine.without("ping");
    for (script, version) in
        [("scripts/run", "1.85.1"), ("scripts/setup", "1.94.2"), ("scripts/test --sim-only", "1.0.0")]
    {
        machine.cargo(version);
        let ended = machine.run(&[], script);
        ended.cannot(&[
            &format!("the Rust toolchain is {version} ("),
            "stateway takes 1.95 or later",
            "https://rustup.rs",
        ]);
        assert_eq!(ended.asked("apt-get "), [""; 0]);
    }
    // Who has rustup needs one command.
    machine.program("rustup", "exit 0");
    machine.run(&[], "scripts/run").cannot(&["`rustup update stable && rustup default stable`"]);
    machine.without("cargo");
    let ended = machine.run(&[], "scripts/run");
    ended.cannot(&["there is no Rust toolchain; stateway takes Rust 1.95 or later", "https://rustup.rs"]);
    assert_eq!(ended.asked("apt-get "), [""; 0]);
    // A newer one will do.
    machine.cargo("1.100.0-nightly");
    assert_eq!(machine.run(&[], "scripts/setup --list run").code, 0);
}

#[test]
fn what_cannot_run_live_ends_with_code_3_before_the_build() {
    let machine = Machine::new();
    machine.program("sudo", "exit 1");
    machine.run(&[], "scripts/run").cannot(&["this takes root, and sudo refuses", "--on sim"]);
    machine.program("sudo", SUDO);
    if !Path::new("/dev/net/tun").exists() {
        machine.run(&[], "scripts/run").cannot(&["there is no /dev/net/tun", "--on sim"]);
        return;
    }
    machine.without("ssh");
    machine.program("apt-get", "exit 100");
    machine.run(&[], "scripts/run").cannot(&["the packages could not be installed: openssh-client"]);
    // It says that all is well, and brings nothing.
    machine.program("apt-get", "exit 0");
    machine
        .run(&[], "scripts/up topologies/article")
        .cannot(&["still missing (program:package): ssh:openssh-client"]);
    machine.program("ssh", "exit 0");
    machine.program("unshare", "echo unshare failed: Operation not permitted >&2; exit 1");
    machine
        .run(&[], "scripts/run")
        .cannot(&["does not let root make namespaces and TAPs: unshare failed", "--privileged"]);
    machine.program("unshare", "exit 0");
    let ended = machine.run(&[], "scripts/run");
    assert!(ended.notes.contains("cargo build"), "nothing is missing, so it is built: {}", ended.errors);
}

/// What `setup test` looks for beside [`ALWAYS`].
const FOR_TESTS: [&str; 21] = [
    "nc",
    "curl",
    "vsftpd",
    "in.tftpd",
    "traceroute",
    "tcpdump",
    "iptables-legacy-restore",
    "nft",
    "conntrack",
    "ipset",
    "ethtool",
    "iperf3",
    "dumpcap",
    "socat",
    "valgrind",
    "c++",
    "node",
    "npm",
    "chromium",
    "cargo-fmt",
    "cargo-clippy",
];

#[test]
fn the_step_of_the_tests_that_fails_is_said_last_and_ends_the_others() {
    if std::env::var_os("STATEWAY_SIM_ONLY").is_some() {
        return;
    }
    let machine = Machine::new();
    for name in FOR_TESTS {
        machine.program(name, "exit 0");
    }
    for name in ["mktemp", "rm"] {
        let _ = fs::remove_file(machine.bin().join(name));
        symlink(Path::new("/usr/bin").join(name), machine.bin().join(name)).unwrap();
    }
    // The toolchain has what makes WebAssembly.
    machine.program(
        "rustc",
        r#"/usr/bin/mkdir -p "$NOTES.rust/lib/rustlib/wasm32-unknown-unknown/lib"; echo "$NOTES.rust""#,
    );
    // Tests and labs go on and on; the documentation is wrong once both of them are under way.
    machine.program("unshare", r#"[ "$2" = --net ] || { echo "labs $$" >>"$NOTES"; exec sleep 600; }"#);
    machine.program(
        "cargo",
        r#"case "$*" in
            --version) echo "cargo 1.95.0" ;;
            "test --quiet"*) echo "tests $$" >>"$NOTES"; echo "a test passed"; exec sleep 600 ;;
            doc*) until grep -q "^labs " "$NOTES" && grep -q "^tests " "$NOTES"; do sleep 0.1; done
                echo "a link leads nowhere"; exit 7 ;;
            *) echo "cargo $*" ;;
        esac"#,
    );
    let ended = machine.run(&[], "scripts/test");
    assert_eq!(ended.code, 7, "{}{}", ended.output, ended.errors);
    assert!(ended.output.ends_with(" s)\na link leads nowhere\n"), "{}", ended.output);
    assert!(ended.errors.ends_with("test: failed, with exit code 7: documentation\n"), "{}", ended.errors);
    // A step with nothing beside it speaks as it goes.
    assert!(
        ended
            .output
            .contains("== format and lints\ncargo fmt --check\ncargo clippy --all-targets -- -D warnings\n")
    );
    for step in ["labs ", "tests "] {
        let pid: i32 = ended.asked(step)[0].trim_start_matches(step).parse().unwrap();
        // Nobody may have taken note of its end yet.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{step}: {stat}");
    }
}

#[test]
fn without_the_tun_device_nothing_is_installed_or_built() {
    if std::env::var_os("STATEWAY_SIM_ONLY").is_some() {
        return;
    }
    let machine = Machine::new();
    machine.without("ping");
    let ended = machine.run(&hidden("/dev/net"), "scripts/run");
    ended.cannot(&["there is no /dev/net/tun", "`modprobe tun`", "--device /dev/net/tun", "--on sim"]);
    assert_eq!(ended.asked("apt-get "), [""; 0]);
}

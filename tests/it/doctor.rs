//! `stateway doctor` where something is forbidden or missing: it says so, and what mends it.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

const IO_URING_SETUP: i64 = 425;
#[cfg(target_arch = "x86_64")]
const UNSHARE: i64 = 272;
#[cfg(target_arch = "aarch64")]
const UNSHARE: i64 = 97;

/// Runs the doctor behind `around`, words that end with a program to start, where `refused` is answered with EPERM.
fn doctor(around: &[&str], refused: Option<i64>, args: &[&str]) -> Output {
    let words: Vec<String> = [around, &[env!("CARGO_BIN_EXE_stateway"), "doctor"], args]
        .concat()
        .iter()
        .map(|w| (*w).to_owned())
        .collect();
    let run = move || {
        if let Some(call) = refused {
            let filter = SeccompFilter::new(
                BTreeMap::from([(call, vec![])]),
                SeccompAction::Allow,
                SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error() as u32),
                std::env::consts::ARCH.try_into().unwrap(),
            );
            let program: BpfProgram = filter.unwrap().try_into().unwrap();
            seccompiler::apply_filter(&program).unwrap();
        }
        Command::new(&words[0]).args(&words[1..]).output().unwrap()
    };
    // The filter is the thread's, and of what it starts.
    std::thread::spawn(run).join().unwrap()
}

/// The same, as JSON.
fn told(around: &[&str], refused: Option<i64>) -> Value {
    let output = doctor(around, refused, &["--format", "json"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// Runs what follows where the file systems are as `script` makes them.
fn where_mounts_are(script: &str) -> Vec<String> {
    let script = format!("{script} && exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

fn finding<'a>(told: &'a Value, name: &str) -> &'a Value {
    let findings = told["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["name"] == name)
        .unwrap_or_else(|| panic!("nothing on {name}: {told}"))
}

fn can(told: &Value, runner: &str) -> bool {
    let runners = told["runners"].as_array().unwrap();
    runners.iter().find(|one| one["runner"] == runner).unwrap()["can"].as_bool().unwrap()
}

fn mend(told: &Value) -> &str {
    told["mend"].as_str().unwrap_or_default()
}

fn is_sim_only() -> bool {
    std::env::var_os("STATEWAY_SIM_ONLY").is_some()
}

#[test]
fn where_all_can_run_it_says_so_and_has_nothing_to_mend() {
    if is_sim_only() {
        return;
    }
    let output = doctor(&[], None, &["--on", "sim,live"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "it takes root, namespaces and TAPs: {said}");
    assert!(said.starts_with("simulation yes · live yes · kernel "), "{said}");
    assert!(said.contains("ok       /dev/net/tun"), "{said}");
}

#[test]
fn io_uring_that_a_filter_refuses_is_nobodys_to_switch_on() {
    if is_sim_only() {
        return;
    }
    let told = told(&[], Some(IO_URING_SETUP));
    let ring = finding(&told, "io_uring");
    assert_eq!(ring["state"], "warning");
    assert!(ring["advice"].as_str().unwrap().starts_with("no sysctl helps"), "{ring}");
    assert!(ring["fix"].is_null() && !mend(&told).contains("io_uring"), "{told}");
    assert!(can(&told, "live"), "it is slower, and that is all");
}

#[test]
fn namespaces_that_a_filter_refuses_stop_all_but_the_simulation() {
    if is_sim_only() {
        return;
    }
    let told = told(&[], Some(UNSHARE));
    let namespaces = finding(&told, "namespaces");
    assert_eq!(namespaces["state"], "missing");
    assert!(namespaces["detail"].as_str().unwrap().contains("Operation not permitted"), "{namespaces}");
    assert!(namespaces["advice"].as_str().unwrap().contains("seccomp"), "{namespaces}");
    assert_eq!(["sim", "live", "kernel"].map(|runner| can(&told, runner)), [true, false, false]);
    let output = doctor(&[], Some(UNSHARE), &[]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("simulation yes · live no: namespaces: "), "{said}");
    assert_eq!(doctor(&[], Some(UNSHARE), &["--on", "sim"]).status.code(), Some(0));
}

#[test]
fn root_without_capabilities_is_told_which() {
    if is_sim_only() {
        return;
    }
    let without = ["setpriv", "--bounding-set=-net_admin,-net_raw,-sys_admin"];
    let told = told(&without, None);
    let detail = &finding(&told, "privileges")["detail"];
    assert_eq!(detail, "root without CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN");
    assert!(!can(&told, "live") && !can(&told, "kernel"));
}

#[test]
fn raw_sockets_are_tried() {
    if is_sim_only() {
        return;
    }
    let told = told(&["setpriv", "--bounding-set=-net_raw"], None);
    let raw = finding(&told, "raw sockets");
    assert_eq!(raw["state"], "missing");
    assert!(raw["advice"].as_str().unwrap().contains("--cap-add NET_RAW"), "{raw}");
    assert_eq!(mend(&told), "", "no module stands for a capability");
}

const LAB: &str = "
name: t-doctor
router: { ports: { a: {}, b: {} }, rules: \"*filter\\n:FORWARD DROP [0:0]\\nCOMMIT\\n\" }
hosts: { a: { port: a, address: 192.0.2.1/24 }, b: { port: b, address: 192.0.2.2/24 } }
tests:
  - name: nobody gets through
    send: { from: a, to: b, port: 22, source_port: 40001, packets: \"S 0:0(0) win 1000\" }
    expect: { result: blocked }
";

/// What the doctor says of a place is what then happens there.
#[test]
fn labs_run_where_the_doctor_says_so_and_nowhere_else() {
    if is_sim_only() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lab.yaml"), LAB).unwrap();
    let read_only =
        where_mounts_are("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys");
    let shut_run = where_mounts_are("mount -t tmpfs -o ro none /run");
    let no_device = where_mounts_are("mount -t tmpfs none /dev/net");
    let no_raw = ["setpriv", "--bounding-set=-net_raw"].map(str::to_owned).to_vec();
    for (around, runs) in
        [(Vec::new(), true), (read_only, true), (shut_run, false), (no_device, false), (no_raw, false)]
    {
        let around: Vec<&str> = around.iter().map(String::as_str).collect();
        let told = told(&around, None);
        assert_eq!(can(&told, "live"), runs, "{around:?}: {told}");
        let words = [&around, &[env!("CARGO_BIN_EXE_stateway"), "lab", "test", "--on", "live"][..]].concat();
        let output = Command::new(words[0]).args(&words[1..]).arg(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), runs, "{around:?}: {said}");
    }
}

#[test]
fn a_device_that_is_not_there_stops_labs_on_taps_alone() {
    if is_sim_only() {
        return;
    }
    let around = where_mounts_are("mount -t tmpfs none /dev/net");
    let around: Vec<&str> = around.iter().map(String::as_str).collect();
    let told = told(&around, None);
    assert_eq!(finding(&told, "/dev/net/tun")["detail"], "there is none");
    assert!(mend(&told).contains("mknod -m 666 /dev/net/tun c 10 200"), "{told}");
    assert!(!can(&told, "live"));
    // The command mends it: the shell that runs it sees the device.
    let script = format!(
        "mount -t tmpfs none /dev/net && {{ {}; }} >/dev/null 2>&1; exec \"$@\"",
        finding(&told, "/dev/net/tun")["fix"].as_str().unwrap()
    );
    let again = doctor(&["unshare", "--mount", "sh", "-c", &script, "sh"], None, &["--on", "live"]);
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stdout));
}

#[test]
fn a_program_that_is_missing_is_named_with_what_takes_it_and_its_package() {
    if is_sim_only() {
        return;
    }
    let around = where_mounts_are("mount --bind /dev/null /usr/sbin/sshd");
    let around: Vec<&str> = around.iter().map(String::as_str).collect();
    let told = told(&around, None);
    let sshd = finding(&told, "sshd");
    assert_eq!((&sshd["state"], &sshd["needed_for"]), (&"warning".into(), &"the service `ssh`".into()));
    assert!(mend(&told).contains("apt-get install -y --no-install-recommends openssh-server"), "{told}");
    let output = doctor(&around, None, &["--on", "live"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("simulation yes · live yes, but not the service `ssh` (no `sshd`)"), "{said}");
    assert!(said.lines().last().unwrap().starts_with("mend it: apt-get update && "), "{said}");
}

/// A setting that a user namespace has for itself keeps an ordinary user in it from having one.
#[test]
fn an_ordinary_user_without_namespaces_is_told_which_setting_opens_them() {
    if is_sim_only() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("stateway");
    std::fs::copy(env!("CARGO_BIN_EXE_stateway"), &program).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // It holds the namespace until its input ends, and has as many users as the machine.
    let mut holder = Command::new("unshare")
        .args(["--user", "sh", "-c", "echo ready; read end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let pid = holder.id();
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), "0 0 65536").unwrap();
    }
    let shut = "echo 0 > /proc/sys/user/max_user_namespaces && \
                exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$@\"";
    let output = Command::new("nsenter")
        .args([
            "--user",
            &format!("--target={pid}"),
            "--setuid=0",
            "--setgid=0",
            "--",
            "sh",
            "-c",
            shut,
            "sh",
        ])
        .arg(&program)
        .args(["doctor", "--format", "json"])
        .output()
        .unwrap();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let told: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    let found = finding(&told, "user namespaces");
    assert_eq!(found["state"], "missing");
    assert_eq!(found["fix"], "sysctl -w user.max_user_namespaces=15000", "{found}");
    assert!(mend(&told).starts_with("sudo sh -c '"), "{told}");
}

//! Labs that are up: which file they are, what goes on in them, and that nothing of them is left, whatever was killed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Whether labs with real programs are to be left out.
pub(crate) fn sim_only() -> bool {
    std::env::var_os("STATEWAY_SIM_ONLY").is_some()
}

/// A folder with a lab, whose name no other test uses; it is taken down in the end.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
    name: &'static str,
}

impl Bench {
    pub(crate) fn new(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { folder, name };
        bench.write("one/lab.yaml", "DROP");
        bench
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A lab where only `a` may ping, or everybody.
    pub(crate) fn write(&self, path: &str, policy: &str) {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, LAB.replace("NAME", self.name).replace("POLICY", policy)).unwrap();
    }

    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stateway"));
        command.current_dir(self.folder.path()).args(args.split(' ')).stdin(Stdio::null());
        command
    }

    /// Exit code, standard output and standard error.
    pub(crate) fn run(&self, args: &str) -> (Option<i32>, String, String) {
        told(&self.command(args).output().unwrap())
    }

    pub(crate) fn well(&self, args: &str) -> String {
        let (code, said, errors) = self.run(args);
        assert_eq!(code, Some(0), "{args}: {said}{errors}");
        said
    }

    pub(crate) fn refused(&self, args: &str, code: i32, words: &[&str]) {
        let (found, said, errors) = self.run(args);
        assert_eq!(found, Some(code), "{args}: {said}{errors}");
        for word in words {
            assert!(errors.contains(word), "{args}: no `{word}` in: {errors}");
        }
    }

    /// What is there of the lab: processes, namespaces, files.
    pub(crate) fn left(&self) -> Vec<String> {
        let marks =
            [format!("sw-{}-", self.name), format!("labs/{}/", self.name), self.at("").display().to_string()];
        let mut left = processes(&marks);
        let is_own = |file: &fs::DirEntry| {
            let name = file.file_name().to_string_lossy().into_owned();
            name.starts_with(&marks[0])
                || name == self.name
                || name.strip_prefix(self.name) == Some(".lock")
                || name == format!("lab-{}.sock", self.name)
        };
        for folder in ["/run/netns", "/run/stateway", "/run/stateway/labs"] {
            let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).filter(is_own);
            left.extend(files.map(|file| file.path().display().to_string()));
        }
        left
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.command(&format!("lab down {}", self.name)).output();
    }
}

pub(crate) const LAB: &str = "
name: NAME
router:
  ports: { a: {}, b: {} }
  rules: |
    *filter
    :FORWARD POLICY [0:0]
    -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A FORWARD -i a -m conntrack --ctstate NEW -j ACCEPT
    COMMIT
hosts:
  a: { port: a, address: 192.0.2.1/24, services: [ssh] }
  b: { port: b, address: 192.0.2.2/24, services: [ssh] }
tests:
  - name: b cannot ping
    ping: { from: b, to: a }
    expect: { result: blocked, rule: policy }
  - name: a can
    ping: { from: a, to: b }
";

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What runs with one of these words in its command line.
fn running(marks: &[String]) -> Vec<(rustix::process::Pid, String)> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let with_line = |pid: rustix::process::Pid| {
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    };
    let has_mark = |(_, line): &(_, String)| marks.iter().any(|mark| line.contains(mark.as_str()));
    pids.filter_map(rustix::process::Pid::from_raw).map(with_line).filter(has_mark).collect()
}

/// The command lines with one of these words in them.
fn processes(marks: &[String]) -> Vec<String> {
    running(marks).into_iter().map(|(_, line)| line).collect()
}

/// Waits for the end of what runs with one of these words in its command line.
fn wait_for_end_of(marks: &[String]) {
    for (pid, _) in running(marks) {
        // It may be gone by now.
        let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { continue };
        rustix::event::poll(&mut [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)], None)
            .unwrap();
    }
}

/// The one process whose command line has this word.
fn process(mark: &str) -> rustix::process::Pid {
    let found = running(&[mark.to_owned()]);
    assert_eq!(found.len(), 1, "{mark}: {found:?}");
    found[0].0
}

#[test]
fn another_file_of_the_same_name_is_another_lab() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-origin");
    bench.write("two/lab.yaml", "ACCEPT");
    bench.well("lab up one");
    let [one, two] = ["one/lab.yaml", "two/lab.yaml"].map(|file| fs::canonicalize(bench.at(file)).unwrap());
    let both = [one.to_str().unwrap(), two.to_str().unwrap(), "`stateway lab down t-origin`"];
    for args in
        ["lab down two", "lab up two", "lab test two", "lab exec two a true", "lab inspect two/lab.yaml"]
    {
        bench.refused(args, 2, &both);
    }
    bench.well("lab exec t-origin a true");
    // A folder is never taken for the name of a lab.
    bench.write("t-origin/lab.yaml", "ACCEPT");
    bench.refused("lab down t-origin", 2, &[both[0], &format!("`stateway lab down {}`", both[0])]);
    assert!(bench.well("lab up one").contains("is up already"));
    let (_, _, errors) = bench.run("lab up two --restart");
    assert!(errors.contains(&format!("taking down `t-origin`, from {}", one.display())), "{errors}");
    assert!(bench.well("lab ls").contains(two.to_str().unwrap()));
    bench.well("lab down two");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn a_file_that_has_changed_is_not_what_is_up() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-changed");
    let with_file =
        LAB.replace("NAME", "t-changed").replace("rules: |", "rules_file: rules.txt\n  sysctl: {}\n  #");
    let (above, rules) = with_file.split_once("  #\n").unwrap();
    let (rules, below) = rules.split_once("hosts:").unwrap();
    fs::write(bench.at("one/lab.yaml"), format!("{above}hosts:{below}")).unwrap();
    fs::write(bench.at("one/rules.txt"), rules.replace("POLICY", "DROP")).unwrap();
    bench.well("lab up one");
    bench.well("lab test one");
    fs::write(bench.at("one/rules.txt"), rules.replace("POLICY", "ACCEPT")).unwrap();
    let rules_file = fs::canonicalize(bench.at("one/rules.txt")).unwrap();
    for args in ["lab test one --on live", "lab up one"] {
        bench.refused(
            args,
            2,
            &[rules_file.to_str().unwrap(), "/run/stateway/labs/t-changed/sources/1", "--restart"],
        );
    }
    // What works with what is up says so, and does it.
    let (code, _, errors) = bench.run("lab exec one a true");
    assert_eq!(code, Some(0));
    assert!(errors.contains("has changed since"), "{errors}");
    // With the new rules `b` can ping.
    let (code, said, errors) = bench.run("lab test one --on live --restart");
    assert_eq!(code, Some(1), "{said}{errors}");
    assert!(said.contains("1 passed, 1 failed"), "{said}");
    assert!(bench.well("lab up one").contains("is up already"), "it was up, and is left up");
}

/// A test that replaces the rules would leave a lab that is up with them; and so does somebody with a kernel's tools.
#[test]
fn a_lab_is_tested_with_the_rules_of_its_file_and_left_with_them() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-rules");
    let replaced = format!(
        "{LAB}  - name: nobody can\n    steps:\n    - rules: {{ v4: \"*mangle\\n:FORWARD DROP [0:0]\\nCOMMIT\\n\" }}\n    \
         - ping: {{ from: a, to: b }}\n      expect: {{ result: blocked }}\n"
    );
    fs::write(bench.at("one/lab.yaml"), replaced.replace("NAME", "t-rules").replace("POLICY", "DROP"))
        .unwrap();
    for runner in ["live", "kernel"] {
        bench.well(&format!("lab up one --on {runner}"));
        for _ in 0..2 {
            assert!(bench.well(&format!("lab test one --on {runner}")).contains("3 passed"));
        }
        bench.well("lab exec one a ping -c 1 -W 10 192.0.2.2");
        if runner == "kernel" {
            // To look changes nothing; to flush does.
            bench.well("lab exec one router iptables-legacy -t nat -L -n");
            bench.well("lab test one --on kernel");
            bench.well("lab exec one router iptables-legacy -F FORWARD");
            bench.refused("lab test one --on kernel", 2, &["other rules", "one/lab.yaml", "`--restart`"]);
            assert!(bench.well("lab test one --on kernel --restart").contains("3 passed"));
        }
        bench.well("lab down one");
    }
}

#[test]
fn what_is_up_is_known_without_its_file() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-moved");
    bench.well("lab up one");
    fs::write(bench.at("one/lab.yaml"), "name: [").unwrap();
    for lab in ["one", "one/lab.yaml", "t-moved"] {
        assert!(bench.well(&format!("lab inspect {lab}")).contains("192.0.2.2/24"));
        bench.well(&format!("lab exec {lab} a true"));
    }
    bench.well("lab capture one a --duration 10ms --write captured");
    assert!(bench.at("captured/a.pcapng").exists());
    bench.write("one/lab.yaml", "DROP");
    fs::rename(bench.at("one"), bench.at("elsewhere")).unwrap();
    for lab in ["one", "elsewhere", "t-moved"] {
        bench.well(&format!("lab exec {lab} b true"));
    }
    fs::remove_dir_all(bench.at("elsewhere")).unwrap();
    assert!(bench.well("lab down one").contains("is down"));
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn hosts_know_each_other_by_name_and_by_key() {
    if sim_only() {
        return;
    }
    let had_sshd = Path::new("/run/sshd").exists();
    let bench = Bench::new("t-names");
    bench.well("lab up one");
    assert!(bench.well("lab exec one a ping -c 1 -W 10 b").contains("(192.0.2.2)"));
    assert_eq!(bench.well("lab exec one a ssh b hostname"), "b\n");
    // And a login does not run what its user has set up for logins to this machine.
    let home = bench.well("lab exec one a ssh b printenv HOME");
    assert!(home.ends_with("/ssh/home\n"), "{home}");
    assert_eq!(
        bench.well("lab exec one a ssh 192.0.2.2 getent hosts a").split_whitespace().next(),
        Some("192.0.2.1")
    );
    // Files are copied as commands are run.
    bench.well("lab exec one a scp /etc/hostname b:/run/copied");
    bench.well("lab exec one b cmp /run/copied /etc/hostname");
    // What a host leaves in /run is not on the machine.
    bench.well("lab exec one a touch /run/t-names");
    assert!(!Path::new("/run/t-names").exists());
    assert_eq!(Path::new("/run/sshd").exists(), had_sshd);
    // Where it was typed is where it runs.
    assert_eq!(
        bench.well("lab exec one a pwd").trim(),
        fs::canonicalize(bench.at("")).unwrap().to_str().unwrap()
    );
}

#[test]
fn a_lab_whose_router_was_killed_is_broken_and_up_mends_it() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-mended");
    bench.well("lab up one");
    let pid = process("lab-t-mended.sock");
    let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    rustix::event::poll(&mut [rustix::event::PollFd::new(&ended, rustix::event::PollFlags::IN)], None)
        .unwrap();
    assert!(bench.well("lab ls").contains("broken"));
    bench.refused("lab test one --on live", 3, &["has ended", "`stateway lab up`"]);
    bench.refused(
        "conntrack -L --lab one",
        2,
        &["the router of the lab `t-mended` has ended", "`stateway lab up`"],
    );
    let (code, said, errors) = bench.run("lab up one");
    assert_eq!(code, Some(0), "{said}{errors}");
    assert!(errors.contains("is broken"), "{errors}");
    bench.well("lab test one --on live");
}

/// The signals that end a command, by name.
const SIGNALS: [rustix::process::Signal; 4] = [
    rustix::process::Signal::INT,
    rustix::process::Signal::TERM,
    rustix::process::Signal::HUP,
    rustix::process::Signal::KILL,
];

/// Starts a command and kills it once this file of the lab is there; says whether it met the command running.
fn killed_at(bench: &Bench, args: &str, file: &str, signal: rustix::process::Signal) -> bool {
    let file = Path::new("/run/stateway").join(file.replace("NAME", bench.name));
    let mut child: Child = bench.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let met = loop {
        if child.try_wait().unwrap().is_some() {
            break false;
        }
        if file.exists() {
            break true;
        }
        std::thread::yield_now();
    };
    if met {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal);
    }
    child.wait().unwrap();
    met
}

#[test]
fn nothing_is_left_of_a_lab_whose_command_was_killed() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-kills");
    // From the first thing that is written to the last service that is started.
    let moments = [
        "labs/NAME/state.json",
        "labs/NAME/init",
        "labs/NAME/uts/router",
        "labs/NAME/router.log",
        "lab-NAME.sock",
        "labs/NAME/log/a.sshd-22",
        "labs/NAME/log/b.sshd-22",
    ];
    for args in ["lab up one", "lab test one --on live"] {
        for moment in moments {
            for signal in SIGNALS {
                assert!(killed_at(&bench, args, moment, signal), "{args} has no {moment}");
                bench.well("lab down t-kills");
                assert_eq!(bench.left(), [""; 0], "{args}, {signal:?} at {moment}");
            }
        }
    }
}

#[test]
fn the_processes_of_a_killed_test_end_with_it() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-orphans");
    let endless = format!("{LAB}  - name: endless\n    exec: {{ host: a, run: exec sleep 600 }}\n");
    fs::write(bench.at("one/lab.yaml"), endless.replace("NAME", "t-orphans").replace("POLICY", "DROP"))
        .unwrap();
    let mut first = bench.command("lab test one --on live").stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("a can")), "it takes root and namespaces");
    let init = fs::read_to_string("/run/stateway/labs/t-orphans/init").unwrap();
    let init: serde_json::Value = serde_json::from_str(&init).unwrap();
    let pid = rustix::process::Pid::from_raw(init["pid"].as_i64().unwrap() as i32).unwrap();
    let init = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    // Its end is the end of all of them.
    rustix::event::poll(&mut [rustix::event::PollFd::new(&init, rustix::event::PollFlags::IN)], None)
        .unwrap();
    let marks = ["labs/t-orphans/".to_owned(), "lab-t-orphans.sock".to_owned()];
    // Who waits outside for a program of the lab has yet to see that it is gone.
    wait_for_end_of(&marks);
    assert_eq!(processes(&marks), [""; 0]);
    bench.well("lab down t-orphans");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn a_lab_that_cannot_be_read_leaves_no_report_that_looks_well() {
    let bench = Bench::new("t-unread");
    fs::create_dir_all(bench.at("bad")).unwrap();
    fs::write(bench.at("bad/lab.yaml"), "name: [").unwrap();
    fs::write(bench.at("r.xml"), "an old one").unwrap();
    bench.refused(
        "lab test bad one --on sim --report junit=r.xml --report tap=r.tap --report json=r.json",
        2,
        &["bad"],
    );
    let read = |name| fs::read_to_string(bench.at(name)).unwrap();
    let (xml, tap) = (read("r.xml"), read("r.tap"));
    assert!(
        xml.contains("errors=\"1\"")
            && xml.contains("skipped message=\"not run: another lab file is wrong\""),
        "{xml}"
    );
    assert!(
        tap.starts_with("TAP version 13\n1..3\nnot ok 1 - bad: the lab file can be read (sim)\n"),
        "{tap}"
    );
    assert!(!tap.contains("\nok "), "{tap}");
    let all: serde_json::Value = serde_json::from_str(&read("r.json")).unwrap();
    let endings: Vec<&str> =
        all.as_array().unwrap().iter().map(|test| test["ending"].as_str().unwrap()).collect();
    assert_eq!(endings, ["broken", "not run", "not run"]);
}

#[test]
fn a_lab_without_tests_is_no_success() {
    let bench = Bench::new("t-untested");
    let lab = fs::read_to_string(bench.at("one/lab.yaml")).unwrap();
    fs::write(bench.at("one/lab.yaml"), lab.split_once("tests:").unwrap().0).unwrap();
    bench.refused("lab test one --on sim --report junit=r.xml", 2, &["has no tests"]);
    assert!(fs::read_to_string(bench.at("r.xml")).unwrap().contains("errors=\"1\""));
    // All of them are for another runner.
    fs::write(bench.at("one/lab.yaml"), lab.replace("  - name", "  - on: [kernel]\n    name")).unwrap();
    bench.refused("lab test one --on sim --report junit=r.xml", 1, &["no test was run"]);
    let xml = fs::read_to_string(bench.at("r.xml")).unwrap();
    assert!(xml.contains("<error message=\"no test was run\"/>"), "{xml}");
}

#[test]
fn a_lab_that_cannot_be_built_is_an_error_and_the_next_one_is_tested() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-built");
    fs::create_dir_all(bench.at("broken")).unwrap();
    let lab = LAB.replace("NAME", "t-unbuilt").replace("POLICY", "DROP");
    fs::write(bench.at("broken/lab.yaml"), lab).unwrap();
    // Somebody has something of the name that the lab would make.
    let netns = |what: &str| Command::new("ip").args(["netns", what, "sw-t-unbuilt-a"]).status().unwrap();
    assert!(netns("add").success(), "it takes root and namespaces");
    let (code, said, errors) = bench
        .run("lab test broken one --on live --report junit=r.xml --report tap=r.tap --report json=r.json");
    netns("del");
    assert_eq!(code, Some(3), "{said}{errors}");
    assert!(said.contains("2 passed, 1 broken, 2 not run"), "{said}");
    let read = |name| fs::read_to_string(bench.at(name)).unwrap();
    let xml = read("r.xml");
    assert!(
        xml.contains(
            "<testsuite name=\"t-unbuilt (live)\" tests=\"3\" disabled=\"2\" errors=\"1\" failures=\"0\">"
        ),
        "{xml}"
    );
    assert!(
        xml.contains(
            "<testsuite name=\"t-built (live)\" tests=\"2\" disabled=\"0\" errors=\"0\" failures=\"0\">"
        ),
        "{xml}"
    );
    assert_eq!(read("r.tap").matches("\nnot ok ").count(), 3);
    let all: serde_json::Value = serde_json::from_str(&read("r.json")).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 5);
    assert_eq!(all[2]["ending"], "not run");
}

#[test]
fn a_report_of_a_killed_test_is_no_success() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-interrupted");
    let endless = format!(
        "{LAB}  - name: endless\n    exec: {{ host: a, run: exec sleep 600 }}\n  - name: never\n    ping: {{ from: a, to: b }}\n"
    );
    fs::write(bench.at("one/lab.yaml"), endless.replace("NAME", "t-interrupted").replace("POLICY", "DROP"))
        .unwrap();
    for (signal, words) in [
        (rustix::process::Signal::INT, "message=\"interrupted\""),
        (rustix::process::Signal::KILL, "message=\"the command has not come to its end\""),
    ] {
        let mut child = bench
            .command("lab test one --on live --report junit=r.xml")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("a can")));
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        assert_ne!(child.wait().unwrap().code(), Some(0));
        let xml = fs::read_to_string(bench.at("r.xml")).unwrap();
        assert!(
            xml.contains(words) && xml.contains("errors=\"1\"") && xml.contains("name=\"never\""),
            "{xml}"
        );
        bench.well("lab down t-interrupted");
    }
}

#[test]
fn whoever_may_not_ask_a_router_is_told_whose_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    if sim_only() {
        return;
    }
    let (bench, other) = (Bench::new("t-whose"), Bench::new("t-other"));
    bench.well("lab up one");
    other.well("lab up one");
    bench.refused("conntrack -L", 2, &["several routers", "--lab t-whose", "--lab t-other"]);
    // Where everybody may read it.
    fs::set_permissions(bench.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_stateway"), bench.at("stateway")).unwrap();
    for args in [&["conntrack", "-L"][..], &["top", "--once"], &["conntrack", "-L", "--lab", "t-whose"]] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(bench.at("stateway"));
        let output = command.args(args).env_remove("XDG_RUNTIME_DIR").current_dir("/").output().unwrap();
        let (code, _, errors) = told(&output);
        assert_eq!(code, Some(3), "{args:?}: {errors}");
        let whose = if args.contains(&"--lab") {
            "the router of the lab `t-whose` belongs to root, and answers root alone\n  hint: run it with `sudo`"
        } else {
            "and answer root alone\n  hint: run it with `sudo`, and with `--lab NAME`"
        };
        assert!(errors.contains(whose), "{args:?}: {errors}");
    }
}

//! Labs broken on purpose, labs that use the lab file in odd ways, and a lab without root.

use stateway_lab::model::{Action, Lab};
use stateway_lab::report::Look;
use stateway_lab::sim::Sim;
use stateway_lab::trial::{self, Ending};
use stateway_lab::{self as lab, report};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The labs of a folder of this repository, by name.
pub(crate) fn labs(folder: &str) -> Vec<Lab> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| lab::load(path).unwrap_or_else(|errors| panic!("{errors}"))).collect()
}

#[test]
fn odd_labs_pass_in_simulation() {
    for lab in labs("tests/labs") {
        for test in trial::run(&lab, &mut Sim::new(lab.clone(), 1).unwrap(), |_| ()) {
            let told =
                format!("{}\n{}", report::line(&test, 0, Look::PLAIN), report::details(&test, Look::PLAIN));
            assert!(matches!(test.ending, Ending::Passed | Ending::Skipped(_)), "{}: {told}", lab.name);
        }
    }
}

#[test]
fn a_built_in_lab_goes_by_its_name_where_nothing_else_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let stateway = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stateway"));
        let output = command.args(args).current_dir(folder.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, said, errors) = stateway(&["lab", "test", "article", "--on", "sim"]);
    assert_eq!(code, 0, "{errors}");
    assert!(said.ends_with("13 passed\n"), "{said}");

    let (_, list, _) = stateway(&["lab", "builtin"]);
    assert!(list.contains("article             104 may open connections"), "{list}");
    let (code, text, _) = stateway(&["lab", "builtin", "article"]);
    assert_eq!((code, text.as_str()), (0, include_str!("../../topologies/article/lab.yaml")));
    let (code, _, errors) = stateway(&["lab", "test", "artcle", "--on", "sim"]);
    assert_eq!(code, 2);
    assert!(errors.contains("did you mean `article`?"), "{errors}");

    if std::env::var_os("STATEWAY_SIM_ONLY").is_none() {
        // Its router reads it as well.
        let (code, _, errors) = stateway(&["lab", "up", "untracked"]);
        assert_eq!(code, 0, "it takes root and namespaces: {errors}");
        assert_eq!(stateway(&["lab", "exec", "untracked", "host77", "true"]).0, 0);
        // It is called as it was asked for, and a command ends as it does.
        for args in
            [&["ls"][..], &["ls", "--format", "json"], &["inspect", "untracked"], &["up", "untracked"]]
        {
            let (code, said, errors) = stateway(&[&["lab"], args].concat());
            assert_eq!((code, errors.as_str()), (0, ""));
            assert!(said.contains("untracked") && !said.contains("builtin:"), "{said}");
        }
        assert_eq!(stateway(&["lab", "exec", "untracked", "host77", "sh", "-c", "exit 7"]).0, 7);
        let (code, _, errors) = stateway(&["lab", "down", "untracked"]);
        assert_eq!(code, 0, "{errors}");
    }

    // A folder of that name is what is meant.
    std::fs::create_dir(folder.path().join("article")).unwrap();
    std::fs::write(folder.path().join("article/lab.yaml"), "name: mine").unwrap();
    let (code, _, errors) = stateway(&["lab", "test", "article", "--on", "sim"]);
    assert_eq!(code, 2);
    assert!(errors.contains("article/lab.yaml has"), "{errors}");
}

/// One way to break a lab: what was done, and the rules that came of it.
struct Break {
    what: String,
    rules: String,
}

fn is_forward(line: &str) -> bool {
    line.starts_with("-A FORWARD ")
}

/// The state rule deleted, two neighbours swapped, source port 22 accepted.
fn breaks(rules: &str) -> Vec<Break> {
    let lines: Vec<&str> = rules.lines().collect();
    let text = |lines: Vec<&str>| lines.join("\n") + "\n";
    let mut all = Vec::new();
    let forward: Vec<usize> = (0..lines.len()).filter(|at| is_forward(lines[*at])).collect();
    for (number, at) in forward.iter().enumerate() {
        if lines[*at].contains("ESTABLISHED") {
            let mut broken = lines.clone();
            broken.remove(*at);
            all.push(Break { what: format!("without rule {}", number + 1), rules: text(broken) });
        }
        if forward.get(number + 1) == Some(&(at + 1)) {
            let mut broken = lines.clone();
            broken.swap(*at, at + 1);
            let what = format!("rules {} and {} swapped", number + 1, number + 2);
            all.push(Break { what, rules: text(broken) });
        }
    }
    let mut broken = lines.clone();
    broken.insert(forward[0], "-A FORWARD -p tcp -m tcp --sport 22 -j ACCEPT");
    all.push(Break { what: "source port 22 accepted".into(), rules: text(broken) });
    all
}

/// The lab with other rules, where its tests bring its own back as well.
fn broken(lab: &Lab, rules: &str) -> Lab {
    let mut broken = lab.clone();
    for step in broken.tests.iter_mut().flat_map(|test| &mut test.steps) {
        if let Action::Rules(text) = &mut step.action
            && text.v4 == lab.router.rules
        {
            text.v4 = Some(rules.to_owned());
        }
    }
    broken.router.rules = Some(rules.to_owned());
    broken
}

#[test]
fn a_lab_that_is_broken_fails_and_says_which_packet_met_which_rule() {
    for lab in labs("topologies") {
        for Break { what, rules } in breaks(lab.router.rules.as_deref().unwrap_or_default()) {
            // Of 300 rules that are alike none has a test of its own; the lab of 30 has.
            if lab.name == "trusted-hosts-300" && what.ends_with("swapped") && what != "rules 1 and 2 swapped"
            {
                continue;
            }
            let broken = broken(&lab, &rules);
            let reports = trial::run(&broken, &mut Sim::new(broken.clone(), 1).unwrap(), |_| ());
            let failed = reports.iter().find(|test| matches!(test.ending, Ending::Failed(_)));
            let failed = failed.unwrap_or_else(|| panic!("{}: {what}: no test noticed", lab.name));
            let told = report::details(failed, Look::PLAIN);
            let names_a_rule = told.contains("filter/FORWARD/") || told.contains(" by policy");
            assert!(names_a_rule, "{}: {what}: {told}", lab.name);
        }
    }
}

/// What an ordinary user does, with real programs.
const ROOTLESS: &str = "
name: t-rootless
description: Every server that takes another way without root.
router:
  ports: { inside: {}, outside: {} }
  helpers: [ftp, tftp]
  rules: |
    *filter
    :FORWARD DROP [0:0]
    -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A FORWARD -i inside -m conntrack --ctstate NEW -j ACCEPT
    COMMIT
hosts:
  a: { port: inside, address: 192.0.2.1/24 }
  b: { port: outside, address: 192.0.2.2/24, services: [ssh, ftp, tftp, http, echo] }
tests:
  - ssh: { from: a, to: b, run: hostname }
    expect: { stdout: b, rule: filter/FORWARD/2 }
  - ftp: { from: a, to: b, mode: active, command: put }
  - ftp: { from: a, to: b, mode: epsv, command: get }
  - tftp: { from: a, to: b, command: get }
  - tftp: { from: a, to: b, command: put }
  - http: { from: a, to: b }
  - ping: { from: a, to: b }
  - ping: { from: b, to: a }
    expect: { result: blocked }
";

/// Becomes nobody, where everybody may open the TUN device.
const AS_NOBODY: &str = "mount -t tmpfs none /mnt && mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun \
     && exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$@\"";

#[cfg(target_os = "linux")]
#[test]
fn a_lab_runs_live_without_root() {
    use std::os::unix::fs::PermissionsExt as _;
    if std::env::var_os("STATEWAY_SIM_ONLY").is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Where nobody may read it.
    std::fs::copy(env!("CARGO_BIN_EXE_stateway"), at("stateway")).unwrap();
    std::fs::write(at("lab.yaml"), ROOTLESS).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", AS_NOBODY, "sh"])
        .arg(at("stateway"))
        .args(["lab", "test", "--on", "live"])
        .arg(at("lab.yaml"))
        .output()
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "it takes root and namespaces: {said}{errors}");
    assert!(said.contains("8 passed"), "{said}");
}

/// A lab on the kernel outlives whoever made it, as nothing of it needs a process.
const KILLED: &str = "
name: t-killed
description: Its first command is killed in the midst of a test.
router:
  mode: route
  ports: { l: { address: 198.51.100.254/25 }, r: { address: 198.51.100.126/25 } }
  rules: |
    *filter
    :FORWARD ACCEPT [0:0]
    COMMIT
hosts:
  a: { port: l, address: 198.51.100.253/25, gateway: 198.51.100.254 }
  b: { port: r, address: 198.51.100.1/25, gateway: 198.51.100.126 }
tests:
  - name: there is a way
    ping: { from: a, to: b }
";

#[cfg(target_os = "linux")]
#[test]
fn what_a_killed_test_left_is_taken_away_by_the_next() {
    use std::io::BufRead as _;
    use std::process::Stdio;
    if std::env::var_os("STATEWAY_SIM_ONLY").is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.yaml");
    let again = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stateway"));
        command.args(["lab", "test", "--on", "kernel"]).arg(&file).stdout(Stdio::piped());
        command
    };
    std::fs::write(
        &file,
        format!("{KILLED}  - name: endless\n    exec: {{ host: a, run: exec sleep 600 }}\n"),
    )
    .unwrap();
    let mut first = again().spawn().unwrap();
    let mut said = std::io::BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().starts_with("pass")), "it takes root and namespaces");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(Path::new("/run/netns/sw-t-killed-a").exists());

    std::fs::write(&file, KILLED).unwrap();
    let output = again().output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{errors}");
    assert!(errors.contains("taking away what an interrupted command left of `t-killed`"), "{errors}");
    assert!(!Path::new("/run/netns/sw-t-killed-a").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_is_no_lab_is_never_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("precious");
    std::fs::write(&file, "").unwrap();
    // A lab that is up has made the folder of all labs, where names are looked for.
    for name in [folder.path().to_str().unwrap(), "..", "../..", "no such lab"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_stateway")).args(["lab", "down", name]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {errors}");
        assert!(errors.contains(&format!("there is no lab at `{name}`")), "{errors}");
    }
    assert!(file.exists());
}

//! `lab test` with several labs at the same time, and with some of their tests only.

use crate::lab_up::{Bench, LAB, sim_only};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Labs of this repository that differ in how long they take.
const LABS: [&str; 6] = ["trusted-hosts-30", "untracked", "article", "invalid", "ftp-related", "tcp-flags"];

/// Output and reports of these labs in simulation.
fn simulated(options: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let topologies = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut command = Command::new(env!("CARGO_BIN_EXE_stateway"));
    command.args(["lab", "test", "--on", "sim"]).args(LABS.map(|lab| topologies.join(lab)));
    for (kind, file) in [("junit", "r.xml"), ("tap", "r.tap"), ("json", "r.json")] {
        command.args(["--report", &format!("{kind}={file}")]);
    }
    let output = command.args(options).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
    vec![String::from_utf8(output.stdout).unwrap(), read("r.xml"), read("r.tap"), read("r.json")]
}

#[test]
fn what_is_said_and_reported_does_not_depend_on_how_many_labs_are_tested_at_once() {
    for format in ["text", "json"] {
        let one = simulated(&["--jobs", "1", "--format", format]);
        assert!(one.iter().all(|text| text.contains("tcp-flags")));
        assert_eq!(simulated(&["--jobs", "4", "--format", format]), one);
    }
}

#[test]
fn of_labs_without_a_chosen_test_nothing_is_said() {
    let said = &simulated(&["--filter", "over UDP"])[..2];
    assert!(said[0].contains("\narticle: ") && !said[0].contains("invalid: "), "{}", said[0]);
    assert!(said[1].contains("article (sim)") && !said[1].contains("invalid (sim)"), "{}", said[1]);
}

#[test]
fn labs_that_would_make_the_same_names_wait_for_each_other() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-meet");
    for (lab, host) in [("t-meet", "x-y"), ("t-meet-x", "y")] {
        let text =
            LAB.replace("NAME", lab).replace("POLICY", "DROP").replace("  b: {", &format!("  {host}: {{"));
        fs::create_dir_all(bench.at(lab)).unwrap();
        let text = text.replace("from: b", &format!("from: {host}")).replace("to: b", &format!("to: {host}"));
        fs::write(bench.at(lab).join("lab.yaml"), text).unwrap();
    }
    let said = bench.well("lab test t-meet t-meet-x --on live --jobs 2");
    assert!(said.ends_with("4 passed\n"), "{said}");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn an_interrupted_command_takes_every_lab_away_and_lists_what_was_not_run() {
    if sim_only() {
        return;
    }
    let benches = ["t-first", "t-second", "t-third"].map(Bench::new);
    for bench in &benches[..2] {
        let lab = fs::read_to_string(bench.at("one/lab.yaml")).unwrap();
        let endless = "  - name: endless\n    exec: { host: a, run: exec sleep 600 }\n";
        fs::write(bench.at("one/lab.yaml"), lab + endless).unwrap();
    }
    let labs = benches.each_ref().map(|bench| bench.at("one").display().to_string()).join(" ");
    let mut child = benches[0]
        .command(&format!("lab test {labs} --on live --jobs 2 --report json=r.json"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("a can")), "it takes root and namespaces");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let rest: Vec<String> = said.collect();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{rest:#?}");
    let third = rest.iter().position(|line| line.starts_with("t-third:")).expect("it is told of");
    let not_run = rest[third + 1..third + 3].iter().all(|line| line.starts_with("not run live"));
    assert!(not_run, "{rest:#?}");
    let all: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(benches[0].at("r.json")).unwrap()).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 8, "{all:#}");
    for bench in &benches {
        assert_eq!(bench.left(), [""; 0]);
    }
}

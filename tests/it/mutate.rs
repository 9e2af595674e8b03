//! `stateway rules mutate --lab`: the tests of a lab notice changes in the simulator, and what is no change is not held against them.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use serde_json::Value;
use std::process::Command;

const LAB: &str = "name: tiny
router:
  mode: bridge
  ports: { inside: {}, outside: {} }
  rules: |
    *filter
    :FORWARD DROP [0:0]
    -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A FORWARD -i inside -m conntrack --ctstate NEW -j ACCEPT
    COMMIT
hosts:
  inside: { port: inside, address: 192.0.2.104/24, services: [echo] }
  outside: { port: outside, address: 192.0.2.77/24, services: [echo] }
tests:
  - name: inside opens
    tcp: { from: inside, to: outside, port: 7, send: hello }
    expect: { result: ok, stdout: hello }
  - name: outside does not
    tcp: { from: outside, to: inside, port: 7 }
    expect: { result: blocked }
";

/// The exit code, and the answer in JSON.
fn mutate(lab: &str, more: &[&str]) -> (i32, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.yaml");
    std::fs::write(&path, lab).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stateway"))
        .args(["rules", "mutate", "--lab", path.to_str().unwrap(), "--format", "json"])
        .args(more)
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default(), error)
}

fn has(list: &Value, rule: &str, change: &str) -> bool {
    list.as_array().unwrap().iter().any(|m| m["rule"] == rule && m["change"] == change)
}

#[test]
fn the_tests_of_a_lab_notice_changes_and_what_is_none_does_not_count() {
    let (code, told, error) = mutate(LAB, &["--jobs", "2"]);
    assert_eq!(code, 1, "{error}");
    // Nobody opens from outside once the state is dropped, and nobody tests errors.
    assert!(has(&told["unnoticed"], "filter/FORWARD/1", "state RELATED left out"), "{told:#}");
    assert!(!has(&told["unnoticed"], "filter/FORWARD/2", "without `-i inside`"), "{told:#}");
    // No packet is in two states.
    assert!(has(&told["equivalent"], "filter/FORWARD/1", "swapped with filter/FORWARD/2"), "{told:#}");
    let (all, noticed) = (told["mutants"].as_u64().unwrap(), told["noticed"].as_u64().unwrap());
    assert_eq!(all - noticed, told["unnoticed"].as_array().unwrap().len() as u64);
    assert!(noticed > 0);
    assert_eq!(mutate(LAB, &["--fail-under", "10"]).0, 0);
    assert_eq!(mutate(LAB, &["--fail-under", "100"]).0, 1);
}

#[test]
fn ports_that_a_bridge_translates_are_changes_as_well() {
    let nat = "rules: |
    *nat
    -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination :7
    COMMIT
";
    let lab = LAB.replace("rules: |\n", nat).replace("port: 7, send", "port: 80, send");
    let (_, told, error) = mutate(&lab, &[]);
    // Nobody tests another port, which would lead to the same service.
    let change = "without `-m tcp --dport 80`";
    assert!(has(&told["unnoticed"], "nat/PREROUTING/1", change), "{told:#}{error}");
    assert!(!has(&told["unnoticed"], "nat/PREROUTING/1", "removed"), "{told:#}");
}

#[test]
fn a_lab_whose_tests_fail_as_it_is_notices_nothing() {
    let (code, _, error) = mutate(&LAB.replace("result: blocked", "result: ok"), &[]);
    assert!(code == 2 && error.contains("FAIL  outside does not"), "{error}");
}

//! What people see of translation beside the fate of packets.

use stateway_core::nat::{How, Side};
use stateway_trace::flow::{self, Run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/nat").join(name)
}

#[test]
fn connections_that_find_no_port_are_dropped_counted_and_explained_until_one_ends() {
    let path = scenario("exhausted.flow");
    let text = fs::read_to_string(&path).expect("a scenario can be read");
    let scenario = flow::parse(&text).expect("it is a scenario");
    let mut run = Run::new(&scenario).expect("its rules are right");
    let fates: Vec<String> = scenario.steps.iter().map(|step| run.step(step).columns.fate).collect();
    let (passed, dropped) = ("forwarded", "dropped(confirm-clash)");
    assert_eq!(fates, [passed, passed, passed, dropped, dropped, passed, passed, passed]);

    let router = run.router();
    let mut ways = router.conntrack().translations();
    assert!(ways.any(|way| way == (Side::Source, How::Exhausted, 2)));
    let stats = router.conntrack().stats();
    assert_eq!((stats.insert_failed, stats.drop), (2, 2));
    assert!(router.drop_counters().any(|counter| counter == ("confirm-clash", 2)));

    let explained = Command::new(env!("CARGO_BIN_EXE_stateway"))
        .arg("explain")
        .arg("--capture")
        .arg(&path)
        .args(["--frame", "4"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(said.contains("by nat/POSTROUTING/1: nothing is free"), "{said}");
    assert!(said.contains("no free port was found"), "{said}");
}

//! The router beside this machine's kernel: sixty thousand generated frames, and every scenario.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out, and says so.

use stateway_conform::Setup;
use stateway_conform::generate::Profile;
use stateway_conform::rules;
use stateway_conform::session::{Plan, Report, compare_story, run};
use stateway_conform::story;
use stateway_core::config::Mode;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const FRAMES: u64 = 60_000;

/// Whether only what needs no privilege is wanted.
fn is_left_out() -> bool {
    let left_out = std::env::var_os("STATEWAY_SIM_ONLY").is_some_and(|v| v == "1");
    if left_out {
        say("left out: STATEWAY_SIM_ONLY is set");
    }
    left_out
}

#[expect(clippy::print_stdout, reason = "whoever reads a test's output wants to know")]
fn say(text: &str) {
    println!("{text}");
}

#[test]
fn generated_frames_meet_the_same_fate() {
    if is_left_out() {
        return;
    }
    let seed = seed();
    say(&format!("STATEWAY_SEED={seed}"));
    let plan = Plan { seed, frames: FRAMES, profile: Profile::Mixed, mode: Mode::Route, stop_early: true };
    let report = run(&plan, |_| ()).expect("it takes root, /dev/net/tun, iptables-legacy, nft and ip");
    assert!(report.coverage.frames >= FRAMES || !report.findings.is_empty());
    assert!(report.findings.is_empty(), "STATEWAY_SEED={seed}: {}", show(&report));
    assert_eq!(
        report.coverage.missing_tcp_cells(),
        [""; 0],
        "STATEWAY_SEED={seed}: cells that no segment met"
    );
}

#[test]
fn generated_frames_meet_the_same_fate_on_a_bridge() {
    if is_left_out() {
        return;
    }
    let seed = seed();
    say(&format!("STATEWAY_SEED={seed}"));
    let (profile, mode) = (Profile::Mixed, Mode::Bridge);
    let report = run(&Plan { seed, frames: 20_000, profile, mode, stop_early: true }, |_| ())
        .expect("it takes the module br_netfilter besides");
    assert!(report.findings.is_empty(), "STATEWAY_SEED={seed}: {}", show(&report));
}

#[test]
fn translated_connections_meet_the_same_fate() {
    if is_left_out() {
        return;
    }
    const SEED: u64 = 19;
    let (profile, mode) = (Profile::Nat, Mode::Route);
    let report = run(&Plan { seed: SEED, frames: 12_000, profile, mode, stop_early: true }, |_| ())
        .expect("it takes root, /dev/net/tun, iptables-legacy, nft and ip");
    assert!(report.findings.is_empty() && report.unrepeated.is_empty(), "{}", show(&report));
    let missing = report.coverage.nat.missing();
    assert!(missing.len() < 20, "cases of translation that nothing met: {missing:?}");
}

#[test]
fn scenarios_go_on_the_kernel_as_they_go_here() {
    if is_left_out() {
        return;
    }
    let paths = flows(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios"));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut told = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            told.extend(on_the_kernel(path).map(|failures| (path, failures)));
        }
        told
    };
    let mut told: Vec<(&PathBuf, String)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a panic was told of")).collect()
    });
    told.sort();
    let failures: String = told.iter().map(|(_, failures)| failures.as_str()).collect();
    assert!(failures.is_empty(), "{failures}");
    assert!(told.len() > 100, "only {} scenarios were told to the kernel", told.len());
}

/// Scenarios that are told to the kernel at the same time. Most of theirs is waiting until a world is made or gone.
const AT_ONCE: usize = 4;

/// What went wrong with a scenario; `None` if it is not one for the kernel.
fn on_the_kernel(path: &Path) -> Option<String> {
    let mut failures = String::new();
    let text = fs::read_to_string(path).expect("a scenario can be read");
    let story = story::from_flow(&text).expect("a scenario can be parsed").ok()?;
    let mut report = Report::default();
    if let Err(error) = compare_story(&story, &mut report) {
        let _ = writeln!(failures, "{}: {error:#}", path.display());
    }
    if !report.findings.is_empty() {
        let _ = writeln!(failures, "{}: {}", path.display(), show(&report));
    }
    Some(failures)
}

#[test]
fn time_passes_on_both_sides_for_rules_that_look_at_the_clock() {
    if is_left_out() {
        return;
    }
    let mut text = "mode bridge\nflow x left 192.0.2.1:1000 right 198.51.100.1:53 udp\n".to_owned();
    // None of them comes just when the limit lets one pass again: the kernel counts time in steps.
    for number in 0..12 {
        let _ = write!(text, "\n{} left/x (20)", if number == 0 { "0" } else { "+270ms" });
    }
    let scenario = stateway_trace::flow::parse(&text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.pcapng");
    fs::write(&file, stateway_trace::flow::capture(&scenario).unwrap()).unwrap();
    let limited =
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m limit --limit 1/s --limit-burst 1 -j ACCEPT\nCOMMIT\n";
    let setup = Setup { mode: Mode::Bridge, rules4: Some(limited.to_owned()), ..Setup::default() };
    let mut report = Report::default();
    compare_story(&story::from_capture(&file, setup).unwrap(), &mut report).unwrap();
    assert!(report.findings.is_empty(), "{}", show(&report));
}

#[test]
fn what_was_not_compared_is_no_success() {
    if is_left_out() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("long.flow");
    // A piece that waits for longer than anybody here does.
    let piece = "4500001c000120004011cca8c6120101c613010100010002000c0000";
    fs::write(&path, format!("rules6\nend\n0 left frame {piece}\n+31s left frame {piece}\n"))
        .expect("it is written");
    let output =
        Command::new(env!("CARGO_BIN_EXE_stateway")).arg("conform").arg(&path).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("nothing was compared"), "{said}");
}

#[test]
fn random_rulesets_decide_the_same_and_count_the_same() {
    if is_left_out() {
        return;
    }
    let seed = seed();
    say(&format!("STATEWAY_SEED={seed}"));
    let plan = rules::Plan { seed, frames: 15_000, mode: Mode::Route, stop_early: true };
    let report =
        rules::run(&plan, |_| ()).expect("it takes root, /dev/net/tun, iptables-legacy, ipset, nft and ip");
    let mut text = String::new();
    for rules::Finding { case, difference, .. } in &report.findings {
        for line in case.rules.iter().flat_map(rules::Tables::lines) {
            let _ = write!(text, "\n  {line}");
        }
        for frame in &case.frames {
            let _ = write!(text, "\n  {}", frame.describe());
        }
        for mismatch in &difference.mismatches {
            let _ = write!(text, "\n  {mismatch}");
        }
    }
    assert!(text.is_empty(), "STATEWAY_SEED={seed}: {text}");
}

fn show(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        for frame in finding.trace.frames() {
            let _ = write!(text, "\n  {}", frame.describe());
        }
        for mismatch in &finding.difference.mismatches {
            let _ = write!(text, "\n  {mismatch}");
        }
    }
    text
}

/// `STATEWAY_SEED`, or always the same: what a test draws is no matter of chance.
fn seed() -> u64 {
    const WITHOUT: u64 = 104;
    std::env::var("STATEWAY_SEED").map_or(WITHOUT, |seed| seed.parse().expect("`STATEWAY_SEED` is a number"))
}

fn flows(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of scenarios") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(flows(&path));
        } else if path.extension().is_some_and(|extension| extension == "flow") {
            found.push(path);
        }
    }
    found.sort();
    found
}

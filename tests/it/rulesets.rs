//! Rulesets in the manner of those that people have, printed as iptables-save prints them.
//!
//! `tests/rulesets/saved/` holds what the kernel's own tools printed; with root they are asked again.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use expect_test::expect_file;
use stateway_core::filter::Ruleset;
use stateway_core::packet::Family;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rulesets")
}

/// Every ruleset, by name.
fn rulesets() -> Vec<(String, Family, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let family = match path.extension().and_then(|e| e.to_str()) {
            Some("rules") => Family::Ipv4,
            Some("rules6") => Family::Ipv6,
            _ => continue,
        };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        all.push((name, family, std::fs::read_to_string(&path).unwrap()));
    }
    all.sort();
    assert!(all.len() >= 30, "only {} rulesets", all.len());
    all
}

/// What `rules show` prints.
fn show(name: &str, family: Family, text: &str) -> String {
    match Ruleset::load(text, family, &[]) {
        Ok(loaded) => loaded.ruleset.render(false),
        Err(errors) => {
            let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
            panic!("{name}:\n{}", list.join("\n"))
        }
    }
}

#[test]
fn every_ruleset_prints_as_the_tools_printed_it() {
    for (name, family, text) in rulesets() {
        let saved = std::fs::read_to_string(folder().join("saved").join(&name)).unwrap();
        assert_eq!(show(&name, family, &text), saved, "{name}");
    }
}

#[test]
fn what_is_printed_prints_the_same_again() {
    for (name, family, text) in rulesets() {
        let sets: String = text
            .lines()
            .filter(|l| l.starts_with("create ") || l.starts_with("add "))
            .map(|l| format!("{l}\n"))
            .collect();
        // iptables-save lists tables in the reverse of the order in which they came.
        let once = show(&name, family, &text);
        let twice = show(&name, family, &format!("{sets}{once}"));
        let thrice = show(&name, family, &format!("{sets}{twice}"));
        assert_eq!(once, thrice, "{name}");
    }
}

#[test]
fn docs_iptables_is_what_the_code_honours() {
    expect_file!["../../docs/IPTABLES.md"].assert_eq(&stateway_core::filter::matrix::render());
}

/// Counters that are no numbers, and ranges of ports that end before they begin: a newer iptables refuses them.
#[cfg(target_os = "linux")]
const TAKEN_UP_TO_1_8_9: &str = "odd-spellings.rules";

/// The kernel's own tools in a network namespace of their own, for each ruleset a new one.
#[cfg(target_os = "linux")]
#[test]
fn the_tools_of_this_machine_print_the_same() {
    use crate::netns::Netns;
    use stateway_conform::compare::whatever_version;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    if std::env::var_os("STATEWAY_SIM_ONLY").is_some() {
        return;
    }
    let try_run = |namespace: &str, program: &str, input: &str| {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace, "sh", "-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let run = |namespace: &str, program: &str, input: &str| {
        try_run(namespace, program, input).unwrap_or_else(|| panic!("`{program}` failed on\n{input}"))
    };
    for (name, family, text) in rulesets() {
        let namespace = Netns::new(format!("cf-{}-rules", std::process::id()));
        let is_set = |line: &&str| line.starts_with("create ") || line.starts_with("add ");
        let lines = |text: &str, sets: bool| -> String {
            text.lines().filter(|l| is_set(l) == sets).map(|l| format!("{l}\n")).collect()
        };
        let (sets, rules) = (lines(&text, true), lines(&text, false));
        if !sets.is_empty() {
            run(&namespace.0, "ipset restore", &sets);
        }
        let tool = if family == Family::Ipv4 { "iptables" } else { "ip6tables" };
        let restore_and_save = format!("{tool}-legacy-restore -w && {tool}-legacy-save");
        if name == TAKEN_UP_TO_1_8_9 && !run(&namespace.0, "iptables --version", "").contains("v1.8.9 ") {
            assert_eq!(
                try_run(&namespace.0, &restore_and_save, &rules),
                None,
                "{name}: a newer one takes it as well"
            );
            continue;
        }
        let saved = run(&namespace.0, &restore_and_save, &rules);
        let lines = saved.lines().filter(|line| !line.starts_with('#'));
        let saved: String = lines.map(|line| whatever_version(line) + "\n").collect();
        assert_eq!(show(&name, family, &text), saved, "{name}");
    }
}

//! What earlier commands left behind.

use super::super::lab::health;
use super::finding::Finding;
use stateway_lab::netns::state::{self, Record};
use std::fs;
use std::io;
use std::path::Path;

/// Labs that are neither up nor at work, and namespaces that belong to no lab.
pub(super) fn examine() -> Vec<Finding> {
    let entries = fs::read_dir(Path::new("/run/netns")).into_iter().flatten().filter_map(io::Result::ok);
    let mut namespaces: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    namespaces.sort();
    let labs: Vec<(Record, &str)> = state::all()
        .into_iter()
        .map(|record| {
            let health = health(&record);
            (record, health)
        })
        .collect();
    let left = left_over(&labs, &namespaces);
    if left.is_empty() { vec![Finding::ok("leftovers", "none")] } else { left }
}

fn left_over(labs: &[(Record, &str)], namespaces: &[String]) -> Vec<Finding> {
    let left = |detail: String, fix: String| Finding::warning("leftovers", detail).fix(fix);
    let halves = labs.iter().filter(|(_, health)| !matches!(*health, "up" | "at work"));
    let mut all: Vec<Finding> = halves
        .map(|(record, health)| {
            let fix = format!("stateway lab down {}", record.lab);
            left(format!("the lab `{}` is {health}", record.lab), fix)
        })
        .collect();
    let owned = |name: &String| labs.iter().any(|(record, _)| record.netns.contains(name));
    let stray: Vec<&str> = namespaces
        .iter()
        .filter(|name| name.starts_with("sw-") && !owned(name))
        .map(String::as_str)
        .collect();
    if !stray.is_empty() {
        let fix = stray.iter().map(|name| format!("ip netns del {name}")).collect::<Vec<_>>().join(" && ");
        all.push(left(format!("namespaces of no lab: {}", stray.join(", ")), fix));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn what_is_up_is_not_left_over_whatever_stands_between_its_hosts() {
        let lab = |name: &str, runner: &str, complete| Record {
            lab: name.to_owned(),
            file: PathBuf::from("/lab.yaml"),
            runner: runner.to_owned(),
            netns: vec![format!("sw-{name}-router")],
            complete,
            ..Record::default()
        };
        let labs = [
            (lab("one", "kernel", true), "up"),
            (lab("two", "live", false), "at work"),
            (lab("three", "live", false), "half up"),
        ];
        let namespaces =
            ["sw-four-router", "sw-one-router", "sw-three-router", "sw-two-router", "vpn"].map(str::to_owned);
        let found: Vec<(String, Option<String>)> =
            left_over(&labs, &namespaces).into_iter().map(|finding| (finding.detail, finding.fix)).collect();
        let expected = [
            ("the lab `three` is half up", "stateway lab down three"),
            ("namespaces of no lab: sw-four-router", "ip netns del sw-four-router"),
        ];
        assert_eq!(found, expected.map(|(detail, fix)| (detail.to_owned(), Some(fix.to_owned()))));
    }
}

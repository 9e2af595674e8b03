//! What is measured on what.

use crate::measure::Test;
use crate::rig::Case;

/// What each kind of case is for, and so what is worth measuring on it.
const USUAL: &[(&[&str], &[&str])] = &[
    // The comparison.
    (
        &[
            "copy",
            "copy-tap",
            "stateway",
            "stateway-tap",
            "stateway-adaptive",
            "stateway-busy",
            "kernel",
            "ovs",
        ],
        &["tcp1", "tcp4", "datagrams", "datagrams-read", "connections", "ping", "ask"],
    ),
    // The limit of whoever never sleeps.
    (&["copy-busy"], &["connections", "ping", "ask"]),
    // What rules in front of the one for known connections cost.
    (&["stateway-10", "stateway-100", "kernel-10", "kernel-100"], &["datagrams", "connections"]),
    (&["stateway-1k", "stateway-10k", "kernel-1k", "kernel-10k"], &["tcp1", "datagrams", "connections"]),
    // What it costs to translate addresses.
    (&["stateway-nat", "kernel-nat", "ovs-nat"], &["datagrams", "connections"]),
    // What it costs that somebody watches.
    (&["stateway"], &["datagrams-watched"]),
    // What many connections in the table cost.
    (&["stateway", "kernel"], &["among-1", "among-1k", "among-10k", "among-100k", "among-1m"]),
];

#[derive(Debug)]
pub struct Plan(Vec<(Case, Vec<Test>)>);

impl Plan {
    /// The usual plan, or all `tests` (if any are named) on all `cases` (if any are named).
    pub fn new(cases: &[Case], tests: &[Test]) -> Self {
        let mut plan: Vec<(Case, Vec<Test>)> = Vec::new();
        for (some, measured) in USUAL {
            for case in some.iter().filter_map(|name| name.parse::<Case>().ok()) {
                let measured = measured.iter().filter_map(|name| name.parse().ok());
                match plan.iter_mut().find(|(c, _)| *c == case) {
                    Some((_, all)) => all.extend(measured),
                    None => plan.push((case, measured.collect())),
                }
            }
        }
        if !cases.is_empty() {
            plan.retain(|(case, _)| cases.contains(case));
        }
        if !tests.is_empty() {
            for (_, all) in &mut plan {
                *all = tests.to_vec();
            }
        }
        Self(plan)
    }

    pub fn cases(&self) -> Vec<Case> {
        self.0.iter().map(|(case, _)| *case).collect()
    }

    /// All that are wanted on any case, in the order of the book.
    pub fn tests(&self) -> Vec<Test> {
        Test::all().filter(|&test| self.0.iter().any(|(_, tests)| tests.contains(&test))).collect()
    }

    pub fn wants(&self, case: Case, test: Test) -> bool {
        self.0.iter().any(|(c, tests)| *c == case && tests.contains(&test))
    }
}

//! What was asked for, line by line, and what was reached.

use crate::measure::Test;
use crate::report::{Of, Report, Spread};
use crate::rig::Case;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The ratio of one figure to another.
struct Target {
    what: &'static str,
    /// Test and case.
    figure: (&'static str, &'static str),
    base: (&'static str, &'static str),
    of: Of,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    Least(f64),
    Most(f64),
}

use Bound::{Least, Most};
use Of::{Cost, Value};

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Least(least) => value >= least,
            Most(most) => value <= most,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Least(least) => format!("≥ {least}{unit}"),
            Most(most) => format!("≤ {most}{unit}"),
        }
    }
}

/// A target within one test.
const fn of(
    what: &'static str,
    of: Of,
    test: &'static str,
    case: &'static str,
    base: &'static str,
    bound: Bound,
) -> Target {
    Target { what, figure: (test, case), base: (test, base), of, bound }
}

const TARGETS: &[Target] = &[
    of("TCP, 1 stream, to the bare copy", Value, "tcp1", "stateway", "copy", Least(0.92)),
    of("TCP, 4 streams, to the bare copy", Value, "tcp4", "stateway", "copy", Least(0.92)),
    of("64-byte datagrams, to the bare copy", Value, "datagrams", "stateway", "copy", Least(0.9)),
    Target {
        what: "the same while one watches and another is stopped, to nobody",
        figure: ("datagrams-watched", "stateway"),
        base: ("datagrams", "stateway"),
        of: Value,
        bound: Least(0.95),
    },
    of("CPU per KiB, 1 stream, to the bare copy", Cost, "tcp1", "stateway", "copy", Most(1.1)),
    of("CPU per KiB, 4 streams, to the bare copy", Cost, "tcp4", "stateway", "copy", Most(1.1)),
    of("CPU per datagram, to the bare copy", Cost, "datagrams", "stateway", "copy", Most(1.15)),
    of("64-byte datagrams, to Open vSwitch", Value, "datagrams", "stateway", "ovs", Least(1.9)),
    of("CPU per datagram, to Open vSwitch", Cost, "datagrams", "stateway", "ovs", Most(0.6)),
    of("TCP, 1 stream, to Open vSwitch", Value, "tcp1", "stateway", "ovs", Least(0.95)),
    of("TCP, 4 streams, to Open vSwitch", Value, "tcp4", "stateway", "ovs", Least(1.05)),
    of("64-byte datagrams, to the kernel", Value, "datagrams", "stateway", "kernel", Least(1.8)),
    of("Connections/s, to the kernel", Value, "connections", "stateway", "kernel", Least(1.0)),
    of(
        "the same with `busy_poll: adaptive`",
        Value,
        "connections",
        "stateway-adaptive",
        "kernel",
        Least(1.0),
    ),
    of("the same with `busy_poll: always`", Value, "connections", "stateway-busy", "kernel", Least(1.0)),
    of("1,000 rules: datagrams, to the kernel", Value, "datagrams", "stateway-1k", "kernel-1k", Least(5.0)),
    of(
        "10,000 rules: datagrams, to the kernel",
        Value,
        "datagrams",
        "stateway-10k",
        "kernel-10k",
        Least(30.0),
    ),
    of("10,000 rules: datagrams, to no rules", Value, "datagrams", "stateway-10k", "stateway", Least(0.9)),
    of(
        "10,000 rules: connections/s, to no rules",
        Value,
        "connections",
        "stateway-10k",
        "stateway",
        Least(0.9),
    ),
    of("Masqueraded datagrams, to the bare copy", Value, "datagrams", "stateway-nat", "copy", Least(0.9)),
    of("the same, to the kernel's MASQUERADE", Value, "datagrams", "stateway-nat", "kernel-nat", Least(1.6)),
    of(
        "Masqueraded connections/s, to the kernel's MASQUERADE",
        Value,
        "connections",
        "stateway-nat",
        "kernel-nat",
        Least(1.0),
    ),
    of("Ping with `busy_poll: always`, to the kernel", Value, "ping", "stateway-busy", "kernel", Most(1.1)),
    of("the same, to a bare copy that never sleeps", Value, "ping", "stateway-busy", "copy-busy", Most(1.1)),
];

/// A line for each target, in Markdown.
pub fn table(report: &Report) -> String {
    let mut text = String::from("| | asked for | reached (range) | |\n|---|---|---|---|\n");
    for Target { what, figure, base, of, bound } in TARGETS {
        let parsed = || {
            let test = |name: &str| name.parse::<Test>().ok();
            let case = |name: &str| name.parse::<Case>().ok();
            Some((test(figure.0)?, case(figure.1)?, (test(base.0)?, case(base.1)?)))
        };
        let ratio = parsed().and_then(|(test, case, base)| report.ratio(test, *of, case, base));
        line(&mut text, what, *bound, "x", ratio);
    }
    core(&mut text);
    text.push_str(
        "| Nothing lost or reordered within a flow | 4 iperf3 streams, 1 GiB byte for byte | `tests/it/run.rs`, part of \
         `scripts/test` | |\n",
    );
    text
}

fn line(text: &mut String, what: &str, bound: Bound, unit: &str, reached: Option<Spread>) {
    let (cell, verdict) = reached.map_or(("–".to_owned(), "not measured"), |r| {
        let figure = |value: f64| if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        let range = if r.least < r.most {
            format!(" ({}–{})", figure(r.least), figure(r.most))
        } else {
            String::new()
        };
        let verdict = if bound.holds(r.median) { "reached" } else { "**missed**" };
        (format!("{}{unit}{range}", figure(r.median)), verdict)
    });
    let _ = writeln!(text, "| {what} | {} | {cell} | {verdict} |", bound.text(unit));
}

/// How often `scripts/bench` measures the core alone, one after another.
const CORE_RUNS: u32 = 5;

/// The core alone: what `cargo bench` and `scripts/instructions` wrote down when they ran last.
fn core(text: &mut String) {
    let [few, many, new] = ["established/udp/1000", "established/udp/1000000", "new/udp"].map(criterion);
    let spread = |values: &[f64]| Spread::of(values.iter().copied());
    line(text, "Core: established packet among 1,000 connections", Most(80.0), " ns", spread(&few));
    let instructions = Spread::of(instructions("established-udp").into_iter());
    line(text, "Core: the same in instructions", Most(700.0), "", instructions);
    let ratio = Spread::of(few.iter().zip(&many).map(|(few, many)| many / few));
    line(text, "Core: among 1,000,000, to among 1,000", Most(2.0), "x", ratio);
    line(text, "Core: new connection with its insertion", Most(500.0), " ns", spread(&new));
}

/// The medians of one of criterion's benchmarks, in nanoseconds, run by run.
fn criterion(name: &str) -> Vec<f64> {
    let run = |run| {
        let file = Path::new("target/core").join(format!("{run}/{name}/new/estimates.json"));
        let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
        json["median"]["point_estimate"].as_f64()
    };
    (1..=CORE_RUNS).filter_map(run).collect()
}

fn instructions(name: &str) -> Option<f64> {
    let text = fs::read_to_string("benches/instructions.txt").ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

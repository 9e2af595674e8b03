//! What came of it: medians, ranges, ratios.

use crate::measure::{Figure, Test, Values};
use crate::rig::Case;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// All figures, by test and case.
#[derive(Debug)]
pub struct Report {
    pub tests: Vec<(Test, Vec<Line>)>,
    repetitions: usize,
    seconds: u32,
}

/// One case in one test.
#[derive(Clone, Debug)]
pub struct Line {
    pub case: Case,
    pub value: Spread,
    pub cost: Option<Spread>,
    pub loss: Option<Spread>,
    pub busy: Spread,
}

/// The median, and between what it lies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) };
        Some(Self { median, least, most })
    }

    fn cell(self) -> String {
        format!("{} ({}–{})", short(self.median), short(self.least), short(self.most))
    }
}

impl Report {
    pub fn new(cases: &[Case], tests: &[Test], figures: &[Figure], repetitions: usize, seconds: u32) -> Self {
        let line = |case: Case, test: Test| {
            let all = || figures.iter().filter(move |f| f.case == case && f.test == test).map(|f| f.values);
            let pick = |get: fn(Values) -> Option<f64>| Spread::of(all().filter_map(get));
            Some(Line {
                case,
                value: pick(|v| Some(v.value))?,
                cost: pick(|v| v.cost),
                loss: pick(|v| v.loss),
                busy: pick(|v| Some(v.busy))?,
            })
        };
        let tests =
            tests.iter().map(|&test| (test, cases.iter().filter_map(|&case| line(case, test)).collect()));
        Self { tests: tests.collect(), repetitions, seconds }
    }

    /// A table for each test, in Markdown.
    pub fn tables(&self) -> String {
        self.tests.iter().map(|(test, lines)| table(*test, lines)).collect()
    }

    /// The whole of docs/BENCHMARKS.md.
    pub fn document(&self, plot: &Path) -> String {
        let Self { repetitions, seconds, .. } = self;
        let image = plot.file_name().unwrap_or_default().to_string_lossy();
        let arguments = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        format!(
            "# Benchmarks\n\n\
             Written by `scripts/bench {arguments}`.\n\n\
             Two hosts in network namespaces, and between them what the first column names. Cases were measured in turn, \
             {repetitions} times over, {seconds} s each; a cell is the median and the range. Absolute figures depend on the \
             machine and its mood: ratios within one run are what counts, and under 15 % nothing is decided. Datagrams that \
             are \"dropped on arrival\" are dropped by nftables at the ingress of the second host's interface, so that the \
             forwarder is what limits them.\n\n\
             `copy` is the bare copy (`examples/tapcopy.rs`): the fast port with nothing between read and write, which is \
             the limit for any router on TAPs. `stateway` filters statefully on the fast port, `stateway-tap` on the plain \
             one, `stateway-busy` never sleeps; `-1k` and `-10k` have so many rules before the one for established \
             connections. `kernel` is iptables with the same rules between veths; `ovs` is Open vSwitch's userspace \
             datapath with conntrack and TSO on TAPs.\n\n{}\n\n![ratios]({image})\n\n{}",
            machine(),
            self.tables()
        )
    }
}

fn table(test: Test, lines: &[Line]) -> String {
    let unit = test.cost_unit();
    let mut text = format!("## {}\n\n| | median (range) | ×copy | ×kernel | ×ovs |", test.title());
    let mut rule = String::from("|---|---|---|---|---|");
    if let Some(unit) = unit {
        let _ = write!(text, " CPU {unit} | ×copy | ×ovs |");
        rule.push_str("---|---|---|");
    }
    let has_loss = lines.iter().any(|l| l.loss.is_some());
    if has_loss {
        text.push_str(" loss |");
        rule.push_str("---|");
    }
    let _ = writeln!(text, " CPUs busy |\n{rule}---|");
    for line in lines {
        let to = |name: &str, get: fn(&Line) -> Option<f64>| ratio(line, lines, name, get);
        let value: fn(&Line) -> Option<f64> = |l| Some(l.value.median);
        let cost: fn(&Line) -> Option<f64> = |l| l.cost.map(|c| c.median);
        let _ = write!(
            text,
            "| {} | {} | {} | {} | {} |",
            line.case,
            line.value.cell(),
            to("copy", value),
            to("kernel", value),
            to("ovs", value)
        );
        if unit.is_some() {
            let cell = line.cost.map_or("–".to_owned(), |c| short(c.median));
            let _ = write!(text, " {cell} | {} | {} |", to("copy", cost), to("ovs", cost));
        }
        if has_loss {
            let cell = line.loss.map_or("–".to_owned(), |l| format!("{:.1} %", l.median * 100.0));
            let _ = write!(text, " {cell} |");
        }
        let _ = writeln!(text, " {} |", short(line.busy.median));
    }
    text.push('\n');
    text
}

fn ratio(line: &Line, lines: &[Line], to: &str, get: fn(&Line) -> Option<f64>) -> String {
    let other = lines.iter().find(|l| l.case.to_string() == to).and_then(get);
    match (get(line), other) {
        (Some(value), Some(other)) if other > 0.0 => format!("{:.2}", value / other),
        _ => "–".to_owned(),
    }
}

/// Three significant digits, with thousands.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format!("{:.0}k", value / 1000.0),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn machine() -> String {
    let line = |command: &str| {
        let output = Command::new("sh").args(["-c", command]).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    };
    let mut text = String::new();
    for (what, command) in [
        ("Date", "date -u +%F"),
        ("Machine", "echo $(nproc) CPUs, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-)"),
        ("Kernel", "uname -sr"),
        ("Compiler", "rustc --version"),
        ("iptables", "iptables --version"),
        ("iperf3", "iperf3 --version | head -1"),
        ("Open vSwitch", "ovs-vswitchd --version 2>/dev/null | head -1"),
    ] {
        let said = line(command);
        if !said.is_empty() {
            let _ = writeln!(text, "- {what}: {said}");
        }
    }
    text
}

//! What came of it: medians, ranges, ratios.

use crate::measure::{Figure, Test, Values};
use crate::plan::Plan;
use crate::rig::Case;
use crate::targets;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What stands below this line in the document is written by people, and survives the next run.
const BY_HAND: &str = "<!-- What stands below this line is written by hand; scripts/bench keeps it. -->";

/// All figures, by test and case.
#[derive(Debug)]
pub struct Report {
    pub tests: Vec<(Test, Vec<Line>)>,
    figures: Vec<Figure>,
    facts: Facts,
}

/// How the figures came about.
#[derive(Debug)]
pub struct Facts {
    pub repetitions: u32,
    pub seconds: u32,
    pub took: Duration,
    /// What could not be measured, and why.
    pub failed: BTreeMap<String, String>,
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

/// Which figure of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Value,
    /// The forwarder's CPU time.
    Cost,
}

impl Of {
    pub fn get(self, values: Values) -> Option<f64> {
        match self {
            Self::Value => Some(values.value),
            Self::Cost => values.cost,
        }
    }
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) };
        Some(Self { median, least, most })
    }

    pub fn cell(self) -> String {
        format!("{} ({}–{})", short(self.median), short(self.least), short(self.most))
    }
}

impl Report {
    pub fn new(plan: &Plan, figures: &[Figure], facts: Facts) -> Self {
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
        let tests = plan.tests().into_iter().map(|test| {
            let cases = plan.cases().into_iter().filter(|&case| plan.wants(case, test));
            (test, cases.filter_map(|case| line(case, test)).collect())
        });
        Self { tests: tests.collect(), figures: figures.to_vec(), facts }
    }

    /// How `case` stands to `base`: each repetition against itself, since only what was measured within seconds of each
    /// other can be compared.
    pub fn ratio(&self, test: Test, of: Of, case: Case, base: (Test, Case)) -> Option<Spread> {
        let find = |test: Test, case: Case, repetition: u32| {
            let mut all = self.figures.iter();
            let figure = all.find(|f| f.test == test && f.case == case && f.repetition == repetition)?;
            of.get(figure.values)
        };
        let pairs = (1..=self.facts.repetitions)
            .filter_map(|n| Some((find(test, case, n)?, find(base.0, base.1, n)?)))
            .filter(|(_, base)| *base > 0.0);
        Spread::of(pairs.map(|(value, base)| value / base))
    }

    pub fn line(&self, test: Test, case: Case) -> Option<&Line> {
        self.tests.iter().find(|(t, _)| *t == test)?.1.iter().find(|line| line.case == case)
    }

    /// A table for each test, in Markdown.
    pub fn tables(&self) -> String {
        self.tests.iter().map(|(test, lines)| self.table(*test, lines)).collect()
    }

    /// What was asked for, and what was reached.
    pub fn targets(&self) -> String {
        targets::table(self)
    }

    fn table(&self, test: Test, lines: &[Line]) -> String {
        let bases: Vec<Case> = ["copy", "kernel", "ovs"]
            .into_iter()
            .filter_map(|name| name.parse().ok())
            .filter(|&base| lines.iter().any(|line| line.case == base))
            .collect();
        let mut columns = vec![String::new(), "median (range)".to_owned()];
        columns.extend(bases.iter().map(|base| format!("×{base}")));
        let unit = test.cost_unit();
        let cost_bases =
            || bases.iter().filter(|base| lines.iter().any(|l| l.case == **base && l.cost.is_some()));
        if let Some(unit) = unit {
            columns.push(format!("CPU {unit} (range)"));
            columns.extend(cost_bases().map(|base| format!("CPU ×{base}")));
        }
        let has_loss = lines.iter().any(|l| l.loss.is_some());
        columns.extend(has_loss.then(|| "loss".to_owned()));
        let has_busy = lines.iter().any(|l| l.busy.median > 0.0);
        columns.extend(has_busy.then(|| "CPUs busy".to_owned()));
        let mut text = format!("### {}\n\n", test.title());
        let _ = writeln!(text, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
        for line in lines {
            let ratio = |of, base: &Case| {
                let ratio = self.ratio(test, of, line.case, (test, *base));
                ratio.map_or("–".to_owned(), |r| format!("{:.2}", r.median))
            };
            let mut cells = vec![line.case.to_string(), line.value.cell()];
            cells.extend(bases.iter().map(|base| ratio(Of::Value, base)));
            if unit.is_some() {
                cells.push(line.cost.map_or("–".to_owned(), Spread::cell));
                cells.extend(cost_bases().map(|base| ratio(Of::Cost, base)));
            }
            if has_loss {
                cells.push(line.loss.map_or("–".to_owned(), |l| format!("{:.0} %", l.median * 100.0)));
            }
            cells.extend(has_busy.then(|| short(line.busy.median)));
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text.push('\n');
        text
    }

    /// Writes the document, and keeps what people wrote into it.
    pub fn write(&self, path: &Path, plots: &[PathBuf]) -> anyhow::Result<()> {
        let old = fs::read_to_string(path).unwrap_or_default();
        let by_hand = old.split_once(BY_HAND).map_or("\n", |(_, rest)| rest);
        let document = format!("{}\n\n{BY_HAND}{by_hand}", self.document(plots));
        fs::write(path, document).with_context(|| path.display().to_string())
    }

    fn document(&self, plots: &[PathBuf]) -> String {
        let Facts { repetitions, seconds, took, failed } = &self.facts;
        let arguments: String = std::env::args().skip(1).map(|argument| format!(" {argument}")).collect();
        let failed = failed.iter().fold(String::new(), |mut text, (what, why)| {
            let _ = writeln!(text, "- Not measured: {what}: {why}");
            text
        });
        let images = plots.iter().fold(String::new(), |mut text, plot| {
            let folder = plot.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            let file = plot.file_name().unwrap_or_default().to_string_lossy();
            let title = plot.file_stem().unwrap_or_default().to_string_lossy();
            let _ = writeln!(text, "![{title}]({folder}/{file})");
            text
        });
        format!(
            "# Benchmarks\n\n\
             Written by `scripts/bench{arguments}`, which took {} minutes: the router beside the bare copy, the kernel with \
             the same rules, and Open vSwitch.\n\n{}{failed}\n\
             ## How it is measured\n\n\
             Two hosts in network namespaces of their own, and between them what the first column names; their interfaces \
             are the TAPs themselves, or veths for the kernel. All forwarders stand side by side and are measured in turn, \
             test by test, {repetitions} times over, {seconds} s each. A cell is the median and the range. A ratio is the \
             median of the ratios within each repetition, since absolute figures drift with the machine's mood; under 15 % \
             nothing is decided.\n\n\
             - `copy` is the bare copy (`examples/tapcopy.rs`): the same ports and bursts as the router's with nothing in \
             between, on fast ports (virtio header, io_uring); `copy-tap` on plain ones (poll, read, write); `copy-busy` \
             never sleeps.\n\
             - `stateway` filters statefully on fast ports and sleeps when nothing comes; `-tap` on plain ones; `-adaptive` \
             and `-busy` with `busy_poll: adaptive` and `always`; `-10` to `-10k` with so many rules in front of the one \
             for known connections, none of which matches.\n\
             - `kernel` is iptables with the same rules in a namespace that forwards; `ovs` is Open vSwitch's userspace \
             datapath with conntrack and TSO on TAPs; `-nat` gives what the first host opens another source address: the \
             router (which routes then, and does not bridge) and the kernel by MASQUERADE, Open vSwitch by `ct(nat)`.\n\
             - Datagrams are sent as fast as one CPU can. \"Dropped on arrival\" means by nftables at the ingress of the \
             second host's interface, so that the forwarder is what limits them. Loss is what did not arrive of a flood.\n\
             - CPU is that of all threads of the forwarder, from `/proc/PID/task/*/schedstat`, per packet or KiB that \
             arrived; it contains the receiving host's share that runs within a TAP write. The kernel's own forwarding has \
             no such account.\n\
             - A connection is opened, a byte sent there, a byte back, closed; sixteen are under way at a time, from one \
             thread. Ping and question and answer are medians of round trips, one at a time.\n\n\
             ## What was asked for\n\n{}\n\
             ## At a glance\n\n{images}\n\
             ## Figures\n\n{}",
            took.as_secs().div_ceil(60),
            machine(),
            self.targets(),
            self.tables().trim_end()
        )
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
        (
            "Machine",
            "echo \"$(nproc)-core $(grep -q hypervisor /proc/cpuinfo && echo virtual) machine,$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(free -g | awk '/^Mem/ {print $2}') GiB\"",
        ),
        ("Kernel", "echo $(uname -s) $(uname -r | cut -d. -f1,2)"),
        // The report and its plots are no change of what was measured.
        ("Commit", "echo $(git describe --always; git diff --quiet HEAD -- . ':!docs' || echo with changes)"),
        ("Compiler", "rustc --version"),
        ("iptables", "iptables --version"),
        ("iperf3", "iperf3 --version | head -1"),
        ("Open vSwitch", "ovs-vswitchd --version | head -1 || echo not installed"),
    ] {
        let _ = writeln!(text, "- {what}: {}", line(&format!("({command}) 2>/dev/null")));
    }
    text
}

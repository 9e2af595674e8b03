//! Traces from files and into them: pcapng and `.flow`.

#![forbid(unsafe_code)]

use super::Setup;
use super::compare::hex;
use super::kernel::NAMES;
use super::session::Finding;
use super::trace::{Frame, Step, Trace, Waiting};
use anyhow::{Context as _, Result, bail};
use core::fmt::Write as _;
use stateway_core::config::Mode;
use stateway_core::packet::ETHERNET_LEN;
use stateway_trace::capture::{self, Reading, Source, Writer};
use stateway_trace::flow;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seconds that a scenario about fragments may take.
const LONGEST_REAL_WAIT: u64 = 9;

/// Seconds that a capture may take where rules look at the kernel's clock.
const LONGEST_RULES_WAIT: u64 = 600;

/// A trace with the setup that it runs in.
#[derive(Clone, Debug)]
pub struct Story {
    pub setup: Setup,
    pub trace: Trace,
}

/// Why a `.flow` cannot be told to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It has routes of its own.
    Routes,
    /// The kernel has no state without rules for IPv6 in which it drops all of it.
    NoIpv6Rules,
    /// The size of a table cannot be set in a namespace, or not so small.
    GlobalSetting,
    /// Pieces wait for long, and the kernel's timer for them cannot be shortened.
    FragmentTimer,
}

/// Reads a pcapng whose interfaces are called `left` and `right`.
pub fn from_capture(path: &Path, setup: Setup) -> Result<Story> {
    let context = || path.display().to_string();
    // The kernel gets the frames as they stand, and so does the router.
    let reading = Reading { as_it_stands: true, ..Reading::default() };
    let mut frames = Source::of_file(path, reading).and_then(|source| source.open()).with_context(context)?;
    let mut ports = Vec::new();
    for name in frames.ports() {
        let Some(port) = NAMES.iter().position(|known| known == name) else {
            bail!("{}: interface `{name}`: here there are only `left` and `right`", path.display());
        };
        ports.push(port);
    }
    let mut steps = Vec::new();
    let mut clock = Clock::default();
    let start = frames.first_nanos().unwrap_or_default();
    let mut frame = capture::Frame::default();
    while frames.read(&mut frame).with_context(context)? {
        if frame.unjudged.is_some() {
            bail!("{}: frame {} is no Ethernet frame", path.display(), frame.number);
        }
        steps.extend(clock.step((frame.nanos - start).max(0) as u128));
        let bytes = core::mem::take(&mut frame.data);
        steps.push(Step::Frame(Frame { port: ports[usize::from(frame.port)], bytes, kind: "captured" }));
    }
    let mut trace = trace_of(steps);
    if let Some(rule) = [&setup.rules4, &setup.rules6].into_iter().flatten().find_map(|rules| clock_in(rules))
    {
        let seconds = trace.seconds();
        if seconds > LONGEST_RULES_WAIT {
            bail!(
                "{}: `{rule}` looks at the kernel's clock, which nobody can set: {seconds} s would have to pass, and at most \
                 {LONGEST_RULES_WAIT} do\n  hint: compare a part of it: `editcap -A START -B STOP`",
                path.display()
            );
        }
        trace.waiting = Waiting::Really;
    }
    Ok(Story { setup, trace })
}

/// What in these rules looks at the clock.
fn clock_in(rules: &str) -> Option<&'static str> {
    let has =
        |line: &str, words: &[&str]| words.iter().all(|word| line.split_whitespace().any(|w| w == *word));
    let clocks: [(&str, &[&str]); 5] = [
        ("-m limit", &["-m", "limit"]),
        ("-m hashlimit", &["-m", "hashlimit"]),
        ("-m recent --seconds", &["recent", "--seconds"]),
        ("-m time", &["-m", "time"]),
        ("a set with timeouts", &["create", "timeout"]),
    ];
    let found = clocks.iter().find(|(_, words)| rules.lines().any(|line| has(line, words)));
    found.map(|(name, _)| *name)
}

/// Reads a `.flow`. `Err` inside: it is about something that this comparison has not.
pub fn from_flow(text: &str) -> Result<core::result::Result<Story, Unfit>> {
    let scenario = flow::parse(text).map_err(|errors| {
        anyhow::anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    let is_global = |(name, _): &(String, String)| {
        ["nf_conntrack_max", "nf_conntrack_expect_max", "nf_conntrack_buckets", "frag6_high_thresh"]
            .iter()
            .any(|n| name.ends_with(n))
    };
    if !scenario.routes.is_empty() {
        return Ok(Err(Unfit::Routes));
    }
    if scenario.sysctl.iter().any(is_global) {
        return Ok(Err(Unfit::GlobalSetting));
    }
    let Some(rules6) = scenario.rules6.clone() else { return Ok(Err(Unfit::NoIpv6Rules)) };
    let mut steps = Vec::new();
    let mut clock = Clock::default();
    for step in &scenario.steps {
        steps.extend(clock.step(step.at.as_nanos()));
        let port = usize::from(step.iface == NAMES[1]);
        let mut frame = if step.is_frame {
            Frame { port, bytes: step.packet.clone(), kind: "scenario" }
        } else {
            Frame::of_packet(port, &step.packet, "scenario")
        };
        if scenario.mode == Mode::Bridge && !step.is_frame {
            frame.cross();
        }
        frame.bytes.resize(frame.bytes.len() + step.padding, 0);
        steps.push(Step::Frame(frame));
    }
    let trace = trace_of(steps);
    if trace.has_fragments() && trace.seconds() > LONGEST_REAL_WAIT {
        return Ok(Err(Unfit::FragmentTimer));
    }
    let setup = Setup {
        mode: scenario.mode,
        zones: zones_of(&scenario.rules).chain(zones_of(&rules6)).collect(),
        rules4: Some(scenario.rules.clone()),
        rules6: Some(rules6),
        sysctl: scenario.sysctl.clone(),
        mtu: scenario.mtu.clone(),
        ..Setup::default()
    };
    Ok(Ok(Story { setup, trace }))
}

/// Fragments wait by the kernel's own clock.
fn trace_of(steps: Vec<Step>) -> Trace {
    let trace = Trace { steps, waiting: Waiting::Streams };
    let is_short = trace.has_fragments() && trace.seconds() <= LONGEST_REAL_WAIT;
    Trace { waiting: if is_short { Waiting::Really } else { Waiting::Streams }, ..trace }
}

/// The zones that a ruleset speaks of.
fn zones_of(rules: &str) -> impl Iterator<Item = u16> + '_ {
    rules.split("--zone ").skip(1).filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
}

/// Turns points in time into whole seconds that pass.
#[derive(Default)]
struct Clock {
    passed: u64,
}

impl Clock {
    fn step(&mut self, nanos: u128) -> Option<Step> {
        let seconds = (nanos / 1_000_000_000) as u64;
        let more = seconds.saturating_sub(self.passed);
        self.passed += more;
        (more > 0).then_some(Step::Elapse(more as u32))
    }
}

/// Writes a finding as `NAME.pcapng` and `NAME.flow`; returns the paths.
pub fn save(finding: &Finding, folder: &Path, name: &str) -> Result<[PathBuf; 2]> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let [capture, flow] = ["pcapng", "flow"].map(|extension| folder.join(format!("{name}.{extension}")));
    let mut writer = Writer::new(Vec::new(), NAMES).context("pcapng")?;
    let mut at = Duration::from_secs(1_000_000_000);
    for step in &finding.trace.steps {
        match step {
            Step::Elapse(seconds) => at += Duration::from_secs((*seconds).into()),
            Step::Frame(frame) => writer.frame(frame.port, at, &frame.bytes, frame.kind).context("pcapng")?,
        }
    }
    fs::write(&capture, writer.into_inner()).with_context(|| capture.display().to_string())?;
    fs::write(&flow, as_flow(finding)).with_context(|| flow.display().to_string())?;
    Ok([capture, flow])
}

fn as_flow(finding: &Finding) -> String {
    let mut text = String::from("# Kernel and router differ at the last frame.\n");
    let is_bridge = finding.setup.mode == Mode::Bridge;
    if is_bridge {
        text.push_str("mode bridge\n");
    }
    for mismatch in &finding.difference.mismatches {
        let _ = writeln!(text, "# {mismatch}");
    }
    for (name, value) in &finding.setup.sysctl {
        let _ = writeln!(text, "sysctl {name} {value}");
    }
    for (iface, mtu) in &finding.setup.mtu {
        let _ = writeln!(text, "mtu {iface} {mtu}");
    }
    for (word, rules) in [("rules", &finding.setup.rules4), ("rules6", &finding.setup.rules6)] {
        if let Some(rules) = rules {
            let _ = writeln!(text, "{word}\n{rules}end");
        }
    }
    let mut wait = 0;
    for step in &finding.trace.steps {
        match step {
            Step::Elapse(seconds) => wait += seconds,
            Step::Frame(frame) => {
                let (word, bytes) = if is_bridge {
                    ("ether", &frame.bytes[..])
                } else {
                    ("frame", frame.bytes.get(ETHERNET_LEN..).unwrap_or_default())
                };
                let _ = writeln!(text, "+{wait}s {} {word} {}", NAMES[frame.port], hex(bytes));
                wait = 0;
            }
        }
    }
    text
}

//! Traces from files: pcapng and `.flow`.

#![forbid(unsafe_code)]

use super::Setup;
use super::kernel::NAMES;
use super::trace::{Frame, Step, Trace, Waiting};
use anyhow::{Context as _, Result, bail};
use stateway_core::config::Mode;
use stateway_trace::capture::{self, Reading, Source};
use stateway_trace::flow;
use std::path::Path;

/// Seconds that a scenario about fragments may take.
const LONGEST_REAL_WAIT: u64 = 9;

/// Seconds that a capture may take where rules look at the kernel's clock.
const LONGEST_RULES_WAIT: u64 = 600;

/// A trace with the setup that it runs in.
#[derive(Clone, Debug)]
pub struct Story {
    pub setup: Setup,
    pub trace: Trace,
    pub manner: Manner,
}

/// How a trace is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Frame by frame, with the connections.
    Frames,
    /// As `--profile rules` does: with what rules log and count, and on the fast way too.
    Rules {
        /// Ticks of the kernel's clock pass between frames.
        is_slow: bool,
    },
}

/// What the first line of saved rules begins with: how the difference was found that they belong to. It is a comment to
/// all who read rules.
const FOUND_BY: &str = "# found by stateway conform, comparing ";
const WORDS_OF_WAITING: [(&str, Waiting); 3] = [
    ("frames by timers", Waiting::Timers),
    ("frames by timers and streams", Waiting::Streams),
    ("frames in real time", Waiting::Really),
];
const WORDS_OF_RULES: [(&str, bool); 2] = [("rules", false), ("rules slowly", true)];

/// The line for the head of the rules.
pub(super) fn found_by(manner: Manner, waiting: Waiting) -> String {
    let word = match manner {
        Manner::Frames => WORDS_OF_WAITING.iter().find(|(_, w)| *w == waiting).map(|(word, _)| *word),
        Manner::Rules { is_slow } => {
            WORDS_OF_RULES.iter().find(|(_, s)| *s == is_slow).map(|(word, _)| *word)
        }
    };
    format!("{FOUND_BY}{}\n", word.unwrap_or_default())
}

/// What that line says; `None` if the rules have none.
fn told_by(rules: Option<&str>) -> Option<(Manner, Waiting)> {
    let word = rules?.lines().next()?.strip_prefix(FOUND_BY)?;
    let waiting = WORDS_OF_WAITING.iter().find(|(known, _)| *known == word);
    let slow = WORDS_OF_RULES.iter().find(|(known, _)| *known == word);
    waiting
        .map(|(_, waiting)| (Manner::Frames, *waiting))
        .or(slow.map(|(_, is_slow)| (Manner::Rules { is_slow: *is_slow }, Waiting::Timers)))
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
pub fn from_capture(path: &Path, mut setup: Setup) -> Result<Story> {
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
        steps.push(Step::Frame(Frame {
            port: ports[usize::from(frame.port)],
            bytes,
            kind: "captured",
            link: None,
        }));
    }
    setup.zones = zones_of(&setup);
    let mut trace = trace_of(steps);
    if let Some((manner, waiting)) = told_by(setup.rules4.as_deref()) {
        return Ok(Story { setup, trace: Trace { waiting, ..trace }, manner });
    }
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
    Ok(Story { setup, trace, manner: Manner::Frames })
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
    let mut in_force = [scenario.rules.clone(), rules6.clone()];
    for step in &scenario.steps {
        if let Some(load) = &step.load {
            for (rules, loaded) in in_force.iter_mut().zip([&load.rules, &load.rules6]) {
                if let Some(loaded) = loaded {
                    rules.clone_from(loaded);
                }
            }
            steps.push(Step::Load(Box::new(in_force.clone())));
        }
        if !step.addresses.is_empty() {
            steps.push(Step::Addresses(step.addresses.clone()));
        }
        steps.extend(clock.step(step.at.as_nanos()));
        if step.iface == flow::ROUTER {
            steps.push(Step::Own(step.packet.clone()));
            continue;
        }
        let port = usize::from(step.iface == NAMES[1]);
        let mut frame = if step.is_frame {
            Frame { port, bytes: step.packet.clone(), kind: "scenario", link: step.link }
        } else {
            Frame::of_packet(port, &step.packet, "scenario")
        };
        if scenario.mode == Mode::Bridge && !step.is_frame {
            frame.cross();
        }
        frame.bytes.resize(frame.bytes.len() + step.padding, 0);
        steps.push(Step::Frame(frame));
    }
    let mut trace = trace_of(steps);
    let told = told_by(Some(&scenario.rules));
    if let Some((_, waiting)) = told {
        trace.waiting = waiting;
    } else if trace.has_fragments() && trace.seconds() > LONGEST_REAL_WAIT {
        return Ok(Err(Unfit::FragmentTimer));
    }
    let mut setup = Setup {
        mode: scenario.mode,
        is_serial: trace.has_loads()
            || trace.has_changes_of_addresses()
            || translates(&scenario.rules)
            || translates(&rules6),
        rules4: Some(scenario.rules.clone()),
        rules6: Some(rules6),
        sysctl: scenario.sysctl.clone(),
        mtu: scenario.mtu.clone(),
        addresses: scenario.addresses.clone(),
        listeners: scenario.listeners.clone(),
        heard: flow::heard(&scenario),
        ..Setup::default()
    };
    setup.zones = zones_of(&setup);
    Ok(Ok(Story { setup, trace, manner: told.map_or(Manner::Frames, |(manner, _)| manner) }))
}

/// Fragments wait by the kernel's own clock.
fn trace_of(steps: Vec<Step>) -> Trace {
    let trace = Trace { steps, waiting: Waiting::Streams };
    let is_short = trace.has_fragments() && trace.seconds() <= LONGEST_REAL_WAIT;
    Trace { waiting: if is_short { Waiting::Really } else { Waiting::Streams }, ..trace }
}

/// Whether rules translate addresses.
pub fn translates(rules: &str) -> bool {
    rules.lines().any(|line| line == "*nat")
}

/// The zones that the rules speak of.
fn zones_of(setup: &Setup) -> Vec<u16> {
    let texts = [&setup.rules4, &setup.rules6].into_iter().flatten();
    let options = ["--zone ", "--zone-orig ", "--zone-reply "];
    let words =
        texts.flat_map(|rules| options.into_iter().flat_map(move |option| rules.split(option).skip(1)));
    words.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
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

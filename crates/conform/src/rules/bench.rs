//! One ruleset and its packets, through the kernel and through two routers: one that somebody listens to, which looks
//! at every rule, and one on the fast way, which does not.

#![forbid(unsafe_code)]

use super::bridge;
use super::text::Tables;
use crate::compare::{Mismatch, compare_frames, compare_rules};
use crate::nflog::{GROUPS_OF_RULES, Heard};
use crate::subject::{Ours, Subject};
use crate::trace::Frame;
use crate::{Answer, Kernel, Setup, clock, flow_key};
use stateway_core::config::Mode;
use stateway_core::conntrack::{CtState, Direction, Entry};

use anyhow::Result;
use stateway_core::base::Listener;
use stateway_core::base::log::{Logged, Speaker};
use stateway_core::packet::Family;
use stateway_core::packet::tuple::PROTO_TCP;
use std::collections::BTreeMap;
use std::time::Duration;

/// Rules and the frames that go through them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// IPv4 and IPv6.
    pub rules: [Tables; 2],
    pub frames: Vec<Frame>,
    /// By interface, where it is not 1500.
    pub mtu: Vec<(String, usize)>,
    /// Ticks of the kernel's clock pass between frames: `connlimit` counts by them.
    pub is_slow: bool,
    /// What router and kernel are.
    pub mode: Mode,
}

impl Case {
    pub fn setup(&self) -> Setup {
        Setup {
            mode: self.mode,
            rules4: Some(self.rules[0].render()),
            rules6: Some(self.rules[1].render()),
            mtu: self.mtu.clone(),
            zones: super::ZONES.to_vec(),
            ..Setup::default()
        }
    }
}

/// What kind of difference it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One side takes the rules and the other does not.
    Load,
    /// Neither takes the rules: the generator has made what nobody should.
    Refused,
    /// One packet.
    Frame,
    /// The rules as they are printed afterwards, and their counters.
    Save,
}

/// Where the two sides part.
#[derive(Clone, Debug)]
pub struct Difference {
    pub kind: Kind,
    /// How many frames were fed.
    pub fed: usize,
    pub mismatches: Vec<Mismatch>,
    /// The kernel's own words, if it said any.
    pub reasons: Vec<String>,
}

/// What became of a case.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub difference: Option<Difference>,
    /// `iptables-save -c` afterwards, IPv4 and IPv6.
    pub saved: [String; 2],
    /// What the kernel did, frame by frame.
    pub fates: BTreeMap<&'static str, u64>,
    pub states: BTreeMap<&'static str, u64>,
}

/// Runs a case from the beginning, on a kernel of its own.
pub(super) fn run(case: &Case) -> Result<Outcome> {
    let setup = case.setup();
    let bare = Setup { rules4: None, rules6: None, ..setup.clone() };
    let mut kernel = Kernel::new(&bare)?;
    let theirs = kernel.load_rules(setup.rules4.as_deref(), setup.rules6.as_deref());
    let unix = Duration::from_nanos(stateway_runtime::runtime::unix_nanos());
    let ours = Side::new(&setup, unix).and_then(|listened| Ok([listened, Side::new(&setup, unix)?]));
    let mut sides = match (theirs, ours) {
        (Ok(()), Ok(sides)) => sides,
        (theirs, ours) => {
            let word = |error: Option<anyhow::Error>| error.map_or("taken".to_owned(), |e| format!("{e:#}"));
            let kind = if theirs.is_err() && ours.is_err() { Kind::Refused } else { Kind::Load };
            let mismatch = Mismatch { aspect: "rules", kernel: word(theirs.err()), ours: word(ours.err()) };
            let difference = Difference { kind, fed: 0, mismatches: vec![mismatch], reasons: Vec::new() };
            return Ok(Outcome { difference: Some(difference), ..Outcome::default() });
        }
    };
    let mut outcome = Outcome::default();
    for (n, frame) in case.frames.iter().enumerate() {
        if case.is_slow {
            clock::wait(2 * clock::tick() + clock::tick() / 4);
        }
        if let Some(difference) = step(&mut kernel, &mut sides, case, frame, &mut outcome)? {
            outcome.difference = Some(Difference { fed: n + 1, ..difference });
            return Ok(outcome);
        }
    }
    outcome.saved = kernel.save_rules(true)?;
    let mismatches = compare_saved(&outcome.saved, &sides, case.mode);
    if !mismatches.is_empty() {
        let fed = case.frames.len();
        outcome.difference = Some(Difference { kind: Kind::Save, fed, mismatches, reasons: Vec::new() });
    }
    Ok(outcome)
}

/// A router, and what its rules log.
struct Side {
    subject: Subject,
    logs: Listener<Logged>,
}

impl Side {
    fn new(setup: &Setup, unix: Duration) -> Result<Self> {
        let subject = Subject::at_time_of_day(setup, unix)?;
        let logs = subject.router().logs().listen();
        Ok(Self { subject, logs })
    }

    /// What was logged since the last call.
    fn heard(&self) -> Vec<Heard> {
        self.logs.try_iter().filter_map(|logged| self.in_words(logged)).collect()
    }

    fn in_words(&self, logged: Logged) -> Option<Heard> {
        let by = match &logged.by {
            Speaker::Nflog { prefix, group } if GROUPS_OF_RULES.contains(group) => {
                format!("nflog {group} {prefix}").trim_end().to_owned()
            }
            Speaker::Trace => self.subject.router().rule_name(logged.rule)?,
            Speaker::Nflog { .. } | Speaker::Log { .. } => return None,
        };
        Some(Heard { by, mark: logged.mark, packet: without_ident(logged.packet) })
    }

    fn ruleset(&self, family: Family) -> String {
        self.subject.router().rules().for_family(family).map_or(String::new(), |rules| rules.render(true))
    }
}

/// Feeds one frame to all three.
fn step(
    kernel: &mut Kernel,
    sides: &mut [Side; 2],
    case: &Case,
    frame: &Frame,
    outcome: &mut Outcome,
) -> Result<Option<Difference>> {
    let tick = clock::ticks();
    let theirs = kernel.feed(frame.port, &frame.bytes)?;
    *outcome.fates.entry(theirs.fate(frame.port)).or_default() += 1;
    *outcome.states.entry(theirs.state.map_or("none", CtState::word)).or_default() += 1;
    let heard = in_our_words(&theirs.heard, case);
    let mut mismatches = Vec::new();
    for (side, is_heard) in sides.iter_mut().zip([true, false]) {
        side.subject.tick(tick);
        let ours = if is_heard {
            side.subject.feed(frame.port, &frame.bytes)
        } else {
            side.subject.feed_unheard(frame.port, &frame.bytes)
        };
        if is_heard {
            mismatches.extend(compare_state(&theirs, &ours));
        }
        let way = if is_heard { "" } else { " on the fast way" };
        mismatches.extend(compare_frames(&theirs, &ours).map(|m| labelled(m, way)));
        mismatches.extend(compare_heard(&heard, &side.heard()).map(|m| labelled(m, way)));
        let key = theirs.key.or_else(|| flow_key::of_frame(&frame.bytes));
        let entry = key.and_then(|key| side.subject.entry(&key));
        mismatches.extend(compare_entry(&theirs, entry.as_ref()).map(|m| labelled(m, way)));
    }
    if mismatches.is_empty() {
        return Ok(None);
    }
    Ok(Some(Difference { kind: Kind::Frame, fed: 0, mismatches, reasons: theirs.reasons }))
}

fn labelled(mismatch: Mismatch, way: &'static str) -> Mismatch {
    if way.is_empty() {
        return mismatch;
    }
    Mismatch { ours: format!("{}{way}", mismatch.ours), ..mismatch }
}

fn compare_state(theirs: &Answer, ours: &Ours) -> Option<Mismatch> {
    let word = |state: Option<CtState>, direction: Option<Direction>| {
        format!("{} {}", state.map_or("none", CtState::word), direction.map_or("-", Direction::word))
    };
    let (kernel, ours) = (word(theirs.state, theirs.direction), word(ours.state, ours.direction));
    (kernel != ours).then_some(Mismatch { aspect: "ctstate", kernel, ours })
}

/// Whether there is a connection, its mark and its helper: what rules do to it. The rest is compared elsewhere.
fn compare_entry(theirs: &Answer, ours: Option<&Entry>) -> Option<Mismatch> {
    let kernel = theirs.entry.as_ref().map_or("none".to_owned(), |entry| {
        format!("mark {:#x} helper {}", entry.mark, entry.helper.as_deref().unwrap_or("none"))
    });
    let ours = ours.map_or("none".to_owned(), |entry| {
        format!("mark {:#x} helper {}", entry.mark, entry.helper.map_or("none", |helper| helper.name()))
    });
    (kernel != ours).then_some(Mismatch { aspect: "entry", kernel, ours })
}

fn compare_heard(theirs: &[Heard], ours: &[Heard]) -> Option<Mismatch> {
    if theirs == ours {
        return None;
    }
    // What is the same in front says nothing.
    let same = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let show = |list: &[Heard]| match list.get(same) {
        Some(heard) => {
            let packet = crate::compare::hex(&heard.packet);
            format!("`{}` mark {:#x} {packet}", heard.by, heard.mark)
        }
        None => "nothing more".to_owned(),
    };
    Some(Mismatch { aspect: "log", kernel: show(theirs), ours: show(ours) })
}

/// `TRACE: raw:PREROUTING:rule:2` is `raw/PREROUTING/2` to us. That a user chain ends is no rule.
fn in_our_words(heard: &[Heard], case: &Case) -> Vec<Heard> {
    let name = |heard: &Heard| -> Option<Heard> {
        let heard = Heard { packet: without_ident(heard.packet.clone()), ..heard.clone() };
        let Some(place) = heard.by.strip_prefix("TRACE: ") else { return Some(heard) };
        let mut words = place.split(':');
        let (table, chain, kind, number) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let family = usize::from(heard.packet.first()? >> 4 == 6);
        let tables = case.rules[family].tables.iter().filter(|t| t.name == table);
        let rules = tables.flat_map(|t| &t.rules).filter(|rule| rule.chain == chain).count();
        // An unconditional verdict is called like the end of a chain.
        let is_rule = kind == "rule" || number.parse::<usize>().ok()? <= rules;
        if !is_rule && kind == "return" {
            return None;
        }
        let last = if is_rule { number } else { "policy" };
        Some(Heard { by: format!("{table}/{chain}/{last}"), ..heard })
    };
    heard.iter().filter_map(name).collect()
}

/// A packet without what the kernel fills in later, or draws: the identification of IPv4 and the checksum over it, and
/// the checksum of a reset that the router itself sends.
fn without_ident(mut packet: Vec<u8>) -> Vec<u8> {
    if is_own_reset(&packet) {
        let at = if packet[0] >> 4 == 4 { 36 } else { 56 };
        packet.get_mut(at..at + 2).into_iter().flatten().for_each(|byte| *byte = 0);
    }
    if packet.first().is_some_and(|byte| byte >> 4 == 4) {
        for at in [4..6, 10..12] {
            let end = at.end.min(packet.len());
            packet.get_mut(at.start..end).into_iter().flatten().for_each(|byte| *byte = 0);
        }
    }
    packet
}

/// A reset: of those that the router sends the checksum is not there yet.
fn is_own_reset(packet: &[u8]) -> bool {
    const RST: u8 = 4;
    let (proto, flags) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (packet.get(9), packet.get(33)),
        _ => (packet.get(6), packet.get(53)),
    };
    proto == Some(&PROTO_TCP) && flags.is_some_and(|flags| flags & RST != 0)
}

/// Most mismatches that are told of; the rest follows from them.
const MAX_LINES: usize = 12;

fn compare_saved(saved: &[String; 2], sides: &[Side; 2], mode: Mode) -> Vec<Mismatch> {
    let text = |rules: &str| match mode {
        Mode::Route => rules.to_owned(),
        Mode::Bridge => rules.lines().map(|line| bridge::without_conditions(line) + "\n").collect(),
    };
    let mut found = Vec::new();
    for (side, way) in sides.iter().zip(["", " on the fast way"]) {
        for (theirs, family) in saved.iter().zip([Family::Ipv4, Family::Ipv6]) {
            let mismatches = compare_rules(&text(theirs), &text(&side.ruleset(family)));
            found.extend(mismatches.into_iter().map(|mismatch| labelled(mismatch, way)));
        }
    }
    found.truncate(MAX_LINES);
    found
}

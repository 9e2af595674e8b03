//! What the three runners have in common: the trait, and what they report of a step.

#![forbid(unsafe_code)]

use super::model::{Action, Impairment, RunnerKind, Step, Word};
use stateway_core::conntrack::{CtState, Direction};
use stateway_core::iface::IfaceId;
use stateway_core::packet::Packet;
use stateway_core::packet::summary::{self, Gist};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// One way to bring a lab to life. It is up when it exists, and leaves nothing behind when it is dropped.
pub trait Runner {
    fn kind(&self) -> RunnerKind;

    /// Why this runner cannot take the step; asked before a test begins.
    fn lacks(&mut self, step: &Step) -> Option<String>;

    /// A step is about to be taken, perhaps several times.
    fn begins(&mut self, _: &Step) {}

    /// Takes one step and says what came of it, with every packet that the router saw meanwhile.
    ///
    /// `Wait`, `Rules`, `Conntrack` and `Counters` are steps as well: the last two only report what is there
    /// (the table as lines in `stdout`, the counters in `values`), and the caller compares.
    fn act(&mut self, action: &Action, awaits: Awaits) -> Result<Observation, RunError>;

    /// Puts impairments on links, and takes away those that are not named.
    fn impair(&mut self, links: &[(IfaceId, Impairment)]) -> Result<(), RunError>;

    /// The connection table, a line for each as `conntrack -L` prints it.
    fn table(&mut self) -> Result<Vec<String>, RunError>;

    /// Time since the lab came up: real, or virtual.
    fn now(&self) -> Duration;

    /// Lets time pass.
    fn wait(&mut self, duration: Duration);
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// An answer, of whatever kind. It is waited for patiently, since that costs nothing where it comes.
    Answer,
    /// That none comes, or that it is tried again soon.
    Silence,
}

/// Why a runner could not take a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// This runner has no such step: the test is skipped, and says why.
    #[error("{0}")]
    Unsupported(String),
    /// A program that was to tell did not end in time: the test has no result, the lab is as it was.
    #[error("{0}")]
    Late(String),
    /// The lab itself is at fault: no test result, but a broken lab.
    #[error("{0}")]
    Broken(String),
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub result: Word,
    /// Which ICMP error, by iptables' names.
    pub icmp: Option<String>,
    /// What happened, in few words: `host77`, `no answer in 2 s`.
    pub note: String,
    pub stdout: String,
    /// The exit code of a command of the user's own.
    pub exit: Option<i32>,
    /// Every packet that the router saw during the step, in order.
    pub packets: Vec<Seen>,
    /// Counters by name (`filter/FORWARD/2`, `filter/FORWARD/policy`, `drop/tcp-flags`).
    pub values: BTreeMap<String, u64>,
}

impl Observation {
    pub fn new(result: Word, note: impl Into<String>) -> Self {
        Self {
            result,
            icmp: None,
            note: note.into(),
            stdout: String::new(),
            exit: None,
            packets: Vec::new(),
            values: BTreeMap::new(),
        }
    }
}

/// One packet as the router saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Since the lab came up.
    pub time: Duration,
    pub in_port: String,
    pub out_port: Option<String>,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    /// TCP and UDP: source and destination port.
    pub ports: Option<(u16, u16)>,
    /// What tells it from others between the same ends.
    pub gist: Gist,
    /// For people: `tcp S 192.0.2.77:40000 → 192.0.2.104:22`.
    pub summary: String,
    /// `None`: it never came as far as connection tracking.
    pub state: Option<CtState>,
    pub direction: Option<Direction>,
    /// `forwarded`, `dropped`, …, as [`stateway_core::fate::Fate::word`] says.
    pub fate: String,
    /// The rule that decided (`filter/FORWARD/1`, `policy`).
    pub rule: Option<String>,
    /// Why it was dropped, or judged INVALID.
    pub reason: Option<String>,
}

impl Seen {
    /// A packet as it came in, of which nothing is known yet.
    pub(crate) fn of(pkt: &Packet, time: Duration, in_port: String) -> Self {
        Self {
            time,
            in_port,
            out_port: None,
            src: pkt.src().to_ip(pkt.family()),
            dst: pkt.dst().to_ip(pkt.family()),
            protocol: pkt.proto(),
            ports: pkt.ports(),
            gist: Gist::of(pkt),
            summary: summary::of_packet(pkt),
            state: None,
            direction: None,
            fate: String::new(),
            rule: None,
            reason: None,
        }
    }

    /// Whether it looks the same as another one, wherever and whenever they came.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        (self.src, self.dst, self.ports) == (other.src, other.dst, other.ports)
            && (self.protocol, self.gist) == (other.protocol, other.gist)
    }

    pub fn was_stopped(&self) -> bool {
        self.fate == "dropped" || self.fate == "rejected"
    }
}

/// ICMP errors by the names that iptables gives them (`--reject-with`), or by their usual words: whether it is ICMPv6,
/// the type, and the code if there are several names for one type.
const ICMP_ERRORS: [(bool, u8, Option<u8>, &str); 17] = [
    (false, 3, Some(0), "icmp-net-unreachable"),
    (false, 3, Some(1), "icmp-host-unreachable"),
    (false, 3, Some(2), "icmp-proto-unreachable"),
    (false, 3, Some(3), "icmp-port-unreachable"),
    (false, 3, Some(4), "frag-needed"),
    (false, 3, Some(9), "icmp-net-prohibited"),
    (false, 3, Some(10), "icmp-host-prohibited"),
    (false, 3, Some(13), "icmp-admin-prohibited"),
    (false, 11, None, "time-exceeded"),
    (true, 1, Some(0), "icmp6-no-route"),
    (true, 1, Some(1), "icmp6-adm-prohibited"),
    (true, 1, Some(3), "icmp6-addr-unreachable"),
    (true, 1, Some(4), "icmp6-port-unreachable"),
    (true, 1, Some(5), "icmp6-policy-fail"),
    (true, 1, Some(6), "icmp6-reject-route"),
    (true, 2, None, "packet-too-big"),
    (true, 3, None, "time-exceeded"),
];

/// An ICMP error by its name; one that has none, by its numbers.
pub fn icmp_name(v6: bool, kind: u8, code: u8) -> String {
    let meant = |(of_v6, of_kind, of_code, _): &&(bool, u8, Option<u8>, &str)| {
        (*of_v6, *of_kind) == (v6, kind) && of_code.is_none_or(|of_code| of_code == code)
    };
    let known = ICMP_ERRORS.iter().find(meant);
    known.map_or_else(|| format!("icmp type {kind} code {code}"), |(.., name)| (*name).to_owned())
}

/// Every name that [`icmp_name`] gives, but those made of numbers.
pub fn icmp_names() -> impl Iterator<Item = &'static str> + Clone {
    ICMP_ERRORS.iter().map(|(.., name)| *name)
}

//! A checked lab: what every runner builds, and what every test does and expects.
//!
//! Values exist only after [`super::resolve`] has checked them: every name is an index, every address parsed.

#![forbid(unsafe_code)]

use super::error::Problem;
use super::locate::Places;
use super::runner::Awaits;
use stateway_core::config::{RouterConfig, RunOptions};
use stateway_core::conntrack::CtState;
use stateway_core::iface::IfaceId;
use stateway_core::packet::{Family, Mac, Prefix};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use super::ruling::RuleRef;
pub use super::steps::{
    Action, CounterQuery, Exec, Ftp, FtpMode, Http, Ping, RulesText, Send, Ssh, TableQuery, Tcp, Tftp,
    Traceroute, Udp, Wait,
};

/// A lab file, resolved.
#[derive(Clone, Debug)]
pub struct Lab {
    pub name: String,
    pub description: String,
    /// The file that it was read from.
    pub file: PathBuf,
    pub router: RouterConfig,
    pub options: RunOptions,
    pub hosts: Vec<Host>,
    pub tests: Vec<Test>,
    /// What deserves a second look, but is no error.
    pub warnings: Vec<Problem>,
    /// Every file that was read, the lab file first.
    pub sources: Vec<Source>,
    /// Where the values of the lab file stand.
    pub(crate) places: Arc<Places>,
    /// Every ruleset in it, and where its text stands.
    pub(crate) rule_texts: Vec<RuleText>,
}

/// The text of a ruleset, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleText {
    pub(crate) text: String,
    pub(crate) family: Family,
    pub(crate) from: RulesFrom,
}

/// Where a ruleset comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RulesFrom {
    /// From the lab file: the path of the value.
    Lab(String),
    /// From a file of its own, behind so many lines of other files.
    File(PathBuf, usize),
}

/// A file that a lab was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// Which host: its place in the lab's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub u16);

impl Lab {
    /// Whether a test of it puts other rules in force on the way.
    pub fn changes_rules(&self) -> bool {
        let mut steps = self.tests.iter().flat_map(|test| &test.steps);
        steps.any(|step| matches!(step.action, Action::Rules(_)))
    }

    pub fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0 as usize]
    }

    pub fn host_named(&self, name: &str) -> Option<HostId> {
        self.hosts.iter().position(|host| host.name == name).map(|at| HostId(at as u16))
    }

    /// The hosts behind one port of the router.
    pub fn hosts_on(&self, iface: IfaceId) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.iface == iface)
    }

    /// The name of a port of the router.
    pub fn port_name(&self, iface: IfaceId) -> &str {
        &self.router.ifaces[iface.index()].name
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// The router's port that it is behind.
    pub iface: IfaceId,
    /// Its own addresses, each with the length of its network.
    pub addresses: Vec<Prefix>,
    /// Default gateways, at most one for each family.
    pub gateways: Vec<IpAddr>,
    pub routes: Vec<HostRoute>,
    pub mac: Mac,
    pub mtu_bytes: usize,
    pub services: Vec<Service>,
}

impl Host {
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().find(|prefix| prefix.family == family).map(|prefix| prefix.addr.to_ip(family))
    }

    pub fn has_address(&self, addr: IpAddr) -> bool {
        self.addresses.iter().any(|prefix| prefix.addr.to_ip(prefix.family) == addr)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    pub to: Prefix,
    pub via: IpAddr,
}

/// Something that a host serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub kind: ServiceKind,
    /// Where it listens; `None` only for a command that does not say.
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    Ssh,
    Http,
    Ftp,
    Tftp,
    /// TCP and UDP.
    Echo,
    Dns,
    /// A line for `sh -c`, and one that succeeds once it is ready.
    Command {
        run: String,
        ready: Option<String>,
    },
}

impl ServiceKind {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Http => "http",
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
            Self::Echo => "echo",
            Self::Dns => "dns",
            Self::Command { .. } => "command",
        }
    }

    /// The port that everybody knows it by.
    pub const fn usual_port(&self) -> Option<u16> {
        match self {
            Self::Ssh => Some(22),
            Self::Http => Some(80),
            Self::Ftp => Some(21),
            Self::Tftp => Some(69),
            Self::Echo => Some(7),
            Self::Dns => Some(53),
            Self::Command { .. } => None,
        }
    }
}

/// Which of the three runners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunnerKind {
    Sim,
    Live,
    Kernel,
}

impl RunnerKind {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Live => "live",
            Self::Kernel => "kernel",
        }
    }
}

/// One test: steps that are taken in order, until one does not come out as expected.
#[derive(Clone, Debug)]
pub struct Test {
    pub name: String,
    /// Its path in the lab file: `tests[2]`.
    pub path: String,
    /// Only with these runners; empty: with all.
    pub on: Vec<RunnerKind>,
    /// Never empty. A step that repeats over hosts stands here once for each of them.
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Step {
    /// Its path in the lab file: `tests[2].steps[0]`.
    pub path: String,
    pub action: Action,
    pub expect: Expect,
    /// Repeat until it comes out as expected, at most this long.
    pub within: Option<Duration>,
    /// In force during the step.
    pub impair: Vec<(IfaceId, Impairment)>,
}

impl Step {
    /// Whether it is to be seen that something comes back, or that nothing does.
    pub fn awaits(&self) -> Awaits {
        match self.expect.result {
            Some(Word::Ok | Word::Refused | Word::Unreachable) if self.within.is_none() => Awaits::Answer,
            _ => Awaits::Silence,
        }
    }
}

/// What a link does to packets, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    pub delay: Duration,
    pub jitter: Duration,
    pub loss_percent: f64,
    pub reorder_percent: f64,
    pub duplicate_percent: f64,
    pub rate_kbit: Option<u64>,
}

/// From where to where, and how long an answer may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub from: HostId,
    /// The address that `from` uses.
    pub source: IpAddr,
    pub to: IpAddr,
    /// The host that has the address, if one does.
    pub to_host: Option<HostId>,
    /// `None`: the runner's own default.
    pub timeout: Option<Duration>,
}

impl Flow {
    pub fn family(&self) -> Family {
        self.to.into()
    }
}

/// A connection that outlives its step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Session {
    /// It ends with the step.
    #[default]
    Once,
    /// It is opened and stays open under this name.
    Keep(String),
    /// An open one is used.
    Use(String),
}

/// What a transfer moves if the file does not say.
pub(crate) const USUAL_BYTES: u32 = 20_000;

/// What is moved; the bytes are compared at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    List,
    Get { bytes: u32 },
    Put { bytes: u32 },
}

/// What must come of a step. What is `None` or empty is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    pub result: Option<Word>,
    pub icmp: Option<String>,
    pub exit: Option<u8>,
    pub state: Option<CtState>,
    pub seen: Vec<CtState>,
    pub unseen: Vec<CtState>,
    pub stdout: Option<String>,
    pub contains: Vec<String>,
    pub rule: Option<RuleRef>,
    pub reason: Option<String>,
    pub entry: Option<String>,
    pub no_entry: Option<String>,
}

/// The results, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Ok,
    /// Nothing came back.
    Blocked,
    /// A reset came back.
    Refused,
    /// An ICMP error came back.
    Unreachable,
    /// A command of the user's own did not succeed, for whatever reason.
    Failed,
}

impl Word {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
        }
    }
}

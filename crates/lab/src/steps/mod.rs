//! One file per kind of step: how it is written, how it is checked, how hosts that are namespaces take it, how it is
//! simulated, and which packet decides what came of it.
//!
//! A new kind is a file here and a row in the table `every_step`.

#![forbid(unsafe_code)]
#![allow(clippy::result_large_err, reason = "once a step, what came of it is told early")]

mod conntrack;
mod counters;
mod exec;
mod ftp;
mod http;
mod ping;
mod rules;
mod send;
mod ssh;
mod tcp;
mod tftp;
mod traceroute;
mod udp;
mod wait;

use super::judge::Flows;
use super::model::{Expect, Flow, HostId, Lab};
#[cfg(target_os = "linux")]
use super::netns::Namespaces;
use super::resolve::{Check, StepPlace};
use super::runner::{Observation, RunError, Seen};
use super::sim::Sim;
use super::spec::StepSpec;

pub use conntrack::{ConntrackSpec, TableQuery};
pub use counters::{CounterQuery, CountersSpec};
pub use exec::{Exec, ExecSpec};
pub use ftp::{Ftp, FtpCommandSpec, FtpMode, FtpModeSpec, FtpSpec};
pub use http::{Http, HttpSpec};
pub use ping::{Ping, PingSpec};
pub use rules::{RulesSpec, RulesText};
pub use send::{Send, SendSpec};
pub use ssh::{Ssh, SshSpec};
pub use tcp::{Tcp, TcpSpec};
pub use tftp::{Tftp, TftpCommandSpec, TftpSpec};
pub use traceroute::{Traceroute, TracerouteSpec};
pub use udp::{Udp, UdpSpec};
pub use wait::Wait;

/// What a kind of step says of itself.
pub(crate) trait Kind: Sized {
    /// How it is written.
    type Spec;

    /// Whether it must come out `ok` unless the lab file tells otherwise.
    const SUCCEEDS: bool = true;

    /// The programs that it runs on hosts that are namespaces.
    const PROGRAMS: &'static [&'static str] = &[];

    /// Checks what is written: one step for each host, or pair of hosts, that it repeats over. `path` is where it stands.
    fn resolve(spec: &Self::Spec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self>;

    /// From where to where it sends, if it sends anything by itself.
    fn flow(&self) -> Option<&Flow> {
        None
    }

    /// Where it is taken.
    fn host(&self) -> Option<HostId> {
        self.flow().map(|flow| flow.from)
    }

    /// Why it cannot be simulated.
    fn lacks_in_simulation(&self, lab: &Lab) -> Option<String> {
        let flow = self.flow()?;
        lab.host(flow.from).has_address(flow.to).then(|| {
            "not applicable in simulation: what a host says to itself is heard by nobody else".to_owned()
        })
    }

    /// Why it cannot be taken with real programs.
    fn lacks_in_real_time(&self) -> Option<String> {
        None
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation>;

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError>;

    /// The packet that decided what came of it. `earlier` is what earlier steps have seen.
    fn deciding<'a>(&self, _: &Expect, _: &'a Observation, _earlier: &Flows) -> Option<&'a Seen> {
        None
    }

    /// Adds what is not as the step itself wants it, beside what is expected of every step.
    fn compare(&self, _: &Observation, _wrong: &mut Vec<String>) {}
}

/// The table of all kinds, in the order of the reference: the word of the lab file, the kind, and how it is written. It is
/// handed to a macro that makes something of it.
macro_rules! every_step {
    ($make:ident) => {
        $make! {
            /// Logs in and runs a command.
            ssh: Ssh(Ssh), written as SshSpec;
            /// Opens a TCP connection.
            tcp: Tcp(Tcp), written as TcpSpec;
            /// Sends a UDP datagram and waits for an answer.
            udp: Udp(Udp), written as UdpSpec;
            /// Sends ICMP echo requests and waits for the answers.
            ping: Ping(Ping), written as PingSpec;
            /// Fetches a page over HTTP.
            http: Http(Http), written as HttpSpec;
            /// Lists, gets or puts a file over FTP.
            ftp: Ftp(Ftp), written as FtpSpec;
            /// Gets or puts a file over TFTP.
            tftp: Tftp(Tftp), written as TftpSpec;
            /// Asks for the hops on the way (live and kernel only).
            traceroute: Traceroute(Traceroute), written as TracerouteSpec;
            /// Runs a command on a host (live and kernel only).
            exec: Exec(Exec), written as ExecSpec;
            /// Sends packets written as in packetdrill.
            send: Send(Send), written as SendSpec;
            /// Lets time pass; in simulation this costs none.
            wait: Wait(Wait), written as TimeSpec;
            /// Swaps the ruleset; connections stay. The next tests have the new one.
            rules: Rules(RulesText), written as RulesSpec;
            /// Looks at the connection table.
            conntrack: Conntrack(TableQuery), written as ConntrackSpec;
            /// Looks at counters of rules and drops.
            counters: Counters(CounterQuery), written as CountersSpec;
        }
    };
}
pub(super) use every_step;

macro_rules! actions {
    ($($(#[$doc:meta])* $word:ident: $kind:ident($ty:ty), written as $spec:ty;)*) => {
        /// What a step does.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $kind($ty),)*
        }

        impl Action {
            /// The word that the lab file uses.
            pub const fn word(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => stringify!($word),)*
                }
            }

            /// From where to where it sends, if it sends anything by itself.
            pub fn flow(&self) -> Option<&Flow> {
                match self {
                    $(Self::$kind(step) => step.flow(),)*
                }
            }

            pub(crate) fn host(&self) -> Option<HostId> {
                match self {
                    $(Self::$kind(step) => step.host(),)*
                }
            }

            pub(crate) const fn succeeds(&self) -> bool {
                match self {
                    $(Self::$kind(_) => <$ty as Kind>::SUCCEEDS,)*
                }
            }

            #[cfg(target_os = "linux")]
            pub(crate) const fn programs(&self) -> &'static [&'static str] {
                match self {
                    $(Self::$kind(_) => <$ty as Kind>::PROGRAMS,)*
                }
            }

            pub(crate) fn lacks_in_simulation(&self, lab: &Lab) -> Option<String> {
                match self {
                    $(Self::$kind(step) => step.lacks_in_simulation(lab),)*
                }
            }

            #[cfg(target_os = "linux")]
            pub(crate) fn lacks_in_real_time(&self) -> Option<String> {
                match self {
                    $(Self::$kind(step) => step.lacks_in_real_time(),)*
                }
            }

            #[cfg(target_os = "linux")]
            pub(crate) fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
                match self {
                    $(Self::$kind(step) => step.act(runner),)*
                }
            }

            pub(crate) fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
                match self {
                    $(Self::$kind(step) => step.simulate(sim),)*
                }
            }

            pub(crate) fn deciding<'a>(
                &self,
                expect: &Expect,
                seen: &'a Observation,
                earlier: &Flows,
            ) -> Option<&'a Seen> {
                match self {
                    $(Self::$kind(step) => step.deciding(expect, seen, earlier),)*
                }
            }

            pub(crate) fn compare(&self, seen: &Observation, wrong: &mut Vec<String>) {
                match self {
                    $(Self::$kind(step) => step.compare(seen, wrong),)*
                }
            }

            /// The words of what is written in a step; exactly one is right.
            pub(crate) fn written(spec: &StepSpec) -> Vec<&'static str> {
                let all = [$((stringify!($word), spec.$word.is_some()),)*];
                all.into_iter().filter_map(|(word, there)| there.then_some(word)).collect()
            }

            /// What is written in a step, checked.
            pub(crate) fn resolve(
                spec: &StepSpec,
                check: &mut Check<'_>,
                path: &str,
                place: &StepPlace<'_>,
            ) -> Vec<Self> {
                $(if let Some(spec) = &spec.$word {
                    let steps = <$ty as Kind>::resolve(spec, check, path, place);
                    return steps.into_iter().map(Self::$kind).collect();
                })*
                Vec::new()
            }
        }
    };
}
every_step!(actions);

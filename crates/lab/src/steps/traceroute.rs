//! `traceroute`: asks for the hops on the way.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::{self, Flows, Own};
use crate::model::{Expect, Flow, Word};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::sim::services::bind;
use crate::spec::{FamilySpec, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;
use smoltcp::wire::IpEndpoint;
use stateway_core::packet::tuple::PROTO_UDP;
use std::fmt::Write as _;
use std::time::Duration;

/// What `traceroute` begins with.
const TRACE_PORT: u16 = 33_434;
const TRACE_HOPS: u8 = 8;

/// Asks for the hops on the way; the step's output is their addresses (live and kernel only).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TracerouteSpec {
    /// Who begins: a host; several repeat the step.
    pub from: OneOrMany,
    /// With whom: a host or an address; several repeat the step.
    pub to: OneOrMany,
    /// Which addresses of the hosts; IPv4 unless told otherwise, or unless they have IPv6 alone.
    pub family: Option<FamilySpec>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceroute {
    pub flow: Flow,
}

impl Kind for Traceroute {
    type Spec = TracerouteSpec;

    const PROGRAMS: &'static [&'static str] = &["traceroute"];

    fn resolve(spec: &TracerouteSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let flows = check.flows(path, &spec.from, &spec.to, spec.family, place);
        flows.into_iter().map(|flow| Self { flow }).collect()
    }

    fn flow(&self) -> Option<&Flow> {
        Some(&self.flow)
    }

    fn deciding<'a>(&self, _: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
        judge::of_flow(&self.flow, Own::default(), seen, earlier)
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        clients::watched(runner, |runner| namespaces::traceroute(runner, &self.flow))
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.traffic(&self.flow, None, |sim| Ok(sim.traceroute(&self.flow)))
    }
}

impl Sim {
    /// One datagram for each number of hops, until the destination itself answers.
    fn traceroute(&mut self, flow: &Flow) -> Observation {
        let host = self.host(flow.from);
        let source_port = host.new_port();
        let handle = bind(&mut host.sockets, source_port);
        let mut hops: Vec<String> = Vec::new();
        for ttl in 1..=TRACE_HOPS {
            let port = TRACE_PORT + u16::from(ttl) - 1;
            self.datagrams(flow.from, handle).set_hop_limit(Some(ttl));
            self.send_datagram(flow, handle, IpEndpoint::new(flow.to.into(), port), &[0; 32]);
            let until = self.now + Duration::from_secs(1);
            let answer =
                self.run_until(until, |sim| sim.heard(flow, PROTO_UDP, Some(port)).map(|error| error.from));
            hops.push(answer.map_or("*".to_owned(), |from| from.to_string()));
            if answer == Some(flow.to) {
                break;
            }
        }
        self.host(flow.from).sockets.remove(handle);
        let arrived = hops.last() == Some(&flow.to.to_string());
        let mut note = String::new();
        for hop in &hops {
            let _ = write!(note, "{}{hop}", if note.is_empty() { "" } else { " " });
        }
        let word = if arrived { Word::Ok } else { Word::Blocked };
        Observation { stdout: hops.join("\n"), ..Observation::new(word, note) }
    }
}

/// On hosts that are namespaces.
#[cfg(target_os = "linux")]
mod namespaces {
    use crate::model::{Flow, Word};
    use crate::netns::Namespaces;
    use crate::netns::clients::{GRACE, Late, last_line, on};
    use crate::probe::Finding;
    use anyhow::bail;
    use std::ffi::OsString;
    use std::time::Duration;

    pub(super) fn traceroute(runner: &Namespaces, flow: &Flow) -> anyhow::Result<Finding> {
        let words: Vec<OsString> = ["traceroute", "-n", "-q", "1", "-w", "1", "-m", "8"]
            .iter()
            .map(OsString::from)
            .chain([flow.to.to_string().into()])
            .collect();
        let output = on(runner, flow.from, words, None, Duration::from_secs(20) + GRACE)?;
        if output.status.is_none() {
            return Err(Late(format!("traceroute to {}", flow.to)).into());
        }
        if !output.ok() {
            bail!("`traceroute` cannot ask: {}", last_line(&output.stderr));
        }
        let hops: Vec<&str> =
            output.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        let arrived = hops.last().is_some_and(|last| *last == flow.to.to_string());
        let word = if arrived { Word::Ok } else { Word::Blocked };
        Ok(Finding { stdout: hops.join("\n"), ..Finding::new(word, hops.join(" ")) })
    }
}

//! `udp`: sends a datagram and waits for an answer.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::{self, Flows, Own};
use crate::model::{Expect, Flow, Word};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::sim::clients::{no_answer, unreachable};
use crate::sim::services::new_udp;
use crate::spec::{FamilySpec, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;
use smoltcp::wire::IpEndpoint;
use stateway_core::packet::tuple::PROTO_UDP;

/// Sends one datagram; the step's output is what comes back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UdpSpec {
    /// Who begins: a host; several repeat the step.
    pub from: OneOrMany,
    /// With whom: a host or an address; several repeat the step.
    pub to: OneOrMany,
    /// Which addresses of the hosts; IPv4 unless told otherwise, or unless they have IPv6 alone.
    pub family: Option<FamilySpec>,
    /// The port where it is served.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// The port it comes from; the system chooses one unless told.
    #[schemars(range(min = 1))]
    pub source_port: Option<u16>,
    /// What the datagram says.
    #[schemars(extend("default" = "stateway"))]
    pub send: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    pub flow: Flow,
    pub port: u16,
    pub source_port: Option<u16>,
    pub send: String,
}

impl Kind for Udp {
    type Spec = UdpSpec;

    fn resolve(spec: &UdpSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let send = spec.send.clone().unwrap_or_else(|| "stateway".to_owned());
        let make = |flow| Self { flow, port: spec.port, source_port: spec.source_port, send: send.clone() };
        check.flows(path, &spec.from, &spec.to, spec.family, place).into_iter().map(make).collect()
    }

    fn flow(&self) -> Option<&Flow> {
        Some(&self.flow)
    }

    fn deciding<'a>(&self, _: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
        judge::of_flow(&self.flow, Own::of(PROTO_UDP, Some(self.port)), seen, earlier)
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        clients::watched(runner, |runner| namespaces::udp(runner, self))
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.traffic(&self.flow, Some(self.port), |sim| Ok(sim.udp(self)))
    }
}

impl Sim {
    fn udp(&mut self, step: &Udp) -> Observation {
        let Udp { flow, port, source_port, send } = step;
        let until = self.deadline(flow);
        let host = self.host(flow.from);
        let source_port = source_port.unwrap_or_else(|| host.new_port());
        let mut socket = new_udp();
        let _ = socket.bind((flow.source, source_port));
        // In front of the host's own services, as a bound socket is more exact than theirs.
        let handle = host.sockets.add(socket);
        self.send_datagram(flow, handle, IpEndpoint::new(flow.to.into(), *port), send.as_bytes());
        let found = self.run_until(until, |sim| {
            if let Ok((bytes, _)) = sim.datagrams(flow.from, handle).recv() {
                let stdout = String::from_utf8_lossy(bytes).into_owned();
                let note = format!("{} bytes came back", bytes.len());
                return Some(Observation { stdout, ..Observation::new(Word::Ok, note) });
            }
            sim.heard(flow, PROTO_UDP, Some(*port)).map(unreachable)
        });
        self.host(flow.from).sockets.remove(handle);
        found.unwrap_or_else(|| no_answer(flow))
    }
}

/// On hosts that are namespaces.
#[cfg(target_os = "linux")]
mod namespaces {
    use super::Udp;
    use crate::netns::Namespaces;
    use crate::netns::clients::{hex, probe, probe_args};
    use crate::probe::Finding;

    pub(super) fn udp(runner: &Namespaces, step: &Udp) -> anyhow::Result<Finding> {
        let mut args = probe_args(runner, "udp", &step.flow, step.port, step.source_port);
        args.extend(["--say".to_owned(), hex(step.send.as_bytes())]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        probe(runner, &step.flow, &args, None)
    }
}

//! `http`: fetches a page.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::{self, Flows, Own};
use crate::model::{Expect, Flow, Word};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::spec::{FamilySpec, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;
use stateway_core::packet::tuple::PROTO_TCP;

/// Fetches a page; the step's output is its text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSpec {
    /// Who begins: a host; several repeat the step.
    pub from: OneOrMany,
    /// With whom: a host or an address; several repeat the step.
    pub to: OneOrMany,
    /// Which addresses of the hosts; IPv4 unless told otherwise, or unless they have IPv6 alone.
    pub family: Option<FamilySpec>,
    /// The port where it is served.
    #[schemars(range(min = 1), extend("default" = 80))]
    pub port: Option<u16>,
    /// The page.
    #[schemars(extend("default" = "/"))]
    pub path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub flow: Flow,
    pub port: u16,
    pub path: String,
}

impl Kind for Http {
    type Spec = HttpSpec;

    const PROGRAMS: &'static [&'static str] = &["curl"];

    fn resolve(spec: &HttpSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let asked = spec.path.clone().unwrap_or_else(|| "/".to_owned());
        let make = |flow| Self { flow, port: spec.port.unwrap_or(80), path: asked.clone() };
        check.flows(path, &spec.from, &spec.to, spec.family, place).into_iter().map(make).collect()
    }

    fn flow(&self) -> Option<&Flow> {
        Some(&self.flow)
    }

    fn deciding<'a>(&self, _: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
        judge::of_flow(&self.flow, Own::of(PROTO_TCP, Some(self.port)), seen, earlier)
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        clients::watched(runner, |runner| namespaces::http(runner, self))
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.traffic(&self.flow, Some(self.port), |sim| Ok(sim.http(self)))
    }
}

impl Sim {
    fn http(&mut self, step: &Http) -> Observation {
        let Http { flow, port, path } = step;
        let handle = match self.connect(flow, *port, None) {
            Ok(handle) => handle,
            Err(found) => return found,
        };
        let until = self.deadline(flow);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", flow.to);
        self.say_on(flow.from, handle, request.as_bytes(), until);
        let answer = self.hear_on(flow.from, handle, usize::MAX, until);
        self.hang_up(flow.from, handle);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, page)) = answer.split_once("\r\n\r\n") else {
            return Observation::new(Word::Blocked, "no page came");
        };
        let status = head.lines().next().unwrap_or_default();
        if !status.contains(" 200 ") {
            return Observation::new(Word::Blocked, status);
        }
        let note = page.lines().next().unwrap_or_default();
        Observation { stdout: page.to_owned(), ..Observation::new(Word::Ok, note) }
    }
}

/// On hosts that are namespaces.
#[cfg(target_os = "linux")]
mod namespaces {
    use super::Http;
    use crate::netns::Namespaces;
    use crate::netns::transfers::{curl, curl_finding, url};
    use crate::probe::Finding;

    pub(super) fn http(runner: &Namespaces, step: &Http) -> anyhow::Result<Finding> {
        let output =
            curl(runner, &step.flow, vec!["-f".into(), url("http", step.flow.to, step.port, &step.path)])?;
        curl_finding(runner, &step.flow, step.port, &output)
    }
}

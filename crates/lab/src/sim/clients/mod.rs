//! What the steps of a test share in simulation: clients on simulated hosts, straight lines that let time pass where they wait.

#![forbid(unsafe_code)]
#![allow(clippy::result_large_err, reason = "once a step, what came of it is told early")]

mod datagrams;
mod stream;

use super::Sim;
use super::host::{IcmpError, has_way};
use crate::model::{Flow, Service, ServiceKind, Word};
use crate::runner::{Observation, RunError, Seen};
use stateway_core::time::Instant;
use std::time::Duration;

/// How long an answer may take unless the step says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);
/// For what is under way when a step has its result: the last acknowledgement, a FIN.
pub(crate) const AFTERMATH: Duration = Duration::from_millis(50);

impl Sim {
    /// Takes a step that sends something. `port` is where it is served, if that is one port.
    pub(crate) fn traffic(
        &mut self,
        flow: &Flow,
        port: Option<u16>,
        take: impl FnOnce(&mut Self) -> Result<Observation, RunError>,
    ) -> Result<Observation, RunError> {
        if let Some(found) = self.hopeless(flow) {
            return Ok(found);
        }
        for host in &mut self.hosts {
            host.heard.clear();
        }
        let found = take(self)?;
        if let Some(why) = self.met_a_command(flow, port, &found) {
            return Err(RunError::Unsupported(why));
        }
        self.run_to(self.now + AFTERMATH);
        Ok(found)
    }

    /// Whether a step was turned away only because the program that serves there is not simulated.
    fn met_a_command(&self, flow: &Flow, port: Option<u16>, found: &Observation) -> Option<String> {
        let port = port?;
        let server = self.lab.host(flow.to_host?);
        let by_command = |service: &Service| {
            matches!(service.kind, ServiceKind::Command { .. }) && service.port.is_none_or(|own| own == port)
        };
        let turned_away = matches!(found.result, Word::Refused | Word::Unreachable)
            && !self.seen.iter().any(Seen::was_stopped);
        (turned_away && server.services.iter().any(by_command)).then(|| {
            format!("not applicable in simulation: a command serves port {port} of `{}`", server.name)
        })
    }

    /// What a host finds out without sending anything.
    fn hopeless(&self, flow: &Flow) -> Option<Observation> {
        let host = self.lab.host(flow.from);
        (!has_way(host, flow.to)).then(|| Observation::new(Word::Unreachable, "no route"))
    }

    pub(crate) fn deadline(&self, flow: &Flow) -> Instant {
        self.now + flow.timeout.unwrap_or(PATIENCE)
    }

    /// The first error that a host heard about its packets of this protocol to the flow's destination.
    pub(crate) fn heard(&mut self, flow: &Flow, proto: u8, port: Option<u16>) -> Option<IcmpError> {
        let about = |error: &&IcmpError| {
            error.dst == flow.to
                && error.proto == proto
                && port.is_none_or(|port| error.words.is_some_and(|(_, to)| to == port))
        };
        self.host(flow.from).heard.iter().find(about).cloned()
    }
}

pub(crate) fn unreachable(error: IcmpError) -> Observation {
    let note = error.mtu.map_or(error.name.clone(), |mtu| format!("{}, mtu {mtu}", error.name));
    Observation { icmp: Some(error.name), ..Observation::new(Word::Unreachable, note) }
}

pub(crate) fn no_answer(flow: &Flow) -> Observation {
    let patience = flow.timeout.unwrap_or(PATIENCE).as_secs_f64();
    Observation::new(Word::Blocked, format!("no answer in {patience} s"))
}

/// What transfers move: bytes that do not repeat soon, so that a piece that is lost or doubled shows.
pub(crate) fn content(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// What came of a transfer, once both ends are compared.
pub(crate) fn compared(sent: &[u8], arrived: Option<&[u8]>) -> Observation {
    let same = arrived == Some(sent);
    let how = if same { "the same at both ends" } else { "but not the same" };
    let word = if same { Word::Ok } else { Word::Blocked };
    Observation::new(word, format!("{} bytes, {how}", sent.len()))
}

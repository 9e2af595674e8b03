//! The steps of a test, taken by clients on simulated hosts: straight lines that let time pass where they wait.

#![forbid(unsafe_code)]
#![allow(clippy::result_large_err, reason = "once a step, what came of it is told early")]

mod datagrams;
mod ftp;
mod stream;

use super::Sim;
use super::host::{IcmpError, has_way};
use crate::model::{Action, Flow, Ftp, HostId, Http, Lab, Send, Service, ServiceKind, Ssh, Tcp, Udp, Word};
use crate::runner::{Observation, RunError, Seen, judge_by_hand};
use stateway_core::packet::{ETHERNET_LEN, Mac};
use stateway_core::time::Instant;
use std::time::Duration;

/// How long an answer may take unless the step says otherwise.
const PATIENCE: Duration = Duration::from_millis(1500);
/// For what is under way when a step has its result: the last acknowledgement, a FIN.
const AFTERMATH: Duration = Duration::from_millis(50);

/// What cannot be simulated.
pub(super) fn lacks(lab: &Lab, action: &Action) -> Option<String> {
    if let Action::Exec(_) = action {
        let why = "not applicable in simulation: `exec` runs a program, and simulated hosts have none";
        return Some(why.to_owned());
    }
    let flow = action.flow()?;
    lab.host(flow.from).has_address(flow.to).then(|| {
        "not applicable in simulation: what a host says to itself is heard by nobody else".to_owned()
    })
}

impl Sim {
    /// Takes a step that sends something.
    pub(super) fn traffic(&mut self, action: &Action) -> Result<Observation, RunError> {
        if let Some(flow) = action.flow() {
            if let Some(found) = self.hopeless(flow) {
                return Ok(found);
            }
            for host in &mut self.hosts {
                host.heard.clear();
            }
        }
        let found = match action {
            Action::Ssh(step) => self.ssh(step)?,
            Action::Tcp(step) => self.tcp(step)?,
            Action::Http(step) => self.http(step),
            Action::Ftp(step) => self.ftp(step)?,
            Action::Udp(step) => self.udp(step),
            Action::Tftp(step) => self.tftp(step)?,
            Action::Ping(step) => self.ping(step),
            Action::Traceroute(flow) => self.traceroute(flow),
            Action::Send(step) => self.send_by_hand(step),
            Action::Exec(_)
            | Action::Wait(_)
            | Action::Rules(_)
            | Action::Conntrack(_)
            | Action::Counters(_) => Observation::new(Word::Ok, ""),
        };
        if let Some(why) = self.met_a_command(action, &found) {
            return Err(RunError::Unsupported(why));
        }
        self.run_to(self.now + AFTERMATH);
        Ok(found)
    }

    /// What a host finds out without sending anything.
    fn hopeless(&self, flow: &Flow) -> Option<Observation> {
        let host = self.lab.host(flow.from);
        (!has_way(host, flow.to)).then(|| Observation::new(Word::Unreachable, "no route"))
    }

    /// Whether a step was turned away only because the program that serves there is not simulated.
    fn met_a_command(&self, action: &Action, found: &Observation) -> Option<String> {
        let flow = action.flow()?;
        let port = match action {
            Action::Tcp(Tcp { port, .. })
            | Action::Udp(Udp { port, .. })
            | Action::Http(Http { port, .. })
            | Action::Ssh(Ssh { port, .. })
            | Action::Ftp(Ftp { port, .. }) => *port,
            _ => return None,
        };
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

    fn deadline(&self, flow: &Flow) -> Instant {
        self.now + flow.timeout.unwrap_or(PATIENCE)
    }

    /// The first error that a host heard about its packets of this protocol to the flow's destination.
    fn heard(&mut self, flow: &Flow, proto: u8, port: Option<u16>) -> Option<IcmpError> {
        let about = |error: &&IcmpError| {
            error.dst == flow.to
                && error.proto == proto
                && port.is_none_or(|port| error.words.is_some_and(|(_, to)| to == port))
        };
        self.host(flow.from).heard.iter().find(about).cloned()
    }

    /// Packets made by hand leave as they are.
    fn send_by_hand(&mut self, step: &Send) -> Observation {
        let Send { flow, packets } = step;
        let from = self.lab.host(flow.from);
        let (iface, src) = (from.iface, from.mac);
        let dst = self.next_mac(flow);
        for packet in packets {
            let mut frame = Vec::with_capacity(ETHERNET_LEN + packet.len());
            frame.extend(dst.0);
            frame.extend(src.0);
            frame.extend(if flow.to.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
            frame.extend(packet);
            self.transmit(flow.from, iface, frame);
            // The next one is not sent before this one has passed.
            self.run_to(self.now + Duration::from_millis(1));
        }
        self.run_to(self.now + AFTERMATH);
        let (word, note) = judge_by_hand(step, &self.seen);
        Observation::new(word, note)
    }

    /// Whose link address a packet made by hand gets: a neighbour's, or that of the router's port.
    fn next_mac(&self, flow: &Flow) -> Mac {
        use stateway_core::config::Mode;
        let from = self.lab.host(flow.from);
        let to = flow.to_host.map(|id: HostId| self.lab.host(id));
        match (self.lab.router.mode, to) {
            (Mode::Bridge, Some(to)) => to.mac,
            (Mode::Route, Some(to)) if to.iface == from.iface => to.mac,
            (Mode::Bridge, None) => Mac::BROADCAST,
            (Mode::Route, _) => self.lab.router.ifaces[from.iface.index()].mac,
        }
    }
}

fn unreachable(error: IcmpError) -> Observation {
    let note = error.mtu.map_or(error.name.clone(), |mtu| format!("{}, mtu {mtu}", error.name));
    Observation { icmp: Some(error.name), ..Observation::new(Word::Unreachable, note) }
}

fn no_answer(flow: &Flow) -> Observation {
    let patience = flow.timeout.unwrap_or(PATIENCE).as_secs_f64();
    Observation::new(Word::Blocked, format!("no answer in {patience} s"))
}

/// What transfers move: bytes that do not repeat soon, so that a piece that is lost or doubled shows.
fn content(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// What came of a transfer, once both ends are compared.
fn compared(sent: &[u8], arrived: Option<&[u8]>) -> Observation {
    let same = arrived == Some(sent);
    let how = if same { "the same at both ends" } else { "but not the same" };
    let word = if same { Word::Ok } else { Word::Blocked };
    Observation::new(word, format!("{} bytes, {how}", sent.len()))
}

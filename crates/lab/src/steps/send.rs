//! `send`: packets made by hand.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::Flows;
use crate::locate::key;
use crate::model::{Expect, Flow, HostId, Word};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, StepPlace, packets};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::sim::clients::AFTERMATH;
use crate::spec::{FamilySpec, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;
use stateway_core::config::Mode;
use stateway_core::packet::{ETHERNET_LEN, Mac, summary};
use std::net::IpAddr;
use std::time::Duration;

/// Packets from one host to another, made by hand.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendSpec {
    /// Whose packets they are: a host; several repeat the step.
    pub from: OneOrMany,
    /// Where they go: a host or an address; several repeat the step.
    pub to: OneOrMany,
    /// Which addresses of the hosts; IPv4 unless told otherwise, or unless they have IPv6 alone.
    pub family: Option<FamilySpec>,
    /// The port that they go to.
    #[schemars(range(min = 1), extend("default" = 9))]
    pub port: Option<u16>,
    /// The port that they come from.
    #[schemars(range(min = 1), extend("default" = 40_000))]
    pub source_port: Option<u16>,
    /// Lines such as `S 100:100(0) win 64240`, `udp (10)`, `icmp echo_request id 7 seq 1`.
    pub packets: OneOrMany,
}

/// Packets made by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub flow: Flow,
    /// IP packets, ready to be sent, in order.
    pub packets: Vec<Vec<u8>>,
}

impl Kind for Send {
    type Spec = SendSpec;

    const SUCCEEDS: bool = false;

    fn resolve(spec: &SendSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let ports = (spec.source_port.unwrap_or(40_000), spec.port.unwrap_or(9));
        let flows = check.flows(path, &spec.from, &spec.to, spec.family, place);
        flows.into_iter().map(|flow| Self { packets: spec.made(check, path, &flow, ports), flow }).collect()
    }

    fn flow(&self) -> Option<&Flow> {
        Some(&self.flow)
    }

    /// The last packet that was sent is the one that the story is about.
    fn deciding<'a>(&self, _: &Expect, seen: &'a Observation, _: &Flows) -> Option<&'a Seen> {
        by_hand(self, &seen.packets)
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        let hex: Vec<String> = self.packets.iter().map(|packet| clients::hex(packet)).collect();
        let hex = hex.join("\n");
        // They have left their host; the router needs a moment for them.
        let mut seen = clients::watched_until(runner, &|packets| has_come(self, packets), |runner| {
            clients::probe(runner, &self.flow, &["send"], Some(&hex))
        })?;
        (seen.result, seen.note) = judge_by_hand(self, &seen.packets);
        Ok(seen)
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.traffic(&self.flow, None, |sim| Ok(sim.send_by_hand(self)))
    }
}

impl SendSpec {
    /// The packets from one end to the other; what cannot be read is said.
    fn made(&self, check: &mut Check<'_>, path: &str, flow: &Flow, ports: (u16, u16)) -> Vec<Vec<u8>> {
        let mut made = Vec::new();
        for line in &self.packets.0 {
            match packets::packet(line, flow.source, flow.to, ports) {
                Ok(packet) => made.push(packet),
                Err(why) => {
                    let hint =
                        "such as `S 100:100(0) win 64240`, `udp (10)` or `icmp echo_request id 7 seq 1`";
                    check.problem(&key(path, "packets"), format!("`{line}`: {why}"), Some(hint.to_owned()));
                }
            }
        }
        made
    }
}

impl Sim {
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

/// The last of the packets made by hand, as the router saw it. The hosts' own stacks may have spoken after it.
fn by_hand<'a>(send: &Send, packets: &'a [Seen]) -> Option<&'a Seen> {
    let flow = &send.flow;
    let last = send.packets.last()?;
    let (sent, protocol) = (as_sent(flow, last), protocol_of(last));
    let written = packets.iter().rfind(|packet| sent.as_ref().is_some_and(|sent| sent.looks_like(packet)));
    let is_like_it = |packet: &&Seen| {
        (packet.src, packet.dst) == (flow.source, flow.to)
            && protocol.is_none_or(|protocol| packet.protocol == protocol)
    };
    written.or_else(|| packets.iter().rfind(is_like_it))
}

/// A packet as it leaves its host: where it names no source, the kernel puts in the host's own.
fn as_sent(flow: &Flow, packet: &[u8]) -> Option<Seen> {
    let mut packet = packet.to_vec();
    if let (Some(4), IpAddr::V4(own)) = (packet.first().map(|first| first >> 4), flow.source)
        && let Some(source) = packet.get_mut(12..16)
        && *source == [0; 4]
    {
        source.copy_from_slice(&own.octets());
    }
    summary::with_ip(&packet, |pkt| Seen::of(pkt, Duration::ZERO, String::new()))
}

/// In IPv6 it may stand behind other headers.
fn protocol_of(packet: &[u8]) -> Option<u8> {
    packet.get(9).copied().filter(|_| packet[0] >> 4 == 4)
}

/// Whether the router has seen the last of the packets made by hand, as often as it was sent.
#[cfg(target_os = "linux")]
fn has_come(send: &Send, packets: &[Seen]) -> bool {
    let Some(last) = send.packets.last() else { return true };
    let sent = send.packets.iter().filter(|packet| *packet == last).count();
    let Some(wanted) = as_sent(&send.flow, last) else { return false };
    packets.iter().filter(|packet| wanted.looks_like(packet)).count() >= sent
}

/// What came of packets made by hand: whether the last one got through, only the router can tell.
fn judge_by_hand(send: &Send, packets: &[Seen]) -> (Word, String) {
    match by_hand(send, packets) {
        Some(last) if last.fate == "forwarded" => (Word::Ok, last.summary.clone()),
        Some(last) => (Word::Blocked, last.summary.clone()),
        None => (Word::Blocked, "the router did not see it".to_owned()),
    }
}

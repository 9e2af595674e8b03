//! `ping`: echo requests, of which one must be answered.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::{self, Flows, Own};
use crate::model::{Expect, Flow, Word};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::sim::clients::unreachable;
use crate::spec::{FamilySpec, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress};
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6};
use std::net::IpAddr;
use std::time::Duration;

/// Between two echo requests.
const PING_INTERVAL: Duration = Duration::from_millis(200);

/// Sends echo requests; `ok` if one of them is answered.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PingSpec {
    /// Who begins: a host; several repeat the step.
    pub from: OneOrMany,
    /// With whom: a host or an address; several repeat the step.
    pub to: OneOrMany,
    /// Which addresses of the hosts; IPv4 unless told otherwise, or unless they have IPv6 alone.
    pub family: Option<FamilySpec>,
    /// How many requests.
    #[schemars(range(min = 1, max = 100), extend("default" = 1))]
    pub count: Option<u16>,
    /// Bytes after the ICMP header.
    #[schemars(range(max = 65000), extend("default" = 56))]
    pub size: Option<u16>,
    /// Forbids fragments on the way.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub dont_fragment: bool,
    /// How many hops the requests may take; what the system usually sends unless told.
    #[schemars(range(min = 1))]
    pub ttl: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    pub flow: Flow,
    pub count: u16,
    /// Bytes after the ICMP header.
    pub size: u16,
    pub dont_fragment: bool,
    pub ttl: Option<u8>,
}

impl Kind for Ping {
    type Spec = PingSpec;

    const PROGRAMS: &'static [&'static str] = &["ping"];

    fn resolve(spec: &PingSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let make = |flow| Self {
            flow,
            count: spec.count.unwrap_or(1),
            size: spec.size.unwrap_or(56),
            dont_fragment: spec.dont_fragment,
            ttl: spec.ttl,
        };
        check.flows(path, &spec.from, &spec.to, spec.family, place).into_iter().map(make).collect()
    }

    fn flow(&self) -> Option<&Flow> {
        Some(&self.flow)
    }

    fn deciding<'a>(&self, _: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
        let protocol = if self.flow.to.is_ipv4() { PROTO_ICMP } else { PROTO_ICMPV6 };
        judge::of_flow(&self.flow, Own::of(protocol, None), seen, earlier)
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        clients::watched(runner, |runner| namespaces::ping(runner, self))
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.traffic(&self.flow, None, |sim| Ok(sim.ping(self)))
    }
}

impl Sim {
    fn ping(&mut self, step: &Ping) -> Observation {
        let Ping { flow, count, size, dont_fragment, ttl } = step;
        let headers = if flow.to.is_ipv4() { 28 } else { 48 };
        if *dont_fragment && usize::from(*size) + headers > self.lab.host(flow.from).mtu_bytes {
            return Observation::new(Word::Unreachable, "message too long");
        }
        let proto = if flow.to.is_ipv4() { PROTO_ICMP } else { PROTO_ICMPV6 };
        let host = self.host(flow.from);
        let ident = host.new_port();
        let buffer = || {
            icmp::PacketBuffer::new(
                vec![icmp::PacketMetadata::EMPTY; usize::from(*count).max(1)],
                vec![0; (usize::from(*size) + 64) * usize::from(*count).max(1)],
            )
        };
        let mut socket = icmp::Socket::new(buffer(), buffer());
        let _ = socket.bind(icmp::Endpoint::Ident(ident));
        socket.set_hop_limit(*ttl);
        let handle = host.sockets.add(socket);
        let mut received = 0;
        for number in 1..=*count {
            self.echo_request(flow, handle, ident, number, usize::from(*size));
            let until = if number == *count { self.deadline(flow) } else { self.now + PING_INTERVAL };
            let start = received;
            self.run_until(until, |sim| {
                while sim.host(flow.from).sockets.get_mut::<icmp::Socket>(handle).recv().is_ok() {
                    received += 1;
                }
                let last = number == *count;
                let heard = sim.heard(flow, proto, None).is_some();
                (last && (received > start || heard)).then_some(())
            });
        }
        self.host(flow.from).sockets.remove(handle);
        let note = format!("{count} packets transmitted, {received} received");
        match self.heard(flow, proto, None) {
            _ if received > 0 => {
                Observation { stdout: format!("{note}\n"), ..Observation::new(Word::Ok, note) }
            }
            Some(error) => unreachable(error),
            None => Observation::new(Word::Blocked, "no answer"),
        }
    }

    fn echo_request(&mut self, flow: &Flow, handle: SocketHandle, ident: u16, seq_no: u16, size: usize) {
        let data = vec![0x20; size];
        let checksums = ChecksumCapabilities::default();
        let mut packet = vec![0; 8 + size];
        match (flow.source, flow.to) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => Icmpv6Repr::EchoRequest { ident, seq_no, data: &data }
                .emit(&src, &dst, &mut Icmpv6Packet::new_unchecked(&mut packet), &checksums),
            _ => Icmpv4Repr::EchoRequest { ident, seq_no, data: &data }
                .emit(&mut Icmpv4Packet::new_unchecked(&mut packet), &checksums),
        }
        let to: IpAddress = flow.to.into();
        let _ = self.host(flow.from).sockets.get_mut::<icmp::Socket>(handle).send_slice(&packet, to);
        self.wake(flow.from);
    }
}

/// On hosts that are namespaces.
#[cfg(target_os = "linux")]
mod namespaces {
    use super::Ping;
    use crate::model::Word;
    use crate::netns::Namespaces;
    use crate::netns::clients::{GRACE, Late, last_line, on, patience};
    use crate::netns::command::Output;
    use crate::probe::Finding;
    use anyhow::bail;
    use std::ffi::OsString;
    use std::net::IpAddr;
    use std::time::Duration;

    /// What iputils' `ping` says for each ICMP error.
    const PING_WORDS: [(&str, &str, &str); 12] = [
        ("Port Unreachable", "icmp-port-unreachable", "icmp6-port-unreachable"),
        ("Port unreachable", "icmp-port-unreachable", "icmp6-port-unreachable"),
        ("Packet filtered", "icmp-admin-prohibited", "icmp6-adm-prohibited"),
        ("Administratively prohibited", "icmp-admin-prohibited", "icmp6-adm-prohibited"),
        ("Destination Host Prohibited", "icmp-host-prohibited", "icmp6-adm-prohibited"),
        ("Destination Net Prohibited", "icmp-net-prohibited", "icmp6-adm-prohibited"),
        ("Destination Host Unreachable", "icmp-host-unreachable", "icmp6-addr-unreachable"),
        ("Address unreachable", "icmp-host-unreachable", "icmp6-addr-unreachable"),
        ("Destination Net Unreachable", "icmp-net-unreachable", "icmp6-no-route"),
        ("No route", "icmp-net-unreachable", "icmp6-no-route"),
        ("Frag needed", "frag-needed", "packet-too-big"),
        ("Packet too big", "frag-needed", "packet-too-big"),
    ];

    pub(super) fn ping(runner: &Namespaces, step: &Ping) -> anyhow::Result<Finding> {
        let timeout = patience(runner, &step.flow);
        let mut words: Vec<OsString> = ["ping", "-n", "-i", "0.2", "-c"].map(OsString::from).to_vec();
        words.extend([step.count.to_string().into(), "-W".into(), timeout.as_secs_f64().to_string().into()]);
        words.extend([
            "-s".into(),
            step.size.to_string().into(),
            "-I".into(),
            step.flow.source.to_string().into(),
        ]);
        if step.dont_fragment {
            words.extend(["-M".into(), "do".into()]);
        }
        if let Some(ttl) = step.ttl {
            words.extend(["-t".into(), ttl.to_string().into()]);
        }
        words.push(step.flow.to.to_string().into());
        let output = on(
            runner,
            step.flow.from,
            words,
            None,
            timeout + GRACE + Duration::from_millis(200) * u32::from(step.count),
        )?;
        if output.status.is_none() {
            return Err(Late(format!("ping {}", step.flow.to)).into());
        }
        ping_finding(&output, step.flow.to)
    }

    fn ping_finding(output: &Output, to: IpAddr) -> anyhow::Result<Finding> {
        if output.ok() {
            let note = output.stdout.lines().find(|line| line.contains("received")).unwrap_or_default();
            let note = note.split(", ").take(2).collect::<Vec<_>>().join(", ");
            return Ok(Finding { stdout: output.stdout.clone(), ..Finding::new(Word::Ok, note) });
        }
        let said = format!("{}\n{}", output.stdout, output.stderr);
        let found = PING_WORDS.iter().find(|(words, ..)| said.contains(words));
        let line = said
            .lines()
            .find(|line| line.starts_with("From") || line.contains("error"))
            .unwrap_or("no answer");
        Ok(match found {
            Some((_, v4, v6)) => {
                let name = if to.is_ipv4() { v4 } else { v6 };
                Finding { icmp: Some((*name).to_owned()), ..Finding::new(Word::Unreachable, line) }
            }
            None if said.contains("Time to live exceeded") || said.contains("Time exceeded") => {
                Finding { icmp: Some("time-exceeded".to_owned()), ..Finding::new(Word::Unreachable, line) }
            }
            None if said.contains("message too long") => Finding::new(Word::Unreachable, line),
            // It counts what it has sent; a host without a way to the other sends nothing, and hears nothing.
            None if said.contains("packets transmitted") || said.contains("unreachable") => {
                Finding::new(Word::Blocked, "no answer")
            }
            // It has not come to that: who could not ask knows nothing of answers.
            None => bail!("`ping` cannot ask: {}", last_line(&output.stderr)),
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::os::unix::process::ExitStatusExt as _;
        use std::process::ExitStatus;

        fn ended(code: i32, stdout: &str, stderr: &str) -> Output {
            let status = Some(ExitStatus::from_raw(code << 8));
            Output { status, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
        }

        #[test]
        fn a_ping_that_could_not_ask_is_no_silence() {
            let to = IpAddr::from([192, 0, 2, 1]);
            let word = |output: &Output| ping_finding(output, to).map(|found| found.word());
            let silence =
                ended(1, "PING 192.0.2.1\n\n1 packets transmitted, 0 received, 100% packet loss\n", "");
            assert_eq!(word(&silence).unwrap(), Word::Blocked);
            let no_way = ended(2, "", "ping: connect: Network is unreachable\n");
            assert_eq!(word(&no_way).unwrap(), Word::Blocked);
            for cannot in [
                "ping: socktype: SOCK_RAW\nping: socket: Operation not permitted\n",
                "nsenter: failed to execute ping: Operation not permitted\n",
                "ping: bind: Cannot assign requested address\n",
                "",
            ] {
                assert!(word(&ended(2, "", cannot)).is_err(), "{cannot}");
            }
        }
    }
}

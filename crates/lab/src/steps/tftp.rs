//! `tftp`: moves a file.

#![forbid(unsafe_code)]

use super::Kind;
use crate::judge::{self, Flows, Own};
use crate::model::{Expect, Flow, Transfer, USUAL_BYTES};
#[cfg(target_os = "linux")]
use crate::netns::{Namespaces, clients};
use crate::resolve::{Check, StepPlace};
use crate::runner::{Observation, RunError, Seen};
use crate::sim::Sim;
use crate::sim::clients::{AFTERMATH, compared, content, no_answer, unreachable};
use crate::sim::services::bind;
use crate::spec::{FamilySpec, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;
use smoltcp::iface::SocketHandle;
use smoltcp::wire::IpEndpoint;
use stateway_core::packet::tuple::PROTO_UDP;
use std::time::Duration;

/// A TFTP client asks again after this.
const TFTP_AGAIN: Duration = Duration::from_millis(500);
const TFTP_PORT: u16 = 69;
const TFTP_BLOCK: usize = 512;

/// Moves a file and compares both ends.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TftpSpec {
    /// Who begins: a host; several repeat the step.
    pub from: OneOrMany,
    /// With whom: a host or an address; several repeat the step.
    pub to: OneOrMany,
    /// Which addresses of the hosts; IPv4 unless told otherwise, or unless they have IPv6 alone.
    pub family: Option<FamilySpec>,
    /// What to do.
    #[serde(default)]
    #[schemars(extend("default" = "get"))]
    pub command: TftpCommandSpec,
    /// The size of the file, in bytes.
    #[schemars(range(min = 1, max = 10_000_000), extend("default" = 20_000))]
    pub bytes: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TftpCommandSpec {
    /// Fetches a file.
    #[default]
    Get,
    /// Stores a file.
    Put,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tftp {
    pub flow: Flow,
    pub transfer: Transfer,
}

impl Kind for Tftp {
    type Spec = TftpSpec;

    const PROGRAMS: &'static [&'static str] = &["curl"];

    fn resolve(spec: &TftpSpec, check: &mut Check<'_>, path: &str, place: &StepPlace<'_>) -> Vec<Self> {
        let bytes = spec.bytes.unwrap_or(USUAL_BYTES);
        let transfer = match spec.command {
            TftpCommandSpec::Get => Transfer::Get { bytes },
            TftpCommandSpec::Put => Transfer::Put { bytes },
        };
        let make = |flow| Self { flow, transfer };
        check.flows(path, &spec.from, &spec.to, spec.family, place).into_iter().map(make).collect()
    }

    fn flow(&self) -> Option<&Flow> {
        Some(&self.flow)
    }

    fn deciding<'a>(&self, _: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
        judge::of_flow(&self.flow, Own::of(PROTO_UDP, None), seen, earlier)
    }

    #[cfg(target_os = "linux")]
    fn act(&self, runner: &mut Namespaces) -> anyhow::Result<Observation> {
        clients::watched(runner, |runner| namespaces::tftp(runner, self))
    }

    fn simulate(&self, sim: &mut Sim) -> Result<Observation, RunError> {
        sim.traffic(&self.flow, None, |sim| sim.tftp(self))
    }
}

impl Sim {
    /// A transfer in lock-step (RFC 1350); the server answers from a port of its own.
    fn tftp(&mut self, step: &Tftp) -> Result<Observation, RunError> {
        let Tftp { flow, transfer } = step;
        let (code, bytes) = match transfer {
            Transfer::Get { bytes } => (1, *bytes),
            Transfer::Put { bytes } => (2, *bytes),
            Transfer::List => return Err(RunError::Unsupported("TFTP cannot list files".to_owned())),
        };
        let Some(server) = flow.to_host else {
            return Err(RunError::Broken("the server is no host of this lab".to_owned()));
        };
        let content = content(bytes);
        let gets = code == 1;
        if gets {
            self.host(server).services.files.insert("file".to_owned(), content.clone());
        } else {
            self.host(server).services.files.remove("file");
        }
        let host = self.host(flow.from);
        let port = host.new_port();
        let handle = bind(&mut host.sockets, port);
        let mut request = vec![0, code];
        request.extend(b"file\0octet\0");
        let found = self.tftp_blocks(flow, handle, request, (!gets).then_some(&content));
        self.host(flow.from).sockets.remove(handle);
        self.run_to(self.now + AFTERMATH);
        Ok(match found {
            Ok(got) if gets => compared(&content, Some(&got)),
            Ok(_) => compared(&content, self.host(server).services.files.get("file").map(Vec::as_slice)),
            Err(found) => found,
        })
    }

    /// Gets, or puts `give`, block by block. Gives back what was got.
    fn tftp_blocks(
        &mut self,
        flow: &Flow,
        handle: SocketHandle,
        request: Vec<u8>,
        give: Option<&Vec<u8>>,
    ) -> Result<Vec<u8>, Observation> {
        let mut until = self.deadline(flow);
        let (mut peer, mut last) = (IpEndpoint::new(flow.to.into(), TFTP_PORT), request);
        let (mut got, mut block) = (Vec::new(), u16::from(give.is_none()));
        self.send_datagram(flow, handle, peer, &last);
        loop {
            let again = until.min(self.now + TFTP_AGAIN);
            let Some((packet, from)) = self.next_datagram(flow.from, handle, again) else {
                if let Some(error) = self.heard(flow, PROTO_UDP, None) {
                    return Err(unreachable(error));
                }
                if self.now >= until {
                    return Err(no_answer(flow));
                }
                self.send_datagram(flow, handle, peer, &last);
                continue;
            };
            let number = packet.get(2..4).map(|n| u16::from_be_bytes([n[0], n[1]]));
            let wanted = if give.is_some() { 4 } else { 3 };
            if packet.get(1) != Some(&wanted) || number != Some(block) {
                continue;
            }
            peer = from;
            until = self.deadline(flow);
            let [high, low] = block.to_be_bytes();
            if let Some(bytes) = give {
                // The block before this one is acknowledged; a short one ends it.
                let start = usize::from(block) * TFTP_BLOCK;
                if start > bytes.len() {
                    return Ok(got);
                }
                block += 1;
                let [high, low] = block.to_be_bytes();
                last = [&[0, 3, high, low], &bytes[start..(start + TFTP_BLOCK).min(bytes.len())]].concat();
            } else {
                got.extend_from_slice(&packet[4..]);
                last = vec![0, 4, high, low];
                block = block.wrapping_add(1);
            }
            self.send_datagram(flow, handle, peer, &last);
            if give.is_none() && packet.len() < 4 + TFTP_BLOCK {
                return Ok(got);
            }
        }
    }
}

/// On hosts that are namespaces.
#[cfg(target_os = "linux")]
mod namespaces {
    use super::Tftp;
    use crate::model::Transfer;
    use crate::netns::Namespaces;
    use crate::netns::transfers::{files, transfer, url};
    use crate::probe::Finding;

    pub(super) fn tftp(runner: &Namespaces, step: &Tftp) -> anyhow::Result<Finding> {
        const PORT: u16 = 69;
        let bytes = match step.transfer {
            Transfer::List => 0,
            Transfer::Get { bytes } | Transfer::Put { bytes } => bytes,
        };
        let (local, dir, content) = files(runner, &step.flow, "tftp", bytes)?;
        let at = url("tftp", step.flow.to, PORT, "file");
        transfer(
            runner,
            &step.flow,
            PORT,
            step.transfer,
            Vec::new(),
            at.clone(),
            &[at],
            &local,
            &dir,
            &content,
        )
    }
}

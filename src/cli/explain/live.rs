//! The packet before a router that runs: judged by a copy of what it knows at this moment.

use super::{Args, STATION, UNKNOWN, framed};
use crate::cli::conntrack::RouterArgs;
use crate::cli::lab::{Named, named};
use crate::cli::render::{self, Format};
use crate::cli::{Failure, Result};
use anyhow::anyhow;
use stateway_core::packet::Mac;
use stateway_lab::netns::origin;
use stateway_lab::netns::state::Record;
use stateway_runtime::control::protocol::{EntryFilter, FlowSelect};
use stateway_runtime::control::{Client, Command, Reply};
use std::net::IpAddr;

/// A router that runs, and is meant.
pub(super) struct Live {
    client: Client,
    /// What is known of the lab that it is in.
    record: Option<Record>,
    /// For people.
    who: String,
}

impl Live {
    /// `None` if the question is not about a router that runs.
    pub(super) fn meant(args: &Args) -> Result<Option<Self>> {
        if let Some(socket) = &args.control {
            let client = RouterArgs::at(socket).connect()?;
            return Ok(Some(Self { client, record: None, who: format!("at {}", socket.display()) }));
        }
        let Some(lab) = args.router.lab_alone() else { return Ok(None) };
        if args.fresh || args.capture.is_some() || args.frame.is_some() {
            return Ok(None);
        }
        // What is wrong with the file is told where it is read.
        let Ok(Named { name, record: Some(record) }) = named(lab) else { return Ok(None) };
        if record.control.is_none() {
            return Ok(None);
        }
        match RouterArgs::of(lab).connect() {
            Ok(client) => {
                if let Some(source) = origin::changed_since(&record) {
                    render::warn(&format!(
                        "{} has changed since the lab `{name}` came up\n  hint: `--fresh` judges by the file",
                        source.display()
                    ));
                }
                Ok(Some(Self { client, record: Some(record), who: format!("of the lab `{name}`") }))
            }
            Err(Failure::Machine(_)) => {
                render::warn(&format!("the lab `{name}` is root's: the packet is judged by its file alone"));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    pub(super) fn explain(mut self, args: &Args) -> Result {
        let usual_flags = if self.is_open(args).map_err(Failure::Input)? { "." } else { "S" };
        let packet = args.packet(usual_flags).map_err(|why| Failure::Input(anyhow!(why)))?;
        let in_port = args.in_port.clone().unwrap_or_default();
        let dst = self.receiver(args, &in_port).map_err(Failure::Input)?;
        let src = args.flow().and_then(|flow| self.station(flow.src)).unwrap_or(STATION);
        let frame = framed(&packet, src, dst);
        let hex = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        // Numbers that were given are meant.
        let fit = args.tcp.is_some() && args.seq.or(args.ack).is_none() && args.line.is_none();
        let question = Command::Explain { in_iface: in_port, frame: hex, fit };
        match self.client.call(&question).map_err(Failure::Input)?.into_iter().next() {
            Some(Reply::Explained { account, text }) => {
                match args.format {
                    Format::Json => render::json(&account),
                    Format::Text => {
                        render::line(&format!("router: a copy of the one {}, as it is now", self.who));
                        render::line(text.trim_end());
                    }
                }
                Ok(())
            }
            other => Err(Failure::Input(anyhow!("the router answered something else: {other:?}"))),
        }
    }

    /// Whether the router knows the packet's connection.
    fn is_open(&mut self, args: &Args) -> anyhow::Result<bool> {
        let Some(flow) = args.tcp.as_ref().filter(|_| args.flags.is_none()) else { return Ok(false) };
        let (sport, dport) = flow.ports;
        let way = FlowSelect {
            src: Some(flow.src.to_string()),
            dst: Some(flow.dst.to_string()),
            sport: Some(sport),
            dport: Some(dport),
        };
        let tcp = EntryFilter { protocol: Some(6), ..EntryFilter::default() };
        let both = [EntryFilter { original: way.clone(), ..tcp.clone() }, EntryFilter { reply: way, ..tcp }];
        for filter in both {
            let replies = self.client.call(&Command::ConntrackList { filter, zero: false })?;
            if replies.iter().any(|reply| matches!(reply, Reply::Entries { entries } if !entries.is_empty()))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The link address that the frame goes to: the router's own where it routes, else that of the host that is meant.
    fn receiver(&mut self, args: &Args, in_port: &str) -> anyhow::Result<Mac> {
        let routes = self
            .client
            .call(&Command::Status)?
            .iter()
            .any(|reply| matches!(reply, Reply::Status(status) if status.mode == "route"));
        if !routes {
            return Ok(args.flow().and_then(|flow| self.station(flow.dst)).unwrap_or(UNKNOWN));
        }
        let replies = self.client.call(&Command::Interfaces)?;
        let interfaces = replies.iter().find_map(|reply| match reply {
            Reply::Interfaces { interfaces } => Some(interfaces),
            _ => None,
        });
        let own = interfaces.into_iter().flatten().find(|interface| interface.name == in_port);
        Ok(own.and_then(|interface| mac(&interface.mac)).unwrap_or(UNKNOWN))
    }

    /// The link address of the host of the lab that has this address.
    fn station(&self, address: IpAddr) -> Option<Mac> {
        let prefix = format!("{address}/");
        let has_it = |addresses: &[String]| addresses.iter().any(|own| own.starts_with(&prefix));
        let host = self.record.as_ref()?.hosts.iter().find(|host| has_it(&host.addresses))?;
        mac(&host.mac)
    }
}

fn mac(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok().map(Mac)
}

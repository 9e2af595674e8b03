//! `stateway explain`: one packet's whole way through the router, and why it met its fate.

mod flow;
mod hex;
#[cfg(target_os = "linux")]
mod live;
mod why_not;

use super::captures::{self, CaptureArgs};
use super::render::{self, Format};
use super::router_args::{self, RouterArgs};
use super::{Failure, Result};
use anyhow::{Context as _, anyhow, bail};
use clap::Parser as _;
use flow::Flow;
use stateway_core::config::{Mode, RouterConfig};
use stateway_core::filter::nearest;
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::{ETHERNET_LEN, Mac, Offload};
use stateway_core::router::Router;
use stateway_core::time::Instant;
use stateway_lab::resolve::packets;
use stateway_trace::capture::{Frame, Source};
use stateway_trace::explain::{self, Account};
use stateway_trace::replay::{Replay, epoch_of};
use std::path::PathBuf;
use std::time::Duration;

/// A station that nobody has seen: the frames of packets made here come from it.
const STATION: Mac = Mac([2, 0, 0, 0, 0xfe, 1]);
/// And, in bridge mode, go to one that nobody has seen either, so that they are carried everywhere.
const UNKNOWN: Mac = Mac([2, 0, 0, 0, 0xfe, 2]);

/// The packet is made from options (`--in lan --tcp 192.0.2.10:40000,198.51.100.10:22 --flags S`), read as hex, or
/// taken from a capture. With a capture, the frames before it come first.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("packet").required(true).args(["tcp", "udp", "icmp", "hex", "frame"]))]
pub(super) struct Args {
    #[command(flatten)]
    router: RouterArgs,
    /// The port where the packet comes in
    #[arg(long = "in", value_name = "PORT", required_unless_present = "frame")]
    in_port: Option<String>,
    /// The router's ports, where no lab and no capture names them; by default those of the rules
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    ports: Vec<String>,
    /// A TCP segment: `SRC:PORT,DST:PORT`, IPv6 addresses in brackets; or a line of tcpdump, in quotes
    #[arg(long, value_name = "FLOW", value_parser = flow::with_ports)]
    tcp: Option<Flow>,
    /// A UDP datagram: `SRC:PORT,DST:PORT`
    #[arg(long, value_name = "FLOW", value_parser = flow::with_ports)]
    udp: Option<Flow>,
    /// An ICMP echo request, or what `--line` says: `SRC,DST`
    #[arg(long, value_name = "FLOW", value_parser = flow::of_icmp)]
    icmp: Option<Flow>,
    /// An IP packet, or a whole Ethernet frame, in hex: as it is, or as tcpdump -x, -xx and -X, xxd and Wireshark print it
    #[arg(long, value_name = "HEX")]
    hex: Option<String>,
    /// The Nth frame of the capture
    #[arg(long, value_name = "N", requires = "capture", value_parser = clap::value_parser!(u64).range(1..))]
    frame: Option<u64>,
    /// TCP flags: letters of `FSRP.UEW`, or `none`; by default `S`, of a connection that is open `.`
    #[arg(long, allow_hyphen_values = true, requires = "tcp")]
    flags: Option<String>,
    /// TCP sequence number; by default 0, of a connection that is open the next one
    #[arg(long)]
    seq: Option<u32>,
    /// TCP acknowledgement, likewise
    #[arg(long)]
    ack: Option<u32>,
    /// TCP window
    #[arg(long, default_value_t = 65_535)]
    win: u16,
    /// Bytes of payload
    #[arg(long, default_value_t = 0)]
    len: u16,
    /// The packet as in packetdrill, between the ends of the flow: `P. 1:101(100) ack 1`, `icmp echo_reply id 7`
    #[arg(long, value_name = "LINE", allow_hyphen_values = true, conflicts_with_all = ["hex", "frame"])]
    line: Option<String>,
    /// What the router sees before the packet; with `--frame`, up to that frame
    #[arg(long, visible_alias = "after", value_name = "TRACE.pcapng")]
    capture: Option<PathBuf>,
    #[command(flatten)]
    captures: CaptureArgs,
    /// Seconds between the capture's last frame and the packet
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    wait: f64,
    /// Ask the router that listens at this control socket: the packet is judged by a copy of what it knows now
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["lab", "rules", "rules6", "sets", "sysctl", "helper", "capture", "ports"])]
    control: Option<PathBuf>,
    /// Judge by the lab's file, though the lab is up
    #[cfg(target_os = "linux")]
    #[arg(long, requires = "lab")]
    fresh: bool,
    /// If it does not pass: the nearest packet that would, and the nearest change of the rules with which this one would; each is tried
    #[arg(long, conflicts_with = "frame")]
    why_not: bool,
    /// For people, or one JSON object
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is printed as JSON.
#[derive(serde::Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    account: &'a Account,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<why_not::WhyNot>,
}

pub(super) fn run(args: Args) -> Result {
    let capture = args.capture.as_deref().map(|path| args.captures.open(path)).transpose()?;
    #[cfg(target_os = "linux")]
    if let Some(live) = live::Live::meant(&args)? {
        if args.why_not {
            return Err(Failure::Input(anyhow!(
                "`--why-not` tries other rules, which a running router is not given\n  hint: `--fresh` with a lab, or `--rules FILE`"
            )));
        }
        return live.explain(&args);
    }
    let packet = args.packet("S").map_err(|why| Failure::Input(anyhow!(why)))?;
    args.check_port().map_err(Failure::Input)?;
    let mut config =
        args.router.config(|| capture.as_ref().map_or_else(|| args.bare(), captures::Opened::router))?;
    config.unix_epoch_nanos = capture
        .as_ref()
        .map_or(config.unix_epoch_nanos, |capture| epoch_of(capture.source.survey().first_nanos));
    let mode = config.mode;
    let router = router_args::build(config.clone())?;
    let source = capture.as_ref().map(|capture| &capture.source);
    let account = match (source, args.frame) {
        (Some(capture), Some(number)) => of_frame(capture, &router, number)?,
        (capture, _) => args.of_packet(capture, &router, mode, &packet)?,
    };
    let why_not = if args.why_not {
        let (args, config, packet, account) = (&args, &config, packet.as_slice(), &account);
        Some(why_not::Case { args, config, capture: source, packet, account }.look()?)
    } else {
        None
    };
    match args.format {
        Format::Text => {
            render::line(explain::render(&account).trim_end());
            if let Some(why_not) = why_not {
                render::line(&why_not.text());
            }
        }
        Format::Json => render::json(&Told { account: &account, why_not }),
    }
    Ok(())
}

/// The account of the packet that such arguments describe, in a router that is there already: no file is opened.
///
/// # Errors
/// As the command's, and if the arguments name a file.
pub fn explain_packet(arguments: &[&str], router: &Router) -> Result<Account, String> {
    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }
    let words = std::iter::once(&"explain").chain(arguments);
    let Alone { args } = Alone::try_parse_from(words).map_err(|error| error.to_string())?;
    if args.capture.is_some() || args.router.names_a_file() {
        return Err("no file is opened here".to_owned());
    }
    let packet = args.packet("S")?;
    args.of_packet(None, router, router.mode(), &packet).map_err(|failure| format!("{failure:?}"))
}

/// The frames before it, then the frame itself.
fn of_frame(capture: &Source, router: &Router, number: u64) -> Result<Account> {
    let mut found = None;
    let replay = all_before(capture, router, |replay, frame| {
        if frame.number != number {
            return false;
        }
        found = Some(frame.unjudged.map_or_else(|| Ok(replay.explain(frame)), Err));
        true
    })?;
    drop(replay);
    match found {
        Some(Ok(account)) => Ok(account),
        Some(Err(why)) => {
            Err(Failure::Input(anyhow!("frame {number} cannot be explained: it {}", captures::why_one(why))))
        }
        None => {
            let frames = capture.survey().frames;
            Err(Failure::Input(anyhow!(
                "there is no frame {number}\n  hint: the capture has {frames} frames"
            )))
        }
    }
}

/// Takes the frames of a capture through the router until one is `last`, which is not taken.
fn all_before<'a>(
    capture: &Source,
    router: &'a Router,
    mut last: impl FnMut(&mut Replay<'a>, &Frame) -> bool,
) -> Result<Replay<'a>> {
    let input = |error: anyhow::Error| Failure::Input(error);
    let mut frames = capture.open().map_err(|error| input(error.into()))?;
    let mut replay = Replay::new(frames.ports(), router, false).map_err(|error| input(error.into()))?;
    let mut frame = Frame::default();
    while frames.read(&mut frame).map_err(|error| input(error.into()))? {
        replay.pass_time(&frame);
        if last(&mut replay, &frame) {
            break;
        }
        if frame.unjudged.is_none() {
            replay.judge(&mut frame);
        }
    }
    Ok(replay)
}

impl Args {
    /// The packet that the options describe; empty if it is a frame of the capture.
    fn packet(&self, usual_flags: &str) -> Result<Vec<u8>, String> {
        if let Some(hex) = &self.hex {
            return hex::read(hex);
        }
        let (flow, line) = if let Some(flow) = &self.tcp {
            let Self { flags, win, len, .. } = self;
            let flags = flags.as_deref().unwrap_or(usual_flags);
            let (seq, ack) = (self.seq.unwrap_or_default(), self.ack.unwrap_or_default());
            let end = seq.wrapping_add(u32::from(*len));
            (flow, format!("{flags} {seq}:{end}({len}) ack {ack} win {win}"))
        } else if let Some(flow) = &self.udp {
            (flow, format!("udp ({})", self.len))
        } else if let Some(flow) = &self.icmp {
            (flow, "icmp echo_request id 1 seq 1".to_owned())
        } else {
            return Ok(Vec::new());
        };
        packets::packet(self.line.as_ref().unwrap_or(&line), flow.src, flow.dst, flow.ports)
    }

    /// Its ends, where options name them.
    #[cfg(target_os = "linux")]
    fn flow(&self) -> Option<&Flow> {
        self.tcp.as_ref().or(self.udp.as_ref()).or(self.icmp.as_ref())
    }

    /// Whether the port is none of those that are named, and no port of its own.
    ///
    /// # Errors
    /// It is mistyped.
    fn check_port(&self) -> anyhow::Result<()> {
        let Some(name) = &self.in_port else { return Ok(()) };
        if self.router.names_a_lab() || self.capture.is_some() {
            return Ok(());
        }
        let known = if self.ports.is_empty() { self.router.ports_in_rules() } else { self.ports.clone() };
        if known.contains(name) {
            return Ok(());
        }
        // `eth1` is not meant for `eth0`, though one letter differs.
        let stem = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        let near = nearest(name, known.iter().map(String::as_str)).filter(|near| stem(near) != stem(name));
        match near {
            Some(near) => bail!("no port `{name}`\n  hint: did you mean `{near}`?"),
            None if self.ports.is_empty() => Ok(()),
            None => bail!("no port `{name}`\n  hint: `--ports` names {}", known.join(", ")),
        }
    }

    /// A bridge of the ports that are named: here, or in the rules.
    fn bare(&self) -> RouterConfig {
        let mut names = self.ports.clone();
        let mut add = |name: &str| {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        };
        self.in_port.iter().for_each(|name| add(name));
        if self.ports.is_empty() {
            self.router.ports_in_rules().iter().for_each(|name| add(name));
        }
        if names.len() < 2 {
            // A bridge of one port leads nowhere.
            names.push("elsewhere".to_owned());
        }
        let iface = |(at, name): (usize, &String)| Iface::new(name, IfaceId(at as u16));
        RouterConfig::new(names.iter().enumerate().map(iface).collect())
    }

    fn of_packet(
        &self,
        capture: Option<&Source>,
        router: &Router,
        mode: Mode,
        packet: &[u8],
    ) -> Result<Account> {
        self.of_packet_at(self.in_port.as_deref().unwrap_or_default(), capture, router, mode, packet)
    }

    /// The account of a packet that comes in at a port.
    fn of_packet_at(
        &self,
        name: &str,
        capture: Option<&Source>,
        router: &Router,
        mode: Mode,
        packet: &[u8],
    ) -> Result<Account> {
        let at = router.ifaces().iter().position(|iface| iface.name == name).ok_or_else(|| {
            let names: Vec<String> = router.ifaces().iter().map(|i| format!("`{}`", i.name)).collect();
            Failure::Input(anyhow!("no port `{name}`\n  hint: the router has {}", names.join(", ")))
        })?;
        let iface = IfaceId(at as u16);
        let dst = if mode == Mode::Route { router.ifaces()[at].mac } else { UNKNOWN };
        let frame = framed(packet, STATION, dst);
        let (mut worker, mut now) = (router.worker(), Instant::ZERO);
        if let Some(capture) = capture {
            now = all_before(capture, router, |_, _| false)?.now();
        }
        now +=
            Duration::try_from_secs_f64(self.wait).context("`--wait` is no time").map_err(Failure::Input)?;
        router.handle_timeout(&mut worker, now);
        worker.take_emissions();
        Ok(explain::explain(router, &mut worker, now, (iface, &frame, Offload::NONE)))
    }
}

/// A packet in a frame; a frame as it is.
fn framed(packet: &[u8], src: Mac, dst: Mac) -> Vec<u8> {
    let ethertype = match packet.first().map(|first| first >> 4) {
        Some(4) => [0x08, 0x00],
        Some(6) => [0x86, 0xdd],
        _ => return packet.to_vec(),
    };
    // A frame may begin with such a byte as well; but then its type stands where it must.
    let is_frame = matches!(packet.get(12..ETHERNET_LEN), Some([0x08, 0x00 | 0x06] | [0x86, 0xdd]))
        && packet.get(ETHERNET_LEN).is_some_and(|first| matches!(first >> 4, 0 | 4 | 6));
    if is_frame {
        return packet.to_vec();
    }
    [&dst.0[..], &src.0, &ethertype, packet].concat()
}

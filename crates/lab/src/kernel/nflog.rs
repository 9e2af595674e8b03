//! What the kernel's own rules see: packets logged by nftables rules around FORWARD, each with its state.
//!
//! ```text
//!   prerouting ── IN ──→ … forward ── NEW | ESTABLISHED | … ──→ filter/FORWARD ──→ postrouting ── OUT ──→
//!                       └→ input  ── NEW | ESTABLISHED | … ──→ filter/INPUT ── LOCAL ──→ the router itself
//! ```
//!
//! A packet that is logged with a state and neither as `OUT` nor as `LOCAL` was stopped in between. Every packet is
//! marked to be traced as well: then iptables logs each rule that it meets, and the last one has decided.

#![forbid(unsafe_code)]

use super::loaded::Loaded;
use crate::netns::command::{self, Interrupt, Patience};
use crate::runner::Seen;
use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, Sender};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stateway_core::conntrack::CtState;
use stateway_core::packet::summary;
use stateway_runtime::netlink::{Connection, Message, NLM_F_ACK, NLM_F_REQUEST, Received};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The group that the rules log to; it is the namespace's own.
const GROUP: u16 = 77;
/// The address within the router's namespace whose packets mark the end of what came before.
const MARKER: &str = "127.0.0.77";
const PATIENCE: Duration = Duration::from_secs(60);
/// From a host through the router.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// The rules that log; beside those of the lab, not among them.
pub(super) fn rules() -> String {
    let log = |prefix: &str| {
        format!("log prefix \"{prefix}\" group {GROUP} snaplen {SNAPLEN} queue-threshold 1;\n")
    };
    let states = ["new", "established", "related", "invalid", "untracked"]
        .iter()
        .fold(String::new(), |rules, state| rules + "ct state " + state + " " + &log(&state.to_uppercase()));
    let (before, local, after, marker) = (log("IN"), log("LOCAL"), log("OUT"), log("END"));
    format!(
        "table inet stateway-watch {{\n\
         chain before {{ type filter hook prerouting priority -450; iif lo accept; {before} meta nftrace set 1; }}\n\
         chain rules {{ type filter hook forward priority -1;\n{states} }}\n\
         chain own {{ type filter hook input priority -1;\n{states} }}\n\
         chain local {{ type filter hook input priority 500; {local} }}\n\
         chain after {{ type filter hook postrouting priority 500; iif != 0 {after} }}\n\
         chain marker {{ type filter hook output priority -450; ip daddr {MARKER} {marker} }}\n\
         }}\n"
    )
}

/// Where the trace goes: iptables has no say in it.
const TRACE_GROUP: u16 = 0;
/// Bytes of a packet that tell it from others.
const SNAPLEN: usize = 128;

/// One logged packet.
struct Logged {
    time: Duration,
    group: u16,
    prefix: String,
    in_index: Option<u32>,
    out_index: Option<u32>,
    ip: Vec<u8>,
}

/// Reads the log of one namespace, in a thread that is in there.
pub(super) struct Listener {
    /// The words that run a program in the router's namespace.
    inside: Vec<OsString>,
    logged: Receiver<anyhow::Result<Logged>>,
    stop: Arc<AtomicBool>,
    ports: BTreeMap<u32, String>,
    interrupt: Interrupt,
}

impl Listener {
    pub(super) fn start(
        netns: &str,
        inside: &[OsString],
        ports: BTreeMap<u32, String>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let netns = File::open(Path::new("/run/netns").join(netns)).context("the router has no namespace")?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let (sender, logged) = crossbeam_channel::unbounded();
        let (opened, is_open) = crossbeam_channel::bounded(1);
        std::thread::Builder::new().name("nflog".into()).spawn(move || {
            // Whoever started this waits for the word.
            let log = open(&netns).map_err(|error| drop(opened.send(Err(error))));
            if let Ok(mut log) = log {
                let _ = opened.send(Ok(()));
                read(&mut log, &sender, &is_over);
            }
        })?;
        is_open.recv().context("the kernel's log cannot be read")??;
        Ok(Self { inside: inside.to_vec(), logged, stop, ports, interrupt: interrupt.clone() })
    }

    /// Everything that was logged up to now.
    fn drain(&self) -> anyhow::Result<Vec<Logged>> {
        let mut words = self.inside.clone();
        words.extend(["ping", "-c", "1", "-W", "1", MARKER].map(OsString::from));
        command::run(&words, None, PATIENCE, &self.interrupt)?;
        let mut all = Vec::new();
        while let Some(packet) = command::receive(&self.logged, PATIENCE, &self.interrupt)? {
            let packet = packet?;
            if packet.prefix == "END" {
                return Ok(all);
            }
            all.push(packet);
        }
        bail!("the kernel's log does not say what it was asked to")
    }

    pub(super) fn forget(&self) -> anyhow::Result<()> {
        self.drain().map(drop)
    }

    /// Every packet since the last call, with its state, the rule that decided, and whether it left.
    /// Until `enough` says so, more are waited for.
    pub(super) fn seen(
        &mut self,
        rules: &Loaded,
        enough: &dyn Fn(&[Seen]) -> bool,
    ) -> anyhow::Result<Vec<Seen>> {
        let mut logged = self.drain()?;
        let mut packets = self.assemble(&logged, rules);
        let mut patience = Patience::new(UNDER_WAY);
        while !enough(&packets) && !patience.is_over() {
            command::pause(patience.slice());
            logged.extend(self.drain()?);
            packets = self.assemble(&logged, rules);
        }
        Ok(packets)
    }

    fn assemble(&self, logged: &[Logged], rules: &Loaded) -> Vec<Seen> {
        let mut packets: Vec<(Identity, Seen)> = Vec::new();
        for logged in logged {
            let time = logged.time;
            let key = Identity::of(&logged.ip);
            let is_under_way = |(_, seen): &(Identity, Seen)| seen.out_port.is_none();
            let place = packets
                .iter()
                .rposition(|it| it.0.whole == key.whole && is_under_way(it))
                .or_else(|| packets.iter().rposition(|it| it.0.inner == key.inner && is_under_way(it)));
            let known = place.and_then(|place| packets.get_mut(place));
            let port = |index: Option<u32>| index.and_then(|index| self.ports.get(&index).cloned());
            match (logged.prefix.as_str(), known) {
                ("IN", _) => {
                    let Some(in_port) = port(logged.in_index) else { continue };
                    if let Some(seen) = describe(&logged.ip, time, in_port) {
                        packets.push((key, seen));
                    }
                }
                (_, None) => {}
                ("OUT", Some((_, seen))) => {
                    "forwarded".clone_into(&mut seen.fate);
                    seen.out_port = port(logged.out_index);
                }
                ("LOCAL", Some((_, seen))) => "delivered".clone_into(&mut seen.fate),
                (prefix, Some((_, seen))) if logged.group == TRACE_GROUP => {
                    let rule = traced(prefix).and_then(|place| rules.name(&logged.ip, place));
                    // Beside the filter table only what stops a packet decides anything.
                    let rule = rule.filter(|rule| rule.starts_with("filter/") || rules.stops(rule));
                    seen.rule = rule.or(seen.rule.take());
                }
                (prefix, Some((_, seen))) => seen.state = state(prefix),
            }
        }
        packets.into_iter().map(|(_, seen)| seen).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn state(word: &str) -> Option<CtState> {
    [CtState::New, CtState::Established, CtState::Related, CtState::Invalid, CtState::Untracked]
        .into_iter()
        .find(|state| state.word() == word)
}

/// Table, chain and number that a line of the trace tells of: `TRACE: filter:FORWARD:rule:2`.
///
/// The word before the number is not to be trusted: the kernel takes every rule without matches for the end of its
/// chain.
fn traced(prefix: &str) -> Option<(&str, &str, usize)> {
    let mut words = prefix.strip_prefix("TRACE: ")?.split(':');
    let (table, chain, _) = (words.next()?, words.next()?, words.next()?);
    Some((table, chain, words.next()?.parse().ok()?))
}

/// What tells a packet from others, at whatever place of its way.
struct Identity {
    /// Without what any router changes: TTL, class of service, and header checksum.
    whole: Vec<u8>,
    /// Without what translation changes either.
    inner: Vec<u8>,
}

impl Identity {
    fn of(ip: &[u8]) -> Self {
        let mut whole = ip[..ip.len().min(SNAPLEN)].to_vec();
        match ip.first().map(|first| first >> 4) {
            Some(4) if whole.len() >= 20 => {
                (whole[1], whole[8]) = (0, 0);
                whole[10..12].fill(0);
            }
            Some(6) if whole.len() >= 40 => {
                whole[..2].copy_from_slice(&[0x60, 0]);
                whole[7] = 0;
            }
            _ => {}
        }
        let inner = inner(&whole).unwrap_or_else(|| whole.clone());
        Self { whole, inner }
    }
}

/// A packet's own number, where it has one; else its upper layer without ports, identifiers and checksum.
fn inner(ip: &[u8]) -> Option<Vec<u8>> {
    const NO_NUMBER: &[u8] = &[0, 0];
    let (proto, header) = match ip.first()? >> 4 {
        4 => (*ip.get(9)?, usize::from(ip[0] & 15) * 4),
        _ => (*ip.get(6)?, 40),
    };
    // Even what a helper rewrites keeps its number.
    if let Some(number) = ip.get(4..6).filter(|number| ip[0] >> 4 == 4 && *number != NO_NUMBER) {
        return Some([&[4, proto], number].concat());
    }
    let upper = ip.get(header..)?;
    let kept = match proto {
        // From the sequence number to the flags.
        6 => upper.get(4..14)?.to_vec(),
        17 => [upper.get(4..6)?, upper.get(8..)?].concat(),
        1 | 58 if is_echo(*upper.first()?) => [upper.get(..2)?, upper.get(6..)?].concat(),
        // What an error quotes is translated as well.
        1 | 58 => upper.get(..2)?.to_vec(),
        _ => upper.to_vec(),
    };
    Some([&[ip[0] >> 4, proto], &kept[..]].concat())
}

const fn is_echo(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 128 | 129)
}

/// Binds to the log of a namespace, into which the calling thread goes for good.
fn open(netns: &File) -> anyhow::Result<Connection> {
    const SUBSYSTEM: u16 = 4 << 8;
    const CONFIG: u16 = SUBSYSTEM | 1;
    const CMD: u16 = 1;
    const BIND: [u8; 1] = [1];
    const MODE: u16 = 2;
    /// How many bytes of a packet, and that they are to be copied.
    const COPY: [u8; 6] = [0, 0, 0, SNAPLEN as u8, 2, 0];
    const THRESHOLD: u16 = 5;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter the router's namespace")?;
    let mut log = Connection::open()?;
    for group in [TRACE_GROUP, GROUP] {
        let config = || Message::new(CONFIG, NLM_F_REQUEST | NLM_F_ACK, 0, group);
        log.command(config().attr(CMD, &BIND))?;
        // Each packet is told of at once.
        log.command(config().attr(MODE, &COPY).attr(THRESHOLD, &1_u32.to_be_bytes()))?;
    }
    Ok(log)
}

/// Hands on what is logged until nobody wants it any more.
fn read(log: &mut Connection, sender: &Sender<anyhow::Result<Logged>>, is_over: &AtomicBool) {
    const LOOK_UP: Duration = Duration::from_millis(100);
    let start = command::now();
    while !is_over.load(Ordering::Relaxed) {
        let time = || command::now().saturating_duration_since(start);
        let result = log.wait(LOOK_UP).and_then(|()| {
            log.receive(|message| {
                if let Some(packet) = parse(time(), &message) {
                    // Nobody may listen any more.
                    let _ = sender.send(Ok(packet));
                }
            })
        });
        if let Err(error) = result {
            let _ = sender.send(Err(anyhow::Error::from(error).context("the kernel's log cannot be read")));
            return;
        }
    }
}

/// Reads one packet of the log.
fn parse(time: Duration, message: &Received<'_>) -> Option<Logged> {
    const PACKET: u16 = 4 << 8;
    const INDEV: u16 = 4;
    const OUTDEV: u16 = 5;
    const PAYLOAD: u16 = 9;
    const PREFIX: u16 = 10;
    if message.kind != PACKET {
        return None;
    }
    let (group, prefix) = (message.resource, String::new());
    let mut logged = Logged { time, group, prefix, in_index: None, out_index: None, ip: Vec::new() };
    for (kind, value) in message.attributes() {
        let index = || Some(u32::from_be_bytes(*value.first_chunk()?));
        match kind {
            INDEV => logged.in_index = index(),
            OUTDEV => logged.out_index = index(),
            PAYLOAD => logged.ip = value.to_vec(),
            PREFIX => {
                String::from_utf8_lossy(value).trim_end_matches('\0').trim().clone_into(&mut logged.prefix);
            }
            _ => {}
        }
    }
    Some(logged)
}

/// The packet as tests read it. The log may hold its first bytes only, which its own length does not know.
fn describe(ip: &[u8], time: Duration, in_port: String) -> Option<Seen> {
    // Until it is seen to arrive.
    summary::with_ip(ip, |pkt| Seen { fate: "dropped".to_owned(), ..Seen::of(pkt, time, in_port) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translated_packet_is_still_the_same() {
        let syn_ack = |ident: u8, src: u8, port: u8, flags: u8| {
            let mut ip = vec![0x45, 0, 0, 40, 0, ident, 0, 0, 64, 6, 1, 2, 192, 0, 2, src, 198, 51, 100, 1];
            ip.extend([0, port, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, flags, 9, 9, port, port, 0, 0]);
            Identity::of(&ip)
        };
        let (one, translated) = (syn_ack(0, 7, 7, 0x12), syn_ack(0, 8, 8, 0x12));
        assert_ne!(one.whole, translated.whole);
        assert_eq!(one.inner, translated.inner);
        assert_ne!(one.inner, syn_ack(0, 7, 7, 0x10).inner);
        assert_eq!(syn_ack(5, 7, 7, 0x12).inner, syn_ack(5, 8, 8, 0x10).inner);
    }

    #[test]
    fn a_trace_names_a_place_in_a_chain() {
        assert_eq!(traced("TRACE: filter:FORWARD:rule:2"), Some(("filter", "FORWARD", 2)));
        assert_eq!(traced("TRACE: filter:web:return:3"), Some(("filter", "web", 3)));
        assert_eq!(traced("somebody's own"), None);
    }
}

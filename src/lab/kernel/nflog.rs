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
use crate::conntrack::CtState;
use crate::lab::netns::command::{self, Interrupt, Patience};
use crate::lab::runner::Seen;
use crate::packet::summary;
use anyhow::{Context as _, bail};
use crossbeam_channel::Receiver;
use pcap_file::pcap::PcapReader;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
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

/// Reads the log of one namespace through `tcpdump`.
pub(super) struct Listener {
    /// The words that run a program in the router's namespace.
    inside: Vec<OsString>,
    child: Child,
    logged: Receiver<Logged>,
    ports: BTreeMap<u32, String>,
    start: Option<Duration>,
    interrupt: Interrupt,
}

impl Listener {
    pub(super) fn start(
        inside: &[OsString],
        ports: BTreeMap<u32, String>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let mut words = inside.to_vec();
        let group = format!("nflog:{TRACE_GROUP},{GROUP}");
        words.extend(["tcpdump", "-i", &group, "-U", "-w", "-"].map(OsString::from));
        let (program, args) = words.split_first().context("no program")?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot run `tcpdump`")?;
        let (stdout, stderr) =
            (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
        let (ready, is_ready) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            let mut said = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                said.push_str(&line);
                if line.contains("listening on") {
                    let _ = ready.send(String::new());
                }
            }
            let _ = ready.send(said);
        });
        let (sender, logged) = crossbeam_channel::unbounded();
        std::thread::spawn(move || {
            let Ok(mut reader) = PcapReader::new(stdout) else { return };
            while let Some(Ok(packet)) = reader.next_packet() {
                if let Some(packet) = parse(packet.timestamp, &packet.data)
                    && sender.send(packet).is_err()
                {
                    return;
                }
            }
        });
        let listener =
            Self { inside: inside.to_vec(), child, logged, ports, start: None, interrupt: interrupt.clone() };
        match command::receive(&is_ready, PATIENCE, interrupt)? {
            Some(said) if said.is_empty() => Ok(listener),
            Some(said) => bail!("`tcpdump` failed: {said}"),
            None => bail!("`tcpdump` does not begin to listen"),
        }
    }

    /// Everything that was logged up to now.
    fn drain(&self) -> anyhow::Result<Vec<Logged>> {
        let mut words = self.inside.clone();
        words.extend(["ping", "-c", "1", "-W", "1", MARKER].map(OsString::from));
        command::run(&words, None, PATIENCE, &self.interrupt)?;
        let mut all = Vec::new();
        while let Some(packet) = command::receive(&self.logged, PATIENCE, &self.interrupt)? {
            if packet.prefix == "END" {
                return Ok(all);
            }
            all.push(packet);
        }
        bail!("the kernel's log has ended")
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

    fn assemble(&mut self, logged: &[Logged], rules: &Loaded) -> Vec<Seen> {
        let mut packets: Vec<(Vec<u8>, Seen)> = Vec::new();
        for logged in logged {
            let start = *self.start.get_or_insert(logged.time);
            let time = logged.time.saturating_sub(start);
            let key = identity(&logged.ip);
            let known =
                packets.iter_mut().rev().find(|(other, seen)| *other == key && seen.out_port.is_none());
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
        command::end(&mut self.child);
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

/// A packet without what a router changes on its way: TTL, class of service, and header checksum.
fn identity(ip: &[u8]) -> Vec<u8> {
    let mut key = ip[..ip.len().min(SNAPLEN)].to_vec();
    match ip.first().map(|first| first >> 4) {
        Some(4) if key.len() >= 20 => {
            (key[1], key[8]) = (0, 0);
            key[10..12].fill(0);
        }
        Some(6) if key.len() >= 40 => {
            key[..2].copy_from_slice(&[0x60, 0]);
            key[7] = 0;
        }
        _ => {}
    }
    key
}

/// Reads one record of the link type NFLOG: a header of four bytes, then attributes in the machine's byte order.
fn parse(time: Duration, bytes: &[u8]) -> Option<Logged> {
    const INDEV: u16 = 4;
    const OUTDEV: u16 = 5;
    const PAYLOAD: u16 = 9;
    const PREFIX: u16 = 10;
    let group = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let mut logged =
        Logged { time, group, prefix: String::new(), in_index: None, out_index: None, ip: Vec::new() };
    let mut rest = bytes.get(4..)?;
    while rest.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x7fff;
        let value = rest.get(4..len)?;
        let index = || Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?));
        match kind {
            INDEV => logged.in_index = index(),
            OUTDEV => logged.out_index = index(),
            PAYLOAD => logged.ip = value.to_vec(),
            PREFIX => {
                String::from_utf8_lossy(value).trim_end_matches('\0').trim().clone_into(&mut logged.prefix);
            }
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(logged)
}

/// The packet as tests read it. The log may hold its first bytes only, which its own length does not know.
fn describe(ip: &[u8], time: Duration, in_port: String) -> Option<Seen> {
    summary::with_ip(ip, |pkt| Seen {
        time,
        in_port,
        out_port: None,
        src: pkt.src().to_ip(pkt.family()),
        dst: pkt.dst().to_ip(pkt.family()),
        protocol: pkt.proto(),
        ports: pkt.ports(),
        summary: summary::of_packet(pkt),
        state: None,
        direction: None,
        // Until it is seen to arrive.
        fate: "dropped".to_owned(),
        rule: None,
        reason: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_names_a_place_in_a_chain() {
        assert_eq!(traced("TRACE: filter:FORWARD:rule:2"), Some(("filter", "FORWARD", 2)));
        assert_eq!(traced("TRACE: filter:web:return:3"), Some(("filter", "web", 3)));
        assert_eq!(traced("somebody's own"), None);
    }
}

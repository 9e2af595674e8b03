//! What the kernel says of a packet while it is on its way, over NFLOG.

#![forbid(unsafe_code)]

use super::flow_key;
use anyhow::Result;
use stateway_core::conntrack::{CtState, Direction};
use stateway_core::packet::Tuple;
use stateway_runtime::netlink::{Connection, Message, NLM_F_ACK, NLM_F_REQUEST};

/// Where the kernel's own log goes (`nf_conntrack_log_invalid`).
pub(super) const GROUP_KERNEL: u16 = 0;
/// Where the rules of [`super::kernel`] log to.
pub(super) const GROUP_STATE: u16 = 1;
/// Where rules that are compared may log to.
pub(super) const GROUPS_OF_RULES: [u16; 2] = [2, 3];

const SUBSYSTEM: u16 = 4 << 8;
const CONFIG: u16 = SUBSYSTEM | 1;
const PACKET: u16 = SUBSYSTEM;

const CFG_CMD: u16 = 1;
const CFG_MODE: u16 = 2;
const CFG_QTHRESH: u16 = 5;
const CMD_BIND: u8 = 1;
/// Copy the packet, all of it: after fragments were joined nobody else has it.
const COPY_PACKET: [u8; 6] = [0, 0, 0xff, 0xff, 2, 0];

const MARK: u16 = 2;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// A packet that a rule spoke of, by NFLOG or TRACE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// `nflog 2 PREFIX`, `TRACE: raw:PREROUTING:rule:1`
    pub by: String,
    pub mark: u32,
    /// The IP packet at that point, or its beginning.
    pub packet: Vec<u8>,
}

/// What was said of one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) state: Option<CtState>,
    pub(super) direction: Option<Direction>,
    /// The packet's own tuple, zone included, as the tracker saw it: fragments are joined by then.
    pub(super) tuple: Option<Tuple>,
    /// The first packet of a connection behind PREROUTING: its destination is bound by then.
    pub(super) bound: Option<Tuple>,
    zone: u16,
    /// The kernel's own words.
    pub(super) reasons: Vec<String>,
    /// What rules logged.
    pub(super) heard: Vec<Heard>,
}

#[derive(Debug)]
pub(super) struct Nflog {
    connection: Connection,
}

impl Nflog {
    /// Listens in the namespace that the calling thread is in.
    pub(super) fn open() -> Result<Self> {
        let mut connection = Connection::open()?;
        for group in [GROUP_KERNEL, GROUP_STATE].into_iter().chain(GROUPS_OF_RULES) {
            let config = || Message::new(CONFIG, NLM_F_REQUEST | NLM_F_ACK, 0, group);
            connection.command(config().attr(CFG_CMD, &[CMD_BIND]))?;
            // Each packet is told of at once, before the `write` that brought it returns.
            connection
                .command(config().attr(CFG_MODE, &COPY_PACKET).attr(CFG_QTHRESH, &1_u32.to_be_bytes()))?;
        }
        Ok(Self { connection })
    }

    /// Everything since the last call.
    pub(super) fn drain(&mut self) -> Result<Said> {
        let mut said = Said::default();
        self.connection.receive(|m| {
            if m.kind == PACKET {
                said.hear(m.resource, m.attributes());
            }
        })?;
        Ok(said)
    }
}

impl Said {
    fn hear<'a>(&mut self, group: u16, list: impl Iterator<Item = (u16, &'a [u8])>) {
        let (mut prefix, mut payload, mut mark) = ("", None, 0);
        for (kind, value) in list {
            match kind {
                PREFIX => {
                    prefix = core::str::from_utf8(value).unwrap_or_default().trim_end_matches(['\0', ' ']);
                }
                PAYLOAD => payload = Some(value),
                MARK => mark = value.first_chunk().map_or(0, |b| u32::from_be_bytes(*b)),
                _ => {}
            }
        }
        let is_trace = group == GROUP_KERNEL && prefix.starts_with(TRACE);
        if is_trace || GROUPS_OF_RULES.contains(&group) {
            let by = if is_trace {
                prefix.to_owned()
            } else {
                format!("nflog {group} {prefix}").trim_end().to_owned()
            };
            self.heard.push(Heard { by, mark, packet: payload.unwrap_or_default().to_vec() });
            return;
        }
        if let Some(zone) = prefix.strip_prefix(ZONE) {
            self.zone = zone.parse().unwrap_or(0);
            return;
        }
        if prefix == BOUND {
            self.bound = self.bound.or_else(|| payload.and_then(flow_key::of_joined));
            return;
        }
        let Some(&(_, state, direction)) = PREFIXES.iter().find(|(word, ..)| *word == prefix) else {
            self.reasons.push(prefix.to_owned());
            return;
        };
        // The first is the frame's own; what follows it is an answer that came back to the kernel itself.
        if self.state.is_some() {
            return;
        }
        self.state = Some(state);
        self.direction = direction;
        let zone = self.zone;
        self.tuple = payload.and_then(flow_key::of_joined).map(|tuple| Tuple { zone, ..tuple });
    }
}

/// What the rules log, and what it means: state, and direction where there is a connection.
const PREFIXES: &[(&str, CtState, Option<Direction>)] = &[
    ("established reply", CtState::Established, Some(Direction::Reply)),
    ("established original", CtState::Established, Some(Direction::Original)),
    ("new original", CtState::New, Some(Direction::Original)),
    ("invalid", CtState::Invalid, None),
    ("related original", CtState::Related, Some(Direction::Original)),
    ("related reply", CtState::Related, Some(Direction::Reply)),
    ("untracked", CtState::Untracked, None),
];
const ZONE: &str = "zone ";
const BOUND: &str = "bound";
const TRACE: &str = "TRACE: ";

/// The nftables rules that tell of every packet right after connection tracking has seen it, and of the first one of each
/// connection behind the destination's translation.
pub(super) fn rules(zones: &[u16]) -> String {
    let mut lines = vec!["type filter hook prerouting priority -199".to_owned()];
    for zone in zones.iter().filter(|zone| **zone != 0) {
        for direction in ["original", "reply"] {
            lines.push(format!(
                "ct direction {direction} ct {direction} zone {zone} log prefix \"{ZONE}{zone}\" group {GROUP_STATE}"
            ));
        }
    }
    for (prefix, state, direction) in PREFIXES {
        let direction = direction.map_or(String::new(), |d| format!("ct direction {}", d.word()));
        let state = state.word().to_lowercase();
        lines
            .push(format!("ct state {state} {direction} log prefix \"{prefix}\" group {GROUP_STATE} accept"));
    }
    // Multicast of the kernel's own must not move the counters of rules.
    let silence = "type filter hook output priority -400\nip6 daddr ff00::/8 drop";
    let bound = format!(
        "type filter hook prerouting priority -99\nct state new log prefix \"{BOUND}\" group {GROUP_STATE}"
    );
    let chains = [("silence", silence), ("seen", &lines.join("\n")), ("bound", &bound)]
        .map(|(name, rules)| format!(" chain {name} {{\n{rules}\n }}\n"));
    format!("table inet conform {{\n{}}}\n", chains.concat())
}

//! What goes over the control socket: a JSON object a line, in both directions.
//!
//! To each [`Command`] come any number of [`Reply`]s, the last of which is [`Reply::Done`] or [`Reply::Error`].
//! `watch` and `events` go on until the client sends another line, whatever it says: what happened before it is
//! delivered, then comes [`Reply::Done`].

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The longest line that is read: rules for the router come in one.
pub const MAX_LINE: usize = 16 << 20;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Who is there: one [`Reply::Status`].
    Status,
    /// What every port carried: [`Reply::Interfaces`].
    Interfaces,
    /// How often packets were dropped, and for what: [`Reply::Drops`].
    Drops,
    /// What Prometheus collects: [`Reply::Text`].
    Metrics,
    /// Connections: [`Reply::Entries`], as many as it takes.
    ConntrackList {
        #[serde(default)]
        filter: EntryFilter,
        /// Their packets and bytes are counted from nothing again.
        #[serde(default)]
        zero: bool,
    },
    /// The table at a glance: [`Reply::Summary`], with so many of its connections.
    ConntrackSummary {
        entries: usize,
        /// Which come first.
        #[serde(default)]
        order: EntryOrder,
        /// Which are meant; none means all.
        #[serde(default)]
        matching: EntryMatch,
        /// The number of one that is shown in full.
        #[serde(default)]
        show: Option<u32>,
    },
    /// Deletes connections; those that were: [`Reply::Entries`].
    ConntrackDelete {
        #[serde(default)]
        filter: EntryFilter,
    },
    /// Puts a connection in: [`Reply::Count`] with 1, or 0 if there is one.
    ConntrackCreate {
        entry: EntryDraft,
    },
    /// Changes connections: [`Reply::Entries`] as they are then.
    ConntrackUpdate {
        #[serde(default)]
        filter: EntryFilter,
        change: EntryChange,
    },
    /// Empties the table, expectations included.
    ConntrackFlush,
    /// [`Reply::Count`].
    ConntrackCount,
    /// [`Reply::Stats`].
    ConntrackStats,
    /// What becomes of connections: [`Reply::Watching`] once it is so, then a [`Reply::Event`] for each.
    ConntrackEvents {
        #[serde(default)]
        filter: EntryFilter,
        /// Those of expectations instead.
        #[serde(default)]
        expectations: bool,
        /// `NEW`, `UPDATE`, `DESTROY`; none means all.
        #[serde(default)]
        kinds: Vec<String>,
    },
    /// Connections that were announced: [`Reply::Expectations`].
    ExpectList,
    ExpectFlush,
    /// Settings: [`Reply::Sysctls`]; all of them, or one.
    SysctlGet {
        #[serde(default)]
        name: Option<String>,
    },
    SysctlSet {
        name: String,
        value: String,
    },
    /// What the rules counted: [`Reply::Rules`].
    Rules,
    /// Has the rules count from nothing again: all of them, or those of a family, a table, a chain.
    RulesZero {
        #[serde(default)]
        family: Option<u8>,
        #[serde(default)]
        table: Option<String>,
        #[serde(default)]
        chain: Option<String>,
    },
    /// Replaces the rules, all or nothing, until the next reload. What would leave a family without rules that it has
    /// is refused, unless the word `none` stands for that family's rules, or `may_open` says that all of it is meant.
    RulesReplace {
        rules: Option<String>,
        rules6: Option<String>,
        #[serde(default)]
        may_open: bool,
    },
    /// Loads the rules from the router's file again, all or nothing.
    Reload,
    /// Every packet's fate: [`Reply::Watching`] once it is so, then a [`Reply::Verdict`] for each packet.
    Watch {
        #[serde(default)]
        filter: VerdictFilter,
        /// With every rule that looked at it.
        #[serde(default)]
        explain: bool,
        /// So many packets a second at most; what is beyond is lost. As many as the client can take unless told otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        per_second: Option<u32>,
    },
    /// What would become of a frame now: it is judged by a copy of the router, and nothing is changed. [`Reply::Explained`].
    Explain {
        /// The port where it comes in.
        #[serde(rename = "in")]
        in_iface: String,
        /// From its link header on, in hex.
        frame: String,
        /// A segment of a connection that is there goes on where its sender stands, whatever its numbers say.
        #[serde(default)]
        fit: bool,
    },
    /// Ends the router.
    Shutdown,
}

impl Command {
    /// Whether anything is different afterwards, so that it is the owner's alone.
    pub const fn changes_something(&self) -> bool {
        match self {
            Self::Status
            | Self::Interfaces
            | Self::Drops
            | Self::Metrics
            | Self::ConntrackList { zero: false, .. }
            | Self::ConntrackSummary { .. }
            | Self::ConntrackCount
            | Self::ConntrackStats
            | Self::ConntrackEvents { .. }
            | Self::ExpectList
            | Self::SysctlGet { .. }
            | Self::Rules
            | Self::Watch { .. } => false,
            Self::ConntrackList { zero: true, .. }
            | Self::ConntrackDelete { .. }
            | Self::ConntrackCreate { .. }
            | Self::ConntrackUpdate { .. }
            | Self::ConntrackFlush
            | Self::ExpectFlush
            | Self::SysctlSet { .. }
            | Self::RulesZero { .. }
            // It changes nothing, but a copy of the router is not for every guest to ask for.
            | Self::Explain { .. }
            | Self::RulesReplace { .. }
            | Self::Reload
            | Self::Shutdown => true,
        }
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The command is carried out; nothing more follows.
    Done,
    /// The command is not carried out, and why; nothing more follows.
    Error {
        message: String,
    },
    Status(Status),
    Interfaces {
        interfaces: Vec<Interface>,
    },
    /// By reason, in the order of [`stateway_core::fate::DropReason::CODES`].
    Drops {
        drops: Vec<Named>,
    },
    Text {
        text: String,
    },
    Entries {
        entries: Vec<EntryView>,
    },
    Expectations {
        expectations: Vec<ExpectationView>,
    },
    Summary(Summary),
    Count {
        count: u64,
    },
    /// What `conntrack -S` counts, under the kernel's names, and its line.
    Stats {
        stats: Vec<Named>,
        line: String,
        /// INVALID packets by reason, in the order of [`stateway_core::InvalidReason::CODES`].
        #[serde(default)]
        invalid: Vec<Named>,
        /// Ends of new connections by what they were bound to: `source exhausted`, `destination port-kept`, …
        #[serde(default)]
        translations: Vec<Named>,
    },
    Sysctls {
        sysctls: Vec<Named>,
    },
    /// Base chains and their rules, in order.
    Rules {
        rules: Vec<RuleCount>,
        /// In the same order, and those without a rule as well.
        #[serde(default)]
        chains: Vec<ChainName>,
    },
    Event(Box<EventView>),
    /// From here on, no packet that the filter wants is missed unless [`Reply::Lost`] says so.
    Watching,
    Verdict(Box<Verdict>),
    Explained {
        /// As `explain --format json` writes it.
        account: serde_json::Value,
        /// The same for people.
        text: String,
    },
    /// The client was too slow: so many events were lost at this point.
    Lost {
        events: u64,
    },
}

impl Reply {
    /// Whether nothing follows this reply.
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Done | Self::Error { .. })
    }
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    /// Since the router began to forward.
    pub uptime_seconds: f64,
    /// The file that it was started with.
    pub file: Option<String>,
    /// `bridge` or `route`.
    pub mode: String,
    /// How frames are moved.
    pub burst: String,
    /// Ports whose interface was deleted, and is awaited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// What the process gave up, and what it could not, as people say it.
    #[serde(default)]
    pub confined: Vec<String>,
    #[serde(default)]
    pub kept: Vec<String>,
}

/// A count under a stable name.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    #[cfg_attr(test, ts(type = "number"))]
    pub count: u64,
}

/// One port of the router and what it carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub mac: String,
    pub mtu: usize,
    /// With the length of their networks; none in bridge mode.
    pub addresses: Vec<String>,
    /// `tap` or `fast`.
    pub device: String,
    /// `up`, `down`, or `gone`: its interface was deleted, and is awaited.
    #[serde(default)]
    pub link: String,
    /// A super-frame counts once.
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    /// Queued and not sent: the interface is down, or its queue is full.
    pub tx_lost: u64,
}

/// The connection table at a glance.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    #[cfg_attr(test, ts(type = "number"))]
    pub count: u64,
    /// `nf_conntrack_max`.
    #[cfg_attr(test, ts(type = "number"))]
    pub limit: u64,
    /// `tcp ESTABLISHED`, `udp`, …: how many there are of each.
    pub by_state: Vec<Named>,
    /// Those that came first in the order that was asked for: the newest, if none was.
    pub newest: Vec<EntryView>,
    /// How many are meant.
    #[serde(default)]
    #[cfg_attr(test, ts(type = "number"))]
    pub matching: u64,
    /// How many have a translated source, and how many a translated destination.
    #[serde(default)]
    #[cfg_attr(test, ts(type = "number"))]
    pub snat: u64,
    #[serde(default)]
    #[cfg_attr(test, ts(type = "number"))]
    pub dnat: u64,
    /// The one that was to be shown; `None` if it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Box<ConnectionView>>,
}

/// In which order connections are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryOrder {
    /// Those that began last come first.
    #[default]
    Newest,
    Oldest,
    /// The most bytes, both directions together; all have none unless `nf_conntrack_acct` is set.
    Bytes,
    Packets,
    /// Those whose timer ends next come first.
    Timeout,
}

/// Which connections are meant: those that agree with every field that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryMatch {
    /// An address or a network, one of its ends in either direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port of one of its ends in either direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// The protocol's state, in conntrack's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// One connection in full.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionView {
    pub entry: EntryView,
    /// Seconds since its first packet.
    pub age: f64,
    /// Seconds that are left.
    pub timeout: f64,
    /// Of TCP: what is known of who opened it, and of the other side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowView>,
    /// The connection that announced it, as `conntrack -L -o extended` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// How its first packet came in.
    #[serde(default)]
    pub let_in: LetInView,
}

/// Which rule let a connection in.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetInView {
    /// A rule or a policy: its name, as a verdict calls it, and its text.
    Rule { name: String, text: String },
    /// One of rules that are not in force any more.
    OtherRules,
    /// It was put in by hand, was known before a restart, or there are no rules.
    #[default]
    NotKnown,
}

/// One side of a TCP connection, as far as its segments tell.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowView {
    /// Behind the last byte it sent.
    pub end: u32,
    /// Behind the last byte it may send.
    pub max_end: u32,
    /// The largest window it offered, in bytes; 0: nothing was heard of it.
    pub max_win: u32,
    /// The highest acknowledgement it sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ack: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wscale: Option<u8>,
    /// Segments outside its window are let pass: its beginning was not seen.
    pub is_liberal: bool,
}

/// One chain of one table.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainName {
    /// 4 or 6.
    pub family: u8,
    pub table: String,
    pub name: String,
}

/// One rule, or the policy of a chain, and what it counted.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCount {
    /// 4 or 6.
    pub family: u8,
    /// `filter/FORWARD/1`, or `filter/FORWARD/policy`.
    pub name: String,
    /// The rule as iptables-save prints it, or the policy.
    pub text: String,
    #[cfg_attr(test, ts(type = "number"))]
    pub packets: u64,
    #[cfg_attr(test, ts(type = "number"))]
    pub bytes: u64,
}

/// One connection.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// As `-o id` prints it: the same in every event of the connection.
    pub id: u32,
    /// 4 or 6.
    pub family: u8,
    /// By its number, and by the name that conntrack-tools give it.
    pub protocol: u8,
    pub name: String,
    /// Seconds that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(type = "number", optional))]
    pub timeout: Option<u64>,
    /// The protocol's state, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    pub original: FlowView,
    pub reply: FlowView,
    pub status: Vec<String>,
    pub mark: u32,
    pub zone: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
    /// How many hold on to it: the table, and each living connection that it announced.
    #[serde(default)]
    pub uses: u32,
    /// SCTP's verification tags, of the original and the reply direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtags: Option<[u32; 2]>,
    /// As `conntrack -L -o extended` prints it.
    pub line: String,
}

/// One direction of a connection.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    pub src: IpAddr,
    pub dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_id: Option<u16>,
    /// While `nf_conntrack_acct` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(type = "number", optional))]
    pub packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(type = "number", optional))]
    pub bytes: Option<u64>,
}

/// A connection that another one announced.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectationView {
    #[cfg_attr(test, ts(type = "number"))]
    pub timeout: u64,
    pub protocol: u8,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub dport: u16,
    /// The tuple of the connection that announced it.
    pub master: String,
    pub helper: String,
    /// As `conntrack -L expect` prints it.
    pub line: String,
}

/// Something that became of a connection or an expectation.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// `NEW`, `UPDATE`, `DESTROY`.
    pub kind: String,
    /// Seconds since 1970.
    pub time: f64,
    /// As `conntrack -E -o extended` prints it.
    pub line: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expectation: Option<ExpectationView>,
}

/// Which connections are meant: those that agree with every field that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntryFilter {
    /// 4 or 6.
    pub family: Option<u8>,
    pub protocol: Option<u8>,
    pub zone: Option<u16>,
    pub original: FlowSelect,
    pub reply: FlowSelect,
    /// The protocol's state.
    pub state: Option<String>,
    /// Value and mask.
    pub mark: Option<(u32, u32)>,
    /// Bits that are set, and bits that are not: `ASSURED`, `SEEN_REPLY`, `EXPECTED`, …
    pub status: Vec<String>,
    pub status_unset: Vec<String>,
    pub helper: Option<String>,
    pub icmp: IcmpSelect,
    pub nat: NatSelect,
}

/// The ping's first packet, of the connections that are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IcmpSelect {
    #[serde(rename = "type")]
    pub kind: Option<u8>,
    pub code: Option<u8>,
    pub id: Option<u16>,
}

/// Which ends are translated, of the connections that are meant: to an address or a network, or to any if it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatSelect {
    pub source: Option<String>,
    pub destination: Option<String>,
    /// One of them at least.
    pub any: Option<String>,
}

/// A connection that no packet opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntryDraft {
    pub protocol: u8,
    pub zone: u16,
    /// Addresses, and ports where the protocol has them.
    pub original: FlowSelect,
    /// What is left out is the mirror of the original.
    pub reply: FlowSelect,
    pub icmp: IcmpSelect,
    /// In seconds.
    pub timeout: u32,
    pub state: Option<String>,
    pub vtags: [u32; 2],
    pub mark: u32,
    pub status: Vec<String>,
    pub helper: Option<String>,
}

/// What is to be different about connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntryChange {
    /// In seconds.
    pub timeout: Option<u32>,
    /// Value and mask: the bits of the mask are cleared first, and the value is put in by exclusive or.
    pub mark: Option<(u32, u32)>,
    pub status: Vec<String>,
}

/// One direction of the connections that are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowSelect {
    /// An address or a network.
    pub src: Option<String>,
    pub dst: Option<String>,
    pub sport: Option<u16>,
    pub dport: Option<u16>,
}

/// What became of one packet.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Seconds since the router began to forward.
    pub time: f64,
    /// Seconds since 1970.
    #[serde(default)]
    pub unix_time: f64,
    /// The port where it came in.
    #[serde(rename = "in")]
    pub in_iface: String,
    /// The ports where it left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub out: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// The upper-layer protocol by its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// The flags of a TCP segment, as a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<u8>,
    /// Type and code of an ICMP or ICMPv6 message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// Identification and offset of a fragment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment: Option<(u32, usize)>,
    /// The packet for people: `tcp S 192.0.2.77:40000 → 192.0.2.104:22`.
    pub summary: String,
    /// As `-m conntrack --ctstate` sees it; absent if the packet never came so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctstate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    pub fate: String,
    /// The rule that decided, `policy` where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A stable code: why it was not forwarded, or why it is INVALID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its way, if that was asked for: a line for each step, and the same as `explain --format json` writes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub way: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, ts(type = "WayStep[]"))]
    pub steps: Vec<serde_json::Value>,
}

/// Which verdicts a client wants: those that agree with every field that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictFilter {
    /// The port where the packet came in.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub in_iface: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctstate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fate: Option<String>,
    /// Addresses or networks: each is one of its ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The TCP, UDP or SCTP port of one of its ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The port where it came in, or one where it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// One of these; none means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ctstates: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fates: Vec<String>,
    /// The rule that decided, as [`Verdict::rule`] names it: one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect_file;
    use ts_rs::TS;

    #[test]
    fn the_types_of_the_page_are_those_of_the_replies() {
        let head = "// Made of crates/runtime/src/control/protocol.rs: UPDATE_EXPECT=1 cargo test -p stateway-runtime the_types\n\n\
                    import type { WayStep } from './protocol';\n"
            .to_owned();
        let declared = [
            Verdict::decl(),
            EventView::decl(),
            EntryView::decl(),
            FlowView::decl(),
            ExpectationView::decl(),
            RuleCount::decl(),
            ChainName::decl(),
            Summary::decl(),
            ConnectionView::decl(),
            LetInView::decl(),
            WindowView::decl(),
            Named::decl(),
        ];
        let text = declared.iter().fold(head, |text, one| text + "\nexport " + one + "\n");
        expect_file!["../../../../web/src/control.ts"].assert_eq(&text);
    }
}

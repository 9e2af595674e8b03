//! Scenarios: packets in, states and fates out, a line each, in the manner of packetdrill.
//!
//! ```text
//! # A reset outside the window leaves a tracked connection open (RFC 5961 §3).
//! flow  web  left 192.0.2.10:40000  right 198.51.100.10:80  tcp
//!
//! # time   from   segment                       ctstate      tracker      fate
//!   0      left   S 100:100(0) win 64240        NEW          SYN_SENT     forwarded  120s unreplied
//!   +20ms  right  S. 500:500(0) ack 101         ESTABLISHED  SYN_RECV     forwarded  60s replied
//! ```
//!
//! The first comment says what the story is. Lines in front of the steps set the stage:
//!
//! | line | |
//! |---|---|
//! | `flow NAME IFACE ADDR[:PORT] IFACE ADDR[:PORT] PROTO [id N] [zone N]` | who talks to whom; the first side opens. `PROTO`: `tcp udp udplite icmp sctp gre` or a number. IPv6 with a port: `[2001:db8::1]:80` |
//! | `policy CHAIN TARGET`, `policy6 …` | of table `filter` |
//! | `rule [raw\|mangle\|nat] CHAIN …`, `rule6 …` | as after `iptables -A`; table `filter` unless said |
//! | `rules` … `end`, `rules6` … `end` | a whole ruleset as iptables-save prints it |
//! | `sysctl NAME VALUE` | |
//! | `mtu IFACE BYTES` | |
//! | `address IFACE ADDR/LEN` | one more address of the router's; `address IFACE first ADDR/LEN`: in front of the others |
//! | `route NET via ADDR IFACE`, `route NET blackhole\|unreachable\|prohibit` | besides those to both sides |
//! | `no-rules6` | no IPv6 rules are loaded |
//! | `listen PORT ["TEXT"]` | a program on the router hears UDP on that port, on all addresses, and answers each datagram with `TEXT`, or `ok` |
//! | `mode route\|bridge` | route unless said |
//! | `ports LEFT RIGHT` | what rules and captures call the two interfaces; the lines of the scenario still say `left` and `right` |
//!
//! Without rules of its own for table `filter`, a scenario runs under the [`STANDARD`] ones.
//!
//! `announced ADDR > ADDR:PORT PROTO`, or `announced none`, says which connections are expected after the last step.
//!
//! Between steps, `load` … `end` and `load6` … `end` replace the rules of a family as `rules` gives them; `address add IFACE
//! ADDR/LEN` and `address del IFACE ADDR/LEN` change the router's addresses.
//!
//! A step begins with its time (`0`, `1.5s`; `+20ms` after the step before it) and where the packet comes in: `left`,
//! or with the flow's name where there are several, `left/web`. On which side of the flow it comes in says which way
//! it goes; `left/web<` says that it is an answer. A packet from `router`, the first side of its flow, is sent by a program on
//! the router itself; from 0.0.0.0 it gets the address that the router speaks to its destination with. Then comes the packet:
//!
//! | protocol | |
//! |---|---|
//! | tcp | `FLAGS [SEQ[:END(LEN)]] [ack N] [win N] [<OPTIONS>] ["TEXT"] [doff N] [res N]`; flags are letters of `FSRP.UEW`, or `none` |
//! | udp, udplite | `[(LEN)] ["TEXT"] [length N] [coverage N] [nosum]` |
//! | icmp | `request\|reply\|TYPE/CODE [id N] [seq N] [code N] [(LEN)]` |
//! | sctp | `CHUNK[+CHUNK…] vtag N [init N]`, chunks as in RFC 9260: `INIT INIT-ACK COOKIE-ECHO COOKIE-ACK DATA …` |
//! | gre | `[v1 call N] [(LEN)]` |
//! | others | `[(LEN)]` |
//! | errors | `error TYPE/CODE about FLOW[<] [from ADDR] [to ADDR] [quote LEN]`: quotes a packet of that flow |
//! | raw | `frame HEX`: an IP packet; `ether HEX`: a whole Ethernet frame; `stateway conform` writes `along N`, `along N<`, `announced N by N`, `about N` behind it where addresses and ports follow a choice of the kernel's |
//!
//! and what is odd about it: `ttl N`, `tos N`, `df`, `ipid N`, `ipopt HEX`, `badsum`, `badipsum`, `total N` (length
//! field), `cut N` (only so many bytes above IP), `pad N` (Ethernet trailer), `ext hop|dst|routing|none` (IPv6),
//! `piece A..B` (only these bytes above IP, as a fragment).
//!
//! The last columns are what is expected. Fates print what became of the packet and why: `forwarded`, `forwarded*3`
//! (in three pieces), `dropped(policy)`, `rejected(tcp-reset)`, `rejected(3/13)`, `delivered`, `queued(…)`. Behind the
//! fate stands what is left of the connection's life, in seconds rounded up, and its status: `unreplied`, `replied`
//! or `assured`, and `expected`. Of a translated connection also the tuple of its answers, and as what the packet left:
//! `reply=198.51.100.10:53>198.51.100.1:5000 sent=198.51.100.1:5000>198.51.100.10:53`, with `#ID` for ICMP. `status=0x188` behind
//! all that is the whole status, as the kernel has it in `CTA_STATUS`; it is looked at where it is written.
//!
//! More is looked at where it is written:
//!
//! | lines | |
//! |---|---|
//! | `out IFACE HEX` behind a step | an IP packet that leaves because of it, every one of them in order; `..` stands for a byte that may be any; `out none`: nothing leaves |
//! | `tracked` … `end` | all connections behind the last step, as `conntrack -L -o extended` prints them |
//! | `counted` … `end`, `counted6` … `end` | the counters behind the last step, as `iptables-save -c` prints them; of a table that is named, all lines |

#![forbid(unsafe_code)]

mod build;
mod capture;
mod check;
mod link;
mod packet;
mod parse;
mod run;
mod words;

pub use capture::capture;
pub use check::differences;
pub use link::Link;
pub use packet::packet;
pub use parse::parse;
pub use run::{
    IFACES, Observed, ROUTER, ROUTER_MACS, Run, STATION_MACS, answer_to, change_addresses, config, heard,
    update,
};

use core::fmt;
use stateway_core::config::{Mode, RouteConfig};
use stateway_core::conntrack::Direction;
use stateway_core::packet::{Addr, Family, Prefix};
use stateway_core::time::Duration;

/// The rules of a scenario that has none of its own: the left may open, the right may only answer.
pub const STANDARD: [&str; 6] = [
    "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
    "-A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT",
    "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -i left -m conntrack --ctstate NEW -j ACCEPT",
    "-A FORWARD -p tcp -j REJECT --reject-with tcp-reset",
    "-A FORWARD -j REJECT --reject-with ADMIN-PROHIBITED",
];

/// A whole story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub title: String,
    pub mode: Mode,
    /// What rules call the two interfaces.
    pub ports: [String; 2],
    pub sysctl: Vec<(String, String)>,
    /// iptables-save text.
    pub rules: String,
    /// ip6tables-save text; `None`: no IPv6 rules at all.
    pub rules6: Option<String>,
    /// Where it is not 1500.
    pub mtu: Vec<(String, usize)>,
    /// Of the router's, besides those that every scenario has.
    pub addresses: Vec<Address>,
    /// Besides those that every scenario has.
    pub routes: Vec<RouteConfig>,
    pub flows: Vec<Flow>,
    /// UDP ports that a program on the router hears, and what it answers.
    pub listeners: Vec<(u16, Vec<u8>)>,
    pub steps: Vec<Step>,
    /// Connections that are expected after the last step, as [`Run::announced`] prints them; `None`: not looked at.
    pub announced: Option<Vec<String>>,
    /// All connections behind the last step; `None`: not looked at.
    pub tracked: Option<Vec<String>>,
    /// Lines of counters behind the last step, IPv4 and IPv6; `None`: not looked at.
    pub counted: [Option<Vec<String>>; 2],
}

/// Rules that replace those in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// iptables-save text; `None`: those that were loaded last.
    pub rules: Option<String>,
    pub rules6: Option<String>,
}

/// An address that comes or goes while the router runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressChange {
    pub is_added: bool,
    /// The place of its interface.
    pub iface: usize,
    pub prefix: Prefix,
}

/// An address of the router's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The place of its interface.
    pub iface: usize,
    /// It stands in front of those that are there.
    pub is_first: bool,
    pub prefix: Prefix,
}

/// Who talks to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub name: String,
    pub family: Family,
    pub proto: u8,
    pub opener: Side,
    pub responder: Side,
    /// ICMP's identifier, or the call of GRE version 1.
    pub id: u16,
    pub zone: u16,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    pub iface: String,
    pub addr: Addr,
    pub port: u16,
}

impl Flow {
    /// Sender and receiver.
    pub const fn sides(&self, dir: Direction) -> (&Side, &Side) {
        match dir {
            Direction::Original => (&self.opener, &self.responder),
            Direction::Reply => (&self.responder, &self.opener),
        }
    }
}

/// One packet, and what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// In the text, from 1.
    pub line: usize,
    /// Since the story began.
    pub at: Duration,
    /// Where the packet comes in.
    pub iface: String,
    /// The IP packet, or a whole Ethernet frame.
    pub packet: Vec<u8>,
    pub is_frame: bool,
    /// Bytes of Ethernet trailer behind it.
    pub padding: usize,
    /// Whose entry is looked at afterwards.
    pub flow: Option<usize>,
    /// What it has to do with connections whose addresses and ports a router chooses.
    pub link: Option<Link>,
    /// Rules that are loaded before it comes.
    pub load: Option<Load>,
    /// What changes of the router's addresses before it comes.
    pub addresses: Vec<AddressChange>,
    pub expect: Option<Expect>,
    /// What leaves, in order; `None`: not looked at.
    pub out: Option<Vec<Out>>,
}

/// An IP packet that is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    pub iface: String,
    /// `None` for a byte that may be any.
    pub packet: Vec<Option<u8>>,
}

/// The last columns, as they stand there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// `NEW` …, `INVALID(REASON)`, or `-` if the packet was not tracked at all.
    pub ctstate: String,
    /// The tracker's state of the entry; `-` if it has none.
    pub tracker: String,
    pub fate: String,
    /// What is left of the entry's life, and its status; empty if there is no entry.
    pub entry: Vec<String>,
    /// The whole status, in the kernel's bits; `None`: not looked at.
    pub status: Option<u32>,
}

impl Expect {
    /// The last column.
    fn entry_text(&self) -> String {
        let status = self.status.map(|status| format!("status={status:#x}"));
        self.entry.iter().cloned().chain(status).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.ctstate, self.tracker, self.fate)?;
        self.entry.iter().try_for_each(|word| write!(f, " {word}"))?;
        self.status.map_or(Ok(()), |status| write!(f, " status={status:#x}"))
    }
}

/// What is wrong with a scenario's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowError {
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

//! Why a test failed: the expectation, the rule that decided, and why the rule that was meant did not.
//!
//! A packet like the one that decided is taken through a router of its own with the same rules; a connection that is
//! open is opened there first, with no rules in the way. Where that comes to another end than what was seen, since rules
//! may count or remember, nothing is said of the way.

#![forbid(unsafe_code)]

use super::model::{Expect, Lab, RuleRef, Step, Word};
use super::resolve::packets;
use super::ruling::{InForce, rules};
use super::runner::Seen;
use super::spot::Spot;
use stateway_core::config::{Mode, NeighbourPolicy};
use stateway_core::conntrack::{CtState, Direction};
use stateway_core::filter::Ruleset;
use stateway_core::filter::matches::FlagList;
use stateway_core::iface::IfaceId;
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
use stateway_core::packet::{Family, Mac, Offload, TcpFlags};
use stateway_core::router::{Router, Worker};
use stateway_core::time::Instant;
use stateway_trace::explain::{self, Account, Step as WayStep};
use std::fmt;
use std::net::IpAddr;

/// As many rules that said no are told of.
const MISSES: usize = 2;
/// A station that nobody has seen.
const UNKNOWN: Mac = Mac([2, 0, 0, 0, 0xfe, 2]);

/// What is known of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// The expectation that was not met.
    pub expected: Option<Spot>,
    /// Who decided on the packet.
    pub decided: Option<Ruling>,
    /// Rules that were asked and said no: the ones that were most likely meant.
    pub missed: Vec<Miss>,
}

/// A rule or a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    pub name: String,
    pub text: String,
    pub spot: Option<Spot>,
}

/// A rule that did not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    pub rule: Ruling,
    /// The condition that said no.
    pub condition: String,
    /// What the packet has instead, as far as that is known.
    pub value: Option<String>,
}

/// Finds out what can be known of a step that did not come out as expected. `key` is what was expected of it.
pub(crate) fn why(
    lab: &Lab,
    in_force: &InForce,
    step: &Step,
    key: Option<&str>,
    deciding: Option<&Seen>,
) -> Why {
    let path = key.map_or_else(|| step.path.clone(), |key| format!("{}.expect.{key}", step.path));
    let mut why = Why { expected: lab.spot(&path), ..Why::default() };
    let Some(seen) = deciding else { return why };
    let family = Family::from(seen.src);
    let (Some(ruleset), Some(text)) = (in_force.ruleset(family), in_force.text(family)) else { return why };
    let book = Book { lab, ruleset, text };
    let account = Asked { lab, in_force, seen }.account();
    let decided = match seen.rule.as_deref() {
        Some(name) if name == "policy" || name.ends_with("/policy") => account.as_ref().and_then(policy),
        name => name.map(str::to_owned),
    };
    why.decided = decided.and_then(|name| book.ruling(&name, &["-j "]));
    if let Some(account) = &account {
        let wanted = meant(in_force, &step.expect, seen);
        why.missed = book.misses(account, seen, &wanted);
    }
    why
}

/// Which rules somebody had in mind who wrote the test.
enum Wanted {
    /// These, by their names.
    Named(Vec<String>),
    /// One with such a target.
    Targets(&'static [&'static str]),
}

fn meant(in_force: &InForce, expect: &Expect, seen: &Seen) -> Wanted {
    // What opens a connection is told of by its rule; an answer is meant to meet another one.
    let is_answer = seen.direction == Some(Direction::Reply);
    match (&expect.rule, expect.result) {
        (Some(rule @ (RuleRef::Name(_) | RuleRef::Comment(_))), _) if !is_answer => {
            Wanted::Named(in_force.names(rule, Family::from(seen.src)))
        }
        (_, Some(Word::Blocked | Word::Refused | Word::Unreachable)) => Wanted::Targets(&["DROP", "REJECT"]),
        _ => Wanted::Targets(&["ACCEPT"]),
    }
}

/// The policy that decided.
fn policy(account: &Account) -> Option<String> {
    account.steps.iter().rev().find_map(|step| match step {
        WayStep::Policy { rule, .. } => Some(rule.clone()),
        _ => None,
    })
}

/// A ruleset, and where it is written.
struct Book<'a> {
    lab: &'a Lab,
    ruleset: Ruleset,
    text: &'a str,
}

impl Book<'_> {
    /// A rule or a policy by its name; the spot is at the first of `words` that its line has.
    fn ruling(&self, name: &str, words: &[&str]) -> Option<Ruling> {
        if let Some(chain) = name.strip_suffix("/policy") {
            return self.policy(name, chain.rsplit('/').next()?);
        }
        let (id, rule) = rules(&self.ruleset).find(|(id, _)| self.ruleset.rule_name(*id) == name)?;
        let spot = self.lab.spot_in_rules(self.text, rule.line as usize, words);
        // What is shown of the rule's target is all of it.
        let spot = spot.map(|spot| match words {
            ["-j "] => Spot { end: spot.text.trim_end().len(), ..spot },
            _ => spot,
        });
        let text = self.ruleset.rule_text(id.table, rule).trim_start().to_owned();
        Some(Ruling { name: name.to_owned(), text, spot })
    }

    /// Where a text says the policy of a chain, if it does.
    fn policy(&self, name: &str, chain: &str) -> Option<Ruling> {
        let table = name.split('/').next()?;
        let head = format!(":{chain}");
        let sets = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&head.as_str())
                || words.windows(2).any(|pair| ["-P", "--policy"].contains(&pair[0]) && pair[1] == chain)
        };
        let (mut current, mut found) = ("filter", None);
        for (at, line) in self.text.lines().enumerate() {
            current = line.trim().strip_prefix('*').unwrap_or(current);
            if current == table && sets(line) {
                found = Some((at, line));
            }
        }
        let (at, line) = found?;
        let spot = self.lab.spot_in_rules(self.text, at + 1, &[line.trim()]);
        Some(Ruling { name: name.to_owned(), text: line.trim().to_owned(), spot })
    }

    /// The rules that said no and were most likely meant, in their order.
    fn misses(&self, account: &Account, seen: &Seen, wanted: &Wanted) -> Vec<Miss> {
        let mut found: Vec<(usize, usize, Miss)> = Vec::new();
        for (place, step) in account.steps.iter().enumerate() {
            let WayStep::Rule { rule, text, failed: Some(failed), .. } = step else { continue };
            let is_meant = match wanted {
                Wanted::Named(names) => names.contains(rule),
                Wanted::Targets(targets) => {
                    rule.starts_with("filter/")
                        && targets.iter().any(|target| text.contains(&format!("-j {target}")))
                }
            };
            if !is_meant {
                continue;
            }
            let bare = bare(failed);
            let Some(rule) = self.ruling(rule, &[failed, bare, without_length(bare), last_option(bare)])
            else {
                continue;
            };
            let value = value(self.lab, bare, seen, account).map(|value| value.to_string());
            // The more of its conditions held, the more likely it is the one.
            let depth = text.find(bare).map_or(0, |at| 1000 * at / text.len().max(1));
            found.push((depth, place, Miss { rule, condition: bare.to_owned(), value }));
        }
        found.sort_by_key(|(depth, place, _)| (core::cmp::Reverse(*depth), *place));
        found.truncate(MISSES);
        found.sort_by_key(|(_, place, _)| *place);
        found.into_iter().map(|(.., miss)| miss).collect()
    }
}

/// What a packet has in place of what a condition of a rule wants; its text is a sentence.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Value {
    pub what: What,
    /// In the words of rules; two of them for ports, and for type and code.
    pub said: Vec<String>,
}

/// What is told of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    From,
    To,
    In,
    Out,
    Protocol,
    FromPort,
    ToPort,
    Ports,
    State,
    Flags,
    Icmp,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |number: usize| self.said.get(number).map_or("", String::as_str);
        let (first, second) = (said(0), said(1));
        match self.what {
            What::From => write!(f, "the packet comes from {first}"),
            What::To => write!(f, "the packet goes to {first}"),
            What::In => write!(f, "the packet came in on {first}"),
            What::Out => write!(f, "the packet leaves on {first}"),
            What::Protocol | What::State => write!(f, "the packet is {first}"),
            What::FromPort => write!(f, "the packet comes from port {first}"),
            What::ToPort => write!(f, "the packet goes to port {first}"),
            What::Ports => write!(f, "the packet goes from port {first} to {second}"),
            What::Flags => write!(f, "the packet has {first}"),
            What::Icmp => write!(f, "the packet has type {first} code {second}"),
        }
    }
}

/// What the packet has where a condition wants something else.
pub fn value(lab: &Lab, condition: &str, seen: &Seen, account: &Account) -> Option<Value> {
    let translated = account.steps.iter().find_map(|step| match step {
        WayStep::Translated { side: "destination", to, .. } => Some(to.as_str()),
        _ => None,
    });
    value_of(condition, seen, translated, || way_out(lab, seen, account))
}

/// As [`value`], of a packet of which it is known what its destination was translated to, and where it leaves.
pub fn value_of(
    condition: &str,
    seen: &Seen,
    translated: Option<&str>,
    out: impl FnOnce() -> Option<String>,
) -> Option<Value> {
    let condition = bare(condition);
    let option = condition.split_whitespace().find(|word| word.starts_with('-'))?;
    // Rules behind PREROUTING see where it goes to by then.
    let translated = translated.and_then(|to| to.rsplit_once(':'));
    let to =
        translated.map_or_else(|| seen.dst.to_string(), |(addr, _)| addr.trim_matches(['[', ']']).to_owned());
    let dport = translated.map(|(_, port)| port.to_owned());
    let dport = dport.or_else(|| seen.ports.map(|(_, port)| port.to_string()));
    let sport = seen.ports.map(|(port, _)| port.to_string());
    let (what, said) = match option {
        "-s" => (What::From, vec![seen.src.to_string()]),
        "-d" => (What::To, vec![to]),
        "-i" => (What::In, vec![seen.in_port.clone()]),
        "-o" => (What::Out, vec![out()?]),
        "-p" => (What::Protocol, vec![protocol(seen.protocol)]),
        "--dport" | "--dports" if !condition.contains("--sport") => (What::ToPort, vec![dport?]),
        "--sport" | "--sports" if !condition.contains("--dport") => (What::FromPort, vec![sport?]),
        "--dport" | "--dports" | "--sport" | "--sports" | "--ports" | "--port" => {
            (What::Ports, vec![sport?, dport?])
        }
        "--ctstate" | "--state" => (What::State, vec![seen.state?.word().to_owned()]),
        "--tcp-flags" | "--syn" => (What::Flags, vec![flags(seen.gist.tcp_flags?)]),
        "--icmp-type" | "--icmpv6-type" => {
            let (kind, code) = seen.gist.icmp?;
            (What::Icmp, vec![kind.to_string(), code.to_string()])
        }
        _ => return None,
    };
    Some(Value { what, said })
}

/// The port where the packet is to leave.
fn way_out(lab: &Lab, seen: &Seen, account: &Account) -> Option<String> {
    let host = || lab.hosts.iter().find(|host| host.has_address(seen.dst));
    let known = account.out.first().or(seen.out_port.as_ref()).cloned().or_else(|| routed(account));
    known.or_else(|| host().map(|host| lab.port_name(host.iface).to_owned()))
}

/// `--dport 22` of `-m tcp --dport 22`, since rules are often written without the first half.
fn bare(condition: &str) -> &str {
    let mut words = condition.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some("-m"), Some(_), Some(rest)) => rest,
        _ => condition,
    }
}

/// An address is often written without the length of a whole one.
fn without_length(condition: &str) -> &str {
    condition.strip_suffix("/32").or_else(|| condition.strip_suffix("/128")).unwrap_or(condition)
}

/// The last option alone: of `--ctstate NEW,RELATED` the name, since a text may list its values in another order.
fn last_option(condition: &str) -> &str {
    condition.split_whitespace().rfind(|word| word.starts_with('-')).unwrap_or(condition)
}

fn routed(account: &Account) -> Option<String> {
    account.steps.iter().find_map(|step| match step {
        WayStep::Routed { out, .. } => Some(out.clone()),
        _ => None,
    })
}

fn protocol(number: u8) -> String {
    stateway_core::filter::protocol_name(number).map_or_else(|| number.to_string(), str::to_owned)
}

fn flags(flags: TcpFlags) -> String {
    if flags.is_empty() { "no flags".to_owned() } else { FlagList(flags).to_string() }
}

/// A packet that was seen, to be judged again.
struct Asked<'a> {
    lab: &'a Lab,
    in_force: &'a InForce,
    seen: &'a Seen,
}

impl Asked<'_> {
    /// The way of such a packet, if it comes to the same end.
    fn account(&self) -> Option<Account> {
        let seen = self.seen;
        let is_open = seen.state == Some(CtState::Established);
        let mut config = self.lab.router.clone();
        config.neighbour_policy = NeighbourPolicy::LastSeen;
        if is_open {
            // Nothing is in the way of the packets that open it.
            config.rules = None;
            config.rules6 = Some("*filter\nCOMMIT\n".to_owned());
        } else {
            config.rules.clone_from(&self.in_force.v4);
            config.rules6.clone_from(&self.in_force.v6);
        }
        let router = Router::new(config).ok()?;
        let mut worker = router.worker();
        self.teach(&router, &mut worker);
        if is_open {
            self.open(&router, &mut worker)?;
            router.replace_rules(self.in_force.v4.as_deref(), self.in_force.v6.as_deref()).ok()?;
        }
        let account = self.walk(&router, &mut worker, &self.line(is_open)?, false)?;
        let is_same = account.fate == seen.fate
            && tracked(&account) == seen.state.map(CtState::word)
            && (seen.rule.is_none() || short(account.rule.as_deref()) == short(seen.rule.as_deref()));
        is_same.then_some(account)
    }

    /// Where the router is a bridge, it learns where hosts are from what they say.
    fn teach(&self, router: &Router, worker: &mut Worker) {
        const ARP: [u8; 2] = [0x08, 0x06];
        for host in self.lab.hosts.iter().filter(|_| router.mode() == Mode::Bridge) {
            let frame = [&Mac::BROADCAST.0[..], &host.mac.0, &ARP, &[0; 28]].concat();
            explain::explain(router, worker, Instant::ZERO, (host.iface, &frame, Offload::NONE));
        }
    }

    /// Opens the connection that the packet is of.
    fn open(&self, router: &Router, worker: &mut Worker) -> Option<()> {
        let lines: &[&str] = match self.seen.protocol {
            PROTO_TCP => &["S 0:0(0) win 65535", "S. 0:0(0) ack 1 win 65535", ". 1:1(0) ack 1 win 65535"],
            PROTO_UDP => &["udp (10)", "udp (10)"],
            PROTO_ICMP | PROTO_ICMPV6 => &["icmp echo_request id 1 seq 1"],
            _ => return None,
        };
        let is_reply = self.seen.direction == Some(Direction::Reply);
        // The packet itself may be the first answer.
        let is_answer =
            self.seen.gist.tcp_flags.is_some_and(|flags| flags.contains(TcpFlags::SYN | TcpFlags::ACK));
        let lines = if is_answer { &lines[..1] } else { lines };
        for (number, line) in lines.iter().enumerate() {
            let is_turned = (number % 2 == 1) != is_reply;
            self.walk(router, worker, line, is_turned)?;
        }
        Some(())
    }

    /// The packet in the language of scenarios.
    fn line(&self, is_open: bool) -> Option<String> {
        let (seen, at) = (self.seen, u8::from(is_open));
        Some(match (seen.protocol, seen.gist.icmp) {
            (PROTO_TCP, _) => {
                let flags = seen.gist.tcp_flags?;
                let at = if flags.contains(TcpFlags::SYN) { 0 } else { at };
                let letters = seen.summary.split(' ').nth(1)?;
                format!("{letters} {at}:{at}(0) ack {} win 65535", u8::from(is_open))
            }
            (PROTO_UDP, _) => "udp (10)".to_owned(),
            (PROTO_ICMP, Some((8, 0))) | (PROTO_ICMPV6, Some((128, 0))) => {
                "icmp echo_request id 1 seq 1".to_owned()
            }
            (PROTO_ICMP, Some((0, 0))) | (PROTO_ICMPV6, Some((129, 0))) => {
                "icmp echo_reply id 1 seq 1".to_owned()
            }
            _ => return None,
        })
    }

    /// Takes a packet between the same ends through the router; turned, it goes back.
    fn walk(&self, router: &Router, worker: &mut Worker, line: &str, is_turned: bool) -> Option<Account> {
        let Seen { src, dst, ports, .. } = self.seen;
        let (from, to) = ports.unwrap_or_default();
        let (src, dst, ports) = if is_turned { (*dst, *src, (to, from)) } else { (*src, *dst, (from, to)) };
        let packet = packets::packet(line, src, dst, ports).ok()?;
        let host = |addr: IpAddr| self.lab.hosts.iter().find(|host| host.has_address(addr));
        let named = |name: &str| router.ifaces().iter().position(|iface| iface.name == name);
        let iface = if is_turned { host(src)?.iface } else { IfaceId(named(&self.seen.in_port)? as u16) };
        let from_mac = host(src).map_or(UNKNOWN, |host| host.mac);
        let to_mac = match router.mode() {
            Mode::Route => router.ifaces()[iface.index()].mac,
            Mode::Bridge => host(dst).map_or(Mac::BROADCAST, |host| host.mac),
        };
        let ethertype: [u8; 2] = if src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        let frame = [&to_mac.0[..], &from_mac.0, &ethertype, &packet].concat();
        Some(explain::explain(router, worker, Instant::ZERO, (iface, &frame, Offload::NONE)))
    }
}

fn tracked(account: &Account) -> Option<&'static str> {
    account.steps.iter().find_map(|step| match step {
        WayStep::Conntrack { ctstate, .. } => Some(*ctstate),
        _ => None,
    })
}

/// `policy` for every policy.
fn short(rule: Option<&str>) -> Option<&str> {
    rule.map(|rule| if rule.ends_with("/policy") { "policy" } else { rule })
}

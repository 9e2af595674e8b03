//! One packet's whole way through the router, step by step, and why it met its fate.
//!
//! The packet takes the way that every packet takes; what is told here are the recorder's notes of it, in the words
//! of iptables' TRACE target. Nothing is decided twice.

#![forbid(unsafe_code)]

use crate::replay::{Emitted, entry_behind};
use core::net::IpAddr;
use serde::Serialize;
use stateway_core::Emission;
use stateway_core::base::{Fate, Reason};
use stateway_core::conntrack::{CtState, InvalidReason, Tracked};
use stateway_core::decision::Decision;
use stateway_core::filter::{Policy, RuleId};
use stateway_core::iface::IfaceId;
use stateway_core::nat::Side;
use stateway_core::packet::Tuple;
use stateway_core::packet::{Frame, Offload, summary};
use stateway_core::record::{Note, Recorder, Trace, Translated};
use stateway_core::router::{Router, Rules, Worker};
use stateway_core::time::Instant;
use std::fmt::Write as _;

/// What happened to one packet.
#[cfg_attr(feature = "types", derive(ts_rs::TS), ts(optional_fields))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    pub packet: String,
    #[serde(rename = "in")]
    pub in_port: String,
    pub steps: Vec<Step>,
    pub fate: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "types", ts(as = "Option<Vec<String>>"))]
    pub out: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The reason in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// The connection behind the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "types", ts(as = "Option<Vec<Emitted>>"))]
    pub emitted: Vec<Emitted>,
}

/// One thing on its way.
#[cfg_attr(feature = "types", derive(ts_rs::TS), ts(rename = "WayStep", optional_fields))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// A base chain begins.
    Hook {
        table: &'static str,
        chain: &'static str,
    },
    /// A rule was looked at.
    Rule {
        rule: String,
        text: String,
        matched: bool,
        /// The match that said no.
        #[serde(skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// No rule decided.
    Policy {
        rule: String,
        policy: &'static str,
    },
    Conntrack {
        ctstate: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        direction: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        /// In a sentence.
        why: &'static str,
    },
    /// The packet passes as its connection's, and is not believed.
    Tolerated {
        why: String,
    },
    Routed {
        out: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_hop: Option<String>,
    },
    /// It is for the router itself.
    Local,
    /// What becomes of one end of a new connection was decided.
    Translated {
        /// The rule of the nat table; without one the connection is bound to what it has.
        #[serde(skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        side: &'static str,
        from: String,
        to: String,
        how: &'static str,
        /// In a sentence.
        why: &'static str,
    },
    /// A new connection entered the table.
    Confirmed,
    /// A helper announced a connection.
    Expected {
        connection: String,
    },
    /// A helper read it and announced nothing.
    Unannounced {
        helper: &'static str,
        why: &'static str,
    },
    Sent {
        port: String,
    },
    /// The router itself sends a packet because of it, which passes OUTPUT.
    Answer {
        packet: String,
        port: String,
    },
    /// What became of such a packet, where it did not leave.
    Unanswered {
        fate: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
    },
}

/// Takes a frame through the router and tells of it.
pub fn explain(
    router: &Router,
    worker: &mut Worker,
    now: Instant,
    (iface, frame, offload): (IfaceId, &[u8], Offload),
) -> Account {
    let mut buffer = frame.to_vec();
    let mut trace = Trace::default();
    let outcome =
        router.process(worker, now, iface, Frame::new(&mut buffer).with_offload(offload), &mut trace);
    let emissions: Vec<Emission> = worker.take_emissions().collect();
    let met = Met { iface, frame, fate: outcome.fate, notes: &trace.notes, emissions: &emissions };
    account(router, &router.rules(), now, &met)
}

/// A frame, and what the router made of it.
#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
    /// Where it came in.
    pub iface: IfaceId,
    /// As it came.
    pub frame: &'a [u8],
    pub fate: Fate,
    pub notes: &'a [Note],
    /// What the router sent because of it.
    pub emissions: &'a [Emission],
}

/// Tells of a frame that `rules` judged, right after it met its fate: the connection behind it is asked of the router.
pub fn account(router: &Router, rules: &Rules, now: Instant, met: &Met<'_>) -> Account {
    let v6 = met.frame.get(12..14) == Some(&[0x86, 0xdd]);
    Account { steps: way(met.notes, router, rules, v6), ..verdict(router, rules, now, met) }
}

/// The account without its steps, which [`way`] makes of the notes whenever they are wanted: of a packet that met hundreds
/// of rules they are most of it.
pub fn verdict(router: &Router, rules: &Rules, now: Instant, met: &Met<'_>) -> Account {
    let Met { iface, frame, fate, notes, emissions } = *met;
    let mut decision = Decision::default();
    for note in notes {
        decision.note(|| note.clone());
    }
    let name = |iface: IfaceId| router.ifaces()[iface.index()].name.clone();
    let reason = decision.reason(fate);
    let emitted = emissions.iter().map(|e| Emitted { port: name(e.iface), bytes: e.frame.clone() });
    Account {
        packet: summary::of_frame(&mut frame.to_vec()),
        in_port: name(iface),
        steps: Vec::new(),
        fate: fate.word(),
        out: decision.out.iter().map(|iface| name(*iface)).collect(),
        rule: decision.rule_among(fate, rules),
        why: reason.map(Reason::sentence),
        reason: reason.map(Reason::code),
        entry: entry_behind(router, &decision, frame, now),
        emitted: emitted.collect(),
    }
}

/// What numbers in notes are called.
struct Names<'a> {
    router: &'a Router,
    /// Those that the packet met, which may have been replaced since.
    rules: &'a Rules,
}

impl Names<'_> {
    fn port(&self, iface: IfaceId) -> String {
        self.router.ifaces()[iface.index()].name.clone()
    }

    fn rule(&self, rule: RuleId) -> Option<String> {
        Some(self.rules.for_family(rule.family)?.rule_name(rule))
    }
}

/// The way of a packet that was judged by `rules`, from the notes of it.
pub fn way(notes: &[Note], router: &Router, rules: &Rules, is_ipv6: bool) -> Vec<Step> {
    steps(notes, &Names { router, rules }, is_ipv6)
}

/// The notes up to the packet's fate, which the account states by itself, and those of what the router sent because of
/// it, each up to its own.
fn steps(notes: &[Note], names: &Names<'_>, v6: bool) -> Vec<Step> {
    let end = notes.iter().position(|note| matches!(note, Note::Fate(_))).unwrap_or(notes.len());
    let (own_way, answers) = notes.split_at(end);
    let step = |note: &Note| step(note, names, v6);
    // Tracking says two things of a packet that it does not believe.
    let own_way = own_way.iter().flat_map(|note| {
        let tolerated = match note {
            Note::Tracked(ct) => ct.tolerated.map(|what| Step::Tolerated { why: what.to_string() }),
            _ => None,
        };
        step(note).into_iter().chain(tolerated)
    });
    let of_answers = answers.iter().skip(1).filter_map(|note| match note {
        Note::Fate(Fate::Forwarded) => None,
        Note::Fate(fate) => {
            Some(Step::Unanswered { fate: fate.word(), reason: fate.reason().map(Reason::code) })
        }
        note => step(note),
    });
    own_way.chain(of_answers).collect()
}

fn step(note: &Note, names: &Names<'_>, v6: bool) -> Option<Step> {
    let name = |iface: IfaceId| names.port(iface);
    Some(match note {
        Note::Hook(table, hook) => Step::Hook { table: table.word(), chain: hook.word() },
        Note::Rule { rule, failed } => looked_at(*rule, *failed, names),
        Note::Policy(rule) => {
            let policy = policy_of(*rule, names.rules).map_or("ACCEPT", Policy::word);
            Step::Policy { rule: names.rule(*rule).unwrap_or_default(), policy }
        }
        Note::Tracked(ct) => tracked(ct),
        Note::Routed { out, next_hop } => {
            let family =
                if v6 { stateway_core::packet::Family::Ipv6 } else { stateway_core::packet::Family::Ipv4 };
            Step::Routed { out: name(*out), next_hop: next_hop.map(|hop| hop.to_ip(family).to_string()) }
        }
        Note::Local => Step::Local,
        Note::Translated(translated) => self::translated(translated, names),
        Note::Confirmed => Step::Confirmed,
        Note::Expected(connection) => Step::Expected { connection: connection.clone() },
        Note::Unannounced(helper, silence) => {
            Step::Unannounced { helper: helper.name(), why: silence.sentence() }
        }
        Note::Sent(iface) => Step::Sent { port: name(*iface) },
        Note::Own { out, frame } => {
            let port = out.map_or_else(|| "the router itself".to_owned(), name);
            Step::Answer { packet: summary::of_frame(&mut frame.clone()), port }
        }
        Note::Fate(_) => return None,
    })
}

fn looked_at(id: RuleId, failed: Option<u16>, names: &Names<'_>) -> Step {
    let ruleset = names.rules.for_family(id.family);
    let found = ruleset.and_then(|ruleset| Some((ruleset, ruleset.rule(id)?)));
    let text = found.map(|(ruleset, rule)| ruleset.rule_text(id.table, rule).trim_start().to_owned());
    let failed_words = failed.zip(found).map(|(place, (_, rule))| {
        rule.matches.words().into_iter().nth(usize::from(place)).unwrap_or_default()
    });
    Step::Rule {
        rule: names.rule(id).unwrap_or_default(),
        text: text.unwrap_or_default(),
        matched: failed.is_none(),
        failed: failed_words,
    }
}

fn policy_of(id: RuleId, rules: &Rules) -> Option<Policy> {
    rules.for_family(id.family)?.chains(id.table).get(usize::from(id.chain))?.policy
}

fn tracked(ct: &Tracked) -> Step {
    let reason = ct.invalid.map(InvalidReason::code);
    let why = match ct.state {
        CtState::New => "no answer has been seen yet",
        CtState::Established => "packets were seen in both directions",
        CtState::Related => "another connection announced it, or it is an error about one",
        CtState::Untracked => "the raw table, or the protocol, exempts it from tracking",
        CtState::Invalid => ct.invalid.map_or("it fits no connection", InvalidReason::sentence),
    };
    let direction = ct.has_entry().then(|| ct.direction.word());
    Step::Conntrack { ctstate: ct.state.word(), direction, reason, why }
}

fn translated(decided: &Translated, names: &Names<'_>) -> Step {
    let Translated { side, by, from, choice } = *decided;
    let end = |tuple: &Tuple| {
        let (addr, port) = match side {
            Side::Source => (tuple.src, tuple.left),
            Side::Destination => (tuple.dst, if tuple.is_icmp() { tuple.left } else { tuple.right }),
        };
        match addr.to_ip(tuple.family) {
            IpAddr::V4(addr) => format!("{addr}:{port}"),
            IpAddr::V6(addr) => format!("[{addr}]:{port}"),
        }
    };
    Step::Translated {
        rule: by.and_then(|rule| names.rule(rule)),
        side: side.word(),
        from: end(&from),
        to: end(&choice.tuple),
        how: choice.how.code(),
        why: choice.how.words(),
    }
}

/// The account for people, in the words of iptables' TRACE target.
pub fn render(account: &Account) -> String {
    let Account { packet, in_port, steps, fate, out, rule, reason, why, entry, emitted } = account;
    let mut text = format!("packet: {packet}, in on {in_port}\n");
    for step in steps {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line(step));
    }
    let _ = write!(text, "fate: {fate}");
    if !out.is_empty() {
        let _ = write!(text, " → {}", out.join(", "));
    }
    if let Some(rule) = rule {
        let _ = write!(text, " by {rule}");
    }
    if let Some(reason) = reason {
        let _ =
            write!(text, " ({reason}{}{})", if why.is_some() { ": " } else { "" }, why.unwrap_or_default());
    }
    text.push('\n');
    if let Some(entry) = entry {
        let _ = writeln!(text, "connection: {entry}");
    }
    for Emitted { port, bytes } in emitted {
        let _ = writeln!(text, "sends to {port}: {}", summary::of_frame(&mut bytes.clone()));
    }
    text
}

/// One step for people.
pub fn line(step: &Step) -> String {
    match step {
        Step::Hook { table, chain } => format!("{table} {chain}"),
        Step::Rule { rule, text, matched: true, .. } => {
            format!("  TRACE: {}  {text}  ← matches", traced(rule, "rule"))
        }
        Step::Rule { rule, text, failed, .. } => {
            let failed = failed.as_deref().unwrap_or_default();
            format!("  {}  {text}  ← no: {failed}", traced(rule, "rule"))
        }
        Step::Policy { rule, policy } => format!("  TRACE: {}  verdict {policy}", traced(rule, "policy")),
        Step::Conntrack { ctstate, direction, reason, why } => {
            let direction = direction.map_or(String::new(), |direction| format!(" {direction}"));
            let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
            format!("conntrack: {ctstate}{direction}{reason}: {why}")
        }
        Step::Routed { out, next_hop: Some(hop) } => format!("route: out on {out}, next hop {hop}"),
        Step::Routed { out, next_hop: None } => format!("route: out on {out}"),
        Step::Local => "route: to the router itself".to_owned(),
        Step::Translated { rule, side, from, to, why, .. } => {
            let by = rule.as_deref().unwrap_or("no rule");
            format!("nat: {side} {from} becomes {to} by {by}: {why}")
        }
        Step::Confirmed => "conntrack: confirmed, the new connection is in the table".to_owned(),
        Step::Expected { connection } => format!("conntrack: a helper expects {connection}"),
        Step::Tolerated { why } => {
            format!("conntrack: let pass without being believed, so that nothing known changes: {why}")
        }
        Step::Unannounced { helper, why } => format!("conntrack: helper {helper} announces nothing: {why}"),
        Step::Sent { port } => format!("sent on {port}"),
        Step::Answer { packet, port } => format!("the router sends, out on {port}: {packet}"),
        Step::Unanswered { fate, reason } => {
            format!("  which is {fate}{}", reason.map_or(String::new(), |reason| format!(" ({reason})")))
        }
    }
}

/// `filter:FORWARD:rule:1`, as TRACE writes it.
fn traced(rule: &str, kind: &str) -> String {
    let mut parts = rule.split('/');
    let (table, chain) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match parts.next() {
        Some("policy") | None => format!("{table}:{chain}:{kind}"),
        Some(number) => format!("{table}:{chain}:{kind}:{number}"),
    }
}

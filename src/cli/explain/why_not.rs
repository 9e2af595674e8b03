//! `stateway explain --why-not`: the nearest packet that would pass, and the nearest rules under which this one would.
//!
//! What is near is looked for in the model of the ruleset and among small changes of its text; what is said has been run, each
//! in a router of its own.

use super::Args;
use crate::cli::Result;
use crate::cli::rules_text::in_front_of_tables;
use serde::Serialize;
use stateway_core::config::RouterConfig;
use stateway_core::filter::{Ruleset, Table, Target};
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
use stateway_core::packet::{Addr, Family, Offload, Packet, TcpFlags};
use stateway_core::router::Router;
use stateway_lab::resolve::packets;
use stateway_model::describe::flag_names;
use stateway_model::{Fate, Field, Model, Room, STATES, Set, Space, TooLarge, Way, state_number};
use stateway_trace::capture::Source;
use stateway_trace::coverage::{Mutant, Mutants};
use stateway_trace::explain::{Account, Step};
use std::net::IpAddr;

/// So many changed rulesets are tried.
const MOST_TRIALS: usize = 300;
/// So many values of a field are tried, the nearest first.
const MOST_VALUES: usize = 4;

/// What would have to be different.
#[derive(Debug, Default, Serialize)]
pub(super) struct WhyNot {
    /// Nothing is to be found: it passes, or no rule refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    none: Option<String>,
    /// The nearest packet that passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<Change>,
    /// The nearest change of a rule with which it passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Change>,
    /// A rule more, for packets such as this.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<Change>,
}

/// A change that was tried.
#[derive(Debug, Serialize)]
struct Change {
    #[serde(rename = "change")]
    what: String,
    fate: &'static str,
    #[serde(rename = "by", skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// A packet that did not pass, and what it is tried in.
pub(super) struct Case<'a> {
    pub(super) args: &'a Args,
    pub(super) config: &'a RouterConfig,
    pub(super) capture: Option<&'a Source>,
    /// An IP packet, with or without its frame.
    pub(super) packet: &'a [u8],
    pub(super) account: &'a Account,
}

const PASSED: [&str; 2] = ["forwarded", "delivered"];

impl Case<'_> {
    pub(super) fn look(&self) -> Result<WhyNot> {
        let nothing = |none: String| Ok(WhyNot { none: Some(none), ..WhyNot::default() });
        if PASSED.contains(&self.account.fate) {
            return nothing("it passes".to_owned());
        }
        let decided = self.account.rule.as_ref().and_then(|_| self.decided());
        let Some(decided) = decided else {
            let why = self.account.why.unwrap_or("the router could not carry it further");
            return nothing(format!("no rule refuses it: {why}"));
        };
        let Some(ends) = Ends::of(self.packet) else {
            return nothing("it is no whole packet of TCP, UDP or ICMP".to_owned());
        };
        let names: Vec<String> = self.config.ifaces.iter().map(|iface| iface.name.clone()).collect();
        let text = if ends.family == Family::Ipv4 { &self.config.rules } else { &self.config.rules6 };
        let loaded = text.as_deref().and_then(|text| Ruleset::load(text, ends.family, &names).ok());
        let (Some(text), Some(loaded)) = (text.as_deref(), loaded) else {
            return nothing("there are no rules for its family".to_owned());
        };
        let rules = &loaded.ruleset;
        Ok(WhyNot {
            none: None,
            packet: self.nearest_packet(rules, &ends)?,
            rule: self.nearest_rule(text, rules)?,
            more: self.one_rule_more(text, rules, decided, &ends)?,
        })
    }

    /// The rule or policy that was asked last.
    fn decided(&self) -> Option<&str> {
        self.account.steps.iter().rev().find_map(|step| match step {
            Step::Rule { rule, matched: true, .. } | Step::Policy { rule, .. } => Some(rule.as_str()),
            _ => None,
        })
    }

    /// What becomes of a packet under rules; `None` if they do not load.
    fn try_out(&self, rules: Option<&str>, port: &str, packet: &[u8]) -> Result<Option<Account>> {
        let mut config = self.config.clone();
        if let Some(rules) = rules {
            let is_six = self.packet_family() == Family::Ipv6;
            *(if is_six { &mut config.rules6 } else { &mut config.rules }) = Some(rules.to_owned());
        }
        let mode = config.mode;
        let Ok(router) = Router::new(config) else { return Ok(None) };
        self.args.of_packet_at(port, self.capture, &router, mode, packet).map(Some)
    }

    fn packet_family(&self) -> Family {
        Ends::of(self.packet).map_or(Family::Ipv4, |ends| ends.family)
    }

    fn passes(&self, rules: Option<&str>, port: &str, packet: &[u8], change: &str) -> Result<Option<Change>> {
        let account = self.try_out(rules, port, packet)?;
        Ok(account.filter(|account| PASSED.contains(&account.fate)).map(|account| Change {
            what: change.to_owned(),
            fate: account.fate,
            rule: account.rule,
        }))
    }

    // ── another packet ───────────────────────────────────────────────────────────────────────────────────────────

    fn nearest_packet(&self, rules: &Ruleset, ends: &Ends) -> Result<Option<Change>> {
        let found = Near::new(self, rules, ends).and_then(|near| near.candidates(rules));
        // A ruleset that is too large for the model has no nearest packet that is known.
        let Ok(candidates) = found else { return Ok(None) };
        for (port, ends, change) in candidates {
            let Ok(packet) = ends.packet() else { continue };
            if let Some(change) = self.passes(None, &port, &packet, &change)? {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }

    // ── other rules ──────────────────────────────────────────────────────────────────────────────────────────────

    /// The nearest change among rules that looked at the packet, and what decided.
    fn nearest_rule(&self, text: &str, rules: &Ruleset) -> Result<Option<Change>> {
        let asked: Vec<&str> = self
            .account
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Rule { rule, .. } | Step::Policy { rule, .. } => Some(rule.as_str()),
                _ => None,
            })
            .collect();
        let mut mutants: Vec<Mutant> =
            Mutants::of(rules).iter().filter(|mutant| asked.contains(&mutant.name.as_str())).collect();
        mutants.sort_by_key(|mutant| distance(mutant, rules));
        let sets = in_front_of_tables(text);
        for mutant in mutants.into_iter().take(MOST_TRIALS) {
            let rules = format!("{sets}{}", mutant.text);
            let change = format!("{} {}", mutant.name, mutant.change);
            if let Some(change) = self.passes(Some(&rules), self.port(), self.packet, &change)? {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }

    /// The narrowest rule in front of what decided.
    fn one_rule_more(
        &self,
        text: &str,
        rules: &Ruleset,
        decided: &str,
        ends: &Ends,
    ) -> Result<Option<Change>> {
        let mut parts = decided.split('/');
        let (Some(table), Some(chain), Some(place)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(None);
        };
        let seen = self.as_rules_see(ends);
        let mut rule = String::new();
        if !matches!(chain, "OUTPUT" | "POSTROUTING") {
            rule.push_str(&format!(" -i {}", self.port()));
        }
        rule.push_str(&seen.as_conditions());
        let state = self.account.steps.iter().find_map(|step| match step {
            Step::Conntrack { ctstate, .. } => Some(*ctstate),
            _ => None,
        });
        if let Some(state) = state.filter(|_| table != "raw") {
            rule.push_str(&format!(" -m conntrack --ctstate {state}"));
        }
        rule.push_str(" -j ACCEPT");
        let rendered = rules.render(false);
        let Some((inserted, number)) = inserted(&rendered, table, chain, place.parse().ok(), &rule) else {
            return Ok(None);
        };
        let table = if table == "filter" { String::new() } else { format!("-t {table} ") };
        let change = format!("iptables {table}-I {chain} {number}{rule}");
        let change =
            if seen.family == Family::Ipv6 { change.replacen("iptables", "ip6tables", 1) } else { change };
        let rules = format!("{}{inserted}", in_front_of_tables(text));
        self.passes(Some(&rules), self.port(), self.packet, &change)
    }

    fn port(&self) -> &str {
        &self.account.in_port
    }

    /// The packet's ends where it was refused: with the destination that the table `nat` gave it.
    fn as_rules_see(&self, ends: &Ends) -> Ends {
        let mut seen = *ends;
        for step in &self.account.steps {
            let Step::Translated { side: "destination", to, .. } = step else { continue };
            if let Ok(to) = to.parse::<std::net::SocketAddr>() {
                (seen.dst, seen.ports.1) = (to.ip(), to.port());
            } else if let Ok(to) = to.parse() {
                seen.dst = to;
            }
        }
        seen
    }
}

/// How near a change is: a condition less on a rule that accepts is nearest, best of one that has many; another policy is furthest.
fn distance(mutant: &Mutant, rules: &Ruleset) -> (u8, usize) {
    let is_it = |table: Table, chain: &str, index: usize| {
        mutant.name == format!("{}/{chain}/{}", table.word(), index + 1)
    };
    let changed = Table::ALL.into_iter().find_map(|table| {
        rules.chains(table).iter().find_map(|chain| {
            let mut of_chain = chain.rules.iter().enumerate();
            of_chain.find(|(index, _)| is_it(table, &chain.name, *index)).map(|(_, rule)| rule)
        })
    });
    let accepts = changed.is_some_and(|rule| rule.target == Target::Accept);
    let words = changed.map_or(0, |rule| rule.matches.words().len());
    let kind = match mutant.change.split(' ').next() {
        Some("without" | "state") if accepts => 0,
        Some("without" | "state") => 1,
        Some("removed") => 2,
        Some("swapped") => 3,
        Some("target") => 4,
        _ => 5,
    };
    (kind, usize::MAX - words)
}

/// The ruleset with a rule in front of the one at `place`, or behind all of the chain's; and its number.
fn inserted(
    rules: &str,
    table: &str,
    chain: &str,
    place: Option<usize>,
    rule: &str,
) -> Option<(String, usize)> {
    let mut text = String::new();
    let (mut is_inside, mut number, mut done) = (false, 0, None);
    for line in rules.lines() {
        if let Some(name) = line.strip_prefix('*') {
            is_inside = name == table;
            number = 0;
        }
        let is_of_chain =
            is_inside && line.strip_prefix("-A ").is_some_and(|l| l.split(' ').next() == Some(chain));
        number += usize::from(is_of_chain);
        let is_here = is_inside
            && done.is_none()
            && match place {
                Some(place) => is_of_chain && number == place,
                None => line == "COMMIT",
            };
        if is_here {
            text.push_str(&format!("-A {chain}{rule}\n"));
            done = Some(place.unwrap_or(number + 1));
        }
        text.push_str(line);
        text.push('\n');
    }
    done.map(|number| (text, number))
}

// ── the packet ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// What a packet is made of, as far as it may be changed.
#[derive(Clone, Copy, Debug)]
struct Ends {
    family: Family,
    proto: u8,
    src: IpAddr,
    dst: IpAddr,
    /// Of ICMP zero.
    ports: (u16, u16),
    /// Of ICMP.
    kind: (u8, u8),
    flags: u8,
    payload: usize,
}

impl Ends {
    fn of(packet: &[u8]) -> Option<Self> {
        let mut frame = super::framed(packet, super::STATION, super::UNKNOWN);
        let pkt = Packet::parse(&mut frame, Offload::NONE).ok()?;
        let (family, proto, l4) = (pkt.family(), pkt.proto(), pkt.l4());
        let word = |at: usize| Some(u16::from_be_bytes([*l4.get(at)?, *l4.get(at + 1)?]));
        let is_icmp = proto == if family == Family::Ipv4 { PROTO_ICMP } else { PROTO_ICMPV6 };
        let (ports, kind, flags, head) = match proto {
            PROTO_TCP => {
                let head = usize::from(l4.get(12)? >> 4) * 4;
                ((word(0)?, word(2)?), (0, 0), *l4.get(13)?, head)
            }
            PROTO_UDP => ((word(0)?, word(2)?), (0, 0), 0, 8),
            _ if is_icmp => ((0, 0), (*l4.first()?, *l4.get(1)?), 0, 8),
            _ => return None,
        };
        Some(Self {
            family,
            proto,
            src: pkt.src().to_ip(family),
            dst: pkt.dst().to_ip(family),
            ports,
            kind,
            flags,
            payload: l4.len().saturating_sub(head),
        })
    }

    /// A packet with these ends.
    fn packet(&self) -> std::result::Result<Vec<u8>, String> {
        let Self { proto, src, dst, ports, kind, flags, payload, .. } = *self;
        let line = match proto {
            PROTO_TCP => {
                format!("{} 0:{payload}({payload}) ack 0 win 65535", TcpFlags::from_bits_retain(flags))
            }
            PROTO_UDP => format!("udp ({payload})"),
            _ => match (self.family, kind) {
                (Family::Ipv4, (8, 0)) | (Family::Ipv6, (128, 0)) => {
                    "icmp echo_request id 1 seq 1".to_owned()
                }
                (Family::Ipv4, (0, 0)) | (Family::Ipv6, (129, 0)) => "icmp echo_reply id 1 seq 1".to_owned(),
                _ => return Err("no such packet is made here".to_owned()),
            },
        };
        packets::packet(&line, src, dst, ports)
    }

    fn as_conditions(&self) -> String {
        let Self { family, proto, src, dst, ports, kind, .. } = *self;
        let len = family.bits();
        let of_proto = match proto {
            PROTO_TCP => format!("-p tcp -m tcp --dport {}", ports.1),
            PROTO_UDP => format!("-p udp -m udp --dport {}", ports.1),
            _ if family == Family::Ipv4 => format!("-p icmp -m icmp --icmp-type {}/{}", kind.0, kind.1),
            _ => format!("-p ipv6-icmp -m icmp6 --icmpv6-type {}/{}", kind.0, kind.1),
        };
        format!(" -s {src}/{len} -d {dst}/{len} {of_proto}")
    }

    fn value(&self, field: Field) -> u128 {
        let bits = |addr: IpAddr| Addr::from(addr).bits() >> (128 - u32::from(self.family.bits()));
        let is_icmp = !matches!(self.proto, PROTO_TCP | PROTO_UDP);
        match field {
            Field::Src => bits(self.src),
            Field::Dst => bits(self.dst),
            Field::Sport => self.ports.0.into(),
            Field::Dport if is_icmp => u128::from(self.kind.0) << 8 | u128::from(self.kind.1),
            Field::Dport => self.ports.1.into(),
            Field::Proto => self.proto.into(),
            Field::Flags if self.proto == PROTO_TCP => (self.flags & 0x3f).into(),
            _ => 0,
        }
    }

    fn set(&mut self, field: Field, value: u128) {
        let addr = |family: Family| Addr::from_bits(value << (128 - u32::from(family.bits()))).to_ip(family);
        match field {
            Field::Src => self.src = addr(self.family),
            Field::Dst => self.dst = addr(self.family),
            Field::Sport => self.ports.0 = value as u16,
            Field::Dport if matches!(self.proto, PROTO_TCP | PROTO_UDP) => self.ports.1 = value as u16,
            Field::Dport => self.kind = ((value >> 8) as u8, value as u8),
            Field::Proto => self.proto = value as u8,
            Field::Flags => self.flags = value as u8,
            _ => {}
        }
    }
}

// ── nearness ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// What may be changed of a packet, the least first.
const CHANGES: &[&[Field]] = &[
    &[Field::Dport],
    &[Field::Sport],
    &[Field::Flags],
    &[Field::In],
    &[Field::Dst],
    &[Field::Src],
    &[Field::Proto],
    &[Field::Dst, Field::Dport],
    &[Field::In, Field::Dport],
    &[Field::Src, Field::Dport],
    &[Field::Proto, Field::Dport],
    &[Field::In, Field::Dst],
    &[Field::In, Field::Src],
    &[Field::Src, Field::Dst],
];

/// Packets near to one.
struct Near<'a> {
    case: &'a Case<'a>,
    ends: &'a Ends,
    space: Space,
    port: u128,
    /// With its state, whatever else it is.
    state: Set,
}

impl<'a> Near<'a> {
    fn new(case: &'a Case<'a>, rules: &Ruleset, ends: &'a Ends) -> std::result::Result<Self, TooLarge> {
        let names: Vec<String> = case.config.ifaces.iter().map(|iface| iface.name.clone()).collect();
        let port = names.iter().position(|name| name == case.port()).unwrap_or_default() as u128;
        let space = Space::new(rules.family, names, Room::USUAL)?;
        let state = case.account.steps.iter().find_map(|step| match step {
            Step::Conntrack { ctstate, .. } => STATES.into_iter().find(|state| state.word() == *ctstate),
            _ => None,
        });
        let state = match state {
            Some(state) => space.is(Field::State, state_number(state))?,
            None => space.full(),
        };
        Ok(Self { case, ends, space, port, state })
    }

    fn value(&self, field: Field) -> u128 {
        if field == Field::In { self.port } else { self.ends.value(field) }
    }

    /// Other ports, other packets, and what is other about them.
    fn candidates(&self, rules: &Ruleset) -> std::result::Result<Vec<(String, Ends, String)>, TooLarge> {
        let space = &self.space;
        let is_local = self.case.account.steps.iter().any(|step| matches!(step, Step::Local));
        let way = if is_local { Way::Input } else { Way::Forward };
        let router = stateway_model::Router {
            has_helpers: !self.case.config.helpers.is_empty(),
            turns_back: self.case.config.mode == stateway_core::config::Mode::Route,
        };
        let model = Model::new(rules, space, way, router)?;
        let passed = space.for_certain(model.of(Fate::Passed))?.and(&model.real)?.and(&self.state)?;
        let mut found = Vec::new();
        for change in CHANGES {
            let mut near = passed.clone();
            for field in
                [Field::Sport, Field::Dport, Field::Src, Field::Dst, Field::Proto, Field::In, Field::Flags]
            {
                // Of another protocol also its flags are others.
                let is_of_proto = field == Field::Flags && change.contains(&Field::Proto);
                if !change.contains(&field) && !is_of_proto {
                    near = near.and(&space.is(field, self.value(field))?)?;
                }
            }
            if change.contains(&Field::Proto) {
                near = near.and(&space.one_of(Field::Proto, [PROTO_TCP, PROTO_UDP].map(u128::from))?)?;
            }
            if !near.is_empty() {
                self.nearest(change, near, &mut found)?;
            }
        }
        Ok(found)
    }

    /// The nearest packets of a set, by the values of the fields that may be others.
    fn nearest(
        &self,
        change: &[Field],
        mut near: Set,
        found: &mut Vec<(String, Ends, String)>,
    ) -> std::result::Result<(), TooLarge> {
        let (space, mut ends, mut port) = (&self.space, *self.ends, self.port);
        let mut words = Vec::new();
        for (at, field) in change.iter().enumerate() {
            let others: Vec<Field> = Field::ALL.into_iter().filter(|other| other != field).collect();
            let values = space.forget(&near, &others, true)?;
            let Some(values) = nearest_values(space, &values, *field, self.value(*field))? else {
                return Ok(());
            };
            if at + 1 == change.len() {
                for value in values {
                    let (mut ends, mut port, mut words) = (ends, port, words.clone());
                    self.set(*field, value, (&mut ends, &mut port, &mut words));
                    found.push((space.ifaces[port as usize].clone(), ends, words.join(" and ")));
                }
                return Ok(());
            }
            let value = values[0];
            near = near.and(&space.is(*field, value)?)?;
            self.set(*field, value, (&mut ends, &mut port, &mut words));
        }
        Ok(())
    }

    fn set(&self, field: Field, value: u128, (ends, port, words): (&mut Ends, &mut u128, &mut Vec<String>)) {
        if field == Field::In {
            *port = value;
        } else {
            ends.set(field, value);
            if field == Field::Proto && value == PROTO_TCP.into() {
                ends.flags = 2;
            }
        }
        if value != self.value(field) {
            words.push(self.words(field, value));
        }
    }

    fn words(&self, field: Field, value: u128) -> String {
        let was = self.value(field);
        let show = |value: u128| match field {
            Field::In => self.space.ifaces.get(value as usize).cloned().unwrap_or_default(),
            Field::Src | Field::Dst => stateway_model::describe::address(self.ends.family, value),
            Field::Proto => stateway_model::describe::protocol_word(value as u8),
            Field::Flags => flag_names(value),
            Field::Dport if !matches!(self.ends.proto, PROTO_TCP | PROTO_UDP) => {
                format!("{}/{}", value >> 8, value & 0xff)
            }
            _ => value.to_string(),
        };
        let word = match field {
            Field::In => "in at",
            Field::Src => "from",
            Field::Dst => "to",
            Field::Sport => "from port",
            Field::Dport if !matches!(self.ends.proto, PROTO_TCP | PROTO_UDP) => "of type",
            Field::Dport => "to port",
            Field::Proto => "of protocol",
            Field::Flags => "with flags",
            _ => "otherwise",
        };
        format!("{word} {} in place of {}", show(value), show(was))
    }
}

/// The values of a set of values that are nearest to one, the nearest first.
fn nearest_values(
    space: &Space,
    values: &Set,
    field: Field,
    was: u128,
) -> std::result::Result<Option<Vec<u128>>, TooLarge> {
    const MOST_RANGES: usize = 4096;
    let Some(ranges) = space.ranges(values, field, MOST_RANGES)? else { return Ok(None) };
    let mut near: Vec<u128> = ranges.iter().map(|(low, high)| was.clamp(*low, *high)).collect();
    // Among flags and protocols there is no distance; a SYN is the plainest segment.
    near.sort_by_key(|value| match field {
        Field::Flags => u128::from(*value != 2),
        _ => value.abs_diff(was),
    });
    near.truncate(MOST_VALUES);
    Ok((!near.is_empty()).then_some(near))
}

// ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────

impl WhyNot {
    pub(super) fn text(&self) -> String {
        if let Some(none) = &self.none {
            return format!("why not: {none}");
        }
        let mut text = "it would pass".to_owned();
        let all = [
            ("as another packet", &self.packet),
            ("with a rule changed", &self.rule),
            ("with a rule more", &self.more),
        ];
        for (how, change) in all {
            match change {
                Some(Change { what, fate, rule }) => {
                    let by = rule.as_ref().map_or_else(String::new, |rule| format!(" by {rule}"));
                    text.push_str(&format!("\n  {how}: {what}\n    tried: {fate}{by}"));
                }
                None => text.push_str(&format!("\n  {how}: none was found")),
            }
        }
        text
    }
}

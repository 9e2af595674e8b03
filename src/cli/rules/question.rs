//! Which packets a question is about, from options in the words of rules.

use super::search::too_large;
use crate::cli::{Failure, Result};
use anyhow::anyhow;
use stateway_core::filter::{Ruleset, service_port};
use stateway_core::packet::Family;
use stateway_model::space::Made;
use stateway_model::{Field, Set, Space, matching};

/// What is asked of packets; what is not given is free.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Question {
    /// Where packets come in: a name, or the beginning of names, as in `wan+`
    #[arg(long = "in", value_name = "IFACE")]
    in_iface: Option<String>,
    /// Where packets leave
    #[arg(long = "out", value_name = "IFACE")]
    out_iface: Option<String>,
    /// An address or a network
    #[arg(long, value_name = "NET")]
    src: Option<String>,
    /// An address or a network
    #[arg(long, value_name = "NET")]
    dst: Option<String>,
    /// Where they were sent before a rule gave them another destination: an address or a network
    #[arg(long, value_name = "NET")]
    orig_dst: Option<String>,
    /// The port that they were sent to, likewise
    #[arg(long, value_name = "PORTS")]
    orig_dport: Option<String>,
    /// A protocol by its name or number
    #[arg(long, value_name = "PROTO")]
    proto: Option<String>,
    /// Ports: `22`, `ssh`, `1024:65535`, or several of them behind commas
    #[arg(long, value_name = "PORTS")]
    sport: Option<String>,
    /// Ports, likewise
    #[arg(long, value_name = "PORTS")]
    dport: Option<String>,
    /// States: `NEW`, or several behind commas
    #[arg(long, value_name = "STATES")]
    state: Option<String>,
}

impl Question {
    /// The interfaces that it names.
    pub(super) fn ifaces(&self) -> Vec<String> {
        self.in_iface.iter().chain(&self.out_iface).cloned().collect()
    }

    /// Whether it is about packets that leave where they came in.
    pub(super) fn turns_back(&self) -> bool {
        self.in_iface.is_some() && self.in_iface == self.out_iface
    }

    /// Whether it can be about packets of the family: addresses say which one they are of.
    pub(super) fn is_about(&self, family: Family) -> bool {
        self.src
            .iter()
            .chain(&self.dst)
            .chain(&self.orig_dst)
            .all(|net| net.contains(':') == (family == Family::Ipv6))
            && self.proto.as_deref().is_none_or(|proto| match proto {
                "icmpv6" | "ipv6-icmp" | "icmp6" => family == Family::Ipv6,
                _ => true,
            })
    }

    /// What it asks of packets as they come in, before they are translated.
    pub(super) fn as_it_came(&self, space: &Space) -> Result<Set> {
        if self.orig_dst.is_none() && self.orig_dport.is_none() {
            return Ok(space.full());
        }
        let conditions = [("--orig-dst", "-d", self.orig_dst.as_deref())];
        let ports = [(Field::Dport, &self.orig_dport, "--orig-dport")];
        let set = asked(space, &conditions, &ports)?;
        // Known connections are described as FORWARD sees them, whatever their packets were sent to.
        let new = space.is(Field::State, 0).map_err(too_large)?;
        set.and(&new).map_err(too_large)
    }

    /// The packets that it is about, as FORWARD sees them.
    pub(super) fn packets(&self, space: &Space) -> Result<Set> {
        let proto = self.proto.as_deref().map(|proto| match (proto, space.family) {
            ("icmp", Family::Ipv6) | ("icmp6", _) => "icmpv6",
            _ => proto,
        });
        let conditions = [
            ("--in", "-i", self.in_iface.as_deref()),
            ("--out", "-o", self.out_iface.as_deref()),
            ("--src", "-s", self.src.as_deref()),
            ("--dst", "-d", self.dst.as_deref()),
            ("--proto", "-p", proto),
            ("--state", "-m conntrack --ctstate", self.state.as_deref()),
        ];
        let ports = [(Field::Sport, &self.sport, "--sport"), (Field::Dport, &self.dport, "--dport")];
        asked(space, &conditions, &ports)
    }
}

/// An option, the words of a rule for it, and its value.
type Condition<'a> = (&'static str, &'static str, Option<&'a str>);

fn asked(
    space: &Space,
    conditions: &[Condition<'_>],
    ports: &[(Field, &Option<String>, &str)],
) -> Result<Set> {
    let rules = as_rule(space.family, &space.ifaces, conditions)?;
    let chain = rules.chains(stateway_core::filter::Table::Filter).iter().find(|chain| chain.name == CHAIN);
    let mut set = space.full();
    for rule in chain.iter().flat_map(|chain| &chain.rules) {
        set = set.and(&matching(space, &rule.matches).map_err(too_large)?).map_err(too_large)?;
    }
    for (field, ports, option) in ports {
        let Some(ports) = ports else { continue };
        let ports = parse_ports(ports, option)?;
        let of = with_ports(space, *field, &ports).map_err(too_large)?;
        set = set.and(&of).map_err(too_large)?;
    }
    Ok(set)
}

/// Everything but ports as the conditions of a rule, so that it is read as rules are.
fn as_rule(family: Family, ifaces: &[String], conditions: &[Condition<'_>]) -> Result<Ruleset> {
    let mut line = format!("-A {CHAIN}");
    for (option, word, value) in conditions {
        let Some(value) = value else { continue };
        let is_odd =
            |c: char| c.is_whitespace() || "\"'\\#".contains(c) || (c == ',' && *option != "--state");
        if value.is_empty() || value.contains(is_odd) {
            return Err(Failure::Input(anyhow!("`{option} {value}`: one value is expected")));
        }
        let one = format!("{line} {word} {value}");
        // Each by itself, so that an error names its option.
        let text = format!("*filter\n:{CHAIN} - [0:0]\n-A {CHAIN} {word} {value}\nCOMMIT\n");
        Ruleset::load(&text, family, ifaces).map_err(|errors| {
            let error = errors.into_iter().next();
            let hint = error
                .as_ref()
                .and_then(|e| e.hint.clone())
                .map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
            Failure::Input(anyhow!(
                "`{option} {value}`: {}{hint}",
                error.map_or_else(String::new, |e| e.message)
            ))
        })?;
        line = one;
    }
    let text = format!("*filter\n:{CHAIN} - [0:0]\n{line}\nCOMMIT\n");
    Ruleset::load(&text, family, ifaces).map(|loaded| loaded.ruleset).map_err(|errors| {
        Failure::Input(anyhow!("{}", errors.first().map_or_else(String::new, |e| e.message.clone())))
    })
}

/// Where the rule of a question stands.
const CHAIN: &str = "question";

/// Packets that have ports, and these.
fn with_ports(space: &Space, field: Field, ports: &[(u16, u16)]) -> Made<Set> {
    let ranges: Made<Vec<Set>> =
        ports.iter().map(|(low, high)| space.between(field, (*low).into(), (*high).into())).collect();
    space.any(ranges?)?.and(&space.have_ports()?)
}

fn parse_ports(text: &str, option: &str) -> Result<Vec<(u16, u16)>> {
    let port = |word: &str| {
        let port = word.parse().ok().or_else(|| service_port(word));
        port.ok_or_else(|| {
            Failure::Input(anyhow!(
                "`{option} {text}`: `{word}` is no port\n  hint: `22`, `ssh`, `1024:65535`"
            ))
        })
    };
    text.split(',')
        .map(|word| match word.split_once(':') {
            None => port(word).map(|port| (port, port)),
            Some((low, high)) => {
                let low = if low.is_empty() { 0 } else { port(low)? };
                let high = if high.is_empty() { u16::MAX } else { port(high)? };
                if low > high {
                    return Err(Failure::Input(anyhow!(
                        "`{option} {text}`: the range `{word}` ends before it begins"
                    )));
                }
                Ok((low, high))
            }
        })
        .collect()
}

//! Which packets are shown: options, and what the router calls what they name.

use anyhow::{anyhow, bail};
use stateway_core::filter::nearest;
use stateway_runtime::control::protocol::{RuleCount, VerdictFilter};
use stateway_runtime::control::{Client, Command, Reply};
use std::net::IpAddr;

const FATES: [&str; 5] = ["forwarded", "dropped", "rejected", "delivered", "queued"];
const STATES: [&str; 5] = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"];

/// Packets that agree with every option are shown.
#[derive(Debug, clap::Args)]
pub(super) struct SelectArgs {
    /// Packets from or to this address or network; of two, those between them
    #[arg(value_name = "ADDRESS", value_parser = network, num_args = 0..=2)]
    addresses: Vec<String>,
    /// What became of it: forwarded, dropped, rejected, delivered, queued; several by commas
    #[arg(long, value_name = "FATE", value_delimiter = ',', ignore_case = true, value_parser = FATES)]
    fate: Vec<String>,
    /// Connection state: NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED; several by commas
    #[arg(long, visible_alias = "ctstate", value_name = "STATE", value_delimiter = ',', ignore_case = true, value_parser = STATES)]
    state: Vec<String>,
    /// The rule that decided, as `FORWARD/2`, `raw/PREROUTING/1`, `policy`, or by its comment
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// A port of the router, in or out, by its name; or by its number a TCP or UDP port of either end
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// A port of the router where the packet comes in
    #[arg(long = "in", value_name = "PORT")]
    in_port: Option<String>,
    /// Upper-layer protocol: tcp, udp, icmp, …, or its number
    #[arg(long, short = 'p', value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<u8>,
}

impl SelectArgs {
    /// # Errors
    /// The router has no such rule, or has ended.
    pub(super) fn filter(&self, client: &mut Client) -> anyhow::Result<VerdictFilter> {
        let mut filter = VerdictFilter {
            hosts: self.addresses.clone(),
            fates: self.fate.iter().map(|fate| fate.to_ascii_lowercase()).collect(),
            ctstates: self.state.iter().map(|state| state.to_ascii_uppercase()).collect(),
            in_iface: self.in_port.clone(),
            protocol: self.protocol,
            ..VerdictFilter::default()
        };
        if let Some(port) = &self.port {
            match port.parse() {
                Ok(number) if !ports(client)?.contains(port) => filter.port = Some(number),
                _ => filter.iface = Some(port.clone()),
            }
        }
        if let Some(rule) = &self.rule {
            filter.rules = find_rules(rule, &rules(client)?)?;
        }
        Ok(filter)
    }
}

fn network(text: &str) -> Result<String, String> {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    if address.parse::<IpAddr>().is_ok() && length.parse::<u8>().is_ok() {
        return Ok(text.to_owned());
    }
    Err("it is no address, and no network such as `192.0.2.0/24`\n  hint: a lab goes behind `--lab`"
        .to_owned())
}

fn protocol(text: &str) -> Result<u8, String> {
    const NAMES: [(&str, u8); 9] = [
        ("icmp", 1),
        ("tcp", 6),
        ("udp", 17),
        ("gre", 47),
        ("esp", 50),
        ("icmpv6", 58),
        ("ipv6-icmp", 58),
        ("sctp", 132),
        ("udplite", 136),
    ];
    let by_name = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
    by_name.or_else(|| text.parse().ok()).ok_or_else(|| "a protocol, such as `tcp`, or its number".to_owned())
}

fn ports(client: &mut Client) -> anyhow::Result<Vec<String>> {
    match client.call(&Command::Interfaces)?.into_iter().next() {
        Some(Reply::Interfaces { interfaces }) => Ok(interfaces.into_iter().map(|i| i.name).collect()),
        other => bail!("the router answered something else: {other:?}"),
    }
}

fn rules(client: &mut Client) -> anyhow::Result<Vec<RuleCount>> {
    match client.call(&Command::Rules)?.into_iter().next() {
        Some(Reply::Rules { rules, .. }) => Ok(rules),
        other => bail!("the router answered something else: {other:?}"),
    }
}

/// The full names of the rules that somebody means.
fn find_rules(asked: &str, rules: &[RuleCount]) -> anyhow::Result<Vec<String>> {
    if asked == "policy" {
        return Ok(vec![asked.to_owned()]);
    }
    let in_filter = format!("filter/{asked}");
    let has_comment = |rule: &RuleCount| {
        [format!("--comment {asked} "), format!("--comment \"{asked}\" ")]
            .iter()
            .any(|comment| format!("{} ", rule.text).contains(comment))
    };
    let is_meant = |rule: &&RuleCount| rule.name == asked || rule.name == in_filter || has_comment(rule);
    let mut names: Vec<String> = rules.iter().filter(is_meant).map(|rule| rule.name.clone()).collect();
    names.dedup();
    if !names.is_empty() {
        return Ok(names);
    }
    let known = rules.iter().map(|rule| rule.name.as_str());
    let hint = match nearest(asked, known.clone()).or_else(|| nearest(&in_filter, known)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`stateway rules list` shows those that are in force".to_owned(),
    };
    Err(anyhow!("the router has no rule `{asked}`\n  hint: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, text: &str) -> RuleCount {
        let (name, text) = (name.to_owned(), text.to_owned());
        RuleCount { family: 4, name, text, packets: 0, bytes: 0 }
    }

    #[test]
    fn a_rule_goes_by_its_name_its_place_and_its_comment() {
        let rules = [
            rule("raw/PREROUTING/1", "-A PREROUTING -j ACCEPT"),
            rule("filter/FORWARD/1", "-A FORWARD -m comment --comment ssh -j ACCEPT"),
            rule("filter/FORWARD/2", "-A FORWARD -m comment --comment \"the rest of it\" -j DROP"),
            rule("filter/FORWARD/policy", "DROP"),
        ];
        for (asked, found) in [
            ("filter/FORWARD/1", "filter/FORWARD/1"),
            ("FORWARD/2", "filter/FORWARD/2"),
            ("ssh", "filter/FORWARD/1"),
            ("the rest of it", "filter/FORWARD/2"),
            ("raw/PREROUTING/1", "raw/PREROUTING/1"),
            ("policy", "policy"),
        ] {
            assert_eq!(find_rules(asked, &rules).unwrap(), [found], "{asked}");
        }
        let told = find_rules("FORWRD/2", &rules).unwrap_err().to_string();
        assert!(told.contains("did you mean `filter/FORWARD/2`"), "{told}");
        assert!(find_rules("rest", &rules).is_err(), "a part of a comment is none");
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_word_on_labs() {
        assert!(network("192.0.2.0/24").is_ok() && network("2001:db8::1").is_ok());
        assert!(network("article").unwrap_err().contains("--lab"));
        assert!(network("192.0.2.1/x").is_err());
    }
}

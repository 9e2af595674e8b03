//! Which connections are meant, and what one is to be like: conntrack-tools' options.

use anyhow::{Context as _, bail};
use stateway_core::filter::nearest;
use stateway_core::packet::tuple::ports_header_len;
use stateway_runtime::control::protocol::{
    EntryChange, EntryDraft, EntryFilter, FlowSelect, IcmpSelect, NatSelect,
};

const ICMP: [u8; 2] = [1, 58];
/// What people call connections without an answer, and what it is: a bit that is not set.
const UNREPLIED: [&str; 2] = ["UNREPLIED", "UNSET_REPLY"];

/// Which connections are meant: those that agree with every option.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Connections")]
pub(super) struct Select {
    /// Protocol, by name or number
    #[arg(short = 'p', long = "proto", alias = "protonum", value_name = "PROTO", value_parser = protocol)]
    protocol: Option<u8>,
    /// Source of the first packet, an address or a network
    #[arg(short = 's', long = "src", alias = "orig-src", value_name = "ADDR")]
    src: Option<String>,
    /// Destination of the first packet
    #[arg(short = 'd', long = "dst", alias = "orig-dst", value_name = "ADDR")]
    dst: Option<String>,
    /// Source of the answers
    #[arg(short = 'r', long = "reply-src", value_name = "ADDR")]
    reply_src: Option<String>,
    /// Destination of the answers
    #[arg(short = 'q', long = "reply-dst", value_name = "ADDR")]
    reply_dst: Option<String>,
    #[arg(long, alias = "orig-port-src", value_name = "PORT")]
    sport: Option<u16>,
    #[arg(long, alias = "orig-port-dst", value_name = "PORT")]
    dport: Option<u16>,
    #[arg(long, value_name = "PORT")]
    reply_port_src: Option<u16>,
    #[arg(long, value_name = "PORT")]
    reply_port_dst: Option<u16>,
    /// The protocol's state, such as ESTABLISHED
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// ipv4 or ipv6
    #[arg(short = 'f', long = "family", value_name = "FAMILY", value_parser = family)]
    family: Option<u8>,
    /// ICMP's type, by its number
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<u8>,
    #[arg(long, value_name = "CODE")]
    icmp_code: Option<u8>,
    /// The identifier of a ping
    #[arg(long, value_name = "ID")]
    icmp_id: Option<u16>,
    /// SCTP's verification tag of the original direction, with -I and -A
    #[arg(long, value_name = "TAG", default_value_t)]
    orig_vtag: u32,
    /// That of the reply direction
    #[arg(long, value_name = "TAG", default_value_t)]
    reply_vtag: u32,
    /// Whose source is translated, to this address if there is one
    #[arg(short = 'n', long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "")]
    src_nat: Option<String>,
    /// Whose destination is translated
    #[arg(short = 'g', long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "")]
    dst_nat: Option<String>,
    /// One of both
    #[arg(short = 'j', long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "")]
    any_nat: Option<String>,
    /// Status bits that are set: `ASSURED`, `SEEN_REPLY`, `EXPECTED`, `FIXED_TIMEOUT`; `UNREPLIED` means not `SEEN_REPLY`. With -I, -A and -U: that are to be set
    #[arg(short = 'u', long = "status", value_name = "STATUS", value_delimiter = ',')]
    status: Vec<String>,
    /// Connection mark, with a mask behind a slash. With -I, -A and -U: the mark to set
    #[arg(short = 'm', long = "mark", value_name = "MARK", value_parser = mark)]
    mark: Option<(u32, u32)>,
    #[arg(short = 'w', long = "zone", alias = "orig-zone", value_name = "ZONE")]
    zone: Option<u16>,
    /// Which helper reads it
    #[arg(long, value_name = "NAME")]
    helper: Option<String>,
    /// With -I, -A and -U: seconds that it has to live
    #[arg(short = 't', long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// With -E: NEW, UPDATES, DESTROY or ALL
    #[arg(short = 'e', long = "event-mask", value_name = "EVENTS", value_delimiter = ',', value_parser = event_kind)]
    kinds: Vec<String>,
}

impl Select {
    pub(super) fn filter(&self) -> EntryFilter {
        let (unreplied, status): (Vec<String>, Vec<String>) = self
            .status
            .iter()
            .cloned()
            .partition(|word| UNREPLIED.iter().any(|unreplied| unreplied.eq_ignore_ascii_case(word)));
        EntryFilter {
            mark: self.mark,
            status,
            status_unset: unreplied.into_iter().map(|_| "SEEN_REPLY".to_owned()).collect(),
            nat: NatSelect {
                source: self.src_nat.clone(),
                destination: self.dst_nat.clone(),
                any: self.any_nat.clone(),
            },
            ..self.flow_filter()
        }
    }

    /// The connections whose flow is meant; mark, status and NAT's addresses say what is to be.
    pub(super) fn flow_filter(&self) -> EntryFilter {
        EntryFilter {
            family: self.family,
            protocol: self.protocol,
            zone: self.zone,
            original: self.original(),
            reply: self.reply(),
            state: self.state.clone(),
            helper: self.helper.clone(),
            icmp: self.icmp(),
            ..EntryFilter::default()
        }
    }

    fn original(&self) -> FlowSelect {
        FlowSelect { src: self.src.clone(), dst: self.dst.clone(), sport: self.sport, dport: self.dport }
    }

    fn reply(&self) -> FlowSelect {
        FlowSelect {
            src: self.reply_src.clone(),
            dst: self.reply_dst.clone(),
            sport: self.reply_port_src,
            dport: self.reply_port_dst,
        }
    }

    const fn icmp(&self) -> IcmpSelect {
        IcmpSelect { kind: self.icmp_type, code: self.icmp_code, id: self.icmp_id }
    }

    /// Whether the options say enough to mean one connection.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn names_one(&self) -> anyhow::Result<()> {
        let protocol = self.protocol.context("it takes `--proto`")?;
        let is_either = |[a, b]: [bool; 2], [c, d]: [bool; 2]| a && b || c && d;
        let has = |text: &Option<String>| text.is_some();
        let addresses = [[&self.src, &self.dst], [&self.reply_src, &self.reply_dst]].map(|two| two.map(has));
        if !is_either(addresses[0], addresses[1]) {
            bail!("it takes `--src` and `--dst`, or `--reply-src` and `--reply-dst`");
        }
        let ports = [[self.sport, self.dport], [self.reply_port_src, self.reply_port_dst]];
        let ports = ports.map(|two| two.map(|port| port.is_some()));
        if ports_header_len(protocol).is_some() && !is_either(ports[0], ports[1]) {
            bail!("it takes `--sport` and `--dport`, or `--reply-port-src` and `--reply-port-dst`");
        }
        if ICMP.contains(&protocol) && self.icmp_type.is_none() {
            bail!("it takes `--icmp-type`");
        }
        Ok(())
    }

    /// # Errors
    /// An option says which connections to change or what to make, and nothing is made or changed here.
    pub(super) fn only_selects(&self) -> anyhow::Result<()> {
        if self.timeout.is_some() {
            bail!("`--timeout` goes with `-I`, `-A` and `-U` alone");
        }
        Ok(())
    }

    /// The connection that `-I` and `-A` make.
    pub(super) fn draft(&self) -> anyhow::Result<EntryDraft> {
        self.names_one()?;
        let timeout = self.timeout.context("it takes `--timeout`")?;
        if self.any_nat.is_some() {
            bail!("`--any-nat` says not which end: `--src-nat` or `--dst-nat`");
        }
        let mut reply = self.reply();
        translate(self.src_nat.as_deref(), &mut reply.dst, &mut reply.dport)?;
        translate(self.dst_nat.as_deref(), &mut reply.src, &mut reply.sport)?;
        Ok(EntryDraft {
            protocol: self.protocol.unwrap_or_default(),
            zone: self.zone.unwrap_or_default(),
            original: self.original(),
            reply,
            icmp: self.icmp(),
            timeout,
            state: self.state.clone(),
            vtags: [self.orig_vtag, self.reply_vtag],
            mark: self.mark.map_or(0, |(value, _)| value),
            status: self.status.clone(),
            helper: self.helper.clone(),
        })
    }

    /// What `-U` changes.
    pub(super) fn change(&self) -> anyhow::Result<EntryChange> {
        let change = EntryChange { timeout: self.timeout, mark: self.mark, status: self.status.clone() };
        if change == EntryChange::default() {
            bail!("nothing is to be changed: `--timeout`, `--mark` or `--status` says what");
        }
        Ok(change)
    }

    pub(super) const fn has_event_kinds(&self) -> bool {
        !self.kinds.is_empty()
    }

    pub(super) fn event_kinds(&self) -> Vec<String> {
        if self.kinds.iter().any(|kind| kind == "ALL") { Vec::new() } else { self.kinds.clone() }
    }
}

/// Takes `ADDR` or `ADDR:PORT` for an end of the reply.
fn translate(to: Option<&str>, addr: &mut Option<String>, port: &mut Option<u16>) -> anyhow::Result<()> {
    let Some(to) = to else { return Ok(()) };
    if to.is_empty() {
        bail!("it takes the address to translate to");
    }
    let parts = to.rsplit_once(':').filter(|(before, _)| !before.contains(':') || before.ends_with(']'));
    match parts {
        None => *addr = Some(to.to_owned()),
        Some((before, number)) => {
            *addr = Some(before.trim_matches(['[', ']']).to_owned());
            *port = Some(number.parse().with_context(|| format!("`{number}` is no port"))?);
        }
    }
    Ok(())
}

/// NEW, UPDATES or UPDATE, DESTROY, ALL, in any case.
fn event_kind(text: &str) -> anyhow::Result<String> {
    const KNOWN: [&str; 4] = ["NEW", "UPDATES", "DESTROY", "ALL"];
    let word = text.to_uppercase().replace("UPDATES", "UPDATE");
    if word == "UPDATE" || KNOWN.contains(&word.as_str()) {
        return Ok(word);
    }
    match nearest(text, KNOWN) {
        Some(near) => bail!("no event named `{text}`: did you mean `{near}`?"),
        None => bail!("no event named `{text}`: there are {}", KNOWN.join(", ")),
    }
}

fn protocol(text: &str) -> anyhow::Result<u8> {
    let names = [
        ("icmp", 1),
        ("tcp", 6),
        ("udp", 17),
        ("dccp", 33),
        ("gre", 47),
        ("icmpv6", 58),
        ("sctp", 132),
        ("udplite", 136),
    ];
    let named = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok()).with_context(|| format!("no protocol named `{text}`"))
}

fn family(text: &str) -> anyhow::Result<u8> {
    match text {
        "ipv4" => Ok(4),
        "ipv6" => Ok(6),
        other => bail!("`{other}` is no family: ipv4 or ipv6"),
    }
}

/// `7`, `0x7` or `0x10/0xf0`.
fn mark(text: &str) -> anyhow::Result<(u32, u32)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match text.split_once('/') {
        Some((value, mask)) => Ok((number(value)?, number(mask)?)),
        None => Ok((number(text)?, u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_translated_to_an_address_and_a_port() {
        let read = |text: &str| {
            let (mut addr, mut port) = (None, None);
            translate(Some(text), &mut addr, &mut port).map(|()| (addr.unwrap(), port))
        };
        assert_eq!(read("192.0.2.1").unwrap(), ("192.0.2.1".to_owned(), None));
        assert_eq!(read("192.0.2.1:80").unwrap(), ("192.0.2.1".to_owned(), Some(80)));
        assert_eq!(read("2001:db8::1").unwrap(), ("2001:db8::1".to_owned(), None));
        assert_eq!(read("[2001:db8::1]:80").unwrap(), ("2001:db8::1".to_owned(), Some(80)));
        assert!(read("192.0.2.1:http").is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn a_misspelt_event_has_a_near_name() {
        assert_eq!(event_kind("updates").unwrap(), "UPDATE");
        assert!(event_kind("NWE").unwrap_err().to_string().contains("`NEW`"));
        assert!(event_kind("nonsense").unwrap_err().to_string().contains("DESTROY"));
    }
}

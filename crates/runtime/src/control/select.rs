//! What clients say of connections, read: which are meant, what one is to be like, what is to be different about them.

use super::protocol::{EntryChange, EntryDraft, EntryFilter, EntryMatch, FlowSelect, IcmpSelect, NatSelect};
use stateway_core::conntrack::change::{Change, Draft, DraftState, SETTABLE};
use stateway_core::conntrack::sctp::SctpState;
use stateway_core::conntrack::tcp::TcpState;
use stateway_core::conntrack::{
    Direction, Entry, Filter, FlowFilter, Helper, IcmpFilter, NatFilter, Status, Translated,
};
use stateway_core::filter::nearest;
use stateway_core::packet::tuple::{PROTO_SCTP, PROTO_TCP, ports_header_len};
use stateway_core::packet::{Addr, Family, Prefix, Tuple};
use stateway_core::time::Duration;
use std::net::IpAddr;

/// The bits of an entry's status that conntrack-tools name, and one that they show only as a word of the listing.
pub(super) const STATUS: &[(&str, Status)] = &[
    ("EXPECTED", Status::EXPECTED),
    ("SEEN_REPLY", Status::SEEN_REPLY),
    ("ASSURED", Status::ASSURED),
    ("CONFIRMED", Status::CONFIRMED),
    ("FIXED_TIMEOUT", Status::FIXED_TIMEOUT),
];
/// Words of conntrack-tools for what never is here: nothing is offloaded.
const NEVER: [&str; 2] = ["OFFLOAD", "HW_OFFLOAD"];

/// Reads a client's filter.
///
/// # Errors
/// What in it means nothing, for the client.
pub(super) fn read_filter(filter: &EntryFilter) -> Result<Filter, String> {
    let EntryFilter {
        family,
        protocol,
        zone,
        original,
        reply,
        state,
        mark,
        status,
        status_unset,
        helper,
        icmp,
        nat,
    } = filter;
    let family = match family {
        None => None,
        Some(4) => Some(Family::Ipv4),
        Some(6) => Some(Family::Ipv6),
        Some(other) => return Err(format!("`{other}` is no family: 4 or 6")),
    };
    if let Some(state) = state {
        check_state(state, *protocol)?;
    }
    let IcmpSelect { kind, code, id } = *icmp;
    let (never, status): (Vec<String>, Vec<String>) =
        status.iter().cloned().partition(|word| NEVER.iter().any(|never| never.eq_ignore_ascii_case(word)));
    Ok(Filter {
        family,
        proto: *protocol,
        zone: *zone,
        original: read_flow(original)?,
        reply: read_flow(reply)?,
        state: state.clone(),
        mark: *mark,
        status: read_status(&status)?,
        // What is never set cannot be: every connection that is shown is confirmed.
        status_unset: read_status(status_unset)?
            | if never.is_empty() { Status::empty() } else { Status::CONFIRMED },
        helper: helper.as_deref().map(read_helper).transpose()?,
        icmp: IcmpFilter { kind, code, id },
        nat: read_nat(nat)?,
    })
}

/// Which connections a glance at the table is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Meant {
    host: Option<Prefix>,
    port: Option<u16>,
    proto: Option<u8>,
    state: Option<String>,
}

impl Meant {
    pub(super) fn is(&self, entry: &Entry) -> bool {
        let Self { host, port, proto, state } = self;
        if proto.is_some_and(|proto| proto != entry.original.proto) {
            return false;
        }
        let is_state =
            |state: &String| entry.state_word().is_some_and(|word| word.eq_ignore_ascii_case(state));
        let tuples = [Direction::Original, Direction::Reply].map(|direction| entry.tuple(direction));
        let is_host = |net: &Prefix| {
            let is_within = |tuple: &Tuple| {
                net.family == tuple.family && (net.contains(tuple.src) || net.contains(tuple.dst))
            };
            tuples.iter().any(is_within)
        };
        let is_port = |port: u16| {
            let is_it = |tuple: &Tuple| !tuple.is_icmp() && (tuple.left == port || tuple.right == port);
            tuples.iter().any(is_it)
        };
        state.as_ref().is_none_or(is_state) && host.as_ref().is_none_or(is_host) && port.is_none_or(is_port)
    }
}

/// Reads which connections a client wants to see.
///
/// # Errors
/// What in it means nothing, for the client.
pub(super) fn read_match(matching: &EntryMatch) -> Result<Meant, String> {
    let EntryMatch { host, port, protocol, state } = matching;
    if let Some(state) = state {
        check_state(state, *protocol)?;
    }
    let host = host.as_deref().map(read_prefix).transpose()?;
    Ok(Meant { host, port: *port, proto: *protocol, state: state.clone() })
}

fn read_helper(name: &str) -> Result<Helper, String> {
    Helper::by_name(name).ok_or_else(|| format!("no helper named `{name}`"))
}

fn read_flow(select: &FlowSelect) -> Result<FlowFilter, String> {
    let prefix = |text: &Option<String>| text.as_deref().map(read_prefix).transpose();
    let FlowSelect { src, dst, sport, dport } = select;
    Ok(FlowFilter { src: prefix(src)?, dst: prefix(dst)?, sport: *sport, dport: *dport })
}

fn read_nat(select: &NatSelect) -> Result<NatFilter, String> {
    let NatSelect { source, destination, any } = select;
    let translated = |text: &Option<String>| match text.as_deref() {
        None => Ok(None),
        Some("") => Ok(Some(Translated(None))),
        Some(text) => Ok::<_, String>(Some(Translated(Some(read_prefix(text)?)))),
    };
    Ok(NatFilter {
        source: translated(source)?,
        destination: translated(destination)?,
        any: translated(any)?,
    })
}

fn read_status(names: &[String]) -> Result<Status, String> {
    let bit = |name: &String| {
        let found = STATUS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let known = || STATUS.iter().map(|(known, _)| *known).chain(["UNREPLIED"]);
        found.map(|(_, bit)| *bit).ok_or_else(|| unknown("status", name, &known().collect::<Vec<_>>()))
    };
    names.iter().try_fold(Status::empty(), |all, name| Ok(all | bit(name)?))
}

/// The bits that a person may set; `UNSET` sets none.
fn read_settable(names: &[String]) -> Result<Status, String> {
    let named: Vec<String> = names.iter().filter(|n| !n.eq_ignore_ascii_case("UNSET")).cloned().collect();
    let status = read_status(&named)?;
    if SETTABLE.contains(status) {
        return Ok(status);
    }
    let settable: Vec<String> = STATUS
        .iter()
        .filter(|(_, bit)| SETTABLE.contains(*bit))
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    Err(format!("only {} can be set by hand", settable.join(", ")))
}

/// Whether a protocol, or any if none is given, has a state of this name.
fn check_state(state: &str, protocol: Option<u8>) -> Result<(), String> {
    let tcp = || TcpState::ALL.map(TcpState::name).to_vec();
    let sctp = || SctpState::ALL.map(SctpState::word).to_vec();
    let known = match protocol {
        None => [tcp(), sctp()].concat(),
        Some(PROTO_TCP) => tcp(),
        Some(PROTO_SCTP) => sctp(),
        Some(_) => return Err("only connections of TCP and SCTP have a state".to_owned()),
    };
    if known.contains(&state) { Ok(()) } else { Err(unknown("state", state, &known)) }
}

fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let hint = match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            format!("there are {}", known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", "))
        }
    };
    format!("no {what} named `{word}`\n  hint: {hint}")
}

/// Reads what a connection is to be like that no packet opened.
///
/// # Errors
/// What in it means nothing, or is missing.
pub(super) fn read_draft(draft: &EntryDraft) -> Result<Draft, String> {
    let EntryDraft { protocol, zone, original, reply, icmp, timeout, state, vtags, mark, status, helper } =
        draft;
    let (src, family) = read_address(original.src.as_ref().or(reply.dst.as_ref()), "source")?;
    let (dst, other) = read_address(original.dst.as_ref().or(reply.src.as_ref()), "destination")?;
    let mut tuple = Tuple { src, dst, left: 0, right: 0, zone: *zone, proto: *protocol, family };
    if ports_header_len(*protocol).is_some() {
        tuple.left = original.sport.or(reply.dport).ok_or("it takes a source port")?;
        tuple.right = original.dport.or(reply.sport).ok_or("it takes a destination port")?;
    } else if tuple.is_icmp() {
        let kind = icmp.kind.ok_or("it takes a type of ICMP")?;
        tuple.left = icmp.id.unwrap_or_default();
        tuple.right = u16::from(kind) << 8 | u16::from(icmp.code.unwrap_or_default());
    }
    let mirror = tuple.reply();
    let address = |text: &Option<String>, mirror| match text {
        None => Ok((mirror, family)),
        Some(_) => read_address(text.as_ref(), "reply"),
    };
    let (reply_src, third) = address(&reply.src, mirror.src)?;
    let (reply_dst, fourth) = address(&reply.dst, mirror.dst)?;
    if [other, third, fourth].iter().any(|other| *other != family) {
        return Err("all addresses must be of one family".to_owned());
    }
    let (left, right) = (reply.sport.unwrap_or(mirror.left), reply.dport.unwrap_or(mirror.right));
    Ok(Draft {
        original: tuple,
        reply: Tuple { src: reply_src, dst: reply_dst, left, right, ..mirror },
        timeout: Duration::from_secs(u64::from(*timeout).min(i32::MAX as u64)),
        state: read_state(*protocol, state.as_deref(), *vtags)?,
        status: read_settable(status)?,
        mark: *mark,
        helper: helper.as_deref().map(read_helper).transpose()?,
    })
}

fn read_state(protocol: u8, state: Option<&str>, vtags: [u32; 2]) -> Result<DraftState, String> {
    if let Some(state) = state {
        check_state(state, Some(protocol))?;
    }
    let state = || state.ok_or_else(|| "it takes a state, such as `ESTABLISHED`".to_owned());
    Ok(match protocol {
        PROTO_TCP => {
            let word = state()?;
            DraftState::Tcp(TcpState::ALL.into_iter().find(|s| s.name() == word).unwrap_or_default())
        }
        PROTO_SCTP => {
            let word = state()?;
            let state = SctpState::ALL.into_iter().find(|s| s.word() == word).unwrap_or_default();
            DraftState::Sctp(state, vtags)
        }
        _ => DraftState::Plain,
    })
}

/// Reads what is to be different about connections.
///
/// # Errors
/// What in it means nothing.
pub(super) fn read_change(change: &EntryChange) -> Result<Change, String> {
    let EntryChange { timeout, mark, status } = change;
    let timeout = timeout.map(|seconds| Duration::from_secs(u64::from(seconds).min(i32::MAX as u64)));
    Ok(Change { timeout, mark: *mark, status: read_settable(status)? })
}

fn read_address(text: Option<&String>, what: &str) -> Result<(Addr, Family), String> {
    let text = text.ok_or_else(|| format!("it takes a {what} address"))?;
    let addr: IpAddr = text.parse().map_err(|_| format!("`{text}` is no address"))?;
    Ok((Addr::from(addr), Family::from(addr)))
}

/// `192.0.2.1` or `192.0.2.0/24`, either family.
pub(crate) fn read_prefix(text: &str) -> Result<Prefix, String> {
    let problem = || format!("`{text}` is no address or network");
    let (addr, len) = text.split_once('/').map_or((text, None), |(addr, len)| (addr, Some(len)));
    let addr: IpAddr = addr.parse().map_err(|_| problem())?;
    let family = Family::from(addr);
    let len = match len {
        None => family.bits(),
        Some(len) => len.parse().ok().filter(|&len| len <= family.bits()).ok_or_else(problem)?,
    };
    Ok(Prefix::new(Addr::from(addr), len, family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_up_to_the_length_of_their_family() {
        for good in
            ["192.0.2.1", "192.0.2.0/24", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32", "2001:db8::1/128"]
        {
            assert!(read_prefix(good).is_ok(), "{good}");
        }
        for bad in ["", "192.0.2", "192.0.2.1/33", "2001:db8::/129", "192.0.2.1/", "host"] {
            assert!(read_prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        let filter = |change: fn(&mut EntryFilter)| {
            let mut filter = EntryFilter::default();
            change(&mut filter);
            read_filter(&filter)
        };
        assert!(filter(|f| f.family = Some(5)).is_err());
        assert!(filter(|f| f.helper = Some("nonsense".into())).is_err());
        let near = |change| filter(change).unwrap_err();
        assert!(near(|f| f.status = vec!["ASURED".into()]).contains("`ASSURED`"));
        assert!(near(|f| f.state = Some("ESTABLISHD".into())).contains("`ESTABLISHED`"));
        assert!(near(|f| f.state = Some("established".into())).contains("`ESTABLISHED`"));
        let udp = near(|f| (f.protocol, f.state) = (Some(17), Some("ESTABLISHED".into())));
        assert!(udp.contains("TCP and SCTP"));
        assert!(filter(|f| f.state = Some("SHUTDOWN_SENT".into())).is_ok());
        let tcp = near(|f| (f.protocol, f.state) = (Some(6), Some("SHUTDOWN_SENT".into())));
        assert!(tcp.contains("`ESTABLISHED`"));
        let good = filter(|f| f.status = vec!["assured".into(), "SEEN_REPLY".into()]).unwrap();
        assert_eq!(good.status, Status::ASSURED | Status::SEEN_REPLY);
    }

    #[test]
    fn a_draft_is_the_mirror_of_itself_where_nothing_else_is_said() {
        let flow = |src: &str, dst: &str, sport, dport| FlowSelect {
            src: Some(src.into()),
            dst: Some(dst.into()),
            sport: Some(sport),
            dport: Some(dport),
        };
        let original = flow("192.0.2.1", "198.51.100.1", 4000, 53);
        let udp = EntryDraft { protocol: 17, original, timeout: 30, ..EntryDraft::default() };
        let read = read_draft(&udp).unwrap();
        assert_eq!(read.reply, read.original.reply());
        let mut translated = udp.clone();
        translated.reply.dst = Some("203.0.113.1".into());
        assert_ne!(read_draft(&translated).unwrap().reply, read.reply);
        translated.reply.dst = Some("2001:db8::1".into());
        assert!(read_draft(&translated).unwrap_err().contains("one family"));
        let with = |change: fn(&mut EntryDraft)| {
            let mut draft = udp.clone();
            change(&mut draft);
            read_draft(&draft)
        };
        assert!(with(|d| d.original.sport = None).unwrap_err().contains("source port"));
        assert!(with(|d| d.protocol = 6).unwrap_err().contains("a state"));
        assert!(with(|d| d.status = vec!["EXPECTED".into()]).unwrap_err().contains("by hand"));
        assert!(with(|d| d.status = vec!["UNSET".into()]).is_ok());
    }
}

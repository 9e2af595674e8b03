//! Connections and expectations as they go over the control socket, and the filters that choose among them.

use super::protocol::{
    EntryFilter, EntryView, EventView, ExpectationView, FlowSelect, FlowView, Named, Summary,
};
use crate::conntrack::{
    Conntrack, Direction, Entry, EntryId, Event, Expectation, Filter, FlowFilter, Helper, Status, listing,
};
use crate::packet::{Addr, Family, Prefix};
use crate::runtime::Clock;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The bits of an entry's status that conntrack-tools name.
const STATUS: &[(&str, Status)] = &[
    ("EXPECTED", Status::EXPECTED),
    ("SEEN_REPLY", Status::SEEN_REPLY),
    ("ASSURED", Status::ASSURED),
    ("CONFIRMED", Status::CONFIRMED),
    ("FIXED_TIMEOUT", Status::FIXED_TIMEOUT),
];

/// Reads a client's filter.
///
/// # Errors
/// What in it means nothing, for the client.
pub(super) fn read_filter(filter: &EntryFilter) -> Result<Filter, String> {
    let EntryFilter { family, protocol, zone, original, reply, state, mark, status, status_unset, helper } =
        filter;
    let family = match family {
        None => None,
        Some(4) => Some(Family::Ipv4),
        Some(6) => Some(Family::Ipv6),
        Some(other) => return Err(format!("`{other}` is no family: 4 or 6")),
    };
    let helper = match helper {
        None => None,
        Some(name) => Some(Helper::by_name(name).ok_or_else(|| format!("no helper named `{name}`"))?),
    };
    Ok(Filter {
        family,
        proto: *protocol,
        zone: *zone,
        original: read_flow(original)?,
        reply: read_flow(reply)?,
        state: state.as_ref().map(|s| s.to_uppercase()),
        mark: *mark,
        status: read_status(status)?,
        status_unset: read_status(status_unset)?,
        helper,
    })
}

fn read_flow(select: &FlowSelect) -> Result<FlowFilter, String> {
    let prefix = |text: &Option<String>| text.as_deref().map(read_prefix).transpose();
    let FlowSelect { src, dst, sport, dport } = select;
    Ok(FlowFilter { src: prefix(src)?, dst: prefix(dst)?, sport: *sport, dport: *dport })
}

fn read_status(names: &[String]) -> Result<Status, String> {
    let bit = |name: &String| {
        let found = STATUS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, bit)| *bit).ok_or_else(|| format!("no status named `{name}`"))
    };
    names.iter().try_fold(Status::empty(), |all, name| Ok(all | bit(name)?))
}

/// `192.0.2.1` or `192.0.2.0/24`, either family.
fn read_prefix(text: &str) -> Result<Prefix, String> {
    let problem = || format!("`{text}` is no address or network");
    let (addr, len) = text.split_once('/').map_or((text, None), |(addr, len)| (addr, Some(len)));
    let addr: IpAddr = addr.parse().map_err(|_| problem())?;
    let family = if addr.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let len = match len {
        None => family.bits(),
        Some(len) => len.parse().ok().filter(|&len| len <= family.bits()).ok_or_else(problem)?,
    };
    Ok(Prefix::new(Addr::from(addr), len, family))
}

/// An entry for programs, and its line for people.
pub(super) fn view(entry: &Entry, id: Option<EntryId>, now: Option<Instant>) -> EntryView {
    let tuple = entry.original;
    EntryView {
        id: id.map(EntryId::number),
        family: tuple.family as u8,
        protocol: tuple.proto,
        name: listing::proto_name(tuple.proto).to_owned(),
        timeout: now.map(|now| entry.timeout(now).as_secs()),
        state: entry.state_word().map(str::to_owned),
        original: flow(entry, Direction::Original),
        reply: flow(entry, Direction::Reply),
        status: STATUS
            .iter()
            .filter(|(_, bit)| entry.status.contains(*bit))
            .map(|(n, _)| (*n).to_owned())
            .collect(),
        mark: entry.mark,
        zone: tuple.zone,
        helper: entry.helper.map(|helper| helper.name().to_owned()),
        line: listing::entry(entry, now.unwrap_or(entry.expires_at), EXTENDED),
    }
}

const EXTENDED: listing::Options = listing::Options { extended: true, id: None };

/// The table at a glance, with the `newest` connections that began last.
pub(super) fn summary(conntrack: &Conntrack, newest: usize, now: Instant) -> Summary {
    let mut by_state: BTreeMap<String, u64> = BTreeMap::new();
    let mut latest: BTreeMap<(Instant, EntryId), Entry> = BTreeMap::new();
    let mut count = 0;
    conntrack.for_each(&Filter::default(), now, |id, entry| {
        count += 1;
        let name = listing::proto_name(entry.original.proto);
        let word = entry.state_word().map_or(name.to_owned(), |state| format!("{name} {state}"));
        *by_state.entry(word).or_default() += 1;
        let is_newer = latest.first_key_value().is_none_or(|(oldest, _)| *oldest < (entry.began_at, id));
        if latest.len() < newest || is_newer {
            latest.insert((entry.began_at, id), entry.clone());
        }
        if latest.len() > newest {
            latest.pop_first();
        }
    });
    Summary {
        count,
        limit: conntrack.sysctls().max.into(),
        by_state: by_state.into_iter().map(|(name, count)| Named { name, count }).collect(),
        newest: latest.iter().rev().map(|((_, id), entry)| view(entry, Some(*id), Some(now))).collect(),
    }
}

fn flow(entry: &Entry, direction: Direction) -> FlowView {
    let tuple = entry.tuple(direction);
    let counter = entry.is_counted().then(|| entry.counter(direction));
    let port = |port: u16| (!tuple.is_icmp()).then_some(port);
    FlowView {
        src: tuple.src.to_ip(tuple.family),
        dst: tuple.dst.to_ip(tuple.family),
        sport: port(tuple.left),
        dport: port(tuple.right),
        icmp_type: tuple.is_icmp().then(|| tuple.icmp_type()),
        icmp_code: tuple.is_icmp().then(|| tuple.icmp_code()),
        icmp_id: tuple.is_icmp().then_some(tuple.left),
        packets: counter.map(|c| c.packets),
        bytes: counter.map(|c| c.bytes),
    }
}

pub(super) fn view_expectation(expectation: &Expectation, now: Instant) -> ExpectationView {
    let (tuple, master) = (expectation.tuple, expectation.master);
    ExpectationView {
        timeout: expectation.timeout(now).as_secs(),
        protocol: tuple.proto,
        src: tuple.src.to_ip(tuple.family),
        dst: tuple.dst.to_ip(tuple.family),
        dport: tuple.right,
        master: format!("{master}"),
        helper: expectation.helper.name().to_owned(),
        line: listing::expectation(expectation, now),
    }
}

pub(super) fn view_event(event: &Event, clock: &Clock) -> EventView {
    let line = listing::event(event, EXTENDED);
    let (kind, at) = match event {
        Event::Entry { kind, at, .. } | Event::Expectation { kind, at, .. } => (kind.word().to_owned(), *at),
    };
    let (entry, expectation) = match event {
        Event::Entry { entry, at, .. } => (Some(view(entry, None, Some(*at))), None),
        Event::Expectation { expectation, at, .. } => (None, Some(view_expectation(expectation, *at))),
    };
    EventView { kind, time: clock.unix_seconds(at), line, entry, expectation }
}

/// Whether a client that listens for entries that `filter` means wants this event.
pub(super) fn wants(filter: &Filter, expectations: bool, kinds: &[String], event: &Event) -> bool {
    let (kind, agrees) = match event {
        Event::Entry { kind, entry, .. } => (kind, !expectations && filter.matches(entry)),
        Event::Expectation { kind, .. } => (kind, expectations),
    };
    agrees && (kinds.is_empty() || kinds.iter().any(|k| k.eq_ignore_ascii_case(kind.word())))
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
        assert!(filter(|f| f.status = vec!["NONSENSE".into()]).is_err());
        let good = filter(|f| f.status = vec!["assured".into(), "SEEN_REPLY".into()]).unwrap();
        assert_eq!(good.status, Status::ASSURED | Status::SEEN_REPLY);
    }
}

//! Connections and expectations as they go over the control socket.

use super::protocol::{EntryView, EventView, ExpectationView, FlowView};
use super::select::STATUS;
use crate::runtime::Clock;
use stateway_core::conntrack::{Conntrack, Direction, Entry, Event, Expectation, Filter, Proto, listing};
use stateway_core::time::Instant;

/// An entry for programs, and its line for people.
pub(super) fn view(conntrack: &Conntrack, entry: &Entry, now: Instant) -> EntryView {
    let tuple = entry.original;
    EntryView {
        id: conntrack.number(entry),
        family: tuple.family as u8,
        protocol: tuple.proto,
        name: listing::proto_name(tuple.proto).to_owned(),
        timeout: Some(entry.timeout(now).as_secs()),
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
        uses: entry.uses(),
        vtags: match entry.proto() {
            Proto::Sctp(sctp) => Some(sctp.tags()),
            Proto::Tcp(_) | Proto::Plain => None,
        },
        line: listing::entry(entry, now, EXTENDED),
    }
}

pub(super) const EXTENDED: listing::Options = listing::Options { extended: true, id: None };

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

pub(super) fn view_event(conntrack: &Conntrack, event: &Event, clock: &Clock) -> EventView {
    let line = listing::event(event, EXTENDED);
    let (kind, at) = match event {
        Event::Entry { kind, at, .. } | Event::Expectation { kind, at, .. } => (kind.word().to_owned(), *at),
    };
    let (entry, expectation) = match event {
        Event::Entry { entry, at, .. } => (Some(view(conntrack, entry, *at)), None),
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

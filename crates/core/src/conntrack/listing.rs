//! Entries, expectations, events and counters as conntrack-tools print them.

#![forbid(unsafe_code)]

use super::{Direction, Entry, Event, EventKind, Expectation, Stats, Status};
use crate::base::time::Instant;
use crate::packet::tuple::{
    PROTO_DCCP, PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use crate::packet::{Family, Tuple};
use core::fmt::{self, Display, Write as _};

/// What `-o` adds to a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-o extended`: the address family in front.
    pub extended: bool,
    /// `-o id`: the connection's number at the end.
    pub id: Option<u32>,
}

/// The protocol's name where conntrack-tools know one.
pub const fn proto_name(proto: u8) -> &'static str {
    match proto {
        PROTO_ICMP => "icmp",
        PROTO_TCP => "tcp",
        PROTO_UDP => "udp",
        PROTO_DCCP => "dccp",
        PROTO_GRE => "gre",
        PROTO_ICMPV6 => "icmpv6",
        PROTO_SCTP => "sctp",
        PROTO_UDPLITE => "udplite",
        _ => "unknown",
    }
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

/// One line of `conntrack -L`, without the line end.
pub fn entry(entry: &Entry, now: Instant, options: Options) -> String {
    let mut line = String::with_capacity(256);
    // Writing to a string cannot fail.
    let _ = write!(line, "{}", Line { entry, now, event: None, options });
    line
}

/// One line of `conntrack -E`, without the line end.
pub fn event(event: &Event, options: Options) -> String {
    match event {
        Event::Entry { kind, at, entry } => {
            let line = Line { entry, now: *at, event: Some(*kind), options };
            format!("{:>9} {line}", format!("[{}]", kind.word()))
        }
        Event::Expectation { kind, at, expectation: expected } => {
            format!("{:>9} {}", format!("[{}]", kind.word()), expectation(expected, *at))
        }
    }
}

/// One line of `conntrack -L expect`, without the line end.
pub fn expectation(expectation: &Expectation, now: Instant) -> String {
    let Expectation { tuple, master, helper, .. } = expectation;
    let family = tuple.family;
    let everything = match family {
        Family::Ipv4 => "255.255.255.255",
        Family::Ipv6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    };
    format!(
        "{} proto={} {} mask-src={everything} mask-dst={everything} sport=0 dport=65535 master-src={} master-dst={} sport={} dport={} class=0 helper={}",
        expectation.timeout(now).as_secs(),
        tuple.proto,
        tuple,
        master.src.to_ip(family),
        master.dst.to_ip(family),
        master.left,
        master.right,
        helper.name(),
    )
}

/// The line of `conntrack -S` for one processor: we count for all of them together.
pub fn stats(stats: &Stats) -> String {
    let Stats {
        entries: _,
        found,
        invalid,
        insert,
        insert_failed,
        drop,
        early_drop,
        error,
        search_restart,
        clash_resolve,
        chaintoolong,
        events_lost: _,
    } = stats;
    format!(
        "cpu=0   \tfound={found} invalid={invalid} insert={insert} insert_failed={insert_failed} drop={drop} early_drop={early_drop} error={error} search_restart={search_restart} clash_resolve={clash_resolve} chaintoolong={chaintoolong} "
    )
}

struct Line<'a> {
    entry: &'a Entry,
    now: Instant,
    /// An event's line tells less than a listing's.
    event: Option<EventKind>,
    options: Options,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, now, event, options } = *self;
        let Tuple { family, proto, zone, .. } = entry.original;
        let is_gone = event == Some(EventKind::Destroy);
        if options.extended {
            write!(f, "{:<8} {} ", family_name(family), family.af())?;
        }
        write!(f, "{:<8} {proto} ", proto_name(proto))?;
        let timeout = entry.timeout(now).as_secs();
        if !is_gone || timeout > 0 {
            write!(f, "{timeout} ")?;
        }
        if let Some(state) = entry.state_word() {
            write!(f, "{state} ")?;
        }
        write!(f, "{} ", entry.original)?;
        self.counter(f, Direction::Original)?;
        if !entry.status.contains(Status::SEEN_REPLY) {
            f.write_str("[UNREPLIED] ")?;
        }
        write!(f, "{}", entry.reply())?;
        self.counter(f, Direction::Reply)?;
        if entry.status.contains(Status::ASSURED) {
            f.write_str(" [ASSURED]")?;
        }
        if event.is_none() || entry.mark != 0 {
            write!(f, " mark={}", entry.mark)?;
        }
        if zone != 0 {
            write!(f, " zone={zone}")?;
        }
        if entry.is_timed() && (event.is_none() || is_gone) {
            write!(f, " delta-time={}", now.saturating_since(entry.began_at).as_secs())?;
        }
        if let Some(helper) = entry.helper.filter(|_| matches!(event, None | Some(EventKind::New))) {
            write!(f, " helper={}", helper.name())?;
        }
        if event.is_none() {
            write!(f, " use={}", entry.uses())?;
        }
        options.id.map_or(Ok(()), |id| write!(f, " id={id}"))
    }
}

impl Line<'_> {
    fn counter(&self, f: &mut fmt::Formatter<'_>, direction: Direction) -> fmt::Result {
        if !self.entry.is_counted() || matches!(self.event, Some(EventKind::New | EventKind::Update)) {
            return Ok(());
        }
        let counter = self.entry.counter(direction);
        let (before, behind) = if direction == Direction::Original { ("", " ") } else { (" ", "") };
        write!(f, "{before}packets={} bytes={}{behind}", counter.packets, counter.bytes)
    }
}

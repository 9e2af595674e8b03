//! Entries, expectations, events and counters as conntrack-tools print them.

#![forbid(unsafe_code)]

use super::{Direction, Entry, Event, EventKind, Expectation, Stats, Status};
use crate::base::time::Instant;
use crate::packet::tuple::{
    PROTO_DCCP, PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use crate::packet::{Addr, Family, Tuple};
use core::fmt::Write as _;

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
    Line { entry, now, event: None, options }.text()
}

/// One line of `conntrack -E`, without the line end.
pub fn event(event: &Event, options: Options) -> String {
    match event {
        Event::Entry { kind, at, entry } => {
            let line = Line { entry, now: *at, event: Some(*kind), options }.text();
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

impl Line<'_> {
    fn text(&self) -> String {
        let Self { entry, now, event, options } = *self;
        let Tuple { family, proto, zone, .. } = entry.original;
        let reply = entry.reply();
        let is_gone = event == Some(EventKind::Destroy);
        let mut text = Text(String::with_capacity(256));
        if options.extended {
            text.padded(family_name(family)).number(" ", family.af()).word(" ");
        }
        text.padded(proto_name(proto)).number(" ", proto).word(" ");
        let timeout = entry.timeout(now).as_secs();
        if !is_gone || timeout > 0 {
            text.number("", timeout).word(" ");
        }
        if let Some(state) = entry.state_word() {
            text.word(state).word(" ");
        }
        text.tuple(&entry.original).word(" ");
        if zone != reply.zone && zone != 0 {
            text.number("zone-orig=", zone).word(" ");
        }
        self.counter(&mut text, Direction::Original);
        if !entry.status.contains(Status::SEEN_REPLY) {
            text.word("[UNREPLIED] ");
        }
        text.tuple(&reply);
        if zone != reply.zone && reply.zone != 0 {
            text.number(" zone-reply=", reply.zone);
        }
        self.counter(&mut text, Direction::Reply);
        if entry.status.contains(Status::ASSURED) {
            text.word(" [ASSURED]");
        }
        if event.is_none() || entry.mark != 0 {
            text.number(" mark=", entry.mark);
        }
        if zone != 0 && zone == reply.zone {
            text.number(" zone=", zone);
        }
        if entry.is_timed() && (event.is_none() || is_gone) {
            text.number(" delta-time=", now.saturating_since(entry.began_at).as_secs());
        }
        if let Some(helper) = entry.helper.filter(|_| matches!(event, None | Some(EventKind::New))) {
            text.word(" helper=").word(helper.name());
        }
        if event.is_none() {
            text.number(" use=", entry.uses());
        }
        if let Some(id) = options.id {
            text.number(" id=", id);
        }
        text.0
    }

    fn counter(&self, text: &mut Text, direction: Direction) {
        if !self.entry.is_counted() || matches!(self.event, Some(EventKind::New | EventKind::Update)) {
            return;
        }
        let counter = self.entry.counter(direction);
        let (before, behind) = if direction == Direction::Original { ("", " ") } else { (" ", "") };
        text.word(before).number("packets=", counter.packets).number(" bytes=", counter.bytes).word(behind);
    }
}

/// A line as it is written. A replay writes one for each packet: formatters would take most of its time.
struct Text(String);

impl Text {
    fn word(&mut self, word: &str) -> &mut Self {
        self.0.push_str(word);
        self
    }

    /// A word with blanks behind it, so that eight columns are full.
    fn padded(&mut self, word: &str) -> &mut Self {
        self.word(word).word(&"        "[word.len().min(8)..])
    }

    fn number(&mut self, name: &str, number: impl Into<u64>) -> &mut Self {
        let (mut left, mut digits, mut at) = (number.into(), [0; 20], 20);
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.word(name).word(core::str::from_utf8(&digits[at..]).unwrap_or_default())
    }

    fn addr(&mut self, name: &str, addr: Addr, family: Family) -> &mut Self {
        match family {
            Family::Ipv4 => {
                let [a, b, c, d] = addr.v4();
                self.number(name, a).number(".", b).number(".", c).number(".", d)
            }
            Family::Ipv6 => {
                // Writing to a string cannot fail.
                let _ = write!(self.word(name).0, "{}", addr.to_ip(family));
                self
            }
        }
    }

    /// As [`Tuple`] prints itself.
    fn tuple(&mut self, tuple: &Tuple) -> &mut Self {
        self.addr("src=", tuple.src, tuple.family).addr(" dst=", tuple.dst, tuple.family);
        if matches!(tuple.proto, PROTO_TCP | PROTO_UDP) {
            return self.number(" sport=", tuple.left).number(" dport=", tuple.right);
        }
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{}", tuple.ends());
        self
    }
}

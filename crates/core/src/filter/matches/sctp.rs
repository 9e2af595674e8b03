//! `-m sctp`: ports and chunks.

#![forbid(unsafe_code)]

use super::tcp::PortMatch;
use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::names::Services;
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::not;
use crate::packet::tuple::PROTO_SCTP;
use core::fmt;

/// The common header: ports, tag, checksum.
const HEADER_LEN: usize = 12;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sctp {
    pub sport: Option<PortMatch>,
    pub dport: Option<PortMatch>,
    pub chunks: Option<Chunks>,
}

/// Which chunks a packet must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    pub kind: Kind,
    /// In the order of their numbers.
    pub wanted: Vec<Wanted>,
    /// Every type there is.
    pub all: bool,
    pub negated: bool,
}

/// A chunk's number, flags that must be on, and flags that must be off.
type Wanted = (u8, u8, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Any,
    All,
    Only,
}

const I_DATA: u8 = 64;

/// Name, number, and the flags that it has: a letter for each of the low bits, the lowest last.
const TYPES: [(&str, u8, &str); 22] = [
    ("DATA", 0, "----IUBE"),
    ("INIT", 1, "--------"),
    ("INIT_ACK", 2, "--------"),
    ("SACK", 3, "--------"),
    ("HEARTBEAT", 4, "--------"),
    ("HEARTBEAT_ACK", 5, "--------"),
    ("ABORT", 6, "-------T"),
    ("SHUTDOWN", 7, "--------"),
    ("SHUTDOWN_ACK", 8, "--------"),
    ("ERROR", 9, "--------"),
    ("COOKIE_ECHO", 10, "--------"),
    ("COOKIE_ACK", 11, "--------"),
    ("ECN_ECNE", 12, "--------"),
    ("ECN_CWR", 13, "--------"),
    ("SHUTDOWN_COMPLETE", 14, "-------T"),
    ("I_DATA", I_DATA, "----IUBE"),
    ("RE_CONFIG", 130, "--------"),
    ("PAD", 132, "--------"),
    ("ASCONF", 193, "--------"),
    ("ASCONF_ACK", 128, "--------"),
    ("FORWARD_TSN", 192, "--------"),
    ("I_FORWARD_TSN", 194, "--------"),
];

fn parse_chunks(text: &str) -> Result<(Vec<Wanted>, bool), Complaint> {
    if text.eq_ignore_ascii_case("ALL") {
        return Ok((Vec::new(), true));
    }
    if text.eq_ignore_ascii_case("NONE") {
        return Ok((Vec::new(), false));
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for word in text.split(',') {
        let (name, flags) = word.split_once(':').unwrap_or((word, ""));
        let found = TYPES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
        let Some((_, number, letters)) = found else {
            let names = TYPES.iter().map(|(known, ..)| *known);
            let complaint = Complaint::new(format!("no SCTP chunk named `{name}`"));
            return Err(complaint.hint(
                did_you_mean(name, names).unwrap_or_else(|| "such as DATA, INIT, SACK, ABORT".to_owned()),
            ));
        };
        let (mut on, mut off) = (0, 0);
        for letter in flags.chars() {
            let place = letters.find(letter.to_ascii_uppercase()).filter(|_| letter != '-');
            let Some(place) = place else {
                return Err(Complaint::new(format!("a chunk {name} has no flag `{letter}`")));
            };
            let bit = 0x80 >> place;
            if letter.is_ascii_uppercase() { on |= bit } else { off |= bit }
        }
        wanted.retain(|(known, ..)| known != number);
        wanted.push((*number, on, off));
    }
    wanted.sort_unstable();
    Ok((wanted, false))
}

impl Matcher for Sctp {
    const SPEC: Spec = Spec {
        name: "sctp",
        family: None,
        protos: &[PROTO_SCTP],
        options: &[
            Opt::value("sport").also(&["source-port"]).or_not(),
            Opt::value("dport").also(&["destination-port"]).or_not(),
            Opt::pair("chunk-types").or_not(),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let port =
            |name| options.get(name).map(|given| PortMatch::read(given, Services::SCTP, setting)).transpose();
        let chunks = options.get("chunk-types").map(|given| {
            let kind = given.read_arg(0, |text| match text.to_ascii_lowercase().as_str() {
                "any" => Ok(Kind::Any),
                "all" => Ok(Kind::All),
                "only" => Ok(Kind::Only),
                _ => Err(Complaint::new(format!("no way to compare chunks named `{text}`"))
                    .hint("any, all or only")),
            })?;
            let (wanted, all) = given.read_arg(1, parse_chunks)?;
            Ok(Chunks { kind, wanted, all, negated: given.negated })
        });
        Ok(Self { sport: port("sport")?, dport: port("dport")?, chunks: chunks.transpose()? })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        if view.pkt.is_later_fragment() {
            return Answer::No;
        }
        let Some(header) = view.pkt.l4().first_chunk::<HEADER_LEN>() else { return Answer::Drop };
        let Self { sport, dport, chunks } = self;
        let fits = |wanted: &Option<PortMatch>, at: usize| {
            wanted.is_none_or(|w| w.holds(u16::from_be_bytes([header[at], header[at + 1]])))
        };
        if !fits(sport, 0) || !fits(dport, 2) {
            return Answer::No;
        }
        let Some(chunks) = chunks else { return Answer::Yes };
        match chunks.holds(&view.pkt.l4()[HEADER_LEN..]) {
            Some(holds) => (holds != chunks.negated).into(),
            None => Answer::Drop,
        }
    }
}

impl Chunks {
    /// `None` if there is no chunk at all, or one has no length or is cut short.
    fn holds(&self, mut rest: &[u8]) -> Option<bool> {
        let mut missing: Vec<u8> = self.wanted.iter().map(|(number, ..)| *number).collect();
        loop {
            let &[number, flags, high, low] = rest.first_chunk()?;
            let len = usize::from(u16::from_be_bytes([high, low]));
            if len == 0 {
                return None;
            }
            let wanted = self.wanted.iter().find(|(known, ..)| *known == number);
            let flags_fit = |&(_, on, off): &Wanted| flags & on == on && flags & off == 0;
            let fits = self.all || wanted.is_some_and(flags_fit);
            match (self.kind, self.all || wanted.is_some(), fits) {
                (Kind::Any, true, true) => return Some(true),
                (Kind::All, true, true) => missing.retain(|n| *n != number),
                (Kind::Only, false, _) | (Kind::Only, true, false) => return Some(false),
                _ => {}
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
            if rest.is_empty() {
                break;
            }
        }
        Some(match self.kind {
            Kind::Any => false,
            Kind::All => missing.is_empty() && !self.all,
            Kind::Only => true,
        })
    }
}

impl fmt::Display for Sctp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Unlike those of TCP and UDP, all ports are ports to be printed here.
        for (port, name) in [(&self.sport, "sport"), (&self.dport, "dport")] {
            match port {
                Some(PortMatch { ports, negated }) if ports.is_any() => {
                    write!(f, "{} --{name} 0:65535", not(*negated))?;
                }
                port => PortMatch::write(port.as_ref(), name, f)?,
            }
        }
        let Some(Chunks { kind, wanted, all, negated }) = &self.chunks else { return Ok(()) };
        let kind = match kind {
            Kind::Any => "any",
            Kind::All => "all",
            Kind::Only => "only",
        };
        write!(f, "{} --chunk-types {kind} ", not(*negated))?;
        if *all || wanted.is_empty() {
            return f.write_str(if *all { "ALL" } else { "NONE" });
        }
        for (place, (number, on, off)) in wanted.iter().enumerate() {
            let Some((name, _, letters)) = TYPES.iter().find(|(_, known, _)| known == number) else {
                continue;
            };
            write!(f, "{}{name}", if place > 0 { "," } else { "" })?;
            // The tools know the flags of this one, and leave them out nevertheless.
            if on | off == 0 || *number == I_DATA {
                continue;
            }
            f.write_str(":")?;
            for (place, letter) in letters.chars().enumerate() {
                match 0x80 >> place {
                    bit if on & bit != 0 => write!(f, "{letter}")?,
                    bit if off & bit != 0 => write!(f, "{}", letter.to_ascii_lowercase())?,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

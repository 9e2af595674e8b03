//! `-m conntrack`: what connection tracking knows of the packet's connection.

#![forbid(unsafe_code)]

use super::state::StateSet;
use super::{Answer, Matcher, Setting, Spec, View};
use crate::conntrack::{CtState, Direction, Status};
use crate::filter::text::names;
use crate::filter::text::names::Services;
use crate::filter::text::options::{Complaint, Given, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{Ports, abbreviates, addr, network_mask, not, number, show_addr};
use crate::packet::{Addr, Family};
use core::fmt;

/// A condition, and whether it is turned round.
type Wanted<T> = Option<(T, bool)>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    pub states: Wanted<StateSet>,
    pub proto: Wanted<u8>,
    /// Original source and destination, reply source and destination. Few rules ask for one, and every condition of every
    /// rule would be as large.
    pub addrs: Box<[Wanted<AddrMask>; 4]>,
    /// In the same order.
    pub ports: [Wanted<Ports>; 4],
    pub status: Wanted<Status>,
    /// Seconds left.
    pub expires: Wanted<(u32, u32)>,
    pub direction: Option<Direction>,
}

/// An address as it is written, host bits and all, and the bits of it that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrMask {
    pub addr: Addr,
    pub mask: u128,
    pub family: Family,
}

const ADDRS: [&str; 4] = ["ctorigsrc", "ctorigdst", "ctreplsrc", "ctrepldst"];
const PORTS: [&str; 4] = ["ctorigsrcport", "ctorigdstport", "ctreplsrcport", "ctrepldstport"];

const STATUS_WORDS: [(Status, &str); 4] = [
    (Status::EXPECTED, "EXPECTED"),
    (Status::SEEN_REPLY, "SEEN_REPLY"),
    (Status::ASSURED, "ASSURED"),
    (Status::CONFIRMED, "CONFIRMED"),
];

fn parse_status(text: &str) -> Result<Status, Complaint> {
    let mut status = Status::empty();
    for word in text.split(',') {
        if abbreviates(word, "NONE") {
            continue;
        }
        let found = STATUS_WORDS.iter().find(|(_, known)| abbreviates(word, known));
        let Some((bit, _)) = found else {
            let known = STATUS_WORDS.iter().map(|(_, known)| *known).chain(["NONE"]);
            let all = "NONE, EXPECTED, SEEN_REPLY, ASSURED, CONFIRMED";
            return Err(Complaint::new(format!("no connection status named `{word}`"))
                .hint(did_you_mean(word, known).unwrap_or_else(|| format!("the words are {all}"))));
        };
        status |= *bit;
    }
    Ok(status)
}

fn parse_addr(text: &str, family: Family) -> Result<AddrMask, Complaint> {
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, None),
    };
    let mask = network_mask(mask, family)?;
    // The tools take any mask, and make a whole one of what is no prefix.
    let is_prefix = mask.leading_ones() == mask.count_ones();
    let mask = if is_prefix { mask } else { whole_mask(family) };
    Ok(AddrMask { addr: addr(address, family)?, mask, family })
}

/// `A`, `A:B`, `A:`, `:B`
fn parse_expires(text: &str) -> Result<(u32, u32), Complaint> {
    let read = |text: &str, open| {
        if text.is_empty() { Ok(open) } else { number(text, u64::from(u32::MAX)).map(|n| n as u32) }
    };
    match text.split_once(':') {
        None => number(text, u64::from(u32::MAX)).map(|n| (n as u32, n as u32)),
        Some((low, high)) => Ok((read(low, 0)?, read(high, u32::MAX)?)),
    }
}

fn parse_proto(text: &str) -> Result<u8, Complaint> {
    number(text, 255).map(|n| n as u8).or_else(|_| {
        names::protocol_number(text).ok_or_else(|| {
            let complaint = Complaint::new(format!("no protocol named `{text}`"));
            complaint.hint(
                did_you_mean(text, names::protocol_names())
                    .unwrap_or_else(|| "a number up to 255 will do".into()),
            )
        })
    })
}

fn parse_direction(text: &str) -> Result<Direction, Complaint> {
    match text {
        _ if text.eq_ignore_ascii_case("ORIGINAL") => Ok(Direction::Original),
        _ if text.eq_ignore_ascii_case("REPLY") => Ok(Direction::Reply),
        _ => Err(Complaint::new(format!("no direction named `{text}`")).hint("ORIGINAL or REPLY")),
    }
}

/// What conditions beyond the state ask of a connection.
struct Known {
    original: crate::packet::Tuple,
    reply: crate::packet::Tuple,
    status: Status,
    seconds_left: u64,
}

impl Matcher for Conntrack {
    const SPEC: Spec = Spec {
        name: "conntrack",
        family: None,
        protos: &[],
        options: &[
            Opt::value("ctstate").or_not(),
            Opt::value("ctproto").or_not(),
            Opt::value("ctorigsrc").or_not(),
            Opt::value("ctorigdst").or_not(),
            Opt::value("ctreplsrc").or_not(),
            Opt::value("ctrepldst").or_not(),
            Opt::value("ctorigsrcport").or_not(),
            Opt::value("ctorigdstport").or_not(),
            Opt::value("ctreplsrcport").or_not(),
            Opt::value("ctrepldstport").or_not(),
            Opt::value("ctstatus").or_not(),
            Opt::value("ctexpire").or_not(),
            Opt::value("ctdir"),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.require_any()?;
        let mut it = Self::default();
        for given in &options.given {
            let negated = given.negated;
            match given.opt.name {
                "ctstate" => it.states = Some((given.read(StateSet::parse_conntrack)?, negated)),
                "ctproto" => it.proto = Some((given.read(parse_proto)?, negated)),
                "ctstatus" => it.status = Some((given.read(parse_status)?, negated)),
                "ctexpire" => it.expires = Some((given.read(parse_expires)?, negated)),
                "ctdir" => it.direction = Some(given.read(parse_direction)?),
                name => it.tuple_part(name, given, setting)?,
            }
        }
        Ok(it)
    }

    #[inline]
    fn check(&self, view: &View<'_>) -> Answer {
        if let Some((states, negated)) = self.states
            && (states.intersects(StateSet::of(view.state()) | StateSet::of_status(view.ct.status))
                == negated)
        {
            return Answer::No;
        }
        if self.is_state_alone() {
            return Answer::Yes;
        }
        self.check_connection(view).into()
    }
}

impl Conntrack {
    fn tuple_part(&mut self, name: &str, given: &Given<'_>, setting: &Setting<'_>) -> Result<(), Problem> {
        if let Some(place) = ADDRS.iter().position(|known| *known == name) {
            self.addrs[place] = Some((given.read(|text| parse_addr(text, setting.family))?, given.negated));
        } else if let Some(place) = PORTS.iter().position(|known| *known == name) {
            let ports = given.read(|text| Ports::parse_decimal(text, Services::all()))?;
            setting.warn_of_none(given, ports);
            self.ports[place] = Some((ports, given.negated));
        }
        Ok(())
    }

    /// Whether a packet in this state can fit. Address translation is asked for beside the state, so it may.
    pub(in crate::filter) fn admits(&self, state: CtState) -> bool {
        self.states.is_none_or(|(states, negated)| {
            states.intersects(StateSet::SNAT | StateSet::DNAT)
                || states.contains(StateSet::of(state)) != negated
        })
    }

    /// Only the state is asked for, which every packet has.
    pub(in crate::filter) fn is_state_alone(&self) -> bool {
        let Self { states: _, proto, addrs, ports, status, expires, direction } = self;
        proto.is_none()
            && addrs.iter().all(Option::is_none)
            && ports.iter().all(Option::is_none)
            && status.is_none()
            && expires.is_none()
            && direction.is_none()
    }

    /// Without a connection nothing beyond the state can be said, and netfilter then lets the state alone decide.
    fn check_connection(&self, view: &View<'_>) -> bool {
        let known = view.conntrack.read_entry(view.ct, |entry| Known {
            original: entry.original,
            reply: entry.reply(),
            status: entry.status,
            // Until it is in the table, its life has not begun.
            seconds_left: if entry.status.contains(Status::CONFIRMED) {
                entry.timeout(view.now).as_secs()
            } else {
                0
            },
        });
        let Some(Known { original, reply, status, seconds_left }) = known else {
            return self.states.is_some();
        };
        let Self { states: _, proto, addrs, ports, status: wanted_status, expires, direction } = self;
        let addresses = [original.src, original.dst, reply.src, reply.dst];
        let numbers = [original.left, original.right, reply.left, reply.right];
        direction.is_none_or(|wanted| view.ct.direction == wanted)
            && addrs.iter().zip(addresses).all(|(wanted, addr)| {
                wanted.is_none_or(|(w, negated)| ((addr.bits() ^ w.addr.bits()) & w.mask == 0) != negated)
            })
            && proto.is_none_or(|(wanted, negated)| (original.proto == wanted) != negated)
            && ports
                .iter()
                .zip(numbers)
                .all(|(wanted, port)| wanted.is_none_or(|(w, negated)| w.contains(port) != negated))
            && wanted_status.is_none_or(|(wanted, negated)| status.intersects(wanted) != negated)
            && expires.is_none_or(|((low, high), negated)| {
                (u64::from(low) <= seconds_left && seconds_left <= u64::from(high)) != negated
            })
    }
}

impl fmt::Display for Conntrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, proto, addrs, ports, status, expires, direction } = self;
        if let Some((states, negated)) = states {
            write!(f, "{} --ctstate {states}", not(*negated))?;
        }
        if let Some((proto, negated)) = proto {
            write!(f, "{} --ctproto {proto}", not(*negated))?;
        }
        for (name, addr) in ADDRS.iter().zip(&**addrs) {
            if let Some((addr, negated)) = addr {
                write!(f, "{} --{name} {addr}", not(*negated))?;
            }
        }
        for (name, range) in PORTS.iter().zip(ports) {
            // The tools leave out an end of 0, though the range then holds no port.
            if let Some((Ports(low, 0), negated)) = range {
                write!(f, "{} --{name} {low}", not(*negated))?;
            } else if let Some((range, negated)) = range {
                write!(f, "{} --{name} {range}", not(*negated))?;
            }
        }
        if let Some((status, negated)) = status {
            write!(f, "{} --ctstatus {}", not(*negated), StatusList(*status))?;
        }
        if let Some(((low, high), negated)) = expires {
            write!(f, "{} --ctexpire {low}", not(*negated))?;
            if low != high {
                write!(f, ":{high}")?;
            }
        }
        match direction {
            None => Ok(()),
            Some(Direction::Original) => f.write_str(" --ctdir ORIGINAL"),
            Some(Direction::Reply) => f.write_str(" --ctdir REPLY"),
        }
    }
}

/// All bits of an address, which stand on the left.
const fn whole_mask(family: Family) -> u128 {
    u128::MAX << (128 - family.bits())
}

/// The mask is left out where it is whole.
impl fmt::Display for AddrMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addr, mask, family } = self;
        f.write_str(&show_addr(*addr, *family))?;
        let len = mask.leading_ones();
        if len == u32::from(family.bits()) { Ok(()) } else { write!(f, "/{len}") }
    }
}

struct StatusList(Status);

impl fmt::Display for StatusList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (_, word) in STATUS_WORDS.iter().filter(|(bit, _)| self.0.contains(*bit)) {
            write!(f, "{separator}{word}")?;
            separator = ",";
        }
        if separator.is_empty() { f.write_str("NONE") } else { Ok(()) }
    }
}

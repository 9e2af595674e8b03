//! Rules as plain data.

#![forbid(unsafe_code)]

use super::matches::{Answer, Match, View, ends_early};
use super::targets::Target;
use super::text::names;
use super::text::value::{Network, not};
use crate::base::iface::IfaceId;
use core::fmt;

/// One rule: if all its conditions hold, its target is carried out.
#[derive(Clone, Debug)]
pub struct Rule {
    pub matches: Matches,
    pub target: Target,
    /// What `-c` or counters in the file set it to.
    pub initial: Count,
    /// Where it stands in the text it was loaded from; from 1.
    pub line: u32,
}

/// Packets and bytes, as Linux counts them: the length of the IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

impl core::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

impl core::ops::SubAssign for Count {
    fn sub_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_sub(other.packets);
        self.bytes = self.bytes.wrapping_sub(other.bytes);
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}:{}]", self.packets, self.bytes)
    }
}

/// The conditions of a rule, in the order in which they are looked at and printed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matches {
    pub src: Option<AddrMatch>,
    pub dst: Option<AddrMatch>,
    pub in_iface: Option<IfaceMatch>,
    pub out_iface: Option<IfaceMatch>,
    pub proto: Option<ProtoMatch>,
    /// `-f`: later fragments; `! -f`: all others. IPv4 only.
    pub fragment: Option<bool>,
    /// `-m …`, and what a protocol brought along.
    pub listed: Vec<Match>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrMatch {
    pub net: Network,
    pub negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtoMatch {
    pub proto: u8,
    pub negated: bool,
}

/// An interface by name, or by the beginning of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfaceMatch {
    /// As written: `lan`, `wan+`, `+`.
    pub name: String,
    pub negated: bool,
    ifaces: IfaceSet,
    /// What it says of a packet that has no such interface: one that the router itself sends, or delivers.
    none: bool,
}

/// Which interfaces a name means, settled at load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct IfaceSet {
    first: u64,
    /// Interfaces from the 65th on, 64 each.
    rest: Vec<u64>,
}

impl IfaceSet {
    fn has(&self, id: IfaceId) -> bool {
        let (word, bit) = (id.index() / 64, id.index() % 64);
        let word = if word == 0 { self.first } else { self.rest.get(word - 1).copied().unwrap_or(0) };
        word >> bit & 1 == 1
    }

    fn add(&mut self, id: usize) {
        let (word, bit) = (id / 64, id % 64);
        if word == 0 {
            self.first |= 1 << bit;
            return;
        }
        if self.rest.len() < word {
            self.rest.resize(word, 0);
        }
        self.rest[word - 1] |= 1 << bit;
    }
}

impl IfaceMatch {
    /// `known` are the names of the router's interfaces, in the order of their ids.
    pub(super) fn new(name: &str, negated: bool, known: &[String]) -> Self {
        let mut ifaces = IfaceSet::default();
        for (id, _) in known.iter().enumerate().filter(|(_, n)| name_matches(name, n)) {
            ifaces.add(id);
        }
        Self { name: name.to_owned(), negated, ifaces, none: name_matches(name, "") }
    }

    /// It means no interface at all.
    pub(super) fn is_empty(&self) -> bool {
        self.ifaces == IfaceSet::default()
    }

    /// The first and the last interface that it may mean, as numbers; `None` if that says nothing.
    pub(super) fn span(&self) -> Option<(u128, u128)> {
        if self.negated || self.none {
            return None;
        }
        let ids = || (0..=self.ifaces.rest.len() as u16 * 64 + 63).filter(|id| self.ifaces.has(IfaceId(*id)));
        let (first, last) = (ids().next(), ids().next_back());
        // A name that means no interface makes an empty span: the rule never holds.
        Some((first.map_or(1, u128::from), last.map_or(0, u128::from)))
    }

    pub fn holds(&self, iface: Option<IfaceId>) -> bool {
        iface.map_or(self.none, |id| self.ifaces.has(id)) != self.negated
    }
}

/// Whether `pattern`, which may end in `+`, means the interface `name`.
fn name_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

impl AddrMatch {
    #[inline]
    fn holds(&self, addr: crate::packet::Addr) -> bool {
        self.net.contains(addr) != self.negated
    }
}

/// The first condition that does not hold, counted from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Holds,
    Fails(u16),
    /// A condition needs a header that is not there: the packet is to be dropped.
    Drop,
}

impl Matches {
    /// Looks at the conditions from left to right until one fails.
    pub(super) fn check(&self, view: &View<'_>) -> Outcome {
        // Named in full: a new condition does not compile until it is checked here.
        let Self { src, dst, in_iface, out_iface, proto, fragment, listed } = self;
        let pkt = view.pkt;
        let mut place = 0;
        macro_rules! require {
            ($condition:expr, $holds:expr) => {
                if let Some(condition) = $condition {
                    #[allow(clippy::redundant_closure_call)]
                    if !$holds(condition) {
                        return Outcome::Fails(place);
                    }
                    place += 1;
                }
            };
        }
        require!(src, |c: &AddrMatch| c.holds(pkt.src()));
        require!(dst, |c: &AddrMatch| c.holds(pkt.dst()));
        require!(in_iface, |c: &IfaceMatch| c.holds(view.in_iface));
        require!(out_iface, |c: &IfaceMatch| c.holds(view.out_iface));
        if proto.is_some() && ends_early(pkt) {
            return Outcome::Drop;
        }
        require!(proto, |c: &ProtoMatch| (pkt.proto() == c.proto) != c.negated);
        require!(fragment, |wanted: &bool| pkt.is_later_fragment() == *wanted);
        for matcher in listed {
            match matcher.check(view) {
                Answer::Yes => place += 1,
                Answer::No => return Outcome::Fails(place),
                Answer::Drop => return Outcome::Drop,
            }
        }
        Outcome::Holds
    }

    /// Each condition in words, in the order in which [`super::Ruleset`] counts them from the left.
    pub fn words(&self) -> Vec<String> {
        let Self { src, dst, in_iface, out_iface, proto, fragment, listed } = self;
        let mut words = Vec::new();
        words.extend(src.as_ref().map(|c| addr_words(c, "-s")));
        words.extend(dst.as_ref().map(|c| addr_words(c, "-d")));
        words.extend(in_iface.as_ref().map(|c| iface_words(c, "-i")));
        words.extend(out_iface.as_ref().map(|c| iface_words(c, "-o")));
        words.extend(proto.as_ref().map(|c| format!("{}", Trim(c))));
        words.extend(fragment.map(|wanted| if wanted { "-f" } else { "! -f" }.to_owned()));
        words.extend(listed.iter().map(|m| format!("-m {}{m}", m.name())));
        words
    }
}

struct Trim<'a>(&'a ProtoMatch);

impl fmt::Display for Trim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_start())
    }
}

fn addr_words(c: &AddrMatch, option: &str) -> String {
    format!("{}{option} {}", if c.negated { "! " } else { "" }, c.net)
}

fn iface_words(c: &IfaceMatch, option: &str) -> String {
    format!("{}{option} {}", if c.negated { "! " } else { "" }, c.name)
}

impl fmt::Display for ProtoMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -p ", not(self.negated))?;
        match names::protocol_name(self.proto) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.proto),
        }
    }
}

/// The conditions as iptables-save prints them, each with a blank in front.
impl fmt::Display for Matches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src, dst, in_iface, out_iface, proto, fragment, listed } = self;
        for (option, condition) in [("-s", src), ("-d", dst)] {
            if let Some(AddrMatch { net, negated }) = condition {
                write!(f, "{} {option} {net}", not(*negated))?;
            }
        }
        for (option, condition) in [("-i", in_iface), ("-o", out_iface)] {
            // `-i +` says nothing, and iptables-save leaves it out, even negated.
            if let Some(IfaceMatch { name, negated, .. }) = condition
                && name != "+"
            {
                write!(f, "{} {option} {name}", not(*negated))?;
            }
        }
        if let Some(proto) = proto {
            proto.fmt(f)?;
        }
        if let Some(wanted) = fragment {
            f.write_str(if *wanted { " -f" } else { " ! -f" })?;
        }
        listed.iter().try_for_each(|m| write!(f, " -m {}{m}", m.name()))
    }
}

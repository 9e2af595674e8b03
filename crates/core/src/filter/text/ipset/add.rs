//! `add NAME ELEMENT …`: an element, or all those of a range.

#![forbid(unsafe_code)]

use super::create::{addresses, at};
use super::element::{Change, Counters, Element, Expiry, IfaceName, Key};
use super::{Content, Kind, Set, masked};
use crate::filter::matches::{parse_marked, type_and_code};
use crate::filter::text::lex::Token;
use crate::filter::text::names::{self, Services};
use crate::filter::text::options::{Complaint, Problem};
use crate::filter::text::value::{addr, number, number_u32, port};
use crate::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
use crate::packet::{Addr, Family, Mac};
use core::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

/// What an `add` line says of its element besides what it is.
struct Options<'a> {
    element: Element,
    timeout: Option<u32>,
    /// list:set: the set that it stands before or behind.
    place: Option<(&'a Token<'a>, &'a Token<'a>)>,
}

/// Puts an element into the set. `find` knows the other sets by name; of those for the other family it knows nothing.
pub(in crate::filter) fn parse_add(
    set: &Set,
    words: &[Token<'_>],
    find: impl Fn(&str) -> Found,
) -> Result<(), Problem> {
    let Some(word) = words.get(2) else {
        let hint = format!("`add {} {}`", set.name, set.kind.example());
        return Err(Problem::new(words[0].at, "what is to be added is missing").hint(hint));
    };
    let mut options = read_options(set, &words[3..])?;
    options.element.expiry = set.life(options.timeout).map_or(Expiry::Never, Expiry::AfterBirth);
    match &set.content {
        Content::Elements(_) => add_elements(set, word, options.element),
        Content::Sets(_) => add_set(set, word, options, find),
    }
}

/// What is known of a set by its name.
pub(in crate::filter) enum Found {
    Set(Arc<Set>),
    OtherFamily,
    None,
}

fn read_options<'a>(set: &Set, words: &'a [Token<'a>]) -> Result<Options<'a>, Problem> {
    let mut options = Options { element: Element::default(), timeout: None, place: None };
    let element = &mut options.element;
    let mut rest = words.iter();
    while let Some(option) = rest.next() {
        let mut value = |read: &dyn Fn(&str) -> Result<u64, Complaint>| {
            let word = rest.next().map_or("", |w| &w.text);
            read(word).map_err(|complaint| at(option, complaint))
        };
        match &*option.text {
            "nomatch" if set.kind.has_networks() => element.nomatch = true,
            "wildcard" if set.kind == Kind::NetIface => element.wildcard = true,
            "timeout" if set.timeout.is_some() => {
                options.timeout = Some(value(&|text| number_u32(text).map(u64::from))? as u32);
            }
            "timeout" => {
                let problem = Problem::new(option.at, "the set has no timeouts");
                return Err(problem.hint("`create … timeout 0` gives it some"));
            }
            "packets" | "bytes" if set.has_counters => {
                let count = value(&|text| number(text, u64::MAX))?.into();
                let Counters { packets, bytes } = &mut element.counters;
                *(if option.text == "packets" { packets } else { bytes }) = count;
            }
            "packets" | "bytes" => {
                let problem = Problem::new(option.at, "the elements of the set count nothing");
                return Err(problem.hint("`create … counters` makes them"));
            }
            "skbmark" if set.has_marks => {
                let packed = value(&|text| {
                    parse_marked(text).map(|(value, mask)| u64::from(value) << 32 | u64::from(mask))
                })?;
                element.mark = Change { value: (packed >> 32) as u32, mask: packed as u32 };
            }
            // What a packet's place in a queue would be: no rule here can ask for it.
            "skbprio" | "skbqueue" if set.has_marks => drop(rest.next()),
            "skbmark" | "skbprio" | "skbqueue" => {
                let problem = Problem::new(option.at, "the elements of the set have no marks");
                return Err(problem.hint("`create … skbinfo` gives them some"));
            }
            "comment" => drop(rest.next()),
            "before" | "after" if set.kind == Kind::List => {
                let other = rest.next();
                let missing = || Problem::new(option.at, format!("`{}` needs a set", option.text));
                options.place = Some((option, other.ok_or_else(missing)?));
            }
            other => {
                let problem = format!("option `{other}` of an element is not honoured");
                return Err(Problem::new(option.at, problem));
            }
        }
    }
    Ok(options)
}

/// Adds one set to a list.
fn add_set(
    list: &Set,
    word: &Token<'_>,
    options: Options<'_>,
    find: impl Fn(&str) -> Found,
) -> Result<(), Problem> {
    let Content::Sets(sets) = &list.content else { return Ok(()) };
    let unknown = |word: &Token<'_>| {
        Problem::new(word.at, format!("no set named `{}`", word.text))
            .hint("a list stands behind the sets that are in it")
    };
    let set = match find(&word.text) {
        Found::Set(set) => set,
        // No packet of this family can be in it.
        Found::OtherFamily => return Ok(()),
        Found::None => return Err(unknown(word)),
    };
    if set.kind == Kind::List {
        let problem = Problem::new(word.at, format!("`{}` is a list itself", word.text));
        return Err(problem.hint("a list holds sets of any other type"));
    }
    let mut sets = sets.write();
    let place_of = |name: &str| sets.iter().position(|(set, _)| set.name == name);
    if place_of(&word.text).is_some() {
        return Err(Problem::new(word.at, format!("`{}` is in the list already", word.text)));
    }
    let place = match options.place {
        None => sets.len(),
        Some((option, other)) => match place_of(&other.text) {
            Some(place) => place + usize::from(option.text == "after"),
            None if matches!(find(&other.text), Found::OtherFamily) => sets.len(),
            None => return Err(Problem::new(other.at, format!("`{}` is not in the list", other.text))),
        },
    };
    sets.insert(place, (set, options.element));
    Ok(())
}

/// Adds all elements that a word stands for.
fn add_elements(set: &Set, word: &Token<'_>, pattern: Element) -> Result<(), Problem> {
    let Content::Elements(elements) = &set.content else { return Ok(()) };
    let mut elements = elements.write();
    let mut room = u64::from(set.max).saturating_sub(super::count(&elements) as u64);
    let parts = Parts::parse(set, &word.text).map_err(|complaint| at(word, complaint))?;
    for (len, key) in parts.keys(set) {
        if !set.has_room_for(&key) {
            let problem =
                Problem::new(word.at, format!("`{}` is out of the range of set `{}`", word.text, set.name));
            return Err(problem.hint("`create … range FROM-TO` says which there is room for"));
        }
        let known = elements.get(&len).and_then(|of_len| of_len.get(&key));
        let is_new = known.is_none();
        if is_new && room == 0 {
            let problem = Problem::new(word.at, format!("set `{}` is full", set.name));
            return Err(problem.hint(format!("`maxelem {}`", set.max)));
        }
        room -= u64::from(is_new);
        // A link address that was given stays, also where the address is added once more without one.
        let mac = parts.mac.or_else(|| known.and_then(|known| known.mac.get().copied()));
        let element = Element {
            mac: mac.map(OnceLock::from).unwrap_or_default(),
            counters: pattern.counters.clone(),
            ..pattern
        };
        elements.entry(len).or_default().insert(key, element);
    }
    Ok(())
}

/// What stands between the commas of an element.
struct Parts {
    /// Networks, with their prefix lengths, that together are what is written.
    first: Pieces,
    proto: u8,
    ports: RangeInclusive<u16>,
    second: Pieces,
    iface: IfaceName,
    mac: Option<Mac>,
}

impl Parts {
    fn parse(set: &Set, text: &str) -> Result<Self, Complaint> {
        let wrong = || {
            let what = format!("`{text}` is no element of set `{}`", set.name);
            Complaint::new(what).hint(format!("such as `{}`", set.kind.example()))
        };
        let mut words = text.split(',');
        let first = words.next().unwrap_or_default();
        let mut next = || words.next().ok_or_else(wrong);
        let mut parts = Self {
            first: Pieces::default(),
            proto: 0,
            ports: 0..=0,
            second: Pieces::default(),
            iface: IfaceName::default(),
            mac: None,
        };
        if set.kind == Kind::BitmapPort {
            // As long as what rules add and remove.
            parts.first = Pieces::one(Addr::UNSPECIFIED, set.family.bits());
            (_, parts.ports) = protocol_and_ports(first, set.family).ok_or_else(wrong)??;
        } else {
            parts.first = Pieces::parse(set, first, !set.kind.network_is_second())?;
        }
        match set.kind {
            Kind::IpPort | Kind::NetPort | Kind::IpPortIp | Kind::IpPortNet => {
                (parts.proto, parts.ports) = protocol_and_ports(next()?, set.family).ok_or_else(wrong)??;
            }
            Kind::NetIface => parts.iface = iface(next()?)?,
            Kind::BitmapIpMac => {
                parts.mac = words.next().map(|mac| mac.parse().map_err(|()| wrong())).transpose()?;
            }
            Kind::Ip | Kind::Net | Kind::BitmapIp | Kind::BitmapPort | Kind::List => {}
        }
        match set.kind {
            Kind::IpPortIp => {
                let second = words.next().ok_or_else(wrong)?;
                parts.second = Pieces::one(addr(second, set.family)?, set.family.bits());
            }
            Kind::IpPortNet => {
                parts.second = Pieces::parse(set, words.next().ok_or_else(wrong)?, true)?;
            }
            _ => {}
        }
        if words.next().is_some() { Err(wrong()) } else { Ok(parts) }
    }

    /// The elements, each with the length of its network's prefix.
    fn keys<'a>(&'a self, set: &'a Set) -> impl Iterator<Item = (u8, Key)> + 'a {
        self.first.all(set).flat_map(move |(addr, first_len)| {
            self.second.all(set).flat_map(move |(second, second_len)| {
                self.ports.clone().map(move |port| {
                    let len = if set.kind.network_is_second() { second_len } else { first_len };
                    let key = Key { addr, proto: self.proto, port, second, iface: self.iface };
                    (len, key)
                })
            })
        })
    }
}

/// Addresses that an element stands for: a run of them, or networks that make up a run.
enum Pieces {
    Each(RangeInclusive<u128>),
    Networks(Vec<(Addr, u8)>),
}

impl Default for Pieces {
    fn default() -> Self {
        Self::one(Addr::UNSPECIFIED, 0)
    }
}

impl Pieces {
    fn one(addr: Addr, len: u8) -> Self {
        Self::Networks(vec![(addr, len)])
    }

    /// `is_network`: this part of the element is the network, if the type has one.
    fn parse(set: &Set, text: &str, is_network: bool) -> Result<Self, Complaint> {
        let bits = set.family.bits();
        if !is_network || !set.kind.has_networks() {
            let range = addresses(text, set.family)?;
            let is_one = range.start() == range.end();
            if !is_one && set.kind == Kind::BitmapIpMac {
                return Err(Complaint::new(format!("`{text}` is not one address")));
            }
            return Ok(Self::Each(range));
        }
        let networks: Vec<_> = match text.split_once('/') {
            // What is written as a network stays one.
            Some((net, len)) => {
                let len = number(len, bits.into()).map_err(|_| {
                    Complaint::new(format!("`{text}` is no network")).hint("such as 192.0.2.0/24")
                })? as u8;
                vec![(masked(addr(net, set.family)?, len), len)]
            }
            None => networks_of(addresses(text, set.family)?, bits),
        };
        // The whole of a family is something that only interfaces tell apart.
        if networks.iter().any(|(_, len)| *len == 0) && set.kind != Kind::NetIface {
            return Err(Complaint::new(format!("`{text}` is no network that a set can hold"))
                .hint("0.0.0.0/1 and 128.0.0.0/1 are all of it"));
        }
        Ok(Self::Networks(networks))
    }

    fn all<'a>(&'a self, set: &Set) -> Box<dyn Iterator<Item = (Addr, u8)> + 'a> {
        let (bits, netmask) = (set.family.bits(), set.netmask);
        match self {
            Self::Networks(networks) => Box::new(networks.iter().copied()),
            Self::Each(range) => {
                let step = 1_u128 << (128 - u32::from(netmask));
                let (first, last) = (masked(Addr::from_bits(*range.start()), netmask).bits(), *range.end());
                let next = move |at: &u128| at.checked_add(step).filter(|at| *at <= last);
                Box::new(core::iter::successors(Some(first), next).map(move |at| (Addr::from_bits(at), bits)))
            }
        }
    }
}

/// The fewest networks that together are this range.
fn networks_of(range: RangeInclusive<u128>, bits: u8) -> Vec<(Addr, u8)> {
    let unit = 128 - u32::from(bits);
    let (mut at, last) = (range.start() >> unit, range.end() >> unit);
    let mut networks = Vec::new();
    while at <= last {
        // As large as its place and what is left allow.
        let left = (last - at + 1).ilog2();
        let size = at.trailing_zeros().min(left).min(u32::from(bits));
        networks.push((Addr::from_bits(at << unit), bits - size as u8));
        at += 1 << size;
    }
    networks
}

fn iface(text: &str) -> Result<IfaceName, Complaint> {
    if let Some(name) = text.strip_prefix("physdev:") {
        // Linux takes it, and no rule of iptables ever asks for it.
        return Err(Complaint::new("an element with `physdev:` never holds for a rule")
            .hint(format!("in bridge mode interfaces are the ports of the bridge: `{name}`")));
    }
    IfaceName::new(text).filter(|_| !text.is_empty()).ok_or_else(|| {
        Complaint::new(format!("`{text}` is no name of an interface"))
            .hint(format!("at most {} letters", IfaceName::MAX))
    })
}

/// `80`, `tcp:80`, `udp:53-55`, `icmp:echo-request`, `gre:0`; `None` if it is nothing like that.
fn protocol_and_ports(text: &str, family: Family) -> Option<Result<(u8, RangeInclusive<u16>), Complaint>> {
    let (proto, ports) = text.split_once(':').unwrap_or(("tcp", text));
    let proto = names::protocol_number(proto).or_else(|| proto.parse().ok())?;
    Some(ports_of(proto, ports, family).map(|ports| (proto, ports)))
}

fn ports_of(proto: u8, text: &str, family: Family) -> Result<RangeInclusive<u16>, Complaint> {
    if matches!(proto, PROTO_ICMP | PROTO_ICMPV6) {
        let wrong = || {
            Complaint::new(format!("`{text}` is no type and code of ICMP"))
                .hint("`8/0`, or a name that stands for one code, such as `echo-request`")
        };
        let (kind, code) = match text.split_once('/') {
            Some((kind, code)) => (kind.parse().map_err(|_| wrong())?, code.parse().map_err(|_| wrong())?),
            None => type_and_code(text, family).ok_or_else(wrong)?,
        };
        let number = u16::from_be_bytes([kind, code]);
        return Ok(number..=number);
    }
    let services = Services::of(proto);
    let has_ports = matches!(proto, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP);
    // Names of services may have a dash.
    if let Some((first, last)) = text.split_once('-')
        && has_ports
        && let (Ok(first), Ok(last)) = (port(first, services), port(last, services))
    {
        return Ok(first.min(last)..=first.max(last));
    }
    let port = port(text, services)?;
    if port != 0 && !has_ports {
        return Err(Complaint::new(format!("protocol {proto} has no ports")).hint("its port is 0"));
    }
    Ok(port..=port)
}

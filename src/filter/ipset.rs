//! Sets of addresses, as `ipset save` writes them: hash:ip, hash:net and hash:ip,port.
//!
//! Their lines stand in front of the tables whose rules name them.

#![forbid(unsafe_code)]

use super::lex::Token;
use super::names;
use super::options::{Complaint, Problem, did_you_mean};
use super::value::{Network, addr, number_u32, port};
use crate::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
use crate::packet::{Addr, Family, Packet};
use crate::time::{Duration, Instant};
use parking_lot::RwLock;
use std::collections::BTreeMap;

const MAX_NAME: usize = 31;
const DEFAULT_MAX_ELEMENTS: u32 = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ip,
    Net,
    IpPort,
}

impl Kind {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Ip, "hash:ip"), (Self::Net, "hash:net"), (Self::IpPort, "hash:ip,port")];

    /// How many of `src` and `dst` a rule must name.
    const fn dimensions(self) -> usize {
        match self {
            Self::Ip | Self::Net => 1,
            Self::IpPort => 2,
        }
    }
}

/// One side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Src,
    Dst,
}

impl Side {
    /// `src`, `src,dst`: up to six.
    pub(super) fn parse_list(text: &str) -> Result<Vec<Self>, Complaint> {
        let sides = text.split(',').map(|word| match word {
            "src" => Ok(Self::Src),
            "dst" => Ok(Self::Dst),
            _ => {
                Err(Complaint::new(format!("`{word}` is no side of a packet")).hint("a list of src and dst"))
            }
        });
        let sides: Vec<Self> = sides.collect::<Result<_, _>>()?;
        if sides.len() > 6 { Err(Complaint::new("at most six sides")) } else { Ok(sides) }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Src => "src",
            Self::Dst => "dst",
        }
    }

    fn addr(self, pkt: &Packet) -> Addr {
        match self {
            Self::Src => pkt.src(),
            Self::Dst => pkt.dst(),
        }
    }
}

/// An element, without its prefix length: protocol and port are zero but in hash:ip,port.
type Key = (Addr, u8, u16);

#[derive(Clone, Copy, Debug)]
struct Element {
    expires_at: Instant,
    /// An exception: what it holds is not in the set.
    nomatch: bool,
}

/// A set that rules look into and change.
#[derive(Debug)]
pub struct Set {
    pub name: String,
    pub kind: Kind,
    pub family: Family,
    /// hash:ip: addresses are cut to this prefix.
    netmask: u8,
    max: u32,
    /// What an element without a timeout of its own gets.
    timeout: Option<u32>,
    /// By prefix length; longest last.
    elements: RwLock<BTreeMap<u8, BTreeMap<Key, Element>>>,
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

fn masked(addr: Addr, len: u8) -> Addr {
    Addr::from_bits(if len == 0 { 0 } else { addr.bits() & u128::MAX << (128 - u32::from(len)) })
}

impl Set {
    /// Whether the packet is in the set, seen from these sides.
    pub(super) fn contains(&self, pkt: &Packet, sides: &[Side], now: Instant) -> bool {
        let Some(key) = self.key(pkt, sides) else { return false };
        let elements = self.elements.read();
        for (len, of_len) in elements.iter().rev() {
            let key = (masked(key.0, *len), key.1, key.2);
            if let Some(element) = of_len.get(&key).filter(|e| e.expires_at > now) {
                return !element.nomatch;
            }
        }
        false
    }

    /// `None` if the rule names too few sides, the family is another, or the header is cut short.
    fn key(&self, pkt: &Packet, sides: &[Side]) -> Option<Key> {
        if sides.len() < self.kind.dimensions() || pkt.family() != self.family {
            return None;
        }
        let addr = masked(sides[0].addr(pkt), self.netmask);
        if self.kind != Kind::IpPort {
            return Some((addr, 0, 0));
        }
        let proto = pkt.proto();
        let port = match (self.family, proto) {
            (_, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP) => {
                let (src, dst) = pkt.ports()?;
                if sides[1] == Side::Src { src } else { dst }
            }
            (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6) => {
                pkt.l4().first_chunk().map(|b: &[u8; 2]| u16::from_be_bytes(*b))?
            }
            _ => 0,
        };
        Some((addr, proto, port))
    }

    /// Adds what the packet shows (`-j SET --add-set`). An element that is there stays as it is unless `exist`.
    pub(super) fn add(&self, pkt: &Packet, sides: &[Side], now: Instant, timeout: Option<u32>, exist: bool) {
        let Some(key) = self.key(pkt, sides) else { return };
        let mut elements = self.elements.write();
        // Networks are added with the longest prefix that the set has.
        let len = match self.kind {
            Kind::Net => elements.keys().next_back().copied().unwrap_or(self.family.bits()),
            Kind::Ip | Kind::IpPort => self.family.bits(),
        };
        let key = (masked(key.0, len), key.1, key.2);
        let there = elements.get(&len).and_then(|m| m.get(&key)).is_some_and(|e| e.expires_at > now);
        if there && !exist {
            return;
        }
        let count: usize = elements.values().map(BTreeMap::len).sum();
        if !there && count >= self.max as usize {
            elements.values_mut().for_each(|m| m.retain(|_, e| e.expires_at > now));
            if elements.values().map(BTreeMap::len).sum::<usize>() >= self.max as usize {
                return;
            }
        }
        let expires_at = self.expiry(timeout, now);
        elements.entry(len).or_default().insert(key, Element { expires_at, nomatch: false });
    }

    /// Removes what the packet shows (`-j SET --del-set`).
    pub(super) fn remove(&self, pkt: &Packet, sides: &[Side]) {
        let Some(key) = self.key(pkt, sides) else { return };
        let mut elements = self.elements.write();
        let Some(len) = elements.keys().next_back().copied() else { return };
        if let Some(of_len) = elements.get_mut(&len) {
            of_len.remove(&(masked(key.0, len), key.1, key.2));
            if of_len.is_empty() {
                elements.remove(&len);
            }
        }
    }

    fn expiry(&self, timeout: Option<u32>, now: Instant) -> Instant {
        match (timeout.or(self.timeout), self.timeout) {
            (Some(secs @ 1..), Some(_)) => now + Duration::from_secs(u64::from(secs)),
            _ => Instant::FAR_FUTURE,
        }
    }
}

/// `create NAME TYPE [family inet] …`
pub(super) fn parse_create(words: &[Token<'_>], family: Family) -> Result<Option<Set>, Problem> {
    let word = |n: usize| words.get(n).map(|w| (&*w.text, w.at));
    let (Some((name, name_at)), Some((kind, kind_at))) = (word(1), word(2)) else {
        return Err(Problem::new(words[0].at, "a set needs a name and a type").hint("`create NAME hash:ip`"));
    };
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Problem::new(name_at, "the name of the set is too long")
            .hint(format!("at most {MAX_NAME} letters")));
    }
    let Some((kind, _)) = Kind::ALL.iter().find(|(_, known)| *known == kind) else {
        let known = Kind::ALL.iter().map(|(_, known)| *known);
        let problem = Problem::new(kind_at, format!("sets of type `{kind}` are not honoured"));
        let all = format!("the types are {}", known.clone().collect::<Vec<_>>().join(", "));
        return Err(problem.hint(did_you_mean(kind, known).unwrap_or(all)));
    };
    let mut set = Set {
        name: name.to_owned(),
        kind: *kind,
        family: Family::Ipv4,
        netmask: 0,
        max: DEFAULT_MAX_ELEMENTS,
        timeout: None,
        elements: RwLock::default(),
    };
    let mut rest = words[3..].iter();
    while let Some(option) = rest.next() {
        let mut value =
            || rest.next().ok_or_else(|| Problem::new(option.at, format!("`{}` needs a value", option.text)));
        let number = |token: &Token<'_>| {
            number_u32(&token.text).map_err(|c| Problem { at: token.at, message: c.message, hint: c.hint })
        };
        match &*option.text {
            "family" => match &*value()?.text {
                "inet" => set.family = Family::Ipv4,
                "inet6" => set.family = Family::Ipv6,
                other => {
                    return Err(
                        Problem::new(option.at, format!("no family named `{other}`")).hint("inet or inet6")
                    );
                }
            },
            // How the kernel lays the set out says nothing of what is in it.
            "hashsize" | "bucketsize" | "initval" => drop(value()?),
            "maxelem" => set.max = number(value()?)?,
            "timeout" => set.timeout = Some(number(value()?)?),
            "netmask" if set.kind == Kind::Ip => set.netmask = number(value()?)?.min(128) as u8,
            "comment" => {}
            other => {
                return Err(Problem::new(option.at, format!("option `{other}` of a set is not honoured")));
            }
        }
    }
    if set.netmask == 0 || set.netmask > set.family.bits() {
        set.netmask = set.family.bits();
    }
    // `ipset save` writes the sets of both families into one file.
    Ok((set.family == family).then_some(set))
}

/// What an `add` line puts into the set.
pub(super) fn parse_add(set: &Set, words: &[Token<'_>]) -> Result<(), Problem> {
    let Some(element) = words.get(2) else {
        return Err(Problem::new(words[0].at, "what is to be added is missing").hint("`add NAME 192.0.2.1`"));
    };
    let mut nomatch = false;
    let mut timeout = None;
    let mut rest = words[3..].iter();
    while let Some(option) = rest.next() {
        match &*option.text {
            "nomatch" if set.kind == Kind::Net => nomatch = true,
            "timeout" if set.timeout.is_some() => {
                let value = rest.next().map_or("", |w| &w.text);
                let complain = |c: Complaint| Problem { at: option.at, message: c.message, hint: c.hint };
                timeout = Some(number_u32(value).map_err(complain)?);
            }
            "timeout" => {
                let problem = Problem::new(option.at, "the set has no timeouts");
                return Err(problem.hint("`create … timeout 0` gives it some"));
            }
            "comment" => drop(rest.next()),
            other => {
                return Err(Problem::new(
                    option.at,
                    format!("option `{other}` of an element is not honoured"),
                ));
            }
        }
    }
    let (len, key) = parse_element(set, &element.text).map_err(|Complaint { message, hint }| Problem {
        at: element.at,
        message,
        hint,
    })?;
    let mut elements = set.elements.write();
    if elements.values().map(BTreeMap::len).sum::<usize>() >= set.max as usize {
        let problem = Problem::new(element.at, format!("set `{}` is full", set.name));
        return Err(problem.hint(format!("`maxelem {}`", set.max)));
    }
    let expires_at = set.expiry(timeout, Instant::ZERO);
    elements.entry(len).or_default().insert(key, Element { expires_at, nomatch });
    Ok(())
}

fn parse_element(set: &Set, text: &str) -> Result<(u8, Key), Complaint> {
    let bits = set.family.bits();
    match set.kind {
        Kind::Ip => Ok((bits, (masked(addr(text, set.family)?, set.netmask), 0, 0))),
        Kind::Net => {
            let net = Network::parse(text, set.family)?;
            let len = net.prefix_len().filter(|len| *len > 0);
            let len =
                len.ok_or_else(|| Complaint::new(format!("`{text}` is no network that a set can hold")))?;
            Ok((len as u8, (net.addr, 0, 0)))
        }
        Kind::IpPort => {
            let bad = || {
                Complaint::new(format!("`{text}` is not an address and a port")).hint("`192.0.2.1,tcp:80`")
            };
            let (address, rest) = text.split_once(',').ok_or_else(bad)?;
            let (proto, number) = rest.split_once(':').unwrap_or(("tcp", rest));
            let proto = names::protocol_number(proto).or_else(|| proto.parse().ok()).ok_or_else(bad)?;
            let number = match number.split_once('/') {
                Some((kind, code)) => {
                    let byte = |text: &str| text.parse::<u8>().map_err(|_| bad());
                    u16::from_be_bytes([byte(kind)?, byte(code)?])
                }
                None => port(number)?,
            };
            Ok((bits, (addr(address, set.family)?, proto, number)))
        }
    }
}

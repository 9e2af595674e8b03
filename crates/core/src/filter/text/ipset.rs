//! Sets of addresses, as `ipset save` writes them: hash:ip, hash:net and hash:ip,port.
//!
//! Their lines stand in front of the tables whose rules name them.

#![forbid(unsafe_code)]

use crate::base::time::{Duration, Instant};
use crate::filter::matches::{parse_marked, type_and_code};
use crate::filter::text::lex::Token;
use crate::filter::text::names::{self, Services};
use crate::filter::text::options::{Complaint, Problem, did_you_mean};
use crate::filter::text::value::{Network, addr, number, number_u32, port};
use crate::packet::tuple::{
    PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE, ports_header_len,
};
use crate::packet::{Addr, Family, Packet};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

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
    pub(in crate::filter) fn parse_list(text: &str) -> Result<Vec<Self>, Complaint> {
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

    pub(in crate::filter) const fn word(self) -> &'static str {
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

#[derive(Debug)]
struct Element {
    expiry: Expiry,
    /// An exception: what it holds is not in the set.
    nomatch: bool,
    /// A rule added it, not the text.
    is_learnt: bool,
    packets: AtomicU64,
    bytes: AtomicU64,
    /// What `--map-mark` makes of a packet's mark.
    mark: Change,
}

#[derive(Clone, Copy, Debug)]
enum Expiry {
    Never,
    At(Instant),
    /// After the first packet that asked for anything in the set: text knows no time.
    AfterBirth(Duration),
}

/// Bits to clear in a mark, and then bits to turn over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Change {
    value: u32,
    mask: u32,
}

/// How a counter of an element is compared with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal(u64),
    Differs(u64),
    Less(u64),
    Greater(u64),
}

impl Compare {
    const fn holds(self, counter: u64) -> bool {
        match self {
            Self::Equal(n) => counter == n,
            Self::Differs(n) => counter != n,
            Self::Less(n) => counter < n,
            Self::Greater(n) => counter > n,
        }
    }
}

/// What a rule asks for besides that the packet be in the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Exceptions are what is looked for.
    pub wants_nomatch: bool,
    pub keeps_counters: bool,
    pub packets: Option<Compare>,
    pub bytes: Option<Compare>,
}

impl Element {
    fn is_alive(&self, born: Instant, now: Instant) -> bool {
        match self.expiry {
            Expiry::Never => true,
            Expiry::At(at) => at > now,
            Expiry::AfterBirth(life) => born + life > now,
        }
    }

    /// Counts a packet of so many bytes, and says whether the counters are as asked for then.
    fn counts(&self, bytes: u64, query: &Query) -> bool {
        if !query.keeps_counters {
            self.packets.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let holds = |compare: Option<Compare>, counter: &AtomicU64| {
            compare.is_none_or(|compare| compare.holds(counter.load(Ordering::Relaxed)))
        };
        holds(query.packets, &self.packets) && holds(query.bytes, &self.bytes)
    }
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
    /// Elements count the packets that they held for.
    has_counters: bool,
    has_marks: bool,
    /// When a packet first asked for anything in it.
    born: OnceLock<Instant>,
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
    pub(in crate::filter) fn contains(
        &self,
        pkt: &Packet,
        sides: &[Side],
        now: Instant,
        query: &Query,
    ) -> bool {
        self.seek(pkt, sides, now, query, |_| ()).is_some()
    }

    /// What the element that the packet is in makes of its mark; the mark itself where there is none.
    pub(in crate::filter) fn map_mark(&self, pkt: &Packet, sides: &[Side], now: Instant, mark: u32) -> u32 {
        let change = self.seek(pkt, sides, now, &Query::default(), |element| element.mark);
        change.map_or(mark, |Change { value, mask }| (mark & !mask) ^ value)
    }

    /// Finds the narrowest element that the packet is in and whose counters are as asked for.
    fn seek<T>(
        &self,
        pkt: &Packet,
        sides: &[Side],
        now: Instant,
        query: &Query,
        found: impl FnOnce(&Element) -> T,
    ) -> Option<T> {
        let born = *self.born.get_or_init(|| now);
        let key = self.key(pkt, sides)?;
        let elements = self.elements.read();
        for (len, of_len) in elements.iter().rev() {
            let key = (masked(key.0, *len), key.1, key.2);
            let Some(element) = of_len.get(&key).filter(|e| e.is_alive(born, now)) else { continue };
            if self.has_counters && !element.counts(pkt.l3().len() as u64, query) {
                continue;
            }
            // Only sets of networks have exceptions, and know what it is to look for one.
            let is_sought = self.kind != Kind::Net || element.nomatch == query.wants_nomatch;
            return is_sought.then(|| found(element));
        }
        None
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
        // The header must be there in full, wherever in it the port is.
        let port = match (self.family, proto) {
            (_, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP) => {
                pkt.l4().get(..ports_header_len(proto)?)?;
                let (src, dst) = pkt.ports()?;
                if sides[1] == Side::Src { src } else { dst }
            }
            (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6) => {
                let &[kind, code, ..] = pkt.l4().first_chunk::<8>()?;
                u16::from_be_bytes([kind, code])
            }
            _ => 0,
        };
        Some((addr, proto, port))
    }

    /// Adds what the packet shows (`-j SET --add-set`). An element that is there stays as it is unless `exist`.
    pub(in crate::filter) fn add(
        &self,
        pkt: &Packet,
        sides: &[Side],
        now: Instant,
        timeout: Option<u32>,
        exist: bool,
    ) {
        let Some(key) = self.key(pkt, sides) else { return };
        let mut elements = self.elements.write();
        // Networks are added with the longest prefix that the set has.
        let len = match self.kind {
            Kind::Net => elements.keys().next_back().copied().unwrap_or(self.family.bits()),
            Kind::Ip | Kind::IpPort => self.family.bits(),
        };
        let key = (masked(key.0, len), key.1, key.2);
        let born = *self.born.get_or_init(|| now);
        let there = elements.get(&len).and_then(|m| m.get(&key)).is_some_and(|e| e.is_alive(born, now));
        if there && !exist {
            return;
        }
        let count: usize = elements.values().map(BTreeMap::len).sum();
        if !there && count >= self.max as usize {
            elements.values_mut().for_each(|m| m.retain(|_, e| e.is_alive(born, now)));
            if elements.values().map(BTreeMap::len).sum::<usize>() >= self.max as usize {
                return;
            }
        }
        let expiry = self.life(timeout).map_or(Expiry::Never, |life| Expiry::At(now + life));
        let element = Element {
            expiry,
            nomatch: false,
            is_learnt: true,
            packets: AtomicU64::new(1),
            bytes: AtomicU64::new(pkt.l3().len() as u64),
            mark: Change::default(),
        };
        elements.entry(len).or_default().insert(key, element);
    }

    /// Removes what the packet shows (`-j SET --del-set`).
    pub(in crate::filter) fn remove(&self, pkt: &Packet, sides: &[Side]) {
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

    /// How long an element stays, if not for ever.
    fn life(&self, timeout: Option<u32>) -> Option<Duration> {
        match (timeout.or(self.timeout), self.timeout) {
            (Some(secs @ 1..), Some(_)) => Some(Duration::from_secs(u64::from(secs))),
            _ => None,
        }
    }

    /// Whether its elements count packets, so that a rule may ask how many.
    pub(in crate::filter) const fn has_counters(&self) -> bool {
        self.has_counters
    }

    /// Whether its elements have marks to give (`skbinfo`).
    pub(in crate::filter) const fn has_marks(&self) -> bool {
        self.has_marks
    }

    /// Takes over what rules added to the set of the same name and kind in an older ruleset; what the text says of
    /// the same element stands.
    pub(in crate::filter) fn inherit(&self, older: &Self) {
        if (self.kind, self.family, self.netmask) != (older.kind, older.family, older.netmask) {
            return;
        }
        let mut elements = self.elements.write();
        let mut room = (self.max as usize).saturating_sub(elements.values().map(BTreeMap::len).sum());
        for (len, of_len) in older.elements.read().iter() {
            for (key, element) in of_len.iter().filter(|(_, e)| e.is_learnt) {
                let there = elements.get(len).is_some_and(|of_len| of_len.contains_key(key));
                if there || room == 0 {
                    continue;
                }
                room -= 1;
                let copy = Element {
                    expiry: if self.timeout.is_some() { element.expiry } else { Expiry::Never },
                    packets: AtomicU64::new(element.packets.load(Ordering::Relaxed)),
                    bytes: AtomicU64::new(element.bytes.load(Ordering::Relaxed)),
                    ..*element
                };
                elements.entry(*len).or_default().insert(*key, copy);
            }
        }
    }
}

/// `create NAME TYPE [family inet] …`
pub(in crate::filter) fn parse_create(words: &[Token<'_>], family: Family) -> Result<Option<Set>, Problem> {
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
        has_counters: false,
        has_marks: false,
        born: OnceLock::new(),
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
            "counters" => set.has_counters = true,
            "skbinfo" => set.has_marks = true,
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
pub(in crate::filter) fn parse_add(set: &Set, words: &[Token<'_>]) -> Result<(), Problem> {
    let Some(element) = words.get(2) else {
        return Err(Problem::new(words[0].at, "what is to be added is missing").hint("`add NAME 192.0.2.1`"));
    };
    let mut new = Element {
        expiry: Expiry::Never,
        nomatch: false,
        is_learnt: false,
        packets: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        mark: Change::default(),
    };
    let mut timeout = None;
    let mut rest = words[3..].iter();
    while let Some(option) = rest.next() {
        let mut value = |read: &dyn Fn(&str) -> Result<u64, Complaint>| {
            let word = rest.next().map_or("", |w| &w.text);
            read(word).map_err(|c| Problem { at: option.at, message: c.message, hint: c.hint })
        };
        match &*option.text {
            "nomatch" if set.kind == Kind::Net => new.nomatch = true,
            "timeout" if set.timeout.is_some() => {
                timeout = Some(value(&|text| number_u32(text).map(u64::from))? as u32);
            }
            "timeout" => {
                let problem = Problem::new(option.at, "the set has no timeouts");
                return Err(problem.hint("`create … timeout 0` gives it some"));
            }
            "packets" | "bytes" if set.has_counters => {
                let count = AtomicU64::new(value(&|text| number(text, u64::MAX))?);
                *(if option.text == "packets" { &mut new.packets } else { &mut new.bytes }) = count;
            }
            "packets" | "bytes" => {
                let problem = Problem::new(option.at, "the elements of the set count nothing");
                return Err(problem.hint("`create … counters` makes them"));
            }
            "skbmark" if set.has_marks => {
                let packed = value(&|text| {
                    parse_marked(text).map(|(value, mask)| u64::from(value) << 32 | u64::from(mask))
                })?;
                new.mark = Change { value: (packed >> 32) as u32, mask: packed as u32 };
            }
            // What a packet's place in a queue would be: no rule here can ask for it.
            "skbprio" | "skbqueue" if set.has_marks => drop(rest.next()),
            "skbmark" | "skbprio" | "skbqueue" => {
                let problem = Problem::new(option.at, "the elements of the set have no marks");
                return Err(problem.hint("`create … skbinfo` gives them some"));
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
    new.expiry = set.life(timeout).map_or(Expiry::Never, Expiry::AfterBirth);
    elements.entry(len).or_default().insert(key, new);
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
            let is_icmp = matches!(proto, PROTO_ICMP | PROTO_ICMPV6);
            let number = match number.split_once('/') {
                Some((kind, code)) if is_icmp => {
                    let byte = |text: &str| text.parse::<u8>().map_err(|_| bad());
                    u16::from_be_bytes([byte(kind)?, byte(code)?])
                }
                _ if is_icmp => {
                    let named = type_and_code(number, set.family).ok_or_else(|| {
                        Complaint::new(format!("`{number}` is no type and code of ICMP"))
                            .hint("`8/0`, or a name that stands for one code, such as `echo-request`")
                    })?;
                    u16::from_be_bytes([named.0, named.1])
                }
                _ => port(number, Services::of(proto))?,
            };
            Ok((bits, (addr(address, set.family)?, proto, number)))
        }
    }
}

//! Sets, as `ipset save` writes them: addresses, networks, ports, interfaces, link addresses, and lists of such sets.
//!
//! Their lines stand in front of the tables whose rules name them.
//!
//! - `kind`: the types
//! - `element`: what a set holds
//! - `create`: `create NAME TYPE …`
//! - `add`: `add NAME ELEMENT …`
//! - `members`: all elements, for who asks about all packets at once
//! - here: what rules ask of a set, and change in it

#![forbid(unsafe_code)]

mod add;
mod create;
mod element;
mod kind;
mod members;

pub(in crate::filter) use add::{Found, parse_add};
pub(in crate::filter) use create::parse_create;
pub use element::{Compare, Query};
pub use kind::Kind;
pub use members::{Member, Members};

use crate::base::iface::IfaceId;
use crate::base::time::{Duration, Instant};
use crate::filter::text::options::Complaint;
use crate::packet::tuple::{
    PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE, ports_header_len,
};
use crate::packet::{Addr, Family, Mac, Packet};
use element::{Change, Element, Expiry, IfaceName, Key};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

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

    /// What belongs to this side of a pair.
    fn of<T>(self, src: T, dst: T) -> T {
        match self {
            Self::Src => src,
            Self::Dst => dst,
        }
    }
}

/// A packet, and where it is seen.
#[derive(Clone, Copy)]
pub(in crate::filter) struct Sight<'a> {
    pub(in crate::filter) pkt: &'a Packet<'a>,
    pub(in crate::filter) in_iface: Option<IfaceId>,
    pub(in crate::filter) out_iface: Option<IfaceId>,
    pub(in crate::filter) now: Instant,
}

impl Sight<'_> {
    fn addr(&self, side: Side) -> Addr {
        side.of(self.pkt.src(), self.pkt.dst())
    }

    /// The link address of a side; what the router itself wrote has none yet.
    fn mac(&self, side: Side) -> Option<Mac> {
        self.in_iface?;
        Some(side.of(self.pkt.src_mac(), self.pkt.dst_mac()))
    }

    /// The protocol and the port of a side; of ICMP type and code. `None` if its header is cut short.
    fn port(&self, side: Side) -> Option<(u8, u16)> {
        let (pkt, proto) = (self.pkt, self.pkt.proto());
        // The header must be there in full, wherever in it the port is.
        let port = match (pkt.family(), proto) {
            (_, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP) => {
                pkt.l4().get(..ports_header_len(proto)?)?;
                let (src, dst) = pkt.ports()?;
                side.of(src, dst)
            }
            (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6) => {
                let &[kind, code, ..] = pkt.l4().first_chunk::<8>()?;
                u16::from_be_bytes([kind, code])
            }
            _ => 0,
        };
        Some((proto, port))
    }
}

/// A set that rules look into and change.
#[derive(Debug)]
pub struct Set {
    pub name: String,
    pub kind: Kind,
    pub family: Family,
    /// hash:ip, bitmap:ip: addresses are cut to this prefix.
    netmask: u8,
    /// Bitmaps: the numbers that there is room for.
    range: (u32, u32),
    max: u32,
    /// What an element without a timeout of its own gets.
    timeout: Option<u32>,
    /// Elements count the packets that they held for.
    has_counters: bool,
    has_marks: bool,
    /// The names of the router's interfaces, by their ids; only where elements name some.
    ifaces: Vec<IfaceName>,
    /// When a packet first asked for anything in it.
    born: OnceLock<Instant>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// By prefix length; longest last.
    Elements(RwLock<Elements>),
    /// list:set: other sets, in the order in which they are asked.
    Sets(RwLock<Vec<(Arc<Set>, Element)>>),
}

type Elements = BTreeMap<u8, BTreeMap<Key, Element>>;

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

fn masked(addr: Addr, len: u8) -> Addr {
    Addr::from_bits(if len == 0 { 0 } else { addr.bits() & u128::MAX << (128 - u32::from(len)) })
}

fn count(elements: &Elements) -> usize {
    elements.values().map(BTreeMap::len).sum()
}

impl Set {
    /// Whether the packet is in the set, seen from these sides.
    pub(in crate::filter) fn contains(&self, sight: &Sight<'_>, sides: &[Side], query: &Query) -> bool {
        self.seek(sight, sides, query).is_some()
    }

    /// What the element that the packet is in makes of its mark; the mark itself where there is none.
    pub(in crate::filter) fn map_mark(&self, sight: &Sight<'_>, sides: &[Side], mark: u32) -> u32 {
        let change = self.seek(sight, sides, &Query::default());
        change.map_or(mark, |Change { value, mask }| (mark & !mask) ^ value)
    }

    /// Whether a rule names enough sides, of a packet of the right family.
    fn is_asked_rightly(&self, pkt: &Packet, sides: &[Side]) -> bool {
        sides.len() >= self.kind.dimensions()
            && (pkt.family() == self.family || self.kind.is_for_both_families())
    }

    /// When the elements of the text began to live.
    fn born(&self, now: Instant) -> Instant {
        *self.born.get_or_init(|| now)
    }

    /// Finds the narrowest element that the packet is in and whose counters are as asked for; gives back what it makes of
    /// a mark.
    fn seek(&self, sight: &Sight<'_>, sides: &[Side], query: &Query) -> Option<Change> {
        let born = self.born(sight.now);
        match &self.content {
            Content::Elements(elements) => {
                let key = self.key(sight, sides)?;
                for (len, of_len) in elements.read().iter().rev() {
                    let key = self.cut(key, *len);
                    let Some(element) = self.find(of_len, key, born, sight.now) else {
                        if self.kind == Kind::NetIface && has_network(of_len, key) {
                            return None;
                        }
                        continue;
                    };
                    if self.kind == Kind::BitmapIpMac {
                        let mac = sight.mac(*sides.get(1)?)?;
                        // The first packet says whose address it is, where the text does not. Linux then adds it anew,
                        // and does not ask what was counted.
                        if element.mac.set(mac).is_ok() {
                            element.counters.begin(sight.pkt.l3().len() as u64);
                            return Some(element.mark);
                        }
                        if element.mac.get() != Some(&mac) {
                            return None;
                        }
                    }
                    if self.has_counters && !element.counts(sight.pkt.l3().len() as u64, query) {
                        continue;
                    }
                    // Only sets of networks have exceptions, and know what it is to look for one.
                    let is_sought = !self.kind.has_networks() || element.nomatch == query.wants_nomatch;
                    return is_sought.then_some(element.mark);
                }
                None
            }
            Content::Sets(sets) => {
                let of_members = query.of_members();
                sets.read().iter().find_map(|(set, element)| {
                    if !element.is_alive(born, sight.now) {
                        return None;
                    }
                    set.seek(sight, sides, &of_members)?;
                    let holds = !self.has_counters || element.counts(sight.pkt.l3().len() as u64, query);
                    holds.then_some(element.mark)
                })
            }
        }
    }

    /// The element of this key, or the one whose interface is how that of the key begins.
    fn find<'a>(
        &self,
        elements: &'a BTreeMap<Key, Element>,
        key: Key,
        born: Instant,
        now: Instant,
    ) -> Option<&'a Element> {
        let exact = elements.get(&key).filter(|element| element.is_alive(born, now));
        if exact.is_some() || self.kind != Kind::NetIface {
            return exact;
        }
        let of_net = elements.range(Key { iface: IfaceName::default(), ..key }..=key);
        let begins = |(of, element): (&Key, &'a Element)| {
            let holds = element.wildcard && element.is_alive(born, now) && of.iface.begins(&key.iface);
            holds.then_some(element)
        };
        of_net.rev().find_map(begins)
    }

    /// What the packet is looked up by; `None` if it cannot be in the set at all.
    fn key(&self, sight: &Sight<'_>, sides: &[Side]) -> Option<Key> {
        if !self.is_asked_rightly(sight.pkt, sides) {
            return None;
        }
        let addr = || masked(sight.addr(sides[0]), self.netmask);
        let with_port = |side: Side| {
            let (proto, port) = sight.port(side)?;
            Some(Key { addr: addr(), proto, port, ..Key::default() })
        };
        let key = match self.kind {
            Kind::Ip | Kind::Net | Kind::BitmapIp | Kind::BitmapIpMac => {
                Key { addr: addr(), ..Key::default() }
            }
            Kind::IpPort | Kind::NetPort => with_port(sides[1])?,
            Kind::IpPortIp | Kind::IpPortNet => Key { second: sight.addr(sides[2]), ..with_port(sides[1])? },
            Kind::NetIface => {
                let iface = sides[1].of(sight.in_iface, sight.out_iface)?;
                Key { addr: addr(), iface: *self.ifaces.get(iface.index())?, ..Key::default() }
            }
            Kind::BitmapPort => {
                let (_, port) =
                    sight.port(sides[0]).filter(|(proto, _)| matches!(*proto, PROTO_TCP | PROTO_UDP))?;
                Key { port, ..Key::default() }
            }
            Kind::List => return None,
        };
        self.has_room_for(&key).then_some(key)
    }

    /// Whether a bitmap has a place for this element.
    fn has_room_for(&self, key: &Key) -> bool {
        let number = match self.kind {
            Kind::BitmapPort => u32::from(key.port),
            _ => u32::from_be_bytes(key.addr.v4()),
        };
        !self.kind.is_bitmap() || (self.range.0..=self.range.1).contains(&number)
    }

    /// The key of a network that holds what this one stands for.
    fn cut(&self, key: Key, len: u8) -> Key {
        if !self.kind.has_networks() {
            key
        } else if self.kind.network_is_second() {
            Key { second: masked(key.second, len), ..key }
        } else {
            Key { addr: masked(key.addr, len), ..key }
        }
    }

    /// The prefix that rules add and remove with: networks have the longest that there is in the set.
    fn usual_len(&self, elements: &Elements) -> u8 {
        let longest = || elements.keys().next_back().copied();
        longest().filter(|_| self.kind.has_networks()).unwrap_or(self.family.bits())
    }

    /// Adds what the packet shows (`-j SET --add-set`). An element that is there stays as it is unless `exist`, or unless it
    /// is an address whose link address nobody knows yet. Of a list, it is the first set that takes it. Says whether it was
    /// added.
    pub(in crate::filter) fn add(
        &self,
        sight: &Sight<'_>,
        sides: &[Side],
        timeout: Option<u32>,
        exist: bool,
    ) -> bool {
        let elements = match &self.content {
            Content::Elements(elements) => elements,
            Content::Sets(sets) => {
                let born = self.born(sight.now);
                return sets.read().iter().any(|(set, element)| {
                    element.is_alive(born, sight.now) && set.add(sight, sides, timeout, exist)
                });
            }
        };
        let Some(key) = self.key(sight, sides) else { return false };
        let mac = (self.kind == Kind::BitmapIpMac).then(|| sight.mac(sides[1]));
        if mac == Some(None) {
            return false;
        }
        let (now, born) = (sight.now, self.born(sight.now));
        let mut elements = elements.write();
        let len = self.usual_len(&elements);
        let key = self.cut(key, len);
        let known = elements.get(&len).and_then(|m| m.get(&key)).filter(|e| e.is_alive(born, now));
        let is_incomplete = |e: &Element| self.kind == Kind::BitmapIpMac && e.mac.get().is_none();
        if known.is_some_and(|e| !exist && !is_incomplete(e)) {
            return false;
        }
        let there = known.is_some();
        if !there && count(&elements) >= self.max as usize {
            elements.values_mut().for_each(|m| m.retain(|_, e| e.is_alive(born, now)));
            if count(&elements) >= self.max as usize {
                return false;
            }
        }
        let element = Element {
            expiry: self.life(timeout).map_or(Expiry::Never, |life| Expiry::At(now + life)),
            is_learnt: true,
            mac: mac.flatten().map(OnceLock::from).unwrap_or_default(),
            counters: element::Counters { packets: 1.into(), bytes: (sight.pkt.l3().len() as u64).into() },
            ..Element::default()
        };
        elements.entry(len).or_default().insert(key, element);
        true
    }

    /// Removes what the packet shows (`-j SET --del-set`); of a list, from the first set that has it. Says whether it was
    /// there.
    pub(in crate::filter) fn remove(&self, sight: &Sight<'_>, sides: &[Side]) -> bool {
        let elements = match &self.content {
            Content::Elements(elements) => elements,
            Content::Sets(sets) => {
                let born = self.born(sight.now);
                return sets
                    .read()
                    .iter()
                    .any(|(set, element)| element.is_alive(born, sight.now) && set.remove(sight, sides));
            }
        };
        let Some(key) = self.key(sight, sides) else { return false };
        let mut elements = elements.write();
        let len = self.usual_len(&elements);
        let key = self.cut(key, len);
        let Some(of_len) = elements.get_mut(&len) else { return false };
        let was_there = of_len.remove(&key).is_some();
        if of_len.is_empty() {
            elements.remove(&len);
        }
        was_there
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

    /// One of its own, with the same elements; `member` makes the copies of the sets that it lists.
    pub(in crate::filter) fn copied(&self, member: &dyn Fn(&Arc<Self>) -> Arc<Self>) -> Self {
        let content = match &self.content {
            Content::Elements(elements) => {
                let of_len = |of_len: &BTreeMap<Key, Element>| {
                    of_len.iter().map(|(key, element)| (*key, element.copied())).collect()
                };
                let elements = elements.read();
                let copies = elements.iter().map(|(len, elements)| (*len, of_len(elements))).collect();
                Content::Elements(RwLock::new(copies))
            }
            Content::Sets(sets) => {
                let copies =
                    sets.read().iter().map(|(set, element)| (member(set), element.copied())).collect();
                Content::Sets(RwLock::new(copies))
            }
        };
        let (name, ifaces, born) = (self.name.clone(), self.ifaces.clone(), self.born.clone());
        Self { name, ifaces, born, content, ..*self }
    }

    /// Whether it holds other sets.
    pub(in crate::filter) const fn is_list(&self) -> bool {
        matches!(self.content, Content::Sets(_))
    }

    /// Takes over what rules added to the set of the same name and kind in an older ruleset; what the text says of
    /// the same element stands.
    pub(in crate::filter) fn inherit(&self, older: &Self) {
        let (Content::Elements(elements), Content::Elements(learnt)) = (&self.content, &older.content) else {
            return;
        };
        if (self.kind, self.family, self.netmask) != (older.kind, older.family, older.netmask) {
            return;
        }
        let mut elements = elements.write();
        let mut room = (self.max as usize).saturating_sub(count(&elements));
        for (len, of_len) in learnt.read().iter() {
            for (key, element) in of_len.iter().filter(|(_, e)| e.is_learnt) {
                let there = elements.get(len).is_some_and(|of_len| of_len.contains_key(key));
                if there || room == 0 || !self.has_room_for(key) {
                    continue;
                }
                room -= 1;
                let expiry = if self.timeout.is_some() { element.expiry } else { Expiry::Never };
                let copy = Element { expiry, ..element.copied() };
                elements.entry(*len).or_default().insert(*key, copy);
            }
        }
    }
}

/// hash:net,iface: whether the network is there, behind whatever interface. Linux then asks no wider one.
fn has_network(elements: &BTreeMap<Key, Element>, key: Key) -> bool {
    let from = Key { iface: IfaceName::default(), ..key };
    elements.range(from..).next().is_some_and(|(there, _)| there.addr == key.addr)
}

//! The conditions of a rule as sets of packets.

#![forbid(unsafe_code)]

use crate::marks::Marks;
use crate::space::{Field, Made, Set, Space};
use stateway_core::conntrack::CtState;
use stateway_core::filter::ipset::{Kind, Member, Members, Set as Elements, Side};
use stateway_core::filter::matches::{
    Conntrack, Iprange, Match, Multiport, MultiportSide, PortMatch, SetMatch, StateSet, Tcp,
};
use stateway_core::filter::rule::{AddrMatch, IfaceMatch};
use stateway_core::filter::{Hook, Matches, Table};
use stateway_core::iface::IfaceId;
use stateway_core::packet::{Addr, Family};
use std::collections::BTreeMap;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;
pub(crate) const UDPLITE: u8 = 136;
/// Protocols that have ports in their first four bytes.
pub(crate) const WITH_PORTS: [u8; 5] = [TCP, UDP, UDPLITE, SCTP, 33];

/// The states by their numbers.
pub const STATES: [CtState; 5] =
    [CtState::New, CtState::Established, CtState::Related, CtState::Invalid, CtState::Untracked];

/// A list of more elements than this is not looked into: either answer is possible.
const MOST_MEMBERS: usize = 200_000;

/// Where conditions are looked at, and what rules may have changed by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) table: Table,
    pub(crate) hook: Hook,
    /// Packets of known connections may still have other addresses than those that FORWARD sees.
    pub(crate) before_translation: bool,
    /// So may every packet, since prefixes are translated.
    pub(crate) before_prefixes: bool,
    pub(crate) ttl_changes: bool,
    pub(crate) tos_changes: bool,
    pub(crate) length_changes: bool,
    /// The router itself sends the packets: they came in nowhere.
    pub(crate) is_own: bool,
}

impl Sight {
    /// Whether packets have such an interface here.
    const fn shows(self, field: Field) -> bool {
        match field {
            Field::In => !self.is_own,
            _ => !matches!(self.hook, Hook::Input | Hook::Prerouting),
        }
    }
}

/// The packets at FORWARD that a rule's conditions hold for, if no rule before has changed anything of them.
pub fn matching(space: &Space, matches: &Matches) -> Made<Set> {
    let sight = Sight {
        table: Table::Filter,
        hook: Hook::Forward,
        before_translation: false,
        before_prefixes: false,
        ttl_changes: false,
        tos_changes: false,
        length_changes: false,
        is_own: false,
    };
    let mut conditions = Conditions::new(space, Vec::new());
    conditions.of(matches, sight)?.and(&conditions.of_marks(matches, &Marks::none(space))?)
}

/// Conditions → sets. Keeps what was made of sets, which are large and named often.
pub(crate) struct Conditions<'a> {
    pub(crate) space: &'a Space,
    members: BTreeMap<(String, Vec<bool>), Set>,
    /// How often each condition that differs from time to time has been met.
    met: BTreeMap<String, usize>,
    /// Sets that rules add to or remove from.
    pub(crate) changing: Vec<String>,
    /// What sets hold is nothing that rules can count on: others add to them.
    pub(crate) sets_are_unknown: bool,
    /// A rule asked whether its packet's connection is translated.
    pub(crate) asks_translation: bool,
}

impl<'a> Conditions<'a> {
    pub(crate) fn new(space: &'a Space, changing: Vec<String>) -> Self {
        Self {
            space,
            members: BTreeMap::new(),
            met: BTreeMap::new(),
            changing,
            sets_are_unknown: false,
            asks_translation: false,
        }
    }

    /// What a rule asks of marks, which are known of packets as they came.
    pub(crate) fn of_marks(&self, matches: &Matches, marks: &Marks) -> Made<Set> {
        matches.listed.iter().try_fold(self.space.full(), |set, m| match m {
            Match::Mark(c) => set.and(&turned(marks.masked(self.space, c.0.value, c.0.mask)?, c.0.negated)?),
            _ => Ok(set),
        })
    }

    /// The packets for which all other conditions of a rule hold, with the ends that they have there.
    pub(crate) fn of(&mut self, matches: &Matches, sight: Sight) -> Made<Set> {
        // Named in full: a new condition does not compile until it is looked at here.
        let Matches { src, dst, in_iface, out_iface, proto, fragment, listed } = matches;
        let space = self.space;
        let mut all = Vec::new();
        for m in listed {
            all.push(self.listed(m, sight)?);
        }
        for (field, addr) in [(Field::Src, src), (Field::Dst, dst)] {
            if let Some(addr) = addr {
                all.push(self.addr(field, addr, sight)?);
            }
        }
        if let Some(wanted) = fragment {
            all.push(if *wanted {
                space.bit(Field::Fragment, 0)
            } else {
                space.bit(Field::Fragment, 0).not()?
            });
        }
        if let Some(c) = proto {
            all.push(turned(space.is(Field::Proto, u128::from(c.proto))?, c.negated)?);
        }
        if let Some(c) = out_iface {
            all.push(self.iface(Field::Out, c, sight)?);
        }
        if let Some(c) = in_iface {
            all.push(self.iface(Field::In, c, sight)?);
        }
        // From the last variables to the first: each step then adds to the top of what is there.
        all.iter().try_fold(space.full(), |set, condition| set.and(condition))
    }

    fn addr(&mut self, field: Field, c: &AddrMatch, sight: Sight) -> Made<Set> {
        let shift = 128 - u32::from(self.space.family.bits());
        let set = self.space.masked(field, c.net.addr.bits() >> shift, c.net.mask >> shift)?;
        let side = if field == Field::Src { "-s" } else { "-d" };
        let set = self.as_it_came(set, sight, || format!("{side} {} before translation", c.net))?;
        turned(set, c.negated)
    }

    /// What is asked of ends where packets may still have others than the ones that they are described with.
    fn as_it_came(&self, set: Set, sight: Sight, text: impl FnOnce() -> String) -> Made<Set> {
        if sight.before_prefixes {
            return self.unknown_of_packet(&text());
        }
        if !sight.before_translation {
            return Ok(set);
        }
        let unknown = self.unknown_of_packet(&text())?;
        self.space.of_known_connections()?.choose(&unknown, &set)
    }

    fn iface(&self, field: Field, c: &IfaceMatch, sight: Sight) -> Made<Set> {
        if !sight.shows(field) {
            return Ok(self.space.constant(c.holds(None)));
        }
        let ids = 0..self.space.ifaces.len();
        self.space.one_of(field, ids.filter(|id| c.holds(Some(IfaceId(*id as u16)))).map(|id| id as u128))
    }

    /// Something that is the same whenever it is asked of one packet.
    fn unknown_of_packet(&self, text: &str) -> Made<Set> {
        self.space.unknown(text, text)
    }

    /// Something that may be otherwise the next time it is asked.
    fn unknown_each_time(&mut self, text: &str) -> Made<Set> {
        let met = self.met.entry(text.to_owned()).or_default();
        *met += 1;
        self.space.unknown(&format!("{text} #{met}"), text)
    }

    fn listed(&mut self, m: &Match, sight: Sight) -> Made<Set> {
        let space = self.space;
        let whole = || space.bit(Field::Fragment, 0).not();
        let text = || format!("-m {}{m}", m.name());
        Ok(match m {
            Match::Comment(_) | Match::Mark(_) => space.full(),
            Match::Tcp(tcp) => self.tcp(tcp, sight)?,
            Match::Udp(udp) => self.ports(udp.sport.as_ref(), udp.dport.as_ref(), sight)?.and(&whole()?)?,
            Match::Multiport(list) => self.multiport(list, sight)?.and(&whole()?)?,
            Match::Icmp(c) => self.icmp((c.0.kind, c.0.codes, c.0.negated), Some(255))?.and(&whole()?)?,
            Match::Icmp6(c) => self.icmp((c.0.kind, c.0.codes, c.0.negated), None)?.and(&whole()?)?,
            Match::State(c) => self.states(c.states, c.negated, sight)?,
            Match::Conntrack(c) => self.conntrack(c, sight)?,
            Match::Length(_) if sight.length_changes => self.unknown_each_time(&text())?,
            Match::Length(c) => {
                turned(space.between(Field::Length, c.low.into(), c.high.into())?, c.negated)?
            }
            Match::Iprange(range) => self.iprange(range, sight)?,
            Match::Set(c) => self.set(c, sight)?,
            Match::Tos(_) | Match::Dscp(_) if sight.tos_changes => self.unknown_each_time(&text())?,
            Match::Tos(c) => turned(space.masked(Field::Tos, c.value.into(), c.mask.into())?, c.negated)?
                .and(&space.constant(c.value & !c.mask == 0 || c.negated))?,
            Match::Dscp(c) => turned(space.masked(Field::Tos, u128::from(c.value) << 2, 0xfc)?, c.negated)?,
            Match::Ttl(_) | Match::Hl(_) if sight.ttl_changes => self.unknown_each_time(&text())?,
            // What is the same for a packet whenever it is asked.
            Match::Addrtype(_)
            | Match::Ah(_)
            | Match::Ah6(_)
            | Match::Dst(_)
            | Match::Esp(_)
            | Match::Eui64(_)
            | Match::Frag(_)
            | Match::Hbh(_)
            | Match::Helper(_)
            | Match::Ipv6Header(_)
            | Match::Mac(_)
            | Match::Owner(_)
            | Match::Physdev(_)
            | Match::Pkttype(_)
            | Match::Policy(_)
            | Match::Rpfilter(_)
            | Match::Rt(_)
            | Match::Sctp(_)
            | Match::String(_)
            | Match::Ttl(_)
            | Match::Hl(_)
            | Match::Time(_) => self.unknown_of_packet(&text())?,
            // Chance, time, what came before, or what rules change on the way.
            Match::Connbytes(_)
            | Match::Connlimit(_)
            | Match::Connmark(_)
            | Match::Ecn(_)
            | Match::Hashlimit(_)
            | Match::Limit(_)
            | Match::Quota(_)
            | Match::Recent(_)
            | Match::Statistic(_)
            | Match::Tcpmss(_)
            | Match::U32(_) => self.unknown_each_time(&text())?,
        })
    }

    fn tcp(&mut self, tcp: &Tcp, sight: Sight) -> Made<Set> {
        let Tcp { sport, dport, option, flags } = tcp;
        let mut set = self.ports(sport.as_ref(), dport.as_ref(), sight)?;
        set = set.and(&self.space.bit(Field::Fragment, 0).not()?)?;
        if let Some(flags) = flags {
            let (wanted, mask) = (u128::from(flags.set.bits()), u128::from(flags.mask.bits()));
            let is_possible = self.space.constant(wanted & !mask == 0);
            let exactly = self.space.masked(Field::Flags, wanted, mask)?.and(&is_possible)?;
            set = set.and(&turned(exactly, flags.negated)?)?;
        }
        if let Some(option) = option {
            let has = self.unknown_of_packet(&format!("-m tcp --tcp-option {}", option.kind))?;
            set = set.and(&turned(has, option.negated)?)?;
        }
        Ok(set)
    }

    fn ports(&mut self, sport: Option<&PortMatch>, dport: Option<&PortMatch>, sight: Sight) -> Made<Set> {
        let mut set = self.space.full();
        for (field, port) in [(Field::Sport, sport), (Field::Dport, dport)] {
            let Some(port) = port else { continue };
            let of = self.space.between(field, port.ports.0.into(), port.ports.1.into())?;
            let of = self.as_it_came(of, sight, || {
                let side = if field == Field::Sport { "--sport" } else { "--dport" };
                format!("{side} {}:{} before translation", port.ports.0, port.ports.1)
            })?;
            set = set.and(&turned(of, port.negated)?)?;
        }
        Ok(set)
    }

    fn multiport(&mut self, list: &Multiport, sight: Sight) -> Made<Set> {
        let Multiport { side, ports, negated } = list;
        let of = |field| -> Made<Set> {
            let ranges =
                ports.iter().map(|(ports, _)| self.space.between(field, ports.0.into(), ports.1.into()));
            self.space.any(ranges.collect::<Made<Vec<Set>>>()?)
        };
        let set = match side {
            MultiportSide::Source => of(Field::Sport)?,
            MultiportSide::Destination => of(Field::Dport)?,
            MultiportSide::Either => of(Field::Sport)?.or(&of(Field::Dport)?)?,
        };
        let plain = Multiport { negated: false, ..list.clone() };
        turned(self.as_it_came(set, sight, || format!("-m multiport{plain} before translation"))?, *negated)
    }

    fn icmp(&self, (kind, codes, negated): (u8, (u8, u8), bool), any: Option<u8>) -> Made<Set> {
        if any == Some(kind) {
            return Ok(self.space.constant(!negated));
        }
        let of = |code: u8| u128::from(kind) << 8 | u128::from(code);
        turned(self.space.between(Field::Dport, of(codes.0), of(codes.1))?, negated)
    }

    fn states(&mut self, states: StateSet, negated: bool, sight: Sight) -> Made<Set> {
        if sight.table == Table::Raw {
            // Before tracking a packet has no state, unless a rule spoke of it.
            return self.unknown_each_time(&format!("-m state --state {states} in table raw"));
        }
        let numbers = STATES.iter().enumerate().filter(|(_, state)| states.contains(bit_of(**state)));
        let set = self.space.one_of(Field::State, numbers.map(|(number, _)| number as u128))?;
        turned(set, negated)
    }

    fn conntrack(&mut self, c: &Conntrack, sight: Sight) -> Made<Set> {
        let Conntrack { states, proto, addrs, ports, status, expires, direction } = c;
        let is_state_alone = proto.is_none()
            && addrs.iter().all(Option::is_none)
            && ports.iter().all(Option::is_none)
            && status.is_none()
            && expires.is_none()
            && direction.is_none();
        let mut set = self.space.full();
        if let Some((states, negated)) = states {
            let mut of = self.states(*states, false, sight)?;
            for (bit, word) in [(StateSet::SNAT, "SNAT"), (StateSet::DNAT, "DNAT")] {
                if states.contains(bit) {
                    self.asks_translation = true;
                    of = of.or(&self.unknown_of_packet(&format!("-m conntrack --ctstate {word}"))?)?;
                }
            }
            set = turned(of, *negated)?;
        }
        if !is_state_alone {
            let rest = Conntrack { states: None, ..c.clone() };
            set = set.and(&self.unknown_each_time(&format!("-m conntrack{rest}"))?)?;
        }
        Ok(set)
    }

    fn iprange(&mut self, range: &Iprange, sight: Sight) -> Made<Set> {
        let shift = 128 - u32::from(self.space.family.bits());
        let mut set = self.space.full();
        for (field, range) in [(Field::Src, &range.src), (Field::Dst, &range.dst)] {
            if let Some(range) = range {
                let (low, high) = (range.low.bits() >> shift, range.high.bits() >> shift);
                set = set.and(&turned(self.space.between(field, low, high)?, range.negated)?)?;
            }
        }
        self.as_it_came(set, sight, || format!("-m iprange{range} before translation"))
    }

    // ── sets ─────────────────────────────────────────────────────────────────────────────────────────────────

    fn set(&mut self, c: &SetMatch, sight: Sight) -> Made<Set> {
        let SetMatch { set, sides, negated, query } = c;
        if self.sets_are_unknown && !self.changing.contains(&c.set.name) {
            let asked = SetMatch { negated: false, ..c.clone() };
            return turned(self.unknown_of_packet(&format!("-m set{asked}"))?, c.negated);
        }
        let text = format!("-m set{c}");
        let asks_more = query.packets.is_some() || query.bytes.is_some() || query.wants_nomatch;
        if asks_more || sight.before_translation || sight.before_prefixes || self.changing.contains(&set.name)
        {
            return self.unknown_each_time(&text);
        }
        let is_source: Vec<bool> = sides.iter().map(|side| *side == Side::Src).collect();
        let key = (set.name.clone(), is_source.clone());
        // Interfaces are seen at some hooks only.
        let keeps = set.kind != Kind::NetIface && set.kind != Kind::List;
        if let Some(known) = self.members.get(&key).filter(|_| keeps) {
            return turned(known.clone(), *negated);
        }
        let Some(of) = self.elements(set, sides, sight)? else { return self.unknown_each_time(&text) };
        if keeps {
            self.members.insert(key, of.clone());
        }
        turned(of, *negated)
    }

    /// `None` if the elements do not say it.
    fn elements(&self, set: &Elements, sides: &[Side], sight: Sight) -> Made<Option<Set>> {
        if self.changing.contains(&set.name) {
            return Ok(None);
        }
        let members = match set.members() {
            Members::Changing => return Ok(None),
            Members::Sets(sets) => {
                let mut all = Vec::new();
                for set in &sets {
                    let Some(of) = self.elements(set, sides, sight)? else { return Ok(None) };
                    all.push(of);
                }
                return self.space.any(all).map(Some);
            }
            Members::Elements(members) => members,
        };
        let of_family = matches!(set.kind, Kind::BitmapPort) || set.family == self.space.family;
        if !of_family || sides.len() < dimensions(set.kind) {
            return Ok(Some(self.space.empty()));
        }
        if set.kind == Kind::BitmapIpMac || members.len() > MOST_MEMBERS {
            return Ok(None);
        }
        if members.iter().all(|member| !member.is_exception) {
            let sets: Made<Vec<Set>> =
                members.iter().map(|m| self.member(set.kind, m, sides, sight)).collect();
            return self.space.any(sets?).map(Some);
        }
        // The narrowest element decides: those that hold more are laid below.
        let mut all = self.space.empty();
        for member in members.iter().rev() {
            let of = self.member(set.kind, member, sides, sight)?;
            all = if member.is_exception { all.without(&of)? } else { all.or(&of)? };
        }
        Ok(Some(all))
    }

    fn member(&self, kind: Kind, member: &Member, sides: &[Side], sight: Sight) -> Made<Set> {
        let addr = |side: Side, addr: Addr, len: u8| {
            let width = u32::from(self.space.family.bits());
            let mask = if len == 0 { 0 } else { u128::MAX << (128 - u32::from(len)) };
            let field = if side == Side::Src { Field::Src } else { Field::Dst };
            self.space.masked(field, addr.bits() >> (128 - width), mask >> (128 - width))
        };
        let port = |side: Side| -> Made<Set> {
            let field = if side == Side::Src { Field::Sport } else { Field::Dport };
            let is_icmp = member.proto == icmp_of(self.space.family);
            let of = self.space.is(if is_icmp { Field::Dport } else { field }, member.port.into())?;
            self.space.is(Field::Proto, member.proto.into())?.and(&of)
        };
        let first = || addr(sides[0], member.addr, member.addr_len);
        match kind {
            Kind::Ip | Kind::Net | Kind::BitmapIp | Kind::BitmapIpMac | Kind::List => first(),
            Kind::IpPort | Kind::NetPort => first()?.and(&port(sides[1])?),
            Kind::IpPortIp | Kind::IpPortNet => {
                let second = addr(sides[2], member.second, member.second_len)?;
                first()?.and(&port(sides[1])?)?.and(&second)
            }
            Kind::NetIface => first()?.and(&self.member_iface(member, sides[1], sight)?),
            Kind::BitmapPort => {
                let field = if sides[0] == Side::Src { Field::Sport } else { Field::Dport };
                let protos = self.space.one_of(Field::Proto, [u128::from(TCP), u128::from(UDP)])?;
                self.space.is(field, member.port.into())?.and(&protos)
            }
        }
    }

    fn member_iface(&self, member: &Member, side: Side, sight: Sight) -> Made<Set> {
        let field = if side == Side::Src { Field::In } else { Field::Out };
        let is_it = |name: &str| {
            if member.is_beginning { name.starts_with(&member.iface) } else { name == member.iface }
        };
        if !sight.shows(field) {
            return Ok(self.space.empty());
        }
        let ids = self.space.ifaces.iter().enumerate().filter(|(_, name)| is_it(name));
        self.space.one_of(field, ids.map(|(id, _)| id as u128))
    }
}

pub(crate) fn turned(set: Set, negated: bool) -> Made<Set> {
    if negated { set.not() } else { Ok(set) }
}

pub(crate) const fn icmp_of(family: Family) -> u8 {
    match family {
        Family::Ipv4 => ICMP,
        Family::Ipv6 => ICMPV6,
    }
}

const fn bit_of(state: CtState) -> StateSet {
    match state {
        CtState::New => StateSet::NEW,
        CtState::Established => StateSet::ESTABLISHED,
        CtState::Related => StateSet::RELATED,
        CtState::Invalid => StateSet::INVALID,
        CtState::Untracked => StateSet::UNTRACKED,
    }
}

const fn dimensions(kind: Kind) -> usize {
    match kind {
        Kind::Ip | Kind::Net | Kind::BitmapIp | Kind::BitmapPort | Kind::List => 1,
        Kind::IpPort | Kind::NetPort | Kind::NetIface | Kind::BitmapIpMac => 2,
        Kind::IpPortIp | Kind::IpPortNet => 3,
    }
}

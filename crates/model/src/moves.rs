//! What the nat table makes of connections: which of them get another end, and what the tables behind it see.
//!
//! A NEW packet is described as it comes in, and the tables behind `nat` see it with its new destination. Packets of connections
//! that are known are described as FORWARD sees them in any case, so that nothing here concerns them.

#![forbid(unsafe_code)]

use crate::space::{Field, Made, Picked, Set, Space};
use core::net::IpAddr;
use stateway_core::nat::{Range, Side, Target};
use stateway_core::packet::Addr;

/// Connections that one target translates.
#[derive(Clone, Debug)]
pub struct Moved {
    /// `DNAT --to-destination 192.0.2.10:80`, as rules write it.
    pub text: String,
    /// Their first packets, as they come in.
    pub held: Set,
    target: Target,
}

/// All connections that get another end at one place of the way; no packet is in two of them.
#[derive(Clone, Debug)]
pub struct Moves {
    side: Side,
    all: Vec<Moved>,
    any: Set,
}

/// What a target makes of an address.
enum Address {
    Kept,
    /// One of these.
    Between(u128, u128),
    /// Its first bits are another network's.
    Network {
        value: u128,
        mask: u128,
    },
}

impl Moves {
    pub(crate) fn none(space: &Space, side: Side) -> Self {
        Self { side, all: Vec::new(), any: space.empty() }
    }

    pub fn all(&self) -> &[Moved] {
        &self.all
    }

    /// First packets of all translated connections.
    pub const fn any(&self) -> &Set {
        &self.any
    }

    pub(crate) fn add(&mut self, text: &str, target: &Target, held: &Set) -> Made<()> {
        self.any = self.any.or(held)?;
        match self.all.iter_mut().find(|moved| moved.text == text) {
            Some(moved) => moved.held = moved.held.or(held)?,
            None => {
                self.all.push(Moved { text: text.to_owned(), held: held.clone(), target: *target });
            }
        }
        Ok(())
    }

    /// What the router itself gets by REDIRECT.
    pub fn redirected(&self, space: &Space) -> Made<Set> {
        let own = self.all.iter().filter(|moved| matches!(moved.target, Target::Redirect(_)));
        space.any(own.map(|moved| moved.held.clone()).collect())
    }

    const fn fields(&self) -> (Field, Field) {
        match self.side {
            Side::Source => (Field::Src, Field::Sport),
            Side::Destination => (Field::Dst, Field::Dport),
        }
    }

    /// The packets, as they come in, that are in `seen` once they are translated.
    pub fn before(&self, space: &Space, seen: &Set) -> Made<Set> {
        if self.all.is_empty() {
            return Ok(seen.clone());
        }
        let mut set = seen.without(&self.any)?;
        for moved in &self.all {
            let of = moved.before(space, self.fields(), seen)?;
            set = set.or(&moved.held.and(&of)?)?;
        }
        Ok(set)
    }

    /// What packets of `set` are once they are translated; where there is a choice, all that it may be.
    pub fn after(&self, space: &Space, set: &Set) -> Made<Set> {
        let mut seen = set.without(&self.any)?;
        for moved in &self.all {
            let held = moved.held.and(set)?;
            if !held.is_empty() {
                seen = seen.or(&moved.after(space, self.fields(), &held)?)?;
            }
        }
        Ok(seen)
    }

    /// Whether the router itself gets this packet by REDIRECT.
    pub fn is_redirected(&self, space: &Space, packet: &Picked) -> bool {
        self.of(space, packet).is_some_and(Moved::is_own)
    }

    /// What translates this packet.
    fn of(&self, space: &Space, packet: &Picked) -> Option<&Moved> {
        let values = Field::ALL.map(|field| (field, packet.get(field)));
        self.all.iter().find(|moved| space.holds_as(&moved.held, &values, &packet.unknown))
    }

    /// The addresses that one packet may get, at most so many; `None` if it keeps its own, or gets one of the router's.
    pub fn addresses(&self, space: &Space, packet: &Picked, most: usize) -> Option<Vec<u128>> {
        let moved = self.of(space, packet).filter(|moved| !moved.is_own())?;
        match moved.address(space) {
            Address::Kept => None,
            Address::Between(low, high) => Some((low..=high).take(most).collect()),
            Address::Network { value, mask } => Some(vec![value | packet.get(self.fields().0) & !mask]),
        }
    }
}

impl Moved {
    const fn is_own(&self) -> bool {
        matches!(self.target, Target::Redirect(_) | Target::Masquerade(_))
    }

    fn address(&self, space: &Space) -> Address {
        let shift = 128 - u32::from(space.family.bits());
        let bits = |addr: IpAddr| Addr::from(addr).bits() >> shift;
        match self.target {
            Target::Dnat(Range { addrs: Some((first, last)), .. })
            | Target::Snat(Range { addrs: Some((first, last)), .. }) => {
                Address::Between(bits(first), bits(last))
            }
            Target::Dnat(_) | Target::Snat(_) => Address::Kept,
            Target::Masquerade(_) | Target::Redirect(_) => Address::Between(0, u128::MAX >> shift),
            Target::Netmap { network, prefix_len } => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
                Address::Network { value: bits(network), mask: mask >> shift }
            }
        }
    }

    const fn ports(&self) -> Option<(u16, u16)> {
        match self.target {
            Target::Dnat(range)
            | Target::Snat(range)
            | Target::Masquerade(range)
            | Target::Redirect(range) => range.ports,
            Target::Netmap { .. } => None,
        }
    }

    fn before(&self, space: &Space, (addr, port): (Field, Field), seen: &Set) -> Made<Set> {
        let of = match self.address(space) {
            Address::Kept => seen.clone(),
            Address::Between(low, high) => self.chosen(space, (addr, low, high), seen)?,
            Address::Network { value, mask } => space.fixed(seen, addr, value, mask)?,
        };
        let Some((low, high)) = self.ports() else { return Ok(of) };
        let ported = self.chosen(space, (port, low.into(), high.into()), &of)?;
        space.have_ports()?.choose(&ported, &of)
    }

    /// The packets that are in `seen` with a value out of a range; if that depends on the value, either is possible.
    fn chosen(&self, space: &Space, (field, low, high): (Field, u128, u128), seen: &Set) -> Made<Set> {
        if low == high {
            return space.fixed(seen, field, low, u128::MAX);
        }
        let values = space.between(field, low, high)?;
        let some = space.forget(&seen.and(&values)?, &[field], false)?;
        let all = space.forget(&values.without(seen)?, &[field], false)?.not()?;
        if some == all {
            return Ok(some);
        }
        all.or(&some.and(&space.unknown_once(&format!("what `-j {}` chooses fits", self.text))?)?)
    }

    fn after(&self, space: &Space, (addr, port): (Field, Field), held: &Set) -> Made<Set> {
        let of = match self.address(space) {
            Address::Kept => held.clone(),
            Address::Between(low, high) => {
                space.forget(held, &[addr], false)?.and(&space.between(addr, low, high)?)?
            }
            Address::Network { value, mask } => {
                space.forget_bits(held, addr, mask)?.and(&space.masked(addr, value, mask)?)?
            }
        };
        let Some((low, high)) = self.ports() else { return Ok(of) };
        let ported =
            space.forget(&of, &[port], false)?.and(&space.between(port, low.into(), high.into())?)?;
        space.have_ports()?.choose(&ported, &of)
    }
}

/// How packets are translated, in the words of rules, and those packets.
pub type Part = (Vec<String>, Set);

/// Packets by how they are translated, first those that are not; whether there are more than so many parts.
pub fn translations(
    space: &Space,
    [destinations, sources]: [&Moves; 2],
    set: &Set,
    most: usize,
) -> Made<(Vec<Part>, bool)> {
    let mut parts = Vec::new();
    let plain = set.without(&destinations.any)?.without(&sources.any)?;
    if !plain.is_empty() {
        parts.push((Vec::new(), plain));
    }
    let mut rest = set.and(&destinations.any.or(&sources.any)?)?;
    let none = Moved {
        text: String::new(),
        held: space.full(),
        target: Target::Netmap { network: IpAddr::from([0; 4]), prefix_len: 0 },
    };
    for destination in destinations.all.iter().chain([&none]) {
        let of = rest.and(&destination.held)?;
        if of.is_empty() {
            continue;
        }
        for source in sources.all.iter().chain([&none]) {
            let both = rest.and(&of)?.and(&source.held)?;
            if both.is_empty() {
                continue;
            }
            if parts.len() >= most {
                return Ok((parts, true));
            }
            rest = rest.without(&both)?;
            let texts = [destination, source].into_iter().map(|moved| moved.text.clone());
            parts.push((texts.filter(|text| !text.is_empty()).collect(), both));
        }
    }
    Ok((parts, false))
}

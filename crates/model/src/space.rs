//! Sets of packets as decision diagrams: the fields of a packet as bits, and what sets can be made of them.

#![forbid(unsafe_code)]

use core::cell::RefCell;
use core::fmt;
use oxidd::bcdd::{BCDDFunction, BCDDManagerRef, new_manager};
use oxidd::util::OptBool;
use oxidd::{
    BooleanFunction as _, BooleanFunctionQuant as _, BooleanOperator, FunctionSubst as _, Manager as _,
    ManagerRef as _, Subst, VarNo,
};
use stateway_core::packet::Family;

/// The diagrams of a question do not fit into the room that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ruleset is too large to be looked at for every packet at once")
    }
}

impl core::error::Error for TooLarge {}

pub type Made<T> = Result<T, TooLarge>;

/// What a packet is made of, in the order of the variables: what most rules ask for stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    State,
    In,
    Out,
    Proto,
    /// A later fragment of a packet that was not joined.
    Fragment,
    Dst,
    Src,
    /// Of ICMP type and code.
    Dport,
    Sport,
    /// FIN SYN RST PSH ACK URG, from the lowest bit on.
    Flags,
    Length,
    Tos,
    Ttl,
    /// The mark of the packet's connection.
    Connmark,
}

impl Field {
    pub const ALL: [Self; 14] = [
        Self::State,
        Self::In,
        Self::Out,
        Self::Proto,
        Self::Fragment,
        Self::Dst,
        Self::Src,
        Self::Dport,
        Self::Sport,
        Self::Flags,
        Self::Length,
        Self::Tos,
        Self::Ttl,
        Self::Connmark,
    ];

    /// The fields of ends that answers have the other way round, and the interfaces that they mostly have so.
    const MIRRORED: [(Self, Self); 3] =
        [(Self::Dst, Self::Src), (Self::Dport, Self::Sport), (Self::In, Self::Out)];
}

/// A set of packets.
#[derive(Clone, PartialEq, Eq)]
pub struct Set(BCDDFunction);

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() {
            "nothing"
        } else if self.is_full() {
            "everything"
        } else {
            "some packets"
        })
    }
}

impl Set {
    pub fn is_empty(&self) -> bool {
        !self.0.satisfiable()
    }

    pub fn is_full(&self) -> bool {
        self.0.valid()
    }

    pub fn and(&self, other: &Self) -> Made<Self> {
        self.0.and(&other.0).map(Self).map_err(|_| TooLarge)
    }

    pub fn or(&self, other: &Self) -> Made<Self> {
        self.0.or(&other.0).map(Self).map_err(|_| TooLarge)
    }

    pub fn not(&self) -> Made<Self> {
        self.0.not().map(Self).map_err(|_| TooLarge)
    }

    /// What is in this set and not in the other.
    pub fn without(&self, other: &Self) -> Made<Self> {
        other.0.imp_strict(&self.0).map(Self).map_err(|_| TooLarge)
    }

    /// Either in one of them or in the other.
    pub fn xor(&self, other: &Self) -> Made<Self> {
        self.0.xor(&other.0).map(Self).map_err(|_| TooLarge)
    }

    /// Where `self` holds what `yes` says, elsewhere what `no` says.
    pub fn choose(&self, yes: &Self, no: &Self) -> Made<Self> {
        self.0.ite(&yes.0, &no.0).map(Self).map_err(|_| TooLarge)
    }

    pub fn is_within(&self, other: &Self) -> Made<bool> {
        Ok(self.without(other)?.is_empty())
    }

    pub fn meets(&self, other: &Self) -> Made<bool> {
        Ok(!self.and(other)?.is_empty())
    }

    /// How many nodes its diagram has.
    pub fn size(&self) -> usize {
        use oxidd::Function as _;
        self.0.node_count()
    }
}

/// What the model does not know of a packet: time, chance, payload, what came before. Either answer is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// In the words of the rule.
    pub text: String,
    var: VarNo,
}

/// All packets of one family at a router with these interfaces.
pub struct Space {
    manager: BCDDManagerRef,
    pub family: Family,
    /// By their numbers.
    pub ifaces: Vec<String>,
    /// Where the bits of each field begin, and how many they are.
    places: [(u32, u32); Field::ALL.len()],
    bits: Vec<Set>,
    full: Set,
    empty: Set,
    unknown: RefCell<Vec<(String, Unknown, Set)>>,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("family", &self.family)
            .field("ifaces", &self.ifaces)
            .finish_non_exhaustive()
    }
}

/// How much room diagrams get.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub nodes: usize,
    pub cache: usize,
}

impl Room {
    /// For rulesets that people have.
    pub const USUAL: Self = Self { nodes: 1 << 24, cache: 1 << 20 };
    /// For small ones, of which there are many.
    pub const SMALL: Self = Self { nodes: 1 << 18, cache: 1 << 13 };
}

impl Space {
    pub fn new(family: Family, ifaces: Vec<String>, room: Room) -> Made<Self> {
        let manager = new_manager(room.nodes, room.cache, 1);
        let iface_bits = usize::BITS - ifaces.len().max(2).saturating_sub(1).leading_zeros();
        let addr_bits = u32::from(family.bits());
        let widths: [u32; Field::ALL.len()] =
            [3, iface_bits, iface_bits, 8, 1, addr_bits, addr_bits, 16, 16, 6, 16, 8, 8, 32];
        let mut places = [(0, 0); Field::ALL.len()];
        let mut at = 0;
        for (place, width) in places.iter_mut().zip(widths) {
            *place = (at, width);
            at += width;
        }
        let (bits, full, empty) = manager.with_manager_exclusive(|manager| {
            let bits: Result<Vec<Set>, TooLarge> = manager
                .add_vars(at)
                .map(|var| BCDDFunction::var(manager, var).map(Set).map_err(|_| TooLarge))
                .collect();
            (bits, Set(BCDDFunction::t(manager)), Set(BCDDFunction::f(manager)))
        });
        Ok(Self { manager, family, ifaces, places, bits: bits?, full, empty, unknown: RefCell::default() })
    }

    pub fn full(&self) -> Set {
        self.full.clone()
    }

    pub fn empty(&self) -> Set {
        self.empty.clone()
    }

    pub fn constant(&self, holds: bool) -> Set {
        if holds { self.full() } else { self.empty() }
    }

    pub const fn width(&self, field: Field) -> u32 {
        self.places[field as usize].1
    }

    /// The bits of a field, highest first.
    fn bits(&self, field: Field) -> &[Set] {
        let (at, width) = self.places[field as usize];
        &self.bits[at as usize..(at + width) as usize]
    }

    fn vars(&self, field: Field) -> impl Iterator<Item = VarNo> + use<> {
        let (at, width) = self.places[field as usize];
        at..at + width
    }

    /// One bit of a field, the lowest being 0.
    pub fn bit(&self, field: Field, bit: u32) -> Set {
        let bits = self.bits(field);
        bits[bits.len() - 1 - bit as usize].clone()
    }

    pub fn is(&self, field: Field, value: u128) -> Made<Set> {
        self.masked(field, value, u128::MAX)
    }

    /// The bits of `mask` are as in `value`.
    pub fn masked(&self, field: Field, value: u128, mask: u128) -> Made<Set> {
        let mut set = self.full();
        for (at, bit) in self.bits(field).iter().rev().enumerate() {
            if mask >> at & 1 == 1 {
                set = if value >> at & 1 == 1 { set.and(bit)? } else { set.without(bit)? };
            }
        }
        Ok(set)
    }

    pub fn between(&self, field: Field, low: u128, high: u128) -> Made<Set> {
        if low > high {
            return Ok(self.empty());
        }
        let (mut at_least, mut at_most) = (self.full(), self.full());
        for (at, bit) in self.bits(field).iter().rev().enumerate() {
            at_least = if low >> at & 1 == 1 { at_least.and(bit)? } else { at_least.or(bit)? };
            at_most = if high >> at & 1 == 1 { at_most.or(&bit.not()?)? } else { at_most.without(bit)? };
        }
        at_least.and(&at_most)
    }

    pub fn one_of(&self, field: Field, values: impl IntoIterator<Item = u128>) -> Made<Set> {
        let sets: Made<Vec<Set>> = values.into_iter().map(|value| self.is(field, value)).collect();
        self.any(sets?)
    }

    /// The union, made of halves, so that large lists stay cheap.
    pub fn any(&self, mut sets: Vec<Set>) -> Made<Set> {
        while sets.len() > 1 {
            let halves: Made<Vec<Set>> = sets
                .chunks(2)
                .map(|pair| match pair {
                    [a, b] => a.or(b),
                    _ => Ok(pair[0].clone()),
                })
                .collect();
            sets = halves?;
        }
        Ok(sets.pop().unwrap_or_else(|| self.empty()))
    }

    /// What cannot be known of a packet; the same key is the same question.
    pub fn unknown(&self, key: &str, text: &str) -> Made<Set> {
        if let Some((.., set)) = self.unknown.borrow().iter().find(|(known, ..)| known == key) {
            return Ok(set.clone());
        }
        let (var, set) = self.manager.with_manager_exclusive(|manager| {
            let var = manager.add_vars(1).start;
            (var, BCDDFunction::var(manager, var).map(Set).map_err(|_| TooLarge))
        });
        let set = set?;
        let unknown = Unknown { text: text.to_owned(), var };
        self.unknown.borrow_mut().push((key.to_owned(), unknown, set.clone()));
        Ok(set)
    }

    /// Something that is asked here and nowhere else.
    pub fn unknown_once(&self, text: &str) -> Made<Set> {
        let key = format!("{text} #{}", self.unknown.borrow().len());
        self.unknown(&key, text)
    }

    pub fn unknowns(&self) -> Vec<(Unknown, Set)> {
        self.unknown.borrow().iter().map(|(_, unknown, set)| (unknown.clone(), set.clone())).collect()
    }

    fn cube(&self, vars: impl Iterator<Item = VarNo>) -> Made<BCDDFunction> {
        let vars: Vec<VarNo> = vars.collect();
        self.manager
            .with_manager_shared(|manager| {
                vars.iter().map(|var| BCDDFunction::var(manager, *var)).collect::<Result<Vec<_>, _>>()
            })
            .map_err(|_| TooLarge)?
            .iter()
            .rev()
            .try_fold(self.full.0.clone(), |cube, var| cube.and(var))
            .map_err(|_| TooLarge)
    }

    /// The variables of these fields, and of all that is unknown if asked for.
    fn vars_of(&self, fields: &[Field], with_unknown: bool) -> Vec<VarNo> {
        let mut vars: Vec<VarNo> = fields.iter().flat_map(|field| self.vars(*field)).collect();
        if with_unknown {
            vars.extend(self.unknown.borrow().iter().map(|(_, unknown, _)| unknown.var));
        }
        vars
    }

    /// The set that is left when nothing is asked of these fields any more.
    pub fn forget(&self, set: &Set, fields: &[Field], with_unknown: bool) -> Made<Set> {
        let cube = self.cube(self.vars_of(fields, with_unknown).into_iter())?;
        set.0.exists(&cube).map(Set).map_err(|_| TooLarge)
    }

    /// As [`Space::forget`], of some bits of a field.
    pub(crate) fn forget_bits(&self, set: &Set, field: Field, mask: u128) -> Made<Set> {
        let width = self.width(field);
        let bits = self.vars(field).enumerate();
        let vars = bits.filter(|(at, _)| mask >> (width - 1 - *at as u32) & 1 == 1).map(|(_, var)| var);
        let cube = self.cube(vars)?;
        set.0.exists(&cube).map(Set).map_err(|_| TooLarge)
    }

    /// What the set asks of everything else where the bits of `mask` are as in `value`.
    pub(crate) fn fixed(&self, set: &Set, field: Field, value: u128, mask: u128) -> Made<Set> {
        set.0.restrict(&self.masked(field, value, mask)?.0).map(Set).map_err(|_| TooLarge)
    }

    /// The set with what `known` says in place of something unknown.
    pub(crate) fn knowing(&self, set: &Set, key: &str, known: &Set) -> Made<Set> {
        let var =
            self.unknown.borrow().iter().find(|(own, ..)| own == key).map(|(_, unknown, _)| unknown.var);
        let Some(var) = var else { return Ok(set.clone()) };
        set.0.substitute(&Subst::new(vec![var], vec![known.0.clone()])).map(Set).map_err(|_| TooLarge)
    }

    /// The packets that are in the set whatever is unknown.
    pub fn for_certain(&self, set: &Set) -> Made<Set> {
        let cube = self.cube(self.vars_of(&[], true).into_iter())?;
        set.0.forall(&cube).map(Set).map_err(|_| TooLarge)
    }

    /// For which values of one question everything that agrees with `others` is in `wanted`.
    pub(crate) fn widest(&self, about: About, others: &Set, wanted: &Set) -> Made<Set> {
        let all: Vec<VarNo> = self.vars_of(&Field::ALL, true);
        let own: Vec<VarNo> = match about {
            About::Field(field) => self.vars(field).collect(),
            About::Unknown(at) => vec![self.unknown.borrow()[at].1.var],
        };
        let cube = self.cube(all.into_iter().filter(|var| !own.contains(var)))?;
        others.0.apply_forall(BooleanOperator::Imp, &wanted.0, &cube).map(Set).map_err(|_| TooLarge)
    }

    /// The same packets with source and destination the other way round, and where they come in and leave.
    pub fn mirrored(&self, set: &Set) -> Made<Set> {
        let (mut vars, mut replacements) = (Vec::new(), Vec::new());
        for (a, b) in Field::MIRRORED {
            for (from, to) in [(a, b), (b, a)] {
                vars.extend(self.vars(from));
                replacements.extend(self.bits(to).iter().map(|bit| bit.0.clone()));
            }
        }
        let subst = Subst::new(vars, replacements);
        set.0.substitute(&subst).map(Set).map_err(|_| TooLarge)
    }

    /// One packet of the set, with zeros wherever nothing is asked; `None` of the empty set.
    pub fn pick(&self, set: &Set) -> Option<Picked> {
        let cube = set.0.pick_cube(|_, _, _| false)?;
        let is_on = |var: VarNo| matches!(cube.get(var as usize), Some(OptBool::True));
        let mut values = [0_u128; Field::ALL.len()];
        for field in Field::ALL {
            values[field as usize] =
                self.vars(field).fold(0, |value, var| value << 1 | u128::from(is_on(var)));
        }
        let unknown = self.unknown.borrow().iter().map(|(_, unknown, _)| is_on(unknown.var)).collect();
        Some(Picked { values, unknown })
    }

    /// Whether a packet with these values is in the set; fields that are not named are 0, and what is unknown does not hold.
    pub fn holds(&self, set: &Set, values: &[(Field, u128)]) -> bool {
        self.holds_as(set, values, &[])
    }

    /// As [`Space::holds`], with what is unknown as the answer supposes it.
    pub(crate) fn holds_as(&self, set: &Set, values: &[(Field, u128)], supposed: &[bool]) -> bool {
        let of_fields = Field::ALL.into_iter().flat_map(|field| {
            let value = values.iter().find(|(named, _)| *named == field).map_or(0, |(_, value)| *value);
            let width = self.width(field);
            self.vars(field)
                .enumerate()
                .map(move |(at, var)| (var, value >> (width - 1 - at as u32) & 1 == 1))
        });
        let unknown: Vec<VarNo> = self.unknown.borrow().iter().map(|(_, unknown, _)| unknown.var).collect();
        let supposed = supposed.iter().copied().chain(core::iter::repeat(false));
        set.0.eval(of_fields.chain(unknown.into_iter().zip(supposed)))
    }

    /// Exactly this one packet.
    pub fn only(&self, picked: &Picked) -> Made<Set> {
        let mut set = self.full();
        for field in Field::ALL.into_iter().rev() {
            set = set.and(&self.is(field, picked.get(field))?)?;
        }
        Ok(set)
    }

    /// The values of a field in a set that asks for nothing else, as ranges; `None` if they are more than `most`.
    pub fn ranges(&self, set: &Set, field: Field, most: usize) -> Made<Option<Vec<(u128, u128)>>> {
        let mut ranges = Vec::new();
        let is_whole = collect(&set.0, self.bits(field), 0, &mut ranges, most)?;
        Ok(is_whole.then_some(ranges))
    }
}

/// Values below a node, the bits above them being known; whether they are no more than `most` ranges.
fn collect(
    set: &BCDDFunction,
    bits: &[Set],
    above: u128,
    ranges: &mut Vec<(u128, u128)>,
    most: usize,
) -> Made<bool> {
    if !set.satisfiable() {
        return Ok(true);
    }
    if set.valid() {
        let low = if bits.len() == 128 { 0 } else { above << bits.len() };
        let high = low | if bits.len() == 128 { u128::MAX } else { (1 << bits.len()) - 1 };
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(low) => *last = high,
            _ => ranges.push((low, high)),
        }
        return Ok(ranges.len() <= most);
    }
    let Some((bit, rest)) = bits.split_first() else { return Ok(true) };
    let off = bit.0.not().and_then(|off| set.restrict(&off)).map_err(|_| TooLarge)?;
    let on = set.restrict(&bit.0).map_err(|_| TooLarge)?;
    Ok(collect(&off, rest, above << 1, ranges, most)? && collect(&on, rest, above << 1 | 1, ranges, most)?)
}

/// A question that a box answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Field(Field),
    /// By its place.
    Unknown(usize),
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    values: [u128; Field::ALL.len()],
    /// What is unknown of it, as the answer supposes it.
    pub unknown: Vec<bool>,
}

impl Picked {
    pub const fn get(&self, field: Field) -> u128 {
        self.values[field as usize]
    }
}

//! A set of packets in few words: boxes, each as wide as it can be.

#![forbid(unsafe_code)]

use crate::condition::{ICMP, ICMPV6, STATES, icmp_of};
use crate::space::{About, Field, Made, Picked, Set, Space};
use stateway_core::filter::matches::FlagList;
use stateway_core::filter::protocol_name;
use stateway_core::packet::{Addr, Family, TcpFlags};
use std::fmt::Write as _;

/// In which order questions are left open: what matters least first, so that what is left says most.
const ORDER: [Field; 14] = [
    Field::Connmark,
    Field::Ttl,
    Field::Tos,
    Field::Length,
    Field::Fragment,
    Field::Flags,
    Field::Sport,
    Field::Dport,
    Field::Src,
    Field::Dst,
    Field::Proto,
    Field::Out,
    Field::In,
    Field::State,
];

/// In which order they are said.
const SAID: [Field; 14] = [
    Field::In,
    Field::Out,
    Field::Src,
    Field::Dst,
    Field::Proto,
    Field::Sport,
    Field::Dport,
    Field::Flags,
    Field::State,
    Field::Length,
    Field::Tos,
    Field::Ttl,
    Field::Fragment,
    Field::Connmark,
];

/// More ranges than this are said as their number.
const MOST_RANGES: usize = 16;

/// Packets that agree with every part of it.
#[derive(Clone, Debug)]
pub struct Group {
    /// All packets in it.
    pub set: Set,
    /// What is asked of each field, in words; a field that is not named is free.
    pub fields: Vec<(Field, String)>,
    /// What cannot be known of a packet, and is supposed here.
    pub supposing: Vec<String>,
    /// What becomes of its packets' ends, in the words of rules, if somebody says so.
    pub translated: Vec<String>,
}

impl Group {
    /// In the words of rules: `-i wan -p tcp --sport 22 --ctstate NEW`; `every packet` where nothing is asked. Behind it how they are
    /// translated: `, then DNAT --to-destination 192.0.2.10`.
    pub fn text(&self) -> String {
        let mut text = self.fields.iter().map(|(_, words)| words.as_str()).collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            text.push_str("every packet");
        }
        for (at, condition) in self.supposing.iter().enumerate() {
            let _ = write!(text, "{}{condition}", if at == 0 { ", where " } else { " and " });
        }
        for (at, target) in self.translated.iter().enumerate() {
            let _ = write!(text, "{}{target}", if at == 0 { ", then " } else { " and " });
        }
        text
    }
}

/// Groups that hold exactly `set`, and perhaps packets outside `possible`, of which there are none; at most so many.
/// Also whether there are more.
pub fn groups(space: &Space, set: &Set, possible: &Set, most: usize) -> Made<(Vec<Group>, bool)> {
    let wanted = set.or(&possible.not()?)?;
    let mut rest = set.clone();
    let mut groups: Vec<Group> = Vec::new();
    while groups.len() < most && !rest.is_empty() {
        let Some(group) = widest(space, &rest, &wanted, possible)? else { break };
        rest = rest.without(&group.set)?;
        groups.push(group);
    }
    let is_more = !rest.is_empty();
    if !is_more {
        drop_covered(space, &mut groups, set)?;
    }
    Ok((groups, is_more))
}

/// Leaves out groups that the others hold together.
fn drop_covered(space: &Space, groups: &mut Vec<Group>, set: &Set) -> Made<()> {
    let mut at = 0;
    while at < groups.len() {
        let others = groups.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, g)| g.set.clone());
        let covered = space.any(others.collect())?;
        if groups.len() > 1 && groups[at].set.and(set)?.is_within(&covered)? {
            groups.remove(at);
        } else {
            at += 1;
        }
    }
    Ok(())
}

/// A group around one packet of `rest`, as wide as `wanted` lets it be.
fn widest(space: &Space, rest: &Set, wanted: &Set, possible: &Set) -> Made<Option<Group>> {
    let Some(picked) = space.pick(rest) else { return Ok(None) };
    let unknowns = space.unknowns();
    let mut parts: Vec<(About, Set)> = Vec::new();
    for (at, (_, set)) in unknowns.iter().enumerate() {
        let is_on = picked.unknown.get(at).copied().unwrap_or(false);
        parts.push((About::Unknown(at), if is_on { set.clone() } else { set.not()? }));
    }
    for field in ORDER {
        parts.push((About::Field(field), space.is(field, picked.get(field))?));
    }
    for at in 0..parts.len() {
        let mut others = space.full();
        for (other, (_, part)) in parts.iter().enumerate().rev() {
            if other != at {
                others = others.and(part)?;
            }
        }
        parts[at].1 = space.widest(parts[at].0, &others, wanted)?;
        if parts[at].0 == About::Field(Field::Proto) && asks_of_ports(&parts) {
            // What ports are of one protocol, types are of another.
            let kind = kind_of(space, &picked)?;
            parts[at].1 = parts[at].1.and(&kind)?;
        }
    }
    let set = all(space, &parts)?;
    // Values that no packet has among these are not worth a word.
    let real = set.and(possible)?;
    for (about, part) in &mut parts {
        let About::Field(field) = about else { continue };
        if !part.is_full() {
            let others: Vec<Field> = Field::ALL.into_iter().filter(|other| other != field).collect();
            *part = part.and(&space.forget(&real, &others, true)?)?;
        }
    }
    let set = all(space, &parts)?;
    let mut supposing = Vec::new();
    for ((unknown, holds), (_, part)) in unknowns.iter().zip(&parts) {
        if !part.is_full() {
            let does = if part == holds { "holds" } else { "does not hold" };
            supposing.push(format!("`{}` {does}", unknown.text.trim()));
        }
    }
    let asked: Vec<(Field, &Set)> = parts
        .iter()
        .filter_map(|(about, part)| match about {
            About::Field(field) if !part.is_full() => Some((*field, part)),
            _ => None,
        })
        .collect();
    let is_icmp = match asked.iter().find(|(field, _)| *field == Field::Proto) {
        Some((_, part)) => part.is_within(&space.is(Field::Proto, icmp_of(space.family).into())?)?,
        None => false,
    };
    let mut fields = Vec::new();
    for field in SAID {
        if let Some((_, part)) = asked.iter().find(|(asked, _)| *asked == field) {
            fields.push((field, words(space, field, part, is_icmp)?));
        }
    }
    Ok(Some(Group { set, fields, supposing, translated: Vec::new() }))
}

fn asks_of_ports(parts: &[(About, Set)]) -> bool {
    let of_ports = [About::Field(Field::Sport), About::Field(Field::Dport)];
    parts.iter().any(|(about, part)| of_ports.contains(about) && !part.is_full())
}

/// The protocols whose first bytes mean what those of this packet mean.
fn kind_of(space: &Space, picked: &Picked) -> Made<Set> {
    let proto = space.is(Field::Proto, picked.get(Field::Proto))?;
    let is_icmp = space.is(Field::Proto, icmp_of(space.family).into())?;
    let have_ports = space.have_ports()?;
    if proto.is_within(&is_icmp)? {
        Ok(is_icmp)
    } else if proto.is_within(&have_ports)? {
        Ok(have_ports)
    } else {
        is_icmp.or(&have_ports)?.not()
    }
}

fn all(space: &Space, parts: &[(About, Set)]) -> Made<Set> {
    parts.iter().rev().try_fold(space.full(), |set, (_, part)| set.and(part))
}

/// What is asked of a field, as a rule would ask it.
fn words(space: &Space, field: Field, set: &Set, is_icmp: bool) -> Made<String> {
    let option = match field {
        Field::State => return states(space, set),
        Field::Flags => return flags(space, set),
        Field::In => "-i",
        Field::Out => "-o",
        Field::Proto => "-p",
        Field::Dst => "-d",
        Field::Src => "-s",
        Field::Dport if is_icmp && space.family == Family::Ipv4 => "--icmp-type",
        Field::Dport if is_icmp => "--icmpv6-type",
        Field::Dport => "--dport",
        Field::Sport => "--sport",
        Field::Length => "--length",
        Field::Tos => "--tos",
        Field::Ttl => "--ttl",
        Field::Connmark => "--connmark",
        Field::Fragment => {
            return Ok(if space.bit(Field::Fragment, 0) == *set { "-f" } else { "! -f" }.to_owned());
        }
    };
    let positive = space.ranges(set, field, MOST_RANGES)?;
    let negative = space.ranges(&set.not()?, field, MOST_RANGES)?;
    let show = |ranges: &[(u128, u128)]| {
        let list: Vec<String> =
            ranges.iter().flat_map(|range| range_words(space, field, *range, is_icmp)).collect();
        list.join(",")
    };
    let is_shorter = |a: &[(u128, u128)], b: &[(u128, u128)]| {
        let cost = |ranges: &[(u128, u128)]| show(ranges).len();
        cost(a) < cost(b)
    };
    Ok(match (positive, negative) {
        (Some(yes), Some(no)) if is_shorter(&no, &yes) => format!("! {option} {}", show(&no)),
        (Some(yes), _) => format!("{option} {}", show(&yes)),
        (None, Some(no)) => format!("! {option} {}", show(&no)),
        (None, None) => format!("{option} (more than {MOST_RANGES} ranges)"),
    })
}

fn range_words(space: &Space, field: Field, (low, high): (u128, u128), is_icmp: bool) -> Vec<String> {
    let plain =
        |separator: &str| vec![if low == high { low.to_string() } else { format!("{low}{separator}{high}") }];
    match field {
        Field::In | Field::Out => {
            let name = |id: u128| space.ifaces.get(id as usize).cloned();
            (low..=high).filter_map(name).collect()
        }
        Field::Proto => {
            if high - low > 8 {
                return plain("-");
            }
            (low..=high)
                .map(|n| protocol_name(n as u8).map_or_else(|| n.to_string(), str::to_owned))
                .collect()
        }
        Field::Dst | Field::Src => addresses(space.family, low, high),
        Field::Dport if is_icmp => {
            let (kind, code) = (low >> 8, low & 0xff);
            if low == high {
                vec![format!("{kind}/{code}")]
            } else if code == 0 && high & 0xff == 0xff {
                if high >> 8 == kind { vec![kind.to_string()] } else { vec![format!("{kind}-{}", high >> 8)] }
            } else {
                vec![format!("{kind}/{code}-{}/{}", high >> 8, high & 0xff)]
            }
        }
        Field::Tos | Field::Connmark => {
            vec![if low == high { format!("{low:#x}") } else { format!("{low:#x}-{high:#x}") }]
        }
        _ => plain(":"),
    }
}

/// One network, or a range from the first to the last.
fn addresses(family: Family, low: u128, high: u128) -> Vec<String> {
    let width = u32::from(family.bits());
    let show = |bits: u128| address(family, bits);
    let size = high - low;
    let is_net = size & size.wrapping_add(1) == 0 && low & size == 0;
    if low == high {
        vec![show(low)]
    } else if is_net {
        let len = width - (u128::BITS - size.leading_zeros());
        vec![format!("{}/{len}", show(low))]
    } else {
        vec![format!("{}-{}", show(low), show(high))]
    }
}

/// An address from the bits of its field.
pub fn address(family: Family, bits: u128) -> String {
    Addr::from_bits(bits << (128 - u32::from(family.bits()))).to_ip(family).to_string()
}

fn states(space: &Space, set: &Set) -> Made<String> {
    let mut words = Vec::new();
    for (number, state) in STATES.iter().enumerate() {
        if space.is(Field::State, number as u128)?.is_within(set)? {
            words.push(state.word());
        }
    }
    Ok(format!("--ctstate {}", words.join(",")))
}

/// Names of flags, from the bits of their field.
pub fn flag_names(bits: u128) -> String {
    FlagList(TcpFlags::from_bits_truncate(bits as u8)).to_string()
}

fn flags(space: &Space, set: &Set) -> Made<String> {
    let values = |of: &Set| -> Made<Vec<u128>> {
        let mut values = Vec::new();
        for value in 0..64 {
            if space.is(Field::Flags, value)?.is_within(of)? {
                values.push(value);
            }
        }
        Ok(values)
    };
    // A mask and what is set of it, where that says it all.
    let as_one = |values: &[u128]| {
        let all = values.iter().fold(63, |all, value| all & value);
        let any = values.iter().fold(0, |any, value| any | value);
        let mask = 63 & !(all ^ any);
        (values.len() == 1 << (6 - mask.count_ones())).then_some((mask, all & mask))
    };
    let (yes, no) = (values(set)?, values(&set.not()?)?);
    if let Some((mask, on)) = as_one(&yes) {
        return Ok(format!("--tcp-flags {} {}", flag_names(mask), flag_names(on)));
    }
    if let Some((mask, on)) = as_one(&no) {
        return Ok(format!("! --tcp-flags {} {}", flag_names(mask), flag_names(on)));
    }
    let shown: Vec<String> = yes.iter().take(4).map(|value| flag_names(*value)).collect();
    let more = if yes.len() > 4 { format!(" or {} others", yes.len() - 4) } else { String::new() };
    Ok(format!("--tcp-flags ALL ({}{more})", shown.join(" or ")))
}

/// The word of a protocol: `tcp`, or its number.
pub fn protocol_word(proto: u8) -> String {
    match proto {
        ICMP => "icmp".to_owned(),
        ICMPV6 => "icmpv6".to_owned(),
        _ => protocol_name(proto).map_or_else(|| proto.to_string(), str::to_owned),
    }
}

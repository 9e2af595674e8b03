//! `create NAME TYPE [family inet] …`

#![forbid(unsafe_code)]

use super::element::IfaceName;
use super::{Content, Kind, Set};
use crate::filter::text::lex::Token;
use crate::filter::text::options::{Complaint, Problem, did_you_mean};
use crate::filter::text::value::{addr, number, number_u32};
use crate::packet::{Addr, Family};
use core::ops::RangeInclusive;
use std::sync::OnceLock;

const MAX_NAME: usize = 31;
const DEFAULT_MAX_ELEMENTS: u32 = 65_536;
/// A bitmap has no more places than this.
const MAX_BITMAP: u64 = 65_536;

/// A problem with the value of an option.
pub(super) fn at(token: &Token<'_>, Complaint { message, hint }: Complaint) -> Problem {
    Problem { at: token.at, message, hint }
}

/// Reads the line; `None` if the set is for the other family. `ifaces` are the router's interfaces.
pub(in crate::filter) fn parse_create(
    words: &[Token<'_>],
    family: Family,
    ifaces: &[String],
) -> Result<Option<Set>, Problem> {
    let (Some(name), Some(kind_word)) = (words.get(1), words.get(2)) else {
        return Err(Problem::new(words[0].at, "a set needs a name and a type").hint("`create NAME hash:ip`"));
    };
    if name.text.is_empty() || name.text.len() > MAX_NAME {
        return Err(Problem::new(name.at, "the name of the set is too long")
            .hint(format!("at most {MAX_NAME} letters")));
    }
    let kind = Kind::by_name(&kind_word.text).ok_or_else(|| unknown_kind(kind_word))?;
    let mut set = Set {
        name: name.text.to_string(),
        kind,
        family: Family::Ipv4,
        netmask: 0,
        range: (0, 0),
        max: if kind.is_hash() { DEFAULT_MAX_ELEMENTS } else { u32::MAX },
        timeout: None,
        has_counters: false,
        has_marks: false,
        ifaces: Vec::new(),
        born: OnceLock::new(),
        content: match kind {
            Kind::List => Content::Sets(parking_lot::RwLock::default()),
            _ => Content::Elements(parking_lot::RwLock::default()),
        },
    };
    let mut range = None;
    let mut rest = words[3..].iter();
    while let Some(option) = rest.next() {
        read_option(&mut set, option, &mut range, || rest.next())?;
    }
    if set.netmask == 0 || set.netmask > set.family.bits() {
        set.netmask = set.family.bits();
    }
    if kind.is_bitmap() {
        let missing = || {
            let range = if kind == Kind::BitmapPort { "0-1023" } else { "192.0.2.0/24" };
            Problem::new(kind_word.at, format!("a set of type `{}` needs a range", kind_word.text))
                .hint(format!("`range {range}`"))
        };
        set.range = read_range(&set, range.ok_or_else(missing)?)?;
    }
    if kind == Kind::NetIface {
        set.ifaces = ifaces.iter().map(|name| IfaceName::new(name).unwrap_or_default()).collect();
    }
    // `ipset save` writes the sets of both families into one file. What is for both is there for each.
    if kind.is_for_both_families() {
        set.family = family;
    }
    Ok((set.family == family).then_some(set))
}

fn unknown_kind(word: &Token<'_>) -> Problem {
    let problem = Problem::new(word.at, format!("sets of type `{}` are not honoured", word.text));
    let all = format!("the types are {}", Kind::names().collect::<Vec<_>>().join(", "));
    problem.hint(did_you_mean(&word.text, Kind::names()).unwrap_or(all))
}

fn read_option<'a>(
    set: &mut Set,
    option: &Token<'_>,
    range: &mut Option<&'a Token<'a>>,
    mut next: impl FnMut() -> Option<&'a Token<'a>>,
) -> Result<(), Problem> {
    let mut value =
        || next().ok_or_else(|| Problem::new(option.at, format!("`{}` needs a value", option.text)));
    let number = |token: &Token<'_>| number_u32(&token.text).map_err(|complaint| at(token, complaint));
    match &*option.text {
        "family" if set.kind.is_hash() => match &*value()?.text {
            "inet" => set.family = Family::Ipv4,
            "inet6" => set.family = Family::Ipv6,
            other => {
                let problem = Problem::new(option.at, format!("no family named `{other}`"));
                return Err(problem.hint("inet or inet6"));
            }
        },
        // How the kernel lays the set out says nothing of what is in it.
        "hashsize" | "bucketsize" | "initval" if set.kind.is_hash() => drop(value()?),
        "size" if set.kind == Kind::List => drop(value()?),
        "maxelem" if set.kind.is_hash() => set.max = number(value()?)?,
        "timeout" => set.timeout = Some(number(value()?)?),
        "netmask" if matches!(set.kind, Kind::Ip | Kind::BitmapIp) => {
            set.netmask = number(value()?)?.min(128) as u8;
        }
        "range" if set.kind.is_bitmap() => *range = Some(value()?),
        "counters" => set.has_counters = true,
        "skbinfo" => set.has_marks = true,
        "comment" => {}
        other => return Err(Problem::new(option.at, format!("option `{other}` of a set is not honoured"))),
    }
    Ok(())
}

/// `192.0.2.0/24`, `192.0.2.1-192.0.2.9`, `1-1023`: the places of a bitmap.
fn read_range(set: &Set, word: &Token<'_>) -> Result<(u32, u32), Problem> {
    let wrong = |complaint| at(word, complaint);
    let (first, last) = if set.kind == Kind::BitmapPort {
        let ends = word.text.split_once('-').unwrap_or((&word.text, &word.text));
        let port = |text| number(text, u16::MAX.into()).map(|port| port as u32).map_err(wrong);
        (port(ends.0)?, port(ends.1)?)
    } else {
        let ends = addresses(&word.text, Family::Ipv4).map_err(wrong)?.into_inner();
        let mask = u32::MAX.checked_shl(32 - u32::from(set.netmask)).unwrap_or(0);
        let place = |bits: u128| (bits >> 96) as u32 & mask;
        (place(ends.0), place(ends.1))
    };
    let (first, last) = (first.min(last), first.max(last));
    let step = 1_u64 << (32 - u32::from(set.netmask));
    let step = if set.kind == Kind::BitmapPort { 1 } else { step };
    if u64::from(last - first) / step >= MAX_BITMAP {
        return Err(Problem::new(word.at, "the range is too large for a set of this type")
            .hint(format!("at most {MAX_BITMAP} elements")));
    }
    Ok((first, last))
}

/// `192.0.2.1`, `192.0.2.0/24`, `192.0.2.1-192.0.2.9`, as the numbers that addresses are.
pub(super) fn addresses(text: &str, family: Family) -> Result<RangeInclusive<u128>, Complaint> {
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (addr(first, family)?.bits(), addr(last, family)?.bits());
        return Ok(first.min(last)..=first.max(last));
    }
    let Some((net, len)) = text.split_once('/') else {
        let one = addr(text, family)?.bits();
        return Ok(one..=one);
    };
    let len = number(len, family.bits().into())
        .map_err(|_| Complaint::new(format!("`{text}` is no network")).hint("such as 192.0.2.0/24"))?;
    let first = super::masked(addr(net, family)?, len as u8);
    // The bits behind those of the family are no part of the address.
    let host = (u128::MAX << (128 - u32::from(family.bits()))) & !mask(len as u8);
    Ok(first.bits()..=first.bits() | host)
}

fn mask(len: u8) -> u128 {
    super::masked(Addr::from_bits(u128::MAX), len).bits()
}

//! `-m connlimit`: how many connections an address, or a network of them, has through this rule.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::conntrack::{CtState, Status, flow_of};
use crate::filter::kept::memory::Memory;
use crate::filter::kept::shared::Copies;
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{network_mask, number, number_u8, number_u32};
use crate::packet::{Addr, Family, Tuple};
use core::fmt;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

/// Addresses that one rule counts for; beyond that packets are dropped, as the kernel does without memory.
const MAX_KEYS: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connlimit {
    pub limit: u32,
    /// Holds above the limit, not up to it.
    pub above: bool,
    /// Leading bits of the address that count.
    pub prefix: u8,
    pub of_destination: bool,
    pub family: Family,
    /// Connections by address and zone.
    seen: Memory<BTreeMap<(Addr, u16), Vec<Tuple>>>,
}

impl Matcher for Connlimit {
    const SPEC: Spec = Spec {
        name: "connlimit",
        family: None,
        protos: &[],
        options: &[
            Opt::value("connlimit-upto").or_not(),
            Opt::value("connlimit-above").or_not(),
            Opt::value("connlimit-mask"),
            Opt::flag("connlimit-saddr"),
            Opt::flag("connlimit-daddr"),
        ],
    };

    fn copied(&self, _: &Copies<'_>) -> Self {
        Self { seen: self.seen.copied(), ..self.clone() }
    }

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["connlimit-upto", "connlimit-above"])?;
        options.exclusive(&["connlimit-saddr", "connlimit-daddr"])?;
        let given = match options.get("connlimit-upto") {
            Some(upto) => upto,
            None => options.require("connlimit-above")?,
        };
        let bits = setting.family.bits();
        let prefix =
            options.get("connlimit-mask").map(|given| given.read(|text| parse_prefix(text, setting.family)));
        Ok(Self {
            limit: given.read(number_u32)?,
            above: (given.opt.name == "connlimit-above") != given.negated,
            prefix: prefix.transpose()?.unwrap_or(bits),
            of_destination: options.has("connlimit-daddr"),
            family: setting.family,
            seen: Memory::default(),
        })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let Some((tuple, is_assured)) = connection(view) else { return Answer::Drop };
        let addr = if self.of_destination { view.pkt.dst() } else { view.pkt.src() };
        let mask = if self.prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(self.prefix)) };
        let zone = tuple.zone;
        let key = (Addr::from_bits(addr.bits() & mask), zone);
        let mut seen = self.seen.lock();
        let is_open = |t: &Tuple| view.conntrack.is_open(t, view.now);
        if !seen.contains_key(&key) && seen.len() >= MAX_KEYS {
            seen.retain(|_, tuples| {
                tuples.retain(is_open);
                !tuples.is_empty()
            });
            if seen.len() >= MAX_KEYS {
                return Answer::Drop;
            }
        }
        let tuples = match seen.entry(key) {
            // Whoever is the first counts, whatever became of its connection.
            Slot::Vacant(slot) => {
                slot.insert(vec![tuple]);
                return ((1 > self.limit) == self.above).into();
            }
            Slot::Occupied(slot) => slot.into_mut(),
        };
        // Connections that are gone, or closed, or were never confirmed, do not count any more.
        if is_assured {
            tuples.retain(is_open);
            if tuples.is_empty() {
                // A straggler of the last connection: nothing is left to be counted, and the kernel calls that a
                // failure.
                return Answer::Drop;
            }
        } else {
            let is_there = view.conntrack.entry_of(&tuple, view.now).is_some();
            let mut is_counted = false;
            tuples.retain(|t| {
                let is_kept = is_counted || (*t == tuple && is_there) || is_open(t);
                is_counted |= *t == tuple && is_there;
                is_kept
            });
            if !is_counted {
                tuples.push(tuple);
            }
        }
        let is_above = tuples.len() > self.limit as usize;
        (is_above == self.above).into()
    }
}

/// A length, of which the tools take the longest where it is longer than an address, or a mask without holes.
fn parse_prefix(text: &str, family: Family) -> Result<u8, Complaint> {
    if !text.contains(['.', ':']) {
        // The tools make a whole mask of an IPv4 prefix that is too long, and refuse one for IPv6.
        return match family {
            Family::Ipv4 => number_u8(text).map(|len| len.min(family.bits())),
            Family::Ipv6 => number(text, u64::from(family.bits())).map(|len| len as u8),
        };
    }
    let mask = network_mask(Some(text), family)?;
    match mask.leading_ones() {
        len if len == mask.count_ones() => Ok(len as u8),
        _ => Err(Complaint::new(format!("the mask `{text}` has holes")).hint("a prefix length will do")),
    }
}

/// The connection that a packet counts for, and whether it is assured: then it was counted where it began, if at all.
///
/// What is not tracked counts by its own tuple, or for the connection that has it.
fn connection(view: &View<'_>) -> Option<(Tuple, bool)> {
    if let Some(original) = view.conntrack.read_entry(view.ct, |entry| entry.original) {
        return Some((original, view.ct.status.contains(Status::CONFIRMED | Status::ASSURED)));
    }
    // Before tracking, the raw table may have named a zone.
    let zone =
        if view.ct.state == CtState::Invalid && view.ct.invalid.is_none() { view.template.zone } else { 0 };
    let tuple = flow_of(view.pkt, zone)?;
    let there = view.conntrack.entry_of(&tuple, view.now);
    Some(there.map_or((tuple, false), |entry| (entry.original, entry.status.contains(Status::ASSURED))))
}

impl fmt::Display for Connlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.above { "above" } else { "upto" };
        let side = if self.of_destination { "daddr" } else { "saddr" };
        write!(f, " --connlimit-{kind} {} --connlimit-mask {} --connlimit-{side}", self.limit, self.prefix)
    }
}

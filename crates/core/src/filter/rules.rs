//! The rules of both families, as they are in force together.

#![forbid(unsafe_code)]

use super::walk::memo::Generation;
use super::{RuleError, Ruleset, Table};
use crate::base::{Family, Iface};
use crate::nat::Target;

/// The rules in force: replaced as a whole, so that no packet sees half of them.
#[derive(Debug, Default)]
pub struct Rules {
    /// Empty without rules, which IPv4 then passes.
    v4: Ruleset,
    v6: Option<Ruleset>,
    has_v4: bool,
    /// Whether a nat table was ever named: from then on connections are bound, whatever rules there are.
    translate_v4: bool,
    translate_v6: bool,
    /// Counts the rules of one router.
    generation: u64,
}

impl Rules {
    /// Reads rules in the place of others, or of none: what `before` keeps of packets goes on where both name it.
    /// `generation` counts the rules of one router, from 1.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn load(
        ifaces: &[Iface],
        v4: Option<&str>,
        v6: Option<&str>,
        before: Option<&Self>,
        generation: u64,
    ) -> Result<Self, Vec<RuleError>> {
        let names: Vec<String> = ifaces.iter().map(|i| i.name.clone()).collect();
        let load = |text: Option<&str>, family| -> Result<Option<Ruleset>, Vec<RuleError>> {
            let Some(text) = text else { return Ok(None) };
            let loaded = match before.and_then(|before| before.for_family(family)) {
                Some(before) => before.load_after(text, family, &names),
                None => Ruleset::load(text, family, &names),
            };
            let ruleset = loaded?.ruleset.of_generation(Generation::new(generation));
            Ok(Some(ruleset))
        };
        match (load(v4, Family::Ipv4), load(v6, Family::Ipv6)) {
            (Ok(v4), Ok(v6)) => {
                let names_nat = |rules: &Option<Ruleset>| {
                    rules.as_ref().is_some_and(|rules| rules.tables().contains(&Table::Nat))
                };
                let had = |family| before.is_some_and(|before| before.translate(family));
                Ok(Self {
                    has_v4: v4.is_some(),
                    translate_v4: names_nat(&v4) || had(Family::Ipv4),
                    translate_v6: names_nat(&v6) || had(Family::Ipv6),
                    v4: v4.unwrap_or_default(),
                    v6,
                    generation,
                })
            }
            (v4, v6) => Err(v4.err().into_iter().chain(v6.err()).flatten().collect()),
        }
    }

    /// The same rules for another router, with what they remember and without what they counted.
    pub(crate) fn copied(&self) -> Self {
        Self { v4: self.v4.copied(), v6: self.v6.as_ref().map(Ruleset::copied), ..*self }
    }

    /// Whether new connections of a family are bound to a translation, be it none.
    #[inline]
    pub(crate) const fn translate(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.translate_v4,
            Family::Ipv6 => self.translate_v6,
        }
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a rule asks how much a connection has carried.
    pub(crate) fn count_connections(&self) -> bool {
        self.all().any(Ruleset::counts_connections)
    }

    /// Those that were loaded.
    pub fn all(&self) -> impl Iterator<Item = &Ruleset> {
        [Family::Ipv4, Family::Ipv6].into_iter().filter_map(|family| self.for_family(family))
    }

    pub const fn for_family(&self, family: Family) -> Option<&Ruleset> {
        match family {
            Family::Ipv4 if self.has_v4 => Some(&self.v4),
            Family::Ipv4 => None,
            Family::Ipv6 => self.v6.as_ref(),
        }
    }

    /// What a packet walks through. Without any rules IPv4 passes, and IPv6 does not: `None`.
    #[inline]
    pub(crate) const fn in_force(&self, family: Family) -> Option<&Ruleset> {
        match family {
            Family::Ipv4 => Some(&self.v4),
            Family::Ipv6 => self.v6.as_ref(),
        }
    }
}

impl Ruleset {
    /// Why a bridge cannot carry it out: the addresses of a network that spans its ports are not the bridge's to change.
    pub(crate) fn asks_too_much_of_a_bridge(&self) -> Option<RuleError> {
        let rules = self.chains(Table::Nat).iter().flat_map(|chain| &chain.rules);
        let lines = rules.filter(|rule| rule.target.translation().is_some_and(Target::changes_address));
        Some(RuleError {
            line: lines.map(|rule| rule.line as usize).min()?,
            column: 1,
            message: "a bridge has no addresses, and cannot translate to others".to_owned(),
            hint: Some("`mode: route` translates addresses; a bridge may change ports".to_owned()),
        })
    }
}

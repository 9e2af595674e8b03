//! Which rule let a connection in: one word that the connection keeps, of the ruleset's generation and of the place where
//! the rule counts. It says nothing once other rules are in force, since a rule of theirs may count there.

#![forbid(unsafe_code)]

use super::context::Context;
use super::memo::GENERATION_SHIFT;
use crate::conntrack::Entry;
use crate::filter::{ChainId, RuleId, Ruleset, Table};

/// What is known of how a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetIn {
    /// By this rule or policy of the filter table.
    By(RuleId),
    /// By rules that are not in force any more.
    ByOtherRules,
    /// Its first packet met no rule here: it was put in by hand, was known before a restart, or there are no rules.
    NotKnown,
}

impl Ruleset {
    /// Notes with a connection that is not in the table yet which rule has let its packet pass. Of several chains, the last.
    #[inline]
    pub(super) fn note_let_in<R>(&self, chain: ChainId, index: u32, ctx: &mut Context<R>) {
        let slot = self.chain(Table::Filter, chain).first_slot as u64 + u64::from(index);
        let word = self.generation.0 | slot;
        let _ = ctx.at.env.conntrack.with_entry(&mut ctx.ct, |entry| entry.let_in = word);
    }

    /// Which rule of these let a connection in.
    pub fn let_in(&self, entry: &Entry) -> LetIn {
        let word = entry.let_in;
        if word == 0 {
            return LetIn::NotKnown;
        }
        if word >> GENERATION_SHIFT != self.generation.0 >> GENERATION_SHIFT {
            return LetIn::ByOtherRules;
        }
        let slot = (word & ((1 << GENERATION_SHIFT) - 1)) as usize;
        let mut chains = self.chains(Table::Filter).iter().zip(0..);
        let place = chains.find_map(|(chain, number)| {
            let index = slot.checked_sub(chain.first_slot)?;
            (index <= chain.rules.len()).then_some((number, index as u32))
        });
        place.map_or(LetIn::NotKnown, |(chain, index)| {
            LetIn::By(RuleId { family: self.family, table: Table::Filter, chain, index })
        })
    }
}

//! Walks chains: jump, goto, RETURN, policy.

#![forbid(unsafe_code)]

use super::counters::Row;
use super::log::Speaker;
use super::matches::View;
use super::rule::{Outcome, Rule};
use super::targets::{self, Next, Place, Target};
use super::{Chain, ChainId, Hook, Policy, RuleId, Ruleset, Table, Verdict};
use crate::context::Context;
use crate::packet::Packet;
use crate::record::{Note, Recorder};

/// A chain that a jump left, and the rule to go on with there.
type Frame = (ChainId, u32);

/// Loops are refused at load, so the depth is that of the ruleset; deeper ones than this go to the heap.
const USUAL_DEPTH: usize = 16;

impl Ruleset {
    /// Walks the base chain of `table` at `hook`; a chain that does not exist accepts.
    #[inline]
    pub fn run<R: Recorder>(
        &self,
        table: Table,
        hook: Hook,
        pkt: &mut Packet,
        ctx: &mut Context<R>,
    ) -> Verdict {
        match self.heads[table as usize][hook as usize] {
            None => Verdict::Accept,
            Some(chain) => self.walk(table, hook, chain, pkt, ctx),
        }
    }

    fn walk<R: Recorder>(
        &self,
        table: Table,
        hook: Hook,
        base: ChainId,
        pkt: &mut Packet,
        ctx: &mut Context<R>,
    ) -> Verdict {
        ctx.rec.note(|| Note::Hook(table, hook));
        let chains = &self.tables[table as usize].chains;
        let counters = self.counters.row(ctx.worker);
        // As Linux counts: the IP packet, also one that stands for many.
        let bytes = pkt.l3().len() as u64;
        let mut stack = arrayvec::ArrayVec::<Frame, USUAL_DEPTH>::new();
        let mut deep: Vec<Frame> = Vec::new();
        let (mut at, mut next) = (base, 0_u32);
        loop {
            let chain = &chains[at.index()];
            let Some(rule) = chain.rules.get(next as usize) else {
                {
                    if let Some(caller) = deep.pop().or_else(|| stack.pop()) {
                        (at, next) = caller;
                        continue;
                    }
                    {
                        let chain = &chains[base.index()];
                        let id = RuleId {
                            family: self.family,
                            table,
                            chain: base.0,
                            index: chain.rules.len() as u32,
                        };
                        if ctx.traced {
                            let place = Place { rule: id, table, hook };
                            targets::say(|| Speaker::Trace, usize::MAX, pkt, ctx, place);
                        }
                        return decide_by_policy(id, chain, counters, bytes, ctx);
                    }
                }
            };
            let id = RuleId { family: self.family, table, chain: at.0, index: next };
            next += 1;
            match rule.matches.check(&View::new(pkt, ctx)) {
                Outcome::Holds => ctx.rec.note(|| Note::Rule { rule: id, failed: None }),
                Outcome::Fails(place) => {
                    ctx.rec.note(|| Note::Rule { rule: id, failed: Some(place) });
                    continue;
                }
                Outcome::Drop => {
                    ctx.rec.note(|| Note::Rule { rule: id, failed: None });
                    return Verdict::DropTruncated(id);
                }
            }
            counters.count(chain.first_slot + id.index as usize, bytes);
            if ctx.traced {
                targets::say(|| Speaker::Trace, usize::MAX, pkt, ctx, Place { rule: id, table, hook });
            }
            let Rule { target, .. } = rule;
            match target {
                Target::None => {}
                Target::Accept => return Verdict::Accept,
                Target::Drop => return Verdict::Drop(id),
                Target::Return => next = u32::MAX,
                Target::Jump(to) => {
                    if let Err(full) = stack.try_push((at, next)) {
                        deep.push(full.element());
                    }
                    (at, next) = (*to, 0);
                }
                Target::Goto(to) => (at, next) = (*to, 0),
                other => match other.apply(pkt, ctx, Place { rule: id, table, hook }) {
                    Next::Rule => {}
                    Next::Verdict(verdict) => return verdict,
                },
            }
        }
    }
}

fn decide_by_policy<R: Recorder>(
    id: RuleId,
    chain: &Chain,
    counters: Row<'_>,
    bytes: u64,
    ctx: &mut Context<R>,
) -> Verdict {
    ctx.rec.note(|| Note::Policy(id));
    counters.count(chain.first_slot + chain.rules.len(), bytes);
    match chain.policy {
        Some(Policy::Drop) => Verdict::DropByPolicy(id),
        Some(Policy::Accept) | None => Verdict::Accept,
    }
}

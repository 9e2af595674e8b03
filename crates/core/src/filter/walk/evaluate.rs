//! Walks chains: jump, goto, RETURN, policy.

#![forbid(unsafe_code)]

use crate::base::log::Speaker;
use crate::filter::matches::View;
use crate::filter::rule::Outcome;
use crate::filter::targets::{self, Next, Place, Target};
use crate::filter::walk::classify::{Candidates, Point};
use crate::filter::walk::context::Context;
use crate::filter::walk::counters::Row;
use crate::filter::{Chain, ChainId, Hook, Policy, RuleId, Ruleset, Table, Verdict};
use crate::packet::Packet;
use crate::record::{Note, Recorder};
use arrayvec::ArrayVec;
use core::ops::Range;

/// A chain that a jump left, and the rule to go on with there.
type Frame = (ChainId, u32);

/// What a walk came to.
struct Said {
    verdict: Verdict,
    /// The rule that said it, or the place of the policy.
    chain: ChainId,
    index: u32,
    /// No other rule held.
    is_sole: bool,
}

/// Loops are refused at load, so the depth is that of the ruleset; deeper ones than this go to the heap.
const USUAL_DEPTH: usize = 16;

impl Ruleset {
    /// Walks the base chain of `table` at `hook`; a chain that does not exist accepts.
    #[inline(always)]
    pub fn run<R: Recorder>(
        &self,
        table: Table,
        hook: Hook,
        pkt: &mut Packet,
        ctx: &mut Context<R>,
    ) -> Verdict {
        let Some(base) = self.heads[table as usize][hook as usize] else { return Verdict::Accept };
        if (table, hook) == (Table::Filter, Hook::Forward)
            && let Some(memo) = self.recall(pkt, ctx)
        {
            return self.say_again(base, memo, pkt, ctx);
        }
        self.decide(base, table, hook, pkt, ctx)
    }

    /// Walks the chain. What FORWARD says of a known connection is kept with that.
    #[inline(never)]
    fn decide<R: Recorder>(
        &self,
        base: ChainId,
        table: Table,
        hook: Hook,
        pkt: &mut Packet,
        ctx: &mut Context<R>,
    ) -> Verdict {
        let walk = Walk { rules: self, table, hook, base, row: self.counters.row(ctx.at.row) };
        let Said { verdict, chain, index, is_sole } = walk.run(pkt, ctx);
        if table == Table::Filter {
            if is_sole && hook == Hook::Forward {
                self.remember(base, index, ctx);
            }
            if verdict == Verdict::Accept && !ctx.ct.is_in_table() {
                self.note_let_in(chain, index, ctx);
            }
        }
        verdict
    }

    /// Tells of rules that do not hold for the packet.
    pub(in crate::filter) fn tell_failed<R: Recorder>(
        &self,
        (table, at): (Table, ChainId),
        rules: Range<u32>,
        pkt: &Packet,
        ctx: &mut Context<R>,
    ) {
        let chain = self.chain(table, at);
        for index in rules {
            let outcome = chain.rules[index as usize].matches.check(&View::new(pkt, ctx));
            let Outcome::Fails(place) = outcome else {
                unreachable!("rule {} of {} holds, and was passed over", index + 1, chain.name)
            };
            let rule = RuleId { family: self.family, table, chain: at.0, index };
            ctx.rec.note(|| Note::Rule { rule, failed: Some(place) });
        }
    }

    #[inline]
    pub(in crate::filter) fn chain(&self, table: Table, id: ChainId) -> &Chain {
        &self.tables[table as usize].chains[id.index()]
    }
}

/// One packet's walk through one base chain.
struct Walk<'a> {
    rules: &'a Ruleset,
    table: Table,
    hook: Hook,
    base: ChainId,
    row: Row<'a>,
}

impl Walk<'_> {
    #[inline]
    fn id(&self, chain: ChainId, index: u32) -> RuleId {
        RuleId { family: self.rules.family, table: self.table, chain: chain.0, index }
    }

    const fn place(&self, rule: RuleId) -> Place {
        Place { rule, table: self.table, hook: self.hook }
    }

    fn run<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>) -> Said {
        ctx.rec.note(|| Note::Hook(self.table, self.hook));
        let mut stack = ArrayVec::<Frame, USUAL_DEPTH>::new();
        let mut deep: Vec<Frame> = Vec::new();
        let (mut at, mut next) = (self.base, 0_u32);
        let mut held = 0_u32;
        loop {
            let chain = self.rules.chain(self.table, at);
            let Some((index, outcome)) = find(self, at, chain, next, pkt, ctx) else {
                if let Some(caller) = deep.pop().or_else(|| stack.pop()) {
                    (at, next) = caller;
                    continue;
                }
                let verdict = self.decide_by_policy(pkt, ctx);
                let index = self.rules.chain(self.table, self.base).rules.len() as u32;
                return Said { verdict, chain: self.base, index, is_sole: held == 0 };
            };
            let id = self.id(at, index);
            if outcome == Outcome::Drop {
                return Said { verdict: Verdict::DropTruncated(id), chain: at, index, is_sole: false };
            }
            held += 1;
            next = index + 1;
            // A rule before may have made it longer.
            self.row.count(chain.first_slot + index as usize, pkt.l3_len() as u64);
            if ctx.traced {
                targets::say(|| Speaker::Trace, usize::MAX, pkt, ctx, self.place(id));
            }
            let verdict = match &chain.rules[index as usize].target {
                Target::None => continue,
                Target::Accept => Verdict::Accept,
                Target::Drop => Verdict::Drop(id),
                Target::Return => {
                    next = u32::MAX;
                    continue;
                }
                Target::Jump(to) => {
                    if let Err(full) = stack.try_push((at, next)) {
                        deep.push(full.element());
                    }
                    (at, next) = (*to, 0);
                    continue;
                }
                Target::Goto(to) => {
                    (at, next) = (*to, 0);
                    continue;
                }
                other => match other.apply(pkt, ctx, self.place(id)) {
                    Next::Rule => continue,
                    Next::Verdict(verdict) => verdict,
                },
            };
            return Said { verdict, chain: at, index, is_sole: held == 1 };
        }
    }

    /// Tells whoever listens of rules that need not be looked at, since they cannot hold: which condition says so.
    #[inline]
    fn tell_passed_over<R: Recorder>(
        &self,
        at: ChainId,
        rules: Range<u32>,
        pkt: &Packet,
        ctx: &mut Context<R>,
    ) {
        if R::LISTENS {
            self.rules.tell_failed((self.table, at), rules, pkt, ctx);
        }
    }

    fn decide_by_policy<R: Recorder>(&self, pkt: &Packet, ctx: &mut Context<R>) -> Verdict {
        let chain = self.rules.chain(self.table, self.base);
        let id = self.id(self.base, chain.rules.len() as u32);
        ctx.rec.note(|| Note::Policy(id));
        if ctx.traced {
            targets::say(|| Speaker::Trace, usize::MAX, pkt, ctx, self.place(id));
        }
        self.row.count(chain.first_slot + chain.rules.len(), pkt.l3_len() as u64);
        match chain.policy {
            Some(Policy::Drop) => Verdict::DropByPolicy(id),
            Some(Policy::Accept) | None => Verdict::Accept,
        }
    }
}

/// The first rule from `next` on that holds, or that drops the packet for a header that is cut short.
fn find<R: Recorder>(
    walk: &Walk<'_>,
    at: ChainId,
    chain: &Chain,
    next: u32,
    pkt: &Packet,
    ctx: &mut Context<R>,
) -> Option<(u32, Outcome)> {
    let len = chain.rules.len() as u32;
    if next >= len {
        return None;
    }
    let all = Candidates::All { next, len };
    let candidates = match &chain.classifier {
        Some(classifier) => match Point::of(&View::new(pkt, ctx)) {
            Some(point) => classifier.candidates(&point, next),
            None => all,
        },
        None => all,
    };
    let mut told = next;
    for index in candidates {
        walk.tell_passed_over(at, told..index, pkt, ctx);
        told = index + 1;
        let outcome = chain.rules[index as usize].matches.check(&View::new(pkt, ctx));
        match outcome {
            Outcome::Holds | Outcome::Drop => {
                ctx.rec.note(|| Note::Rule { rule: walk.id(at, index), failed: None });
                return Some((index, outcome));
            }
            Outcome::Fails(place) => {
                ctx.rec.note(|| Note::Rule { rule: walk.id(at, index), failed: Some(place) });
            }
        }
    }
    walk.tell_passed_over(at, told..len, pkt, ctx);
    None
}

//! Walks chains: jump, goto, RETURN, policy.

#![forbid(unsafe_code)]

use super::classify::{Candidates, Point};
use super::counters::Row;
use super::log::Speaker;
use super::matches::View;
use super::rule::Outcome;
use super::targets::{self, Next, Place, Target};
use super::{Chain, ChainId, Hook, Policy, RuleId, Ruleset, Table, Verdict};
use crate::conntrack::CtState;
use crate::context::Context;
use crate::packet::Packet;
use crate::record::{Note, Recorder};
use arrayvec::ArrayVec;

/// A chain that a jump left, and the rule to go on with there.
type Frame = (ChainId, u32);

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
        let may_remember = !R::LISTENS && (table, hook) == (Table::Filter, Hook::Forward);
        if may_remember && let Some(memo) = self.remembered(base, pkt, ctx) {
            return if memo & memo::ACCEPTS != 0 { Verdict::Accept } else { self.refused(base, memo) };
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
        let walk = Walk { rules: self, table, hook, base, row: self.counters.row(ctx.worker) };
        let (verdict, sole) = walk.run(pkt, ctx);
        if let Some(index) = sole
            && !R::LISTENS
            && (table, hook) == (Table::Filter, Hook::Forward)
        {
            self.remember(base, index, ctx);
        }
        verdict
    }

    #[inline]
    fn chain(&self, table: Table, id: ChainId) -> &Chain {
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

    /// The verdict, and the rule that gave it (or the place of the policy), if it was the only one that held.
    fn run<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>) -> (Verdict, Option<u32>) {
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
                let len = self.rules.chain(self.table, self.base).rules.len() as u32;
                return (verdict, (held == 0).then_some(len));
            };
            let id = self.id(at, index);
            if outcome == Outcome::Drop {
                return (Verdict::DropTruncated(id), None);
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
            return (verdict, (held == 1).then_some(index));
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
        // Whoever listens wants to hear of every rule.
        Some(classifier) if !R::LISTENS => match Point::of(&View::new(pkt, ctx)) {
            Some(point) => classifier.candidates(&point, next),
            None => all,
        },
        _ => all,
    };
    for index in candidates {
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
    None
}

/// What a connection keeps of its verdict in one direction, while its state is ESTABLISHED.
///
/// From the highest bit down: the ruleset's generation, the interfaces in and out; whether it was let pass, and the
/// rule that decided.
mod memo {
    use crate::iface::IfaceId;

    pub(super) const INDEX_BITS: u32 = 19;
    pub(super) const ACCEPTS: u64 = 1 << INDEX_BITS;
    /// What is kept; above it is for whom.
    pub(super) const KEPT: u64 = ACCEPTS << 1;
    const IFACE_BITS: u32 = 10;

    #[inline]
    pub(super) fn key(generation: u32, ingress: IfaceId, egress: IfaceId) -> u64 {
        const { assert!(crate::iface::MAX_IFACES <= 1 << IFACE_BITS) };
        (u64::from(generation) << (2 * IFACE_BITS) | u64::from(ingress.0) << IFACE_BITS | u64::from(egress.0))
            * KEPT
    }
}

impl Ruleset {
    /// Where in a connection's memory FORWARD looks, if it may.
    #[inline(always)]
    fn memo_key<R>(&self, ctx: &Context<R>) -> Option<u64> {
        if ctx.ct.state != CtState::Established || ctx.traced || ctx.template.notrack {
            return None;
        }
        Some(memo::key(self.generation, ctx.in_iface?, ctx.out_iface?))
    }

    /// What was said of this connection before, if nothing has changed since; counted as if it were walked again.
    #[inline(always)]
    fn remembered<R: Recorder>(&self, base: ChainId, pkt: &Packet, ctx: &Context<R>) -> Option<u64> {
        let memo = ctx.ct.verdict;
        if memo == 0 || memo & !(memo::KEPT - 1) != self.memo_key(ctx)? {
            return None;
        }
        let index = (memo & (memo::ACCEPTS - 1)) as usize;
        let slot = self.chain(Table::Filter, base).first_slot + index;
        self.counters.row(ctx.worker).count(slot, pkt.l3_len() as u64);
        Some(memo)
    }

    /// The refusal that a connection remembers.
    #[cold]
    fn refused(&self, base: ChainId, memo: u64) -> Verdict {
        let index = (memo & (memo::ACCEPTS - 1)) as u32;
        let id = RuleId { family: self.family, table: Table::Filter, chain: base.0, index };
        let is_policy = index as usize == self.chain(Table::Filter, base).rules.len();
        if is_policy { Verdict::DropByPolicy(id) } else { Verdict::Drop(id) }
    }

    /// Notes the verdict with the connection, if every rule up to the one that gave it will say the same again.
    fn remember<R: Recorder>(&self, base: ChainId, index: u32, ctx: &mut Context<R>) {
        let chain = self.chain(Table::Filter, base);
        let accepts = match chain.rules.get(index as usize).map(|rule| &rule.target) {
            None if index <= chain.steady => chain.policy != Some(Policy::Drop),
            Some(Target::Accept) if index < chain.steady => true,
            Some(Target::Drop) if index < chain.steady => false,
            _ => return,
        };
        if index >= 1 << memo::INDEX_BITS {
            return;
        }
        if let Some(key) = self.memo_key(ctx) {
            let direction = ctx.ct.direction as usize;
            let memo = key | u64::from(index) | if accepts { memo::ACCEPTS } else { 0 };
            let conntrack = &ctx.env.conntrack;
            let _ = conntrack.with_entry(&mut ctx.ct, |entry| entry.verdict[direction] = memo);
        }
    }
}

//! What a connection keeps of FORWARD's verdict in one direction, while its state is ESTABLISHED.
//!
//! From the highest bit down: the ruleset's generation, the interfaces in and out; whether it was let pass, and where the
//! rule that decided counts.

#![forbid(unsafe_code)]

use crate::base::iface::{IfaceId, MAX_IFACES};
use crate::conntrack::CtState;
use crate::filter::targets::Target;
use crate::filter::walk::context::Context;
use crate::filter::{ChainId, Hook, Policy, RuleId, Ruleset, Table, Verdict};
use crate::packet::Packet;
use crate::record::{Note, Recorder};

const SLOT_BITS: u32 = 19;
const ACCEPTS: u64 = 1 << SLOT_BITS;
/// The bits below this one say what is kept, those from it on for whom.
const KEPT: u64 = ACCEPTS << 1;
const IFACE_BITS: u32 = 10;
const EGRESS_SHIFT: u32 = KEPT.trailing_zeros();
const INGRESS_SHIFT: u32 = EGRESS_SHIFT + IFACE_BITS;
pub(super) const GENERATION_SHIFT: u32 = INGRESS_SHIFT + IFACE_BITS;

const _: () = assert!(MAX_IFACES <= 1 << IFACE_BITS);

/// Which of a router's rulesets it is, so that what a connection remembers of an old one is not taken for a new one's.
/// It stands where the memory has it, and is never 0.
#[derive(Clone, Copy, Debug)]
pub(in crate::filter) struct Generation(pub(super) u64);

impl Generation {
    /// `number` counts from 1, and begins anew when it no longer fits.
    pub(in crate::filter) const fn new(number: u64) -> Self {
        const MOST: u64 = u64::MAX >> GENERATION_SHIFT;
        Self((number.wrapping_sub(1) % MOST + 1) << GENERATION_SHIFT)
    }
}

/// The one of a ruleset that no router has had before.
impl Default for Generation {
    fn default() -> Self {
        Self::new(1)
    }
}

#[inline]
fn key(generation: Generation, ingress: IfaceId, egress: IfaceId) -> u64 {
    generation.0 | u64::from(ingress.0) << INGRESS_SHIFT | u64::from(egress.0) << EGRESS_SHIFT
}

#[inline]
const fn slot_of(memo: u64) -> usize {
    (memo & (ACCEPTS - 1)) as usize
}

impl Ruleset {
    /// Where in a connection's memory FORWARD looks, if it may.
    #[inline]
    fn memo_key<R>(&self, ctx: &Context<R>) -> Option<u64> {
        if ctx.ct.state != CtState::Established || ctx.traced {
            return None;
        }
        Some(key(self.generation, ctx.at.iface?, ctx.out_iface?))
    }

    /// What was said of this connection before, if nothing has changed since; counted as if the chain were walked again.
    #[inline(never)]
    pub(in crate::filter) fn recall<R: Recorder>(&self, pkt: &Packet, ctx: &Context<R>) -> Option<u64> {
        let memo = ctx.ct.verdict;
        // A key is never 0, as no generation is.
        if memo ^ self.memo_key(ctx)? >= KEPT {
            return None;
        }
        self.counters.count(ctx.at.row, slot_of(memo), pkt.l3_len() as u64);
        Some(memo)
    }

    /// What a memory says; whoever listens is told what a walk through the chain would tell.
    #[inline]
    pub(in crate::filter) fn say_again<R: Recorder>(
        &self,
        base: ChainId,
        memo: u64,
        pkt: &Packet,
        ctx: &mut Context<R>,
    ) -> Verdict {
        if R::LISTENS {
            self.tell_again(base, memo, pkt, ctx);
        }
        if memo & ACCEPTS == 0 { self.refused(base, memo) } else { Verdict::Accept }
    }

    /// The rule that gave the verdict, or the place of the policy.
    fn decided_by(&self, base: ChainId, memo: u64) -> RuleId {
        let index = (slot_of(memo) - self.chain(Table::Filter, base).first_slot) as u32;
        RuleId { family: self.family, table: Table::Filter, chain: base.0, index }
    }

    fn is_policy(&self, base: ChainId, rule: RuleId) -> bool {
        rule.index as usize == self.chain(Table::Filter, base).rules.len()
    }

    /// The refusal that a connection remembers.
    #[cold]
    fn refused(&self, base: ChainId, memo: u64) -> Verdict {
        let rule = self.decided_by(base, memo);
        if self.is_policy(base, rule) { Verdict::DropByPolicy(rule) } else { Verdict::Drop(rule) }
    }

    /// Tells whoever listens what a walk through the chain would tell.
    fn tell_again<R: Recorder>(&self, base: ChainId, memo: u64, pkt: &Packet, ctx: &mut Context<R>) {
        let rule = self.decided_by(base, memo);
        ctx.rec.note(|| Note::Hook(Table::Filter, Hook::Forward));
        self.tell_failed((Table::Filter, base), 0..rule.index, pkt, ctx);
        let is_policy = self.is_policy(base, rule);
        ctx.rec.note(|| if is_policy { Note::Policy(rule) } else { Note::Rule { rule, failed: None } });
    }

    /// Notes the verdict with the connection, if every rule up to the one that gave it will say the same again.
    pub(in crate::filter) fn remember<R: Recorder>(&self, base: ChainId, index: u32, ctx: &mut Context<R>) {
        let chain = self.chain(Table::Filter, base);
        let accepts = match chain.rules.get(index as usize).map(|rule| &rule.target) {
            None if index <= chain.steady => chain.policy != Some(Policy::Drop),
            Some(Target::Accept) if index < chain.steady => true,
            Some(Target::Drop) if index < chain.steady => false,
            _ => return,
        };
        let slot = chain.first_slot as u64 + u64::from(index);
        if slot >= ACCEPTS {
            return;
        }
        if let Some(key) = self.memo_key(ctx) {
            let direction = ctx.ct.direction as usize;
            let memo = key | slot | if accepts { ACCEPTS } else { 0 };
            let conntrack = &ctx.at.env.conntrack;
            let _ = conntrack.with_entry(&mut ctx.ct, |entry| entry.verdict[direction] = memo);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fate::{DropReason, Fate};
    use crate::base::iface::Iface;
    use crate::base::time::Instant;
    use crate::config::RouterConfig;
    use crate::filter::walk::tests::{LEFT, RIGHT, datagram};
    use crate::packet::{Family, Frame};
    use crate::record::NoRecord;
    use crate::router::Router;

    /// Counts in mangle, so that the cells of FORWARD's rules are not the first ones.
    fn rules(for_answers: &str) -> String {
        format!(
            "*mangle\n-A FORWARD -p udp\n-A FORWARD -p tcp\nCOMMIT\n*filter\n-A FORWARD -p tcp -j ACCEPT\n\
             -A FORWARD -i right -m conntrack --ctstate ESTABLISHED -j {for_answers}\nCOMMIT\n"
        )
    }

    #[test]
    fn what_is_remembered_is_what_the_rules_would_say_and_counts_where_they_would() {
        let ifaces = vec![Iface::new("left", LEFT), Iface::new("right", RIGHT)];
        let config = RouterConfig { ifaces, rules: Some(rules("DROP")), ..RouterConfig::default() };
        let router = Router::new(config).unwrap();
        let mut worker = router.worker();
        let mut send = |from| {
            let (now, mut frame) = (Instant::from_secs(1), datagram(from));
            router.process(&mut worker, now, from, Frame::new(&mut frame), &mut NoRecord).fate
        };
        let by = |index| RuleId { family: Family::Ipv4, table: Table::Filter, chain: 1, index };
        let dropped = Fate::Dropped(DropReason::Rule(by(1)));
        for from in [LEFT, RIGHT, LEFT, RIGHT, LEFT, RIGHT] {
            assert_eq!(send(from), if from == LEFT { Fate::Forwarded } else { dropped });
        }
        let mut remembered = Vec::new();
        router.conntrack().for_each(
            &crate::conntrack::Filter::default(),
            Instant::from_secs(1),
            |_, entry| {
                remembered.extend(entry.verdict);
            },
        );
        assert!(remembered.len() == 2 && !remembered.contains(&0), "{remembered:?}");
        let count = |index| router.rules().for_family(Family::Ipv4).unwrap().count(by(index)).packets;
        assert_eq!(
            [0, 1, 2].map(count),
            [0, 3, 3],
            "a rule that never held, the one for answers, the policy"
        );

        router.replace_rules(Some(&rules("ACCEPT")), None).unwrap();
        assert_eq!(send(RIGHT), Fate::Forwarded, "the memory of other rules is none");
    }
}

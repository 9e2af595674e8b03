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

#[cfg(test)]
mod tests {
    use super::super::memo::tests::{LEFT, RIGHT, datagram};
    use super::*;
    use crate::base::iface::{Iface, IfaceId};
    use crate::base::time::Instant;
    use crate::config::RouterConfig;
    use crate::conntrack::Filter;
    use crate::packet::{Family, Frame};
    use crate::record::NoRecord;
    use crate::router::Router;

    const RULES: &str = "*filter\n:FORWARD DROP [0:0]\n:lan - [0:0]\n-A FORWARD -p tcp -j ACCEPT\n\
        -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD -i left -j lan\n\
        -A lan -p tcp\n-A lan -p udp -j ACCEPT\nCOMMIT\n";

    fn router(rules: Option<&str>) -> Router {
        let ifaces = vec![Iface::new("left", LEFT), Iface::new("right", RIGHT)];
        Router::new(RouterConfig { ifaces, rules: rules.map(str::to_owned), ..RouterConfig::default() })
            .unwrap()
    }

    fn send(router: &Router, from: IfaceId) {
        let mut frame = datagram(from);
        let (worker, now) = (&mut router.worker(), Instant::from_secs(1));
        let fate = router.process(worker, now, from, Frame::new(&mut frame), &mut NoRecord).fate;
        assert_eq!(fate, crate::base::fate::Fate::Forwarded);
    }

    /// What is known of the only connection, and the name of the rule.
    fn known(router: &Router) -> (LetIn, Option<String>) {
        let mut known = Vec::new();
        let rules = router.rules();
        let ruleset = rules.for_family(Family::Ipv4).unwrap();
        router.conntrack().for_each(&Filter::default(), Instant::from_secs(1), |_, entry| {
            known.push(ruleset.let_in(entry));
        });
        let [let_in] = known[..] else { panic!("one connection, not {known:?}") };
        let name = match let_in {
            LetIn::By(rule) => Some(ruleset.rule_name(rule)),
            LetIn::ByOtherRules | LetIn::NotKnown => None,
        };
        (let_in, name)
    }

    #[test]
    fn it_is_the_rule_that_said_so_wherever_it_stands_and_stays_so_when_others_judge_what_follows() {
        let router = router(Some(RULES));
        send(&router, LEFT);
        assert_eq!(known(&router).1.as_deref(), Some("filter/lan/2"));
        for from in [RIGHT, LEFT, RIGHT, LEFT] {
            send(&router, from);
        }
        assert_eq!(known(&router).1.as_deref(), Some("filter/lan/2"), "answers have a rule of their own");
    }

    #[test]
    fn rules_that_came_later_let_nothing_in_that_was_there() {
        let router = router(Some(RULES));
        send(&router, LEFT);
        router.replace_rules(Some(RULES), None).unwrap();
        send(&router, RIGHT);
        assert_eq!(known(&router).0, LetIn::ByOtherRules);
    }

    #[test]
    fn a_policy_lets_in_as_a_rule_does() {
        let router = router(Some("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -j DROP\nCOMMIT\n"));
        send(&router, LEFT);
        assert_eq!(known(&router).1.as_deref(), Some("filter/FORWARD/policy"));
    }
}

//! A walk of all packets at once through the tables of one way: what becomes of them, and which rules held.

#![forbid(unsafe_code)]

use crate::condition::{Conditions, Sight};
use crate::marks::Marks;
use crate::moves::Moves;
use crate::space::{Field, Made, Set, Space};
use stateway_core::filter::{Chain, Hook, Matches, Policy, RuleId, Ruleset, Table, Target};
use stateway_core::nat::Side;
use std::collections::BTreeMap;

/// Deeper than any ruleset that the core loads and people have.
const DEEPEST: usize = 200;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the router.
    Forward,
    /// To the router itself.
    Input,
    /// From the router itself.
    Output,
}

impl Way {
    /// The tables that are asked, in their order.
    const fn stages(self) -> &'static [(Table, Hook)] {
        match self {
            Self::Forward => &[
                (Table::Raw, Hook::Prerouting),
                (Table::Mangle, Hook::Prerouting),
                (Table::Nat, Hook::Prerouting),
                (Table::Mangle, Hook::Forward),
                (Table::Filter, Hook::Forward),
                (Table::Mangle, Hook::Postrouting),
                (Table::Nat, Hook::Postrouting),
            ],
            Self::Input => &[
                (Table::Raw, Hook::Prerouting),
                (Table::Mangle, Hook::Prerouting),
                (Table::Nat, Hook::Prerouting),
                (Table::Mangle, Hook::Input),
                (Table::Filter, Hook::Input),
                (Table::Nat, Hook::Input),
            ],
            Self::Output => &[
                (Table::Raw, Hook::Output),
                (Table::Mangle, Hook::Output),
                (Table::Nat, Hook::Output),
                (Table::Filter, Hook::Output),
                (Table::Mangle, Hook::Postrouting),
                (Table::Nat, Hook::Postrouting),
            ],
        }
    }
}

/// What becomes of packets.
#[derive(Clone, Debug)]
pub struct Fates {
    pub passed: Set,
    pub dropped: Set,
    pub rejected: Set,
    /// A rule of the raw table exempts them from tracking.
    pub untracked: Set,
}

/// What a rule met on a walk.
#[derive(Clone, Debug)]
pub struct Met {
    /// Packets that came as far as the rule.
    pub reached: Set,
    /// Those among them that it held for.
    pub held: Set,
    /// All packets that its conditions hold for, wherever they are.
    pub wanted: Set,
}

/// By table, chain and rule; the place behind the last rule is the policy's.
pub type Seen = BTreeMap<(Table, u16, u32), Met>;

/// What is known of a ruleset before a walk.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    ttl: bool,
    tos: bool,
    length: bool,
    prefixes: bool,
    translates: bool,
}

pub struct Walk<'a> {
    rules: &'a Ruleset,
    space: &'a Space,
    conditions: Conditions<'a>,
    marks: Marks,
    changes: Changes,
    untracked: Set,
    /// What `nat` decides of destinations, and then of sources.
    pub destinations: Moves,
    pub sources: Moves,
    /// Whether the tables in front have been walked, so that these are all there is.
    knows_translation: bool,
    /// What the chain that is walked decides; it sees nothing of it itself.
    deciding: Moves,
    /// Kept only where somebody asks for it.
    seen: Option<Seen>,
    /// What a jump into the raw table's state conditions depends on is settled once tracking is done.
    sight: Sight,
}

/// What a chain makes of packets: those that come back from it are the rest.
struct Ends {
    accepted: Set,
    dropped: Set,
    rejected: Set,
    back: Set,
}

impl<'a> Walk<'a> {
    pub fn new(rules: &'a Ruleset, space: &'a Space) -> Self {
        let mut changes = Changes::default();
        let mut changing = Vec::new();
        for table in Table::ALL {
            for rule in rules.chains(table).iter().flat_map(|chain| &chain.rules) {
                match &rule.target {
                    Target::Ttl(_) | Target::Hl(_) => changes.ttl = true,
                    Target::Tos(_) | Target::Dscp(_) | Target::Ecn(_) => changes.tos = true,
                    Target::Tcpmss(_) => changes.length = true,
                    Target::Set(set) => {
                        let named = [&set.add, &set.remove].into_iter().flatten();
                        changing.extend(named.map(|(set, _)| set.name.clone()));
                    }
                    Target::Snpt(_) | Target::Dnpt(_) => changes.prefixes = true,
                    _ => {}
                }
            }
        }
        changes.translates = crate::model::translates(rules);
        let sight = Sight {
            table: Table::Raw,
            hook: Hook::Prerouting,
            before_translation: false,
            before_prefixes: false,
            ttl_changes: changes.ttl,
            tos_changes: changes.tos,
            length_changes: changes.length,
            is_own: false,
        };
        Self {
            rules,
            space,
            conditions: Conditions::new(space, changing),
            marks: Marks::none(space),
            changes,
            untracked: space.empty(),
            destinations: Moves::none(space, Side::Destination),
            sources: Moves::none(space, Side::Source),
            knows_translation: false,
            deciding: Moves::none(space, Side::Destination),
            seen: None,
            sight,
        }
    }

    /// As [`Walk::new`], and keeps what each rule met, whatever sets hold.
    pub fn seeing(rules: &'a Ruleset, space: &'a Space) -> Self {
        let mut walk = Self::new(rules, space);
        walk.conditions.sets_are_unknown = true;
        Self { seen: Some(Seen::new()), ..walk }
    }

    /// Takes the packets along a whole way. `tracked` narrows them once the raw table has said which are not tracked.
    pub fn go(
        &mut self,
        way: Way,
        packets: &Set,
        tracked: impl FnOnce(&Set, &Set) -> Made<Set>,
    ) -> Made<Fates> {
        self.marks = Marks::none(self.space);
        self.untracked = self.space.empty();
        self.knows_translation = true;
        let mut tracked = Some(tracked);
        let mut fates = Fates {
            passed: packets.clone(),
            dropped: self.space.empty(),
            rejected: self.space.empty(),
            untracked: self.space.empty(),
        };
        for (table, hook) in way.stages() {
            if *table != Table::Raw
                && let Some(tracked) = tracked.take()
            {
                let all = tracked(packets, &self.untracked)?;
                for set in [&mut fates.passed, &mut fates.dropped, &mut fates.rejected] {
                    *set = set.and(&all)?;
                }
                fates.untracked = self.untracked.clone();
            }
            let is_own = way == Way::Output;
            self.sight = Sight { table: *table, hook: *hook, is_own, ..self.sight };
            let is_before = *hook == Hook::Prerouting || (*hook == Hook::Output && *table != Table::Filter);
            self.sight.before_translation = self.changes.translates && is_before;
            self.sight.before_prefixes = self.changes.prefixes && *hook == Hook::Prerouting;
            if *table == Table::Nat {
                if self.changes.translates {
                    self.translate(*hook, &mut fates)?;
                }
                continue;
            }
            let ends = self.stage(&fates.passed.clone())?;
            fates.passed = ends.accepted;
            fates.dropped = fates.dropped.or(&ends.dropped)?;
            fates.rejected = fates.rejected.or(&ends.rejected)?;
        }
        Ok(fates)
    }

    /// The nat table decides of the first packets of connections.
    fn translate(&mut self, hook: Hook, fates: &mut Fates) -> Made<()> {
        let new = self.space.is(Field::State, 0)?;
        let is_source = matches!(hook, Hook::Input | Hook::Postrouting);
        let side = if is_source { Side::Source } else { Side::Destination };
        self.deciding = Moves::none(self.space, side);
        self.sight.before_translation = false;
        let ends = self.stage(&fates.passed.and(&new)?)?;
        fates.passed = fates.passed.without(&new)?.or(&ends.accepted)?;
        fates.dropped = fates.dropped.or(&ends.dropped)?;
        let decided = core::mem::replace(&mut self.deciding, Moves::none(self.space, side));
        *(if is_source { &mut self.sources } else { &mut self.destinations }) = decided;
        Ok(())
    }

    /// One table at one hook, for lints that look at it alone.
    pub fn only(&mut self, table: Table, hook: Hook, packets: &Set) -> Made<Fates> {
        // What tables before it have set is not known here.
        self.marks = Marks::none(self.space);
        self.marks.restore(self.space, &self.space.full())?;
        let is_own = hook == Hook::Output;
        self.sight =
            Sight { table, hook, before_translation: false, before_prefixes: false, is_own, ..self.sight };
        let Ends { accepted, dropped, rejected, .. } = self.stage(packets)?;
        Ok(Fates { passed: accepted, dropped, rejected, untracked: self.untracked.clone() })
    }

    /// What the rules met so far.
    pub fn into_seen(self) -> Seen {
        self.seen.unwrap_or_default()
    }

    /// The base chain of the present table and hook, with its policy.
    fn stage(&mut self, packets: &Set) -> Made<Ends> {
        let (table, hook) = (self.sight.table, self.sight.hook);
        let place = table.hooks().iter().position(|h| *h == hook);
        let Some((place, chain)) =
            place.and_then(|place| Some((place, self.rules.chains(table).get(place)?)))
        else {
            let nothing = || self.space.empty();
            return Ok(Ends {
                accepted: packets.clone(),
                dropped: nothing(),
                rejected: nothing(),
                back: nothing(),
            });
        };
        let mut ends = self.chain(table, place, chain, packets, 0)?;
        let policy = (table, place as u16, chain.rules.len() as u32);
        let all = self.space.full();
        self.note(policy, &ends.back, &ends.back, &all)?;
        match chain.policy {
            Some(Policy::Drop) => ends.dropped = ends.dropped.or(&ends.back)?,
            Some(Policy::Accept) | None => ends.accepted = ends.accepted.or(&ends.back)?,
        }
        ends.back = self.space.empty();
        Ok(ends)
    }

    fn chain(
        &mut self,
        table: Table,
        place: usize,
        chain: &Chain,
        packets: &Set,
        depth: usize,
    ) -> Made<Ends> {
        let nothing = || self.space.empty();
        let mut ends = Ends { accepted: nothing(), dropped: nothing(), rejected: nothing(), back: nothing() };
        let mut rest = packets.clone();
        for (index, rule) in chain.rules.iter().enumerate() {
            if rest.is_empty() && self.seen.is_none() {
                break;
            }
            let wanted = self.wanted(&rule.matches)?;
            let held = rest.and(&wanted)?;
            self.note((table, place as u16, index as u32), &rest, &held, &wanted)?;
            if held.is_empty() {
                continue;
            }
            match &rule.target {
                Target::Accept => ends.accepted = ends.accepted.or(&held)?,
                Target::Drop => ends.dropped = ends.dropped.or(&held)?,
                Target::Reject(_) => ends.rejected = ends.rejected.or(&held)?,
                Target::Return => ends.back = ends.back.or(&held)?,
                Target::Jump(to) | Target::Goto(to) => {
                    if depth >= DEEPEST {
                        return Err(crate::space::TooLarge);
                    }
                    let chains: &'a [Chain] = self.rules.chains(table);
                    let inner = self.chain(table, to.index(), &chains[to.index()], &held, depth + 1)?;
                    ends.accepted = ends.accepted.or(&inner.accepted)?;
                    ends.dropped = ends.dropped.or(&inner.dropped)?;
                    ends.rejected = ends.rejected.or(&inner.rejected)?;
                    rest = rest.without(&held)?;
                    if matches!(rule.target, Target::Goto(_)) {
                        ends.back = ends.back.or(&inner.back)?;
                    } else {
                        rest = rest.or(&inner.back)?;
                    }
                    continue;
                }
                other if other.translation().is_some() => {
                    ends.accepted = ends.accepted.or(&held)?;
                    self.decide(other, &held)?;
                }
                other => {
                    self.carry_out(other, &held)?;
                    continue;
                }
            }
            rest = rest.without(&held)?;
        }
        ends.back = ends.back.or(&rest)?;
        Ok(ends)
    }

    /// The packets, as they come in, that a rule's conditions hold for here.
    fn wanted(&mut self, matches: &Matches) -> Made<Set> {
        self.conditions.asks_translation = false;
        let mut wanted = self.conditions.of(matches, self.sight)?;
        wanted = self.destinations.before(self.space, &wanted)?;
        if self.conditions.asks_translation && self.knows_translation {
            let known = self.space.of_known_connections()?;
            for (word, moves) in [("DNAT", &self.destinations), ("SNAT", &self.sources)] {
                let key = format!("-m conntrack --ctstate {word}");
                let is_so = known.choose(&self.space.unknown(&key, &key)?, moves.any())?;
                wanted = self.space.knowing(&wanted, &key, &is_so)?;
            }
        }
        wanted.and(&self.conditions.of_marks(matches, &self.marks)?)
    }

    /// A target of the nat table, which says how connections are translated.
    fn decide(&mut self, target: &Target, held: &Set) -> Made<()> {
        let Some(translation) = target.translation() else { return Ok(()) };
        self.deciding.add(&format!("{}{target}", translation.name()), translation, held)
    }

    /// A target that lets the packet go on.
    fn carry_out(&mut self, target: &Target, held: &Set) -> Made<()> {
        match target {
            Target::Mark(mark) => self.marks.change(held, mark.0.value, mark.0.mask),
            Target::Connmark(_) if target.to_string().contains("--restore-mark") => {
                self.marks.restore(self.space, held)
            }
            Target::Set(set) if set.map_mark.is_some() => self.marks.restore(self.space, held),
            Target::Notrack(_) => {
                self.untracked = self.untracked.or(held)?;
                Ok(())
            }
            Target::Ct(ct) if ct.notrack => {
                self.untracked = self.untracked.or(held)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn note(&mut self, at: (Table, u16, u32), reached: &Set, held: &Set, wanted: &Set) -> Made<()> {
        let Some(seen) = &mut self.seen else { return Ok(()) };
        if let Some(met) = seen.get_mut(&at) {
            met.reached = met.reached.or(reached)?;
            met.held = met.held.or(held)?;
            met.wanted = met.wanted.or(wanted)?;
        } else {
            let (reached, held, wanted) = (reached.clone(), held.clone(), wanted.clone());
            seen.insert(at, Met { reached, held, wanted });
        }
        Ok(())
    }
}

/// The rule at a place that was met.
pub fn rule_id(rules: &Ruleset, (table, chain, index): (Table, u16, u32)) -> RuleId {
    RuleId { family: rules.family, table, chain, index }
}

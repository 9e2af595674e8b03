//! What becomes of all packets of one way under one ruleset.

#![forbid(unsafe_code)]

use crate::condition::STATES;
use crate::moves::Moves;
use crate::space::{Field, Made, Set, Space};
use crate::walk::{Fates, Walk, Way};
use stateway_core::conntrack::CtState;
use stateway_core::filter::ipset::{Kind, Members};
use stateway_core::filter::matches::Match;
use stateway_core::filter::{Ruleset, Table, Target};

/// What is asked of a packet's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves the router, or is delivered to it.
    Passed,
    Dropped,
    Rejected,
}

impl Fate {
    pub const ALL: [Self; 3] = [Self::Passed, Self::Dropped, Self::Rejected];

    /// In the words of `replay`.
    pub const fn word(self, way: Way) -> &'static str {
        match (self, way) {
            (Self::Passed, Way::Input) => "delivered",
            (Self::Passed, Way::Output) => "sent",
            (Self::Passed, Way::Forward) => "forwarded",
            (Self::Dropped, _) => "dropped",
            (Self::Rejected, _) => "rejected",
        }
    }
}

/// What there is to know of the router around the rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Router {
    /// Connections may be announced by other ones.
    pub has_helpers: bool,
    /// Packets may leave by the interface where they came in: never through a bridge.
    pub turns_back: bool,
}

/// The packets of one way, and what becomes of them.
#[derive(Debug)]
pub struct Model<'a> {
    pub space: &'a Space,
    pub way: Way,
    /// Packets whose state packets before them can bring about, wherever they leave.
    pub possible: Set,
    /// Packets that leave where packets can leave.
    pub real: Set,
    pub fates: Fates,
    /// What would become of packets in states that no packet before brings about.
    pub supposed: Fates,
    /// NEW packets that pass, and so begin a connection.
    pub opened: Set,
    /// The same as FORWARD sees them.
    seen_opened: Set,
    /// What the nat table makes of destinations, before FORWARD sees them, and of sources, behind it.
    pub destinations: Moves,
    pub sources: Moves,
}

impl<'a> Model<'a> {
    pub fn new(rules: &Ruleset, space: &'a Space, way: Way, router: Router) -> Made<Self> {
        let has_helpers = router.has_helpers || names_helper(rules);
        let Judged { mut possible, fates, destinations, sources } = fates(rules, space, way, has_helpers)?;
        let may_turn_back = way != Way::Forward || router.turns_back;
        let real = if may_turn_back { space.full() } else { space.crossing()? };
        let opened = fates.passed.and(&space.is(Field::State, 0)?)?.and(&real)?;
        let seen_opened = destinations.after(space, &opened)?;
        // What the router itself opened is answered at INPUT, and what others opened to it at OUTPUT.
        let all_opened = match way {
            Way::Forward => seen_opened.clone(),
            Way::Input => seen_opened.or(&other_way(rules, space, Way::Output, has_helpers)?)?,
            Way::Output => seen_opened.or(&other_way(rules, space, Way::Input, has_helpers)?)?,
        };
        let following = space.follow_from(&all_opened, has_helpers)?;
        possible = possible.and(&following)?;
        let following = possible.clone();
        let supposed = fates.clone();
        let Fates { passed, dropped, rejected, untracked } = fates;
        let fates = Fates {
            passed: passed.and(&following)?,
            dropped: dropped.and(&following)?,
            rejected: rejected.and(&following)?,
            untracked,
        };
        Ok(Self { space, way, possible, real, fates, supposed, opened, seen_opened, destinations, sources })
    }

    pub const fn of(&self, fate: Fate) -> &Set {
        match fate {
            Fate::Passed => &self.fates.passed,
            Fate::Dropped => &self.fates.dropped,
            Fate::Rejected => &self.fates.rejected,
        }
    }

    /// As [`Model::of`], in any state that a packet can have by itself.
    pub const fn supposed(&self, fate: Fate) -> &Set {
        match fate {
            Fate::Passed => &self.supposed.passed,
            Fate::Dropped => &self.supposed.dropped,
            Fate::Rejected => &self.supposed.rejected,
        }
    }

    /// Packets of connections that were opened with the same two interfaces, the answers the other way round.
    pub(crate) fn in_connections(&self) -> Made<Set> {
        self.space.connections(&self.seen_opened)
    }
}

/// What a walk says.
struct Judged {
    possible: Set,
    fates: Fates,
    destinations: Moves,
    sources: Moves,
}

fn fates(rules: &Ruleset, space: &Space, way: Way, has_helpers: bool) -> Made<Judged> {
    let mut packets = space.packets()?;
    match way {
        Way::Forward => {}
        Way::Input => packets = packets.and(&space.is(Field::Out, 0)?)?,
        Way::Output => packets = packets.and(&space.is(Field::In, 0)?)?,
    }
    let mut possible = packets.clone();
    let mut walk = Walk::new(rules, space);
    let mut fates = walk.go(way, &packets, |all, untracked| {
        possible = all.and(&space.can_be_so(untracked, has_helpers)?)?;
        Ok(possible.clone())
    })?;
    let (destinations, sources) = (walk.destinations, walk.sources);
    if way == Way::Forward {
        // What is redirected is delivered to the router itself.
        let redirected = destinations.redirected(space)?;
        for set in [&mut possible, &mut fates.passed, &mut fates.dropped, &mut fates.rejected] {
            *set = set.without(&redirected)?;
        }
    }
    Ok(Judged { possible, fates, destinations, sources })
}

fn other_way(rules: &Ruleset, space: &Space, way: Way, has_helpers: bool) -> Made<Set> {
    let Judged { fates, destinations, .. } = fates(rules, space, way, has_helpers)?;
    destinations.after(space, &fates.passed.and(&space.is(Field::State, 0)?)?)
}

/// Whether a rule gives connections a helper.
fn names_helper(rules: &Ruleset) -> bool {
    let of_raw = rules.chains(Table::Raw).iter().flat_map(|chain| &chain.rules);
    of_raw.into_iter().any(|rule| matches!(&rule.target, Target::Ct(ct) if ct.helper.is_some()))
}

/// Whether rules change addresses or ports, or refuse packets where they would.
pub fn translates(rules: &Ruleset) -> bool {
    let of_nat = rules.chains(Table::Nat).iter().flat_map(|chain| &chain.rules);
    of_nat.into_iter().any(|rule| rule.target.translation().is_some()) || rules.may_refuse(Table::Nat)
}

/// The number of a state in [`Field::State`].
pub fn state_number(state: CtState) -> u128 {
    STATES.iter().position(|known| *known == state).unwrap_or_default() as u128
}

/// The interfaces of a router whose rules and questions name these: for a beginning of names one that begins so, and two that
/// nobody names.
pub fn interfaces<'a>(rulesets: impl Iterator<Item = &'a Ruleset>, asked: &[String]) -> Vec<String> {
    let mut patterns: Vec<String> = asked.to_vec();
    for rules in rulesets {
        for rule in Table::ALL.into_iter().flat_map(|t| rules.chains(t)).flat_map(|chain| &chain.rules) {
            let matches = &rule.matches;
            patterns.extend(
                [&matches.in_iface, &matches.out_iface].into_iter().flatten().map(|m| m.name.clone()),
            );
            for m in &matches.listed {
                let Match::Set(c) = m else { continue };
                if c.set.kind == Kind::NetIface
                    && let Members::Elements(members) = c.set.members()
                {
                    let plus = |beginning: bool| if beginning { "+" } else { "" };
                    patterns.extend(members.iter().map(|m| format!("{}{}", m.iface, plus(m.is_beginning))));
                }
            }
        }
    }
    let mut names: Vec<String> = Vec::new();
    let mut stems: Vec<String> = Vec::new();
    for pattern in patterns {
        match pattern.strip_suffix('+') {
            Some("") => {}
            Some(stem) => stems.push(stem.to_owned()),
            None => names.push(pattern),
        }
    }
    stems.sort();
    stems.dedup();
    for stem in &stems {
        let fresh = (0..=names.len()).map(|n| format!("{stem}{n}")).find(|name| !names.contains(name));
        names.extend(fresh);
    }
    let is_taken =
        |name: &String| names.contains(name) || stems.iter().any(|stem| name.starts_with(stem.as_str()));
    let candidates = ["other", "port", "unnamed", "iface", "z", "y", "x", "w", "v", "q"];
    let fresh = |n: u32| candidates.iter().map(|stem| format!("{stem}{n}")).find(|name| !is_taken(name));
    let others: Vec<String> = [fresh(0), fresh(1)].into_iter().flatten().collect();
    names.sort();
    names.dedup();
    names.extend(others);
    names
}

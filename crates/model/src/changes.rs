//! Which packets change their fate from one ruleset to another, or are translated otherwise: all of them.

#![forbid(unsafe_code)]

use crate::model::{Fate, Model};
use crate::moves::{Moved, Moves};
use crate::space::{Field, Made, Set};
use crate::walk::Way;

/// Packets that had one fate and have another.
#[derive(Clone, Debug)]
pub struct Change {
    pub old: Fate,
    pub new: Fate,
    pub packets: Set,
}

/// What changes between two models of one space and way; also packets that one of them tracks and the other does not.
pub fn changes(old: &Model<'_>, new: &Model<'_>) -> Made<(Vec<Change>, Set)> {
    // A state that one of the rulesets brings about may meet the rules of the other: connections outlive a reload.
    let possible = old.possible.or(&new.possible)?;
    let real = old.real.or(&new.real)?;
    let mut changes = Vec::new();
    for before in Fate::ALL {
        for after in Fate::ALL {
            if before == after {
                continue;
            }
            let packets = old.supposed(before).and(new.supposed(after))?.and(&possible)?;
            if packets.meets(&real)? {
                changes.push(Change { old: before, new: after, packets });
            }
        }
    }
    let tracked = old.supposed.untracked.xor(&new.supposed.untracked)?;
    Ok((changes, tracked))
}

/// Connections that were translated in one way and are in another.
#[derive(Clone, Debug)]
pub struct Translated {
    /// In the words of rules; `None`: they are not.
    pub old: Option<String>,
    pub new: Option<String>,
    /// Their first packets, as they come in.
    pub packets: Set,
}

/// What changes of the translation of packets that pass under one of two models; of destinations without packets that were told of.
pub fn retranslated(old: &Model<'_>, new: &Model<'_>, told: &Set) -> Made<Vec<Translated>> {
    let space = old.space;
    let redirected = old.destinations.redirected(space)?.or(&new.destinations.redirected(space)?)?;
    let mut passed: Set = old.fates.passed.and(&old.real)?.or(&new.fates.passed.and(&new.real)?)?;
    if old.way == Way::Forward {
        // They are delivered, and are no packets of this way any more.
        passed = passed.or(&redirected)?;
    }
    let passed = passed.and(&space.is(Field::State, 0)?)?;
    let mut all = differing([&old.destinations, &new.destinations], &passed.without(told)?)?;
    // What is refused comes nowhere where sources are translated.
    let both = passed.and(&old.fates.passed)?.and(&new.fates.passed)?;
    all.extend(differing([&old.sources, &new.sources], &both)?);
    Ok(all)
}

fn differing([old, new]: [&Moves; 2], passed: &Set) -> Made<Vec<Translated>> {
    let mut rest = passed.and(&old.any().or(new.any())?)?;
    for was in old.all() {
        for is in new.all().iter().filter(|is| is.text == was.text) {
            rest = rest.without(&was.held.and(&is.held)?)?;
        }
    }
    let mut all = Vec::new();
    let text = |moved: &Moved| Some(moved.text.clone());
    let parts = |moves: &Moves| -> Made<Vec<(Option<String>, Set)>> {
        let mut parts: Vec<_> = moves.all().iter().map(|moved| (text(moved), moved.held.clone())).collect();
        parts.push((None, moves.any().not()?));
        Ok(parts)
    };
    let after = parts(new)?;
    for (was, held) in parts(old)? {
        let of = rest.and(&held)?;
        if of.is_empty() {
            continue;
        }
        for (is, held) in &after {
            let packets = of.and(held)?;
            if was != *is && !packets.is_empty() {
                all.push(Translated { old: was.clone(), new: is.clone(), packets });
            }
        }
    }
    Ok(all)
}

//! Which packets change their fate from one ruleset to another: all of them.

#![forbid(unsafe_code)]

use crate::model::{Fate, Model};
use crate::space::{Made, Set};

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

//! Changes of a ruleset that are none: every packet meets the same fate, which the model proves.

use stateway_core::filter::{Ruleset, Table, Target};
use stateway_model::{Model, Room, Router, Space, TooLarge, Way, changes, retranslated, translates};
use stateway_trace::coverage::Mutant;

/// More rules than this are not asked about: each change is a walk of all packets through all of them.
const MOST_RULES: usize = 3_000;

/// A ruleset that changes of it are held against.
pub(super) struct Equivalence<'a> {
    rules: &'a Ruleset,
    names: Vec<String>,
    is_bridge: bool,
    /// Whether a packet's fate is all that its rules make of it.
    is_known: bool,
}

impl<'a> Equivalence<'a> {
    pub(super) fn new(rules: &'a Ruleset, names: Vec<String>, is_bridge: bool) -> Self {
        let all =
            || Table::ALL.into_iter().flat_map(|table| rules.chains(table)).flat_map(|chain| &chain.rules);
        let is_known = all().count() <= MOST_RULES && all().all(|rule| decides(&rule.target));
        Self { rules, names, is_bridge, is_known }
    }

    /// Whether no packet tells the change apart, for certain.
    pub(super) fn is_same(&self, mutant: &Mutant, sets: &str) -> bool {
        if !self.is_known {
            return false;
        }
        let text = format!("{sets}{}", mutant.text);
        let Ok(loaded) = Ruleset::load(&text, self.rules.family, &self.names) else { return false };
        self.compare(&loaded.ruleset).unwrap_or(false)
    }

    fn compare(&self, changed: &Ruleset) -> Result<bool, TooLarge> {
        let space = Space::new(self.rules.family, self.names.clone(), Room::USUAL)?;
        let router = Router { has_helpers: true, turns_back: !self.is_bridge || translates(self.rules) };
        for way in [Way::Forward, Way::Input, Way::Output] {
            let old = Model::new(self.rules, &space, way, router)?;
            let new = Model::new(changed, &space, way, router)?;
            let (fates, tracked) = changes(&old, &new)?;
            // What packets before have done to a limit or a list is no part of the model.
            let is_all = space.unknowns().is_empty();
            if !fates.is_empty()
                || !tracked.is_empty()
                || !is_all
                || !retranslated(&old, &new, &space.empty())?.is_empty()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A target that does nothing to packets but decide, translate, or speak of them.
fn decides(target: &Target) -> bool {
    matches!(
        target,
        Target::None
            | Target::Accept
            | Target::Drop
            | Target::Reject(_)
            | Target::Return
            | Target::Jump(_)
            | Target::Goto(_)
            | Target::Log(_)
            | Target::Nflog(_)
            | Target::Mark(_)
    ) || target.translation().is_some()
}

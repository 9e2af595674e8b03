//! What rules share by name within one ruleset: lists of `-m recent`, tables of `-m hashlimit`, sets.
//!
//! When a ruleset takes the place of another, what both name lives on, as in Linux: lists and tables as they are, sets
//! as their text has them and with what rules added.

#![forbid(unsafe_code)]

use crate::filter::matches::{Buckets, List};
use crate::filter::text::ipset::{Found, Set};
use core::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a ruleset names.
#[derive(Debug, Default)]
pub(in crate::filter) struct Named {
    recent: BTreeMap<String, Arc<List>>,
    hashlimit: BTreeMap<String, Arc<Buckets>>,
    sets: BTreeMap<String, Arc<Set>>,
}

/// What a ruleset names, and a copy of each for a ruleset that changes nothing of the first.
pub(in crate::filter) struct Copies<'a> {
    first: &'a Named,
    copies: Named,
}

impl<'a> Copies<'a> {
    pub(in crate::filter) fn of(first: &'a Named) -> Self {
        fn copied<T>(of: &BTreeMap<String, Arc<T>>, copy: impl Fn(&T) -> T) -> BTreeMap<String, Arc<T>> {
            of.iter().map(|(name, shared)| (name.clone(), Arc::new(copy(shared)))).collect()
        }
        // Lists hold the other sets, so their copies hold the copies.
        let mut sets = BTreeMap::<String, Arc<Set>>::new();
        for is_list in [false, true] {
            for (name, set) in first.sets.iter().filter(|(_, set)| set.is_list() == is_list) {
                let copy = set.copied(&|member| sets.get(&member.name).unwrap_or(member).clone());
                sets.insert(name.clone(), Arc::new(copy));
            }
        }
        let copies = Named {
            recent: copied(&first.recent, List::copied),
            hashlimit: copied(&first.hashlimit, Buckets::copied),
            sets,
        };
        Self { first, copies }
    }

    pub(in crate::filter) fn list(&self, of: &Arc<List>) -> Arc<List> {
        in_place_of(of, &self.first.recent, &self.copies.recent).unwrap_or_else(|| Arc::new(of.copied()))
    }

    pub(in crate::filter) fn table(&self, of: &Arc<Buckets>) -> Arc<Buckets> {
        let copy = in_place_of(of, &self.first.hashlimit, &self.copies.hashlimit);
        copy.unwrap_or_else(|| Arc::new(of.copied()))
    }

    pub(in crate::filter) fn set(&self, of: &Arc<Set>) -> Arc<Set> {
        // Every set that a rule knows has a name.
        in_place_of(of, &self.first.sets, &self.copies.sets).unwrap_or_else(|| Arc::clone(of))
    }

    pub(in crate::filter) fn into_named(self) -> Named {
        self.copies
    }
}

/// The copy of the one that is shared by this name.
fn in_place_of<T>(
    of: &Arc<T>,
    first: &BTreeMap<String, Arc<T>>,
    copies: &BTreeMap<String, Arc<T>>,
) -> Option<Arc<T>> {
    let (name, _) = first.iter().find(|(_, shared)| Arc::ptr_eq(shared, of))?;
    copies.get(name).cloned()
}

/// Collected while a ruleset is read; each rule keeps its own handle.
#[derive(Debug, Default)]
pub(in crate::filter) struct Shared<'a> {
    now: RefCell<Named>,
    /// The names of sets that are for the other family.
    other_sets: RefCell<BTreeSet<String>>,
    /// What the ruleset named whose place the new one takes.
    before: Option<&'a Named>,
}

impl<'a> Shared<'a> {
    pub(in crate::filter) fn new(before: Option<&'a Named>) -> Self {
        Self { before, ..Self::default() }
    }

    pub(in crate::filter) fn recent_list(&self, name: &str, make: impl FnOnce() -> List) -> Arc<List> {
        let old = || self.before?.recent.get(name).cloned();
        let mut now = self.now.borrow_mut();
        Arc::clone(
            now.recent.entry(name.to_owned()).or_insert_with(|| old().unwrap_or_else(|| Arc::new(make()))),
        )
    }

    pub(in crate::filter) fn hashlimit_table(
        &self,
        name: &str,
        make: impl FnOnce() -> Buckets,
    ) -> Arc<Buckets> {
        let old = || self.before?.hashlimit.get(name).cloned();
        let mut now = self.now.borrow_mut();
        let table = now.hashlimit.entry(name.to_owned());
        Arc::clone(table.or_insert_with(|| old().unwrap_or_else(|| Arc::new(make()))))
    }

    pub(in crate::filter) fn set(&self, name: &str) -> Option<Arc<Set>> {
        self.now.borrow().sets.get(name).cloned()
    }

    /// Takes a new set; `false` if there is one of that name.
    pub(in crate::filter) fn add_set(&self, set: Set) -> bool {
        let mut now = self.now.borrow_mut();
        let is_new = !now.sets.contains_key(&set.name);
        if is_new {
            now.sets.insert(set.name.clone(), Arc::new(set));
        }
        is_new
    }

    /// Takes note of a set that is for the other family.
    pub(in crate::filter) fn pass_over_set(&self, name: &str) {
        self.other_sets.borrow_mut().insert(name.to_owned());
    }

    pub(in crate::filter) fn find_set(&self, name: &str) -> Found {
        match self.set(name) {
            Some(set) => Found::Set(set),
            None if self.other_sets.borrow().contains(name) => Found::OtherFamily,
            None => Found::None,
        }
    }

    pub(in crate::filter) fn set_names(&self) -> Vec<String> {
        self.now.borrow().sets.keys().cloned().collect()
    }

    /// All that was named, once everything has been read.
    pub(in crate::filter) fn finish(self) -> Named {
        let now = self.now.into_inner();
        for (name, set) in &now.sets {
            if let Some(older) = self.before.and_then(|before| before.sets.get(name)) {
                set.inherit(older);
            }
        }
        now
    }
}

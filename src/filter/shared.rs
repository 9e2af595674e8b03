//! What rules share by name within one ruleset: lists of `-m recent`, tables of `-m hashlimit`, sets.

#![forbid(unsafe_code)]

use super::ipset::Set;
use super::matches::{Buckets, List};
use core::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Collected while a ruleset is read; each rule keeps its own handle.
#[derive(Debug, Default)]
pub(super) struct Shared {
    recent: RefCell<BTreeMap<String, Arc<List>>>,
    hashlimit: RefCell<BTreeMap<String, Arc<Buckets>>>,
    pub(super) sets: RefCell<BTreeMap<String, Arc<Set>>>,
}

impl Shared {
    pub(super) fn recent_list(&self, name: &str) -> Arc<List> {
        Arc::clone(self.recent.borrow_mut().entry(name.to_owned()).or_default())
    }

    pub(super) fn hashlimit_table(&self, name: &str) -> Arc<Buckets> {
        Arc::clone(self.hashlimit.borrow_mut().entry(name.to_owned()).or_default())
    }

    pub(super) fn set(&self, name: &str) -> Option<Arc<Set>> {
        self.sets.borrow().get(name).cloned()
    }

    pub(super) fn set_names(&self) -> Vec<String> {
        self.sets.borrow().keys().cloned().collect()
    }
}

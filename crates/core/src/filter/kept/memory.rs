//! What a rule remembers between packets: tokens of a limit, addresses seen, bytes left.

#![forbid(unsafe_code)]

use core::fmt;
use parking_lot::{Mutex, MutexGuard};

/// The memory of one rule, shared by all workers.
///
/// It is no part of what the rule says: two rules are equal whatever they remember, and a copy begins afresh.
#[derive(Default)]
pub(in crate::filter) struct Memory<T>(Mutex<T>);

impl<T> Memory<T> {
    pub(in crate::filter) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}

impl<T: Clone> Memory<T> {
    /// One that remembers the same.
    pub(in crate::filter) fn copied(&self) -> Self {
        Self(Mutex::new(self.0.lock().clone()))
    }
}

impl<T: Default> Clone for Memory<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> PartialEq for Memory<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Memory<T> {}

impl<T> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

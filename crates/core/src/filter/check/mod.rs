//! What is asked of a whole ruleset before it is in force.

#![forbid(unsafe_code)]

pub(super) mod guard;
pub(super) mod shadow;
pub(super) mod validate;
pub(super) mod walk_length;

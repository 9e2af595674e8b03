//! What rules remember between packets, by name and by rule.

#![forbid(unsafe_code)]

pub(super) mod memory;
pub(super) mod shared;

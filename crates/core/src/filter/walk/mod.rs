//! A packet and the rules: which ones are asked, what they say, what is counted and remembered.

#![forbid(unsafe_code)]

pub(super) mod classify;
pub mod context;
pub(super) mod counters;
pub(super) mod evaluate;
pub(super) mod let_in;
pub(super) mod memo;

#[cfg(test)]
mod tests;

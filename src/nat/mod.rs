//! Translation of addresses and ports: what is asked for, what is chosen, and how packets are rewritten.
//!
//! Nothing here knows connections: [`crate::conntrack`] asks once for each, and keeps the answer as its reply tuple.

#![forbid(unsafe_code)]

mod range;

pub use range::{Range, Target};

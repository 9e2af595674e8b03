//! Translation of addresses and ports: what is asked for, what is chosen, and how packets are rewritten.
//!
//! Nothing here knows connections: [`crate::conntrack`] asks once for each, and keeps the answer as its reply tuple.

#![forbid(unsafe_code)]

mod choose;
mod hash;
mod mangle;
mod picker;
mod quote;
mod range;
pub mod seqadj;

pub use choose::{Choice, How, Known, choose};
pub use mangle::{rewrite, rewrite_error};
pub use picker::{Picker, Seeded};
pub use range::{Range, Side, Target};

//! A ruleset of iptables as decision diagrams: which of all packets meet which fate.
//!
//! ```text
//!   ruleset ─condition→ sets of packets ─walk→ fates ─describe→ groups in the words of rules
//!                                                  └─witness→ one packet ─story→ a scenario that proves it
//! ```
//!
//! - [`mod@space`]: the fields of a packet as bits, and sets of packets
//! - `condition`: what a rule asks, as a set
//! - [`mod@moves`]: what the nat table makes of connections
//! - [`mod@walk`]: all packets through the tables at once
//! - `domain`: which packets there are, and which states packets before them bring about
//! - [`mod@model`]: both together
//! - [`mod@changes`]: where two models differ; [`mod@lint`]: what is wrong for certain
//! - [`mod@describe`], [`mod@witness`], [`mod@story`]: a set in words, and one packet of it with what comes before
//!
//! The model decides nothing by itself: conditions and targets are those that the core has loaded, and what is said of one
//! packet is proved by running its story through the core. What it cannot know (time, chance, payload, routes) is a variable
//! that may be either way, so that "no such packet" holds whatever it is. It reads no file and prints nothing.

#![forbid(unsafe_code)]

pub mod changes;
mod condition;
pub mod describe;
mod domain;
pub mod lint;
mod marks;
pub mod model;
pub mod moves;
pub mod space;
pub mod story;
pub mod walk;
pub mod witness;

pub use changes::{Change, Translated, changes, retranslated};
pub use condition::{STATES, matching};
pub use describe::{Group, groups};
pub use model::{Fate, Model, Router, interfaces, state_number, translates};
pub use moves::{Moved, Moves, translations};
pub use space::{Field, Room, Set, Space, TooLarge};
pub use story::{Sent, Stage, beginning, story, summary};
pub use walk::{Walk, Way};
pub use witness::{Witness, witnesses};

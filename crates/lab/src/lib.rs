//! Laboratories: a YAML file describes hosts, router, rules and what must be observed; a runner brings it to life.
//!
//! ```text
//!   lab.yaml ── spec ── resolve ──→ Lab ──→ Runner { sim, live, kernel } ── Observation ──→ report
//! ```
//!
//! [`spec`] mirrors the file, [`resolve`] checks it and reports everything that is wrong at once, [`Lab`] is what
//! is left. A [`Runner`] takes the steps of the tests; what came of each is compared here, the same for all three.

pub mod builtin;
mod dns;
pub mod error;
pub mod graph;
mod judge;
#[cfg(target_os = "linux")]
pub mod kernel;
#[cfg(target_os = "linux")]
pub mod live;
mod locate;
pub mod model;
#[cfg(target_os = "linux")]
pub mod netns;
#[cfg(target_os = "linux")]
pub mod probe;
pub mod reference;
pub mod report;
pub mod resolve;
mod ruling;
pub mod runner;
mod shape;
pub mod sim;
pub mod spec;
pub mod spot;
pub mod steps;
pub mod trial;
pub mod why;

pub use error::{LabErrors, Problem};
pub use model::Lab;
pub use resolve::{
    Open, OtherRules, Read, find, load, load_router, load_router_through, load_router_with, load_with,
};
pub use runner::{Observation, RunError, Runner, Seen};

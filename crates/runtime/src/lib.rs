//! A router that runs: ports of the system, workers on threads, a socket on which it is asked and told, and no more
//! privileges than it needs.
//!
//! `unsafe` code stands in [`device`] alone.

#[cfg(target_os = "linux")]
pub mod confine;
#[cfg(target_os = "linux")]
pub mod control;
#[cfg(target_os = "linux")]
pub mod device;
#[cfg(target_os = "linux")]
pub mod keeper;
#[cfg(target_os = "linux")]
pub mod netlink;
#[cfg(target_os = "linux")]
pub mod runtime;
pub mod statefile;
pub mod stderr;
pub mod terminal;
mod uninterrupted;

pub use uninterrupted::uninterrupted;

//! The kernel of this machine beside the router, frame by frame.
//!
//! A TAP makes the kernel a synchronous oracle: a `write` on it returns only when the frame has gone through connection
//! tracking, FORWARD and transmission, so nothing here ever waits. Everything happens in a network namespace without
//! a name, which dies with the process that holds it, whatever ends that.

#![forbid(unsafe_code)]

mod asides;
mod clock;
pub mod compare;
pub mod coverage;
pub mod ctnetlink;
pub mod flow_key;
pub mod generate;
mod icmp_cases;
pub mod kernel;
mod learnt;
mod links;
pub mod nat_cases;
mod netns;
mod nflog;
mod pairs;
mod programs;
pub mod rules;
pub mod saved;
pub mod session;
mod shrink;
pub mod story;
pub mod subject;
pub mod trace;
pub mod world;

pub use kernel::{Answer, Kernel, Setup};

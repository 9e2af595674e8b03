//! How a running router is asked and told: commands over a Unix socket that its owner alone may open.
//!
//! [`protocol`] is what goes over the wire, a JSON object a line; [`server`] answers, [`client`] asks;
//! [`place`] is where the socket lies.

pub mod client;
mod entries;
mod events;
mod metrics;
pub mod place;
pub mod protocol;
mod rules;
pub mod server;

pub use client::Client;
pub use protocol::{Command, Reply};

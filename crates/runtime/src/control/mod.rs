//! How a running router is asked and told: commands over a Unix socket that its owner alone may open.
//!
//! [`protocol`] is what goes over the wire, a JSON object a line; [`server`] answers, [`client`] asks;
//! [`place`] is where the [`socket`] lies. Who may connect is a matter of the socket's mode; root and the user who
//! started the router may change something, everybody else who gets in may only look.

mod answer;
pub mod client;
mod door;
mod entries;
mod events;
mod explained;
pub mod http;
mod listening;
mod metrics;
pub mod place;
pub mod protocol;
mod rules;
pub(crate) mod select;
pub mod server;
pub mod socket;
mod summary;
mod visitor;

pub use client::Client;
pub use listening::Listening;
pub use protocol::{Command, Reply};

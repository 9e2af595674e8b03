//! The router and the simulator of labs, for a page without a server.
//!
//! ```text
//!   page ── question (JSON) ──→ exports ──→ Session ──→ stateway-lab, sim ──→ stateway-core
//!        ←── answer (JSON) ───
//! ```
//!
//! Nothing is decided here: a lab is read, run and judged as `stateway lab test --on sim` does it, and every packet is told of
//! as `explain` tells it. The crate makes views of that, of which `web/src/protocol.ts` has the types, and keeps the last run so
//! that single packets can be asked for.

#![warn(missing_docs)]

pub mod exports;
mod lab;
mod protocol;
mod run;
mod session;
mod table;

pub use protocol::{Answer, Question};
pub use session::Session;

//! The router driven by a capture, a story or a question, and what comes of it in words.
//!
//! ```text
//!   capture ─┐
//!   flow ────┼─→ stateway-core ──→ replay, explain, coverage, log_line
//!   question ┘
//! ```

pub mod capture;
pub mod coverage;
pub mod explain;
pub mod flow;
pub mod input;
pub mod log_line;
pub mod replay;

//! A scenario's packets as a capture, for whoever takes captures.

#![forbid(unsafe_code)]

use super::Scenario;
use super::run::{START, frame_of};
use crate::capture::Writer;
use std::io;

/// Writes the steps as frames that came in on `left` and `right`.
///
/// # Errors
/// A packet is longer than a capture can hold.
pub fn capture(scenario: &Scenario) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), scenario.ports.iter().map(String::as_str))?;
    for step in &scenario.steps {
        let (from, frame) = frame_of(scenario.mode, step);
        writer.frame(
            from,
            START.saturating_since(stateway_core::time::Instant::ZERO) + step.at,
            &frame,
            "",
        )?;
    }
    Ok(writer.into_inner())
}

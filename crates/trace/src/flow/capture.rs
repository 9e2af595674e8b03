//! A scenario's packets as a capture, for whoever takes captures.

#![forbid(unsafe_code)]

use super::run::{ROUTER, START, frame_of};
use super::{Scenario, Step};
use crate::capture::Writer;
use std::io;

/// Writes the steps as frames that came in on `left` and `right`.
///
/// # Errors
/// A packet is longer than a capture can hold, or a step is no packet that comes in.
pub fn capture(scenario: &Scenario) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), scenario.ports.iter().map(String::as_str))?;
    for step in &scenario.steps {
        let lacking = match step {
            Step { load: Some(_), .. } => Some("rules that are loaded on the way"),
            Step { addresses, .. } if !addresses.is_empty() => Some("addresses that come and go"),
            Step { iface, .. } if iface == ROUTER => Some("what a program on the router sends"),
            _ => None,
        };
        if let Some(what) = lacking {
            return Err(io::Error::other(format!("line {}: a capture cannot hold {what}", step.line)));
        }
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

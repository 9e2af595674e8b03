//! What a lab is after its router has loaded its rules again.

#![forbid(unsafe_code)]

use super::RouterProcess;
use crate::netns::Middle as _;
use crate::netns::command::Interrupt;
use crate::netns::origin;
use crate::netns::state::{self, Record, State};
use crate::spec;
use anyhow::{Context as _, bail};
use std::fs;

/// Notes that the lab has the rules that its files say now. Says whether everything else is as they say as well; else the
/// lab goes on being one whose file has changed.
///
/// # Errors
/// The lab is no longer up, its router has ended, or what is known of it cannot be written.
pub fn reload(record: &Record, interrupt: Interrupt) -> anyhow::Result<bool> {
    let Some(mut state) = State::attach(&record.lab, interrupt)? else {
        bail!("the lab `{}` was taken down meanwhile", record.lab);
    };
    let rules = RouterProcess::of(record)?.rules()?;
    let file = state.path(state::RULES);
    fs::write(&file, rules).with_context(|| format!("cannot write {}", file.display()))?;
    // The router has read its own part of the file; the rest may be wrong.
    let Ok(lab) = crate::load(&record.file) else { return Ok(false) };
    let before = fs::read_to_string(origin::copy(record, 0)).unwrap_or_default();
    let now = lab.sources.first().map(|source| source.text.as_str()).unwrap_or_default();
    if lab.name != record.lab || hosts(&before) != hosts(now) {
        return Ok(false);
    }
    origin::keep(&lab, &state)?;
    state.record.sources = lab.sources.iter().map(|source| origin::absolute(&source.path)).collect();
    state.write()?;
    Ok(true)
}

/// The part of a lab file that a reload does not put in force.
fn hosts(text: &str) -> Option<serde_json::Value> {
    spec::parse(text).ok()?.tree.get("hosts").cloned()
}

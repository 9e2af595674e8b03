//! The router's own file and the files that it names: read at the start, and again for a reload.

use crate::cli::render;
use anyhow::anyhow;
use serde_json::Value;
use stateway_core::config::{RouterConfig, RunOptions};
use stateway_core::filter::{RuleError, Ruleset};
use stateway_core::packet::Family;
use stateway_core::reload::{Refusal, ReloadError};
use stateway_core::router::{Router, Rules};
use stateway_lab::{self as lab, LabErrors};
use stateway_trace::input;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the configuration comes from, and what it was when it was last put in force.
pub(super) struct Source {
    file: PathBuf,
    running: Version,
}

/// A configuration, and the files that it stood in.
struct Version {
    config: RouterConfig,
    options: RunOptions,
    texts: BTreeMap<PathBuf, Vec<u8>>,
}

impl Source {
    /// Reads `file` for a start.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn open(file: &Path) -> Result<Self, LabErrors> {
        Self::open_with(file, &input::read)
    }

    fn open_with(file: &Path, read: lab::Read<'_>) -> Result<Self, LabErrors> {
        Ok(Self { file: file.to_owned(), running: Version::read(file, read)? })
    }

    pub(super) fn config(&self) -> RouterConfig {
        self.running.config.clone()
    }

    pub(super) const fn options(&self) -> RunOptions {
        self.running.options
    }

    /// Says loudly which family passes, or does not, because nothing is said of it.
    pub(super) fn warn_of_missing_rules(&self, router: &Router) {
        for line in missing_rules(&router.rules(), &self.running.config) {
            render::tell(&line);
        }
    }

    /// Reads the files again by `read` and puts them in force, all or nothing.
    ///
    /// # Errors
    /// Why they are not in force; the old ones are.
    pub(super) fn reload(&mut self, router: &Router, read: lab::Read<'_>) -> anyhow::Result<()> {
        let next = Version::read(&self.file, read)?;
        let doubts = next.doubts(&self.running, &self.file);
        if !doubts.is_empty() {
            return Err(self.refused(&doubts));
        }
        router.reload(&self.running.config, &next.config).map_err(|error| match error {
            ReloadError::Rules(errors) => rule_errors(&self.file, &errors),
            ReloadError::Refused(refusals) => self.refused(&refusals),
        })?;
        self.running = next;
        Ok(())
    }

    fn refused(&self, refusals: &[Refusal]) -> anyhow::Error {
        let list: Vec<String> = refusals.iter().map(|refusal| format!("  {refusal}")).collect();
        anyhow!("{} is refused\n{}", lab::builtin::shown(&self.file), list.join("\n"))
    }
}

impl Version {
    fn read(file: &Path, read: lab::Read<'_>) -> Result<Self, LabErrors> {
        let texts = RefCell::new(BTreeMap::new());
        let remember = |path: &Path, most: usize| {
            let bytes = read(path, most)?;
            texts.borrow_mut().insert(path.to_owned(), bytes.clone());
            Ok(bytes)
        };
        let (config, options) = lab::load_router_with(file, &remember)?;
        Ok(Self { config, options, texts: texts.into_inner() })
    }

    /// Signs that a file is not whole, beyond what the router itself sees in its rules; and what only a restart changes.
    fn doubts(&self, running: &Self, file: &Path) -> Vec<Refusal> {
        let mut doubts = Vec::new();
        if self.options != running.options {
            doubts.push(Refusal {
                message: "`device` or `busy_poll` differs from what runs".to_owned(),
                hint: "only a restart changes that".to_owned(),
            });
        }
        // A file that says the same as before is whole enough, wherever it ends.
        if self.config == running.config {
            return doubts;
        }
        for (path, text) in &self.texts {
            if let Some(before) = running.texts.get(path).filter(|before| is_beginning(text, before)) {
                doubts.push(Refusal {
                    message: format!(
                        "`{}` is the beginning of what was read before, {} of {} bytes",
                        lab::builtin::shown(path),
                        text.len(),
                        before.len()
                    ),
                    hint: "is the file whole? a comment behind it says that it is meant".to_owned(),
                });
            }
        }
        let file = lab::resolve::find(file);
        let (Some(text), Some(before)) = (self.texts.get(&file), running.texts.get(&file)) else {
            return doubts;
        };
        let keys = keys(text);
        let lost = self::keys(before).into_iter().filter(|key| !keys.contains(key));
        doubts.extend(lost.map(|key| Refusal {
            message: format!("`{key}:` was in the file, and is not any more"),
            hint: format!("is the file whole? `{key}: []` says that it is meant"),
        }));
        doubts
    }
}

/// Whether `text` is what came first of `before`, and something more than blanks came behind.
fn is_beginning(text: &[u8], before: &[u8]) -> bool {
    before.strip_prefix(text).is_some_and(|rest| !rest.trim_ascii().is_empty())
}

/// The keys around the router that a file may do without.
fn keys(text: &[u8]) -> Vec<&'static str> {
    let text = String::from_utf8_lossy(text);
    let Ok(document) = lab::spec::parse(&text) else { return Vec::new() };
    ["hosts", "tests"]
        .into_iter()
        .filter(|key| document.tree.get(key).is_some_and(|value| *value != Value::Null))
        .collect()
}

/// What passes, or does not, because nothing is said of it.
fn missing_rules(rules: &Rules, config: &RouterConfig) -> Vec<String> {
    let mut lines = Vec::new();
    let is_missing = |family| rules.for_family(family).is_none_or(Ruleset::is_empty);
    if is_missing(Family::Ipv4) {
        lines.push(if config.no_rules {
            "IPv4 has no rules, as `rules: none` says: everything passes".to_owned()
        } else {
            "warning: IPv4 has no rules: everything passes\n  hint: `rules: none` says that it is meant"
                .to_owned()
        });
    }
    match rules.for_family(Family::Ipv6) {
        None if config.no_rules6 => {
            lines.push("IPv6 has no rules, as `rules6: none` says: nothing passes".to_owned());
        }
        None => lines.push(
            "warning: IPv6 has no rules: nothing passes\n  hint: `rules6: none` says that it is meant"
                .to_owned(),
        ),
        Some(rules) if rules.is_empty() => {
            lines.push("warning: IPv6 has rules that refuse nothing: everything passes".to_owned());
        }
        Some(_) => {}
    }
    lines
}

/// Errors in rules, led by the file that they are from.
pub(super) fn rule_errors(path: &Path, errors: &[RuleError]) -> anyhow::Error {
    let list: Vec<String> = errors.iter().map(|e| format!("  rules:{e}")).collect();
    let problems = if errors.len() == 1 { "a problem" } else { "problems" };
    anyhow!("{} has {problems} in its rules\n{}", lab::builtin::shown(path), list.join("\n"))
}

#[cfg(test)]
mod tests;

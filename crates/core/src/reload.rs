//! What a running router takes over from a changed configuration, and what it refuses.
//!
//! Rules and the settings of connection tracking are replaced, all or nothing. What a running router cannot change is
//! refused together with the rest, so that nobody believes in what is not in force. Rules that would leave a family
//! without the rules it has now are refused, too: a file that is cut short or half written looks like this.

#![forbid(unsafe_code)]

use crate::base::Iface;
use crate::config::RouterConfig;
use crate::conntrack::Sysctls;
use crate::filter::{RuleError, Ruleset, Table};
use crate::packet::Family;
use crate::router::{Router, Rules};
use core::fmt;

/// Why a changed configuration did not come into force; all of the old one stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadError {
    /// Something is wrong with the new rules.
    Rules(Vec<RuleError>),
    /// A running router does not change so.
    Refused(Vec<Refusal>),
}

/// One change that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is refused, and why.
    pub message: String,
    /// What can be done about it.
    pub hint: String,
}

impl Refusal {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    hint: {}", self.message, self.hint)
    }
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = match self {
            Self::Rules(errors) => errors.iter().map(ToString::to_string).collect(),
            Self::Refused(refusals) => refusals.iter().map(ToString::to_string).collect(),
        };
        f.write_str(&lines.join("\n"))
    }
}

impl From<Vec<RuleError>> for ReloadError {
    fn from(errors: Vec<RuleError>) -> Self {
        Self::Rules(errors)
    }
}

impl Router {
    /// Goes from the configuration `running` to `next`, all or nothing.
    ///
    /// # Errors
    /// Everything that is wrong with the new rules, or every change that a running router refuses.
    pub fn reload(&self, running: &RouterConfig, next: &RouterConfig) -> Result<(), ReloadError> {
        let fixed = fixed_changes(running, next);
        let settings = changed_settings(running, next);
        self.replace_rules_if(next.rules.as_deref(), next.rules6.as_deref(), |before, after| {
            let mut refusals = fixed;
            refusals.extend(opened(before, after, Family::Ipv4, next.no_rules));
            refusals.extend(opened(before, after, Family::Ipv6, next.no_rules6));
            none_of(refusals)
        })?;
        let counts = self.rules().all().any(Ruleset::counts_connections);
        for (name, value) in settings {
            // Rules that ask how much a connection has carried need it, whatever the file says.
            if !(counts && name == "nf_conntrack_acct") {
                // A name and a value that were found right when the file was read.
                let _ = self.conntrack().set_sysctl(name, &value.to_string());
            }
        }
        Ok(())
    }

    /// Replaces the rules of both families, all or nothing. A family is left without rules only by the word `none` in
    /// place of its rules, or if `may_open` says that whatever the new ones leave open is meant.
    ///
    /// # Errors
    /// Everything that is wrong with the new rules, or with what would be open without the old ones.
    pub fn exchange_rules(
        &self,
        rules: Option<&str>,
        rules6: Option<&str>,
        may_open: bool,
    ) -> Result<(), ReloadError> {
        let [is_none, is_none6] = [rules, rules6].map(|text| text.map(str::trim) == Some("none"));
        let [text, text6] = [rules.filter(|_| !is_none), rules6.filter(|_| !is_none6)];
        self.replace_rules_if(text, text6, |before, after| {
            let mut refusals = opened(before, after, Family::Ipv4, is_none || may_open);
            refusals.extend(opened(before, after, Family::Ipv6, is_none6 || may_open));
            none_of(refusals)
        })
    }
}

fn none_of(refusals: Vec<Refusal>) -> Result<(), ReloadError> {
    if refusals.is_empty() { Ok(()) } else { Err(ReloadError::Refused(refusals)) }
}

/// What would no longer be refused of one family's packets, unless that is meant.
fn opened(before: &Rules, after: &Rules, family: Family, is_meant: bool) -> Vec<Refusal> {
    let Some(before) = before.for_family(family).filter(|rules| !rules.is_empty()) else { return Vec::new() };
    if is_meant {
        return Vec::new();
    }
    let key = match family {
        Family::Ipv4 => "rules",
        Family::Ipv6 => "rules6",
    };
    let Some(after) = after.for_family(family).filter(|rules| !rules.is_empty()) else {
        let message = format!("{} would be without the rules that it has now", family.name());
        return vec![Refusal::new(
            message,
            format!("is the file whole? `{key}: none` says that it is meant"),
        )];
    };
    Table::ALL.into_iter().filter_map(|table| opened_table(before, after, table)).collect()
}

/// A table that refuses packets now, and would not be there any more.
fn opened_table(before: &Ruleset, after: &Ruleset, table: Table) -> Option<Refusal> {
    let word = table.word();
    let family = before.family.name();
    if !before.may_refuse(table) {
        return None;
    }
    if !after.tables().contains(&table) {
        let message = format!("{family}: table `{word}` refuses packets now, and the new rules lack it");
        let hint =
            format!("is the file whole? an empty section, `*{word}` and `COMMIT`, says that it is meant");
        return Some(Refusal::new(message, hint));
    }
    if table == Table::Filter && after.is_table_empty(table) {
        let message = format!("{family}: table `{word}` would be without the rules that it has now");
        let hint = "is the file whole? the rule `-A FORWARD -j ACCEPT` says that it is meant";
        return Some(Refusal::new(message, hint));
    }
    None
}

/// The settings of connection tracking that differ, with their new values; one that is not mentioned has its default.
fn changed_settings(running: &RouterConfig, next: &RouterConfig) -> Vec<(&'static str, u64)> {
    let (before, after) = (settings_of(running), settings_of(next));
    let both = before.list().zip(after.list());
    both.filter(|((_, before), (_, after))| before != after).map(|(_, after)| after).collect()
}

fn settings_of(config: &RouterConfig) -> Sysctls {
    let mut sysctls = Sysctls::default();
    for (name, value) in &config.sysctl {
        // Other names are others' concern.
        let _ = sysctls.set(name, value);
    }
    sysctls
}

/// What differs and cannot be changed while the router runs.
fn fixed_changes(running: &RouterConfig, next: &RouterConfig) -> Vec<Refusal> {
    const RESTART: &str = "only a restart changes that";
    let RouterConfig {
        mode,
        ifaces,
        routes,
        neighbours,
        neighbour_policy,
        helpers,
        sysctl,
        pass_non_ip,
        // Replaced, or no part of the file.
        rules: _,
        no_rules: _,
        rules6: _,
        no_rules6: _,
        seed: _,
        unix_epoch_nanos: _,
        udp_listeners: _,
    } = next;
    let mut changed = Vec::new();
    let mut note = |is_changed: bool, what: &str| {
        if is_changed {
            changed.push(Refusal::new(format!("`{what}` differs from what runs"), RESTART));
        }
    };
    note(*mode != running.mode, "mode");
    note(*routes != running.routes, "routes");
    note(*neighbours != running.neighbours || *neighbour_policy != running.neighbour_policy, "neighbours");
    note(*helpers != running.helpers, "helpers");
    note(*pass_non_ip != running.pass_non_ip, "non_ip");
    let others = |settings: &[(String, String)]| -> Vec<(String, String)> {
        settings.iter().filter(|(name, _)| !Sysctls::is_name(name)).cloned().collect()
    };
    note(others(sysctl) != others(&running.sysctl), "sysctl");
    changed.extend(changed_ports(&running.ifaces, ifaces).map(|message| Refusal::new(message, RESTART)));
    changed
}

fn changed_ports<'a>(running: &'a [Iface], next: &'a [Iface]) -> impl Iterator<Item = String> + 'a {
    let named = |ifaces: &'a [Iface], name: &str| ifaces.iter().find(|iface| iface.name == name);
    let gone = running.iter().filter(move |iface| named(next, &iface.name).is_none());
    let gone = gone.map(|iface| format!("port `{}` is there, and the file lacks it", iface.name));
    let changed = next.iter().filter_map(move |iface| match named(running, &iface.name) {
        None => Some(format!("port `{}` is new", iface.name)),
        // The order of the ports is part of it: rules know them by their place.
        Some(before) if before != iface => Some(format!("port `{}` differs from what runs", iface.name)),
        Some(_) => None,
    });
    gone.chain(changed)
}

#[cfg(test)]
mod tests;

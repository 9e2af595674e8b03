//! Findings about a ruleset: where they come from, which of them are allowed, and how they are printed.

use super::Reading;
use super::codes;
use super::prove::{self, Proof, Rules, Shown};
use super::search::too_large;
use crate::cli::Result;
use crate::cli::render;
use crate::cli::rules_text::RulesText;
use serde_json::{Value, json};
use stateway_core::filter::{RuleError, Ruleset};
use stateway_model::lint::{self, Finding};
use stateway_model::{Fate, Model, Room, Router, Space, TooLarge, Way, interfaces, translates};

/// More rules than this are not walked for every packet: it would take long.
const MOST_RULES: usize = 20_000;

/// One finding, with the packet that shows it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What the core warns of besides rules that never hold has none.
    pub(super) code: Option<&'static str>,
    pub(super) error: RuleError,
    pub(super) shown: Option<Shown>,
}

impl Found {
    pub(super) fn of_core(warning: &RuleError) -> Self {
        let is_never =
            warning.message.ends_with("never holds") || warning.message.starts_with("no packet comes");
        Self { code: is_never.then_some("SW001"), error: warning.clone(), shown: None }
    }

    /// It says that a rule never holds.
    pub(super) fn is_of_never(&self) -> bool {
        matches!(self.code, Some("SW001" | "SW002"))
    }

    pub(super) fn text(&self, rules: &RulesText) -> String {
        let (file, error) = rules.locate(&self.error);
        let RuleError { line, column, message, hint } = error;
        // What the core says of a line has always been said without a code.
        let code = self
            .code
            .filter(|_| self.error.column == 0)
            .map_or_else(String::new, |code| format!(" [{code}]"));
        let mut text = format!("{}:{line}:{}: warning: {message}{code}", file.display(), column.max(1));
        if let Some(hint) = hint {
            text.push_str(&format!("\n  hint: {hint}"));
        }
        if let Some(Shown { packet, proof }) = &self.shown {
            match proof {
                Ok(proof @ Proof { fate, rule, .. }) => {
                    let sent = proof.sent_as(packet);
                    let by = rule.as_ref().map_or_else(String::new, |rule| format!(" by {rule}"));
                    text.push_str(&format!("\n  packet: {packet}: {fate}{sent}{by}, proved by running it"));
                }
                Err(why) => text.push_str(&format!("\n  packet: {packet}, not proved: {why}")),
            }
        }
        text
    }
}

/// What the model finds for certain.
pub(super) fn of_model(reading: &Reading, text: &RulesText, rules: &Ruleset) -> Result<Vec<Found>> {
    let count: usize = stateway_core::filter::Table::ALL
        .into_iter()
        .flat_map(|table| rules.chains(table))
        .map(|chain| chain.rules.len())
        .sum();
    if count > MOST_RULES {
        render::warn(&format!(
            "{count} rules are too many to be looked at for every packet; the usual checks were made"
        ));
        return Ok(Vec::new());
    }
    let names = if reading.ifaces.is_empty() {
        interfaces(std::iter::once(rules), &[])
    } else {
        reading.ifaces.clone()
    };
    let rules = &Reading { ifaces: names.clone(), ..reading.clone() }.load_right(text, false)?;
    let space = Space::new(rules.family, names, Room::USUAL).map_err(too_large)?;
    let found = || -> std::result::Result<Vec<Found>, TooLarge> {
        let mut found = Vec::new();
        for finding in lint::of_rules(rules, &space)? {
            found.push(plain(finding, None));
        }
        let router = Router { has_helpers: false, turns_back: translates(rules) };
        let model = Model::new(rules, &space, Way::Forward, router)?;
        let whole = Rules { rules, text: text.whole() };
        for finding in lint::of_forward(rules, &model)? {
            let shown = shown(&model, &finding, whole)?;
            found.push(plain(finding, shown));
        }
        if lint::names_ssh(rules) {
            let input = Model::new(rules, &space, Way::Input, router)?;
            let output = Model::new(rules, &space, Way::Output, router)?;
            if let Some(finding) = lint::of_router(rules, &input, &output)? {
                let shown = shown(&input, &finding, whole)?;
                found.push(plain(finding, shown));
            }
        }
        Ok(found)
    };
    found().map_err(too_large)
}

/// What is wrong with rules beside those of the other family: they let everything pass, and those do not.
pub(super) fn of_families(
    reading: &Reading,
    text: &RulesText,
    rules: &Ruleset,
    other: &Ruleset,
) -> Result<Vec<Found>> {
    let names = if reading.ifaces.is_empty() {
        interfaces([rules, other].into_iter(), &[])
    } else {
        reading.ifaces.clone()
    };
    let rules = &Reading { ifaces: names.clone(), ..reading.clone() }.load_right(text, false)?;
    let space = Space::new(rules.family, names, Room::USUAL).map_err(too_large)?;
    let router = Router { has_helpers: false, turns_back: translates(rules) };
    let found = || -> std::result::Result<Vec<Found>, TooLarge> {
        let mut found = Vec::new();
        for (way, chain) in [(Way::Input, "INPUT"), (Way::Forward, "FORWARD")] {
            let model = Model::new(rules, &space, way, router)?;
            let Some(mut finding) = lint::left_open(other, &model)? else { continue };
            finding.line = line_of_chain(text.whole(), chain);
            let shown = shown(&model, &finding, Rules { rules, text: text.whole() })?;
            found.push(plain(finding, shown));
        }
        Ok(found)
    };
    found().map_err(too_large)
}

/// Where the chain of the table `filter` is declared, or else the table, or else the text ends.
fn line_of_chain(text: &str, chain: &str) -> u32 {
    let is_filter = |line: &str| line.trim_start().starts_with("*filter");
    let begins = text.lines().position(is_filter);
    let inside = text.lines().enumerate().skip(begins.unwrap_or_default());
    let declared = inside
        .take_while(|(_, line)| !line.trim_start().starts_with("COMMIT"))
        .find(|(_, line)| line.trim_start().starts_with(&format!(":{chain} ")));
    let at = declared.map(|(at, _)| at).or(begins).unwrap_or_else(|| text.lines().count().max(1) - 1);
    at as u32 + 1
}

/// The packet that shows a finding.
fn shown(
    model: &Model<'_>,
    finding: &Finding,
    rules: Rules<'_>,
) -> std::result::Result<Option<Shown>, TooLarge> {
    let title = |packet: &str| format!("{}: {packet}", finding.code);
    match &finding.shown_by {
        Some(set) => prove::show(model, set, rules, &Fate::ALL, &title),
        None => Ok(None),
    }
}

fn plain(finding: Finding, shown: Option<Shown>) -> Found {
    let Finding { code, line, message, hint, .. } = finding;
    Found {
        code: Some(code),
        error: RuleError { line: line as usize, column: 0, message, hint: Some(hint) },
        shown,
    }
}

/// A comment in the file that allows findings: `# stateway: allow SW012 reason`.
pub(super) struct Allowed {
    code: String,
    /// The rule behind it; `None`: the whole file, since it stands in front of all tables.
    line: Option<usize>,
}

impl Allowed {
    pub(super) fn is_about(&self, code: &str, line: usize) -> bool {
        self.code == code && self.line.is_none_or(|own| own == line)
    }
}

/// What comments of the text allow.
///
/// # Errors
/// A comment names no code, or no reason.
pub(super) fn allowed(text: &str) -> std::result::Result<Vec<Allowed>, RuleError> {
    let lines: Vec<&str> = text.lines().collect();
    let mut allowed = Vec::new();
    let mut is_inside = false;
    for (at, line) in lines.iter().enumerate() {
        is_inside |= line.trim_start().starts_with('*');
        let Some(comment) = line.trim().strip_prefix('#') else { continue };
        let Some(asked) = comment.trim().strip_prefix("stateway: allow") else { continue };
        let wrong = |message: String| RuleError {
            line: at + 1,
            column: 1,
            message,
            hint: Some("`# stateway: allow SW012 the reason`".to_owned()),
        };
        let (code, reason) = asked.trim().split_once(char::is_whitespace).unwrap_or((asked.trim(), ""));
        let code = codes::parse(code).map_err(wrong)?;
        if reason.trim().is_empty() {
            return Err(wrong(format!("why is {code} allowed? a reason is missing")));
        }
        let is_rule = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let behind =
            lines.iter().enumerate().skip(at + 1).find(|(_, line)| is_rule(line)).map(|(at, _)| at + 1);
        allowed.push(Allowed { code, line: if is_inside { behind } else { None } });
    }
    Ok(allowed)
}

// ── formats ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// A file of rules, and what is wrong with it.
pub(super) struct Checked {
    pub(super) text: RulesText,
    pub(super) errors: Vec<RuleError>,
    pub(super) found: Vec<Found>,
    /// As it was loaded, if it could be.
    pub(super) rules: Option<Ruleset>,
}

pub(super) fn json(all: &[Checked]) -> Value {
    let findings = |checked: &Checked| {
        let mut list = json_of(checked);
        if all.len() > 1 {
            for (value, file) in list.iter_mut().zip(files(checked)) {
                value["file"] = json!(file);
            }
        }
        list
    };
    let list: Vec<Value> = all.iter().flat_map(findings).collect();
    json!({ "ok": all.iter().all(|checked| checked.errors.is_empty()), "findings": list })
}

/// The file of each error and finding.
fn files(Checked { text, errors, found, .. }: &Checked) -> Vec<String> {
    let errors = errors.iter().chain(found.iter().map(|found| &found.error));
    errors.map(|error| text.locate(error).0.display().to_string()).collect()
}

pub(super) fn json_of(Checked { text, errors, found, .. }: &Checked) -> Vec<Value> {
    let of_error = |error: &RuleError| super::json::finding(&text.locate(error).1, "error");
    let of_found = |found: &Found| {
        let mut error = text.locate(&found.error).1;
        error.column = error.column.max(1);
        let mut value = super::json::finding(&error, "warning");
        if let Some(code) = found.code {
            value["code"] = json!(code);
        }
        if let Some(shown) = &found.shown {
            value["witness"] = shown.json();
        }
        value
    };
    errors.iter().map(of_error).chain(found.iter().map(of_found)).collect()
}

pub(super) fn sarif(all: &[Checked]) -> Value {
    let results: Vec<Value> = all.iter().flat_map(sarif_of).collect();
    let rules: Vec<Value> = codes::ALL
        .iter()
        .map(|code| {
            json!({
                "id": code.name,
                "shortDescription": { "text": code.title },
                "fullDescription": { "text": code.page },
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "stateway", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "results": results,
        }],
    })
}

fn sarif_of(Checked { text, errors, found, .. }: &Checked) -> Vec<Value> {
    let result = |error: &RuleError, code: &str, level: &str, more: String| {
        let (file, error) = text.locate(error);
        let hint = error.hint.map_or_else(String::new, |hint| format!("; {hint}"));
        json!({
            "ruleId": code,
            "level": level,
            "message": { "text": format!("{}{hint}{more}", error.message) },
            "locations": [{ "physicalLocation": {
                "artifactLocation": { "uri": file.display().to_string() },
                "region": { "startLine": error.line.max(1), "startColumn": error.column.max(1) },
            }}],
        })
    };
    let of_found = |found: &Found| {
        let more =
            found.shown.as_ref().map_or_else(String::new, |shown| format!("; packet: {}", shown.packet));
        result(&found.error, found.code.unwrap_or("warning"), "warning", more)
    };
    errors
        .iter()
        .map(|error| result(error, "error", "error", String::new()))
        .chain(found.iter().map(of_found))
        .collect()
}

/// Lines that a workflow on GitHub shows beside the file.
pub(super) fn github(Checked { text, errors, found, .. }: &Checked) {
    let say = |error: &RuleError, kind: &str, code: Option<&str>| {
        let (file, error) = text.locate(error);
        let escaped = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
        let title = code.map_or_else(String::new, |code| format!(",title={code}"));
        let hint = error.hint.map_or_else(String::new, |hint| format!("\nhint: {hint}"));
        let path = escaped(&file.display().to_string()).replace(':', "%3A").replace(',', "%2C");
        render::line(&format!(
            "::{kind} file={path},line={},col={}{title}::{}",
            error.line.max(1),
            error.column.max(1),
            escaped(&format!("{}{hint}", error.message))
        ));
    };
    for error in errors {
        say(error, "error", None);
    }
    for found in found {
        say(&found.error, "warning", found.code);
    }
}

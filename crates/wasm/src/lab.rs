//! A lab from the texts of its files, and the view of it.

#![forbid(unsafe_code)]

use crate::protocol::{Host, Lab as View, OtherRules, Port, Problem, Rule, Ruleset as RulesView, Step, Test};
use stateway_core::Mode;
use stateway_core::filter::{RuleError, RuleId, Ruleset};
use stateway_core::packet::Family;
use stateway_lab::model::{Lab, Service, Source};
use stateway_lab::resolve::{OtherText, load_text_with};
use stateway_lab::{LabErrors, OtherRules as Others, trial};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The file that is the lab itself.
const LAB_FILE: &str = "lab.yaml";

/// Reads a lab; rules in the place of its own are checked by its ports.
pub(crate) fn read(files: &BTreeMap<String, String>, rules: OtherRules) -> Result<Lab, Vec<Problem>> {
    let own = load(files, None)?;
    let ports: Vec<String> = own.router.ifaces.iter().map(|iface| iface.name.clone()).collect();
    let mut problems = Vec::new();
    let mut other = |text: Option<String>, family| {
        let whole = text?;
        if let Err(errors) = Ruleset::load(&whole, family, &ports) {
            problems.extend(errors.into_iter().map(|error| of_rule(error, name_of(family), false)));
        }
        let files = vec![Source { path: PathBuf::from(name_of(family)), text: whole.clone() }];
        Some(OtherText { whole, files })
    };
    let others = Others { v4: other(rules.v4, Family::Ipv4), v6: other(rules.v6, Family::Ipv6) };
    if !problems.is_empty() {
        return Err(problems);
    }
    if others.v4.is_none() && others.v6.is_none() { Ok(own) } else { load(files, Some(&others)) }
}

fn load(files: &BTreeMap<String, String>, other: Option<&Others>) -> Result<Lab, Vec<Problem>> {
    let text = files.get(LAB_FILE).map_or("", String::as_str);
    load_text_with(text, Path::new(LAB_FILE), &|path, most| file(files, path, most), other).map_err(problems)
}

/// One of the lab's files, by its name in the lab's folder.
fn file(files: &BTreeMap<String, String>, path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let name = path.strip_prefix(".").unwrap_or(path).to_str().unwrap_or_default();
    let text = files.get(name).ok_or(io::ErrorKind::NotFound)?;
    if text.len() > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(text.clone().into_bytes())
}

fn problems(errors: LabErrors) -> Vec<Problem> {
    errors.problems.into_iter().map(|problem| of_lab(problem, false)).collect()
}

pub(crate) fn of_lab(problem: stateway_lab::Problem, is_warning: bool) -> Problem {
    let (line, column) = problem.place.unwrap_or_default();
    let stateway_lab::Problem { path, message, hint, .. } = problem;
    Problem { file: LAB_FILE.to_owned(), line, column, path, message, hint, is_warning }
}

fn of_rule(error: RuleError, file: &str, is_warning: bool) -> Problem {
    let RuleError { line, column, message, hint } = error;
    Problem { file: file.to_owned(), line, column, path: String::new(), message, hint, is_warning }
}

/// What the page calls the rules of a family.
const fn name_of(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "rules",
        Family::Ipv6 => "rules6",
    }
}

/// The view of a lab, and what the rules are warned of.
pub(crate) fn view(lab: &Lab) -> (View, Vec<Problem>) {
    let mut warnings: Vec<Problem> =
        lab.warnings.iter().map(|problem| of_lab(problem.clone(), true)).collect();
    let texts = [(Family::Ipv4, &lab.router.rules), (Family::Ipv6, &lab.router.rules6)];
    let rulesets = texts
        .into_iter()
        .filter_map(|(family, text)| ruleset(lab, family, text.as_deref()?, &mut warnings))
        .collect();
    let view = View {
        name: lab.name.clone(),
        description: lab.description.clone(),
        mode: match lab.router.mode {
            Mode::Bridge => "bridge",
            Mode::Route => "route",
        },
        ports: lab.router.ifaces.iter().map(port).collect(),
        hosts: lab.hosts.iter().map(host).collect(),
        rulesets,
        tests: lab.tests.iter().map(|test| self::test(lab, test)).collect(),
    };
    (view, warnings)
}

fn port(iface: &stateway_core::Iface) -> Port {
    Port { name: iface.name.clone(), addresses: iface.addresses.iter().map(ToString::to_string).collect() }
}

fn host(host: &stateway_lab::model::Host) -> Host {
    let service = |service: &Service| match service.port {
        Some(port) if service.kind.usual_port() != Some(port) => format!("{}:{port}", service.kind.word()),
        _ => service.kind.word().to_owned(),
    };
    Host {
        name: host.name.clone(),
        port: host.iface.index(),
        addresses: host.addresses.iter().map(ToString::to_string).collect(),
        services: host.services.iter().map(service).collect(),
    }
}

fn test(lab: &Lab, test: &stateway_lab::model::Test) -> Test {
    let step = |step: &stateway_lab::model::Step| Step {
        path: step.path.clone(),
        title: trial::title(lab, &step.action),
    };
    Test {
        name: test.name.clone(),
        path: test.path.clone(),
        line: lab.spot(&test.path).map_or(0, |spot| spot.line),
        steps: test.steps.iter().map(step).collect(),
    }
}

fn ruleset(lab: &Lab, family: Family, text: &str, warnings: &mut Vec<Problem>) -> Option<RulesView> {
    let ports: Vec<String> = lab.router.ifaces.iter().map(|iface| iface.name.clone()).collect();
    let loaded = Ruleset::load(text, family, &ports).ok()?;
    warnings.extend(loaded.warnings.into_iter().map(|warning| of_rule(warning, name_of(family), true)));
    let set = &loaded.ruleset;
    let mut rules = Vec::new();
    for table in set.tables() {
        for (chain, found) in set.chains(*table).iter().enumerate() {
            let id =
                |index: usize| RuleId { family, table: *table, chain: chain as u16, index: index as u32 };
            rules.extend(found.rules.iter().enumerate().map(|(index, rule)| Rule {
                name: set.rule_name(id(index)),
                line: rule.line as usize,
                text: set.rule_text(*table, rule).trim_start().to_owned(),
            }));
            rules.extend(found.policy.map(|policy| Rule {
                name: set.rule_name(id(found.rules.len())),
                line: 0,
                text: policy.word().to_owned(),
            }));
        }
    }
    let family = if family == Family::Ipv4 { 4 } else { 6 };
    Some(RulesView { family, text: text.to_owned(), rules })
}

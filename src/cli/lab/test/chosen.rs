//! `--filter`: the tests that a user wants of the labs named.

use super::super::super::{Failure, Result};
use anyhow::anyhow;
use stateway_lab::builtin;
use stateway_lab::model::{Action, Lab, Session, Ssh, Tcp, Test};
use std::cmp::Reverse;

/// Keeps the tests whose name contains one of `filters`, and the labs that have any.
///
/// # Errors
/// One of the filters matches nothing; or a test is left without the session that another one opens for it.
pub(super) fn keep(labs: &mut Vec<Lab>, filters: &[String]) -> Result {
    if filters.is_empty() {
        return Ok(());
    }
    for filter in filters {
        if !labs.iter().flat_map(|lab| &lab.tests).any(|test| test.name.contains(filter.as_str())) {
            return Err(no_match(labs, filter));
        }
    }
    for lab in labs.iter_mut() {
        let all = std::mem::take(&mut lab.tests);
        let is_chosen = |test: &&Test| filters.iter().any(|filter| test.name.contains(filter.as_str()));
        lab.tests = all.iter().filter(is_chosen).cloned().collect();
        sessions_are_opened(lab, &all)?;
    }
    labs.retain(|lab| !lab.tests.is_empty());
    Ok(())
}

fn no_match(labs: &[Lab], filter: &str) -> Failure {
    let names: Vec<&str> = labs.iter().flat_map(|lab| &lab.tests).map(|test| test.name.as_str()).collect();
    let near = near(filter, &names);
    let hint = if near.is_empty() {
        "`--format json` prints the names of all tests".to_owned()
    } else {
        let near: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
        format!("did you mean {}?", near.join(" or "))
    };
    Failure::Input(anyhow!("no test has `{filter}` in its name\n  hint: {hint}"))
}

/// The names with a passage that somebody who wrote `filter` may have meant, the most alike first.
fn near<'a>(filter: &str, names: &[&'a str]) -> Vec<&'a str> {
    /// Below this, two words share too little to be a slip of the finger.
    const ALIKE: f64 = 0.85;
    const MOST: usize = 3;
    let filter = filter.to_lowercase();
    let words = filter.split_whitespace().count().max(1);
    let score = |name: &str| {
        let name = name.to_lowercase();
        let parts: Vec<&str> = name.split_whitespace().collect();
        let alike = parts.windows(words.min(parts.len().max(1))).map(|part| {
            let part = part.join(" ");
            strsim::jaro_winkler(&filter, &part)
        });
        // As a whole number it can be sorted by.
        alike.map(|alike| (alike * 1000.0) as u32).max().unwrap_or_default()
    };
    let mut scored: Vec<(u32, &str)> = names.iter().map(|name| (score(name), *name)).collect();
    scored.retain(|(score, _)| f64::from(*score) >= ALIKE * 1000.0);
    scored.sort_by_key(|(score, _)| Reverse(*score));
    scored.dedup();
    scored.into_iter().map(|(_, name)| name).take(MOST).collect()
}

/// Whether every session that a chosen test goes on with is opened by a chosen one.
fn sessions_are_opened(lab: &Lab, all: &[Test]) -> Result {
    let mut open = Vec::new();
    for test in &lab.tests {
        for (kind, session) in test.steps.iter().filter_map(|step| session(&step.action)) {
            match session {
                Session::Once => {}
                Session::Keep(name) => open.push((kind, name)),
                Session::Use(name) if open.contains(&(kind, name)) => {}
                Session::Use(name) => return Err(not_opened(lab, test, kind, name, all)),
            }
        }
    }
    Ok(())
}

fn not_opened(lab: &Lab, test: &Test, kind: &str, name: &String, all: &[Test]) -> Failure {
    let opens = |other: &&Test| {
        let sessions = other.steps.iter().filter_map(|step| session(&step.action));
        sessions.into_iter().any(|(of, session)| of == kind && *session == Session::Keep(name.clone()))
    };
    let opener = all.iter().find(opens).map(|test| test.name.as_str()).unwrap_or_default();
    Failure::Input(anyhow!(
        "{}: the test `{}` goes on with the session `{name}`, which the test `{opener}` opens\n  \
         hint: choose that one as well: `--filter '{opener}'`",
        builtin::shown(&lab.file),
        test.name
    ))
}

fn session(action: &Action) -> Option<(&'static str, &Session)> {
    match action {
        Action::Ssh(Ssh { session, .. }) | Action::Tcp(Tcp { session, .. }) => Some((action.word(), session)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateway_lab::resolve::load_text;
    use std::path::Path;

    /// Two labs; the third test of the first one goes on with what the second one opened.
    fn labs() -> Vec<Lab> {
        let lab = |name: &str, tests: &str| {
            let text = format!(
                "name: {name}\nrouter:\n  ports: {{ a: {{}}, b: {{}} }}\n  rules: |\n    *filter\n    COMMIT\n\
                 hosts:\n  a: {{ port: a, address: 192.0.2.1/24 }}\n  \
                 b: {{ port: b, address: 192.0.2.2/24, services: [ssh] }}\ntests:\n{tests}"
            );
            load_text(&text, Path::new("lab.yaml")).unwrap()
        };
        vec![
            lab(
                "one",
                "- { name: A pings B, ping: { from: a, to: b } }\n\
                 - { name: it stays open, ssh: { from: a, to: b, keep: s } }\n\
                 - { name: it goes on, ssh: { session: s } }\n",
            ),
            lab("two", "- { name: B pings A, ping: { from: b, to: a } }\n"),
        ]
    }

    /// The labs and tests that are left.
    fn left(filters: &[&str]) -> Result<Vec<String>, String> {
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        let mut labs = labs();
        keep(&mut labs, &filters).map_err(|failure| failure.text())?;
        let tests = labs.iter().flat_map(|lab| lab.tests.iter().map(move |test| (lab, test)));
        Ok(tests.map(|(lab, test)| format!("{}: {}", lab.name, test.name)).collect())
    }

    #[test]
    fn a_lab_without_a_chosen_test_is_left_out() {
        assert_eq!(left(&["A pings"]).unwrap(), ["one: A pings B"]);
        assert_eq!(left(&["pings"]).unwrap(), ["one: A pings B", "two: B pings A"]);
        assert_eq!(left(&["B pings", "stays"]).unwrap(), ["one: it stays open", "two: B pings A"]);
        assert_eq!(left(&[]).unwrap().len(), 4);
    }

    #[test]
    fn a_filter_that_matches_nothing_is_an_error_with_near_names() {
        let said = "no test has `b pigns` in its name\n  hint: did you mean `B pings A`?";
        assert_eq!(left(&["b pigns"]).unwrap_err(), said);
        let said = left(&["pings", "pigns"]).unwrap_err();
        assert!(said.ends_with("did you mean `A pings B` or `B pings A`?"), "{said}");
        assert!(left(&["zzz"]).unwrap_err().contains("`--format json` prints"));
    }

    #[test]
    fn a_test_is_not_chosen_without_the_one_that_opens_its_session() {
        let said = left(&["goes on"]).unwrap_err();
        assert!(
            said.contains("`it goes on` goes on with the session `s`")
                && said.contains("--filter 'it stays open'")
        );
        assert_eq!(left(&["it "]).unwrap().len(), 2);
    }
}

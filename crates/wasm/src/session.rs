//! The state behind the page: the last run.

#![forbid(unsafe_code)]

use crate::lab;
use crate::protocol::{Answer, BuiltIn, Question};
use crate::run::{self, Kept};
use stateway_lab::{builtin, spec};

/// Answers questions, one after another.
#[derive(Debug, Default)]
pub struct Session {
    /// What the last run has left to be asked for.
    last: Option<Kept>,
}

impl Session {
    /// What came of a question.
    pub fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Labs => Answer::Labs { labs: built_in(), version: env!("CARGO_PKG_VERSION") },
            Question::Run { files, rules } => match lab::read(&files, rules).and_then(run::take) {
                Ok((run, kept)) => {
                    self.last = Some(kept);
                    Answer::Run(Box::new(run))
                }
                Err(problems) => Answer::Problems { problems },
            },
            Question::Check { files, rules } => {
                let problems = lab::read(&files, rules).map_or_else(|errors| errors, |lab| lab::view(&lab).1);
                Answer::Problems { problems }
            }
            Question::Packet { number } => match self.last.as_ref().and_then(|last| last.account(number)) {
                Some((account, values)) => Answer::Packet { account, values },
                None => Answer::Refused { message: format!("the last run has no packet {number}") },
            },
        }
    }
}

fn built_in() -> Vec<BuiltIn> {
    let lab = |name: &str| {
        let text = |(path, bytes): (std::path::PathBuf, &[u8])| {
            Some((path.to_str()?.to_owned(), String::from_utf8(bytes.to_vec()).ok()?))
        };
        let files = builtin::files(name)?.into_iter().filter_map(text).collect();
        Some(BuiltIn { name: name.to_owned(), description: description(name), files })
    };
    builtin::names().into_iter().filter_map(lab).collect()
}

/// What a lab says of itself.
fn description(name: &str) -> String {
    let document = builtin::text(name).and_then(|text| spec::parse(text).ok());
    let said = document.as_ref().and_then(|document| document.tree.get("description")?.as_str());
    said.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ask(session: &mut Session, question: Value) -> Value {
        serde_json::to_value(session.answer(serde_json::from_value(question).unwrap())).unwrap()
    }

    fn article(rules: &str) -> Value {
        let files = json!({ "lab.yaml": builtin::text("article").unwrap() });
        json!({ "ask": "run", "files": files, "rules": { "v4": rules } })
    }

    #[test]
    fn every_built_in_lab_is_told_of_with_its_files() {
        let answer = ask(&mut Session::default(), json!({ "ask": "labs" }));
        let labs = answer["labs"].as_array().unwrap();
        let names: Vec<_> = labs.iter().map(|lab| lab["name"].as_str().unwrap()).collect();
        assert_eq!(names, builtin::names());
        assert!(labs.iter().all(|lab| !lab["description"].as_str().unwrap().is_empty()));
        assert!(labs.iter().all(|lab| lab["files"]["lab.yaml"].is_string()));
    }

    #[test]
    fn what_is_wrong_with_rules_has_its_place_and_leaves_the_last_run() {
        let mut session = Session::default();
        let packet = json!({ "ask": "packet", "number": 0 });
        assert_eq!(ask(&mut session, packet.clone())["answer"], "refused");
        let run = ask(&mut session, article("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"));
        assert_eq!(run["answer"], "run");
        assert_eq!(run["packets"][0]["rule"], "policy");
        let wrong = ask(&mut session, article("*filter\n-A FORWARD -j ACCPT\nCOMMIT\n"));
        assert_eq!(wrong["answer"], "problems");
        let problem = &wrong["problems"][0];
        assert_eq!((&problem["file"], &problem["line"]), (&json!("rules"), &json!(2)));
        assert_eq!(ask(&mut session, packet)["answer"], "packet");
    }

    #[test]
    fn a_lab_is_read_from_its_texts_alone() {
        let lab = |name: &str| {
            let text = builtin::text("article").unwrap();
            let (head, rest) = text.split_once("  rules: |").unwrap();
            let hosts = &rest[rest.find("hosts:").unwrap()..];
            json!({ "lab.yaml": format!("{head}  rules_file: {name}\n{hosts}"), "my.rules": "*filter\nCOMMIT\n" })
        };
        let check = |name: &str| {
            ask(&mut Session::default(), json!({ "ask": "check", "files": lab(name) }))["problems"].clone()
        };
        let is_wrong =
            |problems: Value| problems.as_array().unwrap().iter().any(|one| one["is_warning"] == false);
        assert!(!is_wrong(check("my.rules")));
        assert!(is_wrong(check("/etc/hostname")));
        assert!(is_wrong(check("none.rules")));
    }
}

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

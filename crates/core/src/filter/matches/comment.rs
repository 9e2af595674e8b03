//! `-m comment`: words for the reader; always holds.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::{cut, quoted};
use core::fmt;

/// The kernel keeps this many bytes.
const MAX_BYTES: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    pub text: String,
}

impl Matcher for Comment {
    const SPEC: Spec = Spec { name: "comment", family: None, protos: &[], options: &[Opt::value("comment")] };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let given = options.require("comment")?;
        let text = cut(given.text(), MAX_BYTES);
        if text.len() < given.text().len() {
            let warning = given.problem(format!("the comment has {} bytes", given.text().len()));
            setting.warn(warning.hint(format!("{MAX_BYTES} of them are kept, as the tools do")));
        }
        Ok(Self { text: text.to_owned() })
    }

    fn check(&self, _: &View<'_>) -> Answer {
        Answer::Yes
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " --comment {}", quoted(&self.text))
    }
}

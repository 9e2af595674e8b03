//! `-m comment`: words for the reader; always holds.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::options::{Opt, Options, Problem};
use crate::filter::value::quoted;
use core::fmt;

/// The kernel keeps this many bytes.
const MAX_BYTES: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    pub text: String,
}

impl Matcher for Comment {
    const SPEC: Spec = Spec { name: "comment", family: None, protos: &[], options: &[Opt::value("comment")] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("comment")?;
        if given.text().len() > MAX_BYTES {
            return Err(given
                .problem(format!("the comment has {} bytes", given.text().len()))
                .hint(format!("at most {MAX_BYTES}")));
        }
        Ok(Self { text: given.text().to_owned() })
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

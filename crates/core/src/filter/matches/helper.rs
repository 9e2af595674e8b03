//! `-m helper`: connections that a helper announced.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::{cut, not, quoted};
use core::fmt;

/// The kernel keeps this many bytes of the name.
const MAX_NAME: usize = 29;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// Empty: any helper.
    pub name: String,
    pub negated: bool,
}

impl Matcher for Helper {
    const SPEC: Spec =
        Spec { name: "helper", family: None, protos: &[], options: &[Opt::value("helper").or_not()] };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let given = options.require("helper")?;
        let name = cut(given.text(), MAX_NAME);
        if name.len() < given.text().len() {
            let warning = given.problem(format!("the helper's name has {} bytes", given.text().len()));
            setting.warn(warning.hint(format!("{MAX_NAME} of them are kept, as the tools do")));
        }
        Ok(Self { name: name.to_owned(), negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        // Netfilter asks the connection that announced this one; what nobody announced has no helper to compare.
        let Some(helper) = view.master_helper() else { return self.negated.into() };
        let holds = self.name.is_empty() || self.name.starts_with(helper);
        (holds != self.negated).into()
    }
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} --helper {}", not(self.negated), quoted(&self.name))
    }
}

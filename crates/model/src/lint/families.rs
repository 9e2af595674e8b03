//! A router that is closed for one family of addresses and open for the other.

#![forbid(unsafe_code)]

use super::Finding;
use crate::model::{Model, state_number};
use crate::space::{Field, Made};
use crate::walk::Way;
use stateway_core::conntrack::CtState;
use stateway_core::filter::{Policy, Ruleset, Table, Target};

/// What is wrong with rules that let every packet pass, while those of the other family, `closed`, let pass what they name.
///
/// `open` is the model of the rules that may be too open.
pub fn left_open(closed: &Ruleset, open: &Model<'_>) -> Made<Option<Finding>> {
    let (chain, does) = match open.way {
        Way::Forward => ("FORWARD", "passes the router"),
        Way::Input => ("INPUT", "reaches the router"),
        Way::Output => return Ok(None),
    };
    if !is_closed(closed, chain) {
        return Ok(None);
    }
    let space = open.space;
    let new = space.is(Field::State, state_number(CtState::New))?.and(&open.real)?;
    let refused = open.fates.dropped.or(&open.fates.rejected)?;
    if refused.meets(&new)? {
        return Ok(None);
    }
    let passed = open.fates.passed.and(&new)?;
    Ok(Some(Finding {
        code: "SW016",
        line: 0,
        message: format!(
            "{chain} is closed for {}, and everything that is {} {does}",
            closed.family.name(),
            space.family.name()
        ),
        hint: format!("`:{chain} DROP`, and rules as for {}", closed.family.name()),
        shown_by: (!passed.is_empty()).then_some(passed),
    }))
}

/// Whether what no rule names is refused.
fn is_closed(rules: &Ruleset, name: &str) -> bool {
    let Some(chain) = rules.chains(Table::Filter).iter().find(|chain| chain.name == name) else {
        return false;
    };
    let last = chain.rules.last();
    let catches_all = last.is_some_and(|rule| {
        matches!(rule.target, Target::Drop | Target::Reject(_)) && rule.matches.to_string().trim().is_empty()
    });
    chain.policy == Some(Policy::Drop) || catches_all
}

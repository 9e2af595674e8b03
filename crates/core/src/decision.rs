//! What was decided of one packet, and by what: the short account that verdicts print.
//!
//! It is gathered from the notes that the pipeline makes for any recorder, so it cannot disagree with what happened.

#![forbid(unsafe_code)]

use crate::base::fate::{DropReason, Fate, Reason};
use crate::base::iface::IfaceId;
use crate::base::{RuleId, Table};
use crate::conntrack::{CtState, Direction, InvalidReason, Tracked};
use crate::packet::Tuple;
use crate::record::{Note, Recorder};
use crate::router::{Router, Rules};

/// Gathers the decisions on one packet; use a new one, or [`Decision::clear`], for each.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// As `-m conntrack --ctstate` sees it; `None` if the packet never came as far as tracking.
    pub ctstate: Option<CtState>,
    /// Only where a connection stands behind the packet.
    pub direction: Option<Direction>,
    /// Why it is INVALID, if it is.
    pub invalid: Option<InvalidReason>,
    /// The packet's tuple, or for an ICMP error that of the flow it belongs to.
    pub tuple: Option<Tuple>,
    /// Where it left, in order.
    pub out: Vec<IfaceId>,
    /// Who decided on the walk that let the packet out.
    let_out: Option<By>,
    /// Who decided last.
    last: Option<By>,
    table: Option<Table>,
    /// The packet has met its fate: what is noted from now on is about answers of the router's own.
    is_over: bool,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rule(RuleId),
    Policy,
}

impl Decision {
    /// Makes it ready for the next packet.
    pub fn clear(&mut self) {
        let mut out = core::mem::take(&mut self.out);
        out.clear();
        *self = Self { out, ..Self::default() };
    }

    /// The rule that decided, as `filter/FORWARD/1`, or `policy` where none did; `None` if neither was asked.
    pub fn rule(&self, fate: Fate, router: &Router) -> Option<String> {
        self.rule_among(fate, &router.rules())
    }

    /// As [`Decision::rule`], of the rules that were in force when it was decided.
    pub fn rule_among(&self, fate: Fate, rules: &Rules) -> Option<String> {
        let by = match fate {
            Fate::Dropped(DropReason::Rule(id)) | Fate::Rejected(_, id) => By::Rule(id),
            Fate::Dropped(DropReason::Policy(_)) => By::Policy,
            // The rule that the packet was too short for, or whose target failed.
            Fate::Dropped(DropReason::L4Truncated | DropReason::Target) => self.last?,
            Fate::Dropped(_) => return None,
            Fate::Forwarded | Fate::Delivered | Fate::Queued(_) => {
                self.ctstate?;
                // A chain that does not exist accepts, as one without rules does.
                self.let_out.or(self.last).unwrap_or(By::Policy)
            }
        };
        match by {
            By::Rule(id) => Some(rules.for_family(id.family)?.rule_name(id)),
            By::Policy => Some("policy".to_owned()),
        }
    }

    /// Why the packet was not forwarded, or why it is INVALID. The latter says more than the rule that dropped it for that.
    pub fn reason(&self, fate: Fate) -> Option<Reason> {
        let of_fate = fate.reason();
        match of_fate {
            Some(
                Reason::Dropped(DropReason::Rule(_) | DropReason::Policy(_))
                | Reason::Rejected
                | Reason::Local,
            )
            | None => self.invalid.map(Reason::Invalid).or(of_fate),
            Some(_) => of_fate,
        }
    }

    fn tracked(&mut self, ct: &Tracked) {
        self.ctstate = Some(ct.state);
        self.direction = ct.has_entry().then_some(ct.direction);
        self.invalid = ct.invalid;
        self.tuple = ct.tuple;
    }
}

impl Recorder for Decision {
    fn note(&mut self, note: impl FnOnce() -> Note) {
        if self.is_over {
            return;
        }
        match note() {
            Note::Hook(table, _) => {
                self.table = Some(table);
                if table == Table::Filter {
                    self.last = None;
                }
            }
            Note::Rule { rule, failed: None } if self.table == Some(Table::Filter) => {
                self.last = Some(By::Rule(rule));
            }
            Note::Policy(_) if self.table == Some(Table::Filter) => self.last = Some(By::Policy),
            Note::Tracked(ct) => self.tracked(&ct),
            Note::Sent(iface) => {
                self.out.push(iface);
                self.let_out = self.let_out.or(self.last);
            }
            Note::Fate(_) => self.is_over = true,
            _ => {}
        }
    }
}

//! `-m state`, and the set of states that it shares with `-m conntrack`.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::conntrack::{CtState, Status, Tracking};
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{abbreviates, not};
use bitflags::bitflags;
use core::fmt;

bitflags! {
    /// States as a rule lists them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct StateSet: u8 {
        const INVALID = 1;
        const NEW = 2;
        const RELATED = 4;
        const ESTABLISHED = 8;
        const UNTRACKED = 16;
        /// The original source is translated.
        const SNAT = 32;
        /// The original destination is translated.
        const DNAT = 64;
    }
}

impl StateSet {
    /// In the order in which iptables-save prints them.
    const WORDS: [(Self, &'static str); 7] = [
        (Self::INVALID, "INVALID"),
        (Self::NEW, "NEW"),
        (Self::RELATED, "RELATED"),
        (Self::ESTABLISHED, "ESTABLISHED"),
        (Self::UNTRACKED, "UNTRACKED"),
        (Self::SNAT, "SNAT"),
        (Self::DNAT, "DNAT"),
    ];
    /// What `-m state` knows.
    const OF_STATE: Self =
        Self::INVALID.union(Self::NEW).union(Self::RELATED).union(Self::ESTABLISHED).union(Self::UNTRACKED);

    pub(super) const fn of(state: CtState) -> Self {
        match state {
            CtState::Invalid => Self::INVALID,
            CtState::New => Self::NEW,
            CtState::Related => Self::RELATED,
            CtState::Established => Self::ESTABLISHED,
            CtState::Untracked => Self::UNTRACKED,
        }
    }

    /// What has been translated by now of the packet's connection.
    #[inline]
    pub(super) fn of_status(status: Status) -> Self {
        let translated = |bit, set| if status.contains(bit) { set } else { Self::empty() };
        translated(Status::SRC_NAT, Self::SNAT) | translated(Status::DST_NAT, Self::DNAT)
    }

    /// `NEW,ESTABLISHED`, in any case and cut short at will, as iptables takes it; only `allowed` ones.
    fn parse(text: &str, allowed: Self) -> Result<Self, Complaint> {
        let mut set = Self::empty();
        let known = || Self::WORDS.iter().filter(|(bit, _)| allowed.contains(*bit)).map(|(_, word)| *word);
        for word in text.split(',') {
            let found =
                Self::WORDS.iter().find(|(bit, known)| allowed.contains(*bit) && abbreviates(word, known));
            let Some((bit, _)) = found else {
                let complaint = Complaint::new(if word.is_empty() {
                    "a state is missing in the list".to_owned()
                } else {
                    format!("no connection state named `{word}`")
                });
                if word.is_empty() {
                    return Err(complaint.hint("no blank behind a comma: `NEW,ESTABLISHED`"));
                }
                let all = || format!("the states are {}", known().collect::<Vec<_>>().join(", "));
                return Err(complaint.hint(did_you_mean(word, known()).unwrap_or_else(all)));
            };
            set |= *bit;
        }
        Ok(set)
    }

    pub(super) fn parse_conntrack(text: &str) -> Result<Self, Complaint> {
        Self::parse(text, Self::all())
    }
}

impl fmt::Display for StateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (_, word) in Self::WORDS.iter().filter(|(bit, _)| self.contains(*bit)) {
            write!(f, "{separator}{word}")?;
            separator = ",";
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub states: StateSet,
    pub negated: bool,
}

impl State {
    pub(in crate::filter) fn admits(&self, state: CtState) -> bool {
        self.states.contains(StateSet::of(state)) != self.negated
    }
}

impl Matcher for State {
    const SPEC: Spec =
        Spec { name: "state", family: None, protos: &[], options: &[Opt::value("state").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("state")?;
        let states = given.read(|text| StateSet::parse(text, StateSet::OF_STATE))?;
        Ok(Self { states, negated: given.negated })
    }

    #[inline]
    fn check(&self, view: &View<'_>) -> Answer {
        self.admits(view.state()).into()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} --state {}", not(self.negated), self.states)
    }
}

impl View<'_> {
    /// The state as a rule sees it at this point: the raw table may already have exempted the packet.
    #[inline]
    pub(in crate::filter) fn state(&self) -> CtState {
        if self.template.tracking == Tracking::Off {
            return CtState::Untracked;
        }
        // Before it is tracked, a packet that `-j CT` spoke of has the state of what carries its wishes.
        let is_to_come =
            self.ct.state == CtState::Invalid && self.ct.invalid.is_none() && self.template.is_set;
        if is_to_come { CtState::New } else { self.ct.state }
    }
}

//! Hosts that are network namespaces, for the runners with real programs.
//!
//! ```text
//!   sw-LAB-host104 ── eth0 ─┐                       ┌─ eth0 ── sw-LAB-host77
//!                           └── sw-LAB-router ──────┘
//! ```
//!
//! Everything that a lab makes lies in its namespaces and in its state folder. [`state`] writes down the names
//! before anything is made, so that [`state::remove`] takes all of it away whatever ended the command that made it;
//! its processes live in a PID namespace that ends with the lab's [`init`].
//! What stands between the hosts, a router process or the kernel, is a [`Middle`].

pub mod build;
pub(crate) mod clients;
pub mod command;
pub mod init;
pub mod link;
pub mod names;
pub mod origin;
pub mod programs;
pub mod rootless;
pub mod services;
pub mod state;
pub(crate) mod transfers;

use super::model::{Action, Impairment, Lab, RulesText, RunnerKind, Step};
use super::runner::{Awaits, Observation, RunError, Runner, Seen};
use anyhow::Context as _;
use stateway_core::iface::IfaceId;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// What stands between the hosts.
pub trait Middle {
    fn kind(&self) -> RunnerKind;

    /// From here on every packet is noted.
    fn watch(&mut self) -> anyhow::Result<()>;

    /// Every packet since [`Middle::watch`], in order. Until `enough` says so, more are waited for, though not for long.
    fn seen(&mut self, enough: &dyn Fn(&[Seen]) -> bool) -> anyhow::Result<Vec<Seen>>;

    fn replace_rules(&mut self, rules: &RulesText) -> anyhow::Result<()>;

    /// The rules in force and the policies that are not `ACCEPT`, without what they have counted: to be compared.
    fn rules(&mut self) -> anyhow::Result<String>;

    /// The connection table as `conntrack -L` prints it.
    fn table(&mut self) -> anyhow::Result<Vec<String>>;

    fn counters(&mut self) -> anyhow::Result<BTreeMap<String, u64>>;
}

/// A lab whose hosts are namespaces.
pub struct Namespaces {
    pub lab: Lab,
    pub state: state::State,
    pub middle: Box<dyn Middle>,
    /// Connections that outlive their step, by name.
    pub(crate) sessions: BTreeMap<String, clients::Kept>,
    start: Instant,
    /// What the step that is under way waits for.
    pub(crate) awaits: Awaits,
    /// Whether links can be impaired, or why not; once that has been tried.
    netem: Option<Result<(), String>>,
}

impl Namespaces {
    pub fn new(lab: Lab, state: state::State, middle: Box<dyn Middle>) -> Self {
        Self {
            lab,
            state,
            middle,
            sessions: BTreeMap::new(),
            start: command::now(),
            awaits: Awaits::Silence,
            netem: None,
        }
    }

    /// Why links cannot be impaired here, if they cannot.
    fn lacks_netem(&mut self) -> Option<String> {
        let tried = self.netem.get_or_insert_with(|| build::try_netem(&self.lab, &self.state));
        tried.clone().err()
    }

    /// Closes every connection that is still kept.
    pub fn sessions_end(&mut self) {
        self.sessions.clear();
    }

    /// Notes that all of it stands, and stays, with the rules that it has now.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        let rules = self.middle.rules()?;
        let file = self.state.path(state::RULES);
        fs::write(&file, rules).with_context(|| format!("cannot write {}", file.display()))?;
        self.state.finish()
    }

    /// Whether the rules are no longer those that it came up with: somebody has changed them by hand, or a command that
    /// takes tests was killed.
    pub fn has_other_rules(&mut self) -> anyhow::Result<bool> {
        let now = self.middle.rules()?;
        Ok(fs::read_to_string(self.state.path(state::RULES)).is_ok_and(|kept| kept != now))
    }

    /// Brings the lab's own rules back, if a step may have replaced them.
    pub fn restore_rules(&mut self) -> anyhow::Result<()> {
        let steps = self.lab.tests.iter().flat_map(|test| &test.steps);
        if !steps.into_iter().any(|step| matches!(step.action, Action::Rules(_))) {
            return Ok(());
        }
        let own = RulesText { v4: self.lab.router.rules.clone(), v6: self.lab.router.rules6.clone() };
        self.middle.replace_rules(&own)
    }
}

impl Runner for Namespaces {
    fn kind(&self) -> RunnerKind {
        self.middle.kind()
    }

    fn lacks(&mut self, step: &Step) -> Option<String> {
        let netem = || if step.impair.is_empty() { None } else { self.lacks_netem() };
        step.action.lacks_in_real_time().or_else(netem)
    }

    fn act(&mut self, action: &Action, awaits: Awaits) -> Result<Observation, RunError> {
        self.awaits = awaits;
        action.act(self).map_err(|error| match error.downcast::<clients::Late>() {
            Ok(late) => RunError::Late(late.to_string()),
            Err(error) => RunError::Broken(format!("{error:#}")),
        })
    }

    fn impair(&mut self, links: &[(IfaceId, Impairment)]) -> Result<(), RunError> {
        build::impair(&self.lab, &self.state, links).map_err(|error| RunError::Broken(format!("{error:#}")))
    }

    fn table(&mut self) -> Result<Vec<String>, RunError> {
        self.middle.table().map_err(|error| RunError::Broken(format!("{error:#}")))
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wait(&mut self, duration: Duration) {
        command::pause(duration);
    }
}

//! What is allowed: tables × hooks → chains, immutable once built.
//!
//! ```text
//!   text ──save──→ rules with their places ──validate──→ Ruleset ──evaluate──→ verdict
//! ```
//!
//! [`Ruleset::load`] reads what iptables-save writes and checks all of it: past that point a [`ChainId`] exists, a
//! jump leads somewhere and no chain leads back to itself. What cannot be honoured is refused there, with its place
//! and the reason; nothing is accepted and then ignored.

#![forbid(unsafe_code)]

mod check;
mod kept;
pub mod matches;
pub mod matrix;
pub mod rule;
mod rules;
pub mod targets;
mod text;
mod walk;

pub use crate::base::{Hook, RejectWith, RuleId, Table};
pub use text::ipset;
pub use text::names::protocol_name;
pub use text::options::{Opt, nearest};
pub use walk::context;
pub use walk::let_in::LetIn;

/// The port of a service that has a name, whatever protocol it is of.
pub fn service_port(name: &str) -> Option<u16> {
    match text::names::service_port(name, text::names::Services::all())? {
        Ok(port) | Err((port, _)) => Some(port),
    }
}

pub use rule::{Count, Matches, Rule};
pub use rules::Rules;
pub use targets::Target;

use crate::nat;
use crate::packet::{Family, Packet};
use core::fmt;
use kept::shared::{Copies, Named, Shared};
use walk::classify::Classifier;
use walk::counters::Counters;
use walk::memo::Generation;

/// Which chain of its table; it exists only in a checked ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(u16);

impl ChainId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a base chain says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop(RuleId),
    /// The policy of the chain is DROP and no rule decided.
    DropByPolicy(RuleId),
    /// A match of the rule needs a header that is not there.
    DropTruncated(RuleId),
    Reject(RejectWith, RuleId),
    /// A rule of the nat table says how the connection is translated: [`Ruleset::translation`].
    Translate(RuleId),
}

/// What happens to a packet that no rule of a base chain decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

impl Policy {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accept => "ACCEPT",
            Self::Drop => "DROP",
        }
    }
}

/// One chain, with its rules in order.
#[derive(Debug)]
pub struct Chain {
    pub name: String,
    /// Only base chains have one.
    pub policy: Option<Policy>,
    /// What the text set the policy's counters to.
    pub initial: Count,
    pub rules: Vec<Rule>,
    /// Where the counters of its rules begin; the policy's follow.
    first_slot: usize,
    /// Finds the rules that may hold, in a chain that is long enough.
    classifier: Option<Classifier>,
    /// How many rules from the first on say the same of every packet of a connection.
    steady: u32,
}

/// The chains of one table: base chains in the order of the hooks, then the others by name.
#[derive(Debug, Default)]
pub struct Chains {
    chains: Vec<Chain>,
}

impl Chains {
    fn copied(&self, copies: &Copies<'_>) -> Self {
        let rule = |rule: &Rule| Rule {
            matches: Matches {
                listed: rule.matches.listed.iter().map(|listed| listed.copied(copies)).collect(),
                ..rule.matches.clone()
            },
            target: rule.target.copied(copies),
            ..rule.clone()
        };
        let chain = |chain: &Chain| Chain {
            name: chain.name.clone(),
            rules: chain.rules.iter().map(rule).collect(),
            classifier: chain.classifier.clone(),
            ..*chain
        };
        Self { chains: self.chains.iter().map(chain).collect() }
    }
}

/// All tables of one family.
///
/// Invariant: every [`ChainId`] in it exists, and no chain leads back to itself.
#[derive(Debug)]
pub struct Ruleset {
    pub family: Family,
    tables: [Chains; Table::COUNT],
    /// The base chain of each table at each hook.
    heads: [[Option<ChainId>; 5]; Table::COUNT],
    /// Tables that the text names, in the order in which iptables-save prints them.
    order: Vec<Table>,
    counters: Counters,
    generation: Generation,
    /// A rule may make a packet longer.
    grows: bool,
    /// What a ruleset in place of this one takes over.
    named: Named,
}

/// No rules: every chain accepts, as one does that is not there.
impl Default for Ruleset {
    fn default() -> Self {
        Self {
            family: Family::Ipv4,
            tables: Default::default(),
            heads: [[None; 5]; Table::COUNT],
            order: Vec::new(),
            counters: Counters::new(0),
            generation: Generation::default(),
            grows: false,
            named: Named::default(),
        }
    }
}

/// One thing wrong with a ruleset's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// From 1; 0 where it is about no line.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What has no place in the text is said without one.
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

impl core::error::Error for RuleError {}

/// The text of a ruleset's file.
///
/// # Errors
/// The first byte that is no UTF-8, and where it stands.
pub fn text_of(file: Vec<u8>) -> Result<String, RuleError> {
    String::from_utf8(file).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let file = error.into_bytes();
        let before = String::from_utf8_lossy(&file[..at]);
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        RuleError {
            line: before.matches('\n').count() + 1,
            column,
            message: format!("byte 0x{:02x} is no text in UTF-8", file[at]),
            hint: Some("save the file as UTF-8, or write the comment without accents".to_owned()),
        }
    })
}

/// A loaded ruleset, and what deserves a second look in it.
#[derive(Debug)]
pub struct Loaded {
    pub ruleset: Ruleset,
    pub warnings: Vec<RuleError>,
    /// Lines say themselves that they are for the other family, and were not read.
    pub passed_over: bool,
}

impl Ruleset {
    /// Reads iptables-save text. `ifaces` are the names that `-i` and `-o` may mean, in the order of their ids.
    ///
    /// Counters in the text count only where a rule sets them with `-c`, as with `iptables-restore`.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn load(text: &str, family: Family, ifaces: &[String]) -> Result<Loaded, Vec<RuleError>> {
        text::save::load(text, family, ifaces, false, None)
    }

    /// As [`Ruleset::load`], in the place of another ruleset: lists of `-m recent`, tables of `-m hashlimit` and what
    /// rules added to sets live on where both name them. Limits, quotas and the like begin anew.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn load_after(
        &self,
        text: &str,
        family: Family,
        ifaces: &[String],
    ) -> Result<Loaded, Vec<RuleError>> {
        text::save::load(text, family, ifaces, false, Some(&self.named))
    }

    /// The same rules, as the ones of a router that came into force as such a number.
    fn of_generation(self, generation: Generation) -> Self {
        Self { generation, ..self }
    }

    /// The same rules with what they remember, changing nothing of these; their counters begin anew.
    pub(super) fn copied(&self) -> Self {
        let copies = Copies::of(&self.named);
        let tables = self.tables.each_ref().map(|table| table.copied(&copies));
        let Self { family, heads, generation, grows, .. } = *self;
        let counters = Counters::new(self.counters.slots());
        let (order, named) = (self.order.clone(), copies.into_named());
        Self { family, tables, heads, order, counters, generation, grows, named }
    }

    fn naming(self, shared: Shared<'_>) -> Self {
        Self { named: shared.finish(), ..self }
    }

    /// As [`Ruleset::load`], but counters go on from where the text has them, as with `iptables-restore -c`.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn load_with_counters(
        text: &str,
        family: Family,
        ifaces: &[String],
    ) -> Result<Loaded, Vec<RuleError>> {
        text::save::load(text, family, ifaces, true, None)
    }

    /// `filter/FORWARD/1`, for people and for `replay`; behind the last rule it is the policy: `filter/FORWARD/policy`.
    pub fn rule_name(&self, rule: RuleId) -> String {
        let Some(chain) = self.tables[rule.table as usize].chains.get(usize::from(rule.chain)) else {
            return format!("{}/?/{}", rule.table.word(), rule.index + 1);
        };
        if rule.index as usize == chain.rules.len() && chain.policy.is_some() {
            return format!("{}/{}/policy", rule.table.word(), chain.name);
        }
        format!("{}/{}/{}", rule.table.word(), chain.name, rule.index + 1)
    }

    /// The tables that the text named, in the order in which iptables-save prints them.
    pub fn tables(&self) -> &[Table] {
        &self.order
    }

    /// The chains of a table: base chains first, then the others by name. Their place is their id.
    pub fn chains(&self, table: Table) -> &[Chain] {
        &self.tables[table as usize].chains
    }

    /// Whether a rule asks how much a connection has carried, so that it must be counted (`nf_conntrack_acct`).
    pub fn counts_connections(&self) -> bool {
        let rules = self.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
        rules.flat_map(|r| &r.matches.listed).any(|m| matches!(m, matches::Match::Connbytes(_)))
    }

    /// How many bytes the rules may add to this packet: the frame must have them behind it.
    #[inline]
    pub fn room_for(&self, pkt: &Packet<'_>) -> usize {
        if self.grows && targets::Tcpmss::may_grow(pkt) { targets::Tcpmss::GROWTH } else { 0 }
    }

    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.chains(id.table).get(usize::from(id.chain))?.rules.get(id.index as usize)
    }

    /// How a rule of the nat table translates, if it does.
    pub fn translation(&self, by: RuleId) -> Option<&nat::Target> {
        self.rule(by)?.target.translation()
    }

    /// How often the rule held, or the policy decided, so far.
    pub fn count(&self, id: RuleId) -> Count {
        let Some(chain) = self.chains(id.table).get(usize::from(id.chain)) else { return Count::default() };
        let mut count = match chain.rules.get(id.index as usize) {
            Some(rule) => rule.initial,
            None => chain.initial,
        };
        let slot = chain.first_slot + (id.index as usize).min(chain.rules.len());
        count += self.counters.total(slot);
        count -= self.counters.zero(slot);
        count
    }

    /// Has the rules of a chain, and its policy, count from nothing again.
    pub fn zero_counts(&self, table: Table, chain: u16) {
        let Some(place) = self.chains(table).get(usize::from(chain)) else { return };
        for index in 0..=place.rules.len() as u32 {
            let mut count = self.count(RuleId { family: self.family, table, chain, index });
            let slot = place.first_slot + index as usize;
            count += self.counters.zero(slot);
            self.counters.set_zero(slot, count);
        }
    }
}

#[cfg(test)]
mod tests;

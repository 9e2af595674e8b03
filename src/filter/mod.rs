//! What is allowed: tables × hooks → chains, immutable once built.

#![forbid(unsafe_code)]

use crate::context::Context;
use crate::packet::{Family, Packet};
use crate::record::Recorder;
use core::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Raw,
    Mangle,
    Nat,
    Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Which rule: family, table, chain and place in it, all as in the loaded ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    pub family: Family,
    pub table: Table,
    pub chain: u16,
    /// From 0; `iptables -L --line-numbers` counts from 1.
    pub index: u32,
}

/// What REJECT answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectWith {
    TcpReset,
    /// Type and code of an ICMP or ICMPv6 error, by the family of the packet.
    Icmp(u8, u8),
}

/// What a base chain says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop(RuleId),
    /// The policy of the chain is DROP and no rule decided.
    DropByPolicy(RuleId),
    Reject(RejectWith, RuleId),
}

#[derive(Debug)]
pub struct Ruleset {
    pub family: Family,
}

/// One thing wrong with a ruleset's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

/// A loaded ruleset, and what deserves a second look in it.
#[derive(Debug)]
pub struct Loaded {
    pub ruleset: Ruleset,
    pub warnings: Vec<RuleError>,
}

impl Ruleset {
    /// Reads iptables-save text. `ifaces` are the names that `-i` and `-o` may mean.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn load(_text: &str, family: Family, _ifaces: &[String]) -> Result<Loaded, Vec<RuleError>> {
        Ok(Loaded { ruleset: Self { family }, warnings: Vec::new() })
    }

    /// Walks the base chain of `table` at `hook`; a chain that does not exist accepts.
    pub fn run<R: Recorder>(
        &self,
        _table: Table,
        _hook: Hook,
        _pkt: &mut Packet,
        _ctx: &mut Context<R>,
    ) -> Verdict {
        Verdict::Accept
    }

    /// `filter/FORWARD/1`, for people and for `replay`.
    pub fn rule_name(&self, rule: RuleId) -> String {
        format!("{:?}/{}/{}", rule.table, rule.chain, rule.index + 1)
    }
}

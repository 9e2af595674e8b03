//! Where in the netfilter diagram rules stand: tables, hooks, and the name of one rule.

#![forbid(unsafe_code)]

use super::Family;

/// A table of rules, in the order in which a packet meets them at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Before tracking: `NOTRACK`, `CT`.
    Raw,
    /// Changes to headers and marks.
    Mangle,
    /// Translation of the first packet of a connection.
    Nat,
    /// What may pass.
    Filter,
    /// Security labels, which there are none of here: it may be there, and says nothing.
    Security,
}

impl Table {
    /// How many tables there are.
    pub const COUNT: usize = 5;
    /// All of them, in their order.
    pub const ALL: [Self; Self::COUNT] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter, Self::Security];

    /// Its name in lower case, as behind the `*` of iptables-save.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
            Self::Security => "security",
        }
    }

    /// The base chains of the table, in the order in which iptables-save prints them.
    pub const fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Raw => &[Hook::Prerouting, Hook::Output],
            Self::Mangle => Hook::ALL,
            Self::Nat => &[Hook::Prerouting, Hook::Input, Hook::Output, Hook::Postrouting],
            Self::Filter | Self::Security => &[Hook::Input, Hook::Forward, Hook::Output],
        }
    }
}

/// A place on a packet's way where rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// It has come in.
    Prerouting,
    /// It is for the router itself.
    Input,
    /// It is to leave by another interface.
    Forward,
    /// The router has written it.
    Output,
    /// It is about to leave.
    Postrouting,
}

impl Hook {
    /// All of them, in the order of the netfilter diagram.
    pub const ALL: &'static [Self] =
        &[Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];

    /// The name of the base chain there.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        }
    }
}

/// Which rule: family, table, chain and place in it, all as in the loaded ruleset.
///
/// The place behind the last rule is the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    /// Which of the two rulesets it is in.
    pub family: Family,
    /// Its table.
    pub table: Table,
    /// The place of its chain in the table.
    pub chain: u16,
    /// From 0; `iptables -L --line-numbers` counts from 1.
    pub index: u32,
}

/// What REJECT answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectWith {
    /// A TCP segment that ends the connection.
    TcpReset,
    /// Type and code of an ICMP or ICMPv6 error, by the family of the packet.
    Icmp(u8, u8),
}

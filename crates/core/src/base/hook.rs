//! Where in the netfilter diagram rules stand: tables, hooks, and the name of one rule.

#![forbid(unsafe_code)]

use super::Family;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Raw,
    Mangle,
    Nat,
    Filter,
    /// Security labels, which there are none of here: it may be there, and says nothing.
    Security,
}

impl Table {
    pub const COUNT: usize = 5;
    pub const ALL: [Self; Self::COUNT] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter, Self::Security];

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl Hook {
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

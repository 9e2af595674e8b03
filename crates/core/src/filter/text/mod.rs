//! Rules as text: words, options and values, read and written as iptables-save has them.

#![forbid(unsafe_code)]

pub(super) mod base;
pub(super) mod foreign;
pub(super) mod hints;
pub mod ipset;
pub(super) mod lex;
pub(super) mod names;
pub(super) mod options;
pub(super) mod rule_line;
pub(super) mod save;
pub(super) mod shell;
pub(super) mod value;

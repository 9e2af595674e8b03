//! Helpers: what reads a connection's payload to learn which other connection it announces.

#![forbid(unsafe_code)]

use crate::packet::tuple::{PROTO_TCP, PROTO_UDP};

/// A helper, as `-j CT --helper` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Helper {
    Ftp,
    Tftp,
}

impl Helper {
    pub const ALL: &'static [Self] = &[Self::Ftp, Self::Tftp];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|helper| helper.name() == name)
    }

    /// The protocol of the connections that it reads.
    pub const fn proto(self) -> u8 {
        match self {
            Self::Ftp => PROTO_TCP,
            Self::Tftp => PROTO_UDP,
        }
    }

    /// Where its servers usually listen.
    pub const fn usual_port(self) -> u16 {
        match self {
            Self::Ftp => 21,
            Self::Tftp => 69,
        }
    }
}

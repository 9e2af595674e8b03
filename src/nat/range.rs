//! What a rule of the nat table asks for: which address, which port, and how they are chosen.

#![forbid(unsafe_code)]

use core::net::IpAddr;

/// Where a translated address and port may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First and last address; `None`: the address stays, or the target knows it (MASQUERADE, REDIRECT).
    pub addrs: Option<(IpAddr, IpAddr)>,
    /// First and last port, or identifier of ICMP; `None`: any, and the packet's own comes first.
    pub ports: Option<(u16, u16)>,
    /// DNAT `first-last/base`: what port `base` asks for is found at the first one, and so on.
    pub base: Option<u16>,
    /// `--random`: the search for a port begins anywhere.
    pub random: bool,
    /// `--random-fully`, which is the same today, and is written as it was read.
    pub random_fully: bool,
    /// The address depends on the source alone.
    pub persistent: bool,
}

impl Range {
    /// Whether ports are drawn, and no mapping is used again.
    pub const fn is_random(&self) -> bool {
        self.random || self.random_fully
    }
}

/// What a rule of the nat table decides of a connection, once and for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Another destination.
    Dnat(Range),
    /// Another source.
    Snat(Range),
    /// Another source: the address of the interface where the packet leaves. [`Range::addrs`] is `None`.
    Masquerade(Range),
    /// Another destination: the router itself. [`Range::addrs`] is `None`.
    Redirect(Range),
    /// Another network around the same host part, of the source or of the destination, as the hook has it.
    Netmap {
        /// Its host bits are zero.
        network: IpAddr,
        prefix_len: u8,
    },
}

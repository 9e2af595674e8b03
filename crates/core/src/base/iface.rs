//! Interfaces: where packets enter and leave. `port` always means TCP or UDP in this code.

#![forbid(unsafe_code)]

use super::{Mac, Prefix};

/// The most interfaces one router may have.
pub const MAX_IFACES: usize = 1024;

/// Which interface: its place in the router's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfaceId(pub u16);

impl IfaceId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One interface of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iface {
    /// What `-i` and `-o` match.
    pub name: String,
    pub mac: Mac,
    /// Largest IP packet that may leave here.
    pub mtu_bytes: usize,
    /// Own addresses, each with the network that is reached here; empty in bridge mode.
    pub addresses: Vec<Prefix>,
}

impl Iface {
    pub const DEFAULT_MTU_BYTES: usize = 1500;

    /// An interface without addresses, whose MAC is made from its place: `02:00:00:00:PLACE:01`.
    pub fn new(name: impl Into<String>, id: IfaceId) -> Self {
        let [high, low] = (id.0 + 1).to_be_bytes();
        Self {
            name: name.into(),
            mac: Mac([2, 0, 0, high, low, 1]),
            mtu_bytes: Self::DEFAULT_MTU_BYTES,
            addresses: Vec::new(),
        }
    }
}

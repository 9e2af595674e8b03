//! Interfaces: where packets enter and leave. `port` always means TCP or UDP in this code.

#![forbid(unsafe_code)]

use super::{Mac, Prefix};

/// The most interfaces one router may have.
pub const MAX_IFACES: usize = 1024;

/// Which interface: its place in the router's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfaceId(pub u16);

impl IfaceId {
    /// The place as an index into the list of interfaces.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What comes in and goes out by an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Medium {
    /// Ethernet frames, without preamble and checksum: a TAP, a network card.
    #[default]
    Ethernet,
    /// Bare IP packets: a TUN, a VPN. There are no link addresses, and so neither ARP nor neighbour discovery: whatever
    /// is routed to such an interface leaves it.
    Ip,
}

/// One interface of the router: [`Iface::new`] makes one, whose fields are then set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Iface {
    /// What `-i` and `-o` match.
    pub name: String,
    /// Its own link address; nobody sees that of an interface without a link layer ([`Medium::Ip`]).
    pub mac: Mac,
    /// Largest IP packet that may leave here, in bytes.
    pub mtu_bytes: usize,
    /// Own addresses, each with the network that is reached here; empty in bridge mode.
    pub addresses: Vec<Prefix>,
    /// Whether Ethernet frames or bare IP packets come and go here.
    pub medium: Medium,
}

impl Iface {
    /// The MTU of a new interface: that of Ethernet.
    pub const DEFAULT_MTU_BYTES: usize = 1500;

    /// An Ethernet interface without addresses, whose MAC is made from its place: `02:00:00:00:PLACE:01`. `id` is the
    /// place that it will have among the router's interfaces.
    pub fn new(name: impl Into<String>, id: IfaceId) -> Self {
        let [high, low] = (id.0 + 1).to_be_bytes();
        Self {
            name: name.into(),
            mac: Mac([2, 0, 0, high, low, 1]),
            mtu_bytes: Self::DEFAULT_MTU_BYTES,
            addresses: Vec::new(),
            medium: Medium::Ethernet,
        }
    }

    /// The same with another medium.
    #[must_use]
    pub fn with_medium(self, medium: Medium) -> Self {
        Self { medium, ..self }
    }

    /// The same with one more address of its own, and the network around it.
    #[must_use]
    pub fn with_address(mut self, address: Prefix) -> Self {
        self.addresses.push(address);
        self
    }
}

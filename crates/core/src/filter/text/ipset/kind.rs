//! The types of sets: what their elements are made of.

#![forbid(unsafe_code)]

/// What a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ip,
    Net,
    IpPort,
    NetPort,
    IpPortIp,
    IpPortNet,
    NetIface,
    BitmapIp,
    BitmapIpMac,
    BitmapPort,
    List,
}

/// A type, its name, and what it was called when each type was a module of its own.
type Named = (Kind, &'static str, &'static str);

impl Kind {
    const ALL: [Named; 11] = [
        (Self::Ip, "hash:ip", "iphash"),
        (Self::Net, "hash:net", "nethash"),
        (Self::IpPort, "hash:ip,port", "ipporthash"),
        (Self::NetPort, "hash:net,port", "netporthash"),
        (Self::IpPortIp, "hash:ip,port,ip", "ipportiphash"),
        (Self::IpPortNet, "hash:ip,port,net", "ipportnethash"),
        (Self::NetIface, "hash:net,iface", "netifacehash"),
        (Self::BitmapIp, "bitmap:ip", "ipmap"),
        (Self::BitmapIpMac, "bitmap:ip,mac", "macipmap"),
        (Self::BitmapPort, "bitmap:port", "portmap"),
        (Self::List, "list:set", "setlist"),
    ];

    pub(super) fn by_name(name: &str) -> Option<Self> {
        let named = Self::ALL.iter().find(|(_, new, old)| [*new, *old].contains(&name));
        named.map(|(kind, ..)| *kind)
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
        Self::ALL.iter().map(|(_, name, _)| *name)
    }

    /// How many of `src` and `dst` a rule must name.
    pub(in crate::filter) const fn dimensions(self) -> usize {
        match self {
            Self::Ip | Self::Net | Self::BitmapIp | Self::BitmapPort | Self::List => 1,
            Self::IpPort | Self::NetPort | Self::NetIface | Self::BitmapIpMac => 2,
            Self::IpPortIp | Self::IpPortNet => 3,
        }
    }

    /// Elements are found by hash: the set has a family and a size that it may grow to.
    pub(super) const fn is_hash(self) -> bool {
        !self.is_bitmap() && !matches!(self, Self::List)
    }

    /// Elements are numbers within a range.
    pub(super) const fn is_bitmap(self) -> bool {
        matches!(self, Self::BitmapIp | Self::BitmapIpMac | Self::BitmapPort)
    }

    /// One part of an element is a network, and an element may be an exception.
    pub(super) const fn has_networks(self) -> bool {
        matches!(self, Self::Net | Self::NetPort | Self::IpPortNet | Self::NetIface)
    }

    /// The network is the second address, not the first.
    pub(super) const fn network_is_second(self) -> bool {
        matches!(self, Self::IpPortNet)
    }

    /// It says nothing of addresses, and so is for both families.
    pub(super) const fn is_for_both_families(self) -> bool {
        matches!(self, Self::BitmapPort | Self::List)
    }

    /// What an element looks like.
    pub(in crate::filter) const fn example(self) -> &'static str {
        match self {
            Self::Ip | Self::BitmapIp => "192.0.2.1",
            Self::Net => "192.0.2.0/24",
            Self::IpPort => "192.0.2.1,tcp:80",
            Self::NetPort => "192.0.2.0/24,tcp:80",
            Self::IpPortIp => "192.0.2.1,tcp:80,198.51.100.1",
            Self::IpPortNet => "192.0.2.1,tcp:80,198.51.100.0/24",
            Self::NetIface => "192.0.2.0/24,eth0",
            Self::BitmapIpMac => "192.0.2.1,02:00:00:00:00:01",
            Self::BitmapPort => "80",
            Self::List => "SET",
        }
    }
}

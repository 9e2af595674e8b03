//! IP addresses of both families in one plain value.

#![forbid(unsafe_code)]

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The two families that the router forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Version 4: addresses of 4 bytes.
    Ipv4 = 4,
    /// Version 6: addresses of 16 bytes.
    Ipv6 = 6,
}

impl From<IpAddr> for Family {
    fn from(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

impl Family {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// Bits in an address of this family.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }

    /// `AF_INET` and `AF_INET6`, as conntrack's listings print them.
    pub const fn af(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }
}

/// An address in network byte order; an IPv4 address takes the first four bytes and leaves the rest zero.
///
/// The family is kept beside it (in a tuple, a packet, a ruleset), so that 16 bytes suffice.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr([u8; 16]);

impl Addr {
    /// `0.0.0.0` and `::`.
    pub const UNSPECIFIED: Self = Self([0; 16]);

    /// From the four bytes of an IPv4 address.
    #[inline]
    pub const fn from_v4(b: [u8; 4]) -> Self {
        // As one number, which stays in registers where an array would be put together in memory.
        Self((u32::from_le_bytes(b) as u128).to_le_bytes())
    }

    /// From the sixteen bytes of an IPv6 address.
    #[inline]
    pub const fn from_v6(b: [u8; 16]) -> Self {
        Self(b)
    }

    /// The four bytes of an IPv4 address.
    #[inline]
    pub const fn v4(self) -> [u8; 4] {
        [self.0[0], self.0[1], self.0[2], self.0[3]]
    }

    /// The sixteen bytes of an IPv6 address.
    pub const fn v6(self) -> [u8; 16] {
        self.0
    }

    /// The bytes of an address of `family`, in network order.
    pub fn bytes(&self, family: Family) -> &[u8] {
        match family {
            Family::Ipv4 => &self.0[..4],
            Family::Ipv6 => &self.0,
        }
    }

    /// The address as a number whose top bits are its first ones: what prefixes mask.
    #[inline]
    pub const fn bits(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// From a number, as [`Addr::bits`] gives it.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }

    /// The address as the standard library has it.
    pub fn to_ip(self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::from(self.v4())),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }

    /// Whether it is `0.0.0.0` or `::`.
    pub fn is_unspecified(self) -> bool {
        self == Self::UNSPECIFIED
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::from_v4(ip.octets()),
            IpAddr::V6(ip) => Self::from_v6(ip.octets()),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4(ip.octets())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        Self::from_v6(ip.octets())
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0[4..].iter().all(|&b| b == 0) {
            write!(f, "{}", self.to_ip(Family::Ipv4))
        } else {
            write!(f, "{}", self.to_ip(Family::Ipv6))
        }
    }
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// An address in the network; of an interface, its own one.
    pub addr: Addr,
    /// How many bits at the beginning belong to the network.
    pub len: u8,
    /// Which kind of address it is.
    pub family: Family,
}

impl Prefix {
    /// The network of `addr` with `len` leading bits; host bits are kept in `addr`.
    ///
    /// # Panics
    /// If `len` is longer than an address of `family`.
    pub fn new(addr: Addr, len: u8, family: Family) -> Self {
        assert!(len <= family.bits(), "prefix length {len} exceeds the address");
        Self { addr, len, family }
    }

    /// Ones where the network is, zeros where the host is, as [`Addr::bits`] has them.
    pub const fn mask(&self) -> u128 {
        if self.len == 0 { 0 } else { u128::MAX << (128 - self.len as u32) }
    }

    /// Whether an address of the same family is in the network.
    pub const fn contains(&self, addr: Addr) -> bool {
        (addr.bits() ^ self.addr.bits()) & self.mask() == 0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr.to_ip(self.family), self.len)
    }
}

/// A link address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of everybody on a link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Group addresses: broadcast and multicast.
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::str::FromStr for Mac {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let mut mac = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut mac {
            let part = parts.next().ok_or(())?;
            if part.is_empty() || part.len() > 2 {
                return Err(());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        if parts.next().is_some() { Err(()) } else { Ok(Self(mac)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_network_and_nothing_beside_it() {
        let net = Prefix::new(Addr::from_v4([192, 0, 2, 0]), 24, Family::Ipv4);
        assert!(net.contains(Addr::from_v4([192, 0, 2, 255])));
        assert!(!net.contains(Addr::from_v4([192, 0, 3, 0])));
        let all = Prefix::new(Addr::UNSPECIFIED, 0, Family::Ipv6);
        assert!(all.contains(Addr::from_v6([0xff; 16])));
        let host = Prefix::new(Addr::from_v6([1; 16]), 128, Family::Ipv6);
        assert!(host.contains(Addr::from_v6([1; 16])) && !host.contains(Addr::from_v6([2; 16])));
    }

    #[test]
    fn link_addresses_parse_and_print() {
        assert_eq!("02:00:00:00:01:0a".parse::<Mac>().map(|m| m.to_string()), Ok("02:00:00:00:01:0a".into()));
        for bad in
            ["", "02:00", "02:00:00:00:01:0g", "02:00:00:00:01:0a:ff", "002:0:0:0:0:0", "02:00:00:00:01:"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}

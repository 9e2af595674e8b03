//! Who is who where addresses are translated: hosts of each trace, and the addresses that rules name.

#![forbid(unsafe_code)]

use super::super::{v4, v6};
use stateway_core::packet::{Addr, Family};

/// Hosts that each trace has for itself, on each side.
pub(super) const HOSTS_OF_A_TRACE: u64 = 4;
const TRACES: u64 = 10_000;

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Net(pub(super) Family);

impl Net {
    /// A host of the trace's own, behind that interface.
    pub(super) fn host(self, port: usize, serial: u64, n: u64) -> Addr {
        let host = (1024 + serial % TRACES * HOSTS_OF_A_TRACE + n) as u16;
        match self.0 {
            Family::Ipv4 => v4([198, 18 + port as u8], host),
            Family::Ipv6 => v6(1 + port as u8, host),
        }
    }

    /// The router on that side.
    pub(super) fn router(self, port: usize) -> Addr {
        match (self.0, port) {
            (Family::Ipv4, 0) => Addr::from_v4([192, 0, 2, 1]),
            (Family::Ipv4, _) => Addr::from_v4([198, 51, 100, 1]),
            (Family::Ipv6, _) => v6(1 + port as u8, 1),
        }
    }

    /// A server that rules lead to, behind that interface.
    pub(super) fn server(self, port: usize, n: u8) -> Addr {
        match (self.0, port) {
            (Family::Ipv4, 0) => Addr::from_v4([192, 0, 2, 16 + n]),
            (Family::Ipv4, _) => Addr::from_v4([198, 51, 100, 16 + n]),
            (Family::Ipv6, _) => v6(1 + port as u8, 16 + u16::from(n)),
        }
    }

    /// An address that nobody has, which is translated from or to; it lies to the right.
    pub(super) fn public(self, n: u8) -> Addr {
        match self.0 {
            Family::Ipv4 => Addr::from_v4([203, 0, 113, n]),
            Family::Ipv6 => v6(3, n.into()),
        }
    }

    /// Everybody behind that interface.
    pub(super) const fn side(self, port: usize) -> &'static str {
        match (self.0, port) {
            (Family::Ipv4, 0) => "198.18.0.0/16",
            (Family::Ipv4, _) => "198.19.0.0/16",
            (Family::Ipv6, 0) => "2001:db8:1::/48",
            (Family::Ipv6, _) => "2001:db8:2::/48",
        }
    }

    /// A network of eight addresses, of which this is one.
    pub(super) fn eight(self, addr: Addr) -> String {
        format!("{}/{}", self.text(addr), self.0.bits() - 3)
    }

    pub(super) fn text(self, addr: Addr) -> String {
        addr.to_ip(self.0).to_string()
    }

    /// `ADDR[-ADDR][:PORTS]`, with brackets in IPv6.
    pub(super) fn target(self, first: Addr, last: Addr, ports: &str) -> String {
        let addrs = if first == last {
            self.text(first)
        } else {
            format!("{}-{}", self.text(first), self.text(last))
        };
        match (self.0, ports) {
            (_, "") => addrs,
            (Family::Ipv4, _) => format!("{addrs}:{ports}"),
            (Family::Ipv6, _) => format!("[{addrs}]:{ports}"),
        }
    }
}

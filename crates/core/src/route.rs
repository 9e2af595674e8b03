//! Longest prefix match: where a packet goes, and which own address speaks to whom.
//!
//! As in Linux the local addresses come first, then the most specific network: those of the interfaces and the
//! static routes in one table. IPv6 link-local addresses mean something only on an interface, and are looked up there.

#![forbid(unsafe_code)]

mod spans;

use crate::base::iface::{Iface, IfaceId};
use crate::config::{RouteConfig, RouteTarget};
use crate::packet::{Addr, Family, Mac, Prefix};
use core::iter;
use prefix_trie::PrefixMap;
use spans::Spans;

/// What a destination is to this router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// One of its own addresses.
    Local,
    /// Every host of the network on this interface.
    Broadcast(IfaceId),
    Via(Hop),
    Blackhole,
    Unreachable,
    Prohibited,
}

/// Where a packet leaves, and whose link address it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub iface: IfaceId,
    /// `None`: the destination is a neighbour itself.
    pub gateway: Option<Addr>,
    /// Leading bits of the route's network.
    pub prefix_len: u8,
}

impl Hop {
    /// Whose link address a packet to `dst` gets.
    pub fn neighbour(&self, dst: Addr) -> Addr {
        self.gateway.unwrap_or(dst)
    }
}

/// The routing table with the addresses of the router. It does not change while the router lives.
#[derive(Debug)]
pub struct Routes {
    /// The longest matches, as packets ask for them.
    spans_v4: Spans<u32, Option<Route>>,
    spans_v6: Spans<u128, Option<Route>>,
    /// All IPv6 prefixes, for lookups that want a shorter match.
    v6: PrefixMap<(u128, u8), Route>,
    /// Own addresses of each interface, in the order in which they were given.
    own: Vec<Vec<Prefix>>,
}

/// No routes and no addresses.
impl Default for Routes {
    fn default() -> Self {
        Self::new(&[], &[], false)
    }
}

/// The same while it is put together.
struct Builder {
    v4: PrefixMap<(u32, u8), Route>,
    v6: PrefixMap<(u128, u8), Route>,
    own: Vec<Vec<Prefix>>,
}

impl Routes {
    /// `link_local`: every interface has an address made from its MAC (RFC 4291, appendix A), as on Linux.
    pub fn new(ifaces: &[Iface], routes: &[RouteConfig], link_local: bool) -> Self {
        let own = vec![Vec::new(); ifaces.len()];
        let mut table = Builder { v4: PrefixMap::new(), v6: PrefixMap::new(), own };
        for RouteConfig { to, target } in routes {
            let route = match *target {
                RouteTarget::Via { gateway, iface } => {
                    Route::Via(Hop { iface, gateway: Some(gateway), prefix_len: to.len })
                }
                RouteTarget::OnLink(iface) => Route::Via(Hop { iface, gateway: None, prefix_len: to.len }),
                RouteTarget::Blackhole => Route::Blackhole,
                RouteTarget::Unreachable => Route::Unreachable,
                RouteTarget::Prohibit => Route::Prohibited,
            };
            table.insert(*to, route);
        }
        // What is connected wins over a static route to the same network, and an own address over both.
        for (iface, address) in addresses(ifaces) {
            if !is_link_local(address.addr, address.family) {
                table.insert(address, Route::Via(Hop { iface, gateway: None, prefix_len: address.len }));
            }
        }
        for (iface, address) in addresses(ifaces) {
            table.add_own(iface, address);
        }
        if link_local {
            for (id, iface) in ids(ifaces) {
                if !table.own[id.index()].iter().any(|p| is_link_local(p.addr, p.family)) {
                    table.own[id.index()].push(Prefix::new(link_local_of(iface.mac), 64, Family::Ipv6));
                }
            }
        }
        table.build()
    }
}

impl Builder {
    fn add_own(&mut self, iface: IfaceId, address: Prefix) {
        self.own[iface.index()].push(address);
        let Prefix { addr, len, family } = address;
        if is_link_local(addr, family) {
            return;
        }
        let host = |addr| Prefix::new(addr, family.bits(), family);
        match family {
            Family::Ipv4 if len < 31 => {
                let everybody = Addr::from_bits(addr.bits() | !address.mask() & u128::MAX << 96);
                self.insert(host(everybody), Route::Broadcast(iface));
            }
            // Every router answers to the subnet's anycast address (RFC 4291 §2.6.1).
            Family::Ipv6 if len < 127 => {
                self.insert(host(Addr::from_bits(addr.bits() & address.mask())), Route::Local);
            }
            _ => {}
        }
        self.insert(host(addr), Route::Local);
    }

    fn insert(&mut self, to: Prefix, route: Route) {
        match to.family {
            Family::Ipv4 => drop(self.v4.insert((word_v4(to.addr), to.len), route)),
            Family::Ipv6 => drop(self.v6.insert((to.addr.bits(), to.len), route)),
        }
    }

    fn build(self) -> Routes {
        let Self { v4, v6, own } = self;
        let ends_v4 = v4.keys().flat_map(|(addr, len)| {
            let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
            iter::once(addr & !host).chain((addr | host).checked_add(1))
        });
        let ends_v6 = v6.keys().flat_map(|(addr, len)| {
            let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
            iter::once(addr & !host).chain((addr | host).checked_add(1))
        });
        Routes {
            spans_v4: Spans::new(ends_v4, |addr| v4.get_lpm(&(addr, 32)).map(|(_, route)| *route)),
            spans_v6: Spans::new(ends_v6, |addr| v6.get_lpm(&(addr, 128)).map(|(_, route)| *route)),
            v6,
            own,
        }
    }
}

impl Routes {
    /// The route to `dst`; `None` if there is none.
    ///
    /// `link` is where link-local addresses are looked for: the interface that a packet came from.
    pub fn lookup(&self, dst: Addr, family: Family, link: Option<IfaceId>) -> Option<Route> {
        if is_link_local(dst, family) {
            return self.lookup_link_local(dst, link?);
        }
        match family {
            Family::Ipv4 => *self.spans_v4.get(word_v4(dst)),
            Family::Ipv6 => *self.spans_v6.get(dst.bits()),
        }
    }

    /// On a link are its own networks of link-local addresses, which are `fe80::/64` and not all of `fe80::/10`; the rest is
    /// where a route through the interface leads.
    fn lookup_link_local(&self, dst: Addr, iface: IfaceId) -> Option<Route> {
        let mut own = self.own[iface.index()].iter().filter(|p| is_link_local(p.addr, p.family)).peekable();
        own.peek()?;
        let is_anycast = |p: &&Prefix| p.len < 127 && p.addr.bits() & p.mask() == dst.bits();
        if self.has(iface, dst, Family::Ipv6) || own.clone().any(|p| is_anycast(&p)) {
            return Some(Route::Local);
        }
        match own.find(|p| p.contains(dst)) {
            Some(network) => Some(Route::Via(Hop { iface, gateway: None, prefix_len: network.len })),
            None => self.static_hop_through(dst, iface),
        }
    }

    /// As [`Routes::lookup`] in IPv6, among the routes alone that do not lead away from `iface`: a shorter one that leads
    /// there comes before a longer one that does not (`RT6_LOOKUP_F_IFACE` in Linux).
    pub fn lookup_through(&self, dst: Addr, iface: IfaceId) -> Option<Route> {
        if is_link_local(dst, Family::Ipv6) {
            return self.lookup(dst, Family::Ipv6, Some(iface));
        }
        let leads_away = |route: &Route| matches!(route, Route::Via(hop) if hop.iface != iface);
        self.v6.cover_values(&(dst.bits(), 128)).filter(|route| !leads_away(route)).last().copied()
    }

    /// The most specific IPv6 route through `iface`, whatever leads elsewhere; `None` to what is of the interface itself.
    pub fn hop_through(&self, dst: Addr, iface: IfaceId) -> Option<Hop> {
        if self.has(iface, dst, Family::Ipv6) || self.has_anycast(iface, dst) {
            return None;
        }
        let route = match self.lookup(dst, Family::Ipv6, Some(iface)) {
            Some(on_link) if is_link_local(dst, Family::Ipv6) => Some(on_link),
            _ => self.static_hop_through(dst, iface),
        };
        match route? {
            Route::Via(hop) => Some(hop),
            Route::Local
            | Route::Broadcast(_)
            | Route::Blackhole
            | Route::Unreachable
            | Route::Prohibited => None,
        }
    }

    fn static_hop_through(&self, dst: Addr, iface: IfaceId) -> Option<Route> {
        let leads_there = |route: &&Route| matches!(route, Route::Via(hop) if hop.iface == iface);
        self.v6.cover_values(&(dst.bits(), 128)).filter(leads_there).last().copied()
    }

    /// Whether `addr` is an address of `iface`.
    pub fn has(&self, iface: IfaceId, addr: Addr, family: Family) -> bool {
        self.own[iface.index()].iter().any(|p| p.family == family && p.addr == addr)
    }

    /// Whether `addr` is an own address: of `iface`, or of any.
    pub fn is_own(&self, addr: Addr, family: Family, iface: Option<IfaceId>) -> bool {
        match iface {
            Some(iface) => self.has(iface, addr, family),
            None => self.own.iter().flatten().any(|p| p.family == family && p.addr == addr),
        }
    }

    /// Whether `addr` is the anycast address of a network of `iface`, and no own one besides.
    pub fn has_anycast(&self, iface: IfaceId, addr: Addr) -> bool {
        let mut own = self.own[iface.index()].iter().filter(|p| p.family == Family::Ipv6 && p.len < 127);
        own.any(|p| p.addr.bits() & p.mask() == addr.bits())
    }

    /// Own addresses of an interface.
    pub fn own(&self, iface: IfaceId) -> &[Prefix] {
        self.own.get(iface.index()).map_or(&[], Vec::as_slice)
    }

    /// The address of an interface that stands first where Linux lists them: the first one given; in IPv6 the last one
    /// that means something beyond the link, or else the link-local one.
    pub fn first_on(&self, iface: IfaceId, family: Family) -> Option<Addr> {
        let mut here = self.own(iface).iter().filter(|p| p.family == family);
        let found = match family {
            Family::Ipv4 => here.next(),
            Family::Ipv6 => {
                let beyond = here.clone().rfind(|p| !is_link_local(p.addr, p.family));
                beyond.or_else(|| here.next())
            }
        };
        found.map(|p| p.addr)
    }

    /// The address of the router's own that speaks to `dst`, which is reached by `hop`.
    pub fn source(&self, dst: Addr, family: Family, hop: Hop) -> Option<Addr> {
        self.source_on(hop.iface, hop.neighbour(dst), dst, family)
    }

    /// The own address that speaks to `dst` on `iface`, where its next hop is `neighbour`.
    ///
    /// IPv4: the first one of the neighbour's network, else the first of the interface, else any.
    /// IPv6: the closest one of the same scope (RFC 6724 §5, rules 2, 5 and 8), of equals the one that was given last.
    pub fn source_on(&self, iface: IfaceId, neighbour: Addr, dst: Addr, family: Family) -> Option<Addr> {
        let here = || self.own(iface).iter().filter(move |p| p.family == family);
        let elsewhere = || self.own.iter().flatten().filter(move |p| p.family == family);
        let found = match family {
            Family::Ipv4 => here()
                .find(|p| p.contains(neighbour))
                .or_else(|| here().next())
                .or_else(|| elsewhere().next()),
            Family::Ipv6 => {
                let wanted = is_link_local(dst, family);
                let fits = |p: &&Prefix| is_link_local(p.addr, p.family) == wanted;
                // Of several that are as close Linux takes the first of its list, which is the one that was given last.
                let closest = |best: Option<&'_ Prefix>, p: &Prefix| {
                    best.is_none_or(|best| shared_bits(p, dst) >= shared_bits(best, dst))
                };
                let mut best = None;
                for p in here().filter(fits) {
                    if closest(best, p) {
                        best = Some(p);
                    }
                }
                if best.is_none() && !wanted {
                    for p in elsewhere().filter(fits) {
                        if closest(best, p) {
                            best = Some(p);
                        }
                    }
                }
                best.or_else(|| here().next())
            }
        };
        found.map(|p| p.addr)
    }
}

fn shared_bits(own: &Prefix, dst: Addr) -> u32 {
    (own.addr.bits() ^ dst.bits()).leading_zeros().min(own.len.into())
}

fn ids(ifaces: &[Iface]) -> impl Iterator<Item = (IfaceId, &Iface)> {
    (0..).map(IfaceId).zip(ifaces)
}

fn addresses(ifaces: &[Iface]) -> impl Iterator<Item = (IfaceId, Prefix)> {
    ids(ifaces).flat_map(|(id, iface)| iface.addresses.iter().map(move |prefix| (id, *prefix)))
}

fn word_v4(addr: Addr) -> u32 {
    u32::from_be_bytes(addr.v4())
}

/// `fe80::/10`
pub fn is_link_local(addr: Addr, family: Family) -> bool {
    family == Family::Ipv6 && addr.bits() >> 118 == 0xfe80 >> 6
}

/// The link-local address that Linux gives an interface (RFC 4291, appendix A).
fn link_local_of(Mac(mac): Mac) -> Addr {
    let mut addr = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, 0, 0, 0];
    addr[13..].copy_from_slice(&mac[3..]);
    Addr::from_v6(addr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn prefix(text: &str) -> Prefix {
        let (addr, len) = text.split_once('/').unwrap();
        let ip: IpAddr = addr.parse().unwrap();
        let family = Family::from(ip);
        Prefix::new(ip.into(), len.parse().unwrap(), family)
    }

    fn table() -> Routes {
        let iface = |name: &str, id: u16, addresses: &[&str]| Iface {
            addresses: addresses.iter().map(|a| prefix(a)).collect(),
            ..Iface::new(name, IfaceId(id))
        };
        let ifaces = [
            iface("left", 0, &["192.0.2.1/24", "2001:db8:1::1/64"]),
            iface("right", 1, &["198.51.100.1/24", "198.51.100.129/25", "2001:db8:2::1/64"]),
        ];
        let via = |to: &str, gateway: &str| RouteConfig {
            to: prefix(to),
            target: RouteTarget::Via { gateway: addr(gateway), iface: IfaceId(1) },
        };
        let is = |to: &str, target| RouteConfig { to: prefix(to), target };
        let routes = [
            via("203.0.113.0/24", "198.51.100.10"),
            via("203.0.113.128/25", "198.51.100.11"),
            via("192.0.2.0/24", "198.51.100.12"),
            is("203.0.113.7/32", RouteTarget::Blackhole),
            is("203.0.113.8/29", RouteTarget::Unreachable),
            is("203.0.113.16/28", RouteTarget::Prohibit),
            via("::/0", "2001:db8:2::10"),
            is("2001:db8:77::/48", RouteTarget::OnLink(IfaceId(0))),
        ];
        Routes::new(&ifaces, &routes, true)
    }

    #[test]
    fn the_longest_prefix_wins() {
        let hop = |iface, gateway: Option<&str>, prefix_len| {
            Some(Route::Via(Hop { iface: IfaceId(iface), gateway: gateway.map(addr), prefix_len }))
        };
        let cases = [
            ("an own address", "192.0.2.1", Some(Route::Local)),
            ("an own address of the other side", "198.51.100.1", Some(Route::Local)),
            ("a broadcast address", "192.0.2.255", Some(Route::Broadcast(IfaceId(0)))),
            ("a network's first address is one like others", "192.0.2.0", hop(0, None, 24)),
            ("connected beats a static route to the same network", "192.0.2.9", hop(0, None, 24)),
            ("via", "203.0.113.100", hop(1, Some("198.51.100.10"), 24)),
            ("via, more specific", "203.0.113.200", hop(1, Some("198.51.100.11"), 25)),
            ("blackhole", "203.0.113.7", Some(Route::Blackhole)),
            ("unreachable", "203.0.113.15", Some(Route::Unreachable)),
            ("prohibited", "203.0.113.31", Some(Route::Prohibited)),
            ("none", "10.0.0.1", None),
            ("IPv6 default", "2001:db8:3::1", hop(1, Some("2001:db8:2::10"), 0)),
            ("IPv6 on-link", "2001:db8:77::5", hop(0, None, 48)),
            ("IPv6 own", "2001:db8:2::1", Some(Route::Local)),
            ("IPv6 anycast of the subnet's routers", "2001:db8:2::", Some(Route::Local)),
            ("IPv6 own link-local", "fe80::ff:fe00:101", Some(Route::Local)),
            ("IPv6 somebody's link-local", "fe80::1", hop(0, None, 64)),
            ("IPv6 anycast of the link's routers", "fe80::", Some(Route::Local)),
            ("IPv6 link-local of no network of the link", "fe80:1::1", None),
        ];
        let table = table();
        for (name, dst, expected) in cases {
            let family = if dst.contains(':') { Family::Ipv6 } else { Family::Ipv4 };
            assert_eq!(table.lookup(addr(dst), family, Some(IfaceId(0))), expected, "{name}");
        }
        assert_eq!(table.lookup(addr("fe80::1"), Family::Ipv6, None), None, "on which link?");
    }

    #[test]
    fn any_address_gets_the_longest_of_nested_prefixes_at_either_end_of_each() {
        // The same numbers in every run.
        let mut random = fastrand::Rng::with_seed(7);
        for count in [0, 1, 5, 300] {
            let routes: Vec<_> = (0..count)
                .map(|n| {
                    let len = random.u8(..=32);
                    // Few networks, one in another, and some up to the last address.
                    let word =
                        [0, u32::MAX, 0xc633_6400 | random.u32(..256), random.u32(..)][random.usize(..4)];
                    let addr = Addr::from_v4(
                        (word & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)).to_be_bytes(),
                    );
                    let hop = IfaceId(n);
                    RouteConfig { to: Prefix::new(addr, len, Family::Ipv4), target: RouteTarget::OnLink(hop) }
                })
                .collect();
            let table = Routes::new(&[], &routes, false);
            let near = |word: u32| [word.wrapping_sub(1), word, word.wrapping_add(1)];
            let ends = routes.iter().flat_map(|RouteConfig { to, .. }| {
                let last = word_v4(to.addr) | u32::MAX.checked_shr(to.len.into()).unwrap_or(0);
                near(word_v4(to.addr)).into_iter().chain(near(last))
            });
            for word in ends.chain([0, u32::MAX, 0x0a00_0001]) {
                let dst = Addr::from_v4(word.to_be_bytes());
                // Of two with the same network the later one counts.
                let longest =
                    routes.iter().filter(|route| route.to.contains(dst)).max_by_key(|route| route.to.len);
                let expected = longest.map(|route| match route.target {
                    RouteTarget::OnLink(iface) => {
                        Route::Via(Hop { iface, gateway: None, prefix_len: route.to.len })
                    }
                    _ => unreachable!(),
                });
                assert_eq!(table.lookup(dst, Family::Ipv4, None), expected, "{dst:?} of {count}");
            }
        }
    }

    #[test]
    fn a_route_through_an_interface_may_be_shorter_than_the_longest() {
        let table = table();
        let iface_of = |dst: &str, iface| match table.lookup_through(addr(dst), IfaceId(iface)) {
            Some(Route::Via(hop)) => Some((hop.iface.0, hop.prefix_len)),
            _ => None,
        };
        assert_eq!(iface_of("2001:db8:77::5", 0), Some((0, 48)));
        assert_eq!(iface_of("2001:db8:77::5", 1), Some((1, 0)), "the default route leads there");
        assert_eq!(iface_of("2001:db8:3::1", 0), None, "nothing leads there");
        assert_eq!(iface_of("fe80::1", 1), Some((1, 64)));
        let hop = |dst: &str, iface| table.hop_through(addr(dst), IfaceId(iface)).map(|hop| hop.prefix_len);
        assert_eq!(hop("2001:db8:77::5", 1), Some(0), "past a longer one that leads elsewhere");
        assert_eq!(hop("2001:db8:1::1", 1), Some(0), "past an address of another interface");
        assert_eq!((hop("2001:db8:1::1", 0), hop("2001:db8:1::", 0)), (None, None), "its own");
        assert_eq!((hop("fe80::9", 1), hop("fe80:1::9", 1)), (Some(64), Some(0)));
        assert_eq!(hop("2001:db8:3::1", 0), None, "nothing leads there");
    }

    #[test]
    fn the_own_address_closest_to_the_next_hop_speaks() {
        let cases = [
            (1, "198.51.100.20", "198.51.100.1"),
            (1, "198.51.100.200", "198.51.100.1"),
            (0, "10.0.0.1", "192.0.2.1"),
            (1, "2001:db8:1::5", "2001:db8:2::1"),
            (1, "fe80::5", "fe80::ff:fe00:201"),
        ];
        let table = table();
        for (iface, dst, expected) in cases {
            let family = if dst.contains(':') { Family::Ipv6 } else { Family::Ipv4 };
            let got = table.source_on(IfaceId(iface), addr(dst), addr(dst), family);
            assert_eq!(got, Some(addr(expected)), "to {dst}");
        }
    }

    #[test]
    fn of_two_own_addresses_linux_lists_the_later_one_first_in_ipv6() {
        let given = ["192.0.2.1/24", "192.0.2.2/24", "2001:db8:1::1/64", "2001:db8:1::2/64"];
        let iface = Iface { addresses: given.map(prefix).to_vec(), ..Iface::new("left", IfaceId(0)) };
        let routes = Routes::new(&[iface], &[], true);
        for (family, dst, expected) in
            [(Family::Ipv4, "192.0.2.9", "192.0.2.1"), (Family::Ipv6, "2001:db8:3::9", "2001:db8:1::2")]
        {
            assert_eq!(routes.first_on(IfaceId(0), family), Some(addr(expected)));
            let source = routes.source_on(IfaceId(0), addr(dst), addr(dst), family);
            assert_eq!(source, Some(addr(expected)), "to {dst}");
        }
    }
}

//! The same frames into the kernel as a router and into stateway in route mode, and the same frames out.
//!
//! Byte for byte, but for the identification of IPv4 packets that the router writes itself. It takes root and
//! `/dev/net/tun`, and fails without; `STATEWAY_SIM_ONLY=1` says that there is neither.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod addresses;
mod frames;

use frames::{Ip, ipv4, ipv6};
use stateway_conform::kernel::{ADDRESSES, Kernel, MACS, NAMES, NEIGHBOUR_MACS, NEIGHBOURS, ROUTES, Setup};
use stateway_core::base::EmissionKind;
use stateway_core::config::{Mode, NeighbourConfig, RouteConfig, RouteTarget, RouterConfig};
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::{Addr, Family, Frame, Prefix};
use stateway_core::record::NoRecord;
use stateway_core::router::{Router, Worker};
use stateway_core::time::Instant;
use std::net::IpAddr;

const LEFT: usize = 0;
const RIGHT: usize = 1;
const ACCEPT_ALL: &str =
    "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";

/// The addresses that both make from their link addresses.
const OWN_LINK_LOCAL: [&str; 2] = ["fe80::ff:fe00:101", "fe80::ff:fe00:201"];

/// Both routers, set up alike.
struct Pair {
    kernel: Kernel,
    router: Router,
    worker: Worker,
    now: Instant,
    compared: usize,
    differences: Vec<String>,
}

/// What differs from the plain topology, for both.
#[derive(Default)]
struct World {
    rules4: Option<&'static str>,
    rules6: Option<&'static str>,
    sysctl: &'static [(&'static str, &'static str)],
    mtu: [Option<usize>; 2],
    /// Further addresses: interface, address with prefix length.
    addresses: &'static [(usize, &'static str)],
    routes: &'static [(&'static str, To)],
    neighbours: &'static [(usize, &'static str, [u8; 6])],
}

#[derive(Clone, Copy)]
enum To {
    Via(usize, &'static str),
    OnLink(usize),
    Blackhole,
    Unreachable,
    Prohibit,
}

fn addr(text: &str) -> (Addr, Family) {
    let ip: IpAddr = text.parse().unwrap();
    (ip.into(), if ip.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 })
}

fn prefix(text: &str) -> Prefix {
    let (base, len) = text.split_once('/').unwrap();
    let (base, family) = addr(base);
    Prefix::new(base, len.parse().unwrap(), family)
}

fn id(port: usize) -> IfaceId {
    IfaceId(port as u16)
}

impl Pair {
    /// `None` where nothing but simulation was asked for.
    fn new(world: &World) -> Option<Self> {
        if std::env::var_os("STATEWAY_SIM_ONLY").is_some() {
            return None;
        }
        let kernel = Kernel::new(&world.kernel()).expect("the kernel as a router; it takes root");
        await_own_addresses(&kernel, world);
        let router = Router::new(world.stateway()).expect("the same for stateway");
        let (worker, now) = (router.worker(), Instant::from_secs(1000));
        Some(Self { kernel, router, worker, now, compared: 0, differences: Vec::new() })
    }

    /// Feeds one packet to both.
    fn check(&mut self, name: &str, port: usize, ip: impl Into<Vec<u8>>) {
        let mut frame = [MACS[port].0, NEIGHBOUR_MACS[port].0].concat();
        let ip = ip.into();
        frame.extend(if ip[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(ip);
        self.check_frame(name, port, frame);
    }

    fn check_frame(&mut self, name: &str, port: usize, mut frame: Vec<u8>) {
        let mut expected = self.kernel.feed(port, &frame).unwrap().sent;
        let mut got = self.feed(port, &mut frame);
        // The kernel asks for neighbours when it likes, so neither is listened to there.
        got.retain(|(_, frame)| !frame.starts_with(&[0x33, 0x33]));
        expected.sort();
        got.sort();
        self.compared += 1;
        if expected.len() != got.len() || !expected.iter().zip(&got).all(|(a, b)| is_alike(a, b)) {
            self.differences.push(format!(
                "{name}:\n  kernel   {}\n  stateway {}",
                show(&expected),
                show(&got)
            ));
        }
    }

    fn feed(&mut self, port: usize, frame: &mut [u8]) -> Vec<(usize, Vec<u8>)> {
        let outcome =
            self.router.process(&mut self.worker, self.now, id(port), Frame::new(frame), &mut NoRecord);
        let mut sent: Vec<_> =
            outcome.out.map(|o| (o.index(), frame[..outcome.len].to_vec())).into_iter().collect();
        sent.extend(self.worker.take_emissions().map(|mut e| {
            if e.kind == EmissionKind::Own {
                forget_ident(&mut e.frame);
            }
            (e.iface.index(), e.frame)
        }));
        sent
    }

    fn finish(self, at_least: usize) {
        assert!(
            self.differences.is_empty(),
            "{} of {} differ:\n{}",
            self.differences.len(),
            self.compared,
            self.differences.join("\n")
        );
        assert!(self.compared >= at_least, "only {} scenarios", self.compared);
    }
}

/// The kernel takes its IPv6 addresses into use at its leisure.
fn await_own_addresses(kernel: &Kernel, world: &World) {
    const PATIENCE: usize = 500;
    let plain = ADDRESSES.iter().map(|of_port| of_port[1]);
    let more = world.addresses.iter().map(|(_, address)| *address).filter(|a| a.contains(':'));
    let own: Vec<&str> =
        plain.chain(more).map(|a| a.split_once('/').unwrap().0).chain(OWN_LINK_LOCAL).collect();
    let in_use = || kernel.run("ip", &["-6", "route", "show", "table", "local"], "").unwrap();
    let all = |routes: &str| own.iter().all(|a| routes.contains(&format!("local {a} ")));
    assert!((0..PATIENCE).any(|_| all(&in_use())), "the kernel does not use {own:?}");
}

/// Marks the identification of an own packet as "whatever", together with the checksum over it.
fn forget_ident(frame: &mut [u8]) {
    let writes_ident = frame[12..14] == [8, 0] && frame[20] & 0x40 == 0;
    if writes_ident {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
}

fn is_alike(kernel: &(usize, Vec<u8>), stateway: &(usize, Vec<u8>)) -> bool {
    let own = stateway.1.len() > 26 && stateway.1[12..14] == [8, 0] && stateway.1[24..26] == [0, 0];
    let mut frame = kernel.1.clone();
    if own {
        forget_ident(&mut frame);
    }
    (kernel.0, frame) == *stateway
}

fn show(frames: &[(usize, Vec<u8>)]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
    let one = |(port, frame): &(usize, Vec<u8>)| {
        format!("{} {} {} ({})", NAMES[*port], hex(&frame[..14]), hex(&frame[14..]), frame.len())
    };
    if frames.is_empty() {
        "nothing".into()
    } else {
        frames.iter().map(one).collect::<Vec<_>>().join("\n           ")
    }
}

impl World {
    fn kernel(&self) -> Setup {
        let mut ip = Vec::new();
        for (port, mtu) in self.mtu.iter().enumerate() {
            ip.extend(mtu.map(|mtu| format!("link set {} mtu {mtu}", NAMES[port])));
        }
        for (port, address) in self.addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            ip.push(format!("address add {address} dev {}{nodad}", NAMES[*port]));
        }
        for (port, address, [a, b, c, d, e, f]) in self.neighbours {
            let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            ip.push(format!("neighbour add {address} lladdr {mac} dev {} nud permanent", NAMES[*port]));
        }
        for (to, target) in self.routes {
            ip.push(match target {
                To::Via(port, via) => format!("route add {to} via {via} dev {} onlink", NAMES[*port]),
                To::OnLink(port) => format!("route add {to} dev {}", NAMES[*port]),
                To::Blackhole => format!("route add blackhole {to}"),
                To::Unreachable => format!("route add unreachable {to}"),
                To::Prohibit => format!("route add prohibit {to}"),
            });
        }
        Setup {
            rules4: Some(self.rules4.unwrap_or(ACCEPT_ALL).into()),
            rules6: Some(self.rules6.unwrap_or(ACCEPT_ALL).into()),
            sysctl: self.sysctl.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            ip,
            ..Setup::default()
        }
    }

    fn stateway(&self) -> RouterConfig {
        let mut config = RouterConfig::new(Vec::new());
        config.mode = Mode::Route;
        config.rules = Some(self.rules4.unwrap_or(ACCEPT_ALL).into());
        config.rules6 = Some(self.rules6.unwrap_or(ACCEPT_ALL).into());
        for port in [LEFT, RIGHT] {
            let mut iface = Iface::new(NAMES[port], id(port));
            iface.mac = MACS[port];
            iface.mtu_bytes = self.mtu[port].unwrap_or(iface.mtu_bytes);
            iface.addresses.extend(ADDRESSES[port].iter().map(|a| prefix(a)));
            let more = self.addresses.iter().filter(|(at, _)| *at == port);
            iface.addresses.extend(more.map(|(_, a)| prefix(a)));
            config.ifaces.push(iface);
            for (family, routes) in ROUTES[port].iter().enumerate() {
                let (gateway, family) = addr(NEIGHBOURS[port][family]);
                let via = RouteTarget::Via { gateway, iface: id(port) };
                config.routes.extend(routes.iter().map(|to| RouteConfig { to: prefix(to), target: via }));
                let neighbour =
                    NeighbourConfig { addr: gateway, family, mac: NEIGHBOUR_MACS[port], iface: id(port) };
                config.neighbours.push(neighbour);
            }
        }
        for (port, address, mac) in self.neighbours {
            let (addr, family) = addr(address);
            let mac = stateway_core::packet::Mac(*mac);
            config.neighbours.push(NeighbourConfig { addr, family, mac, iface: id(*port) });
        }
        for (to, target) in self.routes {
            let target = match *target {
                To::Via(port, via) => RouteTarget::Via { gateway: addr(via).0, iface: id(port) },
                To::OnLink(port) => RouteTarget::OnLink(id(port)),
                To::Blackhole => RouteTarget::Blackhole,
                To::Unreachable => RouteTarget::Unreachable,
                To::Prohibit => RouteTarget::Prohibit,
            };
            config.routes.push(RouteConfig { to: prefix(to), target });
        }
        let quiet = [
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.icmp_ratelimit", "0"),
            ("net.ipv6.icmp.ratelimit", "0"),
        ];
        config.sysctl.extend(quiet.iter().chain(self.sysctl).map(|(n, v)| ((*n).into(), (*v).into())));
        config
    }
}

const HOST: &str = "192.0.2.10";
const PEER: &str = "198.51.100.10";
const HOST6: &str = "2001:db8:1::10";
const PEER6: &str = "2001:db8:2::10";

#[test]
fn what_is_forwarded() {
    let Some(mut pair) = Pair::new(&World::default()) else { return };
    for ttl in [0, 1, 2, 64, 255] {
        pair.check(&format!("TTL {ttl}"), LEFT, ipv4(HOST, PEER).ttl(ttl).udp(1));
        pair.check(&format!("hop limit {ttl}"), LEFT, ipv6(HOST6, PEER6).ttl(ttl).udp(1));
        pair.check(&format!("TTL {ttl}, to the router"), LEFT, ipv4(HOST, "192.0.2.1").ttl(ttl).udp(1));
        pair.check(
            &format!("hop limit {ttl}, to the router"),
            LEFT,
            ipv6(HOST6, "2001:db8:1::1").ttl(ttl).udp(1),
        );
    }
    pair.check("type of service", LEFT, ipv4(HOST, PEER).tos(0xb9).tcp(0x02));
    pair.check("traffic class", LEFT, ipv6(HOST6, PEER6).tos(0xb9).tcp(0x02));
    pair.check(
        "time exceeded takes over a part of the type of service",
        LEFT,
        ipv4(HOST, PEER).tos(0xb9).ttl(1).udp(1),
    );
    pair.check("hairpin", LEFT, ipv4(HOST, "192.0.2.50").udp(1));
    pair.check("hairpin, IPv6", LEFT, ipv6(HOST6, "2001:db8:1::50").udp(1));
    pair.check("land", LEFT, ipv4(HOST, HOST).udp(7));
    pair.check("an unknown protocol", LEFT, ipv4(HOST, PEER).payload(253, &[1, 2, 3]));
    pair.check("an unknown protocol, IPv6", LEFT, ipv6(HOST6, PEER6).payload(253, &[1, 2, 3]));
    pair.check(
        "a bad upper-layer checksum",
        LEFT,
        ipv4(HOST, PEER).payload(17, &[1, 2, 0, 53, 0, 9, 1, 1, 0]),
    );
    for len in [1472, 1473, 1400] {
        pair.check(&format!("{len} bytes"), LEFT, ipv4(HOST, PEER).udp(len));
        pair.check(&format!("{len} bytes, IPv6"), LEFT, ipv6(HOST6, PEER6).udp(len));
    }
    pair.check("time exceeded about a long packet", LEFT, ipv4(HOST, PEER).ttl(1).udp(1000));
    pair.check("the same, IPv6", LEFT, ipv6(HOST6, PEER6).ttl(1).udp(1400));
    pair.check("no error about an error", LEFT, ipv4(HOST, PEER).ttl(1).icmp(3, 1, &[0; 28]));
    pair.check("nor about an ICMPv6 error", LEFT, ipv6(HOST6, PEER6).ttl(1).icmp(3, 0, &[0; 48]));
    pair.check("but about a query", LEFT, ipv4(HOST, PEER).ttl(1).icmp(8, 0, b"ping"));
    pair.check("and about an ICMPv6 query", LEFT, ipv6(HOST6, PEER6).ttl(1).icmp(128, 0, b"ping"));
    pair.finish(40);
}

#[test]
fn what_is_for_the_router() {
    let Some(mut pair) = Pair::new(&World::default()) else { return };
    for own in ["192.0.2.1", "198.51.100.1"] {
        pair.check(&format!("ping {own}"), LEFT, ipv4(HOST, own).icmp(8, 0, b"ping"));
        pair.check(&format!("UDP to {own}"), LEFT, ipv4(HOST, own).udp(1));
        pair.check(&format!("SYN to {own}"), LEFT, ipv4(HOST, own).tcp(0x02));
    }
    for own in ["2001:db8:1::1", "2001:db8:2::1", "2001:db8:1::"] {
        pair.check(&format!("ping {own}"), LEFT, ipv6(HOST6, own).icmp(128, 0, b"ping"));
        pair.check(&format!("UDP to {own}"), LEFT, ipv6(HOST6, own).udp(1));
    }
    pair.check("SYN, IPv6", LEFT, ipv6(HOST6, "2001:db8:1::1").tcp(0x02));
    pair.check("SYN, IPv6, traffic class", LEFT, ipv6(HOST6, "2001:db8:1::1").tos(0xb9).tcp(0x02));
    for flags in [0x10, 0x04, 0x11, 0x00, 0x14, 0x12] {
        pair.check(&format!("TCP flags {flags:#x}"), LEFT, ipv4(HOST, "192.0.2.1").tcp(flags));
    }
    pair.check("SYN, type of service", LEFT, ipv4(HOST, "192.0.2.1").tos(0xb9).tcp(0x02));
    pair.check("ping, type of service", LEFT, ipv4(HOST, "192.0.2.1").tos(0xb9).icmp(8, 0, b"ping"));
    pair.check("ping, traffic class", LEFT, ipv6(HOST6, "2001:db8:1::1").tos(0xb9).icmp(128, 0, b"ping"));
    pair.check("ping, code 5", LEFT, ipv4(HOST, "192.0.2.1").icmp(8, 5, b"ping"));
    pair.check("ping with 1400 bytes", LEFT, ipv4(HOST, "192.0.2.1").icmp(8, 0, &[7; 1400]));
    pair.check("address mask request", LEFT, ipv4(HOST, "192.0.2.1").icmp(17, 0, &[0; 4]));
    pair.check("information request", LEFT, ipv4(HOST, "192.0.2.1").icmp(15, 0, &[]));
    pair.check("an echo reply that nobody asked for", LEFT, ipv4(HOST, "192.0.2.1").icmp(0, 0, b"ping"));
    pair.check("an ICMP type without meaning", LEFT, ipv4(HOST, "192.0.2.1").icmp(30, 0, b"ping"));
    for proto in [2, 4, 33, 41, 47, 50, 51, 89, 103, 132, 136, 253] {
        pair.check(&format!("protocol {proto}"), LEFT, ipv4(HOST, "192.0.2.1").payload(proto, b"12345678"));
    }
    for proto in [2, 4, 33, 41, 47, 50, 89, 103, 132, 136, 253, 59] {
        pair.check(
            &format!("protocol {proto}, IPv6"),
            LEFT,
            ipv6(HOST6, "2001:db8:1::1").payload(proto, b"12345678"),
        );
    }
    pair.check(
        "an unknown protocol behind an option header",
        LEFT,
        ipv6(HOST6, "2001:db8:1::1").payload(60, &[253, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3, 4]),
    );
    pair.check(
        "UDP with a bad checksum",
        LEFT,
        ipv4(HOST, "192.0.2.1").payload(17, &[1, 2, 0, 53, 0, 9, 1, 1, 0]),
    );
    pair.check(
        "UDP without a checksum",
        LEFT,
        ipv4(HOST, "192.0.2.1").payload(17, &[1, 2, 0, 53, 0, 9, 0, 0, 0]),
    );
    pair.check(
        "UDP longer than it is",
        LEFT,
        ipv4(HOST, "192.0.2.1").payload(17, &[1, 2, 0, 53, 0, 10, 0, 0, 0]),
    );
    pair.check(
        "UDP, IPv6, without a checksum",
        LEFT,
        ipv6(HOST6, "2001:db8:1::1").payload(17, &[1, 2, 0, 53, 0, 9, 0, 0, 0]),
    );
    pair.check("TCP, cut short", LEFT, ipv4(HOST, "192.0.2.1").payload(6, &[1, 2, 0, 53, 0, 9, 0, 0, 0]));
    pair.finish(50);
}

#[test]
fn martians_and_groups() {
    let Some(mut pair) = Pair::new(&World::default()) else { return };
    for src in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.2.1",
        "198.51.100.1",
        "192.0.2.3",
        "0.1.2.3",
        "169.254.1.1",
        "198.51.100.9",
    ] {
        pair.check(&format!("from {src}"), LEFT, ipv4(src, PEER).udp(1));
        pair.check(&format!("from {src} to the router"), LEFT, ipv4(src, "192.0.2.1").icmp(8, 0, b"ping"));
    }
    for (n, dst) in
        ["0.0.0.0", "127.0.0.1", "224.0.0.5", "239.1.1.1", "255.255.255.255", "192.0.2.3", "198.51.100.3"]
            .iter()
            .enumerate()
    {
        pair.check(&format!("to {dst}"), LEFT, ipv4(&format!("192.0.2.{}", 20 + n), dst).udp(1));
    }
    for src in
        ["::", "::1", "ff02::1", "::ffff:192.0.2.9", "2001:db8:1::1", "2001:db8:2::1", "2001:db8:2::10"]
    {
        pair.check(&format!("from {src}"), LEFT, ipv6(src, PEER6).udp(1));
    }
    for dst in ["::", "::1", "ff02::5", "ff05::5", "ff01::1", "ff0e::1", "ff00::1"] {
        pair.check(&format!("to {dst}"), LEFT, ipv6(HOST6, dst).udp(1));
    }
    let l2 = |dst: [u8; 6], ip: Ip| {
        let ip: Vec<u8> = ip.into();
        let kind = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        [&dst[..], &NEIGHBOUR_MACS[LEFT].0, &kind, &ip].concat()
    };
    let (other, everybody, group) = ([2, 0, 0, 0, 7, 7], [0xff; 6], [0x01, 0x00, 0x5e, 0, 0, 1]);
    pair.check_frame("somebody else's frame", LEFT, l2(other, ipv4(HOST, PEER).udp(1)));
    pair.check_frame("a unicast packet to everybody", LEFT, l2(everybody, ipv4(HOST, PEER).udp(1)));
    pair.check_frame("the same without life", LEFT, l2(everybody, ipv4(HOST, PEER).ttl(1).udp(1)));
    pair.check_frame("the same for the router", LEFT, l2(everybody, ipv4(HOST, "192.0.2.1").udp(1)));
    pair.check_frame("a ping to everybody", LEFT, l2(everybody, ipv4(HOST, "192.0.2.1").icmp(8, 0, b"ping")));
    pair.check_frame("a SYN to everybody", LEFT, l2(everybody, ipv4(HOST, "192.0.2.1").tcp(2)));
    pair.check_frame(
        "ping to the broadcast address",
        LEFT,
        l2(everybody, ipv4(HOST, "192.0.2.3").icmp(8, 0, b"ping")),
    );
    pair.check_frame("ping to all systems", LEFT, l2(group, ipv4(HOST, "224.0.0.1").icmp(8, 0, b"ping")));
    let nodes = [0x33, 0x33, 0, 0, 0, 1];
    pair.check_frame("ping to all nodes", LEFT, l2(nodes, ipv6(HOST6, "ff02::1").icmp(128, 0, b"ping")));
    pair.check_frame("UDP to all nodes", LEFT, l2(nodes, ipv6(HOST6, "ff02::1").udp(1)));
    pair.check_frame("IPv6 to a group's link address", LEFT, l2(nodes, ipv6(HOST6, PEER6).udp(1)));
    pair.finish(40);
}

#[test]
fn routes_that_lead_nowhere() {
    let world = World {
        routes: &[
            ("203.0.113.64/28", To::Blackhole),
            ("203.0.113.80/28", To::Unreachable),
            ("203.0.113.96/28", To::Prohibit),
            ("203.0.113.128/25", To::Via(LEFT, "192.0.2.2")),
            ("2001:db8:b1::/48", To::Blackhole),
            ("2001:db8:b2::/48", To::Unreachable),
            ("2001:db8:b3::/48", To::Prohibit),
            ("198.18.7.0/24", To::OnLink(RIGHT)),
        ],
        neighbours: &[(RIGHT, "198.18.7.7", [2, 0, 0, 0, 2, 7])],
        ..World::default()
    };
    let Some(mut pair) = Pair::new(&world) else { return };
    // Linux counts these errors for each sender: every one has a sender of its own.
    for (n, dst) in
        ["203.0.113.65", "203.0.113.81", "203.0.113.97", "203.0.113.129", "203.0.113.1", "10.0.0.1"]
            .iter()
            .enumerate()
    {
        let src = format!("192.0.2.{}", 100 + n);
        pair.check(&format!("to {dst}"), LEFT, ipv4(&src, dst).udp(1));
        pair.check(&format!("to {dst}, without life"), LEFT, ipv4(&src, dst).ttl(1).udp(1));
    }
    for dst in
        ["2001:db8:b1::1", "2001:db8:b2::1", "2001:db8:b3::1", "fd00::1", "fe80::1", "::ffff:192.0.2.1"]
    {
        pair.check(&format!("to {dst}"), LEFT, ipv6(HOST6, dst).udp(1));
        pair.check(&format!("to {dst}, without life"), LEFT, ipv6(HOST6, dst).ttl(0).udp(1));
    }
    pair.check("on-link", LEFT, ipv4(HOST, "198.18.7.7").udp(1));
    pair.check("TCP to nowhere", LEFT, ipv4("192.0.2.120", "10.0.0.1").tcp(2));
    pair.check("an error to nowhere", LEFT, ipv4("192.0.2.121", "10.0.0.1").icmp(3, 1, &[0; 28]));
    pair.finish(25);
}

#[test]
fn a_smaller_link() {
    let world = World { mtu: [None, Some(1400)], ..World::default() };
    let Some(mut pair) = Pair::new(&world) else { return };
    for len in [1400, 1401, 1500] {
        pair.check(&format!("{len} bytes, DF"), LEFT, ipv4(HOST, PEER).udp(len - 28));
        pair.check(&format!("{len} bytes, IPv6"), LEFT, ipv6(HOST6, PEER6).udp(len - 48));
        pair.check(&format!("{len} bytes, may be cut"), LEFT, ipv4(HOST, PEER).flags(0).udp(len - 28));
        pair.check(&format!("{len} bytes, TCP"), LEFT, ipv4(HOST, PEER).tcp_data(len - 40));
    }
    pair.check("3000 bytes, may be cut", LEFT, ipv4(HOST, PEER).flags(0).udp(2972));
    pair.check("too big and at the end of its life", LEFT, ipv4(HOST, PEER).ttl(1).udp(1472));
    pair.check("too big and nowhere to go", LEFT, ipv4("192.0.2.44", "10.0.0.1").udp(1472));
    let options = [0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0];
    pair.check("options in pieces", LEFT, ipv4(HOST, PEER).flags(0).options(&options).udp(2000));
    pair.check(
        "a long ping for the far address",
        RIGHT,
        ipv4(PEER, "192.0.2.1").flags(0).icmp(8, 0, &[7; 1450]),
    );
    pair.finish(17);
}

#[test]
fn fragments() {
    let world = World { mtu: [None, Some(1400)], ..World::default() };
    let Some(mut pair) = Pair::new(&world) else { return };
    let whole = |src: &str, dst: &str, len: usize| -> Vec<u8> { ipv4(src, dst).udp(len).l4 };
    let mut send = |name: &str, port: usize, src: &str, dst: &str, len: usize, at: usize, flags: u16| {
        let l4 = whole(src, dst, len);
        let (first, last) = l4.split_at(at);
        let ident = 0x4000 + len as u16;
        pair.check(
            &format!("{name}, first"),
            port,
            ipv4(src, dst).ident(ident).flags(flags | 0x2000).payload(17, first),
        );
        pair.check(
            &format!("{name}, last"),
            port,
            ipv4(src, dst).ident(ident).flags(flags | (at / 8) as u16).payload(17, last),
        );
    };
    send("two fragments", LEFT, HOST, PEER, 1000, 504, 0);
    send("larger than the link", LEFT, HOST, PEER, 2000, 1448, 0);
    send("larger than the link, DF", LEFT, HOST, PEER, 2001, 1448, 0x4000);
    send("small ones, DF", LEFT, HOST, PEER, 300, 104, 0x4000);
    send("for the router", LEFT, HOST, "192.0.2.1", 301, 104, 0);
    send("to nowhere", LEFT, "192.0.2.77", "10.0.0.1", 302, 104, 0);
    send("the other way", RIGHT, PEER, HOST, 1200, 800, 0);
    pair.finish(14);
}

#[test]
fn options() {
    let Some(mut pair) = Pair::new(&World::default()) else { return };
    let cases: &[(&str, &[u8])] = &[
        ("record route", &[7, 15, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("record route, one recorded", &[7, 15, 8, 192, 0, 2, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("record route, full", &[7, 7, 8, 1, 2, 3, 4, 0]),
        ("record route, no room for an address", &[7, 6, 4, 0, 0, 0, 0, 0]),
        ("record route, pointer into its head", &[7, 7, 3, 0, 0, 0, 0, 0]),
        ("record route, without pointer", &[7, 2, 0, 0]),
        ("record route, twice", &[7, 7, 4, 0, 0, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0, 0]),
        ("timestamp, full", &[68, 8, 9, 0, 0, 0, 0, 1]),
        ("timestamp, full and overflown", &[68, 8, 9, 0xf0, 0, 0, 0, 1]),
        ("timestamp for somebody else", &[68, 12, 5, 3, 192, 0, 2, 99, 0, 0, 0, 0]),
        ("timestamp, flag without meaning", &[68, 12, 5, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("timestamp, pointer into its head", &[68, 12, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("timestamp, too short", &[68, 3, 5, 0]),
        ("timestamp, no room for an address", &[68, 8, 5, 1, 0, 0, 0, 0]),
        ("router alert", &[0x94, 4, 0, 0]),
        ("router alert, other value", &[0x94, 4, 0, 1]),
        ("router alert, too short", &[0x94, 3, 0, 0]),
        ("padding", &[1, 1, 1, 1]),
        ("end of list", &[0, 0, 0, 0]),
        ("something behind the end of list", &[0, 7, 7, 7]),
        ("unknown", &[0x1e, 4, 1, 2]),
        ("unknown, length one", &[0x1e, 1, 0, 0]),
        ("unknown, longer than the header", &[1, 1, 0x1e, 5]),
        ("cut in its first byte", &[1, 1, 1, 0x1e]),
        ("security", &[0x82, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("security label, short", &[0x86, 6, 0, 0, 0, 1, 0, 0]),
        ("security label", &[0x86, 10, 0, 0, 0, 1, 1, 4, 0, 0, 0, 0]),
        ("loose source route", &[0x83, 7, 4, 203, 0, 113, 5, 0]),
        ("strict source route", &[0x89, 7, 4, 203, 0, 113, 5, 0]),
        ("source route, at its end", &[0x83, 7, 8, 203, 0, 113, 5, 0]),
        ("source route, without address", &[0x83, 3, 4, 0]),
        ("record route and router alert", &[7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0]),
    ];
    for (name, options) in cases {
        pair.check(name, LEFT, ipv4(HOST, PEER).options(options).udp(1));
        pair.check(
            &format!("{name}, at the end of its life"),
            LEFT,
            ipv4(HOST, PEER).ttl(1).options(options).udp(1),
        );
        pair.check(
            &format!("{name}, ping"),
            LEFT,
            ipv4(HOST, "192.0.2.1").options(options).icmp(8, 0, b"ping"),
        );
        pair.check(
            &format!("{name}, SYN to the router"),
            LEFT,
            ipv4(HOST, "198.51.100.1").options(options).tcp(2),
        );
        pair.check(
            &format!("{name}, UDP to the router"),
            LEFT,
            ipv4(HOST, "192.0.2.1").options(options).udp(1),
        );
    }
    pair.finish(150);
}

#[test]
fn reverse_path_filter() {
    for mode in ["0", "1", "2"] {
        let sysctl: &'static [(&str, &str)] = match mode {
            "0" => &[("net.ipv4.conf.all.rp_filter", "0")],
            "1" => &[("net.ipv4.conf.all.rp_filter", "1")],
            _ => &[("net.ipv4.conf.all.rp_filter", "2")],
        };
        let Some(mut pair) = Pair::new(&World { sysctl, ..World::default() }) else { return };
        for src in
            [HOST, PEER, "203.0.113.9", "10.0.0.9", "192.0.2.3", "192.0.2.1", "192.0.2.2", "198.51.100.3"]
        {
            pair.check(&format!("rp_filter {mode}: from {src}"), LEFT, ipv4(src, "198.51.100.20").udp(1));
            pair.check(
                &format!("rp_filter {mode}: from {src} to the router"),
                LEFT,
                ipv4(src, "192.0.2.1").icmp(8, 0, b"x"),
            );
            pair.check(
                &format!("rp_filter {mode}: hairpin from {src}"),
                LEFT,
                ipv4(src, "192.0.2.20").udp(1),
            );
        }
        pair.finish(24);
    }
}

#[test]
fn link_local_addresses_and_discovery() {
    let world = World {
        neighbours: &[(LEFT, "fe80::10", [2, 0, 0, 0, 1, 2]), (LEFT, "2001:db8:1::3", [2, 0, 0, 0, 1, 3])],
        ..World::default()
    };
    let Some(mut pair) = Pair::new(&world) else { return };
    const OWN: &str = OWN_LINK_LOCAL[LEFT];
    let near = "fe80::10";
    pair.check("beyond its scope", LEFT, ipv6(near, PEER6).udp(1));
    pair.check("beyond its scope, without life", LEFT, ipv6(near, PEER6).ttl(1).udp(1));
    pair.check("no route", LEFT, ipv6(near, "fd00::1").udp(1));
    pair.check("ping the link-local address", LEFT, ipv6(near, OWN).icmp(128, 0, b"ping"));
    pair.check("ping it from a global one", LEFT, ipv6(HOST6, OWN).icmp(128, 0, b"ping"));
    pair.check("UDP to the link-local address", LEFT, ipv6(near, OWN).udp(1));
    pair.check("ping all nodes", LEFT, ipv6(near, "ff02::1").icmp(128, 0, b"ping"));
    pair.check("ping all routers", LEFT, ipv6(near, "ff02::2").icmp(128, 0, b"ping"));
    pair.check("redirected to a neighbour", LEFT, ipv6("2001:db8:1::2", "2001:db8:1::3").udp(1));
    let ask = |src: &str, dst: &str, target: &str, options: &[u8], hops: u8| {
        let body = [&[0; 4][..], &addr(target).0.v6(), options].concat();
        ipv6(src, dst).ttl(hops).icmpv6_raw(135, &body)
    };
    let option = [1, 1, 2, 0, 0, 0, 1, 2];
    pair.check("who has", LEFT, ask(near, "ff02::1:ff00:1", "2001:db8:1::1", &option, 255));
    pair.check("who has, asked of itself", LEFT, ask(near, "2001:db8:1::1", "2001:db8:1::1", &option, 255));
    pair.check(
        "who has, without a link address",
        LEFT,
        ask(near, "2001:db8:1::1", "2001:db8:1::1", &[], 255),
    );
    pair.check("who has the link-local address", LEFT, ask(near, "ff02::1:ff00:101", OWN, &option, 255));
    pair.check(
        "who has the address of the other side",
        LEFT,
        ask(near, "ff02::1:ff00:1", "2001:db8:2::1", &option, 255),
    );
    pair.check(
        "who has, from beyond the link",
        LEFT,
        ask(near, "ff02::1:ff00:1", "2001:db8:1::1", &option, 64),
    );
    pair.check("who has somebody else's", LEFT, ask(near, "ff02::1:ff00:1", "2001:db8:1::77", &option, 255));
    pair.check(
        "a broken option",
        LEFT,
        ask(near, "ff02::1:ff00:1", "2001:db8:1::1", &[1, 0, 2, 0, 0, 0, 1, 2], 255),
    );
    pair.check(
        "a router solicitation",
        LEFT,
        ipv6(near, "ff02::2").ttl(255).icmpv6_raw(133, &[0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2]),
    );
    pair.finish(18);
}

#[test]
fn arp() {
    let Some(mut pair) = Pair::new(&World::default()) else { return };
    let us = MACS[LEFT].0;
    let them = NEIGHBOUR_MACS[LEFT].0;
    let everybody = [0xff; 6];
    let message = |to: [u8; 6], operation: u8, sender: &str, target: &str| {
        let ip = |text: &str| addr(text).0.v4();
        [&to[..], &them, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &them, &ip(sender), &[0; 6], &ip(target)]
            .concat()
    };
    let cases = [
        ("who has our address", message(everybody, 1, "192.0.2.2", "192.0.2.1")),
        ("the same, asked of us alone", message(us, 1, "192.0.2.2", "192.0.2.1")),
        ("who has the address of the other side", message(everybody, 1, "192.0.2.2", "198.51.100.1")),
        ("who has somebody else's", message(everybody, 1, "192.0.2.2", "192.0.2.77")),
        ("may I have our address", message(everybody, 1, "0.0.0.0", "192.0.2.1")),
        ("may I have somebody else's", message(everybody, 1, "0.0.0.0", "192.0.2.77")),
        ("in our own name", message(everybody, 1, "192.0.2.1", "192.0.2.1")),
        ("in the name of a far network", message(everybody, 1, "203.0.113.9", "192.0.2.1")),
        ("in the name of loopback", message(everybody, 1, "127.0.0.1", "192.0.2.1")),
        ("of somebody else", message([2, 0, 0, 0, 7, 7], 1, "192.0.2.2", "192.0.2.1")),
        ("an answer that nobody asked for", message(us, 2, "192.0.2.2", "192.0.2.1")),
        ("an announcement", message(everybody, 2, "192.0.2.2", "192.0.2.2")),
        ("padded", [message(everybody, 1, "192.0.2.2", "192.0.2.1"), vec![0; 18]].concat()),
    ];
    for (name, frame) in cases {
        pair.check_frame(name, LEFT, frame);
    }
    let mut token_ring = message(everybody, 1, "192.0.2.2", "192.0.2.1");
    token_ring[15] = 6;
    pair.check_frame("Ethernet by the name of IEEE 802", LEFT, token_ring.clone());
    token_ring[15] = 4;
    pair.check_frame("another kind of hardware", LEFT, token_ring);
    pair.check_frame("cut short", LEFT, message(everybody, 1, "192.0.2.2", "192.0.2.1")[..38].to_vec());
    pair.check(
        "whoever is known by now is answered",
        LEFT,
        ipv4("203.0.113.9", "192.0.2.1").icmp(8, 0, b"x"),
    );
    pair.check("the first packet to an absent host", LEFT, ipv4(HOST, "198.51.100.2").udp(1));
    pair.finish(17);
}

#[test]
fn rejects() {
    const RULES: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
        -A INPUT -p tcp --dport 81 -j REJECT\n\
        -A INPUT -p tcp --dport 82 -j DROP\n\
        -A INPUT -p udp --dport 82 -j DROP\n\
        -A OUTPUT -p icmp -m conntrack --ctstate RELATED --icmp-type host-prohibited -j DROP\n\
        -A FORWARD -p tcp --dport 80 -j REJECT --reject-with tcp-reset\n\
        -A FORWARD -p tcp --dport 81 -j REJECT --reject-with icmp-host-prohibited\n\
        -A FORWARD -p udp --dport 53 -j REJECT --reject-with icmp-admin-prohibited\n\
        -A FORWARD -p icmp -j REJECT\n\
        -A FORWARD -p 253 -j REJECT\n\
        -A FORWARD -p esp -j REJECT\nCOMMIT\n";
    const RULES6: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
        -A INPUT -p tcp --dport 81 -j REJECT\n\
        -A FORWARD -p tcp -j REJECT --reject-with tcp-reset\n\
        -A FORWARD -j REJECT\nCOMMIT\n";
    let world = World { rules4: Some(RULES), rules6: Some(RULES6), ..World::default() };
    let Some(mut pair) = Pair::new(&world) else { return };
    for flags in [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x00, 0x03, 0x3f] {
        pair.check(&format!("flags {flags:#x}"), LEFT, ipv4(HOST, PEER).tcp(flags));
        pair.check(&format!("flags {flags:#x}, IPv6"), LEFT, ipv6(HOST6, PEER6).tcp(flags));
    }
    pair.check("type of service", LEFT, ipv4(HOST, PEER).tos(0xb9).tcp(0x02));
    pair.check("an error that OUTPUT drops", LEFT, ipv4(HOST, PEER).tcp_to(81));
    pair.check("INPUT rejects", LEFT, ipv4(HOST, "192.0.2.1").tcp_to(81));
    pair.check("INPUT drops", LEFT, ipv4(HOST, "192.0.2.1").tcp_to(82));
    pair.check("INPUT rejects, IPv6", LEFT, ipv6(HOST6, "2001:db8:1::1").tcp_to(81));
    pair.check("a datagram", LEFT, ipv4(HOST, PEER).udp(1));
    pair.check("a long one", LEFT, ipv4(HOST, PEER).udp(1000));
    pair.check("a long one, IPv6", LEFT, ipv6(HOST6, PEER6).udp(1400));
    pair.check("with options", LEFT, ipv4(HOST, PEER).options(&[7, 7, 4, 0, 0, 0, 0, 0]).udp(1));
    pair.check("ping", LEFT, ipv4(HOST, PEER).icmp(8, 0, b"ping"));
    pair.check("ping, IPv6", LEFT, ipv6(HOST6, PEER6).icmp(128, 0, b"ping"));
    for kind in [0, 3, 5, 6, 9, 11, 12, 13, 17, 19, 30] {
        pair.check(&format!("ICMP type {kind}"), LEFT, ipv4(HOST, PEER).icmp(kind, 0, &[0; 28]));
    }
    for kind in [1, 2, 3, 4, 100, 127, 129, 135, 137, 144] {
        pair.check(&format!("ICMPv6 type {kind}"), LEFT, ipv6(HOST6, PEER6).icmp(kind, 0, &[0; 48]));
    }
    pair.check("a protocol that is not checksummed", LEFT, ipv4(HOST, PEER).payload(50, b"12345678"));
    pair.check("an unknown protocol", LEFT, ipv4(HOST, PEER).payload(253, b"12345678"));
    pair.check("an unknown protocol that sums up", LEFT, ipv4(HOST, PEER).payload(253, &[0xff, 0xff]));
    pair.check("a bad checksum", LEFT, ipv4(HOST, PEER).payload(17, &[1, 2, 0, 53, 0, 9, 1, 1, 0]));
    pair.check("no checksum", LEFT, ipv4(HOST, PEER).payload(17, &[1, 2, 0, 53, 0, 9, 0, 0, 0]));
    pair.check("no checksum, IPv6", LEFT, ipv6(HOST6, PEER6).payload(17, &[1, 2, 0, 53, 0, 9, 0, 0, 0]));
    pair.finish(50);
}

#[test]
fn redirects() {
    let world = World {
        sysctl: &[("net.ipv4.conf.all.send_redirects", "1")],
        routes: &[("203.0.113.128/25", To::Via(LEFT, "192.0.2.2"))],
        addresses: &[(LEFT, "198.18.9.1/24")],
        neighbours: &[
            (LEFT, "198.18.9.9", [2, 0, 0, 0, 1, 9]),
            (LEFT, "198.18.9.10", [2, 0, 0, 0, 1, 10]),
            (LEFT, "198.18.9.11", [2, 0, 0, 0, 1, 11]),
        ],
        ..World::default()
    };
    let Some(mut pair) = Pair::new(&world) else { return };
    pair.check("to a neighbour", LEFT, ipv4("198.18.9.9", "198.18.9.10").udp(1));
    pair.check("through a neighbour", LEFT, ipv4("198.18.9.10", "203.0.113.200").tos(0x08).udp(1));
    pair.check("from behind a neighbour: none", LEFT, ipv4(HOST, "203.0.113.200").udp(1));
    pair.check("about an error: none", LEFT, ipv4("198.18.9.11", "203.0.113.200").icmp(3, 1, &[0; 28]));
    pair.check("from a broadcast address", LEFT, ipv4("198.18.9.255", "203.0.113.200").udp(1));
    pair.check("across: none", LEFT, ipv4("198.18.9.11", PEER).udp(1));
    pair.finish(6);
}

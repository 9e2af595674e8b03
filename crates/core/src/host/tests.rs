//! Stories of a router between two networks, without a kernel beside it: `tests/it/kernel_route` has those.

use crate::base::fate::{DropReason, Fate, QueueReason};
use crate::base::iface::{Iface, IfaceId};
use crate::base::log::Speaker;
use crate::base::time::Instant;
use crate::base::{Emission, EmissionKind};
use crate::config::{Mode, NeighbourConfig, RouterConfig};
use crate::neighbour::{MAX_NEIGHBOURS, message};
use crate::packet::checksum::Sum;
use crate::packet::{Addr, ETHERNET_LEN, Family, Frame, Mac, Prefix};
use crate::record::NoRecord;
use crate::router::{Planes, Router, Worker};
use core::net::IpAddr;

const LEFT: IfaceId = IfaceId(0);
const RIGHT: IfaceId = IfaceId(1);
const HOST_MAC: Mac = Mac([2, 0, 0, 0, 1, 2]);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 2, 2]);
const ACCEPT: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn prefix(text: &str) -> Prefix {
    let (base, len) = text.split_once('/').unwrap();
    let family = if base.contains(':') { Family::Ipv6 } else { Family::Ipv4 };
    Prefix::new(addr(base), len.parse().unwrap(), family)
}

/// The router, and the host of the left network, whose link address is known.
struct Story {
    router: Router,
    worker: Worker,
    now: Instant,
}

impl Story {
    fn new(rules: &str, sysctl: &[(&str, &str)]) -> Self {
        Self::in_mode(Mode::Route, rules, ACCEPT, sysctl)
    }

    fn in_mode(mode: Mode, rules: &str, rules6: &str, sysctl: &[(&str, &str)]) -> Self {
        let iface = |name: &str, id: IfaceId, addresses: [&str; 2]| Iface {
            addresses: addresses.map(prefix).to_vec(),
            ..Iface::new(name, id)
        };
        let known = |text: &str| NeighbourConfig {
            addr: addr(text),
            family: if text.contains(':') { Family::Ipv6 } else { Family::Ipv4 },
            mac: HOST_MAC,
            iface: LEFT,
        };
        let config = RouterConfig {
            mode,
            ifaces: vec![
                iface("left", LEFT, ["192.0.2.1/24", "2001:db8:1::1/64"]),
                iface("right", RIGHT, ["198.18.0.1/15", "2001:db8:2::1/64"]),
            ],
            neighbours: vec![known("192.0.2.10"), known("2001:db8:1::10")],
            rules: Some(rules.into()),
            rules6: Some(rules6.into()),
            sysctl: sysctl.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            ..RouterConfig::default()
        };
        let router = Router::new(config).unwrap();
        let worker = router.worker();
        Self { router, worker, now: Instant::from_secs(100) }
    }

    fn mac(&self, iface: IfaceId) -> Mac {
        self.router.ifaces()[iface.index()].mac
    }

    /// A datagram from the host comes in: its fate, and every frame that leaves.
    fn datagram(&mut self, src: &str, dst: &str, ttl: u8) -> (Fate, Vec<Emission>) {
        let l3 = datagram(addr(src), addr(dst), src.contains(':'), ttl);
        let kind = if src.contains(':') { [0x86, 0xdd] } else { [8, 0] };
        let frame = [&self.mac(LEFT).0[..], &HOST_MAC.0, &kind, &l3].concat();
        self.frame(LEFT, frame)
    }

    /// The host opens a TCP connection.
    fn syn(&mut self, src: &str, dst: &str) -> (Fate, Vec<Emission>) {
        let mut l3 = datagram(addr(src), addr(dst), false, 64);
        l3.truncate(20);
        let mut tcp = vec![0x13, 0x88, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
        let sum = Sum::pseudo_header(addr(src), addr(dst), Family::Ipv4, 6, tcp.len()).bytes(&tcp);
        tcp[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
        (l3[3], l3[9]) = (40, 6);
        l3[10..12].fill(0);
        let checksum = Sum::ZERO.bytes(&l3).checksum().to_be_bytes();
        l3[10..12].copy_from_slice(&checksum);
        let frame = [&self.mac(LEFT).0[..], &HOST_MAC.0, &[8, 0], &l3, &tcp].concat();
        self.frame(LEFT, frame)
    }

    fn frame(&mut self, iface: IfaceId, mut frame: Vec<u8>) -> (Fate, Vec<Emission>) {
        let outcome =
            self.router.process(&mut self.worker, self.now, iface, Frame::new(&mut frame), &mut NoRecord);
        let mut sent: Vec<_> = self.worker.take_emissions().collect();
        frame.truncate(outcome.len);
        sent.extend(outcome.out.map(|iface| Emission {
            iface,
            kind: EmissionKind::Copy,
            frame,
            offload: outcome.offload,
        }));
        (outcome.fate, sent)
    }

    fn wait(&mut self, millis: u64) -> Vec<Emission> {
        self.now = Instant::from_millis(self.now.as_millis() + millis);
        self.router.handle_timeout(&mut self.worker, self.now);
        self.worker.take_emissions().collect()
    }

    /// `dst` on the right says where it is.
    fn answer_arp(&mut self, dst: &str) -> (Fate, Vec<Emission>) {
        let mut frame = [&self.mac(RIGHT).0[..], &PEER_MAC.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
        frame.extend(PEER_MAC.0);
        frame.extend(addr(dst).v4());
        frame.extend(self.mac(RIGHT).0);
        frame.extend([198, 18, 0, 1]);
        self.frame(RIGHT, frame)
    }
}

/// UDP port 9 of `dst`, without a checksum if that is allowed.
fn datagram(src: Addr, dst: Addr, v6: bool, ttl: u8) -> Vec<u8> {
    let mut udp = vec![0x13, 0x88, 0, 9, 0, 9, 0, 0, 0x71];
    if v6 {
        let sum = Sum::pseudo_header(src, dst, Family::Ipv6, 17, udp.len()).bytes(&udp).checksum();
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        return [&[0x60, 0, 0, 0, 0, 9, 17, ttl][..], &src.v6(), &dst.v6(), &udp].concat();
    }
    let mut header = [&[0x45, 0, 0, 29, 0, 1, 0x40, 0, ttl, 17, 0, 0][..], &src.v4(), &dst.v4()].concat();
    let checksum = Sum::ZERO.bytes(&header).checksum().to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    [header, udp].concat()
}

/// The ICMP type and code that a frame carries.
fn icmp(sent: &Emission) -> (u8, u8) {
    let at = ETHERNET_LEN + if sent.frame[12] == 8 { 20 } else { 40 };
    (sent.frame[at], sent.frame[at + 1])
}

const WAITS: Fate = Fate::Queued(QueueReason::Neighbour);

#[test]
fn a_packet_waits_for_its_neighbour_and_then_goes() {
    let mut story = Story::new(ACCEPT, &[]);
    let (fate, sent) = story.datagram("192.0.2.10", "198.18.0.7", 64);
    assert_eq!((fate, sent.len()), (WAITS, 1));
    assert_eq!((sent[0].iface, &sent[0].frame[..6]), (RIGHT, &Mac::BROADCAST.0[..]));
    let (fate, sent) = story.answer_arp("198.18.0.7");
    assert_eq!((fate, sent.len()), (Fate::Delivered, 1));
    assert_eq!((sent[0].iface, sent[0].kind), (RIGHT, EmissionKind::Released));
    assert_eq!(sent[0].frame[..12], [PEER_MAC.0, story.mac(RIGHT).0].concat());
    assert_eq!(sent[0].frame[ETHERNET_LEN + 8], 63, "one hop less");
    assert_eq!(story.datagram("192.0.2.10", "198.18.0.7", 64).0, Fate::Forwarded);
}

#[test]
fn ipv6_neighbours_are_asked_in_their_group() {
    let mut story = Story::new(ACCEPT, &[]);
    let (fate, sent) = story.datagram("2001:db8:1::10", "2001:db8:2::7", 64);
    assert_eq!((fate, sent.len()), (WAITS, 1));
    assert_eq!((icmp(&sent[0]), &sent[0].frame[..6]), ((135, 0), &[0x33, 0x33, 0xff, 0, 0, 7][..]));
    let claim =
        message::Claim { target: addr("2001:db8:2::7"), solicited: true, overrides: true, with_mac: true };
    let own = addr("fe80::ff:fe00:201");
    let mut answer = message::advertisement(PEER_MAC, claim, Some(own));
    answer[..6].copy_from_slice(&story.mac(RIGHT).0);
    let (fate, sent) = story.frame(RIGHT, answer);
    assert_eq!((fate, sent.len()), (Fate::Delivered, 1));
    assert_eq!((sent[0].iface, sent[0].kind), (RIGHT, EmissionKind::Released));
}

#[test]
fn nobody_answers_and_the_sender_is_told() {
    for (src, dst, error) in
        [("192.0.2.10", "198.18.0.7", (3, 1)), ("2001:db8:1::10", "2001:db8:2::7", (1, 3))]
    {
        let mut story = Story::new(ACCEPT, &[]);
        assert_eq!(story.datagram(src, dst, 64).0, WAITS);
        assert_eq!([story.wait(1000).len(), story.wait(1000).len()], [1, 1], "asked three times");
        let sent = story.wait(1000);
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].iface, icmp(&sent[0])), (LEFT, error));
        let lost = story.router.drop_counters().find(|(code, _)| *code == DropReason::NeighbourFailed.code());
        assert_eq!(lost, Some(("neighbour-failed", 1)));
    }
}

#[test]
fn a_host_is_told_of_errors_only_so_often() {
    let mut story = Story::new(ACCEPT, &[]);
    let errors = |story: &mut Story| {
        (0..10).map(|_| story.datagram("192.0.2.10", "198.18.0.7", 1).1.len()).sum::<usize>()
    };
    assert_eq!(errors(&mut story), 6, "at once");
    story.wait(2000);
    assert_eq!(errors(&mut story), 2, "and one each second");
    let mut unlimited = Story::new(ACCEPT, &[("net.ipv4.icmp_ratelimit", "0")]);
    assert_eq!(errors(&mut unlimited), 10);
    let lost = |story: &mut Story| {
        (0..10).map(|_| story.datagram("192.0.2.10", "203.0.113.200", 64).1.len()).sum::<usize>()
    };
    assert_eq!(lost(&mut unlimited), 5, "without a route, whatever is said of the others");
    unlimited.wait(2000);
    assert_eq!(lost(&mut unlimited), 2);
}

#[test]
fn reject_answers_a_host_as_often_on_a_bridge_as_between_networks() {
    const ANY: &str = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j REJECT\nCOMMIT\n";
    const RESETS: &str = "*filter\n-A FORWARD -p tcp -j REJECT --reject-with tcp-reset\nCOMMIT\n";
    for mode in [Mode::Route, Mode::Bridge] {
        for (from, to, rate) in [("192.0.2.10", "198.18.0.7", 1), ("2001:db8:1::10", "2001:db8:2::7", 40)] {
            let answers = |story: &mut Story| {
                (0..20)
                    .map(|_| {
                        let (fate, sent) = story.datagram(from, to, 64);
                        assert!(matches!(fate, Fate::Rejected(..)), "{fate:?}");
                        sent.len()
                    })
                    .sum::<usize>()
            };
            let mut story = Story::in_mode(mode, ANY, ANY, &[]);
            assert_eq!(answers(&mut story), 6, "{mode:?} {from}");
            story.wait(2000 / rate);
            assert_eq!(answers(&mut story), 2, "{mode:?} {from}");
            let unlimited = [("net.ipv4.icmp_ratelimit", "0"), ("net.ipv6.icmp.ratelimit", "0")];
            assert_eq!(answers(&mut Story::in_mode(mode, ANY, ANY, &unlimited)), 20, "{mode:?} {from}");
        }
        // Resets have no limit, as in Linux.
        let mut story = Story::in_mode(mode, RESETS, ANY, &[]);
        let refused = (0..20).map(|_| story.syn("192.0.2.10", "198.18.0.7").1.len()).sum::<usize>();
        assert_eq!(refused, 20, "{mode:?}");
    }
}

#[test]
fn nobody_is_told_about_what_was_for_a_whole_network() {
    for (dst, told) in [([192, 0, 2, 1], 1), ([192, 0, 2, 255], 0)] {
        let mut story = Story::new(ACCEPT, &[]);
        // A protocol that nobody knows.
        let mut header = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 253, 0, 0, 192, 0, 2, 10, 0, 0, 0, 0];
        header[16..].copy_from_slice(&dst);
        let checksum = Sum::ZERO.bytes(&header).checksum().to_be_bytes();
        header[10..12].copy_from_slice(&checksum);
        let frame = [&story.mac(LEFT).0[..], &HOST_MAC.0, &[8, 0], &header, &[0; 8]].concat();
        assert_eq!(story.frame(LEFT, frame).1.len(), told, "{dst:?}");
    }
}

#[test]
fn what_the_router_sends_passes_output() {
    const RULES: &str =
        "*filter\n:OUTPUT DROP [0:0]\n-A OUTPUT -m conntrack --ctstate RELATED -j ACCEPT\nCOMMIT\n";
    let mut story = Story::new(RULES, &[]);
    let (_, sent) = story.datagram("192.0.2.10", "198.18.0.7", 1);
    assert_eq!(sent.iter().map(icmp).collect::<Vec<_>>(), [(11, 0)], "an error is RELATED");
    let echo = [8, 0, 0xf7, 0xf7, 0, 7, 0, 1];
    let mut header = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 192, 0, 2, 10, 192, 0, 2, 1];
    let checksum = Sum::ZERO.bytes(&header).checksum().to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    let frame = [&story.mac(LEFT).0[..], &HOST_MAC.0, &[8, 0], &header, &echo].concat();
    let (fate, sent) = story.frame(LEFT, frame);
    assert_eq!((fate, sent), (Fate::Delivered, vec![]), "an echo reply is ESTABLISHED");
}

#[test]
fn rules_hear_of_what_the_router_sends() {
    const RULES: &str = "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j LOG\nCOMMIT\n";
    let mut story = Story::new(RULES, &[]);
    let heard = story.router.logs().listen();
    story.datagram("192.0.2.10", "198.18.0.7", 1);
    assert_eq!(heard.try_iter().count(), 1);
}

#[test]
fn the_log_says_why_a_packet_is_invalid_if_it_is_asked_to() {
    for (wanted, count) in [("0", 0), ("6", 0), ("17", 1), ("255", 1)] {
        let mut story = Story::new(ACCEPT, &[("nf_conntrack_log_invalid", wanted)]);
        let heard = story.router.logs().listen();
        let mut l3 = datagram(addr("192.0.2.10"), addr("198.18.0.7"), false, 64);
        l3[25] = 7;
        let frame = [&story.mac(LEFT).0[..], &HOST_MAC.0, &[8, 0], &l3].concat();
        story.frame(LEFT, frame);
        let prefixes: Vec<_> = heard.try_iter().map(|logged| logged.by).collect();
        assert_eq!(prefixes.len(), count, "{wanted}");
        let is_told = |by: &Speaker| matches!(by, Speaker::Log { prefix, .. } if prefix == "nf_ct_proto_17: udp-length ");
        assert!(prefixes.iter().all(is_told), "{prefixes:?}");
    }
}

/// Whether a rule of the raw table takes a datagram that comes in from the left.
fn takes(matches: &str, src: &str, dst: &str) -> bool {
    let rules = format!("*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {matches} -j DROP\nCOMMIT\n{ACCEPT}");
    let (fate, _) = Story::new(&rules, &[]).datagram(src, dst, 64);
    matches!(fate, Fate::Dropped(DropReason::Rule(_)))
}

#[test]
fn rules_know_whose_an_address_is() {
    let types = [
        ("192.0.2.1", "LOCAL"),
        ("198.18.0.1", "LOCAL"),
        ("127.0.0.1", "LOCAL"),
        ("192.0.2.255", "BROADCAST"),
        ("198.19.255.255", "BROADCAST"),
        ("255.255.255.255", "BROADCAST"),
        ("0.0.0.0", "BROADCAST"),
        ("0.1.2.3", "UNICAST"),
        ("192.0.2.0", "UNICAST"),
        ("198.18.0.7", "UNICAST"),
        ("203.0.113.1", "UNICAST"),
        ("224.0.0.1", "MULTICAST"),
    ];
    for (dst, expected) in types {
        for kind in ["LOCAL", "BROADCAST", "UNICAST", "MULTICAST"] {
            let taken = takes(&format!("-m addrtype --dst-type {kind}"), "192.0.2.10", dst);
            assert_eq!(taken, kind == expected, "{dst} is {kind}");
        }
    }
    let here =
        |kind, dst| takes(&format!("-m addrtype --dst-type {kind} --limit-iface-in"), "192.0.2.10", dst);
    assert!(here("LOCAL", "192.0.2.1") && here("UNICAST", "198.18.0.1"), "an own address, of the other side");
    assert!(here("BROADCAST", "192.0.2.255") && here("UNICAST", "198.19.255.255"));
}

#[test]
fn rules_know_the_way_back() {
    let ways = ["-m rpfilter", "-m rpfilter --loose", "-m rpfilter --accept-local", "-m rpfilter --invert"];
    for (src, dst, expected) in [
        ("192.0.2.10", "198.18.0.7", [true, true, true, false]),
        ("198.18.0.7", "192.0.2.10", [false, true, false, true]),
        ("203.0.113.9", "198.18.0.7", [false, false, false, true]),
        ("192.0.2.255", "198.18.0.7", [false, false, false, true]),
        ("192.0.2.1", "198.18.0.7", [false, false, true, true]),
        ("198.18.0.1", "192.0.2.1", [false, false, false, true]),
        ("0.0.0.0", "255.255.255.255", [true, true, true, false]),
    ] {
        assert_eq!(ways.map(|way| takes(way, src, dst)), expected, "from {src}");
    }
    assert!(takes("-m rpfilter --accept-local --loose", "198.18.0.1", "192.0.2.1"));
}

#[test]
fn a_hundred_thousand_absent_neighbours_cost_the_others_nothing() {
    const RULES: &str = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -j NOTRACK\nCOMMIT\n";
    let mut story = Story::new(RULES, &[]);
    story.datagram("192.0.2.10", "198.19.255.254", 64);
    story.answer_arp("198.19.255.254");
    let (mut others_lost, mut most_waiting) = (0, 0);
    for n in 0..100_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        // Ten thousand a second.
        if n % 10 == 0 {
            story.wait(1);
        }
        story.datagram("192.0.2.10", &format!("198.{}.{b}.{c}", 18 + a), 64);
        if n % 100 == 0 {
            let (fate, _) = story.datagram("192.0.2.10", "198.19.255.254", 64);
            others_lost += usize::from(fate != Fate::Forwarded);
        }
        let Planes::Host(host) = story.router.plane() else { panic!("a router in route mode") };
        let (neighbours, bytes) = host.neighbours().size();
        assert!(neighbours <= MAX_NEIGHBOURS, "after {n}");
        most_waiting = most_waiting.max(bytes);
    }
    assert_eq!(others_lost, 0, "of 1000 packets to a neighbour that is there");
    assert!(most_waiting <= 64 << 10, "{most_waiting} bytes waited");
}

/// The first of two pieces of a datagram.
fn first_piece(src: &str, dst: &str) -> Vec<u8> {
    let mut l3 = datagram(addr(src), addr(dst), src.contains(':'), 64);
    if src.contains(':') {
        // A fragment header in front of the nine bytes, of which eight count.
        l3.truncate(48);
        l3.splice(40..40, [17, 0, 0, 1, 0, 0, 0, 7]);
        (l3[5], l3[6]) = (16, 44);
    } else {
        l3[6] = 0x20;
        l3[10..12].fill(0);
        let checksum = Sum::ZERO.bytes(&l3[..20]).checksum().to_be_bytes();
        l3[10..12].copy_from_slice(&checksum);
    }
    l3
}

#[test]
fn a_sender_is_told_that_the_rest_of_its_datagram_never_came() {
    const FOUR: &[u8] = &[8, 0];
    const SIX: &[u8] = &[0x86, 0xdd];
    let settings = [("net.ipv4.ipfrag_time", "5"), ("nf_conntrack_frag6_timeout", "5")];
    for (kind, src, dst, told) in [
        (FOUR, "192.0.2.10", "198.18.0.7", None),
        (FOUR, "192.0.2.10", "192.0.2.1", Some((11, 1))),
        (SIX, "2001:db8:1::10", "2001:db8:2::7", Some((3, 1))),
        (SIX, "2001:db8:1::10", "2001:db8:1::1", Some((3, 1))),
    ] {
        let mut story = Story::new(ACCEPT, &settings);
        let piece = first_piece(src, dst);
        let frame = [&story.mac(LEFT).0[..], &HOST_MAC.0, kind, &piece].concat();
        let (fate, sent) = story.frame(LEFT, frame);
        assert_eq!((fate, sent.len()), (Fate::Queued(QueueReason::Fragment), 0), "{src} > {dst}");
        assert!(story.wait(4_990).is_empty(), "{src} > {dst}: too early");
        let sent = story.wait(10);
        assert_eq!(sent.first().map(icmp), told, "{src} > {dst}");
        let Some(sent) = sent.first() else { continue };
        assert_eq!((sent.iface, &sent.frame[..6]), (LEFT, &HOST_MAC.0[..]));
        // Quoted as it came; in IPv4 without the byte that makes no unit of eight.
        let quoted = if kind == FOUR { &piece[..28] } else { &piece[..] };
        assert!(sent.frame.ends_with(quoted), "{src} > {dst}");
        assert!(story.wait(60_000).is_empty(), "{src} > {dst}: once");
    }
}

/// A packet of `proto` for `dst` comes in from the host, whose address is `src`.
fn ipv6_from_host(
    story: &mut Story,
    src: &str,
    dst: &str,
    proto: u8,
    l4: &[u8],
    sum_at: usize,
) -> (Fate, Vec<Emission>) {
    let (src, dst) = (addr(src), addr(dst));
    let mut l4 = l4.to_vec();
    let sum = Sum::pseudo_header(src, dst, Family::Ipv6, proto, l4.len()).bytes(&l4).checksum();
    l4[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut l3 = vec![0x60, 0, 0, 0, 0, l4.len() as u8, proto, 64];
    l3.extend(src.v6());
    l3.extend(dst.v6());
    let frame = [&story.mac(LEFT).0[..], &HOST_MAC.0, &[0x86, 0xdd], &l3, &l4].concat();
    story.frame(LEFT, frame)
}

#[test]
fn any_router_of_a_network_has_no_connections_and_answers_on_the_link_that_asked() {
    const SYN: [u8; 20] = [0x13, 0x88, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
    const ECHO: [u8; 8] = [128, 0, 0, 0, 0, 7, 0, 1];
    let mut story = Story::new(ACCEPT, &[]);
    let (host, any) = ("2001:db8:1::10", "2001:db8:1::");
    let (fate, sent) = ipv6_from_host(&mut story, host, any, 6, &SYN, 16);
    assert_eq!((fate, sent.len()), (Fate::Dropped(DropReason::NotForUs), 0));
    let (_, sent) = ipv6_from_host(&mut story, host, "2001:db8:1::1", 6, &SYN, 16);
    assert_eq!(sent.len(), 1, "the router alone resets");

    let (fate, sent) = ipv6_from_host(&mut story, host, any, 58, &ECHO, 2);
    assert_eq!((fate, icmp(&sent[0]), sent[0].iface), (Fate::Delivered, (129, 0), LEFT));
    let elsewhere = "2001:db8:2::10";
    let (_, sent) = ipv6_from_host(&mut story, elsewhere, any, 58, &ECHO, 2);
    assert_eq!(sent.len(), 0, "the way to the right is none of this link's");
    let (_, sent) = ipv6_from_host(&mut story, elsewhere, "2001:db8:1::1", 58, &ECHO, 2);
    assert_eq!(sent[0].iface, RIGHT, "asked alone, the router goes by its routes");
}

use crate::base::fate::{DropReason, Fate, QueueReason};
use crate::base::{Addr, Family, Iface, IfaceId, Instant, Mac, Medium, Offload, Prefix, RejectWith};
use crate::config::{Mode, NeighbourConfig, RouteConfig, RouteTarget, RouterConfig};
use crate::packet::checksum::Sum;
use crate::packet::{ETHERNET_LEN, Frame};
use crate::record::NoRecord;
use crate::router::{Router, Worker};
use core::net::IpAddr;

/// Ethernet, with a host whose link address is known.
const LAN: IfaceId = IfaceId(0);
/// Bare IP packets.
const TUN: IfaceId = IfaceId(1);
const VPN: IfaceId = IfaceId(2);
const HOST_MAC: Mac = Mac([2, 0, 0, 0, 9, 9]);
const OPEN: &str = "*filter\nCOMMIT\n";

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn prefix(text: &str) -> Prefix {
    let (base, len) = text.split_once('/').unwrap();
    let family = if base.contains(':') { Family::Ipv6 } else { Family::Ipv4 };
    Prefix::new(addr(base), len.parse().unwrap(), family)
}

/// A router between a LAN, a TUN and a VPN.
struct Story {
    router: Router,
    worker: Worker,
}

impl Story {
    fn new(rules: &str, tun_mtu_bytes: usize) -> Self {
        let mut tun = Iface::new("tun", TUN).with_medium(Medium::Ip);
        tun.mtu_bytes = tun_mtu_bytes;
        let to = prefix("203.0.113.0/24");
        let gateway = addr("198.51.100.77");
        let neighbour = |text: &str| NeighbourConfig {
            addr: addr(text),
            family: if text.contains(':') { Family::Ipv6 } else { Family::Ipv4 },
            mac: HOST_MAC,
            iface: LAN,
        };
        let config = RouterConfig {
            mode: Mode::Route,
            routes: vec![RouteConfig { to, target: RouteTarget::Via { gateway, iface: TUN } }],
            neighbours: vec![neighbour("192.0.2.10"), neighbour("2001:db8:1::10")],
            ..RouterConfig::new(vec![
                Iface::new("lan", LAN)
                    .with_address(prefix("192.0.2.1/24"))
                    .with_address(prefix("2001:db8:1::1/64")),
                tun.with_address(prefix("198.51.100.1/24")).with_address(prefix("2001:db8:2::1/64")),
                Iface::new("vpn", VPN).with_medium(Medium::Ip).with_address(prefix("198.18.0.1/15")),
            ])
        };
        Self::of(config.with_rules(rules, OPEN))
    }

    fn of(config: RouterConfig) -> Self {
        let router = Router::new(config).unwrap();
        let worker = router.worker();
        Self { router, worker }
    }

    /// Gives an IP packet to the router as the interface's medium carries it: its fate, and what leaves.
    fn give(&mut self, iface: IfaceId, packet: &[u8]) -> (Fate, Vec<(IfaceId, Vec<u8>)>) {
        let here = &self.router.ifaces()[iface.index()];
        let is_bare = here.medium == Medium::Ip;
        // What the headroom holds does not matter.
        let mut buf = vec![0xee; ETHERNET_LEN];
        if !is_bare {
            let kind = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
            buf = [&here.mac.0[..], &HOST_MAC.0, &kind].concat();
        }
        buf.extend(packet);
        let frame = if is_bare { Frame::bare(&mut buf, packet.len()) } else { Frame::new(&mut buf) };
        let outcome =
            self.router.process(&mut self.worker, Instant::from_secs(9), iface, frame, &mut NoRecord);
        let mut sent: Vec<_> = self.worker.take_emissions().map(|sent| (sent.iface, sent.frame)).collect();
        sent.extend(outcome.out.map(|out| (out, buf[outcome.range()].to_vec())));
        (outcome.fate, sent)
    }

    /// The same for a packet of which one frame leaves.
    fn through(&mut self, iface: IfaceId, packet: &[u8]) -> (IfaceId, Vec<u8>) {
        let (fate, mut sent) = self.give(iface, packet);
        assert_eq!((fate, sent.len()), (Fate::Forwarded, 1), "{sent:?}");
        sent.remove(0)
    }
}

/// An IPv4 packet, whose checksum is right.
fn ipv4(proto: u8, src: &str, dst: &str, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 7, 0, 0, ttl, proto, 0, 0]);
    packet.extend(addr(src).v4());
    packet.extend(addr(dst).v4());
    let checksum = Sum::ZERO.bytes(&packet).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A UDP header without checksum, and `len` bytes behind it.
fn udp(sport: u16, dport: u16, len: usize) -> Vec<u8> {
    let ports = [sport, dport, 8 + len as u16, 0].map(u16::to_be_bytes);
    [ports.as_flattened(), &vec![0x5a; len]].concat()
}

fn icmp(bytes: &[u8]) -> Vec<u8> {
    let mut message = bytes.to_vec();
    message[2..4].fill(0);
    let checksum = Sum::ZERO.bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

fn datagram(src: &str, dst: &str) -> Vec<u8> {
    ipv4(17, src, dst, 64, &udp(5000, 53, 4))
}

/// Source and destination of a bare IPv4 packet.
fn ends(packet: &[u8]) -> [[u8; 4]; 2] {
    [12, 16].map(|at| packet[at..at + 4].try_into().unwrap())
}

#[test]
fn a_packet_gains_its_link_header_on_the_way_to_ethernet_and_loses_it_on_the_way_back() {
    let mut story = Story::new(OPEN, 1500);
    let packet = datagram("198.51.100.10", "192.0.2.10");
    let (out, frame) = story.through(TUN, &packet);
    let own_mac = story.router.ifaces()[LAN.index()].mac;
    assert_eq!((out, &frame[..14]), (LAN, &[&HOST_MAC.0[..], &own_mac.0, &[8, 0]].concat()[..]));
    assert_eq!((frame.len(), frame[14 + 8]), (14 + packet.len(), 63), "one hop less");
    // Nobody is asked for a link address, neither for a host nor for a gateway.
    for far in ["198.51.100.10", "203.0.113.9"] {
        let (out, back) = story.through(LAN, &datagram("192.0.2.10", far));
        assert_eq!((out, ends(&back)), (TUN, [addr("192.0.2.10").v4(), addr(far).v4()]));
        assert_eq!((back.len(), back[0], back[8]), (packet.len(), 0x45, 63));
    }
    let (out, far) = story.through(TUN, &datagram("198.51.100.10", "198.18.0.9"));
    assert_eq!((out, far.len()), (VPN, packet.len()), "from one without to another");
    let (fate, sent) = story.give(TUN, &datagram("198.51.100.10", "192.0.2.11"));
    assert_eq!(fate, Fate::Queued(QueueReason::Neighbour), "on Ethernet they are asked for");
    assert_eq!((sent[0].0, &sent[0].1[12..14]), (LAN, &[8, 6][..]));
}

#[test]
fn what_is_no_ip_packet_is_dropped_and_counted() {
    let mut story = Story::new(OPEN, 1500);
    for packet in [&[][..], &[0x50; 40], &[0]] {
        assert_eq!(story.give(TUN, packet), (Fate::Dropped(DropReason::NotIp), vec![]));
    }
    let counted = story.router.drop_counters().find(|(code, _)| *code == "not-ip");
    assert_eq!(counted, Some(("not-ip", 3)));
    assert_eq!(story.give(TUN, &[0x45; 3]).0, Fate::Dropped(DropReason::IpTruncated));
}

#[test]
fn addresses_are_translated_on_the_way_to_bare_packets_and_back() {
    let nat = "*nat\n-A POSTROUTING -o tun -j MASQUERADE\nCOMMIT\n";
    let mut story = Story::new(nat, 1500);
    let (out, asked) = story.through(LAN, &datagram("192.0.2.10", "203.0.113.9"));
    assert_eq!((out, ends(&asked)), (TUN, [addr("198.51.100.1").v4(), addr("203.0.113.9").v4()]));
    let answer = ipv4(17, "203.0.113.9", "198.51.100.1", 64, &udp(53, 5000, 4));
    let (out, answered) = story.through(TUN, &answer);
    assert_eq!((out, ends(&answered[14..])), (LAN, [addr("203.0.113.9").v4(), addr("192.0.2.10").v4()]));
}

#[test]
fn answers_of_the_router_leave_as_bare_packets() {
    let reject = "*filter\n-A FORWARD -p udp --dport 53 -j REJECT\nCOMMIT\n";
    let mut story = Story::new(reject, 1500);
    let (fate, sent) = story.give(TUN, &datagram("198.51.100.10", "192.0.2.10"));
    assert!(matches!(fate, Fate::Rejected(RejectWith::Icmp(3, 3), _)), "{fate:?}");
    let to_sender = [addr("198.51.100.1").v4(), addr("198.51.100.10").v4()];
    let check = |sent: &[(IfaceId, Vec<u8>)], kind: [u8; 2]| {
        let [(TUN, answer)] = sent else { panic!("{sent:?}") };
        assert_eq!((answer[0] >> 4, answer[9], ends(answer)), (4, 1, to_sender));
        assert_eq!(answer[20..22], kind);
        assert_eq!(u16::from_be_bytes([answer[2], answer[3]]) as usize, answer.len());
    };
    check(&sent, [3, 3]);
    let (fate, sent) = story.give(TUN, &ipv4(17, "198.51.100.10", "192.0.2.10", 1, &udp(1, 2, 0)));
    assert_eq!(fate, Fate::Dropped(DropReason::TtlExceeded));
    check(&sent, [11, 0]);
    let ping = ipv4(1, "198.51.100.10", "198.51.100.1", 64, &icmp(&[8, 0, 0, 0, 0, 1, 0, 1]));
    let (fate, sent) = story.give(TUN, &ping);
    assert_eq!(fate, Fate::Delivered);
    check(&sent, [0, 0]);
    // To the sender on Ethernet, in a frame: what it sent does not fit the TUN.
    let mut story = Story::new(OPEN, 600);
    let mut large = ipv4(17, "192.0.2.10", "203.0.113.9", 64, &udp(1, 2, 900));
    large[6] = 0x40;
    large[10..12].fill(0);
    let checksum = Sum::ZERO.bytes(&large[..20]).checksum();
    large[10..12].copy_from_slice(&checksum.to_be_bytes());
    let (fate, sent) = story.give(LAN, &large);
    assert_eq!(fate, Fate::Dropped(DropReason::TooBig));
    assert_eq!((sent[0].0, &sent[0].1[..6], &sent[0].1[34..36]), (LAN, &HOST_MAC.0[..], &[3, 4][..]));
}

#[test]
fn packets_are_cut_and_joined_on_either_side() {
    let mut story = Story::new(OPEN, 600);
    let (fate, pieces) = story.give(LAN, &ipv4(17, "192.0.2.10", "203.0.113.9", 64, &udp(1, 2, 900)));
    assert_eq!((fate, pieces.len()), (Fate::Forwarded, 2));
    for (out, piece) in &pieces {
        assert_eq!((*out, piece[0], piece.len() <= 600), (TUN, 0x45, true));
        assert_eq!(u16::from_be_bytes([piece[2], piece[3]]) as usize, piece.len());
    }
    let turned = |piece: &[u8]| {
        let mut piece = piece.to_vec();
        piece[12..16].copy_from_slice(&addr("203.0.113.9").v4());
        piece[16..20].copy_from_slice(&addr("192.0.2.10").v4());
        piece[10..12].fill(0);
        let checksum = Sum::ZERO.bytes(&piece[..20]).checksum();
        piece[10..12].copy_from_slice(&checksum.to_be_bytes());
        piece
    };
    let first = story.give(TUN, &turned(&pieces[0].1));
    assert_eq!(first, (Fate::Queued(QueueReason::Fragment), vec![]));
    let (fate, sent) = story.give(TUN, &turned(&pieces[1].1));
    assert_eq!((fate, sent.len()), (Fate::Forwarded, 2));
    for (out, frame) in sent {
        assert_eq!((out, &frame[..6], &frame[12..15]), (LAN, &HOST_MAC.0[..], &[8, 0, 0x45][..]));
    }
}

#[test]
fn neighbour_discovery_is_no_business_of_an_interface_without_link_addresses() {
    let mut story = Story::new(OPEN, 1500);
    let v6 = |next: u8, hops: u8, src: &str, dst: &str, payload: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, hops];
        packet.extend(addr(src).v6());
        packet.extend(addr(dst).v6());
        packet.extend(payload);
        packet
    };
    let (host, own) = ("2001:db8:2::10", "2001:db8:2::1");
    let mut asks = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &addr(own).v6()].concat();
    let sum = Sum::pseudo_header(addr(host), addr(own), Family::Ipv6, 58, asks.len()).bytes(&asks);
    asks[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    let answer = story.give(TUN, &v6(58, 255, host, own, &asks));
    assert_eq!(answer, (Fate::Delivered, vec![]), "nothing to say");
    let payload = udp(5000, 53, 4);
    let mut datagram = payload.clone();
    let sum = Sum::pseudo_header(addr("2001:db8:1::10"), addr(host), Family::Ipv6, 17, payload.len())
        .bytes(&payload);
    datagram[6..8].copy_from_slice(&sum.checksum().to_be_bytes());
    let (out, packet) = story.through(LAN, &v6(17, 64, "2001:db8:1::10", host, &datagram));
    assert_eq!((out, packet[0], packet.len()), (TUN, 0x60, 40 + payload.len()));
}

#[test]
fn what_a_kernel_left_undone_keeps_its_place_in_the_packet() {
    let mut story = Story::new(OPEN, 1500);
    let packet = datagram("198.51.100.10", "198.18.0.9");
    let mut buf = [&[0; Frame::HEADROOM][..], &packet].concat();
    let undone = Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..Offload::NONE };
    let frame = Frame::bare(&mut buf, packet.len()).with_offload(undone);
    let outcome = story.router.process(&mut story.worker, Instant::from_secs(9), TUN, frame, &mut NoRecord);
    assert_eq!((outcome.out, outcome.range()), (Some(VPN), 14..14 + packet.len()));
    assert_eq!(outcome.offload, Offload { csum_start: 20, ..undone });
}

#[test]
fn a_bridge_filters_between_two_ports_of_bare_packets() {
    let (tun, vpn) = (IfaceId(0), IfaceId(1));
    let bare = |name, id| Iface::new(name, id).with_medium(Medium::Ip);
    let rules = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m state --state ESTABLISHED -j ACCEPT\n\
        -A FORWARD -i tun -p udp -j ACCEPT\n-A FORWARD -i tun -j REJECT\nCOMMIT\n";
    let config = RouterConfig::new(vec![bare("tun", tun), bare("vpn", vpn)]).with_rules(rules, OPEN);
    let mut story = Story::of(config);
    let (asks, answer) =
        (datagram("192.0.2.10", "203.0.113.9"), ipv4(17, "203.0.113.9", "192.0.2.10", 64, &udp(53, 5000, 4)));
    assert!(
        matches!(story.give(vpn, &answer), (Fate::Dropped(DropReason::Policy(_)), sent) if sent.is_empty())
    );
    for _ in 0..3 {
        assert_eq!(story.through(tun, &asks), (vpn, asks.clone()), "unchanged: a bridge is no hop");
        assert_eq!(story.through(vpn, &answer), (tun, answer.clone()));
    }
    let (fate, sent) = story.give(tun, &ipv4(47, "192.0.2.10", "203.0.113.9", 64, &[0; 8]));
    assert!(matches!(fate, Fate::Rejected(..)), "{fate:?}");
    assert_eq!((sent[0].0, ends(&sent[0].1)), (tun, [addr("203.0.113.9").v4(), addr("192.0.2.10").v4()]));
}

//! Packets for measuring the core, and a router to take them.

use stateway_core::config::{Mode, NeighbourConfig, RouteConfig, RouteTarget, RouterConfig};
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::checksum::Sum;
use stateway_core::packet::{Addr, Family, Mac, Offload, Packet, Prefix};
use stateway_core::record::NoRecord;
use stateway_core::router::{Outcome, Router, Worker};
use stateway_core::time::Instant;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;

pub const LEFT: IfaceId = IfaceId(0);
pub const RIGHT: IfaceId = IfaceId(1);

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;

/// A bridge whose left side may open connections, with `before` rules in front that match nothing.
pub fn router(before: usize) -> Router {
    let mut rules = String::from("*filter\n:FORWARD DROP [0:0]\n");
    for n in 0..before {
        let (high, low) = (n >> 8 & 255, n & 255);
        let _ = writeln!(
            rules,
            "-A FORWARD -s 198.18.{high}.{low}/32 -p tcp -m tcp --dport {} -j DROP",
            1 + n % 65535
        );
    }
    rules.push_str(STATE_RULES);
    router_of(rules)
}

/// Answers pass, and what the left side opens.
pub const STATE_RULES: &str = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i left -m conntrack --ctstate NEW -j ACCEPT
COMMIT
";

/// A bridge with these rules, as iptables-save prints them.
pub fn router_of(rules: String) -> Router {
    let mut config = RouterConfig::new(vec![Iface::new("left", LEFT), Iface::new("right", RIGHT)]);
    config.rules = Some(rules);
    config.sysctl = vec![("nf_conntrack_max".into(), "8000000".into())];
    let router = Router::new(config).expect("these rules are right");
    // Both stations are known, so that nothing is flooded.
    send(&router, &mut router.worker(), LEFT, &mut udp(u32::MAX, false));
    send(&router, &mut router.worker(), RIGHT, &mut udp(u32::MAX, true));
    router
}

/// Where connections come from that [`translating`] has translated.
pub const PUBLIC: [u8; 4] = [203, 0, 113, 1];

/// A router between the two networks whose left side may open connections.
pub fn routing() -> Router {
    routing_by(&format!("*filter\n:FORWARD DROP [0:0]\n{STATE_RULES}"))
}

/// The same, where the right side sees [`PUBLIC`] alone.
pub fn translating() -> Router {
    let [a, b, c, d] = PUBLIC;
    routing_by(&format!(
        "*nat\n-A POSTROUTING -o right -j SNAT --to-source {a}.{b}.{c}.{d}\nCOMMIT\n\
         *filter\n:FORWARD DROP [0:0]\n{STATE_RULES}"
    ))
}

/// Destinations of [`to_many`].
const SERVERS: u32 = 4000;

/// As [`translating`], for [`to_many`]: with room for millions of connections, and servers behind another router.
pub fn translating_to_many() -> Router {
    let [a, b, c, d] = PUBLIC;
    translating_by(&format!("*nat\n-A POSTROUTING -o right -j SNAT --to-source {a}.{b}.{c}.{d}\nCOMMIT\n"))
}

/// The same by other rules.
pub fn translating_by(rules: &str) -> Router {
    let mut config = routing_config(rules);
    let gateway = Addr::from_v4([198, 18, 0, 1]);
    config.routes = vec![RouteConfig {
        to: Prefix::new(Addr::from_v4([198, 18, 128, 0]), 17, Family::Ipv4),
        target: RouteTarget::Via { gateway, iface: RIGHT },
    }];
    config.sysctl = vec![("nf_conntrack_max".into(), "8000000".into())];
    Router::new(config).expect("these rules are right")
}

/// The `flow`th datagram, to one of many servers: clients use the same port towards the same server.
pub fn to_many(flow: u32) -> Vec<u8> {
    let server = flow % SERVERS;
    readdressed(udp(flow, false), [198, 18, 128 + (server >> 8) as u8, server as u8])
}

fn routing_by(rules: &str) -> Router {
    Router::new(routing_config(rules)).expect("these rules are right")
}

fn routing_config(rules: &str) -> RouterConfig {
    // Frames go to the other side's link address, which is the router's own here.
    let iface = |name, id, mac, addr| {
        let mut iface = Iface::new(name, id);
        iface.mac = station(mac);
        iface.addresses = vec![Prefix::new(Addr::from_v4(addr), 16, Family::Ipv4)];
        iface
    };
    let neighbour = |addr, mac, iface| NeighbourConfig {
        addr: Addr::from_v4(addr),
        family: Family::Ipv4,
        mac: station(mac),
        iface,
    };
    let (left, right) =
        (iface("left", LEFT, 2, [198, 19, 255, 254]), iface("right", RIGHT, 1, [198, 18, 255, 254]));
    let mut config = RouterConfig::new(vec![left, right]);
    config.mode = Mode::Route;
    config.neighbours = vec![neighbour([198, 19, 0, 0], 1, LEFT), neighbour([198, 18, 0, 1], 2, RIGHT)];
    config.rules = Some(rules.into());
    config
}

const fn station(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

/// The same frame for another destination.
pub fn readdressed(mut frame: Vec<u8>, dst: [u8; 4]) -> Vec<u8> {
    frame[30..34].copy_from_slice(&dst);
    frame[24..26].fill(0);
    let checksum = Sum::ZERO.bytes(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    Packet::parse(&mut frame, Offload::NONE).expect("a whole packet").fill_l4_checksum();
    frame
}

/// The flows of a client that may announce connections: an address of its own, with so many ports.
pub const CLIENT: u32 = 60 * 60_000;
pub const CLIENT_PORTS: u32 = 60_000;

/// A bridge that listens to what that client says in FTP and TFTP.
pub fn router_with_helpers() -> Router {
    let helper = |proto, name| {
        format!("-A PREROUTING -s 198.19.0.60/32 -p {proto} -m {proto} --dport 53 -j CT --helper {name}\n")
    };
    let (ftp, tftp) = (helper("tcp", "ftp"), helper("udp", "tftp"));
    router_of(format!(
        "*raw\n:PREROUTING ACCEPT [0:0]\n{ftp}{tftp}COMMIT\n*filter\n:FORWARD DROP [0:0]\n{STATE_RULES}"
    ))
}

/// The client asks for a file by TFTP from the `n`th of its ports, and so announces the answer.
pub fn tftp_request(n: u32) -> Vec<u8> {
    datagram(CLIENT + n % CLIENT_PORTS, false, b"\0\x01file\0octet\0")
}

/// One frame through the router, as a worker carries it.
pub fn send(router: &Router, worker: &mut Worker, iface: IfaceId, frame: &mut [u8]) -> Outcome {
    let outcome = router.process(
        worker,
        Instant::from_secs(1),
        iface,
        stateway_core::packet::Frame::new(frame),
        &mut NoRecord,
    );
    if worker.has_emissions() {
        worker.take_emissions();
    }
    outcome
}

/// Frames that came in together, as a worker carries them.
pub fn carry(router: &Router, worker: &mut Worker, frames: &mut [Frame]) {
    if router.looks_ahead() {
        for (_, frame) in &*frames {
            router.look_ahead(worker, frame);
        }
        router.fetch_ahead(worker);
    }
    for (iface, frame) in frames {
        black_box(&send(router, worker, *iface, frame));
    }
}

/// A 64-byte datagram of the `flow`th flow, or the answer to it.
pub fn udp(flow: u32, is_answer: bool) -> Vec<u8> {
    datagram(flow, is_answer, &[0; 64])
}

/// A datagram of the `flow`th flow, or the answer to it.
pub fn datagram(flow: u32, is_answer: bool, payload: &[u8]) -> Vec<u8> {
    let mut l4 = vec![0; 8];
    l4[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    l4.extend(payload);
    frame(17, flow, is_answer, l4)
}

/// A TCP segment of 64 bytes of payload, or none for a SYN.
pub fn tcp(flow: u32, is_answer: bool, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let payload: &[u8] = if flags & SYN == 0 { &[0; 64] } else { &[] };
    segment(flow, is_answer, flags, [seq, ack], payload)
}

/// A TCP segment of the `flow`th connection, with its sequence and acknowledgment number.
pub fn segment(flow: u32, is_answer: bool, flags: u8, [seq, ack]: [u32; 2], payload: &[u8]) -> Vec<u8> {
    let mut l4 = vec![0; 20];
    l4[4..8].copy_from_slice(&seq.to_be_bytes());
    l4[8..12].copy_from_slice(&ack.to_be_bytes());
    l4[12..16].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
    l4.extend(payload);
    frame(6, flow, is_answer, l4)
}

/// Ethernet and IPv4 around an upper layer, whose ports and checksum are filled in.
fn frame(proto: u8, flow: u32, is_answer: bool, mut l4: Vec<u8>) -> Vec<u8> {
    // Each client address has as many flows as there are ports for a client.
    let (client, port) = (flow / 60_000, (1024 + flow % 60_000) as u16);
    let client = [198, 19, (client >> 8) as u8, client as u8];
    let server = [198, 18, 0, 1];
    let (src, dst, sport, dport) =
        if is_answer { (server, client, 53, port) } else { (client, server, port, 53) };
    l4[0..2].copy_from_slice(&sport.to_be_bytes());
    l4[2..4].copy_from_slice(&dport.to_be_bytes());
    let (from, to) = if is_answer { (2, 1) } else { (1, 2) };
    let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0, 0x45, 0];
    frame.extend((20 + l4.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, proto, 0, 0]);
    frame.extend(src);
    frame.extend(dst);
    let checksum = Sum::ZERO.bytes(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(l4);
    Packet::parse(&mut frame, Offload::NONE).expect("a whole packet").fill_l4_checksum();
    frame
}

/// A frame, and where it comes in.
pub type Frame = (IfaceId, Vec<u8>);

/// Of each of these UDP flows a datagram and one back.
pub fn answered_udp(flows: impl IntoIterator<Item = u32>) -> Vec<Frame> {
    flows.into_iter().flat_map(|flow| [(LEFT, udp(flow, false)), (RIGHT, udp(flow, true))]).collect()
}

/// Of each of these TCP connections a segment with data and one back. Sent again, they are retransmissions.
pub fn answered_tcp(flows: impl IntoIterator<Item = u32>) -> Vec<Frame> {
    let (there, back) =
        (|flow| (LEFT, tcp(flow, false, ACK, 101, 501)), |flow| (RIGHT, tcp(flow, true, ACK, 501, 165)));
    flows.into_iter().flat_map(|flow| [there(flow), back(flow)]).collect()
}

/// Opens `flows` UDP flows that were answered once.
pub fn open_udp(router: &Router, flows: u32) {
    let mut worker = router.worker();
    for flow in 0..flows {
        assert_eq!(send(router, &mut worker, LEFT, &mut udp(flow, false)).out, Some(RIGHT));
        assert_eq!(send(router, &mut worker, RIGHT, &mut udp(flow, true)).out, Some(LEFT));
    }
}

/// Opens `flows` TCP connections, each by its three packets.
pub fn open_tcp(router: &Router, flows: u32) {
    let mut worker = router.worker();
    for flow in 0..flows {
        let steps = [
            (LEFT, tcp(flow, false, SYN, 100, 0)),
            (RIGHT, tcp(flow, true, SYN | ACK, 500, 101)),
            (LEFT, tcp(flow, false, ACK, 101, 501)),
        ];
        for (iface, mut frame) in steps {
            assert!(send(router, &mut worker, iface, &mut frame).out.is_some());
        }
    }
}

/// Bytes of memory that this program takes, as the kernel counts its pages.
pub fn resident() -> u64 {
    const PAGE: u64 = 4096;
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE
}

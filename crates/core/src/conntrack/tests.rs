//! The tracker as a whole: packets in, states and entries out. Times are virtual.

use super::*;
use crate::base::fate::{DropReason, Fate, Stage};
use crate::base::time::Duration;
use crate::packet::tuple::{PROTO_ICMP, PROTO_SCTP, PROTO_TCP, PROTO_UDP};
use crate::packet::{Offload, Packet};
use core::ops::ControlFlow::{Break, Continue};

const CLIENT: [u8; 4] = [192, 0, 2, 10];
const SERVER: [u8; 4] = [198, 51, 100, 10];
const STRANGER: [u8; 4] = [203, 0, 113, 9];
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// An IPv4 frame. Checksums of the upper layer are filled in.
pub(super) fn frame(src: [u8; 4], dst: [u8; 4], proto: u8, l4: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend((20 + l4.len() as u16).to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, proto, 0, 0]);
    frame.extend(src);
    frame.extend(dst);
    let sum: u32 = frame[14..].as_chunks::<2>().0.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend(l4);
    Packet::parse(&mut frame, Offload::NONE).unwrap().fill_l4_checksum();
    frame
}

pub(super) fn udp(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut l4 =
        [sport.to_be_bytes(), dport.to_be_bytes(), (8 + payload.len() as u16).to_be_bytes(), [0, 0]].concat();
    l4.extend(payload);
    frame(src, dst, PROTO_UDP, &l4)
}

pub(super) fn tcp(
    src: [u8; 4],
    sport: u16,
    dst: [u8; 4],
    dport: u16,
    (flags, seq, ack): (u8, u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let mut l4 = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    l4.extend(seq.to_be_bytes());
    l4.extend(ack.to_be_bytes());
    l4.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    l4.extend(payload);
    frame(src, dst, PROTO_TCP, &l4)
}

fn icmp(src: [u8; 4], dst: [u8; 4], kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    frame(src, dst, PROTO_ICMP, &[&[kind, code, 0, 0], rest].concat())
}

/// What an error says of a packet: unused bytes, the IP header and eight more.
fn quote(about: &[u8]) -> Vec<u8> {
    [&[0; 4], &about[14..42]].concat()
}

/// A tracker with a clock, and a router behind it that forwards everything.
struct World {
    tracker: Conntrack,
    now: Instant,
    template: Template,
}

impl World {
    fn new(settings: &[(&str, &str)]) -> Self {
        let mut sysctls = Sysctls::default();
        for (name, value) in settings {
            sysctls.set(name, value).unwrap();
        }
        let tracker = Conntrack::new(7, sysctls, Vec::new());
        Self { tracker, now: Instant::from_secs(1000), template: Template::default() }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        while self.tracker.poll_timeout().is_some_and(|due| due <= self.now) {
            self.tracker.handle_timeout(self.now);
        }
    }

    /// A packet's state, or why it was dropped; as `INVALID(why)` where that is the state.
    fn pass(&self, mut frame: Vec<u8>) -> String {
        let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
        let stage = self.walk(&mut pkt);
        match stage {
            Continue(Tracked { invalid: Some(reason), .. }) => format!("INVALID({reason})"),
            Continue(tracked) => tracked.state.word().to_owned(),
            Break(Fate::Dropped(reason)) => format!("dropped({reason})"),
            Break(fate) => format!("{fate:?}"),
        }
    }

    fn walk(&self, pkt: &mut Packet) -> Stage<Tracked> {
        let mut tracked = self.tracker.track(pkt, self.template, self.now)?;
        self.tracker.help(pkt, &mut tracked, self.now)?;
        self.tracker.confirm(&mut tracked, self.now)?;
        Continue(tracked)
    }

    fn table(&self) -> Vec<String> {
        let line = |entry: &Entry| listing::entry(entry, self.now, listing::Options::default());
        let mut lines: Vec<_> = self.tracker.list(&Filter::default(), self.now).iter().map(line).collect();
        lines.sort();
        lines
    }

    fn expectations(&self) -> Vec<String> {
        self.tracker.expectations(self.now).iter().map(|e| listing::expectation(e, self.now)).collect()
    }

    /// Opens a command connection with the FTP helper; both sides have said one line.
    fn ftp(&mut self, sport: u16) {
        self.template.helper = Some(Helper::Ftp);
        for (frame, state) in [
            (tcp(CLIENT, sport, SERVER, 21, (SYN, 100, 0), b""), "NEW"),
            (tcp(SERVER, 21, CLIENT, sport, (SYN | ACK, 500, 101), b""), "ESTABLISHED"),
            (tcp(CLIENT, sport, SERVER, 21, (ACK, 101, 501), b""), "ESTABLISHED"),
            (tcp(SERVER, 21, CLIENT, sport, (ACK, 501, 101), b"220 ok\r\n"), "ESTABLISHED"),
            (tcp(CLIENT, sport, SERVER, 21, (ACK, 101, 509), b"USER x\r\n"), "ESTABLISHED"),
        ] {
            assert_eq!(self.pass(frame), state);
        }
        self.template.helper = None;
    }
}

#[test]
fn a_flow_is_new_until_it_is_answered() {
    let world = World::new(&[]);
    let there = || udp(CLIENT, 5000, SERVER, 53, b"?");
    let back = || udp(SERVER, 53, CLIENT, 5000, b"!");
    for (frame, state) in
        [(there(), "NEW"), (there(), "NEW"), (back(), "ESTABLISHED"), (there(), "ESTABLISHED")]
    {
        assert_eq!(world.pass(frame), state);
    }
    assert_eq!(world.pass(udp(SERVER, 54, CLIENT, 5000, b"!")), "NEW", "from another port");
    assert_eq!(world.pass(udp(STRANGER, 53, CLIENT, 5000, b"!")), "NEW", "from another host");
}

#[test]
fn a_packet_that_is_not_confirmed_leaves_nothing() {
    let world = World::new(&[]);
    let mut frame = udp(CLIENT, 5000, SERVER, 53, b"?");
    let pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    for _ in 0..2 {
        let tracked = world.tracker.track(&pkt, Template::default(), world.now);
        assert!(matches!(tracked, Continue(Tracked { state: CtState::New, .. })));
    }
    assert_eq!(world.tracker.count(), 0);
    assert_eq!(world.pass(udp(SERVER, 53, CLIENT, 5000, b"!")), "NEW");
}

#[test]
fn udp_counts_as_a_stream_after_two_seconds() {
    let mut world = World::new(&[]);
    let timeout =
        |world: &World| world.tracker.list(&Filter::default(), world.now)[0].timeout(world.now).as_secs();
    world.pass(udp(CLIENT, 5000, SERVER, 53, b"?"));
    world.pass(udp(SERVER, 53, CLIENT, 5000, b"!"));
    world.wait(2);
    world.pass(udp(CLIENT, 5000, SERVER, 53, b"?"));
    assert_eq!(timeout(&world), 30);
    world.now += Duration::from_nanos(1);
    world.pass(udp(CLIENT, 5000, SERVER, 53, b"?"));
    assert_eq!(timeout(&world), 120);
    assert!(world.table()[0].contains("[ASSURED]"));
}

#[test]
fn an_entry_ends_on_time_whether_or_not_it_was_reaped() {
    for reaped in [false, true] {
        let mut world = World::new(&[("nf_conntrack_udp_timeout", "3")]);
        assert_eq!(world.pass(udp(CLIENT, 5000, SERVER, 53, b"?")), "NEW");
        world.now += Duration::from_nanos(2_999_999_999);
        assert_eq!(world.table().len(), 1);
        world.now += Duration::from_nanos(1);
        assert_eq!(world.table().len(), 0);
        if reaped {
            world.wait(1);
            assert_eq!(world.tracker.count(), 0);
        }
        assert_eq!(world.pass(udp(SERVER, 53, CLIENT, 5000, b"!")), "NEW");
        assert_eq!(world.tracker.count(), 1);
    }
}

#[test]
fn echo_replies_must_have_been_asked_for() {
    let world = World::new(&[]);
    let id = |n: u8| [0, n, 0, 1];
    assert_eq!(world.pass(icmp(SERVER, CLIENT, 0, 0, &id(7))), "INVALID(icmp-unsolicited)");
    assert_eq!(world.pass(icmp(CLIENT, SERVER, 8, 0, &id(7))), "NEW");
    assert_eq!(world.pass(icmp(SERVER, CLIENT, 0, 0, &id(8))), "INVALID(icmp-unsolicited)", "another id");
    assert_eq!(world.pass(icmp(SERVER, CLIENT, 0, 1, &id(7))), "INVALID(icmp-unsolicited)", "another code");
    assert_eq!(world.pass(icmp(SERVER, CLIENT, 0, 0, &id(7))), "ESTABLISHED");
    assert_eq!(world.pass(icmp(SERVER, CLIENT, 8, 0, &id(7))), "NEW", "the other way round");
    assert_eq!(world.pass(icmp(CLIENT, SERVER, 9, 0, &id(0))), "INVALID(icmp-type)", "an advertisement");
    assert_eq!(world.pass(icmp(CLIENT, SERVER, 42, 0, &id(0))), "INVALID(icmp-type)");
    assert_eq!(world.pass(icmp(CLIENT, SERVER, 8, 0, &[])), "INVALID(icmp-truncated)");
}

#[test]
fn an_error_is_related_to_the_packet_that_it_quotes() {
    let world = World::new(&[]);
    let sent = udp(CLIENT, 5000, SERVER, 53, b"?");
    let unreachable = |src, dst, about: &[u8]| icmp(src, dst, 3, 3, &quote(about));
    assert_eq!(world.pass(unreachable(SERVER, CLIENT, &sent)), "INVALID(icmp-orphan)", "not sent yet");
    assert_eq!(world.pass(sent.clone()), "NEW");
    assert_eq!(world.pass(unreachable(SERVER, CLIENT, &sent)), "RELATED");
    assert_eq!(world.pass(unreachable(STRANGER, CLIENT, &sent)), "RELATED", "any router may say so");
    assert_eq!(world.pass(unreachable(SERVER, STRANGER, &sent)), "INVALID(icmp-addressee)");
    let answer = udp(SERVER, 53, CLIENT, 5000, b"!");
    assert_eq!(world.pass(unreachable(CLIENT, SERVER, &answer)), "RELATED", "about an answer");
    let short = icmp(SERVER, CLIENT, 3, 3, &quote(&sent)[..27]);
    assert_eq!(world.pass(short), "INVALID(icmp-quote)", "three bytes of ports");
    let error = unreachable(SERVER, CLIENT, &sent);
    assert_eq!(world.pass(unreachable(CLIENT, SERVER, &error)), "INVALID(icmp-quote)", "about an error");
    assert!(world.table()[0].contains("[UNREPLIED]"), "an error is no answer");
}

#[test]
fn malformed_packets_are_invalid_and_say_why() {
    let world = World::new(&[]);
    let mut bad_sum = udp(CLIENT, 5000, SERVER, 53, b"?");
    bad_sum[40] ^= 1;
    let mut no_sum = udp(CLIENT, 5001, SERVER, 53, b"?");
    no_sum[40..42].fill(0);
    let with_len = |len: u8| {
        let mut frame = udp(CLIENT, 5002, SERVER, 53, b"?");
        frame[39] = len;
        frame[40..42].fill(0);
        frame
    };
    for (frame, state) in [
        (bad_sum, "INVALID(checksum)"),
        (no_sum, "NEW"),
        (with_len(7), "INVALID(udp-length)"),
        (with_len(10), "INVALID(udp-length)"),
        (with_len(8), "NEW"),
        (frame(CLIENT, SERVER, PROTO_UDP, &[0, 1, 0]), "INVALID(truncated)"),
        (tcp(CLIENT, 1, SERVER, 2, (0, 1, 0), b""), "INVALID(tcp-flags)"),
        (tcp(CLIENT, 1, SERVER, 2, (RST, 1, 0), b""), "INVALID(tcp-new)"),
        (frame(CLIENT, SERVER, PROTO_SCTP, &[0; 12]), "INVALID(checksum)"),
        (frame(CLIENT, SERVER, 253, b""), "NEW"),
    ] {
        assert_eq!(world.pass(frame), state);
    }
    assert_eq!(world.tracker.stats().invalid, 7);
}

#[test]
fn without_checksum_verification_only_the_shape_counts() {
    let world = World::new(&[("nf_conntrack_checksum", "0")]);
    let mut bad_sum = udp(CLIENT, 5000, SERVER, 53, b"?");
    bad_sum[40] ^= 1;
    assert_eq!(world.pass(bad_sum), "NEW");
}

#[test]
fn zones_keep_equal_tuples_apart() {
    let mut world = World::new(&[]);
    world.template.zone = 5;
    assert_eq!(world.pass(udp(CLIENT, 5000, SERVER, 53, b"?")), "NEW");
    world.template.zone = 0;
    assert_eq!(world.pass(udp(SERVER, 53, CLIENT, 5000, b"!")), "NEW");
    assert!(world.table().iter().any(|line| line.contains("mark=0 zone=5 use=1")));
}

#[test]
fn untracked_packets_meet_no_connection() {
    let mut world = World::new(&[]);
    assert_eq!(world.pass(udp(CLIENT, 5000, SERVER, 53, b"?")), "NEW");
    world.template.tracking = Tracking::Off;
    assert_eq!(world.pass(udp(SERVER, 53, CLIENT, 5000, b"!")), "UNTRACKED");
    world.template.tracking = Tracking::Usual;
    assert!(world.table()[0].contains("[UNREPLIED]"));
}

#[test]
fn a_full_table_evicts_what_is_worth_less_and_nothing_else() {
    let mut world = World::new(&[("nf_conntrack_max", "20")]);
    for port in 0..20 {
        assert_eq!(world.pass(udp(CLIENT, port, SERVER, 53, b"?")), "NEW");
    }
    assert_eq!(world.pass(udp(CLIENT, 100, SERVER, 53, b"?")), "NEW", "in place of an unanswered one");
    assert_eq!((world.tracker.count(), world.tracker.stats().early_drop), (20, 1));

    world.tracker.flush(world.now);
    for port in 0..20 {
        world.pass(udp(CLIENT, port, SERVER, 53, b"?"));
        world.pass(udp(SERVER, 53, CLIENT, port, b"!"));
    }
    world.now += Duration::from_secs(3);
    for port in 0..20 {
        world.pass(udp(CLIENT, port, SERVER, 53, b"?"));
    }
    assert_eq!(world.pass(udp(CLIENT, 100, SERVER, 53, b"?")), "dropped(table-full)");
    assert_eq!(world.pass(udp(CLIENT, 7, SERVER, 53, b"?")), "ESTABLISHED", "what is known goes on");
    assert_eq!(world.tracker.stats().drop, 1);
    world.tracker.set_sysctl("nf_conntrack_max", "21").unwrap();
    assert_eq!(world.pass(udp(CLIENT, 100, SERVER, 53, b"?")), "NEW");
}

#[test]
fn a_reset_that_refuses_a_connection_removes_it() {
    let world = World::new(&[]);
    assert_eq!(world.pass(tcp(CLIENT, 1000, SERVER, 22, (SYN, 100, 0), b"")), "NEW");
    assert_eq!(world.pass(tcp(SERVER, 22, CLIENT, 1000, (RST | ACK, 0, 101), b"")), "ESTABLISHED");
    assert_eq!(world.tracker.count(), 0);
    assert_eq!(world.pass(tcp(CLIENT, 1000, SERVER, 22, (SYN, 100, 0), b"")), "NEW");
}

#[test]
fn an_announced_connection_is_related_once() {
    let mut world = World::new(&[]);
    world.ftp(42000);
    let port = tcp(CLIENT, 42000, SERVER, 21, (ACK, 109, 509), b"PORT 192,0,2,10,200,10\r\n");
    assert_eq!(world.pass(port), "ESTABLISHED");
    assert_eq!(
        world.expectations(),
        [concat!(
            "300 proto=6 src=198.51.100.10 dst=192.0.2.10 sport=0 dport=51210 ",
            "mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 ",
            "master-src=192.0.2.10 master-dst=198.51.100.10 sport=42000 dport=21 class=0 helper=ftp"
        )]
    );
    assert_eq!(world.pass(tcp(STRANGER, 20, CLIENT, 51210, (SYN, 1, 0), b"")), "NEW", "from another host");
    let data = || tcp(SERVER, 20, CLIENT, 51210, (SYN, 1, 0), b"");
    assert_eq!(world.pass(data()), "RELATED");
    assert_eq!(world.pass(data()), "RELATED", "repeated before it was answered");
    assert_eq!(world.pass(tcp(CLIENT, 51210, SERVER, 20, (SYN | ACK, 9, 2), b"")), "ESTABLISHED");
    assert_eq!(world.pass(tcp(SERVER, 21, CLIENT, 51210, (SYN, 1, 0), b"")), "NEW", "used up");
    let master = world.table().into_iter().find(|line| line.contains("helper=ftp")).unwrap();
    assert!(master.ends_with("mark=0 helper=ftp use=2"), "{master}");
}

#[test]
fn what_a_connection_announced_ends_with_it_reaped_or_not() {
    for (life, state) in [("100", "RELATED"), ("5", "NEW")] {
        let mut world = World::new(&[
            ("nf_conntrack_tcp_timeout_established", life),
            ("nf_conntrack_tcp_timeout_unacknowledged", life),
        ]);
        world.ftp(42000);
        world.pass(tcp(CLIENT, 42000, SERVER, 21, (ACK, 109, 509), b"PORT 192,0,2,10,200,10\r\n"));
        world.now += Duration::from_secs(6);
        assert_eq!(world.pass(tcp(SERVER, 20, CLIENT, 51210, (SYN, 1, 0), b"")), state, "{life} s");
    }
}

#[test]
fn an_expectation_is_used_up_even_by_a_packet_that_opens_nothing() {
    let mut world = World::new(&[]);
    world.ftp(42000);
    world.pass(tcp(CLIENT, 42000, SERVER, 21, (ACK, 109, 509), b"PORT 192,0,2,10,200,10\r\n"));
    assert_eq!(world.pass(tcp(SERVER, 20, CLIENT, 51210, (RST, 1, 0), b"")), "INVALID(tcp-new)");
    assert_eq!(world.pass(tcp(SERVER, 20, CLIENT, 51210, (SYN, 1, 0), b"")), "NEW");
}

#[test]
fn expectations_are_superseded_refused_and_forgotten() {
    let mut world = World::new(&[]);
    world.ftp(42000);
    world.ftp(42001);
    let port = |sport, seq, line: &[u8]| tcp(CLIENT, sport, SERVER, 21, (ACK, seq, 509), line);
    assert_eq!(world.pass(port(42000, 109, b"PORT 192,0,2,10,200,10\r\n")), "ESTABLISHED");
    assert_eq!(
        world.pass(port(42001, 109, b"PORT 192,0,2,10,200,10\r\n")),
        "dropped(expectation-clash)",
        "another connection announced the same"
    );
    assert_eq!(world.pass(port(42000, 133, b"PORT 192,0,2,10,200,11\r\n")), "ESTABLISHED");
    assert_eq!(world.expectations().len(), 1, "one for each connection");
    assert!(world.expectations()[0].contains("dport=51211"));
    assert_eq!(world.pass(port(42000, 157, b"PORT 192,0,2,10\r\n")), "dropped(helper)");
    world.tracker.set_sysctl("nf_conntrack_expect_max", "1").unwrap();
    assert_eq!(world.pass(port(42001, 133, b"PORT 192,0,2,10,200,10\r\n")), "dropped(expectation-limit)");
    let filter =
        Filter { original: FlowFilter { sport: Some(42000), ..Default::default() }, ..Default::default() };
    assert_eq!(world.tracker.delete(&filter, world.now).len(), 1);
    assert_eq!(world.expectations().len(), 0, "they go with the connection that announced them");
}

#[test]
fn an_expectation_waits_for_five_minutes() {
    let mut world = World::new(&[]);
    world.ftp(42000);
    world.pass(tcp(CLIENT, 42000, SERVER, 21, (ACK, 109, 509), b"PORT 192,0,2,10,200,10\r\n"));
    // The command connection itself lives on.
    world.pass(tcp(SERVER, 21, CLIENT, 42000, (ACK, 509, 133), b""));
    world.wait(299);
    assert_eq!(world.expectations().len(), 1);
    world.wait(1);
    assert_eq!(world.expectations().len(), 0);
    assert_eq!(world.pass(tcp(SERVER, 20, CLIENT, 51210, (SYN, 1, 0), b"")), "NEW");
}

#[test]
fn tftp_answers_come_from_any_port_of_the_server() {
    let mut world = World::new(&[]);
    world.template.helper = Some(Helper::Tftp);
    assert_eq!(world.pass(udp(CLIENT, 3000, SERVER, 69, b"\0\x01file\0octet\0")), "NEW");
    world.template.helper = None;
    assert_eq!(world.pass(udp(SERVER, 4000, CLIENT, 3000, b"\0\x03\0\x01data")), "RELATED");
    assert_eq!(world.pass(udp(CLIENT, 3000, SERVER, 4000, b"\0\x04\0\x01")), "ESTABLISHED");
    assert_eq!(world.pass(udp(SERVER, 4001, CLIENT, 3000, b"\0\x03\0\x01data")), "NEW", "used up");
}

#[test]
fn listeners_hear_what_happens_and_how_much_they_missed() {
    let mut world = World::new(&[]);
    let events = world.tracker.listen();
    world.pass(udp(CLIENT, 5000, SERVER, 53, b"?"));
    world.pass(udp(SERVER, 53, CLIENT, 5000, b"!"));
    world.wait(31);
    let lines: Vec<_> =
        events.try_iter().map(|event| listing::event(&event, listing::Options::default())).collect();
    let (there, back) = (
        "src=192.0.2.10 dst=198.51.100.10 sport=5000 dport=53",
        "src=198.51.100.10 dst=192.0.2.10 sport=53 dport=5000",
    );
    assert_eq!(
        lines,
        [
            format!("    [NEW] udp      17 30 {there} [UNREPLIED] {back}"),
            format!(" [UPDATE] udp      17 30 {there} {back}"),
            format!("[DESTROY] udp      17 {there} {back}"),
        ]
    );
    for port in 0..20_000 {
        world.pass(udp(CLIENT, port, SERVER, 53, b"?"));
    }
    assert_eq!(world.tracker.stats().events_lost, 20_000 - events.len() as u64);
}

#[test]
fn without_events_nobody_hears_anything() {
    let world = World::new(&[("nf_conntrack_events", "0")]);
    let events = world.tracker.listen();
    world.pass(udp(CLIENT, 5000, SERVER, 53, b"?"));
    assert_eq!(events.len(), 0);
    world.tracker.set_sysctl("nf_conntrack_events", "2").unwrap();
    world.pass(udp(CLIENT, 5001, SERVER, 53, b"?"));
    assert_eq!(events.len(), 1);
}

#[test]
fn icmp_errors_about_nothing_are_counted_apart() {
    let world = World::new(&[]);
    let stranger = udp(CLIENT, 5000, SERVER, 53, b"?");
    assert_eq!(world.pass(icmp(SERVER, CLIENT, 3, 3, &quote(&stranger))), "INVALID(icmp-orphan)");
    assert_eq!(world.pass(icmp(SERVER, CLIENT, 40, 0, &[0; 4])), "INVALID(icmp-type)");
    assert_eq!(world.pass(icmp(SERVER, CLIENT, 9, 0, &[0; 4])), "INVALID(icmp-type)");
    assert_eq!(world.pass(icmp(SERVER, CLIENT, 0, 0, &[0; 4])), "INVALID(icmp-unsolicited)");
    let stats = world.tracker.stats();
    assert_eq!((stats.error, stats.invalid), (2, 2));
}

#[test]
fn a_rule_chooses_which_events_are_told() {
    for (told, announced, heard) in [
        (Happened::all(), false, vec!["NEW", "UPDATE", "UPDATE", "DESTROY"]),
        (Happened::NEW, false, vec!["NEW"]),
        (Happened::REPLY, false, vec!["UPDATE"]),
        (Happened::ASSURED, false, vec!["UPDATE"]),
        // The state of TCP changes with the first packet as well.
        (Happened::PROTOINFO, false, vec!["NEW", "UPDATE", "UPDATE"]),
        (Happened::DESTROY, false, vec!["DESTROY"]),
        (Happened::empty(), true, vec![]),
    ] {
        let mut world = World::new(&[]);
        world.template.told = Some(Told { entry: told, announced });
        let events = world.tracker.listen();
        world.pass(tcp(CLIENT, 5000, SERVER, 80, (SYN, 1, 0), b""));
        world.pass(tcp(SERVER, 80, CLIENT, 5000, (SYN | ACK, 1, 2), b""));
        world.pass(tcp(CLIENT, 5000, SERVER, 80, (ACK, 2, 2), b""));
        world.wait(432_001);
        let words: Vec<_> = events
            .try_iter()
            .map(|event| match event {
                Event::Entry { kind, .. } | Event::Expectation { kind, .. } => kind.word(),
            })
            .collect();
        assert_eq!(words, heard, "{told:?}");
    }
}

#[test]
fn a_mark_that_changes_is_told_of_connections_in_the_table() {
    let world = World::new(&[]);
    let events = world.tracker.listen();
    let heard = || {
        let entries = events.try_iter().filter_map(|event| match event {
            Event::Entry { kind, entry, .. } => Some((kind.word(), entry.mark)),
            Event::Expectation { .. } => None,
        });
        entries.collect::<Vec<_>>()
    };
    let mut query = udp(CLIENT, 5000, SERVER, 53, b"?");
    let pkt = Packet::parse(&mut query, Offload::NONE).unwrap();
    let Continue(mut tracked) = world.tracker.track(&pkt, world.template, world.now) else { panic!() };
    world.tracker.change_mark(&mut tracked, world.now, |mark| mark + 1);
    assert_eq!(heard(), []);
    assert!(world.tracker.confirm(&mut tracked, world.now).is_continue());
    assert_eq!(heard(), [("NEW", 1)]);
    world.tracker.change_mark(&mut tracked, world.now, |mark| mark + 1);
    world.tracker.change_mark(&mut tracked, world.now, |mark| mark);
    assert_eq!((heard(), tracked.mark), (vec![("UPDATE", 2)], 2));
}

#[test]
fn counters_are_kept_if_asked_for() {
    let world = World::new(&[("nf_conntrack_acct", "1"), ("nf_conntrack_timestamp", "1")]);
    world.pass(udp(CLIENT, 5000, SERVER, 53, b"?"));
    world.pass(udp(SERVER, 53, CLIENT, 5000, b"!!"));
    assert_eq!(
        world.table(),
        [concat!(
            "udp      17 30 src=192.0.2.10 dst=198.51.100.10 sport=5000 dport=53 packets=1 bytes=29 ",
            "src=198.51.100.10 dst=192.0.2.10 sport=53 dport=5000 packets=1 bytes=30 mark=0 delta-time=0 use=1"
        )]
    );
}

#[test]
fn every_connection_of_a_crowd_is_found_again_and_reaped() {
    let mut world = World::new(&[("nf_conntrack_max", "0")]);
    let crowd = 20_000_u16;
    for port in 0..crowd {
        assert_eq!(world.pass(udp(CLIENT, port, SERVER, 53, b"?")), "NEW");
    }
    for port in 0..crowd {
        assert_eq!(world.pass(udp(SERVER, 53, CLIENT, port, b"!")), "ESTABLISHED");
    }
    assert_eq!(world.tracker.count(), usize::from(crowd));
    world.wait(31);
    assert_eq!(world.tracker.count(), 0);
    assert_eq!(world.tracker.poll_timeout(), None);
}

/// The router's own address, as the server sees it.
const TRANSLATED: [u8; 4] = [198, 51, 100, 1];

/// A datagram of the client opens a connection of which the answers go to [`TRANSLATED`], port 40000.
fn open_translated(world: &World, client: [u8; 4]) -> Result<Tracked, Fate> {
    let mut frame = udp(client, 1024, SERVER, 53, b"?");
    let pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    let Continue(mut tracked) = world.tracker.track(&pkt, world.template, world.now) else {
        panic!("the packet may open a connection")
    };
    let entry = tracked.new.as_mut().expect("a new connection");
    let mirror = entry.reply();
    entry.set_reply(Tuple { dst: crate::packet::Addr::from_v4(TRANSLATED), right: 40_000, ..mirror });
    match world.tracker.confirm(&mut tracked, world.now) {
        Continue(()) => Ok(tracked),
        Break(fate) => Err(fate),
    }
}

fn answer_to_translated() -> Vec<u8> {
    udp(SERVER, 53, TRANSLATED, 40_000, b"!")
}

#[test]
fn a_reply_that_is_no_mirror_of_its_original_finds_its_connection() {
    let world = World::new(&[]);
    let opened = open_translated(&world, CLIENT).unwrap();
    let line = &world.table()[0];
    assert!(line.contains("[UNREPLIED] src=198.51.100.10 dst=198.51.100.1 sport=53 dport=40000"), "{line}");
    let mut frame = answer_to_translated();
    let answer = world.walk(&mut Packet::parse(&mut frame, Offload::NONE).unwrap()).continue_value().unwrap();
    assert_eq!((answer.state, answer.direction), (CtState::Established, Direction::Reply));
    assert_eq!(answer.id(), opened.id());
    assert_eq!(world.pass(udp(CLIENT, 1024, SERVER, 53, b"?")), "ESTABLISHED");
    // An error about the datagram, as the server's side saw it.
    let as_seen = udp(TRANSLATED, 40_000, SERVER, 53, b"?");
    assert_eq!(world.pass(icmp(STRANGER, TRANSLATED, 3, 3, &quote(&as_seen))), "RELATED");
    // An answer asks the entry for its tuple, and not the packet's tuple for its mirror.
    let entry = |ct: &Tracked| world.tracker.read_entry(ct, |entry| (entry.original, entry.reply())).unwrap();
    let (original, reply) = entry(&answer);
    assert_eq!(world.tracker.answer_to(&answer).tuple, Some(original));
    assert_eq!(world.tracker.answer_to(&opened).tuple, Some(reply));
    // The mirror is nobody's, but answers to it would be taken for the connection's own.
    assert_eq!(world.pass(udp(SERVER, 53, CLIENT, 1024, b"!")), "dropped(confirm-clash)");
}

#[test]
fn an_alias_ends_with_its_connection() {
    let mut world = World::new(&[]);
    open_translated(&world, CLIENT).unwrap();
    world.wait(31);
    assert_eq!(world.tracker.count(), 0);
    assert_eq!(world.pass(answer_to_translated()), "NEW", "nobody's any more");
    // Its place in the table has another tenant, and so has the reply tuple.
    world.tracker.flush(world.now);
    open_translated(&world, STRANGER).unwrap();
    assert_eq!(world.pass(answer_to_translated()), "ESTABLISHED");
    world.tracker.flush(world.now);
    assert_eq!(world.pass(answer_to_translated()), "NEW");
}

#[test]
fn a_new_connection_gives_way_where_either_of_its_tuples_is_in_use() {
    let clash = Err(Fate::Dropped(DropReason::ConfirmClash));
    let id_of = |opened: Result<Tracked, Fate>| opened.map(|_| ());
    // Two clients would be answered alike.
    let mut world = World::new(&[]);
    open_translated(&world, CLIENT).unwrap();
    assert_eq!(id_of(open_translated(&world, STRANGER)), clash);
    assert_eq!(world.tracker.count(), 1);
    assert_eq!(world.pass(answer_to_translated()), "ESTABLISHED");
    // The reply is the original of somebody, or the mirror of it.
    for other in [answer_to_translated(), udp(TRANSLATED, 40_000, SERVER, 53, b"?")] {
        let mut world = World::new(&[]);
        assert_eq!(world.pass(other.clone()), "NEW");
        assert_eq!(id_of(open_translated(&world, CLIENT)), clash);
        assert_eq!(world.tracker.count(), 1);
        // What has ended is in nobody's way, though it stands in the table.
        world.now += Duration::from_secs(31);
        assert_eq!(id_of(open_translated(&world, CLIENT)), Ok(()));
        assert_eq!(world.pass(answer_to_translated()), "ESTABLISHED");
    }
    // And the reverse: what the router itself would send from that port.
    assert_eq!(world.pass(udp(TRANSLATED, 40_000, SERVER, 53, b"?")), "dropped(confirm-clash)");
    world.now += Duration::from_secs(181);
    assert_eq!(world.pass(udp(TRANSLATED, 40_000, SERVER, 53, b"?")), "NEW", "the other one has ended");
}

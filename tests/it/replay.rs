//! `stateway replay`: captures made here, and the exact lines that come of them.

#![allow(clippy::needless_raw_string_hashes, reason = "`UPDATE_EXPECT` writes them")]

use expect_test::{Expect, expect};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, IpRepr, Ipv4Address,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};
use stateway_core::router::Router;
use stateway_trace::capture::{Frame, Reading, Source, Writer};
use stateway_trace::replay::{Replay, bridge_of};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A frame in a capture: where, when in milliseconds, what.
type Row = (usize, u64, Vec<u8>);

const LEFT: ([u8; 4], u8) = ([192, 0, 2, 10], 1);
const RIGHT: ([u8; 4], u8) = ([198, 51, 100, 10], 2);

const RULES: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i left -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -p tcp -j REJECT --reject-with tcp-reset
COMMIT
";

fn ip(
    from: ([u8; 4], u8),
    to: ([u8; 4], u8),
    proto: IpProtocol,
    len: usize,
    l4: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mac = |n| EthernetAddress([2, 0, 0, 0, 1, n]);
    let ip = Ipv4Repr {
        src_addr: Ipv4Address::from(from.0),
        dst_addr: Ipv4Address::from(to.0),
        next_header: proto,
        payload_len: len,
        hop_limit: 64,
    };
    let mut frame = vec![0; 14 + 20 + len];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    EthernetRepr { src_addr: mac(from.1), dst_addr: mac(to.1), ethertype: EthernetProtocol::Ipv4 }
        .emit(&mut ethernet);
    IpRepr::Ipv4(ip).emit(ethernet.payload_mut(), &ChecksumCapabilities::default());
    l4(&mut frame[34..]);
    frame
}

/// A segment of the connection from 40000 on the left to port 80 on the right, or back.
fn tcp(from_left: bool, control: TcpControl, seq: i32, ack: Option<i32>, payload: &[u8]) -> Vec<u8> {
    let (from, to) = if from_left { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
    let (src_port, dst_port) = if from_left { (40_000, 80) } else { (80, 40_000) };
    let tcp = TcpRepr {
        src_port,
        dst_port,
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: ack.map(TcpSeqNumber),
        window_len: 64_240,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    ip(from, to, IpProtocol::Tcp, tcp.buffer_len(), |l4| {
        tcp.emit(
            &mut TcpPacket::new_unchecked(l4),
            &Ipv4Address::from(from.0).into(),
            &Ipv4Address::from(to.0).into(),
            &ChecksumCapabilities::default(),
        );
    })
}

fn udp_from_right(payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: 53, dst_port: 40_000 };
    ip(RIGHT, LEFT, IpProtocol::Udp, 8 + payload.len(), |l4| {
        udp.emit(
            &mut UdpPacket::new_unchecked(l4),
            &Ipv4Address::from(RIGHT.0).into(),
            &Ipv4Address::from(LEFT.0).into(),
            payload.len(),
            |buffer| buffer.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

/// A handshake, a stranger's datagram, a segment far outside the window, and a stranger's connection.
fn story() -> Vec<Row> {
    let mut stranger = tcp(false, TcpControl::Syn, 7, None, b"");
    // From another port; its checksum follows.
    stranger[34..36].copy_from_slice(&81_u16.to_be_bytes());
    let checksum = u16::from_be_bytes([stranger[50], stranger[51]]);
    stranger[50..52].copy_from_slice(&(checksum - 1).to_be_bytes());
    vec![
        (0, 1_000, tcp(true, TcpControl::Syn, 100, None, b"")),
        (1, 1_020, tcp(false, TcpControl::Syn, 500, Some(101), b"")),
        (0, 1_040, tcp(true, TcpControl::None, 101, Some(501), b"")),
        (1, 1_050, udp_from_right(b"hello")),
        (1, 1_060, tcp(false, TcpControl::None, 9_000_000, Some(101), b"x")),
        (1, 1_070, stranger),
    ]
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(rules: &str, rows: &[Row]) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(files.path("rules"), rules).unwrap();
        let mut writer = Writer::new(Vec::new(), ["left", "right"]).unwrap();
        for (port, millis, frame) in rows {
            writer.frame(*port, Duration::from_millis(*millis), frame, "").unwrap();
        }
        std::fs::write(files.path("trace.pcapng"), writer.into_inner()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Exit code, standard output, standard error.
    fn replay(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_stateway"))
            .current_dir(self.folder.path())
            .args(["replay", "trace.pcapng"])
            .args(args)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

fn check(rows: &[Row], args: &[&str], expected: Expect) {
    let (code, out, err) = Files::new(RULES, rows).replay(args);
    assert_eq!((code, err.as_str()), (0, ""));
    expected.assert_eq(&out);
}

#[test]
fn each_frame_is_one_object_with_its_keys_in_order() {
    check(
        &story(),
        &["--rules", "rules", "--format", "json"],
        expect![[r#"
        {"frame":1,"time":0.0,"in":"left","ctstate":"NEW","direction":"original","fate":"forwarded","out":["right"],"rule":"filter/FORWARD/2","entry":"ipv4     2 tcp      6 120 SYN_SENT src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 [UNREPLIED] src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 mark=0 use=1"}
        {"frame":2,"time":0.02,"in":"right","ctstate":"ESTABLISHED","direction":"reply","fate":"forwarded","out":["left"],"rule":"filter/FORWARD/1","entry":"ipv4     2 tcp      6 60 SYN_RECV src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 mark=0 use=1"}
        {"frame":3,"time":0.04,"in":"left","ctstate":"ESTABLISHED","direction":"original","fate":"forwarded","out":["right"],"rule":"filter/FORWARD/1","entry":"ipv4     2 tcp      6 432000 ESTABLISHED src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 [ASSURED] mark=0 use=1"}
        {"frame":4,"time":0.05,"in":"right","ctstate":"NEW","direction":"original","fate":"dropped","rule":"policy","reason":"policy"}
        {"frame":5,"time":0.06,"in":"right","ctstate":"INVALID","fate":"rejected","rule":"filter/FORWARD/3","reason":"tcp-above-window","entry":"ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 [ASSURED] mark=0 use=1","emitted":[{"port":"right","bytes":"0200000001020200000001010800450000280000400040064e88c000020ac633640a9c40005000000065000000005004000026a30000"}]}
        {"frame":6,"time":0.07,"in":"right","ctstate":"NEW","direction":"original","fate":"rejected","rule":"filter/FORWARD/3","reason":"rule","emitted":[{"port":"right","bytes":"0200000001020200000001010800450000280000400040064e88c000020ac633640a9c40005100000000000000085014000026ef0000"}]}
    "#]],
    );
}

#[test]
fn for_people_each_frame_is_a_line_with_its_connection_below() {
    check(
        &story(),
        &["--rules", "rules", "--conntrack", "--until", "4"],
        expect![[r#"
            1      0.000000  left        tcp S 192.0.2.10:40000 → 198.51.100.10:80  NEW original: forwarded → right by filter/FORWARD/2
               ipv4     2 tcp      6 120 SYN_SENT src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 [UNREPLIED] src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 mark=0 use=1
            2      0.020000  right       tcp S. 198.51.100.10:80 → 192.0.2.10:40000  ESTABLISHED reply: forwarded → left by filter/FORWARD/1
               ipv4     2 tcp      6 60 SYN_RECV src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 mark=0 use=1
            3      0.040000  left        tcp . 192.0.2.10:40000 → 198.51.100.10:80  ESTABLISHED original: forwarded → right by filter/FORWARD/1
               ipv4     2 tcp      6 432000 ESTABLISHED src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 [ASSURED] mark=0 use=1
            4      0.050000  right       udp 198.51.100.10:53 → 192.0.2.10:40000  NEW original: dropped by policy (policy)

        connections: 1
        ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 [ASSURED] mark=0 use=1
        expectations: 0
    "#]],
    );
}

#[test]
fn with_bytes_every_frame_that_leaves_is_told() {
    check(
        &story()[..1],
        &["--format", "json", "--bytes"],
        expect![[r#"
        {"frame":1,"time":0.0,"in":"left","ctstate":"NEW","direction":"original","fate":"forwarded","out":["right"],"rule":"policy","entry":"ipv4     2 tcp      6 120 SYN_SENT src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 [UNREPLIED] src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 mark=0 use=1","emitted":[{"port":"right","bytes":"0200000001020200000001010800450000280000400040064e88c000020ac633640a9c40005000000064000000005002faf02bb50000"}]}
    "#]],
    );
}

#[test]
fn settings_and_the_clock_decide() {
    let late = vec![
        (0, 0, tcp(true, TcpControl::Syn, 100, None, b"")),
        // SYN_SENT lasts 120 s: the answer comes too late by a millisecond.
        (1, 120_001, tcp(false, TcpControl::Syn, 500, Some(101), b"")),
    ];
    check(
        &late,
        &["--rules", "rules", "--format", "json"],
        expect![[r#"
        {"frame":1,"time":0.0,"in":"left","ctstate":"NEW","direction":"original","fate":"forwarded","out":["right"],"rule":"filter/FORWARD/2","entry":"ipv4     2 tcp      6 120 SYN_SENT src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 [UNREPLIED] src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 mark=0 use=1"}
        {"frame":2,"time":120.001,"in":"right","ctstate":"INVALID","fate":"rejected","rule":"filter/FORWARD/3","reason":"tcp-new","emitted":[{"port":"right","bytes":"0200000001020200000001010800450000280000400040064e88c000020ac633640a9c40005000000065000000005004000026a30000"}]}
    "#]],
    );
    check(
        &late,
        &["--rules", "rules", "--format", "json", "--sysctl", "nf_conntrack_tcp_timeout_syn_sent=200"],
        expect![[r#"
            {"frame":1,"time":0.0,"in":"left","ctstate":"NEW","direction":"original","fate":"forwarded","out":["right"],"rule":"filter/FORWARD/2","entry":"ipv4     2 tcp      6 200 SYN_SENT src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 [UNREPLIED] src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 mark=0 use=1"}
            {"frame":2,"time":120.001,"in":"right","ctstate":"ESTABLISHED","direction":"reply","fate":"forwarded","out":["left"],"rule":"filter/FORWARD/1","entry":"ipv4     2 tcp      6 60 SYN_RECV src=192.0.2.10 dst=198.51.100.10 sport=40000 dport=80 src=198.51.100.10 dst=192.0.2.10 sport=80 dport=40000 mark=0 use=1"}
        "#]],
    );
}

#[test]
fn rules_see_the_time_of_day_of_the_capture() {
    // 2026-11-22, a Sunday; an office hour begins between the frames.
    const BEFORE_NINE: u64 = 1_795_337_999_000;
    const RULES: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m time --timestart 09:00 --timestop 17:00 --weekdays Sun --datestart 2026-11-22 -j ACCEPT
COMMIT
";
    let at = |millis| (1, BEFORE_NINE + millis, udp_from_right(b"hello"));
    let files = Files::new(RULES, &[at(0), at(999), at(1_000)]);
    let (code, out, _) = files.replay(&["--rules", "rules", "--format", "json"]);
    let fates: Vec<_> = out.lines().map(|line| line.contains(r#""fate":"forwarded""#)).collect();
    assert_eq!((code, fates), (0, vec![false, false, true]), "{out}");
}

/// The frames of a capture, each with its port.
fn frames_of(capture: &[u8]) -> Vec<(String, Frame)> {
    let mut frames = Source::of_stream(capture, Reading::default()).unwrap().open().unwrap();
    let mut all = Vec::new();
    let mut frame = Frame::default();
    while frames.read(&mut frame).unwrap() {
        all.push((frames.ports()[usize::from(frame.port)].clone(), frame.clone()));
    }
    all
}

#[test]
fn verdicts_come_back_as_comments() {
    let files = Files::new(RULES, &story());
    let (code, ..) = files.replay(&["--rules", "rules", "--annotate", "out.pcapng", "--until", "2"]);
    assert_eq!(code, 0);
    let bytes = std::fs::read(files.path("out.pcapng")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("NEW original: forwarded → right by filter/FORWARD/2\nipv4     2 tcp"), "{text}");
    assert!(text.contains("ESTABLISHED reply: forwarded → left by filter/FORWARD/1\n"));
    assert_eq!(frames_of(&bytes).len(), 2);
}

#[test]
fn diff_tells_which_frames_meet_another_fate_and_reads_standard_input_once() {
    const NEW: &str = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i lan -j ACCEPT\nCOMMIT\n";
    let files = Files::new(RULES, &story()[..2]);
    std::fs::write(files.path("new"), NEW).unwrap();
    let diff = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_stateway"))
            .current_dir(files.folder.path())
            .args(["rules", "diff"])
            .args(args)
            .stdin(std::fs::File::open(files.path("new")).unwrap())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let from_file = diff(&["rules", "new", "--replay", "trace.pcapng"]);
    expect![[r#"
        filter/FORWARD
          - -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
          - -A FORWARD -i left -m conntrack --ctstate NEW -j ACCEPT
          - -A FORWARD -p tcp -j REJECT --reject-with tcp-reset
          + -A FORWARD -i lan -j ACCEPT
        frame 1 of trace.pcapng, tcp S 192.0.2.10:40000 → 198.51.100.10:80: forwarded by filter/FORWARD/2 → dropped by policy
        frame 2 of trace.pcapng, tcp S. 198.51.100.10:80 → 192.0.2.10:40000: forwarded by filter/FORWARD/1 → dropped by policy
    "#]].assert_eq(&from_file.1);
    expect![[r#"
        warning: trace.pcapng: no interface named `lan` in this capture; it has left, right
    "#]]
    .assert_eq(&from_file.2);
    assert_eq!(diff(&["rules", "-", "--replay", "trace.pcapng"]), from_file);
    let (code, _, err) = diff(&["-", "-"]);
    assert_eq!((code, err.as_str()), (2, "error: only one of the two rulesets can be standard input\n"));
}

#[test]
fn what_nflog_speaks_of_is_a_capture_of_its_own() {
    const RULES: &str = "*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -i right -p udp -j NFLOG --nflog-group 5 --nflog-prefix \"a stranger\" --nflog-size 28
-A FORWARD -p tcp --syn -j NFLOG
COMMIT
";
    let files = Files::new(RULES, &story());
    let (code, _, err) = files.replay(&["--rules", "rules", "--nflog", "said.pcapng"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let bytes = std::fs::read(files.path("said.pcapng")).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let frames = frames_of(&bytes);
    let frames: Vec<_> = frames
        .iter()
        .map(|(port, f)| (port.as_str(), f.nanos / 1_000_000, f.captured_len, f.data.len()))
        .collect();
    // Of the datagram 28 bytes behind the Ethernet header, and how long it was.
    assert_eq!(frames, [("left", 1_000, 54, 54), ("right", 1_050, 42, 47), ("right", 1_070, 54, 54)]);
    assert!(text.contains("NFLOG group 5 \"a stranger\" by filter/FORWARD/1 in right out left"), "{text}");
    assert!(text.contains("NFLOG group 0 by filter/FORWARD/2 in left out right"), "{text}");
}

#[test]
fn what_cannot_be_replayed_is_refused_with_place_and_remedy() {
    let files = Files::new(RULES, &story());
    std::fs::write(files.path("bad"), "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j ACEPT\nCOMMIT\n").unwrap();
    std::fs::write(files.path("lab.yaml"), "mode: bridge\nports: { lan: {}, wan: {} }\n").unwrap();
    let check = |args: &[&str], expected: Expect| {
        let (code, out, err) = files.replay(args);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        expected.assert_eq(&err);
    };
    check(
        &["--rules", "bad"],
        expect![[r#"
            error: `bad` has 1 problem
            bad:3:15: no chain or target named `ACEPT`
              hint: did you mean `ACCEPT`?
        "#]],
    );
    check(
        &["--rules", "none"],
        expect![[r#"
            error: cannot read `none`: No such file or directory (os error 2)
        "#]],
    );
    check(
        &["--lab", "lab.yaml"],
        expect![[r#"
        error: trace.pcapng: the capture's interface `left` is no port of the router
          hint: its ports are `lan`, `wan`
    "#]],
    );
    check(
        &["--sysctl", "nf_conntrack_tcp_lose=0"],
        expect![[r#"
        error: invalid value 'nf_conntrack_tcp_lose=0' for '--sysctl <NAME=VALUE>': no sysctl named `nf_conntrack_tcp_lose`; did you mean `nf_conntrack_tcp_loose`?

        For more information, try '--help'.
    "#]],
    );
    check(
        &["--helper", "irc"],
        expect![[r#"
        error: invalid value 'irc' for '--helper <NAME>': there are `ftp` and `tftp`

        For more information, try '--help'.
    "#]],
    );
    check(
        &["--annotate", "trace.pcapng"],
        expect![[r#"
        error: cannot write `trace.pcapng`: it is the capture itself, which would be lost
    "#]],
    );
}

#[test]
fn whether_anybody_listens_or_not_a_replay_comes_to_the_same() {
    let files = Files::new(RULES, &story());
    let source = Source::of_file(&files.path("trace.pcapng"), Reading::default()).unwrap();
    let [heard, unheard] = [true, false].map(|is_heard| {
        let mut frames = source.open().unwrap();
        let ports = frames.ports().to_vec();
        let mut config = bridge_of(&ports);
        config.rules = Some(RULES.to_owned());
        let router = Router::new(config).unwrap();
        let mut replay = Replay::new(&ports, &router, true).unwrap();
        let (mut frame, mut fates) = (Frame::default(), Vec::new());
        while frames.read(&mut frame).unwrap() {
            replay.pass_time(&frame);
            fates.push(if is_heard { replay.step(&frame).fate } else { replay.judge(&mut frame).word() });
        }
        let rules: String = router.rules().all().map(|rules| rules.render(true)).collect();
        (fates, replay.table(), router.drop_counters().collect::<Vec<_>>(), rules)
    });
    assert_eq!(heard, unheard);
    assert_eq!(heard.0.len(), story().len());
}

//! Captures as people bring them, through the commands that take captures: what is judged, what is left out and said so.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Ipv4Address, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};
use stateway_trace::capture::{Direction, Record, Writer};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const RULES: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -s 192.0.2.0/24 -m conntrack --ctstate NEW -j ACCEPT
COMMIT
";

/// A segment between port 40000 of 192.0.2.10 and port 80 of 198.51.100.10, as an IP packet.
fn segment(from_left: bool, control: TcpControl, seq: i32, ack: Option<i32>, payload: &[u8]) -> Vec<u8> {
    let (left, right) = (Ipv4Address::new(192, 0, 2, 10), Ipv4Address::new(198, 51, 100, 10));
    let ((src, src_port), (dst, dst_port)) =
        if from_left { ((left, 40_000), (right, 80)) } else { ((right, 80), (left, 40_000)) };
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
    let [high, low] = (20 + tcp.buffer_len() as u16).to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.resize(20 + tcp.buffer_len(), 0);
    let mut l4 = TcpPacket::new_unchecked(&mut packet[20..]);
    tcp.emit(&mut l4, &src.into(), &dst.into(), &ChecksumCapabilities::default());
    packet
}

/// Whether it comes from the left, and the packet.
fn handshake() -> Vec<(bool, Vec<u8>)> {
    vec![
        (true, segment(true, TcpControl::Syn, 100, None, b"")),
        (false, segment(false, TcpControl::Syn, 500, Some(101), b"")),
        (true, segment(true, TcpControl::None, 101, Some(501), b"")),
        (true, segment(true, TcpControl::Psh, 101, Some(501), b"hello")),
    ]
}

fn ethernet(from_left: bool, packet: &[u8]) -> Vec<u8> {
    let (src, dst) = if from_left { (1, 2) } else { (2, 1) };
    [&[2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 8, 0][..], packet].concat()
}

/// A classic capture; a record for each packet, a millisecond apart.
fn classic(link_type: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, link_type] {
        bytes.extend(word.to_le_bytes());
    }
    for (at, packet) in packets.iter().enumerate() {
        for word in [1_700_000_000, at as u32 * 1_000, packet.len() as u32, packet.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(packet);
    }
    bytes
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.add("rules", RULES.as_bytes());
        files
    }

    fn add(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stateway"));
        command.current_dir(self.folder.path()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// The states of the frames that were judged, the exit code, and what was said.
    fn states(&self, args: &[&str]) -> (Vec<String>, i32, String) {
        let (code, out, err) =
            self.run(&[&["replay", "--rules", "rules", "--format", "json"], args].concat());
        let state = |line: &str| {
            let verdict: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{} {}", verdict["ctstate"].as_str().unwrap_or("-"), verdict["fate"].as_str().unwrap())
        };
        (out.lines().map(state).collect(), code, err)
    }
}

const JUDGED: [&str; 4] =
    ["NEW forwarded", "ESTABLISHED forwarded", "ESTABLISHED forwarded", "ESTABLISHED forwarded"];

#[test]
fn every_kind_of_capture_gives_the_same_verdicts() {
    let files = Files::new();
    let raw: Vec<_> = handshake().into_iter().map(|(_, packet)| packet).collect();
    let sll2 = |(from_left, packet): &(bool, Vec<u8>)| {
        let index = if *from_left { 2 } else { 3 };
        [&[8, 0, 0, 0, 0, 0, 0, index, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], packet].concat()
    };
    let framed: Vec<_> = handshake().iter().map(|(from_left, packet)| ethernet(*from_left, packet)).collect();
    files.add("ethernet.pcap", &classic(1, &framed));
    files.add("tun.pcap", &classic(101, &raw));
    files.add("any.pcap", &classic(276, &handshake().iter().map(sll2).collect::<Vec<_>>()));
    let left: Vec<_> = [&framed[0], &framed[2], &framed[3]].into_iter().cloned().collect();
    // The records of both files are a millisecond apart: the answer comes between the first two of the left.
    files.add("left.pcap", &classic(1, &left));
    files.add("right.pcap", &classic(1, &framed[1..2]));
    let sides = ["--port", "192.0.2.0/24=lan", "--port", "0.0.0.0/0=wan"];
    let cases: [(&str, &[&str]); 4] = [
        ("sides of an Ethernet capture", &["ethernet.pcap", sides[0], sides[1], sides[2], sides[3]]),
        ("sides of a TUN", &["tun.pcap", sides[0], sides[1], sides[2], sides[3]]),
        ("any, its interfaces numbered", &["any.pcap"]),
        ("any, its interfaces named", &["any.pcap", "--port", "2=lan", "--port", "3=wan"]),
    ];
    for (what, args) in cases {
        assert_eq!(files.states(args), (JUDGED.map(str::to_owned).to_vec(), 0, String::new()), "{what}");
    }
    let (states, code, _) = files.states(&["--capture", "lan=left.pcap", "wan=right.pcap"]);
    assert_eq!((states.len(), code, states[1].as_str()), (4, 0, "ESTABLISHED forwarded"), "two files");
}

#[test]
fn a_segment_longer_than_the_link_stands_for_many() {
    let files = Files::new();
    let mut packets = handshake();
    packets.push((true, segment(true, TcpControl::None, 106, Some(501), &[7; 4000])));
    // The next one follows on it.
    packets.push((true, segment(true, TcpControl::None, 4106, Some(501), b"end")));
    let framed: Vec<_> = packets.iter().map(|(from_left, packet)| ethernet(*from_left, packet)).collect();
    files.add("long.pcap", &classic(1, &framed));
    let sides = ["long.pcap", "--port", "192.0.2.0/24=lan", "--port", "0.0.0.0/0=wan"];
    let (states, code, err) = files.states(&sides);
    assert_eq!((states.len(), code, err.as_str()), (6, 0, ""));
    assert_eq!(states[4..], ["ESTABLISHED forwarded"; 2]);
}

#[test]
fn what_decided_and_is_in_no_capture_is_said() {
    let files = Files::new();
    let lab = "name: untold\nrouter:\n  mode: route\n  ports:\n    lan: { address: 192.0.2.1/24 }\n    wan: { address: \
        198.51.100.1/24, mtu: 1400 }\n  rules: |\n    *nat\n    -A POSTROUTING -o wan -j MASQUERADE --random\n    COMMIT\n\
        hosts:\n  a: { port: lan, address: 192.0.2.10/24 }\n  b: { port: wan, address: 198.51.100.10/24 }\ntests:\n  \
        - name: other rules\n    steps:\n      - rules: { v4: \"*filter\\n:FORWARD DROP [0:0]\\nCOMMIT\\n\" }\n";
    files.add("lab.yaml", lab.as_bytes());
    let mut packets: Vec<_> = handshake().into_iter().filter(|(from_left, _)| *from_left).collect();
    packets.push((true, segment(true, TcpControl::None, 106, Some(501), &[7; 4000])));
    let raw: Vec<_> = packets.into_iter().map(|(_, packet)| packet).collect();
    files.add("long.pcap", &classic(101, &raw));
    let (code, _, err) = files.run(&["replay", "long.pcap", "--lab", "lab.yaml", "--port", "0.0.0.0/0=lan"]);
    assert_eq!(code, 0, "{err}");
    for said in [
        "long.pcap: 1 frames are longer than their link carries",
        "long.pcap: ports that translation chose by chance: 1; the captured router may have chosen others",
        "long.pcap: tests of the lab `untold` change its rules on the way",
    ] {
        assert_eq!(err.matches(said).count(), 1, "{said}: {err}");
    }
}

#[test]
fn sets_without_rules_that_name_them_are_a_mistake() {
    let files = Files::new();
    files.add("any.pcap", &classic(1, &[ethernet(true, &handshake()[0].1)]));
    files.add("sets", b"create s hash:ip\n");
    for args in [
        &["replay", "any.pcap", "--sets", "sets"][..],
        &["explain", "--sets", "sets", "--in", "lan", "--tcp", "192.0.2.1:1,198.51.100.1:2"],
    ] {
        let (code, _, err) = files.run(args);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("`--sets sets` is for rules that name its sets"), "{err}");
    }
}

#[test]
fn what_went_out_is_not_judged_and_counted_once() {
    let files = Files::new();
    let mut writer = Writer::new(Vec::new(), ["lan", "wan"]).unwrap();
    for (at, (from_left, packet)) in handshake().iter().enumerate() {
        let frame = ethernet(*from_left, packet);
        let (came, left) = (usize::from(!from_left), usize::from(*from_left));
        for (later, port, direction) in [(0, came, Direction::In), (20, left, Direction::Out)] {
            let at = Duration::from_micros(at as u64 * 1_000 + later);
            let direction = Some(direction);
            writer
                .record(&Record {
                    port,
                    at,
                    frame: &frame,
                    original_len: frame.len(),
                    direction,
                    comment: "",
                })
                .unwrap();
        }
    }
    files.add("both.pcapng", &writer.into_inner());
    let (states, code, err) = files.states(&["both.pcapng"]);
    assert_eq!((states, code), (JUDGED.map(str::to_owned).to_vec(), 0));
    assert_eq!(err, "warning: both.pcapng: 4 of 8 frames are outgoing copies: not judged\n");
}

#[test]
fn a_capture_in_which_nothing_was_judged_is_no_success() {
    let files = Files::new();
    let tagged: Vec<_> = handshake()
        .iter()
        .map(|(from_left, packet)| {
            let mut frame = ethernet(*from_left, packet);
            frame.splice(12..12, [0x81, 0, 0, 10]);
            frame
        })
        .collect();
    files.add("tagged.pcap", &classic(1, &tagged));
    files.add("usb.pcap", &classic(189, &tagged));
    files.add("none.pcap", &classic(1, &[]));
    files.add("empty.pcap", b"");
    for (trace, code, said) in [
        ("tagged.pcap", 0, "4 of 4 frames have a VLAN tag (802.1Q): the packets within were not judged"),
        ("usb.pcap", 2, "none of its 4 frames was judged"),
        ("none.pcap", 2, "no frames in it"),
        ("empty.pcap", 2, "the file is empty"),
    ] {
        for command in
            [&["replay", trace, "--rules", "rules"][..], &["rules", "coverage", "rules", "--replay", trace]]
        {
            let (ended, _, err) = files.run(command);
            assert!(ended == code && err.contains(said), "{command:?} ended with {ended}: {err}");
        }
    }
}

#[test]
fn a_file_cut_at_its_end_is_judged_as_far_as_it_goes() {
    let files = Files::new();
    let mut writer = Writer::new(Vec::new(), ["lan", "wan"]).unwrap();
    for (from_left, packet) in handshake() {
        writer.frame(usize::from(!from_left), Duration::ZERO, &ethernet(from_left, &packet), "").unwrap();
    }
    let mut bytes = writer.into_inner();
    bytes.truncate(bytes.len() - 7);
    files.add("cut.pcapng", &bytes);
    let (states, code, err) = files.states(&["cut.pcapng"]);
    assert_eq!((&states[..], code), (&JUDGED.map(str::to_owned)[..3], 2));
    assert!(err.contains("the file is cut short"), "{err}");
}

#[test]
fn a_frame_has_its_number_in_the_file_where_the_file_is_not_in_the_order_of_time() {
    let files = Files::new();
    let mut writer = Writer::new(Vec::new(), ["lan", "wan"]).unwrap();
    let frames: Vec<_> = handshake().into_iter().enumerate().collect();
    // A buffer of one interface, then that of the other.
    for side in [true, false] {
        for (at, (from_left, packet)) in frames.iter().filter(|(_, (from_left, _))| *from_left == side) {
            let at = Duration::from_millis(*at as u64 + 1);
            writer.frame(usize::from(!from_left), at, &ethernet(*from_left, packet), "").unwrap();
        }
    }
    files.add("c.pcapng", &writer.into_inner());
    let (states, code, _) = files.states(&["c.pcapng"]);
    assert_eq!((&states[..], code), (&JUDGED.map(str::to_owned)[..], 0));
    // The acknowledgement, the second of its interface, and the answer before it, which stands at the end.
    for (number, flags) in [("2", "packet: tcp . 192"), ("4", "packet: tcp S. 198")] {
        let (code, out, err) =
            files.run(&["explain", "--capture", "c.pcapng", "--rules", "rules", "--frame", number]);
        assert!(code == 0 && out.contains(flags), "{number}: {out}{err}");
    }
}

#[test]
fn a_capture_from_a_pipe_is_judged_while_it_grows() {
    let files = Files::new();
    let mut writer = Writer::new(Vec::new(), ["lan", "wan"]).unwrap();
    let (from_left, packet) = &handshake()[0];
    writer.frame(0, Duration::ZERO, &ethernet(*from_left, packet), "").unwrap();
    let mut replay = files
        .command(&["replay", "-", "--rules", "rules"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = replay.stdin.take().unwrap();
    input.write_all(&writer.into_inner()).unwrap();
    let mut line = String::new();
    // The pipe is still open: whoever waited for its end would not answer.
    BufReader::new(replay.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("NEW original: forwarded → wan by filter/FORWARD/2"), "{line}");
    drop(input);
    assert!(replay.wait().unwrap().success());
}

#[test]
fn what_rules_log_is_told_with_the_frame() {
    let files = Files::new();
    let log = RULES.replace(
        "-A FORWARD -s",
        "-A FORWARD -m conntrack --ctstate NEW -j LOG --log-prefix \"new: \"\n-A FORWARD -s",
    );
    files.add("rules", log.as_bytes());
    files.add(
        "sides.pcap",
        &classic(101, &handshake().into_iter().map(|(_, packet)| packet).collect::<Vec<_>>()),
    );
    let (_, _, err) = files.states(&["sides.pcap", "--port", "192.0.2.0/24=lan", "--port", "0.0.0.0/0=wan"]);
    assert!(err.starts_with("frame 1: new: IN=lan OUT=wan MAC="), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn a_scenario_is_taken_where_a_capture_is() {
    let files = Files::new();
    let story = "# 104 opens, and hears the answer.\nmode bridge\nflow f left 192.0.2.10:40000 right 198.51.100.10:80 tcp\n\
        0 left S 100\n+10ms right S. 500 ack 101\n+10ms left . 101 ack 501\n";
    files.add("story.flow", story.as_bytes());
    let (states, code, err) = files.states(&["story.flow"]);
    assert_eq!((&states[..], code, err.as_str()), (&JUDGED.map(str::to_owned)[..3], 0, ""));
    let (code, out, _) = files.run(&["rules", "coverage", "rules", "--replay", "story.flow"]);
    assert!(code == 0 && out.contains("       2  filter/FORWARD/1"), "{out}");
    let (code, out, _) = files.run(&["rules", "mutate", "rules", "--replay", "story.flow"]);
    assert!(code == 1 && out.contains("changes were noticed"), "{out}");
    let some = ["rules", "mutate", "rules", "--replay", "story.flow", "--fail-under"];
    assert_eq!(files.run(&[&some[..], &["1", "--jobs", "3"]].concat()).0, 0);
    assert_eq!(files.run(&[&some[..], &["100"]].concat()).0, 1);
    assert_eq!(files.run(&[&some[..], &["101"]].concat()).0, 2);
    let (code, out, _) =
        files.run(&["rules", "coverage", "rules", "--replay", "story.flow", "--format", "cobertura"]);
    assert!(code == 0 && out.contains("<class name=\"rules\" filename=\"rules\" line-rate="), "{out}");
    assert!(out.contains(" hits=\"2\"/>"), "{out}");
    let (code, out, err) =
        files.run(&["explain", "--rules", "rules", "--capture", "story.flow", "--frame", "2"]);
    assert!(code == 0 && out.contains("ESTABLISHED"), "{out}{err}");
    let named = ["--port", "left=lan", "--port", "right=wan"];
    let (states, code, _) = files.states(&[&["story.flow"], &named[..]].concat());
    assert_eq!((states.len(), code), (3, 0));
    files.add("broken.flow", b"# Broken.\n0 left nonsense\n");
    let (code, _, err) = files.run(&["replay", "broken.flow", "--rules", "rules"]);
    assert!(code == 2 && err.contains("broken.flow: line 2: "), "{err}");
}

#[test]
fn a_summary_counts_what_the_lines_would_say() {
    let files = Files::new();
    files.add(
        "sides.pcap",
        &classic(101, &handshake().into_iter().map(|(_, packet)| packet).collect::<Vec<_>>()),
    );
    let args = [
        "replay",
        "sides.pcap",
        "--rules",
        "rules",
        "--summary",
        "--port",
        "192.0.2.0/24=lan",
        "--port",
        "0.0.0.0/0=wan",
    ];
    let (code, out, _) = files.run(&args);
    let expected = "4 frames, 221 bytes, 1 connections\n         4  forwarded\n         3  filter/FORWARD/1  -A FORWARD -m \
        conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n         1  filter/FORWARD/2  -A FORWARD -s 192.0.2.0/24 -m \
        conntrack --ctstate NEW -j ACCEPT\n";
    assert_eq!((code, out.as_str()), (0, expected));
}

use super::order::Order;
use super::pcapng::{
    BYTE_ORDER_MAGIC, ENHANCED_PACKET, IF_NAME, IF_TSOFFSET, IF_TSRESOL, INTERFACE_DESCRIPTION,
    OBSOLETE_PACKET, OPTION_COMMENT, SECTION_HEADER, SIMPLE_PACKET,
};
use super::*;
use std::io::{Cursor, Write as _};
use std::time::Duration;

const LINKTYPE_ETHERNET: u16 = 1;
const ETHERNET: u32 = 1;

/// What is in a capture, read as it stands.
#[derive(Debug)]
struct Read {
    ports: Vec<String>,
    frames: Vec<Frame>,
}

fn read(bytes: Vec<u8>, reading: &Reading) -> Result<Read, CaptureError> {
    let mut frames = Frames::of(Capture::new(Cursor::new(bytes), reading)?);
    let mut all = Vec::new();
    let mut frame = Frame::default();
    while frames.read(&mut frame)? {
        all.push(frame.clone());
    }
    Ok(Read { ports: frames.ports().to_vec(), frames: all })
}

fn as_it_stands(bytes: Vec<u8>) -> Result<Read, CaptureError> {
    read(bytes, &Reading { as_it_stands: true, ..Reading::default() })
}

/// Blocks by hand, so that they can be wrong.
struct File {
    bytes: Vec<u8>,
    order: Order,
}

impl File {
    fn new(order: Order) -> Self {
        Self { bytes: Vec::new(), order }.section()
    }

    fn block(mut self, kind: u32, body: &[u8]) -> Self {
        let length = self.order.write_u32((12 + body.len().next_multiple_of(4)) as u32);
        self.bytes.extend(self.order.write_u32(kind));
        self.bytes.extend(length);
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend(length);
        self
    }

    fn section(self) -> Self {
        let mut body = self.order.write_u32(BYTE_ORDER_MAGIC).to_vec();
        body.extend(self.order.write_u16(1));
        body.extend(self.order.write_u16(0));
        body.extend([0xff; 8]);
        self.block(SECTION_HEADER, &body)
    }

    fn interface(self, linktype: u16, options: &[(u16, &[u8])]) -> Self {
        let mut body = self.order.write_u16(linktype).to_vec();
        body.extend([0; 6]);
        for (code, value) in options {
            body.extend(self.order.write_u16(*code));
            body.extend(self.order.write_u16(value.len() as u16));
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(INTERFACE_DESCRIPTION, &body)
    }

    fn named(self, name: &str) -> Self {
        self.interface(LINKTYPE_ETHERNET, &[(IF_NAME, name.as_bytes())])
    }

    fn packet_body(&self, interface: u32, timestamp: u64, captured: u32, data: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for word in [interface, (timestamp >> 32) as u32, timestamp as u32, captured, data.len() as u32] {
            body.extend(self.order.write_u32(word));
        }
        body.extend(data);
        body
    }

    fn frame(self, interface: u32, timestamp: u64, data: &[u8]) -> Self {
        let body = self.packet_body(interface, timestamp, data.len() as u32, data);
        self.block(ENHANCED_PACKET, &body)
    }

    fn parse(self) -> Result<Read, CaptureError> {
        as_it_stands(self.bytes)
    }
}

fn nanos(capture: &Read) -> Vec<i128> {
    capture.frames.iter().map(|frame| frame.nanos).collect()
}

#[test]
fn frames_come_with_port_time_and_bytes_in_both_byte_orders() {
    for order in [Order::Little, Order::Big] {
        let capture = File::new(order)
            .named("left")
            .named("right")
            .block(0x0bad_cafe, b"what nobody knows")
            .frame(1, 5_000_001, b"hello")
            .frame(0, 6_000_000, b"")
            .parse()
            .unwrap();
        assert_eq!(capture.ports, ["left", "right"]);
        assert_eq!(nanos(&capture), [5_000_001_000, 6_000_000_000]);
        let frames = &capture.frames;
        assert_eq!((frames[0].port, &frames[0].data[..]), (1, &b"hello"[..]));
        assert_eq!((frames[1].port, &frames[1].data[..]), (0, &b""[..]));
    }
}

#[test]
fn timestamps_count_in_the_units_of_their_interface() {
    for (tsresol, timestamp, expected) in [
        (6, 1_500_000, 1_500_000_000),
        (9, 1_500_000_000, 1_500_000_000),
        (3, 1_500, 1_500_000_000),
        (0, 1, 1_000_000_000),
        (12, 1_500, 1),
        (0x8a, 512, 500_000_000),
        (0xa0, 3 << 31, 1_500_000_000),
    ] {
        let capture = File::new(Order::Little)
            .interface(LINKTYPE_ETHERNET, &[(IF_NAME, b"left"), (IF_TSRESOL, &[tsresol])])
            .frame(0, timestamp, b"")
            .parse()
            .unwrap();
        assert_eq!(nanos(&capture), [expected], "if_tsresol {tsresol:#x}");
    }
}

#[test]
fn an_offset_is_added_in_seconds_and_other_options_are_passed_over() {
    let capture = File::new(Order::Little)
        .interface(
            LINKTYPE_ETHERNET,
            &[(10, &[0; 4]), (IF_NAME, b"left\0"), (IF_TSOFFSET, &(-2_i64).to_le_bytes()), (99, b"?")],
        )
        .frame(0, 3_000_000, b"")
        .parse()
        .unwrap();
    assert_eq!(capture.ports, ["left"]);
    assert_eq!(nanos(&capture), [1_000_000_000]);
}

#[test]
fn a_name_means_the_same_port_in_every_section() {
    let capture = File::new(Order::Little)
        .named("left")
        .frame(0, 1, b"")
        .section()
        .named("right")
        .named("left")
        .frame(1, 2, b"")
        .frame(0, 3, b"")
        .parse()
        .unwrap();
    assert_eq!(capture.ports, ["left", "right"]);
    assert_eq!(capture.frames.iter().map(|f| f.port).collect::<Vec<_>>(), [0, 0, 1]);
}

#[test]
fn the_obsolete_packet_block_is_read_as_well() {
    let file = File::new(Order::Big).named("left").named("right");
    let mut body = file.packet_body(0, 7, 2, b"ab");
    // Sixteen bits of interface, sixteen bits of drops.
    body[..4].copy_from_slice(&[0, 1, 0xff, 0xff]);
    let capture = file.block(OBSOLETE_PACKET, &body).parse().unwrap();
    assert_eq!((capture.frames[0].port, &capture.frames[0].data[..]), (1, &b"ab"[..]));
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place_and_a_remedy() {
    let little = || File::new(Order::Little);
    let nowhere = little().named("left").frame(0, 0, b"").frame(1, 0, b"");
    let simple = little().named("left").block(SIMPLE_PACKET, &[0; 4]);
    let long = little().named("left");
    let body = long.packet_body(0, 0, 9, b"ab");
    let long = long.block(ENHANCED_PACKET, &body);
    let mut short = little().named("left").frame(0, 0, b"abcd");
    short.bytes.truncate(short.bytes.len() - 2);
    let mut torn = little().named("left");
    *torn.bytes.last_mut().unwrap() = 1;
    let fine =
        little().interface(LINKTYPE_ETHERNET, &[(IF_NAME, b"left"), (IF_TSRESOL, &[99])]).frame(0, 0, b"");
    for (bytes, expected) in [
        (nowhere.bytes, "frame 2, byte 88: its interface 1 is not among the 1 of its section"),
        (
            simple.bytes,
            "frame 1, byte 56: a simple packet block says neither when its frame came nor where\n  hint: capture in enhanced packet blocks, as `dumpcap` does by default",
        ),
        (long.bytes, "frame 1, byte 56: its 9 bytes do not fit its block"),
        (
            short.bytes,
            "byte 56: the file is cut short: a block goes beyond its end\n  hint: what came before was read; capture again for the rest",
        ),
        (torn.bytes, "byte 28: a block says 28 bytes at its head and 16777244 at its end"),
        (fine.bytes, "frame 1, byte 64: an if_tsresol of 0x63 cannot be"),
        (
            vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0],
            "byte 0: the file is cut short: its header goes beyond its end\n  hint: what came before was read; capture again for the rest",
        ),
        (Vec::new(), "byte 0: the file is empty\n  hint: the capture failed, or has not begun"),
        (b"#!/bin/sh".to_vec(), "byte 0: neither a pcapng nor a pcap file"),
    ] {
        assert_eq!(as_it_stands(bytes).unwrap_err().to_string(), expected);
    }
}

#[test]
fn an_interface_that_no_frame_names_may_be_anything() {
    let capture =
        File::new(Order::Little).interface(113, &[]).named("left").frame(1, 0, b"").parse().unwrap();
    assert_eq!(capture.ports, ["left"]);
}

#[test]
fn cut_anywhere_a_capture_is_read_or_refused() {
    let whole = File::new(Order::Little).named("left").frame(0, 1, b"abc").section().named("left").bytes;
    for end in 0..whole.len() {
        let _ = as_it_stands(whole[..end].to_vec());
        let mut wrong = whole.clone();
        wrong[end] ^= 0xff;
        let _ = as_it_stands(wrong);
    }
}

#[test]
fn comments_are_put_in_front_of_those_that_were_there_and_nothing_else_changes() {
    for order in [Order::Little, Order::Big] {
        let file = File::new(order).named("left").frame(0, 1, b"abc").block(0x77, b"kept");
        let mut commented = file.packet_body(0, 2, 2, b"de\0\0");
        commented.extend(order.write_u16(OPTION_COMMENT));
        commented.extend(order.write_u16(3));
        commented.extend(b"old\0\0\0\0\0");
        let bytes = file.block(ENHANCED_PACKET, &commented).frame(0, 3, b"f").block(0x78, b"last").bytes;
        let reading = Reading { as_it_stands: true, keeps_blocks: true, ..Reading::default() };
        let mut frames = Frames::of(Capture::new(Cursor::new(bytes), &reading).unwrap());
        let mut out = Vec::new();
        let mut annotator = frames.annotate(&mut out).unwrap();
        let mut frame = Frame::default();
        for at in 0..2 {
            assert!(frames.read(&mut frame).unwrap());
            annotator.frame(&mut frames, &frame, &format!("verdict {at}")).unwrap();
        }
        annotator.finish(&mut frames).unwrap();
        let text = String::from_utf8_lossy(&out);
        let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word}"));
        assert!(at("kept") > at("verdict 0") && at("verdict 1") > at("kept") && at("old") > at("verdict 1"));

        let again = as_it_stands(out).unwrap();
        let frames: Vec<_> = again.frames.iter().map(|f| (f.nanos, &f.data[..])).collect();
        assert_eq!(frames, [(1_000, &b"abc"[..]), (2_000, &b"de"[..])], "the third frame was not asked for");
    }
}

#[test]
fn what_is_written_reads_back() {
    let mut writer = Writer::new(Vec::new(), ["left", "right"]).unwrap();
    writer.frame(1, Duration::from_nanos(1_234_567_890), b"hello", "a comment").unwrap();
    assert!(writer.frame(2, Duration::ZERO, b"", "").is_err(), "no such interface");
    let bytes = writer.into_inner();
    assert!(bytes.windows(9).any(|w| w == b"a comment"));
    let capture = as_it_stands(bytes).unwrap();
    assert_eq!(capture.ports, ["left", "right"]);
    assert_eq!(nanos(&capture), [1_234_567_890]);
    assert_eq!(&capture.frames[0].data[..], b"hello");
}

/// A classic file of these records: seconds, fraction, bytes.
fn classic(magic: u32, order: Order, link_type: u32, records: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = order.write_u32(magic).to_vec();
    for word in [0x0004_0002, 0, 0, 65_535, link_type] {
        bytes.extend(order.write_u32(word));
    }
    for (seconds, fraction, data) in records {
        for word in [*seconds, *fraction, data.len() as u32, data.len() as u32] {
            bytes.extend(order.write_u32(word));
        }
        bytes.extend(*data);
    }
    bytes
}

#[test]
fn classic_files_are_read_in_both_orders_and_units_and_packed() {
    for (magic, unit) in [(0xa1b2_c3d4, 1_000), (0xa1b2_3c4d, 1)] {
        for order in [Order::Little, Order::Big] {
            let bytes = classic(magic, order, ETHERNET, &[(1, 2, b"ab"), (3, 4, b"c")]);
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(&bytes).unwrap();
            for bytes in [bytes, packed.finish().unwrap()] {
                let capture = as_it_stands(bytes).unwrap();
                assert_eq!(capture.ports, ["if0"]);
                assert_eq!(nanos(&capture), [1_000_000_000 + 2 * unit, 3_000_000_000 + 4 * unit]);
                assert_eq!(capture.frames[0].data, b"ab");
            }
        }
    }
}

#[test]
fn frames_before_the_cut_are_read_and_then_the_cut_is_told() {
    let mut bytes = File::new(Order::Little).named("left").frame(0, 1, b"abcd").frame(0, 2, b"efgh").bytes;
    bytes.truncate(bytes.len() - 3);
    let mut frames = Frames::of(Capture::new(Cursor::new(bytes), &Reading::default()).unwrap());
    let mut frame = Frame::default();
    assert_eq!(frames.read(&mut frame), Ok(true));
    let error = frames.read(&mut frame).unwrap_err();
    assert!(error.to_string().starts_with("byte 92: the file is cut short: a block goes beyond"), "{error}");
}

/// Two interfaces as dumpcap writes them: a buffer of one, then the buffer of the other.
fn one_behind_the_other() -> File {
    let buffers = [(0, 10, b"a"), (0, 30, b"c"), (0, 40, b"d"), (1, 20, b"b"), (1, 40, b"e"), (0, 50, b"f")];
    let file = File::new(Order::Little).named("lan").named("wan");
    buffers.into_iter().fold(file, |file, (interface, at, data)| file.frame(interface, at, data))
}

/// Number, port and bytes of the frames up to the end, and the error that ends them.
fn in_order(bytes: &[u8], reading: Reading) -> (Vec<(u64, u16, u8)>, Option<CaptureError>) {
    let mut frames = Source::of_stream(bytes, reading).unwrap().open().unwrap();
    let (mut all, mut frame) = (Vec::new(), Frame::default());
    loop {
        match frames.read(&mut frame) {
            Ok(true) => all.push((frame.number, frame.port, frame.data[0])),
            end => return (all, end.err()),
        }
    }
}

#[test]
fn interfaces_that_stand_one_behind_the_other_are_put_in_the_order_of_time() {
    let bytes = one_behind_the_other().bytes;
    let by_time = [(1, 0, b'a'), (4, 1, b'b'), (2, 0, b'c'), (3, 0, b'd'), (5, 1, b'e'), (6, 0, b'f')];
    assert_eq!(in_order(&bytes, Reading::default()), (by_time.to_vec(), None));
    // Where the file ends early, all that can be read comes first.
    let (read, error) = in_order(&bytes[..bytes.len() - 3], Reading::default());
    assert_eq!(read, by_time[..5]);
    assert!(error.unwrap().to_string().contains("the file is cut short"));
    // Asked for as they stand, and where an interface itself goes back in time, they are left so.
    let stands = Reading { as_it_stands: true, ..Reading::default() };
    assert_eq!(
        in_order(&bytes, stands).0.iter().map(|(number, ..)| *number).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    let goes_back = one_behind_the_other().frame(0, 1, b"g").bytes;
    let numbers: Vec<_> =
        in_order(&goes_back, Reading::default()).0.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn frames_that_were_put_in_order_are_written_back_in_it() {
    let bytes = one_behind_the_other().bytes;
    let reading = Reading { keeps_blocks: true, ..Reading::default() };
    let mut frames = Source::of_stream(&bytes[..], reading).unwrap().open().unwrap();
    let mut out = Vec::new();
    let mut annotator = frames.annotate(&mut out).unwrap();
    let mut frame = Frame::default();
    while frames.read(&mut frame).unwrap() {
        annotator.frame(&mut frames, &frame, "a verdict").unwrap();
    }
    annotator.finish(&mut frames).unwrap();
    let again = as_it_stands(out).unwrap();
    assert_eq!(again.ports, ["lan", "wan"]);
    assert_eq!(nanos(&again), [10_000, 20_000, 30_000, 40_000, 40_000, 50_000]);
}

/// An IPv4 datagram from 192.0.2.FROM to 198.51.100.TO with so many bytes of payload; right checksums.
fn datagram(from: u8, to: u8, ttl: u8, len: usize) -> Vec<u8> {
    use stateway_core::packet::checksum::Sum;
    let total = (28 + len) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 7, 0, 0, ttl, 17, 0, 0, 192, 0, 2, from, 198, 51, 100, to];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let checksum = Sum::ZERO.bytes(&ip).checksum();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut udp = vec![0x9c, 0x40, 0, 53, 0, 0, 0, 0];
    udp[4..6].copy_from_slice(&(8 + len as u16).to_be_bytes());
    udp.resize(8 + len, 0x61);
    let (src, dst) = (
        stateway_core::packet::Addr::from_v4([192, 0, 2, from]),
        stateway_core::packet::Addr::from_v4([198, 51, 100, to]),
    );
    let sum = Sum::pseudo_header(src, dst, stateway_core::packet::Family::Ipv4, 17, udp.len()).bytes(&udp);
    udp[6..8].copy_from_slice(&sum.checksum().to_be_bytes());
    ip.extend(udp);
    ip
}

fn ethernet(mac: u8, ip: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 0xfe][..], &[2, 0, 0, 0, 0, mac], &[8, 0], ip].concat()
}

fn names(words: &[&str]) -> Reading {
    Reading { names: words.iter().map(|word| word.parse().unwrap()).collect(), ..Reading::default() }
}

#[test]
fn packets_without_ethernet_get_a_header_of_their_own() {
    let ip = datagram(1, 2, 64, 3);
    let null = [&2_u32.to_le_bytes()[..], &ip].concat();
    let sll = [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0][..], &ip].concat();
    let sll2 = [&[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], &ip].concat();
    for (link_type, data, port) in
        [(101, &ip, "if0"), (228, &ip, "if0"), (0, &null, "if0"), (113, &sll, "if0"), (276, &sll2, "if3")]
    {
        let bytes = classic(0xa1b2_c3d4, Order::Little, link_type, &[(1, 0, data)]);
        let capture = read(bytes, &Reading::default()).unwrap();
        let frame = &capture.frames[0];
        assert_eq!(
            (capture.ports[usize::from(frame.port)].as_str(), frame.unjudged),
            (port, None),
            "{link_type}"
        );
        assert_eq!((&frame.data[12..14], &frame.data[14..]), (&[8, 0][..], &ip[..]), "{link_type}");
        assert!(frame.link_is_made_up && !frame.is_cut(), "{link_type}");
    }
    let bytes = classic(0xa1b2_c3d4, Order::Little, 147, &[(1, 0, &ip)]);
    assert_eq!(read(bytes, &Reading::default()).unwrap().frames[0].unjudged, Some(Unjudged::LinkType(147)));
}

#[test]
fn what_went_out_is_told_by_flags_by_the_link_and_by_the_packet_itself() {
    let unjudged = |bytes| {
        let capture = read(bytes, &Reading::default()).unwrap();
        capture.frames.iter().map(|frame| frame.unjudged).collect::<Vec<_>>()
    };
    let mut writer = Writer::new(Vec::new(), ["left", "right"]).unwrap();
    let mut write = |port, micros, frame: &[u8], direction| {
        let at = Duration::from_micros(micros);
        writer
            .record(&Record { port, at, frame, original_len: frame.len(), direction, comment: "" })
            .unwrap();
    };
    let frame = ethernet(1, &datagram(1, 2, 64, 3));
    write(0, 0, &frame, Some(Direction::In));
    write(1, 10, &frame, Some(Direction::Out));
    assert_eq!(unjudged(writer.into_inner()), [None, Some(Unjudged::Outgoing)]);

    let routed = ethernet(9, &datagram(1, 2, 63, 3));
    for (second, port, micros, expected) in [
        (&frame, 1, 4_999, Some(Unjudged::Copy)),
        (&routed, 1, 4_999, Some(Unjudged::Copy)),
        // Too late; the same port again; another station; not a hop less.
        (&frame, 1, 5_001, None),
        (&frame, 0, 100, None),
        (&ethernet(3, &datagram(1, 2, 64, 3)), 1, 100, None),
        (&ethernet(9, &datagram(1, 2, 62, 3)), 1, 100, None),
    ] {
        let file = File::new(Order::Little).named("left").named("right");
        let bytes = file.frame(0, 0, &frame).frame(port, micros, second).bytes;
        assert_eq!(unjudged(bytes), [None, expected], "port {port} after {micros} µs");
    }
}

#[test]
fn copies_are_found_however_many_packets_are_between() {
    const PACKETS: u32 = 3_000;
    let mut copies = taken::Copies::default();
    let packet = |number: u32, ttl: u8| {
        let [.., high, low] = number.to_be_bytes();
        let mut frame = ethernet(ttl, &datagram(1, 2, ttl, 28));
        frame[18..20].copy_from_slice(&[high, low]);
        frame
    };
    // All of them within a moment.
    for number in 0..PACKETS {
        assert!(!copies.is_copy((0, 0, None), i128::from(number), &packet(number, 64)));
    }
    for number in 0..PACKETS {
        assert!(copies.is_copy((0, 1, None), i128::from(PACKETS + number), &packet(number, 63)), "{number}");
    }
}

#[test]
fn ports_are_named_by_number_name_address_and_direction() {
    let (there, back) = (
        ethernet(1, &datagram(1, 2, 64, 0)),
        ethernet(2, &{
            let mut ip = datagram(1, 2, 64, 0);
            ip[12..20].rotate_left(4);
            ip
        }),
    );
    let two =
        || File::new(Order::Little).named("eth0").named("eth1").frame(0, 0, &there).frame(1, 9, &back).bytes;
    let one = || classic(0xa1b2_c3d4, Order::Little, ETHERNET, &[(0, 0, &there), (0, 9, &back)]);
    let ports = |bytes, words: &[&str]| {
        let capture = read(bytes, &names(words)).unwrap();
        capture
            .frames
            .iter()
            .map(|f| f.unjudged.map_or(capture.ports[usize::from(f.port)].clone(), |_| "-".into()))
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(two(), &["0=lan", "1=wan"]), ["lan", "wan"]);
    assert_eq!(ports(two(), &["eth1=wan"]), ["eth0", "wan"]);
    assert_eq!(ports(one(), &["lan"]), ["lan", "lan"]);
    assert_eq!(ports(one(), &["192.0.2.0/24=lan", "0.0.0.0/0=wan"]), ["lan", "wan"]);
    assert_eq!(ports(one(), &["192.0.2.0/24=lan"]), ["lan", "-"]);
    let error = read(two(), &names(&["lan"])).unwrap_err().to_string();
    assert_eq!(
        error,
        "byte 0: one port is named, and the capture has several interfaces\n  hint: name each: `--port 0=lan --port 1=wan`"
    );
    for wrong in ["=lan", "0=", "192.0.2.0/33=lan", ""] {
        assert!(wrong.parse::<PortName>().is_err(), "{wrong}");
    }
}

#[test]
fn a_cut_frame_is_filled_up_if_its_headers_are_whole() {
    let whole = ethernet(1, &datagram(1, 2, 64, 100));
    for (captured, expected) in [
        (142, None),
        (60, None),
        (42, None),
        (41, Some(Unjudged::HeadersCut)),
        (20, Some(Unjudged::HeadersCut)),
    ] {
        let mut writer = Writer::new(Vec::new(), ["left"]).unwrap();
        writer.cut_frame(0, Duration::ZERO, &whole[..captured], whole.len(), "").unwrap();
        let capture = read(writer.into_inner(), &Reading::default()).unwrap();
        let frame = &capture.frames[0];
        assert_eq!((frame.unjudged, frame.captured_len), (expected, captured), "{captured}");
        if expected.is_none() {
            assert_eq!(
                (frame.data.len(), frame.offload.skips_checksum()),
                (142, captured < 142),
                "{captured}"
            );
        }
    }
}

#[test]
fn a_checksum_that_holds_the_pseudo_header_is_unfinished_and_a_wrong_one_is_wrong() {
    use stateway_core::packet::checksum::Sum;
    let right = ethernet(1, &datagram(1, 2, 64, 5));
    let (src, dst) = (
        stateway_core::packet::Addr::from_v4([192, 0, 2, 1]),
        stateway_core::packet::Addr::from_v4([198, 51, 100, 2]),
    );
    let partial = Sum::pseudo_header(src, dst, stateway_core::packet::Family::Ipv4, 17, 13).folded();
    let with = |checksum: u16| {
        let mut frame = right.clone();
        frame[40..42].copy_from_slice(&checksum.to_be_bytes());
        frame
    };
    for (frame, needs) in [(right.clone(), false), (with(partial), true), (with(partial ^ 1), false)] {
        let capture =
            read(File::new(Order::Little).named("left").frame(0, 0, &frame).bytes, &Reading::default())
                .unwrap();
        let offload = capture.frames[0].offload;
        assert_eq!(offload.needs_checksum(), needs);
        assert_eq!((offload.csum_start, offload.csum_offset), if needs { (34, 6) } else { (0, 0) });
    }
}

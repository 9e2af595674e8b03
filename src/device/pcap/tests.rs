use super::*;

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

    fn parse(self) -> Result<Capture, CaptureError> {
        Capture::parse(self.bytes)
    }
}

fn nanos(capture: &Capture) -> Vec<i128> {
    capture.frames().iter().map(|frame| frame.nanos).collect()
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
        assert_eq!(capture.ports(), ["left", "right"]);
        assert_eq!(nanos(&capture), [5_000_001_000, 6_000_000_000]);
        let frames = capture.frames();
        assert_eq!((frames[0].port, capture.data(&frames[0])), (1, &b"hello"[..]));
        assert_eq!((frames[1].port, capture.data(&frames[1])), (0, &b""[..]));
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
    assert_eq!(capture.ports(), ["left"]);
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
    assert_eq!(capture.ports(), ["left", "right"]);
    assert_eq!(capture.frames().iter().map(|f| f.port).collect::<Vec<_>>(), [0, 0, 1]);
}

#[test]
fn the_obsolete_packet_block_is_read_as_well() {
    let file = File::new(Order::Big).named("left").named("right");
    let mut body = file.packet_body(0, 7, 2, b"ab");
    // Sixteen bits of interface, sixteen bits of drops.
    body[..4].copy_from_slice(&[0, 1, 0xff, 0xff]);
    let capture = file.block(OBSOLETE_PACKET, &body).parse().unwrap();
    assert_eq!((capture.frames()[0].port, capture.data(&capture.frames()[0])), (1, &b"ab"[..]));
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place_and_a_remedy() {
    let little = || File::new(Order::Little);
    let no_name = little().interface(LINKTYPE_ETHERNET, &[]).frame(0, 0, b"");
    let cooked = little().interface(113, &[(IF_NAME, b"any")]).frame(0, 0, b"");
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
        (
            no_name.bytes,
            "frame 1, byte 48: its interface 0 has no if_name, which is what ports are called by\n  hint: capture with `dumpcap -i NAME`, which writes the name; `tcpdump` does not",
        ),
        (
            cooked.bytes,
            "frame 1, byte 56: its interface 0 is not Ethernet, but link type 113\n  hint: capture on an Ethernet interface or a TAP, not on `any` or a tunnel",
        ),
        (nowhere.bytes, "frame 2, byte 88: its interface 1 is not among the 1 of its section"),
        (
            simple.bytes,
            "frame 1, byte 56: a simple packet block says neither when its frame came nor where\n  hint: capture in enhanced packet blocks, as `dumpcap` does by default",
        ),
        (long.bytes, "frame 1, byte 56: its 9 bytes do not fit its block"),
        (
            short.bytes,
            "byte 56: a block goes beyond the end of the file\n  hint: the file is cut short: capture again, or mend it with `pcapfix`",
        ),
        (torn.bytes, "byte 28: a block says 28 bytes at its head and 16777244 at its end"),
        (fine.bytes, "frame 1, byte 64: an if_tsresol of 0x63 cannot be"),
        (
            vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0],
            "byte 0: a classic pcap file, not pcapng\n  hint: capture as pcapng (`dumpcap -i NAME -w FILE.pcapng`): the classic format has no interface names",
        ),
        (b"#!/bin/sh".to_vec(), "byte 0: not a pcapng file"),
    ] {
        assert_eq!(Capture::parse(bytes).unwrap_err().to_string(), expected);
    }
}

#[test]
fn an_interface_that_no_frame_names_may_be_anything() {
    let capture =
        File::new(Order::Little).interface(113, &[]).named("left").frame(1, 0, b"").parse().unwrap();
    assert_eq!(capture.ports(), ["left"]);
}

#[test]
fn cut_anywhere_a_capture_is_read_or_refused() {
    let whole = File::new(Order::Little).named("left").frame(0, 1, b"abc").section().named("left").bytes;
    for end in 0..whole.len() {
        let _ = Capture::parse(whole[..end].to_vec());
        let mut wrong = whole.clone();
        wrong[end] ^= 0xff;
        let _ = Capture::parse(wrong);
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
        let capture = file.block(ENHANCED_PACKET, &commented).frame(0, 3, b"f").parse().unwrap();

        let mut out = Vec::new();
        capture.annotate(&mut out, 2, |at| format!("verdict {at}")).unwrap();
        let text = String::from_utf8_lossy(&out);
        let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word}"));
        assert!(at("kept") > at("verdict 0") && at("verdict 1") > at("kept") && at("old") > at("verdict 1"));

        let again = Capture::parse(out).unwrap();
        let frames: Vec<_> = again.frames().iter().map(|f| (f.nanos, again.data(f))).collect();
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
    let capture = Capture::parse(bytes).unwrap();
    assert_eq!(capture.ports(), ["left", "right"]);
    assert_eq!(nanos(&capture), [1_234_567_890]);
    assert_eq!(capture.data(&capture.frames()[0]), b"hello");
}

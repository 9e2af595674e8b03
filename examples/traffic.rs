//! Writes a capture of made-up traffic, to measure with: `traffic FRAMES CONNECTIONS FILE.pcapng [BYTES]`.
//!
//! Every second connection is TCP, the others are UDP; all of them are under way at the same time, a frame of each in turn,
//! two microseconds apart. `lan` opens, and then either side sends BYTES of payload (64 unless said) in turn; what TCP sends,
//! it acknowledges with the next segment. Names of ports and addresses are those of docs/CAPTURES.md.

#![allow(clippy::print_stderr, reason = "a program for people")]

use anyhow::Context as _;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Ipv4Address, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr};
use stateway_trace::capture::Writer;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::Duration;

const LAN: usize = 0;
const WAN: usize = 1;
/// When the first frame comes, since 1970.
const START: Duration = Duration::from_secs(1_700_000_000);
const GAP: Duration = Duration::from_micros(2);

fn main() -> anyhow::Result<()> {
    const USAGE: &str = "usage: traffic FRAMES CONNECTIONS FILE.pcapng [BYTES]";
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (frames, connections, path, bytes) = match &args[..] {
        [frames, connections, path] => (frames, connections, path, "64"),
        [frames, connections, path, bytes] => (frames, connections, path, bytes.as_str()),
        _ => anyhow::bail!(USAGE),
    };
    let frames: u32 = frames.parse().context(USAGE)?;
    let connections: u32 = connections.parse().context(USAGE)?;
    let payload = vec![0x61; bytes.parse::<u16>().context(USAGE)?.min(1_400).into()];
    anyhow::ensure!((1..=1 << 20).contains(&connections), "between 1 and {} connections", 1 << 20);

    let file = BufWriter::with_capacity(1 << 20, File::create(path).context("cannot write the capture")?);
    let mut writer = Writer::new(file, ["lan", "wan"])?;
    for number in 0..frames {
        let (connection, step) = (number % connections, number / connections);
        let from_lan = step.is_multiple_of(2);
        let frame = frame(connection, step, &payload);
        // Without directions, as tcpdump writes: each frame is looked at whether it is a copy.
        let port = if from_lan { LAN } else { WAN };
        writer.frame(port, START + GAP * number, &frame, "")?;
    }
    writer.get_mut().flush()?;
    Ok(())
}

/// The frame of a connection at this step: those with even numbers come from `lan`.
fn frame(connection: u32, step: u32, payload: &[u8]) -> Vec<u8> {
    let lan = Ipv4Address::from(u32::from(Ipv4Address::new(198, 18, 0, 1)) + connection % 50_000);
    let wan = Ipv4Address::new(203, 0, 113, 1 + (connection / 50_000) as u8);
    let ports = (40_000, 5_000);
    let from_lan = step.is_multiple_of(2);
    let (src, dst) = if from_lan { (lan, wan) } else { (wan, lan) };
    let (src_port, dst_port) = if from_lan { ports } else { (ports.1, ports.0) };
    let is_tcp = connection.is_multiple_of(2);
    let l4 = if is_tcp {
        let mut tcp = segment(step, payload);
        (tcp.src_port, tcp.dst_port) = (src_port, dst_port);
        let mut bytes = vec![0; tcp.buffer_len()];
        let packet = &mut TcpPacket::new_unchecked(&mut bytes);
        tcp.emit(packet, &src.into(), &dst.into(), &ChecksumCapabilities::default());
        bytes
    } else {
        let udp = UdpRepr { src_port, dst_port };
        let mut bytes = vec![0; udp.header_len() + payload.len()];
        let packet = &mut UdpPacket::new_unchecked(&mut bytes);
        let fill = |room: &mut [u8]| room.copy_from_slice(payload);
        udp.emit(packet, &src.into(), &dst.into(), payload.len(), fill, &ChecksumCapabilities::default());
        bytes
    };
    let link =
        if from_lan { [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1] } else { [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2] };
    [&link[..], &[8, 0], &ip_header(src, dst, is_tcp, l4.len()), &l4].concat()
}

fn ip_header(src: Ipv4Address, dst: Ipv4Address, is_tcp: bool, l4_len: usize) -> [u8; 20] {
    let [high, low] = (20 + l4_len as u16).to_be_bytes();
    let mut header = [0; 20];
    header[..10].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, if is_tcp { 6 } else { 17 }]);
    header[12..16].copy_from_slice(&src.octets());
    header[16..].copy_from_slice(&dst.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// The segment of this step: a handshake of three, then payload from either side in turn.
fn segment(step: u32, payload: &[u8]) -> TcpRepr<'_> {
    /// The first step with payload.
    const DATA: u32 = 3;
    // How many payloads either side has sent before this step: the first one comes from `wan`.
    let sent = step.saturating_sub(DATA);
    let (by_wan, by_lan) = (sent.div_ceil(2), sent / 2);
    let seq = |first: i32, payloads: u32| {
        TcpSeqNumber(first.wrapping_add(payloads.wrapping_mul(payload.len() as u32) as i32))
    };
    let (lan, wan) = (seq(1_001, by_lan), seq(5_001, by_wan));
    let (control, seq_number, ack_number) = match step {
        0 => (TcpControl::Syn, TcpSeqNumber(1_000), None),
        1 => (TcpControl::Syn, TcpSeqNumber(5_000), Some(lan)),
        _ if step.is_multiple_of(2) => (TcpControl::None, lan, Some(wan)),
        _ => (TcpControl::None, wan, Some(lan)),
    };
    TcpRepr {
        src_port: 0,
        dst_port: 0,
        control,
        seq_number,
        ack_number,
        window_len: 64_240,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: if step < DATA { b"" } else { payload },
    }
}

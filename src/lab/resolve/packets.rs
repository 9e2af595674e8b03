//! Packets written as text, in the manner of packetdrill: one line, one IP packet.
//!
//! ```text
//!   S 100:100(0) win 64240          TCP: flags S F R P . U E C (or `-` for none), sequence, [ack N] [win N]
//!   udp (10)                        UDP with so many bytes of payload
//!   icmp echo_request id 7 seq 1    also echo_reply
//!   icmp port_unreachable udp       an error about a packet that the receiver would have sent
//!   hex 4500…                       the whole IP packet
//! ```
//!
//! `badsum` at the end makes the checksum wrong.

#![forbid(unsafe_code)]

use super::family_of;
use crate::packet::checksum::Sum;
use crate::packet::{Addr, Family};
use std::net::IpAddr;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// No line makes a packet longer than this.
const MAX_PAYLOAD: usize = 60_000;

/// The packet that `line` describes, from `src` to `dst`; `ports` are source and destination port.
pub(crate) fn packet(line: &str, src: IpAddr, dst: IpAddr, ports: (u16, u16)) -> Result<Vec<u8>, String> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let bad_sum = words.last() == Some(&"badsum") && words.pop().is_some();
    let ends = Ends { src: src.into(), dst: dst.into(), family: family_of(src), bad_sum };
    match words.split_first() {
        Some((&"hex", rest)) => hex(&rest.concat()),
        Some((&"udp", rest)) => {
            let len = rest.first().map_or(Ok(0), |len| in_brackets(len))?;
            Ok(ends.wrap(UDP, udp(ports, len)))
        }
        Some((&"icmp", rest)) => icmp(&ends, rest, ports),
        Some((flags, rest)) => Ok(ends.wrap(TCP, tcp(flags, rest, ports)?)),
        None => Err("nothing is written".into()),
    }
}

/// Where a packet comes from and goes to.
struct Ends {
    src: Addr,
    dst: Addr,
    family: Family,
    bad_sum: bool,
}

impl Ends {
    /// The IP packet around `l4`, whose checksum is filled in.
    fn wrap(&self, protocol: u8, mut l4: Vec<u8>) -> Vec<u8> {
        let at = match protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
        let sum = match protocol {
            ICMP => Sum::ZERO,
            _ => Sum::pseudo_header(self.src, self.dst, self.family, protocol, l4.len()),
        };
        let checksum = sum.bytes(&l4).checksum() ^ if self.bad_sum { 0x5555 } else { 0 };
        l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = self.header(protocol, l4.len());
        packet.extend_from_slice(&l4);
        packet
    }

    fn header(&self, protocol: u8, len: usize) -> Vec<u8> {
        const TTL: u8 = 64;
        match self.family {
            Family::Ipv4 => {
                let total = (20 + len) as u16;
                let mut header = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, TTL, protocol, 0, 0];
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header.extend_from_slice(&self.src.v4());
                header.extend_from_slice(&self.dst.v4());
                let checksum = Sum::ZERO.bytes(&header).checksum();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                header
            }
            Family::Ipv6 => {
                let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, TTL];
                header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
                header.extend_from_slice(&self.src.v6());
                header.extend_from_slice(&self.dst.v6());
                header
            }
        }
    }

    const fn back(&self) -> Self {
        Self { src: self.dst, dst: self.src, family: self.family, bad_sum: false }
    }
}

fn tcp(flags: &str, rest: &[&str], (source, destination): (u16, u16)) -> Result<Vec<u8>, String> {
    let mut bits = 0;
    for flag in flags.chars().filter(|flag| *flag != '-') {
        bits |= match flag {
            'F' => 0x01,
            'S' => 0x02,
            'R' => 0x04,
            'P' => 0x08,
            '.' => 0x10,
            'U' => 0x20,
            'E' => 0x40,
            'C' => 0x80,
            other => return Err(format!("`{other}` is no TCP flag (S F R P . U E C)")),
        };
    }
    let (mut seq, mut len, mut ack, mut win) = (0, 0, 0, 65_535_u16);
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        let mut value = |what: &str| {
            words.next().and_then(|n| n.parse::<u32>().ok()).ok_or(format!("`{what}` needs a number"))
        };
        match *word {
            "ack" => ack = value("ack")?,
            "win" => win = value("win")?.try_into().map_err(|_| "`win` is at most 65535")?,
            range => (seq, len) = sequence(range)?,
        }
    }
    let mut segment = Vec::with_capacity(20 + len);
    segment.extend_from_slice(&source.to_be_bytes());
    segment.extend_from_slice(&destination.to_be_bytes());
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    segment.extend_from_slice(&[0x50, bits]);
    segment.extend_from_slice(&win.to_be_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment.resize(20 + len, b'.');
    Ok(segment)
}

/// `100:110(10)`: first, one behind the last, and how many.
fn sequence(text: &str) -> Result<(u32, usize), String> {
    let wrong = || format!("`{text}` is no sequence such as 100:110(10)");
    let (range, len) = text.split_once('(').ok_or_else(wrong)?;
    let len = in_brackets(&format!("({len}"))?;
    let (first, end) = range.split_once(':').ok_or_else(wrong)?;
    let (first, end): (u32, u32) = (first.parse().map_err(|_| wrong())?, end.parse().map_err(|_| wrong())?);
    if end.wrapping_sub(first) as usize != len {
        return Err(format!("`{text}`: from {first} to {end} are not {len} bytes"));
    }
    Ok((first, len))
}

fn in_brackets(text: &str) -> Result<usize, String> {
    let number = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    match number.and_then(|number| number.parse().ok()) {
        Some(len) if len <= MAX_PAYLOAD => Ok(len),
        Some(_) => Err(format!("at most {MAX_PAYLOAD} bytes")),
        None => Err(format!("`{text}` is no length such as (10)")),
    }
}

fn udp((source, destination): (u16, u16), len: usize) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + len);
    datagram.extend_from_slice(&source.to_be_bytes());
    datagram.extend_from_slice(&destination.to_be_bytes());
    datagram.extend_from_slice(&(8 + len as u16).to_be_bytes());
    datagram.extend_from_slice(&[0; 2]);
    datagram.resize(8 + len, b'.');
    datagram
}

fn icmp(ends: &Ends, words: &[&str], ports: (u16, u16)) -> Result<Vec<u8>, String> {
    let v6 = ends.family == Family::Ipv6;
    let protocol = if v6 { ICMPV6 } else { ICMP };
    let (kind, rest) = words.split_first().ok_or("which message?")?;
    let number = |name: &str, otherwise: u16| match rest.iter().position(|word| *word == name) {
        None => Ok(otherwise),
        Some(at) => rest.get(at + 1).and_then(|n| n.parse().ok()).ok_or(format!("`{name}` needs a number")),
    };
    // Type and code, for either family.
    let (kind_v4, kind_v6) = match *kind {
        "echo_request" => ((8, 0), (128, 0)),
        "echo_reply" => ((0, 0), (129, 0)),
        "net_unreachable" => ((3, 0), (1, 0)),
        "host_unreachable" => ((3, 1), (1, 3)),
        "port_unreachable" => ((3, 3), (1, 4)),
        "admin_prohibited" => ((3, 13), (1, 1)),
        "frag_needed" | "packet_too_big" => ((3, 4), (2, 0)),
        "time_exceeded" => ((11, 0), (3, 0)),
        other => return Err(format!("`{other}` is no ICMP message that is known here")),
    };
    let (kind_byte, code) = if v6 { kind_v6 } else { kind_v4 };
    let mut message = vec![kind_byte, code, 0, 0];
    if kind.starts_with("echo") {
        message.extend_from_slice(&number("id", 1)?.to_be_bytes());
        message.extend_from_slice(&number("seq", 1)?.to_be_bytes());
        message.extend_from_slice(b"stateway");
        return Ok(ends.wrap(protocol, message));
    }
    let mtu = if matches!(*kind, "frag_needed" | "packet_too_big") { number("mtu", 1280)? } else { 0 };
    message.extend_from_slice(&u32::from(mtu).to_be_bytes());
    // What the error is about: a packet that its receiver would have sent.
    let quoted = (ports.1, ports.0);
    let inner = match rest.iter().copied().find(|word| matches!(*word, "tcp" | "udp")) {
        Some("tcp") => ends.back().wrap(TCP, tcp(".", &["1:1(0)"], quoted)?),
        Some("udp") => ends.back().wrap(UDP, udp(quoted, 0)),
        _ => return Err("about what? `tcp` or `udp`".into()),
    };
    message.extend_from_slice(&inner);
    Ok(ends.wrap(protocol, message))
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) && !digits.is_empty() => {
            Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        _ => Err("not an even number of hexadecimal digits".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Offload, Packet, Segment};

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 77));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 104));

    fn v6(last: u16) -> IpAddr {
        IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
    }

    #[test]
    fn what_is_written_is_what_is_sent() {
        for (src, dst, ethertype) in [(A, B, [8, 0]), (v6(77), v6(104), [0x86, 0xdd])] {
            for line in [
                "S 100:100(0) win 64240",
                "P. 1:11(10) ack 7",
                "- 0:0(0)",
                "udp (10)",
                "icmp echo_request id 7 seq 1",
            ] {
                let ip = packet(line, src, dst, (40_000, 22)).unwrap_or_else(|why| panic!("{line}: {why}"));
                let mut frame = [&[0; 12][..], &ethertype, &ip].concat();
                let pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
                assert!(pkt.l4_checksum_ok(), "{line}");
                if line.starts_with('S') {
                    let segment = Segment::parse(pkt.l4()).unwrap();
                    assert_eq!((segment.seq.0, segment.win, segment.len), (100, 64240, 0));
                }
                let wrong = packet(&format!("{line} badsum"), src, dst, (40_000, 22)).unwrap();
                let mut frame = [&[0; 12][..], &ethertype, &wrong].concat();
                assert!(!Packet::parse(&mut frame, Offload::NONE).unwrap().l4_checksum_ok(), "{line} badsum");
            }
        }
    }

    #[test]
    fn an_error_quotes_what_its_receiver_sent() {
        let ip = packet("icmp port_unreachable udp", A, B, (40_000, 53)).unwrap();
        let inner = &ip[28..];
        assert_eq!(inner[12..20], [192, 0, 2, 104, 192, 0, 2, 77]);
        assert_eq!(inner[20..24], [0, 53, 0x9c, 0x40]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (line, why) in [
            ("", "nothing is written"),
            ("X 1:1(0)", "`X` is no TCP flag (S F R P . U E C)"),
            ("S 1:5(3)", "`1:5(3)`: from 1 to 5 are not 3 bytes"),
            ("S win", "`win` needs a number"),
            ("icmp port_unreachable", "about what? `tcp` or `udp`"),
            ("hex 123", "not an even number of hexadecimal digits"),
            ("udp (70000)", "at most 60000 bytes"),
        ] {
            assert_eq!(packet(line, A, B, (1, 2)), Err(why.to_owned()), "{line}");
        }
    }
}

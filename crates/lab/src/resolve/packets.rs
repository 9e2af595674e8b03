//! Packets of a lab's `send` step: a line of the scenarios' language, with the names that `ping` and `tcpdump` use.
//!
//! ```text
//!   S 100:100(0) win 64240          TCP: flags S F R P . U E C (or `-` for none), sequence, [ack N] [win N]
//!   udp (10)                        UDP with so many bytes of payload
//!   icmp echo_request id 7 seq 1    also echo_reply
//!   icmp port_unreachable udp       an error about a packet that the receiver would have sent
//!   hex 4500…                       the whole IP packet
//! ```
//!
//! Whatever [`stateway_trace::flow`] says of a packet may follow: `badsum`, `ttl 1`, `<mss 1460>`, `"text"`, …

#![forbid(unsafe_code)]

use stateway_core::conntrack::Direction;
use stateway_core::packet::Family;
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
use stateway_trace::flow::{self, Flow, Side};
use std::net::IpAddr;

/// The packet that `line` describes, from `src` to `dst`; `ports` are source and destination port.
pub fn packet(line: &str, src: IpAddr, dst: IpAddr, ports: (u16, u16)) -> Result<Vec<u8>, String> {
    let (first, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let of = |proto| flow((src, ports.0), (dst, ports.1), proto);
    match first {
        "" => Err("nothing is written".into()),
        "hex" => hex(&rest.split_whitespace().collect::<String>()),
        "udp" => flow::packet(&of(PROTO_UDP), Direction::Original, rest),
        "icmp" => icmp(src, dst, ports, rest),
        "-" => flow::packet(&of(PROTO_TCP), Direction::Original, &format!("none {rest}")),
        // tcpdump's letter for CWR is W.
        flags => {
            let line = format!("{} {rest}", flags.replace('C', "W"));
            flow::packet(&of(PROTO_TCP), Direction::Original, &line)
        }
    }
}

/// A UDP datagram that says `text`.
#[cfg(target_os = "linux")]
pub(crate) fn datagram(text: &[u8], src: IpAddr, dst: IpAddr, ports: (u16, u16)) -> Result<Vec<u8>, String> {
    let escaped = text.iter().fold(String::new(), |line, byte| format!("{line}\\x{byte:02x}"));
    let line = format!("\"{escaped}\"");
    flow::packet(&flow((src, ports.0), (dst, ports.1), PROTO_UDP), Direction::Original, &line)
}

fn flow(opener: (IpAddr, u16), responder: (IpAddr, u16), proto: u8) -> Flow {
    let side = |(addr, port): (IpAddr, u16)| Side { iface: String::new(), addr: addr.into(), port };
    Flow {
        name: "it".into(),
        family: Family::from(opener.0),
        proto,
        opener: side(opener),
        responder: side(responder),
        id: 1,
        zone: 0,
    }
}

fn icmp(src: IpAddr, dst: IpAddr, ports: (u16, u16), line: &str) -> Result<Vec<u8>, String> {
    let is_v6 = Family::from(src) == Family::Ipv6;
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let kind = if words.is_empty() { return Err("which message?".into()) } else { words.remove(0) };
    if let Some(query) = kind.strip_prefix("echo_") {
        let proto = if is_v6 { PROTO_ICMPV6 } else { PROTO_ICMP };
        let line = format!("{query} {}", words.join(" "));
        return flow::packet(&flow((src, 0), (dst, 0), proto), Direction::Original, &line);
    }
    let (v4, v6) = match kind {
        "net_unreachable" => ("3/0", "1/0"),
        "host_unreachable" => ("3/1", "1/3"),
        "port_unreachable" => ("3/3", "1/4"),
        "admin_prohibited" => ("3/13", "1/1"),
        "frag_needed" | "packet_too_big" => ("3/4", "2/0"),
        "time_exceeded" => ("11/0", "3/0"),
        other => return Err(format!("`{other}` is no ICMP message that is known here")),
    };
    let about = words.iter().position(|word| matches!(*word, "tcp" | "udp"));
    let about = about.map(|at| words.remove(at)).ok_or("about what? `tcp` or `udp`")?;
    let proto = if about == "tcp" { PROTO_TCP } else { PROTO_UDP };
    // What the error is about: a packet that its receiver would have sent.
    let quoted = flow((dst, ports.1), (src, ports.0), proto);
    let kind = if is_v6 { v6 } else { v4 };
    let line = format!("error {kind} about it quote 20 {}", words.join(" "));
    flow::packet(&quoted, Direction::Original, &line)
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
    use stateway_core::packet::{Offload, Packet, Segment};

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
            ("X 1:1(0)", "`X` does not name TCP flags: letters of FSRP.UEW, or `none`"),
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

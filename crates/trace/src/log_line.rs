//! What LOG and TRACE say of a packet, in the words in which the kernel says it to its log.
//!
//! ```text
//!   lost: IN=lan OUT=wan MAC=02:… SRC=192.0.2.1 DST=192.0.2.2 LEN=60 … PROTO=TCP SPT=40000 DPT=22 … SYN URGP=0
//! ```

use core::fmt::Write as _;
use core::net::{Ipv4Addr, Ipv6Addr};
use stateway_core::base::log::{LogDetails, Logged, Speaker};
use stateway_core::iface::IfaceId;
use stateway_core::packet::{Family, TcpFlags, tuple};
use stateway_core::router::Router;

/// `TRACE` marks packets; the kernel logs them at this level.
const TRACE_LEVEL: u8 = 4;

/// A line for the log and its level, as syslog counts them; `None` for what speaks elsewhere.
pub fn of(logged: &Logged, router: &Router) -> Option<(u8, String)> {
    let (level, mut line, details) = match &logged.by {
        Speaker::Log { prefix, level, details } => (*level, prefix.clone(), *details),
        Speaker::Trace => (TRACE_LEVEL, trace_prefix(logged, router), LogDetails::ALL),
        Speaker::Nflog { .. } => return None,
    };
    let name = |id: Option<IfaceId>| {
        id.and_then(|id| router.ifaces().get(id.index())).map_or("", |i| i.name.as_str())
    };
    push(&mut line, format_args!("IN={} OUT={} ", name(logged.in_iface), name(logged.out_iface)));
    if logged.in_iface.is_some() {
        link(&mut line, logged, details);
    }
    match logged.rule.family {
        Family::Ipv4 => ipv4(&mut line, &logged.packet, details, 0),
        Family::Ipv6 => ipv6(&mut line, &logged.packet, details, 0),
    }
    if logged.mark != 0 {
        push(&mut line, format_args!("MARK={:#x} ", logged.mark));
    }
    Some((level, line))
}

/// `TRACE: filter:FORWARD:rule:1 `, or `…:policy:3 ` behind the last rule.
fn trace_prefix(logged: &Logged, router: &Router) -> String {
    let name = router.rule_name(logged.rule).unwrap_or_default();
    let mut parts = name.split('/');
    let (table, chain) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let kind = if parts.next() == Some("policy") { "policy" } else { "rule" };
    format!("TRACE: {table}:{chain}:{kind}:{} ", logged.rule.index + 1)
}

fn push(line: &mut String, text: core::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = line.write_fmt(text);
}

fn link(line: &mut String, logged: &Logged, details: LogDetails) {
    let ethertype: u16 = match logged.rule.family {
        Family::Ipv4 => 0x0800,
        Family::Ipv6 => 0x86dd,
    };
    let Logged { src_mac, dst_mac, .. } = logged;
    if details.macdecode {
        push(line, format_args!("MACSRC={src_mac} MACDST={dst_mac} MACPROTO={ethertype:04x} "));
    } else {
        let [high, low] = ethertype.to_be_bytes();
        push(line, format_args!("MAC={dst_mac}:{src_mac}:{high:02x}:{low:02x} "));
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The packet ends before its header does.
fn incomplete(line: &mut String, len: usize) {
    push(line, format_args!("INCOMPLETE [{len} bytes] "));
}

/// `depth`: how many ICMP errors this one is quoted in.
fn ipv4(line: &mut String, packet: &[u8], details: LogDetails, depth: u8) {
    let Some(header) = packet.first_chunk::<20>() else { return incomplete(line, packet.len()) };
    let [_, tos, _, _, _, _, flags, _, ttl, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let (src, dst) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    let (len, id) = (word(packet, 2).unwrap_or_default(), word(packet, 4).unwrap_or_default());
    push(
        line,
        format_args!(
            "SRC={src} DST={dst} LEN={len} TOS=0x{:02X} PREC=0x{:02X} TTL={ttl} ID={id} ",
            tos & 0x1e,
            tos & 0xe0
        ),
    );
    for (bit, name) in [(0x80, "CE "), (0x40, "DF "), (0x20, "MF ")] {
        line.push_str(if flags & bit == 0 { "" } else { name });
    }
    let offset = word(packet, 6).unwrap_or_default() & 0x1fff;
    if offset > 0 {
        push(line, format_args!("FRAG:{offset} "));
    }
    let header_len = usize::from(packet[0] & 15) * 4;
    if details.ip_options && header_len > 20 {
        options(line, packet.get(20..header_len));
    }
    let l4 = packet.get(header_len.max(20)..).unwrap_or_default();
    let quoted = |line: &mut String, packet: &[u8]| ipv4(line, packet, details, depth + 1);
    transport(line, proto, offset == 0, l4, details, &mut |line, l4| icmp(line, l4, depth, &quoted));
}

fn ipv6(line: &mut String, packet: &[u8], details: LogDetails, depth: u8) {
    let (Some(first), Some(len), Some(src), Some(dst)) = (
        long(packet, 0),
        word(packet, 4),
        packet.get(8..).and_then(|b| b.first_chunk::<16>()),
        packet.get(24..).and_then(|b| b.first_chunk::<16>()),
    ) else {
        return incomplete(line, packet.len());
    };
    push(
        line,
        format_args!(
            "SRC={} DST={} LEN={} TC={} HOPLIMIT={} FLOWLBL={} ",
            in_full(*src),
            in_full(*dst),
            usize::from(len) + 40,
            (first >> 20) & 0xff,
            packet[7],
            first & 0xf_ffff
        ),
    );
    let (mut next, mut at, mut is_first) = (packet[6], 40, true);
    // Headers that stand before the transport's: hop-by-hop, routing, destination options, fragment.
    while matches!(next, 0 | 43 | 44 | 60) {
        let Some(&[following, length]) = packet.get(at..).and_then(|b| b.first_chunk()) else {
            return incomplete(line, packet.len());
        };
        if next == 44 {
            let offset = word(packet, at + 2).unwrap_or_default();
            let id = long(packet, at + 4).unwrap_or_default();
            let more = if offset & 1 == 1 { "INCOMPLETE " } else { "" };
            push(line, format_args!("FRAG:{} {more}ID:{id:08x} ", offset & 0xfff8));
            is_first = offset & 0xfff8 == 0;
            at += 8;
        } else {
            at += 8 * (usize::from(length) + 1);
        }
        next = following;
    }
    let l4 = packet.get(at..).unwrap_or_default();
    let quoted = |line: &mut String, packet: &[u8]| ipv6(line, packet, details, depth + 1);
    transport(line, next, is_first, l4, details, &mut |line, l4| icmpv6(line, l4, depth, &quoted));
}

/// All eight groups, as the kernel's log writes them.
fn in_full(addr: [u8; 16]) -> String {
    let groups = Ipv6Addr::from(addr).segments().map(|group| format!("{group:04x}"));
    groups.join(":")
}

fn options(line: &mut String, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return };
    line.push_str("OPT (");
    for byte in bytes {
        push(line, format_args!("{byte:02X}"));
    }
    line.push_str(") ");
}

fn transport(
    line: &mut String,
    proto: u8,
    is_first: bool,
    l4: &[u8],
    details: LogDetails,
    icmp: &mut dyn FnMut(&mut String, &[u8]),
) {
    let name = match proto {
        tuple::PROTO_TCP => "TCP",
        tuple::PROTO_UDP => "UDP",
        tuple::PROTO_UDPLITE => "UDPLITE",
        tuple::PROTO_ICMP => "ICMP",
        tuple::PROTO_ICMPV6 => "ICMPv6",
        50 => "ESP",
        51 => "AH",
        other => return push(line, format_args!("PROTO={other} ")),
    };
    push(line, format_args!("PROTO={name} "));
    if !is_first {
        return;
    }
    match proto {
        tuple::PROTO_TCP => tcp(line, l4, details),
        tuple::PROTO_UDP | tuple::PROTO_UDPLITE => match (word(l4, 0), word(l4, 2), word(l4, 4)) {
            (Some(sport), Some(dport), Some(len)) if l4.len() >= 8 => {
                push(line, format_args!("SPT={sport} DPT={dport} LEN={len} "));
            }
            _ => incomplete(line, l4.len()),
        },
        50 | 51 => match long(l4, if proto == 50 { 0 } else { 4 }) {
            Some(spi) => push(line, format_args!("SPI={spi:#x} ")),
            None => incomplete(line, l4.len()),
        },
        _ => icmp(line, l4),
    }
}

fn tcp(line: &mut String, l4: &[u8], details: LogDetails) {
    if l4.len() < 20 {
        return incomplete(line, l4.len());
    }
    let (word, long) = (|at| word(l4, at).unwrap_or_default(), |at| long(l4, at).unwrap_or_default());
    push(line, format_args!("SPT={} DPT={} ", word(0), word(2)));
    if details.tcp_sequence {
        push(line, format_args!("SEQ={} ACK={} ", long(4), long(8)));
    }
    push(line, format_args!("WINDOW={} RES=0x{:02x} ", word(14), (l4[12] & 0x0f) << 2));
    let flags = TcpFlags::from_bits_retain(l4[13]);
    for (flag, name) in [
        (TcpFlags::CWR, "CWR "),
        (TcpFlags::ECE, "ECE "),
        (TcpFlags::URG, "URG "),
        (TcpFlags::ACK, "ACK "),
        (TcpFlags::PSH, "PSH "),
        (TcpFlags::RST, "RST "),
        (TcpFlags::SYN, "SYN "),
        (TcpFlags::FIN, "FIN "),
    ] {
        line.push_str(if flags.contains(flag) { name } else { "" });
    }
    push(line, format_args!("URGP={} ", word(18)));
    let header_len = usize::from(l4[12] >> 4) * 4;
    if details.tcp_options && header_len > 20 {
        options(line, l4.get(20..header_len));
    }
}

fn icmp(line: &mut String, l4: &[u8], depth: u8, quoted: &dyn Fn(&mut String, &[u8])) {
    let Some(&[kind, code]) = l4.first_chunk() else { return incomplete(line, l4.len()) };
    push(line, format_args!("TYPE={kind} CODE={code} "));
    let (Some(first), Some(second)) = (word(l4, 4), word(l4, 6)) else { return incomplete(line, l4.len()) };
    match kind {
        0 | 8 => push(line, format_args!("ID={first} SEQ={second} ")),
        12 => push(line, format_args!("PARAMETER={} ", first >> 8)),
        5 => push(line, format_args!("GATEWAY={} ", Ipv4Addr::from_bits(long(l4, 4).unwrap_or_default()))),
        _ => {}
    }
    // An error that quotes an error is no more told.
    if matches!(kind, 3 | 4 | 5 | 11) && depth == 0 {
        line.push('[');
        quoted(line, &l4[8..]);
        line.push_str("] ");
    }
    if (kind, code) == (3, 4) {
        push(line, format_args!("MTU={second} "));
    }
}

fn icmpv6(line: &mut String, l4: &[u8], depth: u8, quoted: &dyn Fn(&mut String, &[u8])) {
    let Some(&[kind, code]) = l4.first_chunk() else { return incomplete(line, l4.len()) };
    push(line, format_args!("TYPE={kind} CODE={code} "));
    let (Some(first), Some(second), Some(both)) = (word(l4, 4), word(l4, 6), long(l4, 4)) else {
        return incomplete(line, l4.len());
    };
    match kind {
        128 | 129 => push(line, format_args!("ID={first} SEQ={second} ")),
        4 => push(line, format_args!("POINTER={both:08x} ")),
        _ => {}
    }
    if matches!(kind, 1..=4) && depth == 0 {
        line.push('[');
        quoted(line, &l4[8..]);
        line.push_str("] ");
    }
    if kind == 2 {
        push(line, format_args!("MTU={both} "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use stateway_core::config::RouterConfig;
    use stateway_core::filter::{Hook, RuleId, Table};
    use stateway_core::iface::Iface;
    use stateway_core::packet::Mac;
    use stateway_core::time::Instant;

    const PREFIX: &str = "no way: ";

    fn router() -> Router {
        let rules = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j LOG\nCOMMIT\n".to_owned();
        let ifaces =
            ["lan", "wan"].into_iter().zip(0..).map(|(name, n)| Iface::new(name, IfaceId(n))).collect();
        Router::new({
            let mut made = RouterConfig::new(ifaces);
            made.rules = Some(rules);
            made
        })
        .unwrap()
    }

    fn logged(family: Family, by: Speaker, packet: Vec<u8>) -> Logged {
        Logged {
            at: Instant::ZERO,
            by,
            rule: RuleId { family, table: Table::Filter, chain: 1, index: 0 },
            table: Table::Filter,
            hook: Hook::Forward,
            in_iface: Some(IfaceId(0)),
            out_iface: Some(IfaceId(1)),
            src_mac: Mac([2, 0, 0, 0, 0, 1]),
            dst_mac: Mac([2, 0, 0, 0, 0, 2]),
            mark: 0,
            packet_len: packet.len(),
            packet,
        }
    }

    fn check(logged: &Logged, expected: Expect) {
        let (level, line) = of(logged, &router()).expect("it is for the log");
        expected.assert_eq(&format!("<{level}>{line}"));
    }

    fn log(details: LogDetails) -> Speaker {
        Speaker::Log { prefix: PREFIX.to_owned(), level: 4, details }
    }

    fn ipv4(proto: u8, flags: [u8; 2], l4: &[u8]) -> Vec<u8> {
        let [high, low] = (20 + l4.len() as u16).to_be_bytes();
        let header = [
            0x45, 0x10, high, low, 0x30, 0x39, flags[0], flags[1], 64, proto, 0, 0, 192, 0, 2, 1, 198, 51,
            100, 2,
        ];
        [&header, l4].concat()
    }

    fn ipv6(proto: u8, l4: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0x12, 0x34, 0x56, 0, l4.len() as u8, proto, 63];
        for last in [1, 2] {
            packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        packet.extend_from_slice(l4);
        packet
    }

    fn syn() -> Vec<u8> {
        let mut l4 = vec![0x9c, 0x40, 0, 22, 0, 0, 0, 100, 0, 0, 0, 0, 0x60, 0x02, 0xfa, 0xf0, 0, 0, 0, 0];
        l4.extend([2, 4, 5, 0xb4]);
        l4
    }

    #[test]
    fn tcp_with_and_without_details() {
        let packet = ipv4(tuple::PROTO_TCP, [0x40, 0], &syn());
        check(
            &logged(Family::Ipv4, log(LogDetails::default()), packet.clone()),
            expect![
                "<4>no way: IN=lan OUT=wan MAC=02:00:00:00:00:02:02:00:00:00:00:01:08:00 SRC=192.0.2.1 DST=198.51.100.2 LEN=44 TOS=0x10 PREC=0x00 TTL=64 ID=12345 DF PROTO=TCP SPT=40000 DPT=22 WINDOW=64240 RES=0x00 SYN URGP=0 "
            ],
        );
        check(
            &Logged {
                mark: 7,
                ..logged(Family::Ipv4, log(LogDetails { macdecode: true, ..LogDetails::ALL }), packet)
            },
            expect![
                "<4>no way: IN=lan OUT=wan MACSRC=02:00:00:00:00:01 MACDST=02:00:00:00:00:02 MACPROTO=0800 SRC=192.0.2.1 DST=198.51.100.2 LEN=44 TOS=0x10 PREC=0x00 TTL=64 ID=12345 DF PROTO=TCP SPT=40000 DPT=22 SEQ=100 ACK=0 WINDOW=64240 RES=0x00 SYN URGP=0 OPT (020405B4) MARK=0x7 "
            ],
        );
    }

    #[test]
    fn an_error_tells_what_it_quotes() {
        let quoted = ipv4(tuple::PROTO_UDP, [0, 0], &[0, 53, 0x9c, 0x40, 0, 12, 0, 0]);
        let error = [&[3, 4, 0, 0, 0, 0, 5, 0x78], &quoted[..]].concat();
        check(
            &logged(Family::Ipv4, log(LogDetails::default()), ipv4(tuple::PROTO_ICMP, [0, 0], &error)),
            expect![
                "<4>no way: IN=lan OUT=wan MAC=02:00:00:00:00:02:02:00:00:00:00:01:08:00 SRC=192.0.2.1 DST=198.51.100.2 LEN=56 TOS=0x10 PREC=0x00 TTL=64 ID=12345 PROTO=ICMP TYPE=3 CODE=4 [SRC=192.0.2.1 DST=198.51.100.2 LEN=28 TOS=0x10 PREC=0x00 TTL=64 ID=12345 PROTO=UDP SPT=53 DPT=40000 LEN=12 ] MTU=1400 "
            ],
        );
    }

    #[test]
    fn ipv6_addresses_stand_in_full() {
        let echo = [128, 0, 0, 0, 0, 7, 0, 1];
        check(
            &logged(Family::Ipv6, log(LogDetails::default()), ipv6(tuple::PROTO_ICMPV6, &echo)),
            expect![
                "<4>no way: IN=lan OUT=wan MAC=02:00:00:00:00:02:02:00:00:00:00:01:86:dd SRC=2001:0db8:0000:0000:0000:0000:0000:0001 DST=2001:0db8:0000:0000:0000:0000:0000:0002 LEN=48 TC=1 HOPLIMIT=63 FLOWLBL=144470 PROTO=ICMPv6 TYPE=128 CODE=0 ID=7 SEQ=1 "
            ],
        );
        let fragment = [17, 0, 0, 9, 0, 0, 0, 5, 0, 53, 0, 54, 0, 8, 0, 0];
        let log = || log(LogDetails::default());
        check(
            &Logged { in_iface: None, ..logged(Family::Ipv6, log(), ipv6(44, &fragment)) },
            expect![
                "<4>no way: IN= OUT=wan SRC=2001:0db8:0000:0000:0000:0000:0000:0001 DST=2001:0db8:0000:0000:0000:0000:0000:0002 LEN=56 TC=1 HOPLIMIT=63 FLOWLBL=144470 FRAG:8 INCOMPLETE ID:00000005 PROTO=UDP "
            ],
        );
    }

    #[test]
    fn a_trace_names_the_rule_and_the_policy() {
        let packet = ipv4(47, [0, 0], &[]);
        let by = || Speaker::Trace;
        let router = router();
        let rules = router.rules();
        let chains = rules.for_family(Family::Ipv4).map_or(&[][..], |rules| rules.chains(Table::Filter));
        let chain = chains.iter().position(|chain| chain.name == "FORWARD").unwrap_or_default() as u16;
        for (index, word) in [(0, "TRACE: filter:FORWARD:rule:1 "), (1, "TRACE: filter:FORWARD:policy:2 ")] {
            let mut logged = logged(Family::Ipv4, by(), packet.clone());
            logged.rule = RuleId { chain, index, ..logged.rule };
            let (_, line) = of(&logged, &router).expect("it is for the log");
            assert!(line.starts_with(word) && line.ends_with("PROTO=47 "), "{line}");
        }
    }

    #[test]
    fn whatever_a_packet_is_cut_to_can_be_told() {
        let quoted = ipv4(tuple::PROTO_TCP, [0, 0], &syn());
        let error = [&[3, 4, 0, 0, 0, 0, 5, 0x78], &quoted[..]].concat();
        for (family, whole) in [
            (Family::Ipv4, ipv4(tuple::PROTO_ICMP, [0, 0], &error)),
            (Family::Ipv6, ipv6(0, &[44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 5])),
        ] {
            for len in 0..=whole.len() {
                let logged = logged(family, log(LogDetails::ALL), whole[..len].to_vec());
                assert!(of(&logged, &router()).is_some());
            }
        }
    }
}

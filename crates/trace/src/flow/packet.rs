//! What a step says of a packet → its bytes.

#![forbid(unsafe_code)]

use super::Flow;
use super::build::{Extension, ip_packet};
use super::words::{Word, Words, hex, number};
use core::net::IpAddr;
use core::ops::Range;
use stateway_core::conntrack::Direction;
use stateway_core::packet::tuple::{
    PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE, icmp_answer,
    icmpv6_answer,
};
use stateway_core::packet::{Addr, Family};

/// No line makes a packet with more than this above its headers.
const MAX_PAYLOAD: usize = 60_000;

/// What is out of the ordinary about a packet, whatever it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Oddities {
    pub(super) ttl: u8,
    pub(super) tos: u8,
    pub(super) dont_fragment: bool,
    pub(super) ident: u32,
    pub(super) ip_options: Vec<u8>,
    pub(super) bad_checksum: bool,
    pub(super) no_checksum: bool,
    pub(super) bad_ip_checksum: bool,
    pub(super) total: Option<u16>,
    pub(super) cut: Option<usize>,
    pub(super) padding: usize,
    pub(super) extensions: Vec<Extension>,
    pub(super) piece: Option<Range<usize>>,
}

impl Default for Oddities {
    fn default() -> Self {
        Self {
            ttl: 64,
            tos: 0,
            dont_fragment: false,
            ident: 1,
            ip_options: Vec::new(),
            bad_checksum: false,
            no_checksum: false,
            bad_ip_checksum: false,
            total: None,
            cut: None,
            padding: 0,
            extensions: Vec::new(),
            piece: None,
        }
    }
}

impl Oddities {
    /// Which bytes above IP stand in the packet, and whether more follow.
    pub(super) fn piece_of(&self, len: usize) -> (Range<usize>, bool) {
        match &self.piece {
            None => (0..len, false),
            Some(range) => {
                let end = range.end.min(len);
                (range.start.min(end)..end, end < len)
            }
        }
    }

    /// Takes one word, and what belongs to it, if it is about something odd.
    fn take(&mut self, words: &mut Words) -> Result<bool, String> {
        let Some(word) = words.peek().map(str::to_owned) else { return Ok(false) };
        words.next();
        match word.as_str() {
            "ttl" => self.ttl = words.number("ttl")?,
            "tos" => self.tos = words.number("tos")?,
            "df" => self.dont_fragment = true,
            "ipid" => self.ident = words.number("ipid")?,
            "ipopt" => self.ip_options = hex(&words.plain("hex of the options")?)?,
            "badsum" => self.bad_checksum = true,
            "nosum" => self.no_checksum = true,
            "badipsum" => self.bad_ip_checksum = true,
            "total" => self.total = Some(words.number("total")?),
            "cut" => self.cut = Some(words.number("cut")?),
            "pad" => self.padding = words.number("pad")?,
            "ext" => self.extensions.push(match words.plain("extension header")?.as_str() {
                "hop" => Extension::HopByHop,
                "dst" => Extension::Destination,
                "routing" => Extension::Routing,
                "none" => Extension::NoNextHeader,
                other => return Err(format!("`{other}` is no extension header: hop, dst, routing, none")),
            }),
            "piece" => {
                let word = words.plain("range A..B")?;
                let range = word.split_once("..").and_then(|(a, b)| Some(number(a)?..number(b)?));
                self.piece = Some(range.ok_or_else(|| format!("`{word}` is no range A..B"))?);
            }
            _ => {
                words.0.push_front(Word::Plain(word));
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A packet and the trailer behind it.
pub(super) struct Built {
    pub(super) packet: Vec<u8>,
    pub(super) padding: usize,
}

/// The IP packet that `line` describes, as the part of a step between interface and expectation does.
///
/// # Errors
/// What is wrong with it, for people.
pub fn packet(flow: &Flow, dir: Direction, line: &str) -> Result<Vec<u8>, String> {
    let mut words = Words::split(line)?;
    if words.peek() == Some("error") {
        words.next();
        return error(core::slice::from_ref(flow), &mut words).map(|(built, _)| built.packet);
    }
    of_flow(flow, dir, &mut words).map(|built| built.packet)
}

/// Builds the packet of a step that belongs to a flow.
pub(super) fn of_flow(flow: &Flow, dir: Direction, words: &mut Words) -> Result<Built, String> {
    let (sender, receiver) = flow.sides(dir);
    let mut odd = Oddities::default();
    let ports = [sender.port.to_be_bytes(), receiver.port.to_be_bytes()].concat();
    let l4 = match flow.proto {
        PROTO_TCP => tcp(&ports, words, &mut odd)?,
        PROTO_UDP | PROTO_UDPLITE => udp(flow.proto, &ports, words, &mut odd)?,
        PROTO_ICMP | PROTO_ICMPV6 => icmp(flow, words, &mut odd)?,
        PROTO_SCTP => sctp(&ports, words, &mut odd)?,
        PROTO_GRE => gre(flow, words, &mut odd)?,
        _ => plain(words, &mut odd)?,
    };
    let addrs = (sender.addr, receiver.addr);
    Ok(Built { packet: ip_packet(flow.family, addrs, flow.proto, l4, &odd), padding: odd.padding })
}

/// Goes through the words of a packet: the oddities are taken out, the rest is `read`'s.
fn each(
    words: &mut Words,
    odd: &mut Oddities,
    mut read: impl FnMut(Word, &mut Words) -> Result<(), String>,
) -> Result<(), String> {
    while !words.is_empty() {
        if !odd.take(words)?
            && let Some(word) = words.next()
        {
            read(word, words)?;
        }
    }
    Ok(())
}

fn stray(word: &Word) -> String {
    match word {
        Word::Plain(word) => format!("`{word}` is not understood here"),
        Word::Text(_) => "no text is expected here".to_owned(),
        Word::Options(options) => format!("`<{options}>` is not understood here"),
    }
}

/// `(LEN)`: so many bytes that mean nothing.
fn filler(word: &str) -> Result<Vec<u8>, String> {
    let len = word.strip_prefix('(').and_then(|word| word.strip_suffix(')')).and_then(number::<usize>);
    match len {
        Some(len) if len <= MAX_PAYLOAD => Ok(vec![b'.'; len]),
        Some(_) => Err(format!("at most {MAX_PAYLOAD} bytes")),
        None => Err(stray(&Word::Plain(word.to_owned()))),
    }
}

fn plain(words: &mut Words, odd: &mut Oddities) -> Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    each(words, odd, |word, _| match word {
        Word::Text(text) => {
            payload = text;
            Ok(())
        }
        Word::Plain(ref w) => {
            payload = filler(w)?;
            Ok(())
        }
        Word::Options(_) => Err(stray(&word)),
    })?;
    Ok(payload)
}

// ── TCP ──────────────────────────────────────────────────────────────────────────────────────────────────────

fn tcp(ports: &[u8], words: &mut Words, odd: &mut Oddities) -> Result<Vec<u8>, String> {
    let flags = tcp_flags(&words.plain("TCP flags")?)?;
    let (mut seq, mut ack, mut win, mut reserved, mut offset) = (0_u32, 0_u32, 0xffff_u16, 0_u8, None);
    let (mut options, mut payload) = (Vec::new(), Vec::new());
    each(words, odd, |word, words| {
        match word {
            Word::Text(text) => payload = text,
            Word::Options(text) => options = tcp_options(&text)?,
            Word::Plain(ref w) => match w.as_str() {
                "ack" => ack = words.number("ack")?,
                "win" => win = words.number("win")?,
                "res" => reserved = words.number("res")?,
                "doff" => offset = Some(words.number::<u8>("doff")?),
                range => (seq, payload) = tcp_range(range)?,
            },
        }
        Ok(())
    })?;
    let offset = offset.unwrap_or(5 + (options.len() / 4) as u8);
    let mut segment = ports.to_vec();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([offset << 4 | reserved & 0xf, flags]);
    segment.extend(win.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.extend(payload);
    Ok(segment)
}

/// `S.`, `P.`, `none`: letters in any order.
fn tcp_flags(word: &str) -> Result<u8, String> {
    if word == "none" {
        return Ok(0);
    }
    word.chars().try_fold(0, |flags, c| {
        "FSRP.UEW"
            .find(c)
            .map(|bit| flags | 1 << bit)
            .ok_or_else(|| format!("`{word}` does not name TCP flags: letters of FSRP.UEW, or `none`"))
    })
}

/// `SEQ` or `SEQ:END(LEN)`, END as tcpdump has it: without SYN and FIN.
fn tcp_range(word: &str) -> Result<(u32, Vec<u8>), String> {
    let wrong = || format!("`{word}` is no sequence such as 100:110(10)");
    let Some((seq, rest)) = word.split_once(':') else {
        return number(word).map(|seq| (seq, Vec::new())).ok_or_else(|| stray(&Word::Plain(word.to_owned())));
    };
    let (end, len) = rest.split_at(rest.find('(').ok_or_else(wrong)?);
    let (seq, end): (u32, u32) = (number(seq).ok_or_else(wrong)?, number(end).ok_or_else(wrong)?);
    let payload = filler(len)?;
    if end.wrapping_sub(seq) as usize == payload.len() {
        Ok((seq, payload))
    } else {
        Err(format!("`{word}`: from {seq} to {end} are not {} bytes", payload.len()))
    }
}

/// `mss 1460, sackOK, wscale 7, sack 1:2 3:4, TS 1:2, nop, eol, hex 0102`; filled up with end-of-list.
fn tcp_options(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for option in text.split(',').map(str::trim).filter(|o| !o.is_empty()) {
        let mut words = Words::split(option)?;
        match words.plain("option")?.as_str() {
            "eol" => bytes.push(0),
            "nop" => bytes.push(1),
            "mss" => {
                bytes.extend([2, 4]);
                bytes.extend(words.number::<u16>("mss")?.to_be_bytes());
            }
            "wscale" => bytes.extend([3, 3, words.number("wscale")?]),
            "sackOK" => bytes.extend([4, 2]),
            "sack" | "TS" => {
                let kind = if option.starts_with("TS") { 8 } else { 5 };
                let mut body = Vec::new();
                while !words.is_empty() {
                    let pair = words.plain("pair A:B")?;
                    let numbers = pair.split_once(':').and_then(|(a, b)| Some([number(a)?, number(b)?]));
                    let numbers: [u32; 2] = numbers.ok_or_else(|| format!("`{pair}` is no pair A:B"))?;
                    body.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
                }
                bytes.extend([kind, body.len() as u8 + 2]);
                bytes.extend(body);
            }
            "hex" => bytes.extend(hex(&words.plain("hex")?)?),
            other => return Err(format!("`{other}` is no TCP option")),
        }
        if let Some(word) = words.next() {
            return Err(stray(&word));
        }
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    if bytes.len() > 40 { Err("TCP options take 40 bytes at most".to_owned()) } else { Ok(bytes) }
}

// ── UDP and UDP-Lite ─────────────────────────────────────────────────────────────────────────────────────────

fn udp(proto: u8, ports: &[u8], words: &mut Words, odd: &mut Oddities) -> Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    let mut length = None;
    each(words, odd, |word, words| {
        match word {
            Word::Text(text) => payload = text,
            Word::Plain(ref w) => match w.as_str() {
                "length" | "coverage" => length = Some(words.number::<u16>(w)?),
                filled => payload = filler(filled)?,
            },
            Word::Options(_) => return Err(stray(&word)),
        }
        Ok(())
    })?;
    let whole = if proto == PROTO_UDP { 8 + payload.len() as u16 } else { 0 };
    let mut datagram = ports.to_vec();
    datagram.extend(length.unwrap_or(whole).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    Ok(datagram)
}

// ── ICMP and ICMPv6 ──────────────────────────────────────────────────────────────────────────────────────────

fn icmp(flow: &Flow, words: &mut Words, odd: &mut Oddities) -> Result<Vec<u8>, String> {
    let echo = if flow.family == Family::Ipv4 { 8 } else { 128 };
    let answer = if flow.family == Family::Ipv4 { icmp_answer } else { icmpv6_answer };
    let word = words.plain("request, reply or TYPE/CODE")?;
    let (kind, mut code) = match word.as_str() {
        "request" => (echo, 0),
        "reply" => (answer(echo).unwrap_or(0), 0),
        other => type_and_code(other)?,
    };
    let (mut id, mut seq, mut payload) = (flow.id, 1_u16, Vec::new());
    each(words, odd, |word, words| {
        match word {
            Word::Plain(ref w) => match w.as_str() {
                "id" => id = words.number("id")?,
                "seq" => seq = words.number("seq")?,
                "code" => code = words.number("code")?,
                filled => payload = filler(filled)?,
            },
            Word::Text(text) => payload = text,
            Word::Options(_) => return Err(stray(&word)),
        }
        Ok(())
    })?;
    let mut message = vec![kind, code, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(seq.to_be_bytes());
    message.extend(payload);
    Ok(message)
}

fn type_and_code(word: &str) -> Result<(u8, u8), String> {
    let pair = word.split_once('/').and_then(|(kind, code)| Some((number(kind)?, number(code)?)));
    pair.ok_or_else(|| format!("`{word}` is no TYPE/CODE"))
}

/// `error TYPE/CODE about FLOW[<] …`: the packet, and which flow it is about.
pub(super) fn error(flows: &[Flow], words: &mut Words) -> Result<(Built, usize), String> {
    let (kind, code) = type_and_code(&words.plain("TYPE/CODE")?)?;
    let about = words.plain("about")?;
    if about != "about" {
        return Err(format!("`{about}` stands where `about FLOW` is expected"));
    }
    let word = words.plain("flow")?;
    let (name, dir) = match word.strip_suffix('<') {
        Some(name) => (name, Direction::Reply),
        None => (word.as_str(), Direction::Original),
    };
    let at = flows.iter().position(|f| f.name == name).ok_or_else(|| format!("no flow named `{name}`"))?;
    let flow = &flows[at];
    let (sender, receiver) = flow.sides(dir);
    let (mut from, mut to, mut quote, mut rest) = (receiver.addr, sender.addr, 8_usize, [0_u8; 4]);
    let mut quoted_odd = Oddities::default();
    let mut odd = Oddities::default();
    each(words, &mut odd, |word, words| {
        match word {
            Word::Plain(ref w) => match w.as_str() {
                "from" => from = Addr::from(words.parse::<IpAddr>("address")?),
                "to" => to = Addr::from(words.parse::<IpAddr>("address")?),
                "quote" => quote = words.number("quote")?,
                "mtu" => rest = words.number::<u32>("mtu")?.to_be_bytes(),
                "quoted" => {
                    // One oddity of the quoted packet.
                    if !quoted_odd.take(words)? {
                        return Err("`quoted` is followed by what is odd about the quoted packet".to_owned());
                    }
                }
                _ => return Err(stray(&word)),
            },
            Word::Text(_) | Word::Options(_) => return Err(stray(&word)),
        }
        Ok(())
    })?;
    // Where the quote is shorter than an upper-layer header, the rest was cut off by whoever wrote the error.
    let cut = quoted_odd.cut.take();
    let quoted = quotation(flow, dir, &quoted_odd)?;
    let header_len = match flow.family {
        Family::Ipv4 => 20 + quoted_odd.ip_options.len(),
        Family::Ipv6 => 40,
    };
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(&quoted[..quoted.len().min(cut.unwrap_or(header_len + quote))]);
    let proto = if flow.family == Family::Ipv4 { PROTO_ICMP } else { PROTO_ICMPV6 };
    let packet = ip_packet(flow.family, (from, to), proto, message, &odd);
    Ok((Built { packet, padding: odd.padding }, at))
}

/// A packet of the flow as an error would quote it.
fn quotation(flow: &Flow, dir: Direction, odd: &Oddities) -> Result<Vec<u8>, String> {
    let (sender, receiver) = flow.sides(dir);
    let l4 = quoted_l4(flow, dir)?;
    Ok(ip_packet(flow.family, (sender.addr, receiver.addr), flow.proto, l4, odd))
}

fn quoted_l4(flow: &Flow, dir: Direction) -> Result<Vec<u8>, String> {
    let (sender, receiver) = flow.sides(dir);
    let ports = [sender.port.to_be_bytes(), receiver.port.to_be_bytes()].concat();
    let mut odd = Oddities::default();
    let line = match (flow.proto, dir) {
        (PROTO_TCP, _) => ". 1 ack 1",
        (PROTO_ICMP | PROTO_ICMPV6, Direction::Original) => "request",
        (PROTO_ICMP | PROTO_ICMPV6, Direction::Reply) => "reply",
        (PROTO_SCTP, _) => "DATA vtag 1",
        _ => "(20)",
    };
    let words = &mut Words::split(line)?;
    match flow.proto {
        PROTO_TCP => tcp(&ports, words, &mut odd),
        PROTO_UDP | PROTO_UDPLITE => udp(flow.proto, &ports, words, &mut odd),
        PROTO_ICMP | PROTO_ICMPV6 => icmp(flow, words, &mut odd),
        PROTO_SCTP => sctp(&ports, words, &mut odd),
        _ => plain(words, &mut odd),
    }
}

// ── SCTP and GRE ─────────────────────────────────────────────────────────────────────────────────────────────

/// Chunk types of RFC 9260 §3.2, in their order.
const CHUNKS: [&str; 15] = [
    "DATA",
    "INIT",
    "INIT-ACK",
    "SACK",
    "HEARTBEAT",
    "HEARTBEAT-ACK",
    "ABORT",
    "SHUTDOWN",
    "SHUTDOWN-ACK",
    "ERROR",
    "COOKIE-ECHO",
    "COOKIE-ACK",
    "ECNE",
    "CWR",
    "SHUTDOWN-COMPLETE",
];

fn sctp(ports: &[u8], words: &mut Words, odd: &mut Oddities) -> Result<Vec<u8>, String> {
    let chunks = words.plain("chunks")?;
    let (mut vtag, mut init, mut flags) = (0_u32, 1_u32, 0_u8);
    each(words, odd, |word, words| {
        match word {
            Word::Plain(ref w) => match w.as_str() {
                "vtag" => vtag = words.number("vtag")?,
                "init" => init = words.number("init")?,
                "flags" => flags = words.number("flags")?,
                _ => return Err(stray(&word)),
            },
            Word::Text(_) | Word::Options(_) => return Err(stray(&word)),
        }
        Ok(())
    })?;
    let mut packet = ports.to_vec();
    packet.extend(vtag.to_be_bytes());
    packet.extend([0; 4]);
    for chunk in chunks.split('+') {
        packet.extend(sctp_chunk(chunk, flags, init)?);
    }
    Ok(packet)
}

fn sctp_chunk(name: &str, flags: u8, init: u32) -> Result<Vec<u8>, String> {
    let kind = CHUNKS.iter().position(|known| *known == name);
    let kind = kind.ok_or_else(|| format!("`{name}` is no SCTP chunk"))? as u8;
    let body = match kind {
        // A payload of four bytes behind TSN, stream and protocol.
        0 => vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        // Tag, window, streams out and in, first TSN.
        1 | 2 => [&init.to_be_bytes()[..], &[0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]].concat(),
        3 => vec![0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 0],
        4 | 5 => vec![0, 1, 0, 8, 1, 2, 3, 4],
        7 | 10 => vec![0, 0, 0, 1],
        _ => Vec::new(),
    };
    let mut chunk = vec![kind, if kind == 0 { 3 } else { flags }];
    chunk.extend((4 + body.len() as u16).to_be_bytes());
    chunk.extend(body);
    Ok(chunk)
}

fn gre(flow: &Flow, words: &mut Words, odd: &mut Oddities) -> Result<Vec<u8>, String> {
    let (mut version, mut call, mut payload) = (0, flow.id, Vec::new());
    each(words, odd, |word, words| {
        match word {
            Word::Plain(ref w) => match w.as_str() {
                "v0" => version = 0,
                "v1" => version = 1,
                "call" => call = words.number("call")?,
                filled => payload = filler(filled)?,
            },
            Word::Text(_) | Word::Options(_) => return Err(stray(&word)),
        }
        Ok(())
    })?;
    let mut packet = if version == 0 {
        vec![0, 0, 0x08, 0]
    } else {
        // RFC 2637 §4.1: key and sequence number present, PPP, length, call.
        let [high, low] = (payload.len() as u16).to_be_bytes();
        let [call_high, call_low] = call.to_be_bytes();
        vec![0x30, 0x01, 0x88, 0x0b, high, low, call_high, call_low, 0, 0, 0, 1]
    };
    packet.extend(payload);
    Ok(packet)
}

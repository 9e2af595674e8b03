//! FTP: where the data connection will be (RFC 959, RFC 1123 §4.1.2.6, RFC 2428).
//!
//! Only what stands at the start of a packet that begins a line is read: no stream is put together. What begins like
//! an announcement and cannot be read to its end makes the packet go, so that both ends see it again, whole.

#![forbid(unsafe_code)]

use super::{Announced, Outcome, Silence};
use crate::conntrack::{CtState, Direction};
use crate::packet::{Addr, Family, Segment, Seq, Tuple, tuple::PROTO_TCP};
use core::net::Ipv6Addr;
use core::ops::Range;

/// Line ends that are remembered for each direction.
const LINES: usize = 2;

/// Where lines of either direction begin: behind the last line ends that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::conntrack) struct Lines {
    begins: [[Option<Seq>; LINES]; 2],
}

impl Lines {
    pub(in crate::conntrack) const NONE: Self = Self { begins: [[None; LINES]; 2] };

    fn begins_at(&self, dir: Direction, seq: Seq) -> bool {
        self.begins[dir as usize].contains(&Some(seq))
    }

    /// The same as numbers, to be written down.
    pub(in crate::conntrack) fn saved(&self) -> [[Option<u32>; LINES]; 2] {
        self.begins.map(|begins| begins.map(|begin| begin.map(|seq| seq.0)))
    }

    pub(in crate::conntrack) fn resume(saved: [[Option<u32>; LINES]; 2]) -> Self {
        Self { begins: saved.map(|begins| begins.map(|begin| begin.map(Seq))) }
    }

    /// Remembers where a line begins, in place of the one that lies farthest back.
    fn remember(&mut self, dir: Direction, seq: Seq) {
        let begins = &mut self.begins[dir as usize];
        if begins.contains(&Some(seq)) {
            return;
        }
        match begins {
            [Some(a), Some(b)] => {
                let oldest = if a.is_before(*b) { a } else { b };
                if seq.is_after(*oldest) {
                    *oldest = seq;
                }
            }
            [free @ None, _] | [_, free] => *free = Some(seq),
        }
    }
}

/// Reads one segment of a command connection.
pub(super) fn read(
    lines: &mut Lines,
    state: CtState,
    dir: Direction,
    tuples: (&Tuple, &Tuple),
    seg: &Segment,
    payload: &[u8],
) -> Outcome {
    if state != CtState::Established || payload.is_empty() {
        return Outcome::Nothing(Silence::NothingToRead);
    }
    let outcome = if lines.begins_at(dir, seg.seq) {
        announced(dir, tuples, payload)
    } else {
        Outcome::Nothing(if looks_announced(dir, payload) {
            Silence::NotAtLineStart
        } else {
            Silence::NoAnnouncement
        })
    };
    // The packet will come again, so nothing of it counts yet.
    if let Outcome::Partial(_) = outcome {
        return outcome;
    }
    if payload.ends_with(b"\n") {
        lines.remember(dir, seg.seq + payload.len() as u32);
    }
    outcome
}

/// What a line announces. The tuples are the packet's own, as it came, and how packets of the other direction come.
fn announced(dir: Direction, (tuple, far): (&Tuple, &Tuple), line: &[u8]) -> Outcome {
    for command in commands(dir) {
        let (Endpoint { addr, port }, place) = match command.find(tuple.family, line) {
            Found::No => continue,
            Found::Partly => return Outcome::Partial(command.name),
            Found::At(endpoint, place) => (endpoint, place),
        };
        // An address of somebody else: a bounce attack, or translation that we do not know of (RFC 2577 §3).
        if addr.is_some_and(|addr| addr != tuple.src) {
            return Outcome::Nothing(Silence::ForeignAddress);
        }
        let expected = Tuple { src: far.src, dst: far.dst, left: 0, right: port, proto: PROTO_TCP, ..*far };
        let written = Some(Written { place, form: (command.form)(tuple.family) });
        return Outcome::Announces(Announced { tuple: expected, written });
    }
    Outcome::Nothing(Silence::NoAnnouncement)
}

/// Whether an announcement, or the end of one, stands anywhere in text that does not begin a line.
fn looks_announced(dir: Direction, payload: &[u8]) -> bool {
    let stands_in = |command: &Command| {
        let name = command.name.as_bytes();
        payload.windows(name.len()).any(|part| part.eq_ignore_ascii_case(name))
    };
    let numbers = payload.iter().take_while(|b| b.is_ascii_digit() || matches!(b, b',' | b'|')).count();
    numbers > 2 || commands(dir).iter().any(stands_in)
}

/// What announces a connection in either direction.
const fn commands(dir: Direction) -> [Command; 2] {
    match dir {
        Direction::Original => [Command::PORT, Command::EPRT],
        Direction::Reply => [Command::PASV, Command::EPSV],
    }
}

/// How an address and a port are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conntrack) enum Form {
    /// `h1,h2,h3,h4,p1,p2`
    Numbers,
    /// `|1|192.0.2.10|51210|`, `|2|2001:db8::10|51210|`
    Extended(Family),
    /// `|||51210|`
    PortOnly,
}

/// Where an argument stands in the payload, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::conntrack) struct Written {
    pub(in crate::conntrack) place: Range<usize>,
    pub(in crate::conntrack) form: Form,
}

/// The argument that announces an address and a port, as Linux writes it.
pub(in crate::conntrack) fn write(form: Form, addr: Addr, port: u16) -> String {
    let [high, low] = port.to_be_bytes();
    match form {
        Form::Numbers => {
            let [a, b, c, d] = addr.v4();
            format!("{a},{b},{c},{d},{high},{low}")
        }
        Form::Extended(Family::Ipv4) => format!("|1|{}|{port}|", addr.to_ip(Family::Ipv4)),
        Form::Extended(Family::Ipv6) => {
            let groups = Ipv6Addr::from(addr.v6()).segments().map(|group| format!("{group:04x}"));
            format!("|2|{}|{port}|", groups.join(":"))
        }
        Form::PortOnly => format!("|||{port}|"),
    }
}

/// What an argument says.
struct Endpoint {
    /// `None`: the command names none.
    addr: Option<Addr>,
    port: u16,
}

/// An argument that was read: what it says, and which bytes of the text it takes.
type Argument = (Endpoint, Range<usize>);

/// How a command or answer is told and read.
#[derive(Clone, Copy)]
struct Command {
    name: &'static str,
    /// Everything up to this byte is skipped behind the name.
    skip: Option<u8>,
    read: fn(Family, &[u8]) -> Option<Argument>,
    form: fn(Family) -> Form,
}

enum Found {
    No,
    /// It begins like the command, and then something is wrong or missing.
    Partly,
    At(Endpoint, Range<usize>),
}

impl Command {
    const PORT: Self = Self { name: "PORT", skip: Some(b' '), read: port, form: |_| Form::Numbers };
    const EPRT: Self = Self { name: "EPRT", skip: Some(b' '), read: eprt, form: Form::Extended };
    const PASV: Self = Self { name: "227 ", skip: None, read: pasv, form: |_| Form::Numbers };
    const EPSV: Self = Self { name: "229 ", skip: Some(b'('), read: epsv, form: |_| Form::PortOnly };

    fn find(&self, family: Family, line: &[u8]) -> Found {
        let name = self.name.as_bytes();
        let common = name.len().min(line.len());
        if !line[..common].eq_ignore_ascii_case(&name[..common]) {
            return Found::No;
        }
        let rest = &line[common..];
        if rest.is_empty() {
            return Found::Partly;
        }
        let arguments = match self.skip {
            None => Some(rest),
            Some(skip) => rest.iter().position(|&b| b == skip).map(|at| &rest[at + 1..]),
        };
        let read = arguments.and_then(|text| Some((line.len() - text.len(), (self.read)(family, text)?)));
        match read {
            Some((at, (endpoint, place))) => Found::At(endpoint, at + place.start..at + place.end),
            None => Found::Partly,
        }
    }
}

/// `h1,h2,h3,h4,p1,p2` and the end of the line.
fn port(_: Family, text: &[u8]) -> Option<Argument> {
    let (numbers, len) = numbers::<6>(text, b',', Some(b'\r'))?;
    Some((host_port(&numbers), 0..len))
}

/// The same six numbers, wherever the first digit stands; what follows them does not matter.
fn pasv(_: Family, text: &[u8]) -> Option<Argument> {
    let first = text.iter().position(u8::is_ascii_digit)?;
    let (numbers, len) = numbers::<6>(&text[first..], b',', None)?;
    Some((host_port(&numbers), first..first + len))
}

/// `|1|192.0.2.10|51210|` or `|2|2001:db8::10|51210|`, with any delimiter.
fn eprt(family: Family, text: &[u8]) -> Option<Argument> {
    let (delimiter, kind) = match *text {
        [a, kind, b, _, ..] if a == b && is_delimiter(a) => (a, kind),
        _ => return None,
    };
    let rest = &text[3..];
    // To the kernel a zero ends an IPv6 address as well, since it ends strings.
    let ends = |&byte: &u8| byte == delimiter || family == Family::Ipv6 && byte == 0;
    let end = rest.iter().position(ends)?;
    let addr = match (family, kind) {
        (Family::Ipv4, b'1') => addr_v4(&numbers::<4>(rest, b'.', Some(delimiter))?.0),
        (Family::Ipv6, b'2') => Addr::from(addr_v6(core::str::from_utf8(&rest[..end]).ok()?)?),
        _ => return None,
    };
    let (port, len) = delimited_port(&rest[end + 1..], delimiter)?;
    Some((Endpoint { addr: Some(addr), port }, 0..3 + end + 1 + len))
}

/// As text. Like the kernel, and unlike RFC 4291 §2.2, it takes a group with more leading zeros than four digits hold.
fn addr_v6(text: &str) -> Option<Ipv6Addr> {
    let groups = text.split(':').map(|group| match group.trim_start_matches('0') {
        "" if !group.is_empty() => "0",
        shorter if !group.contains('.') => shorter,
        _ => group,
    });
    groups.collect::<Vec<_>>().join(":").parse().ok()
}

/// `|||51210|`, with any delimiter.
fn epsv(_: Family, text: &[u8]) -> Option<Argument> {
    match *text {
        [a, b, c, _, ..] if a == b && b == c && is_delimiter(a) => {
            let (port, len) = delimited_port(&text[3..], a)?;
            Some((Endpoint { addr: None, port }, 0..3 + len))
        }
        _ => None,
    }
}

const fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_graphic() && !byte.is_ascii_digit()
}

/// `N` numbers with a separator between them, and the terminator behind them if one is wanted; and how many bytes they
/// take. Digits may be missing, and numbers run over as they do in the kernel.
fn numbers<const N: usize>(text: &[u8], separator: u8, terminator: Option<u8>) -> Option<([u32; N], usize)> {
    let mut numbers = [0_u32; N];
    let mut at = 0;
    for (len, &byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                numbers[at] = numbers[at].wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
            }
            _ if byte == separator => {
                at += 1;
                if at == N {
                    return None;
                }
            }
            _ => return (at == N - 1 && terminator.is_none_or(|t| t == byte)).then_some((numbers, len)),
        }
    }
    None
}

/// Numbers above 255 run into their neighbour, as they do in the kernel.
fn addr_v4(n: &[u32]) -> Addr {
    Addr::from_v4((n[0] << 24 | n[1] << 16 | n[2] << 8 | n[3]).to_be_bytes())
}

fn host_port(n: &[u32; 6]) -> Endpoint {
    Endpoint { addr: Some(addr_v4(&n[..4])), port: (n[4] << 8 | n[5]) as u16 }
}

/// Digits and the delimiter behind them, and how many bytes that are; port 0 is none. Too large a port loses its upper bits, as in the kernel.
fn delimited_port(text: &[u8], delimiter: u8) -> Option<(u16, usize)> {
    let mut port = 0_u16;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => port = port.wrapping_mul(10).wrapping_add(u16::from(byte - b'0')),
            _ if byte == delimiter && port != 0 => return Some((port, at + 1)),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends of the connection that [`announced`] is asked about.
    fn tuple(dir: Direction) -> Tuple {
        let (client, server) = (Addr::from_v4([192, 0, 2, 10]), Addr::from_v4([198, 51, 100, 10]));
        let original = Tuple {
            src: client,
            dst: server,
            left: 42000,
            right: 21,
            zone: 0,
            proto: PROTO_TCP,
            family: Family::Ipv4,
        };
        match dir {
            Direction::Original => original,
            Direction::Reply => original.reply(),
        }
    }

    fn told(dir: Direction, line: &str) -> String {
        match announced(dir, (&tuple(dir), &tuple(dir.opposite())), line.as_bytes()) {
            Outcome::Nothing(_) => "nothing".into(),
            Outcome::Partial(_) => "drop".into(),
            Outcome::Announces(Announced { tuple, .. }) => tuple.right.to_string(),
        }
    }

    #[test]
    fn commands_of_the_client() {
        let cases = [
            ("PORT 192,0,2,10,200,10\r\n", "51210"),
            ("port 192,0,2,10,200,10\r\n", "51210"),
            ("PORT 192,0,2,10,200,10\n", "drop"),
            ("PORT 192,0,2,10,200,10\r", "51210"),
            ("PORT 192,0,2,10,200,10", "drop"),
            ("PORT 203,0,113,9,200,10\r\n", "nothing"),
            ("PORT 256,0,2,10,200,10\r\n", "nothing"),
            ("PORT 192,0,2,10,0,0\r\n", "0"),
            ("PORT 192,0,2,10,200,300\r\n", "51500"),
            ("PORT 192,0,2,10,200,10,1\r\n", "drop"),
            ("PORT 192,0,2,10,200\r\n", "drop"),
            ("PORT  192,0,2,10,200,10\r\n", "drop"),
            ("NOOP\r\nPORT 192,0,2,10,200,10\r\n", "nothing"),
            ("PORT 192,0,2,10,200,10\r\nLIST\r\n", "51210"),
            (" PORT 192,0,2,10,200,10\r\n", "nothing"),
            ("PORT 192,0,2,10,0,22\r\n", "22"),
            ("PORT 192,000,002,010,200,010\r\n", "51210"),
            ("PORT\r\n", "drop"),
            ("PORT x\r\n", "drop"),
            ("PO", "drop"),
            ("PO\r\n", "nothing"),
            ("EPRT $1$192.0.2.10$51213$\r\n", "51213"),
            ("EPRT |1|192.0.2.10|51213|", "51213"),
            ("EPRT x1x192.0.2.10x51213x\r\n", "51213"),
            ("eprt |1|192.0.2.10|51213|\r\n", "51213"),
            ("EPRT |2|2001:db8:1::10|51213|\r\n", "drop"),
            ("EPRT |1|203.0.113.9|51213|\r\n", "nothing"),
            ("EPRT |1|192.0.2.10|70000|\r\n", "4464"),
            ("EPRT |1|192.0.2.10|0|\r\n", "drop"),
            ("EPRT |1|192.0.2.10|51213\r\n", "drop"),
            ("EPRT 111192.0.2.1015121311\r\n", "drop"),
            ("EPRT\r\n", "drop"),
            ("227 (192,0,2,10,200,10)\r\n", "nothing"),
        ];
        for (line, expected) in cases {
            assert_eq!(told(Direction::Original, line), expected, "{line:?}");
        }
    }

    #[test]
    fn an_ipv6_address_may_have_more_leading_zeros_than_its_groups_hold() {
        for (text, expected) in [
            ("02001:db8:1::298a", Some("2001:db8:1::298a")),
            ("2001:0000db8::0", Some("2001:db8::")),
            ("::ffff:192.0.2.1", Some("::ffff:192.0.2.1")),
            ("12001:db8::1", None),
            ("2001:db8:::1", None),
        ] {
            assert_eq!(addr_v6(text), expected.and_then(|e| e.parse().ok()), "{text}");
        }
    }

    #[test]
    fn a_zero_ends_an_ipv6_address() {
        for (family, text, port) in [
            (Family::Ipv6, "|2|2001:db8:1::10\u{0}7|20|", Some(7)),
            (Family::Ipv6, "|2|2001:db8:1::10\u{0}|20|", None),
            (Family::Ipv4, "|1|192.0.2.10\u{0}7|20|", None),
        ] {
            assert_eq!(eprt(family, text.as_bytes()).map(|(endpoint, _)| endpoint.port), port, "{text:?}");
        }
    }

    #[test]
    fn answers_of_the_server() {
        let cases = [
            ("227 Entering Passive Mode (198,51,100,10,100,1)\r\n", "25601"),
            ("227 Entering Passive Mode 198,51,100,10,100,1\r\n", "25601"),
            ("227 Entering Passive Mode (198,51,100,10,100,1", "drop"),
            ("227 Entering Passive Mode (203,0,113,9,100,1)\r\n", "nothing"),
            ("227 ok 12 (198,51,100,10,100,1)\r\n", "drop"),
            ("227 Logout.\r\n", "drop"),
            ("227-more\r\n", "nothing"),
            ("228 (198,51,100,10,100,1)\r\n", "nothing"),
            ("229 Entering Extended Passive Mode (|||25602|)\r\n", "25602"),
            ("229 ok (!!!25602!)\r\n", "25602"),
            ("229 ok (|||25602|", "25602"),
            ("229 ok |||25602|\r\n", "drop"),
            ("229 ok (|1|198.51.100.10|25602|)\r\n", "drop"),
            ("229 ok (|||0|)\r\n", "drop"),
            ("229 ok (|||65536|)\r\n", "drop"),
            ("220 hello\r\n227 (198,51,100,10,100,1)\r\n", "nothing"),
        ];
        for (line, expected) in cases {
            assert_eq!(told(Direction::Reply, line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_two_latest_line_ends_are_remembered() {
        let mut lines = Lines::default();
        for seq in [10, 20, 30, 5] {
            lines.remember(Direction::Original, Seq(seq));
        }
        for (seq, known) in [(5, false), (10, false), (20, true), (30, true)] {
            assert_eq!(lines.begins_at(Direction::Original, Seq(seq)), known, "{seq}");
        }
        assert!(!lines.begins_at(Direction::Reply, Seq(20)));
    }
}

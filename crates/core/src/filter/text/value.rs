//! Values that options take: numbers, ports, addresses, ranges.

#![forbid(unsafe_code)]

use crate::filter::text::names::{self, Services};
use crate::filter::text::options::{Complaint, did_you_mean};
use crate::packet::{Addr, Family};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A number as C's `strtoul` reads it: decimal, `0x…` or, with a leading zero, octal; at most `max`. Blanks and a plus
/// may stand in front.
pub(in crate::filter) fn number(text: &str, max: u64) -> Result<u64, Complaint> {
    let bare = unsigned(text);
    let (digits, radix) = match bare.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&bare[2..], 16),
        [b'0', _, ..] => (&bare[1..], 8),
        _ => (bare, 10),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) || digits.is_empty() {
        return Err(Complaint::new(format!("`{text}` is not a number")));
    }
    match u64::from_str_radix(digits, radix) {
        Ok(number) if number <= max => Ok(number),
        Ok(_) => Err(Complaint::new(format!("`{text}` is too large")).hint(format!("at most {max}"))),
        Err(_) if digits.bytes().all(|b| b.is_ascii_digit()) && radix == 10 => {
            Err(Complaint::new(format!("`{text}` is too large")).hint(format!("at most {max}")))
        }
        Err(_) => Err(Complaint::new(format!("`{text}` is not a number"))),
    }
}

/// What stands behind the blanks and the plus that C takes in front of a number.
pub(in crate::filter) fn unsigned(text: &str) -> &str {
    let bare = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    bare.strip_prefix('+').unwrap_or(bare)
}

pub(in crate::filter) fn number_u8(text: &str) -> Result<u8, Complaint> {
    number(text, u64::from(u8::MAX)).map(|n| n as u8)
}

pub(in crate::filter) fn number_u16(text: &str) -> Result<u16, Complaint> {
    number(text, u64::from(u16::MAX)).map(|n| n as u16)
}

/// `A`, `A:B`, `A:`, `:B`
pub(in crate::filter) fn range_u16(text: &str) -> Result<(u16, u16), Complaint> {
    let Some((low, high)) = text.split_once(':') else { return number_u16(text).map(|n| (n, n)) };
    let low = if low.is_empty() { 0 } else { number_u16(low)? };
    let high = if high.is_empty() { u16::MAX } else { number_u16(high)? };
    Ok((low, high))
}

pub(in crate::filter) fn number_u32(text: &str) -> Result<u32, Complaint> {
    number(text, u64::from(u32::MAX)).map(|n| n as u32)
}

/// From `0` to `1`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(pub u16, pub u16);

impl Ports {
    pub const ANY: Self = Self(0, u16::MAX);

    pub const fn contains(self, port: u16) -> bool {
        self.0 <= port && port <= self.1
    }

    pub const fn is_any(self) -> bool {
        self.0 == 0 && self.1 == u16::MAX
    }

    /// `22`, `ssh`, `1:1023`, `:1023`, `1024:`.
    pub(in crate::filter) fn parse(text: &str, names: Services) -> Result<Self, Complaint> {
        Self::read(text, |text| port(text, names))?.in_order(text)
    }

    fn in_order(self, text: &str) -> Result<Self, Complaint> {
        let Self(low, high) = self;
        if low > high {
            return Err(Complaint::new(format!("the port range `{text}` ends before it begins"))
                .hint(format!("`{high}:{low}`")));
        }
        Ok(self)
    }

    /// As the tools read it for some protocols: `0x16` is no number, `026` is 26, and a range that ends before it begins
    /// is taken, though it holds no port.
    pub(in crate::filter) fn parse_decimal(text: &str, names: Services) -> Result<Self, Complaint> {
        Self::read(text, |text| match unsigned(text).trim_start_matches('0') {
            "" if !text.is_empty() => Ok(0),
            rest if rest.starts_with(['x', 'X']) && unsigned(text).starts_with('0') => {
                let complaint = Complaint::new(format!("`{text}` is not a port"));
                Err(complaint.hint("ports of this protocol are written in decimal"))
            }
            rest => port(rest, names),
        })
    }

    fn read(text: &str, port: impl Fn(&str) -> Result<u16, Complaint>) -> Result<Self, Complaint> {
        let Some((low, high)) = text.split_once(':') else {
            return port(text).map(|port| Self(port, port));
        };
        let low = if low.is_empty() { 0 } else { port(low)? };
        let high = if high.is_empty() { u16::MAX } else { port(high)? };
        Ok(Self(low, high))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}:{}", self.0, self.1) }
    }
}

/// A port by number, or by the name of a service that one of the protocols knows.
pub(in crate::filter) fn port(text: &str, among: Services) -> Result<u16, Complaint> {
    if unsigned(text).bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        match number(text, u64::from(u16::MAX)) {
            Ok(port) => return Ok(port as u16),
            Err(Complaint { hint: Some(_), .. }) => {
                return Err(Complaint::new(format!("no port `{text}`")).hint("ports end at 65535"));
            }
            Err(_) => {}
        }
    }
    match names::service_port(text, among) {
        Some(Ok(port)) => return Ok(port),
        Some(Err((port, known))) => {
            return Err(Complaint::new(format!("`{text}` is a service of {known}, not of this protocol"))
                .hint(format!("if its port is meant: {port}")));
        }
        None => {}
    }
    let complaint = Complaint::new(format!("no service named `{text}`"));
    Err(match did_you_mean(text, names::service_names()) {
        _ if text.is_empty() => Complaint::new("a port is missing"),
        _ if text.contains(',') => complaint.hint("several ports: `-m multiport --dports 22,80`"),
        _ if text.contains('-') && text.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
            complaint.hint(format!("a range is written `{}`", text.replacen('-', ":", 1)))
        }
        Some(hint) => complaint.hint(hint),
        None => complaint.hint("write the port's number"),
    })
}

/// An address of one family, without a mask.
pub(in crate::filter) fn addr(text: &str, family: Family) -> Result<Addr, Complaint> {
    match (text.parse::<IpAddr>(), family) {
        (Ok(IpAddr::V4(ip)), Family::Ipv4) => Ok(ip.into()),
        (Ok(IpAddr::V6(ip)), Family::Ipv6) => Ok(ip.into()),
        (Ok(IpAddr::V6(_)), Family::Ipv4) => {
            Err(Complaint::new(format!("`{text}` is an IPv6 address, and these are IPv4 rules"))
                .hint("put the rule into the IPv6 rules"))
        }
        (Ok(IpAddr::V4(_)), Family::Ipv6) => {
            Err(Complaint::new(format!("`{text}` is an IPv4 address, and these are IPv6 rules"))
                .hint("put the rule into the IPv4 rules"))
        }
        (Err(_), Family::Ipv4) => host_ipv4(text).map(Addr::from).ok_or_else(|| not_an_address(text)),
        (Err(_), Family::Ipv6) => Err(not_an_address(text)),
    }
}

/// As [`addr`], but an IPv4 address is written in full: four numbers in decimal.
pub(in crate::filter) fn exact_addr(text: &str, family: Family) -> Result<Addr, Complaint> {
    match text.parse::<IpAddr>() {
        Ok(_) => addr(text, family),
        Err(_) => Err(not_an_address(text)),
    }
}

/// As [`short_addr`], or failing that as C reads one.
pub(in crate::filter) fn network_addr(text: &str, family: Family) -> Result<Addr, Complaint> {
    short_addr(text, family).or_else(|_| addr(text, family))
}

/// An address of which what is left out behind the last number is zero: `10.1` stands for `10.1.0.0`.
pub(in crate::filter) fn short_addr(text: &str, family: Family) -> Result<Addr, Complaint> {
    match (short_ipv4(text), family) {
        (Some(ip), Family::Ipv4) => Ok(ip.into()),
        (None, Family::Ipv4) if text.parse::<IpAddr>().is_err() => Err(not_an_address(text)),
        _ => addr(text, family),
    }
}

fn not_an_address(text: &str) -> Complaint {
    let is_name = text.bytes().any(|b| b.is_ascii_alphabetic()) && !text.contains(':');
    if is_name {
        Complaint::new(format!("`{text}` is not an address"))
            .hint("names of hosts are not looked up: write the address")
    } else if text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        Complaint::new(format!("`{text}` is not an address")).hint("four numbers from 0 to 255")
    } else {
        Complaint::new(format!("`{text}` is not an address"))
    }
}

/// `10` and `192.0.2` stand for `10.0.0.0` and `192.0.2.0`.
fn short_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    for (octet, part) in octets.iter_mut().zip(&parts) {
        *octet = number_u8(part).ok()?;
    }
    Some(Ipv4Addr::from(octets))
}

/// As C's `inet_aton` reads it: the last number fills what is left, so `10.1` stands for `10.0.0.1`.
fn host_ipv4(text: &str) -> Option<Ipv4Addr> {
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') {
        return None;
    }
    let (front, last) = text.rsplit_once('.').map_or((None, text), |(front, last)| (Some(front), last));
    let mut bits = 0;
    let mut room = 32;
    for part in front.into_iter().flat_map(|front| front.split('.')) {
        room -= 8;
        if room == 0 {
            return None;
        }
        bits |= u32::from(number_u8(part).ok()?) << room;
    }
    Some(Ipv4Addr::from(bits | number(last, (1 << room) - 1).ok()? as u32))
}

/// An address and the bits of it that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// Bits outside the mask are zero.
    pub addr: Addr,
    pub mask: u128,
    pub family: Family,
}

impl Network {
    pub const fn contains(&self, addr: Addr) -> bool {
        (addr.bits() ^ self.addr.bits()) & self.mask == 0
    }

    /// How many leading bits count, if no others do.
    pub const fn prefix_len(&self) -> Option<u32> {
        let len = self.mask.leading_ones();
        if self.mask.count_ones() == len { Some(len) } else { None }
    }

    /// `192.0.2.1`, `192.0.2.0/24`, `192.0.2.0/255.255.255.0`; IPv6 likewise.
    pub(in crate::filter) fn parse(text: &str, family: Family) -> Result<Self, Complaint> {
        let (addr_text, mask_text) = match text.split_once('/') {
            Some((addr, mask)) => (addr, Some(mask)),
            None => (text, None),
        };
        let mask = network_mask(mask_text, family)?;
        if mask == 0 && family == Family::Ipv6 {
            // The tools do not look at the address then; people write `0/0` for both families.
            return Ok(Self { addr: Addr::from_bits(0), mask, family });
        }
        let addr = network_addr(addr_text, family)?;
        Ok(Self { addr: Addr::from_bits(addr.bits() & mask), mask, family })
    }
}

/// The mask behind a slash; all bits where there is none.
pub(in crate::filter) fn network_mask(text: Option<&str>, family: Family) -> Result<u128, Complaint> {
    text.map_or(Ok(full_mask(family)), |mask| parse_mask(mask, family))
}

const fn full_mask(family: Family) -> u128 {
    u128::MAX << (128 - family.bits() as u32)
}

fn parse_mask(text: &str, family: Family) -> Result<u128, Complaint> {
    if text.contains(['.', ':']) {
        return match (text.parse::<IpAddr>(), family) {
            (Ok(IpAddr::V4(mask)), Family::Ipv4) => Ok(Addr::from(mask).bits()),
            (Ok(IpAddr::V6(mask)), Family::Ipv6) => Ok(Addr::from(mask).bits()),
            _ => Err(Complaint::new(format!("`{text}` is not a network mask"))),
        };
    }
    let bits = u64::from(family.bits());
    match number(text, bits) {
        Ok(0) => Ok(0),
        Ok(len) => Ok(u128::MAX << (128 - len)),
        Err(complaint) if complaint.hint.is_some() => {
            Err(Complaint::new(format!("the prefix length `{text}` is longer than an address"))
                .hint(format!("at most {bits}")))
        }
        Err(_) => Err(Complaint::new(format!("`{text}` is not a prefix length or network mask"))),
    }
}

/// `192.0.2.0/24`, or with the mask in full where it has holes.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", show_addr(self.addr, self.family))?;
        match self.prefix_len() {
            Some(len) => write!(f, "{len}"),
            None => f.write_str(&show_addr(Addr::from_bits(self.mask), self.family)),
        }
    }
}

/// An address as `inet_ntop` writes it, which is how Rust does, but for IPv4-compatible addresses.
pub(in crate::filter) fn show_addr(addr: Addr, family: Family) -> String {
    if family == Family::Ipv6 {
        let ip = Ipv6Addr::from(addr.v6());
        let bits = ip.to_bits();
        if bits >> 32 == 0 && bits >> 16 != 0 {
            return format!("::{}", Ipv4Addr::from(bits as u32));
        }
        return ip.to_string();
    }
    addr.to_ip(family).to_string()
}

pub(in crate::filter) fn show_ip(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => show_addr(ip.into(), Family::Ipv6),
    }
}

/// The kernel's bound on the name of an interface, without the final zero.
const MAX_IFACE_NAME: usize = 15;

/// The name of an interface, or the beginning of one with a `+` behind.
pub(in crate::filter) fn iface_name(text: &str) -> Result<String, Complaint> {
    if text.len() > MAX_IFACE_NAME {
        return Err(Complaint::new(format!("no interface can be named `{text}`"))
            .hint(format!("names have at most {MAX_IFACE_NAME} letters")));
    }
    // The tools take it with a warning, and print what they do not take again.
    if text.contains(|c: char| c.is_whitespace() || c == '"') {
        return Err(Complaint::new(format!("no interface can be named `{text}`"))
            .hint("names hold neither blanks nor quotes"));
    }
    Ok(text.to_owned())
}

/// Whether `word`, in any case, is `name` or its beginning.
pub(in crate::filter) fn abbreviates(word: &str, name: &str) -> bool {
    !word.is_empty() && name.get(..word.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(word))
}

/// Whether the kernel can make a file of that name under `/proc`.
pub(in crate::filter) fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/')
}

/// ` !` where a condition is turned round.
pub(in crate::filter) const fn not(negated: bool) -> &'static str {
    if negated { " !" } else { "" }
}

/// As much of the text as fits into `bytes`; the tools cut what is longer without a word.
pub(in crate::filter) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Text as iptables-save prints it: quoted unless it is one plain word.
pub(in crate::filter) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    if !text.contains(['"', '\\', '\'']) {
        return format!("\"{text}\"");
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        assert_eq!(number("010", 255), Ok(8));
        assert_eq!(number("0x1f", 255), Ok(31));
        assert_eq!(number("0", 255), Ok(0));
        assert_eq!(number(" \t+010", 255), Ok(8));
        assert!(number("-1", 255).is_err());
        assert!(number("+ 1", 255).is_err());
        assert!(number("1 ", 255).is_err());
        assert!(number("256", 255).is_err());
        assert!(number("", 255).is_err());
        assert!(number("12a", 255).is_err());
    }

    #[test]
    fn addresses_of_hosts_are_read_as_c_reads_them() {
        let host = |text: &str| addr(text, Family::Ipv4).map(|a| show_addr(a, Family::Ipv4));
        assert_eq!(host("10"), Ok("0.0.0.10".into()));
        assert_eq!(host("192.0.2"), Ok("192.0.0.2".into()));
        assert_eq!(host("192.515"), Ok("192.0.2.3".into()));
        assert_eq!(host("3221225985"), Ok("192.0.2.1".into()));
        assert!(host("192.0.2.256").is_err());
        assert!(host("1.2.3.4.5").is_err());
        assert!(host("4294967296").is_err());
        assert!(host("+1").is_err());
        assert!(host(" 1").is_err());
        assert_eq!(Network::parse("+10.1", Family::Ipv4).map(|n| n.to_string()), Ok("10.1.0.0/32".into()));
    }

    #[test]
    fn networks_lose_their_host_bits() {
        for (text, shown) in [
            ("192.0.2.1/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.1/255.255.0.0", "192.0.0.0/16"),
            ("192.0.2.1/255.0.255.0", "192.0.2.0/255.0.255.0"),
            ("10/8", "10.0.0.0/8"),
            ("192.0.2", "192.0.2.0/32"),
            ("3221225985", "192.0.2.1/32"),
        ] {
            assert_eq!(Network::parse(text, Family::Ipv4).map(|n| n.to_string()), Ok(shown.into()), "{text}");
        }
        assert_eq!(
            Network::parse("2001:db8::1/64", Family::Ipv6).map(|n| n.to_string()),
            Ok("2001:db8::/64".into())
        );
        assert_eq!(Network::parse("0/0", Family::Ipv6).map(|n| n.to_string()), Ok("::/0".into()));
        assert!(Network::parse("192.0.2.1/255.255.255", Family::Ipv4).is_err());
        assert!(Network::parse("192.0.2.1/33", Family::Ipv4).is_err());
        assert!(Network::parse("2001:db8::1", Family::Ipv4).is_err());
    }

    #[test]
    fn port_ranges_may_be_open() {
        assert_eq!(Ports::parse("ssh", Services::TCP), Ok(Ports(22, 22)));
        assert_eq!(Ports::parse(":1023", Services::TCP), Ok(Ports(0, 1023)));
        assert_eq!(Ports::parse("1024:", Services::TCP), Ok(Ports(1024, 65535)));
        assert!(Ports::parse("2:1", Services::TCP).is_err());
        assert!(Ports::parse("65536", Services::TCP).is_err());
        let none = Ports::parse_decimal("2:1", Services::UDP).expect("the tools take it for UDP");
        assert!((0..=u16::MAX).all(|port| !none.contains(port)));
    }

    #[test]
    fn text_is_cut_between_letters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc");
        assert_eq!(cut("abé", 3), "ab");
    }
}

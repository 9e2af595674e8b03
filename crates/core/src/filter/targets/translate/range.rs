//! `ADDR-ADDR:PORT-PORT/BASE`: how the range of a translation is read and printed.

#![forbid(unsafe_code)]

use crate::filter::matches::Setting;
use crate::filter::text::names::{self, Services};
use crate::filter::text::options::{Complaint, Given, Options, Problem};
use crate::filter::text::value::{exact_addr, number, show_ip, unsigned};
use crate::nat::{Range, Target};
use crate::packet::Family;
use crate::packet::tuple::{PROTO_DCCP, PROTO_ICMP, PROTO_SCTP, PROTO_TCP, PROTO_UDP};
use core::fmt;
use core::net::IpAddr;

/// What becomes of the base behind a range of ports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shift {
    Taken,
    /// The tools take it, and forget the number.
    Lost,
    Refused,
}

/// `--to-destination` and `--to-source`.
pub(super) fn read_to(given: &Given<'_>, setting: &Setting, shift: Shift) -> Result<Range, Problem> {
    let parts = given.read(|_| Parts::of(given.text(), setting.family))?;
    let addrs = parts.addrs.map(|text| given.read(|_| read_addrs(text, setting.family))).transpose()?;
    let range = match parts.ports {
        Some(text) => ports_of(given, text, setting, shift)?,
        None => Range::default(),
    };
    Ok(Range { addrs, ..range })
}

/// `--to-ports`
pub(super) fn read_ports(options: &Options<'_>, setting: &Setting, shift: Shift) -> Result<Range, Problem> {
    let Some(given) = options.get("to-ports") else { return Ok(Range::default()) };
    ports_of(given, given.text(), setting, shift)
}

/// The halves of `ADDRS:PORTS`.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    addrs: Option<&'a str>,
    ports: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str, family: Family) -> Result<Self, Complaint> {
        let Some(opened) = text.strip_prefix('[') else {
            // With one colon it is a port's, with several an IPv6 address's.
            return Ok(match text.split_once(':') {
                Some((addrs, ports)) if !ports.contains(':') => {
                    Self { addrs: (!addrs.is_empty()).then_some(addrs), ports: Some(ports) }
                }
                _ => Self { addrs: Some(text), ports: None },
            });
        };
        if family == Family::Ipv4 {
            return Err(Complaint::new(format!("`{text}` is not an address"))
                .hint("brackets stand around addresses of IPv6 only"));
        }
        let Some((addrs, behind)) = opened.split_once(']') else {
            return Err(Complaint::new(format!("the bracket of `{text}` is never closed"))
                .hint("`[2001:db8::1]:80`, `[2001:db8::1-2001:db8::9]:80`"));
        };
        let ports = match behind.strip_prefix(':') {
            None if behind.is_empty() => None,
            Some(ports) => Some(ports),
            None => {
                return Err(Complaint::new(format!("`{behind}` cannot stand behind the bracket"))
                    .hint("a port follows a colon; a range is bracketed as a whole: `[ADDR-ADDR]:PORT`"));
            }
        };
        Ok(Self { addrs: (ports.is_none() || !addrs.is_empty()).then_some(addrs), ports })
    }
}

/// `A` or `A-B`; the second may be the lower one, as in the kernel.
fn read_addrs(text: &str, family: Family) -> Result<(IpAddr, IpAddr), Complaint> {
    let read = |text: &str| match exact_addr(text, family) {
        Err(complaint) if text.contains('/') => {
            let hint = "a range is written `ADDR-ADDR`; a network behind another one is `-j NETMAP`";
            Err(Complaint { hint: None, ..complaint }.hint(hint))
        }
        Err(_) if text.is_empty() => {
            Err(Complaint::new("an address is missing").hint("one or a range: `ADDR`, `ADDR-ADDR`"))
        }
        read => read,
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok((read(first)?.to_ip(family), read(last)?.to_ip(family)))
}

/// Ports behind `given`, which the rule must have a protocol for.
fn ports_of(given: &Given<'_>, text: &str, setting: &Setting, shift: Shift) -> Result<Range, Problem> {
    const WITH_PORTS: [u8; 5] = [PROTO_TCP, PROTO_UDP, PROTO_SCTP, PROTO_DCCP, PROTO_ICMP];
    let has_ports = setting.proto.is_some_and(|p| WITH_PORTS.contains(&p.proto));
    if !has_ports {
        let problem = given.problem("a port needs TCP, UDP, SCTP, DCCP or ICMP in the same rule");
        return Err(problem.hint("add `-p tcp` or `-p udp` in front of the target"));
    }
    if setting.proto_at.is_some_and(|at| at > given.at) {
        let problem = given.problem("a port needs its protocol in front of it");
        return Err(problem.hint(format!("`-p` must stand in front of `--{}`", given.opt.name)));
    }
    let (ports, base) = given.read(|_| read_range(text))?;
    let base = match (base, shift) {
        (Some(_), Shift::Refused) => {
            let problem = given.problem("a range of this target cannot be shifted");
            return Err(problem.hint("`-j DNAT --to-destination :7000-7099/6000` can"));
        }
        (Some(base), Shift::Lost) => {
            let warning = given.problem(format!("`/{base}` does nothing: only destinations are shifted"));
            setting.warn(warning.hint("leave it out"));
            Some(0)
        }
        (base, _) => base,
    };
    Ok(Range { ports: Some(ports), base, ..Range::default() })
}

type Ports = (u16, u16);

/// `PORT`, `PORT-PORT`, `PORT-PORT/BASE`; a service by its name stands alone.
fn read_range(text: &str) -> Result<(Ports, Option<u16>), Complaint> {
    let (first, behind) = leading_number(text);
    if first.is_empty() {
        let port = service(text)?;
        return Ok(((port, port), None));
    }
    let first = read_number(first, text)?;
    let Some(range) = behind.strip_prefix('-') else {
        return match behind.strip_prefix('/') {
            None if behind.is_empty() => Ok(((first, first), None)),
            Some(_) => Err(Complaint::new(format!("`{behind}` stands behind a single port"))
                .hint("what is shifted is a range: `7000-7099/6000`")),
            None => Err(garbage(behind)),
        };
    };
    let (last, behind) = leading_number(range);
    if last.is_empty() {
        return Err(Complaint::new(format!("`{range}` is not a port")).hint("a range is written `80-90`"));
    }
    let last = read_number(last, range)?;
    if last < first {
        return Err(Complaint::new(format!("the port range `{first}-{last}` ends before it begins"))
            .hint(format!("`{last}-{first}`")));
    }
    let base = match behind.strip_prefix('/') {
        None if behind.is_empty() => None,
        Some(base) => Some(read_base(base)?),
        None => return Err(garbage(behind)),
    };
    Ok(((first, last), base))
}

fn garbage(behind: &str) -> Complaint {
    let complaint = Complaint::new(format!("`{behind}` cannot stand behind a port"));
    complaint.hint("one port or one range: `80`, `80-90`")
}

fn read_base(text: &str) -> Result<u16, Complaint> {
    let base = match leading_number(text) {
        ("", _) => service(text)?,
        (digits, "") => read_number(digits, text)?,
        (_, behind) => return Err(garbage(behind)),
    };
    match base {
        0 => Err(Complaint::new("no range is shifted by port 0")
            .hint("the base is the port that the range's first one stands for")),
        base => Ok(base),
    }
}

/// The number in front, as C's `strtoul` reads it, and what is behind.
fn leading_number(text: &str) -> (&str, &str) {
    let bare = unsigned(text);
    let is_hex = |digits: &str| digits.starts_with(|c: char| c.is_ascii_hexdigit());
    let (digits, is_digit): (_, fn(&char) -> bool) = match bare.strip_prefix("0x").or(bare.strip_prefix("0X"))
    {
        Some(digits) if is_hex(digits) => (digits, char::is_ascii_hexdigit),
        _ => (bare, char::is_ascii_digit),
    };
    let len = digits.find(|c| !is_digit(&c)).unwrap_or(digits.len());
    if len == 0 { ("", text) } else { text.split_at(text.len() - digits.len() + len) }
}

fn read_number(digits: &str, whole: &str) -> Result<u16, Complaint> {
    match number(digits, u64::from(u16::MAX)) {
        Ok(port) => Ok(port as u16),
        Err(Complaint { hint: Some(_), .. }) => {
            Err(Complaint::new(format!("no port `{digits}`")).hint("ports end at 65535"))
        }
        Err(_) => Err(Complaint::new(format!("`{whole}` is not a port"))),
    }
}

/// A service by its name, whichever protocol it is of.
fn service(text: &str) -> Result<u16, Complaint> {
    if text.is_empty() {
        return Err(Complaint::new("a port is missing").hint("`:80`, `:80-90`"));
    }
    if let Some(Ok(port)) = names::service_port(text, Services::all()) {
        return Ok(port);
    }
    let is_range = text.split('-').any(|part| names::service_port(part, Services::all()).is_some());
    let hint = if is_range { "a range is written with numbers: `80-90`" } else { "write the port's number" };
    Err(Complaint::new(format!("no service named `{text}`")).hint(hint))
}

/// The options of a target, each with a blank in front, in the order in which iptables-save prints them.
pub(super) fn show(target: &Target, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (option, range) = match target {
        Target::Dnat(range) => ("to-destination", range),
        Target::Snat(range) => ("to-source", range),
        Target::Masquerade(range) | Target::Redirect(range) => ("to-ports", range),
        Target::Netmap { network, prefix_len } => {
            return write!(f, " --to {}/{prefix_len}", show_ip(*network));
        }
    };
    let Range { addrs, ports, base, random, random_fully, persistent } = range;
    if addrs.is_some() || ports.is_some() {
        write!(f, " --{option} ")?;
    }
    if let Some((first, last)) = addrs {
        let is_bracketed = first.is_ipv6() && ports.is_some();
        f.write_str(if is_bracketed { "[" } else { "" })?;
        f.write_str(&show_ip(*first))?;
        if first != last {
            write!(f, "-{}", show_ip(*last))?;
        }
        f.write_str(if is_bracketed { "]" } else { "" })?;
    }
    if let Some((first, last)) = ports {
        let has_colon = matches!(target, Target::Dnat(_) | Target::Snat(_));
        write!(f, "{}{first}", if has_colon { ":" } else { "" })?;
        if first != last {
            write!(f, "-{last}")?;
        }
        if let Some(base) = base {
            write!(f, "/{base}")?;
        }
    }
    for (is_set, word) in [(random, "random"), (random_fully, "random-fully"), (persistent, "persistent")] {
        if *is_set {
            write!(f, " --{word}")?;
        }
    }
    Ok(())
}

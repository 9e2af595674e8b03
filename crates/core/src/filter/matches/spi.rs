//! `-m ah`, `-m esp`: which security association a packet belongs to, by its number; and ranges of such numbers.

#![forbid(unsafe_code)]

use super::ipv6header::{self, AUTH};
use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, number_u32};
use crate::packet::Family;
use core::fmt;

const ESP: u8 = 50;
/// Next header, length, reserved, number, sequence.
const AH_LEN: usize = 12;
const ESP_LEN: usize = 8;

/// From `low` to `high`, both included; one that ends before it begins holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub low: u32,
    pub high: u32,
    pub negated: bool,
}

impl Span {
    pub(super) fn read(options: &Options<'_>, name: &str) -> Result<Option<Self>, Problem> {
        let read = |text: &str| -> Result<(u32, u32), Complaint> {
            let Some((low, high)) = text.split_once(':') else { return number_u32(text).map(|n| (n, n)) };
            let low = if low.is_empty() { 0 } else { number_u32(low)? };
            let high = if high.is_empty() { u32::MAX } else { number_u32(high)? };
            Ok((low, high))
        };
        let Some(given) = options.get(name) else { return Ok(None) };
        let (low, high) = given.read(read)?;
        Ok(Some(Self { low, high, negated: given.negated }))
    }

    pub(super) const fn holds(self, n: u32) -> bool {
        (self.low <= n && n <= self.high) != self.negated
    }

    /// All numbers are as good as none, and iptables-save leaves them out, even turned round.
    pub(super) fn write(span: Option<Self>, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match span {
            None | Some(Self { low: 0, high: u32::MAX, .. }) => Ok(()),
            Some(Self { low, high, negated }) if low == high => write!(f, "{} --{name} {low}", not(negated)),
            Some(Self { low, high, negated }) => write!(f, "{} --{name} {low}:{high}", not(negated)),
        }
    }
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |n| u32::from_be_bytes(*n))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ah {
    pub spi: Option<Span>,
}

impl Matcher for Ah {
    const SPEC: Spec = Spec {
        name: "ah",
        family: Some(Family::Ipv4),
        protos: &[AUTH],
        options: &[Opt::value("ahspi").or_not()],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Ok(Self { spi: Span::read(options, "ahspi")? })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        if view.pkt.is_later_fragment() {
            return Answer::No;
        }
        let Some(header) = view.pkt.l4().first_chunk::<AH_LEN>() else { return Answer::Drop };
        self.spi.is_none_or(|spi| spi.holds(number_at(header, 4))).into()
    }
}

impl fmt::Display for Ah {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span::write(self.spi, "ahspi", f)
    }
}

/// In IPv6 the header is one of several, and `-p` does not name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ah6 {
    pub spi: Option<Span>,
    /// The length in bytes, and whether it must be another; 0 stands for any, turned round as well.
    pub len: Option<(u32, bool)>,
    pub reserved: bool,
}

impl Matcher for Ah6 {
    const SPEC: Spec = Spec {
        name: "ah",
        family: Some(Family::Ipv6),
        protos: &[],
        options: &[Opt::value("ahspi").or_not(), Opt::value("ahlen").or_not(), Opt::flag("ahres")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let len = options.get("ahlen").map(|g| g.read(number_u32).map(|len| (len, g.negated))).transpose()?;
        Ok(Self { spi: Span::read(options, "ahspi")?, len, reserved: options.has("ahres") })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        ipv6header::ask(view, AUTH, |rest| {
            let header = rest.first_chunk::<AH_LEN>()?;
            let len = ipv6header::header_len(AUTH, header[1]) as u32;
            if rest.len() < len as usize {
                return None;
            }
            Some(
                self.spi.is_none_or(|spi| spi.holds(number_at(header, 4)))
                    && self.len.is_none_or(|(wanted, negated)| wanted == 0 || (wanted == len) != negated)
                    && (!self.reserved || header[2..4] == [0, 0]),
            )
        })
    }
}

impl fmt::Display for Ah6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span::write(self.spi, "ahspi", f)?;
        // The tools leave out what says nothing, but not where it is turned round.
        if let Some((len, negated)) = self.len.filter(|len| *len != (0, false)) {
            write!(f, "{} --ahlen {len}", not(negated))?;
        }
        if self.reserved { f.write_str(" --ahres") } else { Ok(()) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Esp {
    pub spi: Option<Span>,
}

impl Matcher for Esp {
    const SPEC: Spec =
        Spec { name: "esp", family: None, protos: &[ESP], options: &[Opt::value("espspi").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Ok(Self { spi: Span::read(options, "espspi")? })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        if view.pkt.is_later_fragment() {
            return Answer::No;
        }
        let Some(header) = view.pkt.l4().first_chunk::<ESP_LEN>() else { return Answer::Drop };
        self.spi.is_none_or(|spi| spi.holds(number_at(header, 0))).into()
    }
}

impl fmt::Display for Esp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span::write(self.spi, "espspi", f)
    }
}

//! `-m rt`: the routing header of IPv6.

#![forbid(unsafe_code)]

use super::ipv6header::{self, ROUTING};
use super::spi::Span;
use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::{addr, not, number_u32, show_addr};
use crate::packet::{Addr, Family};
use core::fmt;

/// Addresses that `--rt-0-addrs` may name.
const MAX_ADDRS: usize = 16;
/// In front of the addresses: four bytes of every routing header, and four that are reserved.
const FIXED_LEN: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rt {
    /// The kind, and whether it must be another.
    pub kind: Option<(u32, bool)>,
    pub segments_left: Option<Span>,
    /// The length in bytes, and whether it must be another.
    pub len: Option<(u32, bool)>,
    /// What is reserved must be zero.
    pub reserved: bool,
    pub addrs: Vec<Addr>,
    /// Others may stand between the addresses.
    pub not_strict: bool,
}

impl Matcher for Rt {
    const SPEC: Spec = Spec {
        name: "rt",
        family: Some(Family::Ipv6),
        protos: &[],
        options: &[
            Opt::value("rt-type").or_not(),
            Opt::value("rt-segsleft").or_not(),
            Opt::value("rt-len").or_not(),
            Opt::flag("rt-0-res"),
            Opt::value("rt-0-addrs"),
            Opt::flag("rt-0-not-strict"),
        ],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let number = |name| {
            options.get(name).map(|given| given.read(number_u32).map(|n| (n, given.negated))).transpose()
        };
        let kind = number("rt-type")?;
        for name in ["rt-0-res", "rt-0-addrs"] {
            if let Some(given) = options.get(name)
                && (kind != Some((0, false)) || options.get("rt-type").is_some_and(|kind| kind.at > given.at))
            {
                let problem =
                    Problem::new(given.at, format!("`--{name}` needs `--rt-type 0` in front of it"));
                return Err(problem.hint("only routing headers of that type have it"));
            }
        }
        let addrs = options.get("rt-0-addrs").map_or(Ok(Vec::new()), |given| {
            given.read(|text| text.split(',').map(|one| addr(one, Family::Ipv6)).collect())
        })?;
        if addrs.len() > MAX_ADDRS {
            let problem = options.require("rt-0-addrs")?.problem("so many addresses do not fit");
            return Err(problem.hint(format!("at most {MAX_ADDRS}")));
        }
        let not_strict = options.get("rt-0-not-strict");
        if let Some(given) = not_strict.filter(|_| addrs.is_empty()) {
            return Err(Problem::new(given.at, "`--rt-0-not-strict` needs `--rt-0-addrs`"));
        }
        Ok(Self {
            kind,
            segments_left: Span::read(options, "rt-segsleft")?,
            len: number("rt-len")?,
            reserved: options.has("rt-0-res"),
            addrs,
            not_strict: not_strict.is_some(),
        })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        ipv6header::ask(view, ROUTING, |rest| {
            let &[_, len, kind, left] = rest.first_chunk()?;
            let len = ipv6header::header_len(ROUTING, len);
            let is =
                |wanted: Option<(u32, bool)>, n: u32| wanted.is_none_or(|(w, negated)| (w == n) != negated);
            // A header that says to be longer than the packet is none.
            let header = rest.get(..len)?;
            if self.segments_left.is_some_and(|span| !span.holds(u32::from(left)))
                || !is(self.len, len as u32)
                || !is(self.kind, u32::from(kind))
                || (self.reserved && rest.get(4..8)? != [0; 4])
            {
                return Some(false);
            }
            Some(self.has_addrs(header))
        })
    }
}

impl Rt {
    /// Whether the header lists the addresses: these and no others, or in this order among others.
    fn has_addrs(&self, header: &[u8]) -> bool {
        let listed = header.get(FIXED_LEN..).unwrap_or_default().chunks_exact(16);
        let mut wanted = self.addrs.iter().peekable();
        if wanted.peek().is_none() {
            return true;
        }
        if !self.not_strict && listed.len() < self.addrs.len() {
            return false;
        }
        for bytes in listed {
            let found = bytes.first_chunk().map(|bytes| Addr::from_v6(*bytes));
            match wanted.peek() {
                Some(next) if Some(**next) == found => drop(wanted.next()),
                Some(_) if self.not_strict => {}
                Some(_) => return false,
                // The kernel wants no more addresses than were named, unless others may be there too.
                None => return self.not_strict,
            }
        }
        wanted.peek().is_none()
    }
}

impl fmt::Display for Rt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, segments_left, len, reserved, addrs, not_strict } = self;
        if let Some((kind, negated)) = kind {
            write!(f, "{} --rt-type {kind}", not(*negated))?;
        }
        Span::write(*segments_left, "rt-segsleft", f)?;
        if let Some((len, negated)) = len {
            write!(f, "{} --rt-len {len}", not(*negated))?;
        }
        if *reserved {
            f.write_str(" --rt-0-res")?;
        }
        if !addrs.is_empty() {
            let list: Vec<String> = addrs.iter().map(|a| show_addr(*a, Family::Ipv6)).collect();
            write!(f, " --rt-0-addrs {}", list.join(","))?;
        }
        if *not_strict { f.write_str(" --rt-0-not-strict") } else { Ok(()) }
    }
}

//! `-m iprange`: addresses from one to another.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, short_addr, show_addr};
use crate::packet::{Addr, Family};
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iprange {
    pub src: Option<Range>,
    pub dst: Option<Range>,
    pub family: Family,
}

/// Both ends count. One that ends before it begins holds nothing, as in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub low: Addr,
    pub high: Addr,
    pub negated: bool,
}

impl Range {
    pub(in crate::filter) fn contains(&self, addr: Addr) -> bool {
        self.low.bits() <= addr.bits() && addr.bits() <= self.high.bits()
    }
}

impl Matcher for Iprange {
    const SPEC: Spec = Spec {
        name: "iprange",
        family: None,
        protos: &[],
        options: &[Opt::value("src-range").or_not(), Opt::value("dst-range").or_not()],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.require_any()?;
        let family = setting.family;
        let parse = |text: &str| {
            if text.contains('/') {
                return Err(
                    Complaint::new(format!("`{text}` is a prefix, not a range")).hint("`-s` takes prefixes")
                );
            }
            if family == Family::Ipv4 && text.contains(':') {
                return Err(Complaint::new(format!("`{text}` is no range of addresses"))
                    .hint("`192.0.2.1-192.0.2.9`"));
            }
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            Ok((short_addr(low, family)?, short_addr(high, family)?))
        };
        let range = |name| {
            let read = |g: &crate::filter::text::options::Given<'_>| {
                g.read(parse).map(|(low, high)| Range { low, high, negated: g.negated })
            };
            options.get(name).map(read).transpose()
        };
        Ok(Self { src: range("src-range")?, dst: range("dst-range")?, family })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let Self { src, dst, family: _ } = self;
        let fits = |range: &Option<Range>, addr: Addr| range.is_none_or(|r| r.contains(addr) != r.negated);
        (fits(src, view.pkt.src()) && fits(dst, view.pkt.dst())).into()
    }
}

impl fmt::Display for Iprange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, range) in [("src-range", &self.src), ("dst-range", &self.dst)] {
            if let Some(Range { low, high, negated }) = range {
                let (low, high) = (show_addr(*low, self.family), show_addr(*high, self.family));
                write!(f, "{} --{name} {low}-{high}", not(*negated))?;
            }
        }
        Ok(())
    }
}

//! `-m frag`: the fragment header of IPv6. Packets are joined before rules see them, and have none then.

#![forbid(unsafe_code)]

use super::ipv6header::{self, FRAGMENT};
use super::spi::Span;
use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::{not, number_u32};
use crate::packet::Family;
use core::fmt;

const HEADER_LEN: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frag {
    pub id: Option<Span>,
    /// A length that the kernel does not look at: every fragment header has eight bytes.
    pub len: Option<(u32, bool)>,
    pub reserved: bool,
    pub first: bool,
    /// More must follow, or none.
    pub more: Option<bool>,
}

impl Matcher for Frag {
    const SPEC: Spec = Spec {
        name: "frag",
        family: Some(Family::Ipv6),
        protos: &[],
        options: &[
            Opt::value("fragid").or_not(),
            Opt::value("fraglen").or_not(),
            Opt::flag("fragres"),
            Opt::flag("fragfirst"),
            Opt::flag("fragmore"),
            Opt::flag("fraglast"),
        ],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["fragmore", "fraglast"])?;
        let len =
            options.get("fraglen").map(|g| g.read(number_u32).map(|len| (len, g.negated))).transpose()?;
        let more = options.has("fragmore");
        Ok(Self {
            id: Span::read(options, "fragid")?,
            len,
            reserved: options.has("fragres"),
            first: options.has("fragfirst"),
            more: (more || options.has("fraglast")).then_some(more),
        })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        ipv6header::ask(view, FRAGMENT, |rest| {
            let [_, reserved, high, low, id @ ..] = *rest.first_chunk::<HEADER_LEN>()?;
            Some(
                self.id.is_none_or(|span| span.holds(u32::from_be_bytes(id)))
                    && !(self.reserved && (reserved != 0 || low & 0b110 != 0))
                    && !(self.first && (high, low & !0b111) != (0, 0))
                    && self.more.is_none_or(|more| (low & 1 == 1) == more),
            )
        })
    }
}

impl fmt::Display for Frag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, len, reserved, first, more } = self;
        Span::write(*id, "fragid", f)?;
        if let Some((len, negated)) = len {
            write!(f, "{} --fraglen {len}", not(*negated))?;
        }
        let flags = [
            (*reserved, "fragres"),
            (*first, "fragfirst"),
            (*more == Some(true), "fragmore"),
            (*more == Some(false), "fraglast"),
        ];
        flags.iter().filter(|(is, _)| *is).try_for_each(|(_, name)| write!(f, " --{name}"))
    }
}

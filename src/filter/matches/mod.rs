//! One file per iptables match. Each is plain data that says how it is written, how it prints and when it holds.

#![forbid(unsafe_code)]

mod comment;
mod conntrack;
mod icmp;
mod state;
mod tcp;
mod udp;

use super::options::{Opt, Options, Problem};
use super::{Hook, Table};
use crate::conntrack::{Template, Tracked};
use crate::context::Context;
use crate::iface::IfaceId;
use crate::packet::{Family, Packet};
use crate::time::Instant;
use core::fmt;

pub use self::comment::Comment;
pub use self::conntrack::Conntrack;
pub use self::icmp::{Icmp, Icmp6};
pub use self::state::State;
pub use self::tcp::Tcp;
pub use self::udp::Udp;

/// What a match says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// It needs a header that is not there; netfilter drops such a packet, whatever the rules say.
    Drop,
}

impl From<bool> for Answer {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// What a match may look at.
pub(super) struct View<'a> {
    pub(super) pkt: &'a Packet<'a>,
    pub(super) now: Instant,
    pub(super) in_iface: Option<IfaceId>,
    pub(super) out_iface: Option<IfaceId>,
    pub(super) ct: &'a Tracked,
    pub(super) template: Template,
    pub(super) mark: u32,
    pub(super) hook: Hook,
    pub(super) table: Table,
}

impl<'a> View<'a> {
    #[inline]
    pub(super) fn new<R>(pkt: &'a Packet<'a>, ctx: &'a Context<'_, R>, table: Table, hook: Hook) -> Self {
        Self {
            pkt,
            now: ctx.now,
            in_iface: ctx.in_iface,
            out_iface: ctx.out_iface,
            ct: &ctx.ct,
            template: ctx.template,
            mark: ctx.mark,
            hook,
            table,
        }
    }
}

/// How a match is called and which options it takes.
#[derive(Debug)]
pub struct Spec {
    pub name: &'static str,
    /// The family whose rules may name it; `None`: both.
    pub family: Option<Family>,
    /// `-p` must say one of these; empty: any.
    pub protos: &'static [u8],
    pub options: &'static [Opt],
}

impl Spec {
    /// Whether `-p` brings it along for its options.
    pub(super) fn implied_by(&self, proto: u8) -> bool {
        self.protos.contains(&proto) && super::names::protocol_name(proto).is_some()
    }
}

/// Why a match that iptables has is not honoured.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| *reason)
}

/// Matches that iptables has and this router has not, each with the reason.
pub static REFUSED: &[(&str, &str)] = &[];

/// What a match is built in.
pub(super) struct Setting {
    pub(super) family: Family,
    pub(super) table: Table,
    /// What `-p` said.
    pub(super) proto: Option<super::rule::ProtoMatch>,
}

trait Matcher: fmt::Display + Sized {
    const SPEC: Spec;

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem>;

    fn check(&self, view: &View<'_>) -> Answer;
}

/// Declares the enum of all matches and what each module must have.
macro_rules! every_match {
    ($($(#[$doc:meta])* $variant:ident($ty:ty),)*) => {
        /// One `-m` of a rule.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Match {
            $($(#[$doc])* $variant($ty),)*
        }

        /// Every match that is honoured, by its place here.
        pub static SPECS: &[Spec] = &[$(<$ty as Matcher>::SPEC,)*];

        impl Match {
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => const { <$ty as Matcher>::SPEC.name },)*
                }
            }

            #[inline]
            pub(super) fn check(&self, view: &View<'_>) -> Answer {
                match self {
                    $(Self::$variant(m) => m.check(view),)*
                }
            }

            pub(super) fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
                $(if options.name == <$ty as Matcher>::SPEC.name {
                    return <$ty as Matcher>::build(options, setting).map(Self::$variant);
                })*
                Err(options.problem(format!("match `{}` is not honoured", options.name)))
            }
        }

        /// The options, each with a blank in front, as iptables-save prints them behind `-m NAME`.
        impl fmt::Display for Match {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(m) => fmt::Display::fmt(m, f),)*
                }
            }
        }
    };
}

every_match! {
    Comment(Comment),
    Conntrack(Conntrack),
    Icmp(Icmp),
    Icmp6(Icmp6),
    State(State),
    Tcp(Tcp),
    Udp(Udp),
}

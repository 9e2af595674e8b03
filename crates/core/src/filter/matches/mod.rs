//! One file per iptables match. Each is plain data that says how it is written, how it prints and when it holds.

#![forbid(unsafe_code)]

mod addrtype;
mod comment;
mod connbytes;
mod connlimit;
mod conntrack;
mod ecn;
mod eui64;
mod frag;
mod hashlimit;
mod hbh;
mod helper;
mod icmp;
mod iprange;
mod ipv6header;
mod length;
mod limit;
mod mac;
mod mark;
mod multiport;
mod owner;
mod physdev;
mod pkttype;
mod policy;
mod quota;
mod recent;
mod rpfilter;
mod rt;
mod sctp;
mod set;
mod spi;
mod state;
mod statistic;
mod string;
mod tcp;
mod tcpmss;
mod time;
mod tos;
mod ttl;
mod u32;
mod udp;

use super::kept::shared::{Copies, Shared};
use super::text::options::{Given, Opt, Options, Problem};
use super::text::value::Ports;
use crate::base::iface::IfaceId;
use crate::base::time::Instant;
use crate::conntrack::{Conntrack as Tracker, Helper as Assistant, Template, Tracked};
use crate::filter::walk::context::Context;
use crate::packet::{Family, Packet};
use crate::route::Routes;
use core::cell::RefCell;
use core::fmt;

pub use self::addrtype::{Addrtype, Limit as AddrtypeLimit};
pub use self::comment::Comment;
pub use self::connbytes::Connbytes;
pub use self::connlimit::Connlimit;
pub use self::conntrack::Conntrack;
pub use self::ecn::Ecn;
pub use self::eui64::Eui64;
pub use self::frag::Frag;
pub use self::hashlimit::{Buckets, Hashlimit};
pub use self::hbh::{Dst, Hbh};
pub use self::helper::Helper;
pub use self::icmp::{Icmp, Icmp6};
pub use self::iprange::Iprange;
pub use self::ipv6header::Ipv6Header;
pub use self::length::Length;
pub use self::limit::Limit;
pub use self::mac::Mac;
pub use self::mark::{Connmark, Mark};
pub use self::multiport::{Multiport, Side as MultiportSide};
pub use self::owner::Owner;
pub use self::physdev::Physdev;
pub use self::pkttype::Pkttype;
pub use self::policy::Policy;
pub use self::quota::Quota;
pub use self::recent::{List, Recent};
pub use self::rpfilter::Rpfilter;
pub use self::rt::Rt;
pub use self::sctp::Sctp;
pub use self::set::SetMatch;
pub use self::spi::{Ah, Ah6, Esp};
pub use self::state::{State, StateSet};
pub use self::statistic::Statistic;
pub use self::string::StringMatch;
pub use self::tcp::{FlagList, PortMatch, Tcp};
pub use self::tcpmss::Tcpmss;
pub use self::time::Time;
pub use self::tos::{Dscp, Tos};
pub use self::ttl::{Hl, Ttl};
pub use self::u32::U32;
pub use self::udp::Udp;

pub(super) use self::icmp::type_and_code;
pub(super) use self::ipv6header::ends_early;
pub(super) use self::mark::parse_marked;
pub(super) use self::multiport::span as multiport_span;
pub(super) use self::set::lookup as lookup_set;
pub(super) use self::tos::{parse_class, parse_dscp, parse_tos};

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
    pub(super) conntrack: &'a Tracker,
    pub(super) template: Template,
    pub(super) mark: u32,
    pub(super) bridged: bool,
    pub(super) is_rules_reset: bool,
    /// Where packets go; `None` in bridge mode.
    pub(super) routes: Option<&'a Routes>,
    /// 1970 plus this is when [`Instant::ZERO`] was, in nanoseconds.
    unix_epoch_nanos: u64,
}

impl<'a> View<'a> {
    /// Does not borrow the recorder, so that it can be told what was seen.
    #[inline]
    pub(super) fn new<R>(pkt: &'a Packet<'a>, ctx: &'a Context<'_, R>) -> Self {
        Self {
            pkt,
            now: ctx.at.now,
            in_iface: ctx.at.iface,
            out_iface: ctx.out_iface,
            ct: &ctx.ct,
            conntrack: &ctx.at.env.conntrack,
            template: ctx.template,
            mark: ctx.mark,
            bridged: ctx.at.env.is_bridged,
            is_rules_reset: ctx.is_rules_reset,
            routes: (!ctx.at.env.is_bridged).then_some(&ctx.at.env.routes),
            unix_epoch_nanos: ctx.at.env.unix_epoch_nanos(),
        }
    }

    fn unix_secs(&self) -> u64 {
        self.unix_epoch_nanos.saturating_add(self.now.as_nanos()) / 1_000_000_000
    }

    /// The name of the helper of the connection that announced this one.
    fn master_helper(&self) -> Option<&'static str> {
        self.conntrack.master_helper(self.ct).map(Assistant::name)
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
    /// Whether rules of the family call it so.
    pub(super) fn is(&self, name: &str, family: Family) -> bool {
        self.name == name && self.family.is_none_or(|f| f == family)
    }

    /// Whether it has an option of that name.
    pub(super) fn knows(&self, option: &str) -> bool {
        self.options.iter().any(|o| o.is(option))
    }

    /// Whether `-p` brings it along for its options.
    pub(super) fn implied_by(&self, proto: u8) -> bool {
        *self.protos == [proto] || (self.protos.is_empty() && super::protocol_name(proto) == Some(self.name))
    }
}

/// Why a match that iptables has is not honoured.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| *reason)
}

/// Matches that iptables has and this router has not, each with the reason.
pub static REFUSED: &[(&str, &str)] = &[
    ("bpf", "programs are not run"),
    ("cgroup", "packets of others have no local process"),
    ("cluster", "there is one router"),
    ("connlabel", "connections have no labels"),
    ("cpu", "there are workers, not processors"),
    ("dccp", "DCCP is not looked into"),
    ("devgroup", "interfaces have no groups"),
    ("ipcomp", "headers of IPsec are not looked into"),
    ("ipvs", "there is no load balancer"),
    ("mh", "Mobile IPv6 is not looked into"),
    ("nfacct", "there are no accounting objects"),
    ("osf", "systems are not guessed by their packets"),
    ("rateest", "rates are not estimated"),
    ("realm", "routes have no realms"),
    ("socket", "packets of others have no local socket"),
    ("srh", "segment routing headers are not looked into"),
];

/// What a match is built in.
pub(super) struct Setting<'a> {
    pub(super) family: Family,
    /// What `-p` said.
    pub(super) proto: Option<super::rule::ProtoMatch>,
    /// Where it stands.
    pub(super) proto_at: Option<usize>,
    pub(super) ifaces: &'a [String],
    pub(super) shared: &'a Shared<'a>,
    pub(super) warnings: RefCell<Vec<Problem>>,
}

impl Setting<'_> {
    /// Notes what deserves a second look but is no error.
    pub(super) fn warn(&self, warning: Problem) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Notes a range that the tools take though it holds no port.
    fn warn_of_none(&self, given: &Given<'_>, Ports(low, high): Ports) {
        if low > high {
            let warning = given.problem(format!("the port range `{}` holds no port", given.text()));
            self.warn(warning.hint(format!("`{high}:{low}`")));
        } else if given.negated && Ports(low, high).is_any() {
            self.warn(given.problem("every port is excepted, so that the rule never holds".to_owned()));
        }
    }
}

trait Matcher: Clone + fmt::Display + Sized {
    const SPEC: Spec;

    /// As it is, with what it remembers; what it shares with other rules it shares with their copies.
    fn copied(&self, _: &Copies<'_>) -> Self {
        self.clone()
    }

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

            pub(super) fn copied(&self, copies: &Copies<'_>) -> Self {
                match self {
                    $(Self::$variant(m) => Self::$variant(Matcher::copied(m, copies)),)*
                }
            }

            #[inline]
            pub(super) fn check(&self, view: &View<'_>) -> Answer {
                match self {
                    $(Self::$variant(m) => m.check(view),)*
                }
            }

            pub(super) fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
                $(if <$ty as Matcher>::SPEC.is(options.name, setting.family) {
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
    Addrtype(Addrtype),
    Ah(Ah),
    Ah6(Ah6),
    Comment(Comment),
    Connbytes(Connbytes),
    Connlimit(Connlimit),
    Connmark(Connmark),
    Conntrack(Conntrack),
    Dscp(Dscp),
    Dst(Dst),
    Ecn(Ecn),
    Esp(Esp),
    Eui64(Eui64),
    Frag(Frag),
    Hashlimit(Hashlimit),
    Hbh(Hbh),
    Helper(Helper),
    Hl(Hl),
    Icmp(Icmp),
    Icmp6(Icmp6),
    Iprange(Iprange),
    Ipv6Header(Ipv6Header),
    Length(Length),
    Limit(Limit),
    Mac(Mac),
    Mark(Mark),
    Multiport(Multiport),
    Owner(Owner),
    Physdev(Physdev),
    Pkttype(Pkttype),
    Policy(Policy),
    Quota(Quota),
    Recent(Recent),
    Rpfilter(Rpfilter),
    Rt(Rt),
    Sctp(Sctp),
    Set(SetMatch),
    State(State),
    Statistic(Statistic),
    String(StringMatch),
    Tcp(Tcp),
    Tcpmss(Tcpmss),
    Time(Time),
    Tos(Tos),
    Ttl(Ttl),
    U32(U32),
    Udp(Udp),
}

//! One file per iptables target. Each is plain data that says how it is written, how it prints and what it does.

#![forbid(unsafe_code)]

mod checksum;
mod ct;
mod log;
mod mark;
mod npt;
mod optstrip;
mod reject;
mod set;
mod tcpmss;
mod tos;
mod translate;
mod ttl;

use super::matches::Setting;
use super::text::options::{Opt, Options, Problem};
use super::{ChainId, Hook, RuleId, Table, Verdict};
use crate::filter::kept::shared::Copies;
use crate::filter::walk::context::Context;
use crate::nat;
use crate::packet::{Family, Packet};
use crate::record::Recorder;
use core::fmt;

pub use self::checksum::Checksum;
pub use self::ct::{Ct, Notrack};
pub use self::log::{Log, Nflog, Trace};
pub use self::mark::{Connmark, Mark};
pub use self::npt::{Dnpt, Snpt};
pub use self::optstrip::{Ecn, Tcpoptstrip};
pub use self::reject::Reject;
pub use self::set::Set;
pub use self::tcpmss::Tcpmss;
pub use self::tos::{Dscp, Tos};
pub use self::translate::{Dnat, Masquerade, Netmap, Redirect, Snat};
pub use self::ttl::{Hl, Ttl};

pub(super) use self::log::say;

/// Where a target is carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) rule: RuleId,
    pub(super) table: Table,
    pub(super) hook: Hook,
}

/// Where evaluation goes on after a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// With the next rule.
    Rule,
    Verdict(Verdict),
}

/// How a target is called, which options it takes and where it may stand.
#[derive(Debug)]
pub struct Spec {
    pub name: &'static str,
    /// The family whose rules may name it; `None`: both.
    pub family: Option<Family>,
    /// `-p` must say one of these; empty: any.
    pub protos: &'static [u8],
    /// Empty: any.
    pub tables: &'static [Table],
    /// Empty: any.
    pub hooks: &'static [Hook],
    pub options: &'static [Opt],
}

trait Targeted: fmt::Display + Sized {
    const SPEC: Spec;

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem>;

    fn apply<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>, place: Place) -> Next;
}

/// Declares the enum of all targets and what each module must have.
macro_rules! every_target {
    ($($(#[$doc:meta])* $variant:ident($ty:ty),)*) => {
        /// What a rule does with a packet that fits it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Target {
            /// Counts, and goes on.
            None,
            Accept,
            Drop,
            /// Back to the calling chain; in a base chain: the policy decides.
            Return,
            /// Walks a user chain, and comes back behind this rule.
            Jump(ChainId),
            /// Walks a user chain in place of this one.
            Goto(ChainId),
            $($(#[$doc])* $variant($ty),)*
        }

        /// Every extension target that is honoured.
        pub static SPECS: &[Spec] = &[$(<$ty as Targeted>::SPEC,)*];

        impl Target {
            pub(super) fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
                $(if options.name == <$ty as Targeted>::SPEC.name {
                    return <$ty as Targeted>::build(options, setting).map(Self::$variant);
                })*
                Err(options.problem(format!("target `{}` is not honoured", options.name)))
            }

            /// Where this target may stand, if it is an extension.
            pub(super) const fn spec(&self) -> Option<&'static Spec> {
                match self {
                    Self::None | Self::Accept | Self::Drop | Self::Return | Self::Jump(_) | Self::Goto(_) => None,
                    $(Self::$variant(_) => Some(const { &<$ty as Targeted>::SPEC }),)*
                }
            }

            /// As a rule of a copied ruleset has it.
            pub(super) fn copied(&self, copies: &Copies<'_>) -> Self {
                match self {
                    Self::Set(set) => Self::Set(set.copied(copies)),
                    other => other.clone(),
                }
            }

            /// How a target of the nat table translates. Carried out, such a one says [`Verdict::Translate`].
            pub fn translation(&self) -> Option<&nat::Target> {
                match self {
                    Self::Dnat(Dnat(to))
                    | Self::Snat(Snat(to))
                    | Self::Masquerade(Masquerade(to))
                    | Self::Redirect(Redirect(to))
                    | Self::Netmap(Netmap(to)) => Some(to),
                    _ => None,
                }
            }

            /// Carries out a target that is neither a plain verdict nor a way to another chain.
            pub(super) fn apply<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>, place: Place) -> Next {
                match self {
                    Self::None | Self::Accept | Self::Drop | Self::Return | Self::Jump(_) | Self::Goto(_) => Next::Rule,
                    $(Self::$variant(t) => t.apply(pkt, ctx, place),)*
                }
            }
        }

        /// The options of an extension, each with a blank in front, as iptables-save prints them behind `-j NAME`.
        impl fmt::Display for Target {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::None | Self::Accept | Self::Drop | Self::Return | Self::Jump(_) | Self::Goto(_) => Ok(()),
                    $(Self::$variant(t) => fmt::Display::fmt(t, f),)*
                }
            }
        }
    };
}

every_target! {
    Checksum(Checksum),
    Connmark(Connmark),
    Ct(Ct),
    Dnat(Dnat),
    Dnpt(Dnpt),
    Dscp(Dscp),
    Ecn(Ecn),
    Hl(Hl),
    Log(Log),
    Mark(Mark),
    Masquerade(Masquerade),
    Netmap(Netmap),
    Nflog(Nflog),
    Notrack(Notrack),
    Redirect(Redirect),
    Reject(Reject),
    Set(Set),
    Snat(Snat),
    Snpt(Snpt),
    Tcpmss(Tcpmss),
    Tcpoptstrip(Tcpoptstrip),
    Tos(Tos),
    Trace(Trace),
    Ttl(Ttl),
}

/// Whether the tools know a target of that name, honoured here or not.
pub(super) fn is_known(name: &str) -> bool {
    SPECS.iter().any(|spec| spec.name == name) || refused(name).is_some()
}

/// Why a target that iptables has is not honoured.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| *reason)
}

/// Targets that iptables has and this router has not, each with the reason.
pub static REFUSED: &[(&str, &str)] = &[
    ("AUDIT", "there is no audit log"),
    ("CLASSIFY", "there are no queues to sort into"),
    ("CLUSTERIP", "there is one router"),
    ("CONNSECMARK", "there are no security labels"),
    ("HMARK", "marks are not made from hashes"),
    ("IDLETIMER", "there are no timers to set"),
    ("LED", "there are no lamps"),
    ("NFQUEUE", "no other program decides"),
    ("QUEUE", "no other program decides"),
    ("RATEEST", "rates are not estimated"),
    ("SECMARK", "there are no security labels"),
    ("SYNPROXY", "handshakes are not answered for others"),
    ("TEE", "packets are not copied"),
    ("TPROXY", "there are no local sockets"),
    ("ULOG", "use NFLOG"),
];

/// The targets that are no extension, by the name that `-j` takes.
pub(super) fn standard(name: &str) -> Option<Target> {
    Some(match name {
        "ACCEPT" => Target::Accept,
        "DROP" => Target::Drop,
        "RETURN" => Target::Return,
        _ => return None,
    })
}

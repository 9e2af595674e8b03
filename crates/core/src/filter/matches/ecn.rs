//! `-m ecn`: the bits of explicit congestion notification (RFC 3168), in IP and TCP.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, number};
use crate::packet::TcpFlags;
use crate::packet::tuple::PROTO_TCP;
use core::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ecn {
    /// `Some(true)`: turned round.
    pub cwr: Option<bool>,
    pub ece: Option<bool>,
    /// The two bits of the IP header, and whether turned round.
    pub ect: Option<(u8, bool)>,
}

impl Matcher for Ecn {
    const SPEC: Spec = Spec {
        name: "ecn",
        family: None,
        protos: &[],
        options: &[
            Opt::flag("ecn-tcp-cwr").or_not(),
            Opt::flag("ecn-tcp-ece").or_not(),
            Opt::value("ecn-ip-ect").or_not(),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.require_any()?;
        let flag = |name| options.get(name).map(|given| given.negated);
        let ect = options.get("ecn-ip-ect").map(|given| {
            let read = |text: &str| number(text, 3).map_err(|c: Complaint| c.hint("two bits: 0 to 3"));
            given.read(read).map(|n| (n as u8, given.negated))
        });
        let ecn = Self { cwr: flag("ecn-tcp-cwr"), ece: flag("ecn-tcp-ece"), ect: ect.transpose()? };
        let is_tcp = setting.proto.is_some_and(|p| p.proto == PROTO_TCP && !p.negated);
        if (ecn.cwr.is_some() || ecn.ece.is_some()) && !is_tcp {
            return Err(options.problem("bits of the TCP header need `-p tcp` in the same rule"));
        }
        Ok(ecn)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let Self { cwr, ece, ect } = self;
        if ect.is_some_and(|(bits, negated)| (view.pkt.tos() & 3 == bits) == negated) {
            return Answer::No;
        }
        if cwr.is_none() && ece.is_none() {
            return Answer::Yes;
        }
        let Some(header) = view.pkt.l4().first_chunk::<20>() else { return Answer::No };
        let flags = TcpFlags::from_bits_retain(header[13]);
        let fits = |wanted: Option<bool>, flag| wanted.is_none_or(|negated| flags.contains(flag) != negated);
        (fits(*ece, TcpFlags::ECE) && fits(*cwr, TcpFlags::CWR)).into()
    }
}

impl fmt::Display for Ecn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cwr, ece, ect } = self;
        if let Some(negated) = ece {
            write!(f, "{} --ecn-tcp-ece", not(*negated))?;
        }
        if let Some(negated) = cwr {
            write!(f, "{} --ecn-tcp-cwr", not(*negated))?;
        }
        ect.map_or(Ok(()), |(bits, negated)| write!(f, "{} --ecn-ip-ect {bits}", not(negated)))
    }
}

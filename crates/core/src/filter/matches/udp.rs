//! `-m udp`: ports of a datagram.

#![forbid(unsafe_code)]

use super::tcp::PortMatch;
use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::names::Services;
use crate::filter::text::options::{Opt, Options, Problem};
use crate::packet::tuple::PROTO_UDP;
use core::fmt;

const HEADER_LEN: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    pub sport: Option<PortMatch>,
    pub dport: Option<PortMatch>,
}

/// The tools look a name up without asking for its protocol here.
const SERVICES: Services = Services::TCP.union(Services::UDP);

impl Matcher for Udp {
    const SPEC: Spec = Spec {
        name: "udp",
        family: None,
        protos: &[PROTO_UDP],
        options: &[
            Opt::value("sport").also(&["source-port"]).or_not(),
            Opt::value("dport").also(&["destination-port"]).or_not(),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let read = |given| PortMatch::read_decimal(given, SERVICES, setting);
        let port = |name| options.get(name).map(read).transpose();
        Ok(Self { sport: port("sport")?, dport: port("dport")? })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        if view.pkt.is_later_fragment() {
            return Answer::No;
        }
        let Some(header) = view.pkt.l4().first_chunk::<HEADER_LEN>() else { return Answer::Drop };
        let Self { sport, dport } = self;
        let fits = |wanted: &Option<PortMatch>, at: usize| {
            wanted.is_none_or(|w| w.holds(u16::from_be_bytes([header[at], header[at + 1]])))
        };
        (fits(sport, 0) && fits(dport, 2)).into()
    }
}

impl fmt::Display for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        PortMatch::write(self.sport.as_ref(), "sport", f)?;
        PortMatch::write(self.dport.as_ref(), "dport", f)
    }
}

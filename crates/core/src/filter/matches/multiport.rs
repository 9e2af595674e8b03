//! `-m multiport`: up to fifteen ports or ranges.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::names::Services;
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{Ports, not, port};
use crate::packet::tuple::{PROTO_DCCP, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
use arrayvec::ArrayVec;
use core::fmt;

/// The kernel's table has this many places; a range takes two.
const PLACES: usize = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
    Either,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiport {
    pub side: Side,
    /// Each with whether it is written as a range.
    pub ports: ArrayVec<(Ports, bool), PLACES>,
    pub negated: bool,
}

fn parse(text: &str, names: Services) -> Result<ArrayVec<(Ports, bool), PLACES>, Complaint> {
    let mut ports = ArrayVec::new();
    let mut places = 0;
    for word in text.split(',') {
        let (item, needed) = match word.split_once(':') {
            None => {
                let port = port(word, names)?;
                ((Ports(port, port), false), 1)
            }
            Some(("", _) | (_, "")) => {
                return Err(Complaint::new(format!("the range `{word}` is open"))
                    .hint("write both ends here: `1024:65535`"));
            }
            Some((low, high)) => {
                let (low, high) = (port(low, names)?, port(high, names)?);
                if low >= high {
                    return Err(Complaint::new(format!("the port range `{word}` ends before it begins")));
                }
                ((Ports(low, high), true), 2)
            }
        };
        places += needed;
        if places > PLACES || ports.try_push(item).is_err() {
            return Err(Complaint::new("the list of ports is too long").hint(format!(
                "at most {PLACES}, and a range counts for two: write a second rule, or use a set"
            )));
        }
    }
    Ok(ports)
}

impl Matcher for Multiport {
    const SPEC: Spec = Spec {
        name: "multiport",
        family: None,
        protos: &[PROTO_TCP, PROTO_UDP, PROTO_UDPLITE, PROTO_SCTP, PROTO_DCCP],
        options: &[
            Opt::value("sports").also(&["source-ports"]).or_not(),
            Opt::value("dports").also(&["destination-ports"]).or_not(),
            Opt::value("ports").or_not(),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.require_any()?;
        options.exclusive(&["sports", "dports", "ports"])?;
        let given = &options.given[0];
        let side = match given.opt.name {
            "sports" => Side::Source,
            "dports" => Side::Destination,
            _ => Side::Either,
        };
        let names = setting.proto.map_or(Services::empty(), |p| Services::of(p.proto));
        Ok(Self { side, ports: given.read(|text| parse(text, names))?, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        if view.pkt.is_later_fragment() {
            return Answer::No;
        }
        let Some(&[a, b, c, d]) = view.pkt.l4().first_chunk() else { return Answer::Drop };
        let (sport, dport) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let Self { side, ports, negated } = self;
        let holds = ports.iter().any(|(range, _)| match side {
            Side::Source => range.contains(sport),
            Side::Destination => range.contains(dport),
            Side::Either => range.contains(sport) || range.contains(dport),
        });
        (holds != *negated).into()
    }
}

/// Which side it looks at, and the first and last port that it may mean; `None` if that says nothing.
pub(in crate::filter) fn span(list: &Multiport) -> Option<(bool, u16, u16)> {
    let Multiport { side, ports, negated } = list;
    if *negated || *side == Side::Either {
        return None;
    }
    let low = ports.iter().map(|(range, _)| range.0).min()?;
    let high = ports.iter().map(|(range, _)| range.1).max()?;
    Some((*side == Side::Source, low, high))
}

impl fmt::Display for Multiport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let option = match self.side {
            Side::Source => "sports",
            Side::Destination => "dports",
            Side::Either => "ports",
        };
        write!(f, "{} --{option} ", not(self.negated))?;
        let mut separator = "";
        for (Ports(low, high), range) in &self.ports {
            if *range {
                write!(f, "{separator}{low}:{high}")?;
            } else {
                write!(f, "{separator}{low}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

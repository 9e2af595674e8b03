//! `-m pkttype`: whom the frame was sent to, by its link address.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::not;
use crate::packet::Mac;
use core::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unicast,
    Broadcast,
    Multicast,
    /// Another's unicast: no rule ever sees such a packet, for a router drops it and a bridge takes it as its own.
    OtherHost,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::OtherHost => "otherhost",
        }
    }

    const fn of(dst: Mac) -> Self {
        match dst.0 {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Self::Broadcast,
            _ if dst.is_group() => Self::Multicast,
            _ => Self::Unicast,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkttype {
    pub kind: Kind,
    pub negated: bool,
}

impl Matcher for Pkttype {
    const SPEC: Spec =
        Spec { name: "pkttype", family: None, protos: &[], options: &[Opt::value("pkt-type").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("pkt-type")?;
        let kind = given.read(|text| match text.to_ascii_lowercase().as_str() {
            "unicast" | "host" => Ok(Kind::Unicast),
            "broadcast" | "bcast" => Ok(Kind::Broadcast),
            "multicast" | "mcast" => Ok(Kind::Multicast),
            "otherhost" => Ok(Kind::OtherHost),
            _ => Err(Complaint::new(format!("no type of packet named `{text}`"))
                .hint("unicast, broadcast or multicast")),
        })?;
        Ok(Self { kind, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        ((Kind::of(view.pkt.dst_mac()) == self.kind) != self.negated).into()
    }
}

impl fmt::Display for Pkttype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} --pkt-type {}", not(self.negated), self.kind.word())
    }
}

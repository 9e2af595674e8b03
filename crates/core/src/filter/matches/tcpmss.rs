//! `-m tcpmss`: the segment size that a TCP header announces.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, range_u16};
use crate::packet::tuple::PROTO_TCP;
use core::fmt;

const HEADER_LEN: usize = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcpmss {
    pub low: u16,
    pub high: u16,
    pub negated: bool,
}

fn parse(text: &str) -> Result<(u16, u16), Complaint> {
    let (low, high) = range_u16(text)?;
    if low > high {
        return Err(Complaint::new(format!("the range `{text}` ends before it begins"))
            .hint(format!("`{high}:{low}`")));
    }
    Ok((low, high))
}

impl Matcher for Tcpmss {
    const SPEC: Spec =
        Spec { name: "tcpmss", family: None, protos: &[PROTO_TCP], options: &[Opt::value("mss").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("mss")?;
        let (low, high) = given.read(parse)?;
        Ok(Self { low, high, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let l4 = view.pkt.l4();
        let Some(header) = l4.first_chunk::<HEADER_LEN>() else { return Answer::Drop };
        let Some(list) = l4.get(HEADER_LEN..usize::from(header[12] >> 4) * 4) else { return Answer::Drop };
        let holds = announced(list).is_some_and(|mss| self.low <= mss && mss <= self.high);
        (holds != self.negated).into()
    }
}

/// The size in a list of TCP options; a broken length counts as one byte.
fn announced(mut list: &[u8]) -> Option<u16> {
    while let Some(kind) = list.first() {
        if let Some(&[2, 4, high, low]) = list.first_chunk() {
            return Some(u16::from_be_bytes([high, low]));
        }
        let len = match list.get(1) {
            Some(&len) if *kind >= 2 && len > 0 => usize::from(len),
            _ => 1,
        };
        list = list.get(len..)?;
    }
    None
}

impl fmt::Display for Tcpmss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high, negated } = self;
        write!(f, "{} --mss {low}", not(*negated))?;
        if low == high { Ok(()) } else { write!(f, ":{high}") }
    }
}

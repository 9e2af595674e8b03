//! `-m hbh` and `-m dst`: the options in IPv6's hop-by-hop and destination headers.

#![forbid(unsafe_code)]

use super::ipv6header::{self, DESTINATION, HOP_BY_HOP};
use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, number_u8, number_u32};
use crate::packet::Family;
use core::fmt;

/// Options that a rule may name.
const MAX_OPTIONS: usize = 16;
/// An option of one byte, without a length.
const PAD1: u8 = 0;

/// What both share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The header's length in bytes, and whether it must be another.
    pub len: Option<(u32, bool)>,
    /// The first options, in their order: type, and length if that counts.
    pub options: Vec<(u8, Option<u8>)>,
}

fn parse(text: &str) -> Result<Vec<(u8, Option<u8>)>, Complaint> {
    let mut options = Vec::new();
    for word in text.split(',') {
        let (kind, len) = word.split_once(':').map_or((word, None), |(kind, len)| (kind, Some(len)));
        // A length of 255 stands for any.
        let len = len.map(number_u8).transpose()?.filter(|len| *len != u8::MAX);
        options.push((number_u8(kind)?, len));
    }
    if options.len() > MAX_OPTIONS {
        return Err(Complaint::new("so many options do not fit").hint(format!("at most {MAX_OPTIONS}")));
    }
    Ok(options)
}

impl Listed {
    fn read(options: &Options<'_>, names: [&str; 2]) -> Result<Self, Problem> {
        let len =
            options.get(names[0]).map(|g| g.read(number_u32).map(|len| (len, g.negated))).transpose()?;
        let options = options.get(names[1]).map_or(Ok(Vec::new()), |given| given.read(parse))?;
        Ok(Self { len, options })
    }

    fn check(&self, view: &View<'_>, header: u8) -> Answer {
        ipv6header::ask(view, header, |rest| {
            let len = ipv6header::header_len(header, *rest.get(1)?);
            let header = rest.get(..len)?;
            let fits = self.len.is_none_or(|(wanted, negated)| (wanted == len as u32) != negated);
            Some(fits && self.begins(&header[2..]))
        })
    }

    /// Whether the options begin with those that are wanted.
    fn begins(&self, mut list: &[u8]) -> bool {
        for (place, (kind, len)) in self.options.iter().enumerate() {
            let Some(first) = list.first() else { return false };
            if first != kind {
                return false;
            }
            let whole = match (*first, list.get(1)) {
                (PAD1, _) => 1,
                (_, None) => return false,
                (_, Some(found)) if len.is_some_and(|len| len != *found) => return false,
                (_, Some(found)) => usize::from(*found) + 2,
            };
            match list.get(whole..) {
                Some(rest) => list = rest,
                // The last one may be cut short.
                None => return place + 1 == self.options.len(),
            }
        }
        true
    }

    fn write(&self, names: [&str; 2], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((len, negated)) = self.len {
            write!(f, "{} --{} {len}", not(negated), names[0])?;
        }
        for (place, (kind, len)) in self.options.iter().enumerate() {
            if place == 0 {
                write!(f, " --{} {kind}", names[1])?;
            } else {
                write!(f, ",{kind}")?;
            }
            if let Some(len) = len {
                write!(f, ":{len}")?;
            }
        }
        Ok(())
    }
}

const HBH: [&str; 2] = ["hbh-len", "hbh-opts"];
const DST: [&str; 2] = ["dst-len", "dst-opts"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hbh(pub Listed);

impl Matcher for Hbh {
    const SPEC: Spec = Spec {
        name: "hbh",
        family: Some(Family::Ipv6),
        protos: &[],
        options: &[Opt::value(HBH[0]).or_not(), Opt::value(HBH[1])],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Listed::read(options, HBH).map(Self)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        self.0.check(view, HOP_BY_HOP)
    }
}

impl fmt::Display for Hbh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(HBH, f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dst(pub Listed);

impl Matcher for Dst {
    const SPEC: Spec = Spec {
        name: "dst",
        family: Some(Family::Ipv6),
        protos: &[],
        options: &[Opt::value(DST[0]).or_not(), Opt::value(DST[1])],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Listed::read(options, DST).map(Self)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        self.0.check(view, DESTINATION)
    }
}

impl fmt::Display for Dst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(DST, f)
    }
}

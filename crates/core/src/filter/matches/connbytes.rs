//! `-m connbytes`: how much a connection has carried so far.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::conntrack::Direction;
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, number};
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connbytes {
    pub low: u64,
    pub high: u64,
    pub side: Side,
    pub unit: Unit,
    pub negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Original,
    Reply,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Packets,
    Bytes,
    /// Bytes in a packet, on average.
    AveragePacket,
}

fn parse(text: &str) -> Result<(u64, u64), Complaint> {
    let (low, high) = text.split_once(':').unwrap_or((text, ""));
    let low = if low.is_empty() { 0 } else { number(low, u64::MAX)? };
    let high = if high.is_empty() { u64::MAX } else { number(high, u64::MAX)? };
    if low > high {
        return Err(Complaint::new(format!("the range `{text}` ends before it begins")));
    }
    Ok((low, high))
}

impl Matcher for Connbytes {
    const SPEC: Spec = Spec {
        name: "connbytes",
        family: None,
        protos: &[],
        options: &[
            Opt::value("connbytes").or_not(),
            Opt::value("connbytes-dir"),
            Opt::value("connbytes-mode"),
        ],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("connbytes")?;
        let (low, high) = given.read(parse)?;
        let side = options.require("connbytes-dir")?.read(|text| match text {
            "original" => Ok(Side::Original),
            "reply" => Ok(Side::Reply),
            "both" => Ok(Side::Both),
            _ => Err(Complaint::new(format!("no direction named `{text}`")).hint("original, reply or both")),
        })?;
        let unit = options.require("connbytes-mode")?.read(|text| match text {
            "packets" => Ok(Unit::Packets),
            "bytes" => Ok(Unit::Bytes),
            "avgpkt" => Ok(Unit::AveragePacket),
            _ => Err(Complaint::new(format!("no mode named `{text}`")).hint("packets, bytes or avgpkt")),
        })?;
        // To the tools the negation of a range is the range turned round: of a single value nothing is left of it.
        Ok(Self { low, high, side, unit, negated: given.negated && low != high })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let counters = view.conntrack.read_entry(view.ct, |entry| {
            [entry.counter(Direction::Original), entry.counter(Direction::Reply)]
        });
        let Some([original, reply]) = counters else { return Answer::No };
        let (packets, bytes) = match self.side {
            Side::Original => (original.packets, original.bytes),
            Side::Reply => (reply.packets, reply.bytes),
            Side::Both => (original.packets + reply.packets, original.bytes + reply.bytes),
        };
        let what = match self.unit {
            Unit::Packets => packets,
            Unit::Bytes => bytes,
            Unit::AveragePacket => bytes.checked_div(packets).unwrap_or(0),
        };
        ((self.low <= what && what <= self.high) != self.negated).into()
    }
}

impl fmt::Display for Connbytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high, side, unit, negated } = self;
        write!(f, "{} --connbytes {low}", not(*negated))?;
        if *high != u64::MAX && *high != 0 {
            write!(f, ":{high}")?;
        }
        let unit = match unit {
            Unit::Packets => "packets",
            Unit::Bytes => "bytes",
            Unit::AveragePacket => "avgpkt",
        };
        let side = match side {
            Side::Original => "original",
            Side::Reply => "reply",
            Side::Both => "both",
        };
        write!(f, " --connbytes-mode {unit} --connbytes-dir {side}")
    }
}

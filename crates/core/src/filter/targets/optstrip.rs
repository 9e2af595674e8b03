//! `-j TCPOPTSTRIP` and `-j ECN`: take something out of a TCP header.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::filter::matches::Setting;
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{number, number_u8};
use crate::filter::walk::context::Context;
use crate::filter::{Table, Verdict};
use crate::packet::tuple::PROTO_TCP;
use crate::packet::{Family, Packet};
use crate::record::Recorder;
use core::fmt;
use std::collections::BTreeSet;

const HEADER_LEN: usize = 20;
const NO_OPERATION: u8 = 1;
/// The byte of the flags, and the two among them that speak of congestion.
const FLAGS_AT: usize = 13;
const CWR: u8 = 0x80;
const ECE: u8 = 0x40;

/// Options by name.
const NAMES: [(&str, u8); 6] =
    [("mss", 2), ("wscale", 3), ("sack-permitted", 4), ("sack", 5), ("timestamp", 8), ("md5", 19)];

/// Writes no-operations over options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcpoptstrip {
    pub kinds: BTreeSet<u8>,
}

fn parse(text: &str) -> Result<BTreeSet<u8>, Complaint> {
    let one = |word: &str| {
        let by_name = NAMES.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
        match by_name.map_or_else(|| number_u8(word), Ok) {
            Ok(0 | NO_OPERATION) => {
                Err(Complaint::new("options 0 and 1 only fill the header and cannot be taken out"))
            }
            Ok(kind) => Ok(kind),
            Err(_) => {
                let names = NAMES.map(|(name, _)| name);
                Err(Complaint::new(format!("no TCP option `{word}`")).hint(
                    did_you_mean(word, names)
                        .unwrap_or_else(|| format!("a number from 2 to 255, or {}", names.join(", "))),
                ))
            }
        }
    };
    text.split(',').try_fold(BTreeSet::new(), |mut kinds, word| {
        let kind = one(word)?;
        if !kinds.insert(kind) {
            return Err(Complaint::new(format!("TCP option `{word}` is in the list already")));
        }
        Ok(kinds)
    })
}

impl Targeted for Tcpoptstrip {
    const SPEC: Spec = Spec {
        name: "TCPOPTSTRIP",
        family: None,
        protos: &[PROTO_TCP],
        tables: &[Table::Mangle],
        hooks: &[],
        options: &[Opt::value("strip-options")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        // Without a list it takes out nothing, and the tools take it.
        let kinds = options.get("strip-options").map_or(Ok(BTreeSet::new()), |given| given.read(parse))?;
        Ok(Self { kinds })
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, _: &mut Context<R>, place: Place) -> Next {
        if pkt.is_later_fragment() {
            return Next::Rule;
        }
        let len = pkt.l4().get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
        if len < HEADER_LEN || pkt.l4().len() < len {
            return Next::Verdict(Verdict::DropTruncated(place.rule));
        }
        let mut at = HEADER_LEN;
        // The last byte is never looked at: no option that can be taken out is so short.
        while at + 1 < len {
            let kind = pkt.l4()[at];
            let option_len = match pkt.l4()[at + 1] {
                option_len if kind > NO_OPERATION && option_len > 0 => usize::from(option_len),
                _ => 1,
            };
            if at + option_len > len {
                break;
            }
            if self.kinds.contains(&kind) {
                pkt.edit_l4(at, &vec![NO_OPERATION; option_len]);
            }
            at += option_len;
        }
        Next::Rule
    }
}

impl fmt::Display for Tcpoptstrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kinds.is_empty() {
            return Ok(());
        }
        let kinds: Vec<String> = self.kinds.iter().map(u8::to_string).collect();
        write!(f, " --strip-options {}", kinds.join(","))
    }
}

/// Writes bits of explicit congestion notification (RFC 3168).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ecn {
    /// Of the IP header.
    pub codepoint: Option<u8>,
    pub ece: Option<bool>,
    pub cwr: Option<bool>,
}

impl Targeted for Ecn {
    const SPEC: Spec = Spec {
        name: "ECN",
        family: Some(Family::Ipv4),
        protos: &[],
        tables: &[Table::Mangle],
        hooks: &[],
        options: &[
            Opt::flag("ecn-tcp-remove"),
            Opt::value("ecn-tcp-cwr"),
            Opt::value("ecn-tcp-ece"),
            Opt::value("ecn-ip-ect"),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.require_any()?;
        options.exclusive(&["ecn-tcp-remove", "ecn-tcp-cwr"])?;
        options.exclusive(&["ecn-tcp-remove", "ecn-tcp-ece"])?;
        let value = |name, most| {
            options.get(name).map(|g| g.read(|text| number(text, most).map(|n| n as u8))).transpose()
        };
        let place = |name| options.given.iter().position(|given| given.opt.name == name);
        if let (Some(ect), Some(remove)) = (place("ecn-ip-ect"), place("ecn-tcp-remove"))
            && ect < remove
        {
            let problem = options.given[remove].at;
            let problem =
                Problem::new(problem, "`--ecn-tcp-remove` undoes the `--ecn-ip-ect` in front of it");
            return Err(problem.hint("`--ecn-tcp-remove --ecn-ip-ect …`, in this order, does both"));
        }
        let removed = options.has("ecn-tcp-remove").then_some(0);
        let flag = |name| value(name, 1).map(|bit| bit.or(removed).map(|bit| bit == 1));
        let it =
            Self { codepoint: value("ecn-ip-ect", 3)?, ece: flag("ecn-tcp-ece")?, cwr: flag("ecn-tcp-cwr")? };
        let is_tcp = setting.proto.is_some_and(|p| p.proto == PROTO_TCP && !p.negated);
        if (it.ece.is_some() || it.cwr.is_some()) && !is_tcp {
            let problem = options.problem("bits of TCP can be written in TCP only");
            return Err(problem.hint("add `-p tcp` to the rule"));
        }
        Ok(it)
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, _: &mut Context<R>, place: Place) -> Next {
        if let Some(codepoint) = self.codepoint {
            pkt.set_tos(pkt.tos() & !0b11 | codepoint);
        }
        if (self.ece.is_none() && self.cwr.is_none()) || pkt.proto() != PROTO_TCP {
            return Next::Rule;
        }
        let Some(header) = pkt.l4().first_chunk::<HEADER_LEN>() else {
            return Next::Verdict(Verdict::DropTruncated(place.rule));
        };
        let set = |flags: u8, bit: u8, to: Option<bool>| match to {
            None => flags,
            Some(true) => flags | bit,
            Some(false) => flags & !bit,
        };
        let before = header[FLAGS_AT];
        let flags = set(set(before, ECE, self.ece), CWR, self.cwr);
        if flags != before {
            pkt.edit_l4(FLAGS_AT, &[flags]);
        }
        Next::Rule
    }
}

impl fmt::Display for Ecn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { codepoint, ece, cwr } = *self;
        if (codepoint, ece, cwr) == (None, Some(false), Some(false)) {
            f.write_str(" --ecn-tcp-remove")?;
        } else {
            for (bit, name) in [(ece, "ece"), (cwr, "cwr")] {
                if let Some(bit) = bit {
                    write!(f, " --ecn-tcp-{name} {}", u8::from(bit))?;
                }
            }
        }
        codepoint.map_or(Ok(()), |codepoint| write!(f, " --ecn-ip-ect {codepoint}"))
    }
}

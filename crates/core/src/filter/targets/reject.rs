//! `-j REJECT`: drops the packet and tells its sender.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::filter::matches::Setting;
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::walk::context::Context;
use crate::filter::{Hook, RejectWith, Table, Verdict};
use crate::packet::tuple::PROTO_TCP;
use crate::packet::{Family, Packet};
use crate::record::Recorder;
use core::fmt;

/// What iptables-save prints, its short name, and the answer; an abbreviation means the first that begins so.
type Kind = (&'static str, &'static str, RejectWith);

const V4_KINDS: &[Kind] = &[
    ("icmp-net-unreachable", "net-unreach", RejectWith::Icmp(3, 0)),
    ("icmp-host-unreachable", "host-unreach", RejectWith::Icmp(3, 1)),
    ("icmp-proto-unreachable", "proto-unreach", RejectWith::Icmp(3, 2)),
    ("icmp-port-unreachable", "port-unreach", RejectWith::Icmp(3, 3)),
    ("icmp-net-prohibited", "net-prohib", RejectWith::Icmp(3, 9)),
    ("icmp-host-prohibited", "host-prohib", RejectWith::Icmp(3, 10)),
    ("icmp-admin-prohibited", "admin-prohib", RejectWith::Icmp(3, 13)),
    ("tcp-reset", "tcp-rst", RejectWith::TcpReset),
];

const V6_KINDS: &[Kind] = &[
    ("icmp6-no-route", "no-route", RejectWith::Icmp(1, 0)),
    ("icmp6-adm-prohibited", "adm-prohibited", RejectWith::Icmp(1, 1)),
    ("icmp6-addr-unreachable", "addr-unreach", RejectWith::Icmp(1, 3)),
    ("icmp6-port-unreachable", "port-unreach", RejectWith::Icmp(1, 4)),
    ("icmp6-policy-fail", "policy-fail", RejectWith::Icmp(1, 5)),
    ("icmp6-reject-route", "reject-route", RejectWith::Icmp(1, 6)),
    ("tcp-reset", "tcp-reset", RejectWith::TcpReset),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub with: RejectWith,
    pub family: Family,
}

const fn kinds(family: Family) -> &'static [Kind] {
    match family {
        Family::Ipv4 => V4_KINDS,
        Family::Ipv6 => V6_KINDS,
    }
}

fn parse(text: &str, family: Family) -> Result<RejectWith, Complaint> {
    let kinds = kinds(family);
    let starts = |name: &str| name.len() >= text.len() && name[..text.len()].eq_ignore_ascii_case(text);
    let exact = kinds.iter().find(|(name, short, _)| *name == text || *short == text);
    if let Some((_, _, with)) =
        exact.or_else(|| kinds.iter().find(|(name, short, _)| starts(name) || starts(short)))
    {
        return Ok(*with);
    }
    let names = kinds.iter().map(|(name, ..)| *name);
    let all = || format!("one of {}", names.clone().collect::<Vec<_>>().join(", "));
    Err(Complaint::new(format!("REJECT cannot answer with `{text}`"))
        .hint(did_you_mean(text, names.clone()).unwrap_or_else(all)))
}

impl Targeted for Reject {
    const SPEC: Spec = Spec {
        name: "REJECT",
        family: None,
        protos: &[],
        tables: &[Table::Filter],
        hooks: &[Hook::Input, Hook::Forward, Hook::Output],
        options: &[Opt::value("reject-with")],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let family = setting.family;
        let Some(given) = options.get("reject-with") else {
            let with = match family {
                Family::Ipv4 => RejectWith::Icmp(3, 3),
                Family::Ipv6 => RejectWith::Icmp(1, 4),
            };
            return Ok(Self { with, family });
        };
        let with = given.read(|text| parse(text, family))?;
        let is_tcp = setting.proto.is_some_and(|p| p.proto == PROTO_TCP && !p.negated);
        if with == RejectWith::TcpReset && !is_tcp {
            return Err(given
                .problem("only TCP can be answered with a reset")
                .hint("add `-p tcp` to the rule"));
        }
        Ok(Self { with, family })
    }

    fn apply<R: Recorder>(&self, _: &mut Packet, _: &mut Context<R>, place: Place) -> Next {
        Next::Verdict(Verdict::Reject(self.with, place.rule))
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = kinds(self.family).iter().find(|(_, _, with)| *with == self.with);
        write!(f, " --reject-with {}", kind.map_or("", |(name, ..)| name))
    }
}

//! Which packets one listener wants to hear of.

use super::sighting::{Arriving, Sighting};
use crate::control::protocol::VerdictFilter;
use crate::control::select::read_prefix;
use stateway_core::conntrack::CtState;
use stateway_core::filter::nearest;
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::Prefix;
use stateway_core::packet::summary::Headline;

/// A client's filter, read.
#[derive(Debug)]
pub(super) struct Wanted {
    filter: VerdictFilter,
    hosts: Vec<Prefix>,
    in_iface: Option<IfaceId>,
    /// In or out.
    iface: Option<IfaceId>,
}

impl Wanted {
    /// # Errors
    /// What in it means nothing, for the client.
    pub(super) fn read(filter: VerdictFilter, ifaces: &[Iface]) -> Result<Self, String> {
        let find = |name: &Option<String>| name.as_deref().map(|name| find(name, ifaces)).transpose();
        Ok(Self {
            hosts: filter.hosts.iter().map(|text| read_prefix(text)).collect::<Result<_, _>>()?,
            in_iface: find(&filter.in_iface)?,
            iface: find(&filter.iface)?,
            filter,
        })
    }

    /// Every packet is wanted, whatever it is.
    pub(super) fn is_everything(&self) -> bool {
        self.filter == VerdictFilter::default()
    }

    /// What can be said before it is judged.
    pub(super) fn may_want(&self, arriving: &Arriving) -> bool {
        let VerdictFilter { src, dst, protocol, sport, dport, port, .. } = &self.filter;
        if self.in_iface.is_some_and(|iface| iface != arriving.iface) {
            return false;
        }
        let asks_of_ip = src.is_some()
            || dst.is_some()
            || protocol.is_some()
            || sport.or(*dport).or(*port).is_some()
            || !self.hosts.is_empty();
        let Some(head) = arriving.headline() else { return !asks_of_ip };
        let (from, to) = head.ports.unzip();
        src.is_none_or(|src| src == head.src.to_ip(head.family))
            && dst.is_none_or(|dst| dst == head.dst.to_ip(head.family))
            && protocol.is_none_or(|protocol| protocol == head.proto)
            && (sport.is_none() || *sport == from)
            && (dport.is_none() || *dport == to)
            && (port.is_none() || *port == from || *port == to)
            && self.hosts.iter().all(|host| is_end(head, host))
    }

    pub(super) fn wants(&self, sighting: &Sighting) -> bool {
        let VerdictFilter { ctstate, ctstates, fate, fates, rules, .. } = &self.filter;
        let Sighting { arriving, decision, fate: met, .. } = sighting;
        let state = decision.ctstate.map(CtState::word);
        let passes = |iface| iface == arriving.iface || decision.out.contains(&iface);
        self.may_want(arriving)
            && ctstate.as_deref().is_none_or(|word| Some(word) == state)
            && (ctstates.is_empty() || ctstates.iter().any(|word| Some(word.as_str()) == state))
            && fate.as_deref().is_none_or(|word| word == met.word())
            && (fates.is_empty() || fates.iter().any(|word| word == met.word()))
            && self.iface.is_none_or(passes)
            && (rules.is_empty() || sighting.rule().is_some_and(|rule| rules.contains(&rule)))
    }
}

fn is_end(head: &Headline, host: &Prefix) -> bool {
    host.family == head.family && (host.contains(head.src) || host.contains(head.dst))
}

fn find(name: &str, ifaces: &[Iface]) -> Result<IfaceId, String> {
    let names = || ifaces.iter().map(|iface| iface.name.as_str());
    if let Some(at) = names().position(|known| known == name) {
        return Ok(IfaceId(at as u16));
    }
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the router has {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(format!("no port `{name}`\n  hint: {hint}"))
}

//! Route mode: the router as an IP host between its networks.
//!
//! `forward` says where a packet goes and what is refused there, `local` takes what is for the router itself,
//! `send` puts packets on the wire: through the neighbours, and for the router's own through OUTPUT. All of it
//! follows Linux; where Linux and an RFC differ, Linux counts.

#![forbid(unsafe_code)]

mod extension;
mod forward;
pub(crate) mod hop_by_hop;
mod limits;
mod local;
mod send;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use limits::RejectLimits;
pub use settings::check_sysctl;

use crate::base::{
    Addr, DropReason, Family, Fate, Iface, IfaceId, Instant, Medium, RejectWith, RuleId, Stage,
};
use crate::config::RouterConfig;
use crate::neighbour::{Key, Neighbours};
use crate::packet::Packet;
use crate::packet::ipv4_options::Ipv4Options;
use crate::plane::{self, Link, Plane, Way};
use crate::record::Recorder;
use crate::route::Routes;
use core::ops::ControlFlow::{Break, Continue};
use limits::Limits;
use settings::Settings;
use std::sync::Arc;

/// The plane of a router in route mode.
#[derive(Debug)]
pub(crate) struct Host {
    ifaces: Arc<[Iface]>,
    routes: Arc<Routes>,
    neighbours: Neighbours<send::Pending>,
    limits: Limits,
    settings: Settings,
    udp_listeners: Box<[u16]>,
}

/// What route mode finds out of one packet.
#[derive(Default)]
pub(crate) struct Walk {
    /// Whose link address the frame will get.
    next_hop: Option<Addr>,
    /// Its IPv4 options, once they were looked at.
    options: Option<Ipv4Options>,
}

type Passage<'a, R> = plane::Passage<'a, Host, R>;

impl Host {
    pub(crate) fn new(config: &RouterConfig, ifaces: &Arc<[Iface]>) -> Self {
        let settings = Settings::new(&config.sysctl, ifaces);
        let statics = config.neighbours.iter().map(|n| {
            let key = Key { family: n.family, iface: n.iface, addr: n.addr };
            (key, n.mac)
        });
        Self {
            ifaces: Arc::clone(ifaces),
            routes: Arc::new(Routes::new(ifaces, &config.routes, settings.link_local)),
            neighbours: Neighbours::new(config.neighbour_policy, statics),
            limits: Limits::default(),
            settings,
            udp_listeners: config.udp_listeners.clone().into(),
        }
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }

    pub(crate) const fn neighbours(&self) -> &Neighbours<send::Pending> {
        &self.neighbours
    }

    /// Whether whoever is behind an interface has a link address: bare IP packets go without.
    fn has_neighbours(&self, iface: IfaceId) -> bool {
        self.ifaces[iface.index()].medium == Medium::Ethernet
    }

    /// The address that a program here speaks to `dst` with, unless it has chosen one; `None` if nothing leads there.
    pub(crate) fn source_for(&self, dst: Addr, family: Family) -> Option<Addr> {
        match self.way_of_own(dst, family, Link::Near(None))? {
            (Some(out), neighbour) => self.routes.source_on(out, neighbour, dst, family),
            (None, here) => Some(here),
        }
    }

    /// When [`Host::handle_neighbours`] wants to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.neighbours.poll_timeout()
    }
}

impl Plane for Host {
    type Walk<'a> = Walk;

    // Linux does the same where no VLAN is set up.
    const TAKES_PRIORITY_TAGS: bool = true;

    fn admit<R: Recorder>(&self, pkt: &Packet, pass: &mut Passage<'_, R>) -> Stage<()> {
        if let Err(reason) = self.check_arrival(pkt, pass) {
            return Break(Fate::Dropped(reason));
        }
        self.see(pkt, pass.ctx.at.iface);
        Continue(())
    }

    fn decide<R: Recorder>(&self, pkt: &mut Packet, pass: &mut Passage<'_, R>) -> Stage<Way> {
        self.route(pkt, pass)
    }

    fn prepare<R: Recorder>(&self, pkt: &mut Packet, out: IfaceId, pass: &mut Passage<'_, R>) -> Stage<()> {
        self.check_life_and_size(pkt, out, pass)
    }

    fn finish<R: Recorder>(&self, pkt: &mut Packet, out: IfaceId, pass: &Passage<'_, R>) {
        if let Some(options) = pass.walk.options {
            self.write_options(options, pkt, out, pass.walk.next_hop);
        }
    }

    fn send<R: Recorder>(&self, pkt: &mut Packet, out: IfaceId, pass: &mut Passage<'_, R>) -> Stage<()> {
        self.put_on_link(pkt, out, pass)
    }

    fn deliver<R: Recorder>(&self, pkt: &mut Packet, pass: &mut Passage<'_, R>) -> Fate {
        self.take_in(pkt, pass)
    }

    fn reject<R: Recorder>(
        &self,
        with: RejectWith,
        by: RuleId,
        pkt: &mut Packet,
        pass: &mut Passage<'_, R>,
    ) -> Fate {
        self.answer_refusal(with, by, pkt, pass)
    }

    fn originate<'a>(
        &self,
        dst: Addr,
        family: Family,
        link: Link,
    ) -> Option<(Option<IfaceId>, Self::Walk<'a>)>
    where
        Self: 'a,
    {
        let (out, next_hop) = self.way_of_own(dst, family, link)?;
        Some((out, Walk { next_hop: Some(next_hop), options: None }))
    }

    fn route_again<R: Recorder>(
        &self,
        pkt: &Packet,
        out: Option<IfaceId>,
        pass: &mut Passage<'_, R>,
    ) -> Stage<Option<IfaceId>> {
        let Some((out, next_hop)) = self.way_of_own(pkt.dst(), pkt.family(), Link::Near(out)) else {
            return Break(Fate::Dropped(DropReason::NoRoute));
        };
        pass.walk.next_hop = Some(next_hop);
        Continue(out)
    }

    fn address_out<R: Recorder>(&self, pkt: &Packet, out: IfaceId, pass: &Passage<'_, R>) -> Option<Addr> {
        let next_hop = pass.walk.next_hop.unwrap_or_else(|| pkt.dst());
        self.routes.source_on(out, next_hop, pkt.dst(), pkt.family())
    }

    fn address_in(&self, family: Family, iface: IfaceId) -> Option<Addr> {
        self.routes.first_on(iface, family)
    }

    fn carry_non_ip<R: Recorder>(&self, frame: &[u8], is_arp: bool, pass: &mut Passage<'_, R>) -> Stage<()> {
        Break(if is_arp { self.take_arp(frame, pass) } else { Fate::Dropped(DropReason::NotIp) })
    }
}

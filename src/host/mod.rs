//! Route mode: the router as an IP host between its networks.
//!
//! `forward` says where a packet goes and what is refused there, `local` takes what is for the router itself,
//! `send` puts packets on the wire: through the neighbours, and for the router's own through OUTPUT. All of it
//! follows Linux; where Linux and an RFC differ, Linux counts.

#![forbid(unsafe_code)]

mod forward;
mod hop_by_hop;
mod limits;
mod local;
mod send;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::check_sysctl;

use crate::config::RouterConfig;
use crate::filter::RejectWith;
use crate::icmp_reply::IcmpError;
use crate::neighbour::{Key, Neighbours};
use crate::packet::Packet;
use crate::route::Routes;
use crate::time::Instant;
use limits::Limits;
use settings::Settings;

/// What route mode adds to a router. In bridge mode only the limits are used.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) neighbours: Neighbours<send::Pending>,
    limits: Limits,
    settings: Settings,
}

impl Host {
    pub(crate) fn new(config: &RouterConfig) -> Self {
        let settings = Settings::new(&config.sysctl, &config.ifaces);
        let statics = config.neighbours.iter().map(|n| {
            let key = Key { family: n.family, iface: n.iface, addr: n.addr };
            (key, n.mac)
        });
        Self {
            neighbours: Neighbours::new(config.neighbour_policy, statics),
            limits: Limits::default(),
            settings,
        }
    }

    /// Whether REJECT may answer the sender of `pkt` now, who is on the same link; resets have no limit, as in Linux.
    pub(crate) fn may_answer_on_link(&self, with: RejectWith, pkt: &Packet, now: Instant) -> bool {
        /// The prefix that networks of IPv6 have: a bridge knows none.
        const PREFIX_LEN: u8 = 64;
        let RejectWith::Icmp(kind, code) = with else { return true };
        let to = (pkt.src(), pkt.family());
        self.limits.allow(&self.settings, IcmpError::new(kind, code), to, PREFIX_LEN, now)
    }

    pub(crate) fn routes(&self, config: &RouterConfig) -> Routes {
        Routes::new(&config.ifaces, &config.routes, self.settings.link_local)
    }
}

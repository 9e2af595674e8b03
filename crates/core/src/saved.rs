//! What outlives a router's process beside its connections ([`crate::conntrack::saved`]): who is behind which port, and
//! which link address stands for which address. Ports are named, since their numbers may be others next time.

#![forbid(unsafe_code)]

use crate::base::iface::IfaceId;
use crate::base::time::{Duration, Instant};
use crate::config::RouterConfig;
use crate::neighbour::Key;
use crate::packet::{Addr, Family, Mac};
use crate::router::{Planes, Router, RouterError};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A station or a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLink {
    port: String,
    mac: [u8; 6],
    /// A neighbour's; a bridge's station is known by its link address alone.
    addr: Option<IpAddr>,
}

impl Router {
    /// Another router that knows what this one knows at this moment, and changes nothing of it: rules with what they remember,
    /// settings, connections, expectations, stations or neighbours. Its counters begin anew, and fragments that wait stay here.
    /// `config` is what this one was made from.
    ///
    /// # Errors
    /// `config` is not this router's.
    pub fn copied(&self, config: RouterConfig, now: Instant) -> Result<Self, Vec<RouterError>> {
        let conntrack = self.conntrack();
        let own = conntrack.sysctls();
        let mut sysctl = config.sysctl;
        sysctl.extend(own.list().map(|(name, value)| (name.to_owned(), value.to_string())));
        let unix_epoch_nanos = self.unix_nanos(Instant::ZERO);
        let config = RouterConfig { rules: None, rules6: None, sysctl, unix_epoch_nanos, ..config };
        let copy = Self::with_rules(config, Arc::new(self.rules().copied()))?;
        let mut connections = Vec::new();
        conntrack.save(now, |connection| connections.push(connection));
        copy.conntrack().restore(connections.into_iter(), Duration::ZERO, now);
        let expectations = conntrack.save_expectations(now);
        copy.conntrack().restore_expectations(expectations.into_iter(), Duration::ZERO, now);
        for link in self.save_links(now) {
            copy.restore_link(&link, now);
        }
        Ok(copy)
    }

    /// Ends connections that are masqueraded with an address that their interface does not have, as Linux does when an address is
    /// deleted: for whoever restores connections of a router that had others. Returns how many those were.
    pub fn end_stale_masquerades(&self, now: Instant) -> usize {
        self.conntrack().end_masqueraded_if(now, |iface, addr, family| {
            let addresses = self.ifaces().get(iface.index()).map_or(&[][..], |iface| &iface.addresses);
            !addresses.iter().any(|own| own.family == family && own.addr == addr)
        })
    }

    /// The stations or neighbours that were learnt.
    pub fn save_links(&self, now: Instant) -> Vec<SavedLink> {
        let link = |iface: IfaceId, mac: Mac, addr| {
            let port = self.ifaces()[iface.index()].name.clone();
            SavedLink { port, mac: mac.0, addr }
        };
        match self.plane() {
            Planes::Bridge(bridge) => {
                let stations = bridge.stations().known(now).into_iter();
                stations.map(|(mac, iface)| link(iface, mac, None)).collect()
            }
            Planes::Host(host) => {
                let neighbours = host.neighbours().learnt().into_iter();
                neighbours.map(|(key, mac)| link(key.iface, mac, Some(key.addr.to_ip(key.family)))).collect()
            }
        }
    }

    /// Knows again what another process had learnt, before the first packet comes; returns whether it makes sense here.
    pub fn restore_link(&self, link: &SavedLink, now: Instant) -> bool {
        let SavedLink { port, mac, addr } = link;
        let Some(place) = self.ifaces().iter().position(|iface| iface.name == *port) else { return false };
        let (iface, mac) = (IfaceId(place as u16), Mac(*mac));
        match (self.plane(), addr) {
            (Planes::Bridge(bridge), None) => {
                bridge.stations().learn(mac, iface, now);
                true
            }
            (Planes::Host(host), Some(ip)) => {
                let family = Family::from(*ip);
                host.neighbours().relearn(Key { family, iface, addr: Addr::from(*ip) }, mac, now);
                true
            }
            (Planes::Bridge(_), Some(_)) | (Planes::Host(_), None) => false,
        }
    }
}

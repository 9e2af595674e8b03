//! What outlives a router's process beside its connections ([`crate::conntrack::saved`]): who is behind which port, and
//! which link address stands for which address. Ports are named, since their numbers may be others next time.

#![forbid(unsafe_code)]

use crate::base::iface::IfaceId;
use crate::base::time::Instant;
use crate::neighbour::Key;
use crate::packet::{Addr, Family, Mac};
use crate::router::{Planes, Router};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// A station or a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLink {
    port: String,
    mac: [u8; 6],
    /// A neighbour's; a bridge's station is known by its link address alone.
    addr: Option<IpAddr>,
}

impl Router {
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
                let family = if ip.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
                host.neighbours().relearn(Key { family, iface, addr: Addr::from(*ip) }, mac, now);
                true
            }
            (Planes::Bridge(_), Some(_)) | (Planes::Host(_), None) => false,
        }
    }
}

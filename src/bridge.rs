//! MAC learning between ports: bridge mode's routing decision.

#![forbid(unsafe_code)]

use crate::iface::IfaceId;
use crate::packet::Mac;
use crate::time::{Duration, Instant};
use parking_lot::RwLock;
use std::collections::BTreeMap;

/// A port is forgotten when its station was silent for so long (IEEE 802.1D §7.9.2).
const AGEING: Duration = Duration::from_secs(300);
/// A sighting refreshes the entry only if it is older than this: most frames take no write lock.
const REFRESH: Duration = Duration::from_secs(10);
/// Stations remembered at once; behind that, frames for unknown ones are flooded, which is correct, only slower.
const MAX_STATIONS: usize = 4096;

/// The first five bytes of the sixteen group addresses that stay on their link.
const RESERVED: [u8; 5] = [0x01, 0x80, 0xc2, 0x00, 0x00];

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    Port(IfaceId),
    /// Every port but the one it came from.
    Flood,
    /// Its station is behind the port it came from.
    Same,
    /// For the bridge itself, never for what is behind it (IEEE 802.1D table 7-10).
    Reserved,
}

#[derive(Clone, Copy, Debug)]
struct Station {
    iface: IfaceId,
    seen: Instant,
}

/// Which station is behind which port.
#[derive(Debug, Default)]
pub struct Bridge {
    stations: RwLock<BTreeMap<Mac, Station>>,
}

impl Bridge {
    /// Remembers that `src` was seen on `iface`. Group addresses are never learnt.
    pub fn learn(&self, src: Mac, iface: IfaceId, now: Instant) {
        if src.is_group() || src == Mac::default() {
            return;
        }
        let known = self.stations.read().get(&src).copied();
        if known.is_some_and(|s| s.iface == iface && now.saturating_since(s.seen) < REFRESH) {
            return;
        }
        let mut stations = self.stations.write();
        if stations.len() >= MAX_STATIONS && !stations.contains_key(&src) {
            stations.retain(|_, s| now.saturating_since(s.seen) < AGEING);
            if stations.len() >= MAX_STATIONS {
                return;
            }
        }
        stations.insert(src, Station { iface, seen: now });
    }

    /// Where a frame for `dst` that came in on `from` goes.
    pub fn lookup(&self, dst: Mac, from: IfaceId, now: Instant) -> Segment {
        if dst.0[..5] == RESERVED && dst.0[5] < 16 {
            return Segment::Reserved;
        }
        if dst.is_group() {
            return Segment::Flood;
        }
        match self.stations.read().get(&dst) {
            Some(s) if now.saturating_since(s.seen) >= AGEING => Segment::Flood,
            Some(s) if s.iface == from => Segment::Same,
            Some(s) => Segment::Port(s.iface),
            None => Segment::Flood,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn a_station_is_found_where_it_was_seen_last() {
        let bridge = Bridge::default();
        assert_eq!(bridge.lookup(A, IfaceId(0), Instant::ZERO), Segment::Flood);
        bridge.learn(A, IfaceId(1), Instant::ZERO);
        assert_eq!(bridge.lookup(A, IfaceId(0), Instant::ZERO), Segment::Port(IfaceId(1)));
        assert_eq!(bridge.lookup(A, IfaceId(1), Instant::ZERO), Segment::Same);
        bridge.learn(A, IfaceId(2), Instant::ZERO);
        assert_eq!(bridge.lookup(A, IfaceId(0), Instant::ZERO), Segment::Port(IfaceId(2)), "it moved");
        assert_eq!(bridge.lookup(A, IfaceId(0), Instant::from_secs(299)), Segment::Port(IfaceId(2)));
        assert_eq!(bridge.lookup(A, IfaceId(0), Instant::from_secs(300)), Segment::Flood, "it aged");
    }

    #[test]
    fn ten_thousand_made_up_stations_do_not_grow_the_table_beyond_its_bound() {
        let bridge = Bridge::default();
        for n in 0..10_000u32 {
            let [a, b, c, d] = n.to_be_bytes();
            bridge.learn(Mac([2, 1, a, b, c, d]), IfaceId(0), Instant::ZERO);
        }
        assert_eq!(bridge.stations.read().len(), MAX_STATIONS);
    }

    #[test]
    fn group_addresses_are_flooded_and_never_learnt() {
        let bridge = Bridge::default();
        bridge.learn(Mac::BROADCAST, IfaceId(1), Instant::ZERO);
        assert_eq!(bridge.lookup(Mac::BROADCAST, IfaceId(0), Instant::ZERO), Segment::Flood);
        for (last, goes) in [(0, Segment::Reserved), (15, Segment::Reserved), (16, Segment::Flood)] {
            let group = Mac([0x01, 0x80, 0xc2, 0, 0, last]);
            assert_eq!(bridge.lookup(group, IfaceId(0), Instant::ZERO), goes, "{group}");
        }
    }
}

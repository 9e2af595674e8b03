//! MAC learning between ports: bridge mode's routing decision.

#![forbid(unsafe_code)]

use crate::iface::IfaceId;
use crate::packet::Mac;
use crate::time::{Duration, Instant};
use core::sync::atomic::{AtomicU64, Ordering};
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

/// What is known of one station.
#[derive(Clone, Copy, Debug)]
pub struct Station {
    iface: IfaceId,
    seen: Instant,
}

impl Station {
    fn segment(&self, from: IfaceId) -> Segment {
        if self.iface == from { Segment::Same } else { Segment::Port(self.iface) }
    }
}

/// Which station is behind which port.
#[derive(Debug, Default)]
pub struct Bridge {
    stations: RwLock<BTreeMap<Mac, Station>>,
    /// Changes when a station appears, moves or is forgotten, after the change.
    version: AtomicU64,
}

/// What one worker remembers of the stations, so that most of its frames take no lock.
#[derive(Debug)]
pub struct Memory {
    version: u64,
    known: [Known; Self::PLACES],
}

/// One station; the place is free where the link address is zero, which no station has.
#[derive(Clone, Copy, Debug)]
struct Known {
    mac: u64,
    station: Station,
}

impl Memory {
    const PLACES: usize = 64;

    pub const fn new() -> Self {
        let nobody = Known { mac: 0, station: Station { iface: IfaceId(0), seen: Instant::ZERO } };
        Self { version: 0, known: [nobody; Self::PLACES] }
    }

    #[inline]
    fn get(&self, mac: Mac) -> Option<Station> {
        let mac = number(mac);
        let known = &self.known[Self::place(mac)];
        (known.mac == mac && mac != 0).then_some(known.station)
    }

    #[cold]
    fn put(&mut self, mac: Mac, station: Station) {
        let mac = number(mac);
        self.known[Self::place(mac)] = Known { mac, station };
    }

    #[inline]
    const fn place(mac: u64) -> usize {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        (mac.wrapping_mul(ODD) >> (64 - Self::PLACES.trailing_zeros())) as usize
    }
}

#[inline]
const fn number(Mac([a, b, c, d, rest @ ..]): Mac) -> u64 {
    u32::from_ne_bytes([a, b, c, d]) as u64 | (u16::from_ne_bytes(rest) as u64) << 32
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Bridge {
    /// As [`Bridge::learn`], for a worker with a memory.
    #[inline]
    pub fn learn_with(&self, memory: &mut Memory, src: Mac, iface: IfaceId, now: Instant) {
        self.catch_up(memory);
        let known = memory.get(src);
        if known.is_some_and(|s| s.iface == iface && now.saturating_since(s.seen) < REFRESH) {
            return;
        }
        if let Some(station) = self.learn(src, iface, now) {
            memory.put(src, station);
        }
    }

    /// As [`Bridge::lookup`], for a worker with a memory.
    #[inline(always)]
    pub fn lookup_with(&self, memory: &mut Memory, dst: Mac, from: IfaceId, now: Instant) -> Segment {
        self.catch_up(memory);
        if let Some(station) = memory.get(dst)
            && now.saturating_since(station.seen) < AGEING
        {
            return station.segment(from);
        }
        self.look_up_and_note(memory, dst, from, now)
    }

    #[cold]
    fn look_up_and_note(&self, memory: &mut Memory, dst: Mac, from: IfaceId, now: Instant) -> Segment {
        let segment = self.lookup(dst, from, now);
        // Known stations are alone in having one port; group addresses are never among them.
        if let Some(station) = self.stations.read().get(&dst) {
            memory.put(dst, *station);
        }
        segment
    }

    /// What is older than the last change is forgotten.
    #[inline]
    fn catch_up(&self, memory: &mut Memory) {
        let version = self.version.load(Ordering::Acquire);
        if memory.version != version {
            *memory = Memory { version, ..Memory::new() };
        }
    }

    /// Remembers that `src` was seen on `iface`, and says what is remembered. Group addresses are never learnt.
    pub fn learn(&self, src: Mac, iface: IfaceId, now: Instant) -> Option<Station> {
        if src.is_group() || src == Mac::default() {
            return None;
        }
        let known = self.stations.read().get(&src).copied();
        if known.is_some_and(|s| s.iface == iface && now.saturating_since(s.seen) < REFRESH) {
            return known;
        }
        let mut stations = self.stations.write();
        if stations.len() >= MAX_STATIONS && !stations.contains_key(&src) {
            stations.retain(|_, s| now.saturating_since(s.seen) < AGEING);
            self.version.fetch_add(1, Ordering::Release);
            if stations.len() >= MAX_STATIONS {
                return None;
            }
        }
        let station = Station { iface, seen: now };
        let before = stations.insert(src, station);
        if before.is_none_or(|before| before.iface != iface) {
            self.version.fetch_add(1, Ordering::Release);
        }
        Some(station)
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
            Some(s) => s.segment(from),
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
    fn a_memory_never_says_other_than_the_bridge() {
        let (bridge, mut memory) = (Bridge::default(), Memory::new());
        let at = Instant::from_secs;
        bridge.learn_with(&mut memory, A, IfaceId(1), at(0));
        assert_eq!(bridge.lookup_with(&mut memory, A, IfaceId(0), at(1)), Segment::Port(IfaceId(1)));
        // Another worker sees it move.
        bridge.learn(A, IfaceId(2), at(2));
        assert_eq!(bridge.lookup_with(&mut memory, A, IfaceId(0), at(3)), Segment::Port(IfaceId(2)));
        assert_eq!(bridge.lookup_with(&mut memory, A, IfaceId(2), at(3)), Segment::Same);
        bridge.learn_with(&mut memory, A, IfaceId(1), at(4));
        assert_eq!(
            bridge.lookup_with(&mut memory, A, IfaceId(0), at(4)),
            Segment::Port(IfaceId(1)),
            "and back"
        );
        // A refresh by another worker keeps it alive beyond what this one remembers.
        bridge.learn(A, IfaceId(1), at(100));
        assert_eq!(bridge.lookup_with(&mut memory, A, IfaceId(0), at(350)), Segment::Port(IfaceId(1)));
        assert_eq!(bridge.lookup_with(&mut memory, A, IfaceId(0), at(400)), Segment::Flood, "it aged");
        assert_eq!(bridge.lookup_with(&mut memory, Mac::BROADCAST, IfaceId(0), at(0)), Segment::Flood);
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

//! MAC learning between ports: bridge mode's routing decision.

#![forbid(unsafe_code)]

use crate::base::iface::IfaceId;
use crate::base::time::{Duration, Instant};
use crate::packet::Mac;
use core::sync::atomic::{AtomicU64, Ordering};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};

/// A port is forgotten when its station was silent for so long (IEEE 802.1D §7.9.2).
const AGEING: Duration = Duration::from_secs(300);
/// A sighting refreshes the entry only if it is older than this: most frames take no write lock.
const REFRESH: Duration = Duration::from_secs(10);
/// Sightings remembered behind one port. One more displaces the one of the same port that was refreshed longest ago, so
/// that whoever makes stations up displaces nobody behind another port.
const MAX_PORT_STATIONS: usize = 4096;
/// Ports share a counter of departures with those that have the same number modulo this.
const COUNTERS: usize = 64;

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
struct Station {
    iface: IfaceId,
    seen: Instant,
}

impl Station {
    fn segment(&self, from: IfaceId) -> Segment {
        if self.iface == from { Segment::Same } else { Segment::Port(self.iface) }
    }
}

/// Which station is behind which port.
#[derive(Debug)]
pub struct Stations {
    stations: RwLock<Sightings>,
    /// How often a station moved away from a port or was displaced, by port; changed with `stations` locked.
    departures: [AtomicU64; COUNTERS],
}

/// The stations, and which of a port's was refreshed longest ago.
///
/// Invariant: a station is in `ports` exactly once, at its port and the time of its last refresh.
#[derive(Debug, Default)]
struct Sightings {
    by_mac: BTreeMap<Mac, Station>,
    /// By number of the port.
    ports: Vec<BTreeSet<(Instant, Mac)>>,
}

impl Sightings {
    /// Enters what was seen of `mac`; says what was known of it before.
    fn insert(&mut self, mac: Mac, station: Station) -> Option<Station> {
        let before = self.by_mac.insert(mac, station);
        if let Some(before) = before {
            self.ports[before.iface.index()].remove(&(before.seen, mac));
        }
        let port = station.iface.index();
        if self.ports.len() <= port {
            self.ports.resize_with(port + 1, BTreeSet::new);
        }
        self.ports[port].insert((station.seen, mac));
        before
    }

    /// Forgets the station of a port that was refreshed longest ago if there are too many; says whether there were.
    fn displace(&mut self, iface: IfaceId) -> bool {
        let port = &mut self.ports[iface.index()];
        if port.len() <= MAX_PORT_STATIONS {
            return false;
        }
        if let Some((_, oldest)) = port.pop_first() {
            self.by_mac.remove(&oldest);
        }
        true
    }
}

/// What one worker remembers of frames between stations, so that most of them take no lock.
#[derive(Debug, Default)]
pub struct Memory {
    /// None, or as many as there are places.
    passed: Vec<Passed>,
}

/// Frames from one station to another, and where they go.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    ends: Ends,
    /// Until then nothing that silence brings about can change it.
    until: Instant,
    /// [`Stations::departures`] of both ports when it was so.
    departures: u64,
}

/// Receiver and sender, as they stand at the head of a frame; where it came in and where it goes.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    first: u64,
    last: u32,
    from: IfaceId,
    to: IfaceId,
}

impl Ends {
    #[inline]
    fn new(ends: &[u8; 12], from: IfaceId) -> Self {
        let (first, last) = (core::array::from_fn(|n| ends[n]), core::array::from_fn(|n| ends[8 + n]));
        Self { first: u64::from_ne_bytes(first), last: u32::from_ne_bytes(last), from, to: from }
    }

    #[inline]
    fn begin_as(self, other: Self) -> bool {
        (self.first, self.last, self.from) == (other.first, other.last, other.from)
    }

    #[inline]
    const fn place(self) -> usize {
        // The ends of both addresses meet in different bytes, so that there and back fall apart.
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (self.first ^ (self.last as u64) << 32).wrapping_mul(ODD);
        (mixed >> (64 - Memory::PLACES.trailing_zeros())) as usize
    }
}

impl Memory {
    const PLACES: usize = 256;

    pub const fn new() -> Self {
        Self { passed: Vec::new() }
    }
}

impl Default for Stations {
    fn default() -> Self {
        Self { stations: RwLock::default(), departures: [const { AtomicU64::new(0) }; COUNTERS] }
    }
}

impl Stations {
    /// How often a station left one of two ports. Both counts only grow, so that the same sum means that neither has
    /// changed.
    #[inline]
    fn departures(&self, from: IfaceId, to: IfaceId) -> u64 {
        let of = |iface: IfaceId| self.departures[iface.index() % COUNTERS].load(Ordering::Acquire);
        of(from).wrapping_add(of(to))
    }

    /// Behind which other port the receiver of a frame is, if `memory` has it and that and the sender's place still hold.
    /// `ends` is the head of the frame: receiver and sender.
    #[inline(always)]
    pub fn recall(&self, memory: &Memory, ends: &[u8; 12], from: IfaceId, now: Instant) -> Option<IfaceId> {
        let key = Ends::new(ends, from);
        let passed = memory.passed.get(key.place())?;
        let holds = passed.ends.begin_as(key)
            && passed.departures == self.departures(from, passed.ends.to)
            && now < passed.until;
        holds.then_some(passed.ends.to)
    }

    /// Learns where the sender of a frame is, and says behind which other port the receiver is, if the stations know it.
    #[cold]
    pub fn learn_and_look_up(
        &self,
        memory: &mut Memory,
        ends: &[u8; 12],
        from: IfaceId,
        now: Instant,
    ) -> Option<IfaceId> {
        let [dst, src] = [0, 6].map(|at| Mac(core::array::from_fn(|byte| ends[at + byte])));
        self.learn(src, from, now);
        // Both and the counts are read under one lock: another worker may have seen them elsewhere meanwhile.
        let stations = self.stations.read();
        let sender = stations.by_mac.get(&src).filter(|s| s.iface == from)?;
        let receiver = stations.by_mac.get(&dst)?;
        let Segment::Port(to) = receiver.segment(from) else { return None };
        let until = (sender.seen + REFRESH).min(receiver.seen + AGEING);
        if now >= until {
            return None;
        }
        let departures = self.departures(from, to);
        memory.passed.resize(Memory::PLACES, Passed::default());
        let ends = Ends { to, ..Ends::new(ends, from) };
        memory.passed[ends.place()] = Passed { ends, until, departures };
        Some(to)
    }

    /// Remembers that `src` was seen on `iface`. Group addresses are never learnt.
    pub fn learn(&self, src: Mac, iface: IfaceId, now: Instant) {
        if src.is_group() || src == Mac::default() {
            return;
        }
        let known = self.stations.read().by_mac.get(&src).copied();
        if known.is_some_and(|s| s.iface == iface && now.saturating_since(s.seen) < REFRESH) {
            return;
        }
        let mut stations = self.stations.write();
        let before = stations.insert(src, Station { iface, seen: now });
        if let Some(before) = before.filter(|before| before.iface != iface) {
            self.count_departure(before.iface);
        }
        if stations.displace(iface) {
            self.count_departure(iface);
        }
    }

    fn count_departure(&self, iface: IfaceId) {
        self.departures[iface.index() % COUNTERS].fetch_add(1, Ordering::Release);
    }

    /// Who is behind which port at `now`.
    pub fn known(&self, now: Instant) -> Vec<(Mac, IfaceId)> {
        let stations = self.stations.read();
        let living = stations.by_mac.iter().filter(|(_, s)| now.saturating_since(s.seen) < AGEING);
        living.map(|(mac, station)| (*mac, station.iface)).collect()
    }

    /// Where a frame for `dst` that came in on `from` goes.
    pub fn lookup(&self, dst: Mac, from: IfaceId, now: Instant) -> Segment {
        // The first is that of spanning tree, in which this bridge takes no part: Linux passes it on then.
        if dst.0[..5] == RESERVED && (1..16).contains(&dst.0[5]) {
            return Segment::Reserved;
        }
        if dst.is_group() {
            return Segment::Flood;
        }
        match self.stations.read().by_mac.get(&dst) {
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
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    /// As a bridge does with each frame.
    fn meet(
        bridge: &Stations,
        memory: &mut Memory,
        ends: &[u8; 12],
        from: IfaceId,
        now: Instant,
    ) -> Option<IfaceId> {
        let recalled = bridge.recall(memory, ends, from, now);
        recalled.or_else(|| bridge.learn_and_look_up(memory, ends, from, now))
    }

    #[test]
    fn a_station_is_found_where_it_was_seen_last() {
        let bridge = Stations::default();
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
        let (bridge, mut memory) = (Stations::default(), Memory::new());
        let at = Instant::from_secs;
        let frame =
            |dst: Mac, src: Mac| core::array::from_fn(|n| if n < 6 { dst.0[n] } else { src.0[n - 6] });
        let mut meet =
            |dst, src, from, now| meet(&bridge, &mut memory, &frame(dst, src), IfaceId(from), at(now));
        assert_eq!(meet(A, B, 0, 0), None, "nobody knows where A is");
        assert_eq!(meet(B, A, 1, 0), Some(IfaceId(0)));
        assert_eq!(meet(A, B, 0, 1), Some(IfaceId(1)));
        // Another worker sees A move.
        bridge.learn(A, IfaceId(2), at(2));
        assert_eq!(meet(A, B, 0, 3), Some(IfaceId(2)));
        assert_eq!(meet(A, B, 2, 3), None, "B is where A is");
        assert_eq!(meet(A, B, 0, 4), Some(IfaceId(2)), "and back");
        assert_eq!(meet(B, A, 1, 4), Some(IfaceId(0)), "and so is A");
        assert_eq!(meet(A, B, 0, 4), Some(IfaceId(1)));
        // Whoever speaks is heard in time, though this worker remembers its frames.
        for now in 5..200 {
            assert_eq!(meet(A, B, 0, now), Some(IfaceId(1)));
        }
        assert_eq!(bridge.lookup(B, IfaceId(1), at(480)), Segment::Port(IfaceId(0)));
        // A refresh by another worker keeps A alive beyond what this one remembers.
        bridge.learn(A, IfaceId(1), at(200));
        assert_eq!(meet(A, B, 0, 350), Some(IfaceId(1)));
        assert_eq!(meet(A, B, 0, 500), None, "it aged");
        assert_eq!(meet(Mac::BROADCAST, B, 0, 0), None);
    }

    /// A station that somebody makes up.
    fn made_up(n: u32) -> Mac {
        let mut mac = [2, 1, 0, 0, 0, 0];
        mac[2..].copy_from_slice(&n.to_be_bytes());
        Mac(mac)
    }

    #[test]
    fn a_flood_of_made_up_stations_displaces_nobody_behind_another_port() {
        let (bridge, attacker, victim) = (Stations::default(), IfaceId(0), IfaceId(1));
        let at = |n: u32| Instant::ZERO + Duration::from_millis(1) * n;
        bridge.learn(A, victim, at(0));
        bridge.learn(B, attacker, at(0));
        let remembered = bridge.departures(victim, IfaceId(2));
        for n in 0..10_000 {
            bridge.learn(made_up(n), attacker, at(n));
            assert_eq!(bridge.lookup(A, attacker, at(n)), Segment::Port(victim));
        }
        assert_eq!(bridge.stations.read().ports.iter().map(BTreeSet::len).collect::<Vec<_>>(), [4096, 1]);
        assert_eq!(bridge.departures(victim, IfaceId(2)), remembered, "others need not ask anew");
        assert_eq!(
            bridge.lookup(B, victim, at(10_000)),
            Segment::Flood,
            "it was silent longest behind its port"
        );
        // Whoever comes now finds room, behind whatever port.
        bridge.learn(B, attacker, at(10_000));
        bridge.learn(made_up(20_000), IfaceId(2), at(10_000));
        assert_eq!(bridge.lookup(B, victim, at(10_000)), Segment::Port(attacker));
        assert_eq!(bridge.lookup(made_up(20_000), victim, at(10_000)), Segment::Port(IfaceId(2)));
    }

    #[test]
    fn the_bound_is_a_ports_own_and_the_one_refreshed_longest_ago_goes() {
        let (bridge, port) = (Stations::default(), IfaceId(0));
        let known = |mac| bridge.lookup(mac, IfaceId(9), Instant::from_secs(20)) == Segment::Port(port);
        for n in 0..MAX_PORT_STATIONS as u32 {
            bridge.learn(made_up(n), port, Instant::ZERO);
        }
        bridge.learn(made_up(0), port, Instant::from_secs(20));
        assert!((0..4096).all(|n| known(made_up(n))), "the last one that there is room for");
        bridge.learn(A, port, Instant::from_secs(20));
        assert!(known(made_up(0)), "refreshed");
        assert!(!known(made_up(1)));
        assert!(known(made_up(2)) && known(A));
        // One that moves here takes room, and leaves some where it was.
        bridge.learn(B, IfaceId(1), Instant::from_secs(20));
        bridge.learn(B, port, Instant::from_secs(20));
        assert!(!known(made_up(2)) && known(B));
        let stations = bridge.stations.read();
        assert_eq!(stations.ports.iter().map(BTreeSet::len).collect::<Vec<_>>(), [4096, 0]);
        assert_eq!(stations.by_mac.len(), 4096);
    }

    #[test]
    fn a_memory_ends_when_its_station_is_displaced() {
        let (bridge, mut memory) = (Stations::default(), Memory::new());
        let frame =
            |dst: Mac, src: Mac| core::array::from_fn(|n| if n < 6 { dst.0[n] } else { src.0[n - 6] });
        let at = Instant::from_secs;
        let mut meet =
            |dst, src, from, now| meet(&bridge, &mut memory, &frame(dst, src), IfaceId(from), at(now));
        meet(B, A, 0, 0);
        assert_eq!(meet(A, B, 1, 0), Some(IfaceId(0)));
        assert_eq!(meet(B, A, 0, 0), Some(IfaceId(1)));
        for n in 0..MAX_PORT_STATIONS as u32 {
            bridge.learn(made_up(n), IfaceId(0), at(1));
        }
        assert_eq!(meet(A, B, 1, 2), None, "A was displaced");
        assert_eq!(meet(B, A, 0, 2), Some(IfaceId(1)), "and is learnt again by its next frame");
        assert_eq!(meet(A, B, 1, 2), Some(IfaceId(0)));
    }

    #[test]
    fn group_addresses_are_flooded_and_never_learnt() {
        let bridge = Stations::default();
        bridge.learn(Mac::BROADCAST, IfaceId(1), Instant::ZERO);
        assert_eq!(bridge.lookup(Mac::BROADCAST, IfaceId(0), Instant::ZERO), Segment::Flood);
        for (last, goes) in
            [(0, Segment::Flood), (1, Segment::Reserved), (15, Segment::Reserved), (16, Segment::Flood)]
        {
            let group = Mac([0x01, 0x80, 0xc2, 0, 0, last]);
            assert_eq!(bridge.lookup(group, IfaceId(0), Instant::ZERO), goes, "{group}");
        }
    }
}

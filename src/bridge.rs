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
    /// There is no room for a new station before this, in nanoseconds: the first one cannot have aged.
    full_until: AtomicU64,
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
    /// [`Bridge::version`] when it was so.
    version: u64,
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
    #[inline(always)]
    fn new(ends: &[u8; 12], from: IfaceId) -> Self {
        let (first, last) = (core::array::from_fn(|n| ends[n]), core::array::from_fn(|n| ends[8 + n]));
        Self { first: u64::from_ne_bytes(first), last: u32::from_ne_bytes(last), from, to: from }
    }

    #[inline(always)]
    fn begin_as(self, other: Self) -> bool {
        (self.first, self.last, self.from) == (other.first, other.last, other.from)
    }

    #[inline(always)]
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

impl Bridge {
    /// Learns where the sender of a frame is, and says behind which other port the receiver is, if `memory` or the
    /// stations know it. `ends` is the head of the frame: receiver and sender.
    #[inline(always)]
    pub fn meet(&self, memory: &mut Memory, ends: &[u8; 12], from: IfaceId, now: Instant) -> Option<IfaceId> {
        let key = Ends::new(ends, from);
        if let Some(passed) = memory.passed.get(key.place())
            && passed.ends.begin_as(key)
            && passed.version == self.version.load(Ordering::Acquire)
            && now < passed.until
        {
            return Some(passed.ends.to);
        }
        self.meet_anew(memory, ends, from, now)
    }

    #[cold]
    fn meet_anew(
        &self,
        memory: &mut Memory,
        ends: &[u8; 12],
        from: IfaceId,
        now: Instant,
    ) -> Option<IfaceId> {
        let [dst, src] = [0, 6].map(|at| Mac(core::array::from_fn(|byte| ends[at + byte])));
        let sender = self.learn(src, from, now)?;
        // Read before what it vouches for.
        let version = self.version.load(Ordering::Acquire);
        let receiver = self.stations.read().get(&dst).copied()?;
        let Segment::Port(to) = receiver.segment(from) else { return None };
        let until = (sender.seen + REFRESH).min(receiver.seen + AGEING);
        if now >= until {
            return None;
        }
        memory.passed.resize(Memory::PLACES, Passed::default());
        let ends = Ends { to, ..Ends::new(ends, from) };
        memory.passed[ends.place()] = Passed { ends, until, version };
        Some(to)
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
        if known.is_none() && now.as_nanos() < self.full_until.load(Ordering::Relaxed) {
            return None;
        }
        let mut stations = self.stations.write();
        if stations.len() >= MAX_STATIONS
            && !stations.contains_key(&src)
            && !self.make_room(&mut stations, now)
        {
            return None;
        }
        let station = Station { iface, seen: now };
        let before = stations.insert(src, station);
        if before.is_none_or(|before| before.iface != iface) {
            self.version.fetch_add(1, Ordering::Release);
        }
        Some(station)
    }

    /// Forgets who was silent for too long. If nobody was, notes until when there is no need to look again: made-up
    /// stations would otherwise have every one of theirs looked through.
    #[cold]
    fn make_room(&self, stations: &mut BTreeMap<Mac, Station>, now: Instant) -> bool {
        stations.retain(|_, s| now.saturating_since(s.seen) < AGEING);
        if stations.len() < MAX_STATIONS {
            self.version.fetch_add(1, Ordering::Release);
            return true;
        }
        let first = stations.values().map(|s| s.seen).min().unwrap_or(now);
        self.full_until.store((first + AGEING).as_nanos(), Ordering::Relaxed);
        false
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
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

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
        let frame =
            |dst: Mac, src: Mac| core::array::from_fn(|n| if n < 6 { dst.0[n] } else { src.0[n - 6] });
        let mut meet =
            |dst, src, from, now| bridge.meet(&mut memory, &frame(dst, src), IfaceId(from), at(now));
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

    #[test]
    fn ten_thousand_made_up_stations_do_not_grow_the_table_beyond_its_bound() {
        let bridge = Bridge::default();
        for n in 0..10_000u32 {
            let [a, b, c, d] = n.to_be_bytes();
            bridge.learn(Mac([2, 1, a, b, c, d]), IfaceId(0), Instant::ZERO);
        }
        assert_eq!(bridge.stations.read().len(), MAX_STATIONS);
        let changes = bridge.version.load(Ordering::Relaxed);
        assert!(bridge.learn(A, IfaceId(0), Instant::from_secs(299)).is_none(), "no room");
        assert_eq!(bridge.version.load(Ordering::Relaxed), changes, "nobody forgets what he remembers");
        assert!(bridge.learn(A, IfaceId(0), Instant::from_secs(300)).is_some(), "they aged");
        assert_eq!(bridge.stations.read().len(), 1);
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

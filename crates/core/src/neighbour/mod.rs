//! Neighbours: which link address stands for which IP address, and what waits until that is known.
//!
//! ```text
//!               a packet          3 askings unheard
//!   (unknown) ──────────→ Incomplete ──────────→ (unknown); what waited is unreachable
//!                              │ answer
//!   a question heard           ↓         30 s            a packet         5 s          3 askings unheard
//!   ─────────→ Stale      Reachable ──────────→ Stale ──────────→ Delay ─────→ Probe ──────────→ (unknown)
//!                              ↑                              answer │            │
//!                              └─────────────────────────────────────┴────────────┘
//! ```
//!
//! ARP (RFC 826) and neighbour discovery (RFC 4861 §7.3) share this table and its timers, which are Linux's. The
//! messages themselves are in [`message`]. Everything is bounded: a flood to hosts that do not exist fills its part
//! of the table and no more, and what is known stays known.

#![forbid(unsafe_code)]

pub mod message;
#[cfg(test)]
mod tests;

use crate::base::fate::DropReason;
use crate::base::iface::IfaceId;
use crate::base::time::{Duration, Instant};
use crate::packet::{Addr, Family, Mac};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// `retrans_time`: between two askings.
const RETRANSMIT: Duration = Duration::from_secs(1);
/// `mcast_solicit` and `ucast_solicit`.
const ASKINGS: u8 = 3;
/// `base_reachable_time`, without the kernel's random half.
const REACHABLE: Duration = Duration::from_secs(30);
/// `delay_first_probe_time`: the traffic itself may bring a confirmation.
const DELAY: Duration = Duration::from_secs(5);
/// `gc_stale_time`: what nobody used is forgotten.
const STALE: Duration = Duration::from_secs(60);
/// `locktime`: of two answers to one question the first counts.
const LOCKTIME: Duration = Duration::from_secs(1);
/// `gc_thresh3`: learnt entries, static ones apart.
pub const MAX_NEIGHBOURS: usize = 1024;
/// How many of them may be unanswered questions: the rest is left for neighbours that exist.
pub const MAX_UNANSWERED: usize = 512;
/// An unanswered question gives way to a new one only after this: a neighbour that exists has answered by then.
const MIN_PATIENCE: Duration = Duration::from_millis(100);
/// Packets that wait for one neighbour.
pub const MAX_WAITING: usize = 101;
/// Bytes that wait for one neighbour.
pub const MAX_WAITING_BYTES: usize = 64 << 10;
/// Bytes that wait for all neighbours together.
pub const MAX_ALL_WAITING_BYTES: usize = 4 << 20;
/// Stations remembered from a capture.
const MAX_SEEN: usize = 65_536;

/// Where link addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NeighbourPolicy {
    /// Static entries, and asking for the rest.
    #[default]
    Ask,
    /// For a capture, in which nobody answers: static entries, else the link address last seen for it, else broadcast.
    LastSeen,
}

/// Whose link address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub family: Family,
    pub iface: IfaceId,
    pub addr: Addr,
}

/// A packet that is ready to wait for its next hop.
#[derive(Debug)]
pub struct Waiting<W> {
    pub packet: W,
    pub bytes: usize,
    /// Where it came from, if that is the router itself.
    pub own_src: Option<Addr>,
}

/// A question to put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub key: Key,
    /// The neighbour itself is asked whether it is still there; `None`: everybody is.
    pub to: Option<Mac>,
    /// The own address that the first waiting packet came from, if it is the router's.
    pub own_src: Option<Addr>,
}

/// What is known of a next hop.
#[derive(Debug)]
pub enum Resolution {
    Known(Mac),
    /// The packet waits.
    Waits,
    Refused(DropReason),
}

/// What a message of a neighbour says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hearing {
    /// An answer to our question, to us alone.
    pub confirms: bool,
    /// The address may replace another one.
    pub overrides: bool,
    /// The neighbour is remembered even if nobody asked for it.
    pub creates: bool,
    /// Not if another address was learnt a moment ago.
    pub respects_lock: bool,
}

/// What came due.
#[derive(Debug)]
pub struct Due<W> {
    pub asks: Vec<Ask>,
    pub unreachable: Vec<W>,
}

/// All neighbours of one router, and what waits for them: packets as its owner keeps them.
#[derive(Debug)]
pub struct Neighbours<W> {
    policy: NeighbourPolicy,
    statics: BTreeMap<Key, Mac>,
    table: RwLock<Table<W>>,
    seen: RwLock<BTreeMap<Key, Mac>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
}

#[derive(Debug)]
struct Neighbour<W> {
    state: State,
    /// Meaningless while [`State::Incomplete`].
    mac: Mac,
    /// When `mac` was learnt or first asked for.
    updated: Instant,
    /// When the state ends.
    deadline: Instant,
    asked: u8,
    own_src: Option<Addr>,
    waiting: VecDeque<Waiting<W>>,
    waiting_bytes: usize,
}

/// Invariant: `deadlines` holds every neighbour once, under its deadline, and `unanswered` every incomplete one, under
/// the time at which it was first asked for.
#[derive(Debug)]
struct Table<W> {
    neighbours: BTreeMap<Key, Neighbour<W>>,
    deadlines: BTreeSet<(Instant, Key)>,
    unanswered: BTreeSet<(Instant, Key)>,
    waiting_bytes: usize,
    /// Packets that gave way to others while they waited, since somebody last looked.
    displaced: u64,
}

impl<W> Default for Neighbours<W> {
    fn default() -> Self {
        Self::new(NeighbourPolicy::default(), [])
    }
}

impl<W> Neighbours<W> {
    pub fn new(policy: NeighbourPolicy, statics: impl IntoIterator<Item = (Key, Mac)>) -> Self {
        let table = RwLock::new(Table::new());
        Self { policy, statics: statics.into_iter().collect(), table, seen: RwLock::default() }
    }

    /// The link address of a next hop. If it is not known, the packet waits and a question goes to `asks`.
    pub fn resolve(
        &self,
        key: Key,
        now: Instant,
        waiting: impl FnOnce() -> Waiting<W>,
        asks: &mut Vec<Ask>,
    ) -> Resolution {
        if let Some(mac) = self.statics.get(&key) {
            return Resolution::Known(*mac);
        }
        if self.policy == NeighbourPolicy::LastSeen {
            return Resolution::Known(self.seen.read().get(&key).copied().unwrap_or(Mac::BROADCAST));
        }
        if let Some(mac) = self.table.read().ready(&key, now) {
            return Resolution::Known(mac);
        }
        let mut table = self.table.write();
        if let Some(mac) = table.use_stale(&key, now) {
            return Resolution::Known(mac);
        }
        if !table.neighbours.contains_key(&key) && !table.make_room(now) {
            return Resolution::Refused(DropReason::NeighbourTableFull);
        }
        table.wait(key, now, waiting(), asks)
    }

    /// Remembers where a packet came from, if that is how neighbours are known.
    pub fn see(&self, key: Key, mac: Mac) {
        if self.policy != NeighbourPolicy::LastSeen || mac.is_group() || key.addr.is_unspecified() {
            return;
        }
        if self.seen.read().get(&key) == Some(&mac) {
            return;
        }
        let mut seen = self.seen.write();
        if seen.len() < MAX_SEEN || seen.contains_key(&key) {
            seen.insert(key, mac);
        }
    }

    /// Takes in what a message says of a neighbour, and gives back what waited for it.
    #[must_use]
    pub fn hear(&self, key: Key, mac: Mac, hearing: Hearing, now: Instant) -> Vec<W> {
        if self.statics.contains_key(&key) || mac.is_group() || mac == Mac::default() {
            return Vec::new();
        }
        self.table.write().hear(key, mac, hearing, now)
    }

    /// The neighbours whose link address was learnt.
    pub fn learnt(&self) -> Vec<(Key, Mac)> {
        let table = self.table.read();
        let known = table.neighbours.iter().filter(|(_, n)| n.state != State::Incomplete);
        known.map(|(key, n)| (*key, n.mac)).collect()
    }

    /// Takes in a neighbour that was learnt before, by another process: it is used, and asked whether it is still there.
    pub fn relearn(&self, key: Key, mac: Mac, now: Instant) {
        let hearing = Hearing { confirms: false, overrides: false, creates: true, respects_lock: false };
        // Nothing waits for a neighbour yet.
        drop(self.hear(key, mac, hearing, now));
    }

    /// The link address that a message from this neighbour may be answered to, if it is known.
    pub fn mac(&self, key: &Key) -> Option<Mac> {
        self.statics.get(key).copied().or_else(|| {
            self.table.read().neighbours.get(key).filter(|n| n.state != State::Incomplete).map(|n| n.mac)
        })
    }

    /// Asks again, probes, ages and gives up.
    pub fn handle_timeout(&self, now: Instant) -> Due<W> {
        let mut due = Due { asks: Vec::new(), unreachable: Vec::new() };
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.table.write().handle_timeout(now, &mut due);
        }
        due
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.read().deadlines.first().map(|(at, _)| *at)
    }

    /// Packets that had waited and gave way to later ones, since the last call.
    pub fn take_displaced(&self) -> u64 {
        if self.table.read().displaced == 0 {
            return 0;
        }
        core::mem::take(&mut self.table.write().displaced)
    }

    /// How many neighbours are known or asked for, and the bytes that wait for them.
    pub fn size(&self) -> (usize, usize) {
        let table = self.table.read();
        (table.neighbours.len(), table.waiting_bytes)
    }
}

impl<W> Table<W> {
    const fn new() -> Self {
        Self {
            neighbours: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            waiting_bytes: 0,
            displaced: 0,
        }
    }

    /// A link address that may be used without a second thought.
    fn ready(&self, key: &Key, now: Instant) -> Option<Mac> {
        let n = self.neighbours.get(key)?;
        let usable = match n.state {
            State::Delay | State::Probe => true,
            State::Reachable => now < n.deadline,
            State::Incomplete | State::Stale => false,
        };
        usable.then_some(n.mac)
    }

    /// A link address that was right once: it is used, and looked into soon.
    fn use_stale(&mut self, key: &Key, now: Instant) -> Option<Mac> {
        let n = self.neighbours.get(key)?;
        if n.state == State::Incomplete {
            return None;
        }
        let mac = n.mac;
        if n.state == State::Stale || (n.state == State::Reachable && now >= n.deadline) {
            self.enter(*key, State::Delay, now + DELAY);
        }
        Some(mac)
    }

    fn enter(&mut self, key: Key, state: State, deadline: Instant) {
        let Some(n) = self.neighbours.get_mut(&key) else { return };
        self.deadlines.remove(&(n.deadline, key));
        self.deadlines.insert((deadline, key));
        if n.state == State::Incomplete && state != State::Incomplete {
            self.unanswered.remove(&(n.updated, key));
        }
        (n.state, n.deadline, n.asked) = (state, deadline, 0);
    }

    fn insert(&mut self, key: Key, state: State, mac: Mac, now: Instant, deadline: Instant) {
        let waiting = VecDeque::new();
        let n = Neighbour {
            state,
            mac,
            updated: now,
            deadline,
            asked: 0,
            own_src: None,
            waiting,
            waiting_bytes: 0,
        };
        self.neighbours.insert(key, n);
        self.deadlines.insert((deadline, key));
        if state == State::Incomplete {
            self.unanswered.insert((now, key));
        }
    }

    fn remove(&mut self, key: Key) -> VecDeque<Waiting<W>> {
        let Some(n) = self.neighbours.remove(&key) else { return VecDeque::new() };
        self.deadlines.remove(&(n.deadline, key));
        self.unanswered.remove(&(n.updated, key));
        self.waiting_bytes -= n.waiting_bytes;
        n.waiting
    }

    /// Makes room for one more question, if somebody can be spared.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.unanswered.len() >= MAX_UNANSWERED {
            let Some(&(since, oldest)) = self.unanswered.first() else { return false };
            if now.saturating_since(since) < MIN_PATIENCE {
                return false;
            }
            self.displaced += self.remove(oldest).len() as u64;
        }
        self.make_room_for_any()
    }

    fn make_room_for_any(&mut self) -> bool {
        if self.neighbours.len() < MAX_NEIGHBOURS {
            return true;
        }
        let is_stale = |key: &Key| self.neighbours.get(key).is_some_and(|n| n.state == State::Stale);
        let Some(oldest) = self.deadlines.iter().map(|(_, key)| *key).find(is_stale) else { return false };
        self.remove(oldest);
        true
    }

    /// Queues a packet, and asks if nobody did.
    fn wait(&mut self, key: Key, now: Instant, packet: Waiting<W>, asks: &mut Vec<Ask>) -> Resolution {
        let Waiting { bytes, own_src, .. } = packet;
        if bytes > MAX_WAITING_BYTES || self.waiting_bytes + bytes > MAX_ALL_WAITING_BYTES {
            return Resolution::Refused(DropReason::NeighbourQueueFull);
        }
        if !self.neighbours.contains_key(&key) {
            self.insert(key, State::Incomplete, Mac::default(), now, now + RETRANSMIT);
            asks.push(Ask { key, to: None, own_src });
        }
        let Some(n) = self.neighbours.get_mut(&key) else {
            return Resolution::Refused(DropReason::NeighbourTableFull);
        };
        if n.waiting.is_empty() {
            (n.asked, n.own_src) = (n.asked.max(1), own_src);
        }
        // The latest are worth more than the first: whoever sent those will send them again.
        while n.waiting.len() >= MAX_WAITING || n.waiting_bytes + bytes > MAX_WAITING_BYTES {
            let Some(first) = n.waiting.pop_front() else { break };
            n.waiting_bytes -= first.bytes;
            self.waiting_bytes -= first.bytes;
            self.displaced += 1;
        }
        n.waiting_bytes += bytes;
        self.waiting_bytes += bytes;
        n.waiting.push_back(packet);
        Resolution::Waits
    }

    fn hear(&mut self, key: Key, mac: Mac, hearing: Hearing, now: Instant) -> Vec<W> {
        let Some(n) = self.neighbours.get_mut(&key) else {
            if hearing.creates && self.make_room_for_any() {
                self.insert(key, State::Stale, mac, now, now + STALE);
            }
            return Vec::new();
        };
        let known = n.state != State::Incomplete;
        let moved = known && n.mac != mac;
        let locked = hearing.respects_lock && now.saturating_since(n.updated) < LOCKTIME;
        if moved && (!hearing.overrides || locked) {
            // Somebody else claims the address: it is not believed, but it is a reason to look (RFC 4861 §7.2.5).
            if !hearing.respects_lock && n.state == State::Reachable {
                self.enter(key, State::Stale, now + STALE);
            }
            return Vec::new();
        }
        let waiting = core::mem::take(&mut n.waiting);
        self.waiting_bytes -= core::mem::take(&mut n.waiting_bytes);
        if !known {
            self.unanswered.remove(&(n.updated, key));
        }
        if !known || moved {
            (n.mac, n.updated) = (mac, now);
        }
        if hearing.confirms {
            self.enter(key, State::Reachable, now + REACHABLE);
        } else if moved || !known {
            self.enter(key, State::Stale, now + STALE);
        }
        waiting.into_iter().map(|waiting| waiting.packet).collect()
    }

    fn handle_timeout(&mut self, now: Instant, due: &mut Due<W>) {
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= now
        {
            let Some(n) = self.neighbours.get_mut(&key) else {
                self.deadlines.pop_first();
                continue;
            };
            let (asked, own_src, mac) = (n.asked, n.own_src, n.mac);
            match n.state {
                State::Incomplete | State::Probe if asked >= ASKINGS => {
                    due.unreachable.extend(self.remove(key).into_iter().map(|waiting| waiting.packet));
                }
                State::Incomplete => {
                    due.asks.push(Ask { key, to: None, own_src });
                    self.ask_again(key, now);
                }
                State::Probe => {
                    due.asks.push(Ask { key, to: Some(mac), own_src: None });
                    self.ask_again(key, now);
                }
                State::Delay => {
                    self.enter(key, State::Probe, now + RETRANSMIT);
                    due.asks.push(Ask { key, to: Some(mac), own_src: None });
                    self.ask_again(key, now);
                }
                State::Reachable => self.enter(key, State::Stale, at + STALE),
                State::Stale => drop(self.remove(key)),
            }
        }
    }

    fn ask_again(&mut self, key: Key, now: Instant) {
        let Some(n) = self.neighbours.get_mut(&key) else { return };
        self.deadlines.remove(&(n.deadline, key));
        n.deadline = now + RETRANSMIT;
        n.asked += 1;
        self.deadlines.insert((n.deadline, key));
    }
}

//! What outlives a router's process: its connections and expectations, as values that mean the same in another process.
//!
//! Times are relative to the moment when they were taken down, connections are named by their tuples, and what was
//! remembered for speed alone is left out. Taking down holds up no packet for longer than a few entries take to copy.

#![forbid(unsafe_code)]

use super::event::{Happened, Told};
use super::expect::Follows;
use super::helper::ftp;
use super::sctp::Sctp;
use super::table::Cursor;
use super::table::entry::{Extra, Rare};
use super::tcp::saved::SavedTcp;
use super::{Conntrack, Direction, Entry, EntryId, Expectation, Helper, Proto, Status, Sysctls};
use crate::base::iface::IfaceId;
use crate::base::time::{Duration, Instant};
use crate::nat::seqadj::Shift;
use crate::packet::tuple::{PROTO_SCTP, PROTO_TCP};
use crate::packet::{Addr, Family, Tuple};
use core::sync::atomic::Ordering;
use serde::{Deserialize, Serialize};

/// No timeout is longer: they are signed 32-bit seconds to the kernel.
const MAX_LEFT: Duration = Duration::from_secs(i32::MAX as u64);

/// A flow's tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTuple {
    ends: Ends,
    left: u16,
    right: u16,
    zone: u16,
    proto: u8,
}

/// Source and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ends {
    Ipv4([u8; 4], [u8; 4]),
    Ipv6([u8; 16], [u8; 16]),
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedConnection {
    original: SavedTuple,
    /// [`Status`]
    status: u16,
    proto: SavedProto,
    /// Of its life.
    left: Duration,
    age: Duration,
    mark: u32,
    helper: Option<String>,
    is_counted: bool,
    is_timed: bool,
    rare: Option<Box<SavedRare>>,
}

/// What a connection's protocol remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SavedProto {
    Tcp(SavedTcp),
    Sctp(Sctp),
    Plain,
}

/// What few connections have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SavedRare {
    /// The tuple of answers, where it is not the mirror of the original.
    reply: Option<SavedTuple>,
    /// The connection that announced this one.
    master: Option<SavedTuple>,
    /// Where it leaves, if its source is an address of that interface.
    masqueraded: Option<u16>,
    /// How numbers are shifted, by direction.
    shifts: Option<[Shift; 2]>,
    /// Where lines of an FTP command connection begin, by direction.
    lines: [[Option<u32>; 2]; 2],
    /// Which events are told, if a rule has chosen: of the connection, and of what it announces.
    told: Option<(u16, bool)>,
    /// Packets and bytes, by direction.
    counters: [(u64, u64); 2],
}

/// An expectation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedExpectation {
    tuple: SavedTuple,
    master: SavedTuple,
    helper: String,
    left: Duration,
    /// Whether its master's answers announced it, and the port that was announced, where it follows its master's
    /// translation.
    follows: Option<(Direction, u16)>,
    is_told: Option<bool>,
}

/// How many were taken up again, and what became of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub connections: usize,
    pub expectations: usize,
    /// Whose time was over.
    pub expired: usize,
    /// For which there was no room, or no sense any more.
    pub refused: usize,
}

impl core::ops::AddAssign for Restored {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.expectations += other.expectations;
        self.expired += other.expired;
        self.refused += other.refused;
    }
}

impl SavedTuple {
    fn of(tuple: &Tuple) -> Self {
        let Tuple { src, dst, left, right, zone, proto, family } = *tuple;
        let ends = match family {
            Family::Ipv4 => Ends::Ipv4(src.v4(), dst.v4()),
            Family::Ipv6 => Ends::Ipv6(src.v6(), dst.v6()),
        };
        Self { ends, left, right, zone, proto }
    }

    fn tuple(&self) -> Tuple {
        let Self { ends, left, right, zone, proto } = *self;
        let (family, src, dst) = match ends {
            Ends::Ipv4(src, dst) => (Family::Ipv4, Addr::from_v4(src), Addr::from_v4(dst)),
            Ends::Ipv6(src, dst) => (Family::Ipv6, Addr::from_v6(src), Addr::from_v6(dst)),
        };
        Tuple { src, dst, left, right, zone, proto, family }
    }
}

impl SavedConnection {
    /// `master` is the tuple of the connection that announced this one.
    fn of(entry: &Entry, master: Option<Tuple>, now: Instant) -> Self {
        let proto = match entry.proto() {
            Proto::Tcp(tcp) => SavedProto::Tcp(SavedTcp::of(tcp)),
            Proto::Sctp(sctp) => SavedProto::Sctp(*sctp),
            Proto::Plain => SavedProto::Plain,
        };
        Self {
            original: SavedTuple::of(&entry.original),
            status: entry.status.bits(),
            proto,
            left: entry.timeout(now),
            age: now.saturating_since(entry.began_at),
            mark: entry.mark,
            helper: entry.helper.map(|helper| helper.name().to_owned()),
            is_counted: entry.is_counted(),
            is_timed: entry.is_timed(),
            rare: entry.extra.as_deref().map(|extra| Box::new(SavedRare::of(extra, master))),
        }
    }

    pub const fn age(&self) -> Duration {
        self.age
    }

    /// Whether a tracker can have known it.
    pub fn is_sound(&self) -> bool {
        match &self.proto {
            SavedProto::Tcp(tcp) => self.original.proto == PROTO_TCP && tcp.is_sound(),
            SavedProto::Sctp(_) => self.original.proto == PROTO_SCTP,
            SavedProto::Plain => !matches!(self.original.proto, PROTO_TCP | PROTO_SCTP),
        }
    }

    /// The connection as it goes on at `now`, `passed` after it was taken down; its master is to be found.
    fn resume(&self, passed: Duration, now: Instant) -> Option<Entry> {
        let proto = match &self.proto {
            SavedProto::Tcp(tcp) => Proto::Tcp(tcp.resume()?),
            SavedProto::Sctp(sctp) => Proto::Sctp(*sctp),
            SavedProto::Plain => Proto::Plain,
        };
        let sysctls = Sysctls { acct: self.is_counted, timestamp: self.is_timed, ..Sysctls::default() };
        let mut entry = Entry::new(self.original.tuple(), proto, now, &sysctls);
        entry.status = Status::from_bits_truncate(self.status) | Status::CONFIRMED;
        entry.status -= Status::DYING;
        entry.expires_at = now + self.left.min(MAX_LEFT).saturating_sub(passed);
        let age = u64::try_from((self.age + passed).as_nanos()).unwrap_or(u64::MAX);
        entry.began_at = Instant::from_nanos(now.as_nanos().saturating_sub(age));
        entry.mark = self.mark;
        entry.helper = self.helper.as_deref().and_then(Helper::by_name);
        if let Some(rare) = &self.rare {
            rare.resume(entry.extra_mut());
        }
        Some(entry)
    }
}

impl SavedRare {
    fn of(extra: &Extra, master: Option<Tuple>) -> Self {
        // How many children there are is counted when they are taken up; what is pending belongs to no entry of the table.
        let Extra { master: _, children: _, reply, masqueraded, told, rare } = extra;
        let Rare { ftp, shifts, pending: _, counters } = rare.as_deref().unwrap_or(&Rare::NONE);
        Self {
            reply: reply.as_ref().map(SavedTuple::of),
            master: master.as_ref().map(SavedTuple::of),
            masqueraded: masqueraded.map(|iface| iface.0),
            shifts: *shifts,
            lines: ftp.saved(),
            told: told.map(|told| (told.entry.bits(), told.announced)),
            counters: counters.map(|counter| (counter.packets, counter.bytes)),
        }
    }

    fn resume(&self, extra: &mut Extra) {
        extra.reply = self.reply.map(|reply| reply.tuple());
        extra.masqueraded = self.masqueraded.map(IfaceId);
        let counters = self.counters.map(|(packets, bytes)| super::Counter { packets, bytes });
        let rare = Rare { ftp: ftp::Lines::resume(self.lines), shifts: self.shifts, pending: None, counters };
        extra.rare = (rare != Rare::NONE).then(|| Box::new(rare));
        let told = |(entry, announced)| Told { entry: Happened::from_bits_truncate(entry), announced };
        extra.told = self.told.map(told);
    }
}

impl Conntrack {
    /// Shows every living connection, a few at a time.
    pub fn save(&self, now: Instant, mut take: impl FnMut(SavedConnection)) {
        let mut cursor = Some(Cursor::default());
        let mut copies = Vec::new();
        while let Some(at) = cursor {
            cursor = self.table.copy_some(at, &mut copies);
            for entry in copies.drain(..).filter(|entry| entry.is_alive(now)) {
                let master = entry.master().and_then(|id| self.table.with(id, |master| master.original));
                take(SavedConnection::of(&entry, master, now));
            }
        }
    }

    /// The expectations that wait.
    pub fn save_expectations(&self, now: Instant) -> Vec<SavedExpectation> {
        let save = |expectation: Expectation| SavedExpectation {
            tuple: SavedTuple::of(&expectation.tuple),
            master: SavedTuple::of(&expectation.master),
            helper: expectation.helper.name().to_owned(),
            left: expectation.timeout(now),
            follows: expectation.follows.map(|follows| (follows.announcer, follows.port)),
            is_told: expectation.is_told,
        };
        self.expectations(now).into_iter().map(save).collect()
    }

    /// Takes connections up again that were taken down `passed` ago, before the first packet comes. What is in the table
    /// already stays, and nothing is put in beyond `nf_conntrack_max`.
    pub fn restore(
        &self,
        connections: impl Iterator<Item = SavedConnection>,
        passed: Duration,
        now: Instant,
    ) -> Restored {
        let max = self.sysctls().max as usize;
        let mut restored = Restored::default();
        let mut announced = Vec::new();
        for saved in connections {
            let Some(entry) = saved.resume(passed, now) else {
                restored.refused += 1;
                continue;
            };
            if !entry.is_alive(now) {
                restored.expired += 1;
                continue;
            }
            let Some(id) = (max == 0 || self.table.len() < max).then(|| self.put_back(entry)).flatten()
            else {
                restored.refused += 1;
                continue;
            };
            restored.connections += 1;
            announced.extend(saved.rare.and_then(|rare| rare.master).map(|master| (id, master.tuple())));
        }
        for (child, master) in announced {
            if let Some(master) = self.id_of(&master) {
                self.table.with(child, |child| child.extra_mut().master = Some(master));
                self.table.with(master, |master| master.extra_mut().children += 1);
            }
        }
        restored
    }

    /// The same for expectations; the connections that announced them come first.
    pub fn restore_expectations(
        &self,
        expectations: impl Iterator<Item = SavedExpectation>,
        passed: Duration,
        now: Instant,
    ) -> Restored {
        let max = self.sysctls().expect_max;
        let mut restored = Restored::default();
        for saved in expectations {
            let left = saved.left.min(MAX_LEFT).saturating_sub(passed);
            if left.is_zero() {
                restored.expired += 1;
                continue;
            }
            let (tuple, master) = (saved.tuple.tuple(), saved.master.tuple());
            let added = self.id_of(&master).zip(Helper::by_name(&saved.helper)).map(|(id, helper)| {
                let is_told = saved.is_told;
                let tuple = Tuple { left: 0, ..tuple };
                let follows = saved.follows.map(|(announcer, port)| Follows { announcer, port });
                let expires_at = now + left;
                let expectation = Expectation { tuple, master, helper, expires_at, follows, is_told };
                self.expectations.add(id, expectation, max, now)
            });
            match added {
                Some(Ok(_)) => restored.expectations += 1,
                None | Some(Err(_)) => restored.refused += 1,
            }
        }
        restored
    }

    /// Puts an entry in the table, unless there is one of its tuple.
    pub(super) fn put_back(&self, entry: Entry) -> Option<EntryId> {
        let place = self.table.place(&entry.original);
        let mut shard = self.table.lock(place);
        if shard.find(place, &entry.original).is_some() {
            return None;
        }
        let translated = entry.translated_reply();
        let (original, status, helper) = (entry.original, entry.status, entry.helper);
        let id = self.table.insert(place, &mut shard, entry);
        drop(shard);
        if let Some(reply) = translated
            && !self.table.insert_alias(reply, id)
        {
            self.table.remove_id(id);
            return None;
        }
        self.note_source(&original, status, id);
        if translated.is_some() && helper == Some(Helper::Ftp) {
            self.rewrites_payloads.store(true, Ordering::Relaxed);
        }
        Some(id)
    }

    fn id_of(&self, tuple: &Tuple) -> Option<EntryId> {
        let held = self.table.hold(tuple)?;
        Some(held.id(held.shard.generation(held.slot)))
    }
}

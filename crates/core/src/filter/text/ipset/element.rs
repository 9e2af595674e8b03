//! One element of a set: what it is found by, how long it lives, what it counts.

#![forbid(unsafe_code)]

use crate::base::time::{Duration, Instant};
use crate::packet::{Addr, Mac};
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

/// What an element is found by, its network cut to its prefix; what the type of the set does not have is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) addr: Addr,
    pub(super) proto: u8,
    pub(super) port: u16,
    pub(super) second: Addr,
    pub(super) iface: IfaceName,
}

/// The name of an interface, with zeros behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IfaceName([u8; Self::MAX + 1]);

impl IfaceName {
    pub(super) const MAX: usize = 15;

    /// `None` if it is too long.
    pub(super) fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; Self::MAX + 1];
        bytes[..Self::MAX].get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }

    /// Without the zeros.
    pub(super) fn text(&self) -> String {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or_default();
        String::from_utf8_lossy(&self.0[..len]).into_owned()
    }

    /// Whether this is how `other` begins.
    pub(super) fn begins(&self, other: &Self) -> bool {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or_default();
        other.0.starts_with(&self.0[..len])
    }
}

#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) expiry: Expiry,
    /// An exception: what it holds is not in the set.
    pub(super) nomatch: bool,
    /// Its interface is how the names of interfaces begin.
    pub(super) wildcard: bool,
    /// A rule added it, not the text.
    pub(super) is_learnt: bool,
    /// bitmap:ip,mac: the link address that it stands for, which is that of the first packet where none was given.
    pub(super) mac: OnceLock<Mac>,
    pub(super) counters: Counters,
    /// What `--map-mark` makes of a packet's mark.
    pub(super) mark: Change,
}

impl Element {
    pub(super) fn copied(&self) -> Self {
        Self { mac: self.mac.clone(), counters: self.counters.clone(), ..*self }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Expiry {
    #[default]
    Never,
    At(Instant),
    /// After the first packet that asked for anything in the set: text knows no time.
    AfterBirth(Duration),
}

/// Bits to clear in a mark, and then bits to turn over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) value: u32,
    pub(super) mask: u32,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Counters {
    /// This packet is the first.
    pub(super) fn begin(&self, bytes: u64) {
        self.packets.store(1, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Clone for Counters {
    fn clone(&self) -> Self {
        let copy = |counter: &AtomicU64| counter.load(Ordering::Relaxed).into();
        Self { packets: copy(&self.packets), bytes: copy(&self.bytes) }
    }
}

/// How a counter of an element is compared with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal(u64),
    Differs(u64),
    Less(u64),
    Greater(u64),
}

impl Compare {
    const fn holds(self, counter: u64) -> bool {
        match self {
            Self::Equal(n) => counter == n,
            Self::Differs(n) => counter != n,
            Self::Less(n) => counter < n,
            Self::Greater(n) => counter > n,
        }
    }
}

/// What a rule asks for besides that the packet be in the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Exceptions are what is looked for.
    pub wants_nomatch: bool,
    pub keeps_counters: bool,
    /// list:set: the counters of the sets in it stay as they are.
    pub keeps_subcounters: bool,
    pub packets: Option<Compare>,
    pub bytes: Option<Compare>,
}

impl Query {
    /// What a list asks of the sets in it: it compares its own counters, not theirs.
    pub(super) const fn of_members(self) -> Self {
        let keeps_counters = self.keeps_counters || self.keeps_subcounters;
        Self { keeps_counters, packets: None, bytes: None, ..self }
    }
}

impl Element {
    pub(super) fn is_alive(&self, born: Instant, now: Instant) -> bool {
        match self.expiry {
            Expiry::Never => true,
            Expiry::At(at) => at > now,
            Expiry::AfterBirth(life) => born + life > now,
        }
    }

    /// Counts a packet of so many bytes, and says whether the counters are as asked for then.
    pub(super) fn counts(&self, bytes: u64, query: &Query) -> bool {
        let counters = &self.counters;
        if !query.keeps_counters {
            counters.packets.fetch_add(1, Ordering::Relaxed);
            counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let holds = |compare: Option<Compare>, counter: &AtomicU64| {
            compare.is_none_or(|compare| compare.holds(counter.load(Ordering::Relaxed)))
        };
        holds(query.packets, &counters.packets) && holds(query.bytes, &counters.bytes)
    }
}

//! A connection the router has seen.

#![forbid(unsafe_code)]

use super::Direction;
use super::helper::Helper;
use crate::packet::Tuple;
use crate::time::{Duration, Instant};
use bitflags::bitflags;

bitflags! {
    /// What has become of a connection so far, with the kernel's own bits (`-m conntrack --ctstatus`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Status: u16 {
        /// Another connection announced it.
        const EXPECTED = 1 << 0;
        /// A packet in the reply direction was accepted.
        const SEEN_REPLY = 1 << 1;
        /// Worth keeping when the table is full; never cleared.
        const ASSURED = 1 << 2;
        /// It is in the table.
        const CONFIRMED = 1 << 3;
        /// It leaves, or has left, the table.
        const DYING = 1 << 9;
        /// Packets do not renew its timeout.
        const FIXED_TIMEOUT = 1 << 10;
        /// A rule, not the tracker, chose its helper.
        const HELPER = 1 << 13;
    }
}

/// Packets and bytes in one direction, counted while `nf_conntrack_acct` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    /// IP packets as they stood, headers included.
    pub bytes: u64,
}

/// A connection the router has seen.
///
/// Invariant: a confirmed entry is in the table under the key of its tuple; an unconfirmed one travels with the
/// packet that made it, and dies with it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As the first packet went.
    pub original: Tuple,
    /// After this the entry is as good as absent.
    pub expires_at: Instant,
    pub status: Status,
    pub helper: Option<Helper>,
    /// The connection mark (`-j CONNMARK`, `-m connmark`).
    pub mark: u32,
    /// What the rules said of this connection last, by direction, in words of their own; 0: nothing yet.
    pub verdict: [u64; 2],
    pub began_at: Instant,
    pub counters: [Counter; 2],
}

impl Entry {
    pub(super) fn new(original: Tuple, now: Instant) -> Self {
        Self {
            original,
            expires_at: now,
            status: Status::empty(),
            helper: None,
            mark: 0,
            verdict: [0; 2],
            began_at: now,
            counters: [Counter::default(); 2],
        }
    }

    /// The tuple of answers.
    pub fn reply(&self) -> Tuple {
        self.original.reply()
    }

    pub fn tuple(&self, direction: Direction) -> Tuple {
        match direction {
            Direction::Original => self.original,
            Direction::Reply => self.reply(),
        }
    }

    /// What is left of its life; zero once it is as good as absent.
    pub const fn timeout(&self, now: Instant) -> Duration {
        self.expires_at.saturating_since(now)
    }

    /// Packets and bytes of both directions, original first.
    pub const fn counter(&self, direction: Direction) -> Counter {
        self.counters[direction as usize]
    }
}

//! A connection the router has seen.

#![forbid(unsafe_code)]

use crate::base::iface::IfaceId;
use crate::base::time::{Duration, Instant};
use crate::conntrack::event::Told;
use crate::conntrack::expect::Expectation;
use crate::conntrack::helper::{Helper, ftp};
use crate::conntrack::sctp::{Sctp, SctpState};
use crate::conntrack::table::wheel::{Tick, begin_of};
use crate::conntrack::tcp::{Tcp, TcpState};
use crate::conntrack::tracked::Translation;
use crate::conntrack::{Direction, EntryId, Sysctls};
use crate::nat::Side;
use crate::nat::seqadj::Shift;
use crate::packet::Tuple;
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
        /// Its source is translated.
        const SRC_NAT = 1 << 4;
        /// Its destination is translated.
        const DST_NAT = 1 << 5;
        /// A payload changed its length, and so numbers behind it are shifted.
        const SEQ_ADJUST = 1 << 6;
        /// Whether its source is translated is decided.
        const SRC_NAT_DONE = 1 << 7;
        /// Whether its destination is translated is decided.
        const DST_NAT_DONE = 1 << 8;
        /// It leaves, or has left, the table.
        const DYING = 1 << 9;
        /// Packets do not renew its timeout.
        const FIXED_TIMEOUT = 1 << 10;
        /// A rule, not the tracker, chose its helper.
        const HELPER = 1 << 13;
    }
}

bitflags! {
    /// Settings that a connection keeps from its beginning. Bits, not bools: an empty slot is told from a full one by a
    /// value that some field cannot have, and that field is to stand in the first cache line.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Switches: u8 {
        const ACCT = 1 << 0;
        const TIMESTAMP = 1 << 1;
    }
}

impl Status {
    /// That the end of packets is translated which their first one had there.
    pub const fn translates(side: Side) -> Self {
        match side {
            Side::Source => Self::SRC_NAT,
            Side::Destination => Self::DST_NAT,
        }
    }

    /// That this is decided, either way.
    pub const fn decided(side: Side) -> Self {
        match side {
            Side::Source => Self::SRC_NAT_DONE,
            Side::Destination => Self::DST_NAT_DONE,
        }
    }
}

impl Switches {
    fn new(sysctls: &Sysctls) -> Self {
        let mut switches = Self::empty();
        switches.set(Self::ACCT, sysctls.acct);
        switches.set(Self::TIMESTAMP, sysctls.timestamp);
        switches
    }
}

/// Packets and bytes in one direction, counted while `nf_conntrack_acct` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// How many packets there were.
    pub packets: u64,
    /// IP packets as they stood, headers included.
    pub bytes: u64,
}

/// What a connection's protocol remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// The state of a TCP connection.
    Tcp(Tcp),
    /// The state of an SCTP association.
    Sctp(Sctp),
    /// Everything that tuple, status and timers say already: UDP, ICMP, GRE and the rest.
    Plain,
}

/// Which state a connection's protocol is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conntrack) enum ProtoState {
    Tcp(TcpState),
    Sctp(SctpState),
    /// It has none.
    Plain,
}

/// What few connections have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::conntrack) struct Extra {
    /// Which connection announced this one.
    pub(in crate::conntrack) master: Option<EntryId>,
    /// Living connections that this one announced.
    pub(in crate::conntrack) children: u32,
    /// The tuple of answers, where addresses are translated; `None`: the mirror of the original.
    pub(in crate::conntrack) reply: Option<Tuple>,
    /// Where it leaves, if its source became an address of that interface (MASQUERADE).
    pub(in crate::conntrack) masqueraded: Option<IfaceId>,
    /// What is told of it, if a rule has chosen.
    pub(in crate::conntrack) told: Option<Told>,
    /// What a translated connection usually has not.
    pub(in crate::conntrack) rare: Option<Box<Rare>>,
}

/// What fewer connections have than are translated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::conntrack) struct Rare {
    pub(in crate::conntrack) ftp: ftp::Lines,
    /// How numbers are shifted in each direction, once a payload changed its length.
    pub(in crate::conntrack) shifts: Option<[Shift; 2]>,
    /// Announced before this connection itself was confirmed.
    pub(in crate::conntrack) pending: Option<Expectation>,
    /// By direction.
    pub(in crate::conntrack) counters: [Counter; 2],
}

const _: () = assert!(size_of::<Extra>() <= 72, "what a translated connection needs besides its slot");

impl Rare {
    /// Nothing of all that.
    pub(in crate::conntrack) const NONE: Self = Self {
        ftp: ftp::Lines::NONE,
        shifts: None,
        pending: None,
        counters: [Counter { packets: 0, bytes: 0 }; 2],
    };
}

impl Extra {
    pub(in crate::conntrack) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// A connection the router has seen.
///
/// Invariant: a confirmed entry is in the table under the key of its original tuple, and has an alias there if its reply
/// tuple is not the mirror of that; an unconfirmed one travels with the
/// packet that made it, and dies with it.
// In the order of use, so that a packet of an established connection without protocol states finds all it needs in two
// cache lines, and one with them in three: see `Slot` in `table/mod.rs`, which is laid out around this.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Entry {
    /// As the first packet went.
    pub original: Tuple,
    /// After this the entry is as good as absent.
    pub expires_at: Instant,
    /// What is known of it, in the kernel's bits.
    pub status: Status,
    /// Who reads its payload for connections that it announces.
    pub helper: Option<Helper>,
    switches: Switches,
    /// The connection mark (`-j CONNMARK`, `-m connmark`).
    pub mark: u32,
    /// What the rules said of this connection last, by direction, in words of their own; 0: nothing yet.
    pub verdict: [u64; 2],
    /// Which rule let its first packet pass, in a word of the rules' own; 0: none is known.
    pub let_in: u64,
    /// When its first packet came.
    pub began_at: Instant,
    pub(in crate::conntrack) extra: Option<Box<Extra>>,
    pub(in crate::conntrack) proto: Proto,
}

const _: () = assert!(
    core::mem::offset_of!(Entry, verdict) == 56,
    "tuple, timer and status leave room for a slot's head"
);

impl Entry {
    pub(in crate::conntrack) fn new(original: Tuple, proto: Proto, now: Instant, sysctls: &Sysctls) -> Self {
        Self {
            original,
            expires_at: now,
            status: Status::empty(),
            helper: None,
            switches: Switches::new(sysctls),
            mark: 0,
            extra: None,
            proto,
            verdict: [0; 2],
            let_in: 0,
            began_at: now,
        }
    }

    /// Packets and bytes are counted: `nf_conntrack_acct` was set when the connection began.
    #[inline]
    pub const fn is_counted(&self) -> bool {
        self.switches.contains(Switches::ACCT)
    }

    /// Its age is shown: `nf_conntrack_timestamp` was set when the connection began.
    pub const fn is_timed(&self) -> bool {
        self.switches.contains(Switches::TIMESTAMP)
    }

    /// The tuple of answers: the mirror of the original, unless addresses are translated.
    #[inline]
    pub fn reply(&self) -> Tuple {
        self.translated_reply().unwrap_or_else(|| self.original.reply())
    }

    /// The tuple of answers, if it is not the mirror of the original.
    #[inline]
    pub(in crate::conntrack) fn translated_reply(&self) -> Option<Tuple> {
        self.extra.as_ref()?.reply
    }

    /// The first packet's tuple, as far as it was translated.
    pub(in crate::conntrack) fn as_translated(&self) -> Tuple {
        self.reply().reply()
    }

    /// Sets the tuple of answers, which must be settled before the connection is confirmed.
    ///
    /// # Panics
    /// If it is confirmed, and so in the table under the tuple that it had.
    pub fn set_reply(&mut self, reply: Tuple) {
        assert!(!self.status.contains(Status::CONFIRMED), "the reply of a confirmed connection is settled");
        if reply != self.reply() {
            let mirror = self.original.reply();
            self.extra_mut().reply = Some(reply).filter(|reply| *reply != mirror);
        }
    }

    /// What packets of a direction become where this connection is translated.
    pub(in crate::conntrack) fn translation(&self, direction: Direction) -> Option<Translation> {
        let extra = self.extra.as_ref()?;
        if !self.status.intersects(Status::SRC_NAT | Status::DST_NAT) && extra.masqueraded.is_none() {
            return None;
        }
        let egress = extra.masqueraded.filter(|_| direction == Direction::Original);
        Some(Translation { to: self.tuple(direction.opposite()).reply(), egress })
    }

    pub(in crate::conntrack) fn shifts(&self) -> Option<&[Shift; 2]> {
        self.rare()?.shifts.as_ref()
    }

    /// Which way a packet of `tuple` goes, if it is of this connection.
    #[inline(always)]
    pub(in crate::conntrack) fn direction_of(&self, tuple: &Tuple) -> Option<Direction> {
        // What somebody sends to himself is its own answer: Linux finds it as that.
        if self.original == *tuple && (tuple.left != tuple.right || self.reply() != *tuple) {
            return Some(Direction::Original);
        }
        let is_answer = match self.extra.as_ref().and_then(|extra| extra.reply.as_ref()) {
            Some(reply) => reply == tuple,
            None => self.original == tuple.reply(),
        };
        is_answer.then_some(Direction::Reply)
    }

    /// What packets of one direction look like where they come in.
    pub fn tuple(&self, direction: Direction) -> Tuple {
        match direction {
            Direction::Original => self.original,
            Direction::Reply => self.reply(),
        }
    }

    /// What the tracker of its protocol keeps.
    pub const fn proto(&self) -> &Proto {
        &self.proto
    }

    /// What is left of its life; zero once it is as good as absent.
    pub const fn timeout(&self, now: Instant) -> Duration {
        self.expires_at.saturating_since(now)
    }

    /// Whether its time is not up.
    #[inline]
    pub fn is_alive(&self, now: Instant) -> bool {
        self.expires_at > now
    }

    /// Whether it ends before the wheel would look at it.
    #[inline]
    pub(in crate::conntrack) fn ends_before(&self, due: Tick) -> bool {
        self.expires_at < begin_of(due)
    }

    /// What it has carried in one direction.
    pub fn counter(&self, direction: Direction) -> Counter {
        self.rare().map_or_else(Counter::default, |rare| rare.counters[direction as usize])
    }

    /// How many hold on to it: the table, and each living connection that it announced.
    pub fn uses(&self) -> u32 {
        1 + self.extra.as_ref().map_or(0, |extra| extra.children)
    }

    /// Which connection announced this one.
    pub fn master(&self) -> Option<EntryId> {
        self.extra.as_ref().and_then(|extra| extra.master)
    }

    /// Which of its events are told, if a rule has chosen.
    pub(in crate::conntrack) fn told(&self) -> Option<Told> {
        self.extra.as_ref()?.told
    }

    pub(in crate::conntrack) fn rare(&self) -> Option<&Rare> {
        self.extra.as_ref()?.rare.as_deref()
    }

    pub(in crate::conntrack) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Worth less than a new connection when the table is full.
    pub(in crate::conntrack) fn is_evictable(&self) -> bool {
        let is_closing = match &self.proto {
            Proto::Tcp(tcp) => tcp.state().is_closing(),
            Proto::Sctp(sctp) => sctp.state().is_closing(),
            Proto::Plain => false,
        };
        !self.status.contains(Status::ASSURED) || is_closing
    }

    pub(in crate::conntrack) const fn state(&self) -> ProtoState {
        match &self.proto {
            Proto::Tcp(tcp) => ProtoState::Tcp(tcp.state()),
            Proto::Sctp(sctp) => ProtoState::Sctp(sctp.state()),
            Proto::Plain => ProtoState::Plain,
        }
    }

    /// Which state its protocol is in, in conntrack's words; `None` for protocols without states.
    pub const fn state_word(&self) -> Option<&'static str> {
        match self.state() {
            ProtoState::Tcp(state) => Some(state.name()),
            ProtoState::Sctp(state) => Some(state.word()),
            ProtoState::Plain => None,
        }
    }
}

//! The recorder that is threaded through the pipeline: how `explain`, coverage and the trace learn what happened.
//!
//! There is no second implementation of any decision: the same code runs with [`NoRecord`], which costs nothing,
//! and with one that listens. A note is a closure, so that it is made only for a recorder that wants it.

#![forbid(unsafe_code)]

use crate::base::fate::Fate;
use crate::base::iface::IfaceId;
use crate::base::{Hook, RuleId, Table};
use crate::conntrack::Tracked;
use crate::conntrack::helper::{Helper, Silence};
use crate::nat::{Choice, Side};
use crate::packet::{Addr, Tuple};

/// Who listens to what happens to a packet: one call for each thing, in order.
pub trait Recorder {
    /// Whether notes are wanted at all: without, rules that cannot hold need not be looked at one by one.
    const LISTENS: bool = true;

    /// Something happened. `note` makes the account of it, for whoever wants it.
    fn note(&mut self, note: impl FnOnce() -> Note);
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecord;

impl Recorder for NoRecord {
    const LISTENS: bool = false;

    #[inline]
    fn note(&mut self, _: impl FnOnce() -> Note) {}
}

/// Keeps every note of one packet, in order.
#[derive(Debug, Default)]
pub struct Trace {
    /// What happened, in order.
    pub notes: Vec<Note>,
}

impl Recorder for Trace {
    fn note(&mut self, note: impl FnOnce() -> Note) {
        self.notes.push(note());
    }
}

/// A decision on what becomes of one end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Translated {
    /// Which end.
    pub side: Side,
    /// `None`: no rule decided, and the connection is bound to what it has.
    pub by: Option<RuleId>,
    /// The first packet's tuple before.
    pub from: Tuple,
    /// What was chosen, and how.
    pub choice: Choice,
}

/// One thing that happened to a packet on its way.
#[derive(Clone, Debug)]
pub enum Note {
    /// A base chain is entered.
    Hook(Table, Hook),
    /// A rule was looked at; `failed` is the match that said no, counted from the left, or `None` if all agreed.
    Rule {
        /// Which rule.
        rule: RuleId,
        /// The match that said no, counted from the left; `None`: all agreed.
        failed: Option<u16>,
    },
    /// No rule decided, so the policy did.
    Policy(RuleId),
    /// What connection tracking said, right after it said it.
    Tracked(Box<Tracked>),
    /// The routing decision: where it goes next.
    Routed {
        /// By this interface.
        out: IfaceId,
        /// To this neighbour there.
        next_hop: Option<Addr>,
    },
    /// It is for the router itself.
    Local,
    /// What becomes of one end of a new connection was decided.
    Translated(Box<Translated>),
    /// A new connection entered the table.
    Confirmed,
    /// A helper announced a connection.
    Expected(String),
    /// A helper read it, and announced nothing.
    Unannounced(Helper, Silence),
    /// The packet left in its own frame, perhaps as one of several copies.
    Sent(IfaceId),
    /// It met its fate. What comes behind that is of packets that the router itself sends because of it.
    Fate(Fate),
    /// The way through OUTPUT of such a packet begins; it ends with that packet's own [`Note::Fate`].
    Own {
        /// Where it is to leave; `None` for one to the router itself.
        out: Option<IfaceId>,
        /// The packet in its frame, as it was written.
        frame: Vec<u8>,
    },
}

//! Which sequence and acknowledgement numbers an end could have sent: bounds I to IV.
//!
//! After Guido van Rooij's paper "Real Stateful TCP Packet Filtering in IP Filter" (2000), whose numbers are kept:
//! each side remembers how far it sent (`end`), how far the other allows it to send (`max_end`), and the largest
//! window it ever offered (`max_win`).
//!
//! ```text
//!              end − receiver.max_win          end        max_end
//!  ───────────────────┼────────────────────────┼─────────────┼──────────→ sequence numbers of the sender
//!          II below   │      retransmitted     │    new      │  I above
//! ```
//!
//! Whoever breaks I or III sends what no end could have sent: INVALID. II and IV are merely old: they pass and change
//! nothing.

#![forbid(unsafe_code)]

use super::{Class, Last, TcpState};
use crate::base::Tolerance;
use crate::conntrack::Direction;
use crate::packet::segment::Options;
use crate::packet::{Segment, Seq, TcpFlags};
use bitflags::bitflags;

/// An acknowledgement may lag behind what the other side sent by this much, or by the largest window
/// (van Rooij: the largest unscaled window, plus some room for the header that carries it).
const MAX_ACK_LAG: u32 = 66_000;

bitflags! {
    /// What is known of one side besides its numbers.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct SideFlags: u8 {
        /// Its SYN offered window scaling.
        const WSCALE = 0x01;
        const SACK_PERMITTED = 0x02;
        /// Its FIN was the first.
        const CLOSE_INIT = 0x04;
        /// Picked up in the middle: its numbers are not held against it.
        const BE_LIBERAL = 0x08;
        /// It sent data that is not yet acknowledged.
        const DATA_UNACKED = 0x10;
        /// `max_ack` is known.
        const MAX_ACK = 0x20;
        /// Kept from another process, and not heard since: see [`super::saved`].
        const RESUMED = 0x40;
    }
}

/// One end of a connection, as far as its segments tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// Behind the last byte it sent.
    pub(super) end: Seq,
    /// Behind the last byte it may send: what the other side acknowledged, and the window offered with it.
    pub(super) max_end: Seq,
    /// The largest window it offered, scaled. Zero: nothing is known of this side.
    pub(super) max_win: u32,
    /// The highest acknowledgement it sent; known with [`SideFlags::MAX_ACK`].
    pub(super) max_ack: Seq,
    pub(super) wscale: u8,
    pub(super) flags: SideFlags,
}

/// What is known of one side's numbers, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Behind the last byte it sent.
    pub end: u32,
    /// Behind the last byte it may send.
    pub max_end: u32,
    /// The largest window it offered, scaled, in bytes; zero: nothing was heard of it.
    pub max_win: u32,
    /// The highest acknowledgement it sent.
    pub max_ack: Option<u32>,
    /// By how many bits its windows are shifted, if its SYN said so.
    pub wscale: Option<u8>,
    /// Segments outside its window are let pass: its beginning was not seen.
    pub is_liberal: bool,
}

impl Side {
    pub(super) fn window(&self) -> Window {
        let has = |flag| self.flags.contains(flag);
        Window {
            end: self.end.0,
            max_end: self.max_end.0,
            max_win: self.max_win,
            max_ack: has(SideFlags::MAX_ACK).then_some(self.max_ack.0),
            wscale: has(SideFlags::WSCALE).then_some(self.wscale),
            is_liberal: has(SideFlags::BE_LIBERAL),
        }
    }
}

/// Which bound a segment broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// I. Data beyond what the receiver offered.
    DataAbove,
    /// III. Acknowledges what was not sent.
    AckAbove,
}

/// What the four bounds say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Inside,
    /// Passes, and changes nothing: bound I by no more than one window, as some stacks do when a window shrinks, or bound
    /// II or IV.
    Ignored(Tolerance),
    Invalid(Bound),
}

impl Side {
    /// The side that sent the first SYN of a connection.
    pub(super) fn opener(seg: &Segment) -> Self {
        let mut side = Self::default();
        side.start(seg);
        side
    }

    /// Starts from a SYN: nothing is allowed yet but what it carries.
    fn start(&mut self, seg: &Segment) {
        self.end = seg.end();
        self.max_end = seg.end();
        self.max_win = u32::from(seg.win).max(1);
        self.learn(&seg.options);
    }

    /// Starts a sender in the answering or opening role anew.
    ///
    /// Windows are scaled only if both SYNs offered it (RFC 7323 §2.2), which is known with the reply's.
    fn start_from_syn(&mut self, receiver: &mut Self, seg: &Segment, dir: Direction) {
        self.start(seg);
        let both = self.flags & receiver.flags & SideFlags::WSCALE;
        if dir == Direction::Reply && both.is_empty() {
            self.wscale = 0;
            receiver.wscale = 0;
        }
    }

    /// Starts from the middle of a connection whose history is lost to us.
    fn start_midstream(&mut self, receiver: &mut Self, seg: &Segment, sack: Seq) {
        let end = seg.end();
        self.end = end;
        self.max_win = (u32::from(seg.win) << self.wscale).max(1);
        self.max_end = end + self.max_win;
        if receiver.max_win == 0 {
            // Nothing was seen of the other side: it must have sent what is acknowledged here.
            receiver.end = sack;
            receiver.max_end = sack;
        } else if sack == receiver.end + 1 {
            // The answer to a keep-alive, whose one byte lies before what was sent (RFC 9293 §3.8.4).
            receiver.end = sack;
        }
    }

    /// Takes over the options of a SYN. A header without any leaves what was learnt before.
    fn learn(&mut self, options: &Options) {
        if !options.present {
            return;
        }
        self.flags &= SideFlags::BE_LIBERAL;
        self.flags |= syn_flags(options);
        self.wscale = options.wscale.unwrap_or(0);
    }
}

/// What the options of a SYN offer.
pub(super) fn syn_flags(options: &Options) -> SideFlags {
    let mut flags = SideFlags::empty();
    flags.set(SideFlags::WSCALE, options.wscale.is_some());
    flags.set(SideFlags::SACK_PERMITTED, options.sack_permitted);
    flags
}

/// A segment on its way from `sender` to `receiver`.
pub(super) struct Passage<'a> {
    pub(super) sender: &'a mut Side,
    pub(super) receiver: &'a mut Side,
    pub(super) last: &'a mut Last,
    pub(super) retrans: &'a mut u8,
    /// Before this segment.
    pub(super) state: TcpState,
    pub(super) class: Class,
    pub(super) dir: Direction,
    /// `nf_conntrack_tcp_be_liberal`
    pub(super) be_liberal: bool,
}

/// The numbers of a segment, as the checks take them.
#[derive(Clone, Copy)]
struct Numbers {
    seq: Seq,
    end: Seq,
    ack: Seq,
    /// `ack`, or the right edge of what was received beyond it (RFC 2018).
    sack: Seq,
}

impl Passage<'_> {
    /// Checks the segment against the four bounds, and remembers what it tells if it keeps them all.
    pub(super) fn check(mut self, seg: &Segment) -> Fit {
        let mut n = self.numbers(seg);
        if self.start_sides(seg, n.sack) {
            return Fit::Inside;
        }
        self.mend(seg, &mut n);
        match self.bounds(n) {
            Fit::Inside => {
                self.update(seg, n);
                Fit::Inside
            }
            // Picked up in the middle, or told to: what is out of bounds passes as if it were not, unremembered.
            _ if self.be_liberal || self.sender.flags.contains(SideFlags::BE_LIBERAL) => Fit::Inside,
            _ if self.takes_up(seg, n.sack) => Fit::Inside,
            outside => outside,
        }
    }

    fn numbers(&self, seg: &Segment) -> Numbers {
        let sack = match seg.options.sack_right {
            Some(right) if self.receiver.flags.contains(SideFlags::SACK_PERMITTED) => right,
            _ => seg.ack,
        };
        Numbers { seq: seg.seq, end: seg.end(), ack: seg.ack, sack }
    }

    /// Learns of a side that was not heard before. True if there is nothing left to check.
    fn start_sides(&mut self, seg: &Segment, sack: Seq) -> bool {
        let (syn, ack) = (seg.has(TcpFlags::SYN), seg.has(TcpFlags::ACK));
        if self.sender.max_win == 0 {
            if !syn && self.sender.flags.contains(SideFlags::RESUMED) {
                self.take_up(seg, sack);
                return false;
            }
            if !syn {
                self.sender.start_midstream(self.receiver, seg, sack);
                return false;
            }
            self.sender.start_from_syn(self.receiver, seg, self.dir);
            // Simultaneous open: a SYN that acknowledges nothing.
            return !ack;
        }
        // A SYN with a later number, before the handshake is over: that end began anew.
        let early = matches!(self.state, TcpState::SynSent | TcpState::SynRecv);
        if syn && early && seg.end().is_after(self.sender.end) {
            self.sender.start_from_syn(self.receiver, seg, self.dir);
            return self.dir == Direction::Reply && !ack;
        }
        false
    }

    /// Fills in what a segment leaves unsaid.
    fn mend(&self, seg: &Segment, n: &mut Numbers) {
        let rst = seg.has(TcpFlags::RST);
        // Without ACK the field means nothing; some stacks set ACK on a RST and leave the field zero.
        if !seg.has(TcpFlags::ACK) || (rst && n.ack == Seq(0)) {
            n.ack = self.receiver.end;
            n.sack = self.receiver.end;
        }
        // The answer to a SYN from a host with nothing to number (RFC 9293 §3.10.7.1).
        if rst && n.seq == Seq(0) && self.state == TcpState::SynSent {
            n.seq = self.sender.end;
            n.end = self.sender.end;
        }
    }

    fn bounds(&mut self, n: Numbers) -> Fit {
        let Self { sender, receiver, .. } = self;
        let max_lag = sender.max_win.max(MAX_ACK_LAG);
        let within_window = |end: Seq| end.is_after(sender.end - receiver.max_win - 1);
        let ack_is_sent = n.sack.is_before(receiver.end + 1);
        let ack_is_recent = n.sack.is_after(receiver.end - max_lag - 1);

        // I. No data beyond what the receiver offered.
        if !n.seq.is_before(sender.max_end + 1) {
            let overshoot = n.end.since(sender.max_end).wrapping_add(1);
            let heard = receiver.max_win != 0;
            if heard && within_window(n.end) && ack_is_recent && ack_is_sent && overshoot <= receiver.max_win
            {
                // The receiver may take it after all, and must then be allowed to acknowledge it.
                sender.end = n.end;
                sender.flags |= SideFlags::DATA_UNACKED;
                return Fit::Ignored(Tolerance::Overshoot(overshoot));
            }
            return Fit::Invalid(Bound::DataAbove);
        }
        // III. Nothing acknowledged that was not sent.
        if !ack_is_sent {
            return Fit::Invalid(Bound::AckAbove);
        }
        // II. No data older than one receive window.
        if receiver.max_win != 0 && !within_window(n.end) {
            return Fit::Ignored(Tolerance::DataBelow);
        }
        // IV. No acknowledgement that lags farther behind than any window.
        if !ack_is_recent {
            return Fit::Ignored(Tolerance::AckBelow);
        }
        Fit::Inside
    }

    fn update(self, seg: &Segment, n: Numbers) {
        let Self { sender, receiver, .. } = self;
        // The window of a SYN is never scaled (RFC 7323 §2.2).
        let shift = if seg.has(TcpFlags::SYN) { 0 } else { sender.wscale };
        let win = u32::from(seg.win) << shift;

        // What the sender offers and has sent. A SACK block shows that it takes more than it acknowledges.
        sender.max_win = sender.max_win.max(win.wrapping_add(n.sack.since(n.ack)));
        if n.end.is_after(sender.end) {
            sender.end = n.end;
            sender.flags |= SideFlags::DATA_UNACKED;
        }
        if seg.has(TcpFlags::ACK) {
            let known = sender.flags.contains(SideFlags::MAX_ACK);
            sender.max_ack = if known { sender.max_ack.later_of(n.ack) } else { n.ack };
            sender.flags |= SideFlags::MAX_ACK;
        }

        // What the receiver is known to take, and may now send.
        if receiver.max_win != 0 && n.end.is_after(sender.max_end) {
            receiver.max_win = receiver.max_win.wrapping_add(n.end.since(sender.max_end));
        }
        if (n.sack + win).is_after(receiver.max_end - 1) {
            // A closed window may be probed with one byte (RFC 9293 §3.8.6.1).
            receiver.max_end = n.sack + win + u32::from(win == 0);
        }
        if n.ack == receiver.end {
            receiver.flags -= SideFlags::DATA_UNACKED;
        }

        if self.class == Class::Ack {
            self.last.count_repetition(self.retrans, self.dir, n.seq, n.ack, n.end, seg.win);
        }
    }
}

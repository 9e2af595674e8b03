//! What is kept of a TCP connection while no router runs, and how it is taken up again.
//!
//! Both ends went on meanwhile, so their numbers have moved on from those that were kept. Each side is therefore heard once
//! before its numbers are held against it: its first segment is taken as it comes, as if the connection had been
//! picked up in its middle, and says how far the other side has got. Scaling factors are kept, so that windows are
//! right from then on, and all four bounds apply to both sides once both were heard.

#![forbid(unsafe_code)]

use super::window::{Passage, Side, SideFlags};
use super::{Class, Last, Seq, Tcp, TcpState};
use crate::conntrack::Direction;
use crate::packet::segment::MAX_WSCALE;
use crate::packet::{Segment, TcpFlags};
use serde::{Deserialize, Serialize};

/// A TCP connection as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::conntrack) struct SavedTcp {
    state: TcpState,
    retrans: u8,
    /// The opener's, then the responder's.
    sides: [SavedSide; 2],
    last: SavedLast,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedSide {
    end: u32,
    max_end: u32,
    max_ack: u32,
    wscale: u8,
    flags: u8,
}

/// The last segment that was remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedLast {
    class: Option<Class>,
    dir: Direction,
    win: u16,
    seq: u32,
    ack: u32,
    end: u32,
    wscale: u8,
    syn_flags: u8,
    expects_challenge_ack: bool,
    simultaneous_open: bool,
}

impl SavedTcp {
    pub(in crate::conntrack) const fn of(tcp: &Tcp) -> Self {
        let Tcp { state, retrans, opener, responder, last } = tcp;
        let sides = [SavedSide::of(opener), SavedSide::of(responder)];
        Self { state: *state, retrans: *retrans, sides, last: SavedLast::of(last) }
    }

    /// Whether it can be what a tracker remembered.
    pub(in crate::conntrack) fn is_sound(&self) -> bool {
        let is_scaled = |wscale: u8| wscale <= MAX_WSCALE;
        self.sides.iter().all(|side| is_scaled(side.wscale)) && is_scaled(self.last.wscale)
    }

    /// The connection, to be taken up again; `None` where an answer to the first SYN had not come. That will be repeated,
    /// and is a better beginning than one of which nobody knows how it went on.
    pub(in crate::conntrack) fn resume(&self) -> Option<Tcp> {
        let Self { state, retrans, sides: [opener, responder], last } = self;
        if matches!(state, TcpState::None | TcpState::SynSent | TcpState::SynSent2) {
            return None;
        }
        Some(Tcp {
            state: *state,
            retrans: *retrans,
            opener: opener.resume(),
            responder: responder.resume(),
            last: last.resume(),
        })
    }
}

impl SavedSide {
    const fn of(side: &Side) -> Self {
        // The largest window is learnt anew by `take_up`.
        let Side { end, max_end, max_win: _, max_ack, wscale, flags } = side;
        Self { end: end.0, max_end: max_end.0, max_ack: max_ack.0, wscale: *wscale, flags: flags.bits() }
    }

    const fn resume(&self) -> Side {
        Side {
            end: Seq(self.end),
            max_end: Seq(self.max_end),
            // Nothing is known of a side without a window, so no bound is drawn from it.
            max_win: 0,
            max_ack: Seq(self.max_ack),
            wscale: self.wscale,
            flags: SideFlags::from_bits_truncate(self.flags).union(SideFlags::RESUMED),
        }
    }
}

impl SavedLast {
    const fn of(last: &Last) -> Self {
        let Last { class, dir, win, seq, ack, end, wscale, syn_flags, .. } = last;
        Self {
            class: *class,
            dir: *dir,
            win: *win,
            seq: seq.0,
            ack: ack.0,
            end: end.0,
            wscale: *wscale,
            syn_flags: syn_flags.bits(),
            expects_challenge_ack: last.expects_challenge_ack,
            simultaneous_open: last.simultaneous_open,
        }
    }

    const fn resume(&self) -> Last {
        Last {
            class: self.class,
            dir: self.dir,
            win: self.win,
            seq: Seq(self.seq),
            ack: Seq(self.ack),
            end: Seq(self.end),
            wscale: self.wscale,
            syn_flags: SideFlags::from_bits_truncate(self.syn_flags),
            expects_challenge_ack: self.expects_challenge_ack,
            simultaneous_open: self.simultaneous_open,
        }
    }
}

impl Side {
    /// Goes on with this side from its first segment since the connection was taken up again. `receiver` has sent at
    /// least what is acknowledged here, whether or not it was heard.
    fn take_up(&mut self, receiver: &mut Self, seg: &Segment, sack: Seq) {
        self.flags -= SideFlags::RESUMED;
        self.max_win = (u32::from(seg.win) << self.wscale).max(1);
        self.move_to(seg, receiver, sack);
    }

    fn move_to(&mut self, seg: &Segment, receiver: &mut Self, sack: Seq) {
        let window = self.max_win;
        self.end = later(self.end, seg.end(), window);
        self.max_end = self.end + window;
        receiver.end = later(receiver.end, sack, window);
        receiver.max_end = later(receiver.max_end, sack + window, window);
    }
}

/// `new`, unless it lies behind `old` by no more than a window: then it is a repetition.
const fn later(old: Seq, new: Seq, window: u32) -> Seq {
    if old.since(new) <= window { old } else { new }
}

impl Passage<'_> {
    /// The first segment of a side since the connection was taken up again.
    #[cold]
    pub(super) fn take_up(&mut self, seg: &Segment, sack: Seq) {
        // A reset may be anybody's guess, and says nothing of the other side: it is not what to go on from.
        if !seg.has(TcpFlags::RST) {
            self.sender.take_up(self.receiver, seg, sack);
        }
    }

    /// Whether a segment out of bounds passes, because one side was not heard since the connection was taken up again:
    /// what is known of the other then is what was known before.
    #[cold]
    pub(super) fn takes_up(&mut self, seg: &Segment, sack: Seq) -> bool {
        if !(self.sender.flags | self.receiver.flags).contains(SideFlags::RESUMED) {
            return false;
        }
        if !seg.has(TcpFlags::RST) {
            self.sender.flags -= SideFlags::RESUMED;
            self.sender.move_to(seg, self.receiver, sack);
        }
        true
    }
}

#[cfg(test)]
mod tests;

//! TCP: where a connection stands, which segments belong to it, and how long it is remembered.
//!
//! One segment goes through three steps:
//!
//! 1. [`check`]: is it a TCP segment at all? Length, checksum, flags.
//! 2. [`state`]: what does it do to the connection? A table, drawn as a picture.
//! 3. [`window`]: could an end have sent it? Bounds I to IV.
//!
//! What is left to others: the table of connections, the status bits (`SEEN_REPLY`, `ASSURED`) and the timers
//! themselves. This module says what should become of them.

#![forbid(unsafe_code)]

pub(super) mod saved;
pub mod state;
pub mod window;

#[cfg(test)]
mod tests;

pub use state::{Class, TcpState};
pub use window::{Bound, Window};

use crate::base::Tolerance;
use crate::base::time::Duration;
use crate::conntrack::protocol::unsound;
use crate::conntrack::{Direction, InvalidReason, Sysctls};
use crate::packet::{Packet, Segment, Seq, TcpFlags};
use state::Next;
use window::{Fit, Passage, Side, SideFlags, syn_flags};

/// A connection that lives no longer than this is not cut short because of an INVALID FIN or RST.
pub const LIFE_LEFT_ALONE: Duration = Duration::from_secs(120);

/// No setting changes it: the kernel has no sysctl for this state.
const SYN_SENT2_TIMEOUT: Duration = Duration::from_secs(120);

/// What TCP remembers of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    state: TcpState,
    /// How often the last pure acknowledgement was repeated. Wraps as the kernel's does.
    retrans: u8,
    opener: Side,
    responder: Side,
    last: Last,
}

const _: () = assert!(size_of::<Tcp>() <= 64, "a cache line per connection");

/// The last segment that was remembered, to make sense of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    class: Option<Class>,
    dir: Direction,
    /// The window field, not scaled. Starts at zero, which shortens the timer until an ACK or an ignored
    /// segment was remembered.
    win: u16,
    seq: Seq,
    /// Of a pure ACK; or of a challenge ACK in `SYN_SENT`.
    ack: Seq,
    end: Seq,
    /// What a SYN offered that was let pass.
    wscale: u8,
    syn_flags: SideFlags,
    /// That SYN met `LAST_ACK`: the answer is a challenge, not the acknowledgement of a FIN.
    expects_challenge_ack: bool,
    /// Both sides opened at once.
    simultaneous_open: bool,
}

/// The status bits of the connection before this segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub seen_reply: bool,
    pub assured: bool,
    /// By how much the segment's acknowledgement was put back; what was remembered of segments let pass is as it was sent.
    pub put_back: u32,
}

/// What becomes of a segment and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOutcome {
    Accept {
        /// From now on; `None` leaves the timer as it is.
        timeout: Option<Duration>,
        /// The connection is assured from now on.
        assured: bool,
        /// The connection goes at once; the segment keeps the ctstate it has.
        delete: bool,
    },
    /// The segment passes; state and timer stay, for what it says is not believed.
    Tolerated(Tolerance),
    /// The connection stays as it is, except that it lives no longer than `cap_lifetime` from now, if it would
    /// live for [`LIFE_LEFT_ALONE`] or more.
    Invalid { reason: InvalidReason, cap_lifetime: Option<Duration> },
    /// The connection is over and the segment opens the next under the same tuple: delete it, look up again.
    Reopen,
}

impl TcpOutcome {
    /// The segment passes; state and timer stay.
    const PASS: Self = Self::Accept { timeout: None, assured: false, delete: false };

    const fn invalid(reason: InvalidReason) -> Self {
        Self::Invalid { reason, cap_lifetime: None }
    }
}

/// Reads the segment that `pkt` carries, before any connection is looked for.
///
/// # Errors
/// Why it is INVALID whatever is known.
#[inline(always)]
pub fn check(pkt: &Packet, sysctls: &Sysctls) -> Result<Segment, InvalidReason> {
    let Some(seg) = Segment::parse(pkt.l4()) else { return unsound(InvalidReason::TcpTruncated) };
    let is_verified = sysctls.checksum && !pkt.offload().skips_checksum() && !pkt.is_later_fragment();
    if is_verified && !pkt.adds_up() {
        return unsound(InvalidReason::Checksum);
    }
    if has_valid_flags(seg.flags) { Ok(seg) } else { unsound(InvalidReason::TcpFlags) }
}

/// Flags that a stack sends: one of SYN, RST and FIN at most, and everything but SYN and RST acknowledges.
const fn has_valid_flags(flags: TcpFlags) -> bool {
    const SYN: u8 = TcpFlags::SYN.bits();
    const RST: u8 = TcpFlags::RST.bits();
    const FIN: u8 = TcpFlags::FIN.bits();
    const ACK: u8 = TcpFlags::ACK.bits();
    const URG: u8 = TcpFlags::URG.bits();
    // PSH says nothing about the state, ECE and CWR belong to congestion control (RFC 3168 §6.1).
    let flags = flags.bits() & (SYN | RST | FIN | ACK | URG);
    match flags & !URG {
        SYN | ACK => true,
        flags_but_urg if flags_but_urg == FIN | ACK => true,
        // A reset and a SYN's answer carry no data, so nothing urgent either.
        flags_but_urg if flags_but_urg == SYN | ACK || flags_but_urg == RST | ACK || flags_but_urg == RST => {
            flags & URG == 0
        }
        _ => false,
    }
}

impl Tcp {
    /// A connection that somebody put into the table: of its numbers nothing is known, nor whether windows are scaled, so
    /// none is held against it.
    pub(super) fn by_hand(state: TcpState) -> Self {
        let flags = SideFlags::BE_LIBERAL.union(SideFlags::RESUMED);
        let side = Side { flags, ..Side::default() };
        Self { state, opener: side, responder: side, ..Self::default() }
    }

    /// Starts to remember a connection from its first segment, which then goes through [`Tcp::track`] like any.
    ///
    /// # Errors
    /// Why the segment cannot be the first that is seen of a connection.
    pub fn open(seg: &Segment, sysctls: &Sysctls) -> Result<Self, InvalidReason> {
        let opener = match Class::of(seg.flags) {
            Class::Syn => return Ok(Self { opener: Side::opener(seg), ..Self::default() }),
            Class::Ack if sysctls.tcp_loose => {
                // Older than our memory. Its windows may be scaled by a factor that we never saw.
                let max_win = u32::from(seg.win).max(1);
                Side { end: seg.end(), max_end: seg.end() + max_win, max_win, ..Side::default() }
            }
            Class::Ack => return Err(InvalidReason::TcpPickup),
            Class::SynAck | Class::Fin | Class::Rst => return Err(InvalidReason::TcpNew),
        };
        let flags = SideFlags::SACK_PERMITTED | SideFlags::BE_LIBERAL;
        Ok(Self {
            opener: Side { flags, ..opener },
            responder: Side { flags, ..Side::default() },
            ..Self::default()
        })
    }

    pub const fn state(&self) -> TcpState {
        self.state
    }

    /// The sequence number that a sender in this direction goes on with, and what it has to acknowledge.
    pub(super) const fn next_segment(&self, dir: Direction) -> (u32, u32) {
        let (sender, receiver) = match dir {
            Direction::Original => (&self.opener, &self.responder),
            Direction::Reply => (&self.responder, &self.opener),
        };
        (sender.end.0, receiver.end.0)
    }

    /// What is known of both sides' numbers: the opener's, and the other's.
    pub fn windows(&self) -> [Window; 2] {
        [self.opener.window(), self.responder.window()]
    }

    /// Behind the last byte that the opener sent.
    pub(super) const fn opener_end(&self) -> Seq {
        self.opener.end
    }

    /// The router itself has sent a reset to one side; what was seen of both stays known.
    pub const fn close(&mut self) {
        self.state = TcpState::Close;
    }

    /// Takes one segment that [`check`] let pass, the first of a connection included.
    pub fn track(&mut self, seg: &Segment, dir: Direction, seen: Seen, sysctls: &Sysctls) -> TcpOutcome {
        let class = Class::of(seg.flags);
        let old = self.state;
        // What the table says, and where that is not the whole story.
        let mut new = match state::next(dir, class, old) {
            Next::Invalid => return TcpOutcome::invalid(InvalidReason::TcpState),
            Next::Reopen if self.is_over(dir) => return TcpOutcome::Reopen,
            Next::Ignore | Next::Reopen => {
                if !self.is_answer_to_ignored_syn(seg, class, dir, seen) {
                    self.ignore(seg, class, dir);
                    return TcpOutcome::Tolerated(Tolerance::OutOfState);
                }
                self.restart_from_ignored_syn(dir);
                TcpState::SynRecv
            }
            Next::To(new) => new,
        };
        let mut windows_matter = true;
        match new {
            TcpState::TimeWait if self.is_challenge_ack(class, dir) => {
                self.last.expects_challenge_ack = false;
                return TcpOutcome::Tolerated(Tolerance::ChallengeAck);
            }
            TcpState::SynSent2 => self.last.simultaneous_open = true,
            TcpState::SynRecv
                if class == Class::Ack && dir == Direction::Reply && self.last.simultaneous_open =>
            {
                new = TcpState::Established;
            }
            TcpState::Close if class == Class::Rst => match self.judge_reset(seg, dir, seen, sysctls) {
                Reset::Unchecked { keeps_state } => {
                    windows_matter = false;
                    new = if keeps_state { old } else { new };
                }
                Reset::Checked { keeps_state } => new = if keeps_state { old } else { new },
                Reset::Invalid => return TcpOutcome::invalid(InvalidReason::TcpRst),
            },
            _ => {}
        }

        if windows_matter {
            match self.passage(class, dir, sysctls).check(seg) {
                Fit::Inside => {}
                Fit::Ignored(what) => return TcpOutcome::Tolerated(what),
                Fit::Invalid(bound) => return self.refuse(bound, class, dir, seen, sysctls),
            }
        }
        self.advance(new, class, dir);
        self.outcome(old, class, seen, sysctls)
    }

    /// The connection is known to be over: a FIN was seen before it came to rest, or this very side reset it.
    fn is_over(&self, dir: Direction) -> bool {
        let closed = (self.opener.flags | self.responder.flags).contains(SideFlags::CLOSE_INIT);
        closed || (self.last.class == Some(Class::Rst) && self.last.dir == dir)
    }

    /// A SYN that we let pass was in earnest, for the other side answers it.
    fn is_answer_to_ignored_syn(&self, seg: &Segment, class: Class, dir: Direction, seen: Seen) -> bool {
        class == Class::SynAck
            && self.last.class == Some(Class::Syn)
            && self.last.dir != dir
            && seg.ack + seen.put_back == self.last.end
    }

    /// Begins again with the SYN that was let pass and remembered. `dir` is that of its answer.
    fn restart_from_ignored_syn(&mut self, dir: Direction) {
        self.last.expects_challenge_ack = false;
        let Last { end, win, wscale, syn_flags, .. } = self.last;
        let (sender, receiver) = self.sides_mut(dir);
        let max_win = u32::from(win).max(1);
        *receiver = Side { end, max_end: end, max_win, wscale, flags: syn_flags, ..Side::default() };
        *sender = Side { flags: sender.flags & SideFlags::BE_LIBERAL, ..Side::default() };
    }

    /// Remembers a segment that passes without effect, for what its answer will say.
    fn ignore(&mut self, seg: &Segment, class: Class, dir: Direction) {
        let last = &mut self.last;
        last.class = Some(class);
        last.dir = dir;
        last.seq = seg.seq;
        last.end = seg.end();
        last.win = seg.win;
        match (class, dir) {
            (Class::Syn, Direction::Original) => {
                last.simultaneous_open = false;
                last.syn_flags = syn_flags(&seg.options);
                last.wscale = seg.options.wscale.unwrap_or(0);
                last.expects_challenge_ack = self.state == TcpState::LastAck;
            }
            (Class::Ack, Direction::Reply) if self.state == TcpState::SynSent => last.ack = seg.ack,
            _ => {}
        }
    }

    /// In `LAST_ACK`, the answer to a SYN that was let pass is no acknowledgement of the last FIN (RFC 5961 §4).
    fn is_challenge_ack(&self, class: Class, dir: Direction) -> bool {
        self.state == TcpState::LastAck
            && class == Class::Ack
            && self.last.class == Some(Class::Syn)
            && self.last.dir != dir
            && self.last.expects_challenge_ack
    }

    /// Whether a reset is in earnest (RFC 5961 §3), and whether its numbers are still to be checked.
    fn judge_reset(&self, seg: &Segment, dir: Direction, seen: Seen, sysctls: &Sysctls) -> Reset {
        const ENDS: bool = false;
        // 1. The tuple may have been used again behind our back: what we know is outdated.
        if self.state.is_closing() {
            return Reset::Unchecked { keeps_state: ENDS };
        }
        let (_, receiver) = self.sides(dir);
        let established = self.state == TcpState::Established && seen.assured;
        let mut keeps_state = ENDS;

        // 2. Against the receiver's highest acknowledgement, unless a SYN that we let pass made it outdated.
        if receiver.flags.contains(SideFlags::MAX_ACK) && self.last.class != Some(Class::Syn) {
            // a. The answer to a SYN from a host with nothing to number.
            if seg.seq == Seq(0) && !established {
                return Reset::Checked { keeps_state: ENDS };
            }
            // b. What was acknowledged cannot be reset any more.
            if seg.seq.is_before(receiver.max_ack) && !sysctls.tcp_ignore_invalid_rst {
                return Reset::Invalid;
            }
            // c. The exact number, or the end of a train: data and, right behind it, the reset.
            let ends_train =
                self.last.class == Some(Class::Ack) && self.last.dir == dir && self.last.end == seg.seq;
            if !established || seg.seq == receiver.max_ack || ends_train {
                return Reset::Checked { keeps_state: ENDS };
            }
            // d. The receiver will answer with a challenge ACK and live on, unless it had not got the data yet.
            keeps_state = true;
        }
        // 3. The answer to a SYN or ACK that we let pass although it had no meaning for us.
        let answers_syn = seen.seen_reply && self.last.class == Some(Class::Syn) && self.last.dir != dir;
        let answers_ack = !seen.assured && self.last.class == Some(Class::Ack);
        if seg.ack + seen.put_back == self.last.end && (answers_syn || answers_ack) {
            return Reset::Unchecked { keeps_state };
        }
        // 4. The opener's answer to a challenge ACK that we let pass.
        if self.state == TcpState::SynSent
            && self.last.class == Some(Class::Ack)
            && self.last.dir == Direction::Reply
            && seg.seq == self.last.ack
        {
            return Reset::Unchecked { keeps_state };
        }
        // 5. The window decides.
        Reset::Checked { keeps_state }
    }

    /// An end that sends a FIN or a RST beyond the window may have lost its peer: the connection shall not linger.
    fn refuse(
        &mut self,
        bound: Bound,
        class: Class,
        dir: Direction,
        seen: Seen,
        sysctls: &Sysctls,
    ) -> TcpOutcome {
        let reason = match bound {
            Bound::AckAbove => InvalidReason::TcpAckUnseen,
            Bound::DataAbove => InvalidReason::TcpAboveWindow,
        };
        if !seen.assured || !matches!(class, Class::Fin | Class::Rst) {
            return TcpOutcome::invalid(reason);
        }
        let answers_end = matches!(self.last.class, Some(Class::Fin | Class::Rst)) && self.last.dir != dir;
        if answers_end {
            return TcpOutcome::Invalid { reason, cap_lifetime: Some(sysctls.tcp_timeout_unacknowledged) };
        }
        self.last.class = Some(class);
        self.last.dir = dir;
        TcpOutcome::invalid(reason)
    }

    fn advance(&mut self, new: TcpState, class: Class, dir: Direction) {
        if new == TcpState::FinWait && self.state != new {
            self.sides_mut(dir).0.flags |= SideFlags::CLOSE_INIT;
        }
        self.last.class = Some(class);
        self.last.dir = dir;
        self.state = new;
    }

    /// Timer and status bits after an accepted segment.
    fn outcome(&self, old: TcpState, class: Class, seen: Seen, sysctls: &Sysctls) -> TcpOutcome {
        let mut timeout = self.timeout(class, sysctls);
        if !seen.seen_reply {
            // Refused before it began: nobody will miss it.
            if class == Class::Rst {
                return TcpOutcome::Accept { timeout: None, assured: false, delete: true };
            }
            // A repeated SYN does not prolong the wait for an answer, or a flood of one tuple would keep it for ever.
            if class == Class::Syn && old == TcpState::SynSent {
                return TcpOutcome::PASS;
            }
            if self.state == TcpState::Established {
                timeout = timeout.min(sysctls.tcp_timeout_unacknowledged);
            }
        }
        let assured = seen.seen_reply
            && !seen.assured
            && matches!(old, TcpState::SynRecv | TcpState::Established)
            && self.state == TcpState::Established;
        TcpOutcome::Accept { timeout: Some(timeout), assured, delete: false }
    }

    fn timeout(&self, class: Class, sysctls: &Sysctls) -> Duration {
        let normal = state_timeout(self.state, sysctls);
        let unacked = (self.opener.flags | self.responder.flags).contains(SideFlags::DATA_UNACKED);
        // Repeated in vain.
        if self.retrans >= sysctls.tcp_max_retrans && normal > sysctls.tcp_timeout_max_retrans {
            sysctls.tcp_timeout_max_retrans
        } else if class == Class::Rst {
            sysctls.tcp_timeout_close
        // Somebody owes an acknowledgement.
        } else if unacked && normal > sysctls.tcp_timeout_unacknowledged {
            sysctls.tcp_timeout_unacknowledged
        // The window is closed.
        } else if self.last.win == 0 && normal > sysctls.tcp_timeout_max_retrans {
            sysctls.tcp_timeout_max_retrans
        } else {
            normal
        }
    }

    const fn sides(&self, dir: Direction) -> (&Side, &Side) {
        match dir {
            Direction::Original => (&self.opener, &self.responder),
            Direction::Reply => (&self.responder, &self.opener),
        }
    }

    const fn sides_mut(&mut self, dir: Direction) -> (&mut Side, &mut Side) {
        match dir {
            Direction::Original => (&mut self.opener, &mut self.responder),
            Direction::Reply => (&mut self.responder, &mut self.opener),
        }
    }

    const fn passage(&mut self, class: Class, dir: Direction, sysctls: &Sysctls) -> Passage<'_> {
        let (sender, receiver) = match dir {
            Direction::Original => (&mut self.opener, &mut self.responder),
            Direction::Reply => (&mut self.responder, &mut self.opener),
        };
        Passage {
            sender,
            receiver,
            last: &mut self.last,
            retrans: &mut self.retrans,
            state: self.state,
            class,
            dir,
            be_liberal: sysctls.tcp_be_liberal,
        }
    }
}

/// `nf_conntrack_tcp_timeout_*` of a state.
pub const fn state_timeout(state: TcpState, sysctls: &Sysctls) -> Duration {
    match state {
        // Never left standing: the first segment moves on.
        TcpState::None | TcpState::SynSent => sysctls.tcp_timeout_syn_sent,
        TcpState::SynSent2 => SYN_SENT2_TIMEOUT,
        TcpState::SynRecv => sysctls.tcp_timeout_syn_recv,
        TcpState::Established => sysctls.tcp_timeout_established,
        TcpState::FinWait => sysctls.tcp_timeout_fin_wait,
        TcpState::CloseWait => sysctls.tcp_timeout_close_wait,
        TcpState::LastAck => sysctls.tcp_timeout_last_ack,
        TcpState::TimeWait => sysctls.tcp_timeout_time_wait,
        TcpState::Close => sysctls.tcp_timeout_close,
    }
}

/// What a reset deserves.
enum Reset {
    /// Accepted as it is. `keeps_state`: the connection lives on, for the short time of CLOSE.
    Unchecked {
        keeps_state: bool,
    },
    /// The window is to be checked.
    Checked {
        keeps_state: bool,
    },
    Invalid,
}

impl Default for Last {
    fn default() -> Self {
        Self {
            class: None,
            dir: Direction::Original,
            win: 0,
            seq: Seq(0),
            ack: Seq(0),
            end: Seq(0),
            wscale: 0,
            syn_flags: SideFlags::empty(),
            expects_challenge_ack: false,
            simultaneous_open: false,
        }
    }
}

impl Last {
    /// Counts how often the same acknowledgement was sent.
    fn count_repetition(&mut self, retrans: &mut u8, dir: Direction, seq: Seq, ack: Seq, end: Seq, win: u16) {
        let same = (self.dir, self.seq, self.ack, self.end, self.win) == (dir, seq, ack, end, win);
        if same {
            *retrans = retrans.wrapping_add(1);
        } else {
            *self = Self { dir, win, seq, ack, end, ..*self };
            *retrans = 0;
        }
    }
}

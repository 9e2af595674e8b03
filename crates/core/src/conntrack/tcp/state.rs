//! The TCP state machine of a router in the middle: a table, drawn as a picture.
//!
//! We see segments in passing. One that we forward may still be lost behind us, so either end can know less than
//! we do, never more. That is why the table differs from RFC 9293 §3.3.2: it follows what was *sent*, lets pass
//! what an end may have to answer for itself, and refuses only what no end could have sent in earnest.

#![forbid(unsafe_code)]

use crate::conntrack::Direction;
use crate::packet::TcpFlags;
use serde::{Deserialize, Serialize};

/// Where a connection stands, under the names that `conntrack -L` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing was accepted yet.
    #[default]
    None,
    /// The opener's SYN was seen.
    SynSent,
    /// The SYN was answered.
    SynRecv,
    Established,
    /// A FIN was seen, from either side.
    FinWait,
    /// The FIN was acknowledged.
    CloseWait,
    /// A second FIN was seen.
    LastAck,
    /// The second FIN was acknowledged.
    TimeWait,
    /// Reset.
    Close,
    /// Both sides sent a SYN (simultaneous open, RFC 9293 §3.5).
    SynSent2,
}

impl TcpState {
    pub const COUNT: usize = 10;
    pub const ALL: [Self; Self::COUNT] = [
        Self::None,
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::SynSent2,
    ];

    /// As conntrack-tools print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }

    /// On its way out: may be evicted early even if assured, and takes any RST.
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::FinWait | Self::CloseWait | Self::LastAck | Self::TimeWait | Self::Close)
    }
}

/// What a segment is to the state machine: the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Class {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

impl Class {
    pub const COUNT: usize = 5;
    pub const ALL: [Self; Self::COUNT] = [Self::Syn, Self::SynAck, Self::Fin, Self::Ack, Self::Rst];

    /// Of flags that [`super::check`] let pass, so that ACK is all that can be left at the end.
    pub const fn of(flags: TcpFlags) -> Self {
        if flags.contains(TcpFlags::RST) {
            Self::Rst
        } else if flags.contains(TcpFlags::SYN) {
            if flags.contains(TcpFlags::ACK) { Self::SynAck } else { Self::Syn }
        } else if flags.contains(TcpFlags::FIN) {
            Self::Fin
        } else {
            Self::Ack
        }
    }

    pub const fn word(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "syn-ack",
            Self::Fin => "fin",
            Self::Ack => "ack",
            Self::Rst => "rst",
        }
    }
}

/// What a cell of the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    To(TcpState),
    /// Passes, is remembered, and changes neither state nor timer: the ends know better what to make of it.
    Ignore,
    /// A new connection under the old one's tuple, if the old one is known to be over; else as [`Next::Ignore`].
    Reopen,
    Invalid,
}

/// What a segment of `class` in direction `dir` does to a connection in `state`.
pub const fn next(dir: Direction, class: Class, state: TcpState) -> Next {
    TABLE[dir as usize][class as usize][state as usize]
}

const SS: Next = Next::To(TcpState::SynSent);
const SR: Next = Next::To(TcpState::SynRecv);
const ES: Next = Next::To(TcpState::Established);
const FW: Next = Next::To(TcpState::FinWait);
const CW: Next = Next::To(TcpState::CloseWait);
const LA: Next = Next::To(TcpState::LastAck);
const TW: Next = Next::To(TcpState::TimeWait);
const CL: Next = Next::To(TcpState::Close);
const S2: Next = Next::To(TcpState::SynSent2);
const RE: Next = Next::Reopen;
const IG: Next = Next::Ignore;
const NO: Next = Next::Invalid;

/// By direction, class and state. The reasons stand above each row, named by the state they belong to.
#[rustfmt::skip]
const TABLE: [[[Next; TcpState::COUNT]; Class::COUNT]; 2] = [
    // ── original: from the side that opened ──────────────────────────────────────────────────────────────────
    [
        // None            opens
        // SynSent         retransmitted, perhaps with another sequence number
        // SynRecv … LastAck   late, or the opener restarted: the responder's challenge ACK settles it (RFC 5961 §4)
        // TimeWait, Close the next connection under the same tuple (RFC 9293 §3.6.1)
        // SynSent2        our SYN of a simultaneous open, again
        //         None SynSent SynRecv Establ. FinWait CloseWait LastAck TimeWait Close SynSent2
        /* syn  */ [SS,   SS,     IG,     IG,     IG,     IG,       IG,     RE,      RE,   S2],

        // None … SynSent  answers a SYN that the other side never sent
        // SynRecv         simultaneous open: ours is acknowledged, this acknowledges theirs
        // Established …   the side that opened has no SYN to answer any more
        // SynSent2        simultaneous open: both SYNs are known, the first is answered
        /* s.a. */ [NO,   NO,     SR,     NO,     NO,     NO,       NO,     NO,      NO,   SR],

        // None … SynSent  ends what has not begun
        // SynRecv         the handshake's ACK was lost, or came with the FIN
        // Established     first FIN
        // FinWait         a second one; from the same side it is a retransmission, but we cannot know which was lost
        // CloseWait       second FIN
        // LastAck …       retransmitted
        // SynSent2        ends what has not begun
        /* fin  */ [NO,   NO,     FW,     FW,     LA,     LA,       LA,     TW,      CL,   NO],

        // None            a connection older than our memory is picked up
        // SynSent         acknowledges what was never sent: the SYN is still unanswered
        // SynRecv         third step of the handshake
        // Established     data and acknowledgements
        // FinWait         the FIN is acknowledged, or so it seems: FIN's own side may be meant, which does no harm
        // CloseWait       half closed, data goes on one way
        // LastAck         the second FIN is acknowledged
        // TimeWait        the last ACK again
        // Close           late
        // SynSent2        an acknowledgement without SYN answers nothing here
        /* ack  */ [ES,   NO,     ES,     ES,     CW,     CW,       TW,     TW,      CL,   NO],

        // None            resets what is not there
        // all others      the end; whether it is in earnest is checked apart (RFC 5961 §3)
        /* rst  */ [NO,   CL,     CL,     CL,     CL,     CL,       CL,     CL,      CL,   CL],
    ],
    // ── reply: from the side that answers ────────────────────────────────────────────────────────────────────
    [
        // None            there is no reply to nothing
        // SynSent         simultaneous open
        // SynRecv … LastAck   a responder does not open within a connection
        // TimeWait        the responder opens the next one, roles exchanged
        // Close           as above: the one who was reset may still speak
        // SynSent2        simultaneous open, retransmitted
        //         None SynSent SynRecv Establ. FinWait CloseWait LastAck TimeWait Close SynSent2
        /* syn  */ [NO,   S2,     NO,     NO,     NO,     NO,       NO,     RE,      NO,   S2],

        // None            there is no reply to nothing
        // SynSent         second step of the handshake
        // SynRecv …       retransmitted, or an answer to a SYN that we let pass: then the opener did restart
        // SynSent2        simultaneous open: the first SYN is answered
        /* s.a. */ [NO,   SR,     IG,     IG,     IG,     IG,       IG,     IG,      IG,   SR],

        // as in the other direction: who sent the first FIN makes no difference
        /* fin  */ [NO,   NO,     FW,     FW,     LA,     LA,       LA,     TW,      CL,   NO],

        // None            there is no reply to nothing
        // SynSent         a challenge ACK to the SYN: the responder still has an older connection (RFC 5961 §4)
        // SynRecv         early data or a keep-alive: the handshake still lacks the opener's ACK. In a simultaneous
        //                 open it is the last step; see `Tcp::track`
        // Established …   as in the other direction
        // SynSent2        cannot acknowledge a SYN without one of its own: the opener will say what it thinks of it
        /* ack  */ [NO,   IG,     SR,     ES,     CW,     CW,       TW,     TW,      CL,   IG],

        // as in the other direction: SynSent is "connection refused"
        /* rst  */ [NO,   CL,     CL,     CL,     CL,     CL,       CL,     CL,      CL,   CL],
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_stand_in_the_order_of_the_table() {
        for (at, state) in TcpState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, at, "{}", state.name());
        }
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at, "{}", class.word());
        }
    }

    #[test]
    fn nothing_but_a_syn_or_a_pick_up_starts_a_connection_and_nothing_returns_to_none() {
        for class in Class::ALL {
            let opens = matches!(class, Class::Syn | Class::Ack);
            let first = next(Direction::Original, class, TcpState::None);
            assert_eq!(first != Next::Invalid, opens, "{}", class.word());
            assert_eq!(next(Direction::Reply, class, TcpState::None), Next::Invalid);
            for state in TcpState::ALL {
                for dir in [Direction::Original, Direction::Reply] {
                    assert_ne!(next(dir, class, state), Next::To(TcpState::None));
                }
            }
        }
    }

    #[test]
    fn the_two_directions_agree_on_how_a_connection_ends() {
        for class in [Class::Fin, Class::Rst] {
            for state in TcpState::ALL {
                let [there, back] = [Direction::Original, Direction::Reply].map(|d| next(d, class, state));
                assert_eq!(there, back, "{} in {}", class.word(), state.name());
            }
        }
    }
}

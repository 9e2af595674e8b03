//! Why a packet passed that the tracker does not go by.

#![forbid(unsafe_code)]

use core::fmt;

/// What was wrong with a packet that passes as its connection's, and changes nothing that is known of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Data beyond the receiver's window, by so many bytes, but no farther than one window.
    Overshoot(u32),
    /// Data older than one window.
    DataBelow,
    /// An acknowledgement that lags farther behind than any window.
    AckBelow,
    /// The state has no place for such a segment, and the ends know better what to make of it.
    OutOfState,
    /// The answer to a SYN that was let pass.
    ChallengeAck,
}

/// What was tolerated, in a sentence with the words of the kernel's log.
impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overshoot(bytes) => {
                write!(f, "{bytes} bytes more than expected: its data ends beyond the receiver's window")
            }
            Self::DataBelow => f.write_str("SEQ is under lower bound: already ACKed data retransmitted"),
            Self::AckBelow => f.write_str("ACK is under lower bound: possibly overly delayed"),
            Self::OutOfState => {
                f.write_str("ignored: the connection's state has no place for such a segment")
            }
            Self::ChallengeAck => {
                f.write_str("ignored: a challenge ACK, the answer to a SYN that was let pass")
            }
        }
    }
}

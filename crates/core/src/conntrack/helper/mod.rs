//! Helpers: what reads a connection's payload to learn which other connection it announces.
//!
//! A helper is one file and a line in each `match` here. It sees packets that FORWARD has accepted, before the
//! connection is confirmed, and only of connections that it was given to when they began.

#![forbid(unsafe_code)]

pub(super) mod ftp;
mod tftp;

use super::{CtState, Direction, Entry, Expectation};
use crate::base::time::Duration;
use crate::packet::tuple::{PROTO_TCP, PROTO_UDP};
use crate::packet::{Packet, Segment, Tuple};

/// A helper, as `-j CT --helper` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Helper {
    /// FTP: `PORT`, `PASV`, `EPRT`, `EPSV`.
    Ftp,
    /// TFTP: the answer comes from another port.
    Tftp,
}

/// Why a helper announces nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There is nothing to read: no payload, or the connection is not established yet.
    NothingToRead,
    /// It holds no announcement.
    NoAnnouncement,
    /// It holds what looks like an announcement, but does not begin where a line begins: no stream is put together.
    NotAtLineStart,
    /// An announcement of an address that is not the sender's.
    ForeignAddress,
}

impl Silence {
    /// Why, in a sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NothingToRead => "the packet holds nothing for it to read",
            Self::NoAnnouncement => "the packet holds no announcement",
            Self::NotAtLineStart => {
                "what looks like an announcement does not begin where a line begins, and lines are not put together from several packets"
            }
            Self::ForeignAddress => {
                "the announcement names an address that is not its sender's, and is not believed (RFC 2577)"
            }
        }
    }
}

/// What came of showing a packet to its connection's helper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// There is no helper, or nothing for it to read.
    Unread,
    /// It announced nothing, for this reason.
    Nothing(Silence),
    /// It announced a connection.
    Announced(Expectation),
}

/// What a helper makes of one packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Nothing(Silence),
    /// It begins like an announcement but cannot be read to its end: the packet goes. The word it begins with.
    Partial(&'static str),
    Announces(Announced),
}

/// A connection that will come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// `left`, the source port, is any.
    pub(super) tuple: Tuple,
    /// Where it stands in the packet, if it is written out there.
    pub(super) written: Option<ftp::Written>,
}

impl Helper {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Ftp, Self::Tftp];

    /// Its name in rules and listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
        }
    }

    /// The helper of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|helper| helper.name() == name)
    }

    /// The protocol of the connections that it reads.
    pub const fn proto(self) -> u8 {
        match self {
            Self::Ftp => PROTO_TCP,
            Self::Tftp => PROTO_UDP,
        }
    }

    /// Where its servers usually listen.
    pub const fn usual_port(self) -> u16 {
        match self {
            Self::Ftp => 21,
            Self::Tftp => 69,
        }
    }

    /// Whether it has the packet's pieces put into one buffer to read them: Linux forgets then how the packet had been cut.
    pub const fn linearizes(self, state: CtState) -> bool {
        matches!((self, state), (Self::Ftp, CtState::Established))
    }

    /// How many announcements of one connection may wait.
    pub const fn max_expectations(self) -> usize {
        match self {
            Self::Ftp | Self::Tftp => 1,
        }
    }

    /// How long an announcement waits.
    pub const fn patience(self) -> Duration {
        match self {
            Self::Ftp | Self::Tftp => Duration::from_secs(5 * 60),
        }
    }

    /// Reads one packet of a connection of its protocol; `tuple` is the packet's own.
    pub(super) fn read(
        self,
        entry: &mut Entry,
        (state, dir): (CtState, Direction),
        tuple: &Tuple,
        pkt: &Packet,
    ) -> Outcome {
        if pkt.proto() != self.proto() {
            // An ICMP error about the connection.
            return Outcome::Nothing(Silence::NothingToRead);
        }
        let l4 = pkt.l4();
        match self {
            Self::Ftp => {
                let Some(seg) = Segment::parse(l4) else {
                    return Outcome::Nothing(Silence::NothingToRead);
                };
                let payload = &l4[l4.len() - seg.len as usize..];
                let far = entry.tuple(dir.opposite());
                ftp::read(&mut entry.extra_mut().rare_mut().ftp, state, dir, (tuple, &far), &seg, payload)
            }
            Self::Tftp => tftp::read(&entry.reply(), l4.get(8..).unwrap_or_default()),
        }
    }
}

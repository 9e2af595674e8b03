//! SCTP: the association's state from its chunks, and the tags that prove who sent them (RFC 9260).

#![forbid(unsafe_code)]

use super::tcp::TcpOutcome as Outcome;
use super::{Direction, InvalidReason, Sysctls};
use crate::base::time::Duration;
use crate::packet::Packet;
use serde::{Deserialize, Serialize};

const HEADER_LEN: usize = 12;
const CHUNK_HEADER_LEN: usize = 4;
/// The T bit of ABORT and SHUTDOWN COMPLETE: the tag is the receiver's own (RFC 9260 §8.5.1).
const FLAG_T: u8 = 1;

/// Chunk types that mean something to the tracker (RFC 9260 §3.2).
mod chunk {
    pub(super) const DATA: u8 = 0;
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const HEARTBEAT: u8 = 4;
    pub(super) const HEARTBEAT_ACK: u8 = 5;
    pub(super) const ABORT: u8 = 6;
    pub(super) const SHUTDOWN: u8 = 7;
    pub(super) const SHUTDOWN_ACK: u8 = 8;
    pub(super) const ERROR: u8 = 9;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
    pub(super) const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Where an association stands, under conntrack's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SctpState {
    #[default]
    None,
    Closed,
    CookieWait,
    CookieEchoed,
    Established,
    ShutdownSent,
    ShutdownRecd,
    ShutdownAckSent,
    HeartbeatSent,
}

impl SctpState {
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Closed,
        Self::CookieWait,
        Self::CookieEchoed,
        Self::Established,
        Self::ShutdownSent,
        Self::ShutdownRecd,
        Self::ShutdownAckSent,
        Self::HeartbeatSent,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Closed => "CLOSED",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownRecd => "SHUTDOWN_RECD",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }

    const fn timeout(self, sysctls: &Sysctls) -> Duration {
        match self {
            Self::None | Self::Closed => sysctls.sctp_timeout_closed,
            Self::CookieWait => sysctls.sctp_timeout_cookie_wait,
            Self::CookieEchoed => sysctls.sctp_timeout_cookie_echoed,
            Self::Established => sysctls.sctp_timeout_established,
            Self::ShutdownSent => sysctls.sctp_timeout_shutdown_sent,
            Self::ShutdownRecd => sysctls.sctp_timeout_shutdown_recd,
            Self::ShutdownAckSent => sysctls.sctp_timeout_shutdown_ack_sent,
            Self::HeartbeatSent => sysctls.sctp_timeout_heartbeat_sent,
        }
    }

    /// On its way out: it may be evicted although it is assured.
    pub(super) const fn is_closing(self) -> bool {
        matches!(self, Self::ShutdownSent | Self::ShutdownRecd | Self::ShutdownAckSent)
    }
}

/// What SCTP remembers of an association.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sctp {
    state: SctpState,
    /// The tag that packets of each direction carry; 0 while it is not known.
    tags: [u32; 2],
    /// Which directions an INIT was seen in.
    inits: [bool; 2],
    /// A heartbeat carried another tag than known: perhaps the other end began anew. From which direction it came.
    strange_heartbeat: Option<Direction>,
    /// It was established once, if only by a chunk before one that made its packet INVALID.
    was_established: bool,
}

/// A packet whose chunks may stand together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks<'a> {
    tag: u32,
    /// The chunks, headers included.
    bytes: &'a [u8],
    /// Which of the first 32 chunk types occur.
    types: u32,
}

impl<'a> Chunks<'a> {
    /// Reads a packet before any association is looked for.
    ///
    /// # Errors
    /// Why it is INVALID whatever is known.
    pub(super) fn check(pkt: &'a Packet, sysctls: &Sysctls) -> Result<Self, InvalidReason> {
        let l4 = pkt.l4();
        let header: &[u8; HEADER_LEN] = l4.first_chunk().ok_or(InvalidReason::SctpTruncated)?;
        if sysctls.checksum && !pkt.offload().skips_checksum() && !has_good_checksum(l4) {
            return Err(InvalidReason::Checksum);
        }
        let tag = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let mut chunks = Self { tag, bytes: &l4[HEADER_LEN..], types: 0 };
        let mut count = 0;
        let mut has_loner = false;
        for Chunk { kind, len, .. } in chunks.iter() {
            has_loner |= matches!(kind, chunk::INIT | chunk::INIT_ACK | chunk::SHUTDOWN_COMPLETE);
            // Cookies come first; INIT, INIT ACK and SHUTDOWN COMPLETE come alone (RFC 9260 §6.10).
            let wants_to_be_first = has_loner || matches!(kind, chunk::COOKIE_ECHO | chunk::COOKIE_ACK);
            if (wants_to_be_first && count > 0) || len == 0 {
                return Err(InvalidReason::SctpChunks);
            }
            chunks.types |= 1_u32.checked_shl(kind.into()).unwrap_or(0);
            count += 1;
        }
        if count == 0 { Err(InvalidReason::SctpChunks) } else { Ok(chunks) }
    }

    fn iter(&self) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let &[kind, flags, a, b] = rest.first_chunk::<CHUNK_HEADER_LEN>()?;
            let len = u16::from_be_bytes([a, b]);
            let body = &rest[CHUNK_HEADER_LEN..];
            rest = rest.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
            Some(Chunk { kind, flags, len, body })
        })
    }

    const fn has(&self, kind: u8) -> bool {
        self.types >> kind & 1 == 1
    }

    fn has_any(&self, kinds: &[u8]) -> bool {
        kinds.iter().any(|kind| self.has(*kind))
    }
}

/// One chunk; `body` is the packet from behind its header on.
struct Chunk<'a> {
    kind: u8,
    flags: u8,
    len: u16,
    body: &'a [u8],
}

impl Chunk<'_> {
    /// The tag that INIT and INIT ACK ask the other side to use.
    fn initiate_tag(&self) -> Option<u32> {
        // The whole fixed part must be there: tag, window, streams, TSN.
        self.body.first_chunk::<16>().map(|body| u32::from_be_bytes([body[0], body[1], body[2], body[3]]))
    }
}

/// `CRC32c` over the packet with the checksum field zero, least significant byte first (RFC 9260, appendix A).
fn has_good_checksum(l4: &[u8]) -> bool {
    let crc = crc32c::crc32c(&l4[..8]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    let crc = crc32c::crc32c_append(crc, &l4[HEADER_LEN..]);
    l4[8..HEADER_LEN] == crc.to_le_bytes()
}

/// What a chunk does to an association; `None`: there it must not come.
fn next(dir: Direction, kind: u8, old: SctpState) -> Option<SctpState> {
    use Direction::{Original, Reply};
    use SctpState::{
        Closed, CookieEchoed, CookieWait, Established, HeartbeatSent, None as Nothing, ShutdownAckSent,
        ShutdownRecd, ShutdownSent,
    };
    let known = kind <= chunk::COOKIE_ACK || kind == chunk::SHUTDOWN_COMPLETE;
    if !known || matches!(kind, chunk::DATA | 3) {
        return Some(old);
    }
    // Nobody answers what was not begun: of a path under test, only heartbeats are expected.
    if dir == Reply && matches!(old, Nothing | HeartbeatSent) {
        return match (kind, old) {
            (chunk::HEARTBEAT, HeartbeatSent) => Some(HeartbeatSent),
            (chunk::HEARTBEAT_ACK, HeartbeatSent) => Some(Established),
            _ => None,
        };
    }
    // One line for each thing that may happen, not for each outcome.
    #[allow(clippy::match_same_arms)]
    let new = match (kind, dir, old) {
        (chunk::ABORT, ..) => Closed,
        // Setting up. An INIT in a finished association opens the next; one after a heartbeat, the first.
        (chunk::INIT, Original, ShutdownSent | ShutdownRecd) => Closed,
        (chunk::INIT, Original, HeartbeatSent) => CookieWait,
        (chunk::INIT_ACK, Reply, Closed) => CookieWait,
        (chunk::COOKIE_ECHO, _, CookieWait) => CookieEchoed,
        (chunk::COOKIE_ACK, _, CookieEchoed) => Established,
        (chunk::ERROR, Reply, CookieEchoed) => Closed,
        // Tearing down.
        (chunk::SHUTDOWN, Original, Established) => ShutdownSent,
        (chunk::SHUTDOWN, Reply, Established) => ShutdownRecd,
        (chunk::SHUTDOWN_ACK, Original, Nothing | HeartbeatSent)
        | (chunk::SHUTDOWN_ACK, _, ShutdownSent | ShutdownRecd) => ShutdownAckSent,
        (chunk::SHUTDOWN_COMPLETE, _, ShutdownAckSent) => Closed,
        // Testing a path, perhaps of an association that we never saw.
        (chunk::HEARTBEAT, Original, Nothing) => HeartbeatSent,
        (chunk::HEARTBEAT | chunk::HEARTBEAT_ACK, Original, HeartbeatSent) => HeartbeatSent,
        // Anything else in an association that was hardly begun ends it.
        (_, Original, Nothing | HeartbeatSent) => Closed,
        _ => old,
    };
    Some(new)
}

/// Whether the packet, though accepted, says nothing about the association.
enum Effect {
    Counts,
    Ignored,
}

impl Sctp {
    /// An association that somebody put into the table.
    pub(super) fn by_hand(state: SctpState, tags: [u32; 2]) -> Self {
        Self { state, tags, was_established: state == SctpState::Established, ..Self::default() }
    }

    /// The tag that packets of each direction carry; 0 while it is not known.
    pub const fn tags(&self) -> [u32; 2] {
        self.tags
    }

    pub const fn state(&self) -> SctpState {
        self.state
    }

    /// Whether it has been worth keeping at any time.
    pub(super) const fn was_established(&self) -> bool {
        self.was_established
    }

    /// Starts to remember an association from its first packet, which then goes through [`Sctp::track`] like any.
    ///
    /// # Errors
    /// Why the packet cannot be the first that is seen of an association.
    pub(super) fn open(chunks: &Chunks) -> Result<Self, InvalidReason> {
        let mut sctp = Self::default();
        // These end something (RFC 9260 §8.4).
        if chunks.has_any(&[chunk::ABORT, chunk::SHUTDOWN_COMPLETE, chunk::COOKIE_ACK]) {
            return Err(InvalidReason::SctpNew);
        }
        for chunk in chunks.iter() {
            if next(Direction::Original, chunk.kind, SctpState::None).is_none_or(|to| to == SctpState::None) {
                return Err(InvalidReason::SctpNew);
            }
            match chunk.kind {
                chunk::INIT => {
                    let tag = chunk.initiate_tag().ok_or(InvalidReason::SctpTruncated)?;
                    if chunks.tag != 0 {
                        return Err(InvalidReason::SctpTag);
                    }
                    sctp.tags[Direction::Reply as usize] = tag;
                }
                chunk::HEARTBEAT => sctp.tags[Direction::Original as usize] = chunks.tag,
                // Out of the blue, it is answered with its own tag (RFC 9260 §8.4 (5)).
                chunk::SHUTDOWN_ACK => sctp.tags[Direction::Reply as usize] = chunks.tag,
                _ => {}
            }
        }
        Ok(sctp)
    }

    /// Takes a packet, the first of an association included.
    pub(super) fn track(
        &mut self,
        chunks: &Chunks,
        dir: Direction,
        is_new: bool,
        sysctls: &Sysctls,
    ) -> Outcome {
        let invalid = |reason| Outcome::Invalid { reason, cap_lifetime: None };
        // Chunks with a rule of their own for the tag (RFC 9260 §8.5.1).
        let own_rule = [
            chunk::INIT,
            chunk::SHUTDOWN_COMPLETE,
            chunk::COOKIE_ECHO,
            chunk::ABORT,
            chunk::SHUTDOWN_ACK,
            chunk::HEARTBEAT,
            chunk::HEARTBEAT_ACK,
        ];
        if !chunks.has_any(&own_rule) && chunks.tag != self.tags[dir as usize] {
            return invalid(InvalidReason::SctpTag);
        }
        let mut ignored = false;
        for chunk in chunks.iter() {
            // What came before an offending chunk has had its effect, as in the kernel.
            match self.take(&chunk, chunks, dir, is_new, ignored) {
                Ok(Effect::Counts) => {}
                Ok(Effect::Ignored) => ignored = true,
                Err(reason) => return invalid(reason),
            }
            self.was_established |= self.state == SctpState::Established;
        }
        let timeout = (!ignored).then(|| self.state.timeout(sysctls));
        Outcome::Accept { timeout, assured: false, delete: false }
    }

    fn take(
        &mut self,
        chunk: &Chunk,
        chunks: &Chunks,
        dir: Direction,
        is_new: bool,
        ignored: bool,
    ) -> Result<Effect, InvalidReason> {
        let (own, peer) = (self.tags[dir as usize], self.tags[1 - dir as usize]);
        let mut effect = Effect::Counts;
        match chunk.kind {
            chunk::INIT if chunks.tag != 0 => return Err(InvalidReason::SctpTag),
            chunk::ABORT | chunk::SHUTDOWN_COMPLETE => {
                let expected = if chunk.flags & FLAG_T == 0 { own } else { peer };
                if chunks.tag != expected {
                    return Err(InvalidReason::SctpTag);
                }
            }
            chunk::COOKIE_ECHO if chunks.tag != own => return Err(InvalidReason::SctpTag),
            chunk::HEARTBEAT | chunk::HEARTBEAT_ACK => {
                if let Effect::Ignored = self.heartbeat(chunk.kind, chunks, dir, ignored)? {
                    return Ok(Effect::Ignored);
                }
            }
            _ => {}
        }
        let old = self.state;
        let new = next(dir, chunk.kind, old).ok_or(InvalidReason::SctpState)?;
        if let chunk::INIT | chunk::INIT_ACK = chunk.kind {
            let tag = chunk.initiate_tag().ok_or(InvalidReason::SctpTruncated)?;
            self.initiate(chunk.kind, dir, tag, is_new)?;
            // A repeated INIT does not keep a dead entry alive.
            if chunk.kind == chunk::INIT && old == SctpState::Closed && new == old && !is_new {
                effect = Effect::Ignored;
            }
        }
        if chunk.kind == chunk::COOKIE_ACK {
            self.inits = [false; 2];
        }
        self.state = new;
        Ok(effect)
    }

    /// The tag that a side asks for. Both may begin at once (RFC 9260 §5.2.1); then an INIT ACK must stand by the tag
    /// of its side's INIT.
    fn initiate(&mut self, kind: u8, dir: Direction, tag: u32, is_new: bool) -> Result<(), InvalidReason> {
        let (own, peer) = (dir as usize, 1 - dir as usize);
        let known = self.tags[peer];
        if kind == chunk::INIT {
            // Old news: a repeated INIT, or one that somebody made up from what he saw.
            if tag == known && !is_new {
                return Ok(());
            }
            if self.inits[own] && self.inits[peer] {
                self.inits[peer] = false;
            }
            self.inits[own] = true;
        } else {
            let is_unasked = !self.inits[peer] && known != 0;
            let is_collision = self.inits[own] && self.inits[peer];
            if (is_unasked || is_collision) && known != tag {
                return Err(InvalidReason::SctpTag);
            }
        }
        self.tags[peer] = tag;
        Ok(())
    }

    /// The tag of a heartbeat: learnt where none is known, doubted once, believed when the other side confirms it.
    fn heartbeat(
        &mut self,
        kind: u8,
        chunks: &Chunks,
        dir: Direction,
        ignored: bool,
    ) -> Result<Effect, InvalidReason> {
        let at = dir as usize;
        if self.tags[at] == 0 {
            self.tags[at] = chunks.tag;
        } else if self.tags[at] == chunks.tag {
            self.strange_heartbeat = None;
        } else if chunks.has(chunk::DATA) || ignored {
            return Err(InvalidReason::SctpTag);
        } else if kind == chunk::HEARTBEAT {
            self.strange_heartbeat = Some(dir);
            return Ok(Effect::Ignored);
        } else if self.strange_heartbeat.is_none_or(|from| from == dir) {
            return Err(InvalidReason::SctpTag);
        } else {
            self.strange_heartbeat = None;
            self.tags[at] = chunks.tag;
            self.tags[1 - at] = 0;
        }
        Ok(Effect::Counts)
    }
}

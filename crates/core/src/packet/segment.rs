//! Segment: what the tracker needs of a TCP header (RFC 9293 §3.1).

#![forbid(unsafe_code)]

use super::Seq;
use bitflags::bitflags;
use core::fmt;

bitflags! {
    /// The control bits, as they stand in byte 13 of the header.
    #[derive(Clone, Copy, PartialEq, Eq, Hash)]
    pub struct TcpFlags: u8 {
        const FIN = 0x01;
        const SYN = 0x02;
        const RST = 0x04;
        const PSH = 0x08;
        const ACK = 0x10;
        const URG = 0x20;
        const ECE = 0x40;
        const CWR = 0x80;
    }
}

/// One TCP header and the length of what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub seq: Seq,
    /// The field as it stands there; meaningful only with [`TcpFlags::ACK`].
    pub ack: Seq,
    pub flags: TcpFlags,
    /// The field as it stands there, not scaled.
    pub win: u16,
    /// Bytes of payload.
    pub len: u32,
    pub options: Options,
}

/// The options that change what a tracker may expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The header carries any option bytes at all.
    pub present: bool,
    /// Window scale (RFC 7323 §2), capped at 14.
    pub wscale: Option<u8>,
    pub sack_permitted: bool,
    /// The right edge of a SACK block (RFC 2018) that lies farthest ahead of the acknowledgement.
    pub sack_right: Option<Seq>,
}

/// Shortest TCP header.
pub const MIN_HEADER_LEN: usize = 20;
pub(crate) const MAX_WSCALE: u8 = 14;

impl Segment {
    /// Reads the header at the start of `l4`, which reaches to the end of the packet.
    ///
    /// `None` if the header is shorter than 20 bytes or its data offset points outside the packet.
    #[inline]
    pub fn parse(l4: &[u8]) -> Option<Self> {
        let header: &[u8; MIN_HEADER_LEN] = l4.first_chunk()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < MIN_HEADER_LEN || header_len > l4.len() {
            return None;
        }
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let ack = Seq(word(8));
        Some(Self {
            seq: Seq(word(4)),
            ack,
            flags: TcpFlags::from_bits_retain(header[13]),
            win: u16::from_be_bytes([header[14], header[15]]),
            len: (l4.len() - header_len) as u32,
            options: match &l4[MIN_HEADER_LEN..header_len] {
                [] => Options::default(),
                bytes => Options::parse(bytes, ack),
            },
        })
    }

    /// The sequence number behind the segment: SYN and FIN count for one each (RFC 9293 §3.4).
    pub fn end(&self) -> Seq {
        let control =
            u32::from(self.flags.contains(TcpFlags::SYN)) + u32::from(self.flags.contains(TcpFlags::FIN));
        self.seq + self.len + control
    }

    /// The same with what it acknowledges put back by so much, as if its sender had seen unchanged numbers.
    #[must_use]
    pub fn put_back(&self, shift: u32) -> Self {
        let sack_right = self.options.sack_right.map(|right| right - shift);
        Self { ack: self.ack - shift, options: Options { sack_right, ..self.options }, ..*self }
    }

    pub const fn has(&self, flag: TcpFlags) -> bool {
        self.flags.contains(flag)
    }
}

/// Whether the header at the start of `l4` has an MD5 signature (RFC 2385); `None` if its options cannot be read as
/// far as one might stand there.
pub fn has_signature(l4: &[u8]) -> Option<bool> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const SIGNATURE: u8 = 19;
    const SIGNATURE_LEN: usize = 18;
    let header_len = usize::from(*l4.get(12)? >> 4) * 4;
    let mut options = l4.get(MIN_HEADER_LEN..header_len)?;
    let mut is_signed = false;
    while options.len() >= SIGNATURE_LEN {
        match options[0] {
            END => break,
            NOP => options = &options[1..],
            kind => {
                let len = usize::from(options[1]);
                let is_signature = kind == SIGNATURE;
                if len < 2 || len > options.len() || (is_signature && (len != SIGNATURE_LEN || is_signed)) {
                    return None;
                }
                is_signed |= is_signature;
                options = &options[len..];
            }
        }
    }
    Some(is_signed)
}

impl Options {
    /// Stops at end-of-list, at a length below two and at one that leaves the header.
    fn parse(mut bytes: &[u8], ack: Seq) -> Self {
        const END: u8 = 0;
        const NOP: u8 = 1;
        let mut options = Self { present: !bytes.is_empty(), ..Self::default() };
        // By far the most common: nothing but a timestamp, which says nothing to us (RFC 7323, appendix A).
        if bytes.len() == 12 && bytes[..4] == [NOP, NOP, 8, 10] {
            return options;
        }
        let mut sack_seen = false;
        while let Some(&kind) = bytes.first() {
            match kind {
                END => break,
                NOP => bytes = &bytes[1..],
                _ => {
                    let Some(len) = bytes.get(1).map(|&len| usize::from(len)) else { break };
                    if len < 2 || len > bytes.len() {
                        break;
                    }
                    options.learn(kind, &bytes[2..len], ack, &mut sack_seen);
                    bytes = &bytes[len..];
                }
            }
        }
        options
    }

    /// Of several SACK options only the first counts, as to Linux.
    fn learn(&mut self, kind: u8, body: &[u8], ack: Seq, sack_seen: &mut bool) {
        match (kind, body) {
            (3, [shift]) => self.wscale = Some((*shift).min(MAX_WSCALE)),
            (4, []) => self.sack_permitted = true,
            (5, blocks) if blocks.len() >= 8 && blocks.len() % 8 == 0 && !*sack_seen => {
                *sack_seen = true;
                for block in blocks.chunks_exact(8) {
                    let right = Seq(u32::from_be_bytes([block[4], block[5], block[6], block[7]]));
                    if right.is_after(self.sack_right.unwrap_or(ack)) {
                        self.sack_right = Some(right);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Letters in tcpdump's order: `S.` for SYN+ACK, `.` for a pure ACK, `none` for a null scan.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(TcpFlags, char); 8] = [
            (TcpFlags::FIN, 'F'),
            (TcpFlags::SYN, 'S'),
            (TcpFlags::RST, 'R'),
            (TcpFlags::PSH, 'P'),
            (TcpFlags::ACK, '.'),
            (TcpFlags::URG, 'U'),
            (TcpFlags::ECE, 'E'),
            (TcpFlags::CWR, 'W'),
        ];
        if self.is_empty() {
            return f.write_str("none");
        }
        LETTERS.iter().filter(|(flag, _)| self.contains(*flag)).try_for_each(|(_, c)| write!(f, "{c}"))
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_found_where_options_can_be_read() {
        let signed = |options: &[u8]| {
            let mut l4 = vec![0; MIN_HEADER_LEN];
            l4.extend(options);
            l4.resize(l4.len().next_multiple_of(4), 0);
            l4[12] = (l4.len() as u8 / 4) << 4;
            has_signature(&l4)
        };
        let with = |front: &[u8], len: usize| {
            let mut options = front.to_vec();
            options.resize(len, 0x2e);
            options
        };
        let timestamp = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(signed(&[]), Some(false));
        assert_eq!(signed(&timestamp), Some(false));
        assert_eq!(signed(&with(&[1, 1, 19, 18], 20)), Some(true));
        assert_eq!(signed(&with(&[19, 17], 20)), None);
        assert_eq!(signed(&with(&[0, 0x2e], 40)), Some(false), "nothing stands behind the end");
        let unread = [&timestamp[..], &[0x7a, 0x7a]].concat();
        assert_eq!(signed(&with(&unread, 40)), None);
        assert_eq!(signed(&with(&unread, 28)), Some(false), "there is no room for one");
    }

    fn options(bytes: &[u8]) -> Options {
        Options::parse(bytes, Seq(1000))
    }

    #[test]
    fn options_are_read_up_to_the_first_broken_one() {
        assert_eq!(options(&[3, 3, 20]).wscale, Some(14), "RFC 7323 §2.3: at most 14");
        assert!(options(&[1, 1, 4, 2]).sack_permitted);
        assert!(!options(&[0, 4, 2]).sack_permitted, "behind end-of-list");
        assert!(!options(&[2, 1, 4, 2]).sack_permitted, "behind a length of one");
        assert!(!options(&[2, 9, 4, 2]).sack_permitted, "behind a length that leaves the header");
        assert!(options(&[1]).present && !options(&[]).present);
    }

    #[test]
    fn the_farthest_right_edge_counts_and_only_if_it_lies_ahead() {
        let block = |right: u32| {
            let mut b = vec![5, 10, 0, 0, 0, 0];
            b.extend(right.to_be_bytes());
            b
        };
        assert_eq!(options(&block(1500)).sack_right, Some(Seq(1500)));
        assert_eq!(options(&block(900)).sack_right, None);
        assert_eq!(options(&[5, 8, 0, 0, 0, 0, 0, 0]).sack_right, None, "six bytes are no block");
        let two = [block(1200), block(1500)].concat();
        assert_eq!(options(&two).sack_right, Some(Seq(1200)), "a second option is not looked at");
    }

    #[test]
    fn a_data_offset_outside_the_packet_is_refused() {
        let mut header = [0; 20];
        for (offset, ok) in [(4, false), (5, true), (6, false)] {
            header[12] = offset << 4;
            assert_eq!(Segment::parse(&header).is_some(), ok, "data offset {offset}");
        }
        assert!(Segment::parse(&header[..19]).is_none());
    }
}

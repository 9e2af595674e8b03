//! A frame where it lies, with the room around it.

#![forbid(unsafe_code)]

use super::{ETHERNET_LEN, Offload, Packet};
use crate::base::DropReason;

/// Receiver and sender at the head of a frame.
const ADDRESSES_LEN: usize = 12;

/// What came in, where it lies: an Ethernet frame at the beginning of its buffer, or a bare IP packet behind
/// [`Frame::HEADROOM`]. What of the buffer lies behind it is room into which rules may make the packet longer; where there
/// is none, they do that in a copy.
#[derive(Debug)]
pub struct Frame<'a> {
    buf: &'a mut [u8],
    len: usize,
    offload: Offload,
}

impl<'a> Frame<'a> {
    /// The bytes in front of a bare IP packet, for the link header of an Ethernet interface where it may leave.
    pub const HEADROOM: usize = ETHERNET_LEN;

    /// An Ethernet frame that fills its buffer.
    #[inline]
    pub const fn new(frame: &'a mut [u8]) -> Self {
        Self { len: frame.len(), buf: frame, offload: Offload::NONE }
    }

    /// A frame of `len` bytes, with room behind it.
    ///
    /// # Panics
    /// If the buffer is shorter.
    #[inline]
    pub const fn with_room(buf: &'a mut [u8], len: usize) -> Self {
        assert!(len <= buf.len(), "a frame lies in its buffer");
        Self { buf, len, offload: Offload::NONE }
    }

    /// A bare IP packet of `len` bytes for an interface of [`crate::base::Medium::Ip`], behind [`Frame::HEADROOM`] bytes whose
    /// content does not matter, and with room behind it.
    ///
    /// # Panics
    /// If the buffer is shorter than both.
    #[inline]
    pub const fn bare(buf: &'a mut [u8], len: usize) -> Self {
        assert!(len <= buf.len() && Self::HEADROOM <= buf.len() - len, "a packet lies in its buffer");
        Self { buf, len: Self::HEADROOM + len, offload: Offload::NONE }
    }

    /// The same with what its sender's kernel left undone. Of a bare packet, its places count from the link header that
    /// the packet does not have: [`Frame::HEADROOM`] more than from the packet.
    #[must_use]
    #[inline]
    pub fn with_offload(self, offload: Offload) -> Self {
        Self { offload, ..self }
    }

    /// What its sender's kernel left undone.
    #[inline]
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    /// The frame; of a bare packet, its headroom comes first.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[..self.len]
    }

    /// Writes the link header into the headroom of a bare packet.
    pub(crate) fn write_link_header(&mut self, ends: &[u8; ADDRESSES_LEN], ethertype: u16) {
        self.buf[..ADDRESSES_LEN].copy_from_slice(ends);
        self.buf[ADDRESSES_LEN..ETHERNET_LEN].copy_from_slice(&ethertype.to_be_bytes());
    }

    /// Takes out the tags of 802.1Q and 802.1ad in front that name no VLAN, but only say how urgent the frame is.
    pub fn strip_priority_tags(&mut self) {
        const TAG_LEN: usize = 4;
        const ETHERTYPES: [u16; 2] = [0x8100, 0x88a8];
        const VLAN: u16 = 0x0fff;
        let word = |at: usize| u16::from_be_bytes([self.buf[at], self.buf[at + 1]]);
        let mut tags_end = ADDRESSES_LEN;
        while tags_end + TAG_LEN + size_of::<u16>() <= self.len
            && ETHERTYPES.contains(&word(tags_end))
            && word(tags_end + 2) & VLAN == 0
        {
            tags_end += TAG_LEN;
        }
        if tags_end == ADDRESSES_LEN {
            return;
        }
        self.buf.copy_within(tags_end..self.len, ADDRESSES_LEN);
        let taken = tags_end - ADDRESSES_LEN;
        self.len -= taken;
        self.offload.csum_start = self.offload.csum_start.saturating_sub(taken as u16);
        self.offload.hdr_len = self.offload.hdr_len.saturating_sub(taken as u16);
    }

    /// The buffer, and how much of it the frame fills.
    #[inline]
    pub(super) const fn into_parts(self) -> (&'a mut [u8], usize, Offload) {
        (self.buf, self.len, self.offload)
    }

    /// Reads a frame that carries IPv4 or IPv6; see [`Packet::parse`].
    ///
    /// # Errors
    /// The reason for which Linux drops such a frame before any hook sees it.
    pub fn parse(self) -> Result<Packet<'a>, DropReason> {
        Packet::parse_frame(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(behind_addresses: &[u8]) -> Vec<u8> {
        let mut buf = [&[0xaa; ADDRESSES_LEN][..], behind_addresses].concat();
        let mut frame = Frame::new(&mut buf);
        frame.strip_priority_tags();
        frame.bytes()[ADDRESSES_LEN..].to_vec()
    }

    #[test]
    fn tags_without_a_vlan_are_taken_out_and_no_others() {
        assert_eq!(stripped(&[0x81, 0, 0xe0, 0, 8, 0, 0x45]), [8, 0, 0x45], "a priority");
        assert_eq!(stripped(&[0x88, 0xa8, 0, 0, 0x81, 0, 0x10, 0, 8, 6]), [8, 6], "two of them");
        assert_eq!(
            stripped(&[0x81, 0, 0, 0, 0x81, 0, 0, 5, 8, 0]),
            [0x81, 0, 0, 5, 8, 0],
            "VLAN 5 behind one"
        );
        assert_eq!(stripped(&[0x81, 0, 0, 0, 8]), [0x81, 0, 0, 0, 8], "cut short");
        assert_eq!(stripped(&[0x81, 0, 0, 0, 8, 0]), [8, 0]);
    }
}

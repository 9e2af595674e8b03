//! What the sender's kernel left undone: partial checksums and segmentation, as a virtio header states them.

#![forbid(unsafe_code)]

/// The virtio-net header of a frame (virtio 1.2 §5.1.6), or all zero for a frame that is complete.
///
/// A frame with `NEEDS_CSUM` carries the sum of its pseudo-header in place of the L4 checksum: whoever verifies
/// or finishes it must know. A frame with a segment size is a super-frame that stands for many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// [`Offload::NEEDS_CSUM`], [`Offload::DATA_VALID`], or neither.
    pub flags: u8,
    /// One of the `GSO_` kinds, or 0 for a frame that is one segment.
    pub gso_type: u8,
    /// Ethernet, IP and L4 headers together; a hint only.
    pub hdr_len: u16,
    /// Payload bytes per segment, if `gso_type` is set.
    pub gso_size: u16,
    /// Where the checksummed part begins, from the start of the frame.
    pub csum_start: u16,
    /// Where in that part the checksum stands.
    pub csum_offset: u16,
}

impl Offload {
    /// A frame that is complete.
    pub const NONE: Self =
        Self { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };
    /// The L4 checksum is partial.
    pub const NEEDS_CSUM: u8 = 1;
    /// The sender's kernel vouches for the checksum.
    pub const DATA_VALID: u8 = 2;
    /// TCP over IPv4, to be cut into segments.
    pub const GSO_TCPV4: u8 = 1;
    /// A UDP datagram, to be cut into fragments.
    pub const GSO_UDP: u8 = 3;
    /// TCP over IPv6, to be cut into segments.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP, to be cut into datagrams.
    pub const GSO_UDP_L4: u8 = 5;
    /// A bit besides the kind: the segments carry marks of congestion.
    pub const GSO_ECN: u8 = 0x80;

    /// The L4 checksum is partial: it is to be finished by whoever puts the frame on a wire.
    pub const fn needs_checksum(&self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }

    /// The L4 checksum need not be looked at: it is partial, or the sender's kernel vouches for it.
    pub const fn skips_checksum(&self) -> bool {
        self.flags & (Self::NEEDS_CSUM | Self::DATA_VALID) != 0
    }

    /// Whether it stands for many frames.
    pub const fn is_super_frame(&self) -> bool {
        self.gso_type & !Self::GSO_ECN != 0 && self.gso_size > 0
    }
}

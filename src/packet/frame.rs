//! A frame where it lies, with the room behind it.

#![forbid(unsafe_code)]

use super::{Offload, Packet};
use crate::base::DropReason;

/// An Ethernet frame at the beginning of its buffer. What of the buffer lies behind it is room into which rules may make
/// the packet longer; where there is none, they do that in a copy.
#[derive(Debug)]
pub struct Frame<'a> {
    buf: &'a mut [u8],
    len: usize,
    offload: Offload,
}

impl<'a> Frame<'a> {
    /// A frame that fills its buffer.
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

    /// The same with what its sender's kernel left undone.
    #[must_use]
    #[inline]
    pub fn with_offload(self, offload: Offload) -> Self {
        Self { offload, ..self }
    }

    #[inline]
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[..self.len]
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

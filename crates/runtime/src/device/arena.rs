//! Slots: room for frames, one behind the other in one piece of memory.

#![forbid(unsafe_code)]

/// Room in front of each frame, for the virtio header that some ports put there.
pub const HEADROOM: usize = 10;
/// The longest super-frame (64 KiB of IP behind an Ethernet header with a tag), its header, and a little.
const FRAME_ROOM: usize = 65_536 + 64;
/// Not a multiple of 4096: the first cache lines of all slots would fall into the same few sets of the cache.
pub const SLOT_LEN: usize = (FRAME_ROOM + HEADROOM).next_multiple_of(4096) + 192;

/// `slots` times [`SLOT_LEN`] bytes. Pages that no frame ever reached take no memory.
#[derive(Debug)]
pub(super) struct Arena {
    bytes: Box<[u8]>,
}

impl Arena {
    pub(super) fn new(slots: usize) -> Self {
        Self { bytes: vec![0; slots * SLOT_LEN].into_boxed_slice() }
    }

    pub(super) fn slot(&mut self, n: usize) -> &mut [u8] {
        &mut self.bytes[n * SLOT_LEN..(n + 1) * SLOT_LEN]
    }
}

//! Datagrams in pieces, as a host cuts and joins them: the stack below does so for IPv4 only, and remembers the length of a
//! larger one.

#![forbid(unsafe_code)]

use stateway_core::packet::fragment::{Bounds, Bounds6, Fragments, Reassembly, cut_by_sender};
use stateway_core::packet::{ETHERNET_LEN, Offload, Packet};
use stateway_core::time::Instant;

/// What waits for its other pieces, and the identification of what is cut next.
#[derive(Debug)]
pub(super) struct Pieces {
    waiting: Fragments,
    next_id: u32,
}

impl Pieces {
    pub(super) fn new() -> Self {
        Self { waiting: Fragments::new(Bounds::default()), next_id: 1 }
    }

    /// A frame as the stack is to see it: whole, or not yet.
    pub(super) fn join(&self, mut frame: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        let joined = match Packet::parse(&mut frame, Offload::NONE) {
            Ok(pkt) if pkt.fragment().is_some() => self.waiting.add(&pkt, 0, Bounds6::default(), now),
            Ok(_) | Err(_) => return Some(frame),
        };
        match joined {
            Reassembly::Whole(mut whole) => whole.packet().ok().map(|pkt| pkt.frame().to_vec()),
            Reassembly::Pending | Reassembly::Refused(_) => None,
            Reassembly::Passes => Some(frame),
        }
    }

    /// The pieces in which a packet leaves that is larger than the link takes.
    pub(super) fn cut(&mut self, pkt: &Packet, mtu_bytes: usize) -> Vec<Vec<u8>> {
        let id = self.next_id;
        self.next_id = if id == u32::from(u16::MAX) { 1 } else { id + 1 };
        cut_by_sender(pkt, mtu_bytes, id)
    }
}

/// Whether a frame is larger than the link takes.
pub(super) fn is_too_long(frame_len: usize, mtu_bytes: usize) -> bool {
    frame_len > ETHERNET_LEN + mtu_bytes
}

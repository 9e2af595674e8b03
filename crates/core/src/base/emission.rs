//! What the router sends besides the frame that came in.

#![forbid(unsafe_code)]

use super::{IfaceId, Offload};

/// A frame that the router wants to send, besides the one that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Emission {
    /// Where it is to be sent.
    pub iface: IfaceId,
    /// What it is.
    pub kind: EmissionKind,
    /// The whole frame, or the bare IP packet if the interface has no link layer.
    pub frame: Vec<u8>,
    /// The virtio header to send it with.
    pub offload: Offload,
}

/// Where a frame comes from that is not the one that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmissionKind {
    /// Written by the router itself: an error, a reset, an echo reply, a neighbour message.
    Own,
    /// The packet of this walk on one more port, or grown out of its buffer.
    Copy,
    /// A piece of the packet of this walk.
    Fragment,
    /// An earlier packet, that waited for its next hop.
    Released,
}

//! What the router sends besides the frame that came in.

#![forbid(unsafe_code)]

use super::{IfaceId, Offload};

/// A frame that the router wants to send, besides the one that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    pub iface: IfaceId,
    pub kind: EmissionKind,
    pub frame: Vec<u8>,
    pub offload: Offload,
}

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

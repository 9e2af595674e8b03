//! Interfaces without a link layer, of [`Medium::Ip`]: a packet gets a link header for its way through the router, and
//! loses it where it leaves without one.
//!
//! The header lies in the [`Frame::HEADROOM`] in front of the packet, so that nothing is copied; the addresses in it are
//! made up, such that either plane takes the packet and finds its way. No neighbour is asked there (`host::send`).

#![forbid(unsafe_code)]

use super::Outcome;
use crate::base::{Emission, Iface, IfaceId, Medium, Offload};
use crate::config::{Mode, RouterConfig};
use crate::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame};

/// Receiver and sender, as they stand at the head of a frame.
type Ends = [u8; 12];

/// Which interfaces have no link layer, and what stands in front of the packets that come in there.
#[derive(Debug)]
pub(super) struct BareLinks(Box<[Option<Ends>]>);

impl BareLinks {
    /// `None` if every interface is Ethernet.
    pub(super) fn new(config: &RouterConfig) -> Option<Self> {
        let bare = |(place, iface): (usize, &Iface)| {
            (iface.medium == Medium::Ip).then(|| match config.mode {
                Mode::Bridge => between_stations(place),
                Mode::Route => to_router(iface),
            })
        };
        let ends: Box<[_]> = config.ifaces.iter().enumerate().map(bare).collect();
        ends.iter().any(Option::is_some).then_some(Self(ends))
    }

    fn is_bare(&self, iface: IfaceId) -> bool {
        self.0[iface.index()].is_some()
    }

    /// Writes the link header of a packet that comes in without one. `false`: it is no IP packet.
    pub(super) fn put_on(&self, frame: &mut Frame, iface: IfaceId) -> bool {
        let Some(ends) = &self.0[iface.index()] else { return true };
        let ethertype = match frame.bytes().get(Frame::HEADROOM).map(|first| first >> 4) {
            Some(4) => ETHERTYPE_IPV4,
            Some(6) => ETHERTYPE_IPV6,
            _ => return false,
        };
        frame.write_link_header(ends, ethertype);
        true
    }

    /// Takes the link header off a packet that leaves without one, in the buffer that it came in.
    pub(super) fn take_off(&self, outcome: &mut Outcome) {
        if outcome.out.is_some_and(|out| self.is_bare(out)) {
            outcome.start = Frame::HEADROOM;
            outcome.len -= Frame::HEADROOM;
            outcome.offload = without_link(outcome.offload);
        }
    }

    /// The same for what is sent besides.
    pub(super) fn take_off_all(&self, emissions: &mut [Emission]) {
        for emission in emissions.iter_mut().filter(|emission| self.is_bare(emission.iface)) {
            emission.frame.drain(..Frame::HEADROOM);
            emission.offload = without_link(emission.offload);
        }
    }
}

/// A host reads only what is for its own link address; no address is the sender's.
fn to_router(iface: &Iface) -> Ends {
    let mut ends = Ends::default();
    ends[..6].copy_from_slice(&iface.mac.0);
    ends
}

/// Behind each of a bridge's two interfaces is one station: all packets are between these.
fn between_stations(place: usize) -> Ends {
    const STATIONS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 2, 2]];
    let here = place % 2;
    let mut ends = Ends::default();
    ends[..6].copy_from_slice(&STATIONS[1 - here]);
    ends[6..].copy_from_slice(&STATIONS[here]);
    ends
}

/// The places that a virtio header names count from the IP packet.
const fn without_link(offload: Offload) -> Offload {
    Offload {
        csum_start: offload.csum_start.saturating_sub(Frame::HEADROOM as u16),
        hdr_len: offload.hdr_len.saturating_sub(Frame::HEADROOM as u16),
        ..offload
    }
}

#[cfg(test)]
mod tests;

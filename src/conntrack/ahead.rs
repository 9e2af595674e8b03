//! Frames that came in together ask memory together: where their connections stand is fetched before their turn.
//!
//! In a large table nothing of a connection is in the caches, and waiting for memory costs more than all else. Two
//! glances hide that: the first has the index fetched for all frames, the second the entries. Both may guess wrong, and
//! then fetch in vain; neither decides or changes anything.

#![forbid(unsafe_code)]

use super::Conntrack;
use super::flow;
use super::table::Place;

/// Tables smaller than this stay in the caches without help.
const WORTH_IT: usize = 16_384;

/// Where the connections of the frames that come next may stand.
#[derive(Debug, Default)]
pub struct Ahead(Vec<Place>);

impl Ahead {
    pub const fn new() -> Self {
        Self(Vec::new())
    }
}

impl Conntrack {
    /// Whether the table is so large that looking ahead pays.
    #[inline]
    pub fn looks_ahead(&self) -> bool {
        self.table.len() >= WORTH_IT
    }

    /// The first glance at an Ethernet frame.
    #[inline]
    pub fn glance(&self, frame: &[u8], ahead: &mut Ahead) {
        if let Some(tuple) = flow::glance(frame) {
            let place = self.table.place(&tuple);
            // Packets of one flow come in trains.
            if ahead.0.last() != Some(&place) {
                self.table.fetch_index(place);
                ahead.0.push(place);
            }
        }
    }

    /// The second one, at all frames since the last time.
    pub fn fetch(&self, ahead: &mut Ahead) {
        for place in ahead.0.drain(..) {
            self.table.fetch_entry(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Offload, Packet};

    /// An echo request, a UDP datagram and a TCP segment of 192.0.2.1 and 192.0.2.2, and UDP over IPv6.
    fn frames() -> Vec<Vec<u8>> {
        let ipv4 = |proto: u8| {
            let mut frame =
                vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, proto];
            frame.extend([
                0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 8, 0, 0, 20, 0, 9, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0,
                0, 0,
            ]);
            let sum = crate::packet::checksum::Sum::ZERO.bytes(&frame[14..34]).checksum();
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            frame
        };
        let mut ipv6 = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64];
        let addr = |last: u8| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        ipv6.extend(addr(1));
        ipv6.extend(addr(2));
        ipv6.extend([4, 0, 0, 53, 0, 8, 0, 0]);
        vec![ipv4(1), ipv4(17), ipv4(6), ipv6]
    }

    #[test]
    fn what_is_fetched_is_where_the_packet_is_looked_for() {
        let conntrack = Conntrack::default();
        for mut frame in frames() {
            let mut ahead = Ahead::new();
            conntrack.glance(&frame, &mut ahead);
            let pkt = Packet::parse(&mut frame, Offload::NONE).expect("a whole packet");
            let place = conntrack.table.place(&flow::tuple(&pkt, 0).expect("a flow"));
            assert_eq!(ahead.0, [place]);
            conntrack.fetch(&mut ahead);
            assert!(ahead.0.is_empty());
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_looked_at_without_harm() {
        let (conntrack, mut ahead) = (Conntrack::default(), Ahead::new());
        for frame in frames() {
            for end in 0..=frame.len() {
                conntrack.glance(&frame[..end], &mut ahead);
            }
        }
        conntrack.fetch(&mut ahead);
    }
}

//! Frames that came in together ask memory together: where their connections stand is fetched before their turn.
//!
//! In a large table nothing of a connection is in the caches, and waiting for memory costs more than all else. Two
//! glances hide that: the first has the index fetched for all frames, the second the entries. Both may guess wrong, and
//! then fetch in vain; neither decides or changes anything.

#![forbid(unsafe_code)]

use crate::conntrack::Conntrack;
use crate::conntrack::flow;
use crate::conntrack::table::Place;
use arrayvec::ArrayVec;

/// Tables smaller than this stay in the caches without help.
const WORTH_IT: usize = 16_384;

/// Frames that are looked at together; what is announced beyond them is not.
const MOST: usize = 64;

/// Where the connections of the frames that come next may stand.
#[derive(Debug, Default)]
pub struct Ahead(ArrayVec<Place, MOST>);

impl Ahead {
    /// One that was told of no frame.
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
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
            if ahead.0.last() != Some(&place) && ahead.0.try_push(place).is_ok() {
                self.table.fetch_index(place);
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
    use crate::conntrack::tests::{frame, tcp, udp};
    use crate::packet::tuple::PROTO_ICMP;
    use crate::packet::{Offload, Packet};

    const A: [u8; 4] = [192, 0, 2, 1];
    const B: [u8; 4] = [192, 0, 2, 2];

    /// An echo request, a UDP datagram and a TCP segment, and UDP over IPv6.
    fn frames() -> Vec<Vec<u8>> {
        let mut ipv6 = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64];
        let addr = |last: u8| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        ipv6.extend(addr(1));
        ipv6.extend(addr(2));
        ipv6.extend([4, 0, 0, 53, 0, 8, 0, 0]);
        let echo = frame(A, B, PROTO_ICMP, &[8, 0, 0, 0, 0, 9, 0, 1]);
        vec![echo, udp(A, 1024, B, 53, b"?"), tcp(A, 1024, B, 80, (2, 1, 0), b""), ipv6]
    }

    #[test]
    fn what_is_fetched_is_where_the_packet_is_looked_for() {
        let conntrack = Conntrack::default();
        for mut frame in frames() {
            let mut ahead = Ahead::new();
            conntrack.glance(&frame, &mut ahead);
            let pkt = Packet::parse(&mut frame, Offload::NONE).expect("a whole packet");
            let place = conntrack.table.place(&flow::tuple(&pkt, 0).expect("a flow"));
            assert_eq!(ahead.0[..], [place]);
            conntrack.fetch(&mut ahead);
            assert!(ahead.0.is_empty());
        }
    }

    #[test]
    fn who_announces_without_end_is_not_listened_to_without_end() {
        let (conntrack, mut ahead) = (Conntrack::default(), Ahead::new());
        for port in 0..1000 {
            conntrack.glance(&udp(A, port, B, 53, b"?"), &mut ahead);
        }
        assert_eq!(ahead.0.len(), MOST);
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

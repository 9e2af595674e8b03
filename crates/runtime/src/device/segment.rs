//! What a network card would do: segments cut out of super-frames, and checksums finished, for ports whose way out
//! cannot take work that is left to do.

#![forbid(unsafe_code)]

use stateway_core::packet::checksum::Sum;
use stateway_core::packet::tuple::{PROTO_TCP, PROTO_UDP};
use stateway_core::packet::{ETHERNET_LEN, Family, Offload, Packet, TcpFlags};

/// Finishes the checksum of a frame that stands for itself alone.
pub fn finish_checksum(frame: &mut [u8], offload: Offload) {
    if let Ok(mut pkt) = Packet::parse(frame, offload) {
        pkt.finish_checksum();
    }
}

/// Cuts a super-frame into the frames that it stands for, each of them complete, in order.
///
/// A frame that is no super-frame of TCP or UDP is none of ours: `false`, and nothing was given to `each`.
pub fn split(frame: &mut [u8], offload: Offload, each: &mut dyn FnMut(&[u8])) -> bool {
    let Ok(pkt) = Packet::parse(frame, offload) else { return false };
    let Some(cut) = Cut::new(&pkt) else { return false };
    let payload = pkt.frame()[cut.headers..].chunks(usize::from(offload.gso_size));
    let last = payload.len() - 1;
    let mut segment = Vec::with_capacity(cut.headers + usize::from(offload.gso_size));
    for (n, data) in payload.enumerate() {
        segment.clear();
        segment.extend_from_slice(&pkt.frame()[..cut.headers]);
        segment.extend_from_slice(data);
        cut.finish(&mut segment, n, n == last, usize::from(offload.gso_size), &pkt);
        each(&segment);
    }
    true
}

/// Where the headers of a super-frame lie.
#[derive(Clone, Copy, Debug)]
struct Cut {
    proto: u8,
    /// Where the L4 header begins, and where the payload does.
    l4: usize,
    headers: usize,
}

impl Cut {
    fn new(pkt: &Packet) -> Option<Self> {
        let offload = pkt.offload();
        let l4 = ETHERNET_LEN + pkt.l3_header_len();
        let l4_header = match (offload.gso_type & !Offload::GSO_ECN, pkt.proto()) {
            (Offload::GSO_TCPV4 | Offload::GSO_TCPV6, PROTO_TCP) => usize::from(pkt.l4().get(12)? >> 4) * 4,
            (Offload::GSO_UDP_L4, PROTO_UDP) => 8,
            _ => return None,
        };
        let least = if pkt.proto() == PROTO_TCP { 20 } else { 8 };
        let headers = l4 + l4_header;
        (offload.gso_size > 0 && l4_header >= least && headers < pkt.frame_len() && pkt.fragment().is_none())
            .then_some(Self { proto: pkt.proto(), l4, headers })
    }

    /// Makes the `n`th segment stand on its own: lengths, identification, sequence number, flags, checksums.
    fn finish(&self, segment: &mut [u8], n: usize, is_last: bool, size: usize, whole: &Packet) {
        let l4_len = segment.len() - self.l4;
        match whole.family() {
            Family::Ipv4 => {
                let total = (segment.len() - ETHERNET_LEN) as u16;
                put(segment, ETHERNET_LEN + 2, total);
                // Each is a datagram of its own (RFC 6864 §4), numbered as Linux numbers them.
                let ident = word(segment, ETHERNET_LEN + 4).wrapping_add(n as u16);
                put(segment, ETHERNET_LEN + 4, ident);
                put(segment, ETHERNET_LEN + 10, 0);
                let checksum = Sum::ZERO.bytes(&segment[ETHERNET_LEN..self.l4]).checksum();
                put(segment, ETHERNET_LEN + 10, checksum);
            }
            Family::Ipv6 => put(segment, ETHERNET_LEN + 4, (segment.len() - ETHERNET_LEN - 40) as u16),
        }
        let checksum_at = if self.proto == PROTO_TCP {
            self.finish_tcp(segment, n, is_last, size);
            self.l4 + 16
        } else {
            put(segment, self.l4 + 4, l4_len as u16);
            self.l4 + 6
        };
        put(segment, checksum_at, 0);
        let pseudo = Sum::pseudo_header(whole.src(), whole.dst(), whole.family(), self.proto, l4_len);
        let checksum = match pseudo.bytes(&segment[self.l4..]).checksum() {
            // Zero says that there is none (RFC 768).
            0 if self.proto == PROTO_UDP => 0xffff,
            checksum => checksum,
        };
        put(segment, checksum_at, checksum);
    }

    fn finish_tcp(&self, segment: &mut [u8], n: usize, is_last: bool, size: usize) {
        let at = self.l4 + 4;
        let seq = u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
        segment[at..at + 4].copy_from_slice(&seq.wrapping_add((n * size) as u32).to_be_bytes());
        let flags = &mut segment[self.l4 + 13];
        if !is_last {
            *flags &= !(TcpFlags::FIN | TcpFlags::PSH).bits();
        }
        // One reduction of the window is announced once (RFC 3168 §6.1.2).
        if n > 0 {
            *flags &= !TcpFlags::CWR.bits();
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet frame around an IP packet without payload; its IP checksum is filled in.
    fn frame(family: Family, proto: u8, l4: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match family {
            Family::Ipv4 => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + l4.len() as u16).to_be_bytes());
                frame.extend([0xff, 0xff, 0x40, 0, 64, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
                let checksum = Sum::ZERO.bytes(&frame[14..]).checksum();
                put(&mut frame, 24, checksum);
            }
            Family::Ipv6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((l4.len() as u16).to_be_bytes());
                frame.extend([proto, 64]);
                frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
                frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            }
        }
        frame.extend_from_slice(l4);
        frame
    }

    /// Each segment checked as a packet that came in, with its flags or length, and its payload.
    fn segments(family: Family, proto: u8, l4: &[u8], offload: Offload) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut out = Vec::new();
        let taken = split(&mut frame(family, proto, l4), offload, &mut |segment| {
            let mut segment = segment.to_vec();
            let pkt = Packet::parse(&mut segment, Offload::NONE).expect("a whole packet");
            assert!(pkt.l4_checksum_ok(), "checksum of segment {}", out.len());
            let header = if proto == PROTO_TCP { 20 } else { 8 };
            out.push((pkt.l4()[..header].to_vec(), pkt.l4()[header..].to_vec()));
        });
        assert_eq!(taken, !out.is_empty());
        out
    }

    const fn offload(gso_type: u8, gso_size: u16) -> Offload {
        Offload { flags: Offload::NEEDS_CSUM, gso_type, gso_size, ..Offload::NONE }
    }

    fn tcp(flags: TcpFlags, payload: usize) -> Vec<u8> {
        let mut l4 =
            vec![0, 22, 0, 99, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 1, 0x50, flags.bits(), 1, 0, 0, 0, 0, 0];
        l4.extend((0..payload).map(|n| n as u8));
        l4
    }

    #[test]
    fn tcp_is_cut_at_the_segment_size_and_numbered_on() {
        for (family, kind) in [(Family::Ipv4, Offload::GSO_TCPV4), (Family::Ipv6, Offload::GSO_TCPV6)] {
            let flags = TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN | TcpFlags::CWR;
            let whole = tcp(flags, 2501);
            let cut = segments(family, PROTO_TCP, &whole, offload(kind | Offload::GSO_ECN, 1000));
            let lens: Vec<usize> = cut.iter().map(|(_, data)| data.len()).collect();
            assert_eq!(lens, [1000, 1000, 501], "{family:?}");
            let seqs: Vec<u32> =
                cut.iter().map(|(h, _)| u32::from_be_bytes([h[4], h[5], h[6], h[7]])).collect();
            assert_eq!(seqs, [0xffff_fffe, 998, 1998], "on a circle");
            let seen: Vec<TcpFlags> = cut.iter().map(|(h, _)| TcpFlags::from_bits_retain(h[13])).collect();
            let ack = TcpFlags::ACK;
            assert_eq!(seen, [ack | TcpFlags::CWR, ack, ack | TcpFlags::PSH | TcpFlags::FIN]);
            let data: Vec<u8> = cut.into_iter().flat_map(|(_, data)| data).collect();
            assert_eq!(data, whole[20..]);
        }
    }

    #[test]
    fn datagrams_get_lengths_of_their_own() {
        let mut l4 = vec![0, 53, 0, 54, 0, 0, 0, 0];
        l4.extend([7; 130]);
        let cut = segments(Family::Ipv4, PROTO_UDP, &l4, offload(Offload::GSO_UDP_L4, 64));
        let lens: Vec<(u16, usize)> = cut.iter().map(|(h, data)| (word(h, 4), data.len())).collect();
        assert_eq!(lens, [(72, 64), (72, 64), (10, 2)]);
    }

    #[test]
    fn what_cannot_be_cut_is_left_alone() {
        let whole = tcp(TcpFlags::ACK, 100);
        for (case, proto, bytes, offload) in [
            ("no segment size", PROTO_TCP, whole.clone(), offload(Offload::GSO_TCPV4, 0)),
            ("UDP said to be TCP", PROTO_UDP, whole.clone(), offload(Offload::GSO_TCPV4, 50)),
            ("nothing behind the header", PROTO_TCP, whole[..20].to_vec(), offload(Offload::GSO_TCPV4, 50)),
            ("a header cut short", PROTO_TCP, whole[..10].to_vec(), offload(Offload::GSO_TCPV4, 50)),
            ("fragmentation offload, which no port offers", PROTO_UDP, whole, offload(Offload::GSO_UDP, 50)),
        ] {
            assert_eq!(segments(Family::Ipv4, proto, &bytes, offload), [], "{case}");
        }
    }
}

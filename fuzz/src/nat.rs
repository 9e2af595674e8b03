//! Frames through routers that translate addresses and ports: nothing panics, and a checksum that was right is right again.
//!
//! The input is that of the target `frames`.

use super::{frames, routers};
use stateway_core::packet::checksum::Sum;
use stateway_core::packet::{Addr, Family};

pub fn run(data: &[u8]) {
    let Some((&pick, rest)) = data.split_first() else { return };
    frames::through(&routers::pick_translating(pick), 0, rest, &mut |before, after| {
        let (before, after) = (sums(before), sums(after));
        assert!(!before.header || after.header, "the checksum of the IPv4 header");
        assert!(
            before.payload != Some(true) || after.payload != Some(false),
            "the checksum behind the IP header"
        );
    });
}

/// Which checksums of a frame are right.
struct Sums {
    header: bool,
    /// `None` where there is none, or none to be computed from this frame alone.
    payload: Option<bool>,
}

fn sums(frame: &[u8]) -> Sums {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => sums4(&frame[14..]).unwrap_or(Sums { header: false, payload: None }),
        Some([0x86, 0xdd]) => Sums { header: false, payload: payload6(&frame[14..]) },
        _ => Sums { header: false, payload: None },
    }
}

fn sums4(packet: &[u8]) -> Option<Sums> {
    let len = usize::from(packet.first()? & 0x0f) * 4;
    let header = packet.get(..len).filter(|header| header.len() >= 20)?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_fragment = [header[6] & 0x3f, header[7]] != [0, 0];
    let payload = packet.get(len..total).filter(|_| !is_fragment);
    let addr = |at: usize| Addr::from_v4([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let ends = (addr(12), addr(16), Family::Ipv4);
    Some(Sums {
        header: Sum::ZERO.bytes(header).checksum() == 0,
        payload: payload.and_then(|payload| is_right(ends, header[9], payload)),
    })
}

fn payload6(packet: &[u8]) -> Option<bool> {
    let header = packet.first_chunk::<40>()?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let addr = |at: usize| Addr::from_v6(core::array::from_fn(|n| header[at + n]));
    is_right((addr(8), addr(24), Family::Ipv6), header[6], packet.get(40..40 + len)?)
}

/// Whether TCP, UDP or ICMP says the right checksum.
fn is_right((src, dst, family): (Addr, Addr, Family), proto: u8, payload: &[u8]) -> Option<bool> {
    let says_none = proto == 17 && payload.get(6..8)? == [0, 0];
    let pseudo = match (proto, family) {
        (1, Family::Ipv4) => Sum::ZERO,
        (6 | 17, _) | (58, Family::Ipv6) => Sum::pseudo_header(src, dst, family, proto, payload.len()),
        _ => return None,
    };
    (!says_none).then(|| pseudo.bytes(payload).checksum() == 0)
}

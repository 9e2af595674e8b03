//! Properties that hold for whatever comes: tuples, checksums, and frames made of noise.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use proptest::prelude::*;
use stateway_core::config::{Mode, RouterConfig};
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::checksum::Sum;
use stateway_core::packet::{Addr, Family, Frame, Mac, Offload, Packet, Prefix, Tuple};
use stateway_core::record::NoRecord;
use stateway_core::router::Router;
use stateway_core::time::Instant;

const TCP: u8 = 6;
const UDP: u8 = 17;
const UDPLITE: u8 = 136;

proptest! {
    #[test]
    fn the_reply_of_a_reply_is_the_tuple(tuple in tuples()) {
        prop_assert_eq!(tuple.reply().reply(), tuple);
    }

    #[test]
    fn an_adjusted_checksum_equals_a_recomputed_one(packet in packets(), edits in edits(), partial: bool) {
        let mut frame = packet;
        let offload = if partial { partial_checksum(&mut frame) } else { Offload::NONE };
        let mut pkt = Packet::parse(&mut frame, offload).unwrap();
        for edit in edits {
            edit.apply(&mut pkt);
        }
        pkt.finish_checksum();
        prop_assert!(pkt.l4_checksum_ok());
        let adjusted = pkt.frame().to_vec();
        pkt.fill_l4_checksum();
        prop_assert_eq!(&adjusted, pkt.frame(), "zero has one form only");
        prop_assert!(Packet::parse(&mut frame, Offload::NONE).is_ok(), "the IP header's own checksum");
    }

    /// Noise behind a header that leads it as far in as possible.
    #[test]
    fn noise_never_panics(frames in prop::collection::vec(noise(), 1..40), route: bool) {
        let router = router(if route { Mode::Route } else { Mode::Bridge });
        let mut worker = router.worker();
        for (n, mut frame) in frames.into_iter().enumerate() {
            let now = Instant::from_millis(n as u64 * 700);
            let iface = IfaceId((n % 2) as u16);
            router.process(&mut worker, now, iface, Frame::new(&mut frame), &mut NoRecord);
            router.handle_timeout(&mut worker, now);
            worker.take_emissions();
        }
    }
}

fn addr(family: Family) -> impl Strategy<Value = Addr> {
    any::<[u8; 16]>().prop_map(move |bytes| match family {
        Family::Ipv4 => Addr::from_v4([192, 0, 2, bytes[0] & 3]),
        Family::Ipv6 => Addr::from_v6(bytes.map(|b| b & 1)),
    })
}

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)]
}

/// Few values of each part, so that tuples often meet.
fn tuples() -> impl Strategy<Value = Tuple> {
    let protos = prop_oneof![Just(TCP), Just(UDP), Just(1), Just(58), Just(47), Just(132), any::<u8>()];
    let part = || prop_oneof![0..4_u16, Just(0x0800), Just(0x8000), Just(0x0d00), any::<u16>()];
    families().prop_flat_map(move |family| {
        (addr(family), addr(family), part(), part(), 0..2_u16, protos.clone()).prop_map(
            move |(src, dst, left, right, zone, proto)| Tuple { src, dst, left, right, zone, proto, family },
        )
    })
}

/// A frame with a correct checksum.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let l4 = prop_oneof![
        (Just(TCP), prop::collection::vec(any::<u8>(), 20..80)),
        (Just(UDP), prop::collection::vec(any::<u8>(), 8..80)),
        (Just(UDPLITE), prop::collection::vec(any::<u8>(), 8..80)),
        (Just(1), prop::collection::vec(any::<u8>(), 8..80)),
    ];
    (families(), l4, any::<[u8; 2]>()).prop_map(|(family, (proto, mut l4), noise)| {
        let proto = if family == Family::Ipv6 && proto == 1 { 58 } else { proto };
        if proto == UDP || proto == UDPLITE {
            let len = l4.len() as u16;
            l4[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let mut frame = ip_frame(family, proto, &l4);
        frame[15] = noise[0];
        if family == Family::Ipv4 {
            frame[18] = noise[1];
        }
        fix_header(&mut frame);
        Packet::parse(&mut frame, Offload::NONE).unwrap().fill_l4_checksum();
        frame
    })
}

#[derive(Clone, Debug)]
enum Edit {
    Ttl(u8),
    Tos(u8),
    Src([u8; 16]),
    Dst([u8; 16]),
    SrcPort(u16),
    DstPort(u16),
    /// Bytes behind the header.
    Payload(u8, Vec<u8>),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        any::<u8>().prop_map(Edit::Ttl),
        any::<u8>().prop_map(Edit::Tos),
        any::<[u8; 16]>().prop_map(Edit::Src),
        any::<[u8; 16]>().prop_map(Edit::Dst),
        any::<u16>().prop_map(Edit::SrcPort),
        any::<u16>().prop_map(Edit::DstPort),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..8)).prop_map(|(at, b)| Edit::Payload(at, b)),
    ];
    prop::collection::vec(edit, 0..6)
}

impl Edit {
    fn apply(self, pkt: &mut Packet) {
        let addr = |b: [u8; 16]| match pkt.family() {
            Family::Ipv4 => Addr::from_v4([b[0], b[1], b[2], b[3]]),
            Family::Ipv6 => Addr::from_v6(b),
        };
        match self {
            Self::Ttl(ttl) => pkt.set_ttl(ttl),
            Self::Tos(tos) => pkt.set_tos(tos),
            Self::Src(b) => pkt.set_src(addr(b)),
            Self::Dst(b) => pkt.set_dst(addr(b)),
            Self::SrcPort(port) => pkt.set_src_port(port),
            Self::DstPort(port) => pkt.set_dst_port(port),
            Self::Payload(at, bytes) => {
                let header = if pkt.proto() == TCP { 20 } else { 8 };
                let at = header + usize::from(at) % (pkt.l4().len() - header + 1);
                let len = bytes.len().min(pkt.l4().len() - at);
                pkt.edit_l4(at, &bytes[..len]);
            }
        }
    }
}

/// Leaves the checksum as a sender does whose card is to finish it.
fn partial_checksum(frame: &mut [u8]) -> Offload {
    let mut pkt = Packet::parse(frame, Offload::NONE).unwrap();
    let offset = match pkt.proto() {
        TCP => 16,
        UDP => 6,
        _ => return Offload::NONE,
    };
    let (family, proto, len) = (pkt.family(), pkt.proto(), pkt.l4().len());
    let sum = Sum::pseudo_header(pkt.src(), pkt.dst(), family, proto, len).folded();
    pkt.l4_mut()[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    let csum_start = (14 + pkt.l3_header_len()) as u16;
    Offload { flags: Offload::NEEDS_CSUM, csum_start, csum_offset: offset as u16, ..Offload::NONE }
}

fn ip_frame(family: Family, proto: u8, l4: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 2, 2, 2, 0, 0, 0, 1, 2];
    let len = l4.len() as u16;
    match family {
        Family::Ipv4 => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((len + 20).to_be_bytes());
            frame.extend([0, 1, 0, 0, 64, proto, 0, 0, 192, 0, 2, 10, 198, 51, 100, 10]);
        }
        Family::Ipv6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([proto, 64]);
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
        }
    }
    frame.extend(l4);
    fix_header(&mut frame);
    frame
}

fn fix_header(frame: &mut [u8]) {
    if frame[14] >> 4 == 4 {
        let header = 14 + usize::from(frame[14] & 0xf) * 4;
        frame[24..26].fill(0);
        let checksum = Sum::ZERO.bytes(&frame[14..header.min(frame.len())]).checksum();
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Anything at all; or a good IP header, options and fragment fields included, in front of anything.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..120);
    let protos = prop_oneof![
        prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 47, 50, 51, 58, 59, 60, 132, 136]),
        any::<u8>()
    ];
    let with_header = (families(), protos, bytes(), any::<[u8; 6]>(), bytes()).prop_map(
        |(family, proto, l4, [ihl, frag, flags, ttl, len, _], tail)| {
            let mut frame = ip_frame(family, proto, &l4);
            if family == Family::Ipv4 {
                // Mostly no options, and mostly no fragment.
                if ihl > 200 {
                    frame[14] = 0x40 | (ihl & 0xf);
                }
                if frag > 160 {
                    frame[20..22].copy_from_slice(&[flags & 0x20, frag & 7]);
                }
            }
            if ttl < 30 {
                frame[22] = ttl & 1;
            }
            if len < 20 {
                frame[17] ^= len;
            }
            fix_header(&mut frame);
            if let Ok(mut pkt) = Packet::parse(&mut frame, Offload::NONE)
                && len & 1 == 0
            {
                pkt.fill_l4_checksum();
            }
            frame.extend(tail.into_iter().take(usize::from(len & 7)));
            frame
        },
    );
    prop_oneof![1 => bytes(), 4 => with_header]
}

fn router(mode: Mode) -> Router {
    let mut ifaces: Vec<Iface> =
        ["left", "right"].iter().enumerate().map(|(n, name)| Iface::new(*name, IfaceId(n as u16))).collect();
    if mode == Mode::Route {
        ifaces[0].addresses = vec![Prefix::new(Addr::from_v4([192, 0, 2, 1]), 24, Family::Ipv4)];
        ifaces[1].addresses = vec![Prefix::new(Addr::from_v4([198, 51, 100, 1]), 24, Family::Ipv4)];
        ifaces[0].mac = Mac([2, 0, 0, 0, 2, 2]);
    }
    let config = {
        let mut made = RouterConfig::new(ifaces);
        made.mode = mode;
        made.rules6 = Some("*filter\nCOMMIT\n".into());
        made
    };
    Router::new(config).unwrap()
}

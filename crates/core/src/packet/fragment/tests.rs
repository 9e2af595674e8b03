//! Pieces that come, and pieces that leave.

#![forbid(unsafe_code)]

use super::super::{IPV6_DESTINATION, IPV6_FRAGMENT};
use super::cut::{MORE_FRAGMENTS, drop_first_only_options};
use super::*;

const V4: Family = Family::Ipv4;
const V6: Family = Family::Ipv6;

/// A fragment of `family` with id 7: `offset`, payload, more.
fn fragment(family: Family, offset: usize, data: &[u8], more: bool) -> Vec<u8> {
    let mut frame = vec![0; 12];
    match family {
        Family::Ipv4 => {
            frame.extend([8, 0, 0x45, 0, 0, 0, 0, 7, 0, 0, 64, 17, 0, 0]);
            frame.extend([192, 0, 2, 10, 198, 51, 100, 10]);
            let flags = (offset / 8) as u16 | if more { MORE_FRAGMENTS } else { 0 };
            finish_ipv4(&mut frame, (20 + data.len()) as u16, flags, 0);
        }
        Family::Ipv6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(((8 + data.len()) as u16).to_be_bytes());
            frame.extend([IPV6_FRAGMENT, 64]);
            frame.extend([[0x20; 16], [0x21; 16]].concat());
            frame.extend([17, 0]);
            frame.extend((offset as u16 | u16::from(more)).to_be_bytes());
            frame.extend(7_u32.to_be_bytes());
        }
    }
    frame.extend(data);
    frame
}

fn add(fragments: &Fragments, frame: &[u8], at_secs: u64) -> Reassembly {
    let mut frame = frame.to_vec();
    let pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    fragments.add(&pkt, 0, Bounds6::default(), Instant::from_secs(at_secs))
}

/// What becomes of pieces that come one after the other: `_` pending, `=` whole, else the reason.
fn story(family: Family, pieces: &[(usize, usize, bool)]) -> Vec<&'static str> {
    let fragments = Fragments::default();
    let outcome = |&(offset, len, more): &(usize, usize, bool)| match add(
        &fragments,
        &fragment(family, offset, &vec![7; len], more),
        0,
    ) {
        Reassembly::Pending => "_",
        Reassembly::Whole(_) => "=",
        Reassembly::Refused(reason) => reason.code(),
        Reassembly::Passes => "passes",
    };
    pieces.iter().map(outcome).collect()
}

#[test]
fn pieces_join_in_any_order_and_leave_as_they_came() {
    let data: Vec<u8> = (0..60).collect();
    for family in [V4, V6] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let fragments = Fragments::default();
            let ranges = [0..24, 24..32, 32..60];
            let frames = ranges.map(|r| fragment(family, r.start, &data[r.clone()], r.end < 60));
            let mut whole = None;
            for at in order {
                match add(&fragments, &frames[at], 0) {
                    Reassembly::Whole(w) => whole = Some(w),
                    Reassembly::Pending => assert!(whole.is_none()),
                    Reassembly::Refused(reason) => panic!("{reason}"),
                    Reassembly::Passes => panic!("it is one of three"),
                }
            }
            let mut whole = whole.expect("all came");
            let pieces = whole.pieces.clone();
            let pkt = whole.packet().unwrap();
            assert!(pkt.fragment().is_none());
            assert_eq!(pkt.l4(), data, "{family:?} {order:?}");
            assert_eq!(pieces.cut(&pkt, 1500), frames, "{family:?} {order:?}");
        }
    }
}

#[test]
fn a_copy_is_dropped_and_an_overlap_ends_the_wait() {
    use DropReason::{FragmentBad, FragmentDuplicate, FragmentOverlap};
    let [copy, overlap, bad] = [FragmentDuplicate, FragmentOverlap, FragmentBad].map(DropReason::code);
    for family in [V4, V6] {
        assert_eq!(story(family, &[(0, 24, true), (0, 24, true), (24, 8, false)]), ["_", copy, "="]);
        assert_eq!(story(family, &[(0, 24, true), (8, 8, true), (24, 8, false)]), ["_", copy, "="]);
        assert_eq!(story(family, &[(0, 24, true), (16, 16, true), (24, 8, false)]), ["_", overlap, "_"]);
        assert_eq!(
            story(family, &[(0, 24, true), (32, 8, true), (24, 16, true), (40, 8, false)]),
            ["_", "_", overlap, "_"]
        );
        assert_eq!(story(family, &[(24, 8, false), (0, 48, true)])[1], bad, "beyond the end");
    }
}

#[test]
fn a_piece_that_is_not_the_last_has_whole_units() {
    assert_eq!(story(V4, &[(0, 27, true), (24, 8, false)]), ["_", "="], "the rest is cut off");
    assert_eq!(story(V6, &[(0, 27, true), (24, 8, false)]), ["passes", "_"], "and is no part of it");
}

#[test]
fn the_wait_ends_after_thirty_and_sixty_seconds() {
    for (family, secs) in [(V4, 30), (V6, 60)] {
        for (at, whole) in [(secs - 1, true), (secs, false)] {
            let fragments = Fragments::default();
            add(&fragments, &fragment(family, 0, &[7; 24], true), 0);
            assert_eq!(fragments.poll_timeout(), Some(Instant::from_secs(secs)));
            let last = add(&fragments, &fragment(family, 24, &[7; 8], false), at);
            assert_eq!(matches!(last, Reassembly::Whole(_)), whole, "{family:?} after {at} s");
        }
    }
}

#[test]
fn what_waits_is_bounded_in_datagrams_and_bytes() {
    let piece = fragment(V4, 0, &[7; 1024], true);
    let flood = |bounds| {
        let fragments = Fragments::new(bounds);
        let taken = (0..100_u8).filter(|n| {
            let mut frame = piece.clone();
            frame[29] = *n;
            finish_ipv4(&mut frame, 1044, MORE_FRAGMENTS, 0);
            matches!(add(&fragments, &frame, 0), Reassembly::Pending)
        });
        taken.count()
    };
    assert_eq!(flood(Bounds { datagrams: 10, ..Bounds::default() }), 10);
    // Its data, what it takes to hold them, and its headers: for the whole, and to tell the sender.
    let each = 1024 + PIECE_OVERHEAD + 2 * 34;
    assert_eq!(flood(Bounds { bytes: 20 * each, ..Bounds::default() }), 21, "one more than fits");
}

#[test]
fn long_headers_in_front_of_a_fragment_count_in_the_bound() {
    // Destination options of 1,400 bytes, and eight bytes of data.
    let mut frame = fragment(V6, 0, &[7; 8], true);
    let mut options = vec![0; 1400];
    (options[0], options[1]) = (IPV6_FRAGMENT, 174);
    for at in (2..1400).step_by(233) {
        (options[at], options[at + 1]) = (1, 231);
    }
    frame[ETHERNET_LEN + 6] = IPV6_DESTINATION;
    frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&1416_u16.to_be_bytes());
    frame.splice(ETHERNET_LEN + 40..ETHERNET_LEN + 40, options);
    let fragments = Fragments::default();
    let bounds = Bounds6 { bytes: 100_000, ..Bounds6::default() };
    let taken = (0..1000_u16).filter(|n| {
        let id = frame.len() - 10;
        frame[id..id + 2].copy_from_slice(&n.to_be_bytes());
        let pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
        matches!(fragments.add(&pkt, 0, bounds, Instant::ZERO), Reassembly::Pending)
    });
    assert_eq!(taken.count(), 32, "3,180 bytes are kept of each");
    let waiting = fragments.waiting.lock();
    let held = |queue: &Queue| queue.header.len() + queue.first.len() + queue.tail.len();
    assert!(waiting.queues.values().map(held).sum::<usize>() <= 100_000 + 3180);
}

#[test]
fn the_joined_codepoint_is_that_of_rfc_3168() {
    const NOT: u8 = 1;
    const ECT1: u8 = 2;
    const ECT0: u8 = 4;
    const CE: u8 = 8;
    assert_eq!(joined_ecn(NOT), Some(0));
    assert_eq!(joined_ecn(ECT0 | ECT1), Some(0));
    assert_eq!(joined_ecn(ECT0 | CE), Some(3));
    assert_eq!(joined_ecn(NOT | CE), None);
    assert_eq!(joined_ecn(NOT | ECT0), None);
}

#[test]
fn what_does_not_fit_is_cut_anew_in_whole_units() {
    let mut frame = fragment(V4, 0, &[7; 100], false);
    let pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    let lens = |mtu| cut_to_mtu(&pkt, mtu, false).iter().map(|f| f.len() - ETHERNET_LEN).collect::<Vec<_>>();
    assert_eq!(lens(68), [68, 68, 24]);
    assert_eq!(lens(75), [68, 72], "six units and a rest; the last need not be whole");
    assert_eq!(lens(119), [116, 24]);
    assert_eq!(lens(120), [120]);
}

#[test]
fn later_pieces_carry_only_the_options_that_ask_for_it() {
    let mut frame = vec![0; ETHERNET_LEN + 20];
    frame.extend([7, 3, 4, 148, 4, 0, 0, 1, 68, 4, 5, 0, 0]);
    drop_first_only_options(&mut frame);
    assert_eq!(frame[ETHERNET_LEN + 20..], [1, 1, 1, 148, 4, 0, 0, 1, 1, 1, 1, 1, 0]);
}

#[test]
fn an_atomic_fragment_is_whole_at_once_and_loses_its_header() {
    let fragments = Fragments::default();
    let Reassembly::Whole(mut whole) = add(&fragments, &fragment(V6, 0, &[7; 24], false), 0) else {
        panic!("RFC 6946 §4")
    };
    let pieces = whole.pieces.clone();
    let pkt = whole.packet().unwrap();
    assert_eq!((pkt.proto(), pkt.l3_header_len()), (17, 40));
    assert_eq!(pieces.cut(&pkt, 1500), [pkt.frame()]);
    assert_eq!(fragments.poll_timeout(), None);
}

#[test]
fn a_fragment_header_that_is_named_too_far_behind_is_refused() {
    // Destination options of so many units of eight bytes, and then some of one unit, whose next header is the fragment.
    for (units, is_taken) in [(26, true), (27, false)] {
        let mut options = vec![0; units * 8 + 8];
        (options[0], options[1]) = (IPV6_DESTINATION, units as u8 - 1);
        options[units * 8] = IPV6_FRAGMENT;
        let mut frame = fragment(V6, 0, &[7; 24], false);
        let payload = (8 + 24 + options.len()) as u16;
        frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&payload.to_be_bytes());
        frame[ETHERNET_LEN + 6] = IPV6_DESTINATION;
        let at = ETHERNET_LEN + IPV6_HEADER_LEN;
        frame.splice(at..at, options);
        let answer = add(&Fragments::default(), &frame, 0);
        assert_eq!(matches!(answer, Reassembly::Whole(_)), is_taken, "{units} units");
    }
}

#[test]
fn a_sender_that_sends_much_else_meanwhile_has_begun_anew() {
    for (max_dist, others, joins) in [(64, 60, true), (2, 2, true), (2, 3, false), (0, 100, true)] {
        let fragments = Fragments::new(Bounds { max_dist, ..Bounds::default() });
        let piece = |offset, more, id: u8| {
            let mut frame = fragment(V4, offset, &[7; 8], more);
            frame[ETHERNET_LEN + 5] = id;
            let flags = (offset / 8) as u16 | if more { MORE_FRAGMENTS } else { 0 };
            finish_ipv4(&mut frame, 28, flags, 0);
            frame
        };
        add(&fragments, &piece(0, true, 7), 0);
        // The counter moves by one with the last piece itself.
        for n in 1..others {
            add(&fragments, &piece(0, true, 100 + n as u8), 0);
        }
        let joined = matches!(add(&fragments, &piece(8, false, 7), 0), Reassembly::Whole(_));
        assert_eq!(joined, joins, "{max_dist} at most, {others} others");
    }
}

#[test]
fn on_a_bridge_every_piece_keeps_all_options() {
    let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
    let with_options = |offset: usize, more: bool| {
        let mut frame = fragment(V4, offset, &[9; 16], more);
        frame.splice(ETHERNET_LEN + 20..ETHERNET_LEN + 20, record_route);
        frame[ETHERNET_LEN] = 0x47;
        let flags = (offset / 8) as u16 | if more { MORE_FRAGMENTS } else { 0 };
        finish_ipv4(&mut frame, 44, flags, 0);
        frame
    };
    for is_bridged in [false, true] {
        let fragments = Fragments::default();
        assert!(matches!(add(&fragments, &with_options(0, true), 0), Reassembly::Pending));
        let Reassembly::Whole(mut whole) = add(&fragments, &with_options(16, false), 0) else {
            panic!("both came")
        };
        let pieces = Pieces { is_bridged, ..whole.pieces.clone() };
        let frames = pieces.cut(&whole.packet().unwrap(), 1500);
        let kept = |frame: &Vec<u8>| frame[ETHERNET_LEN + 20..ETHERNET_LEN + 28] == record_route;
        assert_eq!(frames.iter().map(kept).collect::<Vec<_>>(), [true, is_bridged]);
    }
}

use super::*;
use crate::conntrack::Sysctls;
use crate::conntrack::tcp::{Seen, TcpOutcome};
use crate::packet::segment::Options;
use Direction::{Original, Reply};

const ACK: TcpFlags = TcpFlags::ACK;
const SYN: TcpFlags = TcpFlags::SYN;
const SYN_ACK: TcpFlags = SYN.union(ACK);
const RST: TcpFlags = TcpFlags::RST;
const SEEN: Seen = Seen { seen_reply: true, assured: true, put_back: 0 };

fn segment(flags: TcpFlags, seq: u32, ack: u32, len: u32) -> Segment {
    Segment { seq: Seq(seq), ack: Seq(ack), flags, win: 1000, len, options: Options::default() }
}

/// Whether the segment passes; what is INVALID does not.
fn passes(tcp: &mut Tcp, dir: Direction, seg: &Segment) -> bool {
    matches!(
        tcp.track(seg, dir, SEEN, &Sysctls::default()),
        TcpOutcome::Accept { .. } | TcpOutcome::Tolerated(_)
    )
}

/// The opener has sent up to 101 and the responder up to 501; both scale their windows by 2⁷.
fn established() -> Tcp {
    let options = Options { present: true, wscale: Some(7), sack_permitted: true, sack_right: None };
    let sysctls = Sysctls::default();
    let syn = Segment { options, ..segment(SYN, 100, 0, 0) };
    let mut tcp = Tcp::open(&syn, &sysctls).unwrap();
    for (dir, seg) in [
        (Original, syn),
        (Reply, Segment { options, ..segment(SYN_ACK, 500, 101, 0) }),
        (Original, segment(ACK, 101, 501, 0)),
    ] {
        assert!(passes(&mut tcp, dir, &seg));
    }
    tcp
}

fn resumed() -> Tcp {
    let saved = SavedTcp::of(&established());
    assert!(saved.is_sound());
    saved.resume().unwrap()
}

/// With both sides heard, forgeries of either are INVALID.
fn is_strict(mut tcp: Tcp, original: u32, reply: u32) {
    let far = 1 << 29;
    for (dir, seq, ack) in [
        (Original, original.wrapping_add(far), reply),
        (Original, original, reply.wrapping_add(far)),
        (Reply, reply.wrapping_add(far), original),
        (Reply, reply, original.wrapping_add(far)),
    ] {
        assert!(!passes(&mut tcp, dir, &segment(ACK, seq, ack, 10)), "{dir:?} {seq} {ack}");
    }
    assert!(passes(&mut tcp, Original, &segment(ACK, original, reply, 10)));
}

#[test]
fn a_connection_that_was_not_interrupted_is_strict() {
    is_strict(established(), 101, 501);
}

#[test]
fn whoever_speaks_first_may_have_gone_far_ahead() {
    for ahead in [0, 1_000_000, 1 << 30, 3 << 30] {
        let mut tcp = resumed();
        let at = 501_u32.wrapping_add(ahead);
        assert!(passes(&mut tcp, Reply, &segment(ACK, at, 101, 1448)), "{ahead}");
        assert!(passes(&mut tcp, Original, &segment(ACK, 101, at.wrapping_add(1448), 0)), "{ahead}");
        is_strict(tcp, 101, at.wrapping_add(1448));
    }
}

/// The acknowledgement of what the far side repeats is of more than that: it had come before the interruption.
#[test]
fn an_answer_may_acknowledge_more_than_was_heard_since() {
    let mut tcp = resumed();
    assert!(passes(&mut tcp, Reply, &segment(ACK, 9_000_000, 101, 1000)));
    assert!(passes(&mut tcp, Original, &segment(ACK, 101, 9_500_000, 0)));
    assert!(passes(&mut tcp, Reply, &segment(ACK, 9_500_000, 101, 1000)));
    is_strict(tcp, 101, 9_501_000);
}

#[test]
fn a_side_may_send_much_before_the_other_is_heard() {
    let mut tcp = resumed();
    let mut at = 70_000_000;
    for _ in 0..2000 {
        assert!(passes(&mut tcp, Original, &segment(ACK, at, 501, 1448)), "{at}");
        at += 1448;
    }
    assert!(passes(&mut tcp, Reply, &segment(ACK, 501, at, 0)));
    is_strict(tcp, at, 501);
}

#[test]
fn a_reset_is_nothing_to_go_on_from() {
    let mut tcp = resumed();
    // Off the mark, so the connection stays: a challenge will say.
    passes(&mut tcp, Reply, &segment(RST, 77_777_777, 0, 0));
    tcp.state = TcpState::Established;
    assert!(passes(&mut tcp, Original, &segment(ACK, 5_000_000, 8_000_000, 10)));
    assert!(passes(&mut tcp, Reply, &segment(ACK, 8_000_000, 5_000_010, 10)));
    is_strict(tcp, 5_000_010, 8_000_010);
}

#[test]
fn windows_keep_their_scale() {
    let mut tcp = resumed();
    assert!(passes(&mut tcp, Original, &segment(ACK, 101, 2_000_501, 0)));
    assert!(passes(&mut tcp, Reply, &segment(ACK, 2_000_501, 101, 0)));
    // 1000 as it stands there, and 128,000 as it is meant; what lies a window beyond is forged.
    assert!(passes(&mut tcp, Reply, &segment(ACK, 2_000_501 + 127_000, 101, 500)));
    assert!(!passes(&mut tcp, Reply, &segment(ACK, 2_000_501 + 400_000, 101, 500)));
}

#[test]
fn a_handshake_without_an_answer_begins_again() {
    let sysctls = Sysctls::default();
    let syn = segment(SYN, 100, 0, 0);
    let mut tcp = Tcp::open(&syn, &sysctls).unwrap();
    assert!(passes(&mut tcp, Original, &syn));
    assert_eq!(SavedTcp::of(&tcp).resume(), None);
    assert!(passes(&mut tcp, Reply, &segment(SYN_ACK, 500, 101, 0)));
    let mut tcp = SavedTcp::of(&tcp).resume().unwrap();
    assert!(passes(&mut tcp, Original, &segment(ACK, 101, 501, 0)));
    assert_eq!(tcp.state(), TcpState::Established);
}

#[test]
fn a_scale_that_no_option_can_have_is_unsound() {
    let mut saved = SavedTcp::of(&established());
    saved.sides[1].wscale = MAX_WSCALE + 1;
    assert!(!saved.is_sound());
}

//! Stories of connections, a segment a row, read downwards as the figures of RFC 9293.
//!
//! Sequence numbers of the opener begin at 100, those of the responder at 500, as a rule.

use super::*;
use crate::packet::segment::Options;
use TcpState::{Close, CloseWait, Established, FinWait, LastAck, SynRecv, SynSent, SynSent2, TimeWait};

const FIN: TcpFlags = TcpFlags::FIN;
const SYN: TcpFlags = TcpFlags::SYN;
const RST: TcpFlags = TcpFlags::RST;
const ACK: TcpFlags = TcpFlags::ACK;
const FIN_ACK: TcpFlags = FIN.union(ACK);
const SYN_ACK: TcpFlags = SYN.union(ACK);
const RST_ACK: TcpFlags = RST.union(ACK);

// ── The figures of RFC 9293, and how a connection comes and goes ─────────────────────────────────────────────

#[test]
fn figure_6_basic_handshake() {
    check(&[
        //       flags    seq  ack  len
        original(SYN, 100, 0, 0).becomes(SynSent).for_secs(120),
        reply(SYN_ACK, 300, 101, 0).becomes(SynRecv).for_secs(60),
        original(ACK, 101, 301, 0).becomes(Established).for_secs(432_000).assured(),
        original(ACK, 101, 301, 10).becomes(Established).for_secs(300),
        reply(ACK, 301, 111, 0).becomes(Established).for_secs(432_000),
    ]);
}

#[test]
fn figure_7_simultaneous_open() {
    check(&[
        original(SYN, 100, 0, 0).becomes(SynSent),
        reply(SYN, 300, 0, 0).becomes(SynSent2).keeps_timer(),
        original(SYN_ACK, 100, 301, 0).becomes(SynRecv),
        reply(SYN_ACK, 300, 101, 0).ignored(),
        original(ACK, 101, 301, 0).becomes(Established).assured(),
    ]);
}

#[test]
fn a_simultaneous_open_may_end_with_the_responders_ack() {
    check(&[
        original(SYN, 100, 0, 0).becomes(SynSent),
        reply(SYN, 300, 0, 0).becomes(SynSent2).keeps_timer(),
        original(SYN_ACK, 100, 301, 0).becomes(SynRecv),
        reply(ACK, 301, 101, 0).becomes(Established).assured(),
    ]);
}

/// An old SYN arrives before the new one; the responder answers it and the opener resets.
#[test]
fn figure_8_recovery_from_an_old_duplicate_syn() {
    check(&[
        original(SYN, 90, 0, 0).becomes(SynSent),
        original(SYN, 100, 0, 0).becomes(SynSent).keeps_timer(),
        reply(SYN_ACK, 300, 91, 0).becomes(SynRecv),
        original(RST, 91, 0, 0).becomes(Close).for_secs(10),
        original(SYN, 100, 0, 0).reopens(),
    ]);
}

/// One side lost its memory and opens again while the other still holds the connection (RFC 5961 §4).
#[test]
fn figure_10_half_open_connection_discovery() {
    check(
        &[
            &established()[..],
            &[
                original(SYN, 4000, 0, 0).ignored(),
                reply(ACK, 501, 101, 0).becomes(Established).named("the challenge ACK"),
                original(RST, 101, 0, 0).becomes(Close).named("that RFC 793 asks for"),
                original(SYN, 4000, 0, 0).reopens(),
            ],
        ]
        .concat(),
    );
}

/// One side lost its memory and the other sends data into the void.
#[test]
fn figure_11_active_side_causes_half_open_discovery() {
    check(
        &[
            &established()[..],
            &[
                reply(ACK, 501, 101, 10).becomes(Established).for_secs(300),
                original(RST, 101, 0, 0).becomes(Close).for_secs(10),
            ],
        ]
        .concat(),
    );
}

/// RFC 9293 §3.5.3, figure 12, as seen from between the two.
#[test]
fn an_opener_that_does_not_know_its_syn_any_more_resets_the_answer() {
    check(&[
        original(SYN, 90, 0, 0).becomes(SynSent),
        reply(SYN_ACK, 300, 91, 0).becomes(SynRecv),
        original(RST, 91, 0, 0).becomes(Close),
    ]);
}

#[test]
fn figure_13_normal_close() {
    check(
        &[
            &established()[..],
            &[
                original(FIN_ACK, 101, 501, 0).becomes(FinWait).for_secs(120),
                reply(ACK, 501, 102, 0).becomes(CloseWait).for_secs(60),
                reply(FIN_ACK, 501, 102, 0).becomes(LastAck).for_secs(30),
                original(ACK, 102, 502, 0).becomes(TimeWait).for_secs(120),
            ],
        ]
        .concat(),
    );
}

#[test]
fn figure_14_simultaneous_close() {
    check(
        &[
            &established()[..],
            &[
                original(FIN_ACK, 101, 501, 0).becomes(FinWait),
                reply(FIN_ACK, 501, 101, 0).becomes(LastAck),
                original(ACK, 102, 502, 0).becomes(TimeWait),
                reply(ACK, 502, 102, 0).becomes(TimeWait),
            ],
        ]
        .concat(),
    );
}

#[test]
fn who_sent_the_first_fin_is_not_asked() {
    check(
        &[
            &established()[..],
            &[
                original(FIN_ACK, 101, 501, 0).becomes(FinWait),
                original(FIN_ACK, 101, 501, 0).becomes(LastAck).named("its own FIN again"),
                original(ACK, 102, 501, 0).becomes(TimeWait).named("its own ACK"),
            ],
        ]
        .concat(),
    );
}

#[test]
fn a_fin_straight_after_the_syn_ack_leaves_the_connection_unassured() {
    check(&[
        original(SYN, 100, 0, 0).becomes(SynSent),
        reply(SYN_ACK, 500, 101, 0).becomes(SynRecv),
        original(FIN_ACK, 101, 501, 0).becomes(FinWait),
        reply(FIN_ACK, 501, 102, 0).becomes(LastAck),
        original(ACK, 102, 502, 0).becomes(TimeWait).unassured(),
    ]);
}

#[test]
fn after_time_wait_either_side_may_open_again() {
    let closed = [
        &established()[..],
        &[
            original(FIN_ACK, 101, 501, 0).becomes(FinWait),
            reply(FIN_ACK, 501, 102, 0).becomes(LastAck),
            original(ACK, 102, 502, 0).becomes(TimeWait),
        ],
    ]
    .concat();
    check(&[&closed[..], &[original(SYN, 9000, 0, 0).reopens()]].concat());
    check(&[&closed[..], &[reply(SYN, 9000, 0, 0).reopens()]].concat());
}

#[test]
fn after_the_responders_reset_the_openers_syn_waits_for_the_timer() {
    check(
        &[
            &established()[..],
            &[
                reply(RST, 501, 0, 0).becomes(Close).for_secs(10),
                original(SYN, 9000, 0, 0).ignored().named("the reset was not its own"),
                original(RST, 9001, 0, 0).becomes(Close),
                original(SYN, 9000, 0, 0).reopens().named("now it is"),
            ],
        ]
        .concat(),
    );
}

// ── First segments ───────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn only_syn_and_ack_can_be_first() {
    use InvalidReason::TcpNew;
    for (flags, wanted) in [
        (SYN, Ok(SynSent)),
        (ACK, Ok(Established)),
        (SYN_ACK, Err(TcpNew)),
        (FIN_ACK, Err(TcpNew)),
        (RST, Err(TcpNew)),
        (RST_ACK, Err(TcpNew)),
    ] {
        let first = original(flags, 100, 500, 0);
        check(&[match wanted {
            Ok(state) => first.becomes(state),
            Err(reason) => first.invalid(reason),
        }]);
    }
}

#[test]
fn a_picked_up_connection_is_liberal_and_short_lived_until_data_is_acknowledged() {
    check(&[
        original(ACK, 100, 500, 10).becomes(Established).for_secs(300),
        reply(ACK, 500, 110, 0).becomes(Established).for_secs(300).unassured(),
        original(ACK, 110, 500, 0).becomes(Established).for_secs(432_000).assured(),
        original(ACK, 900_000_000, 500, 10)
            .becomes(Established)
            .named("far outside, as the window may be scaled"),
    ]);
}

#[test]
fn without_tcp_loose_nothing_is_picked_up() {
    let strict = Sysctls { tcp_loose: false, ..Sysctls::default() };
    check_with(&strict, &[original(ACK, 100, 500, 0).invalid(InvalidReason::TcpPickup)]);
    check_with(&strict, &[original(SYN, 100, 0, 0).becomes(SynSent)]);
}

#[test]
fn flags_that_no_stack_sends_are_refused() {
    const VALID: [u8; 9] = [0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30];
    for bits in 0..=0xff_u8 {
        let without_psh_ece_cwr = bits & 0x37;
        let flags = TcpFlags::from_bits_retain(bits);
        assert_eq!(has_valid_flags(flags), VALID.contains(&without_psh_ece_cwr), "{flags}");
    }
}

// ── Bounds, both sides of each ───────────────────────────────────────────────────────────────────────────────
// The responder offers 1000 bytes from 101 on, so the opener may send up to 1101; it offers 2000 itself.

#[test]
fn bound_i_data_up_to_the_edge_then_one_window_of_overshoot_then_nothing() {
    use InvalidReason::TcpAboveWindow;
    after_handshake(&[original(ACK, 1101, 501, 10).becomes(Established).named("begins at the edge")]);
    after_handshake(&[original(ACK, 1102, 501, 998).ignored().named("one window behind it, last byte")]);
    after_handshake(&[original(ACK, 1102, 501, 999).invalid(TcpAboveWindow).named("one byte more")]);
    after_handshake(&[original(ACK, 50_000, 501, 0)
        .invalid(TcpAboveWindow)
        .named("no data makes no difference")]);
    after_handshake(&[
        original(ACK, 1102, 501, 100).ignored(),
        reply(ACK, 501, 1202, 0).becomes(Established).named("what overshot may be acknowledged"),
    ]);
}

#[test]
fn bound_iii_what_was_sent_may_be_acknowledged_and_no_more() {
    after_handshake(&[reply(ACK, 501, 101, 0).becomes(Established)]);
    after_handshake(&[reply(ACK, 501, 102, 0).invalid(InvalidReason::TcpAckUnseen)]);
}

#[test]
fn bound_ii_data_up_to_one_window_old_counts_and_older_is_ignored() {
    let sent = [
        original(ACK, 101, 501, 1000).becomes(Established),
        reply(ACK, 501, 1101, 0).becomes(Established).win(1000),
        original(ACK, 1101, 501, 1000).becomes(Established),
        reply(ACK, 501, 2101, 0).becomes(Established).win(1000).for_secs(432_000),
    ];
    let old = |seq, len| original(ACK, seq, 501, len);
    after_handshake(
        &[&sent[..], &[old(1091, 10).becomes(Established).named("ends one window back")]].concat(),
    );
    after_handshake(&[&sent[..], &[old(1090, 10).ignored().named("ends one byte before that")]].concat());
}

#[test]
fn bound_iv_an_acknowledgement_may_lag_by_66000() {
    let lag = |bytes: u32| reply(ACK, 501, 101_u32.wrapping_sub(bytes), 0);
    after_handshake(&[lag(66_000).becomes(Established)]);
    after_handshake(&[lag(66_001).ignored()]);
}

#[test]
fn liberal_lets_pass_what_is_out_of_bounds_but_not_a_reset_out_of_place() {
    let liberal = Sysctls { tcp_be_liberal: true, ..Sysctls::default() };
    let story = [
        &handshake_with_windows()[..],
        &[
            original(ACK, 900_000, 501, 10).becomes(Established).for_secs(432_000),
            reply(ACK, 501, 800_000, 0).becomes(Established).for_secs(432_000),
            reply(RST, 400, 0, 0).invalid(InvalidReason::TcpRst),
        ],
    ]
    .concat();
    check_with(&liberal, &story);
}

#[test]
fn windows_are_scaled_only_if_both_offered_it() {
    let far = |story: Step| {
        [
            original(SYN, 100, 0, 0).wscale(7).win(1000).becomes(SynSent),
            story.win(1000).becomes(SynRecv),
            original(ACK, 101, 501, 0).becomes(Established).win(1000),
            reply(ACK, 501, 101, 0).becomes(Established).win(1000),
        ]
    };
    let with = far(reply(SYN_ACK, 500, 101, 0).wscale(7));
    let without = far(reply(SYN_ACK, 500, 101, 0));
    let data = original(ACK, 100_101, 501, 10);
    check(&[&with[..], &[data.becomes(Established).named("inside 128000")]].concat());
    check(&[&without[..], &[data.invalid(InvalidReason::TcpAboveWindow).named("outside 1000")]].concat());
}

#[test]
fn a_sack_block_counts_as_acknowledged_for_bound_iii() {
    let story = |permitted: bool, step: Step| {
        let syn = |s: Step| if permitted { s.sack_permitted() } else { s };
        [
            syn(original(SYN, 100, 0, 0)).becomes(SynSent),
            syn(reply(SYN_ACK, 500, 101, 0)).becomes(SynRecv),
            original(ACK, 101, 501, 0).becomes(Established),
            original(ACK, 201, 501, 100).becomes(Established).named("the segment before it was lost"),
            step,
        ]
    };
    let beyond = reply(ACK, 501, 101, 0).sack(302);
    check(&story(true, reply(ACK, 501, 101, 0).sack(301).becomes(Established)));
    check(&story(true, beyond.invalid(InvalidReason::TcpAckUnseen)));
    check(&story(false, beyond.becomes(Established).named("not permitted, so not looked at")));
}

// ── Resets ───────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_reset_must_hit_the_number_that_its_receiver_waits_for() {
    after_handshake(&[reply(RST, 501, 0, 0).becomes(Close).for_secs(10)]);
    after_handshake(&[reply(RST, 500, 0, 0).invalid(InvalidReason::TcpRst)]);
    after_handshake(&[
        reply(RST, 601, 0, 0).becomes(Established).for_secs(10).named("a challenge ACK may still save it"),
        original(ACK, 101, 501, 0).becomes(Established).for_secs(300).named("it did"),
    ]);
    after_handshake(&[reply(RST, 90_000, 0, 0).invalid(InvalidReason::TcpAboveWindow)]);
}

#[test]
fn a_reset_right_behind_data_closes_the_train() {
    after_handshake(&[
        reply(ACK, 501, 101, 100).becomes(Established),
        reply(RST, 601, 0, 0).becomes(Close).for_secs(10),
    ]);
}

#[test]
fn invalid_resets_can_be_told_to_pass() {
    let lenient = Sysctls { tcp_ignore_invalid_rst: true, ..Sysctls::default() };
    let story = [&established()[..], &[reply(RST, 491, 0, 0).becomes(Established).for_secs(10)]].concat();
    check_with(&lenient, &story);
}

#[test]
fn a_refused_syn_is_forgotten_at_once() {
    check(&[original(SYN, 100, 0, 0).becomes(SynSent), reply(RST_ACK, 0, 101, 0).deleted()]);
    check(&[
        original(SYN, 100, 0, 0).becomes(SynSent),
        reply(RST_ACK, 0, 103, 0).invalid(InvalidReason::TcpAckUnseen).named("acknowledges another SYN"),
    ]);
}

#[test]
fn the_responders_challenge_to_a_syn_and_the_openers_answer_pass() {
    check(&[
        original(SYN, 100, 0, 0).becomes(SynSent),
        reply(ACK, 700, 9000, 0).ignored(),
        original(RST, 9000, 0, 0).becomes(Close),
    ]);
}

#[test]
fn an_invalid_end_shortens_the_life_only_if_the_other_side_ended_too() {
    use InvalidReason::TcpAboveWindow;
    after_handshake(&[
        original(RST_ACK, 900_000, 501, 0).invalid(TcpAboveWindow).named("remembered"),
        reply(FIN_ACK, 900_000, 101, 0).invalid(TcpAboveWindow).capped(300),
        reply(FIN_ACK, 900_000, 101, 0)
            .invalid(TcpAboveWindow)
            .capped(300)
            .named("nothing was remembered of it"),
        original(ACK, 900_000, 501, 0).invalid(TcpAboveWindow).named("neither FIN nor RST"),
    ]);
}

// ── SYNs that pass without effect ────────────────────────────────────────────────────────────────────────────

#[test]
fn an_ignored_syn_that_is_answered_was_in_earnest() {
    check(
        &[
            &established()[..],
            &[
                original(SYN, 40_000, 0, 0).ignored(),
                reply(SYN_ACK, 80_000, 40_001, 0).becomes(SynRecv),
                original(ACK, 40_001, 80_001, 0).becomes(Established),
                original(ACK, 101, 501, 0).ignored().named("the old numbers are old"),
            ],
        ]
        .concat(),
    );
    check(
        &[
            &established()[..],
            &[
                original(SYN, 40_000, 0, 0).ignored(),
                reply(SYN_ACK, 80_000, 40_002, 0).ignored().named("answers another SYN"),
            ],
        ]
        .concat(),
    );
}

#[test]
fn in_last_ack_the_answer_to_a_syn_is_a_challenge() {
    let closing = [
        &established()[..],
        &[original(FIN_ACK, 101, 501, 0).becomes(FinWait), reply(FIN_ACK, 501, 102, 0).becomes(LastAck)],
    ]
    .concat();
    check(
        &[
            &closing[..],
            &[
                original(SYN, 4000, 0, 0).ignored(),
                reply(ACK, 502, 102, 0).becomes(LastAck).keeps_timer(),
                reply(ACK, 502, 102, 0).becomes(TimeWait).named("once only"),
            ],
        ]
        .concat(),
    );
    check(&[&closing[..], &[reply(ACK, 502, 102, 0).becomes(TimeWait).named("without a SYN")]].concat());
}

// ── Timers ───────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_third_repetition_shortens_the_life() {
    let ack = || original(ACK, 101, 501, 0).becomes(Established);
    after_handshake(&[
        reply(ACK, 501, 101, 0).becomes(Established).for_secs(432_000),
        ack().for_secs(432_000),
        ack().for_secs(432_000).named("first repetition"),
        ack().for_secs(432_000),
        ack().for_secs(300).named("third"),
        original(ACK, 101, 501, 1).becomes(Established).for_secs(300).named("unacknowledged"),
        reply(ACK, 501, 102, 0).becomes(Established).for_secs(432_000),
    ]);
}

#[test]
fn a_closed_window_shortens_the_life() {
    after_handshake(&[
        reply(ACK, 501, 101, 0).win(0).becomes(Established).for_secs(300),
        original(ACK, 101, 501, 1).becomes(Established).for_secs(300).named("the probe"),
        reply(ACK, 501, 102, 0).win(1000).becomes(Established).for_secs(432_000),
    ]);
}

#[test]
fn numbers_wrap() {
    check(&[
        original(SYN, u32::MAX, 0, 0).becomes(SynSent),
        reply(SYN_ACK, u32::MAX, 0, 0).becomes(SynRecv),
        original(ACK, 0, 0, 100).becomes(Established),
        reply(ACK, 0, 100, 0).becomes(Established),
        original(FIN_ACK, 100, 0, 0).becomes(FinWait),
    ]);
}

// ── How the stories are told ─────────────────────────────────────────────────────────────────────────────────

/// One row: a segment and what is expected of it.
#[derive(Clone, Copy, Debug)]
struct Step {
    dir: Direction,
    seg: Segment,
    name: &'static str,
    expect: Expect,
    state: TcpState,
    secs: Option<u64>,
    assured: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Accepted,
    /// Passes; state and timer stay.
    Ignored,
    /// Passes; the timer stays.
    KeepsTimer,
    Deleted,
    Reopens,
    Invalid(InvalidReason, Option<u64>),
}

fn original(flags: TcpFlags, seq: u32, ack: u32, len: u32) -> Step {
    step(Direction::Original, flags, seq, ack, len)
}

fn reply(flags: TcpFlags, seq: u32, ack: u32, len: u32) -> Step {
    step(Direction::Reply, flags, seq, ack, len)
}

fn step(dir: Direction, flags: TcpFlags, seq: u32, ack: u32, len: u32) -> Step {
    let seg = Segment { seq: Seq(seq), ack: Seq(ack), flags, win: 8000, len, options: Options::default() };
    let expect = Expect::Accepted;
    Step { dir, seg, name: "", expect, state: TcpState::None, secs: None, assured: None }
}

impl Step {
    fn becomes(self, state: TcpState) -> Self {
        Self { state, ..self }
    }

    fn for_secs(self, secs: u64) -> Self {
        Self { secs: Some(secs), ..self }
    }

    fn assured(self) -> Self {
        Self { assured: Some(true), ..self }
    }

    fn unassured(self) -> Self {
        Self { assured: Some(false), ..self }
    }

    fn ignored(self) -> Self {
        Self { expect: Expect::Ignored, ..self }
    }

    fn keeps_timer(self) -> Self {
        Self { expect: Expect::KeepsTimer, ..self }
    }

    fn deleted(self) -> Self {
        Self { expect: Expect::Deleted, ..self }
    }

    fn reopens(self) -> Self {
        Self { expect: Expect::Reopens, ..self }
    }

    fn invalid(self, reason: InvalidReason) -> Self {
        Self { expect: Expect::Invalid(reason, None), ..self }
    }

    fn capped(self, secs: u64) -> Self {
        let Expect::Invalid(reason, _) = self.expect else { panic!("capped() follows invalid()") };
        Self { expect: Expect::Invalid(reason, Some(secs)), ..self }
    }

    fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn win(mut self, win: u16) -> Self {
        self.seg.win = win;
        self
    }

    fn wscale(mut self, shift: u8) -> Self {
        self.seg.options = Options { present: true, wscale: Some(shift), ..self.seg.options };
        self
    }

    fn sack_permitted(mut self) -> Self {
        self.seg.options = Options { present: true, sack_permitted: true, ..self.seg.options };
        self
    }

    fn sack(mut self, right: u32) -> Self {
        self.seg.options = Options { present: true, sack_right: Some(Seq(right)), ..self.seg.options };
        self
    }
}

fn established() -> [Step; 3] {
    [
        original(SYN, 100, 0, 0).becomes(SynSent),
        reply(SYN_ACK, 500, 101, 0).becomes(SynRecv),
        original(ACK, 101, 501, 0).becomes(Established),
    ]
}

/// As [`established`], with windows of 1000 bytes from the responder and 2000 from the opener.
fn handshake_with_windows() -> [Step; 3] {
    let [syn, syn_ack, ack] = established();
    [syn.win(2000), syn_ack.win(1000), ack.win(2000)]
}

fn after_handshake(steps: &[Step]) {
    let narrow = |step: &Step| {
        if step.seg.win == 8000 {
            step.win(if step.dir == Direction::Original { 2000 } else { 1000 })
        } else {
            *step
        }
    };
    let steps: Vec<Step> = steps.iter().map(narrow).collect();
    check(&[&handshake_with_windows()[..], &steps].concat());
}

fn check(steps: &[Step]) {
    check_with(&Sysctls::default(), steps);
}

fn check_with(sysctls: &Sysctls, steps: &[Step]) {
    let mut tcp: Option<Tcp> = None;
    let mut seen = Seen::default();
    for (at, step) in steps.iter().enumerate() {
        let row = format!("row {}: {:?} {:?} {}", at + 1, step.dir, step.seg, step.name);
        let Some(tcp) = open(&mut tcp, step, sysctls, &row) else { return };
        let before = tcp.state();
        let outcome = tcp.track(&step.seg, step.dir, seen, sysctls);
        compare(step, before, tcp.state(), outcome, &row);
        let assured = match outcome {
            TcpOutcome::Accept { assured, .. } => assured,
            TcpOutcome::Tolerated(_) => false,
            TcpOutcome::Invalid { .. } | TcpOutcome::Reopen => continue,
        };
        seen.assured |= assured;
        seen.seen_reply |= step.dir == Direction::Reply;
        if let Some(wanted) = step.assured {
            assert_eq!(seen.assured, wanted, "{row}: ASSURED");
        }
    }
}

/// The connection, begun with this step if there is none; `None` if it cannot begin so, as expected.
fn open<'a>(tcp: &'a mut Option<Tcp>, step: &Step, sysctls: &Sysctls, row: &str) -> Option<&'a mut Tcp> {
    if tcp.is_none() {
        match (Tcp::open(&step.seg, sysctls), step.expect) {
            (Ok(opened), _) => *tcp = Some(opened),
            (Err(reason), expect) => {
                assert_eq!(expect, Expect::Invalid(reason, None), "{row}");
                return None;
            }
        }
    }
    tcp.as_mut()
}

fn compare(step: &Step, before: TcpState, after: TcpState, outcome: TcpOutcome, row: &str) {
    let got = match outcome {
        TcpOutcome::Accept { delete: true, .. } => Expect::Deleted,
        TcpOutcome::Accept { timeout: None, .. } | TcpOutcome::Tolerated(_)
            if step.expect == Expect::KeepsTimer =>
        {
            Expect::KeepsTimer
        }
        TcpOutcome::Accept { timeout: None, .. } | TcpOutcome::Tolerated(_) => Expect::Ignored,
        TcpOutcome::Accept { .. } => Expect::Accepted,
        TcpOutcome::Invalid { reason, cap_lifetime } => {
            Expect::Invalid(reason, cap_lifetime.map(|cap| cap.as_secs()))
        }
        TcpOutcome::Reopen => Expect::Reopens,
    };
    assert_eq!(got, step.expect, "{row}: {outcome:?}");
    let wanted = match got {
        Expect::Accepted | Expect::KeepsTimer => step.state,
        Expect::Deleted => Close,
        Expect::Ignored | Expect::Reopens | Expect::Invalid(..) => before,
    };
    assert_eq!(after, wanted, "{row}");
    if let (TcpOutcome::Accept { timeout: Some(timeout), .. }, Some(secs)) = (outcome, step.secs) {
        assert_eq!(timeout.as_secs(), secs, "{row}: timeout");
    }
}

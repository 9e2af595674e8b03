use super::*;

const MAC_A: Mac = Mac([2, 0, 0, 0, 1, 0xa]);
const MAC_B: Mac = Mac([2, 0, 0, 0, 1, 0xb]);
/// An answer to our question.
const ANSWER: Hearing = Hearing { confirms: true, overrides: true, creates: false, respects_lock: true };
/// A question for one of our addresses.
const QUESTION: Hearing = Hearing { confirms: false, overrides: true, creates: true, respects_lock: false };

fn key(n: u32) -> Key {
    Key { family: Family::Ipv4, iface: IfaceId(0), addr: Addr::from_v4(n.to_be_bytes()) }
}

type Neighbours = super::Neighbours<()>;

fn packet(bytes: usize) -> Waiting<()> {
    Waiting { packet: (), bytes, own_src: None }
}

/// What a packet of 100 bytes meets: `known`, `waits` or the reason for which it is refused; and whether it asked.
fn send(n: &Neighbours, who: u32, now: Instant) -> (&'static str, usize) {
    let mut asks = Vec::new();
    let word = match n.resolve(key(who), now, || packet(100), &mut asks) {
        Resolution::Known(_) => "known",
        Resolution::Waits => "waits",
        Resolution::Refused(reason) => reason.code(),
    };
    (word, asks.len())
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

#[test]
fn a_neighbour_that_answers_gets_what_waited() {
    let n = Neighbours::default();
    assert_eq!(send(&n, 1, at(0)), ("waits", 1));
    assert_eq!(send(&n, 1, at(10)), ("waits", 0), "the question is on its way");
    assert_eq!(n.hear(key(1), MAC_A, ANSWER, at(20)).len(), 2);
    assert_eq!(send(&n, 1, at(30)), ("known", 0));
    assert_eq!(n.size(), (1, 0));
}

#[test]
fn a_neighbour_that_does_not_answer_is_asked_three_times() {
    let n = Neighbours::default();
    assert_eq!(send(&n, 1, at(0)), ("waits", 1));
    for (now, asks, unreachable) in [(999, 0, 0), (1000, 1, 0), (2000, 1, 0), (2999, 0, 0), (3000, 0, 1)] {
        let due = n.handle_timeout(at(now));
        assert_eq!((due.asks.len(), due.unreachable.len()), (asks, unreachable), "after {now} ms");
    }
    assert_eq!((n.size(), n.poll_timeout()), ((0, 0), None));
    assert_eq!(send(&n, 1, at(3001)), ("waits", 1), "a new packet, a new question");
}

#[test]
fn what_is_known_ages_and_is_looked_into() {
    let n = Neighbours::default();
    send(&n, 1, at(0));
    drop(n.hear(key(1), MAC_A, ANSWER, at(0)));
    assert!(n.handle_timeout(at(29_999)).asks.is_empty());
    // Reachable → Stale; a packet makes it Delay, and five seconds later the neighbour itself is asked.
    assert!(n.handle_timeout(at(30_000)).asks.is_empty());
    assert_eq!(send(&n, 1, at(40_000)), ("known", 0));
    assert!(n.handle_timeout(at(44_999)).asks.is_empty());
    for now in [45_000, 46_000, 47_000] {
        let asked = n.handle_timeout(at(now)).asks;
        assert_eq!(asked, [Ask { key: key(1), to: Some(MAC_A), own_src: None }], "after {now} ms");
        assert_eq!(send(&n, 1, at(now + 1)), ("known", 0), "meanwhile it is used");
    }
    n.handle_timeout(at(48_000));
    assert_eq!(n.size(), (0, 0));
}

#[test]
fn a_probe_that_is_answered_keeps_the_neighbour() {
    let n = Neighbours::default();
    drop(n.hear(key(1), MAC_A, QUESTION, at(0)));
    assert_eq!(send(&n, 1, at(1)), ("known", 0));
    assert_eq!(n.handle_timeout(at(5001)).asks.len(), 1);
    drop(n.hear(key(1), MAC_A, ANSWER, at(5002)));
    assert!(n.handle_timeout(at(35_001)).asks.is_empty());
    assert_eq!(n.size().0, 1);
}

#[test]
fn whom_nobody_uses_is_forgotten() {
    let n = Neighbours::default();
    drop(n.hear(key(1), MAC_A, QUESTION, at(0)));
    n.handle_timeout(at(59_999));
    assert_eq!(n.size().0, 1);
    n.handle_timeout(at(60_000));
    assert_eq!(n.size().0, 0);
}

#[test]
fn answers_that_nobody_asked_for_are_not_remembered() {
    let n = Neighbours::default();
    drop(n.hear(key(1), MAC_A, ANSWER, at(0)));
    assert_eq!(n.size().0, 0);
}

#[test]
fn of_two_answers_the_first_counts_and_an_announcement_later() {
    let announcement = Hearing { confirms: false, respects_lock: false, ..ANSWER };
    let n = Neighbours::default();
    send(&n, 1, at(0));
    drop(n.hear(key(1), MAC_A, ANSWER, at(1)));
    drop(n.hear(key(1), MAC_B, ANSWER, at(2)));
    assert_eq!(n.mac(&key(1)), Some(MAC_A));
    drop(n.hear(key(1), MAC_B, announcement, at(3)));
    assert_eq!(n.mac(&key(1)), Some(MAC_B), "it moved, and says so");
}

#[test]
fn static_entries_are_never_overridden_nor_asked_for() {
    let n = Neighbours::new(NeighbourPolicy::Ask, [(key(1), MAC_A)]);
    drop(n.hear(key(1), MAC_B, QUESTION, at(0)));
    assert_eq!(send(&n, 1, at(0)), ("known", 0));
    assert_eq!((n.mac(&key(1)), n.poll_timeout()), (Some(MAC_A), None));
}

#[test]
fn in_a_capture_the_last_one_seen_counts_else_everybody() {
    let n = Neighbours::new(NeighbourPolicy::LastSeen, [(key(1), MAC_A)]);
    let mac = |who| match n.resolve(key(who), at(0), || packet(1), &mut Vec::new()) {
        Resolution::Known(mac) => mac,
        other => panic!("{other:?}"),
    };
    n.see(key(1), MAC_B);
    n.see(key(2), MAC_A);
    n.see(key(2), MAC_B);
    assert_eq!([mac(1), mac(2), mac(3)], [MAC_A, MAC_B, Mac::BROADCAST]);
}

#[test]
fn a_queue_keeps_the_latest() {
    let n = Neighbours::default();
    for _ in 0..MAX_WAITING + 10 {
        assert_eq!(send(&n, 1, at(0)).0, "waits");
    }
    assert_eq!(n.take_displaced(), 10);
    assert_eq!(n.hear(key(1), MAC_A, ANSWER, at(1)).len(), MAX_WAITING);
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let n = Neighbours::default();
    let push = |len| n.resolve(key(1), at(0), || packet(len), &mut Vec::new());
    assert!(matches!(push(MAX_WAITING_BYTES), Resolution::Waits));
    assert!(matches!(push(1), Resolution::Waits));
    assert_eq!((n.size().1, n.take_displaced()), (1, 1));
    assert!(matches!(push(MAX_WAITING_BYTES + 1), Resolution::Refused(DropReason::NeighbourQueueFull)));
}

#[test]
fn a_hundred_thousand_absent_neighbours_leave_room_for_those_who_are_there() {
    let n = Neighbours::default();
    for who in 0..100 {
        send(&n, who, at(0));
        drop(n.hear(key(who), MAC_A, ANSWER, at(1)));
    }
    let mut refused = 0;
    // A packet to another absent host every tenth of a millisecond.
    for absent in 0..100_000u32 {
        let now = Instant::from_micros(2000 + u64::from(absent) * 100);
        n.handle_timeout(now);
        refused += usize::from(send(&n, 0x0a00_0000 + absent, now).0 == "neighbour-table-full");
        let (entries, bytes) = n.size();
        assert!(entries <= MAX_NEIGHBOURS && bytes <= MAX_ALL_WAITING_BYTES);
        assert_eq!(send(&n, absent % 100, now).0, "known", "after {absent} absent ones");
    }
    assert!(refused > 0, "the bound was reached");
    assert!(n.size().0 <= MAX_UNANSWERED + 100);
}

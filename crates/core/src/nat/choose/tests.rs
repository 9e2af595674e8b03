//! Choices among connections that stand in a list.

use super::*;
use core::cell::RefCell;
use core::net::IpAddr;

/// Tuples that are taken, and where chance begins to look, one time after another.
#[derive(Default)]
struct World {
    taken: Vec<Tuple>,
    /// Everything is.
    is_full: bool,
    mappings: Vec<Tuple>,
    starts: RefCell<Vec<u16>>,
    tries: RefCell<u32>,
    over: Vec<Tuple>,
}

impl Known for World {
    fn is_taken(&self, tuple: &Tuple) -> bool {
        *self.tries.borrow_mut() += 1;
        self.is_full || self.taken.contains(tuple)
    }

    fn takes_over(&self, tuple: &Tuple) -> bool {
        self.over.contains(tuple)
    }

    fn mapping(&self, _: &Tuple, fits: &dyn Fn(&Tuple) -> bool) -> Option<Tuple> {
        self.mappings.iter().rev().find(|tuple| fits(tuple)).copied()
    }

    fn start(&self, _: Side, first: u16, _: u32) -> u16 {
        self.starts.borrow_mut().pop().unwrap_or(first)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn udp(src: &str, left: u16, dst: &str, right: u16) -> Tuple {
    let family = if src.contains(':') { Family::Ipv6 } else { Family::Ipv4 };
    Tuple { src: ip(src).into(), dst: ip(dst).into(), left, right, zone: 0, proto: PROTO_UDP, family }
}

fn range(first: &str, last: &str, ports: Option<(u16, u16)>) -> Range {
    Range { addrs: Some((ip(first), ip(last))), ports, ..Range::default() }
}

const CLIENT: &str = "192.0.2.10";
const SERVER: &str = "198.51.100.10";
const OUTSIDE: &str = "198.51.100.1";

#[test]
fn the_address_of_a_range_depends_on_both_ends_as_a_kernel_chose_it() {
    // Seen on a kernel.
    let flow = udp("198.18.0.5", 5000, SERVER, 53);
    let choice = choose(&World::default(), &flow, 0, Side::Source, &range("192.0.2.0", "192.0.2.255", None));
    assert_eq!((choice.tuple.src, choice.how), (ip("192.0.2.29").into(), How::PortKept));
}

#[test]
fn a_source_keeps_its_port_unless_that_is_taken() {
    let flow = udp(CLIENT, 5000, SERVER, 53);
    let asked = range(OUTSIDE, OUTSIDE, None);
    let same = Tuple { src: ip(OUTSIDE).into(), ..flow };
    let mut world = World::default();
    assert_eq!(choose(&world, &flow, 0, Side::Source, &asked), Choice { tuple: same, how: How::PortKept });
    world.taken = vec![same, Tuple { left: 2000, ..same }];
    world.starts = RefCell::new(vec![2000]);
    let drawn = choose(&world, &flow, 0, Side::Source, &asked);
    assert_eq!(drawn, Choice { tuple: Tuple { left: 2001, ..same }, how: How::Drawn });
}

#[test]
fn one_port_is_kept_though_it_is_taken_and_a_connection_that_is_over_gives_way() {
    let flow = udp(CLIENT, 2000, SERVER, 53);
    let mut world = World { is_full: true, ..World::default() };
    let one = choose(&world, &flow, 0, Side::Source, &range(OUTSIDE, OUTSIDE, Some((2000, 2000))));
    assert_eq!((one.tuple.left, one.how), (2000, How::PortKept));
    let flow = Tuple { left: 7, ..flow };
    let asked = range(OUTSIDE, OUTSIDE, Some((2000, 2000)));
    assert_eq!(choose(&world, &flow, 0, Side::Source, &asked).how, How::Exhausted);
    world.over = vec![Tuple { src: ip(OUTSIDE).into(), left: 2000, ..flow }];
    assert_eq!(choose(&world, &flow, 0, Side::Source, &asked).how, How::TakenOver);
}

#[test]
fn a_search_ends_after_248_tries_or_when_all_was_seen() {
    let flow = udp(CLIENT, 5000, SERVER, 53);
    for (ports, tries) in [(None, 248), (Some((1, 1000)), 248), (Some((1, 128)), 128), (Some((1, 5)), 5)] {
        let world = World { is_full: true, ..World::default() };
        let choice = choose(&world, &flow, 0, Side::Source, &range(OUTSIDE, OUTSIDE, ports));
        // Without ports the one that the source has is tried first.
        let before = u32::from(ports.is_none());
        assert_eq!((choice.how, world.tries.into_inner()), (How::Exhausted, tries + before), "{ports:?}");
    }
}

#[test]
fn low_ports_stay_low_and_random_ones_never_stay() {
    let asked = |random| Range { random, ..range(OUTSIDE, OUTSIDE, None) };
    for (port, expected) in [(1, 1), (511, 1), (512, 600), (1023, 600), (1024, 1024), (65535, 1024)] {
        let flow = udp(CLIENT, port, SERVER, 53);
        let choice = choose(&World::default(), &flow, 0, Side::Source, &asked(true));
        assert_eq!((choice.tuple.left, choice.how), (expected, How::Drawn), "{port}");
        assert_eq!(choose(&World::default(), &flow, 0, Side::Source, &asked(false)).tuple.left, port);
    }
}

#[test]
fn what_a_source_got_once_it_gets_again_and_one_that_fits_stays() {
    let flow = udp(CLIENT, 5000, "203.0.113.9", 53);
    let mapped = Tuple { src: ip(OUTSIDE).into(), left: 2001, ..flow };
    let mut world = World { mappings: vec![mapped], ..World::default() };
    let asked = range(OUTSIDE, OUTSIDE, Some((2000, 3000)));
    let again = choose(&world, &flow, 0, Side::Source, &asked);
    assert_eq!(again, Choice { tuple: mapped, how: How::Reused });
    world.taken = vec![mapped];
    let other = choose(&world, &flow, 0, Side::Source, &asked);
    assert_eq!((other.tuple.left, other.how), (2000, How::Drawn));
    let inside = udp(CLIENT, 2500, SERVER, 53);
    let stays = choose(&world, &inside, 0, Side::Source, &range("192.0.2.0", "192.0.2.255", None));
    assert_eq!(stays, Choice { tuple: inside, how: How::Unchanged });
}

#[test]
fn destinations_are_walked_in_order_and_shifted_ranges_from_their_place() {
    let flow = udp(CLIENT, 5000, SERVER, 7005);
    let asked = range("192.0.2.20", "192.0.2.20", Some((80, 90)));
    let at = |port| Tuple { dst: ip("192.0.2.20").into(), right: port, ..flow };
    let world = World { taken: vec![at(80), at(81)], ..World::default() };
    assert_eq!(
        choose(&world, &flow, 0, Side::Destination, &asked),
        Choice { tuple: at(82), how: How::NextFree }
    );
    for (base, dport, expected) in [(7000, 7005, 85), (7000, 7011, 80), (7000, 6999, 88)] {
        let asked = Range { base: Some(base), ..asked };
        let flow = Tuple { right: dport, ..flow };
        let choice = choose(&World::default(), &flow, 0, Side::Destination, &asked);
        assert_eq!(choice.tuple.right, expected, "{dport} from {base}");
    }
}

#[test]
fn identifiers_that_clash_are_counted_from_zero_at_the_destination() {
    let ping = Tuple { proto: 1, left: 7, right: 0x0800, ..udp(CLIENT, 0, SERVER, 0) };
    let world = World { taken: vec![ping, Tuple { left: 0, ..ping }], ..World::default() };
    let choice = choose(&world, &ping, 0, Side::Destination, &Range::unchanged(&ping, Side::Destination));
    assert_eq!((choice.tuple.left, choice.how), (1, How::NextFree));
}

#[test]
fn protocols_without_ports_and_ports_of_destinations_cannot_move() {
    let esp = Tuple { proto: 50, left: 0, right: 0, ..udp(CLIENT, 0, SERVER, 0) };
    let full = World { is_full: true, ..World::default() };
    assert_eq!(choose(&full, &esp, 0, Side::Source, &range(OUTSIDE, OUTSIDE, None)).how, How::Exhausted);
    let flow = udp(CLIENT, 5000, SERVER, 53);
    let moved = choose(&full, &flow, 0, Side::Destination, &range("192.0.2.20", "192.0.2.20", None));
    assert_eq!((moved.tuple.right, moved.how), (53, How::Exhausted));
}

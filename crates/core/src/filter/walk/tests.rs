//! Packets through the chains of a whole router: what a connection keeps of it.

use super::let_in::LetIn;
use crate::base::fate::Fate;
use crate::base::iface::{Iface, IfaceId};
use crate::base::time::Instant;
use crate::config::RouterConfig;
use crate::conntrack::Filter;
use crate::packet::checksum::Sum;
use crate::packet::{Family, Frame};
use crate::record::NoRecord;
use crate::router::Router;

pub(super) const LEFT: IfaceId = IfaceId(0);
pub(super) const RIGHT: IfaceId = IfaceId(1);

/// A datagram from the left, or its answer.
pub(super) fn datagram(from: IfaceId) -> Vec<u8> {
    let (left, right) = ([192, 0, 2, 1, 0x10, 0], [192, 0, 2, 2, 0, 53]);
    let (src, dst) = if from == LEFT { (left, right) } else { (right, left) };
    let mut frame = vec![2, 0, 0, 0, 0, dst[3], 2, 0, 0, 0, 0, src[3], 8, 0];
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([&src[..4], &dst[..4]].concat());
    let checksum = Sum::ZERO.bytes(&frame[14..]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend([&src[4..], &dst[4..], &[0, 8, 0, 0]].concat());
    frame
}

const RULES: &str = "*filter\n:FORWARD DROP [0:0]\n:lan - [0:0]\n-A FORWARD -p tcp -j ACCEPT\n\
    -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD -i left -j lan\n\
    -A lan -p tcp\n-A lan -p udp -j ACCEPT\nCOMMIT\n";

fn router(rules: Option<&str>) -> Router {
    let ifaces = vec![Iface::new("left", LEFT), Iface::new("right", RIGHT)];
    Router::new(RouterConfig { ifaces, rules: rules.map(str::to_owned), ..RouterConfig::default() }).unwrap()
}

fn send(router: &Router, from: IfaceId) {
    let mut frame = datagram(from);
    let (worker, now) = (&mut router.worker(), Instant::from_secs(1));
    let fate = router.process(worker, now, from, Frame::new(&mut frame), &mut NoRecord).fate;
    assert_eq!(fate, Fate::Forwarded);
}

/// What is known of the only connection, and the name of the rule.
fn known(router: &Router) -> (LetIn, Option<String>) {
    let mut known = Vec::new();
    let rules = router.rules();
    let ruleset = rules.for_family(Family::Ipv4).unwrap();
    router.conntrack().for_each(&Filter::default(), Instant::from_secs(1), |_, entry| {
        known.push(ruleset.let_in(entry));
    });
    let [let_in] = known[..] else { panic!("one connection, not {known:?}") };
    let name = match let_in {
        LetIn::By(rule) => Some(ruleset.rule_name(rule)),
        LetIn::ByOtherRules | LetIn::NotKnown => None,
    };
    (let_in, name)
}

#[test]
fn it_is_the_rule_that_said_so_wherever_it_stands_and_stays_so_when_others_judge_what_follows() {
    let router = router(Some(RULES));
    send(&router, LEFT);
    assert_eq!(known(&router).1.as_deref(), Some("filter/lan/2"));
    for from in [RIGHT, LEFT, RIGHT, LEFT] {
        send(&router, from);
    }
    assert_eq!(known(&router).1.as_deref(), Some("filter/lan/2"), "answers have a rule of their own");
}

#[test]
fn rules_that_came_later_let_nothing_in_that_was_there() {
    let router = router(Some(RULES));
    send(&router, LEFT);
    router.replace_rules(Some(RULES), None).unwrap();
    send(&router, RIGHT);
    assert_eq!(known(&router).0, LetIn::ByOtherRules);
}

#[test]
fn a_policy_lets_in_as_a_rule_does() {
    let router = router(Some("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -j DROP\nCOMMIT\n"));
    send(&router, LEFT);
    assert_eq!(known(&router).1.as_deref(), Some("filter/FORWARD/policy"));
}

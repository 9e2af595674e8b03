//! The simulator: every lab of the folder, the same report for the same seed, and random traffic over bad links.
//!
//! `SEED=7 cargo test sim` repeats one run of the random traffic.

use stateway_core::conntrack::CtState;
use stateway_core::iface::IfaceId;
use stateway_lab::model::{
    Action, Flow, HostId, Impairment, Ping, RunnerKind, Session, Tcp, Udp, Wait, Word,
};
use stateway_lab::runner::{Awaits, Observation, Runner};
use stateway_lab::sim::Sim;
use stateway_lab::trial::{self, Ending, TestReport};
use stateway_lab::{self as lab, Lab, report};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// 104 may open, the world may only answer; a segment of two hosts out there.
const ARTICLE: &str = r"
name: random
description: 104 may open connections, the world may only answer.
router:
  mode: bridge
  ports: { inside: {}, outside: {} }
  rules: |
    *filter
    :FORWARD DROP [0:0]
    -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A FORWARD -i inside -m conntrack --ctstate NEW -j ACCEPT
    COMMIT
hosts:
  host104: { port: inside, address: 192.0.2.104/24, services: [echo] }
  host77: { port: outside, address: 192.0.2.77/24, services: [echo] }
  host88: { port: outside, address: 192.0.2.88/24, services: [echo] }
tests: []
";

const INSIDE: HostId = HostId(0);

fn lab(text: &str) -> Lab {
    lab::resolve::load_text(text, Path::new("lab.yaml")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn sim(lab: Lab, seed: u64) -> Sim {
    Sim::new(lab, seed).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// What a report in JSON says of every test.
fn reports(lab: &Lab, seed: u64) -> (Vec<TestReport>, String) {
    reports_of(lab, &mut sim(lab.clone(), seed))
}

fn reports_of(lab: &Lab, sim: &mut Sim) -> (Vec<TestReport>, String) {
    let reports = trial::run(lab, sim, |_| ());
    let text = reports.iter().map(|test| report::json(&lab.name, test).to_string() + "\n").collect();
    (reports, text)
}

#[test]
fn every_lab_passes_in_simulation_and_says_the_same_for_the_same_seed() {
    let labs = crate::labs::labs("topologies");
    assert!(!labs.is_empty());
    for lab in labs {
        let (first, text) = reports(&lab, 1);
        for test in &first {
            assert!(
                matches!(test.ending, Ending::Passed | Ending::Skipped(_)),
                "{}: {}: {:?}",
                lab.name,
                test.name,
                test.ending
            );
        }
        // The second time beside the same router again, to which nobody listens: a difference panics.
        let mut compared = Sim::beside_unheard(lab.clone(), 1).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(text, reports_of(&lab, &mut compared).1, "{}", lab.name);
    }
}

#[test]
fn five_days_pass_in_no_time_and_the_connection_is_forgotten() {
    let mut sim = sim(lab(ARTICLE), 1);
    let tcp = |session, send: Option<&str>| {
        let flow = flow(&lab(ARTICLE), INSIDE, HostId(1));
        Action::Tcp(Tcp { flow, port: 7, source_port: None, send: send.map(str::to_owned), session })
    };
    let found = sim.act(&tcp(Session::Keep("it".into()), None), Awaits::Answer).unwrap();
    assert_eq!(found.result, Word::Ok, "{}", found.note);
    sim.wait(Duration::from_secs(432_000 - 10));
    assert_eq!(sim.table().unwrap().len(), 1, "five days are not over yet");
    sim.wait(Duration::from_secs(20));
    assert_eq!(sim.table().unwrap(), [""; 0]);
    // The connection lives on in the hosts; the router picks it up as NEW, since the inside may open.
    let found = sim.act(&tcp(Session::Use("it".into()), Some("still there")), Awaits::Answer).unwrap();
    assert_eq!((found.result, found.stdout.as_str()), (Word::Ok, "still there"));
    assert_eq!(found.packets[0].state, Some(CtState::New));
    assert_eq!(sim.now().as_secs() / 86_400, 5);
}

#[test]
fn an_impaired_link_loses_and_tcp_mends_it() {
    let bad = Impairment { loss_percent: 20.0, delay: Duration::from_millis(5), ..Impairment::default() };
    let mut sim = sim(lab(ARTICLE), 3);
    sim.impair(&[(IfaceId(1), bad)]).unwrap();
    let text = "a piece of text that is long enough to be lost in part. ".repeat(200);
    let flow = Flow { timeout: Some(Duration::from_secs(120)), ..flow(&lab(ARTICLE), INSIDE, HostId(1)) };
    let step = Tcp { flow, port: 7, source_port: None, send: Some(text.clone()), session: Session::Once };
    let found = sim.act(&Action::Tcp(step), Awaits::Answer).unwrap();
    // What came is a beginning of what was sent, in order and without gaps.
    assert_eq!(found.result, Word::Ok, "{}", found.note);
    assert!(text.starts_with(&found.stdout));
    sim.impair(&[]).unwrap();
}

fn flow(lab: &Lab, from: HostId, to: HostId) -> Flow {
    let address = |id| -> IpAddr { lab.host(id).address(stateway_core::packet::Family::Ipv4).unwrap() };
    Flow { from, source: address(from), to: address(to), to_host: Some(to), timeout: None }
}

/// One random step.
fn step(lab: &Lab, chance: &mut fastrand::Rng) -> Action {
    let hosts = lab.hosts.len() as u16;
    let from = HostId(chance.u16(..hosts));
    let to = HostId((from.0 + chance.u16(1..hosts)) % hosts);
    let flow = flow(lab, from, to);
    let port = if chance.bool() { 7 } else { chance.u16(1..1024) };
    let source_port = chance.bool().then(|| chance.u16(1024..2048));
    let text = "x".repeat(usize::from(chance.u16(1..4000)));
    match chance.u8(..4) {
        0 => Action::Tcp(Tcp { flow, port, source_port, send: Some(text), session: Session::Once }),
        1 => Action::Udp(Udp { flow, port, source_port, send: "hello".into() }),
        2 => Action::Ping(Ping { flow, count: 3, size: 56, dont_fragment: false, ttl: None }),
        _ => Action::Wait(Wait(Duration::from_secs(chance.u64(..200)))),
    }
}

fn impairment(chance: &mut fastrand::Rng) -> Impairment {
    Impairment {
        delay: Duration::from_millis(chance.u64(..20)),
        jitter: Duration::from_millis(chance.u64(..10)),
        loss_percent: f64::from(chance.u8(..20)),
        reorder_percent: f64::from(chance.u8(..30)),
        duplicate_percent: f64::from(chance.u8(..20)),
        rate_kbit: chance.bool().then(|| chance.u64(100..100_000)),
    }
}

/// What must hold after every step, whatever the links did.
fn check(sim: &mut Sim, found: &Observation, seed: u64) {
    for packet in &found.packets {
        let from_outside = packet.in_port == "outside";
        let passed = packet.fate == "forwarded";
        assert!(
            !(from_outside && passed && packet.state == Some(CtState::New)),
            "SEED={seed}: a stranger got in: {packet:?}"
        );
        assert!(
            !(passed && packet.state == Some(CtState::Invalid)),
            "SEED={seed}: an INVALID packet passed: {packet:?}"
        );
        assert!(packet.state.is_some() && packet.rule.is_some(), "SEED={seed}: nobody decided: {packet:?}");
        assert_eq!(passed, packet.reason.is_none(), "SEED={seed}: {packet:?}");
    }
    let times: Vec<_> = found.packets.iter().map(|packet| packet.time).collect();
    assert!(times.is_sorted(), "SEED={seed}: the clock went back");
    for line in sim.table().unwrap() {
        assert!(line.contains("src=192.0.2.104 dst="), "SEED={seed}: whoever opened it: {line}");
    }
}

#[test]
fn whatever_links_do_no_stranger_gets_in() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=8).collect(),
    };
    let mut decided = 0;
    for seed in seeds {
        let lab = lab(ARTICLE);
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut sim = sim(lab.clone(), seed);
        assert_eq!(sim.kind(), RunnerKind::Sim);
        for _ in 0..40 {
            let links = [(IfaceId(0), impairment(&mut chance)), (IfaceId(1), impairment(&mut chance))];
            sim.impair(&links).unwrap();
            let found = sim.act(&step(&lab, &mut chance), Awaits::Answer).unwrap();
            decided += found.packets.len();
            check(&mut sim, &found, seed);
        }
        // Everything ends: nothing is left when nobody has spoken for five days and more.
        sim.impair(&[]).unwrap();
        sim.wait(Duration::from_secs(500_000));
        assert_eq!(sim.table().unwrap(), [""; 0], "SEED={seed}");
    }
    assert!(decided > 50, "only {decided} packets");
}

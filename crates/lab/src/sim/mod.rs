//! The simulator: hosts are stacks in the process, the router is the core itself, and time is a number.
//!
//! ```text
//!   Host ──┐                                        ┌── Host
//!   Host ──┼── segment ── Link ── Router ── Link ── segment
//!   Host ──┘
//! ```
//!
//! Everything that happens is an event at a time, in a queue; the clock jumps from one to the next, so that five days
//! without traffic take no time. What chance decides is drawn from a seed: the same seed gives the same report, byte
//! for byte.

#![forbid(unsafe_code)]

pub(crate) mod clients;
mod fragments;
mod host;
mod link;
mod path_mtu;
pub(crate) mod services;
mod unheard;
mod unresolved;
mod witness;

use super::model::{Action, HostId, Impairment, Lab, RulesText, RunnerKind, Step};
use super::runner::{Awaits, Observation, RunError, Runner, Seen};
use host::Host;
use link::Link;
use smoltcp::iface::SocketHandle;
use stateway_core::conntrack::{Filter, listing};
use stateway_core::decision::Decision;
use stateway_core::fate::Fate;
use stateway_core::filter::{RuleError, RuleId};
use stateway_core::iface::IfaceId;
use stateway_core::packet::{Frame, Mac, Offload, Packet};
use stateway_core::record::{Note, Recorder as _, Trace};
use stateway_core::router::{Outcome, Router, Worker};
use stateway_core::time::Instant;
use stateway_core::{Emission, RouterError};
use stateway_trace::explain::Met;
use std::collections::BTreeMap;
use std::time::Duration;
use unheard::Unheard;
use witness::{Witness, host_of};

pub use witness::{Passage, Tell};

/// A lab in simulation.
pub struct Sim {
    pub(crate) lab: Lab,
    router: Router,
    worker: Worker,
    /// The same router again, to which nobody listens, if the two are compared.
    unheard: Option<Unheard>,
    pub(crate) hosts: Vec<Host>,
    /// When each host is woken next.
    alarms: Vec<Option<Instant>>,
    ports: Vec<PortLinks>,
    /// What is to happen, by time and then by the order in which it was said.
    events: BTreeMap<(Instant, u64), Event>,
    /// Events so far: keeps those of one moment in order.
    said: u64,
    pub(crate) now: Instant,
    chance: fastrand::Rng,
    /// Packets that the router saw during the step.
    pub(crate) seen: Vec<Seen>,
    /// Connections that outlive their step.
    pub(crate) kept: BTreeMap<String, (HostId, SocketHandle)>,
    witness: Witness,
    /// The path of the step that is under way.
    step: String,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("lab", &self.lab.name).field("now", &self.now).finish_non_exhaustive()
    }
}

/// The link between a port of the router and its hosts, in both directions.
#[derive(Debug, Default)]
struct PortLinks {
    to_router: Link,
    to_hosts: Link,
}

#[derive(Debug)]
enum Event {
    /// A frame comes in at the router.
    AtRouter(IfaceId, Vec<u8>),
    /// A frame comes to the hosts behind a port.
    AtHosts(IfaceId, Vec<u8>),
    /// A frame comes to one host.
    AtHost(HostId, Vec<u8>),
    /// A host asked to be woken.
    Wake(HostId),
}

impl Sim {
    /// Builds a lab. Nothing has been sent yet.
    ///
    /// # Errors
    /// Everything that is wrong with its rules.
    pub fn new(lab: Lab, seed: u64) -> Result<Self, Vec<RouterError>> {
        Self::made(lab, seed, false)
    }

    /// As [`Sim::new`], with the same router again beside it, to which nobody listens.
    ///
    /// It panics where the two decide, send or count differently.
    ///
    /// # Errors
    /// Everything that is wrong with its rules.
    pub fn beside_unheard(lab: Lab, seed: u64) -> Result<Self, Vec<RouterError>> {
        Self::made(lab, seed, true)
    }

    fn made(lab: Lab, seed: u64, is_compared: bool) -> Result<Self, Vec<RouterError>> {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut config = lab.router.clone();
        config.seed = chance.u64(..);
        let unheard = is_compared.then(|| Unheard::new(config.clone())).transpose()?;
        let router = Router::new(config)?;
        let hosts: Vec<Host> = lab.hosts.iter().map(|host| Host::new(host, chance.u64(..))).collect();
        let ports = lab.router.ifaces.iter().map(|_| PortLinks::default()).collect();
        Ok(Self {
            lab,
            worker: router.worker(),
            router,
            unheard,
            alarms: vec![None; hosts.len()],
            hosts,
            ports,
            events: BTreeMap::new(),
            said: 0,
            now: Instant::ZERO,
            chance,
            seen: Vec::new(),
            kept: BTreeMap::new(),
            witness: Witness::default(),
            step: String::new(),
        })
    }

    /// The router in the middle.
    pub const fn router(&self) -> &Router {
        &self.router
    }

    pub(crate) fn host(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[usize::from(id.0)]
    }

    fn say(&mut self, at: Instant, event: Event) {
        self.events.insert((at, self.said), event);
        self.said += 1;
    }

    /// Lets time pass until `ready` says something, at most until `deadline`.
    pub(crate) fn run_until<T>(
        &mut self,
        deadline: Instant,
        mut ready: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        loop {
            if let Some(result) = ready(self) {
                return Some(result);
            }
            if !self.next(deadline) {
                return None;
            }
        }
    }

    /// Lets everything happen that is due until then.
    pub(crate) fn run_to(&mut self, deadline: Instant) {
        while self.next(deadline) {}
    }

    /// Lets the next thing happen. `false`, and the clock at `deadline`, if there is none until then.
    fn next(&mut self, deadline: Instant) -> bool {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let router = self.router.poll_timeout();
        let Some(at) = event.into_iter().chain(router).min().filter(|at| *at <= deadline) else {
            self.now = deadline.max(self.now);
            return false;
        };
        self.now = at.max(self.now);
        if router.is_some_and(|due| due <= self.now) {
            self.router.handle_timeout(&mut self.worker, self.now);
            if let Some(unheard) = &mut self.unheard {
                unheard.handle_timeout(self.now);
            }
            let emissions = self.take_emissions();
            self.send_emissions(emissions);
            // A router that has more to do than one step takes does the rest a moment later.
            if self.router.poll_timeout().is_some_and(|due| due <= self.now) {
                self.now += Duration::from_micros(1);
            }
        }
        if event.is_some_and(|at| at <= self.now)
            && let Some(((at, _), event)) = self.events.pop_first()
        {
            self.happen(at, event);
        }
        true
    }

    fn happen(&mut self, at: Instant, event: Event) {
        match event {
            Event::AtRouter(iface, frame) => self.route(iface, frame),
            Event::AtHosts(iface, frame) => {
                let from = None;
                self.deliver(iface, from, &frame);
            }
            Event::AtHost(id, frame) => {
                let now = self.now;
                self.host(id).hear(frame, now);
                self.wake(id);
            }
            // An alarm that was set for earlier since then has done this one's work.
            Event::Wake(id) if self.alarms[usize::from(id.0)] == Some(at) => {
                self.alarms[usize::from(id.0)] = None;
                self.wake(id);
            }
            Event::Wake(_) => {}
        }
    }

    /// Lets a host work, and sends what it has to send.
    pub(crate) fn wake(&mut self, id: HostId) {
        let now = self.now;
        let (frames, again) = self.host(id).poll(now);
        let iface = self.lab.host(id).iface;
        for frame in frames {
            self.transmit(id, iface, frame);
        }
        let alarm = &mut self.alarms[usize::from(id.0)];
        if let Some(at) = again.filter(|at| alarm.is_none_or(|set| *at < set)) {
            *alarm = Some(at);
            self.say(at, Event::Wake(id));
        }
    }

    /// A host sends: its neighbours on the segment hear it, the router over the link.
    pub(crate) fn transmit(&mut self, from: HostId, iface: IfaceId, frame: Vec<u8>) {
        self.deliver(iface, Some(from), &frame);
        let is_neighbours =
            self.lab.hosts.iter().any(|host| host.iface == iface && host.mac == dst_mac(&frame));
        if !is_neighbours {
            let link = &mut self.ports[iface.index()].to_router;
            for at in link.arrivals(frame.len(), self.now, &mut self.chance) {
                self.say(at, Event::AtRouter(iface, frame.clone()));
            }
        }
    }

    /// A frame goes to the hosts of a segment whom it is for, but not to the one that it came from.
    fn deliver(&mut self, iface: IfaceId, from: Option<HostId>, frame: &[u8]) {
        let dst = dst_mac(frame);
        let hears = |(at, host): (usize, &super::model::Host)| {
            let id = HostId(at as u16);
            (host.iface == iface && Some(id) != from && (dst.is_group() || host.mac == dst)).then_some(id)
        };
        let hearers: Vec<HostId> = self.lab.hosts.iter().enumerate().filter_map(hears).collect();
        for id in hearers {
            self.say(self.now, Event::AtHost(id, frame.to_vec()));
        }
    }

    /// The router takes a frame to its fate, and what it sends goes over the links.
    fn route(&mut self, iface: IfaceId, mut frame: Vec<u8>) {
        let mut seen = self.look(iface, &mut frame);
        let needs_original = self.unheard.is_some() || self.witness.0.is_some();
        let as_it_came = needs_original.then(|| frame.clone());
        let (outcome, decision, notes) = self.decide(iface, &mut frame);
        if let (Some(unheard), Some(as_it_came)) = (&mut self.unheard, &as_it_came) {
            unheard.process(self.now, iface, as_it_came, (outcome, &frame));
        }
        let emissions = self.take_emissions();
        if let Some(seen) = &mut seen {
            self.judge(seen, &decision, outcome.fate);
        }
        if let (Some(seen), Some(original)) = (&seen, &as_it_came) {
            let fate = outcome.fate;
            let met = Met { iface, frame: original, fate, notes: &notes, emissions: &emissions };
            self.tell(seen, met, (&decision.out, &frame));
        }
        self.seen.extend(seen);
        if let Some(out) = outcome.out {
            frame.truncate(outcome.len);
            self.send(out, frame);
        }
        self.send_emissions(emissions);
    }

    /// What the router makes of a frame. Every note is kept only for a witness.
    fn decide(&mut self, iface: IfaceId, frame: &mut [u8]) -> (Outcome, Decision, Vec<Note>) {
        let mut decision = Decision::default();
        let (now, buffered) = (self.now, Frame::new(frame));
        if self.witness.0.is_none() {
            let outcome = self.router.process(&mut self.worker, now, iface, buffered, &mut decision);
            return (outcome, decision, Vec::new());
        }
        let mut trace = Trace::default();
        let outcome = self.router.process(&mut self.worker, now, iface, buffered, &mut trace);
        for note in &trace.notes {
            decision.note(|| note.clone());
        }
        (outcome, decision, trace.notes)
    }

    /// Tells the witness of a packet; `left` is where it left, and in which frame.
    fn tell(&mut self, seen: &Seen, met: Met<'_>, left: (&[IfaceId], &[u8])) {
        let Some(tell) = &mut self.witness.0 else { return };
        let (out, frame) = left;
        let receiver = |out: &IfaceId| host_of(&self.lab, *out, dst_mac(frame));
        let sender = met.frame.get(6..).and_then(|rest| host_of(&self.lab, met.iface, dst_mac(rest)));
        let receivers = out.iter().filter_map(receiver).collect();
        let (now, step, router) = (self.now, self.step.as_str(), &self.router);
        tell(&Passage { now, step, seen, met, sender, receivers, router });
    }

    fn send(&mut self, out: IfaceId, frame: Vec<u8>) {
        let link = &mut self.ports[out.index()].to_hosts;
        for at in link.arrivals(frame.len(), self.now, &mut self.chance) {
            self.say(at, Event::AtHosts(out, frame.clone()));
        }
    }

    /// What the router itself has to send.
    fn take_emissions(&mut self) -> Vec<Emission> {
        let emissions: Vec<_> = self.worker.take_emissions().collect();
        if let Some(unheard) = &mut self.unheard {
            unheard.compare_emissions(&emissions);
            unheard.compare_counters(&self.router);
        }
        emissions
    }

    fn send_emissions(&mut self, emissions: Vec<Emission>) {
        for emission in emissions {
            self.send(emission.iface, emission.frame);
        }
    }

    /// The packet as it came, before the router edits it. ARP and the like are left out: no rule ever sees them.
    fn look(&self, iface: IfaceId, frame: &mut [u8]) -> Option<Seen> {
        let pkt = Packet::parse(frame, Offload::NONE).ok()?;
        Some(Seen::of(&pkt, since_start(self.now), self.lab.port_name(iface).to_owned()))
    }

    fn judge(&self, seen: &mut Seen, decision: &Decision, fate: Fate) {
        seen.out_port = decision.out.first().map(|iface| self.lab.port_name(*iface).to_owned());
        seen.state = decision.ctstate;
        seen.direction = decision.direction;
        fate.word().clone_into(&mut seen.fate);
        seen.rule = decision.rule(fate, &self.router);
        seen.reason = decision.reason(fate).map(|reason| reason.code().to_owned());
    }

    pub(crate) fn list(&self) -> Vec<String> {
        let entries = self.router.conntrack().list(&Filter::default(), self.now);
        entries.iter().map(|entry| listing::entry(entry, self.now, listing::Options::default())).collect()
    }

    /// Puts other rules in force.
    pub(crate) fn replace_rules(&mut self, rules: &RulesText) -> Result<(), RunError> {
        let (v4, v6) = (rules.v4.as_deref(), rules.v6.as_deref());
        let replaced = self.router.replace_rules(v4, v6);
        replaced.map_err(|errors| RunError::Broken(first(&errors)))?;
        if let Some(unheard) = &self.unheard {
            unheard.replace_rules(v4, v6);
        }
        Ok(())
    }

    /// Counters by name: rules and policies by packets, drops by reason.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let mut values: BTreeMap<String, u64> =
            self.router.drop_counters().map(|(code, count)| (format!("drop/{code}"), count)).collect();
        let rules = self.router.rules();
        for ruleset in rules.all() {
            for table in ruleset.tables() {
                for (chain, found) in ruleset.chains(*table).iter().enumerate() {
                    let policy = usize::from(found.policy.is_some());
                    for index in 0..found.rules.len() + policy {
                        let (chain, index) = (chain as u16, index as u32);
                        let id = RuleId { family: ruleset.family, table: *table, chain, index };
                        *values.entry(ruleset.rule_name(id)).or_default() += ruleset.count(id).packets;
                    }
                }
            }
        }
        values
    }
}

impl Runner for Sim {
    fn kind(&self) -> RunnerKind {
        RunnerKind::Sim
    }

    fn lacks(&mut self, step: &Step) -> Option<String> {
        step.action.lacks_in_simulation(&self.lab)
    }

    fn begins(&mut self, step: &Step) {
        self.step.clone_from(&step.path);
    }

    fn act(&mut self, action: &Action, _: Awaits) -> Result<Observation, RunError> {
        self.seen.clear();
        let mut found = action.simulate(self)?;
        found.packets = core::mem::take(&mut self.seen);
        Ok(found)
    }

    fn impair(&mut self, links: &[(IfaceId, Impairment)]) -> Result<(), RunError> {
        for port in &mut self.ports {
            port.to_router.impair(Impairment::default());
            port.to_hosts.impair(Impairment::default());
        }
        for (iface, impairment) in links {
            let port = &mut self.ports[iface.index()];
            port.to_router.impair(*impairment);
            port.to_hosts.impair(*impairment);
        }
        Ok(())
    }

    fn table(&mut self) -> Result<Vec<String>, RunError> {
        Ok(self.list())
    }

    fn now(&self) -> Duration {
        since_start(self.now)
    }

    fn wait(&mut self, duration: Duration) {
        self.run_to(self.now + duration);
    }
}

fn first(errors: &[RuleError]) -> String {
    errors.first().map(ToString::to_string).unwrap_or_default()
}

fn since_start(now: Instant) -> Duration {
    now.saturating_since(Instant::ZERO)
}

/// Frames here come from stacks and from the router, so they have a header.
fn dst_mac(frame: &[u8]) -> Mac {
    frame.first_chunk().map_or(Mac::BROADCAST, |mac| Mac(*mac))
}

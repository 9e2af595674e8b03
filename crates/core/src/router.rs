//! ★ The router: frames, time and commands go in; fates, frames and events come out.
//!
//! It owns no thread, clock, file or socket. Whoever drives it keeps this contract:
//!
//! 1. For each frame that came in: [`Router::process`], then send what [`Outcome::out`] names and the worker's
//!    [`Worker::take_emissions`], in that order.
//! 2. After each batch: [`Router::handle_timeout`] if [`Router::poll_timeout`] has passed, and send its emissions.
//! 3. Then sleep until the next frame or [`Router::poll_timeout`].
//!
//! Time never goes backwards between calls. [`Router::handle_timeout`] is harmless when called early.
//! Several workers may share one router; a single one is deterministic. [`Router::worker`] makes one, and it belongs to
//! that router.

#![forbid(unsafe_code)]

mod error;
mod medium;

pub use error::RouterError;

use crate::base::log::Logs;
use crate::base::{DropReason, Emission, Fate, Iface, IfaceId, Instant, Offload, QueueReason, RuleId, Stage};
use crate::bridge::{self, Bridge};
use crate::config::{Mode, RouterConfig};
use crate::conntrack::{Ahead, Conntrack, Helper, Sysctls};
pub use crate::filter::Rules;
use crate::filter::context::{Arrival, Env};
use crate::filter::{RuleError, Ruleset};
use crate::host::{self, Host};
use crate::nat::Picker;
use crate::packet::fragment::{Bounds, Fragments, Reassembly};
use crate::packet::{self, Frame, Kind, Packet};
use crate::pipeline;
use crate::plane::{Outbox, OwnPacket, Passage, Plane};
use crate::record::{NoRecord, Note, Recorder};
use arc_swap::ArcSwap;
use core::ops::ControlFlow::Break;
use core::ops::Range;
use medium::BareLinks;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A stateful router between its interfaces.
#[derive(Debug)]
pub struct Router {
    env: Env,
    rules: ArcSwap<Rules>,
    plane: Planes,
    /// `None` for most routers: every interface is Ethernet.
    bare_links: Option<BareLinks>,
    fragments: Fragments,
    /// Counts the rules that were ever in force.
    generations: AtomicU64,
    /// Counts the workers that were ever made.
    workers: AtomicUsize,
    /// Tells this router's workers from those of others.
    identity: Arc<()>,
}

/// The mode of a router, with what that needs.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a router has one of them, for all its life")]
pub(crate) enum Planes {
    Bridge(Bridge),
    Host(Host),
}

/// What became of one frame, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// What became of it, and why.
    pub fate: Fate,
    /// The buffer that came in is to be sent here, edited in place; [`Outcome::range`] says which part of it.
    pub out: Option<IfaceId>,
    /// Where in the buffer that part begins: 0, or behind [`Frame::HEADROOM`] for a bare IP packet.
    pub start: usize,
    /// Bytes to send from there on.
    pub len: usize,
    /// The virtio header to send it with.
    pub offload: Offload,
}

impl Outcome {
    /// The part of the buffer that is to be sent.
    pub const fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// What one worker keeps to itself between packets. It belongs to the router that made it: [`Router::worker`].
#[derive(Debug)]
pub struct Worker {
    /// Its row of counters.
    row: usize,
    router: Arc<()>,
    outbox: Outbox,
    settings: Option<Settings>,
    stations: bridge::Memory,
    ahead: Ahead,
}

/// The rules and settings in force, as a worker last saw them: asked for anew only when they have changed, since
/// asking costs every packet as much as a lookup does.
#[derive(Clone, Debug)]
struct Settings {
    version: u64,
    rules: Arc<Rules>,
    sysctls: Arc<Sysctls>,
}

impl Worker {
    /// Whether anything is to be sent besides the frame that came in; seldom, and cheaper to ask than to take nothing.
    #[inline]
    pub const fn has_emissions(&self) -> bool {
        !self.outbox.emissions.is_empty()
    }

    /// What is to be sent besides the frame that came in.
    pub fn take_emissions(&mut self) -> std::vec::Drain<'_, Emission> {
        self.outbox.emissions.drain(..)
    }
}

impl Router {
    /// Makes a router, without connections yet.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, the rules first.
    pub fn new(config: RouterConfig) -> Result<Self, Vec<RouterError>> {
        const FIRST: u64 = 1;
        let loaded =
            Rules::load(&config.ifaces, config.rules.as_deref(), config.rules6.as_deref(), None, FIRST);
        match loaded {
            Ok(rules) => Self::with_rules(config, Arc::new(rules)),
            Err(errors) => {
                let rest = error::problems(&config, &mut Sysctls::default());
                Err(errors.into_iter().map(RouterError::Rules).chain(rest).collect())
            }
        }
    }

    /// As [`Router::new`] under rules that another router of the same interfaces has, and shares: for whoever makes many
    /// routers. What rules count and remember, they do for all of them.
    ///
    /// # Errors
    /// What is wrong with the rest of the configuration.
    pub fn with_rules(mut config: RouterConfig, rules: Arc<Rules>) -> Result<Self, Vec<RouterError>> {
        if rules.count_connections() {
            config.sysctl.push(("nf_conntrack_acct".to_owned(), "1".to_owned()));
        }
        let conntrack = Self::make_conntrack(&config, &rules)?;
        let fragments = Fragments::new(Bounds::new(&config.sysctl));
        let mut env = Env::new(config.ifaces.clone(), conntrack);
        env.is_bridged = config.mode == Mode::Bridge;
        env.unix_epoch_nanos = config.unix_epoch_nanos.into();
        let plane = match config.mode {
            Mode::Bridge => Planes::Bridge(Bridge::new(&config)),
            Mode::Route => {
                let host = Host::new(&config, &env.ifaces);
                env.routes = host.routes();
                Planes::Host(host)
            }
        };
        Ok(Self {
            env,
            generations: AtomicU64::new(rules.generation() + 1),
            rules: ArcSwap::new(rules),
            plane,
            bare_links: BareLinks::new(&config),
            fragments,
            workers: AtomicUsize::new(0),
            identity: Arc::new(()),
        })
    }

    /// Whether a router of that mode can carry the rules out.
    fn check_rules(mode: Mode, rules: &Rules) -> Result<(), Vec<RuleError>> {
        let errors: Vec<_> = match mode {
            Mode::Bridge => rules.all().filter_map(Ruleset::asks_too_much_of_a_bridge).collect(),
            Mode::Route => Vec::new(),
        };
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Connection tracking under the settings that were given, if nothing is wrong with anything.
    fn make_conntrack(config: &RouterConfig, rules: &Rules) -> Result<Conntrack, Vec<RouterError>> {
        let mut sysctls = Sysctls::default();
        let unfit = Self::check_rules(config.mode, rules).err().into_iter().flatten();
        let mut errors: Vec<_> = unfit.map(RouterError::Rules).collect();
        errors.extend(error::problems(config, &mut sysctls));
        if !errors.is_empty() {
            return Err(errors);
        }
        let helpers = config.helpers.iter().filter_map(|name| Helper::by_name(name)).collect();
        Ok(Conntrack::new(config.seed, sysctls, helpers))
    }

    /// The same, with searches for a free port that begin where `picker` says, and not where the seed leads.
    #[must_use]
    pub fn with_picker(mut self, picker: Arc<dyn Picker>) -> Self {
        self.env.conntrack.set_picker(picker);
        self
    }

    /// Makes a worker: whoever calls [`Router::process`] has one of its own.
    pub fn worker(&self) -> Worker {
        Worker {
            row: self.workers.fetch_add(1, Ordering::Relaxed),
            router: Arc::clone(&self.identity),
            outbox: Outbox::new(),
            settings: None,
            stations: bridge::Memory::new(),
            ahead: Ahead::new(),
        }
    }

    /// Replaces the rules, all or nothing: on errors the old ones stay in force.
    ///
    /// # Errors
    /// Everything that is wrong with the new rules.
    pub fn replace_rules(&self, rules: Option<&str>, rules6: Option<&str>) -> Result<(), Vec<RuleError>> {
        self.replace_rules_if(rules, rules6, |_, _| Ok(()))
    }

    /// As [`Router::replace_rules`], if `check` has nothing against it: it is shown the rules in force and the new ones.
    ///
    /// # Errors
    /// Everything that is wrong with the new rules, or what `check` says.
    pub fn replace_rules_if<E: From<Vec<RuleError>>>(
        &self,
        rules: Option<&str>,
        rules6: Option<&str>,
        check: impl FnOnce(&Rules, &Rules) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.rules.load_full();
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let rules = Rules::load(&self.env.ifaces, rules, rules6, Some(&before), generation)?;
        Self::check_rules(self.mode(), &rules)?;
        check(&before, &rules)?;
        if rules.count_connections() {
            // A name and a value that are known to be right.
            let _ = self.env.conntrack.set_sysctl("nf_conntrack_acct", "1");
        }
        self.rules.store(Arc::new(rules));
        self.env.conntrack.settings_changed();
        Ok(())
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// `filter/FORWARD/1`; `None` if there is no ruleset of that family any more.
    pub fn rule_name(&self, rule: RuleId) -> Option<String> {
        Some(self.rules.load().for_family(rule.family)?.rule_name(rule))
    }

    /// What LOG, NFLOG and TRACE say, to listen to.
    pub const fn logs(&self) -> &Logs {
        &self.env.logs
    }

    /// A moment in nanoseconds since 1970.
    pub fn unix_nanos(&self, at: Instant) -> u64 {
        self.env.unix_epoch_nanos().saturating_add(at.as_nanos())
    }

    /// From here on [`Instant::ZERO`] was at this moment, in nanoseconds since 1970: somebody set the clock on the wall,
    /// or it went on while the machine slept. What depends on the time of day follows; timers do not.
    pub fn set_unix_epoch(&self, nanos: u64) {
        self.env.unix_epoch_nanos.store(nanos, Ordering::Relaxed);
    }

    /// Whether it is a bridge or routes.
    pub const fn mode(&self) -> Mode {
        match self.plane {
            Planes::Bridge(_) => Mode::Bridge,
            Planes::Host(_) => Mode::Route,
        }
    }

    pub(crate) const fn plane(&self) -> &Planes {
        &self.plane
    }

    /// The interfaces, in the order of their [`IfaceId`]s.
    pub fn ifaces(&self) -> &[Iface] {
        &self.env.ifaces
    }

    /// How often packets were dropped for each reason, in the order of [`DropReason::CODES`].
    pub fn drop_counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DropReason::CODES.iter().copied().zip(self.env.drops.all())
    }

    /// Takes one frame that came in on `iface` to its fate. The frame is what the interface's medium carries: see
    /// [`Frame::new`] and [`Frame::bare`].
    ///
    /// # Panics
    /// If `iface` is not one of this router's, or the worker is not.
    #[inline]
    pub fn process<R: Recorder>(
        &self,
        worker: &mut Worker,
        now: Instant,
        iface: IfaceId,
        frame: Frame,
        rec: &mut R,
    ) -> Outcome {
        assert!(iface.index() < self.env.ifaces.len(), "no interface {iface:?}");
        assert!(Arc::ptr_eq(&worker.router, &self.identity), "the worker of another router");
        match &self.bare_links {
            None => self.process_framed(worker, now, iface, frame, rec),
            Some(links) => self.process_bare(links, worker, (now, iface), frame, rec),
        }
    }

    /// As [`Router::process`], where some interfaces have no link layer: the packet has a link header on its way.
    #[inline(never)]
    fn process_bare<R: Recorder>(
        &self,
        links: &BareLinks,
        worker: &mut Worker,
        (now, iface): (Instant, IfaceId),
        mut frame: Frame,
        rec: &mut R,
    ) -> Outcome {
        let earlier = worker.outbox.emissions.len();
        if !links.put_on(&mut frame, iface) {
            let fate = Fate::Dropped(DropReason::NotIp);
            self.env.drops.add(DropReason::NotIp, 1);
            rec.note(|| Note::Fate(fate));
            return Outcome { fate, out: None, start: 0, len: frame.bytes().len(), offload: frame.offload() };
        }
        let mut outcome = self.process_framed(worker, now, iface, frame, rec);
        links.take_off(&mut outcome);
        links.take_off_all(&mut worker.outbox.emissions[earlier..]);
        outcome
    }

    /// As [`Router::process`], of an Ethernet frame.
    #[inline]
    fn process_framed<R: Recorder>(
        &self,
        worker: &mut Worker,
        now: Instant,
        iface: IfaceId,
        frame: Frame,
        rec: &mut R,
    ) -> Outcome {
        let Worker { row, outbox, settings, stations, .. } = worker;
        let at = self.arrival(settings, *row, now, Some(iface));
        match &self.plane {
            Planes::Bridge(bridge) => {
                let walk = bridge::Walk::new(stations);
                self.carry(bridge, frame, &mut Passage::new(&at, walk, outbox, rec))
            }
            Planes::Host(host) => {
                let walk = host::Walk::default();
                self.carry(host, frame, &mut Passage::new(&at, walk, outbox, rec))
            }
        }
    }

    /// What is the same for a packet's whole way; rules and settings from the worker's memory if they have not changed.
    #[inline]
    fn arrival<'a>(
        &'a self,
        known: &'a mut Option<Settings>,
        row: usize,
        now: Instant,
        iface: Option<IfaceId>,
    ) -> Arrival<'a> {
        let version = self.env.conntrack.settings_version();
        if known.as_ref().is_none_or(|known| known.version != version) {
            *known = None;
        }
        let Settings { rules, sysctls, .. } = known.get_or_insert_with(|| self.current_settings(version));
        Arrival { now, iface, rules, sysctls, row, env: &self.env }
    }

    #[cold]
    fn current_settings(&self, version: u64) -> Settings {
        Settings { version, rules: self.rules.load_full(), sysctls: self.env.conntrack.sysctls() }
    }

    /// Takes one frame over the plane, and what the router writes because of it.
    #[inline(never)]
    fn carry<P: Plane, R: Recorder>(&self, plane: &P, frame: Frame, pass: &mut Passage<P, R>) -> Outcome {
        let (fate, offload) = (Fate::Forwarded, Offload::NONE);
        let mut outcome = Outcome { fate, out: None, start: 0, len: 0, offload };
        let end = match packet::kind(frame.bytes()) {
            Some(Kind::Ipv4) => self.carry_ip(plane, Packet::parse_ipv4(frame), pass, &mut outcome),
            _ => self.carry_other(plane, frame, pass, &mut outcome),
        };
        if let Break(fate) = end {
            outcome.fate = fate;
            if let Fate::Dropped(reason) = fate {
                pass.count_drops(reason, 1);
            }
        }
        outcome.out = pass.in_place;
        pass.ctx.rec.note(|| Note::Fate(outcome.fate));
        if pass.outbox.has_own() {
            pipeline::send_own(plane, pass.ctx.at, pass.outbox, pass.ctx.rec);
        }
        outcome
    }

    /// A frame that is not plainly IPv4: that has a way written out for it.
    #[inline(never)]
    fn carry_other<P: Plane, R: Recorder>(
        &self,
        plane: &P,
        mut frame: Frame,
        pass: &mut Passage<P, R>,
        outcome: &mut Outcome,
    ) -> Stage<()> {
        (outcome.len, outcome.offload) = (frame.bytes().len(), frame.offload());
        let mut kind = packet::kind(frame.bytes());
        if P::TAKES_PRIORITY_TAGS && matches!(kind, Some(Kind::Other(_))) {
            frame.strip_priority_tags();
            kind = packet::kind(frame.bytes());
        }
        match kind {
            Some(Kind::Ipv4 | Kind::Ipv6) => self.carry_ip(plane, frame.parse(), pass, outcome),
            Some(Kind::Arp) => plane.carry_non_ip(frame.bytes(), true, pass),
            Some(Kind::Other(_)) => plane.carry_non_ip(frame.bytes(), false, pass),
            None => Break(Fate::Dropped(DropReason::FrameShort)),
        }
    }

    /// Takes a packet on its way, unless it was refused where it was read.
    #[inline(always)]
    fn carry_ip<P: Plane, R: Recorder>(
        &self,
        plane: &P,
        mut parsed: Result<Packet, DropReason>,
        pass: &mut Passage<P, R>,
        outcome: &mut Outcome,
    ) -> Stage<()> {
        match &mut parsed {
            Ok(pkt) => {
                let end = self.enter(plane, pkt, pass);
                (outcome.len, outcome.offload) = (pkt.frame_len(), pkt.offload());
                end
            }
            Err(reason) => Break(Fate::Dropped(*reason)),
        }
    }

    /// What comes before PREROUTING: the checks of where a packet came in, and joining of fragments.
    #[inline(always)]
    fn enter<P: Plane, R: Recorder>(
        &self,
        plane: &P,
        pkt: &mut Packet,
        pass: &mut Passage<P, R>,
    ) -> Stage<()> {
        plane.admit(pkt, pass)?;
        if pkt.is_fragment() {
            return self.join(plane, pkt, pass);
        }
        let at = pass.ctx.at;
        let rules = pipeline::in_force(pkt, at)?;
        let room = room_for(rules, pkt, at);
        if room > pkt.room() {
            return self.walk_with_room(plane, pkt, room, pass);
        }
        pipeline::walk(plane, rules, pkt, pass)
    }

    /// Holds a fragment until its datagram is whole: only that walks on.
    #[cold]
    fn join<P: Plane, R: Recorder>(
        &self,
        plane: &P,
        pkt: &mut Packet,
        pass: &mut Passage<P, R>,
    ) -> Stage<()> {
        let at = pass.ctx.at;
        let from = at.iface.map_or(0, |iface| iface.0);
        let mut whole = match self.fragments.add(pkt, from, at.sysctls.fragments(), at.now) {
            Reassembly::Pending => return Break(Fate::Queued(QueueReason::Fragment)),
            Reassembly::Refused(reason) => return Break(Fate::Dropped(reason)),
            Reassembly::Passes => return self.walk_as_a_call(plane, pkt, pass),
            Reassembly::Whole(whole) => whole,
        };
        pass.pieces = Some(Box::new(whole.pieces.clone()));
        match whole.packet() {
            Ok(mut pkt) => {
                let room = room_for(pipeline::in_force(&pkt, at)?, &pkt, at);
                if room > pkt.room() {
                    return self.walk_with_room(plane, &mut pkt, room, pass);
                }
                self.walk_as_a_call(plane, &mut pkt, pass)
            }
            Err(reason) => Break(Fate::Dropped(reason)),
        }
    }

    /// The way of a packet that is not the frame as it came in. It is a call, because the way is long and would be written
    /// out once more here.
    #[cold]
    fn walk_as_a_call<P: Plane, R: Recorder>(
        &self,
        plane: &P,
        pkt: &mut Packet,
        pass: &mut Passage<P, R>,
    ) -> Stage<()> {
        let rules = pipeline::in_force(pkt, pass.ctx.at)?;
        pipeline::walk(plane, rules, pkt, pass)
    }

    /// The same in a buffer of its own, for a packet that rules may make longer and that has no room where it lies.
    #[cold]
    fn walk_with_room<P: Plane, R: Recorder>(
        &self,
        plane: &P,
        pkt: &mut Packet,
        room: usize,
        pass: &mut Passage<P, R>,
    ) -> Stage<()> {
        let mut frame = pkt.frame().to_vec();
        let len = frame.len();
        frame.resize(len + room, 0);
        // Some packets do not say how long they are.
        let frame = Frame::with_room(&mut frame, len).with_offload(pkt.offload());
        let mut roomy = match Packet::parse_again(frame) {
            Ok(roomy) => roomy,
            Err(reason) => return Break(Fate::Dropped(reason)),
        };
        let end = self.walk_as_a_call(plane, &mut roomy, pass);
        if roomy.frame_len() == pkt.frame_len() {
            pkt.frame_mut().copy_from_slice(roomy.frame());
            pkt.set_offload(roomy.offload());
        } else if let Some(iface) = pass.in_place.take() {
            pass.outbox.copy(iface, &roomy);
        }
        end
    }

    /// Sends an IP packet as a program on the router would: it passes OUTPUT and POSTROUTING, and what leaves is in the
    /// worker's emissions. If it has no source yet (0.0.0.0, ::), it gets the address that the router speaks to its destination
    /// with; its checksums are corrected.
    ///
    /// A bridge has no programs: it drops the packet.
    ///
    /// # Panics
    /// If the worker is not one of this router's.
    pub fn originate<R: Recorder>(
        &self,
        worker: &mut Worker,
        now: Instant,
        packet: &[u8],
        rec: &mut R,
    ) -> Fate {
        assert!(Arc::ptr_eq(&worker.router, &self.identity), "the worker of another router");
        let Planes::Host(host) = &self.plane else { return Fate::Dropped(DropReason::NoRoute) };
        let ethertype =
            if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] };
        let mut frame = [&[0; 12][..], &ethertype, packet].concat();
        match Packet::parse(&mut frame, Offload::NONE) {
            Err(reason) => return Fate::Dropped(reason),
            Ok(mut pkt) if pkt.src().is_unspecified() => match host.source_for(pkt.dst(), pkt.family()) {
                Some(own) => pkt.set_src(own),
                None => return Fate::Dropped(DropReason::NoRoute),
            },
            Ok(_) => {}
        }
        let Worker { row, outbox, settings, .. } = worker;
        let earlier = outbox.emissions.len();
        let at = self.arrival(settings, *row, now, None);
        let fate = pipeline::send_one_of_own(host, OwnPacket::of_a_program(frame), &at, outbox, rec);
        pipeline::send_own(host, &at, outbox, rec);
        if let Some(links) = &self.bare_links {
            links.take_off_all(&mut outbox.emissions[earlier..]);
        }
        fate
    }

    /// Whether telling the router of frames ahead of their turn pays: the table is larger than the caches.
    #[inline]
    pub fn looks_ahead(&self) -> bool {
        self.env.conntrack.looks_ahead()
    }

    /// Announces a frame that will be processed soon, so that the connections of all frames of a batch are fetched
    /// from memory at the same time and not one after another; [`Router::fetch_ahead`] ends the announcements.
    ///
    /// Decides and changes nothing: without it the same happens, only slower.
    #[inline]
    pub fn look_ahead(&self, worker: &mut Worker, frame: &[u8]) {
        self.env.conntrack.glance(frame, &mut worker.ahead);
    }

    /// Has the connections fetched that [`Router::look_ahead`] was told of.
    pub fn fetch_ahead(&self, worker: &mut Worker) {
        self.env.conntrack.fetch(&mut worker.ahead);
    }

    /// Does what is due: expires connections, ages neighbours, gives up on fragments.
    pub fn handle_timeout(&self, worker: &mut Worker, now: Instant) {
        self.env.conntrack.handle_timeout(now);
        let expired = self.fragments.handle_timeout(now);
        if let Planes::Host(host) = &self.plane {
            let Worker { row, outbox, settings, .. } = worker;
            let earlier = outbox.emissions.len();
            let at = self.arrival(settings, *row, now, None);
            for expired in expired {
                host.tell_of_missing_pieces(expired, &at, outbox);
            }
            host.handle_neighbours(&at, outbox);
            pipeline::send_own(host, &at, outbox, &mut NoRecord);
            if let Some(links) = &self.bare_links {
                links.take_off_all(&mut outbox.emissions[earlier..]);
            }
        }
    }

    /// When [`Router::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let neighbours = match &self.plane {
            Planes::Bridge(_) => None,
            Planes::Host(host) => host.poll_timeout(),
        };
        let timeouts = [self.env.conntrack.poll_timeout(), self.fragments.poll_timeout(), neighbours];
        timeouts.into_iter().flatten().min()
    }

    /// Goes on under other addresses and routes: rules and what they have counted stay, connections too, but those that are
    /// masqueraded with an address that is gone. `config` differs from what the router was made from in nothing else. Neighbours are
    /// asked for anew.
    ///
    /// # Errors
    /// Something is wrong with the new addresses or routes; nothing has changed.
    pub fn readdress(&mut self, config: RouterConfig, now: Instant) -> Result<(), Vec<RouterError>> {
        let mut next = Self::with_rules(config, self.rules())?;
        core::mem::swap(&mut next.env.conntrack, &mut self.env.conntrack);
        core::mem::swap(&mut next.fragments, &mut self.fragments);
        (next.generations, next.workers) =
            (core::mem::take(&mut self.generations), core::mem::take(&mut self.workers));
        next.identity = Arc::clone(&self.identity);
        *self = next;
        self.end_stale_masquerades(now);
        Ok(())
    }

    /// The connections: to list, delete, count and set.
    pub const fn conntrack(&self) -> &Conntrack {
        &self.env.conntrack
    }
}

/// How many bytes rules and helpers may add to a packet.
#[inline]
fn room_for(rules: &Ruleset, pkt: &Packet, at: &Arrival) -> usize {
    rules.room_for(pkt) + at.env.conntrack.room_for(pkt)
}

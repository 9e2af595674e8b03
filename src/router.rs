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
//! Several workers may share one router; a single one is deterministic.

#![forbid(unsafe_code)]

use crate::base::fate::{DropReason, Fate, QueueReason, Stage};
use crate::base::iface::{Iface, IfaceId};
use crate::base::log::{LogDetails, Logged, Logs, Speaker};
use crate::base::time::Instant;
use crate::base::{Emission, EmissionKind};
use crate::base::{Hook, Table};
use crate::bridge::{self, Bridge, Segment};
use crate::config::{Mode, RouterConfig};
use crate::conntrack::{Ahead, Conntrack, Helper, InvalidReason, Sysctls, Unfit};
use crate::filter::context::{Context, Env};
use crate::filter::{RejectWith, RuleError, RuleId, Ruleset};
use crate::host::Host;
use crate::icmp_reply::{self, Author};
use crate::packet::fragment::{Bounds, Bounds6, Fragments, Reassembly};
use crate::packet::{self, Family, Kind, Offload, Packet};
use crate::pipeline;
use crate::record::{NoRecord, Note, Recorder};
use crate::route::Routes;
use arc_swap::ArcSwap;
use core::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// A stateful router between its interfaces.
#[derive(Debug)]
pub struct Router {
    pub(crate) env: Env,
    rules: ArcSwap<Rules>,
    mode: Mode,
    bridge: Bridge,
    fragments: Fragments,
    pub(crate) host: Host,
    pass_non_ip: bool,
    dropped: Vec<AtomicU64>,
    /// Counts the IPv4 packets that the router wrote.
    ident: AtomicU16,
}

/// The rules in force: replaced as a whole, so that no packet sees half of them.
#[derive(Debug, Default)]
pub struct Rules {
    /// Empty without rules, which IPv4 then passes.
    v4: Ruleset,
    v6: Option<Ruleset>,
    has_v4: bool,
}

impl Rules {
    /// Whether a rule asks how much a connection has carried.
    fn count_connections(&self) -> bool {
        self.all().any(Ruleset::counts_connections)
    }

    /// Those that were loaded.
    pub fn all(&self) -> impl Iterator<Item = &Ruleset> {
        [Family::Ipv4, Family::Ipv6].into_iter().filter_map(|family| self.for_family(family))
    }

    pub const fn for_family(&self, family: Family) -> Option<&Ruleset> {
        match family {
            Family::Ipv4 if self.has_v4 => Some(&self.v4),
            Family::Ipv4 => None,
            Family::Ipv6 => self.v6.as_ref(),
        }
    }

    /// What a packet walks through. Without any rules IPv4 passes, and IPv6 does not: `None`.
    #[inline]
    pub(crate) const fn in_force(&self, family: Family) -> Option<&Ruleset> {
        match family {
            Family::Ipv4 => Some(&self.v4),
            Family::Ipv6 => self.v6.as_ref(),
        }
    }
}

/// The routing decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Forward(IfaceId),
    /// Bridge mode: every other port.
    Flood,
    /// The packet is for the router itself.
    Local,
}

/// What became of one frame, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub fate: Fate,
    /// The buffer that came in is to be sent here, edited in place.
    pub out: Option<IfaceId>,
    /// Bytes of it to send.
    pub len: usize,
    /// The virtio header to send it with.
    pub offload: Offload,
}

/// What one worker keeps to itself between packets.
#[derive(Debug, Default)]
pub struct Worker {
    index: usize,
    emissions: Vec<Emission>,
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
    /// `index` counts workers from zero and picks their row of counters.
    pub const fn new(index: usize) -> Self {
        Self {
            index,
            emissions: Vec::new(),
            settings: None,
            stations: bridge::Memory::new(),
            ahead: Ahead::new(),
        }
    }

    /// Whether anything is to be sent besides the frame that came in; seldom, and cheaper to ask than to take nothing.
    #[inline]
    pub const fn has_emissions(&self) -> bool {
        !self.emissions.is_empty()
    }

    /// What is to be sent besides the frame that came in.
    pub fn take_emissions(&mut self) -> std::vec::Drain<'_, Emission> {
        self.emissions.drain(..)
    }
}

impl Router {
    /// # Errors
    /// Everything that is wrong with the rules.
    pub fn new(config: RouterConfig) -> Result<Self, Vec<RuleError>> {
        let rules = Self::load(&config.ifaces, config.rules.as_deref(), config.rules6.as_deref(), None)?;
        Self::with_rules(config, Arc::new(rules))
    }

    /// As [`Router::new`] under rules that another router of the same interfaces has, and shares: for whoever makes many
    /// routers. What rules count and remember, they do for all of them.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn with_rules(mut config: RouterConfig, rules: Arc<Rules>) -> Result<Self, Vec<RuleError>> {
        if rules.count_connections() {
            config.sysctl.push(("nf_conntrack_acct".to_owned(), "1".to_owned()));
        }
        let conntrack = Self::make_conntrack(&config)?;
        let fragments = Fragments::new(Bounds::new(&config.sysctl));
        let host = Host::new(&config);
        let routes = match config.mode {
            Mode::Bridge => Routes::default(),
            Mode::Route => host.routes(&config),
        };
        Ok(Self {
            env: Env {
                ifaces: config.ifaces,
                conntrack,
                routes,
                is_bridged: config.mode == Mode::Bridge,
                unix_epoch_nanos: config.unix_epoch_nanos.into(),
                logs: Logs::default(),
            },
            rules: ArcSwap::new(rules),
            mode: config.mode,
            bridge: Bridge::default(),
            fragments,
            host,
            pass_non_ip: config.pass_non_ip,
            dropped: (0..DropReason::COUNT).map(|_| AtomicU64::new(0)).collect(),
            ident: AtomicU16::new(1),
        })
    }

    /// Connection tracking under the settings of the file; those of others are not looked at.
    fn make_conntrack(config: &RouterConfig) -> Result<Conntrack, Vec<RuleError>> {
        let mut sysctls = Sysctls::default();
        let mut errors = Vec::new();
        for (name, value) in config.sysctl.iter().filter(|(name, _)| Sysctls::is_name(name)) {
            errors.extend(sysctls.set(name, value).err().map(|error| error.to_string()));
        }
        let known = |name: &String| {
            Helper::by_name(name)
                .ok_or_else(|| format!("no helper named `{name}`: there are `ftp` and `tftp`"))
        };
        let (helpers, unknown): (Vec<_>, Vec<_>) = config.helpers.iter().map(known).partition(Result::is_ok);
        errors.extend(unknown.into_iter().filter_map(Result::err));
        if errors.is_empty() {
            return Ok(Conntrack::new(config.seed, sysctls, helpers.into_iter().flatten().collect()));
        }
        let error = |message| RuleError { line: 0, column: 0, message, hint: None };
        Err(errors.into_iter().map(error).collect())
    }

    fn load(
        ifaces: &[Iface],
        rules: Option<&str>,
        rules6: Option<&str>,
        before: Option<&Rules>,
    ) -> Result<Rules, Vec<RuleError>> {
        let names: Vec<String> = ifaces.iter().map(|i| i.name.clone()).collect();
        let load_one = |text: &str, family| match before.and_then(|before| before.for_family(family)) {
            Some(before) => before.load_after(text, family, &names),
            None => Ruleset::load(text, family, &names),
        };
        let load = |text: Option<&str>, family| {
            text.map(|text| load_one(text, family)).transpose().map(|l| l.map(|l| l.ruleset))
        };
        match (load(rules, Family::Ipv4), load(rules6, Family::Ipv6)) {
            (Ok(v4), Ok(v6)) => Ok(Rules { has_v4: v4.is_some(), v4: v4.unwrap_or_default(), v6 }),
            (v4, v6) => Err(v4.err().into_iter().chain(v6.err()).flatten().collect()),
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
        let rules = Self::load(&self.env.ifaces, rules, rules6, Some(&before))?;
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

    #[inline]
    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) const fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    pub fn ifaces(&self) -> &[Iface] {
        &self.env.ifaces
    }

    /// How often packets were dropped for each reason, in the order of [`DropReason::CODES`].
    pub fn drop_counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DropReason::CODES.iter().zip(&self.dropped).map(|(code, n)| (*code, n.load(Ordering::Relaxed)))
    }

    /// Takes one frame that came in on `iface` to its fate.
    ///
    /// # Panics
    /// If `iface` is not one of this router's.
    #[inline]
    pub fn process<R: Recorder>(
        &self,
        worker: &mut Worker,
        now: Instant,
        iface: IfaceId,
        frame: &mut [u8],
        offload: Offload,
        rec: &mut R,
    ) -> Outcome {
        let mut outcome = Outcome { fate: Fate::Forwarded, out: None, len: frame.len(), offload };
        self.carry(worker, now, iface, frame, rec, &mut outcome);
        outcome
    }

    /// `outcome` says that the frame passes as it came; what is otherwise is written there, and nothing is copied.
    #[inline(never)]
    fn carry<R: Recorder>(
        &self,
        worker: &mut Worker,
        now: Instant,
        iface: IfaceId,
        frame: &mut [u8],
        rec: &mut R,
        outcome: &mut Outcome,
    ) {
        assert!(iface.index() < self.env.ifaces.len(), "no interface {iface:?}");
        let Worker { index, emissions, settings, stations, .. } = worker;
        let mut ctx = self.context(now, Some(iface), *index, emissions, rec);
        let Settings { rules, sysctls, .. } = self.settings(settings);
        ctx.sysctls = Some(sysctls);
        ctx.stations = Some(stations);
        let way = if self.mode == Mode::Bridge && packet::is_plain_ipv4(frame) {
            match Packet::parse_plain_ipv4(frame, outcome.offload) {
                Ok(mut pkt) => {
                    let rules = rules.in_force(Family::Ipv4);
                    self.take_ip(Mode::Bridge, rules, &mut pkt, iface, &mut ctx, outcome)
                }
                Err(reason) => Break(Fate::Dropped(reason)),
            }
        } else {
            self.take_other(rules, iface, frame, &mut ctx, outcome)
        };
        outcome.out = ctx.in_place;
        if let Break(fate) = way {
            self.end(fate, outcome);
        }
        ctx.rec.note(|| Note::Fate(outcome.fate));
    }

    /// Every frame but the usual ones, which are written out in [`Router::carry`].
    #[inline(never)]
    fn take_other<R: Recorder>(
        &self,
        rules: &Rules,
        iface: IfaceId,
        frame: &mut [u8],
        ctx: &mut Context<R>,
        outcome: &mut Outcome,
    ) -> Stage<()> {
        let (family, parsed) = match packet::kind(frame) {
            Some(Kind::Ipv4) => (Family::Ipv4, Packet::parse_ipv4(frame, outcome.offload)),
            Some(Kind::Ipv6) => (Family::Ipv6, Packet::parse_ipv6(frame, outcome.offload)),
            Some(Kind::Arp) => return self.arp(frame, ctx),
            Some(Kind::Other(_)) => return self.non_ip(frame, ctx),
            None => return Break(Fate::Dropped(DropReason::FrameShort)),
        };
        match parsed {
            Ok(mut pkt) => self.take_ip(self.mode, rules.in_force(family), &mut pkt, iface, ctx, outcome),
            Err(reason) => Break(Fate::Dropped(reason)),
        }
    }

    /// A way that was left early.
    #[inline(never)]
    fn end(&self, fate: Fate, outcome: &mut Outcome) {
        outcome.fate = fate;
        if let Fate::Dropped(reason) = fate {
            self.count_drops(reason, 1);
        }
    }

    /// Whether telling the router of frames ahead of their turn pays: the table is larger than the caches.
    #[inline]
    pub fn looks_ahead(&self) -> bool {
        self.env.conntrack.looks_ahead()
    }

    /// Announces a frame whose turn comes soon, so that memory is asked for the connections of all frames that came in
    /// together, and not for one after another; [`Router::fetch_ahead`] ends the announcements.
    ///
    /// Decides and changes nothing. Whoever does without only waits longer.
    #[inline]
    pub fn look_ahead(&self, worker: &mut Worker, frame: &[u8]) {
        self.env.conntrack.glance(frame, &mut worker.ahead);
    }

    /// Has the connections fetched that [`Router::look_ahead`] was told of.
    pub fn fetch_ahead(&self, worker: &mut Worker) {
        self.env.conntrack.fetch(&mut worker.ahead);
    }

    /// The company of a packet, with what is the same for all of them.
    #[inline]
    pub(crate) fn context<'a, R: Recorder>(
        &'a self,
        now: Instant,
        in_iface: Option<IfaceId>,
        worker: usize,
        emissions: &'a mut Vec<Emission>,
        rec: &'a mut R,
    ) -> Context<'a, R> {
        Context::new(now, in_iface, worker, &self.env, emissions, rec)
    }

    /// One way for all packets, which the compiler writes out twice: what is known of the usual ones then costs nothing.
    #[inline(always)]
    fn take_ip<R: Recorder>(
        &self,
        mode: Mode,
        rules: Option<&Ruleset>,
        pkt: &mut Packet,
        iface: IfaceId,
        ctx: &mut Context<R>,
        outcome: &mut Outcome,
    ) -> Stage<()> {
        let way = self.ip(mode, rules, pkt, iface, ctx);
        (outcome.len, outcome.offload) = (pkt.frame_len(), pkt.offload());
        way
    }

    #[inline(always)]
    fn ip<R: Recorder>(
        &self,
        mode: Mode,
        rules: Option<&Ruleset>,
        pkt: &mut Packet,
        iface: IfaceId,
        ctx: &mut Context<R>,
    ) -> Stage<()> {
        match mode {
            Mode::Bridge => self.meet(pkt.macs(), iface, ctx),
            Mode::Route => {
                if let Err(reason) = self.admit(pkt, iface, ctx) {
                    return Break(Fate::Dropped(reason));
                }
                self.see(pkt, iface);
            }
        }
        if pkt.fragment().is_some() {
            return self.join(rules, pkt, ctx);
        }
        self.walk(mode, rules, pkt, ctx)
    }

    /// Holds a fragment until its datagram is whole: only that walks on.
    #[inline(never)]
    fn join<R: Recorder>(
        &self,
        rules: Option<&Ruleset>,
        pkt: &mut Packet,
        ctx: &mut Context<R>,
    ) -> Stage<()> {
        let ipv6 = ctx.sysctls.map_or_else(Bounds6::default, Sysctls::fragments);
        let from = ctx.in_iface.map_or(0, |iface| iface.0);
        let mut whole = match self.fragments.add(pkt, from, ipv6, ctx.now) {
            Reassembly::Pending => return Break(Fate::Queued(QueueReason::Fragment)),
            Reassembly::Refused(reason) => return Break(Fate::Dropped(reason)),
            Reassembly::Passes => return self.walk_apart(rules, pkt, ctx),
            Reassembly::Whole(whole) => whole,
        };
        ctx.pieces = Some(Box::new(whole.pieces.clone()));
        match whole.packet() {
            Ok(mut pkt) => self.walk_apart(rules, &mut pkt, ctx),
            Err(reason) => Break(Fate::Dropped(reason)),
        }
    }

    /// The way of one packet, with room behind it where rules may make it longer.
    #[inline(always)]
    fn walk<R: Recorder>(
        &self,
        mode: Mode,
        rules: Option<&Ruleset>,
        pkt: &mut Packet,
        ctx: &mut Context<R>,
    ) -> Stage<()> {
        let room = rules.map_or(0, |rules| rules.room_for(pkt));
        if room > 0 {
            return self.walk_with_room(rules, pkt, room, ctx);
        }
        pipeline::walk(self, mode, rules, pkt, ctx)
    }

    /// The same as a call, for what is seldom: the way is long, and written out wherever it is inlined.
    #[inline(never)]
    fn walk_apart<R: Recorder>(
        &self,
        rules: Option<&Ruleset>,
        pkt: &mut Packet,
        ctx: &mut Context<R>,
    ) -> Stage<()> {
        self.walk(self.mode, rules, pkt, ctx)
    }

    /// The same in a buffer of its own, for a packet that rules may make longer.
    fn walk_with_room<R: Recorder>(
        &self,
        rules: Option<&Ruleset>,
        pkt: &mut Packet,
        room: usize,
        ctx: &mut Context<R>,
    ) -> Stage<()> {
        let mut frame = pkt.frame().to_vec();
        frame.resize(frame.len() + room, 0);
        let mut roomy = match Packet::parse(&mut frame, pkt.offload()) {
            Ok(roomy) => roomy,
            Err(reason) => return Break(Fate::Dropped(reason)),
        };
        let way = pipeline::walk(self, self.mode, rules, &mut roomy, ctx);
        if roomy.frame_len() == pkt.frame_len() {
            pkt.frame_mut().copy_from_slice(roomy.frame());
            pkt.set_offload(roomy.offload());
        } else if let Some(iface) = ctx.in_place.take() {
            ctx.emit_copy(iface, &roomy);
        }
        way
    }

    /// The rules and settings in force, from the worker's memory if they have not changed.
    #[inline(always)]
    fn settings<'a>(&self, known: &'a mut Option<Settings>) -> &'a Settings {
        let version = self.env.conntrack.settings_version();
        if known.as_ref().is_none_or(|known| known.version != version) {
            *known = None;
        }
        known.get_or_insert_with(|| self.settings_anew(version))
    }

    #[cold]
    fn settings_anew(&self, version: u64) -> Settings {
        Settings { version, rules: self.rules.load_full(), sysctls: self.env.conntrack.sysctls() }
    }

    /// Says which state a packet has, and takes it into account.
    #[inline(always)]
    pub(crate) fn track<R: Recorder>(&self, pkt: &Packet, ctx: &mut Context<R>) -> Stage<()> {
        let Some(sysctls) = ctx.sysctls else { return self.track_own(pkt, ctx) };
        match self.env.conntrack.track_with(pkt, &ctx.template, ctx.now, sysctls, &mut ctx.ct) {
            Ok(()) => Continue(()),
            Err(unfit) => self.stay_untracked(unfit, pkt, ctx),
        }
    }

    /// The same for a packet that no worker carries, with the settings asked for anew.
    #[cold]
    fn track_own<R: Recorder>(&self, pkt: &Packet, ctx: &mut Context<R>) -> Stage<()> {
        ctx.ct = self.env.conntrack.track(pkt, ctx.template, ctx.now)?;
        match ctx.ct.invalid {
            None => Continue(()),
            Some(_) => self.stay_untracked(Unfit::Invalid, pkt, ctx),
        }
    }

    #[cold]
    fn stay_untracked<R: Recorder>(&self, unfit: Unfit, pkt: &Packet, ctx: &Context<R>) -> Stage<()> {
        match unfit {
            Unfit::Invalid => {
                if let Some(reason) = ctx.ct.invalid {
                    self.log_invalid(reason, pkt, ctx.now);
                }
                Continue(())
            }
            Unfit::TableFull => Break(Fate::Dropped(DropReason::TableFull)),
        }
    }

    /// `nf_conntrack_log_invalid`: of one protocol, or of all.
    fn log_invalid(&self, reason: InvalidReason, pkt: &Packet, now: Instant) {
        const ALL: u8 = 255;
        let wanted = self.env.conntrack.sysctls().log_invalid;
        if wanted != 0 && (wanted == ALL || wanted == pkt.proto()) {
            self.env.logs.say(|| invalid_packet(reason, pkt, now));
        }
    }

    /// Remembers where the sender of a frame is, and notes where its receiver is if that is at hand.
    #[inline(always)]
    fn meet<R: Recorder>(&self, ends: &[u8; 12], iface: IfaceId, ctx: &mut Context<R>) {
        if let Some(memory) = &mut ctx.stations {
            ctx.receiver = self.bridge.meet(memory, ends, iface, ctx.now);
        }
    }

    fn arp<R: Recorder>(&self, frame: &[u8], ctx: &mut Context<R>) -> Stage<()> {
        match self.mode {
            Mode::Bridge => self.switch(frame, ctx),
            Mode::Route => Break(self.take_arp(frame, ctx)),
        }
    }

    fn non_ip<R: Recorder>(&self, frame: &[u8], ctx: &mut Context<R>) -> Stage<()> {
        if !self.pass_non_ip || self.mode != Mode::Bridge {
            return Break(Fate::Dropped(DropReason::NotIp));
        }
        self.switch(frame, ctx)
    }

    /// Bridge mode: carries a frame that no rule looks at.
    fn switch<R: Recorder>(&self, frame: &[u8], ctx: &mut Context<R>) -> Stage<()> {
        let Some(from) = ctx.in_iface else { return Break(Fate::Dropped(DropReason::NotIp)) };
        self.meet(&core::array::from_fn(|at| frame[at]), from, ctx);
        let dst = packet::Mac(core::array::from_fn(|at| frame[at]));
        match self.bridge.lookup(dst, from, ctx.now) {
            Segment::Same => return Break(Fate::Dropped(DropReason::SamePort)),
            Segment::Reserved => return Break(Fate::Dropped(DropReason::LinkLocalGroup)),
            Segment::Port(iface) => self.switch_to(iface, frame, ctx),
            Segment::Flood => {
                for iface in self.other_ifaces(Some(from)) {
                    self.switch_to(iface, frame, ctx);
                }
            }
        }
        Continue(())
    }

    fn switch_to<R: Recorder>(&self, iface: IfaceId, frame: &[u8], ctx: &mut Context<R>) {
        ctx.rec.note(|| Note::Sent(iface));
        if ctx.in_place.is_none() {
            ctx.in_place = Some(iface);
        } else {
            ctx.emit(iface, EmissionKind::Copy, frame.to_vec(), Offload::NONE);
        }
    }

    /// Where the packet goes: bridge mode asks the stations, route mode the routes.
    #[inline(always)]
    pub(crate) fn decide<R: Recorder>(
        &self,
        mode: Mode,
        pkt: &mut Packet,
        ctx: &mut Context<R>,
    ) -> Stage<Way> {
        if mode == Mode::Route {
            return self.route(pkt, ctx);
        }
        if let Some(iface) = ctx.receiver {
            return Continue(Way::Forward(iface));
        }
        self.find_station(pkt, ctx)
    }

    #[cold]
    fn find_station<R: Recorder>(&self, pkt: &Packet, ctx: &Context<R>) -> Stage<Way> {
        let Some(from) = ctx.in_iface else { return Break(Fate::Dropped(DropReason::NoRoute)) };
        match self.bridge.lookup(pkt.dst_mac(), from, ctx.now) {
            Segment::Port(iface) => Continue(Way::Forward(iface)),
            Segment::Flood => Continue(Way::Flood),
            Segment::Same => Break(Fate::Dropped(DropReason::SamePort)),
            Segment::Reserved => Break(Fate::Dropped(DropReason::LinkLocalGroup)),
        }
    }

    /// What Linux does between the routing decision and FORWARD: TTL and MTU.
    #[inline(always)]
    pub(crate) fn prepare_forward<R: Recorder>(
        &self,
        mode: Mode,
        pkt: &mut Packet,
        out: IfaceId,
        ctx: &mut Context<R>,
    ) -> Stage<()> {
        match mode {
            Mode::Bridge => Continue(()),
            Mode::Route => self.prepare_routed(pkt, out, ctx),
        }
    }

    /// Puts the packet on its way out.
    #[inline(always)]
    pub(crate) fn send<R: Recorder>(
        &self,
        mode: Mode,
        pkt: &mut Packet,
        out: IfaceId,
        ctx: &mut Context<R>,
    ) -> Stage<()> {
        if mode == Mode::Route {
            return self.send_routed(pkt, out, ctx);
        }
        self.leave(pkt, out, ctx);
        Continue(())
    }

    /// Sends the packet in the buffer that it came in, as a copy if that is taken, or in the pieces in which it came.
    #[inline(always)]
    pub(crate) fn leave<R: Recorder>(&self, pkt: &Packet, iface: IfaceId, ctx: &mut Context<R>) {
        ctx.rec.note(|| Note::Sent(iface));
        if ctx.in_place.is_none() && ctx.pieces.is_none() {
            ctx.in_place = Some(iface);
        } else {
            self.leave_otherwise(pkt, iface, ctx);
        }
    }

    #[cold]
    fn leave_otherwise<R: Recorder>(&self, pkt: &Packet, iface: IfaceId, ctx: &mut Context<R>) {
        if let Some(pieces) = ctx.pieces.take() {
            for frame in pieces.cut(pkt, self.env.ifaces[iface.index()].mtu_bytes) {
                ctx.emit(iface, EmissionKind::Fragment, frame, Offload::NONE);
            }
            ctx.pieces = Some(pieces);
        } else {
            ctx.emit_copy(iface, pkt);
        }
    }

    /// Gives the packet to the router as a host.
    pub(crate) fn deliver<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>) -> Fate {
        match self.mode {
            Mode::Bridge => Fate::Delivered,
            Mode::Route => self.take_in(pkt, ctx),
        }
    }

    /// Answers a packet that a rule refused; where Linux keeps silent, the packet is merely dropped.
    pub(crate) fn reject<R: Recorder>(
        &self,
        with: RejectWith,
        by: RuleId,
        pkt: &mut Packet,
        ctx: &mut Context<R>,
    ) -> Fate {
        if self.mode == Mode::Route {
            return self.reject_routed(with, by, pkt, ctx);
        }
        let Some(iface) = ctx.in_iface else { return Fate::Dropped(DropReason::Rule(by)) };
        if !icmp_reply::deserves(with, pkt) {
            return Fate::Dropped(DropReason::Rule(by));
        }
        if !self.host.may_answer_on_link(with, pkt, ctx.now) {
            return Fate::Rejected(with, by);
        }
        // The router has no address on a bridge: it speaks in the name of the host that was asked for.
        let author = Author { src: pkt.dst(), ident: self.next_ident() };
        let mut frame = icmp_reply::refuse(with, pkt, author);
        frame[..6].copy_from_slice(&pkt.src_mac().0);
        frame[6..12].copy_from_slice(&pkt.dst_mac().0);
        ctx.emit(iface, EmissionKind::Own, frame, Offload::NONE);
        if with == RejectWith::TcpReset {
            self.env.conntrack.was_reset(&mut ctx.ct, ctx.now);
        }
        Fate::Rejected(with, by)
    }

    /// Counts packets that were dropped outside of their own walk.
    pub(crate) fn count_drops(&self, reason: DropReason, n: u64) {
        self.dropped[reason.index()].fetch_add(n, Ordering::Relaxed);
    }

    /// The identification of the next IPv4 packet that the router writes.
    pub(crate) fn next_ident(&self) -> u16 {
        self.ident.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn other_ifaces(&self, from: Option<IfaceId>) -> impl Iterator<Item = IfaceId> + use<> {
        self.iface_ids().filter(move |id| Some(*id) != from)
    }

    pub(crate) fn iface_ids(&self) -> impl Iterator<Item = IfaceId> + use<> {
        (0..self.env.ifaces.len() as u16).map(IfaceId)
    }

    /// Does what is due: expires connections, ages neighbours, gives up on fragments.
    pub fn handle_timeout(&self, worker: &mut Worker, now: Instant) {
        self.env.conntrack.handle_timeout(now);
        let expired = self.fragments.handle_timeout(now);
        let (rec, emissions) = (&mut NoRecord, &mut worker.emissions);
        let mut ctx = self.context(now, None, worker.index, emissions, rec);
        if self.mode == Mode::Route {
            for expired in expired {
                self.tell_of_missing_pieces(expired, &mut ctx);
            }
        }
        self.handle_neighbours(now, &mut ctx);
    }

    /// When [`Router::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [
            self.env.conntrack.poll_timeout(),
            self.fragments.poll_timeout(),
            self.host.neighbours.poll_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    /// The connections: to list, delete, count and set.
    pub const fn conntrack(&self) -> &Conntrack {
        &self.env.conntrack
    }
}

/// What the log says of a packet that fits no connection; as in Linux's log, without interfaces.
fn invalid_packet(reason: InvalidReason, pkt: &Packet, at: Instant) -> Logged {
    const NOTICE: u8 = 5;
    let prefix = format!("nf_ct_proto_{}: {reason} ", pkt.proto());
    Logged {
        at,
        by: Speaker::Log { prefix, level: NOTICE, details: LogDetails::default() },
        rule: RuleId { family: pkt.family(), table: Table::Raw, chain: u16::MAX, index: 0 },
        table: Table::Raw,
        hook: Hook::Prerouting,
        in_iface: None,
        out_iface: None,
        src_mac: pkt.src_mac(),
        dst_mac: pkt.dst_mac(),
        mark: 0,
        packet: pkt.l3().to_vec(),
        packet_len: pkt.l3().len(),
    }
}

//! The router under test, set up as the kernel is.

#![forbid(unsafe_code)]

use super::clock;
use super::kernel::{
    ADDRESSES, MACS, NAMES, NEIGHBOUR_LINK_LOCAL, NEIGHBOUR_MACS, NEIGHBOURS, ROUTES, SHARED_SETTINGS, Setup,
};
use anyhow::{Context as _, Error, Result, anyhow};
use core::ops::RangeInclusive;
use stateway_core::base::EmissionKind;
use stateway_core::config::{Mode, NeighbourConfig, RouteConfig, RouteTarget, RouterConfig};
use stateway_core::conntrack::{CtState, Direction, Entry, Expectation, InvalidReason};
use stateway_core::fate::Fate;
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::nat::Picker;
use stateway_core::packet::{Addr, Family, Frame, Prefix, Tuple};
use stateway_core::record::{NoRecord, Note, Recorder, Translated};
use stateway_core::router::{Router, Rules, Worker};
use stateway_core::time::{Duration, Instant};
use stateway_trace::flow::{self, AddressChange};
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

/// What the router did with one frame.
#[derive(Clone, Debug)]
pub struct Ours {
    /// What connection tracking said; `None` if the frame never came that far.
    pub state: Option<CtState>,
    pub direction: Option<Direction>,
    pub invalid: Option<InvalidReason>,
    pub fate: Fate,
    pub sent: Vec<Sent>,
    /// What became of the ends of its connection, if that was decided now.
    pub translated: Vec<Translated>,
}

/// A frame that left: by which interface, what, and whether the router wrote or cut it itself.
pub type Sent = (usize, Vec<u8>, Option<EmissionKind>);

/// A router that lives by the kernel's clock, and skips what the kernel's timers are told to skip.
#[derive(Debug)]
pub struct Subject {
    router: Router,
    worker: Worker,
    /// The tick at which it was made.
    began: u32,
    skipped: Duration,
    now: Instant,
    config: RouterConfig,
    listeners: Vec<(u16, Vec<u8>)>,
}

/// Not zero, so that nothing can be older than the clock.
const BEGINNING: Instant = Instant::from_secs(1_000_000);

impl Subject {
    /// # Errors
    /// The router refuses the rules.
    pub fn new(setup: &Setup) -> Result<Self> {
        Ok(Self { listeners: setup.listeners.clone(), ..Self::with_config(config(setup)?)? })
    }

    /// As [`Subject::new`], where it is `unix` now.
    ///
    /// # Errors
    /// The router refuses the rules.
    pub fn at_time_of_day(setup: &Setup, unix: Duration) -> Result<Self> {
        let unix_epoch_nanos = (unix.as_nanos() as u64).saturating_sub(BEGINNING.as_nanos());
        Self::with_config({
            let mut made = config(setup)?;
            made.unix_epoch_nanos = unix_epoch_nanos;
            made
        })
    }

    /// As [`Subject::new`], under rules that others have too, and with the kernel's own choice of ports.
    ///
    /// # Errors
    /// The router refuses the rest of the setup.
    pub(super) fn sharing(setup: &Setup, rules: Arc<Rules>, picker: Arc<dyn Picker>) -> Result<Self> {
        let config = config(setup)?;
        let router = Router::with_rules(config.clone(), rules).map_err(in_words)?;
        let listeners = setup.listeners.clone();
        Ok(Self { listeners, ..Self::of(router.with_picker(picker), config) })
    }

    fn with_config(config: RouterConfig) -> Result<Self> {
        Ok(Self::of(Router::new(config.clone()).map_err(in_words)?, config))
    }

    fn of(router: Router, config: RouterConfig) -> Self {
        let began = clock::ticks();
        let worker = router.worker();
        let (skipped, now, listeners) = (Duration::ZERO, BEGINNING, Vec::new());
        Self { router, worker, began, skipped, now, config, listeners }
    }

    /// Brings the clock to a tick of the kernel's; returns what the router sends of its own accord meanwhile.
    pub fn tick(&mut self, tick: u32) -> Vec<Sent> {
        self.now = self.now.max(self.at(tick));
        self.router.handle_timeout(&mut self.worker, self.now);
        self.emissions().collect()
    }

    /// The router's time at a tick of the kernel's.
    fn at(&self, tick: u32) -> Instant {
        BEGINNING + clock::tick() * tick.saturating_sub(self.began) + self.skipped
    }

    fn emissions(&mut self) -> impl Iterator<Item = Sent> {
        self.worker.take_emissions().map(|sent| (sent.iface.index(), sent.frame, Some(sent.kind)))
    }

    pub fn feed(&mut self, port: usize, frame: &[u8]) -> Ours {
        let mut seen = Seen::default();
        let ours = self.feed_to(port, frame, &mut seen);
        Ours {
            state: seen.state,
            direction: seen.direction,
            invalid: seen.invalid,
            translated: seen.translated,
            ..ours
        }
    }

    /// As [`Subject::feed`], but nobody listens: the way that packets take in earnest. State and direction are not told.
    pub fn feed_unheard(&mut self, port: usize, frame: &[u8]) -> Ours {
        self.feed_to(port, frame, &mut NoRecord)
    }

    fn feed_to<R: Recorder>(&mut self, port: usize, frame: &[u8], rec: &mut R) -> Ours {
        let mut buffer = frame.to_vec();
        let iface = IfaceId(port as u16);
        let outcome = self.router.process(&mut self.worker, self.now, iface, Frame::new(&mut buffer), rec);
        if outcome.fate == Fate::Delivered
            && let Some(packet) = flow::answer_to(&mut buffer, &self.listeners)
        {
            self.router.originate(&mut self.worker, self.now, &packet, rec);
        }
        let mut sent = Vec::new();
        if let Some(iface) = outcome.out {
            buffer.truncate(outcome.len);
            sent.push((iface.index(), buffer, None));
        }
        sent.extend(self.emissions());
        sent.sort_by_key(|(port, ..)| *port);
        Ours { state: None, direction: None, invalid: None, fate: outcome.fate, sent, translated: Vec::new() }
    }

    /// Has a program on the router send an IP packet.
    pub(super) fn originate(&mut self, packet: &[u8]) -> Ours {
        let fate = self.router.originate(&mut self.worker, self.now, packet, &mut NoRecord);
        let mut sent: Vec<Sent> = self.emissions().collect();
        sent.sort_by_key(|(port, ..)| *port);
        Ours { state: None, direction: None, invalid: None, fate, sent, translated: Vec::new() }
    }

    /// Goes on under other addresses.
    ///
    /// # Errors
    /// The router refuses them.
    pub(super) fn change_addresses(&mut self, changes: &[AddressChange]) -> Result<()> {
        let mut config = self.config.clone();
        flow::change_addresses(&mut config.ifaces, changes);
        self.router.readdress(config.clone(), self.now).map_err(in_words)?;
        self.config = config;
        Ok(())
    }

    /// Replaces the rules.
    ///
    /// # Errors
    /// The router refuses them.
    pub(super) fn load(&self, rules4: &str, rules6: &str) -> Result<()> {
        self.router.replace_rules(Some(rules4), Some(rules6)).map_err(in_words)
    }

    /// Skips time, and returns what the router sends of its own accord meanwhile.
    pub fn skip(&mut self, time: Duration) -> Vec<Sent> {
        self.skipped += time;
        self.now += time;
        self.router.handle_timeout(&mut self.worker, self.now);
        self.emissions().collect()
    }

    /// Rounds what is left of a connection's life up to whole seconds, as many as are returned; `None` if there is
    /// no such connection.
    pub fn round_timeout(&self, tuple: &Tuple) -> Option<u32> {
        let left = self.entry(tuple)?.timeout(self.now);
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        self.router.conntrack().set_timeout(tuple, Duration::from_secs(seconds), self.now);
        Some(seconds as u32)
    }

    /// How long a UDP flow has lived.
    pub fn age(&self, entry: &Entry) -> Duration {
        self.now.saturating_since(entry.began_at)
    }

    /// The living connection that has `tuple` in either direction.
    pub fn entry(&self, tuple: &Tuple) -> Option<Entry> {
        self.router.conntrack().entry_of(tuple, self.now)
    }

    /// What is left of a life in whole seconds: as it may be read from the router's last tick until `tick`, a tick
    /// either way.
    pub fn seconds_left(&self, expires_at: Instant, tick: u32) -> RangeInclusive<u32> {
        let longest = expires_at.saturating_since(self.now) + clock::tick();
        let shortest = expires_at.saturating_since(self.at(tick)).saturating_sub(clock::tick());
        shortest.as_secs() as u32..=longest.as_secs() as u32
    }

    pub fn expectations(&self) -> Vec<Expectation> {
        self.router.conntrack().expectations(self.now)
    }

    pub const fn now(&self) -> Instant {
        self.now
    }

    pub const fn router(&self) -> &Router {
        &self.router
    }
}

/// Keeps what the first pass through connection tracking said: what follows is about answers of the router's own.
#[derive(Debug, Default)]
struct Seen {
    state: Option<CtState>,
    direction: Option<Direction>,
    invalid: Option<InvalidReason>,
    translated: Vec<Translated>,
    is_tracked: bool,
    is_over: bool,
}

impl Recorder for Seen {
    fn note(&mut self, note: impl FnOnce() -> Note) {
        if self.is_over {
            return;
        }
        match note() {
            Note::Tracked(tracked) if !self.is_tracked => {
                self.state = Some(tracked.state);
                self.direction = tracked.tuple.is_some().then_some(tracked.direction);
                self.invalid = tracked.invalid;
                self.is_tracked = true;
            }
            Note::Translated(translated) => self.translated.push(*translated),
            Note::Fate(_) | Note::Own { .. } => self.is_over = true,
            _ => {}
        }
    }
}

fn in_words<E: Display>(errors: Vec<E>) -> Error {
    anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// The kernel's addresses, routes and neighbours, for our router.
fn config(setup: &Setup) -> Result<RouterConfig> {
    let mut config = RouterConfig::new(Vec::new());
    config.mode = setup.mode;
    config.udp_listeners.clone_from(&setup.heard);
    // What the kernel's bridge passes on unseen.
    config.pass_non_ip = true;
    config.rules.clone_from(&setup.rules4);
    // Without rules the kernel accepts; we would drop IPv6.
    config.rules6 = Some(setup.rules6.clone().unwrap_or_else(|| "*filter\nCOMMIT\n".to_owned()));
    config.sysctl = SHARED_SETTINGS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .chain(setup.sysctl.iter().cloned())
        .collect();
    for port in 0..NAMES.len() {
        let iface = IfaceId(port as u16);
        let mut interface = Iface::new(NAMES[port], iface);
        interface.mac = MACS[port];
        if let Some((_, mtu)) = setup.mtu.iter().find(|(name, _)| name == NAMES[port]) {
            interface.mtu_bytes = *mtu;
        }
        if setup.mode == Mode::Bridge {
            config.ifaces.push(interface);
            continue;
        }
        for family in 0..ROUTES[port].len() {
            interface.addresses.push(prefix(ADDRESSES[port][family])?);
            let (gateway, gateway_family) = address(NEIGHBOURS[port][family])?;
            config.neighbours.push(NeighbourConfig {
                addr: gateway,
                family: gateway_family,
                mac: NEIGHBOUR_MACS[port],
                iface,
            });
            for to in ROUTES[port][family] {
                let target = RouteTarget::Via { gateway, iface };
                config.routes.push(RouteConfig { to: prefix(to)?, target });
            }
        }
        for more in setup.addresses.iter().filter(|more| more.iface == port) {
            interface
                .addresses
                .insert(if more.is_first { 0 } else { interface.addresses.len() }, more.prefix);
        }
        let (addr, family) = address(NEIGHBOUR_LINK_LOCAL)?;
        config.neighbours.push(NeighbourConfig { addr, family, mac: NEIGHBOUR_MACS[port], iface });
        config.ifaces.push(interface);
    }
    Ok(config)
}

fn address(text: &str) -> Result<(Addr, Family)> {
    let ip: IpAddr = text.parse().with_context(|| format!("`{text}` is no address"))?;
    let family = Family::from(ip);
    Ok((ip.into(), family))
}

fn prefix(text: &str) -> Result<Prefix> {
    let (ip, len) = text.split_once('/').with_context(|| format!("`{text}` is no prefix"))?;
    let (addr, family) = address(ip)?;
    Ok(Prefix::new(addr, len.parse()?, family))
}

//! What travels beside a packet: how it came, and what has been learnt of it so far.

#![forbid(unsafe_code)]

use crate::base::fate::DropCounters;
use crate::base::log::Logs;
use crate::base::{Iface, IfaceId, Instant};
use crate::conntrack::{Conntrack, Sysctls, Template, Tracked};
use crate::filter::Rules;
use crate::record::Recorder;
use crate::route::Routes;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::Arc;

/// What is the same for every packet of a router.
#[derive(Debug, Default)]
pub struct Env {
    /// The router's interfaces, by their ids.
    pub ifaces: Arc<[Iface]>,
    /// The connections behind packets, for rules that ask more of them or change them.
    pub conntrack: Conntrack,
    /// Where packets go; empty in bridge mode.
    pub routes: Arc<Routes>,
    /// Packets cross a bridge: its interfaces are ports.
    pub is_bridged: bool,
    /// When [`Instant::ZERO`] was: nanoseconds since 1970. The driver moves it when the clock on the wall was set.
    pub unix_epoch_nanos: AtomicU64,
    /// Who hears what rules log.
    pub logs: Logs,
    /// How often packets were dropped, and why.
    pub drops: DropCounters,
    /// Counts the IPv4 packets that the router wrote.
    ident: AtomicU16,
}

impl Env {
    pub fn new(ifaces: Vec<Iface>, conntrack: Conntrack) -> Self {
        Self { ifaces: ifaces.into(), conntrack, ..Self::default() }
    }

    /// When [`Instant::ZERO`] was: nanoseconds since 1970.
    #[inline]
    pub fn unix_epoch_nanos(&self) -> u64 {
        self.unix_epoch_nanos.load(Ordering::Relaxed)
    }

    /// The identification of the next IPv4 packet that the router writes.
    pub(crate) fn next_ident(&self) -> u16 {
        self.ident.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    pub(crate) fn iface_ids(&self) -> impl Iterator<Item = IfaceId> + use<> {
        (0..self.ifaces.len() as u16).map(IfaceId)
    }
}

/// How a packet came, and under what rules and settings: the same for the whole of its way, and for every answer to it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub now: Instant,
    /// Where the packet came in; `None` for one that the router itself sends.
    pub iface: Option<IfaceId>,
    pub rules: &'a Rules,
    pub sysctls: &'a Sysctls,
    /// Which worker carries the packet: its own row of counters.
    pub row: usize,
    pub env: &'a Env,
}

/// What rules see of a packet besides its bytes, and what they change of that. It lives as long as the packet's walk.
pub struct Context<'a, R> {
    pub at: &'a Arrival<'a>,
    /// Where it will leave, once that is decided.
    pub out_iface: Option<IfaceId>,
    /// What connection tracking said; before it spoke, what the raw table asked of it.
    pub ct: Tracked,
    pub template: Template,
    /// The packet mark (`-j MARK`, `-m mark`).
    pub mark: u32,
    /// An error or a rule's reset: it came with the connection that it is about, and the raw table cannot change that.
    pub is_answer: bool,
    /// A rule's reset, which Linux does not take for a packet of its own where it looks at TTLs.
    pub is_rules_reset: bool,
    /// `-j TRACE` asked for a trace of this packet.
    pub traced: bool,
    pub rec: &'a mut R,
}

impl<'a, R: Recorder> Context<'a, R> {
    #[inline]
    pub fn new(at: &'a Arrival<'a>, rec: &'a mut R) -> Self {
        Self {
            at,
            out_iface: None,
            ct: Tracked::none(),
            template: Template::default(),
            mark: 0,
            is_answer: false,
            is_rules_reset: false,
            traced: false,
            rec,
        }
    }
}

/// What a test shows packets to rules with, where there is no router.
#[cfg(test)]
#[derive(Debug, Default)]
pub(in crate::filter) struct WithoutRouter {
    pub(in crate::filter) env: Env,
    rules: Rules,
    sysctls: Sysctls,
}

#[cfg(test)]
impl WithoutRouter {
    pub(in crate::filter) fn arrival(&self, now: Instant, iface: u16) -> Arrival<'_> {
        let Self { env, rules, sysctls } = self;
        Arrival { now, iface: Some(IfaceId(iface)), rules, sysctls, row: 0, env }
    }
}

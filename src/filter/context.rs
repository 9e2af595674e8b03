//! What travels beside a packet: where it is, when, and what has been learnt of it so far.

#![forbid(unsafe_code)]

use crate::base::iface::{Iface, IfaceId};
use crate::base::log::Logs;
use crate::base::time::Instant;
use crate::base::{Emission, EmissionKind};
use crate::bridge;
use crate::conntrack::{Conntrack, Sysctls, Template, Tracked};
use crate::packet::fragment::Pieces;
use crate::packet::ipv4_options::Ipv4Options;
use crate::packet::{Addr, Offload, Packet};
use crate::record::Recorder;
use crate::route::Routes;
use core::sync::atomic::{AtomicU64, Ordering};

/// What is the same for every packet of a router.
#[derive(Debug, Default)]
pub struct Env {
    /// The router's interfaces, by their ids.
    pub ifaces: Vec<Iface>,
    /// The connections behind packets, for rules that ask more of them or change them.
    pub conntrack: Conntrack,
    /// Where packets go; empty in bridge mode.
    pub routes: Routes,
    /// Packets cross a bridge: its interfaces are ports.
    pub is_bridged: bool,
    /// When [`Instant::ZERO`] was: nanoseconds since 1970. The driver moves it when the clock on the wall was set.
    pub unix_epoch_nanos: AtomicU64,
    /// Who hears what rules log.
    pub logs: Logs,
}

impl Env {
    /// When [`Instant::ZERO`] was: nanoseconds since 1970.
    #[inline]
    pub fn unix_epoch_nanos(&self) -> u64 {
        self.unix_epoch_nanos.load(Ordering::Relaxed)
    }
}

/// One packet's company on its way. It lives as long as the packet's walk.
pub struct Context<'a, R> {
    pub now: Instant,
    /// Where the packet came in; `None` for one that the router itself sends.
    pub in_iface: Option<IfaceId>,
    /// Where it will leave, once that is decided.
    pub out_iface: Option<IfaceId>,
    /// Route mode: whose link address the frame will get.
    pub next_hop: Option<Addr>,
    /// What connection tracking said; before it spoke, what the raw table asked of it.
    pub ct: Tracked,
    pub template: Template,
    /// The packet mark (`-j MARK`, `-m mark`).
    pub mark: u32,
    /// Which worker carries the packet: its own row of counters.
    pub worker: usize,
    /// An error or a rule's reset: it came with the connection that it is about, and the raw table cannot change that.
    pub is_answer: bool,
    /// A rule's reset, which Linux does not take for a packet of its own where it looks at TTLs.
    pub is_rules_reset: bool,
    /// `-j TRACE` asked for a trace of this packet.
    pub traced: bool,
    /// The packet was joined from these, and leaves in such.
    pub pieces: Option<Box<Pieces>>,
    /// Its IPv4 options, once they were looked at (route mode).
    pub options: Option<Ipv4Options>,
    /// Set when the packet leaves in the buffer that it came in.
    pub in_place: Option<IfaceId>,
    pub env: &'a Env,
    /// What the worker that carries the packet remembers; `None` where no worker does.
    pub(crate) sysctls: Option<&'a Sysctls>,
    pub(crate) stations: Option<&'a mut bridge::Memory>,
    /// Bridge mode: behind which port the receiver is, if the worker knew.
    pub(crate) receiver: Option<IfaceId>,
    pub emissions: &'a mut Vec<Emission>,
    pub rec: &'a mut R,
}

impl<'a, R: Recorder> Context<'a, R> {
    pub fn new(
        now: Instant,
        in_iface: Option<IfaceId>,
        worker: usize,
        env: &'a Env,
        emissions: &'a mut Vec<Emission>,
        rec: &'a mut R,
    ) -> Self {
        Self {
            now,
            in_iface,
            out_iface: None,
            next_hop: None,
            ct: Tracked::none(),
            template: Template::default(),
            mark: 0,
            worker,
            is_answer: false,
            is_rules_reset: false,
            traced: false,
            pieces: None,
            options: None,
            in_place: None,
            env,
            sysctls: None,
            stations: None,
            receiver: None,
            emissions,
            rec,
        }
    }

    /// Sends a frame that is not the one that came in: an answer, a copy, a fragment.
    pub fn emit(&mut self, iface: IfaceId, kind: EmissionKind, frame: Vec<u8>, offload: Offload) {
        self.emissions.push(Emission { iface, kind, frame, offload });
    }

    /// Sends a copy of the packet as it stands.
    pub fn emit_copy(&mut self, iface: IfaceId, pkt: &Packet) {
        self.emit(iface, EmissionKind::Copy, pkt.frame().to_vec(), pkt.offload());
    }
}

//! What a router is made from, checked: the lab file's `router:` part after resolution.

#![forbid(unsafe_code)]

use crate::base::iface::{Iface, IfaceId};
use crate::packet::{Addr, Family, Mac, Prefix};

pub use crate::neighbour::NeighbourPolicy;

/// Everything that [`crate::router::Router::new`] needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterConfig {
    /// Whether the interfaces are one network or several.
    pub mode: Mode,
    /// At most [`crate::base::iface::MAX_IFACES`], each with a name of its own; an [`IfaceId`] is a place in this list.
    pub ifaces: Vec<Iface>,
    /// Route mode: what is reached through others, beside the networks of the interfaces' own addresses.
    pub routes: Vec<RouteConfig>,
    /// Route mode: link addresses that are known without asking.
    pub neighbours: Vec<NeighbourConfig>,
    /// Where other link addresses come from.
    pub neighbour_policy: NeighbourPolicy,
    /// Helpers assigned as by `-j CT --helper` on their usual port, by name (`ftp`, `tftp`).
    pub helpers: Vec<String>,
    /// `nf_conntrack_*`, `rp_filter`, … by the kernel's own names, in the order of the file.
    pub sysctl: Vec<(String, String)>,
    /// iptables-save text. `None`: no rules, so every chain's policy is ACCEPT.
    pub rules: Option<String>,
    /// IPv4 has no rules on purpose.
    pub no_rules: bool,
    /// ip6tables-save text. `None`: IPv6 is dropped.
    pub rules6: Option<String>,
    /// IPv6 has no rules on purpose.
    pub no_rules6: bool,
    /// Seeds the hash of the connection table: unpredictable where strangers choose the addresses, fixed where a run
    /// must repeat.
    pub seed: u64,
    /// When [`crate::base::time::Instant::ZERO`] was, in nanoseconds since 1970: what `-m time` counts from.
    pub unix_epoch_nanos: u64,
    /// Bridge mode: frames that are neither IP nor ARP pass.
    pub pass_non_ip: bool,
    /// Route mode: UDP ports where a program of whoever drives the router listens, on all of the router's addresses. Datagrams
    /// for them are delivered, and not refused; see [`crate::router::Router::originate`].
    pub udp_listeners: Vec<u16>,
}

impl RouterConfig {
    /// A bridge between these interfaces, without rules: set the fields that are to be different.
    pub fn new(ifaces: Vec<Iface>) -> Self {
        Self { ifaces, ..Self::default() }
    }

    /// The same with rules for IPv4 and IPv6, as iptables-save and ip6tables-save print them.
    #[must_use]
    pub fn with_rules(self, rules: impl Into<String>, rules6: impl Into<String>) -> Self {
        Self { rules: Some(rules.into()), rules6: Some(rules6.into()), ..self }
    }
}

/// How the interfaces belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All ports are one segment.
    #[default]
    Bridge,
    /// Each port is an IP network of its own.
    Route,
}

/// A route to a network that is not an interface's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Which destinations it is for; of several routes the one with the longest prefix is taken.
    pub to: Prefix,
    /// Where they are.
    pub target: RouteTarget,
}

/// What becomes of a packet that takes a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// Another router takes it.
    Via {
        /// That router's address.
        gateway: Addr,
        /// Where that router is.
        iface: IfaceId,
    },
    /// The destination itself is there.
    OnLink(IfaceId),
    /// Dropped without a word.
    Blackhole,
    /// The sender is told that the host is unreachable.
    Unreachable,
    /// The sender is told that it is administratively prohibited.
    Prohibit,
}

/// A neighbour that is known without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourConfig {
    /// Its address.
    pub addr: Addr,
    /// Which kind of address that is.
    pub family: Family,
    /// Its link address.
    pub mac: Mac,
    /// The interface behind which it is.
    pub iface: IfaceId,
}

/// `router.device`: which port is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// Fast, or tap where fast is not to be had.
    #[default]
    Auto,
    /// A TAP through io_uring; an error where that is not to be had.
    Fast,
    /// A TAP that is read and written frame by frame.
    Tap,
}

/// `router.busy_poll`: whether a worker that has nothing to do stays awake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusyPoll {
    /// It sleeps until the next frame.
    #[default]
    Never,
    /// For a moment after the last frame, while there is so little traffic that somebody may be waiting for an answer.
    Adaptive,
    /// It takes a whole CPU, and forwards a lone frame in a third of the time.
    Always,
}

/// How the router is to be run, beside what it decides: nothing here changes a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Which kind of port is opened.
    pub device: DeviceChoice,
    /// Whether workers stay awake.
    pub busy_poll: BusyPoll,
}

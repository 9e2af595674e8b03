//! Everything that can become of a packet.
//!
//! Packets do not fail: they meet a [`Fate`]. Every drop has a reason, and every reason a counter, a stable word in
//! the output, and a test that meets it.

#![forbid(unsafe_code)]

use super::{RejectWith, RuleId};
use core::fmt;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

/// A stage of the pipeline: go on with a value, or leave the way early because the packet met its fate.
pub type Stage<T> = ControlFlow<Fate, T>;

/// What became of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It left on at least one port.
    Forwarded,
    Dropped(DropReason),
    /// A rule refused it and the sender was told.
    Rejected(RejectWith, RuleId),
    /// It was for the router itself.
    Delivered,
    /// It waits: the router owns a copy.
    Queued(QueueReason),
}

impl Fate {
    /// The stable word for why it was dropped or waits; `None` where the fate says it all.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Dropped(reason) => Some(reason.code()),
            Self::Queued(reason) => Some(reason.code()),
            Self::Forwarded | Self::Rejected(..) | Self::Delivered => None,
        }
    }

    /// The word that listings and `replay` print.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Dropped(_) => "dropped",
            Self::Rejected(..) => "rejected",
            Self::Delivered => "delivered",
            Self::Queued(_) => "queued",
        }
    }
}

/// What a queued packet waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueReason {
    /// The other fragments of its datagram.
    Fragment,
    /// The link address of its next hop.
    Neighbour,
}

impl QueueReason {
    pub const fn code(self) -> &'static str {
        match self {
            Self::Fragment => "fragment-pending",
            Self::Neighbour => "neighbour-pending",
        }
    }
}

/// Declares the reasons without a payload, their stable words, and the list of all of them.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason {
            /// A rule with target DROP.
            Rule(RuleId),
            /// No rule decided: the policy of the chain did.
            Policy(RuleId),
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// The stable words, in the order of [`DropReason::index`].
            pub const CODES: &'static [&'static str] = &["rule", "policy", $($code,)*];

            /// Where this reason stands in a table of counters.
            pub const fn index(self) -> usize {
                #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
                enum Order { Rule, Policy, $($name,)* }
                match self {
                    Self::Rule(_) => Order::Rule as usize,
                    Self::Policy(_) => Order::Policy as usize,
                    $(Self::$name => Order::$name as usize,)*
                }
            }
        }
    };
}

drop_reasons! {
    // Link and IP input: before any hook.
    /// Shorter than an Ethernet header.
    FrameShort = "frame-short",
    /// Neither IP nor ARP, and `router.non_ip` does not let it pass.
    NotIp = "not-ip",
    /// An Ethernet frame for somebody else (route mode).
    OtherHost = "other-host",
    /// The packet is longer than what arrived.
    IpTruncated = "ip-truncated",
    /// A version, header length or total length that cannot be.
    IpHeader = "ip-header",
    IpChecksum = "ip-checksum",
    /// A source or destination that must not be on a wire: loopback, 0/8, 240/4, multicast as source.
    Martian = "martian",
    /// The source is an address of the router itself.
    OwnSource = "own-source",
    /// The way back to the source leads elsewhere (`rp_filter`).
    ReversePath = "rp-filter",
    /// An IPv4 source route (RFC 7126 §4.3).
    SourceRoute = "source-route",
    /// An IP option that cannot be parsed.
    IpOptions = "ip-options",
    /// An IPv6 option for every hop that a router must not pass on, or cannot read (RFC 8200 §4.2).
    HopByHop = "hop-by-hop",
    // Bridge.
    /// The destination is behind the port it came from.
    SamePort = "same-port",
    /// A reserved group address that bridges do not forward (IEEE 802.1D table 7-10).
    LinkLocalGroup = "link-local-group",
    // Fragments.
    /// Overlaps another fragment of its datagram: all of them go.
    FragmentOverlap = "fragment-overlap",
    FragmentDuplicate = "fragment-duplicate",
    /// A length or position that no fragment can have.
    FragmentBad = "fragment-bad",
    /// Fragments wait up to their bound in number or bytes.
    FragmentLimit = "fragment-limit",
    // Connection tracking.
    /// `nf_conntrack_max` is reached and nothing could be evicted.
    TableFull = "table-full",
    /// Another packet of this flow was confirmed first.
    ConfirmClash = "confirm-clash",
    /// A helper could not complete what the packet announces.
    Helper = "helper",
    /// A helper could not register what the packet announces.
    ExpectationClash = "expectation-clash",
    ExpectationLimit = "expectation-limit",
    // Filter.
    /// IPv6, but no IPv6 rules are loaded.
    NoIpv6Rules = "no-ipv6-rules",
    /// A match of a rule needs a header that is cut short; netfilter drops such a packet there.
    L4Truncated = "l4-truncated",
    /// A target that could not be carried out (TCPMSS, TTL) dropped it.
    Target = "target",
    // Routing.
    NoRoute = "no-route",
    Blackhole = "blackhole",
    Prohibited = "prohibited",
    TtlExceeded = "ttl-exceeded",
    /// Larger than the MTU of the way out, and must not be fragmented.
    TooBig = "too-big",
    /// Broadcast or multicast that the router does not forward.
    NotForwarded = "broadcast",
    /// Link-local addresses do not leave their link (RFC 4291 §2.5.6).
    LinkLocalScope = "link-local-scope",
    NeighbourFailed = "neighbour-failed",
    NeighbourQueueFull = "neighbour-queue-full",
    NeighbourTableFull = "neighbour-table-full",
    /// For the router itself, and nothing there takes it.
    NotForUs = "no-listener",
}

impl DropReason {
    pub const COUNT: usize = Self::CODES.len();

    /// A stable word for output and checks.
    pub const fn code(self) -> &'static str {
        Self::CODES[self.index()]
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// How often packets were dropped, by reason.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::COUNT])
    }
}

impl DropCounters {
    pub fn add(&self, reason: DropReason, n: u64) {
        self.0[reason.index()].fetch_add(n, Ordering::Relaxed);
    }

    /// In the order of [`DropReason::CODES`].
    pub fn all(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|n| n.load(Ordering::Relaxed))
    }
}

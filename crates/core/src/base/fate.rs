//! Everything that can become of a packet.
//!
//! Packets do not fail: they meet a [`Fate`]. Every drop has a reason, and every reason a counter, a stable word in
//! the output, and a test that meets it.

#![forbid(unsafe_code)]

use super::{InvalidReason, RejectWith, RuleId};
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
    /// It goes nowhere, for this reason.
    Dropped(DropReason),
    /// A rule refused it and the sender was told.
    Rejected(RejectWith, RuleId),
    /// It was for the router itself.
    Delivered,
    /// It waits: the router owns a copy.
    Queued(QueueReason),
}

impl Fate {
    /// Why it was not forwarded.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Forwarded => None,
            Self::Dropped(reason) => Some(Reason::Dropped(reason)),
            Self::Rejected(..) => Some(Reason::Rejected),
            Self::Delivered => Some(Reason::Local),
            Self::Queued(reason) => Some(Reason::Queued(reason)),
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
    /// The stable word for it in listings.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Fragment => "fragment-pending",
            Self::Neighbour => "neighbour-pending",
        }
    }

    /// Why, in a sentence about the packet.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Fragment => "it waits for the other fragments of its datagram",
            Self::Neighbour => "it waits for the link address of its next hop",
        }
    }
}

/// What there is to say of a packet beside the word for its fate: why it was not forwarded, or why it is INVALID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is INVALID, whatever became of it.
    Invalid(InvalidReason),
    /// It was dropped.
    Dropped(DropReason),
    /// It waits.
    Queued(QueueReason),
    /// A rule refused it.
    Rejected,
    /// It is for the router itself.
    Local,
}

impl Reason {
    /// A stable word for output and checks.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Invalid(reason) => reason.code(),
            Self::Dropped(reason) => reason.code(),
            Self::Queued(reason) => reason.code(),
            Self::Rejected => "rule",
            Self::Local => "local",
        }
    }

    /// The same in a sentence about the packet.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Invalid(reason) => reason.sentence(),
            Self::Dropped(reason) => reason.sentence(),
            Self::Queued(reason) => reason.sentence(),
            Self::Rejected => "a rule stopped it",
            Self::Local => "it is for the router itself",
        }
    }
}

/// Declares the reasons without a payload, their stable words, their sentences, and the lists of all of them.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal => $sentence:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum DropReason {
            /// A rule with target DROP.
            Rule(RuleId),
            /// No rule decided: the policy of the chain did.
            Policy(RuleId),
            $(#[doc = concat!("Dropped: ", $sentence, ".\n")] $(#[$doc])* $name,)*
        }

        impl DropReason {
            /// The stable words, in the order of [`DropReason::index`].
            pub const CODES: &'static [&'static str] = &["rule", "policy", $($code,)*];

            /// Why, each in a sentence about the packet, in the same order.
            pub const SENTENCES: &'static [&'static str] = &[
                "a rule stopped it",
                "no rule decided, and the policy of the chain stopped it",
                $($sentence,)*
            ];

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
    FrameShort = "frame-short" => "it is shorter than an Ethernet header",
    /// Neither IP nor ARP, and `router.non_ip` does not let it pass.
    NotIp = "not-ip" => "it is neither IP nor ARP",
    /// An Ethernet frame for somebody else (route mode).
    OtherHost = "other-host" => "its link address is somebody else's",
    /// The packet is longer than what arrived.
    IpTruncated = "ip-truncated" => "it is longer than what arrived",
    /// A version, header length or total length that cannot be.
    IpHeader = "ip-header" => "its IP header cannot be",
    IpChecksum = "ip-checksum" => "its IP header checksum is wrong",
    /// A source or destination that must not be on a wire: loopback, 0/8, 240/4, multicast as source.
    Martian = "martian" => "such an address must not be on a wire",
    /// The source is an address of the router itself.
    OwnSource = "own-source" => "its source is an address of the router itself",
    /// The way back to the source leads elsewhere (`rp_filter`).
    ReversePath = "rp-filter" => "the way back to its source leads elsewhere",
    /// An IPv4 source route (RFC 7126 §4.3).
    SourceRoute = "source-route" => "it carries a source route, which routers do not follow",
    /// An IP option that cannot be parsed.
    IpOptions = "ip-options" => "it carries an IP option that cannot be read",
    /// An IPv6 option for every hop that a router must not pass on, or cannot read (RFC 8200 §4.2).
    HopByHop = "hop-by-hop" => "it carries a hop-by-hop option that a router cannot read or must not pass on",
    // Bridge.
    /// The destination is behind the port it came from.
    SamePort = "same-port" => "its destination is behind the port it came from, or there is no other port",
    /// A reserved group address that bridges do not forward (IEEE 802.1D table 7-10).
    LinkLocalGroup = "link-local-group" => "it is for a group of this link, which no bridge forwards",
    // Fragments.
    /// Overlaps another fragment of its datagram: all of them go.
    FragmentOverlap = "fragment-overlap" => "it overlaps another fragment of its datagram, and so all of them are dropped",
    FragmentDuplicate = "fragment-duplicate" => "the same fragment has come before",
    /// A length or position that no fragment can have.
    FragmentBad = "fragment-bad" => "no fragment can have such a length or position",
    /// Fragments wait up to their bound in number or bytes.
    FragmentLimit = "fragment-limit" => "as many fragments wait as may wait",
    // Connection tracking.
    /// `nf_conntrack_max` is reached and nothing could be evicted.
    TableFull = "table-full" => "the connection table is full",
    /// Another packet of this flow was confirmed first, or no free tuple was found for it.
    ConfirmClash = "confirm-clash" => "another connection has one of its tuples: its flow's own, or no free port was found",
    // Translation.
    /// MASQUERADE or REDIRECT, and the router has no address.
    NatAddress = "nat-address" => "it is to be translated to an address of the router, which has none",
    /// Its header is too short to be rewritten.
    NatHeader = "nat-header" => "its header is too short to be translated",
    /// An ICMP error about a translated connection that cannot be rewritten: too little is quoted, or it is a redirect.
    NatError = "nat-error" => "it is an ICMP error that cannot be translated",
    /// A masqueraded connection would leave by another interface than it did; it has ended.
    NatEgress = "nat-egress" => "its connection has the address of the interface where it left before, and has ended",
    /// Every port that a helper tried is announced already.
    HelperPorts = "helper-ports" => "every port that its helper may announce is expected of another connection",
    /// A helper could not complete what the packet announces.
    Helper = "helper" => "its helper saw only a part of what it announces",
    /// A helper could not register what the packet announces.
    ExpectationClash = "expectation-clash" => "what it announces is expected of another connection",
    ExpectationLimit = "expectation-limit" => "as many connections are announced as may be",
    // Filter.
    /// IPv6, but no IPv6 rules are loaded.
    NoIpv6Rules = "no-ipv6-rules" => "no IPv6 rules are loaded, and without them IPv6 is dropped",
    /// A match of a rule needs a header that is cut short; netfilter drops such a packet there.
    L4Truncated = "l4-truncated" => "a match of a rule needs a header that is cut short",
    /// A target that could not be carried out (TCPMSS, TTL) dropped it.
    Target = "target" => "the target of a rule could not be carried out",
    // Bridging.
    /// A group's address, or zero, as the source of a frame.
    NoStation = "no-station" => "its source is a link address that no station has",
    // Routing.
    NoRoute = "no-route" => "no route leads there",
    Blackhole = "blackhole" => "its route is a blackhole, which drops without a word",
    Prohibited = "prohibited" => "its route prohibits it",
    TtlExceeded = "ttl-exceeded" => "it may pass no further router: its TTL is used up",
    /// Larger than the MTU of the way out, and must not be fragmented.
    TooBig = "too-big" => "it is larger than the MTU of the way out, and must not be cut",
    /// Broadcast or multicast that the router does not forward.
    NotForwarded = "broadcast" => "it is for everybody or for a group, and the router forwards neither",
    /// Link-local addresses do not leave their link (RFC 4291 §2.5.6).
    LinkLocalScope = "link-local-scope" => "its source is a link-local address, which does not leave its link",
    NeighbourFailed = "neighbour-failed" => "its next hop did not answer",
    NeighbourQueueFull = "neighbour-queue-full" => "as much waits for its next hop as may wait",
    NeighbourTableFull = "neighbour-table-full" => "the router remembers as many neighbours as it may",
    /// For the router itself, and nothing there takes it.
    NotForUs = "no-listener" => "it is for the router itself, and nothing there takes it",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::CODES.len();

    /// A stable word for output and checks.
    pub const fn code(self) -> &'static str {
        Self::CODES[self.index()]
    }

    /// Why, in a sentence about the packet.
    pub const fn sentence(self) -> &'static str {
        Self::SENTENCES[self.index()]
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
    /// Counts `n` packets more.
    pub fn add(&self, reason: DropReason, n: u64) {
        self.0[reason.index()].fetch_add(n, Ordering::Relaxed);
    }

    /// In the order of [`DropReason::CODES`].
    pub fn all(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|n| n.load(Ordering::Relaxed))
    }
}

//! Why a packet fits no connection.

#![forbid(unsafe_code)]

use core::fmt;

/// Declares the reasons, their stable words, and the list of all of them.
macro_rules! invalid_reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why tracking called a packet INVALID.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum InvalidReason {
            $($(#[$doc])* $name,)*
        }

        impl InvalidReason {
            /// Every reason, in the order of [`InvalidReason::CODES`].
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable words.
            pub const CODES: &'static [&'static str] = &[$($code,)*];
        }
    };
}

invalid_reasons! {
    // Any protocol.
    /// The upper-layer header is shorter than what tells one flow from another.
    Truncated = "truncated",
    /// IPv6 says that nothing follows.
    NoNextHeader = "no-next-header",
    /// The upper-layer checksum is wrong.
    Checksum = "checksum",
    // TCP: before the state machine, at the first packet, in the table, in the window.
    /// A data offset below five, or one that leaves the packet.
    TcpTruncated = "tcp-truncated",
    /// A combination of control bits that no stack sends.
    TcpFlags = "tcp-flags",
    /// The first packet of a flow opens none: SYN+ACK, FIN, RST.
    TcpNew = "tcp-new",
    /// A flow seen from its middle, and `nf_conntrack_tcp_loose` is off.
    TcpPickup = "tcp-pickup",
    /// The state table has no place for such a segment.
    TcpState = "tcp-state",
    /// A reset below what its receiver acknowledged (RFC 5961 §3).
    TcpRst = "tcp-rst",
    /// Data beyond what the receiver offered.
    TcpAboveWindow = "tcp-above-window",
    /// It acknowledges what was never sent.
    TcpAckUnseen = "tcp-ack-unseen",
    // UDP and UDP-Lite.
    /// A length field below eight or beyond the packet.
    UdpLength = "udp-length",
    /// A checksum coverage below eight or beyond the packet (RFC 3828 §3.1).
    UdpliteCoverage = "udplite-coverage",
    /// UDP-Lite without a checksum (RFC 3828 §3.1).
    UdpliteNoChecksum = "udplite-no-checksum",
    // GRE.
    /// Enhanced GRE that carries something else than PPP (RFC 2637 §4.1).
    GreProtocol = "gre-protocol",
    // ICMP and ICMPv6.
    /// ICMPv6 in IPv4, or ICMP in IPv6.
    IcmpFamily = "icmp-family",
    /// Shorter than eight bytes.
    IcmpTruncated = "icmp-truncated",
    /// A type that is neither a query, an answer nor an error.
    IcmpType = "icmp-type",
    /// An answer that nobody asked for.
    IcmpUnsolicited = "icmp-unsolicited",
    /// An error about a flow that is not known.
    IcmpOrphan = "icmp-orphan",
    /// An error whose quoted packet cannot be read, or is an error itself.
    IcmpQuote = "icmp-quote",
    /// An error that goes to somebody else than the sender of the quoted packet.
    IcmpAddressee = "icmp-addressee",
    /// An ICMPv6 redirect from beyond the link (RFC 4861 §8.1).
    IcmpRedirect = "icmp-redirect",
    // SCTP.
    /// Shorter than its common header or a chunk.
    SctpTruncated = "sctp-truncated",
    /// Chunks in a combination that RFC 9260 forbids.
    SctpChunks = "sctp-chunks",
    /// A verification tag that is not this association's (RFC 9260 §8.5).
    SctpTag = "sctp-tag",
    /// The first packet of an association opens none.
    SctpNew = "sctp-new",
    /// The state table has no place for such a chunk.
    SctpState = "sctp-state",
}

impl InvalidReason {
    pub const COUNT: usize = Self::CODES.len();

    /// Where this reason stands in a table of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Tracking gave up before it looked at the upper-layer checksum.
    pub const fn is_before_checksum(self) -> bool {
        matches!(
            self,
            Self::Truncated
                | Self::NoNextHeader
                | Self::TcpTruncated
                | Self::UdpLength
                | Self::UdpliteCoverage
                | Self::IcmpTruncated
        )
    }

    /// A stable word for output and checks.
    pub const fn code(self) -> &'static str {
        Self::CODES[self.index()]
    }
}

impl fmt::Display for InvalidReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

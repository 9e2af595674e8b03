//! Why a packet fits no connection.

#![forbid(unsafe_code)]

use core::fmt;

/// Declares the reasons, their stable words, their sentences, and the lists of all of them.
macro_rules! invalid_reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal => $sentence:literal,)*) => {
        /// Why tracking called a packet INVALID.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum InvalidReason {
            $($(#[$doc])* $name,)*
        }

        impl InvalidReason {
            /// Every reason, in the order of [`InvalidReason::CODES`].
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable words.
            pub const CODES: &'static [&'static str] = &[$($code,)*];

            /// Why, each in a sentence about the packet, in the same order.
            pub const SENTENCES: &'static [&'static str] = &[$($sentence,)*];
        }
    };
}

invalid_reasons! {
    // Any protocol.
    /// The upper-layer header is shorter than what tells one flow from another.
    Truncated = "truncated" => "its upper-layer header is cut short",
    /// IPv6 says that nothing follows.
    NoNextHeader = "no-next-header" => "IPv6 says that nothing follows",
    /// The upper-layer checksum is wrong.
    Checksum = "checksum" => "its upper-layer checksum is wrong",
    // TCP: before the state machine, at the first packet, in the table, in the window.
    /// A data offset below five, or one that leaves the packet.
    TcpTruncated = "tcp-truncated" => "its TCP header is cut short",
    /// A combination of control bits that no stack sends.
    TcpFlags = "tcp-flags" => "no stack sends such a combination of flags",
    /// The first packet of a flow opens none: SYN+ACK, FIN, RST.
    TcpNew = "tcp-new" => "it is the first of its flow, and neither a SYN nor an ACK: it opens nothing",
    /// A flow seen from its middle, and `nf_conntrack_tcp_loose` is off.
    TcpPickup = "tcp-pickup" => "its connection's beginning was not seen, and nf_conntrack_tcp_loose is off",
    /// The state table has no place for such a segment.
    TcpState = "tcp-state" => "the connection's state has no place for such a segment",
    /// A reset below what its receiver acknowledged (RFC 5961 §3).
    TcpRst = "tcp-rst" => "the reset lies below what its receiver has acknowledged",
    /// Data beyond what the receiver offered.
    TcpAboveWindow = "tcp-above-window" => "bound I failed: its data lies beyond what the receiver offered (SEQ is over upper bound)",
    /// It acknowledges what was never sent.
    TcpAckUnseen = "tcp-ack-unseen" => "bound III failed: it acknowledges what was never sent (ACK is over upper bound: ACKed data not seen yet)",
    // UDP and UDP-Lite.
    /// A length field below eight or beyond the packet.
    UdpLength = "udp-length" => "its length field does not fit the packet",
    /// A checksum coverage below eight or beyond the packet (RFC 3828 §3.1).
    UdpliteCoverage = "udplite-coverage" => "its checksum covers less than its header, or more than the packet",
    /// UDP-Lite without a checksum (RFC 3828 §3.1).
    UdpliteNoChecksum = "udplite-no-checksum" => "it is UDP-Lite and goes without a checksum",
    // GRE.
    /// Enhanced GRE that carries something else than PPP (RFC 2637 §4.1).
    GreProtocol = "gre-protocol" => "it is enhanced GRE and carries something else than PPP",
    // ICMP and ICMPv6.
    /// ICMPv6 in IPv4, or ICMP in IPv6.
    IcmpFamily = "icmp-family" => "it is ICMPv6 in IPv4, or ICMP in IPv6",
    /// Shorter than eight bytes.
    IcmpTruncated = "icmp-truncated" => "its ICMP message is shorter than eight bytes",
    /// A type that is neither a query, an answer nor an error.
    IcmpType = "icmp-type" => "an ICMP type that is neither a query, an answer nor an error",
    /// An answer that nobody asked for.
    IcmpUnsolicited = "icmp-unsolicited" => "an answer that nobody asked for",
    /// An error about a flow that is not known.
    IcmpOrphan = "icmp-orphan" => "an error about a flow that is not known",
    /// An error whose quoted packet cannot be read, or is an error itself.
    IcmpQuote = "icmp-quote" => "an error whose quoted packet cannot be read",
    /// An error that goes to somebody else than the sender of the quoted packet.
    IcmpAddressee = "icmp-addressee" => "an error that goes to somebody else than the sender of the quoted packet",
    /// An ICMPv6 redirect from beyond the link (RFC 4861 §8.1).
    IcmpRedirect = "icmp-redirect" => "an ICMPv6 redirect from beyond the link",
    // SCTP.
    /// Shorter than its common header or a chunk.
    SctpTruncated = "sctp-truncated" => "its SCTP header or a chunk is cut short",
    /// Chunks in a combination that RFC 9260 forbids.
    SctpChunks = "sctp-chunks" => "such chunks must not stand in one packet",
    /// A verification tag that is not this association's (RFC 9260 §8.5).
    SctpTag = "sctp-tag" => "the verification tag is not this association's",
    /// The first packet of an association opens none.
    SctpNew = "sctp-new" => "it is the first of its association, and opens none",
    /// The state table has no place for such a chunk.
    SctpState = "sctp-state" => "the association's state has no place for such a chunk",
}

impl InvalidReason {
    /// How many reasons there are.
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

    /// Why, in a sentence about the packet; for the window, with the numbers of its bounds (van Rooij, 2000).
    pub const fn sentence(self) -> &'static str {
        Self::SENTENCES[self.index()]
    }
}

impl fmt::Display for InvalidReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

//! Bytes ↔ meaning. The only place that names `smoltcp::wire`.
//!
//! A frame is parsed once, at the border: [`Packet::parse`] checks what the link and IP layers check (see
//! `docs/CONFORMANCE.md`), and from there on accessors cannot fail. A packet is edited in place; nothing here ever
//! turns a forwarded packet into a `Repr` and back, since a `Repr` forgets what it does not know.

#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod checksum;
#[doc(hidden)]
pub mod fragment;
mod frame;
#[doc(hidden)]
pub mod ipv4_options;
mod rewrite;
#[doc(hidden)]
pub mod segment;
#[doc(hidden)]
pub mod seq;
#[doc(hidden)]
pub mod summary;
pub mod tuple;

pub use crate::base::{Addr, Family, Mac, Offload, Prefix};
pub use frame::Frame;
pub use segment::{Segment, TcpFlags};
pub use seq::Seq;
pub use tuple::Tuple;

use crate::base::fate::DropReason;
use checksum::Sum;
use smoltcp::wire::{EthernetAddress, EthernetFrame, Ipv6Packet};

/// Bytes of an Ethernet II header; frames with VLAN tags are not IP to us.
pub const ETHERNET_LEN: usize = 14;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;

const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_FRAGMENT_LEN: usize = 8;
/// Of a fragment header, what tells where the fragment belongs.
const FRAGMENT_UP_TO_OFFSET: usize = 4;
const IPV6_AUTH: u8 = 51;
const IPV6_DESTINATION: u8 = 60;
/// "No next header", also where the chain of extension headers is cut short.
pub const NO_NEXT_HEADER: u8 = 59;

/// What a frame carries, as its `EtherType` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
    /// Neither IP nor ARP: its `EtherType`.
    Other(u16),
}

/// A checked IPv4 or IPv6 packet inside its Ethernet frame.
///
/// Invariant: the IP header is complete and, for IPv4, its checksum was right when it was parsed;
/// `ETHERNET_LEN <= l4 <= end <= frame.len()`.
#[derive(Debug)]
pub struct Packet<'a> {
    frame: &'a mut [u8],
    /// Where the L4 header begins, from the start of the frame.
    l4: usize,
    /// Where the packet ends: what lies behind is Ethernet padding.
    end: usize,
    /// The upper-layer protocol, behind IPv6 extension headers.
    proto: u8,
    family: Family,
    /// It is a fragment: where it belongs is read from its header when somebody asks. One that ends before its header
    /// says so is one as well, which belongs nowhere.
    is_fragment: bool,
    offload: Offload,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which datagram it is a part of.
    pub id: u32,
    /// Where these bytes belong in the whole payload.
    pub offset: usize,
    /// It is not the last.
    pub more: bool,
    /// IPv6: where the fragment header stands, from the start of the frame. IPv4: the IP header.
    pub header: usize,
}

impl Fragment {
    /// `None` for a whole packet.
    #[inline]
    fn of_ipv4(header: &[u8; 20]) -> Option<Self> {
        const MORE: u16 = 0x2000;
        const OFFSET: u16 = 0x1fff;
        let field = u16::from_be_bytes([header[6], header[7]]);
        (field & (MORE | OFFSET) != 0).then(|| Self {
            id: u32::from(u16::from_be_bytes([header[4], header[5]])),
            offset: usize::from(field & OFFSET) * 8,
            more: field & MORE != 0,
            header: ETHERNET_LEN,
        })
    }

    /// A later fragment carries no L4 header.
    pub const fn is_first(&self) -> bool {
        self.offset == 0
    }
}

/// What an Ethernet frame says that it carries; `None` if it is shorter than its header.
#[inline]
pub fn kind(frame: &[u8]) -> Option<Kind> {
    let &[.., high, low] = frame.first_chunk::<ETHERNET_LEN>()?;
    Some(match u16::from_be_bytes([high, low]) {
        ETHERTYPE_IPV4 => Kind::Ipv4,
        ETHERTYPE_IPV6 => Kind::Ipv6,
        ETHERTYPE_ARP => Kind::Arp,
        other => Kind::Other(other),
    })
}

/// Few packets are refused: as a cold call, this keeps their code out of the common path.
#[cold]
#[inline(never)]
fn refused<T>(reason: DropReason) -> Result<T, DropReason> {
    Err(reason)
}

impl<'a> Packet<'a> {
    /// Reads an Ethernet frame that carries IP.
    ///
    /// # Errors
    /// The reason for which Linux drops such a frame before any hook sees it; [`DropReason::NotIp`] if it carries
    /// something else.
    pub fn parse(frame: &'a mut [u8], offload: Offload) -> Result<Self, DropReason> {
        Self::parse_frame(Frame::new(frame).with_offload(offload))
    }

    /// Reads a packet once more that has passed [`Packet::parse`], after it was joined or put elsewhere.
    ///
    /// # Errors
    /// It carries no IP, or is no longer whole.
    pub(crate) fn parse_again(frame: Frame<'a>) -> Result<Self, DropReason> {
        match kind(frame.bytes()) {
            Some(Kind::Ipv6) => Self::read_ipv6(frame).map(|(pkt, _)| pkt),
            _ => Self::parse_frame(frame),
        }
    }

    pub(crate) fn parse_frame(frame: Frame<'a>) -> Result<Self, DropReason> {
        match kind(frame.bytes()) {
            Some(Kind::Ipv4) => Self::parse_ipv4(frame),
            Some(Kind::Ipv6) => Self::parse_ipv6(frame),
            Some(Kind::Arp | Kind::Other(_)) => Err(DropReason::NotIp),
            None => Err(DropReason::FrameShort),
        }
    }

    /// Reads a frame whose [`kind`] is [`Kind::Ipv4`].
    #[inline(always)]
    pub(crate) fn parse_ipv4(frame: Frame<'a>) -> Result<Self, DropReason> {
        let l3 = &frame.bytes()[ETHERNET_LEN..];
        let Some(fixed) = l3.first_chunk::<20>() else { return refused(DropReason::IpTruncated) };
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] >> 4 != 4 || header_len < 20 {
            return refused(DropReason::IpHeader);
        }
        let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if header_len > l3.len() || total_len > l3.len() {
            return refused(DropReason::IpTruncated);
        }
        if total_len < header_len {
            return refused(DropReason::IpHeader);
        }
        let sum = match header_len {
            20 => Sum::of_ipv4_header(fixed),
            _ => Sum::ZERO.bytes(&l3[..header_len]),
        };
        if !sum.is_all_ones() {
            return refused(DropReason::IpChecksum);
        }
        let is_fragment = Fragment::of_ipv4(fixed).is_some();
        let proto = fixed[9];
        let (l4, end) = (ETHERNET_LEN + header_len, ETHERNET_LEN + total_len);
        let (frame, _, offload) = frame.into_parts();
        Ok(Self { frame, l4, end, proto, family: Family::Ipv4, is_fragment, offload })
    }

    /// Reads a frame whose [`kind`] is [`Kind::Ipv6`].
    #[inline(never)]
    pub(crate) fn parse_ipv6(frame: Frame<'a>) -> Result<Self, DropReason> {
        let (mut pkt, end) = Self::read_ipv6(frame)?;
        // Refused where fragments are joined, and not here: Linux reads options for every hop before.
        pkt.is_fragment |= end == ChainEnd::InFragment && !pkt.has_no_length();
        Ok(pkt)
    }

    /// The packet, and where its extension headers end.
    fn read_ipv6(frame: Frame<'a>) -> Result<(Self, ChainEnd), DropReason> {
        let bytes = frame.bytes();
        let l3 = &bytes[ETHERNET_LEN..];
        if l3.len() < 40 {
            return Err(DropReason::IpTruncated);
        }
        let ip = Ipv6Packet::new_unchecked(l3);
        if ip.version() != 6 {
            return Err(DropReason::IpHeader);
        }
        let first = ip.next_header().into();
        let end = match usize::from(ip.payload_len()) {
            // An option for every hop might say the length (RFC 2675): Linux takes all that came.
            0 if first == IPV6_HOP_BY_HOP => bytes.len(),
            len => ETHERNET_LEN + 40 + len,
        };
        if end > bytes.len() {
            return Err(DropReason::IpTruncated);
        }
        let ExtensionChain { l4, proto, fragment, end: chain_end, .. } =
            ExtensionChain::walk(&bytes[..end], ETHERNET_LEN + 40, first);
        let is_fragment = fragment.is_some();
        let (frame, _, offload) = frame.into_parts();
        Ok((Self { frame, l4, end, proto, family: Family::Ipv6, is_fragment, offload }, chain_end))
    }

    /// IPv4 or IPv6.
    #[inline]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The upper-layer protocol; behind IPv6 extension headers; [`NO_NEXT_HEADER`] where there is none.
    #[inline]
    pub const fn proto(&self) -> u8 {
        self.proto
    }

    #[inline]
    pub(crate) const fn is_fragment(&self) -> bool {
        self.is_fragment
    }

    /// Where a piece belongs; of several fragment headers in IPv6, the first counts.
    #[inline]
    pub fn fragment(&self) -> Option<Fragment> {
        if self.is_fragment { self.read_fragment() } else { None }
    }

    #[cold]
    fn read_fragment(&self) -> Option<Fragment> {
        match self.family {
            Family::Ipv4 => Fragment::of_ipv4(self.l3().first_chunk()?),
            Family::Ipv6 => self.extension_chain().fragment,
        }
    }

    /// A later piece shows no upper-layer header. In IPv6 any of several fragment headers may say that it is one.
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        self.is_fragment && self.reads_as_later_fragment()
    }

    #[cold]
    fn reads_as_later_fragment(&self) -> bool {
        match self.family {
            Family::Ipv4 => self.read_fragment().is_some_and(|fragment| !fragment.is_first()),
            Family::Ipv6 => self.extension_chain().is_later,
        }
    }

    /// IPv6: the last of its fragment headers says anything at all, be it that more follows.
    pub(crate) fn is_told_to_be_a_piece(&self) -> bool {
        self.family == Family::Ipv6 && self.extension_chain().last_field != 0
    }

    fn extension_chain(&self) -> ExtensionChain {
        let first = Ipv6Packet::new_unchecked(self.l3()).next_header().into();
        ExtensionChain::walk(self.frame(), ETHERNET_LEN + 40, first)
    }

    /// IPv6: the header says that nothing follows it, as that of a jumbo payload does (RFC 2675 §3).
    pub(crate) fn has_no_length(&self) -> bool {
        self.family == Family::Ipv6 && self.frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6] == [0, 0]
    }

    /// What its sender's kernel left undone.
    #[inline]
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    /// Says what is left undone.
    pub const fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
    }

    /// The source address.
    #[inline]
    pub fn src(&self) -> Addr {
        match self.family {
            Family::Ipv4 => Addr::from_v4(self.bytes_at(ETHERNET_LEN + 12)),
            Family::Ipv6 => Addr::from_v6(self.bytes_at(ETHERNET_LEN + 8)),
        }
    }

    /// The destination address.
    #[inline]
    pub fn dst(&self) -> Addr {
        match self.family {
            Family::Ipv4 => Addr::from_v4(self.bytes_at(ETHERNET_LEN + 16)),
            Family::Ipv6 => Addr::from_v6(self.bytes_at(ETHERNET_LEN + 24)),
        }
    }

    /// TTL or hop limit.
    pub fn ttl(&self) -> u8 {
        match self.family {
            Family::Ipv4 => self.frame[ETHERNET_LEN + 8],
            Family::Ipv6 => self.frame[ETHERNET_LEN + 7],
        }
    }

    /// Type of service or traffic class: DSCP and ECN.
    pub fn tos(&self) -> u8 {
        match self.family {
            Family::Ipv4 => self.frame[ETHERNET_LEN + 1],
            Family::Ipv6 => self.frame[ETHERNET_LEN] << 4 | self.frame[ETHERNET_LEN + 1] >> 4,
        }
    }

    /// The "don't fragment" bit of IPv4; IPv6 behaves as if it were set.
    pub fn dont_fragment(&self) -> bool {
        self.family == Family::Ipv6 || self.frame[ETHERNET_LEN + 6] & 0x40 != 0
    }

    /// IPv4 options, without the fixed header; empty for IPv6.
    pub fn ipv4_options(&self) -> &[u8] {
        match self.family {
            Family::Ipv4 => &self.frame[ETHERNET_LEN + 20..ETHERNET_LEN + self.ipv4_header_len()],
            Family::Ipv6 => &[],
        }
    }

    fn ipv4_header_len(&self) -> usize {
        usize::from(self.frame[ETHERNET_LEN] & 0x0f) * 4
    }

    /// The IP packet, from its header to its end, without padding.
    #[inline]
    pub fn l3(&self) -> &[u8] {
        &self.frame[ETHERNET_LEN..self.end]
    }

    /// Bytes of the IP packet: what Linux counts, also of one that stands for many.
    #[inline]
    pub const fn l3_len(&self) -> usize {
        self.end - ETHERNET_LEN
    }

    /// [`Packet::l3`], to change.
    pub fn l3_mut(&mut self) -> &mut [u8] {
        &mut self.frame[ETHERNET_LEN..self.end]
    }

    /// From the upper-layer header to the end of the packet.
    #[inline]
    pub fn l4(&self) -> &[u8] {
        &self.frame[self.l4..self.end]
    }

    /// [`Packet::l4`], to change.
    pub fn l4_mut(&mut self) -> &mut [u8] {
        &mut self.frame[self.l4..self.end]
    }

    /// Bytes of the IP header with its options or extension headers.
    pub const fn l3_header_len(&self) -> usize {
        self.l4 - ETHERNET_LEN
    }

    /// The frame without Ethernet padding, as it goes out.
    #[inline]
    pub fn frame(&self) -> &[u8] {
        &self.frame[..self.end]
    }

    /// Bytes of the frame without Ethernet padding.
    #[inline]
    pub const fn frame_len(&self) -> usize {
        self.end
    }

    /// Bytes behind the packet into which it may grow.
    pub(crate) fn room(&self) -> usize {
        self.frame.len() - self.end
    }

    /// Takes so many of the bytes behind the packet into it.
    fn lengthen(&mut self, bytes: usize) {
        self.end += bytes;
        debug_assert!(self.end <= self.frame.len(), "there is room");
    }

    /// Leaves so many bytes at its end to the room behind it.
    fn shorten(&mut self, bytes: usize) {
        self.end -= bytes;
    }

    /// [`Packet::frame`], to change.
    pub fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.frame[..self.end]
    }

    /// The sender's link address.
    #[inline]
    pub fn src_mac(&self) -> Mac {
        Mac(self.bytes_at(6))
    }

    /// The receiver's link address.
    #[inline]
    pub fn dst_mac(&self) -> Mac {
        Mac(self.bytes_at(0))
    }

    /// Receiver and sender, as they stand at the head of the frame.
    #[inline]
    pub fn macs(&self) -> &[u8; 12] {
        self.frame.first_chunk().expect("a packet stands behind its Ethernet header")
    }

    /// Writes both link addresses.
    pub fn set_macs(&mut self, dst: Mac, src: Mac) {
        let mut ethernet = EthernetFrame::new_unchecked(&mut *self.frame);
        ethernet.set_dst_addr(EthernetAddress(dst.0));
        ethernet.set_src_addr(EthernetAddress(src.0));
    }

    /// Source and destination port of a protocol that has them; `None` for later fragments and short headers.
    #[inline]
    pub fn ports(&self) -> Option<(u16, u16)> {
        use tuple::{PROTO_DCCP, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
        if !matches!(self.proto, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP | PROTO_DCCP) {
            return None;
        }
        if self.is_later_fragment() {
            return None;
        }
        let &[a, b, c, d] = self.l4().first_chunk()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    #[inline]
    pub(super) fn bytes_at<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.frame[at..at + N]);
        bytes
    }
}

/// Where the upper layer begins behind the IPv6 extension headers at `start` of a packet that an error quotes, and what
/// it is; `None` if the packet was a later fragment and shows none.
pub fn skip_extensions(bytes: &[u8], start: usize, first: u8) -> Option<(usize, u8)> {
    let ExtensionChain { l4, proto, is_later, .. } = ExtensionChain::walk(bytes, start, first);
    (!is_later).then_some((l4, proto))
}

/// The IPv6 extension headers in front of the upper layer.
struct ExtensionChain {
    l4: usize,
    proto: u8,
    /// The first fragment header.
    fragment: Option<Fragment>,
    /// A fragment header, the first or another, says that what follows belongs behind something else.
    is_later: bool,
    /// Offset and flags in the last fragment header; 0 without one.
    last_field: u16,
    end: ChainEnd,
}

/// Where a chain of extension headers ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChainEnd {
    /// At the upper layer, or where nothing is said to follow.
    Whole,
    /// Before a header that was announced says what follows it.
    Cut,
    /// Before the offset in the first fragment header, which stands where the headers in front of it end.
    InFragment,
}

impl ExtensionChain {
    /// Skips the headers that Linux's tracker skips: hop-by-hop, routing, destination options, authentication,
    /// and fragment headers, behind which a later fragment has nothing more to show. Of a fragment header Linux asks
    /// for no more than its offset, which is its first four bytes.
    fn walk(packet: &[u8], start: usize, first: u8) -> Self {
        let mut chain = Self {
            l4: start,
            proto: first,
            fragment: None,
            is_later: false,
            last_field: 0,
            end: ChainEnd::Whole,
        };
        let mut is_inside = true;
        while let IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_FRAGMENT | IPV6_AUTH | IPV6_DESTINATION = chain.proto
        {
            let is_first_fragment = chain.proto == IPV6_FRAGMENT && chain.fragment.is_none();
            let reaches_offset = packet.len().saturating_sub(chain.l4) >= FRAGMENT_UP_TO_OFFSET;
            let is_in_fragment = is_first_fragment && is_inside && !reaches_offset;
            let cut = if is_in_fragment { ChainEnd::InFragment } else { ChainEnd::Cut };
            let Some(&[next, len]) = packet.get(chain.l4..).and_then(|rest| rest.first_chunk()) else {
                (chain.proto, chain.end) = (NO_NEXT_HEADER, cut);
                return chain;
            };
            let header_len = match chain.proto {
                IPV6_FRAGMENT => IPV6_FRAGMENT_LEN,
                IPV6_AUTH => (usize::from(len) + 2) * 4,
                _ => (usize::from(len) + 1) * 8,
            };
            if chain.proto == IPV6_FRAGMENT {
                if !reaches_offset {
                    (chain.l4, chain.proto, chain.end) = (packet.len(), NO_NEXT_HEADER, cut);
                    return chain;
                }
                chain.read_fragment(packet);
            }
            // Linux reads no more of the other headers than their length, so that a packet may end in the middle.
            is_inside = chain.l4 + header_len <= packet.len();
            chain.l4 = packet.len().min(chain.l4 + header_len);
            chain.proto = next;
            if chain.is_later {
                return chain;
            }
        }
        chain
    }

    /// An atomic fragment (RFC 6946: offset zero, nothing more) is one, and completes itself.
    fn read_fragment(&mut self, packet: &[u8]) {
        let header = &packet[self.l4..];
        let offset_and_flags = u16::from_be_bytes([header[2], header[3]]);
        let (offset, more) = (usize::from(offset_and_flags & !7), offset_and_flags & 1 == 1);
        let id = header[4..].first_chunk().map_or(0, |id| u32::from_be_bytes(*id));
        (self.is_later, self.last_field) = (offset != 0, offset_and_flags);
        self.fragment.get_or_insert(Fragment { id, offset, more, header: self.l4 });
    }
}

//! The Internet checksum: verified where packets come in, filled in where the router writes one, and adjusted where
//! it edits one (RFC 1071, RFC 1624).

#![forbid(unsafe_code)]

use super::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
use super::{Addr, ETHERNET_LEN, Family, Offload, Packet};

/// A ones' complement sum that is being built. Order does not matter to it, only that words begin at even places.
///
/// Words are added with their low byte first, which such a sum does not mind (RFC 1071 §2 (B)), eight bytes at a time;
/// a carry may be added to the next word, or wait for the end, where it comes round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    low: u64,
    carries: u64,
}

impl Sum {
    pub const ZERO: Self = Self { low: 0, carries: 0 };

    /// Adds bytes that begin at an even place; an odd one at the end counts as if a zero followed.
    #[must_use]
    #[inline(never)]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.bytes_here(bytes)
    }

    /// The same without a call, for those whose time is most packets' time.
    #[inline(always)]
    fn bytes_here(self, bytes: &[u8]) -> Self {
        let mut sum = self;
        let (blocks, mut rest) = bytes.as_chunks::<64>();
        for block in blocks {
            sum = sum.eights(block);
        }
        if let Some((block, behind)) = rest.split_first_chunk::<32>() {
            (sum, rest) = (sum.eights(block), behind);
        }
        if let Some((block, behind)) = rest.split_first_chunk::<16>() {
            (sum, rest) = (sum.eights(block), behind);
        }
        if let Some((block, behind)) = rest.split_first_chunk::<8>() {
            (sum, rest) = (sum.eights(block), behind);
        }
        if rest.is_empty() { sum } else { sum.eight(last_bytes(bytes, rest)) }
    }

    /// Adds words of eight bytes, each with the carry of the one before: one instruction a word.
    #[inline]
    fn eights<const N: usize>(self, bytes: &[u8; N]) -> Self {
        let Self { mut low, carries } = self;
        let mut carry = false;
        for eight in bytes.as_chunks::<8>().0 {
            (low, carry) = low.carrying_add(u64::from_le_bytes(*eight), carry);
        }
        Self { low, carries: carries + u64::from(carry) }
    }

    #[inline]
    const fn eight(self, eight: u64) -> Self {
        let (low, carry) = self.low.overflowing_add(eight);
        Self { low, carries: self.carries + carry as u64 }
    }

    #[must_use]
    #[inline]
    pub const fn word(self, word: u16) -> Self {
        self.eight(word.swap_bytes() as u64)
    }

    /// What stands in front of the upper layer's header in thought only (RFC 9293 §3.1, RFC 8200 §8.1).
    #[must_use]
    pub fn pseudo_header(src: Addr, dst: Addr, family: Family, proto: u8, len: usize) -> Self {
        Self::ZERO.bytes(src.bytes(family)).bytes(dst.bytes(family)).beside_addresses(proto, len)
    }

    #[inline]
    const fn beside_addresses(self, proto: u8, len: usize) -> Self {
        // The length in 32 bits, and the protocol behind a zero: as they stand, read with the low byte first.
        self.eight((len as u32).swap_bytes() as u64 + ((proto as u64) << 8))
    }

    /// The sum of an IPv4 header without options.
    #[inline]
    pub(super) fn of_ipv4_header(header: &[u8; 20]) -> Self {
        let &[begin @ .., a, b, c, d] = header;
        Self::ZERO.eights::<16>(&begin).eight(u32::from_le_bytes([a, b, c, d]).into())
    }

    /// The sum in 16 bits, not complemented: all ones where a checksum is in it and right.
    #[inline]
    pub const fn folded(self) -> u16 {
        fold(self.in_64_bits()).swap_bytes()
    }

    /// Whether the sum in 16 bits is all ones: a multiple of that, and not zero.
    ///
    /// A number is a multiple of an odd one if its product with the inverse of that (modulo 2^64) is as small as a quotient
    /// can be (Granlund and Montgomery, 1994, §9).
    #[inline]
    pub const fn is_all_ones(self) -> bool {
        const ALL_ONES: u64 = 0xffff;
        const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
        const { assert!(ALL_ONES.wrapping_mul(INVERSE) == 1) };
        let quotient = self.in_64_bits().wrapping_mul(INVERSE);
        quotient.wrapping_sub(1) < u64::MAX / ALL_ONES
    }

    #[inline]
    const fn in_64_bits(self) -> u64 {
        let (sum, carry) = self.low.overflowing_add(self.carries);
        sum + carry as u64
    }

    /// What goes into the checksum field.
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// `rest`, less than eight bytes at the end of `bytes`, in one word with zeros behind them.
#[inline]
fn last_bytes(bytes: &[u8], rest: &[u8]) -> u64 {
    match bytes.last_chunk::<8>() {
        // The same bytes and some before them, which are shifted out: one load instead of one for each size.
        Some(last) => u64::from_le_bytes(*last) >> (64 - 8 * rest.len()),
        None => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// Adds the carries: from 64 bits to 32 and to 16. A number and itself with its halves swapped have the halves' sum in
/// the upper one, and the carry of the lower one is the one that comes round.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum after one 16-bit word under it changed (RFC 1624 §3, equation 3).
#[must_use]
pub const fn adjust(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// The same for a run of bytes that begins at an even place.
///
/// # Panics
/// If the lengths differ or are odd.
#[must_use]
pub fn adjust_bytes(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    assert_eq!(old.len(), new.len(), "a run keeps its length");
    assert!(old.len().is_multiple_of(2), "a run is made of whole words");
    let (old, new) = (Sum::ZERO.bytes(old).folded(), Sum::ZERO.bytes(new).folded());
    adjust(checksum, old, new)
}

/// Where the checksum of an upper-layer protocol stands in its header, if it has one that we know.
#[inline]
pub(super) const fn checksum_offset(family: Family, proto: u8) -> Option<usize> {
    match (family, proto) {
        (_, PROTO_TCP) => Some(16),
        (_, PROTO_UDP | PROTO_UDPLITE) => Some(6),
        (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6) => Some(2),
        _ => None,
    }
}

/// ICMP alone is summed without the addresses.
#[inline]
pub(super) const fn has_pseudo_header(family: Family, proto: u8) -> bool {
    !matches!((family, proto), (Family::Ipv4, PROTO_ICMP))
}

impl Packet<'_> {
    /// Whether the upper-layer checksum is right, as far as the kernel's tracker looks.
    ///
    /// True for protocols without a checksum that we know, for UDP that carries none (in IPv6 too, although RFC 8200
    /// §8.1 asks for one), and for later fragments, which do not carry it. Partial checksums are not
    /// looked into: ask [`Offload::skips_checksum`] first.
    pub fn l4_checksum_ok(&self) -> bool {
        let l4 = self.l4();
        let (family, proto) = (self.family(), self.proto());
        if self.is_later_fragment() {
            return true;
        }
        let Some(at) = checksum_offset(family, proto) else { return true };
        let Some(&field) = l4.get(at..).and_then(|rest| rest.first_chunk::<2>()) else { return false };
        // UDP: zero means unchecked. UDP-Lite has no such exception (RFC 3828 §3.1), which its tracker sees to.
        if proto == PROTO_UDP && field == [0, 0] {
            return true;
        }
        self.adds_up()
    }

    /// The same for a packet that is known to have a checksum.
    #[inline(never)]
    pub(crate) fn adds_up(&self) -> bool {
        self.l4_sum().is_all_ones()
    }

    /// The sum over the upper layer, its checksum field included.
    #[inline(always)]
    fn l4_sum(&self) -> Sum {
        let l4 = self.l4();
        let covered = if self.proto() == PROTO_UDPLITE { udplite_covered(l4) } else { l4 };
        self.pseudo_sum().bytes_here(covered)
    }

    /// The sum over the pseudo-header, which a partial checksum stands for.
    #[inline(always)]
    fn pseudo_sum(&self) -> Sum {
        if !has_pseudo_header(self.family(), self.proto()) {
            return Sum::ZERO;
        }
        // Source and destination stand one behind the other.
        let addresses = match self.family() {
            Family::Ipv4 => Sum::ZERO.eights::<8>(&self.bytes_at(ETHERNET_LEN + 12)),
            Family::Ipv6 => Sum::ZERO.eights::<32>(&self.bytes_at(ETHERNET_LEN + 8)),
        };
        addresses.beside_addresses(self.proto(), self.l4().len())
    }

    /// Writes the upper-layer checksum anew; nothing happens to a protocol without one, or a header too short.
    pub fn fill_l4_checksum(&mut self) {
        let proto = self.proto();
        let Some(at) = checksum_offset(self.family(), proto) else { return };
        if self.l4().len() < at + 2 || self.fragment().is_some() {
            return;
        }
        self.l4_mut()[at..at + 2].fill(0);
        let mut checksum = self.l4_sum().checksum();
        // Zero would mean "none" (RFC 768).
        if checksum == 0 && matches!(proto, PROTO_UDP | PROTO_UDPLITE) {
            checksum = 0xffff;
        }
        self.l4_mut()[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Finishes a partial checksum, so that the frame stands on its own.
    ///
    /// Nothing happens to one that is complete, and to one whose place is outside the packet.
    pub fn finish_checksum(&mut self) {
        let offload = self.offload();
        if !offload.needs_checksum() {
            return;
        }
        let (start, at) = (
            usize::from(offload.csum_start),
            usize::from(offload.csum_start) + usize::from(offload.csum_offset),
        );
        let end = self.frame_len();
        if start < ETHERNET_LEN || at + 2 > end {
            return;
        }
        let frame = self.frame_mut();
        let mut checksum = Sum::ZERO.bytes(&frame[start..]).checksum();
        if checksum == 0 {
            checksum = 0xffff;
        }
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let flags = offload.flags & !Offload::NEEDS_CSUM;
        self.set_offload(Offload { flags, csum_start: 0, csum_offset: 0, ..offload });
    }
}

/// What UDP-Lite's checksum covers: the length field says so, and zero means all (RFC 3828 §3.1).
fn udplite_covered(l4: &[u8]) -> &[u8] {
    let coverage = l4.get(4..6).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    match coverage {
        0 => l4,
        n => l4.get(..n).unwrap_or(l4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 §3: the worked example, and what its order and its odd end may not change.
    #[test]
    fn the_sum_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.bytes(&bytes).folded(), 0xddf2);
        for cut in [2, 4, 6] {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(Sum::ZERO.bytes(b).bytes(a).folded(), 0xddf2, "cut at {cut}");
        }
        assert_eq!(Sum::ZERO.bytes(&[1]).folded(), 0x0100, "an odd byte is the high one");
        assert_eq!(Sum::ZERO.bytes(&vec![0xff; 65_534]).folded(), 0xffff);
    }

    /// RFC 1624 §4: the case in which the older equation gives 0xffff.
    /// Word by word, the carry brought round at each (RFC 1071 §4.1).
    fn plain_sum(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0, |sum: u16, word| {
            let word = u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    #[test]
    fn any_length_has_the_sum_of_its_words() {
        let counting: Vec<u8> = (0..400_u32).map(|n| (n * 89 + 7) as u8).collect();
        // All ones carry at every word.
        for bytes in [counting, vec![0xff; 400], vec![0; 400]] {
            for len in 0..=bytes.len() {
                let sum = Sum::ZERO.bytes(&bytes[..len]);
                assert_eq!(sum.folded(), plain_sum(&bytes[..len]), "{len} bytes");
                assert_eq!(sum.is_all_ones(), sum.folded() == 0xffff, "{len} bytes");
                let even = len / 4 * 2;
                let in_two = Sum::ZERO.bytes(&bytes[..even]).bytes(&bytes[even..len]);
                assert_eq!(in_two.folded(), sum.folded(), "{even} bytes and the rest of {len}");
            }
        }
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(adjust(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    fn frame(ip_proto: u8, l4: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(((20 + l4.len()) as u16).to_be_bytes());
        frame.extend([0, 1, 0, 0, 64, ip_proto, 0, 0, 192, 0, 2, 10, 198, 51, 100, 10]);
        let checksum = Sum::ZERO.bytes(&frame[14..34]).checksum().to_be_bytes();
        frame[24..26].copy_from_slice(&checksum);
        frame.extend(l4);
        frame
    }

    #[test]
    fn a_filled_in_checksum_is_right_and_a_flipped_bit_is_seen() {
        let udp = [0x13, 0x88, 0, 53, 0, 9, 0, 0, 0x71];
        let udplite = [0x13, 0x88, 0, 53, 0, 8, 0, 0, 0x71];
        let echo = [8, 0, 0, 0, 0, 7, 0, 1, 0xaa];
        let tcp = [0, 80, 1, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0, 7];
        let cases: [(&str, u8, &[u8]); 4] = [
            ("udp", PROTO_UDP, &udp),
            ("udplite", PROTO_UDPLITE, &udplite),
            ("icmp", PROTO_ICMP, &echo),
            ("tcp", PROTO_TCP, &tcp),
        ];
        for (name, proto, l4) in cases {
            let mut bytes = frame(proto, l4);
            let mut pkt = Packet::parse(&mut bytes, Offload::NONE).unwrap();
            pkt.fill_l4_checksum();
            assert!(pkt.l4_checksum_ok(), "{name}");
            let last = l4.len() - 1;
            pkt.l4_mut()[last] ^= 1;
            assert_eq!(
                pkt.l4_checksum_ok(),
                name == "udplite",
                "{name}: only UDP-Lite leaves its data uncovered"
            );
            pkt.l4_mut()[1] ^= 1;
            assert!(!pkt.l4_checksum_ok(), "{name}: the header is covered in any case");
        }
    }

    #[test]
    fn udp_may_go_unchecked_and_udplite_may_not() {
        let l4 = [0x13, 0x88, 0, 53, 0, 9, 0, 0, 0x71];
        for (proto, ok) in [(PROTO_UDP, true), (PROTO_UDPLITE, false)] {
            let mut bytes = frame(proto, &l4);
            assert_eq!(Packet::parse(&mut bytes, Offload::NONE).unwrap().l4_checksum_ok(), ok);
        }
    }

    #[test]
    fn a_finished_checksum_is_right() {
        let mut bytes = frame(PROTO_UDP, &[0x13, 0x88, 0, 53, 0, 9, 0, 0, 0x71]);
        let partial = Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..Offload::NONE };
        let mut pkt = Packet::parse(&mut bytes, partial).unwrap();
        let pseudo = pkt.pseudo_sum().folded().to_be_bytes();
        pkt.l4_mut()[6..8].copy_from_slice(&pseudo);
        pkt.finish_checksum();
        assert!(pkt.l4_checksum_ok() && !pkt.offload().needs_checksum());

        let outside = Offload { csum_start: 40, csum_offset: 6, ..partial };
        pkt.set_offload(outside);
        pkt.finish_checksum();
        assert!(pkt.offload().needs_checksum(), "left alone");
    }
}

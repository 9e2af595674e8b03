//! Edits in place: TTL, DSCP, addresses, ports. Checksums follow by RFC 1624, without a look at the rest.
//!
//! A checksum that was wrong stays wrong: the receiver shall notice what the sender got wrong. A partial one, which
//! holds the sum of the pseudo-header alone, follows the pseudo-header alone.

#![forbid(unsafe_code)]

use super::checksum::{Sum, adjust, adjust_bytes, checksum_offset, has_pseudo_header};
use super::tuple::{PROTO_UDP, PROTO_UDPLITE};
use super::{Addr, ETHERNET_LEN, Family, Packet};
use core::ops::Range;

const IPV6_HEADER_LEN: usize = 40;
const IPV4_CHECKSUM: usize = ETHERNET_LEN + 10;

impl Packet<'_> {
    /// Takes one from the TTL or hop limit, and says what is left.
    ///
    /// # Panics
    /// If it is zero already.
    pub fn decrement_ttl(&mut self) -> u8 {
        let ttl = self.ttl();
        assert!(ttl > 0, "a packet without life is not forwarded");
        self.set_ttl(ttl - 1);
        ttl - 1
    }

    /// Sets the TTL or hop limit.
    pub fn set_ttl(&mut self, ttl: u8) {
        match self.family() {
            // It shares its word with the protocol.
            Family::Ipv4 => {
                let proto = self.frame_mut()[ETHERNET_LEN + 9];
                self.edit_ipv4(ETHERNET_LEN + 8, [ttl, proto]);
            }
            Family::Ipv6 => self.frame_mut()[ETHERNET_LEN + 7] = ttl,
        }
    }

    /// Sets type of service or traffic class: DSCP and ECN.
    pub fn set_tos(&mut self, tos: u8) {
        let (first, second) = (self.frame()[ETHERNET_LEN], self.frame()[ETHERNET_LEN + 1]);
        match self.family() {
            // It shares its word with version and header length.
            Family::Ipv4 => self.edit_ipv4(ETHERNET_LEN, [first, tos]),
            // It stands across two bytes, between the version and the flow label.
            Family::Ipv6 => {
                let bytes = [first & 0xf0 | tos >> 4, tos << 4 | second & 0x0f];
                self.frame_mut()[ETHERNET_LEN..ETHERNET_LEN + 2].copy_from_slice(&bytes);
            }
        }
    }

    /// Writes the source address, and corrects the checksums that it is in.
    pub fn set_src(&mut self, addr: Addr) {
        self.set_addr(addr, 12, 8);
    }

    /// Writes the destination address, and corrects the checksums that it is in.
    pub fn set_dst(&mut self, addr: Addr) {
        self.set_addr(addr, 16, 24);
    }

    /// Sets the source port of a protocol that has ports; nothing happens to others.
    pub fn set_src_port(&mut self, port: u16) {
        if self.ports().is_some() {
            self.edit_l4(0, &port.to_be_bytes());
        }
    }

    /// Sets the destination port of a protocol that has ports; nothing happens to others.
    pub fn set_dst_port(&mut self, port: u16) {
        if self.ports().is_some() {
            self.edit_l4(2, &port.to_be_bytes());
        }
    }

    /// Replaces bytes of the upper layer by as many others; the checksum follows. SCTP's is left as it is.
    ///
    /// # Panics
    /// If they reach beyond the packet.
    pub fn edit_l4(&mut self, at: usize, new: &[u8]) {
        let range = at..at + new.len();
        // What a partial checksum covers is summed later.
        if self.offload().needs_checksum() {
            self.l4_mut()[range].copy_from_slice(new);
            return;
        }
        // Words begin at even places: an odd edge takes its neighbour along.
        let whole = at & !1..(at + new.len()).next_multiple_of(2).min(self.l4().len());
        let sum = |pkt: &Self| Sum::ZERO.bytes(&pkt.l4()[whole.clone()]).folded();
        let old = sum(self);
        self.l4_mut()[range.clone()].copy_from_slice(new);
        let new = sum(self);
        self.follow(|checksum| adjust(checksum, old, new), &range);
    }

    /// Puts bytes into the upper layer, if the frame has room behind the packet for them; lengths and checksums follow.
    ///
    /// # Panics
    /// If the place or the number of bytes is odd, or the place lies beyond the packet.
    #[must_use]
    pub fn insert_l4(&mut self, at: usize, new: &[u8]) -> bool {
        assert!(at.is_multiple_of(2) && new.len().is_multiple_of(2), "checksums go by words");
        let old_len = self.l4().len();
        if !self.may_grow(new.len()) {
            return false;
        }
        self.lengthen(new.len());
        let l4 = self.l4_mut();
        l4.copy_within(at..old_len, at + new.len());
        l4[at..at + new.len()].copy_from_slice(new);

        let lens = (old_len as u16, (old_len + new.len()) as u16);
        if self.offload().needs_checksum() {
            self.follow(|sum| !adjust(!sum, lens.0, lens.1), &(0..0));
        } else {
            let none = vec![0; new.len()];
            self.follow(|checksum| adjust(adjust_bytes(checksum, &none, new), lens.0, lens.1), &(0..0));
        }
        self.set_l3_len();
        true
    }

    /// Replaces bytes of the upper layer by others, perhaps more or fewer; lengths follow, and the checksum is written
    /// anew. `false`: the frame has no room for them.
    ///
    /// # Panics
    /// If the place lies beyond the packet.
    #[must_use]
    pub fn replace_l4(&mut self, at: Range<usize>, new: &[u8]) -> bool {
        let old_len = self.l4().len();
        let new_len = old_len - at.len() + new.len();
        if new_len > old_len {
            if !self.may_grow(new_len - old_len) {
                return false;
            }
            self.lengthen(new_len - old_len);
        }
        let l4 = self.l4_mut();
        l4.copy_within(at.end..old_len, at.start + new.len());
        l4[at.start..at.start + new.len()].copy_from_slice(new);
        if new_len < old_len {
            self.shorten(old_len - new_len);
        }
        self.set_l3_len();
        if self.offload().needs_checksum() {
            self.follow(|sum| !adjust(!sum, old_len as u16, new_len as u16), &(0..0));
        } else {
            self.fill_l4_checksum();
        }
        true
    }

    /// Whether there is room behind the packet for so many bytes more, and its IP header can say how long it is then.
    fn may_grow(&self, by: usize) -> bool {
        by <= self.room() && u16::try_from(self.l3().len() + by).is_ok()
    }

    /// Writes the packet's length into its IP header.
    fn set_l3_len(&mut self) {
        let l3_len = self.l3().len();
        match self.family() {
            Family::Ipv4 => self.edit_ipv4(ETHERNET_LEN + 2, (l3_len as u16).to_be_bytes()),
            Family::Ipv6 => self.frame_mut()[ETHERNET_LEN + 4..ETHERNET_LEN + 6]
                .copy_from_slice(&((l3_len - IPV6_HEADER_LEN) as u16).to_be_bytes()),
        }
    }

    fn set_addr(&mut self, addr: Addr, at_v4: usize, at_v6: usize) {
        let family = self.family();
        let at = ETHERNET_LEN + if family == Family::Ipv4 { at_v4 } else { at_v6 };
        let len = addr.bytes(family).len();
        let old = Sum::ZERO.bytes(&self.frame()[at..at + len]).folded();
        let new = Sum::ZERO.bytes(addr.bytes(family)).folded();
        if has_pseudo_header(family, self.proto()) && !self.is_later_fragment() {
            if self.offload().needs_checksum() {
                // Not complemented: it is still a sum.
                self.follow(|sum| !adjust(!sum, old, new), &(0..0));
            } else {
                self.follow(|checksum| adjust(checksum, old, new), &(0..0));
            }
        }
        let frame = self.frame_mut();
        frame[at..at + len].copy_from_slice(addr.bytes(family));
        if family == Family::Ipv4 {
            let field = u16::from_be_bytes([frame[IPV4_CHECKSUM], frame[IPV4_CHECKSUM + 1]]);
            let checksum = adjust(field, old, new).to_be_bytes();
            frame[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum);
        }
    }

    /// Replaces one word of the IPv4 header.
    fn edit_ipv4(&mut self, at: usize, new: [u8; 2]) {
        let frame = self.frame_mut();
        let old = [frame[at], frame[at + 1]];
        let field = u16::from_be_bytes([frame[IPV4_CHECKSUM], frame[IPV4_CHECKSUM + 1]]);
        let checksum = adjust(field, u16::from_be_bytes(old), u16::from_be_bytes(new));
        frame[at..at + 2].copy_from_slice(&new);
        frame[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Changes the upper layer's checksum field, if there is one and it is in use.
    fn follow(&mut self, change: impl FnOnce(u16) -> u16, edited: &Range<usize>) {
        let proto = self.proto();
        let Some(at) = checksum_offset(self.family(), proto) else { return };
        let partial = self.offload().needs_checksum();
        let Some(field) = self.l4_mut().get_mut(at..at + 2) else { return };
        let old = u16::from_be_bytes([field[0], field[1]]);
        // Whoever writes the field itself knows what goes there; and zero means that UDP goes unchecked.
        if edited.contains(&at) || (proto == PROTO_UDP && old == 0 && !partial) {
            return;
        }
        let mut new = change(old);
        if new == 0 && matches!(proto, PROTO_UDP | PROTO_UDPLITE) && !partial {
            new = 0xffff;
        }
        field.copy_from_slice(&new.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Frame;

    #[test]
    fn a_packet_grows_up_to_what_its_header_can_say() {
        // Two bytes less than most, and most.
        for (total, grows) in [(65_533_u16, true), (65_534, false), (65_535, false)] {
            let len = ETHERNET_LEN + usize::from(total);
            let mut buf = vec![0; len + 64];
            buf[12..14].copy_from_slice(&[8, 0]);
            buf[14] = 0x45;
            buf[16..18].copy_from_slice(&total.to_be_bytes());
            buf[23] = 17;
            let sum = Sum::ZERO.bytes(&buf[14..34]).checksum();
            buf[24..26].copy_from_slice(&sum.to_be_bytes());
            let mut pkt = Packet::parse_frame(Frame::with_room(&mut buf, len)).unwrap();
            assert_eq!(pkt.replace_l4(8..8, b"xy"), grows, "{total}");
            assert!(!pkt.insert_l4(8, b"xy"), "{total}");
            let says = u16::from_be_bytes([pkt.l3()[2], pkt.l3()[3]]);
            assert_eq!(usize::from(says), pkt.l3().len(), "{total}");
        }
    }
}

//! The router as a host: what it answers to a packet that INPUT let through.

#![forbid(unsafe_code)]

use super::extension::{self, Upper};
use super::hop_by_hop::Flaw;
use super::send::{author, stamp};
use super::{Host, Passage};
use crate::base::EmissionKind;
use crate::base::fate::{DropReason, Fate};
use crate::base::iface::IfaceId;
use crate::icmp_reply::{self, IcmpError};
use crate::neighbour::message::{self, ADVERTISEMENT, Arp, Claim, Discovery, SOLICITATION};
use crate::neighbour::{Hearing, Key};
use crate::packet::checksum::Sum;
use crate::packet::segment::has_signature;
use crate::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
use crate::packet::{Addr, Family, Mac, NO_NEXT_HEADER, Offload, Packet, Segment};
use crate::record::Recorder;
use crate::route::{Route, is_link_local};

const PORT_UNREACHABLE: IcmpError = IcmpError::new(3, 3);
const PROTOCOL_UNREACHABLE: IcmpError = IcmpError::new(3, 2);
const PORT_UNREACHABLE_V6: IcmpError = IcmpError::new(1, 4);
/// Multicast routing and group membership: a Linux router listens to them, and so do we, without a word.
const PROTO_IGMP: u8 = 2;
const PROTO_PIM: u8 = 103;
const ECN: u8 = 0x03;

impl Host {
    /// Gives the packet to the router as a host. What nobody here takes, and deserves no answer, is dropped.
    pub(super) fn take_in<R: Recorder>(&self, pkt: &mut Packet, pass: &mut Passage<'_, R>) -> Fate {
        let taken = match pkt.family() {
            Family::Ipv4 => match pkt.proto() {
                PROTO_ICMP => self.take_icmp(pkt, pass),
                PROTO_TCP => self.refuse_tcp(pkt, pass),
                PROTO_UDP | PROTO_UDPLITE => self.take_udp(pkt, pass),
                PROTO_IGMP | PROTO_PIM => false,
                _ => self.send_error(pkt, PROTOCOL_UNREACHABLE, pass),
            },
            Family::Ipv6 => match extension::walk(pkt, pass.pieces.as_ref().map(|pieces| pieces.joined_at)) {
                Ok(upper) => self.take_upper_v6(upper, pkt, pass),
                Err(Flaw::Silent) => false,
                Err(Flaw::Told(error)) => {
                    let told = self.send_error(pkt, error, pass);
                    if pkt.fragment().is_some_and(|fragment| fragment.more) {
                        return Fate::Dropped(DropReason::FragmentBad);
                    }
                    told
                }
            },
        };
        if taken { Fate::Delivered } else { Fate::Dropped(DropReason::NotForUs) }
    }

    fn take_upper_v6<R: Recorder>(&self, upper: Upper, pkt: &Packet, pass: &mut Passage<'_, R>) -> bool {
        match upper.proto {
            PROTO_ICMPV6 if upper.is_found(pkt) => self.take_icmpv6(pkt, pass),
            PROTO_TCP if upper.is_found(pkt) => self.refuse_tcp(pkt, pass),
            PROTO_UDP | PROTO_UDPLITE if upper.is_found(pkt) => self.take_udp(pkt, pass),
            // Linux reads it where no such header stands: nothing there has a right checksum.
            PROTO_ICMPV6 | PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_PIM | NO_NEXT_HEADER => false,
            _ => self.send_error(pkt, upper.unknown(), pass),
        }
    }

    fn take_icmp<R: Recorder>(&self, pkt: &Packet, pass: &mut Passage<'_, R>) -> bool {
        const ECHO_REPLY: u8 = 0;
        const ECHO_REQUEST: u8 = 8;
        const TIMESTAMP_REQUEST: u8 = 13;
        if pkt.l4().len() < 8 || !is_sound(pkt) {
            return false;
        }
        let is_local = self.is_local(pkt.dst(), Family::Ipv4, pass.ctx.at.iface);
        match pkt.l4()[0] {
            // `icmp_echo_ignore_broadcasts`
            ECHO_REQUEST if is_local && !self.settings.icmp_echo_ignore_all => {
                let Some(options) = self.echoed_options(pkt, pkt.dst(), pass) else { return true };
                let frame = icmp_reply::echo_reply(pkt, author(pass.ctx.at, pkt.dst()), &options);
                pass.outbox.write(frame, None, pass.ctx.at.iface);
                true
            }
            TIMESTAMP_REQUEST if is_local && pkt.l4().len() >= 12 => {
                let Some(options) = self.echoed_options(pkt, pkt.dst(), pass) else { return true };
                let frame = icmp_reply::timestamp_reply(
                    pkt,
                    author(pass.ctx.at, pkt.dst()),
                    stamp(pass.ctx.at),
                    &options,
                );
                pass.outbox.write(frame, None, pass.ctx.at.iface);
                true
            }
            // Errors about what the router sent, and answers to what it did not ask.
            ECHO_REPLY | 3..=5 | 11 | 12 | 14 => is_local,
            _ => false,
        }
    }

    fn take_icmpv6<R: Recorder>(&self, pkt: &Packet, pass: &mut Passage<'_, R>) -> bool {
        const ECHO_REQUEST: u8 = 128;
        const ROUTER_SOLICITATION: u8 = 133;
        let Some(iface) = pass.ctx.at.iface else { return false };
        if pkt.l4().len() < 8 || !is_sound(pkt) {
            return false;
        }
        match pkt.l4()[0] {
            ECHO_REQUEST => {
                // A group or "any router" was asked: the address nearest to whoever asks answers, on that link.
                let is_asked_alone = self.is_own(pkt.dst(), Family::Ipv6, iface);
                let src = if is_asked_alone {
                    Some(pkt.dst())
                } else if self.is_own(pkt.src(), Family::Ipv6, iface) {
                    // To an address of its own the router speaks with that (RFC 6724 §5, rule 1).
                    Some(pkt.src())
                } else {
                    self.routes.source_on(iface, pkt.src(), pkt.src(), Family::Ipv6)
                };
                let Some(src) = src else { return false };
                let frame = icmp_reply::echo_reply(pkt, author(pass.ctx.at, src), &[]);
                if is_asked_alone {
                    pass.outbox.write(frame, None, Some(iface));
                } else {
                    pass.outbox.write_bound(frame, iface);
                }
                true
            }
            // Nobody there has a link address that could be asked for or told.
            SOLICITATION | ADVERTISEMENT if !self.has_neighbours(iface) => true,
            SOLICITATION => self.take_solicitation(pkt, iface, pass),
            ADVERTISEMENT => self.take_advertisement(pkt, iface, pass),
            // Of solicitations no notice is taken: no advertisements are sent, and none is needed.
            1..=4 | 129 | ROUTER_SOLICITATION => true,
            _ => false,
        }
    }

    /// "Who has …?" (RFC 4861 §7.2.3)
    fn take_solicitation<R: Recorder>(
        &self,
        pkt: &Packet,
        iface: IfaceId,
        pass: &mut Passage<'_, R>,
    ) -> bool {
        let Some(asked) = Discovery::parse(pkt) else { return false };
        let target = asked.target;
        let is_anycast =
            !self.routes.has(iface, target, Family::Ipv6) && self.routes.has_anycast(iface, target);
        if !is_anycast && !self.routes.has(iface, target, Family::Ipv6) {
            return false;
        }
        let mac = self.ifaces[iface.index()].mac;
        if pkt.src().is_unspecified() {
            // Somebody is about to take our address: everybody is told that it is taken (RFC 4862 §5.4.3).
            let claim = Claim { target, solicited: false, overrides: !is_anycast, with_mac: true };
            pass.outbox.write_direct(message::advertisement(mac, claim, None), iface);
            return true;
        }
        let to_group = pkt.dst().v6()[0] == 0xff;
        if let Some(their_mac) = asked.mac {
            let hearing = Hearing { confirms: false, overrides: true, creates: true, respects_lock: false };
            self.hear(self.key(iface, pkt.src(), Family::Ipv6), their_mac, hearing, pass);
        }
        let claim = Claim { target, solicited: true, overrides: to_group && !is_anycast, with_mac: to_group };
        pass.outbox.write_direct(message::advertisement(mac, claim, Some(pkt.src())), iface);
        true
    }

    /// "I have …" (RFC 4861 §7.2.5). Nobody is remembered whom nobody asked for.
    fn take_advertisement<R: Recorder>(
        &self,
        pkt: &Packet,
        iface: IfaceId,
        pass: &mut Passage<'_, R>,
    ) -> bool {
        let Some(said) = Discovery::parse(pkt) else { return false };
        // Ours: whoever claims it is not believed.
        if self.routes.has(iface, said.target, Family::Ipv6) {
            return false;
        }
        let key = self.key(iface, said.target, Family::Ipv6);
        let Some(mac) = said.mac.or_else(|| self.neighbours.mac(&key)) else { return false };
        let to_us = pkt.dst().v6()[0] != 0xff;
        let hearing = Hearing {
            confirms: said.solicited && to_us,
            overrides: said.overrides,
            creates: false,
            respects_lock: false,
        };
        self.hear(key, mac, hearing, pass);
        true
    }

    /// ARP, as Linux takes it with `arp_ignore`, `arp_filter` and `arp_accept` at zero.
    pub(super) fn take_arp<R: Recorder>(&self, frame: &[u8], pass: &mut Passage<'_, R>) -> Fate {
        const NOT_FOR_US: Fate = Fate::Dropped(DropReason::NotForUs);
        let Some(iface) = pass.ctx.at.iface else { return NOT_FOR_US };
        let dst_mac = Mac([frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]]);
        let own_mac = self.ifaces[iface.index()].mac;
        if !dst_mac.is_group() && dst_mac != own_mac {
            return Fate::Dropped(DropReason::OtherHost);
        }
        let Some(arp) = Arp::parse(frame) else { return NOT_FOR_US };
        let key = self.key(iface, arp.sender, Family::Ipv4);
        if !arp.sender.is_unspecified() {
            self.neighbours.see(key, arp.sender_mac);
        }
        let asks_for_own = arp.is_request && self.is_local(arp.target, Family::Ipv4, Some(iface));
        if arp.sender.is_unspecified() {
            // Somebody is about to take our address (RFC 5227 §2.1.1).
            if asks_for_own {
                pass.outbox.emit(iface, EmissionKind::Own, arp.answer(own_mac), Offload::NONE);
                return Fate::Delivered;
            }
            return NOT_FOR_US;
        }
        let plausible = self.may_speak_arp(arp.sender, iface);
        if asks_for_own && plausible {
            let hearing = Hearing { confirms: false, overrides: true, creates: true, respects_lock: false };
            self.hear(key, arp.sender_mac, hearing, pass);
            pass.outbox.emit(iface, EmissionKind::Own, arp.answer(own_mac), Offload::NONE);
            return Fate::Delivered;
        }
        if !plausible {
            return NOT_FOR_US;
        }
        // An answer, or an announcement: only of somebody whom we have to do with.
        let is_gratuitous = arp.target == arp.sender;
        let confirms = !arp.is_request && dst_mac == own_mac;
        let hearing = Hearing { confirms, overrides: true, creates: false, respects_lock: !is_gratuitous };
        self.hear(key, arp.sender_mac, hearing, pass);
        Fate::Delivered
    }

    /// Whether an ARP sender may be a neighbour at all: the same that is asked of a packet's source.
    fn may_speak_arp(&self, sender: Addr, iface: IfaceId) -> bool {
        self.check_source(sender, iface).is_ok()
    }

    /// Takes in what was heard of a neighbour, and sends what waited for it.
    fn hear<R: Recorder>(&self, key: Key, mac: Mac, hearing: Hearing, pass: &mut Passage<'_, R>) {
        for waiting in self.neighbours.hear(key, mac, hearing, pass.ctx.at.now) {
            self.release(waiting, mac, key.iface, pass);
        }
    }

    /// No port is open: a segment is answered by a reset (RFC 9293 §3.10.7.1).
    fn refuse_tcp<R: Recorder>(&self, pkt: &Packet, pass: &mut Passage<'_, R>) -> bool {
        let Some(iface) = pass.ctx.at.iface else { return false };
        // "Any router" has no connections.
        let to_us = match pkt.family() {
            Family::Ipv4 => self.is_local(pkt.dst(), Family::Ipv4, Some(iface)),
            Family::Ipv6 => self.is_own(pkt.dst(), Family::Ipv6, iface),
        };
        if !to_us
            || pkt.dst_mac().is_group()
            || Segment::parse(pkt.l4()).is_none()
            || !icmp_reply::deserves_reset(pkt)
        {
            return false;
        }
        // A signature cannot be returned without its key, and options that cannot be read might hold one.
        if has_signature(pkt.l4()) != Some(false) {
            return false;
        }
        let Some(options) = self.echoed_options(pkt, pkt.dst(), pass) else { return true };
        let frame = icmp_reply::reset(pkt, pkt.tos() & !ECN, &options);
        pass.outbox.write(frame, None, pass.ctx.at.iface);
        true
    }

    /// Unless somebody listens on the port, the sender is told that nobody does.
    fn take_udp<R: Recorder>(&self, pkt: &Packet, pass: &mut Passage<'_, R>) -> bool {
        let l4 = pkt.l4();
        let Some(&[_, _, _, _, high, low, sum @ ..]) = l4.first_chunk::<8>() else { return false };
        let is_udp = pkt.proto() == PROTO_UDP;
        let len = match usize::from(u16::from_be_bytes([high, low])) {
            // As in a jumbogram, whatever its length is (RFC 2675 §4).
            0 if is_udp && pkt.family() == Family::Ipv6 => l4.len(),
            len => len,
        };
        let unchecked = sum == [0, 0];
        let fits =
            if is_udp { (8..=l4.len()).contains(&len) } else { len == 0 || (8..=l4.len()).contains(&len) };
        // Only UDP over IPv4 may go without a checksum (RFC 8200 §8.1, RFC 3828 §3.1).
        // What stands behind a datagram's own length is no part of it.
        let is_trimmed = is_udp && fits && len < l4.len();
        let is_sound = if is_trimmed { unchecked || is_sound_udp(pkt, &l4[..len]) } else { is_sound(pkt) };
        if !fits || !is_sound || (unchecked && !(is_udp && pkt.family() == Family::Ipv4)) {
            return false;
        }
        let error = match pkt.family() {
            Family::Ipv4 => PORT_UNREACHABLE,
            Family::Ipv6 => PORT_UNREACHABLE_V6,
        };
        let error = if is_trimmed { error.quoting(pkt.l3_header_len() + len) } else { error };
        let is_heard = is_udp && pkt.ports().is_some_and(|(_, port)| self.udp_listeners.contains(&port));
        // Linux forgets the connection of a datagram before it looks for a socket that wants it.
        self.is_local(pkt.dst(), pkt.family(), pass.ctx.at.iface)
            && (is_heard || self.send_error_about(pkt, error, None, pass))
    }

    /// An address that is this router's alone, and of that interface if it is link-local.
    fn is_own(&self, addr: Addr, family: Family, link: IfaceId) -> bool {
        let mut ids = (0..self.ifaces.len() as u16).map(IfaceId);
        let mut anywhere = || ids.any(|iface| self.routes.has(iface, addr, family));
        self.routes.has(link, addr, family) || (!is_link_local(addr, family) && anywhere())
    }

    /// One of the router's addresses, those included that it shares; for link-local ones, of that interface.
    pub(super) fn is_local(&self, addr: Addr, family: Family, link: Option<IfaceId>) -> bool {
        self.routes.lookup(addr, family, link) == Some(Route::Local)
    }
}

fn is_sound(pkt: &Packet) -> bool {
    pkt.offload().skips_checksum() || pkt.l4_checksum_ok()
}

fn is_sound_udp(pkt: &Packet, datagram: &[u8]) -> bool {
    let sum = Sum::pseudo_header(pkt.src(), pkt.dst(), pkt.family(), PROTO_UDP, datagram.len());
    pkt.offload().skips_checksum() || sum.bytes(datagram).folded() == 0xffff
}

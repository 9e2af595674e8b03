//! How packets leave a routing router: through the neighbours, and the router's own through OUTPUT first.

#![forbid(unsafe_code)]

use super::forward::{ADDRESS_UNREACHABLE_V6, HOST_UNREACHABLE, wire_len};
use super::{Host, Passage, Walk};
use crate::base::EmissionKind;
use crate::base::fate::{DropReason, Fate, QueueReason, Stage};
use crate::base::iface::IfaceId;
use crate::base::{RejectWith, RuleId};
use crate::conntrack::{CtState, InvalidReason, Tracked};
use crate::filter::context::Arrival;
use crate::icmp_reply::{self, Author, IcmpError};
use crate::neighbour::message::{self, Arp};
use crate::neighbour::{Ask, Key, Resolution, Waiting};
use crate::packet::fragment::{Expired, cut_to_mtu};
use crate::packet::segment::MIN_HEADER_LEN;
use crate::packet::tuple::{
    PROTO_AH, PROTO_ESP, PROTO_GRE, PROTO_ICMP, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use crate::packet::{Addr, Family, Mac, Offload, Packet};
use crate::plane::{Link, Outbox};
use crate::record::{NoRecord, Note, Recorder};
use crate::route::{Hop, Route};
use core::ops::ControlFlow::{Break, Continue};

const REASSEMBLY_TIME_EXCEEDED: IcmpError = IcmpError::new(11, 1);
const REASSEMBLY_TIME_EXCEEDED_V6: IcmpError = IcmpError::new(3, 1);
/// The next hop of what goes to a whole network.
const EVERYBODY: Addr = Addr::from_v4([255; 4]);

/// A packet that waits for its next hop, complete but for the link addresses.
#[derive(Debug)]
pub(crate) struct Pending {
    frame: Vec<u8>,
    offload: Offload,
    /// `None` for a packet of the router's own.
    in_iface: Option<IfaceId>,
    kind: EmissionKind,
    /// What an error about it would be related to.
    ct: Tracked,
}

impl Host {
    /// Puts a packet on the link of its way out, or in the queue of its next hop.
    pub(super) fn put_on_link<R: Recorder>(
        &self,
        pkt: &mut Packet,
        out: IfaceId,
        pass: &mut Passage<'_, R>,
    ) -> Stage<()> {
        if pass.ctx.at.iface.is_none() {
            write_no_zero(pkt, pass.ctx.is_rules_reset);
        }
        let mtu_bytes = self.ifaces[out.index()].mtu_bytes;
        let needed = pass.pieces.as_ref().and_then(|_| needed_in_one(pkt, pass));
        let frames = match &mut pass.pieces {
            Some(pieces) => {
                if let Some(len) = needed {
                    pieces.pull(len);
                }
                pieces.cut(pkt, mtu_bytes)
            }
            None if pass.ctx.at.iface.is_some()
                && pkt.dont_fragment()
                && wire_len(pkt) > self.size_limit(out, pkt.family()).0 =>
            {
                return self.refuse_grown(pkt, out, pass);
            }
            None if wire_len(pkt) > mtu_bytes && !pkt.offload().is_super_frame() => {
                pkt.finish_checksum();
                cut_to_mtu(pkt, mtu_bytes, false)
            }
            None => return self.send_whole(pkt, out, pass),
        };
        pass.ctx.rec.note(|| Note::Sent(out));
        let mut last = Continue(());
        for frame in frames {
            last = self.send_piece(frame, pkt, out, pass);
        }
        last
    }

    /// The packet fitted when it was routed, and has become too long since.
    #[cold]
    fn refuse_grown<R: Recorder>(&self, pkt: &Packet, out: IfaceId, pass: &mut Passage<'_, R>) -> Stage<()> {
        let (_, error) = self.size_limit(out, pkt.family());
        self.send_error(pkt, error, pass);
        Break(Fate::Dropped(DropReason::TooBig))
    }

    fn send_whole<R: Recorder>(
        &self,
        pkt: &mut Packet,
        out: IfaceId,
        pass: &mut Passage<'_, R>,
    ) -> Stage<()> {
        let (iface, offload) = (out, pkt.offload());
        match self.link_address(pkt, out, pass, || (pkt.frame().to_vec(), offload)) {
            Resolution::Known(mac) => {
                pkt.set_macs(mac, self.ifaces[iface.index()].mac);
                if pass.ctx.at.iface.is_none() {
                    pass.ctx.rec.note(|| Note::Sent(out));
                    pass.outbox.emit(iface, EmissionKind::Own, pkt.frame().to_vec(), offload);
                } else {
                    pass.leave(pkt, iface);
                }
                Continue(())
            }
            Resolution::Waits => Break(Fate::Queued(QueueReason::Neighbour)),
            Resolution::Refused(reason) => Break(Fate::Dropped(reason)),
        }
    }

    fn send_piece<R: Recorder>(
        &self,
        mut frame: Vec<u8>,
        whole: &Packet,
        out: IfaceId,
        pass: &mut Passage<'_, R>,
    ) -> Stage<()> {
        match self.link_address(whole, out, pass, || (frame.clone(), Offload::NONE)) {
            Resolution::Known(mac) => {
                frame[..6].copy_from_slice(&mac.0);
                frame[6..12].copy_from_slice(&self.ifaces[out.index()].mac.0);
                let kind =
                    if pass.ctx.at.iface.is_none() { EmissionKind::Own } else { EmissionKind::Fragment };
                pass.outbox.emit(out, kind, frame, Offload::NONE);
                Continue(())
            }
            Resolution::Waits => Break(Fate::Queued(QueueReason::Neighbour)),
            Resolution::Refused(reason) => Break(Fate::Dropped(reason)),
        }
    }

    /// The link address of the packet's next hop; if it has to be asked for, `frame` waits.
    fn link_address<R: Recorder>(
        &self,
        pkt: &Packet,
        out: IfaceId,
        pass: &mut Passage<'_, R>,
        frame: impl FnOnce() -> (Vec<u8>, Offload),
    ) -> Resolution {
        let (family, dst) = (pkt.family(), pkt.dst());
        if !self.has_neighbours(out) {
            return Resolution::Known(Mac::default());
        }
        if family == Family::Ipv6 && dst.v6()[0] == 0xff {
            return Resolution::Known(message::group_mac(dst));
        }
        if family == Family::Ipv4 && pass.walk.next_hop == Some(EVERYBODY) {
            return Resolution::Known(Mac::BROADCAST);
        }
        let key = self.key(out, pass.walk.next_hop.unwrap_or(dst), family);
        let waiting = || {
            let is_own = pass.ctx.at.iface.is_none();
            let kind = if is_own { EmissionKind::Own } else { EmissionKind::Released };
            let (frame, offload) = frame();
            let bytes = frame.len();
            let packet = Pending { frame, offload, in_iface: pass.ctx.at.iface, kind, ct: pass.answering() };
            Waiting { packet, bytes, own_src: is_own.then(|| pkt.src()) }
        };
        let mut asks = Vec::new();
        let resolution = self.neighbours.resolve(key, pass.ctx.at.now, waiting, &mut asks);
        if !matches!(resolution, Resolution::Known(_)) {
            for ask in asks {
                self.ask(ask, pass);
            }
            pass.count_drops(DropReason::NeighbourQueueFull, self.neighbours.take_displaced());
        }
        resolution
    }

    /// A capture tells in passing where its hosts are.
    pub(super) fn see(&self, pkt: &Packet, from: Option<IfaceId>) {
        let Some(from) = from else { return };
        self.neighbours.see(self.key(from, pkt.src(), pkt.family()), pkt.src_mac());
    }

    pub(super) fn key(&self, iface: IfaceId, addr: Addr, family: Family) -> Key {
        Key { family, iface, addr }
    }

    /// Puts a question about a neighbour on its link.
    pub(super) fn ask<R: Recorder>(&self, ask: Ask, pass: &mut Passage<'_, R>) {
        let Ask { key: Key { family, iface, addr }, to, own_src } = ask;
        let mac = self.ifaces[iface.index()].mac;
        match family {
            Family::Ipv4 => {
                let sender = own_src.or_else(|| self.routes.source_on(iface, addr, addr, family));
                let frame = Arp::ask(mac, sender.unwrap_or_default(), addr, to);
                pass.outbox.emit(iface, EmissionKind::Own, frame, Offload::NONE);
            }
            Family::Ipv6 => {
                let own_src = own_src.filter(|src| self.routes.has(iface, *src, family));
                let Some(src) = own_src.or_else(|| self.link_local(iface)) else { return };
                pass.outbox.write_direct(message::solicitation(mac, src, addr, to), iface);
            }
        }
    }

    /// Sends what had waited, now that its link address is known.
    pub(super) fn release<R: Recorder>(
        &self,
        mut waiting: Pending,
        mac: Mac,
        iface: IfaceId,
        pass: &mut Passage<'_, R>,
    ) {
        waiting.frame[..6].copy_from_slice(&mac.0);
        waiting.frame[6..12].copy_from_slice(&self.ifaces[iface.index()].mac.0);
        pass.outbox.emit(iface, waiting.kind, waiting.frame, waiting.offload);
    }

    /// Interface and next hop of a packet of the router's own; no interface for one to itself.
    pub(super) fn way_of_own(
        &self,
        dst: Addr,
        family: Family,
        link: Link,
    ) -> Option<(Option<IfaceId>, Addr)> {
        let is_group = family == Family::Ipv6 && dst.v6()[0] == 0xff;
        let hop = match link {
            Link::Direct(iface) => return Some((Some(iface), dst)),
            Link::Near(near) if is_group => return Some((Some(near?), dst)),
            Link::Near(near) if self.is_local(dst, family, near) => return Some((None, dst)),
            Link::Near(near) => self.hop_to(dst, family, near)?,
            Link::Bound(iface) => self.routes.hop_through(dst, iface)?,
        };
        Some((Some(hop.iface), hop.neighbour(dst)))
    }

    fn hop_to(&self, dst: Addr, family: Family, link: Option<IfaceId>) -> Option<Hop> {
        match self.routes.lookup(dst, family, link)? {
            Route::Via(hop) => Some(hop),
            // A host may speak in the name of all: Linux answers all of them.
            Route::Broadcast(iface) => Some(Hop { iface, gateway: Some(EVERYBODY), prefix_len: 32 }),
            Route::Local | Route::Blackhole | Route::Unreachable | Route::Prohibited => None,
        }
    }

    /// Tells the sender of an error, if it may be told. `false`: it deserves no answer.
    pub(super) fn send_error<R: Recorder>(
        &self,
        pkt: &Packet,
        error: IcmpError,
        pass: &mut Passage<'_, R>,
    ) -> bool {
        self.send_error_about(pkt, error, Some(pass.answering()), pass)
    }

    /// As [`Router::send_error`]; `related` is what rules see it to belong to, unless it is tracked like any packet.
    pub(super) fn send_error_about<R: Recorder>(
        &self,
        pkt: &Packet,
        error: IcmpError,
        related: Option<Tracked>,
        pass: &mut Passage<'_, R>,
    ) -> bool {
        if !icmp_reply::deserves_error(pkt, error) {
            return false;
        }
        let (family, to) = (pkt.family(), pkt.src());
        let link = pass.ctx.at.iface;
        let is_for_all = || matches!(self.routes.lookup(pkt.dst(), family, link), Some(Route::Broadcast(_)));
        if family == Family::Ipv4 && is_for_all() {
            // RFC 1122 §3.2.2: nobody answers what a whole network was told.
            return false;
        }
        let receiver = related.as_ref().and_then(Tracked::receiver).unwrap_or(to);
        let Some((src, hop)) = self.author_and_way(pkt, receiver, link) else { return false };
        // What goes no further than the router itself is not limited.
        let is_allowed = hop.is_none_or(|hop| {
            self.limits.allow(&self.settings, error, (to, family), hop.prefix_len, pass.ctx.at.now)
        });
        if is_allowed {
            let Some(options) = self.echoed_options(pkt, src, pass) else { return true };
            let frame = icmp_reply::write_error(pkt, error, author(pass.ctx.at, src), &options);
            pass.outbox.write(frame, related, pass.ctx.at.iface);
        }
        true
    }

    /// Who tells `receiver` of an error about `pkt`, and which way; no way to the router itself, whose errors pass OUTPUT
    /// all the same.
    fn author_and_way(
        &self,
        pkt: &Packet,
        receiver: Addr,
        link: Option<IfaceId>,
    ) -> Option<(Addr, Option<Hop>)> {
        let (family, to) = (pkt.family(), pkt.src());
        // The packet may claim to come from the router: there is no check for martians in IPv6.
        if self.is_local(receiver, family, link) {
            let is_asked = self.is_local(pkt.dst(), family, link);
            return Some((if is_asked { pkt.dst() } else { receiver }, None));
        }
        let hop = self.hop_to(receiver, family, link)?;
        // The packet may have the router's own address already: then that tells itself, and OUTPUT finds the sender.
        let is_own = receiver != to && self.is_local(to, family, link);
        let src = if is_own { to } else { self.answers_as(pkt, hop, link)? };
        Some((src, Some(hop)))
    }

    /// A datagram's first piece waited in vain for the rest: its sender is told, in IPv4 only of what was for the
    /// router itself (RFC 1812 §5.2.7.3 leaves the rest to the receiver), in IPv6 always, as Linux does.
    pub(crate) fn tell_of_missing_pieces(&self, mut expired: Expired, at: &Arrival, outbox: &mut Outbox) {
        let (from, kept_bytes) = (IfaceId(expired.from), expired.kept_bytes);
        let Ok(pkt) = expired.packet() else { return };
        let error = match pkt.family() {
            Family::Ipv4 if !self.is_local(pkt.dst(), Family::Ipv4, Some(from)) => return,
            Family::Ipv4 => REASSEMBLY_TIME_EXCEEDED,
            Family::Ipv6 => REASSEMBLY_TIME_EXCEEDED_V6,
        };
        let at = Arrival { iface: Some(from), ..*at };
        let mut rec = NoRecord;
        let mut pass = Passage::new(&at, Walk::default(), outbox, &mut rec);
        self.send_error(&pkt, error.quoting(kept_bytes), &mut pass);
    }

    /// Whoever was asked answers. For others the address does that is nearest to the sender; in IPv6 that of the
    /// interface where the packet came in, wherever the way back leads.
    fn answers_as(&self, pkt: &Packet, hop: Hop, link: Option<IfaceId>) -> Option<Addr> {
        if self.is_local(pkt.dst(), pkt.family(), link) {
            return Some(pkt.dst());
        }
        let (family, to) = (pkt.family(), pkt.src());
        match link {
            Some(iface) if family == Family::Ipv6 => self.routes.source_on(iface, to, to, family),
            _ => self.routes.source(to, family, hop),
        }
    }

    /// REJECT in route mode.
    pub(super) fn answer_refusal<R: Recorder>(
        &self,
        with: RejectWith,
        by: RuleId,
        pkt: &Packet,
        pass: &mut Passage<'_, R>,
    ) -> Fate {
        let is_rewritten = pass.walk.options.is_some_and(|o| o.is_changed());
        let looks_wrong = is_rewritten && !self.is_known_sound(with, pkt, pass);
        let answered = pass.ctx.at.iface.is_some()
            && !looks_wrong
            && match with {
                RejectWith::TcpReset => {
                    let deserved = icmp_reply::deserves_reset(pkt);
                    if deserved {
                        let frame = icmp_reply::reject_reset(pkt);
                        pass.ctx.at.env.conntrack.was_reset(&mut pass.ctx.ct, pass.ctx.at.now);
                        pass.outbox.write(frame, Some(pass.answering()), pass.ctx.at.iface);
                    }
                    deserved
                }
                RejectWith::Icmp(kind, code) => {
                    let error = IcmpError::new(kind, code);
                    icmp_reply::deserves_reject(pkt, error) && self.send_error(pkt, error, pass)
                }
            };
        if answered { Fate::Rejected(with, by) } else { Fate::Dropped(DropReason::Rule(by)) }
    }

    /// REJECT verifies a checksum over the whole packet, and the header does not fit what this router wrote into its
    /// options: Linux finds that wrong, too, unless tracking has verified the packet before, or nobody would.
    fn is_known_sound<R: Recorder>(&self, with: RejectWith, pkt: &Packet, pass: &Passage<'_, R>) -> bool {
        let gave_up = pass.ctx.ct.state == CtState::Untracked
            || pass.ctx.ct.invalid.is_some_and(InvalidReason::is_before_checksum);
        let verified = !gave_up && pass.ctx.at.env.conntrack.sysctls().checksum;
        let is_for_us = pass.ctx.out_iface.is_none();
        match (with, pkt.proto()) {
            // At INPUT what tracking noted still stands. Of what goes on Linux forgets it, unless it verified twice.
            (RejectWith::TcpReset, _) => verified && (is_for_us || pass.ctx.ct.reopens),
            (_, PROTO_UDPLITE | PROTO_SCTP | PROTO_GRE | PROTO_ESP | PROTO_AH) => true,
            (_, PROTO_UDP) if pkt.l4().get(6..8) == Some(&[0, 0]) => true,
            (_, PROTO_TCP | PROTO_UDP | PROTO_ICMP) => verified,
            _ => false,
        }
    }

    /// The options of an answer; `None` if there is to be no answer.
    pub(super) fn echoed_options<R: Recorder>(
        &self,
        pkt: &Packet,
        out: Addr,
        pass: &Passage<'_, R>,
    ) -> Option<Vec<u8>> {
        let stamp = stamp(pass.ctx.at);
        pass.walk.options.map_or_else(|| Some(Vec::new()), |options| options.echo(pkt, out, stamp))
    }

    /// Asks again, and tells senders of what could not be reached.
    pub(crate) fn handle_neighbours(&self, at: &Arrival, outbox: &mut Outbox) {
        let rec = &mut NoRecord;
        let due = self.neighbours.handle_timeout(at.now);
        for ask in due.asks {
            self.ask(ask, &mut Passage::new(at, Walk::default(), outbox, rec));
        }
        for mut waiting in due.unreachable {
            at.env.drops.add(DropReason::NeighbourFailed, 1);
            // Nobody is told of what the router itself wanted.
            let Some(from) = waiting.in_iface else { continue };
            let Ok(pkt) = Packet::parse(&mut waiting.frame, waiting.offload) else { continue };
            let error = match pkt.family() {
                Family::Ipv4 => HOST_UNREACHABLE,
                Family::Ipv6 => ADDRESS_UNREACHABLE_V6,
            };
            let at = Arrival { iface: Some(from), ..*at };
            let mut pass = Passage::new(&at, Walk::default(), outbox, rec);
            pass.ctx.ct = waiting.ct;
            self.send_error(&pkt, error, &mut pass);
        }
    }
}

/// Linux leaves the checksum of some segments of the router's own to whoever puts them on the link, behind translation,
/// and zero is written as all ones there: a rule's reset in IPv4, a closed port's in IPv6.
fn write_no_zero(pkt: &mut Packet, is_rules_reset: bool) {
    const CHECKSUM: core::ops::Range<usize> = 16..18;
    let is_left_to_the_link = pkt.proto() == PROTO_TCP && is_rules_reset == (pkt.family() == Family::Ipv4);
    if is_left_to_the_link && pkt.l4().get(CHECKSUM) == Some(&[0, 0]) {
        pkt.l4_mut()[CHECKSUM].fill(0xff);
    }
}

/// So much of a joined packet Linux puts in one on its way: besides an SCTP header that its tracker verifies, a TCP header
/// in IPv4, which is looked at before routing for a socket that the segment might be for.
fn needed_in_one<R: Recorder>(pkt: &Packet, pass: &Passage<'_, R>) -> Option<usize> {
    match (pkt.family(), pkt.proto()) {
        (Family::Ipv4, PROTO_TCP) => Some(pkt.l3_header_len() + MIN_HEADER_LEN),
        _ => pass.sctp_needed_in_one(pkt),
    }
}

/// Who answers a packet with one of the router's own.
pub(super) fn author(at: &Arrival, src: Addr) -> Author {
    Author { src, ident: at.env.next_ident() }
}

/// The time as a timestamp option or reply states it: since midnight UTC, if the driver of the router told when
/// its time began, else some other count (RFC 792).
pub(super) fn stamp(at: &Arrival) -> u32 {
    const NOT_SINCE_MIDNIGHT: u32 = 1 << 31;
    const NANOS_A_DAY: u64 = 86_400 * 1_000_000_000;
    match at.env.unix_epoch_nanos() {
        0 => at.now.as_millis() as u32 | NOT_SINCE_MIDNIGHT,
        epoch => ((epoch + at.now.as_nanos()) % NANOS_A_DAY / 1_000_000) as u32,
    }
}

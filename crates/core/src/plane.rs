//! What a bridge and a host do differently with a packet: stages of its way that `pipeline` names.

#![forbid(unsafe_code)]

use crate::base::{
    Addr, DropReason, Emission, EmissionKind, Family, Fate, IfaceId, Offload, RejectWith, RuleId, Stage,
};
use crate::conntrack::{CtState, Tracked};
use crate::filter::context::{Arrival, Context};
use crate::packet::Packet;
use crate::packet::fragment::Pieces;
use crate::packet::tuple::PROTO_SCTP;
use crate::record::{Note, Recorder};
use std::collections::VecDeque;

const SCTP_HEADER_LEN: usize = 12;

/// The routing decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Forward(IfaceId),
    /// A bridge does not know where the receiver is: every other port.
    Flood,
    /// The packet is for the router itself.
    Local,
}

/// The mode of a router: where its packets go and how they get there.
///
/// The methods stand in the order in which a packet meets them.
pub(crate) trait Plane: Sized {
    /// What this plane alone finds out of a packet, and needs again later on the packet's way.
    type Walk<'a>
    where
        Self: 'a;

    /// Whether a frame is taken without its 802.1Q tags of VLAN 0, or goes on with them, unseen by rules.
    const TAKES_PRIORITY_TAGS: bool;

    /// What is checked and learnt where a packet comes in, before any hook.
    fn admit<R: Recorder>(&self, pkt: &Packet, pass: &mut Passage<Self, R>) -> Stage<()>;

    /// The routing decision.
    fn decide<R: Recorder>(&self, pkt: &mut Packet, pass: &mut Passage<Self, R>) -> Stage<Way>;

    /// Between the routing decision and FORWARD: TTL and MTU. The filter never sees what is refused here.
    fn prepare<R: Recorder>(&self, pkt: &mut Packet, out: IfaceId, pass: &mut Passage<Self, R>) -> Stage<()>;

    /// Behind FORWARD: IP options get the address of the way out.
    fn finish<R: Recorder>(&self, pkt: &mut Packet, out: IfaceId, pass: &Passage<Self, R>);

    /// Puts the packet on its link.
    fn send<R: Recorder>(&self, pkt: &mut Packet, out: IfaceId, pass: &mut Passage<Self, R>) -> Stage<()>;

    /// Gives the packet to the router itself.
    fn deliver<R: Recorder>(&self, pkt: &mut Packet, pass: &mut Passage<Self, R>) -> Fate;

    /// Answers a packet that a rule refused; where Linux keeps silent, the packet is merely dropped.
    fn reject<R: Recorder>(
        &self,
        with: RejectWith,
        by: RuleId,
        pkt: &mut Packet,
        pass: &mut Passage<Self, R>,
    ) -> Fate;

    /// The routing decision for a packet to `dst` that the router itself has written; `None` if it leads nowhere. One to
    /// the router itself leaves by no interface.
    fn originate<'a>(
        &self,
        dst: Addr,
        family: Family,
        link: Link,
    ) -> Option<(Option<IfaceId>, Self::Walk<'a>)>
    where
        Self: 'a;

    /// The routing decision once more, for a packet of the router's own whose destination was translated. It was to leave by
    /// `out`, where a link-local destination is. Again one to the router itself leaves by no interface.
    fn route_again<R: Recorder>(
        &self,
        pkt: &Packet,
        out: Option<IfaceId>,
        pass: &mut Passage<Self, R>,
    ) -> Stage<Option<IfaceId>>;

    /// The router's own address that a packet which leaves there is to come from.
    fn address_out<R: Recorder>(&self, pkt: &Packet, out: IfaceId, pass: &Passage<Self, R>) -> Option<Addr>;

    /// The router's own address where packets of an interface are redirected to.
    fn address_in(&self, family: Family, iface: IfaceId) -> Option<Addr>;

    /// A frame that carries no IP packet, and that no rule looks at.
    fn carry_non_ip<R: Recorder>(&self, frame: &[u8], is_arp: bool, pass: &mut Passage<Self, R>)
    -> Stage<()>;
}

/// One packet's passage over its plane.
pub(crate) struct Passage<'a, P: Plane + 'a, R> {
    /// What rules see of it.
    pub(crate) ctx: Context<'a, R>,
    /// What the plane has found out.
    pub(crate) walk: P::Walk<'a>,
    /// The packet was joined from these fragments, and is to be cut like them.
    pub(crate) pieces: Option<Box<Pieces>>,
    /// Where the packet leaves in the buffer that it came in.
    pub(crate) in_place: Option<IfaceId>,
    pub(crate) outbox: &'a mut Outbox,
}

impl<'a, P: Plane, R: Recorder> Passage<'a, P, R> {
    #[inline]
    pub(crate) fn new(
        at: &'a Arrival<'a>,
        walk: P::Walk<'a>,
        outbox: &'a mut Outbox,
        rec: &'a mut R,
    ) -> Self {
        Self { ctx: Context::new(at, rec), walk, pieces: None, in_place: None, outbox }
    }

    /// Sends the packet in the buffer that it came in, or in the pieces in which it came; as a copy if the buffer is
    /// taken, or if a packet of the router's own has to go before it.
    #[inline(always)]
    pub(crate) fn leave(&mut self, pkt: &Packet, iface: IfaceId) {
        self.ctx.rec.note(|| Note::Sent(iface));
        if self.in_place.is_none() && self.pieces.is_none() && !self.outbox.has_own() {
            self.in_place = Some(iface);
        } else {
            self.leave_in_other_frames(pkt, iface);
        }
    }

    #[cold]
    fn leave_in_other_frames(&mut self, pkt: &Packet, iface: IfaceId) {
        let sctp = self.sctp_needed_in_one(pkt);
        let Some(pieces) = &mut self.pieces else { return self.outbox.copy(iface, pkt) };
        if let Some(len) = sctp {
            pieces.pull(len);
        }
        pieces.leave_on_bridge();
        for frame in pieces.cut(pkt, self.ctx.at.env.ifaces[iface.index()].mtu_bytes) {
            self.outbox.emit(iface, EmissionKind::Fragment, frame, Offload::NONE);
        }
    }

    /// Linux's tracker puts an SCTP header in one before it verifies the packet; returns where the header ends.
    pub(crate) fn sctp_needed_in_one(&self, pkt: &Packet) -> Option<usize> {
        let is_verified = self.ctx.ct.state != CtState::Untracked && self.ctx.at.sysctls.checksum;
        (pkt.proto() == PROTO_SCTP && is_verified && !pkt.is_later_fragment())
            .then(|| pkt.l3_header_len() + SCTP_HEADER_LEN)
    }

    /// Sends a frame that no rule looks at.
    pub(crate) fn leave_frame(&mut self, frame: &[u8], iface: IfaceId) {
        self.ctx.rec.note(|| Note::Sent(iface));
        if self.in_place.is_none() {
            self.in_place = Some(iface);
        } else {
            self.outbox.emit(iface, EmissionKind::Copy, frame.to_vec(), Offload::NONE);
        }
    }

    /// Every interface but the one where the packet came in.
    pub(crate) fn other_ifaces(&self) -> impl Iterator<Item = IfaceId> + use<P, R> {
        let from = self.ctx.at.iface;
        self.ctx.at.env.iface_ids().filter(move |id| Some(*id) != from)
    }

    /// What an error about the packet carries, or a rule's reset.
    pub(crate) fn answering(&self) -> Tracked {
        self.ctx.at.env.conntrack.answer_to(&self.ctx.ct)
    }

    /// Counts packets that were dropped outside of their own walk.
    pub(crate) fn count_drops(&self, reason: DropReason, n: u64) {
        self.ctx.at.env.drops.add(reason, n);
    }
}

/// What is to be sent besides the frame that came in: frames that are ready, and packets that the router has written
/// and that have yet to pass OUTPUT.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) emissions: Vec<Emission>,
    own: VecDeque<OwnPacket>,
}

/// What the cause of a packet of the router's own says about its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Any way, and link-local destinations are there.
    Near(Option<IfaceId>),
    /// It leaves there or nowhere.
    Bound(IfaceId),
    /// It is for a neighbour there, wherever a route would lead (RFC 4861 §7.2).
    Direct(IfaceId),
}

/// A packet that the router has written, before OUTPUT.
#[derive(Debug)]
pub(crate) struct OwnPacket {
    pub(crate) frame: Vec<u8>,
    /// What an error or a rule's reset is about; anything else is tracked as if it had come in.
    pub(crate) related: Option<Tracked>,
    pub(crate) link: Link,
    /// How many emissions were there before it was written: it goes out behind those.
    place: usize,
}

impl OwnPacket {
    /// One that nothing has caused.
    pub(crate) const fn of_a_program(frame: Vec<u8>) -> Self {
        Self { frame, related: None, link: Link::Near(None), place: 0 }
    }
}

impl Outbox {
    pub(crate) const fn new() -> Self {
        Self { emissions: Vec::new(), own: VecDeque::new() }
    }

    /// Sends a frame that is not the one that came in: an answer, a copy, a fragment.
    pub(crate) fn emit(&mut self, iface: IfaceId, kind: EmissionKind, frame: Vec<u8>, offload: Offload) {
        self.emissions.push(Emission { iface, kind, frame, offload });
    }

    /// Sends a copy of the packet as it stands.
    pub(crate) fn copy(&mut self, iface: IfaceId, pkt: &Packet) {
        self.emit(iface, EmissionKind::Copy, pkt.frame().to_vec(), pkt.offload());
    }

    /// Keeps a packet of the router's own for OUTPUT, which it passes once the packet that caused it has met its fate.
    pub(crate) fn write(&mut self, frame: Vec<u8>, related: Option<Tracked>, link: Option<IfaceId>) {
        self.write_to(frame, related, Link::Near(link));
    }

    /// As [`Outbox::write`], for a packet that leaves by that interface or not at all.
    pub(crate) fn write_bound(&mut self, frame: Vec<u8>, iface: IfaceId) {
        self.write_to(frame, None, Link::Bound(iface));
    }

    /// As [`Outbox::write`], for neighbour discovery.
    pub(crate) fn write_direct(&mut self, frame: Vec<u8>, iface: IfaceId) {
        self.write_to(frame, None, Link::Direct(iface));
    }

    fn write_to(&mut self, frame: Vec<u8>, related: Option<Tracked>, link: Link) {
        let place = self.emissions.len();
        self.own.push_back(OwnPacket { frame, related, link, place });
    }

    #[inline]
    pub(crate) fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// Hands every packet of the router's own to `send`, which may write more of them, and has the frames that come of
    /// it stand where they would if each had been sent when it was written.
    pub(crate) fn send_own(&mut self, mut send: impl FnMut(OwnPacket, &mut Self)) {
        let written = core::mem::take(&mut self.own);
        let mut ready = core::mem::take(&mut self.emissions).into_iter();
        let mut passed = 0;
        for own in written {
            self.emissions.extend(ready.by_ref().take(own.place - passed));
            passed = own.place;
            send(own, self);
            while let Some(another) = self.own.pop_front() {
                send(another, self);
            }
        }
        self.emissions.extend(ready);
    }
}

//! Bridge mode: all ports are one segment, and stations are learnt.

#![forbid(unsafe_code)]

mod stations;

pub use stations::{Memory, Segment, Stations};

use crate::base::{
    Addr, DropReason, EmissionKind, Family, Fate, IfaceId, Mac, Offload, RejectWith, RuleId, Stage,
};
use crate::config::RouterConfig;
use crate::host::{RejectLimits, hop_by_hop};
use crate::icmp_reply::{self, Author};
use crate::packet::fragment::cut_to_mtu;
use crate::packet::{ETHERNET_LEN, Packet};
use crate::plane::{Link, Passage, Plane, Way};
use crate::record::{Note, Recorder};
use core::ops::ControlFlow::{Break, Continue};

/// The plane of a router in bridge mode.
#[derive(Debug)]
pub(crate) struct Bridge {
    stations: Stations,
    limits: RejectLimits,
    /// Frames that are neither IP nor ARP pass.
    passes_non_ip: bool,
    /// The least that a port takes, which is what Linux gives its bridge: packets are cut to it.
    mtu_bytes: usize,
}

/// What a bridge finds out of one frame.
pub(crate) struct Walk<'a> {
    memory: &'a mut Memory,
    /// Behind which port the receiver is, if the worker that carries the frame remembers.
    receiver: Option<IfaceId>,
}

impl<'a> Walk<'a> {
    pub(crate) const fn new(memory: &'a mut Memory) -> Self {
        Self { memory, receiver: None }
    }
}

impl Bridge {
    pub(crate) fn new(config: &RouterConfig) -> Self {
        Self {
            stations: Stations::default(),
            limits: RejectLimits::new(config),
            passes_non_ip: config.pass_non_ip,
            mtu_bytes: config.ifaces.iter().map(|iface| iface.mtu_bytes).min().unwrap_or_default(),
        }
    }

    pub(crate) const fn stations(&self) -> &Stations {
        &self.stations
    }

    /// Remembers where the sender of a frame is, and says where its receiver is if that is known.
    fn learn<R: Recorder>(
        &self,
        ends: &[u8; 12],
        from: IfaceId,
        pass: &mut Passage<Self, R>,
    ) -> Option<IfaceId> {
        self.stations.learn_and_look_up(pass.walk.memory, ends, from, pass.ctx.at.now)
    }

    /// A packet that is larger than its way out takes, or that was joined from pieces. Nobody is told of what is dropped:
    /// the bridge has no address.
    #[cold]
    fn cut<R: Recorder>(&self, pkt: &mut Packet, out: IfaceId, pass: &mut Passage<Self, R>) -> Stage<()> {
        match &pass.pieces {
            Some(pieces) if pieces.max_len > self.mtu_bytes && !pieces.stay_whole(pkt, mtu_of(out, pass)) => {
                Break(Fate::Dropped(DropReason::TooBig))
            }
            Some(_) => {
                pass.leave(pkt, out);
                Continue(())
            }
            None if pkt.dont_fragment() => Break(Fate::Dropped(DropReason::TooBig)),
            None => {
                pkt.finish_checksum();
                pass.ctx.rec.note(|| Note::Sent(out));
                for frame in cut_to_mtu(pkt, self.mtu_bytes, true) {
                    pass.outbox.emit(out, EmissionKind::Fragment, frame, Offload::NONE);
                }
                Continue(())
            }
        }
    }

    /// Looks for the receiver, and learns where the sender is: only now, so that what PREROUTING drops, or what is a piece and
    /// waits, teaches nothing, as in Linux.
    #[cold]
    fn find_station<R: Recorder>(&self, pkt: &Packet, pass: &mut Passage<Self, R>) -> Stage<Way> {
        let Some(from) = pass.ctx.at.iface else { return Break(Fate::Dropped(DropReason::NoRoute)) };
        if let Some(iface) = self.learn(pkt.macs(), from, pass) {
            return Continue(Way::Forward(iface));
        }
        match self.stations.lookup(pkt.dst_mac(), from, pass.ctx.at.now) {
            Segment::Port(iface) => Continue(Way::Forward(iface)),
            Segment::Flood => Continue(Way::Flood),
            Segment::Same => Break(Fate::Dropped(DropReason::SamePort)),
            Segment::Reserved => Break(Fate::Dropped(DropReason::LinkLocalGroup)),
        }
    }
}

/// Kinds of hardware and protocol, lengths of their addresses, operation (RFC 826).
const ARP_KIND_LEN: usize = 8;

/// Whether the sender's address, behind the receiver's, is one that a station can have: neither a group's nor zero.
#[inline]
fn is_station(ends: &[u8; 12]) -> bool {
    ends[6] & 1 == 0 && ends[6..] != [0; 6]
}

#[inline]
fn mtu_of<R: Recorder>(iface: IfaceId, pass: &Passage<Bridge, R>) -> usize {
    pass.ctx.at.env.ifaces[iface.index()].mtu_bytes
}

/// A tag of 802.1Q: every frame may be so much longer than the MTU says, and its own outermost tag does not count.
const VLAN_LEN: usize = 4;

/// Linux takes the tag off, and wants two bytes of what it is around.
const TAG_AND_MORE_LEN: usize = VLAN_LEN + 2;

/// The header of a `PPPoE` session, with the protocol of what it carries (RFC 2516 §4).
const PPPOE_LEN: usize = 8;

/// Whether what stands in front of the packet is all there. Linux takes the outermost tag off; behind that it looks past a second
/// tag of 802.1Q, or the header of a `PPPoE` session.
fn has_whole_encapsulation(frame: &[u8]) -> bool {
    let tag_len = if is_tagged(frame) { VLAN_LEN } else { 0 };
    if tag_len > 0 && frame.len() < ETHERNET_LEN + TAG_AND_MORE_LEN {
        return false;
    }
    let start = ETHERNET_LEN + tag_len;
    let wanted = match frame[start - 2..start] {
        [0x81, 0x00] => VLAN_LEN,
        [0x88, 0x64] => PPPOE_LEN,
        _ => 0,
    };
    frame.len() >= start + wanted
}

/// Whether the frame has a tag of 802.1Q or 802.1ad.
fn is_tagged(frame: &[u8]) -> bool {
    matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8])
}

fn fits<R: Recorder>(frame: &[u8], iface: IfaceId, pass: &Passage<Bridge, R>) -> bool {
    let tag = if is_tagged(frame) { VLAN_LEN } else { 0 };
    frame.len() - tag <= ETHERNET_LEN + mtu_of(iface, pass) + VLAN_LEN
}

impl Plane for Bridge {
    type Walk<'a> = Walk<'a>;

    const TAKES_PRIORITY_TAGS: bool = false;

    #[inline(always)]
    fn admit<R: Recorder>(&self, pkt: &Packet, pass: &mut Passage<Self, R>) -> Stage<()> {
        if !hop_by_hop::fill_their_header(pkt) {
            return Break(Fate::Dropped(DropReason::HopByHop));
        }
        let (ends, at) = (pkt.macs(), pass.ctx.at);
        let Some(from) = at.iface else { return Continue(()) };
        // Frames like one that passed a moment ago take no lock, and their sender is known to be a station.
        pass.walk.receiver = self.stations.recall(pass.walk.memory, ends, from, at.now);
        if pass.walk.receiver.is_some() || is_station(ends) {
            Continue(())
        } else {
            Break(Fate::Dropped(DropReason::NoStation))
        }
    }

    #[inline]
    fn decide<R: Recorder>(&self, pkt: &mut Packet, pass: &mut Passage<Self, R>) -> Stage<Way> {
        match pass.walk.receiver {
            // What was joined goes to the receiver of its first piece.
            Some(iface) if pass.pieces.is_none() => Continue(Way::Forward(iface)),
            _ => self.find_station(pkt, pass),
        }
    }

    #[inline]
    fn prepare<R: Recorder>(&self, pkt: &mut Packet, _: IfaceId, pass: &mut Passage<Self, R>) -> Stage<()> {
        // Options for every hop may have stood behind a fragment header, which is gone now.
        if pass.pieces.is_some() && !hop_by_hop::fill_their_header(pkt) {
            return Break(Fate::Dropped(DropReason::HopByHop));
        }
        Continue(())
    }

    #[inline]
    fn finish<R: Recorder>(&self, _: &mut Packet, _: IfaceId, _: &Passage<Self, R>) {}

    #[inline(always)]
    fn send<R: Recorder>(&self, pkt: &mut Packet, out: IfaceId, pass: &mut Passage<Self, R>) -> Stage<()> {
        let fits = pkt.l3().len() <= mtu_of(out, pass) || pkt.offload().is_super_frame();
        if !fits || pass.pieces.is_some() {
            return self.cut(pkt, out, pass);
        }
        pass.leave(pkt, out);
        Continue(())
    }

    fn deliver<R: Recorder>(&self, _: &mut Packet, _: &mut Passage<Self, R>) -> Fate {
        Fate::Delivered
    }

    fn reject<R: Recorder>(
        &self,
        with: RejectWith,
        by: RuleId,
        pkt: &mut Packet,
        pass: &mut Passage<Self, R>,
    ) -> Fate {
        let at = pass.ctx.at;
        let Some(iface) = at.iface else { return Fate::Dropped(DropReason::Rule(by)) };
        if !icmp_reply::deserves(with, pkt) {
            return Fate::Dropped(DropReason::Rule(by));
        }
        if !self.limits.allow(with, pkt, at.now) {
            return Fate::Rejected(with, by);
        }
        // The router has no address on a bridge: it speaks in the name of the host that was asked for.
        let author = Author { src: pkt.dst(), ident: at.env.next_ident() };
        let mut frame = icmp_reply::refuse(with, pkt, author);
        frame[..6].copy_from_slice(&pkt.src_mac().0);
        frame[6..12].copy_from_slice(&pkt.dst_mac().0);
        pass.outbox.emit(iface, EmissionKind::Own, frame, Offload::NONE);
        if with == RejectWith::TcpReset {
            at.env.conntrack.was_reset(&mut pass.ctx.ct, at.now);
        }
        Fate::Rejected(with, by)
    }

    /// A bridge writes nothing that would pass OUTPUT: what a rule answers goes out where the packet came in.
    fn originate<'a>(&self, _: Addr, _: Family, _: Link) -> Option<(Option<IfaceId>, Walk<'a>)>
    where
        Self: 'a,
    {
        None
    }

    fn route_again<R: Recorder>(
        &self,
        _: &Packet,
        _: Option<IfaceId>,
        _: &mut Passage<Self, R>,
    ) -> Stage<Option<IfaceId>> {
        Break(Fate::Dropped(DropReason::NoRoute))
    }

    /// A bridge has no address.
    fn address_out<R: Recorder>(&self, _: &Packet, _: IfaceId, _: &Passage<Self, R>) -> Option<Addr> {
        None
    }

    fn address_in(&self, _: Family, _: IfaceId) -> Option<Addr> {
        None
    }

    fn carry_non_ip<R: Recorder>(
        &self,
        frame: &[u8],
        is_arp: bool,
        pass: &mut Passage<Self, R>,
    ) -> Stage<()> {
        if !has_whole_encapsulation(frame) {
            return Break(Fate::Dropped(DropReason::FrameShort));
        }
        let Some(from) = pass.ctx.at.iface.filter(|_| is_arp || self.passes_non_ip) else {
            return Break(Fate::Dropped(DropReason::NotIp));
        };
        let ends = core::array::from_fn(|at| frame[at]);
        if !is_station(&ends) {
            return Break(Fate::Dropped(DropReason::NoStation));
        }
        // Linux wants to see what kind of ARP it is.
        if is_arp && frame.len() < ETHERNET_LEN + ARP_KIND_LEN {
            return Break(Fate::Dropped(DropReason::FrameShort));
        }
        let now = pass.ctx.at.now;
        if self.stations.recall(pass.walk.memory, &ends, from, now).is_none() {
            self.learn(&ends, from, pass);
        }
        let dst = Mac(core::array::from_fn(|at| frame[at]));
        match self.stations.lookup(dst, from, pass.ctx.at.now) {
            Segment::Same => return Break(Fate::Dropped(DropReason::SamePort)),
            Segment::Reserved => return Break(Fate::Dropped(DropReason::LinkLocalGroup)),
            Segment::Port(iface) if !fits(frame, iface, pass) => {
                return Break(Fate::Dropped(DropReason::TooBig));
            }
            Segment::Port(iface) => pass.leave_frame(frame, iface),
            Segment::Flood => {
                for iface in pass.other_ifaces() {
                    if fits(frame, iface, pass) {
                        pass.leave_frame(frame, iface);
                    }
                }
            }
        }
        Continue(())
    }
}

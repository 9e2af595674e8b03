//! Where a routed packet goes, and what Linux refuses before FORWARD sees it.

#![forbid(unsafe_code)]

use super::hop_by_hop::{self, Flaw};
use super::send::stamp;
use super::{Host, Passage};
use crate::base::fate::{DropReason, Fate, Stage};
use crate::base::iface::IfaceId;
use crate::icmp_reply::IcmpError;
use crate::neighbour::message;
use crate::packet::ipv4_options::{Here, Ipv4Options};
use crate::packet::tuple::PROTO_TCP;
use crate::packet::{Addr, Family, Packet, Prefix};
use crate::plane::Way;
use crate::record::{Note, Recorder};
use crate::route::{Hop, Route, is_link_local};
use core::ops::ControlFlow::{Break, Continue};

/// Every link carries that much (RFC 8200 §5), so no sender is asked for less.
const IPV6_MIN_MTU_BYTES: usize = 1280;

pub(super) const NET_UNREACHABLE: IcmpError = IcmpError::new(3, 0);
pub(super) const HOST_UNREACHABLE: IcmpError = IcmpError::new(3, 1);
const PROHIBITED: IcmpError = IcmpError::new(3, 13);
const TTL_EXCEEDED: IcmpError = IcmpError::new(11, 0);
const NO_ROUTE_V6: IcmpError = IcmpError::new(1, 0);
const PROHIBITED_V6: IcmpError = IcmpError::new(1, 1);
const BEYOND_SCOPE_V6: IcmpError = IcmpError::new(1, 2);
pub(super) const ADDRESS_UNREACHABLE_V6: IcmpError = IcmpError::new(1, 3);
const HOP_LIMIT_EXCEEDED_V6: IcmpError = IcmpError::new(3, 0);

/// The routing decision, before options and errors.
enum Decision {
    Local,
    Forward(Hop),
    /// The sender is told.
    Error(IcmpError, DropReason),
}

impl Host {
    /// What Linux checks where a packet comes in, before any hook.
    pub(super) fn check_arrival<R: Recorder>(
        &self,
        pkt: &Packet,
        pass: &mut Passage<'_, R>,
    ) -> Result<(), DropReason> {
        let own_mac = pass.ctx.at.iface.map(|from| self.ifaces[from.index()].mac);
        if !pkt.dst_mac().is_group() && Some(pkt.dst_mac()) != own_mac {
            return Err(DropReason::OtherHost);
        }
        if pkt.family() == Family::Ipv6 {
            let (src, dst) = (pkt.src(), pkt.dst());
            let is_loopback = |addr: Addr| addr.bits() == 1;
            // Scopes 0 and 1 never leave a host (RFC 4291 §2.7).
            let stays_inside = is_group_v6(dst) && dst.v6()[1] & 0x0f <= 1;
            if is_group_v6(src) || is_loopback(src) || is_loopback(dst) || stays_inside {
                return Err(DropReason::Martian);
            }
            return self.check_hop_by_hop(pkt, pass);
        }
        Ok(())
    }

    fn check_hop_by_hop<R: Recorder>(
        &self,
        pkt: &Packet,
        pass: &mut Passage<'_, R>,
    ) -> Result<(), DropReason> {
        hop_by_hop::check(pkt).map_err(|flaw| {
            if let Flaw::Told(error) = flaw {
                self.send_error(pkt, error, pass);
            }
            DropReason::HopByHop
        })
    }

    /// The routing decision of route mode.
    pub(super) fn route<R: Recorder>(&self, pkt: &mut Packet, pass: &mut Passage<'_, R>) -> Stage<Way> {
        let Some(from) = pass.ctx.at.iface else { return Break(Fate::Dropped(DropReason::NoRoute)) };
        let decision = match pkt.family() {
            Family::Ipv4 => self.decide_v4(pkt.src(), pkt.dst(), from),
            Family::Ipv6 => self.decide_v6(pkt.dst(), from),
        };
        let decision = match decision {
            Ok(decision) => decision,
            Err(reason) => return Break(Fate::Dropped(reason)),
        };
        if !pkt.ipv4_options().is_empty() {
            self.read_options(pkt, from, pass)?;
        }
        match decision {
            Decision::Local => Continue(Way::Local),
            Decision::Forward(hop) => {
                let next_hop = Some(hop.neighbour(pkt.dst()));
                pass.ctx.rec.note(|| Note::Routed { out: hop.iface, next_hop });
                pass.walk.next_hop = next_hop;
                Continue(Way::Forward(hop.iface))
            }
            Decision::Error(error, reason) => {
                // Linux counts these on their own, whatever `icmp_ratelimit` says, and then once more with every other error.
                let limited =
                    pkt.family() == Family::Ipv4 && !self.limits.allow_no_route(pkt.src(), pass.ctx.at.now);
                if !limited {
                    self.send_error(pkt, error, pass);
                }
                Break(Fate::Dropped(reason))
            }
        }
    }

    fn decide_v4(&self, src: Addr, dst: Addr, from: IfaceId) -> Result<Decision, DropReason> {
        const ALL_SYSTEMS: [u8; 4] = [224, 0, 0, 1];
        let is_group = |addr: Addr| addr.v4()[0] >> 4 == 0xe;
        let is_loopback = |addr: Addr| addr.v4()[0] == 127;
        let is_everybody = |addr: Addr| addr.v4() == [255; 4];
        if is_group(src) || is_everybody(src) || (is_group(dst) && is_loopback(src)) {
            return Err(DropReason::Martian);
        }
        if is_group(dst) {
            return if dst.v4() == ALL_SYSTEMS {
                self.validate_source(src, from, None).map(|()| Decision::Local)
            } else {
                Err(DropReason::NotForwarded)
            };
        }
        if is_everybody(dst) || (src.is_unspecified() && dst.is_unspecified()) {
            // A host that has no address yet asks everybody.
            if !src.is_unspecified() {
                self.validate_source(src, from, None)?;
            }
            return Ok(Decision::Local);
        }
        if src.is_unspecified() || dst.is_unspecified() || is_loopback(src) || is_loopback(dst) {
            return Err(DropReason::Martian);
        }
        match self.routes.lookup(dst, Family::Ipv4, Some(from)) {
            Some(Route::Local | Route::Broadcast(_)) => {
                self.validate_source(src, from, None).map(|()| Decision::Local)
            }
            Some(Route::Via(hop)) => {
                self.validate_source(src, from, Some(hop.iface)).map(|()| Decision::Forward(hop))
            }
            Some(Route::Blackhole) => Err(DropReason::Blackhole),
            Some(Route::Unreachable) => Ok(Decision::Error(HOST_UNREACHABLE, DropReason::NoRoute)),
            Some(Route::Prohibited) => Ok(Decision::Error(PROHIBITED, DropReason::Prohibited)),
            None => Ok(Decision::Error(NET_UNREACHABLE, DropReason::NoRoute)),
        }
    }

    /// Whether a packet from `src` may come in on `from`, if it goes on to `out`.
    ///
    /// Without `rp_filter` Linux looks more closely only where it may have to send a redirect.
    fn validate_source(&self, src: Addr, from: IfaceId, out: Option<IfaceId>) -> Result<(), DropReason> {
        const OFF: u8 = 0;
        const STRICT: u8 = 1;
        let settings = &self.settings;
        let (filter, redirects) = (settings.rp_filter[from.index()], settings.send_redirects[from.index()]);
        let closely = filter != OFF || (out == Some(from) && redirects);
        match self.routes.lookup(src, Family::Ipv4, Some(from)) {
            Some(Route::Local) => Err(DropReason::OwnSource),
            _ if !closely => Ok(()),
            Some(Route::Broadcast(_)) => Err(DropReason::Martian),
            Some(Route::Via(back)) if back.iface == from || filter != STRICT => Ok(()),
            Some(Route::Blackhole | Route::Unreachable | Route::Prohibited) | None if filter == OFF => Ok(()),
            _ => Err(DropReason::ReversePath),
        }
    }

    /// Whether `src` may speak on `from` at all, to the router itself.
    pub(super) fn check_source(&self, src: Addr, from: IfaceId) -> Result<(), DropReason> {
        match src.v4() {
            [127 | 224..=239, ..] | [255, 255, 255, 255] => Err(DropReason::Martian),
            _ => self.validate_source(src, from, None),
        }
    }

    fn decide_v6(&self, dst: Addr, from: IfaceId) -> Result<Decision, DropReason> {
        if is_group_v6(dst) {
            return if self.listens_to(dst, from) {
                Ok(Decision::Local)
            } else {
                Err(DropReason::NotForwarded)
            };
        }
        Ok(match self.routes.lookup(dst, Family::Ipv6, Some(from)) {
            Some(Route::Local | Route::Broadcast(_)) => Decision::Local,
            Some(Route::Via(hop)) => Decision::Forward(hop),
            Some(Route::Blackhole) => return Err(DropReason::Blackhole),
            Some(Route::Prohibited) => Decision::Error(PROHIBITED_V6, DropReason::Prohibited),
            Some(Route::Unreachable) | None => Decision::Error(NO_ROUTE_V6, DropReason::NoRoute),
        })
    }

    /// All nodes, all routers, and the solicited-node groups of the interface's own addresses.
    fn listens_to(&self, group: Addr, on: IfaceId) -> bool {
        const LINK_SCOPE: u128 = 0xff02 << 112;
        let group_of = |p: &Prefix| message::solicited_node(p.addr);
        let anycast = |p: &Prefix| message::solicited_node(Addr::from_bits(p.addr.bits() & p.mask()));
        group.bits() == LINK_SCOPE | 1
            || group.bits() == LINK_SCOPE | 2
            || self
                .routes
                .own(on)
                .iter()
                .filter(|p| p.family == Family::Ipv6)
                .any(|p| group_of(p) == group || (p.len < 127 && anycast(p) == group))
    }

    /// Checks the IPv4 options; whoever wrote them is told if they are wrong.
    fn read_options<R: Recorder>(
        &self,
        pkt: &mut Packet,
        from: IfaceId,
        pass: &mut Passage<'_, R>,
    ) -> Stage<()> {
        let routes = &self.routes;
        // Also one that is nobody's, everybody's or a group's: Linux asks only whether it is somebody else's.
        let is_own = |addr: Addr| {
            matches!(addr.v4(), [0, 0, 0, 0] | [224..=239, ..] | [255, 255, 255, 255])
                || matches!(routes.lookup(addr, Family::Ipv4, None), Some(Route::Local | Route::Broadcast(_)))
        };
        let local = routes.lookup(pkt.dst(), Family::Ipv4, None) == Some(Route::Local);
        // The address that the way back to the sender has, wherever the packet came in.
        let towards_sender = || match routes.lookup(pkt.src(), Family::Ipv4, None) {
            Some(Route::Via(hop)) => routes.source(pkt.src(), Family::Ipv4, hop),
            _ => routes.source_on(from, pkt.src(), pkt.src(), Family::Ipv4),
        };
        let addr = if local { Some(pkt.dst()) } else { towards_sender() }.unwrap_or_default();
        let here = Here { addr, stamp: stamp(pass.ctx.at), is_own: &is_own };
        match Ipv4Options::read(pkt, &here) {
            Ok(options) if options.source_route => Break(Fate::Dropped(DropReason::SourceRoute)),
            Ok(options) => {
                pass.walk.options = Some(options);
                Continue(())
            }
            Err(bad) => {
                pass.walk.options = Some(bad.until_then);
                let pointer = u32::from(bad.pointer) << 24;
                // Linux sends nothing back over a source route.
                if !bad.until_then.answers_by_source_route {
                    self.send_error(pkt, IcmpError::with_info(12, 0, pointer), pass);
                }
                Break(Fate::Dropped(DropReason::IpOptions))
            }
        }
    }

    /// TTL and MTU, which come before FORWARD: the filter never sees what they refuse.
    pub(super) fn check_life_and_size<R: Recorder>(
        &self,
        pkt: &mut Packet,
        out: IfaceId,
        pass: &mut Passage<'_, R>,
    ) -> Stage<()> {
        if pkt.dst_mac().is_group() {
            return Break(Fate::Dropped(DropReason::NotForwarded));
        }
        let family = pkt.family();
        if pkt.ttl() <= 1 {
            let error = match family {
                Family::Ipv4 => TTL_EXCEEDED,
                Family::Ipv6 => HOP_LIMIT_EXCEEDED_V6,
            };
            self.send_error(pkt, error, pass);
            return Break(Fate::Dropped(DropReason::TtlExceeded));
        }
        if family == Family::Ipv6 {
            self.check_scope(pkt, out, pass)?;
        }
        self.check_size(pkt, out, pass)?;
        pkt.decrement_ttl();
        if family == Family::Ipv4 {
            self.redirect_v4(pkt, out, pass);
        }
        Continue(())
    }

    /// A packet that leaves where it came from is worth a redirect; any other must not come from a link-local address.
    fn check_scope<R: Recorder>(&self, pkt: &Packet, out: IfaceId, pass: &mut Passage<'_, R>) -> Stage<()> {
        if pass.ctx.at.iface == Some(out) {
            self.redirect_v6(pkt, out, pass);
            return Continue(());
        }
        if pkt.src().is_unspecified() {
            return Break(Fate::Dropped(DropReason::Martian));
        }
        if is_link_local(pkt.src(), Family::Ipv6) {
            self.send_error(pkt, BEYOND_SCOPE_V6, pass);
            return Break(Fate::Dropped(DropReason::LinkLocalScope));
        }
        Continue(())
    }

    fn check_size<R: Recorder>(&self, pkt: &Packet, out: IfaceId, pass: &mut Passage<'_, R>) -> Stage<()> {
        let (mtu, error) = self.size_limit(out, pkt.family());
        let fits = match &pass.pieces {
            Some(pieces) => pieces.fit(pkt, mtu),
            None => wire_len(pkt) <= mtu || !pkt.dont_fragment(),
        };
        if fits {
            return Continue(());
        }
        self.send_error(pkt, error, pass);
        Break(Fate::Dropped(DropReason::TooBig))
    }

    /// How long a packet may be that leaves there, and what the sender of a longer one is told.
    pub(super) fn size_limit(&self, out: IfaceId, family: Family) -> (usize, IcmpError) {
        let mtu = self.ifaces[out.index()].mtu_bytes;
        match family {
            Family::Ipv4 => (mtu, IcmpError::with_info(3, 4, mtu as u32)),
            Family::Ipv6 => {
                let mtu = mtu.max(IPV6_MIN_MTU_BYTES);
                (mtu, IcmpError::with_info(2, 0, mtu as u32))
            }
        }
    }

    /// Tells a neighbour that another neighbour of its own is the better first hop (RFC 1812 §5.2.7.2).
    fn redirect_v4<R: Recorder>(&self, pkt: &Packet, out: IfaceId, pass: &mut Passage<'_, R>) {
        if pass.ctx.at.iface != Some(out)
            || !self.settings.send_redirects[out.index()]
            || !self.has_neighbours(out)
        {
            return;
        }
        let back = self.routes.lookup(pkt.src(), Family::Ipv4, pass.ctx.at.iface);
        let is_neighbour = matches!(back, Some(Route::Via(hop)) if hop.iface == out && hop.gateway.is_none());
        if is_neighbour && self.limits.allow_redirect(pkt.src(), pass.ctx.at.now) {
            let gateway = u32::from_be_bytes(pass.walk.next_hop.unwrap_or_else(|| pkt.dst()).v4());
            self.send_error(pkt, IcmpError::with_info(5, 1, gateway), pass);
        }
    }

    /// The same by neighbour discovery (RFC 4861 §8.2): only towards a neighbour that a host may know.
    fn redirect_v6<R: Recorder>(&self, pkt: &Packet, out: IfaceId, pass: &mut Passage<'_, R>) {
        let iface = out;
        if !self.has_neighbours(iface) {
            return;
        }
        let target = pass.walk.next_hop.unwrap_or_else(|| pkt.dst());
        let back = self.routes.lookup(pkt.src(), Family::Ipv6, Some(iface));
        let to_neighbour = matches!(back, Some(Route::Via(hop)) if hop.gateway.is_none());
        let Some(src) = self.link_local(iface) else { return };
        if !(target == pkt.dst() || is_link_local(target, Family::Ipv6))
            || !to_neighbour
            || !self.limits.allow_redirect(pkt.src(), pass.ctx.at.now)
        {
            return;
        }
        let target_mac = self.neighbours.mac(&self.key(iface, target, Family::Ipv6));
        let frame = message::redirect(pkt, self.ifaces[iface.index()].mac, src, target, target_mac);
        pass.outbox.write_direct(frame, iface);
    }

    /// Options get the address of the way out.
    pub(super) fn write_options(
        &self,
        options: Ipv4Options,
        pkt: &mut Packet,
        out: IfaceId,
        next_hop: Option<Addr>,
    ) {
        let next_hop = next_hop.unwrap_or_else(|| pkt.dst());
        let out = self.routes.source_on(out, next_hop, pkt.dst(), Family::Ipv4);
        options.forward(pkt, out.unwrap_or_default());
    }

    pub(super) fn link_local(&self, iface: IfaceId) -> Option<Addr> {
        let mut own = self.routes.own(iface).iter();
        own.find(|p| is_link_local(p.addr, p.family)).map(|p| p.addr)
    }
}

/// Bytes of the IP packet, or of the largest packet that a super-frame stands for.
pub(super) fn wire_len(pkt: &Packet) -> usize {
    let offload = pkt.offload();
    if !offload.is_super_frame() {
        return pkt.l3().len();
    }
    let l4_header = match pkt.proto() {
        PROTO_TCP => pkt.l4().get(12).map_or(20, |b| usize::from(b >> 4) * 4),
        _ => 8,
    };
    pkt.l3_header_len() + l4_header + usize::from(offload.gso_size)
}

fn is_group_v6(addr: Addr) -> bool {
    addr.v6()[0] == 0xff
}

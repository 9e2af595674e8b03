//! Where addresses are translated: a decision for the first packet of a connection, and the rewriting of every packet.

#![forbid(unsafe_code)]

use super::refuse;
use crate::base::{DropReason, Family, Fate, Hook, IfaceId, RuleId, Stage, Table};
use crate::conntrack::{CtState, Direction, Status};
use crate::filter::{Ruleset, Verdict};
use crate::nat::{self, Range, Side, Target};
use crate::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6};
use crate::packet::{Addr, Packet};
use crate::plane::{Passage, Plane};
use crate::record::{Note, Recorder, Translated};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::ControlFlow::{Break, Continue};

const REDIRECT_V4: u8 = 5;
const REDIRECT_V6: u8 = 137;

/// Which end of packets is looked at there.
const fn side_of(hook: Hook) -> Side {
    match hook {
        Hook::Prerouting | Hook::Output | Hook::Forward => Side::Destination,
        Hook::Input | Hook::Postrouting => Side::Source,
    }
}

/// Rewrites one end of the packet if its connection is translated there, which is decided first if that is still open.
#[inline]
pub(super) fn translate<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    hook: Hook,
    pkt: &mut Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    let ct = &pass.ctx.ct;
    // Most packets belong to connections that are known and not translated, and most routers translate nothing.
    let is_decided = ct.state == CtState::Established || !pass.ctx.at.rules.translate(pkt.family());
    if ct.translation.is_none() && is_decided {
        return Continue(());
    }
    translate_as_a_call(plane, rules, hook, pkt, pass)
}

#[inline(never)]
fn translate_as_a_call<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    hook: Hook,
    pkt: &mut Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    let side = side_of(hook);
    if !pass.ctx.ct.has_entry() {
        return Continue(());
    }
    let is_live = pass.ctx.at.rules.translate(pkt.family());
    if is_error(pkt, pass.ctx.ct.state) {
        return translate_error(side, pkt, pass);
    }
    if is_live && pass.ctx.ct.is_undecided(side) {
        decide(plane, rules, hook, pkt, pass)?;
    } else if is_live && pass.ctx.ct.is_older_than_the_table(side) {
        ask_in_vain(plane, rules, hook, pkt, pass)?;
    } else if hook == Hook::Postrouting {
        check_way_out(pass)?;
    }
    let ct = &pass.ctx.ct;
    let Some(translation) = ct.translation.filter(|_| ct.is_rewritten(side)) else { return Continue(()) };
    if nat::rewrite(pkt, side, &translation.to) {
        Continue(())
    } else {
        Break(Fate::Dropped(DropReason::NatHeader))
    }
}

/// An ICMP error, which belongs to the connection that it is about.
fn is_error(pkt: &Packet, state: CtState) -> bool {
    let is_icmp =
        matches!((pkt.family(), pkt.proto()), (Family::Ipv4, PROTO_ICMP) | (Family::Ipv6, PROTO_ICMPV6));
    is_icmp && state == CtState::Related
}

/// Rewrites an error, and in it the packet that it quotes.
fn translate_error<P: Plane, R: Recorder>(side: Side, pkt: &mut Packet, pass: &Passage<P, R>) -> Stage<()> {
    const CANNOT: Stage<()> = Break(Fate::Dropped(DropReason::NatError));
    let ct = &pass.ctx.ct;
    // The checksum will be written anew, so a wrong one must not come this far.
    if !pkt.offload().skips_checksum() && !pkt.l4_checksum_ok() {
        return CANNOT;
    }
    let kind = pkt.l4().first().copied();
    let is_redirect = match pkt.family() {
        Family::Ipv4 => kind == Some(REDIRECT_V4),
        Family::Ipv6 => kind == Some(REDIRECT_V6),
    };
    let is_decided = ct.status.contains(Status::SRC_NAT_DONE.union(Status::DST_NAT_DONE));
    if is_redirect && (ct.is_translated() || !is_decided) {
        return CANNOT;
    }
    let Some(translation) = ct.translation.filter(|_| ct.is_rewritten(side)) else { return Continue(()) };
    if nat::rewrite_error(pkt, side, &translation.to) { Continue(()) } else { CANNOT }
}

/// Asks the rules what becomes of a new connection; where none decides it is bound to what it has.
fn decide<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    hook: Hook,
    pkt: &mut Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    match rules.run(Table::Nat, hook, pkt, &mut pass.ctx) {
        Verdict::Accept => {
            bind(hook, None, None, pass);
            Continue(())
        }
        Verdict::Translate(by) => match rules.translation(by) {
            Some(target) => bind_to(plane, (by, target), hook, pkt, pass),
            None => Continue(()),
        },
        verdict => refuse(plane, verdict, pkt, pass),
    }
}

/// Asks the rules about a connection that is too old to be bound: they count its packets, and may drop them.
fn ask_in_vain<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    hook: Hook,
    pkt: &mut Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    match rules.run(Table::Nat, hook, pkt, &mut pass.ctx) {
        Verdict::Accept | Verdict::Translate(_) => Continue(()),
        verdict => refuse(plane, verdict, pkt, pass),
    }
}

/// Binds the connection as a rule says.
fn bind_to<P: Plane, R: Recorder>(
    plane: &P,
    (by, target): (RuleId, &Target),
    hook: Hook,
    pkt: &Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    let is_masquerade = matches!(target, Target::Masquerade(_));
    if is_masquerade && pkt.src().is_unspecified() {
        // A host that has no address yet speaks for itself.
        bind(hook, None, None, pass);
        return Continue(());
    }
    let current = match side_of(hook) {
        Side::Source => pkt.src(),
        Side::Destination => pkt.dst(),
    };
    let own = || own_address(plane, target, hook, pkt, pass).map(|addr| addr.to_ip(pkt.family()));
    let Some(range) = target.range(current, own) else {
        return Break(Fate::Dropped(DropReason::NatAddress));
    };
    let egress = pass.ctx.out_iface.filter(|_| is_masquerade);
    bind(hook, Some((by, range)), egress, pass);
    Continue(())
}

fn bind<P: Plane, R: Recorder>(
    hook: Hook,
    ruled: Option<(RuleId, Range)>,
    egress: Option<IfaceId>,
    pass: &mut Passage<P, R>,
) {
    let side = side_of(hook);
    let (by, range) = ruled.unzip();
    let at = pass.ctx.at;
    let bound = at.env.conntrack.bind(&mut pass.ctx.ct, side, range, egress, at.now);
    if let Some((from, choice)) = bound {
        pass.ctx.rec.note(|| Note::Translated(Box::new(Translated { side, by, from, choice })));
    }
}

/// The router's address that MASQUERADE and REDIRECT mean.
fn own_address<P: Plane, R: Recorder>(
    plane: &P,
    target: &Target,
    hook: Hook,
    pkt: &Packet,
    pass: &Passage<P, R>,
) -> Option<Addr> {
    match (target, hook) {
        (Target::Masquerade(_), _) => plane.address_out(pkt, pass.ctx.out_iface?, pass),
        (_, Hook::Output) => Some(match pkt.family() {
            Family::Ipv4 => Addr::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Family::Ipv6 => Addr::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        }),
        _ => plane.address_in(pkt.family(), pass.ctx.at.iface?),
    }
}

/// A masqueraded connection that would leave elsewhere has an address that means nothing there: it ends, and the next
/// packet opens another one.
fn check_way_out<P: Plane, R: Recorder>(pass: &Passage<P, R>) -> Stage<()> {
    let ct = &pass.ctx.ct;
    let egress = ct.translation.and_then(|translation| translation.egress);
    if ct.direction == Direction::Original && egress.is_some() && egress != pass.ctx.out_iface {
        pass.ctx.at.env.conntrack.end_connection_of(ct, pass.ctx.at.now);
        return Break(Fate::Dropped(DropReason::NatEgress));
    }
    Continue(())
}

//! ★ One packet's way through the router, stage by stage. Start reading here.
//!
//! ```text
//!   PREROUTING                routing      FORWARD               POSTROUTING
//!   raw → track → mangle → (nat) ──┬────── mangle → filter ───── mangle → (nat) → helper → confirm ──→ out
//!                                  └─ INPUT: mangle → filter → (nat) → helper → confirm ──→ the router itself
//!
//!   OUTPUT: raw → track → mangle → (nat) → filter ── POSTROUTING: mangle → (nat) → helper → confirm ──→ out
//! ```
//!
//! `(nat)` marks where addresses are translated: see [`translate`](self::translate).
//!
//! `?` leaves the way early: the packet met its [`Fate`]. Whoever comes to the end is [`Fate::Forwarded`]. Fragments were
//! joined before they come here and are cut again behind it, as Linux does once connection tracking is in use.
//!
//! What a bridge and a host do differently is in their [`Plane`]s. What the router itself sends because of a packet waits
//! in the [`Outbox`] until that packet has met its fate, and passes [`output`] then, under the same rules.

#![forbid(unsafe_code)]

mod translate;

use self::translate::translate;
use crate::base::log::{LogDetails, Logged, Speaker};
use crate::base::{DropReason, Fate, Hook, IfaceId, Offload, RuleId, Stage, Table};
use crate::conntrack::helper::Heard;
use crate::conntrack::{CtState, Helper, Tracked, Unfit, listing};
use crate::filter::context::{Arrival, Context};
use crate::filter::{Ruleset, Verdict};
use crate::packet::Packet;
use crate::packet::tuple::PROTO_TCP;
use crate::plane::{Outbox, OwnPacket, Passage, Plane, Way};
use crate::record::{Note, Recorder};
use core::fmt::Display;
use core::ops::ControlFlow::{Break, Continue};

/// Takes one packet from its arrival to its fate.
#[inline(always)]
pub(crate) fn walk<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    pkt: &mut Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    // PREROUTING
    run(plane, rules, (Table::Raw, Hook::Prerouting), pkt, pass)?;
    track(pkt, &mut pass.ctx)?;
    run(plane, rules, (Table::Mangle, Hook::Prerouting), pkt, pass)?;
    translate(plane, rules, Hook::Prerouting, pkt, pass)?;

    // Routing decision
    match plane.decide(pkt, pass)? {
        Way::Forward(out) => forward(plane, rules, pkt, out, pass),
        Way::Local => input(plane, rules, pkt, pass),
        Way::Flood => flood(plane, rules, pkt, pass),
    }
}

/// FORWARD and POSTROUTING, for one way out.
#[inline(always)]
fn forward<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    pkt: &mut Packet,
    out: IfaceId,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    pass.ctx.out_iface = Some(out);
    // TTL and MTU come before FORWARD: the filter never sees what they refuse.
    plane.prepare(pkt, out, pass)?;

    // FORWARD
    run(plane, rules, (Table::Mangle, Hook::Forward), pkt, pass)?;
    run(plane, rules, (Table::Filter, Hook::Forward), pkt, pass)?;
    plane.finish(pkt, out, pass);

    // POSTROUTING: only now does a NEW connection enter the table.
    run(plane, rules, (Table::Mangle, Hook::Postrouting), pkt, pass)?;
    translate(plane, rules, Hook::Postrouting, pkt, pass)?;
    confirm(pkt, pass)?;

    plane.send(pkt, out, pass)
}

/// INPUT: the packet is for the router itself.
#[inline(never)]
fn input<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    pkt: &mut Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    pass.ctx.rec.note(|| Note::Local);
    run(plane, rules, (Table::Mangle, Hook::Input), pkt, pass)?;
    run(plane, rules, (Table::Filter, Hook::Input), pkt, pass)?;
    translate(plane, rules, Hook::Input, pkt, pass)?;
    confirm(pkt, pass)?;
    Break(plane.deliver(pkt, pass))
}

/// A bridge floods the packet: it walks FORWARD once for each port, as the kernel's clones do.
#[inline(never)]
fn flood<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    pkt: &mut Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    let mut end = Break(Fate::Dropped(DropReason::SamePort));
    for iface in pass.other_ifaces() {
        let one = forward(plane, rules, pkt, iface, pass);
        if end.is_break() {
            end = one;
        }
    }
    // Linux's bridge gets a copy of what is for a group, and confirms the connection for all copies, also where FORWARD
    // has dropped the others.
    if pkt.dst_mac().is_group() && !pass.ctx.ct.is_in_table() {
        confirm_new(&mut pass.ctx)?;
    }
    end
}

/// OUTPUT and POSTROUTING, for a packet that the router itself has written.
fn output<P: Plane, R: Recorder>(
    plane: &P,
    related: Option<Tracked>,
    pkt: &mut Packet,
    out: Option<IfaceId>,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    let rules = in_force(pkt, pass.ctx.at)?;
    pass.ctx.out_iface = out;
    // What is about a packet without a connection is looked at for itself; but if that was not to be tracked, no rule
    // decides about this one any more.
    pass.ctx.is_answer = related.as_ref().is_some_and(|ct| ct.has_entry() || ct.state == CtState::Untracked);
    pass.ctx.is_rules_reset = related.is_some() && pkt.proto() == PROTO_TCP;
    let known = related.filter(Tracked::has_entry);
    let is_tracked = known.is_some();
    pass.ctx.ct = known.unwrap_or_else(Tracked::none);

    // OUTPUT
    run(plane, rules, (Table::Raw, Hook::Output), pkt, pass)?;
    if is_tracked {
        pass.ctx.rec.note(|| Note::Tracked(Box::new(pass.ctx.ct.clone())));
    } else {
        track(pkt, &mut pass.ctx)?;
    }
    run(plane, rules, (Table::Mangle, Hook::Output), pkt, pass)?;
    let out = translate_own(plane, rules, pkt, out, pass)?;
    run(plane, rules, (Table::Filter, Hook::Output), pkt, pass)?;

    // POSTROUTING
    run(plane, rules, (Table::Mangle, Hook::Postrouting), pkt, pass)?;
    translate(plane, rules, Hook::Postrouting, pkt, pass)?;
    confirm(pkt, pass)?;

    match out {
        Some(out) => plane.send(pkt, out, pass),
        None => Break(Fate::Delivered),
    }
}

/// Translates the destination of a packet of the router's own, and routes it again if that changed.
fn translate_own<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    pkt: &mut Packet,
    out: Option<IfaceId>,
    pass: &mut Passage<P, R>,
) -> Stage<Option<IfaceId>> {
    let before = pkt.dst();
    translate(plane, rules, Hook::Output, pkt, pass)?;
    if pkt.dst() == before {
        return Continue(out);
    }
    let out = plane.route_again(pkt, out, pass)?;
    pass.ctx.out_iface = out;
    Continue(out)
}

/// Takes what the router itself has written because of a packet through OUTPUT, once that packet has met its fate.
#[cold]
pub(crate) fn send_own<P: Plane, R: Recorder>(plane: &P, cause: &Arrival, outbox: &mut Outbox, rec: &mut R) {
    let at = Arrival { iface: None, ..*cause };
    outbox.send_own(|own, outbox| {
        send_one_of_own(plane, own, &at, outbox, rec);
    });
}

/// Takes one of them through OUTPUT, and says what became of it.
pub(crate) fn send_one_of_own<P: Plane, R: Recorder>(
    plane: &P,
    own: OwnPacket,
    at: &Arrival,
    outbox: &mut Outbox,
    rec: &mut R,
) -> Fate {
    let OwnPacket { mut frame, related, link, .. } = own;
    let mut pkt = match Packet::parse(&mut frame, Offload::NONE) {
        Ok(pkt) => pkt,
        Err(reason) => return Fate::Dropped(reason),
    };
    // What a translated connection's own packet is about may be known to it by an address that leads nowhere.
    let receiver = related.as_ref().and_then(Tracked::receiver).unwrap_or_else(|| pkt.dst());
    let Some((out, walk)) = plane.originate(receiver, pkt.family(), link) else {
        return Fate::Dropped(DropReason::NoRoute);
    };
    rec.note(|| Note::Own { out, frame: pkt.frame().to_vec() });
    let mut pass = Passage::new(at, walk, outbox, rec);
    let fate = match output(plane, related, &mut pkt, out, &mut pass) {
        Continue(()) => Fate::Forwarded,
        Break(fate) => fate,
    };
    if let Fate::Dropped(reason) = fate {
        pass.count_drops(reason, 1);
    }
    pass.ctx.rec.note(|| Note::Fate(fate));
    fate
}

/// Says which state a packet has, and takes it into account.
#[inline]
fn track<R: Recorder>(pkt: &Packet, ctx: &mut Context<R>) -> Stage<()> {
    let at = ctx.at;
    if let Err(unfit) = at.env.conntrack.track_with(pkt, &ctx.template, at.now, at.sysctls, &mut ctx.ct) {
        go_on_without_connection(unfit, pkt, ctx)?;
    } else if let Some(what) = ctx.ct.tolerated {
        log_invalid(&what, pkt, at);
    }
    ctx.rec.note(|| Note::Tracked(Box::new(ctx.ct.clone())));
    Continue(())
}

#[cold]
fn go_on_without_connection<R: Recorder>(unfit: Unfit, pkt: &Packet, ctx: &Context<R>) -> Stage<()> {
    match (unfit, ctx.ct.invalid) {
        (Unfit::TableFull, _) => Break(Fate::Dropped(DropReason::TableFull)),
        (Unfit::Invalid, None) => Continue(()),
        (Unfit::Invalid, Some(reason)) => {
            log_invalid(&reason, pkt, ctx.at);
            Continue(())
        }
    }
}

/// `nf_conntrack_log_invalid`: of one protocol, or of all. As in Linux's log, without interfaces.
#[cold]
fn log_invalid(reason: &dyn Display, pkt: &Packet, at: &Arrival) {
    const ALL: u8 = 255;
    const NOTICE: u8 = 5;
    let wanted = at.sysctls.log_invalid;
    if wanted == 0 || (wanted != ALL && wanted != pkt.proto()) {
        return;
    }
    at.env.logs.say(|| Logged {
        at: at.now,
        by: Speaker::Log {
            prefix: format!("nf_ct_proto_{}: {reason} ", pkt.proto()),
            level: NOTICE,
            details: LogDetails::default(),
        },
        rule: RuleId { family: pkt.family(), table: Table::Raw, chain: u16::MAX, index: 0 },
        table: Table::Raw,
        hook: Hook::Prerouting,
        in_iface: None,
        out_iface: None,
        src_mac: pkt.src_mac(),
        dst_mac: pkt.dst_mac(),
        mark: 0,
        packet: pkt.l3().to_vec(),
        packet_len: pkt.l3().len(),
    });
}

/// Behind all rules: the helper reads the packet, and a NEW connection enters the table.
#[inline(always)]
fn confirm<P: Plane, R: Recorder>(pkt: &mut Packet, pass: &mut Passage<P, R>) -> Stage<()> {
    if let Some(helper) = pass.ctx.ct.helper {
        help(helper, pkt, pass)?;
    }
    let Context { at, ct, .. } = &pass.ctx;
    if !at.env.conntrack.shift(pkt, ct) {
        return Break(Fate::Dropped(DropReason::NatHeader));
    }
    if ct.is_in_table() { Continue(()) } else { confirm_new(&mut pass.ctx) }
}

/// A packet without a connection, or the first one of its own.
#[inline(never)]
fn confirm_new<R: Recorder>(ctx: &mut Context<R>) -> Stage<()> {
    let is_new = ctx.ct.id().is_none();
    ctx.at.env.conntrack.confirm(&mut ctx.ct, ctx.at.now)?;
    if is_new && ctx.ct.id().is_some() {
        ctx.rec.note(|| Note::Confirmed);
    }
    Continue(())
}

/// The connection's helper reads the packet.
#[inline(never)]
fn help<P: Plane, R: Recorder>(helper: Helper, pkt: &mut Packet, pass: &mut Passage<P, R>) -> Stage<()> {
    let Context { at, ct, rec, .. } = &mut pass.ctx;
    match at.env.conntrack.help(pkt, ct, at.now)? {
        Heard::Announced(expectation) => {
            rec.note(|| Note::Expected(listing::expectation(&expectation, at.now)));
        }
        Heard::Nothing(silence) => rec.note(|| Note::Unannounced(helper, silence)),
        Heard::Unread => {}
    }
    if let Some(pieces) = &mut pass.pieces {
        pieces.is_linear |= helper.linearizes(ct.state);
    }
    Continue(())
}

/// The rules of the packet's family: without any, IPv6 does not pass.
#[inline]
pub(crate) fn in_force<'a>(pkt: &Packet, at: &Arrival<'a>) -> Stage<&'a Ruleset> {
    match at.rules.in_force(pkt.family()) {
        Some(rules) => Continue(rules),
        None => Break(Fate::Dropped(DropReason::NoIpv6Rules)),
    }
}

/// Walks one base chain, where there is one, and acts on its verdict.
#[inline(always)]
fn run<P: Plane, R: Recorder>(
    plane: &P,
    rules: &Ruleset,
    (table, hook): (Table, Hook),
    pkt: &mut Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    match rules.run(table, hook, pkt, &mut pass.ctx) {
        Verdict::Accept => Continue(()),
        verdict => refuse(plane, verdict, pkt, pass),
    }
}

#[cold]
fn refuse<P: Plane, R: Recorder>(
    plane: &P,
    verdict: Verdict,
    pkt: &mut Packet,
    pass: &mut Passage<P, R>,
) -> Stage<()> {
    match verdict {
        Verdict::Accept | Verdict::Translate(_) => Continue(()),
        Verdict::Drop(by) => Break(Fate::Dropped(DropReason::Rule(by))),
        Verdict::DropByPolicy(by) => Break(Fate::Dropped(DropReason::Policy(by))),
        Verdict::DropTruncated(_) => Break(Fate::Dropped(DropReason::L4Truncated)),
        Verdict::Reject(with, by) => Break(plane.reject(with, by, pkt, pass)),
    }
}

//! ★ One packet's way through the router, stage by stage. Start reading here.
//!
//! ```text
//!   PREROUTING          routing        FORWARD            POSTROUTING
//!   raw → track → mangle ──┬──────── mangle → filter ──── mangle → confirm ──→ out
//!                          └─ INPUT ─ mangle → filter → confirm ──→ the router itself
//!
//!   OUTPUT: raw → track → mangle → filter ── POSTROUTING: mangle → confirm ──→ out
//! ```
//!
//! Helpers look at a packet right before it is confirmed.
//!
//! `?` leaves the way early: the packet met its [`Fate`]. Whoever comes to the end is [`Fate::Forwarded`]. Fragments were
//! joined before they come here and are cut again behind it, as Linux does once connection tracking is in use.

#![forbid(unsafe_code)]

use crate::base::fate::{DropReason, Fate, Stage};
use crate::base::iface::IfaceId;
use crate::config::Mode;
use crate::conntrack::{CtState, Helper, Tracked, listing};
use crate::filter::context::Context;
use crate::filter::{Hook, Ruleset, Table, Verdict};
use crate::packet::Packet;
use crate::packet::tuple::PROTO_TCP;
use crate::record::{Note, Recorder};
use crate::router::{Router, Rules, Way};
use core::ops::ControlFlow::{Break, Continue};

/// Takes one packet from its arrival to its fate. `mode` is the router's, at hand where the compiler knows it.
#[inline(always)]
pub(crate) fn walk<R: Recorder>(
    r: &Router,
    mode: Mode,
    rules: Option<&Ruleset>,
    pkt: &mut Packet,
    ctx: &mut Context<R>,
) -> Stage<()> {
    let rules = walked(rules)?;
    // PREROUTING
    run(r, rules, Table::Raw, Hook::Prerouting, pkt, ctx)?;
    r.track(pkt, ctx)?;
    ctx.rec.note(|| Note::Tracked(Box::new(ctx.ct.clone())));
    run(r, rules, Table::Mangle, Hook::Prerouting, pkt, ctx)?;

    // Routing decision
    match r.decide(mode, pkt, ctx)? {
        Way::Local => input(r, rules, pkt, ctx),
        Way::Forward(out) => forward(r, mode, rules, pkt, out, ctx),
        Way::Flood => flood(r, rules, pkt, ctx),
    }
}

/// FORWARD and POSTROUTING, for one way out.
#[inline(always)]
fn forward<R: Recorder>(
    r: &Router,
    mode: Mode,
    rules: &Ruleset,
    pkt: &mut Packet,
    out: IfaceId,
    ctx: &mut Context<R>,
) -> Stage<()> {
    ctx.out_iface = Some(out);
    // TTL and MTU come before FORWARD: the filter never sees what they refuse.
    r.prepare_forward(mode, pkt, out, ctx)?;

    // FORWARD
    run(r, rules, Table::Mangle, Hook::Forward, pkt, ctx)?;
    run(r, rules, Table::Filter, Hook::Forward, pkt, ctx)?;
    r.finish_forward(pkt, out, ctx);

    // POSTROUTING: only now does a NEW connection enter the table.
    run(r, rules, Table::Mangle, Hook::Postrouting, pkt, ctx)?;
    confirm(r, pkt, ctx)?;

    r.send(mode, pkt, out, ctx)
}

/// INPUT: the packet is for the router itself.
#[inline(never)]
fn input<R: Recorder>(r: &Router, rules: &Ruleset, pkt: &mut Packet, ctx: &mut Context<R>) -> Stage<()> {
    ctx.rec.note(|| Note::Local);
    run(r, rules, Table::Mangle, Hook::Input, pkt, ctx)?;
    run(r, rules, Table::Filter, Hook::Input, pkt, ctx)?;
    confirm(r, pkt, ctx)?;
    Break(r.deliver(pkt, ctx))
}

/// OUTPUT: the router itself sends.
///
/// `related` is what an error or a rule's reset is about; anything else is tracked as if it had come in.
pub(crate) fn output<R: Recorder>(
    r: &Router,
    rules: &Rules,
    pkt: &mut Packet,
    out: IfaceId,
    related: Option<Tracked>,
    ctx: &mut Context<R>,
) -> Stage<()> {
    let rules = walked(rules.in_force(pkt.family()))?;
    // OUTPUT
    // What is about a packet without a connection is looked at for itself; but if that was not to be tracked, no rule
    // decides about this one any more.
    ctx.is_answer = related.as_ref().is_some_and(|ct| ct.has_entry() || ct.state == CtState::Untracked);
    ctx.is_rules_reset = related.is_some() && pkt.proto() == PROTO_TCP;
    let known = related.filter(Tracked::has_entry);
    let is_tracked = known.is_some();
    ctx.ct = known.unwrap_or_else(Tracked::none);
    run(r, rules, Table::Raw, Hook::Output, pkt, ctx)?;
    if !is_tracked {
        r.track(pkt, ctx)?;
    }
    run(r, rules, Table::Mangle, Hook::Output, pkt, ctx)?;
    run(r, rules, Table::Filter, Hook::Output, pkt, ctx)?;

    // POSTROUTING
    run(r, rules, Table::Mangle, Hook::Postrouting, pkt, ctx)?;
    confirm(r, pkt, ctx)?;

    r.send(r.mode(), pkt, out, ctx)
}

/// Behind all rules: the helper reads the packet, and a NEW connection enters the table.
#[inline(always)]
fn confirm<R: Recorder>(r: &Router, pkt: &Packet, ctx: &mut Context<R>) -> Stage<()> {
    if let Some(helper) = ctx.ct.helper {
        help(r, helper, pkt, ctx)?;
    }
    let is_new = ctx.ct.id().is_none();
    r.env.conntrack.confirm(&mut ctx.ct, ctx.now)?;
    if is_new && ctx.ct.id().is_some() {
        ctx.rec.note(|| Note::Confirmed);
    }
    Continue(())
}

/// The connection's helper reads the packet.
#[inline(never)]
fn help<R: Recorder>(r: &Router, helper: Helper, pkt: &Packet, ctx: &mut Context<R>) -> Stage<()> {
    if let Some(expectation) = r.env.conntrack.help(pkt, &mut ctx.ct, ctx.now)? {
        ctx.rec.note(|| Note::Expected(listing::expectation(&expectation, ctx.now)));
    }
    if let Some(pieces) = &mut ctx.pieces {
        pieces.is_melted |= helper.melts(ctx.ct.state);
    }
    Continue(())
}

/// Bridge mode, station unknown or a group: the packet walks FORWARD once for each port, as the kernel's clones do.
#[inline(never)]
fn flood<R: Recorder>(r: &Router, rules: &Ruleset, pkt: &mut Packet, ctx: &mut Context<R>) -> Stage<()> {
    let mut end = Break(Fate::Dropped(DropReason::SamePort));
    for iface in r.other_ifaces(ctx.in_iface) {
        let one = forward(r, Mode::Bridge, rules, pkt, iface, ctx);
        if end.is_break() {
            end = one;
        }
    }
    end
}

/// The rules of the packet's family: without any, IPv6 does not pass.
#[inline]
const fn walked(rules: Option<&Ruleset>) -> Stage<&Ruleset> {
    match rules {
        Some(rules) => Continue(rules),
        None => Break(Fate::Dropped(DropReason::NoIpv6Rules)),
    }
}

/// Walks one base chain, where there is one, and acts on its verdict.
#[inline(always)]
fn run<R: Recorder>(
    r: &Router,
    rules: &Ruleset,
    table: Table,
    hook: Hook,
    pkt: &mut Packet,
    ctx: &mut Context<R>,
) -> Stage<()> {
    match rules.run(table, hook, pkt, ctx) {
        Verdict::Accept => Continue(()),
        verdict => refuse(r, verdict, pkt, ctx),
    }
}

#[inline(never)]
fn refuse<R: Recorder>(r: &Router, verdict: Verdict, pkt: &mut Packet, ctx: &mut Context<R>) -> Stage<()> {
    match verdict {
        Verdict::Accept => Continue(()),
        Verdict::Drop(by) => Break(Fate::Dropped(DropReason::Rule(by))),
        Verdict::DropByPolicy(by) => Break(Fate::Dropped(DropReason::Policy(by))),
        Verdict::DropTruncated(_) => Break(Fate::Dropped(DropReason::L4Truncated)),
        Verdict::Reject(with, by) => Break(r.reject(with, by, pkt, ctx)),
    }
}

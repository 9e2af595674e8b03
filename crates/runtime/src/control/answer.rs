//! What comes of each command.

use super::events::Wants;
use super::protocol::{Command, EntryDraft, Interface, Named, Reply, Status};
use super::server::Context;
use super::visitor::{Line, Visitor, error};
use super::{entries, explained, metrics, rules, select, summary};
use crate::device::{Link, Port};
use crate::runtime::Shared;
use crate::runtime::orders::Order;
use crate::runtime::watch::{Sighting, Subscription};
use crossbeam_channel::{Receiver, bounded, select};
use stateway_core::config::Mode;
use stateway_core::conntrack::change::NotCreated;
use stateway_core::conntrack::{Entry, Filter, listing};
use stateway_core::iface::IfaceId;
use stateway_core::time::Instant;
use std::io;

/// Connections that one line of an answer lists.
const PIECE: usize = 256;

/// Carries a command out. Sends every reply but the last, which it returns.
pub(super) fn answer(
    visitor: &Visitor<'_>,
    context: &Context,
    lines: &Receiver<Line>,
    command: Command,
) -> io::Result<Reply> {
    if let Some(refusal) = visitor.refusal(&command) {
        return Ok(error(refusal));
    }
    let router = &context.shared.router;
    match command {
        Command::Status => visitor.reply(&Reply::Status(status(context)))?,
        Command::Interfaces => visitor.reply(&Reply::Interfaces { interfaces: interfaces(context) })?,
        Command::Drops => visitor.reply(&Reply::Drops { drops: drops(context) })?,
        Command::Metrics => visitor.reply(&Reply::Text { text: metrics::render(&context.shared) })?,
        Command::ConntrackList { filter, zero } => {
            let filter = match select::read_filter(&filter) {
                Ok(filter) => filter,
                Err(problem) => return Ok(error(problem)),
            };
            send_table(visitor, context, &filter, zero)?;
        }
        Command::ConntrackSummary { entries, order, matching, show } => {
            let meant = match select::read_match(&matching) {
                Ok(meant) => meant,
                Err(problem) => return Ok(error(problem)),
            };
            let look = summary::Look { entries, order, meant, show };
            let summary = summary::summary(router, &look, context.shared.clock.now());
            visitor.reply(&Reply::Summary(summary))?;
        }
        Command::ConntrackDelete { filter } => {
            let filter = match select::read_filter(&filter) {
                Ok(filter) => filter,
                Err(problem) => return Ok(error(problem)),
            };
            let now = context.shared.clock.now();
            send_entries(visitor, context, &router.conntrack().delete(&filter, now), now)?;
        }
        Command::ConntrackCreate { entry } => match create(context, &entry) {
            Ok(count) => visitor.reply(&Reply::Count { count })?,
            Err(problem) => return Ok(error(problem)),
        },
        Command::ConntrackUpdate { filter, change } => {
            let read = select::read_filter(&filter).and_then(|f| Ok((f, select::read_change(&change)?)));
            let (filter, change) = match read {
                Ok(read) => read,
                Err(problem) => return Ok(error(problem)),
            };
            let now = context.shared.clock.now();
            send_entries(visitor, context, &router.conntrack().update(&filter, &change, now), now)?;
        }
        Command::ConntrackFlush => router.conntrack().flush(context.shared.clock.now()),
        Command::ConntrackCount => {
            visitor.reply(&Reply::Count { count: router.conntrack().count() as u64 })?;
        }
        Command::ConntrackStats => visitor.reply(&stats(context))?,
        Command::ConntrackEvents { filter, expectations, kinds } => match select::read_filter(&filter) {
            Ok(filter) => conntrack_events(visitor, context, lines, Wants { filter, expectations, kinds })?,
            Err(problem) => return Ok(error(problem)),
        },
        Command::ExpectList => {
            let now = context.shared.clock.now();
            let list = router.conntrack().expectations(now);
            let expectations = list.iter().map(|e| entries::view_expectation(e, now)).collect();
            visitor.reply(&Reply::Expectations { expectations })?;
        }
        Command::ExpectFlush => router.conntrack().flush_expectations(context.shared.clock.now()),
        Command::SysctlGet { name } => match sysctls(context, name.as_deref()) {
            Ok(sysctls) => visitor.reply(&Reply::Sysctls { sysctls })?,
            Err(problem) => return Ok(error(problem)),
        },
        Command::SysctlSet { name, value } => {
            if let Err(problem) = router.conntrack().set_sysctl(&name, &value) {
                return Ok(error(problem.to_string()));
            }
        }
        Command::Rules => {
            let rules = router.rules();
            visitor.reply(&Reply::Rules { rules: rules::count(&rules), chains: rules::chains(&rules) })?;
        }
        Command::RulesZero { family, table, chain } => {
            rules::zero(&router.rules(), |of| {
                family.is_none_or(|family| family == of.family)
                    && table.as_ref().is_none_or(|table| *table == of.table)
                    && chain.as_ref().is_none_or(|chain| *chain == of.name)
            });
        }
        Command::RulesReplace { rules, rules6, may_open } => {
            if let Err(refused) = router.exchange_rules(rules.as_deref(), rules6.as_deref(), may_open) {
                return Ok(error(format!("the old rules stay in force\n{refused}")));
            }
        }
        Command::Reload => {
            const ENDING: &str = "the router is ending";
            let (sender, result) = bounded(1);
            // An order that nobody takes comes back with its sender, and nobody would ever answer.
            if context.orders.send(Order::Reload(Some(sender))).is_err() {
                return Ok(error(ENDING.into()));
            }
            match result.recv() {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => return Ok(error(problem)),
                Err(_) => return Ok(error(ENDING.into())),
            }
        }
        Command::Watch { filter, explain, per_second } => {
            let (watchers, ifaces) = (&context.shared.watchers, router.ifaces());
            match watchers.subscribe(filter, explain, per_second, ifaces) {
                Ok(subscription) => watch(visitor, context, lines, &subscription)?,
                Err(problem) => return Ok(error(problem)),
            }
        }
        Command::Explain { in_iface, frame, fit } => {
            match explained::explain(context, &in_iface, &frame, fit) {
                Ok(explained) => visitor.reply(&explained)?,
                Err(problem) => return Ok(error(problem)),
            }
        }
        Command::Shutdown => {
            // If nobody takes the order any more, it is being carried out already.
            let _ = context.orders.send(Order::Stop);
        }
    }
    Ok(Reply::Done)
}

fn watch(
    visitor: &Visitor<'_>,
    context: &Context,
    lines: &Receiver<Line>,
    subscription: &Subscription<Sighting>,
) -> io::Result<()> {
    visitor.reply(&Reply::Watching)?;
    let Shared { router, clock, .. } = &*context.shared;
    pour(visitor, lines, subscription, |sighting| Reply::Verdict(Box::new(sighting.verdict(router, clock))))
}

fn conntrack_events(
    visitor: &Visitor<'_>,
    context: &Context,
    lines: &Receiver<Line>,
    wants: Wants,
) -> io::Result<()> {
    let subscription = context.hub.subscribe(&context.shared.router, wants);
    visitor.reply(&Reply::Watching)?;
    let clock = context.shared.clock;
    let conntrack = context.shared.router.conntrack();
    pour(visitor, lines, &subscription, |event| {
        Reply::Event(Box::new(entries::view_event(conntrack, &event, &clock)))
    })
}

/// Passes events on until the client sends a line or goes, and then what had happened before that.
fn pour<T>(
    visitor: &Visitor<'_>,
    lines: &Receiver<Line>,
    subscription: &Subscription<T>,
    wrap: impl Fn(T) -> Reply,
) -> io::Result<()> {
    let pass = |event| {
        if let events @ 1.. = subscription.take_lost() {
            visitor.pour(&Reply::Lost { events })?;
        }
        visitor.pour(&wrap(event))
    };
    loop {
        select! {
            recv(subscription.events()) -> event => match event {
                Ok(event) => pass(event)?,
                Err(_) => return Ok(()),
            },
            recv(lines) -> _ => break,
        }
    }
    subscription.events().try_iter().try_for_each(pass)?;
    match subscription.take_lost() {
        0 => Ok(()),
        events => visitor.reply(&Reply::Lost { events }),
    }
}

/// Puts a connection in; 0 if it is there.
fn create(context: &Context, entry: &EntryDraft) -> Result<u64, String> {
    let draft = select::read_draft(entry)?;
    match context.shared.router.conntrack().create(&draft, context.shared.clock.now()) {
        Ok(()) => Ok(1),
        Err(NotCreated::Exists) => Ok(0),
        Err(NotCreated::TableFull) => Err("the table is full: `nf_conntrack_max` is reached".to_owned()),
    }
}

/// Sends the table while it is walked, so that a client who reads slowly holds no copy of all of it.
fn send_table(visitor: &Visitor<'_>, context: &Context, filter: &Filter, zero: bool) -> io::Result<()> {
    let now = context.shared.clock.now();
    let conntrack = context.shared.router.conntrack();
    let mut piece = Vec::with_capacity(PIECE);
    let mut sent = Ok(());
    let mut take = |entry: Entry| {
        if sent.is_ok() {
            piece.push(entry);
        }
        if piece.len() == PIECE {
            sent = send_entries(visitor, context, &piece, now);
            piece.clear();
        }
    };
    if zero {
        conntrack.zero_counters(filter, now, take);
    } else {
        conntrack.for_each(filter, now, |_, entry| take(entry.clone()));
    }
    sent?;
    send_entries(visitor, context, &piece, now)
}

/// A long list goes in pieces.
fn send_entries(visitor: &Visitor<'_>, context: &Context, entries: &[Entry], now: Instant) -> io::Result<()> {
    let conntrack = context.shared.router.conntrack();
    for piece in entries.chunks(PIECE) {
        let entries = piece.iter().map(|entry| entries::view(conntrack, entry, now)).collect();
        visitor.reply(&Reply::Entries { entries })?;
    }
    Ok(())
}

fn stats(context: &Context) -> Reply {
    let conntrack = context.shared.router.conntrack();
    let stats = conntrack.stats();
    let invalid =
        conntrack.invalid_packets().map(|(reason, count)| Named { name: reason.code().to_owned(), count });
    let translations = conntrack
        .translations()
        .map(|(side, how, count)| Named { name: format!("{} {}", side.word(), how.code()), count });
    Reply::Stats {
        line: listing::stats(&stats),
        stats: metrics::named(&stats),
        invalid: invalid.collect(),
        translations: translations.collect(),
    }
}

fn sysctls(context: &Context, name: Option<&str>) -> Result<Vec<Named>, String> {
    let sysctls = context.shared.router.conntrack().sysctls();
    let Some(name) = name else {
        return Ok(sysctls.list().map(|(name, count)| Named { name: name.to_owned(), count }).collect());
    };
    let count = sysctls.get(name).ok_or_else(|| format!("no sysctl named `{name}`"))?;
    Ok(vec![Named { name: name.to_owned(), count }])
}

fn status(context: &Context) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: context.shared.clock.uptime().as_secs_f64(),
        file: context.file.as_ref().map(|f| f.display().to_string()),
        mode: match context.mode {
            Mode::Bridge => "bridge".to_owned(),
            Mode::Route => "route".to_owned(),
        },
        burst: context.burst.to_owned(),
        gone: gone(&context.shared),
        confined: context.confined.taken.clone(),
        kept: context.confined.kept.clone(),
    }
}

fn gone(shared: &Shared) -> Vec<String> {
    let ports = shared.ports.iter().enumerate();
    let is_gone = |n: usize, port: &dyn Port| shared.port_states.link(port, IfaceId(n as u16)) == Link::Gone;
    ports.filter(|(n, port)| is_gone(*n, &***port)).map(|(_, port)| port.name().to_owned()).collect()
}

fn drops(context: &Context) -> Vec<Named> {
    context
        .shared
        .router
        .drop_counters()
        .map(|(name, count)| Named { name: name.to_owned(), count })
        .collect()
}

fn interfaces(context: &Context) -> Vec<Interface> {
    let shared = &context.shared;
    let ports = shared.ports.iter().zip(&shared.counters);
    let with_iface = shared.router.ifaces().iter().zip(ports);
    with_iface
        .enumerate()
        .map(|(n, (iface, (port, counters)))| {
            let count = counters.read();
            Interface {
                name: iface.name.clone(),
                mac: iface.mac.to_string(),
                mtu: iface.mtu_bytes,
                addresses: iface.addresses.iter().map(ToString::to_string).collect(),
                device: port.kind().word().to_owned(),
                link: shared.port_states.link(&**port, IfaceId(n as u16)).word().to_owned(),
                rx_frames: count.rx_frames,
                rx_bytes: count.rx_bytes,
                tx_frames: count.tx_frames,
                tx_bytes: count.tx_bytes,
                tx_lost: count.tx_lost,
            }
        })
        .collect()
}

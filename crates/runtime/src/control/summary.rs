//! The table at a glance: how many connections there are of each kind, and those that somebody wants to see first.

use super::entries::{EXTENDED, view};
use super::protocol::{ConnectionView, EntryOrder, LetInView, Named, Summary, WindowView};
use super::rules;
use super::select::Meant;
use stateway_core::conntrack::tcp::Window;
use stateway_core::conntrack::{Direction, Entry, EntryId, Filter, Proto, Status, listing};
use stateway_core::filter::LetIn;
use stateway_core::router::Router;
use stateway_core::time::Instant;
use std::collections::BTreeMap;

/// What somebody wants to see of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// So many of its connections.
    pub(super) entries: usize,
    pub(super) order: EntryOrder,
    pub(super) meant: Meant,
    /// The number of one that is shown in full.
    pub(super) show: Option<u32>,
}

/// Walks the table once.
pub(super) fn summary(router: &Router, look: &Look, now: Instant) -> Summary {
    let conntrack = router.conntrack();
    let mut summary = Summary { limit: conntrack.sysctls().max.into(), ..Summary::default() };
    let mut by_state: BTreeMap<String, u64> = BTreeMap::new();
    let mut first: BTreeMap<(u64, EntryId), Entry> = BTreeMap::new();
    let mut shown = None;
    conntrack.for_each(&Filter::default(), now, |id, entry| {
        summary.count += 1;
        summary.snat += u64::from(entry.status.contains(Status::SRC_NAT));
        summary.dnat += u64::from(entry.status.contains(Status::DST_NAT));
        *by_state.entry(kind(entry)).or_default() += 1;
        if look.show.is_some_and(|number| number == conntrack.number(entry)) {
            shown = Some(entry.clone());
        }
        if !look.meant.is(entry) {
            return;
        }
        summary.matching += 1;
        let place = (rank(entry, look.order, now), id);
        if first.len() < look.entries {
            first.insert(place, entry.clone());
        } else if first.first_key_value().is_some_and(|(last, _)| *last < place) {
            first.insert(place, entry.clone());
            first.pop_first();
        }
    });
    summary.by_state = by_state.into_iter().map(|(name, count)| Named { name, count }).collect();
    summary.newest = first.values().rev().map(|entry| view(conntrack, entry, now)).collect();
    summary.shown = shown.map(|entry| Box::new(in_full(router, &entry, now)));
    summary
}

/// `tcp ESTABLISHED`, `udp`.
fn kind(entry: &Entry) -> String {
    let name = listing::proto_name(entry.original.proto);
    entry.state_word().map_or(name.to_owned(), |state| format!("{name} {state}"))
}

/// What comes first has the highest.
fn rank(entry: &Entry, order: EntryOrder, now: Instant) -> u64 {
    let both = [Direction::Original, Direction::Reply].map(|direction| entry.counter(direction));
    match order {
        EntryOrder::Newest => entry.began_at.as_nanos(),
        EntryOrder::Oldest => u64::MAX - entry.began_at.as_nanos(),
        EntryOrder::Bytes => both.iter().map(|counter| counter.bytes).sum(),
        EntryOrder::Packets => both.iter().map(|counter| counter.packets).sum(),
        EntryOrder::Timeout => u64::MAX - entry.timeout(now).as_nanos() as u64,
    }
}

fn in_full(router: &Router, entry: &Entry, now: Instant) -> ConnectionView {
    let conntrack = router.conntrack();
    let windows = match entry.proto() {
        Proto::Tcp(tcp) => tcp.windows().map(window).to_vec(),
        Proto::Sctp(_) | Proto::Plain => Vec::new(),
    };
    let master = entry.master().and_then(|master| {
        let mut line = None;
        conntrack.for_each(&Filter::default(), now, |id, entry| {
            if id == master {
                line = Some(listing::entry(entry, now, EXTENDED));
            }
        });
        line
    });
    ConnectionView {
        entry: view(conntrack, entry, now),
        age: now.saturating_since(entry.began_at).as_secs_f64(),
        timeout: entry.timeout(now).as_secs_f64(),
        windows,
        master,
        let_in: let_in(router, entry),
    }
}

fn let_in(router: &Router, entry: &Entry) -> LetInView {
    let rules = router.rules();
    let Some(ruleset) = rules.for_family(entry.original.family) else { return LetInView::NotKnown };
    match ruleset.let_in(entry) {
        LetIn::By(rule) => {
            let (name, text) = rules::in_words(ruleset, rule);
            LetInView::Rule { name, text }
        }
        LetIn::ByOtherRules => LetInView::OtherRules,
        LetIn::NotKnown => LetInView::NotKnown,
    }
}

const fn window(window: Window) -> WindowView {
    let Window { end, max_end, max_win, max_ack, wscale, is_liberal } = window;
    WindowView { end, max_end, max_win, max_ack, wscale, is_liberal }
}

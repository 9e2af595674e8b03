//! The connection table as it changes from packet to packet.

#![forbid(unsafe_code)]

use crate::protocol::{Connection, Window};
use crate::run::micros;
use stateway_core::Tuple;
use stateway_core::conntrack::{Conntrack, Entry, EntryId, Filter, Helper, Proto, Status, listing};
use stateway_core::time::Instant;
use std::collections::BTreeMap;

/// What was in the table after the packet before.
#[derive(Default)]
pub(crate) struct Table {
    known: BTreeMap<EntryId, (Tuple, Connection)>,
    /// Connections seen so far.
    count: u32,
}

impl Table {
    /// The connections that are new or have changed, and the numbers of those that have gone.
    pub(crate) fn update(&mut self, conntrack: &Conntrack, now: Instant) -> (Vec<Connection>, Vec<u32>) {
        let mut known = BTreeMap::new();
        let mut changed = Vec::new();
        conntrack.for_each(&Filter::default(), now, |id, entry| {
            let before = self.known.remove(&id);
            let number = before.as_ref().map_or_else(
                || {
                    self.count += 1;
                    self.count
                },
                |(_, before)| before.number,
            );
            let connection = view(number, entry);
            if before.is_none_or(|(_, before)| before != connection) {
                changed.push(connection.clone());
            }
            known.insert(id, (entry.original, connection));
        });
        let gone = self.known.values().map(|(_, connection)| connection.number).collect();
        self.known = known;
        (changed, gone)
    }

    /// The number of the connection that began like this.
    pub(crate) fn number_of(&self, original: &Tuple) -> Option<u32> {
        let (_, connection) = self.known.values().find(|(of, _)| of == original)?;
        Some(connection.number)
    }
}

fn view(number: u32, entry: &Entry) -> Connection {
    let windows = match entry.proto() {
        Proto::Tcp(tcp) => Some(tcp.windows().map(|side| Window {
            end: side.end,
            max_end: side.max_end,
            max_win: side.max_win,
            wscale: side.wscale,
        })),
        Proto::Sctp(_) | Proto::Plain => None,
    };
    Connection {
        number,
        protocol: listing::proto_name(entry.original.proto),
        state: entry.state_word(),
        original: entry.original.to_string(),
        reply: entry.reply().to_string(),
        status: entry.status.iter_names().map(|(name, _): (&'static str, Status)| name).collect(),
        mark: entry.mark,
        helper: entry.helper.map(Helper::name),
        expires_us: micros(entry.expires_at),
        windows,
    }
}

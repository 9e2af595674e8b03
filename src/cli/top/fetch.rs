//! Asks the router, look after look, in a thread of its own: keys are answered though the router is slow.

use super::snapshot::Snapshot;
use anyhow::{Context as _, anyhow};
use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use stateway_runtime::control::protocol::{EntryMatch, EntryOrder};
use stateway_runtime::control::{Client, Command, Reply};
use std::time::Duration;

/// What is to be seen of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) entries: usize,
    pub(super) order: EntryOrder,
    pub(super) matching: EntryMatch,
    /// The connection that is shown in full.
    pub(super) show: Option<u32>,
}

/// A look, or why there is none any more.
pub(super) enum Heard {
    Look(Box<Snapshot>),
    Gone(String),
}

/// Connects once more.
pub(super) type Connect = Box<dyn FnMut() -> anyhow::Result<Client> + Send>;

pub(super) struct Fetcher {
    /// What is asked from now on. The look after it comes at once.
    pub(super) ask: Sender<Query>,
    pub(super) heard: Receiver<Heard>,
}

impl Fetcher {
    /// Begins. A router that ended is tried again at each interval, if there is a way to.
    ///
    /// # Errors
    /// No thread is to be had.
    pub(super) fn start(
        client: Client,
        again: Option<Connect>,
        query: Query,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        let (ask, asked) = bounded(16);
        // One look waits, no more: what nobody has seen yet is no news.
        let (sender, heard) = bounded(1);
        let run = move || run(client, again, query, interval, &asked, &sender);
        std::thread::Builder::new()
            .name("looks".into())
            .spawn(run)
            .context("no thread to ask the router with")?;
        Ok(Self { ask, heard })
    }
}

fn run(
    client: Client,
    mut again: Option<Connect>,
    mut query: Query,
    interval: Duration,
    asked: &Receiver<Query>,
    sender: &Sender<Heard>,
) {
    let mut client = Some(client);
    loop {
        let heard = match &mut client {
            Some(client) => match look(client, &query) {
                Ok(snapshot) => Some(Heard::Look(Box::new(snapshot))),
                Err(error) => Some(Heard::Gone(format!("{error:#}"))),
            },
            None => None,
        };
        if matches!(heard, Some(Heard::Gone(_))) {
            client = None;
        }
        if heard.is_some_and(|heard| sender.send(heard).is_err()) {
            return;
        }
        select! {
            recv(asked) -> asked => match asked {
                Ok(asked) => query = asked,
                Err(_) => return,
            },
            recv(after(interval)) -> _ => {}
        }
        if client.is_none() {
            client = again.as_mut().and_then(|connect| connect().ok());
        }
    }
}

/// One look at the router.
///
/// # Errors
/// It went away, or does not understand.
pub(super) fn look(client: &mut Client, query: &Query) -> anyhow::Result<Snapshot> {
    let Query { entries, order, matching, show } = query.clone();
    let mut snapshot = Snapshot::default();
    let commands = [
        Command::Status,
        Command::Interfaces,
        Command::Drops,
        Command::ConntrackStats,
        Command::Rules,
        Command::ConntrackSummary { entries, order, matching, show },
    ];
    for command in commands {
        client.ask(&command, |reply| {
            match reply {
                Reply::Status(status) => snapshot.status = Some(status),
                Reply::Interfaces { interfaces } => snapshot.interfaces = interfaces,
                Reply::Drops { drops } => snapshot.drops = drops,
                Reply::Stats { stats, invalid, .. } => (snapshot.stats, snapshot.invalid) = (stats, invalid),
                Reply::Rules { rules, .. } => snapshot.rules = rules,
                Reply::Summary(summary) => snapshot.summary = summary,
                other => return Err(anyhow!("the router answered something else: {other:?}")),
            }
            Ok(())
        })?;
    }
    Ok(snapshot)
}

//! Listens to the router, and tells the pages what it says.
//!
//! ```text
//!   router ── watch ────────→ verdicts ┐
//!          ── events ───────→ what becomes of connections ├→ Memory ─→ pages
//!          ── a look a second → rules, table, ports ┘
//! ```
//!
//! The router never waits for us: what we do not read in time is lost, and it says how much that was. It is asked for no more
//! packets in a second than cost it little.

use super::memory::Memory;
use crate::cli::conntrack::RouterArgs;
use crossbeam_channel::{Receiver, RecvTimeoutError, after, bounded};
use serde_json::{Value, json};
use stateway_lab::live;
use stateway_lab::why;
use stateway_runtime::control::protocol::{EntryFilter, EntryMatch, EntryOrder, Verdict, VerdictFilter};
use stateway_runtime::control::{Client, Command, Reply};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Packets a second that we want to be told of, each with its way, which is some kilobytes.
const RATE: u32 = 200;
/// How often the router is asked how things are, while somebody looks on, and whether it is there again.
const INTERVAL: Duration = Duration::from_secs(1);
/// As many connections of the table are shown.
pub(super) const MOST_ENTRIES: usize = 500;

/// Begins: to the end of the process.
///
/// # Errors
/// No thread is to be had.
pub(super) fn begin(router: Arc<RouterArgs>, memory: Arc<Memory>) -> anyhow::Result<()> {
    let run = move || {
        loop {
            // Where it is not there, what was said last stands.
            if let Ok([packets, events, looks]) = connections(&router) {
                listen(packets, events, looks, &memory);
                memory.set("router", json!({ "is_there": false }).to_string());
            }
            let _ = after(INTERVAL).recv();
        }
    };
    thread::Builder::new().name("feed".into()).spawn(run)?;
    Ok(())
}

fn connections(router: &RouterArgs) -> Result<[Client; 3], crate::cli::Failure> {
    Ok([router.connect()?, router.connect()?, router.connect()?])
}

/// Hears the router until it goes away.
fn listen(packets: Client, events: Client, looks: Client, memory: &Memory) {
    let (alive, gone) = bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            // The one who hears most is the one who ends the others.
            hear(packets, &watch(), memory, packet);
            drop(alive);
        });
        scope.spawn(|| hear(events, &conntrack_events(), memory, event));
        scope.spawn(|| look(looks, memory, &gone));
    });
}

fn watch() -> Command {
    Command::Watch { filter: VerdictFilter::default(), explain: true, per_second: Some(RATE) }
}

fn conntrack_events() -> Command {
    Command::ConntrackEvents { filter: EntryFilter::default(), expectations: false, kinds: Vec::new() }
}

/// Passes on what comes, until nothing more does.
fn hear(mut client: Client, command: &Command, memory: &Memory, tell: impl Fn(Reply, &Memory)) {
    if client.send(command).is_err() {
        return;
    }
    while let Ok(Some(reply)) = client.next_reply() {
        match reply {
            Reply::Watching => {}
            Reply::Lost { events } => memory.tell("lost", json!({ "count": events }).to_string()),
            reply => tell(reply, memory),
        }
    }
}

fn packet(reply: Reply, memory: &Memory) {
    if let Reply::Verdict(mut verdict) = reply {
        let values = values(&verdict);
        // The same as its steps, in words.
        verdict.way.clear();
        memory.tell("packet", json!({ "verdict": verdict, "values": values }).to_string());
    }
}

fn event(reply: Reply, memory: &Memory) {
    if let Reply::Event(event) = reply {
        memory.tell("connection", json!(event).to_string());
    }
}

/// For each step of a packet's way that is a rule which said no: what the packet has in place of what the rule wants.
fn values(verdict: &Verdict) -> Vec<Option<why::Value>> {
    let of = |kind: &str, field: &str| {
        let step = verdict.steps.iter().find(|step| step["step"] == kind && !step[field].is_null());
        step.and_then(|step| step[field].as_str())
    };
    let destination =
        verdict.steps.iter().find(|step| step["step"] == "translated" && step["side"] == "destination");
    let translated = destination.and_then(|step| step["to"].as_str());
    let out = verdict.out.first().map(String::as_str).or_else(|| of("routed", "out"));
    let Some(seen) = live::seen(verdict.clone()) else { return Vec::new() };
    let value = |step: &Value| {
        let failed = step["failed"].as_str()?;
        why::value_of(failed, &seen, translated, || out.map(str::to_owned))
    };
    verdict.steps.iter().map(value).collect()
}

/// Asks how things are, as long as the router is there: `gone` ends.
fn look(mut client: Client, memory: &Memory, gone: &Receiver<()>) {
    if tell_once(&mut client, memory).is_err() {
        return;
    }
    loop {
        if memory.watchers() > 0 && tell_how_things_are(&mut client, memory).is_err() {
            return;
        }
        if gone.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// What stays as it is while the router runs.
fn tell_once(client: &mut Client, memory: &Memory) -> anyhow::Result<()> {
    client.ask(&Command::Status, |reply| {
        if let Reply::Status(status) = reply {
            let text = json!({ "is_there": true, "version": status.version, "pid": status.pid, "mode": status.mode });
            memory.set("router", text.to_string());
        }
        Ok(())
    })?;
    tell_how_things_are(client, memory)
}

fn tell_how_things_are(client: &mut Client, memory: &Memory) -> anyhow::Result<()> {
    let table = Command::ConntrackSummary {
        entries: MOST_ENTRIES,
        order: EntryOrder::Newest,
        matching: EntryMatch::default(),
        show: None,
    };
    for command in [Command::Interfaces, Command::Rules, table] {
        client.ask(&command, |reply| {
            match reply {
                Reply::Interfaces { interfaces } => {
                    let port = |port: &stateway_runtime::control::protocol::Interface| json!({ "name": port.name, "addresses": port.addresses });
                    memory.set("ports", json!(interfaces.iter().map(port).collect::<Vec<_>>()).to_string());
                }
                Reply::Rules { rules, chains } => {
                    memory.set("rules", json!({ "rules": rules, "chains": chains }).to_string());
                }
                Reply::Summary(summary) => memory.set("table", json!(summary).to_string()),
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(())
}

//! `stateway top`: connections, states, rates and drops of a running router, live.

use super::conntrack::RouterArgs;
use super::render::{self, Format};
use super::{Failure, Result};
use anyhow::anyhow;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use stateway_runtime::control::protocol::{EntryMatch, EntryOrder};
use stateway_runtime::control::{Client, Command, Reply};
use stateway_runtime::terminal;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

mod screen;
mod snapshot;

use snapshot::{Rates, Snapshot};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    router: RouterArgs,
    /// Print one look and end; so does standard output that is no terminal, or a dumb one
    #[arg(long)]
    once: bool,
    /// Print what Prometheus collects, as for the textfile collector of `node_exporter`, and end
    #[arg(long, conflicts_with_all = ["once", "format"])]
    metrics: bool,
    /// Seconds from one look to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// With --once: how to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: Args) -> Result {
    let mut client = args.router.connect()?;
    let interval = Duration::from_secs_f64(args.interval);
    if args.metrics {
        return metrics(&mut client).map_err(Failure::Input);
    }
    let result = if args.once || args.format == Format::Json || !can_redraw() {
        once(&mut client, interval, args.format)
    } else {
        live(&mut client, interval)
    };
    result.map_err(Failure::Input)
}

fn seconds(text: &str) -> anyhow::Result<f64> {
    let seconds: f64 = text.parse()?;
    if (0.1..=3600.0).contains(&seconds) { Ok(seconds) } else { Err(anyhow!("from 0.1 to 3600")) }
}

fn metrics(client: &mut Client) -> anyhow::Result<()> {
    for reply in client.call(&Command::Metrics)? {
        if let Reply::Text { text } = reply {
            render::line(text.trim_end());
        }
    }
    Ok(())
}

fn can_redraw() -> bool {
    io::stdout().is_terminal() && terminal::can_move()
}

/// Two looks make one rate.
fn once(client: &mut Client, interval: Duration, format: Format) -> anyhow::Result<()> {
    let before = look(client, 10)?;
    let _ = crossbeam_channel::after(interval).recv();
    let now = look(client, 10)?;
    let rates = Rates::between(&before, &now);
    match format {
        Format::Json => render::json(&serde_json::json!({ "now": now, "rates": rates })),
        Format::Text => {
            for (title, lines) in screen::sections(&now, &rates) {
                render::line(&title);
                for line in &lines {
                    render::line(&format!("  {line}"));
                }
            }
        }
    }
    Ok(())
}

fn live(client: &mut Client, interval: Duration) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let result = redraw(&mut terminal, client, interval);
    ratatui::restore();
    result
}

fn redraw(
    terminal: &mut ratatui::DefaultTerminal,
    client: &mut Client,
    interval: Duration,
) -> anyhow::Result<()> {
    let mut before = look(client, 0)?;
    loop {
        if is_over(interval)? {
            return Ok(());
        }
        let room = usize::from(terminal.size()?.height);
        let now = look(client, room)?;
        let rates = Rates::between(&before, &now);
        terminal.draw(|frame| screen::draw(frame, &now, &rates))?;
        before = now;
    }
}

/// Waits for so long; says whether the user has had enough.
fn is_over(interval: Duration) -> anyhow::Result<bool> {
    if !event::poll(interval)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else { return Ok(false) };
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let ends = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) || control_c;
    Ok(ends && key.kind == KeyEventKind::Press)
}

/// One look at the router, with its `newest` connections.
fn look(client: &mut Client, newest: usize) -> anyhow::Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    let commands = [
        Command::Status,
        Command::Interfaces,
        Command::Drops,
        Command::ConntrackStats,
        Command::ConntrackSummary {
            entries: newest,
            order: EntryOrder::Newest,
            matching: EntryMatch::default(),
            show: None,
        },
    ];
    for command in commands {
        client.ask(&command, |reply| {
            match reply {
                Reply::Status(status) => snapshot.status = Some(status),
                Reply::Interfaces { interfaces } => snapshot.interfaces = interfaces,
                Reply::Drops { drops } => snapshot.drops = drops,
                Reply::Stats { stats, .. } => snapshot.stats = stats,
                Reply::Summary(summary) => snapshot.summary = summary,
                other => return Err(anyhow!("the router answered something else: {other:?}")),
            }
            Ok(())
        })?;
    }
    Ok(snapshot)
}

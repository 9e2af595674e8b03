//! The terminal: shows what the router said as it comes, and hears keys and signals.

use super::app::{App, Next};
use super::draw;
use super::fetch::{Connect, Fetcher, Heard};
use crate::cli::conntrack::RouterArgs;
use crate::cli::{Failure, render};
use anyhow::Context as _;
use crossbeam_channel::{Receiver, bounded, never, select, tick};
use crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;
use stateway_runtime::control::Client;
use std::time::Duration;

/// A router that says nothing for so long is said to.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) fn run(client: Client, router: RouterArgs, interval: Duration) -> anyhow::Result<()> {
    let mut app = App::new(render::has_colours());
    // Another router than the one that was meant is none.
    let names_one = router.names_one();
    let again: Connect = Box::new(move || {
        router.connect().map_err(|failure| match failure {
            Failure::Input(error) | Failure::Machine(error) => error,
            Failure::Differs | Failure::Told(_) => anyhow::anyhow!("it failed"),
        })
    });
    let fetcher = Fetcher::start(client, names_one.then_some(again), app.query(), interval)?;
    let signals = listen_to_signals()?;
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, &mut app, &fetcher, &signals, interval);
    ratatui::restore();
    result
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    app: &mut App,
    fetcher: &Fetcher,
    signals: &Receiver<()>,
    interval: Duration,
) -> anyhow::Result<()> {
    let events = listen_to_events()?;
    let silence = tick(SILENCE.max(interval * 3));
    let mut looks = fetcher.heard.clone();
    let mut is_heard = true;
    loop {
        terminal.draw(|frame| draw::screen(frame, app))?;
        select! {
            recv(looks) -> heard => match heard {
                Ok(Heard::Look(snapshot)) => {
                    is_heard = true;
                    app.look(*snapshot);
                }
                Ok(Heard::Gone(why)) => app.gone(why),
                Err(_) => looks = never(),
            },
            recv(events) -> event => match event {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => match app.key(key) {
                    Next::Nothing => {}
                    // So many keys do not wait; the next one asks again.
                    Next::Ask => drop(fetcher.ask.try_send(app.query())),
                    Next::Quit => return Ok(()),
                },
                // It is drawn anew, in another size perhaps.
                Ok(_) => {}
                // The terminal is gone.
                Err(_) => return Ok(()),
            },
            recv(silence) -> _ => app.is_silent = !std::mem::replace(&mut is_heard, false),
            recv(signals) -> _ => return Ok(()),
        }
    }
}

fn listen_to_events() -> anyhow::Result<Receiver<Event>> {
    let (sender, events) = bounded(64);
    let read = move || while event::read().is_ok_and(|event| sender.send(event).is_ok()) {};
    std::thread::Builder::new().name("keys".into()).spawn(read).context("no thread for keys")?;
    Ok(events)
}

/// Where it is told that somebody wants us to end: the terminal is to be left as it was.
fn listen_to_signals() -> anyhow::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGTERM, SIGHUP]).context("cannot catch signals")?;
    let (sender, told) = bounded(1);
    let wait = move || {
        if signals.forever().next().is_some() {
            let _ = sender.send(());
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("no thread for signals")?;
    Ok(told)
}

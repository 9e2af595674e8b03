//! What is shown, and which keys do what.

use super::fetch::Query;
use super::filter;
use super::snapshot::{Rates, Snapshot};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use stateway_runtime::control::protocol::{EntryMatch, EntryOrder, EntryView};
use std::collections::VecDeque;

/// As many as the widest terminal shows.
const HISTORY: usize = 512;
/// Connections that are asked for: more than a screen has lines, so that one can scroll.
const ENTRIES: usize = 256;

/// Keys, and what they do.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("q, Ctrl-C", "end it; Esc leaves a page, and then ends it"),
    ("Tab, 1 2 3", "the next page: overview, connections, rules and drops"),
    ("s, S", "sort connections by the next, or the last, of: newest, oldest, bytes, packets, timeout"),
    ("r", "sort rules by packets a second, or in their order"),
    ("/", "list what agrees alone, such as `tcp ESTABLISHED 192.0.2.0/24 :22`; empty: all"),
    ("↑ ↓, j k", "choose; PgUp, PgDn, Home, End go further"),
    ("Enter", "the chosen connection in full: state, windows, timer"),
    ("p, blank", "pause, and go on"),
    ("?", "this page"),
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Page {
    #[default]
    Overview,
    Connections,
    Rules,
}

const PAGES: [Page; 3] = [Page::Overview, Page::Connections, Page::Rules];

/// The sorts of connections, in the order in which `s` goes through them.
pub(super) const ORDERS: [(EntryOrder, &str); 5] = [
    (EntryOrder::Newest, "newest"),
    (EntryOrder::Oldest, "oldest"),
    (EntryOrder::Bytes, "bytes"),
    (EntryOrder::Packets, "packets"),
    (EntryOrder::Timeout, "timeout"),
];

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// Something else is to be asked of the router.
    Ask,
    Quit,
}

/// Rates of the last looks, the newest in front.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) packets: VecDeque<u64>,
    pub(super) new_connections: VecDeque<u64>,
    pub(super) dropped: VecDeque<u64>,
}

#[derive(Debug, Default)]
pub(super) struct App {
    pub(super) now: Snapshot,
    pub(super) rates: Rates,
    pub(super) history: History,
    pub(super) page: Page,
    pub(super) order: EntryOrder,
    pub(super) rules_by_rate: bool,
    pub(super) matching: EntryMatch,
    /// What was typed for it.
    pub(super) filter: String,
    /// What is being typed, and what is wrong with it.
    pub(super) typing: Option<String>,
    pub(super) problem: Option<String>,
    pub(super) selected: usize,
    /// The number of the connection that is shown in full.
    pub(super) shown: Option<u32>,
    pub(super) shows_help: bool,
    pub(super) is_paused: bool,
    /// The router does not answer, though it is there.
    pub(super) is_silent: bool,
    /// Why it answers no more.
    pub(super) gone: Option<String>,
    pub(super) has_colours: bool,
}

impl App {
    pub(super) fn new(has_colours: bool) -> Self {
        Self { has_colours, ..Self::default() }
    }

    /// What is to be asked of the router.
    pub(super) fn query(&self) -> Query {
        Query { entries: ENTRIES, order: self.order, matching: self.matching.clone(), show: self.shown }
    }

    /// The router has answered.
    pub(super) fn look(&mut self, now: Snapshot) {
        (self.is_silent, self.gone) = (false, None);
        if self.is_paused {
            return;
        }
        if self.now.status.is_some() {
            self.rates = Rates::between(&self.now, &now);
            let History { packets, new_connections, dropped } = &mut self.history;
            let rates = &self.rates;
            for (history, rate) in [
                (packets, rates.packets()),
                (new_connections, rates.new_connections),
                (dropped, rates.dropped()),
            ] {
                history.push_front(rate.round() as u64);
                history.truncate(HISTORY);
            }
        }
        self.now = now;
        self.select(self.selected);
    }

    /// The router answers no more: what is known of it stays on the screen.
    pub(super) fn gone(&mut self, why: String) {
        self.gone = Some(why);
        self.rates = Rates::default();
    }

    /// The connections that are listed.
    pub(super) fn entries(&self) -> &[EntryView] {
        &self.now.summary.newest
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        if self.typing.is_some() {
            return self.type_key(key.code, is_control);
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc => return self.leave(),
            KeyCode::Char('?' | 'h') => self.shows_help = !self.shows_help,
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(PAGES.len() - 1),
            KeyCode::Char(page @ '1'..='3') => self.page = PAGES[page as usize - '1' as usize],
            KeyCode::Char('s') => return self.sort(1),
            KeyCode::Char('S') => return self.sort(ORDERS.len() - 1),
            KeyCode::Char('r') => self.rules_by_rate = !self.rules_by_rate,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.typing = Some(self.filter.clone()),
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected + 1),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(10)),
            KeyCode::PageDown => self.select(self.selected + 10),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Enter => return self.show_selected(),
            _ => {}
        }
        Next::Nothing
    }

    /// Leaves what is on top; where nothing is, the program.
    fn leave(&mut self) -> Next {
        if std::mem::take(&mut self.shows_help) {
            return Next::Nothing;
        }
        if self.shown.take().is_some() {
            return Next::Ask;
        }
        Next::Quit
    }

    fn turn(&mut self, by: usize) {
        let at = PAGES.iter().position(|page| *page == self.page).unwrap_or(0);
        self.page = PAGES[(at + by) % PAGES.len()];
    }

    fn sort(&mut self, by: usize) -> Next {
        let at = ORDERS.iter().position(|(order, _)| *order == self.order).unwrap_or(0);
        self.order = ORDERS[(at + by) % ORDERS.len()].0;
        self.selected = 0;
        Next::Ask
    }

    fn select(&mut self, line: usize) {
        self.selected = line.min(self.entries().len().saturating_sub(1));
    }

    fn show_selected(&mut self) -> Next {
        if self.shown.take().is_some() {
            return Next::Ask;
        }
        self.shown = self.entries().get(self.selected).map(|entry| entry.id);
        if self.shown.is_some() { Next::Ask } else { Next::Nothing }
    }

    fn type_key(&mut self, key: KeyCode, is_control: bool) -> Next {
        let Some(text) = &mut self.typing else { return Next::Nothing };
        self.problem = None;
        match key {
            KeyCode::Char('u') if is_control => text.clear(),
            KeyCode::Char(c) if !is_control => text.push(c),
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Esc => self.typing = None,
            KeyCode::Enter => match filter::parse(text) {
                Ok(matching) => {
                    text.trim().clone_into(&mut self.filter);
                    (self.matching, self.typing, self.selected) = (matching, None, 0);
                    return Next::Ask;
                }
                Err(problem) => self.problem = Some(problem),
            },
            _ => {}
        }
        Next::Nothing
    }
}

//! How it looks: at least 40 columns by 10 lines, made for 80 by 24, and with more of everything from 120 by 36 on.
//!
//! What does not fit is never silently missing: the title of a list says how much of it is shown, and `?` says which
//! columns and lists this screen is too small for.

mod connections;
mod detail;
mod help;
mod lists;
mod ports;

use super::app::{App, Page};
use super::numbers::{duration, short};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Gauge, Paragraph, Sparkline};
use std::collections::VecDeque;

const LEAST: (u16, u16) = (40, 10);

/// The whole screen.
pub(super) fn screen(frame: &mut Frame, app: &App) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("a terminal of {}x{} at least", LEAST.0, LEAST.1);
        return frame.render_widget(Paragraph::new(text), area);
    }
    let notices = notices(app);
    let [title, table, notice, body, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(notices.len() as u16),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(headline(app), title);
    draw_table(frame, app, table);
    frame.render_widget(Paragraph::new(notices), notice);
    match app.page {
        _ if app.shows_help => help::draw(frame, app, body),
        _ if app.shown.is_some() => detail::draw(frame, app, body),
        Page::Overview => overview(frame, app, body),
        Page::Connections => connections::draw(frame, app, body),
        Page::Rules => rules_and_drops(frame, app, body),
    }
    frame.render_widget(bottom(app), footer);
}

/// Room for more than the most needed.
const fn is_large(area: Rect) -> bool {
    area.width >= 120 && area.height >= 34
}

fn colour(app: &App, colour: Color) -> Style {
    if app.has_colours { Style::new().fg(colour) } else { Style::new() }
}

const fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// A list's title, with a line over the list, and how many of so many are shown.
fn titled(app: &App, title: &str, shown: usize, all: usize) -> Block<'static> {
    let title = if shown < all { format!(" {title}: {shown} of {all} ") } else { format!(" {title} ") };
    Block::new()
        .borders(Borders::TOP)
        .border_style(colour(app, Color::DarkGray))
        .title(Span::styled(title, bold()))
}

fn headline(app: &App) -> Paragraph<'static> {
    let Some(status) = &app.now.status else { return Paragraph::new("stateway: no answer yet") };
    let uptime = duration(status.uptime_seconds);
    let file = status.file.as_deref().map_or(String::new(), |file| format!("  {file}"));
    Paragraph::new(Line::from(vec![
        Span::styled(format!("stateway {}", status.version), bold()),
        format!("  {} mode, up {uptime}, pid {}{file}", status.mode, status.pid).into(),
    ]))
}

/// How full the table is, and how the rate of packets went.
fn draw_table(frame: &mut Frame, app: &App, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(1).areas(area);
    let (count, limit) = (app.now.summary.count, app.now.summary.limit.max(1));
    let ratio = (count as f64 / limit as f64).clamp(0.0, 1.0);
    let colour_of = if ratio > 0.9 { Color::Red } else { Color::Blue };
    let gauge = Gauge::default()
        .ratio(ratio)
        .use_unicode(true)
        .gauge_style(colour(app, colour_of))
        .label(format!("{count} of {limit} connections, {} new/s", short(app.rates.new_connections)));
    frame.render_widget(gauge, left);
    let label = format!("{} packets/s", short(app.rates.packets()));
    draw_history(frame, app, right, &label, &app.history.packets);
}

/// A rate, and how it went: the newest on the right.
fn draw_history(frame: &mut Frame, app: &App, area: Rect, label: &str, history: &VecDeque<u64>) {
    let [name, line] = Layout::horizontal([Constraint::Length(16), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(label.to_owned()), name);
    let width = usize::from(line.width);
    // What is not known yet stays empty, on the left.
    let before = width.saturating_sub(history.len());
    let known: Vec<u64> = history.iter().take(width).rev().copied().collect();
    let bars = std::iter::repeat_n(0, before).chain(known);
    frame.render_widget(Sparkline::default().data(bars).style(colour(app, Color::Green)), line);
}

/// What must not be overlooked.
fn notices(app: &App) -> Vec<Line<'static>> {
    let mut notices = Vec::new();
    let alarm = colour(app, Color::Red).add_modifier(Modifier::BOLD);
    if let Some(why) = &app.gone {
        let text = format!("the router has ended; what is shown is the last that it said ({why})");
        notices.push(Line::styled(text, alarm));
    } else if app.is_silent {
        notices.push(Line::styled("the router does not answer", alarm));
    }
    match app.now.gone() {
        [] => {}
        [port] => {
            notices.push(Line::styled(format!("port {port} is gone: its interface was deleted"), alarm));
        }
        ports => {
            let text = format!("ports {} are gone: their interfaces were deleted", ports.join(" "));
            notices.push(Line::styled(text, alarm));
        }
    }
    if app.is_paused {
        notices.push(Line::styled("paused; p goes on", colour(app, Color::Yellow)));
    }
    notices
}

fn overview(frame: &mut Frame, app: &App, area: Rect) {
    let large = is_large(area);
    let most_ports = if large { 12 } else { 4 };
    let ports = app.now.interfaces.len().min(most_ports) as u16 + 2;
    let lists = if large { 12 } else { 6 };
    let histories = if large { 4 } else { 0 };
    let [top, above, middle, below] = Layout::vertical([
        Constraint::Length(histories),
        Constraint::Length(ports),
        Constraint::Length(lists),
        Constraint::Min(3),
    ])
    .areas(area);
    if large {
        let [first, second] = Layout::vertical([Constraint::Length(2); 2]).areas(top);
        let new = format!("{} new/s", short(app.rates.new_connections));
        draw_history(frame, app, first, &new, &app.history.new_connections);
        let dropped = format!("{} dropped/s", short(app.rates.dropped()));
        draw_history(frame, app, second, &dropped, &app.history.dropped);
    }
    ports::draw(frame, app, above);
    let thirds: [Rect; 4] = if large {
        Layout::horizontal([Constraint::Fill(1); 4]).spacing(2).areas(middle)
    } else {
        // States have no rate.
        let widths = [Constraint::Fill(4), Constraint::Fill(5), Constraint::Fill(5)];
        let [states, drops, rules] = Layout::horizontal(widths).spacing(1).areas(middle);
        [states, drops, rules, Rect::ZERO]
    };
    lists::states(frame, app, thirds[0]);
    lists::drops(frame, app, thirds[1]);
    lists::refusing_rules(frame, app, thirds[2]);
    if large {
        lists::invalid(frame, app, thirds[3]);
    }
    connections::draw(frame, app, below);
}

fn rules_and_drops(frame: &mut Frame, app: &App, area: Rect) {
    let lists = (area.height / 3).clamp(4, 14);
    let [above, below] = Layout::vertical([Constraint::Length(lists), Constraint::Min(3)]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(1).areas(above);
    lists::drops(frame, app, left);
    lists::invalid(frame, app, right);
    lists::rules(frame, app, below);
}

/// What is being typed, or the keys that one needs first.
fn bottom(app: &App) -> Paragraph<'static> {
    if let Some(text) = &app.typing {
        let problem = app.problem.as_ref().map_or(String::new(), |problem| format!("   {problem}"));
        return Paragraph::new(Line::from(vec![
            format!("/{text}▏").into(),
            Span::styled(problem, colour(app, Color::Red)),
        ]));
    }
    let keys = if app.shows_help || app.shown.is_some() {
        "Esc back  q end"
    } else {
        "? keys  q end  Tab page  s sort  / filter  ↑↓ Enter in full  p pause"
    };
    Paragraph::new(Line::styled(keys, colour(app, Color::DarkGray)))
}

#[cfg(test)]
mod tests;

//! Counts by name: states of connections, reasons for drops, reasons for INVALID, rules.

use super::ports::number;
use super::{App, Color, Rect, colour, titled};
use crate::cli::top::numbers::{fitted, short};
use crate::cli::top::snapshot::refuses;
use ratatui::Frame;
use ratatui::layout::Constraint;
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use stateway_runtime::control::protocol::{Named, RuleCount};
use std::cmp::Reverse;

/// A name, how often, and how often a second.
type Counted = (String, u64, Option<f64>);

pub(super) fn states(frame: &mut Frame, app: &App, area: Rect) {
    let states = app.now.summary.by_state.iter().map(|state| (state.name.clone(), state.count, None));
    draw(frame, app, area, "Connections by state", states.collect());
}

pub(super) fn drops(frame: &mut Frame, app: &App, area: Rect) {
    draw(frame, app, area, "Drops by reason", met(&app.now.drops, &app.rates.drops));
}

pub(super) fn invalid(frame: &mut Frame, app: &App, area: Rect) {
    draw(frame, app, area, "INVALID by reason", met(&app.now.invalid, &app.rates.invalid));
}

/// Rules and policies that let nothing pass, by what they refused.
pub(super) fn refusing_rules(frame: &mut Frame, app: &App, area: Rect) {
    let rules = with_rates(app).filter(|(rule, _)| refuses(rule) && rule.packets > 0);
    draw(
        frame,
        app,
        area,
        "Drops by rule",
        rules.map(|(rule, rate)| (placed(rule), rule.packets, Some(rate))).collect(),
    );
}

/// Every rule, and what it counted.
pub(super) fn rules(frame: &mut Frame, app: &App, area: Rect) {
    let mut rules: Vec<(&RuleCount, f64)> = with_rates(app).collect();
    if app.rules_by_rate {
        rules.sort_by_key(|(rule, rate)| Reverse((rate.round() as u64, rule.packets)));
    }
    let room = usize::from(area.height.saturating_sub(2));
    let width = rules.iter().take(room).map(|(rule, _)| placed(rule).chars().count()).max();
    let width = width.unwrap_or(0).clamp(14, 40);
    // What the counters and the place leave, and a blank between them.
    let text = usize::from(area.width).saturating_sub(3 * 8 + width + 1);
    let shown = rules.iter().take(room).map(|(rule, rate)| {
        let style = if refuses(rule) { colour(app, Color::Red) } else { colour(app, Color::Green) };
        Row::new(vec![
            number(short(rule.packets as f64)),
            number(short(rule.bytes as f64)),
            number(short(*rate)),
            Cell::from(fitted(placed(rule), width)).style(style),
            Cell::from(fitted(described(rule), text)),
        ])
    });
    let widths = [
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(width as u16),
        Constraint::Fill(1),
    ];
    let header = Row::new(vec![
        number("pkts".into()),
        number("bytes".into()),
        number("pkts/s".into()),
        Cell::from("rule"),
        Cell::from("what it says"),
    ]);
    let sorted = if app.rules_by_rate { "Rules, by packets a second" } else { "Rules, in their order" };
    let block = titled(app, sorted, rules.len().min(room), rules.len());
    let table = Table::new(shown, widths).header(header.style(colour(app, Color::Cyan))).block(block);
    frame.render_widget(table, area);
}

fn with_rates(app: &App) -> impl Iterator<Item = (&RuleCount, f64)> {
    let rates = app.rates.rules.iter().copied().chain(std::iter::repeat(0.0));
    app.now.rules.iter().zip(rates)
}

fn placed(rule: &RuleCount) -> String {
    if rule.family == 6 { format!("{} (IPv6)", name(rule)) } else { name(rule) }
}

/// The table `filter` is what one expects.
fn name(rule: &RuleCount) -> String {
    rule.name.strip_prefix("filter/").unwrap_or(&rule.name).to_owned()
}

/// The rule without its chain, which stands beside it.
fn described(rule: &RuleCount) -> String {
    if rule.name.ends_with("/policy") {
        return format!("policy {}", rule.text);
    }
    let text = rule.text.strip_prefix("-A ").and_then(|text| text.split_once(' '));
    text.map_or("every packet", |(_, text)| text).to_owned()
}

/// Only what was ever met.
fn met(counts: &[Named], rates: &[f64]) -> Vec<Counted> {
    let rates = rates.iter().copied().chain(std::iter::repeat(0.0));
    let met = counts.iter().zip(rates).filter(|(reason, _)| reason.count > 0);
    met.map(|(reason, rate)| (reason.name.clone(), reason.count, Some(rate))).collect()
}

/// What happens most now comes first, and then what happened most.
fn draw(frame: &mut Frame, app: &App, area: Rect, title: &str, mut counts: Vec<Counted>) {
    counts.sort_by_key(|(_, count, rate)| Reverse((rate.unwrap_or(0.0).round() as u64, *count)));
    let room = usize::from(area.height.saturating_sub(1));
    let block = titled(app, title, counts.len().min(room), counts.len());
    if counts.is_empty() {
        return frame.render_widget(Paragraph::new("none").block(block), area);
    }
    let has_rates = counts.iter().any(|(_, _, rate)| rate.is_some());
    let mut widths = vec![Constraint::Fill(1), Constraint::Length(6)];
    if has_rates {
        widths.push(Constraint::Length(6));
    }
    let names = usize::from(area.width).saturating_sub(7 * (widths.len() - 1));
    let rows = counts.iter().take(room).map(|(name, count, rate)| {
        let mut cells = vec![Cell::from(fitted(name.clone(), names)), number(short(*count as f64))];
        cells.extend(rate.map(|rate| number(format!("{}/s", short(rate)))));
        Row::new(cells)
    });
    frame.render_widget(Table::new(rows, widths).block(block), area);
}

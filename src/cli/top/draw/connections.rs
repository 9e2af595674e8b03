//! The connections that were asked for, one of which is chosen.

use super::ports::number;
use super::{App, Color, Rect, colour, titled};
use crate::cli::top::app::ORDERS;
use crate::cli::top::numbers::{bytes, duration, fitted, flow, short, state};
use ratatui::Frame;
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};
use stateway_runtime::control::protocol::{EntryView, FlowView};

/// Columns that a wide screen has besides.
pub(super) const MORE: [&str; 3] = ["answers", "packets", "mark"];

/// In front of the chosen one.
const SYMBOL: &str = "> ";

pub(super) fn draw(frame: &mut Frame, app: &App, area: Rect) {
    let entries = app.entries();
    let room = usize::from(area.height.saturating_sub(2));
    let all = app.now.summary.matching as usize;
    let block = titled(app, &title(app), entries.len().min(room), all);
    if entries.is_empty() {
        return frame.render_widget(Paragraph::new("none").block(block), area);
    }
    let is_wide = area.width >= 120;
    let is_counted = entries.iter().any(|entry| bytes(entry).is_some());
    // The table of all of them would be made to show a few.
    let first = (app.selected + 1).saturating_sub(room);
    let shown = entries.iter().skip(first).take(room);
    let protocol = shown.clone().map(|entry| entry.name.len()).max().unwrap_or(0).max(5) as u16;
    let mut titles =
        vec![(Cell::from("proto"), protocol), (Cell::from("state"), 11), (number("ends in".into()), 8)];
    if is_wide {
        titles.push((number(MORE[1].into()), 9));
        titles.push((number(MORE[2].into()), 10));
    }
    if is_counted {
        titles.push((number("bytes".into()), 6));
        titles.push((number("bit/s".into()), 6));
    }
    // What the others leave, and a blank before each of them, is for addresses.
    let taken: u16 = titles.iter().map(|(_, width)| width + 1).sum();
    let flows = if is_wide { 2 } else { 1 };
    let flow = area.width.saturating_sub(taken + SYMBOL.len() as u16 + flows - 1) / flows;
    titles.insert(3, (Cell::from("from → to"), flow));
    if is_wide {
        titles.insert(4, (Cell::from(MORE[0]), flow));
    }
    let rows = shown.map(|entry| row(app, entry, usize::from(flow), is_wide, is_counted));
    let (header, widths): (Vec<_>, Vec<_>) = titles.into_iter().unzip();
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(colour(app, Color::Cyan)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .highlight_symbol(SYMBOL)
        .block(block);
    let mut state = TableState::new().with_selected(app.selected - first);
    frame.render_stateful_widget(table, area, &mut state);
}

fn title(app: &App) -> String {
    let order = ORDERS.iter().find(|(order, _)| *order == app.order).map_or("", |(_, word)| *word);
    let filter = if app.filter.is_empty() { String::new() } else { format!(" with `{}`", app.filter) };
    // Without counters every order by them is as good.
    let is_missing =
        matches!(order, "bytes" | "packets") && app.entries().iter().all(|entry| bytes(entry).is_none());
    let hint = if is_missing { " (not counted: sysctl nf_conntrack_acct=1)" } else { "" };
    format!("Connections{filter}, by {order}{hint}")
}

fn row(app: &App, entry: &EntryView, room: usize, is_wide: bool, is_counted: bool) -> Row<'static> {
    let word = state(entry);
    let style = match word {
        "ESTABLISHED" | "ASSURED" => colour(app, Color::Green),
        "UNREPLIED" | "SYN_SENT" => colour(app, Color::Yellow),
        _ => Style::new(),
    };
    let left = entry.timeout.map_or(String::new(), |left| duration(left as f64));
    let mut cells = vec![
        Cell::from(entry.name.clone()),
        Cell::from(word.to_owned()).style(style),
        number(left),
        Cell::from(fitted(flow(&entry.original), room)),
    ];
    if is_wide {
        let packets = entry.original.packets.zip(entry.reply.packets);
        cells.push(Cell::from(if is_mirror(entry) {
            String::new()
        } else {
            fitted(flow(&entry.reply), room)
        }));
        cells.push(number(packets.map_or("-".into(), |(there, back)| short((there + back) as f64))));
        cells.push(number(if entry.mark == 0 { "-".into() } else { format!("{:#x}", entry.mark) }));
    }
    if is_counted {
        let rate = app.rates.connections.get(&entry.id);
        cells.push(number(bytes(entry).map_or("-".into(), |bytes| short(bytes as f64))));
        cells.push(number(rate.map_or("-".into(), |rate| short(*rate))));
    }
    Row::new(cells)
}

/// Whether answers come the same way: nothing is translated.
fn is_mirror(entry: &EntryView) -> bool {
    fn ends(flow: &FlowView) -> (std::net::IpAddr, Option<u16>, std::net::IpAddr, Option<u16>) {
        (flow.src, flow.sport, flow.dst, flow.dport)
    }
    let (src, sport, dst, dport) = ends(&entry.reply);
    ends(&entry.original) == (dst, dport, src, sport) && entry.original.icmp_id == entry.reply.icmp_id
}

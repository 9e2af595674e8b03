//! The ports and what they carry.

use super::{App, Color, Rect, colour, titled};
use crate::cli::top::numbers::short;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint};
use ratatui::style::Modifier;
use ratatui::text::Text;
use ratatui::widgets::{Cell, Row, Table};

/// Columns that need no room that a small screen has not.
const COLUMNS: [&str; 7] = ["port", "link", "in/s", "in bit/s", "out/s", "out bit/s", "lost"];
/// Those that a wide one has besides.
pub(super) const MORE: [&str; 3] = ["frames in", "frames out", "device"];

pub(super) fn draw(frame: &mut Frame, app: &App, area: Rect) {
    let ports = &app.now.interfaces;
    let room = usize::from(area.height.saturating_sub(2));
    let is_wide = area.width >= 120;
    let rows = ports.iter().enumerate().take(room).map(|(n, port)| {
        let rate = app.rates.interfaces.get(n).copied().unwrap_or_default();
        let is_up = port.link == "up";
        let link = match port.link.as_str() {
            "up" => colour(app, Color::Green),
            "gone" => colour(app, Color::Red).add_modifier(Modifier::BOLD | Modifier::REVERSED),
            _ => colour(app, Color::Yellow),
        };
        let mut cells = vec![Cell::from(port.name.clone()), Cell::from(port.link.clone()).style(link)];
        cells.extend([
            number(short(rate.rx_frames)),
            number(short(rate.rx_bits)),
            number(short(rate.tx_frames)),
            number(short(rate.tx_bits)),
            number(short(port.tx_lost as f64)),
        ]);
        if is_wide {
            cells.extend([number(short(port.rx_frames as f64)), number(short(port.tx_frames as f64))]);
            cells.push(Cell::from(port.device.clone()));
        }
        let row = Row::new(cells);
        if is_up { row } else { row.style(colour(app, Color::Red)) }
    });
    let mut widths = vec![Constraint::Min(10), Constraint::Length(4)];
    widths.extend([9; 5].map(Constraint::Length));
    let mut titles: Vec<&str> = COLUMNS.to_vec();
    if is_wide {
        widths.extend([12, 12, 6].map(Constraint::Length));
        titles.extend(MORE);
    }
    let header = titles.iter().map(|title| match *title {
        "port" | "link" | "device" => Cell::from(*title),
        title => number(title.to_owned()),
    });
    let header = Row::new(header).style(colour(app, Color::Cyan));
    let shown = ports.len().min(room);
    let table = Table::new(rows, widths).header(header).block(titled(app, "Ports", shown, ports.len()));
    frame.render_widget(table, area);
}

/// Numbers stand on the right.
pub(super) fn number(text: String) -> Cell<'static> {
    Cell::from(Text::from(text).alignment(Alignment::Right))
}

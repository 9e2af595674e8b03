//! The keys, and what this screen is too small for.

use super::{App, Rect, bold, connections, is_large, ports, titled};
use crate::cli::fold::fold;
use crate::cli::top::app::KEYS;
use ratatui::Frame;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

const LABEL: usize = 12;

pub(super) fn draw(frame: &mut Frame, app: &App, area: Rect) {
    let width = Some(usize::from(area.width));
    let mut lines = Vec::new();
    for (keys, what) in KEYS {
        let folded = fold(&format!("{:LABEL$}{what}", ""), width, LABEL);
        lines.extend(folded.lines().enumerate().map(|(n, text)| {
            let keys = if n == 0 { *keys } else { "" };
            Line::from(vec![
                Span::styled(format!("{keys:<LABEL$}"), bold()),
                text.trim_start().to_owned().into(),
            ])
        }));
    }
    lines.push(Line::default());
    lines.push(Line::styled("Not on this screen", bold()));
    let missing = missing(area);
    if missing.is_empty() {
        lines.push(Line::from("nothing: there is room for everything"));
    }
    for missing in missing {
        lines.extend(fold(&missing, width, 2).lines().map(|line| Line::from(line.to_owned())));
    }
    frame.render_widget(Paragraph::new(lines).block(titled(app, "Keys", 1, 1)), area);
}

/// What a larger terminal would show.
fn missing(area: Rect) -> Vec<String> {
    let mut missing = Vec::new();
    if area.width < 120 {
        missing.push(format!(
            "columns, from 120 on: of ports {}; of connections {}",
            ports::MORE.join(", "),
            connections::MORE.join(", ")
        ));
    }
    if !is_large(area) {
        missing.push("in the overview, from 120x37 on: INVALID by reason (here on page 3), the history of new connections and drops".to_owned());
    }
    missing
}

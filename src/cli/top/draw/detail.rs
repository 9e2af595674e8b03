//! One connection in full.

use super::{App, Rect, bold, titled};
use crate::cli::fold::fold;
use crate::cli::top::numbers::{duration, flow};
use ratatui::Frame;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use stateway_core::conntrack::tcp::TcpState;
use stateway_runtime::control::protocol::{ConnectionView, FlowView, LetInView, WindowView};

pub(super) fn draw(frame: &mut Frame, app: &App, area: Rect) {
    let lines = match &app.now.summary.shown {
        Some(shown) if Some(shown.entry.id) == app.shown => lines(shown, usize::from(area.width)),
        // Until the router has answered, it is not known.
        _ => vec![Line::from("it is over, or was not looked at yet")],
    };
    // Words that are wrapped may take a line more.
    let needed: usize = lines.iter().map(|line| line.width().div_ceil(usize::from(area.width.max(1)))).sum();
    let is_cut = needed + 1 > usize::from(area.height);
    let title = if is_cut { "One connection, as much as there is room for" } else { "One connection" };
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(text.block(titled(app, title, 1, 1)), area);
}

fn lines(shown: &ConnectionView, width: usize) -> Vec<Line<'static>> {
    let entry = &shown.entry;
    let mut lines = vec![line(
        "protocol",
        format!("{} ({}), IPv{}, number {}", entry.name, entry.protocol, entry.family, entry.id),
    )];
    lines.extend(folded("opened as", &carried(&entry.original), width));
    lines.extend(folded("answered as", &carried(&entry.reply), width));
    lines.extend([
        line("known of it", entry.status.join(" ")),
        line(
            "timer",
            format!(
                "ends in {} ({:.1} s); began {} ago",
                duration(shown.timeout),
                shown.timeout,
                duration(shown.age)
            ),
        ),
        line("mark, zone", format!("{:#x}, {}", entry.mark, entry.zone)),
    ]);
    lines.extend(entry.helper.as_ref().map(|helper| line("helper", helper.clone())));
    lines.extend(shown.master.as_ref().map(|master| line("announced by", master.clone())));
    if entry.protocol == 6 {
        lines.extend(folded("state", &states(entry.state.as_deref()), width));
    } else if let Some(state) = &entry.state {
        lines.push(line("state", state.clone()));
    }
    if let [opener, other] = &shown.windows[..] {
        lines.extend(windows(opener, other));
    }
    let by = match &shown.let_in {
        LetInView::Rule { name, text } => &format!("{name}: {text}"),
        LetInView::OtherRules => "a rule that is not in force any more",
        LetInView::NotKnown => {
            "no rule that is known: it was put in by hand, or was there before the router began"
        }
    };
    lines.extend(folded("let in by", by, width));
    lines
}

const LABEL: usize = 16;

fn line(label: &str, text: String) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{label:<LABEL$}"), bold()), text.into()])
}

fn carried(flow_view: &FlowView) -> String {
    let counted = flow_view.packets.zip(flow_view.bytes);
    let counted = counted.map_or("packets are not counted".to_owned(), |(packets, bytes)| {
        format!("{packets} packets, {bytes} bytes")
    });
    format!("{}, {counted}", flow(flow_view))
}

/// The states in the order in which a connection goes through them; where it stands is marked.
fn states(state: Option<&str>) -> String {
    let known = TcpState::ALL.iter().map(|state| state.name()).filter(|name| *name != "NONE");
    let marked = known.map(|name| if Some(name) == state { format!("[{name}]") } else { name.to_owned() });
    marked.collect::<Vec<_>>().join(" ")
}

/// As [`line`], on as many lines as it takes.
fn folded(label: &str, text: &str, width: usize) -> Vec<Line<'static>> {
    let text = fold(&format!("{:LABEL$}{text}", ""), Some(width), LABEL);
    let lines = text.lines().enumerate();
    lines.map(|(n, text)| line(if n == 0 { label } else { "" }, text.trim_start().to_owned())).collect()
}

fn windows(opener: &WindowView, other: &WindowView) -> Vec<Line<'static>> {
    let row = |label: &str, cell: &dyn Fn(&WindowView) -> String| {
        line(label, format!("{:<24}{}", cell(opener), cell(other)))
    };
    let or_unknown = |number: Option<String>| number.unwrap_or_else(|| "not known".to_owned());
    vec![
        line("windows", format!("{:<24}{}", "of who opened it", "of the other side")),
        row("  sent up to", &|side| side.end.to_string()),
        row("  may send to", &|side| {
            format!("{} ({} more)", side.max_end, side.max_end.wrapping_sub(side.end))
        }),
        row("  acknowledged", &|side| or_unknown(side.max_ack.map(|ack| ack.to_string()))),
        row("  window", &|side| format!("{} bytes", side.max_win)),
        row("  scale", &|side| or_unknown(side.wscale.map(|bits| format!("{bits} bits")))),
        row("  judged", &|side| if side.is_liberal { "not: seen too late" } else { "yes" }.to_owned()),
    ]
}

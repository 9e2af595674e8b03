//! One packet in one line, with colours on a terminal.

use crate::cli::fold::{columns, fold, fold_deeper};
use crate::cli::render::{self, Format};
use anstyle::Style;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use stateway_lab::report::{fate_style, state_style};
use stateway_runtime::control::protocol::Verdict;
use stateway_runtime::terminal;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

/// How packets are written.
pub(super) struct Lines {
    format: Format,
    explains: bool,
    is_terminal: bool,
    has_colours: bool,
    /// How wide the terminal is, if it is one. Asked anew for each packet: it may change.
    columns: Option<usize>,
    zone: TimeZone,
}

impl Lines {
    pub(super) fn new(format: Format, explains: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            format,
            explains,
            is_terminal,
            has_colours: render::has_colours(),
            columns: None,
            zone: TimeZone::system(),
        }
    }

    pub(super) fn packet(&mut self, mut verdict: Verdict) -> String {
        if self.is_terminal {
            self.columns = columns();
        }
        if self.format == Format::Json {
            verdict.way.clear();
            // Text and numbers can always be written as JSON.
            return serde_json::to_string(&verdict).unwrap_or_default() + "\n";
        }
        let way = std::mem::take(&mut verdict.way);
        let mut text = self.line(&verdict);
        if self.explains {
            for step in way {
                let step = format!("             {}", self.escaped(&step));
                _ = writeln!(text, "{}", fold_deeper(&step, self.columns));
            }
        }
        text
    }

    pub(super) fn lost(&self, packets: u64) -> String {
        match self.format {
            Format::Json => json!({ "lost": packets }).to_string() + "\n",
            Format::Text => {
                format!("-- {packets} packets were lost here: they came faster than they were read\n")
            }
        }
    }

    fn line(&self, verdict: &Verdict) -> String {
        let Verdict { fate, ctstate, summary, .. } = verdict;
        let time = self.time(verdict.unix_time);
        let state = ctstate.as_deref().unwrap_or("-");
        let summary = self.escaped(summary);
        let tail = tail(verdict);
        let tail = self.escaped(&tail);
        // The columns of the head, a blank between them.
        let head = time.len() + 1 + FATE + 1 + STATE + 1 + summary.chars().count();
        // On a narrow terminal the rest stands below, and not wherever the line breaks.
        let is_narrow = self.columns.is_some_and(|columns| head + 2 + tail.chars().count() > columns);
        let tail = if is_narrow {
            let below = format!("{:1$}{tail}", "", time.len() + 1);
            format!("\n{}", fold(&below, self.columns, time.len() + 1))
        } else {
            format!("  {tail}")
        };
        let fate = self.painted(fate, FATE, fate_style(fate));
        let state = self.painted(state, STATE, state_style(state));
        format!("{time} {fate} {state} {summary}{tail}\n")
    }

    fn time(&self, unix_seconds: f64) -> String {
        let since = SignedDuration::try_from_secs_f64(unix_seconds).unwrap_or_default();
        let time = self.zone.to_datetime(Timestamp::from_duration(since).unwrap_or_default());
        time.strftime("%H:%M:%S%.3f").to_string()
    }

    fn escaped<'a>(&self, text: &'a str) -> std::borrow::Cow<'a, str> {
        if self.is_terminal { terminal::escape(text) } else { text.into() }
    }

    fn painted(&self, word: &str, width: usize, style: Style) -> String {
        let word = self.escaped(word);
        if self.has_colours { format!("{style}{word:<width$}{style:#}") } else { format!("{word:<width$}") }
    }
}

/// The longest words, `forwarded` and `ESTABLISHED`.
const FATE: usize = 9;
const STATE: usize = 11;

/// Where it came in and left, and who decided, in nft's words.
fn tail(verdict: &Verdict) -> String {
    let Verdict { in_iface, out, direction, rule, reason, .. } = verdict;
    let mut tail = format!("iif {in_iface}");
    if !out.is_empty() {
        _ = write!(tail, " oif {}", out.join(","));
    }
    // The other direction is what one expects.
    if direction.as_deref() == Some("reply") {
        tail.push_str(" ct direction reply");
    }
    match rule.as_deref() {
        Some("policy") => tail.push_str(" policy"),
        Some(rule) => _ = write!(tail, " rule {rule}"),
        None => {}
    }
    // That a rule or a policy did it has just been said.
    if let Some(reason) = reason.as_deref().filter(|reason| !["rule", "policy"].contains(reason)) {
        _ = write!(tail, " reason {reason}");
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped() -> Verdict {
        Verdict {
            unix_time: 1_000_000_000.25,
            in_iface: "left".into(),
            summary: "tcp S 192.0.2.77:40000 → 192.0.2.104:22".into(),
            ctstate: Some("NEW".into()),
            direction: Some("original".into()),
            fate: "dropped".into(),
            rule: Some("policy".into()),
            reason: Some("policy".into()),
            way: vec!["filter FORWARD".into()],
            ..Verdict::default()
        }
    }

    fn lines(format: Format, has_colours: bool) -> Lines {
        Lines { format, explains: true, is_terminal: false, has_colours, columns: None, zone: TimeZone::UTC }
    }

    #[test]
    fn a_file_gets_words_alone_and_a_terminal_colours_around_them() {
        let plain = lines(Format::Text, false).packet(dropped());
        assert_eq!(
            plain,
            "01:46:40.250 dropped   NEW         tcp S 192.0.2.77:40000 → 192.0.2.104:22  iif left policy\n             filter FORWARD\n"
        );
        let coloured = lines(Format::Text, true).packet(dropped());
        assert!(
            coloured.contains("\x1b[1m\x1b[31mdropped  \x1b[0m \x1b[36mNEW        \x1b[0m tcp S"),
            "{coloured:?}"
        );
    }

    #[test]
    fn json_has_an_object_a_line_and_says_what_was_lost() {
        let mut json = lines(Format::Json, false);
        let packet: serde_json::Value = serde_json::from_str(&json.packet(dropped())).unwrap();
        assert_eq!((&packet["fate"], &packet["in"]), (&json!("dropped"), &json!("left")));
        assert!(packet.get("way").is_none(), "the steps say the same");
        assert_eq!(json.lost(7), "{\"lost\":7}\n");
    }

    #[test]
    fn on_a_narrow_terminal_lines_are_broken_where_they_may_be() {
        let step = "  filter:FORWARD:rule:1  -m state --state RELATED,ESTABLISHED -j ACCEPT  ← no: -m state --state RELATED,ESTABLISHED";
        let packet = Verdict {
            way: vec![step.into()],
            rule: Some("filter/a-chain-of-a-long-name/1".into()),
            ..dropped()
        };
        let text = Lines { columns: Some(80), ..lines(Format::Text, false) }.packet(packet);
        let expected = "\
01:46:40.250 dropped   NEW         tcp S 192.0.2.77:40000 → 192.0.2.104:22
             iif left rule filter/a-chain-of-a-long-name/1
               filter:FORWARD:rule:1  -m state --state RELATED,ESTABLISHED -j
                   ACCEPT  ← no: -m state --state RELATED,ESTABLISHED
";
        assert_eq!(text, expected);
    }
}

//! Text of others on a terminal: a comment in a ruleset, a name in a capture or a lab file may hold what a terminal
//! takes for a command, or what makes the reader see other text than there is.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Stdout, Write};

/// `text` with every character that a terminal would act on written out, as `\u{1b}`; line ends and tabs stay.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_acted_on) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_acted_on(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Standard output, escaped if it is a terminal.
#[derive(Debug)]
pub struct Output<W = Stdout> {
    out: W,
    is_terminal: bool,
    is_closed: bool,
}

impl Output {
    pub fn stdout() -> Self {
        let out = io::stdout();
        Self { is_terminal: out.is_terminal(), out, is_closed: is_closed() }
    }
}

/// Whether standard output is there.
///
/// # Errors
/// It was closed when we began, and whatever is written to it is lost.
pub fn check_stdout() -> io::Result<()> {
    if is_closed() { Err(closed()) } else { Ok(()) }
}

fn closed() -> io::Error {
    io::Error::other("standard output is closed")
}

#[cfg(target_os = "linux")]
fn is_closed() -> bool {
    crate::device::inherited::stdout_was_closed()
}

#[cfg(not(target_os = "linux"))]
fn is_closed() -> bool {
    false
}

/// Whether the terminal can do more than write lines one below the other.
pub fn can_move() -> bool {
    std::env::var_os("TERM").is_some_and(|name| !name.is_empty() && name != "dumb")
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Err(closed());
        }
        if !self.is_terminal {
            return self.out.write(lines);
        }
        self.out.write_all(escape(&String::from_utf8_lossy(lines)).as_bytes())?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Control characters, those that change the direction of what stands behind them (Unicode Annex 9), and separators that
/// end a line where nobody expects it.
fn is_acted_on(c: char) -> bool {
    const DIRECTION: &[char] = &['\u{61c}', '\u{200e}', '\u{200f}'];
    let is_kept = matches!(c, '\n' | '\t');
    let changes_direction =
        DIRECTION.contains(&c) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !is_kept && (c.is_control() || changes_direction || matches!(c, '\u{2028}' | '\u{2029}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_written_out() {
        for (text, escaped) in [
            ("plain text, ünïcödé and 中文\n\tindented", "plain text, ünïcödé and 中文\n\tindented"),
            ("\x1b]0;owned\x07", "\\u{1b}]0;owned\\u{7}"),
            ("a\rb\u{8}\u{7f}\u{9b}31m", "a\\u{d}b\\u{8}\\u{7f}\\u{9b}31m"),
            ("ACCEPT\u{202e}PORD\u{2069}", "ACCEPT\\u{202e}PORD\\u{2069}"),
            ("\u{2028}", "\\u{2028}"),
        ] {
            assert_eq!(escape(text), escaped);
        }
    }

    #[test]
    fn a_terminal_gets_lines_escaped_and_a_file_as_they_are() {
        for (is_terminal, written) in [(true, "\\u{1b}[31m red\n"), (false, "\x1b[31m red\n")] {
            let mut out = Output { out: Vec::new(), is_terminal, is_closed: false };
            out.write_all(b"\x1b[31m red\n").unwrap();
            assert_eq!(String::from_utf8_lossy(&out.out), written);
        }
    }
}

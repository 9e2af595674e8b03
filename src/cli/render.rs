//! What subcommands have in common when they print: a format to choose, lines, and JSON.

use anstyle::AnsiColor;
use serde::Serialize;
use stateway_runtime::terminal;
use std::io::{self, IsTerminal as _, Write as _};

/// How a listing is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

/// Prints a line on standard output. That nobody reads it any more is no reason to stop: the exit code says more than that.
pub(super) fn line(text: &str) {
    let printed = print(text);
    if !is_unread(&printed) {
        finish(printed);
    }
}

/// Prints a line of a list that may be long, or without an end. Ends the program quietly if nobody reads it any more.
pub(super) fn listed(text: &str) {
    finish(print(text));
}

fn print(text: &str) -> io::Result<()> {
    let mut out = terminal::Output::stdout();
    // In one piece: it may be written while others write.
    out.write_all(format!("{text}\n").as_bytes())
}

/// Whether whoever read what was printed has gone.
pub(super) fn is_unread(printed: &io::Result<()>) -> bool {
    printed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether colours are welcome on standard output: on a terminal that has some, unless `NO_COLOR` is set.
pub(super) fn has_colours() -> bool {
    is_coloured(io::stdout().is_terminal())
}

fn is_coloured(is_terminal: bool) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    is_terminal && !is_set("NO_COLOR") && !is_dumb
}

/// Prints one JSON document, indented.
pub(super) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(document) => line(&document),
        Err(error) => finish(Err(error.into())),
    }
}

/// Says a line on standard error. That nobody reads there is no reason to stop, least of all for a router.
pub(super) fn tell(text: &str) {
    stateway_runtime::stderr::say(text);
}

/// Says what went wrong; on a terminal one sees at once where that begins.
pub(super) fn tell_error(text: &str) {
    let style = AnsiColor::Red.on_default().bold();
    if is_coloured(io::stderr().is_terminal()) {
        stateway_runtime::stderr::say_behind(&format!("{style}error:{style:#} "), text);
    } else {
        tell(&format!("error: {text}"));
    }
}

/// Says what is no error, but deserves a second look.
pub(super) fn warn(text: &str) {
    tell(&format!("warning: {text}"));
}

/// Shows how far long work has come, where that can be taken away again, as an empty text does.
pub(super) fn progress(text: &str) {
    let mut stderr = io::stderr();
    if stateway_runtime::stderr::can_move() {
        let _ = write!(stderr, "\r\x1b[K{}", terminal::escape(text)).and_then(|()| stderr.flush());
    }
}

/// Ends the program if standard output cannot be written, quietly if nobody reads it any more.
#[expect(clippy::exit, reason = "`| head` is no failure, and nothing is left to be done")]
pub(super) fn finish(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        unread if is_unread(&unread) => std::process::exit(0),
        Err(error) => {
            tell(&format!("error: cannot write: {error}"));
            std::process::exit(3);
        }
    }
}

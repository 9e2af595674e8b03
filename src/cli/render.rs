//! What subcommands have in common when they print: a format to choose, lines, and JSON.

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

/// Prints a line on standard output. Ends the program quietly if nobody reads it any more.
pub(super) fn line(text: &str) {
    finish(writeln!(io::stdout().lock(), "{}", terminal::for_stdout(text)));
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

/// Says what is no error, but deserves a second look.
pub(super) fn warn(text: &str) {
    tell(&format!("warning: {text}"));
}

/// Shows how far long work has come, on a terminal only; an empty text takes it away.
pub(super) fn progress(text: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{}", terminal::escape(text)).and_then(|()| stderr.flush());
    }
}

/// Ends the program if standard output cannot be written, quietly if nobody reads it any more.
#[expect(clippy::exit, reason = "`| head` is no failure, and nothing is left to be done")]
pub(super) fn finish(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            tell(&format!("error: cannot write: {error}"));
            std::process::exit(3);
        }
    }
}

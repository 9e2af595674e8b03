//! What the rules say aloud, printed: a thread of its own writes LOG and TRACE to standard error, as the kernel writes
//! them to its log, so that no packet ever waits for whoever reads there.

use super::listener::Listener;
use stateway_core::base::log::Logged;
use stateway_core::router::Router;
use stateway_trace::log_line;
use std::io;
use std::sync::Arc;

/// Prints until the listener is dropped.
///
/// # Errors
/// No thread is to be had.
pub fn start(router: Arc<Router>) -> io::Result<Listener> {
    let messages = router.logs().listen();
    // The service manager reads levels in front of lines (`sd-daemon(3)`), people do not.
    let with_level = std::env::var_os("JOURNAL_STREAM").is_some();
    let mut printer = Printer { router, with_level, lost: 0 };
    Listener::start("log", messages, move |message, _| {
        if let Some(message) = message {
            printer.print(&message);
        }
    })
}

struct Printer {
    router: Arc<Router>,
    with_level: bool,
    /// So many lost messages were told of.
    lost: u64,
}

impl Printer {
    fn print(&mut self, message: &Logged) {
        let lost = self.router.logs().lost();
        if lost > self.lost {
            self.say(4, &format!("{} log messages lost", lost - self.lost));
            self.lost = lost;
        }
        if let Some((level, line)) = log_line::of(message, &self.router) {
            self.say(level, line.trim_end());
        }
    }

    fn say(&self, level: u8, line: &str) {
        let mark = if self.with_level { format!("<{level}>") } else { String::new() };
        // This thread may wait for room: what it cannot take meanwhile is counted where it is said.
        crate::stderr::say_in_turn(&format!("{mark}{line}"));
    }
}

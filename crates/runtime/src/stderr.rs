//! Standard error, as lines that nobody waits for.
//!
//! A command that ends soon writes there directly. A router must not: whoever reads at the other end may have stopped,
//! and a worker that waits for him forwards nothing. After [`detach`], lines go through a bounded queue to a thread of
//! its own, which alone may block. What does not fit is lost and counted, and the count is said as soon as there is
//! room again. Until a router may have threads, its few lines are kept ([`hold`]).

#![forbid(unsafe_code)]

use crate::terminal::{self, escape};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Lines that wait to be written: a second of a chatty router, and about a megabyte.
const QUEUE: usize = 4096;

static QUEUED: OnceLock<Sender<Message>> = OnceLock::new();
/// What was said between [`hold`] and [`detach`].
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);
static LOST: AtomicU64 = AtomicU64::new(0);

enum Message {
    Text(Vec<u8>),
    /// Dropped when all that was said before it is written.
    Reached(#[expect(dead_code, reason = "its drop is the message")] Sender<()>),
}

/// From here on, what is said waits for [`detach`], or for [`flush`] if it does not come so far.
pub fn hold() {
    *HELD.lock() = Some(Vec::new());
}

/// From here on, a thread of its own writes to standard error.
///
/// # Errors
/// No thread is to be had.
pub fn detach() -> io::Result<()> {
    let (sender, messages) = bounded(QUEUE);
    let run = move || drain(&messages, &mut io::stderr(), &LOST);
    #[cfg(target_os = "linux")]
    crate::confine::spawn("stderr", crate::confine::Role::Writer, run)?;
    #[cfg(not(target_os = "linux"))]
    std::thread::Builder::new().name("stderr".into()).spawn(run)?;
    if let Some(held) = HELD.lock().take() {
        let _ = sender.send(Message::Text(held));
    }
    // Whoever comes second leaves the first one in charge; his own thread ends with its sender.
    let _ = QUEUED.set(sender);
    Ok(())
}

/// Says a line, in which text of others may stand. Never waits once [`detach`] was called.
pub fn say(line: &str) {
    let line = escape(line);
    let _ = Lines.write_all(format!("{line}\n").as_bytes());
}

/// Says a line behind words of our own, which may have colours in them.
pub fn say_behind(words: &str, line: &str) {
    let line = escape(line);
    let _ = Lines.write_all(format!("{words}{line}\n").as_bytes());
}

/// Says a line, and waits for room in the queue: for threads whose own input is bounded and dropped.
pub fn say_in_turn(line: &str) {
    let Some(queue) = QUEUED.get() else { return say(line) };
    let line = escape(line);
    let _ = queue.send(Message::Text(format!("{line}\n").into_bytes()));
}

/// Waits until what was said is written, but at most so long.
pub fn flush(patience: Duration) {
    if HELD.lock().is_some() && detach().is_err() {
        // Then without a thread.
        let held = HELD.lock().take().unwrap_or_default();
        write(&mut io::stderr(), &held);
    }
    let Some(queue) = QUEUED.get() else { return };
    let (reached, is_reached) = bounded::<()>(0);
    if queue.send_timeout(Message::Reached(reached), patience / 2).is_ok() {
        let _ = is_reached.recv_timeout(patience / 2);
    }
}

/// Lines that were lost because the queue was full.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Whether a line may be written anew: on a terminal that can.
pub fn can_move() -> bool {
    io::stderr().is_terminal() && terminal::can_move()
}

/// Whether colours are welcome: on such a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
pub fn is_colourful() -> bool {
    can_move() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// For writers of whole lines, such as `tracing`: each write is one line, kept or lost as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(queue) = QUEUED.get() else { return write_early(line) };
        if queue.try_send(Message::Text(line.to_vec())).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_early(line: &[u8]) -> io::Result<usize> {
    match HELD.lock().as_mut() {
        Some(held) => {
            held.extend_from_slice(line);
            Ok(line.len())
        }
        None => io::stderr().write(line),
    }
}

/// Writes until nobody can say anything any more.
fn drain(messages: &Receiver<Message>, out: &mut impl Write, lost: &AtomicU64) {
    let mut told = 0;
    for message in messages {
        let lost = lost.load(Ordering::Relaxed);
        if lost > told {
            let line =
                format!("warning: {} lines of the log were lost: nobody read them in time\n", lost - told);
            write(out, line.as_bytes());
            told = lost;
        }
        if let Message::Text(text) = message {
            write(out, &text);
        }
    }
}

/// Whoever does not read any more need not hear.
fn write(out: &mut impl Write, mut text: &[u8]) {
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => return,
            Ok(len) => text = &text[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever gave us the descriptor asked it not to wait; this thread may.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && wait_for_room() => {}
            Err(_) => return,
        }
    }
}

/// Says whether there is room now, or may be.
#[cfg(target_os = "linux")]
fn wait_for_room() -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    match poll(&mut fds, None) {
        Ok(_) => !fds[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL),
        Err(error) => error == rustix::io::Errno::INTR,
    }
}

#[cfg(not(target_os = "linux"))]
fn wait_for_room() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_told_before_what_came_after_it() {
        let (sender, messages) = bounded(QUEUE);
        let lost = AtomicU64::new(0);
        sender.send(Message::Text(b"first\n".to_vec())).unwrap();
        sender.send(Message::Text(b"second\n".to_vec())).unwrap();
        let mut out = Vec::new();
        std::thread::scope(|scope| {
            let drained = scope.spawn(|| drain(&messages, &mut out, &lost));
            let (reached, is_reached) = bounded::<()>(0);
            sender.send(Message::Reached(reached)).unwrap();
            assert!(is_reached.recv().is_err(), "all before it is written");
            lost.store(3, Ordering::Relaxed);
            sender.send(Message::Text(b"third\n".to_vec())).unwrap();
            drop(sender);
            drained.join().unwrap();
        });
        let expected =
            "first\nsecond\nwarning: 3 lines of the log were lost: nobody read them in time\nthird\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

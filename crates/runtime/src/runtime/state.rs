//! The state file of a running router: read at the start, written at an interval and at the end.
//!
//! It is no policy: a router that cannot read it says so and starts with empty tables, and one that cannot write it says so and
//! forwards. A bad file is put aside, never overwritten.

#![forbid(unsafe_code)]

use super::{Clock, unix_nanos};
use crate::confine::{self, Role};
use crate::keeper::Keeper;
use crate::statefile::{self, State};
use crate::stderr::say;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use stateway_core::router::Router;
use stateway_trace::input;
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Writing takes no more than one part in so many of the time: a large table is written less often than asked.
const SHARE: u32 = 10;

/// Ends that are not over by then are cut short: whoever ends a router waits for a second at most.
const PATIENCE: Duration = Duration::from_millis(600);

/// A good state file, or `None` if there is none. One that is refused is put aside, and said.
pub fn read(path: &Path) -> Option<State<Vec<u8>>> {
    let refused = match input::read(path, statefile::MAX_BYTES) {
        Ok(bytes) => match State::parse(bytes) {
            Ok(state) => return Some(state),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => format!("cannot read it: {error}"),
    };
    let aside = aside(path);
    let kept = match fs::rename(path, &aside) {
        Ok(()) => format!("it is kept as `{}`", aside.display()),
        Err(error) => format!("it cannot be put aside: {error}"),
    };
    say(&format!(
        "warning: the state file `{}` is refused, no connection is known: {refused}\n  hint: {kept}",
        path.display()
    ));
    None
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bad");
    name.into()
}

/// Writes the state of a router again and again, until it is told to write it for the last time.
#[derive(Debug)]
pub struct Saver {
    stop: Sender<()>,
    /// Disconnected once the last one is written.
    ended: Receiver<()>,
}

impl Saver {
    /// # Errors
    /// No thread is to be had.
    pub fn start(
        router: Arc<Router>,
        clock: Clock,
        keeper: Arc<dyn Keeper>,
        interval: Duration,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let (ends, ended) = bounded::<()>(0);
        let run = move || {
            save_until(&stopped, interval, || save(&router, clock, &*keeper));
            drop(ends);
        };
        confine::spawn("state", Role::Main, run)?;
        Ok(Self { stop, ended })
    }

    /// Writes what is known now. If that takes too long, what was written before stays.
    pub fn finish(self) {
        let Self { stop, ended } = self;
        drop(stop);
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            say("warning: there is no time to write the state at the end: that of the last interval stays");
        }
    }
}

fn save_until(stopped: &Receiver<()>, interval: Duration, save: impl Fn() -> io::Result<Duration>) {
    let mut pause = interval;
    let mut has_failed = false;
    loop {
        let is_last = stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected);
        match save() {
            Ok(taken) => {
                pause = interval.max(taken * (SHARE - 1));
                has_failed = false;
            }
            Err(error) => {
                // Said once, not every second.
                if !has_failed {
                    say(&format!("warning: the state is not saved: {error}"));
                }
                has_failed = true;
            }
        }
        if is_last {
            return;
        }
    }
}

/// Writes the state file once, and returns how long that took.
fn save(router: &Router, clock: Clock, keeper: &dyn Keeper) -> io::Result<Duration> {
    let start = clock.now();
    keeper.replace_state(&mut |file| {
        let mut buffered = BufWriter::new(file);
        statefile::write(&mut buffered, router, clock.now(), unix_nanos())?;
        buffered.flush()
    })?;
    Ok(clock.now().saturating_since(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_file_that_is_refused_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert!(read(&path).is_none(), "there is none");
        fs::write(&path, "something else").unwrap();
        assert!(read(&path).is_none());
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(folder.path().join("state.bad")).unwrap(), "something else");
    }

    #[test]
    fn the_state_is_saved_a_last_time_at_the_end() {
        let (stop, stopped) = bounded(0);
        drop(stop);
        let saved = Cell::new(0);
        save_until(&stopped, Duration::from_secs(3600), || {
            saved.set(saved.get() + 1);
            Ok(Duration::ZERO)
        });
        assert_eq!(saved.get(), 1);
    }
}

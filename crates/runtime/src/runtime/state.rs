//! The state file of a running router: read at the start, written at an interval and at the end.
//!
//! It is no policy: a router that cannot read it says so and starts with empty tables, and one that cannot write it says so and
//! forwards. A bad file is put aside, never overwritten. What is no file is refused: a device would be renamed.

#![forbid(unsafe_code)]

use super::{Clock, unix_nanos};
use crate::confine::{self, Role};
use crate::keeper::{Keeper, Reach};
use crate::statefile::{self, State};
use crate::stderr::say;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use stateway_core::router::Router;
use stateway_trace::input;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Writing takes no more than one part in so many of the time: a large table is written less often than asked.
const SHARE: u32 = 10;

/// Ends that are not over by then are cut short: whoever ends a router waits for a second at most.
const PATIENCE: Duration = Duration::from_millis(600);

/// A good state file, or `None` if there is none. One that is refused is put aside, and said.
///
/// # Errors
/// What stands there is no file, but a device, a folder or a pipe: it can be neither put aside nor replaced.
pub fn read(path: &Path) -> io::Result<Option<State<Vec<u8>>>> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let refused = match input::read(path, statefile::MAX_BYTES) {
        Ok(bytes) => match State::parse(bytes) {
            Ok(state) => return Ok(Some(state)),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
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
    Ok(None)
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
            save_until(&stopped, interval, |pass| save(&router, clock, &*keeper, pass));
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

/// Which one is being saved.
#[derive(Clone, Copy)]
enum Pass<'a> {
    /// One of many. It is given up once the last one is wanted, which knows more.
    Interval(&'a Receiver<()>),
    Last,
}

impl Pass<'_> {
    fn is_given_up(self) -> bool {
        matches!(self, Self::Interval(stopped) if stopped.try_recv() == Err(TryRecvError::Disconnected))
    }
}

fn save_until(stopped: &Receiver<()>, interval: Duration, save: impl Fn(Pass<'_>) -> io::Result<Duration>) {
    let mut pause = interval;
    let mut has_failed = false;
    loop {
        let is_last = stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected);
        let pass = if is_last { Pass::Last } else { Pass::Interval(stopped) };
        match save(pass) {
            Ok(taken) => {
                pause = interval.max(taken * (SHARE - 1));
                has_failed = false;
            }
            Err(_) if pass.is_given_up() => {}
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
fn save(router: &Router, clock: Clock, keeper: &dyn Keeper, pass: Pass<'_>) -> io::Result<Duration> {
    let start = clock.now();
    // The last one is for the process that follows, which finds it without the disk; who ends a router waits for it.
    let reach = if matches!(pass, Pass::Last) { Reach::Process } else { Reach::Disk };
    keeper.replace_state(reach, &mut |file| {
        let mut buffered = BufWriter::new(Unhurried { file, pass });
        statefile::write(&mut buffered, router, clock.now(), unix_nanos())?;
        buffered.flush()
    })?;
    Ok(clock.now().saturating_since(start))
}

/// A file that takes no more once the pass is given up.
struct Unhurried<'a> {
    file: &'a mut File,
    pass: Pass<'a>,
}

impl Write for Unhurried<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pass.is_given_up() {
            return Err(io::Error::other("the router ends"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Unhurried<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_file_that_is_refused_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert!(read(&path).unwrap().is_none(), "there is none");
        fs::write(&path, "something else").unwrap();
        assert!(read(&path).unwrap().is_none());
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(folder.path().join("state.bad")).unwrap(), "something else");
    }

    #[test]
    fn what_is_no_file_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [folder.path(), &link] {
            assert_eq!(read(path).unwrap_err().to_string(), "it is no regular file", "{}", path.display());
        }
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["link"]);
    }

    #[test]
    fn the_state_is_saved_a_last_time_at_the_end() {
        let (stop, stopped) = bounded(0);
        drop(stop);
        let saved = Cell::new(0);
        save_until(&stopped, Duration::from_secs(3600), |pass| {
            assert!(matches!(pass, Pass::Last));
            saved.set(saved.get() + 1);
            Ok(Duration::ZERO)
        });
        assert_eq!(saved.get(), 1);
    }

    #[test]
    fn the_end_does_not_wait_for_a_save_that_knows_less() {
        let (stop, stopped) = bounded(0);
        let stop = Cell::new(Some(stop));
        let saved = Cell::new(0);
        save_until(&stopped, Duration::ZERO, |pass| {
            let mut file = tempfile::tempfile().unwrap();
            let mut file = Unhurried { file: &mut file, pass };
            file.write_all(b"some")?;
            drop(stop.take());
            file.write_all(b"more")?;
            saved.set(saved.get() + 1);
            Ok(Duration::ZERO)
        });
        assert_eq!(saved.get(), 1, "the last one alone");
    }
}

//! `--watch`: a round of tests whenever a file changes that they depend on.
//!
//! Folders are watched, and what is in the files is compared: an editor may write a file in place or put another one in its
//! place, and may do either without a change. What is compared with is what the last round has read, so that nothing is
//! missed that happens while it runs.

use super::super::super::{Failure, Result};
use super::super::{say, tell};
use super::args::{TestArgs, TestFormat};
use super::take::Interrupt;
use super::{Round, Session, round};
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use stateway_lab::builtin;
use stateway_lab::find;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// How long a signal may be overlooked at most.
const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

pub(super) fn watch(args: &TestArgs) -> Result {
    let interrupt = Interrupt::listen().map_err(Failure::Machine)?;
    let mut session = Session { interrupt: Some(interrupt.clone()), ..Session::default() };
    let mut folders = Folders::new().map_err(Failure::Machine)?;
    loop {
        // Before anything is read, so that no change is missed.
        let mut seen = Files::of(asked(args));
        folders.add(&seen).map_err(Failure::Machine)?;
        let Round { result, labs } = round(args, &mut session);
        // All of it was done by the same command in a user namespace.
        if let Err(Failure::Told(code)) = result {
            return Err(Failure::Told(code));
        }
        if interrupt.is_set() {
            return Ok(());
        }
        match result {
            Err(Failure::Input(error) | Failure::Machine(error)) => tell(&format!("error: {error:#}")),
            Ok(()) | Err(Failure::Differs | Failure::Told(_)) => {}
        }
        seen.read_by(&labs);
        folders.add(&seen).map_err(Failure::Machine)?;
        note(args, &format!("-- watching {}; Ctrl-C ends it", seen.names()))?;
        let Some(changed) = folders.wait(&seen, &interrupt).map_err(Failure::Machine)? else { return Ok(()) };
        note(args, &format!("-- {} changed", shown(changed).display()))?;
    }
}

/// Says what is no result: beside the output, where that is for a program.
fn note(args: &TestArgs, text: &str) -> Result {
    if args.format == TestFormat::Json {
        tell(text);
        return Ok(());
    }
    say(text)
}

/// The files that the command line names.
fn asked(args: &TestArgs) -> impl Iterator<Item = PathBuf> {
    let rules = args.rules.iter().chain(&args.rules6).chain(&args.sets).cloned();
    args.labs.iter().map(|lab| find(lab)).filter(|file| !is_built_in(file)).chain(rules)
}

fn shown(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

fn is_built_in(file: &Path) -> bool {
    builtin::shown(file).to_string() != file.display().to_string()
}

/// Files, and what was in them.
#[derive(Debug, Default)]
struct Files(BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Files {
    fn of(paths: impl Iterator<Item = PathBuf>) -> Self {
        Self(paths.map(|path| (path.clone(), fs::read(path).ok())).collect())
    }

    /// Notes what a round has read.
    fn read_by(&mut self, labs: &[stateway_lab::Lab]) {
        let sources = labs.iter().flat_map(|lab| &lab.sources).filter(|source| !is_built_in(&source.path));
        self.0.extend(sources.map(|source| (source.path.clone(), Some(source.text.clone().into_bytes()))));
    }

    /// The first that is not as it was. One that is gone is waited for.
    fn changed(&self) -> Option<&Path> {
        let differs = |(path, before): &(&PathBuf, &Option<Vec<u8>>)| {
            fs::read(path).is_ok_and(|now| before.as_ref() != Some(&now))
        };
        self.0.iter().find(differs).map(|(path, _)| path.as_path())
    }

    fn names(&self) -> String {
        self.0.keys().map(|path| shown(path).display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// The folders that files are in, watched.
struct Folders {
    inotify: OwnedFd,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    fn new() -> anyhow::Result<Self> {
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("cannot watch files")?;
        Ok(Self { inotify, watched: BTreeSet::new() })
    }

    /// Watches the folders of these files: where their names are, and where links lead to.
    fn add(&mut self, files: &Files) -> anyhow::Result<()> {
        let real = files.0.keys().filter_map(|path| fs::canonicalize(path).ok());
        for path in files.0.keys().cloned().chain(real) {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() || self.watched.contains(folder) {
                continue;
            }
            // What was written is whole once it is closed, or renamed into place.
            let events = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
            inotify::add_watch(&self.inotify, folder, events)
                .with_context(|| format!("cannot watch {}", folder.display()))?;
            self.watched.insert(folder.to_owned());
        }
        Ok(())
    }

    /// Waits until one of the files has changed; `None` if the user wants to stop before.
    fn wait<'a>(&self, files: &'a Files, interrupt: &Interrupt) -> anyhow::Result<Option<&'a Path>> {
        loop {
            if interrupt.is_set() {
                return Ok(None);
            }
            if let Some(changed) = files.changed() {
                return Ok(Some(changed));
            }
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
            match poll(&mut fds, Some(&LOOK_UP)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for a change"),
            }
            self.drain()?;
        }
    }

    /// Takes what has been told: what it was is seen from the files.
    fn drain(&self) -> anyhow::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error).context("cannot watch files"),
            }
        }
    }
}

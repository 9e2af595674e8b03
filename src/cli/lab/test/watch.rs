//! `--watch`: a round of tests whenever a file changes that they depend on.
//!
//! Folders are watched, and what is in a file that was written or put in another one's place is compared: an editor may do
//! either without a change. What is compared with is what the last round has read, so that nothing is missed that happens
//! while it runs. A file is looked at only once whoever writes it has closed it: before, it is not whole.

use super::super::super::render;
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
use std::ffi::OsStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
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
            Err(Failure::Input(error) | Failure::Machine(error)) => render::tell_error(&format!("{error:#}")),
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

    /// The first of those that were touched that is not as it was. One that is gone is waited for.
    fn changed(&self, touched: &BTreeSet<PathBuf>) -> Option<&Path> {
        let differs = |(path, before): &(&PathBuf, &Option<Vec<u8>>)| {
            places(path).any(|place| touched.contains(&place))
                && fs::read(path).is_ok_and(|now| before.as_ref() != Some(&now))
        };
        self.0.iter().find(differs).map(|(path, _)| path.as_path())
    }

    fn names(&self) -> String {
        self.0.keys().map(|path| shown(path).display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// Where a file is told of: where its name is, and where that leads if it is a link.
fn places(path: &Path) -> impl Iterator<Item = PathBuf> {
    let real = fs::canonicalize(path).ok();
    let named = path.file_name().map(|name| folder_of(path).join(name));
    named.into_iter().chain(real)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folders that files are in, watched.
struct Folders {
    inotify: OwnedFd,
    watched: BTreeMap<PathBuf, i32>,
    /// Files that were written or renamed into place, and not looked at since.
    touched: BTreeSet<PathBuf>,
}

impl Folders {
    fn new() -> anyhow::Result<Self> {
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("cannot watch files")?;
        Ok(Self { inotify, watched: BTreeMap::new(), touched: BTreeSet::new() })
    }

    /// Watches the folders of these files.
    fn add(&mut self, files: &Files) -> anyhow::Result<()> {
        let mut new = BTreeSet::new();
        for place in files.0.keys().flat_map(|path| places(path)) {
            let folder = folder_of(&place).to_owned();
            if !folder.is_dir() {
                continue;
            }
            if new.contains(&folder) {
                // Nobody would have told of a change before.
                self.touched.insert(place);
                continue;
            }
            if self.watched.contains_key(&folder) {
                continue;
            }
            // What was written is whole once it is closed, or renamed into place.
            let events = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
            let number = inotify::add_watch(&self.inotify, &folder, events)
                .with_context(|| format!("cannot watch {}", folder.display()))?;
            self.watched.insert(folder.clone(), number);
            new.insert(folder);
            self.touched.insert(place);
        }
        Ok(())
    }

    /// Waits until one of the files has changed; `None` if the user wants to stop before.
    fn wait<'a>(&mut self, files: &'a Files, interrupt: &Interrupt) -> anyhow::Result<Option<&'a Path>> {
        loop {
            if interrupt.is_set() {
                return Ok(None);
            }
            self.hear()?;
            if let Some(changed) = files.changed(&std::mem::take(&mut self.touched)) {
                return Ok(Some(changed));
            }
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
            match poll(&mut fds, Some(&LOOK_UP)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for a change"),
            }
        }
    }

    /// Notes what has been told.
    fn hear(&mut self) -> anyhow::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    // One folder may go by two names.
                    let folders = self.watched.iter().filter(|(_, number)| **number == event.wd());
                    let paths = folders.filter_map(|(folder, _)| Some(folder.join(name.as_ref()?)));
                    self.touched.extend(paths);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error).context("cannot watch files"),
            }
        }
    }
}

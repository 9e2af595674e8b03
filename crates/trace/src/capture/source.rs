//! Where a capture comes from, so that it can be read more than once.

#![forbid(unsafe_code)]

use super::{Capture, CaptureError, Frames, Reading};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A capture that is no file is kept in memory where it is read twice; up to so many bytes.
const MAX_KEPT: u64 = 1 << 30;

/// One capture or several, which can be read from the beginning any number of times.
#[derive(Clone, Debug)]
pub struct Source {
    files: Vec<(From, Reading)>,
    survey: Survey,
}

#[derive(Clone, Debug)]
enum From {
    File(PathBuf),
    Memory(Arc<Vec<u8>>),
}

/// What a first reading of a capture finds.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The names of its ports, in the order in which they are described or met.
    pub ports: Vec<String>,
    /// Its frames, as far as the file can be read.
    pub frames: u64,
    /// When the first one was captured, in nanoseconds since 1970.
    pub first_nanos: Option<i128>,
    /// Of each file: how many interfaces it has, if each is in the order of time and all of them together are not.
    pub(super) lanes: Vec<Option<usize>>,
}

impl Source {
    /// A capture in a file. What is no regular file, such as a pipe, is read to its end and kept.
    ///
    /// # Errors
    /// It cannot be opened, or is no capture. A file that is damaged further on is found out when it is read.
    pub fn of_file(path: &Path, reading: Reading) -> Result<Self, CaptureError> {
        let io_error = |error: io::Error| CaptureError::read(0, &error);
        let file = File::open(path).map_err(io_error)?;
        if file.metadata().map_err(io_error)?.is_file() {
            Self::new(vec![(From::File(path.to_owned()), reading)])
        } else {
            Self::of_stream(file, reading)
        }
    }

    /// A capture that can be read only once: it is kept in memory.
    ///
    /// # Errors
    /// It cannot be read, is no capture, or is longer than 1 GiB.
    pub fn of_stream(mut stream: impl Read, reading: Reading) -> Result<Self, CaptureError> {
        let io_error = |error: io::Error| CaptureError::read(0, &error);
        let mut bytes = Vec::new();
        // What is no capture is refused before the rest is waited for.
        stream.by_ref().take(1 << 16).read_to_end(&mut bytes).map_err(io_error)?;
        Capture::new(Cursor::new(bytes.clone()), &reading)?;
        stream.take(MAX_KEPT).read_to_end(&mut bytes).map_err(io_error)?;
        if bytes.len() as u64 > MAX_KEPT {
            return Err(CaptureError::new(MAX_KEPT, "more than 1 GiB from what is no file")
                .hint("write the capture to a file first"));
        }
        Self::new(vec![(From::Memory(Arc::new(bytes)), reading)])
    }

    /// Several captures, whose frames are merged by their timestamps.
    ///
    /// # Errors
    /// One of them cannot be read again.
    pub fn merge(sources: impl IntoIterator<Item = Self>) -> Result<Self, CaptureError> {
        Self::new(sources.into_iter().flat_map(|source| source.files).collect())
    }

    fn new(files: Vec<(From, Reading)>) -> Result<Self, CaptureError> {
        let mut source = Self { files, survey: Survey::default() };
        source.survey = source.open()?.survey();
        Ok(source)
    }

    pub const fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Begins to read; all ports are known from the first reading.
    ///
    /// # Errors
    /// A file is gone, or is another one by now.
    pub fn open(&self) -> Result<Frames, CaptureError> {
        let mut captures = Vec::new();
        for (at, file) in self.files.iter().enumerate() {
            match self.survey.lanes.get(at).copied().flatten() {
                Some(lanes) => {
                    for interface in 0..lanes {
                        captures.push(begin(file)?.of_interface(interface));
                    }
                }
                None => captures.push(begin(file)?),
            }
        }
        if self.files.len() > 1 || self.survey.ports.is_empty() {
            return Ok(Frames::of_all(captures));
        }
        for capture in &mut captures {
            capture.complete(&self.survey.ports);
        }
        Ok(if captures.len() == 1 { Frames::of_all(captures) } else { Frames::of_interfaces(captures) })
    }
}

fn begin((from, reading): &(From, Reading)) -> Result<Capture, CaptureError> {
    match from {
        From::File(path) => {
            let file = File::open(path).map_err(|error| CaptureError::read(0, &error))?;
            Capture::new(file, reading)
        }
        From::Memory(bytes) => Capture::new(Cursor::new(Shared(Arc::clone(bytes))), reading),
    }
}

/// Bytes that several readers share.
#[derive(Debug)]
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

//! The bytes of a capture, unpacked if they are gzipped.

#![forbid(unsafe_code)]

use core::fmt;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, Cursor, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const BUFFER: usize = 1 << 18;
/// As much as tells what kind of file it is.
const HEAD: usize = 12;

/// How far a read came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Whole,
    /// There was nothing more at all.
    End,
    /// It ended in between.
    Cut,
}

pub(super) struct Input {
    inner: Box<dyn Read + Send>,
    /// The beginning, before it is read.
    head: Vec<u8>,
    /// Bytes read so far.
    offset: u64,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Input {
    pub(super) fn new(mut from: impl Read + Send + 'static) -> io::Result<Self> {
        let mut head = Vec::new();
        from.by_ref().take(GZIP.len() as u64).read_to_end(&mut head)?;
        let is_gzipped = head == GZIP;
        let whole = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(from));
        let inner: Box<dyn Read + Send> = if is_gzipped {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(whole)))
        } else {
            Box::new(whole)
        };
        Ok(Self { inner, head: Vec::new(), offset: 0 })
    }

    /// The first bytes, without taking them.
    pub(super) fn peek(&mut self) -> io::Result<&[u8]> {
        if self.head.is_empty() {
            self.inner.by_ref().take(HEAD as u64).read_to_end(&mut self.head)?;
            let rest = core::mem::replace(&mut self.inner, Box::new(io::empty()));
            self.inner = Box::new(Cursor::new(self.head.clone()).chain(rest));
        }
        Ok(&self.head)
    }

    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends `len` bytes to `to`.
    pub(super) fn append(&mut self, to: &mut Vec<u8>, len: usize) -> io::Result<Filled> {
        let start = to.len();
        to.resize(start + len, 0);
        let mut done = 0;
        while done < len {
            match self.inner.read(&mut to[start + done..]) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // How a packed file says that it is cut short.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        to.truncate(start + done);
        self.offset += done as u64;
        Ok(match done {
            _ if done == len => Filled::Whole,
            0 => Filled::End,
            _ => Filled::Cut,
        })
    }
}

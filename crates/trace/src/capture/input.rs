//! The bytes of a capture, unpacked if they are gzipped.

#![forbid(unsafe_code)]

use core::fmt;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, Cursor, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Files are read in blocks of this size.
const BLOCK: usize = 1 << 18;

pub(super) struct Input {
    inner: Box<dyn Read + Send>,
    /// What was read and not taken yet stands from `start` to `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that were taken so far.
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
        if head != GZIP {
            let end = head.len();
            return Ok(Self { inner: Box::new(from), buffer: head, start: 0, end, offset: 0 });
        }
        let packed = BufReader::with_capacity(BLOCK, Cursor::new(head).chain(from));
        let inner = Box::new(MultiGzDecoder::new(packed));
        Ok(Self { inner, buffer: Vec::new(), start: 0, end: 0, offset: 0 })
    }

    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, without taking them: at least `len`, or what there is before the end. More is read only where that
    /// many are not there yet.
    #[inline]
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        if self.end - self.start < len {
            self.fill(len)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Takes bytes that [`Input::peek`] showed.
    #[inline]
    pub(super) const fn take(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }

    fn fill(&mut self, len: usize) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < len.max(BLOCK) {
            self.buffer.resize(len.next_multiple_of(BLOCK), 0);
        }
        while self.end < len {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // How a packed file says that it is cut short.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

//! Standard output, buffered, and written out whenever more input is waited for.

use parking_lot::Mutex;
use stateway_runtime::terminal;
use std::io::{self, BufWriter, Read, Write as _};
use std::sync::Arc;

const BUFFER: usize = 1 << 16;

/// Where verdicts are printed. A copy writes to the same place.
#[derive(Clone, Debug)]
pub(super) struct Output(Arc<Mutex<BufWriter<terminal::Output>>>);

impl Default for Output {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(BufWriter::with_capacity(BUFFER, terminal::Output::stdout()))))
    }
}

impl Output {
    pub(super) fn with<T>(&self, write: impl FnOnce(&mut BufWriter<terminal::Output>) -> T) -> T {
        write(&mut self.0.lock())
    }
}

/// Reads from a capture that still grows: whoever reads the verdicts has them before more frames are waited for.
pub(super) struct FlushFirst<R> {
    inner: R,
    out: Output,
}

impl<R> FlushFirst<R> {
    pub(super) fn new(inner: R, out: &Output) -> Self {
        Self { inner, out: out.clone() }
    }
}

impl<R: Read> Read for FlushFirst<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Nobody reads them any more: the next verdict finds that out.
        let _ = self.out.with(BufWriter::flush);
        self.inner.read(buffer)
    }
}

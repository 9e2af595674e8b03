//! `--nflog FILE`: a thread of its own writes what NFLOG says, so that no packet ever waits for the disk, nor for
//! whoever reads at the other end of a pipe.

use super::listener::Listener;
use crossbeam_channel::{Sender, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use stateway_core::router::Router;
use stateway_trace::capture::nflog::Nflog;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A beginning that could not be written by then waits for a reader, and that is no error.
const BEGINNING: Duration = Duration::from_millis(200);

/// Opens the capture without waiting for anybody: a FIFO need not have a reader yet.
///
/// # Errors
/// With the kernel's reason.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    if fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo()) {
        // With a reading end of our own the opening succeeds, and a reader may come and go.
        options.read(true).open(path)
    } else {
        options.create(true).truncate(true).open(path)
    }
}

/// Writes until the listener is dropped.
///
/// # Errors
/// The beginning of the capture cannot be written, or no thread is to be had.
pub fn start(router: Arc<Router>, out: impl Write + AsFd + Send + 'static) -> io::Result<Listener> {
    let messages = router.logs().listen();
    // Into its buffer, for now.
    let mut capture = Nflog::new(BufWriter::new(Patient(out)), &router)?;
    let (begun, has_begun) = bounded(1);
    let mut began: Option<Sender<io::Result<()>>> = Some(begun);
    let mut is_broken = false;
    let listener = Listener::start("nflog", messages, move |message, is_last| {
        let mut result = message.map_or(Ok(()), |message| capture.write(&message, &router));
        if is_last {
            result = result.and_then(|()| capture.get_mut().flush());
        }
        if let Some(began) = began.take() {
            // Whoever started us may have no time to wait for it.
            let _ = began.try_send(result);
        } else if let (Err(error), false) = (&result, is_broken) {
            tracing::warn!(%error, "the capture of NFLOG cannot be written");
            is_broken = true;
        }
    })?;
    // Whoever reads along sees the beginning before the first packet.
    has_begun.recv_timeout(BEGINNING).unwrap_or(Ok(()))?;
    Ok(listener)
}

/// Waits for room where the descriptor itself would not.
struct Patient<W>(W);

impl<W: Write + AsFd> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, mknodat};
    use stateway_core::config::RouterConfig;
    use std::io::Read as _;

    #[test]
    fn a_fifo_needs_no_reader_at_the_start_and_has_the_beginning_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let router = Arc::new(Router::new(RouterConfig::default()).unwrap());
        let listener = start(router, open(&path).unwrap()).unwrap();
        let mut magic = [0; 4];
        File::open(&path).unwrap().read_exact(&mut magic).unwrap();
        assert_eq!(magic, 0x0a0d_0d0a_u32.to_le_bytes(), "a section header of pcapng");
        drop(listener);
    }

    #[test]
    fn a_full_pipe_without_a_reader_holds_nobody_up() {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while (&writer).write(&[0; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        let router = Arc::new(Router::new(RouterConfig::default()).unwrap());
        let listener = start(router, File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        drop(listener);
        drop(reader);
    }

    #[test]
    fn a_device_without_room_is_an_error_at_the_start() {
        let router = Arc::new(Router::new(RouterConfig::default()).unwrap());
        let error = start(router, open(Path::new("/dev/full")).unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

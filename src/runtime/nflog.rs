//! `--nflog FILE`: a thread of its own writes what NFLOG says, so that no packet ever waits for the disk.

use super::listener::Listener;
use crate::device::pcap::nflog::Nflog;
use crate::router::Router;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

/// Writes until the listener is dropped.
///
/// # Errors
/// The beginning of the capture cannot be written, or no thread is to be had.
pub fn start(router: Arc<Router>, out: impl Write + Send + 'static) -> io::Result<Listener> {
    let mut capture = Nflog::new(BufWriter::new(out), &router)?;
    // Whoever reads along sees the beginning before the first packet.
    capture.get_mut().flush()?;
    let messages = router.logs().listen();
    Listener::start("nflog", messages, move |message, is_last| {
        // Whoever does not read any more, or has no room, need not hear.
        let _ = capture.write(&message, &router);
        if is_last {
            let _ = capture.get_mut().flush();
        }
    })
}

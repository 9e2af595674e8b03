//! A thread that hears what the rules say, until it is told to end; it takes what is left before it does.

use crate::base::log::Logged;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use std::io;
use std::thread::JoinHandle;

/// Hears until it is dropped, and then what is left.
#[derive(Debug)]
pub struct Listener {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// `hear` gets each message, and whether no other waits behind it.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(
        name: &str,
        messages: Receiver<Logged>,
        mut hear: impl FnMut(Logged, bool) + Send + 'static,
    ) -> io::Result<Self> {
        let (end, ended) = bounded::<()>(0);
        let listen = move || {
            loop {
                select! {
                    recv(messages) -> message => match message {
                        Ok(message) => hear(message, messages.is_empty()),
                        Err(_) => return,
                    },
                    recv(ended) -> _ => break,
                }
            }
            while let Ok(message) = messages.try_recv() {
                hear(message, messages.is_empty());
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(listen)?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

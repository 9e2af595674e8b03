//! A thread that hears what the rules say, until it is told to end; it takes what is left before it does.
//!
//! It may block for as long as it likes, since its queue is bounded and loses what does not fit; and whoever ends the
//! router does not wait for it for long.

use super::ending;
use crate::confine::{self, Role};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use stateway_core::base::log::Logged;
use std::io;
use std::time::Duration;

/// What is left when the router ends is given so long; a writer that hangs is left behind.
const PATIENCE: Duration = Duration::from_millis(200);

/// Hears until it is dropped, and then what is left.
#[derive(Debug)]
pub struct Listener {
    end: Option<Sender<()>>,
    alive: Receiver<()>,
}

impl Listener {
    /// `hear` gets each message, and whether no other waits behind it; first of all it gets none, in its own thread.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(
        name: &str,
        messages: stateway_core::base::Listener<Logged>,
        mut hear: impl FnMut(Option<Logged>, bool) + Send + 'static,
    ) -> io::Result<Self> {
        let messages = messages.into_channel();
        let (end, ended) = bounded::<()>(0);
        let (lives, alive) = bounded::<()>(0);
        let listen = move || {
            let _lives = lives;
            hear(None, messages.is_empty());
            loop {
                select! {
                    recv(messages) -> message => match message {
                        Ok(message) => hear(Some(message), messages.is_empty()),
                        Err(_) => return,
                    },
                    recv(ended) -> _ => break,
                }
            }
            while let Ok(message) = messages.try_recv() {
                hear(Some(message), messages.is_empty());
            }
        };
        confine::spawn(name, Role::Writer, listen)?;
        Ok(Self { end: Some(end), alive })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.end.take());
        if !ending::has_ended(&self.alive, PATIENCE) {
            tracing::debug!("a listener still writes; nobody waits for it");
        }
    }
}

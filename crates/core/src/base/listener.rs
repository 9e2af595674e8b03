//! What whoever listens holds: a queue of bounded length that the router fills and never waits for.

#![forbid(unsafe_code)]

use super::Duration;
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

/// Where events or messages arrive, in the order in which they happened. Whoever takes them too slowly loses some, and a
/// counter tells how many. Once it is dropped, nothing is gathered any more.
#[derive(Debug)]
pub struct Listener<T>(Receiver<T>);

/// Nothing will arrive any more: the router is gone, or somebody else listens now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the router is gone, or somebody else listens to it now")]
pub struct Gone;

impl<T> Listener<T> {
    pub(crate) const fn new(receiver: Receiver<T>) -> Self {
        Self(receiver)
    }

    /// The channel itself, to wait for it beside others.
    #[doc(hidden)]
    pub fn into_channel(self) -> Receiver<T> {
        self.0
    }

    /// How many wait to be taken.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// Nothing will arrive any more, and all that did was taken.
    pub fn recv(&self) -> Result<T, Gone> {
        self.0.recv().map_err(|_| Gone)
    }

    /// Takes the next one if it is there: `None` if not yet.
    ///
    /// # Errors
    /// Nothing will arrive any more, and all that did was taken.
    pub fn try_recv(&self) -> Result<Option<T>, Gone> {
        match self.0.try_recv() {
            Ok(one) => Ok(Some(one)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Gone),
        }
    }

    /// Waits for the next one, but no longer than that: `None` if none came.
    ///
    /// # Errors
    /// Nothing will arrive any more, and all that did was taken.
    pub fn recv_timeout(&self, longest: Duration) -> Result<Option<T>, Gone> {
        match self.0.recv_timeout(longest) {
            Ok(one) => Ok(Some(one)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }

    /// Those that are there, without waiting for more.
    pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        self.0.try_iter()
    }

    /// All of them, waiting for each, until nothing will arrive any more.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.0.iter()
    }
}

impl<T> IntoIterator for Listener<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

/// [`Listener::iter`] of a listener that it owns.
#[derive(Debug)]
pub struct IntoIter<T>(Listener<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

//! Who listens to what the router does, and how they hear of it without ever being in its way.
//!
//! A listener has a bounded channel. The worker never waits for it: what does not fit is lost, and counted. What it puts there
//! is a [`Sighting`]; the listener's own thread makes words of it.

mod pace;
mod sighting;
mod wanted;

pub use sighting::Sighting;
pub(super) use sighting::{Arriving, Witness};

use crate::control::protocol::VerdictFilter;
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};
use pace::Pace;
use stateway_core::iface::Iface;
use stateway_core::time::Instant;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wanted::Wanted;

/// Packets that wait for one listener.
const QUEUE: usize = 8192;
/// The same for one who is told of every rule: that takes some kilobytes a packet.
const QUEUE_OF_WAYS: usize = 512;

/// The listeners to verdicts. Nobody listens most of the time, and then it costs one load a burst.
#[derive(Debug, Default)]
pub struct Watchers {
    all: ArcSwap<Vec<Arc<Watcher>>>,
}

#[derive(Debug)]
pub(super) struct Watcher {
    wanted: Wanted,
    /// It is told the whole way of a packet.
    explains: bool,
    /// How many packets it is told of in a second; `None` if as many as it can take.
    pace: Option<Pace>,
    events: Sender<Sighting>,
    lost: Arc<AtomicU64>,
}

/// A listener's end. Dropping it ends the subscription.
pub struct Subscription<T> {
    events: Receiver<T>,
    lost: Arc<AtomicU64>,
    end: Option<Box<dyn FnOnce() + Send>>,
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("waiting", &self.events.len()).finish_non_exhaustive()
    }
}

impl<T> Subscription<T> {
    /// `end` is what takes the listener off the list again.
    pub fn new(events: Receiver<T>, lost: Arc<AtomicU64>, end: impl FnOnce() + Send + 'static) -> Self {
        Self { events, lost, end: Some(Box::new(end)) }
    }

    pub const fn events(&self) -> &Receiver<T> {
        &self.events
    }

    /// How many events were lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl Watchers {
    /// Begins to listen: every packet that comes in from now on and that `filter` wants is told; its whole way as well, if
    /// `explains`. What is beyond `per_second` packets in a second is lost; `None` sets no such bound.
    ///
    /// # Errors
    /// What in the filter means nothing, for the client.
    pub fn subscribe(
        self: &Arc<Self>,
        filter: VerdictFilter,
        explains: bool,
        per_second: Option<u32>,
        ifaces: &[Iface],
    ) -> Result<Subscription<Sighting>, String> {
        let wanted = Wanted::read(filter, ifaces)?;
        let (sender, events) = bounded(if explains { QUEUE_OF_WAYS } else { QUEUE });
        let lost = Arc::new(AtomicU64::new(0));
        let pace = per_second.map(Pace::new);
        let watcher = Arc::new(Watcher { wanted, explains, pace, events: sender, lost: Arc::clone(&lost) });
        self.all.rcu(|all| all.iter().cloned().chain([Arc::clone(&watcher)]).collect::<Vec<_>>());
        let watchers = Arc::clone(self);
        let end = move || {
            watchers
                .all
                .rcu(|all| all.iter().filter(|w| !Arc::ptr_eq(w, &watcher)).cloned().collect::<Vec<_>>());
        };
        Ok(Subscription::new(events, lost, end))
    }

    /// Those who listen now; to be asked for after the frames were read, so that none is missed.
    pub(super) fn now(&self) -> Option<arc_swap::Guard<Arc<Vec<Arc<Watcher>>>>> {
        let all = self.all.load();
        (!all.is_empty()).then_some(all)
    }
}

impl Watcher {
    /// It would lose a packet that came in now.
    fn has_no_room(&self, now: Instant) -> bool {
        self.events.is_full() || self.pace.as_ref().is_some_and(|pace| pace.is_spent(now))
    }
}

/// Whether nobody has to look at the `packets` of a burst: all who listen want every one, and have no room now. They are lost to
/// them then.
pub(super) fn are_lost_to_all(watchers: &[Arc<Watcher>], packets: usize, now: Instant) -> bool {
    let are_lost = watchers.iter().all(|watcher| watcher.wanted.is_everything() && watcher.has_no_room(now));
    if are_lost {
        for watcher in watchers {
            watcher.lost.fetch_add(packets as u64, Ordering::Relaxed);
        }
    }
    are_lost
}

/// Whether anybody may want to hear of a packet, whatever becomes of it.
pub(super) fn concerns_any(watchers: &[Arc<Watcher>], arriving: &Arriving) -> bool {
    watchers.iter().any(|watcher| watcher.wanted.may_want(arriving))
}

/// Whether anybody wants the whole way of a packet, and has room for it.
pub(super) fn is_explained(watchers: &[Arc<Watcher>], arriving: &Arriving) -> bool {
    watchers.iter().any(|w| w.explains && !w.has_no_room(arriving.time) && w.wanted.may_want(arriving))
}

/// Tells everybody whom it concerns.
pub(super) fn tell(watchers: &[Arc<Watcher>], sighting: &Sighting) {
    for watcher in watchers.iter().filter(|watcher| watcher.wanted.wants(sighting)) {
        // Nothing is copied for one who has stopped reading, or was told enough.
        let has_room = !watcher.events.is_full()
            && watcher.pace.as_ref().is_none_or(|pace| pace.take(sighting.arriving.time));
        let is_lost = !has_room || {
            let told = if watcher.explains { sighting.clone() } else { sighting.without_way() };
            watcher.events.try_send(told).is_err()
        };
        if is_lost {
            watcher.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

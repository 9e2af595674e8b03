//! Connection events for several clients: the tracker has one listener, which hands them on.

use crate::confine::{self, Role};
use crate::runtime::watch::Subscription;
use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;
use stateway_core::conntrack::{Event, Filter};
use stateway_core::router::Router;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Events that wait for one client.
const QUEUE: usize = 8192;

/// Those who listen. The first starts a thread; it ends when nobody listens any more.
#[derive(Debug, Default)]
pub(super) struct Hub {
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    all: Vec<Arc<Listener>>,
    is_running: bool,
}

#[derive(Debug)]
struct Listener {
    wants: Wants,
    events: Sender<Arc<Event>>,
    lost: Arc<AtomicU64>,
}

/// Which events one client asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wants {
    pub(super) filter: Filter,
    pub(super) expectations: bool,
    /// `NEW`, `UPDATE`, `DESTROY`; none means all.
    pub(super) kinds: Vec<String>,
}

impl Hub {
    /// Begins to listen: no event from now on is missed, unless the client is too slow.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        router: &Arc<Router>,
        wants: Wants,
    ) -> Subscription<Arc<Event>> {
        let (sender, events) = bounded(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let listener = Arc::new(Listener { wants, events: sender, lost: Arc::clone(&lost) });
        let mut listeners = self.listeners.lock();
        listeners.all.push(Arc::clone(&listener));
        if !listeners.is_running {
            listeners.is_running = true;
            self.start(router);
        }
        drop(listeners);
        let hub = Arc::clone(self);
        let end = move || hub.listeners.lock().all.retain(|other| !Arc::ptr_eq(other, &listener));
        Subscription::new(events, lost, end)
    }

    fn start(self: &Arc<Self>, router: &Arc<Router>) {
        let incoming = router.conntrack().listen();
        let hub = Arc::clone(self);
        let hand_on = move || {
            while let Ok(event) = incoming.recv() {
                if !hub.tell(&Arc::new(event)) {
                    return;
                }
            }
        };
        if let Err(error) = confine::spawn("events", Role::Writer, hand_on) {
            tracing::warn!(%error, "no thread for connection events");
        }
    }

    /// Hands one event on; says whether anybody is left to listen.
    fn tell(&self, event: &Arc<Event>) -> bool {
        let mut listeners = self.listeners.lock();
        for listener in &listeners.all {
            let Wants { filter, expectations, kinds } = &listener.wants;
            let wanted = super::entries::wants(filter, *expectations, kinds, event);
            if wanted && listener.events.try_send(Arc::clone(event)).is_err() {
                listener.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        listeners.is_running = !listeners.all.is_empty();
        listeners.is_running
    }
}

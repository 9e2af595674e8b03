//! What the running router is told from outside: to load its rules again, and to end.

use super::ending::LastResort;
use crate::confine::{self, Role};
use crossbeam_channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::thread::JoinHandle;

/// One thing to do, for the thread that owns the runtime.
#[derive(Debug)]
pub enum Order {
    /// Load the rules again, all or nothing, and say how it went.
    Reload(Option<Sender<Result<(), String>>>),
    Stop,
}

/// Turns signals into orders until it is dropped.
#[derive(Debug)]
pub struct SignalOrders {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Signals that are caught and wait. Catching them takes what a router gives up before it has threads.
#[derive(Debug)]
pub struct Caught(Signals);

impl Caught {
    /// From here on the signals do nothing but wait.
    ///
    /// # Errors
    /// They cannot be caught.
    pub fn catch() -> io::Result<Self> {
        Signals::new([SIGHUP, SIGTERM, SIGINT]).map(Self)
    }
}

impl SignalOrders {
    /// SIGHUP orders a reload, SIGTERM and SIGINT the end, which from then on is certain.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn listen(
        Caught(mut signals): Caught,
        orders: Sender<Order>,
        last_resort: LastResort,
    ) -> io::Result<Self> {
        let handle = signals.handle();
        let forward = move || {
            for signal in &mut signals {
                let order = if signal == SIGHUP {
                    Order::Reload(None)
                } else {
                    // Here, since whoever takes the order may be held up.
                    last_resort.begin();
                    Order::Stop
                };
                if orders.send(order).is_err() {
                    return;
                }
            }
        };
        let thread = confine::spawn("signals", Role::Writer, forward)?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for SignalOrders {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

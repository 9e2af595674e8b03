//! What rules say aloud: LOG, NFLOG and TRACE, to whoever listens.
//!
//! A listener that is slow loses messages and is told how many; the packet never waits.

#![forbid(unsafe_code)]

use super::{Hook, IfaceId, Instant, Listener, Mac, RuleId, Table};
use core::fmt;
use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Messages that wait for one listener.
const QUEUE: usize = 4096;

/// One packet that a rule spoke of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// When.
    pub at: Instant,
    /// Which target spoke, and what it was told to say.
    pub by: Speaker,
    /// The rule that held; behind the last one of its chain: the policy.
    pub rule: RuleId,
    /// The table of the rule.
    pub table: Table,
    /// Where on the packet's way.
    pub hook: Hook,
    /// Where the packet came in; `None` for one that the router itself wrote.
    pub in_iface: Option<IfaceId>,
    /// Where it is to leave, if that is known.
    pub out_iface: Option<IfaceId>,
    /// The sender's link address.
    pub src_mac: Mac,
    /// The receiver's link address.
    pub dst_mac: Mac,
    /// The packet's mark.
    pub mark: u32,
    /// The IP packet, or as much of it as the rule asked for.
    pub packet: Vec<u8>,
    /// How long it is as a whole.
    pub packet_len: usize,
}

/// A target that speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// `-j LOG`.
    Log {
        /// What the line begins with.
        prefix: String,
        /// As syslog has it: from 0, an emergency, to 7.
        level: u8,
        /// What it is to tell besides the usual.
        details: LogDetails,
    },
    /// `-j NFLOG`.
    Nflog {
        /// What is handed on with the packet.
        prefix: String,
        /// Which listeners it is for.
        group: u16,
    },
    /// A packet that `-j TRACE` marked.
    Trace,
}

/// What LOG was asked to tell besides the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogDetails {
    /// `--log-tcp-sequence`
    pub tcp_sequence: bool,
    /// `--log-tcp-options`
    pub tcp_options: bool,
    /// `--log-ip-options`
    pub ip_options: bool,
    /// `--log-macdecode`
    pub macdecode: bool,
}

impl LogDetails {
    /// All of a packet; its link addresses stay as they are.
    pub const ALL: Self = Self { tcp_sequence: true, tcp_options: true, ip_options: true, macdecode: false };
}

/// Those who listen.
#[derive(Default)]
pub struct Logs {
    listeners: RwLock<Vec<Sender<Logged>>>,
    is_heard: AtomicBool,
    lost: AtomicU64,
}

impl Logs {
    /// Hears everything from now on, until the listener is dropped.
    pub fn listen(&self) -> Listener<Logged> {
        let (sender, receiver) = bounded(QUEUE);
        self.listeners.write().push(sender);
        self.is_heard.store(true, Ordering::Release);
        Listener::new(receiver)
    }

    /// How many messages were lost because a listener was slow.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    #[inline]
    fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Acquire)
    }

    /// Sends a message to all who listen; it is made only if somebody does.
    pub(crate) fn say(&self, message: impl FnOnce() -> Logged) {
        if self.is_heard() {
            self.send(&message());
        }
    }

    fn send(&self, message: &Logged) {
        let mut gone = false;
        for listener in self.listeners.read().iter() {
            match listener.try_send(message.clone()) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
                Err(TrySendError::Disconnected(_)) => gone = true,
            }
        }
        if gone {
            self.forget_the_gone(message);
        }
    }

    fn forget_the_gone(&self, message: &Logged) {
        let mut listeners = self.listeners.write();
        listeners.retain(|l| !matches!(l.try_send(message.clone()), Err(TrySendError::Disconnected(_))));
        self.is_heard.store(!listeners.is_empty(), Ordering::Release);
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").field("lost", &self.lost).finish_non_exhaustive()
    }
}

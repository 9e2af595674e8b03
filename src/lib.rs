//! Stateway: a virtual router in userspace, with an iptables-style stateful filter.
//!
//! ```text
//!   PREROUTING          routing        FORWARD            POSTROUTING
//!   raw → track → mangle ──┬──────── mangle → filter ──── mangle → confirm ──→ out
//!                          └─ INPUT ─ mangle → filter → confirm ──→ the router itself
//! ```
//!
//! Modules in reading order. The core (down to [`router`]) is pure: no thread, clock, file, socket or randomness.

// The core.
pub mod bridge;
pub mod config;
pub mod conntrack;
pub mod context;
pub mod decision;
pub mod fate;
pub mod filter;
pub mod host;
pub mod icmp_reply;
pub mod iface;
pub mod neighbour;
pub mod packet;
mod pipeline;
pub mod record;
pub mod route;
pub mod router;
pub mod time;

// The outside world.
pub mod cli;
#[cfg(target_os = "linux")]
pub mod conform;
#[cfg(target_os = "linux")]
pub mod control;
pub mod coverage;
#[cfg(target_os = "linux")]
pub mod device;
/// Without Linux there are no TAPs, but captures all the same.
#[cfg(not(target_os = "linux"))]
pub mod device {
    pub mod pcap;
}
pub mod explain;
pub mod flow;
pub mod lab;
pub mod replay;
#[cfg(target_os = "linux")]
pub mod runtime;

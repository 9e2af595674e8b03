//! Stateway: a virtual router in userspace, with an iptables-style stateful filter.
//!
//! ```text
//!   PREROUTING          routing        FORWARD            POSTROUTING
//!   raw → track → mangle ──┬──────── mangle → filter ──── mangle → confirm ──→ out
//!                          └─ INPUT ─ mangle → filter → confirm ──→ the router itself
//! ```
//!
//! It has no thread, clock, file, socket or randomness of its own: frames, time and commands go in; fates, frames and events
//! come out. What this page lists is the interface: [`Router`], and what it takes and gives.
//!
//! # Driving it
//!
//! 1. For each frame that came in: [`Router::process`], then send what [`Outcome::out`] names and the worker's
//!    [`Worker::take_emissions`], in that order.
//! 2. After each batch: [`Router::handle_timeout`] if [`Router::poll_timeout`] has passed, and send its emissions.
//! 3. Then sleep until the next frame or [`Router::poll_timeout`].
//!
//! Time never goes backwards between calls. Threads have a [`Worker`] each and share the router.
//!
//! # Without Ethernet
//!
//! A VPN has bare IP packets, of a TUN. An interface of [`Medium::Ip`] takes and gives such packets: no link header, no ARP,
//! no neighbour discovery. A packet comes in with [`Frame::bare`], behind [`Frame::HEADROOM`] bytes of its buffer: there its
//! link header is written if it leaves by an Ethernet interface, so that no packet is copied. [`Outcome::range`] says which
//! part of the buffer is to be sent, and an [`Emission`] for such an interface is a bare packet, too.
//!
//! - In route mode ([`Mode::Route`]) both media may meet in one router, and whatever is routed to an interface of bare packets
//!   leaves it, to a gateway as to a host.
//! - In bridge mode a router has either Ethernet interfaces, or two of bare packets: a filter between a TUN and a tunnel, of
//!   which `examples/tun_filter.rs` is one. Anything else is refused when the router is made.
//! - Rules that look at link addresses (`-m mac`, `-m pkttype`, the `MAC=` of LOG) see made-up ones there.
//!
//! # Embedding the router
//!
//! Whoever has frames and a clock can drive it; `examples/embed.rs` is a whole program. Here a client on `lan` asks a server
//! on `wan`, which may answer but not ask:
//!
//! ```
//! use stateway_core::{Frame, Iface, IfaceId, Instant, NoRecord, Router, RouterConfig};
//!
//! /// A UDP datagram without payload or checksum, between host 1 (port 5000) and host 2 (port 53).
//! fn datagram(from: u8, to: u8) -> Vec<u8> {
//!     let port = |host| if host == 1 { 5000_u16 } else { 53 };
//!     let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0];
//!     frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, from, 192, 0, 2, to]);
//!     let words = frame[14..].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
//!     let sum: u32 = words.sum();
//!     let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
//!     frame[24..26].copy_from_slice(&checksum.to_be_bytes());
//!     frame.extend([port(from).to_be_bytes(), port(to).to_be_bytes(), [0, 8], [0, 0]].as_flattened());
//!     frame
//! }
//!
//! let (lan, wan) = (IfaceId(0), IfaceId(1));
//! let rules = "*filter\n\
//!     :FORWARD DROP [0:0]\n\
//!     -A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT\n\
//!     -A FORWARD -i lan -m state --state NEW -j ACCEPT\n\
//!     COMMIT\n";
//! let mut config = RouterConfig::new(vec![Iface::new("lan", lan), Iface::new("wan", wan)]);
//! config.rules = Some(rules.to_owned());
//! config.seed = 7; // of the hash: unpredictable where strangers choose addresses
//! let router = Router::new(config).map_err(|errors| errors[0].clone())?;
//!
//! let mut worker = router.worker();
//! let mut fate = |iface, mut frame: Vec<u8>| {
//!     let now = Instant::ZERO; // the driver's clock
//!     let outcome = router.process(&mut worker, now, iface, Frame::new(&mut frame), &mut NoRecord);
//!     if let Some(port) = outcome.out {
//!         let _to_send = (port, &frame[outcome.range()]); // edited in place
//!     }
//!     for emission in worker.take_emissions() {
//!         let _to_send = (emission.iface, emission.frame); // an error, a reset, a copy
//!     }
//!     outcome.fate.word()
//! };
//! assert_eq!(fate(wan, datagram(2, 1)), "dropped"); // nobody asked for it
//! assert_eq!(fate(lan, datagram(1, 2)), "forwarded");
//! assert_eq!(fate(wan, datagram(2, 1)), "forwarded"); // the answer
//! assert_eq!(router.conntrack().count(), 1);
//! # Ok::<(), stateway_core::RouterError>(())
//! ```

#![warn(missing_docs)]

// The internals: the other crates of the workspace name them by these paths, and they may change with every version. What
// a user of this crate names is re-exported below. The documentation leaves them out, and the compiler asks for documentation
// in those that hold what is re-exported.
#[cfg_attr(doc, doc(hidden))]
pub mod base;
#[doc(hidden)]
pub mod bridge;
#[cfg_attr(doc, doc(hidden))]
pub mod config;
#[cfg_attr(doc, doc(hidden))]
pub mod conntrack;
#[cfg_attr(doc, doc(hidden))]
pub mod decision;
#[doc(hidden)]
pub mod filter;
#[doc(hidden)]
pub mod host;
#[doc(hidden)]
pub mod icmp_reply;
#[doc(hidden)]
pub mod nat;
#[doc(hidden)]
pub mod neighbour;
#[cfg_attr(doc, doc(hidden))]
pub mod packet;
mod pipeline;
mod plane;
#[cfg_attr(doc, doc(hidden))]
pub mod record;
#[cfg_attr(doc, doc(hidden))]
pub mod reload;
#[doc(hidden)]
pub mod route;
#[cfg_attr(doc, doc(hidden))]
pub mod router;
#[cfg_attr(doc, doc(hidden))]
pub mod saved;

// The words of the ground floor, by the names that most of the outside knows them by.
#[doc(hidden)]
pub use base::{fate, iface, time};

// Frames and time in, fates and frames out.
pub use base::{
    DropReason, Duration, Emission, EmissionKind, Fate, IfaceId, Instant, InvalidReason, Offload,
    QueueReason, Reason,
};
pub use packet::Frame;
pub use router::{Outcome, Router, RouterError, Worker};
// What a router is made from.
pub use base::{Addr, Family, Iface, Mac, Medium, Prefix};
pub use config::{Mode, NeighbourConfig, NeighbourPolicy, RouteConfig, RouteTarget, RouterConfig};
pub use filter::RuleError;
pub use reload::{Refusal, ReloadError};
// Why: what happened to a packet on its way.
pub use base::{Hook, RejectWith, RuleId, Table};
pub use decision::Decision;
pub use record::{NoRecord, Note, Recorder, Trace};
// The connections, and what is said of them and by rules.
pub use base::Listener;
pub use base::listener::Gone;
pub use base::log::{LogDetails, Logged, Logs, Speaker};
pub use conntrack::listing;
pub use conntrack::{
    Conntrack, Counter, CtState, Direction, Entry, Event, EventKind, Expectation, Filter, Helper, Stats,
    Status, SysctlError, Sysctls, Tracked,
};
pub use packet::Tuple;

//! Stateway: a virtual router in userspace, with an iptables-style stateful filter.
//!
//! ```text
//!   PREROUTING          routing        FORWARD            POSTROUTING
//!   raw → track → mangle ──┬──────── mangle → filter ──── mangle → confirm ──→ out
//!                          └─ INPUT ─ mangle → filter → confirm ──→ the router itself
//! ```
//!
//! Modules in reading order. The core (down to [`router`]) is pure: no thread, clock, file, socket or randomness.
//!
//! # Without Ethernet
//!
//! A VPN has bare IP packets, of a TUN. The router takes Ethernet frames, so a packet gets 14 bytes in front of it when it
//! goes in, and they are cut off what comes out: twelve zeros in place of two link addresses, and `08 00` for IPv4 or
//! `86 dd` for IPv6. In bridge mode that is all, and what is no IP among the emissions may be thrown away. In route mode, each
//! next hop behind such an interface takes a static neighbour ([`config::RouterConfig`]), for nobody there answers ARP.
//!
//! # Embedding the router
//!
//! Whoever has frames and a clock can drive it; [`router`] states the contract. Here a client on `lan` asks a server on
//! `wan`, which may answer but not ask:
//!
//! ```
//! use stateway_core::config::RouterConfig;
//! use stateway_core::iface::{Iface, IfaceId};
//! use stateway_core::packet::{Frame, checksum::Sum};
//! use stateway_core::record::NoRecord;
//! use stateway_core::router::Router;
//! use stateway_core::time::Instant;
//!
//! /// A UDP datagram without payload or checksum, between host 1 (port 5000) and host 2 (port 53).
//! fn datagram(from: u8, to: u8) -> Vec<u8> {
//!     let port = |host| if host == 1 { 5000_u16 } else { 53 };
//!     let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0];
//!     frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, from, 192, 0, 2, to]);
//!     let checksum = Sum::ZERO.bytes(&frame[14..]).checksum();
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
//! let router = Router::new(RouterConfig {
//!     ifaces: vec![Iface::new("lan", lan), Iface::new("wan", wan)],
//!     rules: Some(rules.to_owned()),
//!     seed: 7, // of the hash: unpredictable where strangers choose addresses
//!     ..RouterConfig::default()
//! })
//! .map_err(|errors| errors[0].to_string())?;
//!
//! let mut worker = router.worker();
//! let mut fate = |iface, mut frame: Vec<u8>| {
//!     let now = Instant::ZERO; // the driver's clock
//!     let outcome = router.process(&mut worker, now, iface, Frame::new(&mut frame), &mut NoRecord);
//!     if let Some(port) = outcome.out {
//!         let _to_send = (port, &frame[..outcome.len]); // edited in place
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
//! # Ok::<(), String>(())
//! ```

// The core.
pub mod base;
pub mod bridge;
pub mod config;
pub mod conntrack;
pub mod decision;
pub mod filter;
pub mod host;
pub mod icmp_reply;
pub mod nat;
pub mod neighbour;
pub mod packet;
mod pipeline;
mod plane;
pub mod record;
pub mod reload;
pub mod route;
pub mod router;
pub mod saved;

// The words of the ground floor, by the names that most of the outside knows them by.
pub use base::{fate, iface, time};

//! The words that everything here uses, and that name nothing above themselves: time, addresses, interfaces, hooks, fates.

#![forbid(unsafe_code)]

pub mod addr;
pub mod emission;
pub mod fate;
pub mod hook;
pub mod iface;
pub mod invalid;
pub mod listener;
pub mod log;
pub mod offload;
pub mod time;
pub mod tolerance;

pub use addr::{Addr, Family, Mac, Prefix};
pub use emission::{Emission, EmissionKind};
pub use fate::{DropReason, Fate, QueueReason, Reason, Stage};
pub use hook::{Hook, RejectWith, RuleId, Table};
pub use iface::{Iface, IfaceId, Medium};
pub use invalid::InvalidReason;
pub use listener::Listener;
pub use offload::Offload;
pub use time::{Duration, Instant};
pub use tolerance::Tolerance;

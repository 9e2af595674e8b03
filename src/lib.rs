//! The router, and with the feature `cli` (on unless told otherwise) the program around it.
//!
//! What a program that wants the router inside needs is what `stateway-core` has; it stands here too. Such a program depends
//! on `stateway-core`, or on this crate with `default-features = false`. The router takes Ethernet frames, and also the bare
//! IP packets of a TUN, as a VPN has them.
//!
//! [`cli`] has the command line, one file per subcommand. Each part of the work has a crate of its own: the router
//! (`stateway-core`), captures and questions (`stateway-trace`, `stateway-model`), a running router on Linux
//! (`stateway-runtime`), labs (`stateway-lab`) and the comparison with the kernel (`stateway-conform`).

#[cfg(feature = "cli")]
pub mod cli;

pub use stateway_core::*;

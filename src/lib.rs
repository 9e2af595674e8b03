//! The program `stateway`: [`cli`] has its command line, one file per subcommand.
//!
//! Each part of the work has a crate of its own: the router (`stateway-core`), captures and questions
//! (`stateway-trace`), a running router on Linux (`stateway-runtime`), labs (`stateway-lab`) and the comparison with the
//! kernel (`stateway-conform`).
//!
//! A program that wants the router inside depends on `stateway-core` alone, whose first page is about that: it takes
//! Ethernet frames, and also the bare IP packets of a TUN, as a VPN has them.

pub mod cli;

//! What is fuzzed: each target takes the bytes of others to whatever reads them.
//!
//! libFuzzer calls them (`fuzz_targets/`), and `cargo test fuzz_corpus` gives them every input of `corpus/` without a
//! fuzzer.

pub mod capture;
pub mod control;
pub mod explain;
pub mod flow;
pub mod frames;
pub mod lab;
pub mod nat;
pub mod offload;
mod routers;
pub mod rules;
pub mod state;

/// What takes the bytes of one input.
pub type Target = fn(&[u8]);

/// Every target by its name, which its folder in the corpus has too.
pub const TARGETS: [(&str, Target); 10] = [
    ("rules", rules::run),
    ("frames", frames::run),
    ("offload", offload::run),
    ("flow", flow::run),
    ("capture", capture::run),
    ("lab", lab::run),
    ("control", control::run),
    ("explain", explain::run),
    ("nat", nat::run),
    ("state", state::run),
];

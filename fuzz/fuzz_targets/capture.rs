//! Bytes of captures: nothing panics, neither reading nor replaying nor writing back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stateway::device::pcap::Capture;
use stateway::replay::{Replay, bridge_of};
use stateway::router::Router;

fuzz_target!(|data: &[u8]| {
    let Ok(capture) = Capture::parse(data.to_vec()) else { return };
    let router = Router::new(bridge_of(&capture)).expect("a router without rules");
    let Ok(mut replay) = Replay::new(&capture, &router, true) else { return };
    while replay.step().is_some() {}
    replay.table();
});

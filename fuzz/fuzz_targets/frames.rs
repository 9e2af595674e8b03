//! Frames of noise through a router with rules of many kinds: nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stateway::config::RouterConfig;
use stateway::iface::{Iface, IfaceId};
use stateway::packet::Offload;
use stateway::record::NoRecord;
use stateway::router::{Router, Worker};
use stateway::time::Instant;
use std::sync::LazyLock;

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let config = RouterConfig {
        ifaces: vec![Iface::new("left", IfaceId(0)), Iface::new("right", IfaceId(1))],
        rules: Some(include_str!("../../tests/rulesets/headers.rules").to_owned()),
        rules6: Some(include_str!("../../tests/rulesets/gateway6.rules6").to_owned()),
        ..RouterConfig::default()
    };
    Router::new(config).expect("the rules load")
});

fuzz_target!(|data: &[u8]| {
    let mut worker = Worker::new(0);
    // Lengths of two bytes cut the noise into frames.
    let mut rest = data;
    let mut now = 0;
    while let Some((&[high, low], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high & 0x0f, low])).min(behind.len());
        let (frame, behind) = behind.split_at(len);
        now += u64::from(high) * 100_000_000;
        let port = IfaceId(u16::from(high >> 7));
        let mut frame = frame.to_vec();
        ROUTER.process(&mut worker, Instant::from_nanos(now), port, &mut frame, Offload::NONE, &mut NoRecord);
        worker.take_emissions();
        rest = behind;
    }
});

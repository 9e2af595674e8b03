//! Frames of noise through routers in both modes, with rules of many kinds: nothing panics.
//!
//! The input: a byte that picks the router, then for each frame a byte of time, one of port and switches, two of
//! length, and its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stateway::config::RouterConfig;
use stateway::flow;
use stateway::iface::IfaceId;
use stateway::packet::Offload;
use stateway::record::{NoRecord, Trace};
use stateway::router::{Router, Worker};
use stateway::time::Instant;
use std::sync::LazyLock;

const RULES: [&str; 4] = [
    include_str!("../../tests/rulesets/headers.rules"),
    include_str!("../../tests/rulesets/conntrack.rules"),
    include_str!("../../tests/rulesets/rates.rules"),
    include_str!("../../tests/rulesets/sets.rules"),
];
const RULES6: &str = include_str!("../../tests/rulesets/gateway6.rules6");

/// Where the bits of a frame's second byte lead.
const RIGHT: u8 = 1;
const MEND_CHECKSUM: u8 = 2;
const RECORDED: u8 = 4;

static CONFIGS: LazyLock<Vec<RouterConfig>> = LazyLock::new(|| {
    let mut configs = Vec::new();
    for mode in ["mode route\n", "mode bridge\n"] {
        for rules in RULES {
            let scenario = flow::parse(&format!("# noise\n{mode}")).expect("a scenario without packets");
            let mut config = flow::config(&scenario);
            config.sysctl.push(("nf_conntrack_checksum".to_owned(), "0".to_owned()));
            config.helpers = vec!["ftp".to_owned(), "tftp".to_owned()];
            config.rules = Some(rules.to_owned());
            config.rules6 = Some(RULES6.to_owned());
            configs.push(config);
        }
    }
    configs
});

fuzz_target!(|data: &[u8]| {
    let Some((&pick, mut rest)) = data.split_first() else { return };
    let config = CONFIGS[usize::from(pick) % CONFIGS.len()].clone();
    let router = Router::new(config).expect("the rules load");
    let mut worker = Worker::new(0);
    let mut now = 0;
    while let Some((&[time, switches, high, low], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        let (frame, behind) = behind.split_at(len);
        rest = behind;
        // Up to two hours at once, so that every timer runs out.
        now += u64::from(time).pow(2) * 110_000_000;
        let port = IfaceId(u16::from(switches & RIGHT));
        let mut frame = frame.to_vec();
        if switches & MEND_CHECKSUM != 0 {
            mend_checksum(&mut frame);
        }
        let now = Instant::from_nanos(now);
        router.handle_timeout(&mut worker, now);
        worker.take_emissions();
        if switches & RECORDED == 0 {
            router.process(&mut worker, now, port, &mut frame, Offload::NONE, &mut NoRecord);
        } else {
            router.process(&mut worker, now, port, &mut frame, Offload::NONE, &mut Trace::default());
        }
        worker.take_emissions();
    }
});

/// Most noise would end at the checksum of the IPv4 header.
fn mend_checksum(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(14..) else { return };
    let len = header.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let Some(header) = header.get_mut(..len).filter(|h| h.len() >= 20) else { return };
    header[10..12].fill(0);
    let mut sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

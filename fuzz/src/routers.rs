//! The routers that frames are thrown at.

use stateway_core::config::RouterConfig;
use stateway_core::router::{Router, Rules};
use stateway_trace::flow;
use std::sync::{Arc, LazyLock};

/// Rules that remember nothing from one packet to the next are read once: reading them takes ten times as long as what
/// most inputs then do.
const FORGETFUL: [&str; 3] = [
    include_str!("../../tests/rulesets/headers.rules"),
    include_str!("../../tests/rulesets/conntrack.rules"),
    // What changes a packet, and what answers it.
    "*mangle
-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -p tcp -j ECN --ecn-tcp-remove
-A FORWARD -j DSCP --set-dscp 10
COMMIT
*filter
-A FORWARD -p udp --dport 9 -j REJECT
-A FORWARD -p tcp --dport 9 -j REJECT --reject-with tcp-reset
COMMIT
",
];
const FORGETFUL6: &str = include_str!("../../tests/rulesets/headers.rules6");
/// Others are read anew for each input, which alone then says what comes of it.
const REMEMBERING: [&str; 2] =
    [include_str!("../../tests/rulesets/rates.rules"), include_str!("../../tests/rulesets/sets.rules")];
const REMEMBERING6: &str = include_str!("../../tests/rulesets/gateway6.rules6");
/// From here on, the byte that picks means rules that remember.
const REMEMBERS: u8 = 0xe0;

/// One way to make a router.
struct Make {
    config: RouterConfig,
    rules: Option<Arc<Rules>>,
}

static FORGETFUL_ROUTERS: LazyLock<Vec<Make>> = LazyLock::new(|| {
    let make = |rules, mode| {
        let config = config(mode, rules, FORGETFUL6);
        let rules = Router::new(config.clone()).expect("the rules load").rules();
        Make { config, rules: Some(rules) }
    };
    FORGETFUL.iter().flat_map(|rules| MODES.map(|mode| make(rules, mode))).collect()
});

static REMEMBERING_ROUTERS: LazyLock<Vec<Make>> = LazyLock::new(|| {
    let make = |rules, mode| Make { config: config(mode, rules, REMEMBERING6), rules: None };
    REMEMBERING.iter().flat_map(|rules| MODES.map(|mode| make(rules, mode))).collect()
});

const MODES: [&str; 2] = ["mode route\n", "mode bridge\n"];

fn config(mode: &str, rules: &str, rules6: &str) -> RouterConfig {
    let scenario = flow::parse(&format!("# noise\n{mode}")).expect("a scenario without packets");
    let mut config = flow::config(&scenario);
    // Most noise would end at a checksum, and a table for few connections is made in no time.
    for (name, value) in [("nf_conntrack_checksum", "0"), ("nf_conntrack_max", "256")] {
        config.sysctl.push((name.to_owned(), value.to_owned()));
    }
    config.helpers = vec!["ftp".to_owned(), "tftp".to_owned()];
    config.rules = Some(rules.to_owned());
    config.rules6 = Some(rules6.to_owned());
    config
}

/// The router that a byte picks, as new.
pub fn pick(pick: u8) -> Router {
    let makes = if pick < REMEMBERS { &FORGETFUL_ROUTERS } else { &REMEMBERING_ROUTERS };
    let Make { config, rules } = &makes[usize::from(pick) % makes.len()];
    match rules {
        Some(rules) => Router::with_rules(config.clone(), Arc::clone(rules)),
        None => Router::new(config.clone()),
    }
    .expect("the rules have loaded before")
}

/// Makes the checksum of an IPv4 header right: most noise would end there.
pub fn mend_checksum(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(14..) else { return };
    let len = header.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let Some(header) = header.get_mut(..len).filter(|h| h.len() >= 20) else { return };
    header[10..12].fill(0);
    let mut sum: u32 =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

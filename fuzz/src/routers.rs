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
/// What is translated in the scenarios of translation, and more: ranges, whole prefixes, ports of choice, and both ends.
const TRANSLATING: [(&str, &str); 3] = [
    (
        ROUTE,
        "*raw
-A PREROUTING -p tcp --dport 21 -j CT --helper ftp
-A PREROUTING -p udp --dport 69 -j CT --helper tftp
COMMIT
*nat
-A PREROUTING -d 203.0.113.50 -p tcp -j DNAT --to-destination 198.51.100.10
-A PREROUTING -d 203.0.113.51 -p udp -j DNAT --to-destination 198.51.100.10-198.51.100.20:1000-1010/53
-A PREROUTING -i left -p tcp --dport 80 -j REDIRECT --to-ports 8080-8090 --random
-A POSTROUTING -o right -p icmp -j NETMAP --to 198.51.100.0/25
-A POSTROUTING -o right -p sctp -j MASQUERADE --to-ports 2000-2003
-A POSTROUTING -o right -p udp -j SNAT --to-source 198.51.100.1-198.51.100.3:1024-1027
-A POSTROUTING -o right -j SNAT --to-source 198.51.100.100
COMMIT
",
    ),
    (
        ROUTE,
        "*raw
-A PREROUTING -p tcp --dport 21 -j CT --helper ftp
-A PREROUTING -p udp --dport 69 -j CT --helper tftp
-A PREROUTING -p udp --dport 9 -j CT --notrack
COMMIT
*nat
-A PREROUTING -i right -p tcp -j DNAT --to-destination 192.0.2.9 --persistent
-A OUTPUT -p tcp -j DNAT --to-destination 192.0.2.77:22
-A INPUT -p tcp -j SNAT --to-source 192.0.2.78
-A POSTROUTING -o left -p tcp -j SNAT --to-source 192.0.2.1:1024-1025
-A POSTROUTING -o right -j MASQUERADE --random-fully
COMMIT
*filter
-A FORWARD -p tcp --dport 79 -j REJECT --reject-with tcp-reset
-A FORWARD -p udp --dport 79 -j REJECT
COMMIT
",
    ),
    // A bridge changes ports alone.
    (
        BRIDGE,
        "*nat
-A PREROUTING -i left -p tcp --dport 80 -j DNAT --to-destination :8080-8090
-A PREROUTING -p udp --dport 53 -j DNAT --to-destination :1053
-A POSTROUTING -o right -p tcp -j SNAT --to-source :1024-1027
COMMIT
",
    ),
];
const TRANSLATING6: &str = "*nat
-A PREROUTING -i left -p tcp --dport 80 -j DNAT --to-destination [2001:db8:2::10]:8080-8090
-A PREROUTING -i left -p udp -j REDIRECT
-A POSTROUTING -o right -p icmpv6 -j NETMAP --to 2001:db8:77::/64
-A POSTROUTING -o right -j MASQUERADE
COMMIT
";
/// From here on, the byte that picks means rules that remember.
const REMEMBERS: u8 = 0xe0;

/// One way to make a router.
struct Make {
    config: RouterConfig,
    rules: Option<Arc<Rules>>,
}

static FORGETFUL_ROUTERS: LazyLock<Vec<Make>> = LazyLock::new(|| {
    let makes = FORGETFUL.iter().flat_map(|rules| MODES.map(|mode| Make::once(mode, rules, FORGETFUL6)));
    makes.collect()
});

static TRANSLATING_ROUTERS: LazyLock<Vec<Make>> = LazyLock::new(|| {
    let rules6 = |mode| if mode == ROUTE { TRANSLATING6 } else { FORGETFUL6 };
    TRANSLATING.iter().map(|(mode, rules)| Make::once(mode, rules, rules6(*mode))).collect()
});

static REMEMBERING_ROUTERS: LazyLock<Vec<Make>> = LazyLock::new(|| {
    let make = |rules, mode| Make { config: config(mode, rules, REMEMBERING6), rules: None };
    REMEMBERING.iter().flat_map(|rules| MODES.map(|mode| make(rules, mode))).collect()
});

const ROUTE: &str = "mode route\n";
const BRIDGE: &str = "mode bridge\n";
const MODES: [&str; 2] = [ROUTE, BRIDGE];

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
    makes[usize::from(pick) % makes.len()].router()
}

/// The same of those that translate.
pub fn pick_translating(pick: u8) -> Router {
    TRANSLATING_ROUTERS[usize::from(pick) % TRANSLATING_ROUTERS.len()].router()
}

/// The same of all of them.
pub fn pick_any(number: u8) -> Router {
    if number.is_multiple_of(2) { pick_translating(number / 2) } else { pick(number / 2) }
}

impl Make {
    /// One whose rules are read once.
    fn once(mode: &str, rules: &str, rules6: &str) -> Self {
        let config = config(mode, rules, rules6);
        let rules = Router::new(config.clone()).expect("the rules load").rules();
        Self { config, rules: Some(rules) }
    }

    fn router(&self) -> Router {
        let Make { config, rules } = self;
        match rules {
            Some(rules) => Router::with_rules(config.clone(), Arc::clone(rules)),
            None => Router::new(config.clone()),
        }
        .expect("the rules have loaded before")
    }
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

//! What Prometheus collects, in its text format. Names are `node_exporter`'s behind a `stateway_` prefix where it has
//! one for the same thing.

use super::protocol::{Named, RuleCount};
use super::rules;
use super::summary::{Look, summary};
use crate::device::Link;
use crate::runtime::{PortCount, Shared};
use stateway_core::conntrack::Stats;
use stateway_core::iface::IfaceId;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

/// The whole exposition.
pub(super) fn render(shared: &Shared) -> String {
    let mut page = Page::default();
    let conntrack = shared.router.conntrack();
    page.family("stateway_nf_conntrack_entries", "gauge", "Connections in the table.");
    page.sample("stateway_nf_conntrack_entries", &[], conntrack.count() as u64);
    page.family("stateway_nf_conntrack_entries_limit", "gauge", "Connections that the table may hold.");
    page.sample("stateway_nf_conntrack_entries_limit", &[], conntrack.sysctls().max.into());
    connections(&mut page, shared);
    rule_counters(&mut page, shared);
    for Named { name, count } in named(&conntrack.stats()) {
        let name = format!("stateway_nf_conntrack_stat_{name}");
        page.family(&name, "counter", "As conntrack -S counts it.");
        page.sample(&name, &[], count);
    }
    let name = "stateway_nf_conntrack_invalid_packets_total";
    page.family(
        name,
        "counter",
        "Packets that are INVALID, by reason; those of stat_invalid and stat_error.",
    );
    for (reason, n) in conntrack.invalid_packets() {
        page.sample(name, &[("reason", reason.code())], n);
    }
    page.family("stateway_drop_packets_total", "counter", "Packets dropped, by reason.");
    for (reason, n) in shared.router.drop_counters() {
        page.sample("stateway_drop_packets_total", &[("reason", reason)], n);
    }
    let name = "stateway_nat_decisions_total";
    page.family(
        name,
        "counter",
        "Ends of new connections bound to a translation, by the way that led to it.",
    );
    for (side, how, n) in conntrack.translations() {
        page.sample(name, &[("side", side.word()), ("how", how.code())], n);
    }
    let lost = shared.router.logs().lost();
    page.family(
        "stateway_log_messages_lost_total",
        "counter",
        "LOG, NFLOG and TRACE that nobody took in time.",
    );
    page.sample("stateway_log_messages_lost_total", &[], lost);
    page.family(
        "stateway_log_lines_lost_total",
        "counter",
        "Lines for standard error that nobody read in time.",
    );
    page.sample("stateway_log_lines_lost_total", &[], crate::stderr::lost());
    page.family(
        "stateway_syscall_retries_total",
        "counter",
        "Calls that failed for the moment and were made again.",
    );
    page.sample("stateway_syscall_retries_total", &[], shared.retries.load(Ordering::Relaxed));
    links(&mut page, shared);
    let ports: Vec<(&str, PortCount)> =
        shared.ports.iter().zip(&shared.counters).map(|(p, c)| (p.name(), c.read())).collect();
    type Read = fn(&PortCount) -> u64;
    let families: [(&str, &str, Read); 5] = [
        ("stateway_network_receive_packets_total", "Frames received; a super-frame counts once.", |c| {
            c.rx_frames
        }),
        ("stateway_network_receive_bytes_total", "Bytes received.", |c| c.rx_bytes),
        ("stateway_network_transmit_packets_total", "Frames sent; a super-frame counts once.", |c| {
            c.tx_frames
        }),
        ("stateway_network_transmit_bytes_total", "Bytes sent.", |c| c.tx_bytes),
        ("stateway_network_transmit_drop_total", "Frames that the device did not take.", |c| c.tx_lost),
    ];
    for (name, help, read) in families {
        page.family(name, "counter", help);
        for (port, count) in &ports {
            page.sample(name, &[("device", port)], read(count));
        }
    }
    page.text
}

/// The table by protocol, and by the protocol's state where it has one; and what is translated of it.
fn connections(page: &mut Page, shared: &Shared) {
    const NAME: &str = "stateway_nf_conntrack_connections";
    page.family(NAME, "gauge", "Connections in the table, by protocol and state.");
    let summary = summary(&shared.router, &Look::default(), shared.clock.now());
    for Named { name, count } in &summary.by_state {
        match name.split_once(' ') {
            Some((protocol, state)) => {
                page.sample(NAME, &[("protocol", protocol), ("state", state)], *count);
            }
            None => page.sample(NAME, &[("protocol", name)], *count),
        }
    }
    const TRANSLATED: &str = "stateway_nf_conntrack_translated";
    page.family(TRANSLATED, "gauge", "Connections whose source or destination is translated.");
    for (kind, count) in [("snat", summary.snat), ("dnat", summary.dnat)] {
        page.sample(TRANSLATED, &[("kind", kind)], count);
    }
}

/// What each rule and policy in force has counted.
fn rule_counters(page: &mut Page, shared: &Shared) {
    let counts = rules::count(&shared.router.rules());
    type Read = fn(&RuleCount) -> u64;
    let families: [(&str, &str, Read); 2] = [
        ("stateway_rule_packets_total", "Packets that the rule matched, by table, chain and place.", |r| {
            r.packets
        }),
        ("stateway_rule_bytes_total", "Bytes of such packets.", |r| r.bytes),
    ];
    for (name, help, read) in families {
        page.family(name, "counter", help);
        for rule in &counts {
            let mut parts = rule.name.split('/');
            let mut part = || parts.next().unwrap_or_default();
            let (table, chain, place) = (part(), part(), part());
            let family = if rule.family == 4 { "ipv4" } else { "ipv6" };
            let labels = [("family", family), ("table", table), ("chain", chain), ("rule", place)];
            page.sample(name, &labels, read(rule));
        }
    }
}

/// How the ports' interfaces stand, and what became of them.
fn links(page: &mut Page, shared: &Shared) {
    let ports = || shared.ports.iter().enumerate().map(|(n, port)| (IfaceId(n as u16), &**port));
    let states = &shared.port_states;
    page.family("stateway_network_up", "gauge", "1 if the interface of the port is there and up.");
    for (iface, port) in ports() {
        let up = states.link(port, iface) == Link::Up;
        page.sample("stateway_network_up", &[("device", port.name())], up.into());
    }
    page.family("stateway_network_gone_total", "counter", "How often the port lost its interface.");
    for (iface, port) in ports() {
        page.sample("stateway_network_gone_total", &[("device", port.name())], states.times_gone(iface));
    }
    page.family("stateway_network_returns_total", "counter", "How often it got one again.");
    for (iface, port) in ports() {
        page.sample("stateway_network_returns_total", &[("device", port.name())], states.returns(iface));
    }
}

/// The tracker's counters, under the kernel's names.
pub(super) fn named(stats: &Stats) -> Vec<Named> {
    let Stats {
        entries: _,
        found,
        invalid,
        insert,
        insert_failed,
        drop,
        early_drop,
        error,
        search_restart,
        clash_resolve,
        chaintoolong,
        events_lost,
    } = *stats;
    [
        ("found", found),
        ("invalid", invalid),
        ("insert", insert),
        ("insert_failed", insert_failed),
        ("drop", drop),
        ("early_drop", early_drop),
        ("error", error),
        ("search_restart", search_restart),
        ("clash_resolve", clash_resolve),
        ("chaintoolong", chaintoolong),
        ("events_lost", events_lost),
    ]
    .map(|(name, count)| Named { name: name.to_owned(), count })
    .to_vec()
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{braces} {value}");
    }
}

/// Label values as the text format wants them.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

//! A namespace whose kernel forwards: addresses, settings, rules, counters and the connection table.

#![forbid(unsafe_code)]

use super::loaded::Loaded;
use super::nflog::{self, Listener};
use crate::model::{Lab, RulesText, RunnerKind};
use crate::netns::Middle;
use crate::netns::command::{self, Interrupt};
use crate::netns::state::State;
use crate::runner::Seen;
use anyhow::{Context as _, bail};
use stateway_core::config::{Mode, RouteTarget, RouterConfig};
use stateway_core::conntrack::Sysctls;
use stateway_core::packet::Family;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// In bridge mode nothing has an address, but an ICMP error of the kernel needs a source.
const ERROR_SOURCE: &str = "198.18.255.254/32";
/// Tables as they are in a new namespace.
const EMPTY: &str = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n\
    *mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n\
    *filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
const EMPTY_NAT: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n";

/// The kernel as the router of a lab.
pub struct KernelRouter {
    /// The words that run a program in its namespace.
    inside: Vec<OsString>,
    interrupt: Interrupt,
    helpers: Vec<String>,
    listener: Listener,
    mode: Mode,
}

impl KernelRouter {
    /// Sets up addresses and settings, loads the rules and begins to listen.
    pub fn start(lab: &Lab, state: &State) -> anyhow::Result<Self> {
        let netns = state.netns("router");
        let inside = state.inside("router")?;
        let interrupt = state.interrupt.clone();
        let lines = match lab.router.mode {
            Mode::Route => routes(&lab.router),
            Mode::Bridge => as_bridge(lab),
        };
        settings(lab, state)?;
        state.ip_batch(Some(&netns), &lines)?;
        let rules = RulesText { v4: lab.router.rules.clone(), v6: lab.router.rules6.clone() };
        let mode = lab.router.mode;
        load(&inside, &rules, mode, &lab.router.helpers, &interrupt)?;
        run(&inside, &["nft", "-f", "-"], Some(&nflog::rules()), &interrupt)?;
        Self::of(lab, state)
    }

    /// Begins to listen where it all stands already.
    pub fn of(lab: &Lab, state: &State) -> anyhow::Result<Self> {
        let inside = state.inside("router")?;
        let interrupt = state.interrupt.clone();
        let mut ports = ports(&inside, &interrupt)?;
        ports.retain(|_, name| lab.router.ifaces.iter().any(|iface| iface.name == *name));
        let listener = Listener::start(&state.netns("router"), &inside, ports, &interrupt)?;
        let (mode, helpers) = (lab.router.mode, lab.router.helpers.clone());
        Ok(Self { inside, interrupt, helpers, listener, mode })
    }

    fn loaded(&self) -> anyhow::Result<Loaded> {
        let save = |program| run(&self.inside, &[program, "-c"], None, &self.interrupt);
        Ok(Loaded::parse(&save("iptables-legacy-save")?, &save("ip6tables-legacy-save")?, self.helpers.len()))
    }
}

/// Runs a program in the router's namespace; it must succeed.
fn run(
    inside: &[OsString],
    words: &[&str],
    input: Option<&str>,
    interrupt: &Interrupt,
) -> anyhow::Result<String> {
    let mut all = inside.to_vec();
    all.extend(words.iter().map(OsString::from));
    let output = command::run(&all, input, PATIENCE, interrupt)?;
    if !output.ok() {
        bail!("`{}` failed: {}", words.join(" "), output.stderr.trim());
    }
    Ok(output.stdout)
}

/// The interfaces of the namespace by their index.
fn ports(inside: &[OsString], interrupt: &Interrupt) -> anyhow::Result<BTreeMap<u32, String>> {
    let list: serde_json::Value =
        serde_json::from_str(&run(inside, &["ip", "-json", "link"], None, interrupt)?)?;
    let links = list.as_array().context("`ip -json link` says something else")?;
    let named = |link: &serde_json::Value| {
        Some((u32::try_from(link.get("ifindex")?.as_u64()?).ok()?, link.get("ifname")?.as_str()?.to_owned()))
    };
    Ok(links.iter().filter_map(named).collect())
}

/// Route mode: what the lab file says, in the words of `ip`.
fn routes(router: &RouterConfig) -> String {
    let mut lines = String::from("link set dev lo up\n");
    for iface in &router.ifaces {
        _ = writeln!(lines, "link set dev {} up", iface.name);
        for own in &iface.addresses {
            let nodad = if own.family == Family::Ipv6 { " nodad" } else { "" };
            _ = writeln!(lines, "addr add {own} dev {}{nodad}", iface.name);
        }
    }
    for route in &router.routes {
        let name = |id: stateway_core::iface::IfaceId| router.ifaces[id.index()].name.as_str();
        let to = route.to;
        _ = match route.target {
            RouteTarget::Via { gateway, iface } => {
                writeln!(lines, "route add {to} via {} dev {}", gateway.to_ip(to.family), name(iface))
            }
            RouteTarget::OnLink(iface) => writeln!(lines, "route add {to} dev {}", name(iface)),
            RouteTarget::Blackhole => writeln!(lines, "route add blackhole {to}"),
            RouteTarget::Unreachable => writeln!(lines, "route add unreachable {to}"),
            RouteTarget::Prohibit => writeln!(lines, "route add prohibit {to}"),
        };
    }
    for neighbour in &router.neighbours {
        let addr = neighbour.addr.to_ip(neighbour.family);
        let port = &router.ifaces[neighbour.iface.index()].name;
        _ = writeln!(lines, "neigh replace {addr} lladdr {} dev {port} nud permanent", neighbour.mac);
    }
    lines
}

/// Bridge mode: a host route and a neighbour for every host, and proxies for it on every other port.
fn as_bridge(lab: &Lab) -> String {
    let mut lines = format!("link set dev lo up\naddr add {ERROR_SOURCE} dev lo\n");
    for iface in &lab.router.ifaces {
        _ = writeln!(lines, "link set dev {} up", iface.name);
    }
    for host in &lab.hosts {
        let port = lab.port_name(host.iface);
        for own in &host.addresses {
            let addr = own.addr.to_ip(own.family);
            let v6 = own.family == Family::Ipv6;
            _ = writeln!(lines, "route add {addr} dev {port}");
            _ = writeln!(lines, "neigh replace {addr} lladdr {} dev {port} nud permanent", host.mac);
            if v6 {
                for other in lab.router.ifaces.iter().filter(|other| other.name != port) {
                    _ = writeln!(lines, "neigh add proxy {addr} dev {}", other.name);
                }
            }
        }
    }
    lines
}

/// Switches that are files below /proc/sys/net, which shows each process its own namespace.
fn settings(lab: &Lab, state: &State) -> anyhow::Result<()> {
    let mut script = String::from(
        "set -e; cd /proc/sys/net; echo 1 > ipv4/ip_forward; echo 1 > ipv6/conf/all/forwarding\n",
    );
    // Traces go where packets are logged, not to the machine's own log.
    script.push_str("echo nfnetlink_log > netfilter/nf_log/2; echo nfnetlink_log > netfilter/nf_log/10\n");
    script.push_str("echo 0 > ipv4/icmp_ratemask; echo 0 > ipv6/icmp/ratelimit\n");
    let mut set = |path: &str, value: &str| _ = writeln!(script, "[ ! -e {path} ] || echo {value} > {path}");
    for iface in lab.router.ifaces.iter().map(|iface| iface.name.as_str()).chain(["all", "default"]) {
        set(&format!("ipv4/conf/{iface}/rp_filter"), "0");
        set(&format!("ipv4/conf/{iface}/send_redirects"), "0");
        set(&format!("ipv6/conf/{iface}/accept_dad"), "0");
        set(&format!("ipv6/conf/{iface}/router_solicitations"), "0");
        if lab.router.mode == Mode::Bridge {
            set(&format!("ipv4/conf/{iface}/proxy_arp"), "1");
            set(&format!("ipv6/conf/{iface}/proxy_ndp"), "1");
            set(&format!("ipv4/neigh/{iface}/proxy_delay"), "0");
            set(&format!("ipv6/neigh/{iface}/proxy_delay"), "0");
        }
    }
    // What the kernel has for the whole machine only, such as `nf_conntrack_max`, cannot be set in a namespace.
    let mut set = |path: &str, value: &str| {
        _ = writeln!(script, "if [ -w {path} ]; then echo {value} > {path}; else echo {path}; fi");
    };
    for (name, value) in &lab.router.sysctl {
        let path = name.replace('.', "/");
        let last = path.rsplit('/').next().unwrap_or(name);
        match path.strip_prefix("net/") {
            _ if Sysctls::is_name(name) => set(&format!("netfilter/{last}"), value),
            Some(path) => set(path, value),
            None if matches!(last, "rp_filter" | "send_redirects") => {
                let ifaces = lab.router.ifaces.iter();
                ifaces.for_each(|iface| set(&format!("ipv4/conf/{}/{last}", iface.name), value));
            }
            None => set(&format!("ipv4/{last}"), value),
        }
    }
    for path in state.script("router", &script)?.lines() {
        let name = path.rsplit('/').next().unwrap_or(path);
        tracing::warn!(
            lab = lab.name,
            setting = name,
            "this kernel has it for the whole machine only: not set"
        );
    }
    Ok(())
}

/// Loads the rules of both families, and what stands for `router.helpers`.
fn load(
    inside: &[OsString],
    rules: &RulesText,
    mode: Mode,
    helpers: &[String],
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    const OPEN: &str = "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n";
    const SHUT: &str = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
    for (program, family, names, text) in [
        ("iptables-legacy", "ipv4", "ip_tables_names", rules.v4.as_deref().unwrap_or(OPEN)),
        // As with stateway, IPv6 does not pass without rules of its own.
        ("ip6tables-legacy", "ipv6", "ip6_tables_names", rules.v6.as_deref().unwrap_or(SHUT)),
    ] {
        let restore = format!("{program}-restore");
        let restore = |text: &str| run(inside, &[&restore, "-c"], Some(text), interrupt);
        // A table that the new rules do not name would keep what it has.
        restore(EMPTY).with_context(|| format!("the {family} tables cannot be emptied"))?;
        // To name `nat` is to have it, and where it is it looks at every connection.
        let names = run(inside, &["cat", &format!("/proc/net/{names}")], None, interrupt)?;
        if names.lines().any(|name| name == "nat") {
            restore(EMPTY_NAT)?;
        }
        restore(&if mode == Mode::Bridge { without_physdev(text) } else { text.to_owned() })?;
        for helper in helpers {
            let (protocol, port) = if helper == "tftp" { ("udp", "69") } else { ("tcp", "21") };
            let rule = [
                program,
                "-t",
                "raw",
                "-I",
                "PREROUTING",
                "-p",
                protocol,
                "--dport",
                port,
                "-j",
                "CT",
                "--helper",
                helper,
            ];
            run(inside, &rule, None, interrupt)?;
        }
    }
    Ok(())
}

/// Where host routes stand in for a bridge, `-i` and `-o` are what `-m physdev` would see.
fn without_physdev(rules: &str) -> String {
    let mut text = rules.to_owned();
    for (bridged, routed) in [
        (" --physdev-in ", " -i "),
        (" --physdev-out ", " -o "),
        (" --physdev-is-bridged", ""),
        (" --physdev-is-in", ""),
        (" --physdev-is-out", ""),
        (" -m physdev", ""),
    ] {
        text = text.replace(bridged, routed);
    }
    text
}

impl Middle for KernelRouter {
    fn kind(&self) -> RunnerKind {
        RunnerKind::Kernel
    }

    fn watch(&mut self) -> anyhow::Result<()> {
        self.listener.forget()
    }

    fn seen(&mut self, enough: &dyn Fn(&[Seen]) -> bool) -> anyhow::Result<Vec<Seen>> {
        let loaded = self.loaded()?;
        let mut packets = self.listener.seen(&loaded, enough)?;
        for packet in packets.iter_mut().filter(|packet| packet.was_stopped()) {
            if packet.rule.as_ref().is_some_and(|rule| loaded.rejects(rule)) {
                "rejected".clone_into(&mut packet.fate);
            }
        }
        // As stateway says it: the chain is plain.
        for rule in packets.iter_mut().filter_map(|packet| packet.rule.as_mut()) {
            if rule.ends_with("/policy") {
                "policy".clone_into(rule);
            }
        }
        Ok(packets)
    }

    fn replace_rules(&mut self, rules: &RulesText) -> anyhow::Result<()> {
        // Whoever wants to stop us would find half of them.
        load(&self.inside, rules, self.mode, &self.helpers, &Interrupt::default())
    }

    fn rules(&mut self) -> anyhow::Result<String> {
        let save = |program| run(&self.inside, &[program], None, &self.interrupt);
        Ok(in_force(&save("iptables-legacy-save")?) + &in_force(&save("ip6tables-legacy-save")?))
    }

    fn table(&mut self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let text = run(
                &self.inside,
                &["conntrack", "-L", "-o", "extended", "-f", family],
                None,
                &self.interrupt,
            )?;
            // The marker of the listener is the router's own.
            lines.extend(
                text.lines().filter(|line| !line.contains("127.0.0.")).map(|line| line.trim().to_owned()),
            );
        }
        Ok(lines)
    }

    fn counters(&mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        Ok(self.loaded()?.counters())
    }
}

/// What `iptables-save` prints of rules and policies, each line led by its table. A table that nobody but `iptables -L` has
/// asked for has neither.
fn in_force(saved: &str) -> String {
    let (mut table, mut text) = ("", String::new());
    for line in saved.lines() {
        // Behind a policy stands what it has counted.
        let (policy, _) = line.split_once(" [").unwrap_or((line, ""));
        match line.strip_prefix('*') {
            Some(name) => table = name,
            None if line.starts_with("-A ") => _ = writeln!(text, "{table} {line}"),
            None if line.starts_with(':') && policy.ends_with(" DROP") => {
                _ = writeln!(text, "{table} {policy}");
            }
            None => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rules_have_counted_and_empty_tables_make_no_other_rules() {
        let saved = "# Generated by iptables-save\n*nat\n:PREROUTING ACCEPT [3:180]\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n\
                     :FORWARD DROP [2:168]\n:own - [0:0]\n-A FORWARD -i a -j ACCEPT\nCOMMIT\n# Completed\n";
        assert_eq!(in_force(saved), "filter :FORWARD DROP\nfilter -A FORWARD -i a -j ACCEPT\n");
    }

    #[test]
    fn a_bridge_port_is_an_interface_where_routes_stand_in() {
        let rule = "-A FORWARD -m physdev ! --physdev-in in --physdev-out out --physdev-is-bridged -j DROP";
        assert_eq!(without_physdev(rule), "-A FORWARD ! -i in -o out -j DROP");
    }
}

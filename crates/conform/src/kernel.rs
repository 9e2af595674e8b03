//! The kernel as a router between two TAPs, asked frame by frame.
//!
//! ```text
//!   192.0.2.0/24, 198.18.0.0/16,          198.51.100.0/24, 203.0.113.0/25, 198.19.0.0/16,
//!   2001:db8:1::/48                       the rest of 2001:db8::/32
//!        next hop …01:02 ── left  …01:01 ══ kernel ══ …02:01 right ── next hop …02:02
//!                      192.0.2.1                      198.51.100.1
//!                      2001:db8:1::1                  2001:db8:2::1
//! ```

#![forbid(unsafe_code)]

use super::asides;
use super::ctnetlink::{Ctnetlink, KernelEntry};
use super::flow_key;
use super::netns::Namespace;
use super::nflog::{self, Heard, Nflog};
use super::programs::Programs;
use super::trace::Frame;
use anyhow::{Context as _, Result, bail};
use stateway_core::config::Mode;
use stateway_core::conntrack::{CtState, Direction};
use stateway_core::packet::{Family, Mac, Offload, Tuple};
use stateway_runtime::device::tap::TapPort;
use stateway_runtime::device::{HEADROOM, Port as _, SLOT_LEN};
use stateway_trace::flow::{Address, AddressChange};
use std::io;

/// The two interfaces, by their index.
pub const LEFT: usize = 0;
pub const RIGHT: usize = 1;
pub const NAMES: [&str; 2] = ["left", "right"];
/// The router's own link addresses.
pub const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 1, 1]), Mac([2, 0, 0, 0, 2, 1])];
/// The one neighbour on each side, which stands for everybody there.
pub const NEIGHBOUR_MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 1, 2]), Mac([2, 0, 0, 0, 2, 2])];
/// Addresses with their networks, by interface.
pub const ADDRESSES: [[&str; 2]; 2] =
    [["192.0.2.1/30", "2001:db8:1::1/126"], ["198.51.100.1/30", "2001:db8:2::1/126"]];
/// The neighbours' addresses, by interface.
pub const NEIGHBOURS: [[&str; 2]; 2] = [["192.0.2.2", "2001:db8:1::2"], ["198.51.100.2", "2001:db8:2::2"]];
/// The neighbours' link-local address, the same on both links.
pub const NEIGHBOUR_LINK_LOCAL: &str = "fe80::2";
/// What lies behind the neighbours, by interface and family.
pub const ROUTES: [[&[&str]; 2]; 2] = [
    [&["192.0.2.0/24", "198.18.0.0/16"], &["2001:db8:1::/48"]],
    [&["198.51.100.0/24", "203.0.113.0/25", "198.19.0.0/16"], &["2001:db8::/32"]],
];

/// The bridge, in bridge mode.
const BRIDGE: &str = "br0";

/// What the router is made from besides its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Bridge mode: both interfaces are ports of a bridge without addresses, and `br_netfilter` shows it the rules.
    pub mode: Mode,
    /// iptables-save text.
    pub rules4: Option<String>,
    pub rules6: Option<String>,
    /// Names under `net.`, or `nf_conntrack_*`.
    pub sysctl: Vec<(String, String)>,
    /// By interface, where it is not 1500.
    pub mtu: Vec<(String, usize)>,
    /// Zones besides the default one that the rules put packets into.
    pub zones: Vec<u16>,
    /// Addresses of the router's, besides those that it always has.
    pub addresses: Vec<Address>,
    /// Traces run one after another, and nothing that one leaves behind is there for the next: addresses are translated,
    /// and connections of different traces would compete for ports.
    pub is_serial: bool,
    /// Lines for `ip -batch`, after everything else.
    pub ip: Vec<String>,
    /// UDP ports that a program on the router hears, and what it answers.
    pub listeners: Vec<(u16, Vec<u8>)>,
    /// UDP ports where programs on the router take datagrams, whether or not they answer.
    pub heard: Vec<u16>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mode: Mode::Route,
            rules4: None,
            rules6: None,
            sysctl: Vec::new(),
            mtu: Vec::new(),
            zones: Vec::new(),
            addresses: Vec::new(),
            is_serial: false,
            ip: Vec::new(),
            listeners: Vec::new(),
            heard: Vec::new(),
        }
    }
}

/// What the kernel did with one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What connection tracking said; `None` if the frame never came that far.
    pub state: Option<CtState>,
    pub direction: Option<Direction>,
    /// Frames that left, with the interface that they left by, in order for each interface.
    pub sent: Vec<(usize, Vec<u8>)>,
    /// The frame's own tuple, as far as it can be told.
    pub key: Option<Tuple>,
    /// The same of a connection's first packet behind PREROUTING, whatever becomes of it then.
    pub bound: Option<Tuple>,
    /// The connection afterwards.
    pub entry: Option<KernelEntry>,
    /// What the kernel logged of it.
    pub reasons: Vec<String>,
    /// What rules logged of it.
    pub heard: Vec<Heard>,
}

impl Answer {
    /// The word for what became of a frame that came in by `from`.
    pub fn fate(&self, from: usize) -> &'static str {
        match (&self.sent[..], self.sent.iter().any(|(to, _)| *to != from)) {
            ([], _) => "dropped",
            (_, true) => "forwarded",
            (_, false) => "answered",
        }
    }
}

/// A private namespace with the kernel as its router. Nothing of it outlives this value.
#[derive(Debug)]
pub struct Kernel {
    namespace: Namespace,
    taps: [TapPort; 2],
    nflog: Nflog,
    pub table: Ctnetlink,
    mode: Mode,
    slot: Box<[u8]>,
    programs: Programs,
}

impl Kernel {
    /// # Errors
    /// This machine cannot do it: no root, no TAP, no `iptables-legacy`, `nft` or `ip`.
    pub fn new(setup: &Setup) -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.sysctl(&before_interfaces())?;
        namespace.sysctl(&owned(&SHARED_SETTINGS))?;
        let taps = namespace.inside(|| {
            let open = |name| TapPort::open(name).with_context(|| format!("cannot open a TAP `{name}`"));
            Ok([open(NAMES[LEFT])?, open(NAMES[RIGHT])?])
        })?;
        namespace.sysctl(&on_interfaces())?;
        match setup.mode {
            Mode::Route => {
                namespace.run("ip", &["-batch", "-"], &addressing(setup))?;
                wait_for_addresses(&namespace)?;
            }
            Mode::Bridge => {
                namespace.run("ip", &["-batch", "-"], &bridging(setup))?;
                namespace.sysctl(&owned(&BRIDGE_SETTINGS)).context("the module `br_netfilter` is needed")?;
                wait_for_ports(&namespace)?;
            }
        }
        namespace.run("nft", &["-f", "-"], &nflog::rules(&setup.zones))?;
        let nflog = namespace.inside(Nflog::open)?;
        namespace.sysctl(&logging())?;
        let table = namespace.inside(Ctnetlink::open)?;
        let slot = vec![0; SLOT_LEN].into_boxed_slice();
        let programs = Programs::new(&namespace, &setup.listeners)?;
        let mut kernel = Self { namespace, taps, nflog, table, mode: setup.mode, slot, programs };
        kernel.load_rules(setup.rules4.as_deref(), setup.rules6.as_deref())?;
        kernel.sysctl(&setup.sysctl)?;
        kernel.unasked()?;
        Ok(kernel)
    }

    /// Loads iptables-save text with the sets in front of it; tables that it does not name stay as they are.
    pub fn load_rules(&self, rules4: Option<&str>, rules6: Option<&str>) -> Result<()> {
        for (program, rules) in [("iptables-legacy-restore", rules4), ("ip6tables-legacy-restore", rules6)] {
            let Some(rules) = rules else { continue };
            let (sets, rules): (Vec<&str>, Vec<&str>) = rules
                .split_inclusive('\n')
                .partition(|line| line.starts_with("create ") || line.starts_with("add "));
            if !sets.is_empty() {
                self.namespace.run("ipset", &["-exist", "restore"], &sets.concat())?;
            }
            let rules = rules.concat();
            let rules = if self.mode == Mode::Bridge { by_port(&rules) } else { rules };
            self.namespace.run(program, &["-w"], &rules)?;
        }
        Ok(())
    }

    /// What `iptables-save` prints, with counters if asked for; IPv4, then IPv6.
    pub fn save_rules(&self, counters: bool) -> Result<[String; 2]> {
        let args: &[&str] = if counters { &["-c"] } else { &[] };
        Ok([
            self.namespace.run("iptables-legacy-save", args, "")?,
            self.namespace.run("ip6tables-legacy-save", args, "")?,
        ])
    }

    /// Sets what `/proc/sys` offers, by names like `net.ipv4.ip_forward` or `nf_conntrack_tcp_loose`.
    pub fn sysctl(&self, settings: &[(String, String)]) -> Result<()> {
        if settings.is_empty() { Ok(()) } else { self.namespace.sysctl(settings) }
    }

    /// Runs a program in the namespace and returns what it printed.
    pub fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        self.namespace.run(program, args, input)
    }

    /// Lets a frame come in by `port`, and says what the kernel did with it.
    pub fn feed(&mut self, port: usize, frame: &[u8]) -> Result<Answer> {
        self.slot[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        match self.taps[port].send(&mut self.slot, frame.len(), Offload::NONE) {
            // The driver itself refuses what is shorter than an Ethernet header.
            Err(error) if stateway_runtime::netlink::is(&error, rustix::io::Errno::INVAL) => {}
            sent => sent.context("write to a TAP")?,
        }
        self.programs.answer()?;
        let sent = self.collect()?;
        let said = self.nflog.drain()?;
        let key = said.tuple.or_else(|| flow_key::of_frame(frame));
        let entry = key.map(|tuple| self.table.get(&tuple)).transpose()?.flatten();
        Ok(Answer {
            state: said.state,
            direction: said.direction,
            sent,
            key,
            bound: said.bound,
            entry,
            reasons: said.reasons,
            heard: said.heard,
        })
    }

    /// Has a program on the router send a UDP datagram, given as an IP packet, and says what came of it.
    pub(super) fn originate(&mut self, packet: &[u8]) -> Result<Answer> {
        self.programs.send(&self.namespace, packet)?;
        let sent = self.collect()?;
        self.nflog.drain()?;
        let key = flow_key::of_frame(&Frame::of_packet(LEFT, packet, "own").bytes);
        let entry = key.map(|tuple| self.table.get(&tuple)).transpose()?.flatten();
        Ok(Answer { sent, key, entry, ..Answer::default() })
    }

    /// Adds addresses to the interfaces, and deletes them.
    pub(super) fn change_addresses(&self, changes: &[AddressChange]) -> Result<()> {
        let line = |change: &AddressChange| {
            let AddressChange { is_added, iface, prefix } = change;
            let (word, nodad) = match (is_added, prefix.family) {
                (false, _) => ("del", ""),
                (true, Family::Ipv4) => ("add", " noprefixroute"),
                (true, Family::Ipv6) => ("add", " nodad noprefixroute"),
            };
            format!("address {word} {prefix} dev {}{nodad}\n", NAMES[*iface])
        };
        self.namespace.run("ip", &["-batch", "-"], &changes.iter().map(line).collect::<String>())?;
        wait_for_addresses(&self.namespace)
    }

    /// Every frame that waits on the TAPs, without what the kernel says on its own account.
    fn collect(&mut self) -> Result<Vec<(usize, Vec<u8>)>> {
        let (mut sent, mode) = (Vec::new(), self.mode);
        for (port, tap) in self.taps.iter().enumerate() {
            loop {
                match tap.recv(&mut self.slot) {
                    Ok((len, _)) => {
                        let frame = &self.slot[HEADROOM..HEADROOM + len];
                        if mode == Mode::Bridge || !asides::is_report(frame) {
                            sent.push((port, frame.to_vec()));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("read from a TAP"),
                }
            }
        }
        Ok(sent)
    }

    /// What the kernel sent of its own accord since the last frame came in: a timer ran out.
    pub(super) fn unasked(&mut self) -> Result<Vec<(usize, Vec<u8>)>> {
        self.nflog.drain()?;
        self.collect()
    }
}

/// An IPv6 address is not the kernel's own yet when it has been set: a thread sees to it, and until it had its turn the
/// kernel answers nothing in the address's name.
fn wait_for_addresses(namespace: &Namespace) -> Result<()> {
    const LOOKS: u32 = 1000;
    for _ in 0..LOOKS {
        if namespace.run("ip", &["-6", "-oneline", "address", "show", "tentative"], "")?.is_empty() {
            return Ok(());
        }
    }
    bail!("the kernel does not take its IPv6 addresses: they stay tentative")
}

/// A port of a bridge passes frames once a worker of the kernel's has seen that it has a carrier.
fn wait_for_ports(namespace: &Namespace) -> Result<()> {
    const LOOKS: u32 = 1000;
    for _ in 0..LOOKS {
        let ports = namespace.run("bridge", &["link", "show"], "")?;
        if ports.matches("state forwarding").count() == NAMES.len() {
            return Ok(());
        }
    }
    bail!("the ports of the kernel's bridge do not come up")
}

/// What shows bridged packets to the rules.
const BRIDGE_SETTINGS: [(&str, &str); 4] = [
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("net.bridge.bridge-nf-filter-vlan-tagged", "0"),
    ("net.bridge.bridge-nf-filter-pppoe-tagged", "0"),
];

/// The kernel's rules see a bridge where ours see its port: `-i left` becomes `-m physdev --physdev-in left`.
fn by_port(rules: &str) -> String {
    let word = |option: &str| match option {
        "-i" => Some("--physdev-in"),
        "-o" => Some("--physdev-out"),
        _ => None,
    };
    let line = |line: &str| {
        let mut words: Vec<&str> = Vec::new();
        for next in line.split(' ') {
            let Some(option) = word(next) else {
                words.push(next);
                continue;
            };
            let is_not = words.pop_if(|last| *last == "!").is_some();
            words.extend(["-m", "physdev"].into_iter().chain(is_not.then_some("!")).chain([option]));
        }
        words.join(" ")
    };
    rules.lines().map(|text| line(text) + "\n").collect()
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// New interfaces inherit what stands under `default`.
fn before_interfaces() -> Vec<(String, String)> {
    owned(&[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        ("net.ipv4.conf.default.send_redirects", "0"),
        // No duplicate address detection, no router solicitation: silence.
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.default.dad_transmits", "0"),
        ("net.ipv6.conf.default.router_solicitations", "0"),
        ("net.ipv6.auto_flowlabels", "0"),
        // Traces share these bounds here, and each has them for itself in the router.
        ("net.ipv4.ipfrag_high_thresh", "67108864"),
        ("net.netfilter.nf_conntrack_frag6_high_thresh", "67108864"),
    ])
}

/// What both sides are set to: each error is sent, however many there are, and nobody is told of a better way.
pub(super) const SHARED_SETTINGS: [(&str, &str); 6] = [
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv4.icmp_msgs_per_sec", "1000000"),
    ("net.ipv4.icmp_msgs_burst", "1000000"),
    ("net.ipv6.icmp.ratelimit", "0"),
];

fn on_interfaces() -> Vec<(String, String)> {
    let each = ["accept_dad", "dad_transmits", "router_solicitations"];
    NAMES
        .iter()
        .flat_map(|name| each.map(|key| (format!("net.ipv6.conf.{name}.{key}"), "0".to_owned())))
        .collect()
}

/// The kernel's own reasons go to us instead of its log.
fn logging() -> Vec<(String, String)> {
    owned(&[
        ("net.netfilter.nf_log.2", "nfnetlink_log"),
        ("net.netfilter.nf_log.10", "nfnetlink_log"),
        ("nf_conntrack_log_invalid", "255"),
    ])
}

/// The bridge and its ports, as `ip -batch` reads them. It floods groups, and takes no part in spanning tree.
fn bridging(setup: &Setup) -> String {
    let mut lines =
        vec![format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")];
    for (name, mac) in NAMES.iter().zip(MACS) {
        // An interface without an address of its own says nothing.
        lines.push(format!("link set {name} addrgenmode none"));
        lines.push(format!("link set {name} address {mac} master {BRIDGE} up"));
    }
    lines.push(format!("link set {BRIDGE} addrgenmode none"));
    lines.push(format!("link set {BRIDGE} up"));
    lines.extend(setup.mtu.iter().map(|(name, mtu)| format!("link set {name} mtu {mtu}")));
    lines.extend_from_slice(&setup.ip);
    lines.join("\n") + "\n"
}

/// Addresses, neighbours and routes, as `ip -batch` reads them.
fn addressing(setup: &Setup) -> String {
    let mut lines = Vec::new();
    for port in [LEFT, RIGHT] {
        let (name, mac, neighbour) = (NAMES[port], MACS[port], NEIGHBOUR_MACS[port]);
        lines.push(format!("link set {name} address {mac} up"));
        for (family, routes) in ROUTES[port].iter().enumerate() {
            let (address, via) = (ADDRESSES[port][family], NEIGHBOURS[port][family]);
            let nodad = if family == 1 { " nodad" } else { "" };
            for (address, is_own) in in_order(setup, port, family, address) {
                // Those that are there anyway make no route: where packets go is another matter.
                let noprefixroute = if is_own { "" } else { " noprefixroute" };
                lines.push(format!("address add {address} dev {name}{nodad}{noprefixroute}"));
            }
            if family == 1 {
                let near = NEIGHBOUR_LINK_LOCAL;
                lines.push(format!("neighbour add {near} lladdr {neighbour} dev {name} nud permanent"));
            }
            lines.push(format!("neighbour add {via} lladdr {neighbour} dev {name} nud permanent"));
            lines.extend(routes.iter().map(|to| format!("route add {to} via {via} dev {name} onlink")));
        }
    }
    lines.extend(setup.mtu.iter().map(|(name, mtu)| format!("link set {name} mtu {mtu}")));
    lines.extend_from_slice(&setup.ip);
    lines.join("\n") + "\n"
}

/// The addresses of an interface in the order in which they are added, and whether it is the one that it always has.
fn in_order(setup: &Setup, port: usize, family: usize, own: &str) -> Vec<(String, bool)> {
    let of_family =
        |more: &&Address| more.iface == port && (more.prefix.family == Family::Ipv6) == (family == 1);
    let mut list = vec![(own.to_owned(), true)];
    for more in setup.addresses.iter().filter(of_family) {
        let at = if more.is_first { 0 } else { list.len() };
        list.insert(at, (more.prefix.to_string(), false));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_the_ports_of_a_bridge_as_its_kernel_does() {
        assert_eq!(
            by_port("-A FORWARD ! -i left -o right -p tcp -j DROP\nCOMMIT\n"),
            "-A FORWARD -m physdev ! --physdev-in left -m physdev --physdev-out right -p tcp -j DROP\nCOMMIT\n"
        );
    }
}

//! Makes namespaces, links and addresses.

#![forbid(unsafe_code)]

use super::rootless;
use super::state::{State, netns_name};
use crate::model::{Host, Impairment, Lab};
use stateway_core::iface::IfaceId;
use stateway_core::packet::Family;
use stateway_core::packet::fragment::IPV6_MIN_MTU_BYTES;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;

/// Namespaces for the router and every host, each with its own name as a machine.
pub fn namespaces(lab: &Lab, state: &State) -> anyhow::Result<()> {
    let lines = state.record.netns.iter().fold(String::new(), |mut lines, netns| {
        _ = writeln!(lines, "netns add {netns}");
        lines
    });
    state.ip_batch(None, &lines)?;
    fs::create_dir_all(state.path("uts"))?;
    let mut script = String::from("set -e\n");
    for name in lab.hosts.iter().map(|host| host.name.as_str()).chain(["router"]) {
        let uts = state.uts(name);
        fs::write(&uts, "")?;
        _ = writeln!(script, "unshare --uts='{}' hostname {name}", uts.display());
    }
    state.brief("sh", &["-c".as_ref(), script.as_ref()]).map(drop)
}

/// What a port of the router ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// The router's TAP becomes the host's own interface.
    Tap,
    /// The router's end of a veth bears the port's name.
    Veth,
}

/// Connects every host to its port. Ports with several hosts get a bridge between.
pub fn links(lab: &Lab, state: &State, wire: Wire) -> anyhow::Result<()> {
    let router = state.netns("router");
    let (mut outside, mut within) = (String::new(), String::new());
    let mut segments = Vec::new();
    for (place, iface) in lab.router.ifaces.iter().enumerate() {
        let id = IfaceId(place as u16);
        let alone = lab.hosts_on(id).count() == 1;
        let (netns, name) = match lab.hosts_on(id).next() {
            Some(host) if alone => (state.netns(&host.name), "eth0"),
            _ => (segment_netns(&lab.name, id), "uplink"),
        };
        _ = match wire {
            Wire::Tap => {
                writeln!(
                    within,
                    "link set dev {} down\nlink set dev {} netns {netns} name {name}",
                    iface.name, iface.name
                )
            }
            Wire::Veth => writeln!(
                outside,
                "link add name {} netns {router} address {} mtu {} type veth peer name {name} netns {netns}",
                iface.name, iface.mac, iface.mtu_bytes
            ),
        };
        if !alone {
            segments.push((netns, segment(lab, id, &mut outside)));
        }
    }
    state.ip_batch(None, &outside)?;
    state.ip_batch(Some(&router), &within)?;
    segments.iter().try_for_each(|(netns, lines)| state.ip_batch(Some(netns), lines))
}

/// The namespace of the bridge that several hosts on one port share: in the router's own, its rules would see
/// what crosses the bridge. No host can have such a name.
pub fn segment_netns(lab: &str, iface: IfaceId) -> String {
    netns_name(lab, &segment_name(iface))
}

/// What the lab calls it.
pub fn segment_name(iface: IfaceId) -> String {
    format!("_lan{}", iface.0)
}

/// The ports that several hosts share.
pub fn segments(lab: &Lab) -> impl Iterator<Item = IfaceId> {
    (0..lab.router.ifaces.len() as u16).map(IfaceId).filter(|id| lab.hosts_on(*id).count() > 1)
}

/// A veth for each host behind one port, and what to do in the segment's namespace.
fn segment(lab: &Lab, id: IfaceId, outside: &mut String) -> String {
    let netns = segment_netns(&lab.name, id);
    let mut lines = String::from(
        "link add bridge type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set dev bridge addrgenmode none\n\
         link set dev bridge up\n",
    );
    _ = writeln!(
        lines,
        "link set dev uplink{} master bridge",
        unspoken(lab.router.ifaces[id.index()].mtu_bytes)
    );
    _ = writeln!(lines, "link set dev uplink up");
    for (number, host) in lab.hosts_on(id).enumerate() {
        let host = netns_name(&lab.name, &host.name);
        _ = writeln!(
            outside,
            "link add name host{number} netns {netns} type veth peer name eth0 netns {host}"
        );
        // Once it is up, an interface has begun to speak IPv6 of its own accord.
        _ = writeln!(lines, "link set dev host{number} addrgenmode none master bridge");
        _ = writeln!(lines, "link set dev host{number} up");
    }
    lines
}

/// Keeps an interface from speaking IPv6 of its own accord. Below its least MTU it cannot, nor can it be told not to.
const fn unspoken(mtu_bytes: usize) -> &'static str {
    if mtu_bytes < IPV6_MIN_MTU_BYTES { "" } else { " addrgenmode none" }
}

/// Addresses, routes and settings of one host.
pub fn host(host: &Host, state: &State) -> anyhow::Result<()> {
    let has_v6 = host.addresses.iter().any(|own| own.family == Family::Ipv6);
    let mut lines = String::new();
    _ = writeln!(lines, "link set dev lo up");
    _ = writeln!(
        lines,
        "link set dev eth0 down{} address {} mtu {}",
        unspoken(host.mtu_bytes),
        host.mac,
        host.mtu_bytes
    );
    _ = writeln!(lines, "link set dev eth0 up");
    for own in &host.addresses {
        let nodad = if own.family == Family::Ipv6 { " nodad" } else { "" };
        _ = writeln!(lines, "addr add {own} dev eth0{nodad}");
    }
    for route in &host.routes {
        _ = writeln!(lines, "route add {} via {} dev eth0", route.to, route.via);
    }
    for gateway in &host.gateways {
        _ = writeln!(lines, "route add default via {gateway} dev eth0");
    }
    let netns = state.netns(&host.name);
    // IPv6 would speak of its own accord in a host that has none.
    let script = if has_v6 {
        "cd /proc/sys/net/ipv6/conf && echo 0 > all/accept_ra && echo 0 > default/accept_ra && echo 0 > all/router_solicitations"
    } else {
        "cd /proc/sys/net/ipv6/conf && echo 1 > all/disable_ipv6 && echo 1 > default/disable_ipv6"
    };
    // Where there is one user only, there is one group only, and low ports are for everybody.
    let ipv4 = if rootless::is_alone() {
        "cd /proc/sys/net/ipv4 && echo 0 0 > ping_group_range && echo 0 > ip_unprivileged_port_start"
    } else {
        "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range"
    };
    let script = format!("[ ! -d /proc/sys/net/ipv6 ] || {{ {script}; }}; {ipv4}");
    state.script(&host.name, &script)?;
    state.ip_batch(Some(&netns), &lines)
}

/// Puts impairments on the links of ports, and takes away those that are not named.
pub fn impair(lab: &Lab, state: &State, links: &[(IfaceId, Impairment)]) -> anyhow::Result<()> {
    for (place, _) in lab.router.ifaces.iter().enumerate() {
        let id = IfaceId(place as u16);
        let link = links.iter().find(|(iface, _)| *iface == id).map(|(_, link)| link);
        for host in lab.hosts_on(id) {
            let netns = state.netns(&host.name);
            let mut words: Vec<String> =
                ["-n", &netns, "qdisc", "replace", "dev", "eth0", "root"].map(str::to_owned).to_vec();
            match link {
                Some(link) => words.extend(netem(link)),
                None => words.push("pfifo_fast".to_owned()),
            }
            let args: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
            state.brief("tc", &args)?;
        }
    }
    Ok(())
}

/// Tries whether this kernel can impair a link; says why not.
pub fn try_netem(lab: &Lab, state: &State) -> Result<(), String> {
    let Some(host) = lab.hosts.first() else { return Ok(()) };
    let netns = state.netns(&host.name);
    let tried = |what: &[&str]| {
        let words = ["-n", &netns, "qdisc", "replace", "dev", "lo", "root"];
        let args: Vec<&OsStr> = words.iter().chain(what).map(OsStr::new).collect();
        state.brief("tc", &args)
    };
    tried(&["netem", "delay", "1ms"]).and_then(|_| tried(&["pfifo_fast"])).map(drop).map_err(|_| {
        "not applicable here: this kernel has no netem to impair links with (`modprobe sch_netem`)".to_owned()
    })
}

pub(crate) fn netem(link: &Impairment) -> Vec<String> {
    let mut words = vec!["netem".to_owned()];
    let mut add = |list: &[String]| words.extend_from_slice(list);
    if !link.delay.is_zero() {
        add(&["delay".into(), format!("{}us", link.delay.as_micros())]);
        if !link.jitter.is_zero() {
            add(&[format!("{}us", link.jitter.as_micros())]);
        }
    }
    for (name, percent) in [
        ("loss", link.loss_percent),
        ("reorder", link.reorder_percent),
        ("duplicate", link.duplicate_percent),
    ] {
        if percent > 0.0 {
            add(&[name.into(), format!("{percent}%")]);
        }
    }
    if let Some(rate) = link.rate_kbit {
        add(&["rate".into(), format!("{rate}kbit")]);
    }
    words
}

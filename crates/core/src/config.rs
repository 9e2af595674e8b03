//! What a router is made from, checked: the lab file's `router:` part after resolution.

#![forbid(unsafe_code)]

use crate::base::iface::{Iface, IfaceId};
use crate::packet::{Addr, Family, Mac, Prefix};

pub use crate::neighbour::NeighbourPolicy;

/// Everything that [`crate::router::Router::new`] needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterConfig {
    pub mode: Mode,
    pub ifaces: Vec<Iface>,
    pub routes: Vec<RouteConfig>,
    pub neighbours: Vec<NeighbourConfig>,
    /// Where other link addresses come from.
    pub neighbour_policy: NeighbourPolicy,
    /// Helpers assigned as by `-j CT --helper` on their usual port, by name (`ftp`, `tftp`).
    pub helpers: Vec<String>,
    /// `nf_conntrack_*`, `rp_filter`, … by the kernel's own names, in the order of the file.
    pub sysctl: Vec<(String, String)>,
    /// iptables-save text. `None`: no rules, so every chain's policy is ACCEPT.
    pub rules: Option<String>,
    /// IPv4 has no rules on purpose.
    pub no_rules: bool,
    /// ip6tables-save text. `None`: IPv6 is dropped.
    pub rules6: Option<String>,
    /// IPv6 has no rules on purpose.
    pub no_rules6: bool,
    /// Seeds the hash of the connection table: unpredictable where strangers choose the addresses, fixed where a run
    /// must repeat.
    pub seed: u64,
    /// When [`crate::base::time::Instant::ZERO`] was, in nanoseconds since 1970: what `-m time` counts from.
    pub unix_epoch_nanos: u64,
    /// Bridge mode: frames that are neither IP nor ARP pass.
    pub pass_non_ip: bool,
}

impl RouterConfig {
    /// What in it names interfaces that are not there: all of it.
    pub fn problems(&self) -> Vec<String> {
        let count = self.ifaces.len();
        let is_there = |iface: IfaceId| iface.index() < count;
        let mut problems = Vec::new();
        for (number, route) in self.routes.iter().enumerate() {
            let iface = match route.target {
                RouteTarget::Via { iface, .. } | RouteTarget::OnLink(iface) => iface,
                RouteTarget::Blackhole | RouteTarget::Unreachable | RouteTarget::Prohibit => continue,
            };
            if !is_there(iface) {
                let to = route.to;
                problems
                    .push(format!("route {number} to `{to}`: there is no interface {} of {count}", iface.0));
            }
        }
        for neighbour in self.neighbours.iter().filter(|neighbour| !is_there(neighbour.iface)) {
            let (addr, iface) = (neighbour.addr.to_ip(neighbour.family), neighbour.iface.0);
            problems.push(format!("neighbour `{addr}`: there is no interface {iface} of {count}"));
        }
        problems
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All ports are one segment.
    #[default]
    Bridge,
    /// Each port is an IP network of its own.
    Route,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    pub to: Prefix,
    pub target: RouteTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    Via {
        gateway: Addr,
        iface: IfaceId,
    },
    OnLink(IfaceId),
    /// Dropped without a word.
    Blackhole,
    /// The sender is told that the host is unreachable.
    Unreachable,
    /// The sender is told that it is administratively prohibited.
    Prohibit,
}

/// A neighbour that is known without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourConfig {
    pub addr: Addr,
    pub family: Family,
    pub mac: Mac,
    pub iface: IfaceId,
}

/// `router.device`: which port is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// Fast, or tap where fast is not to be had.
    #[default]
    Auto,
    Fast,
    Tap,
}

/// `router.busy_poll`: whether a worker that has nothing to do stays awake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusyPoll {
    #[default]
    Never,
    /// For a moment after the last frame, while there is so little traffic that somebody may be waiting for an answer.
    Adaptive,
    /// It takes a whole CPU, and forwards a lone frame in a third of the time.
    Always,
}

/// How the router is to be run, beside what it decides: nothing here changes a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    pub device: DeviceChoice,
    pub busy_poll: BusyPoll,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Router;

    #[test]
    fn a_router_of_interfaces_that_are_not_there_is_not_made_and_says_all_of_them() {
        let everywhere = Prefix::new(Addr::UNSPECIFIED, 0, Family::Ipv4);
        let route = |iface| RouteConfig { to: everywhere, target: RouteTarget::OnLink(IfaceId(iface)) };
        let neighbour = |iface| NeighbourConfig {
            addr: Addr::from_v4([192, 0, 2, 9]),
            family: Family::Ipv4,
            mac: Mac([2, 0, 0, 0, 0, 9]),
            iface: IfaceId(iface),
        };
        let config = |routes, neighbours| RouterConfig {
            mode: Mode::Route,
            ifaces: vec![Iface::new("lan", IfaceId(0)), Iface::new("wan", IfaceId(1))],
            routes,
            neighbours,
            ..RouterConfig::default()
        };
        assert!(Router::new(config(vec![route(1)], vec![neighbour(1)])).is_ok());
        let errors = Router::new(config(vec![route(2), route(7)], vec![neighbour(2)])).unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
    }
}

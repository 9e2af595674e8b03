//! The `router:` part.

#![forbid(unsafe_code)]

use super::{Check, OtherText, network};
use crate::error::{Problem, hint};
use crate::locate::{item, key};
use crate::model::{RuleText, RulesFrom, Source};
use crate::spec::{
    BusyPollSpec, DeviceSpec, HelperSpec, ModeSpec, NonIpSpec, OneOrMany, PortSpec, RouteKindSpec, RouteSpec,
    RouterSpec,
};
use serde_json::Value;
use stateway_core::config::{
    BusyPoll, DeviceChoice, Mode, NeighbourConfig, RouteConfig, RouteTarget, RouterConfig, RunOptions,
};
use stateway_core::conntrack::sysctl::Sysctls;
use stateway_core::filter::{Ruleset, text_of};
use stateway_core::host::check_sysctl;
use stateway_core::iface::{Iface, IfaceId, MAX_IFACES};
use stateway_core::packet::fragment::IPV6_MIN_MTU_BYTES;
use stateway_core::packet::{Addr, Family, Prefix};
use stateway_trace::input;
use std::collections::BTreeMap;

/// Says in place of rules that there are none on purpose.
const NONE: &str = "none";
/// The longest name that Linux gives to an interface.
/// The longest frame of a TAP is 65535 bytes, its link header included.
const MAX_TAP_MTU_BYTES: usize = 65_521;
const MAX_IFACE_NAME: usize = 15;

impl Check<'_> {
    pub(super) fn router(&mut self, spec: &RouterSpec, at: &str) -> (RouterConfig, RunOptions) {
        let mode = match spec.mode {
            ModeSpec::Bridge => Mode::Bridge,
            ModeSpec::Route => Mode::Route,
        };
        let ifaces = self.ports(spec, mode, at);
        let names: Vec<String> = ifaces.iter().map(|iface| iface.name.clone()).collect();
        let written = (spec.rules.as_ref(), spec.rules_file.as_ref());
        let (rules, no_rules) = self.rules_or_none(Family::Ipv4, &key(at, "rules"), written, &names);
        let written = (spec.rules6.as_ref(), spec.rules6_file.as_ref());
        let (rules6, no_rules6) = self.rules_or_none(Family::Ipv6, &key(at, "rules6"), written, &names);
        let (routes, neighbours) = (self.routes(spec, mode, &ifaces, at), self.neighbours(spec, &ifaces, at));
        let mut router = RouterConfig::new(ifaces);
        router.mode = mode;
        router.routes = routes;
        router.neighbours = neighbours;
        router.helpers = spec
            .helpers
            .0
            .iter()
            .map(|helper| match helper {
                HelperSpec::Ftp => "ftp".to_owned(),
                HelperSpec::Tftp => "tftp".to_owned(),
            })
            .collect();
        router.sysctl = self.sysctl(spec, at);
        router.rules = rules;
        router.no_rules = no_rules;
        router.rules6 = rules6;
        router.no_rules6 = no_rules6;
        router.pass_non_ip = spec.non_ip == NonIpSpec::Pass;
        let options = RunOptions {
            device: match spec.device {
                DeviceSpec::Auto => DeviceChoice::Auto,
                DeviceSpec::Fast => DeviceChoice::Fast,
                DeviceSpec::Tap => DeviceChoice::Tap,
            },
            busy_poll: match spec.busy_poll {
                BusyPollSpec::Never => BusyPoll::Never,
                BusyPollSpec::Adaptive => BusyPoll::Adaptive,
                BusyPollSpec::Always => BusyPoll::Always,
            },
        };
        (router, options)
    }

    /// Settings that connection tracking knows are tried; those of the IP layer are known by their names.
    fn sysctl(&mut self, spec: &RouterSpec, at: &str) -> Vec<(String, String)> {
        let mut tried = Sysctls::default();
        let list = key(at, "sysctl");
        for (name, value) in &spec.sysctl {
            let last = name.rsplit(['.', '/']).next().unwrap_or(name);
            if let Some(checked) = check_sysctl(name, &value.0) {
                if let Err(wanted) = checked {
                    let problem = format!("`{}` is no value for `{last}`: {wanted}", value.0);
                    self.problem(&key(&list, name), problem, None);
                }
                continue;
            }
            if let Err(error) = tried.set(name, &value.0) {
                self.problem(&key(&list, name), error.to_string(), None);
            }
        }
        spec.sysctl.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()
    }

    fn ports(&mut self, spec: &RouterSpec, mode: Mode, at: &str) -> Vec<Iface> {
        let path = key(at, "ports");
        if spec.ports.is_empty() && !self.was_pruned(&path) {
            self.problem(&path, "a router needs at least one port", None);
        }
        if spec.ports.len() > MAX_IFACES {
            self.problem(
                &path,
                format!("{} ports; at most {MAX_IFACES} are possible", spec.ports.len()),
                None,
            );
        }
        let none = PortSpec::default();
        let mut taken = BTreeMap::new();
        let mut macs = BTreeMap::new();
        let mut ifaces = Vec::new();
        for (place, (name, port)) in spec.ports.iter().enumerate().take(MAX_IFACES) {
            let path = key(&path, name);
            let port = port.as_ref().unwrap_or(&none);
            self.iface_name(&path, name);
            let mut iface = Iface::new(name, IfaceId(place as u16));
            iface.mtu_bytes = port.mtu.map_or(Iface::DEFAULT_MTU_BYTES, |mtu| mtu as usize);
            if let Some(mac) = self.mac(&key(&path, "mac"), port.mac.as_deref()) {
                iface.mac = mac;
            }
            if let Some(other) = macs.insert(iface.mac, name) {
                self.problem(
                    &key(&path, "mac"),
                    format!("port `{other}` has the link address {} already", iface.mac),
                    None,
                );
            }
            iface.addresses = self.port_addresses(&path, name, port, mode, &mut taken);
            self.mtu(&path, port.mtu, &iface.addresses);
            ifaces.push(iface);
        }
        ifaces
    }

    fn iface_name(&mut self, path: &str, name: &str) {
        let fits = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        if name.is_empty() || name.len() > MAX_IFACE_NAME {
            let hint = "it becomes the name of an interface".to_owned();
            self.problem(path, format!("`{name}` must have 1 to {MAX_IFACE_NAME} characters"), Some(hint));
        } else if !name.chars().all(fits) || name == "." || name == ".." || name.ends_with('+') {
            self.problem(path, format!("`{name}` cannot be the name of an interface"), None);
        } else if name == "lo" {
            self.problem(path, "`lo` is the loopback interface", None);
        }
    }

    /// Whether interfaces can be built of this size: by every runner, so that a lab means the same on all.
    pub(super) fn mtu(&mut self, path: &str, written: Option<u32>, addresses: &[Prefix]) {
        let Some(mtu) = written.map(|mtu| mtu as usize) else { return };
        if mtu > MAX_TAP_MTU_BYTES {
            let problem =
                format!("no TAP takes an MTU of {mtu}: a frame with its header ends at 65535 bytes");
            self.problem(&key(path, "mtu"), problem, Some(format!("at most {MAX_TAP_MTU_BYTES}")));
        }
        if mtu < IPV6_MIN_MTU_BYTES && addresses.iter().any(|own| own.family == Family::Ipv6) {
            let problem =
                format!("an interface with an MTU of {mtu} has no IPv6, which takes {IPV6_MIN_MTU_BYTES}");
            let hint = "a larger MTU, or IPv4 addresses alone".to_owned();
            self.problem(&key(path, "mtu"), problem, Some(hint));
        }
    }

    fn port_addresses(
        &mut self,
        path: &str,
        name: &str,
        port: &PortSpec,
        mode: Mode,
        taken: &mut BTreeMap<(Family, Addr), String>,
    ) -> Vec<Prefix> {
        let path = key(path, "address");
        let Some(OneOrMany(texts)) = &port.address else {
            if mode == Mode::Route && !self.was_pruned(&path) {
                let hint = "such as { address: 192.0.2.1/24 }; in bridge mode ports have none".to_owned();
                self.problem(&path, format!("port `{name}` needs an address in route mode"), Some(hint));
            }
            return Vec::new();
        };
        if mode == Mode::Bridge {
            let hint = "say `mode: route`, or leave the address out".to_owned();
            self.problem(&path, "a port has no address in bridge mode", Some(hint));
            return Vec::new();
        }
        let mut addresses = Vec::new();
        for text in texts {
            let Some(prefix) = self.prefix(&path, text, "192.0.2.1/24") else { continue };
            match taken.insert((prefix.family, prefix.addr), name.to_owned()) {
                Some(other) => {
                    let addr = prefix.addr.to_ip(prefix.family);
                    self.problem(&path, format!("port `{other}` has the address {addr} already"), None);
                }
                None => addresses.push(prefix),
            }
        }
        addresses
    }

    /// The port called `name`, or a problem that says which there are.
    pub(super) fn port(&mut self, path: &str, name: &str, ifaces: &[Iface]) -> Option<IfaceId> {
        let found = ifaces.iter().position(|iface| iface.name == name);
        if found.is_none() && !self.was_pruned(&format!("router.ports.{name}")) {
            let names: Vec<&str> = ifaces.iter().map(|iface| iface.name.as_str()).collect();
            self.problem(path, format!("no port named `{name}`"), hint(name, names, "ports"));
        }
        found.map(|at| IfaceId(at as u16))
    }

    fn routes(&mut self, spec: &RouterSpec, mode: Mode, ifaces: &[Iface], at: &str) -> Vec<RouteConfig> {
        let list = key(at, "routes");
        if mode == Mode::Bridge && !spec.routes.is_empty() {
            self.problem(&list, "a bridge has no routes", Some("say `mode: route`".to_owned()));
            return Vec::new();
        }
        let mut routes: Vec<RouteConfig> = Vec::new();
        for (index, route) in spec.routes.iter().enumerate() {
            let path = item(&list, self.number(&list, index));
            let Some(route) = self.route(&path, route, ifaces) else { continue };
            if routes.iter().any(|other| other.to == route.to) {
                self.problem(&path, format!("there is a route to {} already", route.to), None);
            }
            routes.push(route);
        }
        routes
    }

    fn route(&mut self, path: &str, spec: &RouteSpec, ifaces: &[Iface]) -> Option<RouteConfig> {
        let via = spec.via.as_deref().map(|via| self.addr(&key(path, "via"), via));
        let port = spec.port.as_deref().map(|port| self.port(&key(path, "port"), port, ifaces));
        let to = match (spec.to.as_str(), via) {
            ("default", Some(Some(std::net::IpAddr::V6(_)))) => {
                Prefix::new(Addr::UNSPECIFIED, 0, Family::Ipv6)
            }
            ("default", _) => Prefix::new(Addr::UNSPECIFIED, 0, Family::Ipv4),
            (text, _) => network(self.prefix(&key(path, "to"), text, "203.0.113.0/24, or `default`")?),
        };
        let target = match (spec.kind, via, port) {
            (Some(kind), None, None) => match kind {
                RouteKindSpec::Blackhole => RouteTarget::Blackhole,
                RouteKindSpec::Unreachable => RouteTarget::Unreachable,
                RouteKindSpec::Prohibit => RouteTarget::Prohibit,
            },
            (Some(_), ..) => {
                self.problem(
                    &key(path, "type"),
                    "a route of this type leads nowhere: leave `via` and `port` out",
                    None,
                );
                return None;
            }
            (None, None, None) => {
                self.problem(path, "needs `via`, `port` or `type`", None);
                return None;
            }
            (None, None, Some(port)) => RouteTarget::OnLink(port?),
            (None, Some(via), port) => {
                let via = via?;
                let (family, gateway) = (Family::from(via), Addr::from(via));
                if family != to.family {
                    self.problem(&key(path, "via"), format!("{via} is of another family than {to}"), None);
                    return None;
                }
                let reaches = |iface: &Iface| {
                    iface.addresses.iter().any(|net| net.family == family && net.contains(gateway))
                };
                let iface = match port {
                    Some(port) => port?,
                    None => {
                        if let Some(at) = ifaces.iter().position(reaches) {
                            IfaceId(at as u16)
                        } else {
                            let hint = "the next hop must be in the network of a port".to_owned();
                            self.problem(&key(path, "via"), format!("no port reaches {via}"), Some(hint));
                            return None;
                        }
                    }
                };
                if ifaces.iter().any(|iface| {
                    iface.addresses.iter().any(|own| own.family == family && own.addr == gateway)
                }) {
                    self.problem(&key(path, "via"), format!("{via} is the router itself"), None);
                    return None;
                }
                RouteTarget::Via { gateway, iface }
            }
        };
        Some(RouteConfig { to, target })
    }

    fn neighbours(&mut self, spec: &RouterSpec, ifaces: &[Iface], at: &str) -> Vec<NeighbourConfig> {
        let list = key(at, "neighbours");
        let mut neighbours = Vec::new();
        for (index, neighbour) in spec.neighbours.iter().enumerate() {
            let path = item(&list, self.number(&list, index));
            let addr = self.addr(&key(&path, "address"), &neighbour.address);
            let mac = self.mac(&key(&path, "mac"), Some(&neighbour.mac));
            let iface = self.port(&key(&path, "port"), &neighbour.port, ifaces);
            if let (Some(addr), Some(mac), Some(iface)) = (addr, mac, iface) {
                neighbours.push(NeighbourConfig {
                    addr: addr.into(),
                    family: Family::from(addr),
                    mac,
                    iface,
                });
            }
        }
        neighbours
    }

    /// A key for rules with nothing behind it: a file that was cut there would look like this.
    pub(super) fn empty_rules(&mut self, router: &Value, at: &str) {
        for name in ["rules", "rules_file", "rules6", "rules6_file"] {
            if router.get(name).is_some_and(Value::is_null) {
                let hint = "is the file whole? `none` says that there are none: `rules: none`".to_owned();
                self.problem(&key(at, name), format!("there is nothing behind `{name}:`"), Some(hint));
            }
        }
    }

    /// The rules of one family, and whether `none` says that there are none on purpose.
    fn rules_or_none(
        &mut self,
        family: Family,
        path: &str,
        (inline, file): (Option<&String>, Option<&String>),
        ifaces: &[String],
    ) -> (Option<String>, bool) {
        if let Some(text) = self.other.and_then(|other| other.of(family)) {
            return (Some(self.other_rules(family, text)), false);
        }
        if file.is_none() && inline.is_some_and(|text| text.trim() == NONE) {
            return (None, true);
        }
        (self.rules(family, path, inline, file, ifaces), false)
    }

    /// Rules in the place of the lab's own; they were found good before.
    fn other_rules(&mut self, family: Family, other: &OtherText) -> String {
        let own = other.files.last();
        let before = other.whole.lines().count() - own.map_or(0, |own| own.text.lines().count());
        let from = RulesFrom::File(own.map(|own| own.path.clone()).unwrap_or_default(), before);
        self.rule_texts.push(RuleText { text: other.whole.clone(), family, from });
        self.sources.extend(other.files.iter().cloned());
        other.whole.clone()
    }

    /// The text of a ruleset, from the file itself or from another one, once it has been found good.
    pub(crate) fn rules(
        &mut self,
        family: Family,
        path: &str,
        inline: Option<&String>,
        file: Option<&String>,
        ifaces: &[String],
    ) -> Option<String> {
        let file_path = format!("{path}_file");
        let (text, name) = match (inline, file) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                self.problem(&file_path, "the rules are given twice, here and in a file", None);
                return None;
            }
            (Some(text), None) => (text.clone(), None),
            (None, Some(name)) => match (self.read)(&self.folder.join(name), input::MAX_RULES).map(text_of) {
                Ok(Ok(text)) => {
                    let path = self.folder.join(name);
                    self.sources.push(Source { path, text: text.clone() });
                    (text, Some(name))
                }
                Ok(Err(error)) => {
                    let place = format!("`{name}` {}:{}", error.line, error.column);
                    self.problem(&file_path, format!("{place}: {}", error.message), error.hint);
                    return None;
                }
                Err(error) => {
                    let hint = "the name is relative to this file".to_owned();
                    self.problem(&file_path, format!("cannot read `{name}`: {error}"), Some(hint));
                    return None;
                }
            },
        };
        let from = match name {
            None => RulesFrom::Lab(path.to_owned()),
            Some(name) => RulesFrom::File(self.folder.join(name), 0),
        };
        self.rule_texts.push(RuleText { text: text.clone(), family, from });
        let (found, errors) = match Ruleset::load(&text, family, ifaces) {
            Ok(loaded) => {
                if loaded.ruleset.tables().is_empty() {
                    let hint = "is the file whole? `rules: none` says that there are none".to_owned();
                    let (path, what) = match name {
                        Some(name) => (file_path.as_str(), format!("`{name}` has no rules")),
                        None => (path, "there are no rules in it".to_owned()),
                    };
                    self.problem(path, what, Some(hint));
                }
                (loaded.warnings, false)
            }
            Err(errors) => (errors, true),
        };
        for finding in found {
            let (line, column) = (finding.line, finding.column);
            let (path, place, message) = match name {
                None => {
                    let place = self.places.in_text(path, line, column);
                    (path, place, format!("line {line}: {}", finding.message))
                }
                Some(name) => {
                    let place = self.places.find(&file_path);
                    (file_path.as_str(), place, format!("{name}:{line}:{column}: {}", finding.message))
                }
            };
            let problem = Problem { path: path.to_owned(), place, message, hint: finding.hint };
            if errors { &mut self.problems } else { &mut self.warnings }.push(problem);
        }
        Some(text)
    }
}

//! The `hosts:` part.

#![forbid(unsafe_code)]

use super::{Check, network};
use crate::error::hint;
use crate::locate::{item, key};
use crate::model::{Host, HostRoute, Service, ServiceKind};
use crate::spec::{HostSpec, LabSpec, OneOrMany, ServiceDetailSpec, ServiceNameSpec, ServiceSpec};
use serde_json::Value;
use stateway_core::config::{Mode, RouteTarget, RouterConfig};
use stateway_core::packet::{Addr, Family, Mac, Prefix};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The longest that Linux lets a host be called.
const MAX_HOST_NAME: usize = 48;
/// Each host is a namespace with its processes.
const MAX_HOSTS: usize = 2000;

/// Who has which address: hosts, and ports of the router.
type Taken = BTreeMap<(Family, Addr), String>;

impl Check<'_> {
    pub(super) fn hosts(&mut self, spec: &LabSpec, router: &RouterConfig, tree: &Value) -> Vec<Host> {
        let mut taken = Taken::new();
        for iface in &router.ifaces {
            for own in &iface.addresses {
                taken.insert((own.family, own.addr), format!("port `{}`", iface.name));
            }
        }
        if spec.hosts.len() > MAX_HOSTS {
            self.problem(
                "hosts",
                format!("{} hosts; at most {MAX_HOSTS} are possible", spec.hosts.len()),
                None,
            );
        }
        let mut hosts = Vec::new();
        for (place, (name, host)) in spec.hosts.iter().enumerate().take(MAX_HOSTS) {
            let path = key("hosts", name);
            self.name(&path, name, MAX_HOST_NAME);
            if name == "router" {
                self.problem(&path, "`router` is the router's own name", None);
            }
            hosts.extend(self.host(&path, place, name, host, router, &mut taken));
        }
        self.ports_without_host(router, tree);
        hosts
    }

    /// Asks the tree as written, so that a host with another mistake still counts.
    fn ports_without_host(&mut self, router: &RouterConfig, tree: &Value) {
        let hosts = tree.get("hosts").and_then(Value::as_object);
        let used: Vec<&str> = hosts
            .into_iter()
            .flat_map(|h| h.values())
            .filter_map(|host| host.get("port")?.as_str())
            .collect();
        for iface in router.ifaces.iter().filter(|iface| !used.contains(&iface.name.as_str())) {
            let hint = format!("give a host `port: {}`, or take the port away", iface.name);
            self.problem(
                &key("router.ports", &iface.name),
                format!("no host is behind port `{}`", iface.name),
                Some(hint),
            );
        }
    }

    fn host(
        &mut self,
        path: &str,
        place: usize,
        name: &str,
        spec: &HostSpec,
        router: &RouterConfig,
        taken: &mut Taken,
    ) -> Option<Host> {
        let iface = if let Some(port) = &spec.port {
            self.port(&key(path, "port"), port, &router.ifaces)
        } else {
            if !self.was_pruned(&key(path, "port")) {
                let names: Vec<&str> = router.ifaces.iter().map(|iface| iface.name.as_str()).collect();
                self.problem(path, format!("host `{name}` has no port"), hint(name, names, "ports"));
            }
            None
        };
        let addresses = self.host_addresses(path, name, spec, taken);
        let services = self.services(path, spec);
        let mac = self.mac(&key(path, "mac"), spec.mac.as_deref());
        let iface = iface?;
        let port = &router.ifaces[iface.index()];
        self.mtu(path, spec.mtu.or(Some(port.mtu_bytes as u32)), &addresses);
        if router.mode == Mode::Route && !port.addresses.is_empty() {
            // An address behind another one of the same host is reached by a route.
            let routed = |own: &Prefix| {
                router.routes.iter().any(|route| {
                    let RouteTarget::Via { gateway, .. } = route.target else { return false };
                    let here = |other: &Prefix| other.family == own.family && other.addr == gateway;
                    route.to.family == own.family && route.to.contains(own.addr) && addresses.iter().any(here)
                })
            };
            for own in &addresses {
                let in_reach = |net: &Prefix| net.family == own.family && net.contains(own.addr);
                if !port.addresses.iter().any(in_reach) && !routed(own) {
                    let nets: Vec<String> =
                        port.addresses.iter().map(|net| network(*net).to_string()).collect();
                    let hint = format!("port `{}` has {}", port.name, nets.join(", "));
                    let addr = own.addr.to_ip(own.family);
                    self.problem(
                        &key(path, "address"),
                        format!("{addr} is not in a network of its port"),
                        Some(hint),
                    );
                }
            }
        }
        let gateways = self.gateways(path, spec, &addresses, &port.addresses);
        let routes = self.host_routes(path, spec);
        let [high, low] = (place as u16 + 1).to_be_bytes();
        Some(Host {
            name: name.to_owned(),
            iface,
            addresses,
            gateways,
            routes,
            mac: mac.unwrap_or(Mac([2, 0, 1, high, low, 2])),
            mtu_bytes: spec.mtu.map_or(port.mtu_bytes, |mtu| mtu as usize),
            services,
        })
    }

    fn host_addresses(&mut self, path: &str, name: &str, spec: &HostSpec, taken: &mut Taken) -> Vec<Prefix> {
        let path = key(path, "address");
        let OneOrMany(texts) = &spec.address;
        let mut addresses = Vec::new();
        for text in texts {
            let Some(prefix) = self.prefix(&path, text, "192.0.2.77/24") else { continue };
            if let Some(other) = taken.get(&(prefix.family, prefix.addr)) {
                let addr = prefix.addr.to_ip(prefix.family);
                self.problem(&path, format!("{other} has the address {addr} already"), None);
            } else {
                taken.insert((prefix.family, prefix.addr), format!("host `{name}`"));
                addresses.push(prefix);
            }
        }
        addresses
    }

    /// What the file says, else the port's own address in the host's network.
    fn gateways(&mut self, path: &str, spec: &HostSpec, own: &[Prefix], port: &[Prefix]) -> Vec<IpAddr> {
        let path = key(path, "gateway");
        let mut gateways: Vec<IpAddr> = Vec::new();
        for text in spec.gateway.iter().flat_map(|OneOrMany(texts)| texts) {
            let Some(gateway) = self.addr(&path, text) else { continue };
            let family = Family::from(gateway);
            if gateways.iter().any(|other| Family::from(*other) == family) {
                self.problem(&path, "one gateway for each family is enough", None);
            } else if !own.iter().any(|net| net.family == family && net.contains(gateway.into())) {
                self.problem(&path, format!("{gateway} is not in a network of the host"), None);
            } else {
                gateways.push(gateway);
            }
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            if gateways.iter().any(|gateway| Family::from(*gateway) == family) {
                continue;
            }
            let in_reach = |net: &&Prefix| {
                net.family == family && own.iter().any(|o| o.family == family && o.contains(net.addr))
            };
            gateways.extend(port.iter().find(in_reach).map(|net| net.addr.to_ip(family)));
        }
        gateways
    }

    fn host_routes(&mut self, path: &str, spec: &HostSpec) -> Vec<HostRoute> {
        let list = key(path, "routes");
        let mut routes = Vec::new();
        for (index, route) in spec.routes.iter().enumerate() {
            let path = item(&list, self.number(&list, index));
            let to = self.prefix(&key(&path, "to"), &route.to, "203.0.113.0/24");
            let via = self.addr(&key(&path, "via"), &route.via);
            if let (Some(to), Some(via)) = (to, via) {
                routes.push(HostRoute { to: network(to), via });
            }
        }
        routes
    }

    fn services(&mut self, path: &str, spec: &HostSpec) -> Vec<Service> {
        let list = key(path, "services");
        let mut services: Vec<Service> = Vec::new();
        for (index, service) in spec.services.0.iter().enumerate() {
            let path = item(&list, self.number(&list, index));
            let service = match service {
                ServiceSpec::Named(name) => Some(named(*name, None)),
                ServiceSpec::Detailed(detail) => self.service(&path, detail),
            };
            let Some(service) = service else { continue };
            let clash = |other: &&Service| {
                other.port.is_some() && other.port == service.port && other.kind != service.kind
            };
            if services.contains(&service) {
                self.problem(&path, format!("service `{}` is there twice", service.kind.word()), None);
            } else if let Some(other) = services.iter().find(clash) {
                let port = other.port.unwrap_or_default();
                self.problem(&path, format!("service `{}` has port {port} already", other.kind.word()), None);
            } else {
                services.push(service);
            }
        }
        services
    }

    fn service(&mut self, path: &str, spec: &ServiceDetailSpec) -> Option<Service> {
        match (spec.service, &spec.run) {
            (Some(name), None) => {
                if spec.ready.is_some() {
                    self.problem(&key(path, "ready"), "a named service knows itself when it is ready", None);
                }
                Some(named(name, spec.port))
            }
            (None, Some(run)) => {
                let kind = ServiceKind::Command { run: run.clone(), ready: spec.ready.clone() };
                Some(Service { kind, port: spec.port })
            }
            (Some(_), Some(_)) => {
                self.problem(path, "either `service` or `run`, not both", None);
                None
            }
            (None, None) => {
                self.problem(path, "needs `service` or `run`", None);
                None
            }
        }
    }
}

fn named(name: ServiceNameSpec, port: Option<u16>) -> Service {
    let kind = match name {
        ServiceNameSpec::Ssh => ServiceKind::Ssh,
        ServiceNameSpec::Http => ServiceKind::Http,
        ServiceNameSpec::Ftp => ServiceKind::Ftp,
        ServiceNameSpec::Tftp => ServiceKind::Tftp,
        ServiceNameSpec::Echo => ServiceKind::Echo,
        ServiceNameSpec::Dns => ServiceKind::Dns,
    };
    let port = port.or(kind.usual_port());
    Service { kind, port }
}

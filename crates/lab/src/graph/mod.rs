//! A lab as a picture: text, Mermaid, or SVG.
//!
//! Hosts that differ in nothing but name and address are one entry where there are many of them: nobody finds his way
//! among three hundred boxes.

#![forbid(unsafe_code)]

mod svg;

pub use svg::svg;

use super::model::{Host, Lab};
use stateway_core::config::Mode;
use stateway_core::iface::IfaceId;
use std::fmt::Write as _;

/// The router, its ports and the hosts behind each, as an indented list.
pub fn text(lab: &Lab) -> String {
    let mut out = format!("{} ({})\n", lab.name, mode(lab));
    for (place, iface) in lab.router.ifaces.iter().enumerate() {
        let last = place + 1 == lab.router.ifaces.len();
        let (branch, bar) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        let addresses =
            iface.addresses.iter().fold(String::new(), |list, own| list + "  " + &own.to_string());
        _ = writeln!(out, "{branch} {}{addresses}", iface.name);
        let entries = entries(lab, IfaceId(place as u16));
        for (number, entry) in entries.iter().enumerate() {
            let branch = if number + 1 == entries.len() { "└─" } else { "├─" };
            _ = writeln!(out, "{bar} {branch} {}", entry.lines().join("  "));
        }
    }
    out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A Mermaid flowchart, which many forges show as a picture.
pub fn mermaid(lab: &Lab) -> String {
    let mut out = format!("flowchart LR\n  router{{{{\"{} ({})\"}}}}\n", lab.name, mode(lab));
    for (place, iface) in lab.router.ifaces.iter().enumerate() {
        let id = IfaceId(place as u16);
        let entries = entries(lab, id);
        let through = if entries.len() > 1 {
            _ = writeln!(out, "  port{place}([\"segment\"])\n  router ---|{}| port{place}", iface.name);
            format!("port{place} ---")
        } else {
            format!("router ---|{}|", iface.name)
        };
        for entry in entries {
            let number =
                lab.hosts.iter().position(|other| other.name == entry.first.name).unwrap_or_default();
            _ = writeln!(out, "  {through} host{number}[\"{}\"]", entry.lines().join("<br/>"));
        }
    }
    out.trim_end().to_owned()
}

const fn mode(lab: &Lab) -> &'static str {
    match lab.router.mode {
        Mode::Bridge => "bridge",
        Mode::Route => "route",
    }
}

/// A host, or several that are alike.
struct Entry<'a> {
    first: &'a Host,
    last: &'a Host,
    count: usize,
}

impl Entry<'_> {
    /// Its names, its addresses and what it serves, a line each; what there is none of is left out.
    fn lines(&self) -> Vec<String> {
        let range = |of: &dyn Fn(&Host) -> String| match self.count {
            1 => of(self.first),
            _ => format!("{} … {}", of(self.first), of(self.last)),
        };
        let mut lines = vec![range(&|host| host.name.clone())];
        if self.count > 1 {
            lines[0] += &format!(" ({} hosts)", self.count);
        }
        lines.extend((0..self.first.addresses.len()).map(|at| range(&|host| host.addresses[at].to_string())));
        lines.push(services_of(self.first));
        lines.retain(|line| !line.is_empty());
        lines
    }
}

/// The hosts behind a port. Where there are many, those in a row that are alike are one entry.
fn entries<'lab>(lab: &'lab Lab, port: IfaceId) -> Vec<Entry<'lab>> {
    /// So many are still seen at a glance.
    const FEW: usize = 12;
    let hosts: Vec<&Host> = lab.hosts_on(port).collect();
    let is_many = hosts.len() > FEW;
    let alike = |one: &&Host, other: &&Host| {
        let families = |host: &Host| host.addresses.iter().map(|own| own.family).collect::<Vec<_>>();
        is_many && one.services == other.services && families(one) == families(other)
    };
    let runs = hosts.chunk_by(alike);
    let entry = |run: &[&'lab Host]| {
        Some(Entry { first: run.first().copied()?, last: run.last().copied()?, count: run.len() })
    };
    runs.filter_map(entry).collect()
}

fn services_of(host: &Host) -> String {
    let service = |service: &super::model::Service| match service.port {
        Some(port) if Some(port) != service.kind.usual_port() => format!("{}:{port}", service.kind.word()),
        _ => service.kind.word().to_owned(),
    };
    host.services.iter().map(service).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const LAB: &str = "\
name: small
router: { ports: { inside: {}, world: {} } }
hosts:
  a: { port: inside, address: 192.0.2.1/24, services: [ssh] }
  b: { port: world, address: 192.0.2.2/24, services: [{ service: http, port: 8080 }] }
  c: { port: world, address: 192.0.2.3/24 }
";

    fn lab() -> Lab {
        crate::resolve::load_text(LAB, std::path::Path::new("lab.yaml")).unwrap()
    }

    #[test]
    fn a_list_shows_every_host_behind_its_port() {
        expect![[r"
            small (bridge)
            ├─ inside
            │  └─ a  192.0.2.1/24  ssh
            └─ world
               ├─ b  192.0.2.2/24  http:8080
               └─ c  192.0.2.3/24"]]
        .assert_eq(&text(&lab()));
    }

    #[test]
    fn mermaid_puts_a_segment_between_a_port_and_several_hosts() {
        let picture = mermaid(&lab());
        assert!(picture.contains("router ---|inside| host0[\"a<br/>192.0.2.1/24<br/>ssh\"]"), "{picture}");
        assert!(picture.contains("router ---|world| port1"), "{picture}");
    }

    /// A lab with three hundred hosts behind a port, of which the last ten serve something.
    pub(super) fn crowded() -> Lab {
        let mut text = String::from("name: crowded\nrouter: { ports: { inside: {}, world: {} } }\nhosts:\n");
        for number in 0..300 {
            let (third, last) = (number / 200, number % 200 + 1);
            let services = if number < 290 { "" } else { ", services: [ssh, http]" };
            _ = writeln!(
                text,
                "  h{number:03}: {{ port: inside, address: 198.18.{third}.{last}/16{services} }}"
            );
        }
        text.push_str("  far: { port: world, address: 198.18.9.9/16 }\n");
        crate::resolve::load_text(&text, std::path::Path::new("lab.yaml")).unwrap()
    }

    #[test]
    fn three_hundred_hosts_are_a_few_lines() {
        expect![[r"
            crowded (bridge)
            ├─ inside
            │  ├─ h000 … h289 (290 hosts)  198.18.0.1/16 … 198.18.1.90/16
            │  └─ h290 … h299 (10 hosts)  198.18.1.91/16 … 198.18.1.100/16  ssh http
            └─ world
               └─ far  198.18.9.9/16"]]
        .assert_eq(&text(&crowded()));
        assert_eq!(mermaid(&crowded()).lines().count(), 7);
    }
}

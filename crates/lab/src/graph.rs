//! A lab as a picture: text, Mermaid, or SVG.

#![forbid(unsafe_code)]

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
        let hosts: Vec<&Host> = lab.hosts_on(IfaceId(place as u16)).collect();
        for (number, host) in hosts.iter().enumerate() {
            let branch = if number + 1 == hosts.len() { "└─" } else { "├─" };
            _ = writeln!(out, "{bar} {branch} {}  {}  {}", host.name, addresses_of(host), services_of(host));
        }
    }
    out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A Mermaid flowchart, which many forges show as a picture.
pub fn mermaid(lab: &Lab) -> String {
    let mut out = format!("flowchart LR\n  router{{{{\"{} ({})\"}}}}\n", lab.name, mode(lab));
    for (place, iface) in lab.router.ifaces.iter().enumerate() {
        let id = IfaceId(place as u16);
        let hosts: Vec<&Host> = lab.hosts_on(id).collect();
        let through = if hosts.len() > 1 {
            _ = writeln!(out, "  port{place}([\"segment\"])\n  router ---|{}| port{place}", iface.name);
            format!("port{place} ---")
        } else {
            format!("router ---|{}|", iface.name)
        };
        for host in hosts {
            let number = lab.hosts.iter().position(|other| other.name == host.name).unwrap_or_default();
            let label = format!("{}<br/>{}<br/>{}", host.name, addresses_of(host), services_of(host));
            _ = writeln!(out, "  {through} host{number}[\"{}\"]", label.trim_end_matches("<br/>"));
        }
    }
    out.trim_end().to_owned()
}

/// A drawing: the router in the middle, its ports as columns of hosts on both sides.
pub fn svg(lab: &Lab) -> String {
    const BOX: (usize, usize) = (190, 56);
    const GAP: usize = 18;
    const ROUTER: usize = 150;
    const SPACE: usize = 110;
    const MARGIN: usize = 20;
    // Ports alternate between the two sides.
    let mut sides: [Vec<(&Host, &str)>; 2] = [Vec::new(), Vec::new()];
    for (place, iface) in lab.router.ifaces.iter().enumerate() {
        sides[place % 2].extend(lab.hosts_on(IfaceId(place as u16)).map(|host| (host, iface.name.as_str())));
    }
    let rows = sides.iter().map(Vec::len).max().unwrap_or_default().max(1);
    let height = rows * (BOX.1 + GAP) + 2 * MARGIN;
    let width = 2 * (BOX.0 + SPACE + MARGIN) + ROUTER;
    let left = MARGIN + BOX.0 + SPACE;
    let middle = height / 2;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>rect{{fill:#fff;stroke:#345;stroke-width:1.5}}line{{stroke:#345}}text{{fill:#123}}</style>\n\
         <rect x=\"{left}\" y=\"{MARGIN}\" width=\"{ROUTER}\" height=\"{}\" rx=\"8\"/>\n",
        height - 2 * MARGIN
    );
    let mut put = |x: usize, y: usize, anchor: &str, text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
    };
    put(left + ROUTER / 2, middle, "middle", &lab.name);
    put(left + ROUTER / 2, middle + 16, "middle", mode(lab));
    let mut shapes = String::new();
    for (side, hosts) in sides.iter().enumerate() {
        for (row, (host, port)) in hosts.iter().enumerate() {
            let y = MARGIN + row * (BOX.1 + GAP) + GAP / 2;
            let x = if side == 0 { MARGIN } else { width - MARGIN - BOX.0 };
            let (from, to, anchor) =
                if side == 0 { (x + BOX.0, left, "end") } else { (left + ROUTER, x, "start") };
            _ = writeln!(
                shapes,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"4\"/>",
                BOX.0, BOX.1
            );
            let line = y + BOX.1 / 2;
            _ = writeln!(shapes, "<line x1=\"{from}\" y1=\"{line}\" x2=\"{to}\" y2=\"{line}\"/>");
            put(x + 10, y + 18, "start", &host.name);
            put(x + 10, y + 33, "start", &addresses_of(host));
            put(x + 10, y + 48, "start", &services_of(host));
            put(if side == 0 { left - 6 } else { left + ROUTER + 6 }, line - 4, anchor, port);
        }
    }
    // Shapes lie below the words.
    let at = out.find("<text").unwrap_or(out.len());
    out.insert_str(at, &shapes);
    out.push_str("</svg>");
    out
}

const fn mode(lab: &Lab) -> &'static str {
    match lab.router.mode {
        Mode::Bridge => "bridge",
        Mode::Route => "route",
    }
}

fn addresses_of(host: &Host) -> String {
    host.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
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

    #[test]
    fn a_drawing_names_everything_once() {
        let picture = svg(&lab());
        for name in [">a<", ">b<", ">c<", ">small<", ">http:8080<"] {
            assert_eq!(picture.matches(name).count(), 1, "{name}");
        }
    }
}

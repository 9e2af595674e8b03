use super::*;
use crate::base::{Addr, Family, Mac, Prefix};
use crate::config::{NeighbourConfig, RouteConfig};
use crate::router::Router;

fn ports(names: &[&str]) -> Vec<Iface> {
    names.iter().enumerate().map(|(place, name)| Iface::new(*name, IfaceId(place as u16))).collect()
}

fn said(config: RouterConfig) -> Vec<String> {
    let errors = Router::new(config).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let everywhere = Prefix::new(Addr::UNSPECIFIED, 0, Family::Ipv4);
    let neighbour = NeighbourConfig {
        addr: Addr::from_v4([192, 0, 2, 9]),
        family: Family::Ipv4,
        mac: Mac([2, 0, 0, 0, 0, 9]),
        iface: IfaceId(2),
    };
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let right = RouterConfig {
        mode: Mode::Route,
        rules: Some("*filter\nCOMMIT\n".to_owned()),
        helpers: vec!["ftp".to_owned()],
        sysctl: vec![setting("rp_filter", "1"), setting("nf_conntrack_max", "9")],
        routes: vec![RouteConfig { to: everywhere, target: RouteTarget::OnLink(IfaceId(1)) }],
        neighbours: vec![NeighbourConfig { iface: IfaceId(1), ..neighbour }],
        ..RouterConfig::new(ports(&["lan", "wan"]))
    };
    assert_eq!(said(right.clone()), [""; 0]);
    let wrong = RouterConfig {
        ifaces: ports(&["lan", "lan"]),
        rules: Some("*filter\n-A FORWARD -j ACEPT\nCOMMIT\n".to_owned()),
        helpers: vec!["ftpd".to_owned()],
        sysctl: vec![
            setting("nf_conntrack_mx", "9"),
            setting("nf_conntrack_max", "many"),
            setting("rp_filter", "7"),
        ],
        routes: vec![RouteConfig { to: everywhere, target: RouteTarget::OnLink(IfaceId(7)) }],
        neighbours: vec![neighbour],
        ..right
    };
    let lines = said(wrong);
    assert_eq!(lines.len(), 8, "{lines:#?}");
    for (line, part) in lines.iter().zip([
        "2:15: ",
        "two interfaces are named `lan`",
        "route 0 to `0.0.0.0/0`: there is no interface 7 of 2",
        "neighbour `192.0.2.9`: there is no interface 2 of 2",
        "there is no setting `nf_conntrack_mx` here",
        "many",
        "`7` is no value for `rp_filter`: a number from 0 to 2",
        "no helper named `ftpd`",
    ]) {
        assert!(line.contains(part), "{line} / {part}");
    }
}

#[test]
fn there_are_no_more_interfaces_than_fit() {
    let names: Vec<_> = (0..=MAX_IFACES).map(|place| format!("port{place}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(said(RouterConfig::new(ports(&names[..MAX_IFACES]))), [""; 0]);
    let lines = said(RouterConfig::new(ports(&names)));
    assert_eq!(lines, ["1025 interfaces are too many: a router has at most 1024"]);
}

#[test]
fn a_bridge_of_bare_packets_has_two_ports_and_no_others() {
    let bare = |iface: Iface| iface.with_medium(Medium::Ip);
    let with = |names: &[&str], count: usize| {
        let mut ifaces = ports(names);
        ifaces.iter_mut().take(count).for_each(|iface| *iface = bare(iface.clone()));
        RouterConfig::new(ifaces)
    };
    assert_eq!(said(with(&["tun", "vpn"], 2)), [""; 0]);
    let mixed = said(with(&["tun", "lan"], 1));
    assert!(mixed.len() == 1 && mixed[0].starts_with("a bridge cannot join `tun`"), "{mixed:?}");
    let three = said(with(&["tun", "vpn", "peer"], 3));
    assert!(three.len() == 1 && three[0].contains("has two of them, not 3"), "{three:?}");
    let routed = RouterConfig { mode: Mode::Route, ..with(&["tun", "vpn", "lan"], 2) };
    assert_eq!(said(routed.clone()), [""; 0]);
    let (addr, mac) = (Addr::from_v4([192, 0, 2, 9]), Mac([2, 0, 0, 0, 0, 9]));
    let neighbour = NeighbourConfig { addr, family: Family::Ipv4, mac, iface: IfaceId(0) };
    let told = said(RouterConfig { neighbours: vec![neighbour], ..routed });
    assert!(told.len() == 1 && told[0].contains("nobody there has a link address"), "{told:?}");
}

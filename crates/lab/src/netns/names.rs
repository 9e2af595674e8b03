//! The names of a lab's hosts, for the programs in it.

#![forbid(unsafe_code)]

use super::state::State;
use crate::model::Lab;
use stateway_core::packet::Prefix;
use std::fmt::Write as _;
use std::fs;

/// Writes what the programs of the lab see as `/etc/hosts`.
pub fn prepare(lab: &Lab, state: &State) -> anyhow::Result<()> {
    let etc = state.path("etc");
    fs::create_dir_all(&etc)?;
    Ok(fs::write(etc.join("hosts"), hosts_file(lab))?)
}

/// The text of a hosts file: the router and every host, each with all its addresses.
fn hosts_file(lab: &Lab) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let mut add = |own: &Prefix, name: &str| _ = writeln!(text, "{}\t{name}", own.addr.to_ip(own.family));
    for host in &lab.hosts {
        host.addresses.iter().for_each(|own| add(own, &host.name));
    }
    for iface in &lab.router.ifaces {
        iface.addresses.iter().for_each(|own| add(own, "router"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::load_text;
    use std::path::Path;

    #[test]
    fn hosts_and_router_are_found_by_name_in_both_families() {
        const LAB: &str = "
name: names
router:
  mode: route
  ports: { lan: { address: [192.0.2.1/24, \"2001:db8:1::1/64\"] }, wan: { address: 198.51.100.1/24 } }
  rules: \"*filter\\nCOMMIT\\n\"
hosts:
  a: { port: lan, address: [192.0.2.10/24, \"2001:db8:1::10/64\"] }
  b: { port: wan, address: 198.51.100.2/24 }
";
        let lab = load_text(LAB, Path::new("lab.yaml")).unwrap();
        expect_test::expect![[r"
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            192.0.2.10	a
            2001:db8:1::10	a
            198.51.100.2	b
            192.0.2.1	router
            2001:db8:1::1	router
            198.51.100.1	router
        "]]
        .assert_eq(&hosts_file(&lab));
    }
}

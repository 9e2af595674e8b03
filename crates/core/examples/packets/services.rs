//! Rules of many services, each behind an address of its own, as kube-proxy writes them.

use std::fmt::Write as _;

/// So many services with two hosts each: for each of them chains that count its packets, choose a host and translate to it.
/// Addresses of services come from [`service`], those of hosts from 198.18.128.0/17.
pub fn rules(services: u32) -> String {
    let mut chains = String::from(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         :KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-SERVICES - [0:0]\n",
    );
    let mut ways = String::from(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\n",
    );
    for number in 0..services {
        write_service(number, &mut chains, &mut ways).expect("writing to a string cannot fail");
    }
    chains + &ways + "COMMIT\n"
}

/// The address of a service, which answers at UDP port 53.
pub fn service(number: u32) -> [u8; 4] {
    [198, 18, 64 + (number >> 8 & 63) as u8, number as u8]
}

fn write_service(number: u32, chains: &mut String, ways: &mut String) -> std::fmt::Result {
    let [a, b, c, d] = service(number);
    let (name, chain) = (format!("default/service-{number}:dns"), format!("KUBE-SVC-{}", tag(number, 0)));
    writeln!(chains, ":{chain} - [0:0]")?;
    let there =
        format!("-d {a}.{b}.{c}.{d}/32 -p udp -m comment --comment \"{name} cluster IP\" -m udp --dport 53");
    writeln!(ways, "-A KUBE-SERVICES {there} -j {chain}")?;
    writeln!(ways, "-A {chain} ! -s 198.19.0.0/16 {there} -j KUBE-MARK-MASQ")?;
    for (place, chance) in [(0, "-m statistic --mode random --probability 0.50000000000 "), (1, "")] {
        let host = number * 2 + place;
        let host = format!("198.18.{}.{}", 128 + (host >> 8 & 127), host & 255);
        let way = format!("KUBE-SEP-{}", tag(number, 1 + place));
        writeln!(chains, ":{way} - [0:0]")?;
        writeln!(ways, "-A {chain} -m comment --comment \"{name} -> {host}:5353\" {chance}-j {way}")?;
        writeln!(ways, "-A {way} -s {host}/32 -m comment --comment \"{name}\" -j KUBE-MARK-MASQ")?;
        writeln!(
            ways,
            "-A {way} -p udp -m comment --comment \"{name}\" -m udp -j DNAT --to-destination {host}:5353"
        )?;
    }
    Ok(())
}

/// Sixteen letters that look like chance, and are another for each chain.
fn tag(number: u32, chain: u32) -> String {
    let mixed = u64::from(number * 3 + chain + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{mixed:016X}")
}

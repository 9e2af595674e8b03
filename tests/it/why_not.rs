//! `stateway explain --why-not`: what is said to be near passes when it is tried by itself.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use serde_json::Value;
use std::process::Command;

const RULES: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -s 192.0.2.0/24 -i lan -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -d 198.51.100.53 -i lan -p udp -m udp --dport 53 -m conntrack --ctstate NEW -j ACCEPT
COMMIT
";

/// The exit code, and the answer in JSON.
fn explain(rules: &str, packet: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules");
    std::fs::write(&path, rules).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stateway"))
        .args(["explain", "--rules", path.to_str().unwrap(), "--ports", "lan,wan", "--format", "json"])
        .args(packet)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn tcp<'a>(port: &'a str, flow: &'a str) -> [&'a str; 5] {
    ["--in", port, "--tcp", flow, "--why-not"]
}

#[test]
fn the_nearest_packet_is_told_and_passes() {
    let told = explain(RULES, &tcp("lan", "192.0.2.10:40000,198.51.100.10:23"));
    assert_eq!(told["fate"], "dropped");
    let near = &told["why_not"]["packet"];
    assert_eq!(
        (&near["change"], &near["fate"], &near["by"]),
        (&"to port 22 in place of 23".into(), &"forwarded".into(), &"filter/FORWARD/2".into())
    );
    let other = explain(RULES, &tcp("lan", "192.0.2.10:40000,198.51.100.10:22"));
    assert_eq!(other["fate"], "forwarded");
    assert_eq!(other["why_not"]["none"], "it passes");

    let told = explain(RULES, &tcp("lan", "203.0.113.10:40000,198.51.100.10:22"));
    assert_eq!(told["why_not"]["packet"]["change"], "from 192.0.2.255 in place of 203.0.113.10");
    let told = explain(RULES, &tcp("wan", "192.0.2.10:40000,198.51.100.10:22"));
    assert_eq!(told["why_not"]["packet"]["change"], "in at lan in place of wan");
    let told = explain(RULES, &tcp("wan", "192.0.2.10:40000,198.51.100.10:23"));
    assert_eq!(
        told["why_not"]["packet"]["change"],
        "in at lan in place of wan and to port 22 in place of 23"
    );
}

#[test]
fn the_nearest_rules_are_told_and_let_it_pass() {
    let packet = tcp("lan", "192.0.2.10:40000,198.51.100.10:23");
    let told = explain(RULES, &packet);
    let near = &told["why_not"]["rule"];
    assert_eq!(
        (&near["change"], &near["by"]),
        (&"filter/FORWARD/2 without `-m tcp --dport 22`".into(), &"filter/FORWARD/2".into())
    );
    assert_eq!(explain(&RULES.replace(" --dport 22", ""), &packet)["fate"], "forwarded");

    let more = told["why_not"]["more"]["change"].as_str().unwrap();
    let rule = " -i lan -s 192.0.2.10/32 -d 198.51.100.10/32 -p tcp -m tcp --dport 23 -m conntrack --ctstate NEW -j ACCEPT";
    assert_eq!(more, format!("iptables -I FORWARD 4{rule}"));
    let with = RULES.replace("COMMIT", &format!("-A FORWARD{rule}\nCOMMIT"));
    assert_eq!(explain(&with, &packet)["fate"], "forwarded");
}

#[test]
fn a_rule_that_drops_is_the_nearest_change() {
    let rules =
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p icmp -j ACCEPT\n-A FORWARD -p tcp -j DROP\nCOMMIT\n";
    let told = explain(rules, &tcp("lan", "192.0.2.10:40000,198.51.100.10:23"));
    let why = &told["why_not"];
    assert_eq!(why["packet"]["change"], "of protocol udp in place of tcp");
    assert_eq!(why["rule"]["change"], "filter/FORWARD/1 without `-p icmp`");
    assert_eq!(why["more"]["change"].as_str().unwrap().split(" -i").next(), Some("iptables -I FORWARD 2"));
}

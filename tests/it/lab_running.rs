//! A lab that is up, changed and asked: its rules, settings, log and links, and a reload that is refused.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use super::lab_up::{Bench, LAB, sim_only};
use std::fs;

/// A lab whose rules stand in a file of their own.
fn with_rules_file(name: &'static str) -> Bench {
    let bench = Bench::new(name);
    let lab = LAB.replace("NAME", name).replace("rules: |", "rules_file: rules.txt\n  #");
    let (above, rules) = lab.split_once("  #\n").unwrap();
    let (rules, below) = rules.split_once("hosts:").unwrap();
    fs::write(bench.at("one/lab.yaml"), format!("{above}hosts:{below}")).unwrap();
    fs::write(bench.at("one/rules.txt"), rules.replace("POLICY", "DROP")).unwrap();
    bench
}

/// An answer that comes is waited for; one that does not come is not missed for long.
fn may_ping(bench: &Bench, from: &str, to: &str, seconds: u32) -> bool {
    bench.run(&format!("lab exec one {from} ping -c 1 -W {seconds} {to}")).0 == Some(0)
}

#[test]
fn a_good_reload_is_in_force_and_a_bad_one_says_where_it_is_wrong() {
    if sim_only() {
        return;
    }
    let bench = with_rules_file("t-reload");
    assert!(bench.well("lab up one").contains(", log /run/stateway/labs/t-reload/router.log"));
    assert!(!may_ping(&bench, "b", "192.0.2.1", 1));
    let rules = fs::read_to_string(bench.at("one/rules.txt")).unwrap();
    let wrong = rules.replace("-i a -m", "-i a -m tcp --dprot 22 -m");
    fs::write(bench.at("one/rules.txt"), &wrong).unwrap();
    for command in ["lab reload one", "reload --lab t-reload"] {
        let line = wrong.lines().position(|line| line.contains("--dprot")).unwrap() + 1;
        bench.refused(
            command,
            2,
            &["the old rules stay in force", "rules.txt", &format!(":{line}:"), "--dprot", "did you mean"],
        );
    }
    assert!(bench.well("lab rules one -S").contains("-A FORWARD -i a -m conntrack --ctstate NEW -j ACCEPT"));
    assert!(bench.well("lab logs one").contains("not reloaded, the old rules stay in force"));
    fs::write(bench.at("one/rules.txt"), rules.replace("DROP [0:0]", "ACCEPT [0:0]")).unwrap();
    assert!(bench.well("lab reload one").contains("the lab `t-reload` has its new rules"));
    assert!(may_ping(&bench, "b", "192.0.2.1", 30));
    // From here on, these rules are the lab's own: nothing has changed since.
    let (_, _, errors) = bench.run("lab exec one a true");
    assert_eq!(errors, "");
    assert!(bench.well("lab up one").contains("is up already"));
    // What a reload does not put in force is said, and stays said.
    let lab = fs::read_to_string(bench.at("one/lab.yaml")).unwrap();
    fs::write(bench.at("one/lab.yaml"), lab.replace("192.0.2.2/24", "192.0.2.3/24")).unwrap();
    let (code, _, errors) = bench.run("lab reload one");
    assert!(code == Some(0) && errors.contains("its hosts are not as the file says now"), "{errors}");
    bench.refused("lab up one", 2, &["has changed since"]);
    bench.well("lab restart one");
    assert!(may_ping(&bench, "a", "192.0.2.3", 30));
    fs::write(bench.at("one/lab.yaml"), lab.replace("a: {}", "c: {}")).unwrap();
    bench.refused("lab reload one", 2, &["the old rules stay in force"]);
}

#[test]
fn rules_are_listed_as_iptables_does_and_count_from_nothing_again() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-listed");
    bench.well("lab up one");
    bench.well("lab exec one a ping -c 1 -W 10 192.0.2.2");
    let listed = bench.well("lab rules one -L -v -n --line-numbers");
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let has = |lines: &[Vec<&str>], words: &str| {
        lines.iter().any(|line| *line == words.split_whitespace().collect::<Vec<_>>())
    };
    assert!(has(&lines, "Chain FORWARD (policy DROP 0 packets, 0 bytes)"), "{listed}");
    assert!(has(&lines, "num pkts bytes target prot opt in out source destination"), "{listed}");
    assert!(
        has(&lines, "1 1 84 ACCEPT all -- * * 0.0.0.0/0 0.0.0.0/0 ctstate RELATED,ESTABLISHED"),
        "{listed}"
    );
    assert!(has(&lines, "2 1 84 ACCEPT all -- a * 0.0.0.0/0 0.0.0.0/0 ctstate NEW"), "{listed}");
    assert_eq!(bench.well("lab rules t-listed -Z"), "");
    let listed = bench.well("rules list --lab one FORWARD -t filter -4");
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(has(&lines, "2 0 0 ACCEPT all -- a * 0.0.0.0/0 0.0.0.0/0 ctstate NEW"), "{listed}");
    // And they go on counting.
    bench.well("lab exec one a ping -c 1 -W 10 192.0.2.2");
    assert!(bench.well("lab rules one -S -v").contains("[1:84] -A FORWARD -i a -m conntrack"));
    bench.refused("lab rules one FORWRD", 2, &["no chain `FORWRD`", "did you mean `FORWARD`?"]);
    let json: serde_json::Value = serde_json::from_str(&bench.well("lab rules one --format json")).unwrap();
    let names: Vec<&str> = json.as_array().unwrap().iter().filter_map(|rule| rule["name"].as_str()).collect();
    assert!(names.contains(&"filter/FORWARD/1") && names.contains(&"filter/FORWARD/policy"), "{names:?}");
}

#[test]
fn settings_are_printed_and_changed() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-sysctl");
    bench.well("lab up one");
    let line = "net.netfilter.nf_conntrack_udp_timeout = 7\n";
    assert_eq!(bench.well("lab sysctl one nf_conntrack_udp_timeout=7"), line);
    assert_eq!(bench.well("sysctl --lab one net.netfilter.nf_conntrack_udp_timeout"), line);
    assert!(bench.well("lab sysctl one").contains(line));
    bench.refused(
        "lab sysctl one nf_conntrack_udp_timeuot=7",
        2,
        &["did you mean `nf_conntrack_udp_timeout`"],
    );
    bench.refused("lab sysctl one nf_conntrack_udp_timeout=x", 2, &["nf_conntrack_udp_timeout"]);
}

#[test]
fn a_cable_that_is_pulled_and_plugged_in_again_leaves_the_host_as_it_was() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-link");
    let lab = fs::read_to_string(bench.at("one/lab.yaml")).unwrap();
    let lab = lab.replace("address: 192.0.2.2/24", "address: [192.0.2.2/24, \"2001:db8::2/64\"]").replace(
        "services: [ssh] }\ntests",
        "routes: [{ to: 198.51.100.0/24, via: 192.0.2.1 }], services: [ssh] }\ntests",
    );
    fs::write(bench.at("one/lab.yaml"), lab).unwrap();
    bench.well("lab up one");
    let state = || {
        let shown = |what: &str| bench.well(&format!("lab exec one b ip {what} dev eth0"));
        [shown("-o -4 addr show"), shown("-4 route show"), shown("-6 route show proto kernel")]
            .map(|text| text.replace(" linkdown", ""))
    };
    let before = state();
    assert!(before[1].contains("198.51.100.0/24 via 192.0.2.1"), "{before:?}");
    assert!(bench.well("lab link one b --down").starts_with("b            down"));
    assert!(!may_ping(&bench, "a", "192.0.2.2", 1));
    assert!(bench.well("lab link one").contains("a            up"));
    assert!(bench.well("lab link one b --up").starts_with("b            up"));
    assert!(may_ping(&bench, "a", "192.0.2.2", 30));
    assert_eq!(state(), before);
    bench.refused("lab link one c --up", 2, &["no host `c`"]);
    bench.refused("lab link one b --rate 10", 2, &["a rate with its unit"]);
    bench.refused("lab link one --down", 2, &["HOST"]);
    let (code, said, errors) = bench.run("lab link one a --delay 300ms --loss 1%");
    // Some kernels have no netem, and are said to have none.
    if code == Some(3) {
        assert!(errors.contains("it takes netem"), "{errors}");
        return;
    }
    assert!(said.contains("delay 300ms loss 1%"), "{said}{errors}");
    assert!(!bench.well("lab link one a --reset").contains("delay"));
}

#[test]
fn a_log_is_followed_until_its_lab_ends() {
    use std::io::{BufRead as _, BufReader};
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-logs");
    bench.well("lab up one");
    let mut follow =
        bench.command("lab logs one -f -n 1").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("ready: bridge mode"));
    bench.well("lab reload one");
    assert_eq!(lines.next().unwrap(), "reloaded: the new rules are in force");
    bench.refused("lab logs one c", 2, &["no host `c`", "`a`, `b`, `router`"]);
    bench.well("lab down one");
    lines.by_ref().for_each(drop);
    assert_eq!(follow.wait().unwrap().code(), Some(0));
    bench.refused("lab logs t-logs", 2, &["is not up"]);
}

#[test]
fn a_packet_is_explained_by_what_the_router_knows_now_and_changes_nothing() {
    use std::io::{BufRead as _, BufReader};
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-live");
    bench.well("lab up one");
    let mut client = bench
        .command("lab exec one a bash -c")
        .arg("exec 3<>/dev/tcp/192.0.2.2/22; read -u 3 banner; echo open; exec sleep 600")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.next().as_deref(), Some("open"));
    let table = bench.well("conntrack -L --lab one -p tcp");
    let sport = table.split(' ').find_map(|word| word.strip_prefix("sport=")).unwrap();
    // Segments of the connection itself may still come.
    let known = || {
        let table = bench.well("conntrack -L --lab one -p tcp");
        let rules = bench.well("lab rules one -S -v");
        let others: Vec<String> =
            rules.lines().filter(|rule| !rule.contains("ESTABLISHED")).map(str::to_owned).collect();
        let connection = table.split_once("ESTABLISHED ").unwrap().1.to_owned();
        (connection, others, bench.well("conntrack -C --lab one"))
    };
    let before = known();
    let answer = format!("--in b --tcp 192.0.2.2:22,192.0.2.1:{sport}");
    for router in ["--lab one", "--lab t-live", "--control /run/stateway/lab-t-live.sock"] {
        let told = bench.well(&format!("explain {router} {answer}"));
        assert!(told.starts_with("router: a copy of the one "), "{told}");
        assert!(told.contains(&format!("packet: tcp . 192.0.2.2:22 → 192.0.2.1:{sport}, in on b")), "{told}");
        assert!(
            told.contains("conntrack: ESTABLISHED reply: packets were seen in both directions"),
            "{told}"
        );
        assert!(told.contains("fate: forwarded → a by filter/FORWARD/1"), "{told}");
        assert!(told.contains("connection: ipv4     2 tcp      6 ") && told.contains("[ASSURED]"), "{told}");
    }
    // Flags that are given are meant.
    let told = bench.well(&format!("explain --lab one {answer} --flags FS"));
    assert!(told.contains("conntrack: INVALID (tcp-flags)"), "{told}");
    let told = bench.well("explain --lab one --in b --tcp 192.0.2.2:22,192.0.2.1:1");
    assert!(told.contains("packet: tcp S ") && told.contains("fate: dropped by policy"), "{told}");
    let told = bench.well("explain --lab one --in a --udp 192.0.2.1:5,192.0.2.2:53 --format json");
    let account: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&account["fate"], &account["out"][0]), (&"forwarded".into(), &"b".into()));
    assert_eq!(known(), before, "nothing is changed");
    // By the file alone, it is the first packet.
    let told = bench.well(&format!("explain --lab one --fresh {answer}"));
    assert!(told.contains("packet: tcp S ") && told.contains("fate: dropped by policy"), "{told}");
    bench.refused("explain --lab one --in c --udp 192.0.2.1:5,192.0.2.2:53", 2, &["no port `c`"]);
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn every_metric_stands_in_its_page_and_the_dashboard_asks_for_no_other() {
    use std::collections::BTreeSet;
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-metrics");
    bench.well("lab up one");
    let text = bench.well("top --metrics --lab one");
    let names: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/METRICS.md")).unwrap();
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("stateway_"))
        .collect();
    assert_eq!(documented, names);
    let dashboard = fs::read_to_string(root.join("deploy/grafana/stateway.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let asked: Vec<&str> =
        dashboard.split(|c| !is_name(c)).filter(|word| word.starts_with("stateway_")).collect();
    assert!(!asked.is_empty() && asked.iter().all(|name| names.contains(name)), "{asked:?}");
}

//! `stateway rules check` and `diff` of every packet: mistakes are found, mended ones are not, and what is shown runs.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Exit code, and both outputs.
fn rules(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stateway")).arg("rules").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The codes of what is found, in order; whatever is shown has been proved.
fn codes(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules");
    std::fs::write(&path, text).unwrap();
    let (code, out, err) = rules(&["check", path.to_str().unwrap(), "--format", "json"]);
    assert_eq!(code, 0, "{out}{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let findings = answer["findings"].as_array().unwrap();
    for finding in findings {
        if let Some(witness) = finding.get("witness") {
            assert_eq!(witness["proved"], true, "{finding:#}");
        }
    }
    findings.iter().map(|finding| finding["code"].as_str().unwrap_or("none").to_owned()).collect()
}

/// As [`codes`], of rules for both families.
fn codes_of_both(four: &str, six: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = [("four", four), ("six", six)].map(|(name, text)| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    });
    let (code, out, err) = rules(&["check", &a, "--rules6", &b, "--format", "json"]);
    assert_eq!(code, 0, "{out}{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let of = |finding: &Value| {
        let file =
            Path::new(finding["file"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(finding["witness"]["proved"], true, "{finding:#}");
        format!("{file} {} {}", finding["line"], finding["code"].as_str().unwrap())
    };
    answer["findings"].as_array().unwrap().iter().map(of).collect()
}

fn filter(policy: &str, rules: &str) -> String {
    format!("*filter\n:FORWARD {policy} [0:0]\n:mine - [0:0]\n{rules}\nCOMMIT\n")
}

#[test]
fn the_wrong_rulesets_of_the_article_are_named_and_the_right_one_is_not() {
    for (lab, expected) in [
        ("open-ports", &["SW010"; 4][..]),
        ("trusted-hosts-30", &["SW011"]),
        ("trusted-hosts-300", &["SW011"]),
        ("tcp-flags", &["SW012"]),
        ("article", &[]),
    ] {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(lab).join("lab.yaml");
        let lab: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(lab).unwrap()).unwrap();
        let text = lab["router"]["rules"].as_str().unwrap();
        assert_eq!(codes(text), expected, "{text}");
    }
}

#[test]
fn a_planted_mistake_is_found_and_a_mended_one_is_not() {
    const STATE: &str = "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n";
    for (mistake, wrong, mended) in [
        (
            "SW001",
            "-A FORWARD -s 192.0.2.0/25 -j DROP\n-A FORWARD -s 192.0.2.128/25 -j DROP\n-A FORWARD -s 192.0.2.0/24 -p udp -j ACCEPT",
            "-A FORWARD -s 192.0.2.0/25 -j DROP\n-A FORWARD -s 192.0.2.128/26 -j DROP\n-A FORWARD -s 192.0.2.0/24 -p udp -j ACCEPT",
        ),
        (
            "SW001",
            "-A FORWARD -p udp -g mine\n-A mine -m conntrack --ctstate NEW -j DROP\n-A mine -p udp --dport 53 -m conntrack --ctstate NEW -j ACCEPT",
            "-A FORWARD -p udp -g mine\n-A mine -p udp --dport 53 -m conntrack --ctstate NEW -j ACCEPT\n-A mine -m conntrack --ctstate NEW -j DROP",
        ),
        (
            "SW002",
            "-A FORWARD -s 192.0.2.0/24 -m iprange --src-range 198.51.100.1-198.51.100.9 -j ACCEPT",
            "-A FORWARD -s 192.0.2.0/24 -m iprange --src-range 192.0.2.1-192.0.2.9 -j ACCEPT",
        ),
        ("SW003", "-A mine -s 192.0.2.1 -j DROP", "-A FORWARD -j mine\n-A mine -s 192.0.2.1 -j DROP"),
        (
            "SW004",
            "-A FORWARD -p udp -j LOG\n-A FORWARD -p udp -j LOG",
            "-A FORWARD -p udp -j LOG\n-A FORWARD -p icmp -j LOG",
        ),
        (
            "SW005",
            "-A FORWARD -p tcp --dport 22 -j DROP\n-A FORWARD -p tcp -m multiport --dports 22,80,443 -j ACCEPT",
            "-A FORWARD -s 192.0.2.9 -p tcp --dport 22 -j DROP\n-A FORWARD -p tcp -m multiport --dports 22,80,443 -j ACCEPT",
        ),
        (
            "SW005",
            "-A FORWARD -m conntrack --ctstate INVALID -j DROP\n-A FORWARD -i lan -m conntrack --ctstate NEW,INVALID -j ACCEPT",
            "-A FORWARD -m conntrack --ctstate RELATED -j ACCEPT\n-A FORWARD -i lan -m conntrack --ctstate NEW,RELATED -j ACCEPT",
        ),
        (
            "SW017",
            "-A INPUT -p tcp -j DROP\n-A INPUT -i lan -p tcp --dport 22 -j ACCEPT",
            "-A INPUT -i lan -p tcp --dport 22 -j ACCEPT\n-A INPUT -p tcp -j DROP",
        ),
        (
            "SW017",
            "-A INPUT -p tcp --dport 22 -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A INPUT -p tcp -j DROP",
            "-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\n-A INPUT -p tcp -j DROP",
        ),
        (
            "SW017",
            "-A INPUT -p tcp -m multiport --dports 22,80 -j ACCEPT\n-A OUTPUT -p udp -j ACCEPT\n-A OUTPUT -j DROP",
            "-A INPUT -p tcp -m multiport --dports 22,80 -j ACCEPT\n-A OUTPUT -p tcp --sport 22 -j ACCEPT\n-A OUTPUT -j DROP",
        ),
        (
            "SW010",
            "-A FORWARD -i world -p udp --sport 53 -j ACCEPT",
            "-A FORWARD -i world -p udp --sport 53 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        ),
        (
            "SW012",
            "-A FORWARD -i world -p tcp --syn -j DROP\n-A FORWARD -i world -j ACCEPT",
            "-A FORWARD -i world -p tcp --syn -j DROP\n-A FORWARD -i inside -j ACCEPT",
        ),
        (
            "SW013",
            "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD -i lan -m conntrack --ctstate NEW -j ACCEPT",
            &format!("{STATE}-A FORWARD -i lan -m conntrack --ctstate NEW -j ACCEPT"),
        ),
        (
            "SW014",
            "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED,INVALID -j ACCEPT\n-A FORWARD -i lan -m conntrack --ctstate NEW -j ACCEPT",
            &format!("{STATE}-A FORWARD -i lan -m conntrack --ctstate NEW -j ACCEPT"),
        ),
        (
            "SW015",
            &format!("{STATE}-A FORWARD -m conntrack --ctstate NEW -j ACCEPT"),
            &format!("{STATE}-A FORWARD -i lan -m conntrack --ctstate NEW -j ACCEPT"),
        ),
    ] {
        assert_eq!(codes(&filter("DROP", wrong)), [mistake], "{wrong}");
        assert_eq!(codes(&filter("DROP", mended)), [""; 0], "{mended}");
    }
}

#[test]
fn a_family_that_is_left_open_is_found() {
    let four = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A FORWARD -i lan -j ACCEPT\nCOMMIT\n";
    let open = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i lan -j ACCEPT\nCOMMIT\n";
    assert_eq!(codes_of_both(four, open), ["six 3 SW016"]);
    assert_eq!(codes_of_both(open, four), ["four 3 SW016"]);
    assert_eq!(codes_of_both(four, four), [""; 0]);
    assert_eq!(codes_of_both(open, open), [""; 0]);
    // Closed by its last rule, and open for want of any.
    let last =
        four.replace(":FORWARD DROP", ":FORWARD ACCEPT").replace("COMMIT", "-A FORWARD -j REJECT\nCOMMIT");
    assert_eq!(codes_of_both(&last, "*mangle\nCOMMIT\n"), ["six 2 SW016"]);
    let narrow = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i wan -j DROP\nCOMMIT\n";
    assert_eq!(codes_of_both(four, narrow), [""; 0], "what it refuses was thought about");
}

#[test]
fn what_sets_and_marks_may_be_is_no_mistake() {
    let sets = "create empty hash:ip\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m set --match-set empty src -j DROP\n\
        -A FORWARD -m set --match-set empty src -p udp -m mark --mark 1 -j LOG\nCOMMIT\n";
    assert_eq!(codes(sets), ["SW001"], "what a rule has taken is taken, whatever is in the set");
    let marks = "create empty hash:ip\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m set --match-set empty src -j ACCEPT\n\
        -A FORWARD -m mark --mark 1 -j ACCEPT\n-A FORWARD -m limit --limit 1/s -j LOG\n-A FORWARD -m limit --limit 1/s -j ACCEPT\nCOMMIT\n";
    assert_eq!(codes(marks), [""; 0]);
    let translated = "*nat\n-A PREROUTING -i wan -j DNAT --to-destination 192.0.2.9\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n\
        -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n-A FORWARD -i wan -m conntrack --ctstate DNAT -j ACCEPT\nCOMMIT\n";
    assert_eq!(codes(translated), [""; 0], "what another table decides is known only with it");
}

#[test]
fn what_the_last_rule_refuses_is_not_passed_by_the_policy() {
    let rules = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
        -A FORWARD -i lan -j ACCEPT\n";
    assert_eq!(codes(&format!("{rules}-A FORWARD -j DROP\nCOMMIT\n")), [""; 0]);
    let wan = format!("{rules}-A FORWARD -i wan -j DROP\nCOMMIT\n");
    assert_eq!(codes(&wan), [""; 0], "INVALID passes where NEW passes as well");
    assert_eq!(
        codes(&format!("{rules}-A FORWARD -i wan -m conntrack --ctstate NEW -j DROP\nCOMMIT\n")),
        ["SW014"]
    );
}

#[test]
fn findings_are_denied_allowed_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules");
    let hole = "-A FORWARD -i world -p udp --sport 53 -j ACCEPT";
    let check = |text: &str, args: &[&str]| {
        std::fs::write(&path, text).unwrap();
        rules(&[&["check", path.to_str().unwrap()], args].concat())
    };
    let plain = filter("DROP", hole);
    assert_eq!(check(&plain, &[]).0, 0);
    assert_eq!(check(&plain, &["--deny", "SW010"]).0, 1);
    assert_eq!(check(&plain, &["--deny", "all"]).0, 1);
    assert_eq!(check(&plain, &["--deny", "SW011"]).0, 0);
    assert_eq!(check(&plain, &["--deny", "all", "--allow", "SW010"]).0, 0);
    assert_eq!(check(&plain, &["--deny", "SW999"]).0, 2);
    let allowed = filter("DROP", &format!("# stateway: allow SW010 the resolver is ours\n{hole}"));
    assert_eq!(check(&allowed, &["--deny", "all"]).0, 0);
    let elsewhere = filter(
        "DROP",
        &format!("# stateway: allow SW010 the resolver is ours\n-A FORWARD -p icmp -j DROP\n{hole}"),
    );
    assert_eq!(check(&elsewhere, &["--deny", "all"]).0, 1);
    let (code, _, err) = check(&filter("DROP", &format!("# stateway: allow SW010\n{hole}")), &[]);
    assert!(code == 2 && err.contains("a reason is missing"), "{err}");

    let (code, out, _) = check(&plain, &["--format", "sarif"]);
    let sarif: Value = serde_json::from_str(&out).unwrap();
    let result = &sarif["runs"][0]["results"][0];
    let region = &result["locations"][0]["physicalLocation"]["region"];
    assert_eq!((code, &result["ruleId"], &region["startLine"]), (0, &"SW010".into(), &4.into()));
    let (_, out, _) = check(&plain, &["--format", "github"]);
    assert!(
        out.starts_with("::warning file=") && out.contains(",line=4,col=1,title=SW010::answers"),
        "{out}"
    );

    let (code, out, _) = rules(&["explain-code", "sw012"]);
    assert!(code == 0 && out.starts_with("SW012: the first handshake"), "{out}");
    assert_eq!(rules(&["explain-code", "SW999"]).0, 2);
}

#[test]
fn a_diff_is_of_every_packet() {
    let folder = tempfile::tempdir().unwrap();
    let diff = |old: &str, new: &str| {
        let [a, b] = ["old", "new"].map(|name| folder.path().join(name));
        std::fs::write(&a, filter("DROP", old)).unwrap();
        std::fs::write(&b, filter("DROP", new)).unwrap();
        rules(&["diff", a.to_str().unwrap(), b.to_str().unwrap()])
    };
    let one = "-A FORWARD -p tcp --dport 1:100 -j ACCEPT";
    let two = "-A FORWARD -p tcp --dport 51:100 -j ACCEPT\n-A FORWARD -j mine\n-A mine -p tcp --dport 1:50 -j ACCEPT";
    let (code, out, _) = diff(one, two);
    assert!(code == 0 && out.ends_with("equivalent: every packet meets the same fate\n"), "{out}");

    let (code, out, _) = diff(one, "-A FORWARD -p tcp --dport 1:99 -j ACCEPT");
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("FORWARD: forwarded → dropped\n  -p tcp --dport 100\n"), "{out}");
    assert!(out.contains(", proved by running it under both\n"), "{out}");

    let (code, out, _) = diff(one, &format!("-A FORWARD -p udp -j REJECT\n{one}"));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("FORWARD: dropped → rejected\n  -p udp"), "{out}");
}

#[test]
fn a_diff_tells_how_connections_are_translated() {
    let folder = tempfile::tempdir().unwrap();
    let diff = |old: &str, new: &str| {
        let [a, b] = ["old", "new"].map(|name| folder.path().join(name));
        let text = |nat: &str| {
            let filter =
                "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -d 192.0.2.0/24 -p tcp -j ACCEPT\nCOMMIT\n";
            format!("*nat\n{nat}\nCOMMIT\n{filter}")
        };
        std::fs::write(&a, text(old)).unwrap();
        std::fs::write(&b, text(new)).unwrap();
        rules(&["diff", a.to_str().unwrap(), b.to_str().unwrap()])
    };
    let one = "-A PREROUTING -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 192.0.2.10";
    let two =
        "-A PREROUTING -p tcp -d 203.0.113.1 -m multiport --dports 80 -j DNAT --to-destination 192.0.2.10";
    let (code, out, _) = diff(one, two);
    assert!(code == 0 && out.ends_with("equivalent: every packet meets the same fate\n"), "{out}");

    let (code, out, _) = diff(one, &one.replace("2.10", "2.11"));
    let said = "FORWARD: DNAT --to-destination 192.0.2.10 → DNAT --to-destination 192.0.2.11\n  -d 203.0.113.1 -p tcp --dport 80 --ctstate NEW\n";
    assert!(code == 1 && out.contains(said), "{out}");
    assert!(out.contains(", proved by running it under both\n"), "{out}");
    assert!(!out.contains("dropped"), "{out}");

    // What leads elsewhere is refused there.
    let (code, out, _) = diff(one, &one.replace("192.0.2.10", "198.51.100.9"));
    let said = "FORWARD: forwarded → dropped\n  -d 203.0.113.1 -p tcp --dport 80 --ctstate NEW\n";
    assert!(code == 1 && out.contains(said), "{out}");

    let masquerade = "-A POSTROUTING -o wan -j MASQUERADE";
    let (code, out, _) = diff(one, &format!("{one}\n{masquerade}"));
    assert!(code == 1 && out.contains("FORWARD: not translated → MASQUERADE\n  -o wan"), "{out}");

    // What is dropped under both is translated nowhere.
    let udp = "-A PREROUTING -d 203.0.113.1 -p udp -j DNAT --to-destination 198.51.100.9";
    let (code, out, _) = diff(one, &format!("{one}\n{udp}"));
    assert!(!out.contains("FORWARD:"), "{code} {out}");
}

/// Rulesets as public ones are: of servers, desktops, home routers, gateways with zones, machines and containers, ban lists.
const MANY: &str = include_str!("rules_many.txt");

#[test]
fn rulesets_in_the_manner_of_public_ones_have_no_finding() {
    let mut count = 0;
    for section in MANY.split("\n== ").skip(1) {
        let (name, text) = section.split_once('\n').unwrap();
        assert_eq!(codes(text), [""; 0], "{name}\n{text}");
        count += 1;
    }
    assert!(count >= 100, "{count} rulesets");
}

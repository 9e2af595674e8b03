//! `stateway rules search`: its answers, its exit codes, and that what it prints runs as it says.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn stateway(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stateway")).args(args).output().unwrap()
}

fn corpus(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rulesets").join(name).display().to_string()
}

/// What is printed, and the exit code.
fn search(args: &[&str]) -> (i32, String) {
    let output = stateway(&[&["rules", "search"], args].concat());
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The last packet of a story, as `replay` judges it.
fn replayed(story: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "witness.flow", story);
    let output = stateway(&["replay", path.to_str().unwrap(), "--format", "json"]);
    assert!(output.status.success(), "{}\n{story}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn what_is_printed_is_a_story_that_replays_to_the_fate_that_it_claims() {
    for (rules, args, fate, state) in [
        (
            "article-1-ports.rules",
            "--in world --out host104 --state NEW --fate forwarded",
            "forwarded",
            "NEW",
        ),
        ("article-2-flags.rules", "--in world --proto udp --fate forwarded --state NEW", "forwarded", "NEW"),
        (
            "article-3-state.rules",
            "--out host104 --state ESTABLISHED --fate forwarded",
            "forwarded",
            "ESTABLISHED",
        ),
        ("article-3-state.rules", "--out host104 --state RELATED --fate forwarded", "forwarded", "RELATED"),
        ("article-3-state.rules", "--in host104 --state ESTABLISHED --proto udp", "forwarded", "ESTABLISHED"),
        (
            "article-3-state.rules",
            "--in host104 --state ESTABLISHED --proto icmp",
            "forwarded",
            "ESTABLISHED",
        ),
        ("article-3-state.rules", "--state INVALID --fate dropped", "dropped", "INVALID"),
        ("docker.rules", "--state NEW --fate forwarded", "forwarded", "NEW"),
        ("kube-proxy.rules", "--fate dropped", "dropped", "INVALID"),
        ("sets.rules", "--fate dropped", "dropped", "NEW"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let (code, story) = search(&[&[corpus(rules).as_str()], args.as_slice()].concat());
        assert_eq!(code, 0, "{rules} {args:?}\n{story}");
        assert!(story.contains("\n# proved by running it: "), "{story}");
        let last = replayed(&story);
        assert_eq!(
            (last["fate"].as_str().unwrap(), last["ctstate"].as_str().unwrap()),
            (fate, state),
            "{story}"
        );
    }
}

#[test]
fn no_such_packet_has_an_exit_code_of_its_own() {
    let article = corpus("article-3-state.rules");
    for args in [
        "--in world --out host104 --state NEW --fate forwarded",
        "--in world --dst 192.0.2.104 --sport 22 --state NEW --fate forwarded",
        "--state UNTRACKED",
        "--fate rejected",
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let (code, text) = search(&[&[article.as_str()], args.as_slice()].concat());
        assert_eq!((code, text.trim()), (1, "no such packet"), "{args:?}");
    }
}

#[test]
fn an_answer_that_nothing_opens_is_no_packet() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m state --state ESTABLISHED -j ACCEPT\nCOMMIT\n";
    let path = file(&folder, "rules", rules);
    let (code, text) = search(&[path.to_str().unwrap(), "--fate", "forwarded"]);
    assert_eq!((code, text.trim()), (1, "no such packet"));
}

#[test]
fn packets_to_the_router_and_of_ipv6_are_proved_too() {
    let folder = tempfile::tempdir().unwrap();
    let input = "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lan -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
    let path = file(&folder, "input", input);
    let (code, story) =
        search(&[path.to_str().unwrap(), "--hook", "INPUT", "--state", "NEW", "--fate", "forwarded"]);
    assert_eq!(code, 0, "{story}");
    assert!(story.contains("#   -i lan -p tcp --dport 22 --ctstate NEW\n"), "{story}");
    assert_eq!(replayed(&story)["fate"], "delivered");

    let six = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p icmpv6 --icmpv6-type 128 -j ACCEPT\nCOMMIT\n";
    let four = file(&folder, "four", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    let six = file(&folder, "six", six);
    let args =
        [four.to_str().unwrap(), "--rules6", six.to_str().unwrap(), "--fate", "forwarded", "--state", "NEW"];
    let (code, story) = search(&args);
    assert_eq!(code, 0, "{story}");
    let last = replayed(&story);
    assert_eq!((&last["fate"], &last["ctstate"]), (&"forwarded".into(), &"NEW".into()), "{story}");
}

#[test]
fn an_answer_in_json_has_its_story_and_says_what_it_supposes() {
    let folder = tempfile::tempdir().unwrap();
    let rules =
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp --dport 53 -m limit --limit 5/s -j ACCEPT\nCOMMIT\n";
    let path = file(&folder, "rules", rules);
    let (code, text) =
        search(&[path.to_str().unwrap(), "--fate", "forwarded", "--state", "NEW", "--format", "json"]);
    assert_eq!(code, 0, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let group = &answer["answers"][0]["packets"][0];
    assert_eq!(group["dport"], "--dport 53");
    assert_eq!(group["supposing"][0], "`-m limit --limit 5/sec` holds");
    let witness = &answer["answers"][0]["witness"];
    assert_eq!((&witness["proved"], &witness["fate"]), (&true.into(), &"forwarded".into()));
    assert_eq!(replayed(witness["flow"].as_str().unwrap())["fate"], "forwarded");
}

/// A home router: a web server behind another port, DNS caught, everybody masqueraded.
const TRANSLATES: &str = "*nat
-A PREROUTING -i wan -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 192.0.2.10:8080
-A PREROUTING -i wan -d 203.0.113.2 -p udp -j DNAT --to-destination 192.0.2.20-192.0.2.21
-A PREROUTING -i lan -p udp --dport 53 -j REDIRECT --to-ports 5353
-A POSTROUTING -o wan -s 192.0.2.0/24 -j MASQUERADE
-A POSTROUTING -o dmz -s 192.0.2.0/24 -j NETMAP --to 198.18.0.0/24
COMMIT
*filter
:INPUT DROP [0:0]
-A INPUT -p udp --dport 5353 -j ACCEPT
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i lan -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -i wan ! -o wan -d 192.0.2.10 -p tcp --dport 8080 -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -i wan ! -o wan -d 192.0.2.20 -p udp -m conntrack --ctstate DNAT -j ACCEPT
COMMIT
";

#[test]
fn packets_are_asked_for_with_the_ends_that_forward_sees_and_described_as_they_come() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "rules", TRANSLATES);
    let path = path.to_str().unwrap();
    let ask = |question: &str| {
        let question: Vec<&str> = question.split(' ').collect();
        search(&[&[path, "--fate", "forwarded"], question.as_slice()].concat())
    };
    let (code, story) = ask("--in wan --out lan --dst 192.0.2.10 --orig-dport 80 --state NEW");
    assert_eq!(code, 0, "{story}");
    let group = "-i wan -o lan -d 203.0.113.1 -p tcp --dport 80 --ctstate NEW, then DNAT --to-destination 192.0.2.10:8080";
    assert!(story.contains(&format!("#   {group}\n")), "{story}");
    let sent = "proved by running it: forwarded as 198.51.100.66:40000 > 192.0.2.10:8080 by filter/FORWARD/3";
    assert!(story.contains(sent), "{story}");
    assert_eq!(replayed(&story)["fate"], "forwarded");

    // FORWARD never sees the address that it was sent to.
    let (code, text) = ask("--in wan --dst 203.0.113.1 --state NEW");
    assert_eq!((code, text.trim()), (1, "no such packet"));
    let (code, text) = ask("--in wan --orig-dst 203.0.113.2 --proto tcp --state NEW");
    assert_eq!((code, text.trim()), (1, "no such packet"));
    // Which of two addresses is chosen is not known.
    let (_, text) = ask("--in wan --out lan --orig-dst 203.0.113.2 --state NEW");
    let chosen =
        ", where `what `-j DNAT --to-destination 192.0.2.20-192.0.2.21` chooses fits` holds, then DNAT";
    assert!(text.contains(chosen), "{text}");
}

#[test]
fn answers_and_errors_of_translated_connections_are_proved() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "rules", TRANSLATES);
    let path = path.to_str().unwrap();
    for (question, fate, state) in [
        ("--in wan --out lan --state ESTABLISHED --proto tcp --sport 80", "forwarded", "ESTABLISHED"),
        ("--in wan --out lan --state RELATED", "forwarded", "RELATED"),
        ("--in lan --out wan --state ESTABLISHED --src 192.0.2.10 --sport 8080", "forwarded", "ESTABLISHED"),
        ("--in dmz --out lan --state ESTABLISHED --proto udp --dst 192.0.2.9", "forwarded", "ESTABLISHED"),
        ("--in lan --out dmz --state ESTABLISHED --proto icmp --src 192.0.2.9", "forwarded", "ESTABLISHED"),
        ("--hook INPUT --in lan --state NEW --fate forwarded", "delivered", "NEW"),
    ] {
        let question: Vec<&str> = question.split(' ').collect();
        let (code, story) = search(&[&[path], question.as_slice()].concat());
        assert_eq!(code, 0, "{question:?}\n{story}");
        assert!(story.contains("\n# proved by running it: "), "{question:?}\n{story}");
        let last = replayed(&story);
        assert_eq!((&last["fate"], &last["ctstate"]), (&fate.into(), &state.into()), "{story}");
    }
}

#[test]
fn what_cannot_be_asked_is_an_error_of_the_input() {
    let article = corpus("article-3-state.rules");
    for (args, said) in [
        ("--src 192.0.2.300", "`--src 192.0.2.300`"),
        ("--dport nosuchport", "`nosuchport` is no port"),
        ("--state OPEN", "no connection state named `OPEN`"),
        ("--src 2001:db8::1", "there are no rules for the family"),
        ("--in nowhere --iface lan", "no interface named `nowhere`"),
        ("--fate lost", "invalid value 'lost'"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let (code, text) = search(&[&[article.as_str()], args.as_slice()].concat());
        assert_eq!(code, 2, "{args:?}\n{text}");
        assert!(text.contains(said), "{said} in {text}");
    }
}

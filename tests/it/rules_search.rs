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

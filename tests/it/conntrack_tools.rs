//! `stateway conntrack` beside the real `conntrack`: the same words to both, and the same answers from both, about the
//! same connections.
//!
//! It takes root and conntrack-tools, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use crate::run::{Lab, Refused, STATEFUL, is_left_out};
use stateway_runtime::control::protocol::{Command as Ask, Reply};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// What both are asked, one after the other. Every line must end with the same code and print the same, apart from the
/// order of connections, their numbers, and seconds that pass meanwhile. Left out is `-D -u UNREPLIED`, which conntrack
/// 1.4.7 takes for all connections.
const WORDS: &[&str] = &[
    "-I -p udp -t 9000 -u SEEN_REPLY -s 192.0.2.104 -d 192.0.2.77 --sport 5005 --dport 53",
    "-I -p udp -t 9000 -s 192.0.2.104 -d 192.0.2.77 --sport 5005 --dport 53",
    "-A -p udp -t 9999 -s 192.0.2.104 -d 192.0.2.77 --sport 5005 --dport 53",
    "-I -p tcp -t 9000 -s 192.0.2.104 -d 192.0.2.77 --sport 5006 --dport 22 --state ESTABLISHED -u ASSURED,SEEN_REPLY",
    "-I -p tcp -t 9000 -s 192.0.2.104 -d 192.0.2.77 --sport 5009 --dport 22 -n 198.51.100.1 --state SYN_SENT",
    "-I -p icmp -t 9000 -s 192.0.2.104 -d 192.0.2.77 --icmp-type 8 --icmp-code 0 --icmp-id 77",
    "-I -p udp -t 9000 -s 2001:db8::1 -d 2001:db8::2 --sport 5005 --dport 53",
    "-I -p 50 -t 9000 -s 192.0.2.1 -d 192.0.2.2",
    "-I -p udp -t 9000 -s 192.0.2.104 -d 192.0.2.77 --sport 5010 --dport 9 -u FIXED_TIMEOUT -w 7",
    // What is missing, or no word.
    "-I -p tcp -t 29 -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2",
    "-I -p udp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2",
    "-I -p udp -t 29 -s 192.0.2.1 --sport 1 --dport 2",
    "-I -t 29 -s 192.0.2.1 -d 192.0.2.2",
    "-L -p tcp --state ESTABLISHD",
    "-L -p tcp --state established",
    "-L -p udp --state ESTABLISHED",
    "-D -p tcp --state FOO",
    "-L -u ASSURD",
    "-E -e NWE",
    "-E -e NEW,FOO",
    "-L -e NEW",
    "-L -b 8",
    "-L -p tcpp",
    "-L foo",
    "-L -f ipv5",
    "-L -s 192.0.2.300",
    "-L -D",
    "-L --nonsense",
    // Listings.
    "-L",
    "-L -o extended",
    "-L -o save",
    "-L -o xml",
    "-L -f ipv6",
    "-L -f ipv6 -o save",
    "-L -u UNREPLIED",
    "-L -u SEEN_REPLY",
    "-L -u SEEN_REPLY,ASSURED",
    "-L -u UNREPLIED,ASSURED",
    "-L -u OFFLOAD",
    "-L -p tcp --state ESTABLISHED",
    "-L -p tcp --state CLOSE",
    "-L -p icmp --icmp-type 8",
    "-L -p icmp --icmp-type 0",
    "-L -s 192.0.2.0/24",
    "-L -j",
    "-L -n",
    "-L -n 198.51.100.1",
    "-L -n 198.51.100.2",
    "-L -g",
    "-L -z",
    "-L -w 7",
    "-L dying",
    "-L unconfirmed",
    "-L expect",
    "-C",
    "-C expect",
    // One connection.
    "-G -s 192.0.2.104 -d 192.0.2.77",
    "-G -p tcp -s 192.0.2.104 -d 192.0.2.77",
    "-G -p icmp -s 192.0.2.104 -d 192.0.2.77",
    "-G -p tcp -s 192.0.2.104 -d 192.0.2.77 --sport 1 --dport 22",
    "-G -p tcp -s 192.0.2.104 -d 192.0.2.77 --sport 5006 --dport 22",
    "-G -p icmp -s 192.0.2.104 -d 192.0.2.77 --icmp-type 8 --icmp-code 0 --icmp-id 77",
    // Changes.
    "-U -p udp -s 192.0.2.104 --sport 5005 --dport 53 -m 9",
    "-U -p udp -s 192.0.2.104 --sport 5005 --dport 53 -m 0x10/0x0f",
    "-U -p udp -s 192.0.2.104 --sport 5005 --dport 53 -t 5000",
    "-U -p udp -s 192.0.2.104 --sport 5005 --dport 53 -u ASSURED",
    "-U -p udp -s 192.0.2.99 -m 9",
    "-L",
    "-L -o id",
    "-D -p icmp -o id",
    "-L -b 8192",
    "-D -p tcp -o save",
    "-D -p tcp",
    "-R /nonexistent",
    "-D",
    "-L",
    "-F",
];

#[test]
fn the_same_words_mean_the_same_as_to_conntrack() {
    if is_left_out() {
        return;
    }
    let lab = Lab::start("", STATEFUL, Refused::Nothing);
    let saved = "-A -t 29 -u SEEN_REPLY -s 192.0.2.104 -d 192.0.2.77 -r 192.0.2.77 -q 192.0.2.104 -p udp --sport 5005 --dport 53 --reply-port-src 53 --reply-port-dst 5005\n-I -p udp -t 29 -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2\n-D -p udp --dport 53\n";
    let path = lab.folder.path().join("saved");
    std::fs::write(&path, saved).unwrap();
    let load = format!("-R {}", path.display());
    let mut differ = Vec::new();
    for words in WORDS.iter().copied().chain([load.as_str(), "-L"]) {
        let (real, ours) = (real(&lab, words), ours(&lab, words));
        if (ours.status.code(), printed(&ours)) != (real.status.code(), printed(&real)) {
            differ.push(format!("{words}\n  ours: {ours:?}\n  real: {real:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn metrics_tell_protocols_states_and_rules_apart() {
    if is_left_out() {
        return;
    }
    let lab = Lab::start("", STATEFUL, Refused::Nothing);
    ours(&lab, "-I -p udp -t 90 -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2");
    ours(&lab, "-I -p udp -t 90 -s 192.0.2.1 -d 192.0.2.2 --sport 3 --dport 2");
    ours(&lab, "-I -p tcp -t 90 -s 192.0.2.1 -d 192.0.2.2 --sport 3 --dport 2 --state ESTABLISHED");
    let Reply::Text { text } = lab.ask(&Ask::Metrics) else { panic!("no metrics") };
    for line in [
        "stateway_nf_conntrack_connections{protocol=\"udp\"} 2",
        "stateway_nf_conntrack_connections{protocol=\"tcp\",state=\"ESTABLISHED\"} 1",
        "stateway_rule_packets_total{family=\"ipv4\",table=\"filter\",chain=\"FORWARD\",rule=\"2\"} 0",
        "stateway_rule_bytes_total{family=\"ipv4\",table=\"filter\",chain=\"FORWARD\",rule=\"policy\"} 0",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}: {text}");
    }
}

#[test]
fn a_misspelt_word_is_answered_with_the_near_one() {
    if is_left_out() {
        return;
    }
    let lab = Lab::start("", STATEFUL, Refused::Nothing);
    for (words, near) in [
        ("-L -p tcp --state ESTABLISHD", "`ESTABLISHED`"),
        ("-D -p tcp --state TIMEWAIT", "`TIME_WAIT`"),
        ("-L -u ASURED", "`ASSURED`"),
        ("-L -u UNREPLYED", "`UNREPLIED`"),
        ("-E -e UPDTES", "`UPDATES`"),
    ] {
        let said = ours(&lab, words);
        assert_eq!(said.status.code(), Some(2), "{words}");
        assert!(String::from_utf8_lossy(&said.stderr).contains(near), "{words}: {said:?}");
    }
}

#[test]
fn a_connection_has_one_number_of_32_bits_in_listings_and_events() {
    if is_left_out() {
        return;
    }
    let lab = Lab::start("", STATEFUL, Refused::Nothing);
    let mut events = command(&lab, "-E -o id -p udp").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    // It listens from some moment on: connections come and go until it has told of one.
    let poke = "-p udp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2";
    let is_heard = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_heard.load(Ordering::Relaxed) {
                ours(&lab, &format!("-I -t 90 {poke}"));
                ours(&lab, &format!("-D {poke}"));
            }
        });
        lines.next().unwrap().unwrap();
        is_heard.store(true, Ordering::Relaxed);
    });
    ours(&lab, "-I -t 90 -p udp -s 192.0.2.1 -d 192.0.2.2 --sport 7 --dport 8");
    ours(&lab, "-U -m 5 -p udp -s 192.0.2.1 --sport 7 --dport 8");
    let number = |line: &str| line.rsplit_once(" id=").unwrap().1.trim_end().parse::<u32>().unwrap();
    let listed = number(&String::from_utf8_lossy(&ours(&lab, "-L -p udp -o id").stdout));
    ours(&lab, "-D -p udp --sport 7");
    let told = lines.map(Result::unwrap).filter(|line| line.contains("sport=7 "));
    let three: Vec<String> = told.take(3).collect();
    events.kill().unwrap();
    events.wait().unwrap();
    for (line, kind) in three.iter().zip(["[NEW]", "[UPDATE]", "[DESTROY]"]) {
        assert!(line.contains(kind), "{three:?}");
        assert_eq!(number(line), listed, "{three:?}");
    }
}

fn real(lab: &Lab, words: &str) -> Output {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("{}a", lab.name), "conntrack"]).args(words.split(' '));
    command.output().unwrap()
}

fn ours(lab: &Lab, words: &str) -> Output {
    command(lab, words).output().unwrap()
}

fn command(lab: &Lab, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stateway"));
    command.arg("conntrack").args(words.split(' '));
    command.arg("--control").arg(lab.folder.path().join("control"));
    command
}

/// What it printed, in an order of its own, without what no two tables have in common.
fn printed(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    // conntrack opens a document and does not close it, or the reverse.
    let document = |line: &&str| !line.starts_with("<?xml") && !line.ends_with("conntrack>");
    let mut lines: Vec<String> = text.lines().filter(document).map(without_time).collect();
    lines.sort();
    lines
}

/// A line without timeout, number and the reader's own hold on the entry.
fn without_time(line: &str) -> String {
    let mut line = line.replace(" use=2", " use=1").replace("<use>2<", "<use>1<");
    for element in ["timeout", "id"] {
        if let Some((before, rest)) = line.split_once(&format!("<{element}>")) {
            let (_, behind) = rest.split_once('<').unwrap();
            line = format!("{before}<{element}>{behind}");
        }
    }
    let family = usize::from(line.starts_with("ipv")) * 2;
    let mut words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let is_listing = words.iter().any(|word| word.starts_with("src="));
    if is_listing {
        words.remove(family + 2);
    } else if words.get(1) == Some(&"-t") {
        words.remove(2);
    }
    // The number comes last; that of a ping stands with its addresses.
    if let Some(last) = words.last_mut().filter(|last| last.starts_with("id=")) {
        *last = "id=";
    }
    words.join(" ")
}

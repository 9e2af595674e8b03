//! `stateway watch` at a lab that is up: lines of packets, readers that stop or go, and every way it ends.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use super::lab_up::{Bench, sim_only};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stateway_runtime::control::protocol::{Command as Ask, Reply};
use stateway_runtime::control::{Client, place};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Stdio};

/// A watch that has begun: from here on it misses no packet.
struct Watch {
    child: Child,
    says: BufReader<ChildStderr>,
}

impl Watch {
    fn begin(bench: &Bench, args: &str) -> Self {
        let mut command = bench.command(&format!("watch {args}"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut says = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        assert_eq!(line, "watching; Ctrl-C ends it\n");
        Self { child, says }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Exit code, standard output, and what it said behind its first line.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut lines, mut said) = (String::new(), String::new());
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut lines).unwrap();
        }
        self.says.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), lines, said)
    }
}

/// Frames that the router of a lab has taken in.
fn frames(lab: &str) -> u64 {
    let replies = Client::connect(&place::of_lab(lab)).unwrap().call(&Ask::Interfaces).unwrap();
    let Some(Reply::Interfaces { interfaces }) = replies.into_iter().next() else { panic!("no interfaces") };
    interfaces.iter().map(|interface| interface.rx_frames).sum()
}

#[test]
fn a_packet_is_a_line_with_fate_state_ports_and_rule() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-watch");
    bench.well("lab up one");
    let dropped = Watch::begin(&bench, "--lab one --fate dropped --count 1 --explain");
    let answers = Watch::begin(&bench, "--lab t-watch --rule FORWARD/1 --state established --port b -c 1");
    let json =
        Watch::begin(&bench, "--lab one 192.0.2.1 192.0.2.0/24 -p icmp --in a --format json --count 1");
    assert_ne!(bench.run("lab exec one b ping -c 1 -W 1 192.0.2.1").0, Some(0));
    bench.well("lab exec one a ping -c 1 -W 10 192.0.2.2");
    let (code, lines, said) = dropped.end();
    assert_eq!((code, said.as_str()), (Some(0), "1 packet\n"));
    let (time, line) = lines.lines().next().unwrap().split_once(' ').unwrap();
    assert!(time.len() == 12 && time.split(':').count() == 3, "{time}");
    assert_eq!(line, "dropped   NEW         icmp echo-request 192.0.2.2 → 192.0.2.1  iif b policy");
    assert!(
        lines.contains("filter:FORWARD:rule:2  -i a -m conntrack --ctstate NEW -j ACCEPT  ← no: -i a"),
        "{lines}"
    );
    assert!(lines.ends_with("TRACE: filter:FORWARD:policy  verdict DROP\n"), "{lines}");
    let (_, lines, _) = answers.end();
    assert!(
        lines.ends_with(
            " forwarded ESTABLISHED icmp echo-reply 192.0.2.2 → 192.0.2.1  iif b oif a ct direction reply rule filter/FORWARD/1\n"
        ),
        "{lines}"
    );
    let (_, lines, _) = json.end();
    let packet: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(
        (&packet["in"], &packet["out"][0], &packet["rule"]),
        (&"a".into(), &"b".into(), &"filter/FORWARD/2".into())
    );
    for (args, words) in [
        ("--rule FORWARD/9", "did you mean `filter/FORWARD/1`?"),
        ("--port c", "no port `c`"),
        ("t-watch", "a lab goes behind `--lab`"),
        ("--fate eaten", "possible values"),
    ] {
        bench.refused(&format!("watch --lab one {args}"), 2, &[words]);
    }
}

#[test]
fn a_reader_that_stops_is_told_how_many_packets_it_missed_and_delays_none() {
    const PINGS: u64 = 8000;
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-slow");
    bench.well("lab up one");
    let before = frames("t-slow");
    let stopped = Watch::begin(&bench, "--lab one --rate 0 --format json");
    stopped.signal(Signal::STOP);
    // More than socket and queue hold. A router that waited would answer none of the last ones.
    bench.well(&format!("lab exec one a ping -q -f -c {PINGS} 192.0.2.2"));
    bench.well("lab exec one a ping -c 1 -W 10 192.0.2.2");
    let after = frames("t-slow");
    stopped.signal(Signal::INT);
    stopped.signal(Signal::CONT);
    let (code, lines, said) = stopped.end();
    assert_eq!(code, Some(0), "{said}");
    let told: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lost: u64 = told.iter().filter_map(|line| line["lost"].as_u64()).sum();
    let seen = told.iter().filter(|line| line.get("fate").is_some()).count() as u64;
    assert!(lost > 0 && seen > 0, "{seen} seen, {lost} lost");
    assert!(seen + lost >= after - before, "{seen} seen, {lost} lost of {}", after - before);
    assert!(said.starts_with(&format!("{seen} packets, {lost} lost (`--rate`")), "{said}");
}

#[test]
fn a_watch_ends_with_its_reader_its_router_or_its_user() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-ends");
    bench.well("lab up one");
    // No packet comes: it must not take one to notice.
    let mut unread = Watch::begin(&bench, "--lab one -p sctp");
    drop(unread.child.stdout.take());
    assert_eq!(unread.end().0, Some(0));
    let interrupted = Watch::begin(&bench, "--lab one -p sctp");
    interrupted.signal(Signal::INT);
    assert_eq!(interrupted.end(), (Some(0), String::new(), "0 packets\n".into()));
    let (open, counting) =
        (Watch::begin(&bench, "--lab one -p sctp"), Watch::begin(&bench, "--lab one -p sctp -c 1"));
    bench.well("lab down one");
    assert_eq!(open.end(), (Some(0), String::new(), "0 packets\nthe router has ended\n".into()));
    assert_eq!(counting.end().0, Some(1), "it was to wait for a packet");
    bench.refused("watch --lab one", 2, &["is not up", "`stateway lab up one`"]);
}

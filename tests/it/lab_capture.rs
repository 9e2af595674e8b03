//! `lab capture`: what is in it while it runs, how it ends, and what a replay makes of it.

use crate::lab_up::{Bench, sim_only};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};

/// A capture under way.
struct Capture {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Capture {
    /// Begins, and waits until every port is listened to.
    fn begin(bench: &Bench, args: &str, stdout: Stdio) -> Self {
        let mut child = bench.command(args).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("capturing") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it takes root, namespaces and tcpdump");
        }
        Self { child, said }
    }

    /// Presses Ctrl-C. Gives back what is said then.
    fn interrupt(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{said}");
        said
    }
}

/// The comments of the frames of a capture, and which way each frame went.
fn frames(capture: impl Read) -> Vec<(Option<String>, u32)> {
    let mut reader = PcapNgReader::new(capture).unwrap();
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap() else { continue };
        let (mut comment, mut flags) = (None, 0);
        for option in packet.options {
            match option {
                EnhancedPacketOption::Comment(text) => comment = Some(text.into_owned()),
                EnhancedPacketOption::Flags(is) => flags = is,
                _ => {}
            }
        }
        frames.push((comment, flags));
    }
    frames
}

/// A verdict of a replay in the words of a capture's comment.
fn comment_of(verdict: &serde_json::Value) -> String {
    let word = |name: &str| verdict[name].as_str();
    let out: Vec<&str> =
        verdict["out"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    let to = if out.is_empty() { String::new() } else { format!(" to {}", out.join(", ")) };
    let by = word("rule").map(|rule| format!(" by {rule}")).unwrap_or_default();
    let why = word("reason").map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{}, {}{to}{by}{why}", word("ctstate").unwrap_or("no state"), word("fate").unwrap())
}

/// Copies a lab of this repository under a name of its own.
fn copy(bench: &Bench, lab: &str, name: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(lab);
    let text = fs::read_to_string(from.join("lab.yaml")).unwrap();
    let text = text.replace(&format!("\nname: {lab}\n"), &format!("\nname: {name}\n"));
    assert!(text.contains(name));
    fs::create_dir_all(bench.at(lab)).unwrap();
    fs::write(bench.at(lab).join("lab.yaml"), text).unwrap();
}

// Every lab of topologies/ but these: `masquerade`, where chance chooses ports; `path-mtu` and `nat-errors`, where segments that
// a card is to cut are shorter than the link, which no capture tells; `untracked`, whose rules change on the way; and
// `trusted-hosts-300`, which is `trusted-hosts-30` with more hosts.

#[test]
fn captures_of_bridged_labs_replayed_give_the_fates_that_the_router_gave() {
    captures_of(
        "t-bridged",
        &["article", "five-states", "icmp-related", "invalid", "open-ports", "tcp-flags"],
    );
}

#[test]
fn captures_of_labs_with_many_ports_replayed_give_the_fates_that_the_router_gave() {
    captures_of("t-ports", &["other-ports", "trusted-hosts-30", "two-networks"]);
}

#[test]
fn captures_of_labs_with_helpers_replayed_give_the_fates_that_the_router_gave() {
    captures_of("t-helpers", &["ftp-related", "ftp-without-helper", "tftp-related"]);
}

#[test]
fn captures_of_labs_that_translate_replayed_give_the_fates_that_the_router_gave() {
    captures_of("t-translate", &["docker-like", "ftp-nat", "port-forward"]);
}

/// Captures each lab under this name while its tests run, and compares frame by frame what a replay says of it.
fn captures_of(name: &'static str, labs: &[&str]) {
    if sim_only() {
        return;
    }
    for lab in labs {
        let bench = Bench::new(name);
        copy(&bench, lab, name);
        bench.well(&format!("lab up {lab}"));
        let capture = Capture::begin(&bench, &format!("lab capture {name} -w all.pcapng"), Stdio::null());
        bench.well(&format!("lab test {lab} --on live"));
        assert_eq!(capture.interrupt(), "", "{lab}: no frame and no verdict is lost");
        bench.well(&format!("lab down {name}"));
        let captured = frames(fs::File::open(bench.at("all.pcapng")).unwrap());
        let (mut compared, mut waited) = (0, 0);
        for line in bench.well(&format!("replay all.pcapng --lab {lab} --format json")).lines() {
            let verdict: serde_json::Value = serde_json::from_str(line).unwrap();
            let number = verdict["frame"].as_u64().unwrap();
            // ARP is told by neither.
            let Some(live) = &captured[number as usize - 1].0 else { continue };
            let replayed = comment_of(&verdict);
            if let Some(rule) =
                live.strip_suffix(" (neighbour-pending)").and_then(|live| live.split_once("queued"))
            {
                // It waited for its neighbour, which is not in a capture to be waited for.
                assert!(
                    replayed.starts_with(&format!("{}forwarded to ", rule.0)),
                    "{lab}: frame {number}: {replayed}"
                );
                assert!(replayed.ends_with(rule.1), "{lab}: frame {number}: {replayed}");
                waited += 1;
                continue;
            }
            assert_eq!(*live, replayed, "{lab}: frame {number}");
            compared += 1;
        }
        assert!(
            captured.iter().all(|(_, flags)| matches!(flags, 1 | 2)),
            "{lab}: each frame says which way it went"
        );
        let told = captured.iter().filter(|(comment, flags)| *flags == 1 && comment.is_some()).count();
        assert!(
            compared > 0 && compared + waited == told,
            "{lab}: {compared} of {told} frames, {waited} waited"
        );
    }
}

#[test]
fn a_capture_is_read_as_it_goes_and_whole_when_it_ends() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-capturing");
    bench.well("lab up one");
    let ping = || bench.well("lab exec one a ping -c 3 -i 0.01 -W 10 192.0.2.2");

    // A program that reads along has every frame before the capture ends.
    let mut piped = Capture::begin(&bench, "lab capture one b -w -", Stdio::piped());
    ping();
    let mut reader = PcapNgReader::new(piped.child.stdout.take().unwrap()).unwrap();
    let mut seen = 0;
    while seen < 6 {
        let Some(Ok(Block::EnhancedPacket(packet))) = reader.next_block() else { continue };
        let is_icmp = packet.data[12..14] == [8, 0] && packet.data[23] == 1;
        seen += usize::from(is_icmp);
    }
    assert!(piped.interrupt().starts_with("-: "), "what is said goes beside the capture");

    // One that reads no longer ends it.
    let mut piped = Capture::begin(&bench, "lab capture one -w -", Stdio::piped());
    drop(piped.child.stdout.take());
    assert_eq!(piped.child.wait().unwrap().code(), Some(0));

    // A file for each port, whole though the program that writes it is ended.
    let capture = Capture::begin(&bench, "lab capture one -w folder", Stdio::null());
    ping();
    kill_process(Pid::from_child(&capture.child), Signal::TERM).unwrap();
    capture.interrupt();
    for port in ["a", "b"] {
        let file = frames(fs::File::open(bench.at(&format!("folder/{port}.pcapng"))).unwrap());
        let told = |(comment, flags): &&(Option<String>, u32)| comment.is_some() && *flags == 1;
        assert!(file.iter().filter(told).count() >= 3, "{port}: {file:?}");
    }
    // Both of them are judged as one.
    let replay = "replay --lab one --capture a=folder/a.pcapng b=folder/b.pcapng --format json";
    assert!(bench.well(replay).lines().filter(|line| line.contains("ESTABLISHED")).count() >= 5);

    bench.refused("lab capture one -w one.pcap", 2, &["what is written is pcapng", "call it `one.pcapng`"]);
    bench.refused("lab capture one c", 2, &["no port `c`"]);
}
